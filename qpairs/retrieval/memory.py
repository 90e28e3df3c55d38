"""An index in memory: all questions are compared with, by numpy alone, and nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.data.identity import distinct_texts
from qpairs.data.questions import QuestionSource, open_questions
from qpairs.metrics import count_scores
from qpairs.models.base import Model, encode_in_blocks
from qpairs.retrieval.blocks import SLACK, Ints, cosines_of
from qpairs.retrieval.embeddings import Embeddings
from qpairs.retrieval.index.base import Floats, Hit, Index, Manifest
from qpairs.retrieval.second_look import encoder_of

COMPARED = 1 << 24  # cosines at a time


@dataclass
class MemoryIndex:
    """A `BackEnd` that keeps vectors in an array, and compares with all of them.

    Attributes:
        vectors: (n, dimension) unit vectors.
        ids, questions: of each.
    """

    vectors: Floats
    ids: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    patterns: ClassVar[Sequence[str]] = ()

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, embeddings: Embeddings, *, overwrite: bool) -> Self:
        """As in `BackEnd`: without questions."""
        return cls(np.empty((0, manifest.dimension), dtype=np.float32))

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, *, growing: bool) -> Self:
        """Raises UserError: nothing of it is in any folder."""
        raise UserError(f"{folder}: an index in memory is in no folder")

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.ids)

    def add(self, ids: Sequence[str], texts: Sequence[str], vectors: Floats) -> None:
        """As in `VectorIndex`."""
        if again := set(self.known(ids)) or {name for name, times in Counter(ids).items() if times > 1}:
            raise UserError(f"the id {min(again)!r} appears twice")
        self.vectors = np.concatenate([self.vectors, vectors])
        self.ids += ids
        self.questions += texts

    def delete(self, ids: Sequence[str]) -> int:
        """As in `VectorIndex`."""
        gone = set(ids)
        kept = np.array([name not in gone for name in self.ids], dtype=np.bool_)
        before, self.vectors = len(self), self.vectors[kept]
        self.questions = [text for text, stays in zip(self.questions, kept.tolist(), strict=True) if stays]
        self.ids = [name for name in self.ids if name not in gone]
        return before - len(self)

    def known(self, ids: Sequence[str]) -> list[str]:
        """As in `VectorIndex`."""
        mine = set(self.ids)
        return [name for name in ids if name in mine]

    def texts(self) -> Iterator[str]:
        """As in `VectorIndex`."""
        return iter(self.questions)

    def search(self, vectors: Floats, k: int, *, threads: int | None = None) -> list[list[Hit]]:
        """As in `VectorIndex`; of equal cosines, the question that was added first comes first."""
        found, k = list[list[Hit]](), min(k, len(self))
        size = max(1, COMPARED // max(len(self), 1))
        for start in range(0, len(vectors), size):
            nearest, cosines = self._nearest(vectors[start : start + size], k)
            found += [
                [Hit(self.ids[i], self.questions[i], cosine) for i, cosine in zip(*row, strict=True)]
                for row in zip(nearest.tolist(), cosines.tolist(), strict=True)
            ]
        return found

    def _nearest(self, vectors: Floats, k: int) -> tuple[Ints, Floats]:
        """(q, k) rows of the nearest questions, and their cosines, which do not depend on what else is asked."""
        if not k:
            return np.empty((len(vectors), 0), np.int64), np.empty((len(vectors), 0), np.float32)
        products = vectors @ self.vectors.T  # (q, n)
        least = np.partition(products, len(self) - k, axis=1)[:, [len(self) - k]] - np.float32(SLACK)
        query, row = np.nonzero(~(products < least))
        cosines = cosines_of(vectors, self.vectors, query, row).clip(-1, 1)
        order = np.lexsort((row, -cosines, query))
        best = order[np.searchsorted(query, np.arange(len(vectors)))[:, None] + np.arange(k)]
        return row[best], cosines[best]

    def tune(self, measure: Callable[[], float]) -> float:
        """As in `BackEnd`: it finds all."""
        return 1.0

    def save(self, manifest: Manifest) -> Manifest:
        """As in `BackEnd`: nothing is written."""
        return replace(manifest, count=len(self))

    def files(self) -> Sequence[str]:
        """As in `BackEnd`: none."""
        return ()


def index_in_memory(
    model: Model,
    questions: QuestionSource,
    *,
    text_column: str = "",
    id_column: str = "",
    on_progress: OnProgress = ignore,
) -> Index:
    """Encodes questions once, for any number of searches; nothing is written.

    Args:
        model: that encodes them, and decides.
        questions: a list of texts, a data frame, a file, or what else `open_questions` takes.
        text_column: as in `open_questions`.
        id_column: likewise.
        on_progress: the stage encoding (texts).

    Raises:
        UserError: the questions cannot be read, or an id occurs twice; the model has no vectors, or its verdict cannot
            be read from cosines.

    >>> index = index_in_memory(model, ["How can I pay?", "Where is my order?", "Who are you?"])
    >>> [answer.hit.text for answer in qpairs.search(index, model, ["How do I pay?"], k=1)[0]]
    ['How can I pay?']
    """
    encoder = encoder_of(model)
    source = open_questions(questions, text_column=text_column, id_column=id_column)
    rows = list(source.rows())
    if not rows:
        raise UserError(f"{source.path}: there are no questions in it")
    ids, texts = [identity for identity, _ in rows], [text for _, text in rows]
    vectors = encode_in_blocks(encoder, texts, Meter(on_progress))
    once = vectors[distinct_texts(texts)[1]]
    scores = count_scores(once).to_dict() if len(once) > 1 else None
    manifest = Manifest(
        kind="exact",
        count=len(ids),
        dimension=encoder.dimension,
        fingerprint=encoder.fingerprint,
        model=str(encoder.path),
        side="left",
        recall=1.0,
        built=len(ids),
        address="",
        state={},
        scores=scores,
    )
    kept = MemoryIndex(np.empty((0, encoder.dimension), dtype=np.float32))
    try:
        kept.add(ids, texts, vectors)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from None
    return Index(source.path, manifest, kept, kept)
