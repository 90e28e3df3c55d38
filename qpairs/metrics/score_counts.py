"""How many pairs of a question table have which cosine: the histogram that a verdict for a corpus rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs.metrics.inputs import BLOCK, Floats

WIDTH = 0.001  # of a bin
EDGES = np.linspace(-1.0, 1.0, 2001)
QUERIES = 4096  # questions that are compared with all others in a larger table


@dataclass(frozen=True)
class ScoreCounts:
    """The scores of all pairs of different questions of a table, counted in bins of 0.001 from -1 to 1.

    Attributes:
        counts: (2000,) pairs in each bin; estimated from a sample of the questions in a large table.
        n: questions of the table.
    """

    counts: Floats
    n: int

    def at_or_above(self, thresholds: ArrayLike) -> Floats:
        """Pairs at or above each threshold, linear within a bin; in the shape of the thresholds."""
        above = np.append(np.cumsum(self.counts[::-1])[::-1], 0.0)
        return np.asarray(np.interp(np.asarray(thresholds, dtype=np.float64), EDGES, above))

    def rebinned(self, edges: Floats) -> Floats:
        """(k,) pairs between the k + 1 edges; a pair above the last edge counts to the last bin."""
        above = self.at_or_above(edges)
        return np.asarray(above[:-1] - np.append(above[1:-1], 0.0))

    def scaled(self, n: int) -> ScoreCounts:
        """What a table of the same kind with n questions would have: as many pairs as there are in it."""
        pairs, wanted = self.n * (self.n - 1), n * (n - 1)
        return ScoreCounts(self.counts * (wanted / pairs if pairs else 0.0), n)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON: the counts from the first bin that has any, in thousandths of a pair."""
        first = int(np.argmax(self.counts > 0)) if self.counts.any() else len(self.counts)
        return {"n": self.n, "first": first, "counts": [round(float(count), 3) for count in self.counts[first:]]}

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> ScoreCounts:
        """The inverse of `to_dict`."""
        values, first, n = data["counts"], data["first"], data["n"]
        if not (isinstance(values, Sequence) and isinstance(first, int) and isinstance(n, int)):
            raise TypeError("score counts: not a list of counts, its first bin and the number of questions")
        counts = np.zeros(len(EDGES) - 1)
        counts[first : first + len(values)] = np.asarray(values, dtype=np.float64)
        return cls(counts, n)


def histogram(scores: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """(2000,) scores in each bin of `ScoreCounts`, weighted if there are weights."""
    values = np.asarray(scores)
    places = np.multiply(values.ravel() + np.float32(1), np.float32(1 / WIDTH))  # in single precision if they are
    np.clip(places, 0, len(EDGES) - 2, out=places)
    return np.bincount(places.astype(np.int64), None if weights is None else np.ravel(weights), len(EDGES) - 1).astype(
        np.float64
    )


def count_scores(
    vectors: NDArray[np.float32],
    *,
    others: NDArray[np.float32] | None = None,
    queries: int = QUERIES,
    seed: int = 0,
) -> ScoreCounts:
    """The score counts of a table of questions.

    All pairs are counted up to `queries` questions. In a larger table, that many random questions are compared with
    all others, and each pair stands for as many as its share of the table.

    Args:
        vectors: (n, d) unit vectors.
        others: (n, d) of the same questions as the second of a pair, where a second tower makes them; the product with
            the first ones must be symmetric.
        queries: questions that are compared with all others.
        seed: of their choice.

    >>> count_scores(np.eye(3, dtype=np.float32)).at_or_above([0.0, 0.5]).tolist()
    [3.0, 0.0]
    """
    columns = vectors if others is None else others
    n = len(vectors)
    chosen = np.arange(n) if n <= queries else np.random.default_rng(seed).choice(n, queries, replace=False)
    counts = np.zeros(len(EDGES) - 1)
    step = max(1, BLOCK // max(n, 1))
    for start in range(0, len(chosen), step):
        rows = chosen[start : start + step]
        scores = vectors[rows] @ columns.T
        counts += histogram(scores)
        counts -= histogram(scores[np.arange(len(rows)), rows])  # a question with itself
    return ScoreCounts(counts * (n / (2 * len(chosen)) if n else 0.0), n)
