"""Cells of space, so that nearly all pairs above a threshold are found without comparing all vectors with all.

k-means divides the columns into cells. A row is compared with the columns of the cells that it probes: the cell with
the most similar centre, and those with a centre that is less similar by at most a gap. The gap is chosen on a sample of
rows, which are compared with all columns; another sample measures the share of the pairs that is found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

from qpairs.retrieval.blocks import SIZE, Block, Comparison, Floats, Ints, compare, spans
from qpairs.retrieval.index import faiss
from qpairs.retrieval.index.kinds import lists_for
from qpairs.retrieval.index.threads import in_threads

ROUNDS = 5  # of k-means
GAP = 0.05  # where no pair of the sample is divided by cells
MOST_CELLS = 64  # that a row probes, on average
ROUNDING = 1e-6
SAMPLE = 1024  # rows in each of the two samples
SAMPLED_PAIRS = 16_384


def cell_blocks(comparison: Comparison, recall: float, seed: int) -> tuple[list[Block], float, int]:
    """The blocks that contain nearly all pairs.

    Args:
        comparison: the vectors and the threshold.
        recall: share of the pairs to find.
        seed: of the samples and of k-means.

    Returns:
        The blocks, the share of the pairs that they contain (nan where the sample has no pair), and the number of
        pairs that it was measured on.
    """
    rng = np.random.default_rng(seed)
    rows, columns = comparison.rows, comparison.columns
    n, m = len(rows), len(columns)
    cells = lists_for(m)
    start = int(rng.integers(2**31))
    trained_on = np.sort(rng.choice(m, min(m, faiss.TRAINED_ON * cells), replace=False))
    centres = faiss.kmeans(columns[trained_on], cells, rounds=ROUNDS, seed=start)  # (cells, d)
    tuning, test = np.array_split(rng.choice(n, min(n, 2 * SAMPLE), replace=False), 2)
    gap = gap_for(_gaps(comparison, centres, tuning, rng), recall)
    similarity = rows[tuning] @ centres.T  # (sample, cells)
    all_gaps = np.sort(similarity.max(axis=1, keepdims=True) - similarity, axis=None)
    gap = min(gap + ROUNDING, float(all_gaps[min(MOST_CELLS, cells) * len(tuning) - 1]))
    found = _gaps(comparison, centres, test, rng) <= gap
    probes, cell = _probed_cells(rows, centres, gap)
    if not comparison.within:
        cell = _probed_cells(columns, centres, 0.0)[1]
    return list(_blocks(probes, cell)), float(found.mean()) if len(found) else math.nan, len(found)


def _gaps(comparison: Comparison, centres: Floats, sample: Ints, rng: np.random.Generator) -> Floats:
    """(p,) for pairs of a sample: the least gap at which the pair is found."""
    left, right, _ = compare(comparison, [(sample, columns) for columns in spans(len(comparison.columns))])
    some = rng.permutation(len(left))[:SAMPLED_PAIRS]
    rows, columns = comparison.rows[left[some]], comparison.columns[right[some]]  # (p, d) each

    def gaps(vectors: Floats, others: Floats) -> Floats:
        """How much less similar a vector is to the centre of the other's cell than to that of its own."""
        own, _ = faiss.closest(vectors, centres)
        _, cell = faiss.closest(others, centres)
        return np.asarray(own - np.einsum("ij,ij->i", vectors, centres[cell]))

    found = gaps(rows, columns)
    return np.minimum(found, gaps(columns, rows)) if comparison.within else found


def gap_for(gaps: Floats, recall: float) -> float:
    """The gap at which a share of all pairs is found, by an exponential fitted to the greatest gaps (p,) of a sample.

    The greatest gap of a small sample would be too small for the pairs outside it (peaks over a threshold: Pickands,
    Statistical inference using extreme order statistics, 1975).
    """
    ordered = np.append(np.zeros(1, np.float32), np.sort(gaps))
    tail = min(math.ceil(max(0.1, 1 - recall) * len(gaps)), int((gaps > ROUNDING).sum()))
    if not tail:
        return GAP
    start = float(ordered[-tail - 1])
    scale = float(ordered[-tail:].mean()) - start
    return start + scale * math.log(max(1.0, tail / len(gaps) / (1 - recall)))


def _probed_cells(vectors: Floats, centres: Floats, gap: float) -> tuple[Any, Ints]:
    """Which cells (n, cells) the vectors (n, d) probe, as a sparse matrix by columns, and which is their own (n,)."""

    def probe(rows: Ints) -> tuple[Any, Ints]:
        similarity = vectors[rows] @ centres.T
        least = similarity.max(axis=1, keepdims=True) - np.float32(gap)
        return csr_array(similarity >= least), similarity.argmax(axis=1)

    probes, cell = zip(*in_threads(probe, spans(len(vectors))), strict=True)
    return vstack(probes, format="csc"), np.concatenate(cell)


def _blocks(probes: Any, cell: Ints) -> Iterator[Block]:
    """For each cell, the rows that probe it, by a matrix (n, cells), and the columns in it, by their cells (m,)."""
    order, ends = np.argsort(cell, kind="stable"), np.cumsum(np.bincount(cell, minlength=probes.shape[1]))
    for number, columns in enumerate(np.split(order, ends[:-1])):
        rows = probes.indices[probes.indptr[number] : probes.indptr[number + 1]]
        for i in range(0, len(rows), SIZE):
            for j in range(0, len(columns), SIZE):
                yield rows[i : i + SIZE], columns[j : j + SIZE]
