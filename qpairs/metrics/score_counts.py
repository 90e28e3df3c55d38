"""How many pairs of a question table have which cosine: the histogram that a verdict for a corpus is based on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs.metrics.inputs import BLOCK, Floats

WIDTH = 0.001  # of a bin
EDGES = np.linspace(-1.0, 1.0, 2001)
QUERIES, LEAST_QUERIES = 4096, 256  # questions that are compared with all others in a larger table
COMPARISONS = 200_000_000  # that they make, above which there are fewer of them
HITS = 10  # nearest others of a question, which a search shows


@dataclass(frozen=True)
class ScoreCounts:
    """The scores of all pairs of different questions of a table, counted in bins of 0.001 from -1 to 1.

    Attributes:
        counts: (2000,) pairs in each bin; estimated from a sample of the questions in a large table.
        n: questions of the table.
        hits: (2000,) the `HITS` nearest others of each question, counted alike; zeros where they are not known.

    >>> counts.n, counts.counts.shape
    (338, (2000,))
    """

    counts: Floats
    n: int
    hits: Floats = field(default_factory=lambda: np.zeros(len(EDGES) - 1))

    def at_or_above(self, thresholds: ArrayLike) -> Floats:
        """Pairs at or above each threshold, linear within a bin; in the shape of the thresholds.

        >>> float(counts.at_or_above(-1.0)) == float(counts.counts.sum())
        True
        """
        return _at_or_above(self.counts, np.asarray(thresholds, dtype=np.float64))

    def rebinned(self, edges: Floats) -> Floats:
        """(k,) pairs between the k + 1 edges; a pair above the last edge counts to the last bin.

        >>> counts.rebinned(np.array([0.0, 0.5, 1.0])).shape
        (2,)
        """
        return _rebinned(self.counts, edges)

    def hit_share(self, edges: Floats) -> Floats:
        """(k,) share of the pairs between the edges, each seen from both questions, that are among the nearest.

        Smoothed over neighbouring bins, and inside (0, 1).

        >>> counts.hit_share(np.array([0.0, 0.5, 1.0])).shape
        (2,)
        """
        hits, pairs = (smoothed(_rebinned(counts, edges), 2.0) for counts in (self.hits, 2 * self.counts))
        return np.asarray(np.clip((hits + 0.05) / (pairs + 0.1), 0.001, 0.999))

    def scaled(self, n: int) -> ScoreCounts:
        """What a table of the same kind with n questions would have: as many pairs as there are in it.

        >>> counts.scaled(2 * counts.n).n == 2 * counts.n
        True
        """
        pairs, wanted = self.n * (self.n - 1), n * (n - 1)
        factor = n / self.n if self.n else 0.0
        return ScoreCounts(self.counts * (wanted / pairs if pairs else 0.0), n, self.hits * factor)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON: the counts from the first bin that has any, in thousandths of a pair.

        >>> sorted(counts.to_dict())
        ['counts', 'first', 'hits', 'n']
        """
        first = int(np.argmax(self.counts > 0)) if self.counts.any() else len(self.counts)
        lists = {"counts": self.counts[first:], "hits": self.hits[first:]}
        return {"n": self.n, "first": first} | {name: np.round(row, 3).tolist() for name, row in lists.items()}

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> ScoreCounts:
        """The inverse of `to_dict`.

        >>> ScoreCounts.from_dict(counts.to_dict()).n == counts.n
        True
        """
        first, n = data["first"], data["n"]
        if not (isinstance(first, int) and isinstance(n, int)):
            raise TypeError("score counts: no first bin, or no number of questions")
        rows = [np.zeros(len(EDGES) - 1) for _ in range(2)]
        for row, values in zip(rows, (data["counts"], data.get("hits", [])), strict=True):
            if not isinstance(values, list):
                raise TypeError("score counts: not a list of counts")
            row[first : first + len(values)] = values
        return cls(rows[0], n, rows[1])


def _at_or_above(counts: Floats, thresholds: Floats) -> Floats:
    above = np.append(np.cumsum(counts[::-1])[::-1], 0.0)
    return np.asarray(np.interp(thresholds, EDGES, above))


def _rebinned(counts: Floats, edges: Floats) -> Floats:
    above = _at_or_above(counts, edges)
    return np.asarray(above[:-1] - np.append(above[1:-1], 0.0))


