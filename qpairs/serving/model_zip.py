"""The folder of a model as one file that a browser can save."""

from __future__ import annotations

import io
import os
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")  # what runs code when it is loaded
BLOCK = 1 << 18  # bytes that are read at once


class _Sink(io.RawIOBase):
    """A file object that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._parts = list[bytes]()

    def writable(self) -> bool:
        return True

    def write(self, part: object) -> int:
        self._parts.append(bytes(part))  # type: ignore[call-overload]
        return len(self._parts[-1])

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def zip_folder(folder: Path) -> Iterator[bytes]:
    """The parts of a .zip with the files of a folder, under its name. Memory use is constant.

    Links, hidden files and pickles are left out. All files are opened before the first part, so that a folder replaced
    meanwhile is stored as it was.

    Raises:
        OSError: the folder is missing, or cannot be read.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp(), "model")
    >>> folder.mkdir()
    >>> _ = (folder / "qpairs.json").write_text("{}")
    >>> zipfile.ZipFile(io.BytesIO(b"".join(zip_folder(folder)))).namelist()
    ['model/qpairs.json']
    """
    with ExitStack() as held:
        paths = sorted(path for path in folder.rglob("*") if _belongs(path.relative_to(folder), path))
        files = [(path, held.enter_context(path.open("rb"))) for path in paths]
        if not files:
            raise FileNotFoundError(f"{folder}: no file in it")
        kept = held.pop_all()
    return _parts(folder, files, kept)


def _belongs(name: Path, path: Path) -> bool:
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and not path.is_symlink() and path.is_file() and path.suffix.lower() not in PICKLES


def _date(seconds: float) -> tuple[int, int, int, int, int, int]:
    now = time.localtime(seconds)
    return min(max(now.tm_year, 1980), 2107), now.tm_mon, now.tm_mday, now.tm_hour, now.tm_min, now.tm_sec


def _parts(folder: Path, files: Sequence[tuple[Path, IO[bytes]]], held: ExitStack) -> Iterator[bytes]:
    sink = _Sink()
    with held, zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # weights are hardly made smaller
        for path, file in files:
            state = os.fstat(file.fileno())
            info = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}", _date(state.st_mtime))
            info.file_size, info.external_attr = state.st_size, 0o644 << 16
            with archive.open(info, "w") as entry:
                while part := file.read(BLOCK):
                    entry.write(part)
                    yield sink.take()
    yield sink.take()
