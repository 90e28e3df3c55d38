"""The requests of a service, and the handler that answers many at once: a model, and an index if there is one."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs.models.base import Model, Side
from qpairs.models.shortened import shorten
from qpairs.models.verdict import Setting
from qpairs.retrieval.index import Index
from qpairs.retrieval.search import Answer, query_side, require_searchable, search_vectors
from qpairs.serving.current_setting import CurrentSetting

Floats = NDArray[np.float32]


class IndexConflict(Exception):
    """A request that the index in its present state does not allow."""


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
class Found:
    """What a search found, nearest first, and the setting that judged it."""

    answers: Sequence[Answer]
    setting: Setting


ServiceRequest = ScoreRequest | SearchRequest | AddRequest | DeleteRequest
Vectors = Callable[[Sequence[str], Side], Floats]  # texts of one side -> (n, dimension)


class RequestHandler:
    """Answers requests in batches; all their texts are encoded together, each once.

    Attributes:
        model, index: that answer.
        pair_setting: decides on pairs of questions.
        current: has the setting that decides on the questions that a search finds; None without an index.
    """

    def __init__(self, model: Model, index: Index | None) -> None:
        """Checks that model and index belong together.

        Raises:
            UserError: the verdict cannot be read from cosines, or the index is of another model.
        """
        model.verdict.require_cosine(model.path)
        if index:
            require_searchable(index, model)
        self.model = model
        self.index = index
        self.pair_setting: Setting = model.verdict.pair
        self.current = CurrentSetting(index, model) if index else None

    @property
    def search_setting(self) -> Setting | None:
        """What decides on the questions that a search finds; None without an index."""
        return self.current.setting if self.current else None

    def answer(self, requests: Sequence[ServiceRequest]) -> Sequence[object]:
        """The answers in the order of the requests; an exception where a request fails.

        The changes of the index come first: a search in the same batch sees them. An answer is, by type of request:
        (n,) cosines of n pairs; `Found`; the number of questions after adding; whether the deleted question existed.
        """
        vectors = self._encode(requests)
        found: dict[int, object] = {}
        methods: Sequence[tuple[type, Callable[[Any, Vectors], Sequence[object]]]] = (
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
        """How much of a batch a request takes: its number of texts to encode, at least 1."""
        return max(1, len(self._texts(request)))

    def _texts(self, request: ServiceRequest) -> Sequence[tuple[str, Side]]:
        """The texts of a request, each with the tower that encodes it."""
        match request:
            case ScoreRequest(pairs):
                both = not self.model.one_tower and self.model.verdict.symmetric
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

    def _score(self, requests: Sequence[ScoreRequest], vectors: Vectors) -> Sequence[NDArray[np.float64]]:
        first, second = zip(*(pair for request in requests for pair in request.pairs), strict=True)
        cosines = (vectors(first, "left") * vectors(second, "right")).sum(axis=1)
        if self.model.verdict.symmetric and not self.model.one_tower:
            cosines = (cosines + (vectors(second, "left") * vectors(first, "right")).sum(axis=1)) / 2
        ends = np.cumsum([len(request.pairs) for request in requests])[:-1]
        return np.split(cosines.clip(-1, 1).astype(np.float64), ends)

    def _search(self, requests: Sequence[SearchRequest], vectors: Vectors) -> Sequence[Found]:
        index, current = self._require_index()
        current.update()
        setting = current.setting
        questions = [request.question for request in requests]
        queries = vectors(questions, query_side(index))
        k = max(request.k for request in requests)  # one thread: waking others takes longer
        found = search_vectors(index, queries, k, setting, questions=questions, threads=1)
        return [Found(row[: request.k], setting) for row, request in zip(found, requests, strict=True)]

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
        count = len(index.questions)
        current.update(count)
        return [
            count if name is None else IndexConflict(f"id {reprlib.repr(name)} is in the index already")
            for name in conflicts
        ]

    def _delete(self, requests: Sequence[DeleteRequest], _: Vectors) -> Sequence[bool]:
        """Of several requests to delete one question, the first finds it."""
        index, current = self._require_index()
        known = index.questions.known([request.id for request in requests])
        index.questions.delete(known)
        current.update(len(index.questions))
        first = {request.id: row for row, request in reversed(list(enumerate(requests)))}
        return [request.id in known and first[request.id] == row for row, request in enumerate(requests)]

    def _require_index(self) -> tuple[Index, CurrentSetting]:
        if not (self.index and self.current):
            raise IndexConflict("the service has no index; start it with --index")
        return self.index, self.current
