"""The scores of all pairs of the questions of an index, on which the verdict on the hits of a search is based."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpairs.core.progress import Meter
from qpairs.data.identity import canonical
from qpairs.metrics.score_counts import EDGES, HITS, ScoreCounts, histogram, queries_for
from qpairs.retrieval.index.base import Floats
from qpairs.retrieval.index.threads import in_threads

if TYPE_CHECKING:
    from qpairs.retrieval.embeddings import Embeddings

ROWS = 256  # queries that a thread compares with a batch at a time


def count_pairs(
    embeddings: Embeddings, meter: Meter | None = None, *, queries: int | None = None, seed: int = 0
) -> ScoreCounts:
    """The score counts of embedded questions, as `metrics.count_scores` makes them of vectors in memory.

    Texts that are one question by `data.identity` count once: exact repeats are no duplicates that a model
    found. The vectors are read batch by batch, so that memory does not grow with them.

    Args:
        embeddings: the questions and their vectors.
        meter: counts the questions, in the stage measuring.
        queries: distinct questions that are compared with all others; of more, a random sample is. None: as many as
            `metrics.score_counts.queries_for` says.
        seed: of the sample.
    """
    first = _first_rows(embeddings.texts())  # (n,) the first row of each question
    n, meter = len(first), meter or Meter()
    queries = queries_for(n) if queries is None else queries
    chosen = first if n <= queries else np.sort(np.random.default_rng(seed).choice(first, queries, replace=False))
    rows = np.concatenate([vectors[_inside(chosen, at, len(vectors))] for at, vectors in embeddings.vectors()])
    parts = np.array_split(rows, -(-len(rows) // ROWS))
    counts = np.zeros(len(EDGES) - 1)
    nearest = [np.empty((len(part), 0), np.float32) for part in parts]  # of each query so far, itself among them
    meter.begin("measuring", embeddings.count)
    for at, vectors in embeddings.vectors():
        columns = vectors[_inside(first, at, len(vectors))].T

        def compare(part: Floats, columns: Floats = columns) -> tuple[NDArray[np.float64], Floats]:
            scores = part @ columns
            return histogram(scores), _greatest(scores)

        found = list(in_threads(compare, parts))
        counts += sum(histogrammed for histogrammed, _ in found)
        nearest = [_greatest(np.hstack([old, new])) for old, (_, new) in zip(nearest, found, strict=True)]
        meter.advance(len(vectors))
    counts -= histogram(np.einsum("ij,ij->i", rows, rows))  # a question with itself
    weight = n / max(len(rows), 1)
    hits = histogram(np.concatenate([np.sort(scores, axis=1)[:, :-1].ravel() for scores in nearest]))
    return ScoreCounts(np.maximum(counts, 0.0) * weight / 2, n, hits * weight)


def _greatest(scores: Floats) -> Floats:
    """(b, up to HITS + 1) the greatest of some scores (b, n), in any order."""
    kept = min(HITS + 1, scores.shape[1])
    greatest: Floats = np.partition(scores, -kept, axis=1)[:, -kept:] if kept else scores
    return greatest


def _first_rows(texts: Iterable[str]) -> NDArray[np.int64]:
    """The first row of each question, sorted; texts are kept as hashes, so that memory does not grow with them."""
    keys = np.fromiter((hash(canonical(text)) for text in texts), np.int64)
    rows: NDArray[np.int64] = np.sort(np.unique(keys, return_index=True)[1])
    return rows


def _inside(rows: NDArray[np.int64], start: int, size: int) -> NDArray[np.int64]:
    """Those of some sorted rows that lie in a batch, counted from its start."""
    low, high = np.searchsorted(rows, [start, start + size])
    inside: NDArray[np.int64] = rows[low:high] - start
    return inside
