"""The verdict of a model, refitted to a corpus as labels arrive, and what is then known about the corpus."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from qpairs.core.exceptions import UserError
from qpairs.data.identity import distinct_texts
from qpairs.data.labels import read_labels
from qpairs.evaluation.calibrate_corpus import MORE, CorpusFit, CountedCorpus, fit_corpus
from qpairs.metrics import ScoreCounts
from qpairs.metrics.intervals import Interval
from qpairs.models.base import Model
from qpairs.models.two_stages import first_stage
from qpairs.retrieval.index import Index
from qpairs.serving.labelling import Labelling


@dataclass(frozen=True)
class Known:
    """What is known about the duplicates in a corpus, from a model and the labels so far.

    Attributes:
        pairs: called duplicates.
        threshold: the lowest similarity of a duplicate. precision, precision_interval: expected among all pairs that
        are called duplicates; 95 %. recall, recall_interval: expected of all pairs of duplicates; 95 %.
        basis: what this is based on, in words.
        labels: that it is based on.
        more: further labels whose effect is predicted. width, width_with_more: of the interval of the precision, now
        and with so many more labels.
    """

    pairs: float
    threshold: float
    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval
    basis: str
    labels: int
    more: int
    width: float
    width_with_more: float


def known(fit: CorpusFit) -> Known:
    """What a fit says about its corpus."""
    after, more = fit.after, fit.with_more
    return Known(
        pairs=after.pairs,
        threshold=after.threshold,
        precision=after.precision,
        precision_interval=after.precision_interval,
        recall=after.recall,
        recall_interval=after.recall_interval,
        basis=fit.setting.basis,
        labels=sum(fit.used.values()),
        more=MORE,
        width=after.precision_interval[1] - after.precision_interval[0],
        width_with_more=more.precision_interval[1] - more.precision_interval[0],
    )


def count_index(model: Model, index: Index) -> CountedCorpus:
    """An index as a corpus to fit a verdict to: its questions, and the counted scores of their pairs.

    Args:
        model: that made it.
        index: with the vectors of one tower.

    Raises:
        UserError: the scores of its pairs are not known, or its vectors are shortened.
    """
    encoder = first_stage(model)
    if index.manifest.dimension != encoder.dimension:
        raise UserError(
            f"{index.folder}: its vectors are shortened; fit their verdict with qpairs calibrate --corpus, and serve "
            "the model that it writes"
        )
    rows = list(index.questions.texts())
    texts = [rows[row] for row in distinct_texts(rows)[1]]
    if index.manifest.scores is None:
        raise UserError(f"{index.folder}: built by an older version, without the scores of its pairs; rebuild it")
    counts = ScoreCounts.from_dict(dict(index.manifest.scores)).scaled(max(2, len(texts)))
    return CountedCorpus(model, texts, {encoder.dimension: counts})


class Refit:
    """A verdict that is refitted when the labels in a file have changed; for several threads."""

    def __init__(
        self, count: Callable[[], CountedCorpus], labelling: Labelling, changes: Callable[[], int] = lambda: 0
    ) -> None:
        """Fits nothing yet.

        Args:
            count: counts the corpus.
            labelling: has the labels, and decides on pairs with the verdict.
            changes: of the corpus so far; after a change it is counted again.
        """
        self._count, self._labelling, self._changes = count, labelling, changes
        self._lock = threading.RLock()
        self._counted: tuple[int, CountedCorpus] | None = None  # with the changes before it
        self._fitted_to: tuple[CountedCorpus, bytes] | None = None  # with the rows of the file of labels
        self._fit: CorpusFit | None = None

    @property
    def fit(self) -> CorpusFit:
        """The verdict of the last fit to labels, or to the corpus alone if there is none yet.

        Raises:
            UserError: the verdict of the model cannot be fitted.
        """
        with self._lock:
            self._fit = self._fit or fit_corpus(self._corpus())
            return self._fit

    def refit(self) -> bool:
        """Fits to all labels if they or the corpus may have changed, and decides on pairs with the result.

        Returns:
            whether it was fitted.

        Raises:
            UserError: the labels cannot be read, or none can be used, or the verdict of the model cannot be fitted.
        """
        with self._lock:
            counted = self._corpus()
            rows = self._labelling.path.read_bytes().partition(b"\n")[2].strip()
            if self._fitted_to and self._fitted_to[0] is counted and self._fitted_to[1] == rows:
                return False
            self._fit = fit_corpus(counted, read_labels(self._labelling.path) if rows else None)
            self._fitted_to = counted, rows
            self._labelling.judge_by(self._fit.setting)
            return True

    def _corpus(self) -> CountedCorpus:
        changes = self._changes()
        if not self._counted or self._counted[0] != changes:
            self._counted = changes, self._count()
        return self._counted[1]
