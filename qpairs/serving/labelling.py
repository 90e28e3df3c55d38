"""Labelling of a corpus: which pair comes next, the labels so far, and what they say about the model."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.data.identity import pair_key
from qpairs.models.base import Model
from qpairs.models.shortened import shorten
from qpairs.models.verdict import Setting
from qpairs.retrieval.index import Index
from qpairs.retrieval.search import corpus_setting
from qpairs.serving.label_figures import Figure, Measure, f1_figures, precision_figures
from qpairs.serving.label_file import LabelFile, Labels, Row
from qpairs.serving.label_pairs import Candidates, Choice, mark_drawn, pairs_to_label
from qpairs.serving.label_texts import Texts

Answer = Literal["yes", "no", "skip"]


@dataclass(frozen=True)
class Pair:
    """Two questions."""

    question1: str
    question2: str


@dataclass(frozen=True)
class LabelRequest:
    """A person's answer: whether both questions ask the same; `choice` selected the pair, and selects the next.

    `annotator` is the person's name; without it, the name set for the service.
    """

    question1: str
    question2: str
    answer: Answer
    choice: Choice = "stratified"
    annotator: str | None = None


@dataclass(frozen=True)
class LastLabel:
    """The last answer, and the model's verdict on the pair, which is not shown earlier so as not to bias the answer."""

    question1: str
    question2: str
    answer: Answer
    similarity: float
    probability: float
    duplicate: bool


@dataclass(frozen=True)
class State:
    """The state of the labelling.

    Attributes:
        pair: to label next; None if none is left.
        left: pairs of this choice without an answer.
        duplicates, different, skipped: answers so far, of all choices.
        measure: what the figures measure: the precision of the model over all pairs of the corpus, from stratified
            pairs; or its F1 on pairs such as those of the choice.
        figures: after 10, 20, 40, ... of the labels that count for this choice, and after all of them; four times as
            many labels halve the interval.
        missing: what is needed for the first figure; '' if there is one.
        more: labels that would halve the interval.
        last: the last answer.
        annotator: whose answers these are; those of others do not count among them.
    """

    pair: Pair | None
    left: int
    duplicates: int
    different: int
    skipped: int
    measure: Measure
    figures: list[Figure]
    missing: str
    more: int
    last: LastLabel | None
    annotator: str = field(default="", compare=False)


