"""Compressed files: .gz, .bz2, .xz and .zst hold one file, .zip the one data file in it."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from qpairs.core.exceptions import UserError

ZIP = ".zip"


def faults() -> tuple[type[Exception], ...]:
    """The exceptions of all readers for files that are damaged or cannot be read; for an `except`."""
    own = OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError
    arrow = sys.modules.get("pyarrow")  # who raises its errors has imported it, which is slow
    return (*own, arrow.ArrowException) if arrow else own


def _zstandard(path: Path) -> IO[bytes]:
    import pyarrow

    stream: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
    return io.BufferedReader(stream)


OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstandard}


def uncompressed_name(path: Path) -> str:
    """The name of the data file: its name without the ending of the compression, or the name inside a .zip.

    Raises:
        UserError: a .zip that cannot be read, or that does not hold exactly one file.

    >>> uncompressed_name(Path("pairs.csv.gz")), uncompressed_name(Path("pairs.csv"))
    ('pairs.csv', 'pairs.csv')
    """
    kind = path.suffix.lower()
    if kind in OPENERS:
        return path.stem
    if kind == ZIP and os.path.isfile(path):
        return PurePosixPath(_member(path)).name
    return path.stem if kind == ZIP else path.name


def is_compressed(path: Path) -> bool:
    """Whether the name of a file says that it is compressed."""
    return path.suffix.lower() in (*OPENERS, ZIP)


@contextlib.contextmanager
def open_uncompressed(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed if it is compressed.

    Raises:
        UserError: as `uncompressed_name`; what is wrong with other files is raised as one of `faults`.
    """
    kind = path.suffix.lower()
    if kind == ZIP:
        with zipfile.ZipFile(path) as archive, archive.open(_member(path)) as file:
            yield file
    else:
        with OPENERS[kind](path) if kind in OPENERS else path.open("rb") as file:
            yield file


def _member(path: Path) -> str:
    """The one file in a .zip, apart from files that operating systems add."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except faults() as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    files = [name for name in names if not (name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith("."))]
    if len(files) != 1:
        held = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "") or "none"
        raise UserError(
            f"{path}: must contain exactly one file, but has {len(files)} ({held}); unpack it, and name one"
        )
    return files[0]
