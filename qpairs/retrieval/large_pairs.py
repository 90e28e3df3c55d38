"""The pairs of a corpus on a disk: cells, which rows probe them, vectors in the order of the cells, pairs of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qpairs.core.progress import Meter
from qpairs.retrieval.blocks import LONG, MOST_PAIRS, SHORT, axes_sample, main_axes, short_vectors, too_many
from qpairs.retrieval.cell_jobs import (
    CELLS,
    PAIRS,
    POSITION,
    SHORT_VECTORS,
    SORTED,
    VECTORS,
    PairFinder,
    Prober,
    RangeJob,
    block_jobs,
    cell_jobs,
    load_cells,
    probe_files,
    probe_jobs,
    save_cells,
)
from qpairs.retrieval.cells import make_cells
from qpairs.retrieval.disk import VectorFile, read_vectors, write_array, write_vectors
from qpairs.retrieval.executors import Executor, WrittenFile
from qpairs.retrieval.matches import all_are_compared
from qpairs.retrieval.sorting import cell_sizes, merge_pairs, order_of, read_merged, reorder
from qpairs.retrieval.union_find import PairRows

MOST_A_QUESTION = 20  # pairs, so that a threshold that is far too low does not fill the disk
MERGED = "pairs.bin"


@dataclass(frozen=True)
class Search:
    """What is looked for.

    Attributes:
        folder: of the run; it has the vectors in the order of the questions.
        rows: how many questions there are.
        width: numbers in a vector.
        threshold: least cosine of a pair.
        recall: share of the pairs to find.
        seed: of samples and cells.
    """

    folder: Path
    rows: int
    width: int
    threshold: float
    recall: float
    seed: int

    @property
    def in_cells(self) -> bool:
        """Whether pairs are looked for in cells; otherwise all are compared with all."""
        return not all_are_compared(self.rows, self.rows, self.recall)

    @property
    def finder(self) -> PairFinder:
        """What finds the pairs of a job."""
        return PairFinder(self.folder, self.width, self.threshold, self.in_cells)


@dataclass(frozen=True)
class FoundPairs:
    """Pairs on a disk: (m,) rows of `union_find.PAIR`, sorted; recall and sample as in `Matches`."""

    rows: PairRows
    recall: float = 1.0
    sampled: int = 0


def find_pairs(search: Search, engine: Executor, meter: Meter) -> FoundPairs:
    """The pairs of the vectors in a folder, as `matches.find_matches` finds them in memory.

    Args:
        search: what is looked for, and where.
        engine: what runs the jobs.
        meter: the stages probing and sorting (questions) and comparing (cosines).

    Raises:
        UserError: there are far too many pairs, or the disk is full.
    """
    work = search.folder
    _write_short_vectors(search)
    if not search.in_cells:
        comparison = search.finder.comparison()
        return FoundPairs(_merged(search, list(block_jobs(comparison)), engine, meter))
    if not (work / CELLS).exists():
        meter.begin("making cells")
        comparison = replace(search.finder, in_cells=False).comparison()
        save_cells(work / CELLS, make_cells(comparison, search.recall, search.seed))
    cells = load_cells(work / CELLS)
    if not (work / POSITION).exists():
        meter.begin("probing")
        _run(search, list(probe_jobs(search.rows)), Prober(work, search.width), engine, meter)
        _sort(search, meter)
    for name in (VECTORS, SHORT_VECTORS):
        (work / name).unlink(missing_ok=True)
    jobs = list(cell_jobs(*cell_sizes(probe_files(work), len(cells))))
    return FoundPairs(_merged(search, jobs, engine, meter), cells.recall, cells.sampled)


def _write_short_vectors(search: Search) -> None:
    work = search.folder
    if search.width < LONG or any((work / name).exists() for name in (SHORT_VECTORS, SORTED + SHORT_VECTORS)):
        return
    vectors = VectorFile(work / VECTORS, search.width).reader()
    axes = main_axes(axes_sample(vectors))
    if axes is not None:
        parts = (vectors_of for _, vectors_of in read_vectors(work / VECTORS, search.rows, search.width))
        write_vectors(work / SHORT_VECTORS, (short_vectors(part, axes) for part in parts))


def _run(
    search: Search,
    jobs: Sequence[RangeJob],
    write: Callable[[RangeJob], WrittenFile],
    engine: Executor,
    meter: Meter,
) -> None:
    """Runs the jobs whose files are not there yet.

    Raises:
        UserError: they find far too many pairs.
    """
    there = {job.file for job in jobs if (search.folder / job.file).exists()}
    todo = [job for job in jobs if job.file not in there]
    size, most = {job.file: job.size for job in jobs}, max(MOST_PAIRS, MOST_A_QUESTION * search.rows)
    pairs = sum(len(np.load(search.folder / file, mmap_mode="r")) for file in there if file.startswith(PAIRS))
    total = sum(size.values())
    if pairs > most:
        raise too_many(most, search.threshold)
    meter.begin(meter.stage, total, total - sum(job.size for job in todo))
    for written in engine(lambda: todo, write):
        meter.advance(size[written.file])
        pairs += written.rows if written.file.startswith(PAIRS) else 0
        if pairs > most:
            raise too_many(most, search.threshold)


def _sort(search: Search, meter: Meter) -> None:
    """Puts the vectors in the order of the cells, so that the rows of a cell, and of its neighbours, stand together."""
    work = search.folder
    order = order_of(probe_files(work), search.rows)
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    files = [
        (name, width) for name, width in ((VECTORS, search.width), (SHORT_VECTORS, SHORT)) if (work / name).exists()
    ]
    meter.begin("sorting", 2 * len(files) * search.rows)
    for name, width in files:
        reorder(work / name, work / (SORTED + name), width, order, position, meter.advance)
    write_array(work / POSITION, position)


def _merged(search: Search, jobs: Sequence[RangeJob], engine: Executor, meter: Meter) -> PairRows:
    """The pairs of all jobs, each once."""
    work = search.folder
    if not (work / MERGED).exists():
        meter.begin("comparing")
        _run(search, jobs, search.finder, engine, meter)
        meter.begin("merging")
        merge_pairs([np.load(work / job.file, mmap_mode="r") for job in jobs], search.rows, work / MERGED)
    return read_merged(work / MERGED)
