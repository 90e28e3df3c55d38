"""What an index is, whichever back end keeps it: hits, the manifest, and the protocol that back ends implement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qpairs.models.base import Side
    from qpairs.models.verdict import Setting, Verdict
    from qpairs.retrieval.embeddings import Embeddings

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Manifest:
    """What an index is.

    Attributes:
        kind: one of `kinds.KINDS`.
        count: questions in it.
        dimension: numbers in a vector.
        fingerprint: of the model that made the vectors.
        model: the folder of that model.
        side: the tower that made them; searches use the other one.
        recall: share of the 10 nearest that a search finds, measured against all when the index was built.
        built: questions in it then.
        address: where the back end keeps it, such as milvus:URI#COLLECTION; '' for FAISS in the folder.
        state: whole numbers that the back end needs to open it again.
        scores: of all pairs of its questions when it was built, from `ScoreCounts.to_dict`; None in older ones.
        named_ids: whether its ids came from a column, and are not the numbers of rows; None in older ones.
    """

    kind: str
    count: int
    dimension: int
    fingerprint: str
    model: str
    side: Side
    recall: float
    built: int
    address: str
    state: Mapping[str, int]
    scores: Mapping[str, Any] | None = field(default=None, repr=False)
    named_ids: bool | None = None

    def outgrown(self, count: int) -> bool:
        """Whether it has twice as many questions as when it was built, or half as many."""
        return count > 2 * self.built or count < self.built / 2


@dataclass(frozen=True)
class Hit:
    """A question that was found, and its cosine."""

    id: str
    text: str
    similarity: float


class VectorIndex(Protocol):
    """Unit vectors, each with an id and a text."""

    def __len__(self) -> int:
        """Number of questions."""

    def add(self, ids: Sequence[str], texts: Sequence[str], vectors: Floats) -> None:
        """Adds n questions with their vectors (n, dimension)."""

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes those of the questions that it has; returns their number."""

    def known(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that it has."""

    def texts(self) -> Iterator[str]:
        """The questions, in any order."""

    def search(self, vectors: Floats, k: int, *, threads: int | None = None) -> list[list[Hit]]:
        """The nearest k questions, nearest first, for each of the vectors (q, dimension).

        Args:
            vectors: unit vectors.
            k: how many to find.
            threads: of this process to search with; without it, the back end decides.
        """


class BackEnd(VectorIndex, Protocol):
    """A `VectorIndex` that keeps itself: the seam behind which FAISS and Milvus are.

    Attributes:
        patterns: names of the files that it may keep in the folder, as for `Path.glob`.
    """

    patterns: ClassVar[Sequence[str]]

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, embeddings: Embeddings, *, overwrite: bool) -> Self:
        """An empty index for these vectors.

        Args:
            folder: of the manifest.
            manifest: what the index is to be, with the state of the one that it replaces.
            embeddings: what will be added, for sizes and for training.
            overwrite: whether what is at the address already may be replaced.
        """

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, *, growing: bool) -> Self:
        """The index of a manifest; `growing` where vectors are to be added."""

    def tune(self, measure: Callable[[], float]) -> float:
        """Sets how thoroughly to search, and returns the recall reached; `measure` searches and returns a recall."""

    def save(self, manifest: Manifest) -> Manifest:
        """Makes all changes permanent; returns the manifest with the number of questions, the address and the state."""

    def files(self) -> Sequence[str]:
        """Names of the files in the folder that belong to the index as it was saved last."""


@dataclass(frozen=True)
class Index:
    """An index that is open.

    Attributes:
        folder: of the manifest.
        manifest: what the index is.
        questions: what is searched and changed: the back end, or a layer above it such as a journal.
        back_end: what keeps the questions.
        settings: number of questions -> a verdict, and what scores mean by it; kept by `search.setting_for`.

    >>> index.manifest.count, index.manifest.kind
    (40, 'exact')
    """

    folder: Path
    manifest: Manifest
    questions: VectorIndex
    back_end: BackEnd
    settings: dict[int, tuple[Verdict, Setting]] = field(default_factory=dict, repr=False, compare=False)
