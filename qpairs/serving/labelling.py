"""A desk for labelling: pairs of a corpus to judge, the answers, kept on disk, and what they say of the model.

A pair is a question of the corpus and one that the index finds near it. The answers are a file of pairs that training
and calibration read; what was skipped lies in another beside it. Both are read anew for each request and replaced
whole, so that an answer that was acknowledged is on the disk.
"""

from __future__ import annotations

import csv
import hashlib
import heapq
import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_file
from qpairs.data.pairs import pairs_from_texts
from qpairs.data.splits import question_components
from qpairs.models.base import Model
from qpairs.retrieval.dedupe import require_one_tower
from qpairs.retrieval.index import Index
from qpairs.retrieval.search import search

if TYPE_CHECKING:
    from fastapi import APIRouter

Choice = Literal["threshold", "random"]
Given = Literal["yes", "no", "skip"]
Texts = tuple[str, str]
Row = tuple[str, str, int]

LABELS = ("question1", "question2", "is_duplicate")
SKIPPED = ("question1", "question2", "after")  # how many labels there were when it was skipped
SAMPLE = 1000  # questions whose neighbours are looked up
NEIGHBOURS = 5  # of each
LEAST, LEAST_OF_EACH = 10, 3  # labels that an interval of F1 takes


@dataclass(frozen=True)
class Pair:
    """Two questions."""

    question1: str
    question2: str


@dataclass(frozen=True)
class Answer:
    """What a person says of a pair: whether both ask the same; `choice` is how the next one is chosen."""

    question1: str
    question2: str
    answer: Given
    choice: Choice = "threshold"


@dataclass(frozen=True)
class Judged:
    """The answer given last, and what the model says of the pair; that is not told before, lest it sway the answer."""

    question1: str
    question2: str
    answer: Given
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
    """Where the labelling stands.

    Attributes:
        pair: what to judge next; None where all are answered.
        left: pairs of this choice that are not answered.
        duplicates, different, skipped: answers so far, of either choice.
        figures: F1 after 10, 20, 40, ... of the labels that count for this choice, and after all of them; an interval
            halves with four times as many.
        missing: in words, what it takes for the first figure; '' where there is one.
        more: labels that would halve the interval.
        last: the answer given last.
    """

    pair: Pair | None
    left: int
    duplicates: int
    different: int
    skipped: int
    figures: list[Figure]
    missing: str
    more: int
    last: Judged | None


# ---------------------------------------------------------------------- which pairs


def pairs_to_judge(index: Index, model: Model, seed: int = 0) -> dict[Choice, dict[Texts, Texts]]:
    """Questions of a corpus, each with neighbours of it, in the order in which they are asked, by what makes them one.

    By `threshold`, those nearest the model's threshold come first, where an answer teaches most. By `random`, they are
    a random sample of the questions, each with its nearest neighbour, which is what a search shows first.

    The sample is that of the least hashes, so that questions that come or go hardly change it.

    Args:
        index: the corpus.
        model: that made the index.
        seed: of the sample.

    Raises:
        UserError: the index is of another model, or the model has two towers.
    """
    require_one_tower(model)
    texts = {_plain(text): _clean(text) for text in index.questions.texts()}
    key = seed.to_bytes(8, "big")
    chosen = heapq.nsmallest(SAMPLE, texts, key=lambda plain: hashlib.blake2b(plain.encode(), key=key).digest())
    nearest: dict[Texts, Texts] = {}
    threshold = model.verdict.pair.threshold
    apart = list[tuple[float, str, str]]()
    for plain, answers in zip(
        chosen, search(index, model, [texts[plain] for plain in chosen], 1 + NEIGHBOURS), strict=True
    ):
        hits = [answer.hit for answer in answers if _plain(answer.hit.text) != plain]
        found = [(texts[plain], _clean(hit.text)) for hit in hits]
        nearest |= {_key(pair): pair for pair in found[:1] if _key(pair) not in nearest}
        apart += [(abs(hit.similarity - threshold), *pair) for hit, pair in zip(hits, found, strict=True)]
    near: dict[Texts, Texts] = {}
    for _, *pair in sorted(apart):
        near.setdefault(_key(pair), (pair[0], pair[1]))
    return {"threshold": near, "random": nearest}


