"""Labelling of a corpus: which pair comes next, the labels so far, and the F1 of the model on them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from qpairs import metrics
from qpairs.data.pairs import pairs_from_texts
from qpairs.data.splits import question_components
from qpairs.models.base import Model
from qpairs.retrieval.index import Index
from qpairs.serving.label_file import LabelFile, Labels, Row
from qpairs.serving.label_pairs import Choice, Texts, pair_key, pairs_to_label

Answer = Literal["yes", "no", "skip"]

MIN_LABELS, MIN_OF_EACH = 10, 3  # for an interval of F1


@dataclass(frozen=True)
class Pair:
    """Two questions."""

    question1: str
    question2: str


@dataclass(frozen=True)
class LabelRequest:
    """A person's answer: whether both questions ask the same; `choice` selects the next pair."""

    question1: str
    question2: str
    answer: Answer
    choice: Choice = "threshold"


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
class Figure:
    """F1 of the model at its threshold on n labelled pairs, with its 95 % interval by bootstrap over components."""

    n: int
    f1: float
    low: float
    high: float


@dataclass(frozen=True)
class State:
    """The state of the labelling.

    Attributes:
        pair: to label next; None if none is left.
        left: pairs of this choice without an answer.
        duplicates, different, skipped: answers so far, of both choices.
        figures: F1 after 10, 20, 40, ... of the labels that count for this choice, and after all of them; four times
            as many labels halve the interval.
        missing: what is needed for the first figure; '' if there is one.
        more: labels that would halve the interval.
        last: the last answer.
    """

    pair: Pair | None
    left: int
    duplicates: int
    different: int
    skipped: int
    figures: list[Figure]
    missing: str
    more: int
    last: LastLabel | None


class Labelling:
    """The pairs to label and the labels so far, for the threads of one process."""

    def __init__(self, file: LabelFile, model: Model, pairs: Mapping[Choice, Mapping[Texts, Texts]]) -> None:
        self._file = file
        self._model = model
        self._setting = model.verdict.pair
        self._pairs = pairs
        self._cosines: dict[Texts, float] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | Path, model: Model, index: Index, *, seed: int = 0) -> Labelling:
        """Starts to label the pairs of an index, or continues with the labels in the file.

        Args:
            path: CSV file of the labels; skipped pairs are kept in `*.skipped.csv` beside it.
            model: that made the index.
            index: the corpus.
            seed: of the sample of questions.

        Raises:
            UserError: the file does not hold labels or cannot be written, or the model does not fit the index.
        """
        labelling = cls(LabelFile(Path(path)), model, pairs_to_label(index, model, seed))
        labelling.state()
        return labelling

    @property
    def path(self) -> Path:
        """The file of the labels."""
        return self._file.path

    def state(self, choice: Choice = "threshold") -> State:
        """The labels so far, and the next pair.

        Raises:
            UserError: the files cannot be read.
        """
        with self._lock:
            return self._state(choice)

    def answer(self, request: LabelRequest) -> State:
        """Stores an answer; it is on the disk when this returns.

        Raises:
            LookupError: the pair is unknown or has an answer.
            UserError: the files cannot be read or written.
        """
        key = pair_key((request.question1, request.question2))
        pair = next((pairs[key] for pairs in self._pairs.values() if key in pairs), None)
        with self._lock:
            labels = self._file.read()
            if pair is None or key in map(pair_key, labels.labelled + labels.skipped):
                raise LookupError("this pair does not wait for an answer; load the next one")
            if request.answer == "skip":
                self._file.add_skip(labels, pair)
            else:
                self._file.add_label(labels, pair, int(request.answer == "yes"))
            return self._state(request.choice)

    def undo(self, choice: Choice = "threshold") -> State:
        """Removes the last answer.

        Raises:
            LookupError: there is none.
            UserError: the files cannot be read or written.
        """
        with self._lock:
            self._file.remove_last(self._file.read())
            return self._state(choice)

    def _state(self, choice: Choice) -> State:
        labels = self._file.read()
        pairs, answered = self._pairs[choice], {pair_key(row) for row in labels.labelled + labels.skipped}
        waiting = [pair for key, pair in pairs.items() if key not in answered]
        counted = labels.labelled
        if choice == "random":  # the pairs up to the first gap are a random sample
            drawn = set(itertools.takewhile(answered.__contains__, pairs))
            counted = [row for row in counted if pair_key(row) in drawn]
        figures = self._figures(counted)
        same, same_counted = (sum(label for *_, label in rows) for rows in (labels.labelled, counted))
        missing = (
            f"F1 takes {MIN_LABELS} answers or more, {MIN_OF_EACH} of each kind; so far there are {len(counted)}: "
            f"{same_counted} the same, {len(counted) - same_counted} different"
        )
        return State(
            pair=Pair(*waiting[0]) if waiting else None,
            left=len(waiting),
            duplicates=same,
            different=len(labels.labelled) - same,
            skipped=len(labels.skipped),
            figures=figures,
            missing="" if figures else missing,
            more=metrics.pairs_to_halve(len(counted)),
            last=self._last(labels),
        )

    def _last(self, labels: Labels) -> LastLabel | None:
        rows = labels.skipped if labels.last_is_skip else labels.labelled
        if not rows:
            return None
        one, other, label = rows[-1]
        similarity = self._similarity([(one, other)])[0]
        return LastLabel(
            one,
            other,
            answer="skip" if labels.last_is_skip else "yes" if label else "no",
            similarity=similarity,
            probability=float(self._setting.probability(similarity)),
            duplicate=bool(self._setting.decide(similarity)),
        )

    def _similarity(self, pairs: Sequence[Texts]) -> list[float]:
        """The cosine of each pair."""
        new = {pair_key(pair): pair for pair in pairs if pair_key(pair) not in self._cosines}
        if new:
            one, other = (self._model.encode(texts) for texts in zip(*new.values(), strict=True))
            self._cosines |= dict(zip(new, np.einsum("ij,ij->i", one, other).clip(-1, 1).tolist(), strict=True))
        return [self._cosines[pair_key(pair)] for pair in pairs]

    def _figures(self, rows: Sequence[Row]) -> list[Figure]:
        first, second, labels = zip(*rows, strict=True) if rows else ((), (), ())
        pairs = pairs_from_texts(first, second, labels)
        groups = question_components(pairs)[pairs.left]
        verdict = self._setting.decide(self._similarity([row[:2] for row in rows]))
        figures = []
        for n in [*(size for k in range(32) if (size := MIN_LABELS << k) < len(rows)), len(rows)]:
            duplicates = sum(labels[:n])
            if n < MIN_LABELS or min(duplicates, n - duplicates) < MIN_OF_EACH:
                continue
            low, high = metrics.bootstrap_interval(verdict[:n], labels[:n], groups[:n], 0.5)["f1"]
            figures.append(Figure(n, metrics.confusion(verdict[:n], labels[:n], 0.5).f1, low, high))
        return figures
