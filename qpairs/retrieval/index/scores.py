"""The scores of all pairs of the questions of an index, which the verdict on the hits of a search rests on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpairs.core.progress import Meter
from qpairs.metrics.score_counts import EDGES, QUERIES, ScoreCounts, histogram
from qpairs.retrieval.index.base import Floats
from qpairs.retrieval.index.threads import in_threads

if TYPE_CHECKING:
    from qpairs.retrieval.embeddings import Embeddings

ROWS = 256  # queries that a thread compares with a batch at a time


def count_pairs(
    embeddings: Embeddings, meter: Meter | None = None, *, queries: int = QUERIES, seed: int = 0
) -> ScoreCounts:
    """The score counts of embedded questions, as `metrics.count_scores` makes them of vectors in memory.

    Texts that are equal but for case and white space are one question: exact repeats are no duplicates that a model
    found. The vectors are read batch by batch, so that memory does not grow with them.

    Args:
        embeddings: the questions and their vectors.
        meter: counts the questions, in the stage measuring.
        queries: distinct questions that are compared with all others; of more, a random sample is.
        seed: of the sample.
    """
    first = _first_rows(embeddings.texts())  # (n,) the first row of each question
    n, meter = len(first), meter or Meter()
    chosen = first if n <= queries else np.sort(np.random.default_rng(seed).choice(first, queries, replace=False))
    rows = np.concatenate([vectors[_inside(chosen, at, len(vectors))] for at, vectors in embeddings.vectors()])
    parts = np.array_split(rows, -(-len(rows) // ROWS))
    counts = np.zeros(len(EDGES) - 1)
    meter.begin("measuring", embeddings.count)
    for at, vectors in embeddings.vectors():
        columns = vectors[_inside(first, at, len(vectors))].T

        def compare(part: Floats, columns: Floats = columns) -> NDArray[np.float64]:
            return histogram(part @ columns)

        counts += sum(in_threads(compare, parts))
        meter.advance(len(vectors))
    counts -= histogram(np.einsum("ij,ij->i", rows, rows))  # a question with itself
    return ScoreCounts(np.maximum(counts, 0.0) * (n / (2 * len(rows))), n)


def _first_rows(texts: Iterable[str]) -> NDArray[np.int64]:
    """The first row of each text, sorted; those that differ in case and white space only are one."""
    keys = np.fromiter((hash(" ".join(text.casefold().split())) for text in texts), np.int64)
    rows: NDArray[np.int64] = np.sort(np.unique(keys, return_index=True)[1])
    return rows


def _inside(rows: NDArray[np.int64], start: int, size: int) -> NDArray[np.int64]:
    """Those of some sorted rows that lie in a batch, counted from its start."""
    low, high = np.searchsorted(rows, [start, start + size])
    inside: NDArray[np.int64] = rows[low:high] - start
    return inside