def histogram(scores: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """(2000,) scores in each bin of `ScoreCounts`, weighted if there are weights; ValueError where one is NaN."""
    values = np.asarray(scores)
    if values.size and np.isnan(values.max()):
        raise ValueError("scores contain NaN")
    places = np.multiply(values.ravel() + np.float32(1), np.float32(1 / WIDTH))  # in single precision if they are
    np.clip(places, 0, len(EDGES) - 2, out=places)
    return np.bincount(places.astype(np.int64), None if weights is None else np.ravel(weights), len(EDGES) - 1).astype(
        np.float64
    )


def count_scores(
    vectors: NDArray[np.float32],
    *,
    others: NDArray[np.float32] | None = None,
    queries: int | None = None,
    seed: int = 0,
) -> ScoreCounts:
    """The score counts of a table of questions.

    All pairs are counted up to 4,096 questions. In a larger table, that many random questions, or fewer, are compared
    with all others, and each pair stands for as many as its share of the table.

    Args:
        vectors: (n, d) unit vectors.
        others: (n, d) of the same questions as the second of a pair, where a second tower makes them; the product with
            the first ones must be symmetric.
        queries: questions that are compared with all others; None: see `queries_for`.
        seed: of their choice.

    >>> count_scores(np.eye(3, dtype=np.float32)).at_or_above([0.0, 0.5]).tolist()
    [3.0, 0.0]
    """
    n = len(vectors)
    queries = queries_for(n) if queries is None else queries
    chosen = np.arange(n) if n <= queries else np.random.default_rng(seed).choice(n, queries, replace=False)
    counts, hits = np.zeros(len(EDGES) - 1), np.zeros(len(EDGES) - 1)
    for scores in _score_blocks(vectors, vectors if others is None else others, chosen):
        counts += histogram(scores[np.isfinite(scores)])
        hits += histogram(_nearest(scores))
    weight = n / max(len(chosen), 1)
    return ScoreCounts(counts * weight / 2, n, hits * weight)


def count_scores_in_parts(
    parts: Callable[[], Iterable[tuple[int, NDArray[np.float32]]]], n: int, *, seed: int = 0
) -> ScoreCounts:
    """The score counts of a table that is read from a disk, twice; the same as `count_scores`, but for rounding.

    Args:
        parts: gives the row that a part begins with, and its unit vectors (k, d), from the first row to the last.
        n: questions of the table.
        seed: of the choice of questions that are compared with all others.

    >>> table = np.eye(3, dtype=np.float32)
    >>> count_scores_in_parts(lambda: [(0, table[:2]), (2, table[2:])], 3).at_or_above([0.0, 0.5]).tolist()
    [3.0, 0.0]
    """
    queries = queries_for(n)
    chosen = np.arange(n) if n <= queries else np.sort(np.random.default_rng(seed).choice(n, queries, replace=False))
    found = [vectors[chosen[(chosen >= start) & (chosen < start + len(vectors))] - start] for start, vectors in parts()]
    rows = np.concatenate(found)  # (q, d)
    counts, nearest = np.zeros(len(EDGES) - 1), np.empty((len(rows), 0), np.float32)
    step = max(1, BLOCK // max(len(rows), 1))
    pieces = ((start + i, block[i : i + step]) for start, block in parts() for i in range(0, len(block), step))
    for start, part in pieces:
        scores = rows @ part.T  # (q, up to step)
        own = np.flatnonzero((chosen >= start) & (chosen < start + len(part)))
        scores[own, chosen[own] - start] = -np.inf
        counts += histogram(scores[np.isfinite(scores)])
        both = np.append(nearest, scores, axis=1)
        nearest = np.partition(both, -HITS, axis=1)[:, -HITS:] if both.shape[1] > HITS else both
    hits = histogram(nearest[np.isfinite(nearest)])
    weight = n / max(len(chosen), 1)
    return ScoreCounts(counts * weight / 2, n, hits * weight)


def queries_for(n: int) -> int:
    """How many of n questions to compare with all others: so many that the counts are sure, and no more than is quick.

    >>> [queries_for(n) for n in (1_000, 50_000, 200_000, 5_000_000)]
    [4096, 4000, 1000, 256]
    """
    return max(LEAST_QUERIES, min(QUERIES, COMPARISONS // max(n, 1)))


def furthest_hits(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], others: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """(r,) score of the `HITS`-th nearest other question of each of some rows; arguments as in `count_scores`.

    >>> furthest_hits(np.eye(3, dtype=np.float32), np.array([1])).tolist()
    [0.0]
    """
    blocks = _score_blocks(vectors, vectors if others is None else others, rows)
    found = [_nearest(scores).min(axis=1, initial=np.float32(2.0)) for scores in blocks]
    return np.concatenate(found) if found else np.empty(0, np.float32)


def _score_blocks(
    rows: NDArray[np.float32], columns: NDArray[np.float32], chosen: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """Scores (b, n) of chosen rows with all columns, some rows at a time; that of a question with itself is -inf."""
    step = max(1, BLOCK // max(len(columns), 1))
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        scores = rows[part] @ columns.T
        scores[np.arange(len(part)), part] = -np.inf
        yield scores


def _nearest(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """(b, up to HITS) the greatest scores of each row, in any order, without that of a question with itself."""
    k = min(HITS, scores.shape[1] - 1)
    if k < 1:
        return np.empty((len(scores), 0), np.float32)
    return np.partition(scores, -k, axis=1)[:, -k:]


def smoothed(counts: Floats, width: float = 1.5) -> Floats:
    """Counts (n,) spread over neighbouring bins by a normal kernel; their sum stays, and none leaves the range."""
    reach = np.arange(-int(4 * width), int(4 * width) + 1)
    kernel = np.exp(-0.5 * (reach / width) ** 2)
    rows = np.arange(len(counts))[:, None] + reach
    inside = (rows >= 0) & (rows < len(counts))
    weights = np.where(inside, kernel, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    spread = (weights * counts[:, None]).ravel()
    return np.bincount(np.clip(rows, 0, len(counts) - 1).ravel(), spread, len(counts)).astype(np.float64)