class Labelling:
    """The pairs to label and the labels so far, for the threads of one process."""

    def __init__(
        self, file: LabelFile, model: Model, setting: Setting, pairs: Mapping[Choice, Candidates], dimension: int
    ) -> None:
        self._file = file
        self._model = model
        self._setting = setting
        self._pairs = pairs
        self._dimension = dimension  # of the vectors that the setting judges
        self._cosines: dict[Texts, float] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | Path | LabelFile, model: Model, index: Index, *, seed: int = 0) -> Labelling:
        """Starts to label the pairs of an index, or continues with the labels in the file.

        Args:
            path: CSV file of the labels, or one opened for a named annotator: labels of others then stay, and do not
                count as answers. Skipped pairs are kept in `*.skipped.csv` next to it.
            model: that made the index.
            index: the corpus.
            seed: of the random choices.

        Raises:
            UserError: the file does not hold labels or cannot be written, or the model does not fit the index.
        """
        file = path if isinstance(path, LabelFile) else LabelFile(Path(path))
        pairs = pairs_to_label(index, model, seed)
        labelling = cls(file, model, corpus_setting(index, model), pairs, index.manifest.dimension)
        labelling.state()
        return labelling

    @property
    def annotator(self) -> str:
        """The annotator whose labels are added, if a request names nobody else."""
        return self._file.annotator

    @property
    def path(self) -> Path:
        """The file of the labels."""
        return self._file.path

    def state(self, choice: Choice = "stratified", annotator: str | None = None) -> State:
        """The labels so far of an annotator, by default that of the file, and the next pair.

        Raises:
            UserError: the files cannot be read, or the name is not valid.
        """
        with self._lock:
            return self._state(choice, self._file_of(annotator))

    def answer(self, request: LabelRequest) -> State:
        """Stores an answer; it is on the disk when this returns.

        Raises:
            LookupError: the pair is unknown or has an answer.
            UserError: the files cannot be read or written.
        """
        if request.answer not in get_args(Answer):
            raise UserError(f"answer: {request.answer!r} is not one of {', '.join(get_args(Answer))}")
        key = pair_key((request.question1, request.question2))
        choices = self._pairs[request.choice], *self._pairs.values()
        pair = next((pairs[key] for pairs in choices if key in pairs), None)
        file = self._file_of(request.annotator)
        with self._lock, file.held():
            labels = file.read()
            if pair is None or key in map(pair_key, [*labels.labelled, *labels.skipped]):
                raise LookupError("this pair is not waiting for an answer; load the next one")
            if request.answer == "skip":
                file.add_skip(labels, pair[:2])
            else:
                rows = [*labels.labelled, Row(*pair[:2], int(request.answer == "yes"))]
                skipped = map(pair_key, labels.skipped)
                rows = mark_drawn(rows, request.choice, self._pairs[request.choice], skipped)
                file.write_labels(labels, rows)
            return self._state(request.choice, file)

    def judge_by(self, setting: Setting) -> None:
        """Replaces the setting that decides on pairs, for example by one fitted to the labels."""
        with self._lock:
            self._setting = setting

    def undo(self, choice: Choice = "stratified", annotator: str | None = None) -> State:
        """Removes the last answer of an annotator.

        Raises:
            LookupError: there is none.
            UserError: the files cannot be read or written.
        """
        file = self._file_of(annotator)
        with self._lock, file.held():
            file.remove_last(file.read())
            return self._state(choice, file)

    def _file_of(self, annotator: str | None) -> LabelFile:
        return self._file if annotator is None else self._file.of(annotator)

    def _state(self, choice: Choice, file: LabelFile) -> State:
        labels = file.read()
        answered = {pair_key(row) for row in [*labels.labelled, *labels.skipped]}
        waiting = [pair for key, pair in self._pairs[choice].items() if key not in answered]
        counted = self._counted(choice, labels.labelled, answered)
        verdict = self._setting.decide(self._similarity(counted))
        figures, missing = (precision_figures if choice == "stratified" else f1_figures)(counted, verdict)
        same = sum(row.label for row in labels.labelled)
        return State(
            pair=Pair(*waiting[0][:2]) if waiting else None,
            left=len(waiting),
            duplicates=same,
            different=len(labels.labelled) - same,
            skipped=len(labels.skipped),
            measure="precision" if choice == "stratified" else "F1",
            figures=figures,
            missing=missing,
            more=metrics.pairs_to_halve(len(counted)),
            last=self._last(labels),
            annotator=file.annotator,
        )

    def _counted(self, choice: Choice, rows: Sequence[Row], answered: set[Texts]) -> list[Row]:
        """The labels that count for the figure of a choice."""
        pairs = self._pairs[choice]
        if choice == "stratified":
            return [row for row in rows if row.drawn == choice and not math.isnan(row.probability)]
        if choice == "random":  # the pairs up to the first gap are a random sample
            drawn = set(itertools.takewhile(answered.__contains__, pairs))
            return [row for row in rows if pair_key(row) in drawn]
        return [row for row in rows if row.drawn != "stratified" or pair_key(row) in pairs]

    def _last(self, labels: Labels) -> LastLabel | None:
        rows = labels.skipped if labels.last_is_skip else labels.labelled
        if not rows:
            return None
        one, other, label = rows[-1][:3]
        similarity = self._similarity([(one, other)])[0]
        return LastLabel(
            one,
            other,
            answer="skip" if labels.last_is_skip else "yes" if label else "no",
            similarity=similarity,
            probability=float(self._setting.probability(similarity)),
            duplicate=bool(self._setting.decide(similarity)),
        )

    def _similarity(self, pairs: Sequence[Sequence[Any]]) -> list[float]:
        """The cosine of each pair, from vectors cut to the length of the index."""
        new = {pair_key(pair): pair[:2] for pair in pairs if pair_key(pair) not in self._cosines}
        if new:
            one, other = (
                shorten(self._model.encode(texts), self._dimension) for texts in zip(*new.values(), strict=True)
            )
            self._cosines |= dict(zip(new, np.einsum("ij,ij->i", one, other).clip(-1, 1).tolist(), strict=True))
        return [self._cosines[pair_key(pair)] for pair in pairs]
