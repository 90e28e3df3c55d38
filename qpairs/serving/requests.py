"""The requests of a service, and the handler that answers many at once: a model, and an index if there is one."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qpairs.core.cores import available_cores
from qpairs.core.exceptions import UserError
from qpairs.models.base import Model, Side
from qpairs.models.pair_reader import PairReader
from qpairs.models.ready import shown_name
from qpairs.models.shortened import shorten
from qpairs.models.two_stages import second_stage
from qpairs.models.verdict import Setting
from qpairs.retrieval.index import NEAREST, Index
from qpairs.retrieval.search import Answer, corpus_setting, query_side, require_searchable, search_vectors
from qpairs.retrieval.second_look import encoder_of, judge_pairs, shown_threshold
from qpairs.serving.current_setting import CurrentSetting

Floats = NDArray[np.float32]
ThresholdOf = Literal["similarity", "probability"]


class IndexConflict(Exception):
    """A request that the index does not allow in its present state."""


@dataclass(frozen=True)
class ScoreRequest:
    """Pairs of questions to score."""

    pairs: Sequence[Sequence[str]]


@dataclass(frozen=True)
class SearchRequest:
    """A question whose k nearest are searched."""

    question: str
    k: int


@dataclass(frozen=True)
class AddRequest:
    """Questions to add to the index."""

    ids: Sequence[str]
    texts: Sequence[str]


@dataclass(frozen=True)
class DeleteRequest:
    """A question to delete from the index."""

    id: str


@dataclass(frozen=True)
class JudgeRequest:
    """Replaces the verdicts by those of another model with the same encoder, such as one fitted to labels."""

    model: Model


@dataclass(frozen=True)
class Scored:
    """The verdicts on n pairs: (n,) cosines, probabilities and decisions; and what decided.

    `threshold` is one of similarities or probabilities, as `threshold_of` says; `precision_of` says for which pairs the
    probabilities hold.
    """

    similarity: NDArray[np.float64]
    probability: NDArray[np.float64]
    duplicate: NDArray[np.bool_]
    threshold: float
    threshold_of: ThresholdOf
    precision_of: str


@dataclass(frozen=True)
class Found:
    """What a search found, in the order in which it is shown, and the setting that decided."""

    answers: Sequence[Answer]
    setting: Setting


ServiceRequest = ScoreRequest | SearchRequest | AddRequest | DeleteRequest | JudgeRequest
Vectors = Callable[[Sequence[str], Side], Floats]  # texts of one side -> (n, dimension)
OnRead = Callable[[int], None]

MOST_READ = 64  # hits of a search that have a second look, at most


@dataclass(frozen=True)
class CountedReader:
    """A `PairReader` that reports how many pairs are read."""

    reader: PairReader
    on_read: OnRead

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """Logits (n,) of pairs, by the reader."""
        self.on_read(len(pairs))
        return self.reader.logits(pairs)


class RequestHandler:
    """Answers requests in batches; all their texts are encoded together, each once.

    A model of two stages reads the pairs in its band: those of all searches of a batch together, and those of all
    pairs to score.

    Attributes:
        model, index: that answer.
        encoder: the model, or its first stage.
        second: the model, if it has two stages.
        pair_setting: decides on pairs of questions; for a ready model, which has no threshold for labelled pairs, as on
            pairs of the index; None if no corpus has been given yet.
        current: has the setting that decides on the questions that a search finds; None without an index.
        changes: of the index so far.
    """

    def __init__(
        self,
        model: Model,
        index: Index | None,
        *,
        most_read: int = MOST_READ,
        on_read: OnRead = lambda _: None,
        waiting: bool = False,
    ) -> None:
        """Checks that model and index belong together.

        Args:
            model: that answers.
            index: that is searched.
            most_read: hits of a search that have a second look, at most: the nearest.
            on_read: called with the number of pairs before each second look.
            waiting: whether a file of questions will be sent, so that a ready model has no threshold yet.

        Raises:
            UserError: the verdict cannot be read from cosines, or the index is of another model.
        """
        if index:
            require_searchable(index, model)
        self.index = index
        self.changes = 0
        self._most_read, self._on_read = most_read, on_read
        if not (index or model.verdict.labelled or waiting):
            raise UserError(
                f"{shown_name(model)}: a ready model needs a corpus to set its threshold; name one with --questions "
                "or --index"
            )
        self._judge_by(model)

    def _judge_by(self, model: Model) -> None:
        self.encoder, self.second = encoder_of(model), second_stage(model)
        self.model = model
        self._reader = CountedReader(self.second.second.reader, self._on_read) if self.second else None
        self.pair_setting: Setting | None = model.verdict.pair if model.verdict.labelled else None
        if self.index and not model.verdict.labelled:
            self.pair_setting = corpus_setting(self.index, model)
        self.current = CurrentSetting(self.index, model) if self.index else None

    @property
    def pair_threshold(self) -> tuple[float | None, ThresholdOf]:
        """The threshold for pairs as shown to people, and its kind; None if there is none yet."""
        if self.model.verdict.labelled:
            return shown_threshold(self.model)
        return self.pair_setting.threshold if self.pair_setting else None, "similarity"

    @property
    def search_setting(self) -> Setting | None:
        """What decides on the questions that a search finds; None without an index."""
        return self.current.setting if self.current else None

    def answer(self, requests: Sequence[ServiceRequest]) -> Sequence[object]:
        """The answers in the order of the requests; an exception if a request fails.

        A new verdict and changes of the index are applied first: a search in the same batch sees them. An answer is, by
        type of request: `Scored`; `Found`; the number of questions after adding; whether the deleted question existed;
        None.
        """
        vectors = self._encode(requests)
        found: dict[int, object] = {}
        methods: Sequence[tuple[type, Callable[[Any, Vectors], Sequence[object]]]] = (
            (JudgeRequest, self._judge),
            (DeleteRequest, self._delete),
            (AddRequest, self._add),
            (ScoreRequest, self._score),
            (SearchRequest, self._search),
        )
        for kind, method in methods:
            rows = [row for row, request in enumerate(requests) if isinstance(request, kind)]
            if rows:
                try:
                    found.update(zip(rows, method([requests[row] for row in rows], vectors), strict=True))
                except Exception as error:
                    found.update(dict.fromkeys(rows, error))
        return [found[row] for row in range(len(requests))]

    def size(self, request: ServiceRequest) -> int:
        """How much of a batch a request takes: its texts to encode and the most pairs to read, at least 1."""
        return max(1, len(self._texts(request)) + self._pairs(request))

    def _pairs(self, request: ServiceRequest) -> int:
        """The most pairs that a request may cause to be read."""
        match request:
            case ScoreRequest(pairs) if self.second:
                return len(pairs)
            case SearchRequest(_, k) if self.second and self.index:
                return min(max(k, NEAREST), self._most_read)
        return 0

    def _texts(self, request: ServiceRequest) -> Sequence[tuple[str, Side]]:
        """The texts of a request, each with the tower that encodes it."""
        match request:
            case ScoreRequest(pairs):
                both = not self.encoder.one_tower and self.encoder.verdict.symmetric
                directions: Sequence[tuple[Side, Side]] = (("left", "right"), ("right", "left"))
                return [
                    text_and_side
                    for pair in pairs
                    for direction in directions[: 1 + both]
                    for text_and_side in zip(pair, direction, strict=True)
                ]
            case SearchRequest(question) if self.index:
                return [(question, query_side(self.index))]
            case AddRequest(_, texts) if self.index:
                return [(text, self.index.manifest.side) for text in texts]
        return []

    def _encode(self, requests: Sequence[ServiceRequest]) -> Vectors:
        rows: Mapping[Side, dict[str, int]] = {"left": {}, "right": {}}
        for request in requests:
            for text, side in self._texts(request):
                row_of = rows[self._tower(side)]
                row_of.setdefault(text, len(row_of))
        vectors = {side: self.model.encode(list(texts), side) for side, texts in rows.items() if texts}

        def look_up(texts: Sequence[str], side: Side) -> Floats:
            tower = self._tower(side)
            return vectors[tower][[rows[tower][text] for text in texts]]

        return look_up

    def _tower(self, side: Side) -> Side:
        return "left" if self.model.one_tower else side

    def _score(self, requests: Sequence[ScoreRequest], vectors: Vectors) -> Sequence[Scored]:
        (threshold, threshold_of), setting = self.pair_threshold, self.pair_setting
        if setting is None or threshold is None:
            raise IndexConflict(
                "a ready model needs a corpus to set its threshold; send a file of questions to the page first"
            )
        first, second = zip(*(pair for request in requests for pair in request.pairs), strict=True)
        cosines = self._cosines(first, second, vectors)
        if self.second and self._reader:
            pairs = list(zip(first, second, strict=True))
            probability, duplicate = judge_pairs(self.second, self._reader, cosines, pairs)
        else:
            probability, duplicate = setting.probability(cosines), setting.decide(cosines)
        ends = np.cumsum([len(request.pairs) for request in requests])[:-1]
        columns = [np.split(column, ends) for column in (cosines, probability, duplicate)]
        of = setting.precision_of
        return [Scored(a, b, c, threshold, threshold_of, of) for a, b, c in zip(*columns, strict=True)]

    def _cosines(self, first: Sequence[str], second: Sequence[str], vectors: Vectors) -> NDArray[np.float64]:
        """The cosines (n,) of pairs, from vectors of the length that `pair_setting` is for."""
        index = None if self.model.verdict.labelled else self.index
        dimension = index.manifest.dimension if index else self.encoder.dimension

        def of(left: Sequence[str], right: Sequence[str]) -> Floats:
            one, other = shorten(vectors(left, "left"), dimension), shorten(vectors(right, "right"), dimension)
            found: Floats = (one * other).sum(axis=1)
            return found

        cosines: NDArray[np.floating[Any]] = of(first, second)
        if self.encoder.verdict.symmetric and not self.encoder.one_tower:
            cosines = (cosines + of(second, first)) / 2
        return cosines.clip(-1, 1).astype(np.float64)

    def _judge(self, requests: Sequence[JudgeRequest], _: Vectors) -> Sequence[None]:
        self._judge_by(requests[-1].model)
        return [None] * len(requests)

    def _search(self, requests: Sequence[SearchRequest], vectors: Vectors) -> Sequence[Found]:
        index, current = self._require_index()
        current.update()
        setting = current.setting
        questions = [request.question for request in requests]
        queries = vectors(questions, query_side(index))
        found = search_vectors(
            index,
            queries,
            [request.k for request in requests],
            setting,
            questions=questions,
            threads=min(len(requests), available_cores()),  # for a single one, waking others takes longer
            reader=self._reader,
            most_read=self._most_read,
        )
        return [Found(row, setting) for row in found]

    def _add(self, requests: Sequence[AddRequest], vectors: Vectors) -> Sequence[int | IndexConflict]:
        index, current = self._require_index()
        known = set(index.questions.known([name for request in requests for name in request.ids]))
        conflicts: list[str | None] = []
        ids, texts = list[str](), list[str]()
        for request in requests:
            conflict = next((name for name in request.ids if name in known), None)
            conflicts.append(conflict)
            if conflict is None:
                known.update(request.ids)
                ids += request.ids
                texts += request.texts
        if ids:
            manifest = index.manifest
            index.questions.add(ids, texts, shorten(vectors(texts, manifest.side), manifest.dimension))
            self.changes += 1
        count = len(index.questions)
        current.update(count)
        return [
            count if name is None else IndexConflict(f"id {reprlib.repr(name)} is in the index already")
            for name in conflicts
        ]

    def _delete(self, requests: Sequence[DeleteRequest], _: Vectors) -> Sequence[bool]:
        """If several requests delete the same question, the first finds it."""
        index, current = self._require_index()
        known = index.questions.known([request.id for request in requests])
        index.questions.delete(known)
        self.changes += bool(known)
        current.update(len(index.questions))
        first = {request.id: row for row, request in reversed(list(enumerate(requests)))}
        return [request.id in known and first[request.id] == row for row, request in enumerate(requests)]

    def _require_index(self) -> tuple[Index, CurrentSetting]:
        if not (self.index and self.current):
            raise IndexConflict("the service has no index; start it with --index")
        return self.index, self.current
