"""What scores mean for the searches of a service while questions are added and deleted."""

from __future__ import annotations

import logging
import threading

from qpairs.models.base import Model
from qpairs.models.shortened import verdict_at
from qpairs.models.two_stages import first_stage
from qpairs.models.verdict import Setting
from qpairs.retrieval.index import Index
from qpairs.retrieval.search import setting_for

log = logging.getLogger(__name__)

CHANGE = 0.1  # of the number of questions, from which on the setting is made anew


class CurrentSetting:
    """The setting for searches in an index; recomputed by its own thread when the size of the index has changed.

    Attributes:
        setting: for about as many questions as there are.
    """

    def __init__(self, index: Index, model: Model) -> None:
        """Computes the setting for the current questions."""
        self._index, self._model = index, model
        self._made_for = self._questions = len(index.questions)
        verdict = verdict_at(first_stage(model), index.manifest.dimension)
        self._fixed = verdict.densities is None  # the same for any number of questions
        self._worker: threading.Thread | None = None
        self.setting: Setting = setting_for(index, model, self._made_for)

    def update(self, questions: int | None = None) -> None:
        """Starts to recompute the setting if that is due, and returns at once.

        Args:
            questions: current number; without it, that of the last call.
        """
        self._questions = self._questions if questions is None else questions
        if self._due() and not (self._worker and self._worker.is_alive()):
            self._worker = threading.Thread(target=self._refresh, daemon=True, name="setting")
            self._worker.start()

    def wait(self, seconds: float | None = None) -> None:
        """Returns when no setting is being computed, or after some seconds."""
        if self._worker:
            self._worker.join(seconds)

    def _due(self) -> bool:
        return not self._fixed and abs(self._questions - self._made_for) > CHANGE * self._made_for

    def _refresh(self) -> None:
        while self._due():
            questions = self._questions
            try:
                self.setting = setting_for(self._index, self._model, questions)
            except Exception:  # the old one stays, and the service runs on
                log.exception("the setting for %d questions", questions)
            self._made_for = questions
