"""What is asked of a service, and who answers it: jobs, and a model with perhaps an index that takes many at once."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs.models.base import Model, Side
from qpairs.retrieval.embeddings import shorten
from qpairs.retrieval.index import Index
from qpairs.retrieval.search import Answer, query_side, require_searchable, search_vectors

Floats = NDArray[np.float32]


class Conflict(Exception):
    """Why the index, as it is, does not allow what a job asks."""


@dataclass(frozen=True)
class Score:
    """Pairs of questions to judge."""

    pairs: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Search:
    """A question to find the nearest k of."""

    question: str
    k: int


@dataclass(frozen=True)
class Add:
    """Questions to put into the index."""

    ids: Sequence[str]
    texts: Sequence[str]


@dataclass(frozen=True)
class Delete:
    """A question to take out of the index."""

    id: str


Job = Score | Search | Add | Delete
Vectors = Callable[[Sequence[str], Side], Floats]  # texts, of one side, to (n, dimension)


class Judge:
    """A model and perhaps an index, answering jobs; their texts are encoded together, each once."""

    def __init__(self, model: Model, index: Index | None) -> None:
        model.verdict.require_cosine(model.path)
        if index:
            require_searchable(index, model)
        self.model = model
        self.index = index
        self._one_tower = model.one_tower

    def answer(self, jobs: Sequence[Job]) -> Sequence[object]:
        """The answers to jobs, in their order; exceptions where there is none. What changes the index goes first."""
        vectors = self._encoded(jobs)
        found: dict[int, object] = {}
        kinds: Sequence[tuple[type, Callable[[Any, Vectors], Sequence[object]]]] = (
            (Delete, self._deleted),
            (Add, self._added),
            (Score, self._scored),
            (Search, self._searched),
        )
        for kind, method in kinds:
            rows = [row for row, job in enumerate(jobs) if isinstance(job, kind)]
            if rows:
                try:
                    found.update(zip(rows, method([jobs[row] for row in rows], vectors), strict=True))
                except Exception as error:
                    found.update(dict.fromkeys(rows, error))
        return [found[row] for row in range(len(jobs))]

    def texts(self, job: Job) -> Sequence[tuple[str, Side]]:
        """The texts of a job, and which tower they are for."""
        match job:
            case Score(pairs):
                both = not self._one_tower and self.model.verdict.symmetric
                sides: Sequence[Sequence[Side]] = (
                    (("left", "right"), ("right", "left")) if both else (("left", "right"),)
                )
                return [(text, s) for pair in pairs for way in sides for text, s in zip(pair, way, strict=True)]
            case Search(question) if self.index:
                return [(question, query_side(self.index))]
            case Add(_, texts) if self.index:
                return [(text, self.index.manifest.side) for text in texts]
        return []

    def _encoded(self, jobs: Sequence[Job]) -> Vectors:
        rows: Mapping[Side, dict[str, int]] = {"left": {}, "right": {}}
        for job in jobs:
            for text, side in self.texts(job):
                of = rows[self._tower(side)]
                of.setdefault(text, len(of))
        vectors = {side: self.model.encode(list(texts), side) for side, texts in rows.items() if texts}

        def look_up(texts: Sequence[str], side: Side) -> Floats:
            tower = self._tower(side)
            return vectors[tower][[rows[tower][text] for text in texts]]

        return look_up

    def _tower(self, side: Side) -> Side:
        return "left" if self._one_tower else side

    def _scored(self, jobs: Sequence[Score], vectors: Vectors) -> Sequence[NDArray[np.float64]]:
        """(n,) cosines for each."""
        first, second = zip(*(pair for job in jobs for pair in job.pairs), strict=True)
        cosines = (vectors(first, "left") * vectors(second, "right")).sum(axis=1)
        if self.model.verdict.symmetric and not self._one_tower:
            cosines = (cosines + (vectors(second, "left") * vectors(first, "right")).sum(axis=1)) / 2
        ends = np.cumsum([len(job.pairs) for job in jobs])[:-1]
        return np.split(cosines.clip(-1, 1).astype(np.float64), ends)

    def _searched(self, jobs: Sequence[Search], vectors: Vectors) -> Sequence[list[Answer]]:
        index = self._require_index()
        asked = vectors([job.question for job in jobs], query_side(index))
        k, setting = max(job.k for job in jobs), self.model.verdict.pair
        found = search_vectors(index, asked, k, setting, threads=1)  # to wake other threads takes longer than to search
        return [row[: job.k] for row, job in zip(found, jobs, strict=True)]

    def _added(self, jobs: Sequence[Add], vectors: Vectors) -> Sequence[int | Conflict]:
        """How many questions there are then."""
        index = self._require_index()
        taken = set(index.questions.known([name for job in jobs for name in job.ids]))
        clashes: list[str | None] = []
        ids, texts = list[str](), list[str]()
        for job in jobs:
            clash = next((name for name in job.ids if name in taken), None)
            clashes.append(clash)
            if clash is None:
                taken.update(job.ids)
                ids += job.ids
                texts += job.texts
        if ids:
            manifest = index.manifest
            index.questions.add(ids, texts, shorten(vectors(texts, manifest.side), manifest.dimension))
        count = len(index.questions)
        return [
            count if clash is None else Conflict(f"id {reprlib.repr(clash)} is in the index already")
            for clash in clashes
        ]

    def _deleted(self, jobs: Sequence[Delete], _: Vectors) -> Sequence[bool]:
        """Whether the question was there; of several who delete it, for the first."""
        index = self._require_index()
        known = index.questions.known([job.id for job in jobs])
        index.questions.delete(known)
        first = {job.id: row for row, job in reversed(list(enumerate(jobs)))}
        return [job.id in known and first[job.id] == row for row, job in enumerate(jobs)]

    def _require_index(self) -> Index:
        if not self.index:
            raise Conflict("the service has no index; start it with --index")
        return self.index
