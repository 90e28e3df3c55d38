"""Cells of the vector space, so that nearly all pairs above a threshold are found without comparing all vectors.

k-means divides the columns into groups, and each group into cells of about `CELL` columns. A row is compared with the
columns of the cells that it probes. Its own cell is the one of the most similar centre in the group of the most similar
centre; it probes, too, each cell whose centre is less similar to it than that of its own one by at most a gap, in the
groups whose centre is less similar by at most twice the gap. The gap is chosen on a sample of rows, which are compared
with all columns; another sample measures the share of the pairs that is found. Since cells are looked for in few
groups, a row costs about as many comparisons as there are groups, and columns in the cells that it probes; groups grow
as the square root of the columns, cells do not grow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qpairs.core.extras import require
from qpairs.retrieval.blocks import SIZE, Block, Comparison, Floats, Ints, Vectors, compare, spans
from qpairs.retrieval.index import faiss
from qpairs.retrieval.index.threads import in_threads

CELL = 256  # columns, on average
ROUNDS = 5  # of k-means
GAP = 0.05  # where no pair of the sample is divided by cells
MOST_CELLS = 64  # that a row probes, on average
ROUNDING = 1e-6
GROUP_GAPS = 2.0  # gap of groups for one of cells, with which the fewest columns are compared for a recall
SAMPLE = 2048  # rows in each of the two samples
PROBED = 512  # rows of a sample whose similarity to all centres is computed
SAMPLED_PAIRS = 16_384
ROW = np.uint64(32)  # bits of an entry that are its row

Entries = NDArray[np.uint64]  # a row that probes a cell: (cell, whether it is the own one of another, row), sorted


@dataclass(frozen=True)
class Cells:
    """Cells, and which of them a row probes.

    Attributes:
        groups: (g, d) unit vectors, the centres of the groups.
        centres: (c, d) unit vectors, the centres of the cells, those of a group side by side.
        starts: (g + 1,) the number of the first cell of each group, and of all cells.
        gap: by how much less similar than its own one a cell is that a row probes.
        recall: share of the pairs of a sample that are found; nan where it has none.
        sampled: pairs of that sample.
    """

    groups: Floats
    centres: Floats
    starts: Ints
    gap: float = 0.0
    recall: float = math.nan
    sampled: int = 0

    def __len__(self) -> int:
        """Number of cells."""
        return len(self.centres)


def cells_for(columns: int) -> int:
    """About how many cells so many columns are divided into.

    >>> cells_for(2_560_000)
    10000
    """
    return max(1, columns // CELL)


def groups_for(columns: int) -> int:
    """How many groups the cells are in, so that finding a group takes as long as finding a cell in it.

    >>> groups_for(2_560_000)
    100
    """
    return max(1, round(math.sqrt(cells_for(columns))))


def probing(n: int, m: int) -> int:
    """About how many comparisons cells take before the first pair is found, for n rows and m columns."""
    return 2 * SAMPLE * m + 8 * (n + m) * groups_for(m)


def make_cells(comparison: Comparison, recall: float, seed: int) -> Cells:
    """Divides the columns of a comparison into cells, and chooses which of them a row probes.

    Args:
        comparison: the vectors and the threshold.
        recall: share of the pairs to find.
        seed: of the samples and of k-means.

    Raises:
        UserError: FAISS is not installed.
    """
    require("faiss", "finding the duplicates of so many questions")
    rng = np.random.default_rng(seed)
    cells = _divide(comparison.columns, rng)
    n = len(comparison.rows)
    tuning, test = np.array_split(rng.choice(n, min(n, 2 * SAMPLE), replace=False), 2)
    sample = np.concatenate([tuning, test])
    left, right, _ = compare(comparison, [(sample, columns) for columns in spans(len(comparison.columns))])
    tuned = np.isin(left, tuning)
    some, others = (rng.permutation(np.flatnonzero(part))[:SAMPLED_PAIRS] for part in (tuned, ~tuned))
    gap = gap_for(_gaps(comparison, cells, left[some], right[some]), recall)
    gap = min(gap + ROUNDING, _widest(comparison.rows[tuning[:PROBED]], cells))
    found = _gaps(comparison, cells, left[others], right[others]) <= gap
    return replace(cells, gap=gap, recall=float(found.mean()) if len(found) else math.nan, sampled=len(found))


def _divide(columns: Vectors, rng: np.random.Generator) -> Cells:
    """Two rounds of k-means: groups, and cells in each of them; on a sample of the columns."""
    m, count = len(columns), groups_for(len(columns))
    start = int(rng.integers(2**31))
    trained_on = np.sort(rng.choice(m, min(m, faiss.TRAINED_ON * cells_for(m)), replace=False))
    some = np.sort(rng.choice(trained_on, min(len(trained_on), 8 * faiss.TRAINED_ON * count), replace=False))
    groups = faiss.kmeans(columns[some], count, rounds=ROUNDS, seed=start, most=8 * faiss.TRAINED_ON)
    parts = [trained_on[part] for part in spans(len(trained_on))]
    group = np.concatenate([faiss.closest(columns[part], groups)[1] for part in parts])
    centres = []
    for number in range(count):
        inside = trained_on[group == number]
        wanted = round(len(inside) / faiss.TRAINED_ON)
        centres.append(
            faiss.kmeans(columns[inside], wanted, rounds=ROUNDS, seed=start) if wanted > 1 else groups[[number]]
        )
    return Cells(groups, np.concatenate(centres), np.cumsum([0, *map(len, centres)]))


def _own(vectors: Floats, cells: Cells) -> tuple[Floats, Ints, Floats, Ints]:
    """(n,) similarity to the own group of some vectors (n, d), (n,) which, and (n,) to the own cell, and (n,) which."""
    near, group = faiss.closest(vectors, cells.groups)
    similarity, cell = np.empty(len(vectors), np.float32), np.empty(len(vectors), np.int64)
    for number in np.unique(group):
        rows, first = np.flatnonzero(group == number), cells.starts[number]
        found = vectors[rows] @ cells.centres[first : cells.starts[number + 1]].T
        cell[rows] = first + found.argmax(axis=1)
        similarity[rows] = found.max(axis=1)
    return near, group, similarity, cell


def _gaps(comparison: Comparison, cells: Cells, left: Ints, right: Ints) -> Floats:
    """(p,) for pairs of a row and a column: the least gap at which the pair is found."""
    one, other = _in_parts(comparison.rows, left), _in_parts(comparison.columns, right)  # (p, d) each

    def gaps(vectors: Floats, others: Floats) -> Floats:
        """By how much less similar a vector is to group and cell of the other than to its own ones."""
        near, _, nearest, _ = _own(vectors, cells)
        _, group, _, cell = _own(others, cells)
        of_group = near - np.einsum("ij,ij->i", vectors, cells.groups[group])
        of_cell = nearest - np.einsum("ij,ij->i", vectors, cells.centres[cell])
        return np.asarray(np.maximum(of_group / np.float32(GROUP_GAPS), of_cell))

    found = gaps(one, other)
    return np.minimum(found, gaps(other, one)) if comparison.within else found


def _in_parts(vectors: Vectors, rows: Ints) -> Floats:
    return np.concatenate([vectors[rows[part]] for part in spans(len(rows))] or [vectors[rows]])


def _widest(vectors: Floats, cells: Cells) -> float:
    """The gap at which a sample of rows (n, d) probes `MOST_CELLS` cells, on average."""
    near, _, nearest, _ = _own(vectors, cells)
    of_group = (near[:, None] - vectors @ cells.groups.T) / np.float32(GROUP_GAPS)  # (n, g)
    of_cell = nearest[:, None] - vectors @ cells.centres.T  # (n, c)
    gaps = np.maximum(np.repeat(of_group, np.diff(cells.starts), axis=1), of_cell, out=of_cell).ravel()
    place = min(MOST_CELLS, len(cells)) * len(vectors) - 1
    return float(np.partition(gaps, place)[place])


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


def probed_cells(vectors: Vectors, rows: Ints, cells: Cells) -> Entries:
    """The cells that some rows (n,) of vectors probe, as sorted entries, by all cores."""
    parts = [rows[part] for part in spans(len(rows))]
    entries = np.concatenate(list(in_threads(lambda part: _entries(vectors[part], part, cells), parts)))
    entries.sort()
    return entries


def _entries(vectors: Floats, rows: Ints, cells: Cells) -> Entries:
    near, _, nearest, own = _own(vectors, cells)
    probes = vectors @ cells.groups.T >= near[:, None] - np.float32(GROUP_GAPS * cells.gap)  # (n, g)
    least, found = nearest - np.float32(cells.gap), []
    for number in np.flatnonzero(probes.any(axis=0)):
        some, first = np.flatnonzero(probes[:, number]), cells.starts[number]
        similarity = vectors[some] @ cells.centres[first : cells.starts[number + 1]].T
        row, cell = np.nonzero(similarity >= least[some, None])
        found.append((some[row], first + cell))
    row, cell = (np.concatenate(column) for column in zip(*found, strict=True))
    guest = cell != own[row]
    row, cell = np.append(row[guest], np.arange(len(rows))), np.append(cell[guest], own)
    other = np.arange(len(row)) < guest.sum()
    return _entry(cell, other, rows[row])


def _entry(cell: Ints, other: NDArray[np.bool_], row: Ints) -> Entries:
    return np.asarray((2 * cell + other).astype(np.uint64) << ROW | row.astype(np.uint64))


def cell_blocks(entries: Entries, columns: Entries | None = None) -> Iterator[Block]:
    """For each cell, the rows that probe it, and the columns that are its own.

    Args:
        entries: of the rows, sorted; all those of each cell.
        columns: of the columns, likewise; None where they are the same as the rows.
    """
    within = columns is None
    columns = entries if columns is None else columns
    kinds = np.unique(columns >> ROW)  # 2 * cell of the columns, and 2 * cell + 1
    for kind in kinds[kinds % 2 == 0]:
        members, others = _of_kind(columns, kind), _of_kind(entries, kind + np.uint64(1))
        own = members if within else _of_kind(entries, kind)
        yield from _tiles(own, members)
        yield from _tiles(others, members)


def _tiles(rows: Ints, columns: Ints) -> Iterator[Block]:
    """Rows and columns in parts that fit a block; within one set, each pair of parts once."""
    parts = [columns[i : i + SIZE] for i in range(0, len(columns), SIZE)]
    if rows is columns:
        for number, part in enumerate(parts):
            yield from ((part, other) for other in parts[number:])
    else:
        for i in range(0, len(rows), SIZE):
            yield from ((rows[i : i + SIZE], part) for part in parts)


def _of_kind(entries: Entries, kind: np.uint64) -> Ints:
    start, end = np.searchsorted(entries, [kind << ROW, (kind + np.uint64(1)) << ROW])
    return (entries[start:end] & np.uint64(2**32 - 1)).astype(np.int64)
