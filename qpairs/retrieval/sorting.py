"""Rows of a file put in the order of their cells, and sorted files of pairs made one; both a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from qpairs.core.files import atomic_file
from qpairs.retrieval.blocks import Ints
from qpairs.retrieval.cells import ROW, Entries
from qpairs.retrieval.disk import PARTS, row_parts
from qpairs.retrieval.union_find import AT_ONCE, PAIR, PairRows

BINS = 65_536  # ranges of rows whose pairs are counted before they are merged


def cell_sizes(parts: Iterable[Entries], cells: int) -> tuple[Ints, Ints]:
    """(c,) rows whose own cell each one is, and (c,) rows that probe it."""
    members, probes = np.zeros(cells, np.int64), np.zeros(cells, np.int64)
    for part in parts:
        kind = (np.asarray(part) >> ROW).astype(np.int64)
        probes += np.bincount(kind // 2, minlength=cells)
        members += np.bincount(kind[kind % 2 == 0] // 2, minlength=cells)
    return members, probes


def order_of(parts: Iterable[Entries], rows: int) -> Ints:
    """(n,) the rows in the order of their own cells, and in each in their own order."""
    cell = np.empty(rows, np.int32)
    for part in parts:
        kind = np.asarray(part) >> ROW
        own = kind % 2 == 0
        cell[np.asarray(part)[own] & np.uint64(2**32 - 1)] = kind[own] // 2
    return np.argsort(cell, kind="stable")


def reorder(path: Path, fresh: Path, width: int, order: Ints, position: Ints, advance: Callable[[int], None]) -> None:
    """Writes the vectors of a file in another order, reading and writing long stretches only.

    The rows go to the stretch of the new file that they belong to, as they come; then each stretch is put in order.

    Args:
        path: (n, width) numbers in single precision.
        fresh: the new file.
        width: numbers in a vector.
        order: (n,) the rows as they shall stand.
        position: (n,) where each row shall stand.
        advance: is told of rows, each twice.
    """
    n, size, stretch = len(order), 4 * width, 2 * PARTS
    filled = np.arange(0, n, stretch)  # where the next row of each stretch goes
    with atomic_file(fresh) as hidden, hidden.open("w+b") as out, path.open("rb") as source:
        out.truncate(n * size)
        for part in row_parts(n):
            block = np.fromfile(source, np.float32, (part.stop - part.start) * width).reshape(-1, width)
            goal = position[part] // stretch
            sorted_rows = np.argsort(goal, kind="stable")
            goals, starts, counts = np.unique(goal[sorted_rows], return_index=True, return_counts=True)
            for number, start, count in zip(goals.tolist(), starts.tolist(), counts.tolist(), strict=True):
                out.seek(int(filled[number]) * size)
                out.write(block[sorted_rows[start : start + count]].data)
                filled[number] += count
            advance(part.stop - part.start)
        for part in row_parts(n, stretch):
            out.seek(part.start * size)
            block = np.fromfile(out, np.float32, (part.stop - part.start) * width).reshape(-1, width)
            came = np.sort(order[part])  # the rows of this stretch, as they came
            block[position[came] - part.start] = block.copy()
            out.seek(part.start * size)
            out.write(block.data)
            advance(part.stop - part.start)


def merge_pairs(parts: list[PairRows], rows: int, path: Path) -> None:
    """Writes the pairs of sorted parts into one file, sorted, each once, as the first part has it."""
    width = rows // BINS + 1
    counts = np.zeros(rows // width + 1, np.int64)
    for part in parts:
        for some in row_parts(len(part)):
            counts += np.bincount(part["left"][some] // width, minlength=len(counts))
    batch = (np.cumsum(counts) - counts) // AT_ONCE
    ends = np.flatnonzero(np.diff(batch, append=batch[-1] + 1)) + 1
    with atomic_file(path) as fresh, fresh.open("wb") as out:
        first = 0
        for last in (ends * width).tolist():
            limits = np.array([first, last], np.uint32)
            own = np.concatenate([part[slice(*np.searchsorted(part["left"], limits))] for part in parts])
            keys = own["left"].astype(np.int64) * rows + own["right"]
            out.write(own[np.unique(keys, return_index=True)[1]].tobytes())
            first = last


def read_merged(path: Path) -> PairRows:
    """The pairs in a file of `merge_pairs`, mapped into memory."""
    return np.memmap(path, PAIR, "r") if path.stat().st_size else np.empty(0, PAIR)
