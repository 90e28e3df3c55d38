"""All pairs of questions whose cosine is at or above a threshold; nearly all of them where there are very many."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.metrics import decide
from qpairs.retrieval.blocks import Comparison, Floats, Ints, all_blocks, compare, distinct, with_short_vectors
from qpairs.retrieval.cells import cell_blocks, make_cells, probed_cells, probing

EXACT = 2_500_000_000  # comparisons, up to which all are made


@dataclass(frozen=True)
class Matches:
    """The pairs of questions at or above a threshold.

    Attributes:
        left, right: (m,) rows, sorted; within one corpus left < right.
        similarity: (m,) cosines.
        recall: share of all such pairs that were found: 1 where all were compared, nan where the sample had none.
        sampled: pairs that the recall was measured on; 0 where all were compared.
        probability: (m,) of being duplicates, which decides after a second look; None: the cosines decide.
    """

    left: Ints
    right: Ints
    similarity: Floats
    recall: float = 1.0
    sampled: int = 0
    probability: NDArray[np.float64] | None = None

    @property
    def score(self) -> NDArray[np.floating]:
        """(m,) what decides."""
        return self.similarity if self.probability is None else self.probability

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.left)

    def at_or_above(self, threshold: float) -> Matches:
        """Those whose score is at or above a higher threshold."""
        return self.subset(decide(self.score, threshold))

    def subset(self, kept: NDArray[np.bool_]) -> Matches:
        """Those that a mask (m,) keeps."""
        probability = None if self.probability is None else self.probability[kept]
        return replace(
            self,
            left=self.left[kept],
            right=self.right[kept],
            similarity=self.similarity[kept],
            probability=probability,
        )


NO_MATCHES = Matches(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def find_matches(
    vectors: Floats,
    threshold: float,
    *,
    others: Floats | None = None,
    recall: float = 0.9999,
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> Matches:
    """All pairs whose cosine is at or above a threshold; where there are very many questions, nearly all of them.

    Args:
        vectors: (n, d) unit vectors.
        threshold: of the cosine; vectors that are equal but for rounding have cosine 1.
        others: (m, d) unit vectors to compare them with; without it, they are compared with one another.
        recall: share of the pairs to find where not all can be compared; 1 compares all.
        seed: of samples and cells.
        on_progress: the stage comparing (done, total: cosines).

    Raises:
        UserError: there are far too many pairs.

    >>> vectors = np.array([[1, 0], [0, 1], [0.8, 0.6]], dtype=np.float32)
    >>> found = find_matches(vectors, 0.7)
    >>> found.left.tolist(), found.right.tolist()
    ([0], [2])
    """
    comparison = Comparison(vectors, vectors if others is None else others, threshold, within=others is None)
    comparison = with_short_vectors(comparison)
    n, m, meter = len(comparison.rows), len(comparison.columns), Meter(on_progress)
    if all_are_compared(n, m, recall):
        return Matches(*distinct(comparison, compare(comparison, list(all_blocks(comparison)), meter)))
    meter.begin("comparing")
    cells = make_cells(comparison, recall, seed)
    entries = probed_cells(comparison.rows, np.arange(n), cells)
    columns = None if others is None else probed_cells(others, np.arange(m), replace(cells, gap=0.0))
    found = compare(comparison, list(cell_blocks(entries, columns)), meter)
    return Matches(*distinct(comparison, found), cells.recall, cells.sampled)


def all_are_compared(n: int, m: int, recall: float) -> bool:
    """Whether n rows are compared with all m columns, because that is quick, or all of the pairs are wanted."""
    return recall >= 1 or n * m <= max(EXACT, probing(n, m))
