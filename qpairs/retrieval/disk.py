"""Vectors and texts in files that are mapped into memory, so that a corpus may be larger than memory."""

from __future__ import annotations

import functools
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs.core.files import atomic_file
from qpairs.retrieval.blocks import Floats, Ints

MAPPED = 2**28
PARTS = 65_536  # rows that are read or written at a time


@dataclass(frozen=True)
class VectorFile:
    """Vectors in a file of numbers without a header, as `blocks.Vectors`.

    Each call of `reader` maps the file anew: pages that were read count as memory of the process while a mapping lives.

    Attributes:
        file: the path.
        width: numbers in a vector.
        position: file of (n,) the place of each row; None where row 0 comes first, and so on.
    """

    file: Path
    width: int
    position: Path | None = None

    def reader(self) -> MappedVectors:
        """The vectors, to be indexed by rows."""
        return MappedVectors(self.file, self.width, self.position)


class MappedVectors:
    """Vectors (n, d) that are mapped into memory; of what was read, at most about `MAPPED` bytes count as memory."""

    def __init__(self, file: Path, width: int, position: Path | None = None) -> None:
        """Maps the file of a `VectorFile`."""
        with file.open("rb") as opened:
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        self._numbers = np.frombuffer(self._map, np.float32).reshape(-1, width)
        self._position = None if position is None else np.load(position, mmap_mode="r")
        self._touched, self._row = 0, max(4 * width, mmap.PAGESIZE)

    def __len__(self) -> int:
        """How many."""
        return len(self._numbers)

    def __getitem__(self, rows: NDArray[np.integer]) -> Floats:
        """Those of some rows (k,), as (k, d)."""
        places = rows if self._position is None else self._position[rows]
        found: Floats = self._numbers[places]
        self._touched += len(rows) * self._row
        if self._touched > MAPPED and hasattr(mmap, "MADV_DONTNEED"):
            self._touched = 0
            self._map.madvise(mmap.MADV_DONTNEED)  # the pages stay with the system, as long as it has room
        return found


def row_parts(n: int, size: int = PARTS) -> Iterator[slice]:
    """The rows below n, some at a time."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def read_vectors(path: Path, rows: int, width: int) -> Iterator[tuple[int, Floats]]:
    """The row that a part begins with, and its vectors (k, width), in the order in which a file has them."""
    with path.open("rb") as file:
        for part in row_parts(rows):
            count = part.stop - part.start
            yield part.start, np.fromfile(file, np.float32, count * width).reshape(count, width)


def write_vectors(path: Path, blocks: Iterable[Floats]) -> None:
    """Writes vectors (k, d) one after the other into a file that is whole or not there.

    Raises:
        UserError: the disk is full.
    """
    with atomic_file(path) as fresh, fresh.open("wb") as file:
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.float32).data)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Writes an array as .npy, into a file that is whole or not there.

    Raises:
        UserError: the disk is full.
    """
    with atomic_file(path) as fresh, fresh.open("wb") as file:
        np.save(file, array, allow_pickle=False)


@dataclass(frozen=True)
class TextFile:
    """Texts in a file, found by a second file with the place where each begins.

    Attributes:
        folder: that holds both.
        name: of the files, without the ending.
    """

    folder: Path
    name: str

    @functools.cached_property
    def _mapped(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        starts = np.load(self.folder / f"{self.name}.npy", mmap_mode="r")
        content = self.folder / f"{self.name}.txt"
        return starts, np.memmap(content, np.uint8, "r") if content.stat().st_size else np.empty(0, np.uint8)

    def __getitem__(self, rows: Ints) -> list[str]:
        """The texts of some rows (k,)."""
        starts, content = self._mapped
        return [
            content[start:end].tobytes().decode()
            for start, end in zip(starts[rows].tolist(), starts[rows + 1].tolist(), strict=True)
        ]

    def write(self, blocks: Iterable[list[str]]) -> None:
        """Writes texts, some at a time.

        Raises:
            UserError: the disk is full.
        """
        lengths = [np.zeros(1, np.int64)]
        with atomic_file(self.folder / f"{self.name}.txt") as fresh, fresh.open("wb") as file:
            for block in blocks:
                encoded = [text.encode() for text in block]
                file.write(b"".join(encoded))
                lengths.append(np.array([len(text) for text in encoded], np.int64))
        write_array(self.folder / f"{self.name}.npy", np.cumsum(np.concatenate(lengths)))