def _clean(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    return _clean(text.casefold())


def _key(pair: Sequence[Any]) -> Texts:
    """What two rows of one pair have in common: the questions in either order, whatever their case."""
    one, other = sorted((_plain(pair[0]), _plain(pair[1])))
    return one, other


# ---------------------------------------------------------------------- the desk


class Desk:
    """The pairs to judge, and the files of the answers so far, for the threads of one process."""

    def __init__(self, path: Path, model: Model, pairs: Mapping[Choice, Mapping[Texts, Texts]]) -> None:
        self.path = path
        self._skips = path.with_suffix(".skipped.csv")
        self._model = model
        self._pairs = pairs
        self._cosines: dict[Texts, float] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | Path, model: Model, index: Index, *, seed: int = 0) -> Desk:
        """A desk for the pairs of an index; it goes on with the answers that are in the file.

        Args:
            path: of the labels, a CSV file; what is skipped is kept in `*.skipped.csv` beside it.
            model: that made the index.
            index: the corpus.
            seed: of the sample of questions.

        Raises:
            UserError: the file is none of labels or cannot be written, or the model cannot judge the index.
        """
        path = Path(path)
        if not path.exists():
            _write(path, LABELS, [])
        _read(path, LABELS)
        desk = cls(path, model, pairs_to_judge(index, model, seed))
        desk.state()
        return desk

    def state(self, choice: Choice = "threshold") -> State:
        """Where the labelling stands, and what is next.

        Raises:
            UserError: the files cannot be read.
        """
        with self._lock:
            return self._state(choice)

    def answer(self, given: Answer) -> State:
        """Takes an answer; it is on the disk when this returns.

        Raises:
            LookupError: the pair does not wait for an answer.
            UserError: the files cannot be read or written.
        """
        key = _key((given.question1, given.question2))
        pair = next((pairs[key] for pairs in self._pairs.values() if key in pairs), None)
        with self._lock:
            labels, skipped = self._rows()
            if pair is None or key in map(_key, labels + skipped):
                raise LookupError("this pair does not wait for an answer; load the next one")
            if given.answer == "skip":
                _write(self._skips, SKIPPED, [*skipped, (*pair, len(labels))])
            else:
                _write(self.path, LABELS, [*labels, (*pair, int(given.answer == "yes"))])
            return self._state(given.choice)

    def undo(self, choice: Choice = "threshold") -> State:
        """Takes back the answer given last.

        Raises:
            LookupError: there is none.
            UserError: the files cannot be read or written.
        """
        with self._lock:
            labels, skipped = self._rows()
            if _skipped_last(labels, skipped):
                _write(self._skips, SKIPPED, skipped[:-1])
            elif labels:
                _write(self.path, LABELS, labels[:-1])
            else:
                raise LookupError("there is no answer to undo")
            return self._state(choice)

    def _rows(self) -> tuple[list[Row], list[Row]]:
        return _read(self.path, LABELS), _read(self._skips, SKIPPED) if self._skips.exists() else []

    def _state(self, choice: Choice) -> State:
        labels, skipped = self._rows()
        pairs, answered = self._pairs[choice], {_key(row) for row in labels + skipped}
        waiting = [pair for key, pair in pairs.items() if key not in answered]
        counted = labels
        if choice == "random":  # up to the first gap, the pairs are as they were drawn
            drawn = set(itertools.takewhile(answered.__contains__, pairs))
            counted = [row for row in labels if _key(row) in drawn]
        figures = self._figures(counted)
        same, of_counted = (sum(label for *_, label in rows) for rows in (labels, counted))
        missing = (
            f"F1 takes {LEAST} answers or more, {LEAST_OF_EACH} of each kind; so far there are {len(counted)}: "
            f"{of_counted} the same, {len(counted) - of_counted} different"
        )
        return State(
            pair=Pair(*waiting[0]) if waiting else None,
            left=len(waiting),
            duplicates=same,
            different=len(labels) - same,
            skipped=len(skipped),
            figures=figures,
            missing="" if figures else missing,
            more=metrics.pairs_to_halve(len(counted)),
            last=self._last(labels, skipped),
        )

    def _last(self, labels: Sequence[Row], skipped: Sequence[Row]) -> Judged | None:
        if not (labels or skipped):
            return None
        skip = _skipped_last(labels, skipped)
        one, other, label = skipped[-1] if skip else labels[-1]
        similarity = self._similarity([(one, other)])[0]
        return Judged(
            one,
            other,
            answer="skip" if skip else "yes" if label else "no",
            similarity=similarity,
            probability=float(self._model.verdict.pair.probability(similarity)),
            duplicate=bool(self._model.verdict.pair.decide(similarity)),
        )

    def _similarity(self, pairs: Sequence[Texts]) -> list[float]:
        new = {_key(pair): pair for pair in pairs if _key(pair) not in self._cosines}
        if new:
            one, other = (self._model.encode(texts) for texts in zip(*new.values(), strict=True))
            self._cosines |= dict(zip(new, np.einsum("ij,ij->i", one, other).clip(-1, 1).tolist(), strict=True))
        return [self._cosines[_key(pair)] for pair in pairs]

    def _figures(self, rows: Sequence[Row]) -> list[Figure]:
        first, second, labels = zip(*rows, strict=True) if rows else ((), (), ())
        pairs = pairs_from_texts(first, second, labels)
        groups = question_components(pairs)[pairs.left]
        similarity, threshold = self._similarity([row[:2] for row in rows]), self._model.verdict.pair.threshold
        figures = []
        for n in [*(size for k in range(32) if (size := LEAST << k) < len(rows)), len(rows)]:
            duplicates = sum(labels[:n])
            if n < LEAST or min(duplicates, n - duplicates) < LEAST_OF_EACH:
                continue
            low, high = metrics.bootstrap_interval(similarity[:n], labels[:n], groups[:n], threshold)["f1"]
            figures.append(Figure(n, metrics.confusion(similarity[:n], labels[:n], threshold).f1, low, high))
        return figures


