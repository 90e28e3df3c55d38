"""The jobs of deduplication on a disk: which cells some rows probe, and which pairs some cells hold.

A job is a file to write; what it needs is in the folder of the run. So any process can do it, and a job whose process
dies is done again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qpairs.core.files import atomic_file, sha256
from qpairs.retrieval.blocks import SHORT, Block, Comparison, Ints, all_blocks, compare, distinct
from qpairs.retrieval.cells import ROW, Cells, Entries, cell_blocks, probed_cells
from qpairs.retrieval.disk import PARTS, VectorFile, write_array
from qpairs.retrieval.executors import WrittenFile
from qpairs.retrieval.union_find import PAIR, PairRows

PROBES, PAIRS = "probes", "pairs"
CELLS = "cells.npz"
VECTORS, SHORT_VECTORS = "vectors.bin", "short.bin"  # in the order of the questions
SORTED = "sorted-"  # the same in the order of the cells
POSITION = "position.npy"  # where each question stands there; is written last
COMPARISONS = 1_000_000_000  # of a job: one or two seconds


@dataclass(frozen=True)
class RangeJob:
    """A file to write about a range of rows, cells or blocks: `first` to `last`, without `last`; `size` for a meter."""

    file: str
    first: int
    last: int
    size: int = 0


@dataclass(frozen=True)
class Prober:
    """Writes the cells that the rows of a job probe, as sorted entries; it is pickled for another process.

    Attributes:
        folder: of the run.
        width: numbers in a vector.
    """

    folder: Path
    width: int

    def __call__(self, job: RangeJob) -> WrittenFile:
        """The entries of rows `first` to `last`."""
        vectors = VectorFile(self.folder / VECTORS, self.width).reader()
        entries = probed_cells(vectors, np.arange(job.first, job.last), load_cells(self.folder / CELLS))
        return _written(self.folder, job.file, entries)


@dataclass(frozen=True)
class PairFinder:
    """Writes the pairs that a job finds, sorted, each once; it is pickled for another process.

    Attributes:
        folder: of the run.
        width: numbers in a vector.
        threshold: of their cosines.
        in_cells: whether a job is a range of cells, or of blocks in which all are compared with all.
    """

    folder: Path
    width: int
    threshold: float
    in_cells: bool

    def __call__(self, job: RangeJob) -> WrittenFile:
        """The pairs of cells, or blocks, `first` to `last`."""
        comparison = self.comparison()
        blocks = list(self._blocks(comparison, job))
        left, right, similarity = distinct(comparison, compare(comparison, blocks))
        pairs = np.empty(len(left), PAIR)
        pairs["left"], pairs["right"], pairs["similarity"] = left, right, similarity
        return _written(self.folder, job.file, pairs)

    def comparison(self) -> Comparison:
        """What is compared; the files are mapped anew."""
        order, position = (SORTED, self.folder / POSITION) if self.in_cells else ("", None)
        vectors = VectorFile(self.folder / (order + VECTORS), self.width, position).reader()
        short, file = None, self.folder / (order + SHORT_VECTORS)
        if file.exists():
            found = VectorFile(file, SHORT, position).reader()
            short = found, found
        return Comparison(vectors, vectors, self.threshold, within=True, short=short)

    def _blocks(self, comparison: Comparison, job: RangeJob) -> Iterator[Block]:
        if self.in_cells:
            yield from cell_blocks(entries_of(probe_files(self.folder), job.first, job.last))
        else:
            for number, block in enumerate(all_blocks(comparison)):
                if job.first <= number < job.last:
                    yield block


def probe_jobs(rows: int) -> Iterator[RangeJob]:
    """Which cells are probed, for some rows at a time."""
    for number, start in enumerate(range(0, rows, PARTS)):
        end = min(start + PARTS, rows)
        yield RangeJob(f"{PROBES}/{number:06}.npy", start, end, end - start)


def cell_jobs(members: Ints, probes: Ints) -> Iterator[RangeJob]:
    """Pairs, for some cells at a time, so that a job makes about `COMPARISONS`.

    Args:
        members: (c,) columns of each cell.
        probes: (c,) rows that probe it, its own ones among them.
    """
    work = np.cumsum(members.astype(np.float64) * probes)
    yield from _jobs(work)


def block_jobs(comparison: Comparison) -> Iterator[RangeJob]:
    """Pairs, for some blocks at a time, where all are compared with all."""
    yield from _jobs(np.cumsum([float(len(rows)) * len(columns) for rows, columns in all_blocks(comparison)]))


def _jobs(work: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Iterator[RangeJob]:
    total = float(work[-1]) if len(work) else 0.0
    count = max(1, math.ceil(total / COMPARISONS))
    ends = np.unique(np.append(np.searchsorted(work, total * np.arange(1, count) / count) + 1, len(work)))
    for number, (first, last) in enumerate(zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True)):
        size = work[last - 1] - (work[first - 1] if first else 0)
        yield RangeJob(f"{PAIRS}/{number:06}.npy", first, last, int(size))


def probe_files(folder: Path) -> Iterator[Entries]:
    """The entries of all rows, mapped into memory, a file at a time."""
    return (np.load(file, mmap_mode="r") for file in sorted((folder / PROBES).glob("[!.]*.npy")))


def entries_of(parts: Iterable[Entries], first: int, last: int) -> Entries:
    """The entries of cells `first` to `last`, without `last`, sorted."""
    ends = np.array([2 * first, 2 * last], np.uint64) << ROW
    found = [np.array(part[slice(*np.searchsorted(part, ends))]) for part in parts]
    entries = np.concatenate(found)
    entries.sort()
    return entries


def save_cells(path: Path, cells: Cells) -> None:
    """Writes cells into a file that is whole or not there."""
    with atomic_file(path) as fresh, fresh.open("wb") as file:
        figures = np.array([cells.gap, cells.recall, cells.sampled])
        np.savez(file, groups=cells.groups, centres=cells.centres, starts=cells.starts, figures=figures)


def load_cells(path: Path) -> Cells:
    """The cells in a file."""
    with np.load(path) as found:
        gap, recall, sampled = found["figures"].tolist()
        return Cells(found["groups"], found["centres"], found["starts"], gap, recall, int(sampled))


def _written(folder: Path, file: str, array: Entries | PairRows) -> WrittenFile:
    write_array(folder / file, array)
    return WrittenFile(file, len(array), 0, sha256(folder / file))