def _skipped_last(labels: Sequence[Row], skipped: Sequence[Row]) -> bool:
    return bool(skipped) and skipped[-1][2] >= len(labels)


def _read(path: Path, header: Sequence[str]) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names, *rows = csv.reader(file, strict=True)
        if tuple(names) != tuple(header):
            raise ValueError(f"the columns are {','.join(names)!r}")
        if header is LABELS and not {row[2] for row in rows if len(row) == len(header)} <= {"0", "1"}:
            raise ValueError("a label is neither 0 nor 1")
        return [(one, other, int(number)) for one, other, number in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a file of {','.join(header)} ({error}); name another with --labels") from None


def _write(path: Path, header: Sequence[str], rows: Sequence[Row]) -> None:
    with atomic_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


# ---------------------------------------------------------------------- routes


def routes(desk: Desk) -> APIRouter:
    """What the page asks for: GET /labelling, POST /labelling/answer, POST /labelling/undo, GET /labelling/labels.csv.

    An answer to a pair that does not wait for one is refused with 409; a UserError is left to the application.
    """
    from fastapi import APIRouter, HTTPException
    from fastapi.responses import FileResponse

    router = APIRouter(prefix="/labelling", tags=["labelling"])

    @router.get("")
    def state(choice: Choice = "threshold") -> State:
        """Where the labelling stands, and the next pair."""
        return desk.state(choice)

    @router.post("/answer")
    def answer(given: Answer) -> State:
        """Take the answer to a pair; it is on the disk when this answers."""
        try:
            return desk.answer(given)
        except LookupError as error:
            raise HTTPException(409, str(error)) from None

    @router.post("/undo")
    def undo(choice: Choice = "threshold") -> State:
        """Take back the answer given last."""
        try:
            return desk.undo(choice)
        except LookupError as error:
            raise HTTPException(409, str(error)) from None

    @router.get("/labels.csv", response_class=FileResponse)
    def labels() -> Any:
        """The labelled pairs, for `qpairs train --data` and `qpairs calibrate --data`."""
        return FileResponse(desk.path, media_type="text/csv", filename="labels.csv")

    return router
