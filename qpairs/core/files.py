"""Folders that several processes may meet in, and files that are whole or not there."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qpairs.core.exceptions import UserError


@contextmanager
def exclusive_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a folder, made if need be, against other processes.

    Args:
        folder: what is held.
        wait: whether to wait for another process that holds it.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    from filelock import FileLock, Timeout  # slow to import, and the command line imports this module

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise UserError(f"{folder}: another process is at work here") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({os_reason(error)})") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A file to write, in a hidden place beside `path`, which takes that place when it is whole and on the disk.

    Raises:
        UserError: the disk is full, or refuses for another reason; `path` is then as it was.
    """
    fresh = path.with_name(f".new-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield fresh
        with fresh.open("rb") as written:
            os.fsync(written.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({os_reason(error)})") from error
    finally:
        with suppress(OSError):  # it may be in no folder at all
            fresh.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, hidden beside `path`, which takes that place when it is whole and on the disk.

    What is at `path` is then gone; until then, or where the filling fails, it is as it was. Where the system can
    exchange two folders, there is one at `path` at any moment. What a process left that died in the middle is put in
    order first. A link stays one: the folder that it points to is replaced. Files are readable to whom the folder is.

    Raises:
        UserError: the disk is full, or refuses for another reason.
    """
    given, path = path, path.resolve()
    fresh, old = (path.with_name(f".{path.name}.{kind}") for kind in ("new", "old"))
    try:
        if old.exists() and not path.exists():  # a process died between the two renames
            old.rename(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        yield fresh
        mode = fresh.stat().st_mode & 0o666
        for file in filter(Path.is_file, fresh.rglob("*")):
            file.chmod(mode)  # safetensors makes files for their owner alone
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if not (path.exists() and _exchange(fresh, path)):
            if path.exists():
                path.rename(old)
            fresh.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise UserError(f"{given}: cannot be written ({os_reason(error)})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step, as Linux can (renameat2); False where that cannot be."""
    at_working_folder, exchange = -100, 2
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):  # no such call in the C library of this system
        return False
    paths = os.fsencode(one), os.fsencode(other)
    return bool(rename(at_working_folder, paths[0], at_working_folder, paths[1], exchange) == 0)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 that is whole or not there, line ends as they are.

    Raises:
        UserError: it cannot be written; what was at `path` is then as it was.
    """
    with atomic_file(path) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="")


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({os_reason(error)})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not valid UTF-8; save the file as UTF-8") from None


def sync_folder(folder: Path) -> None:
    """Puts the names of the files in a folder on the disk, where the system lets one ask for it."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def os_reason(error: OSError) -> str:
    """What the system says, in its own words, whichever library passes it on."""
    return os.strerror(error.errno) if error.errno else str(error)


def sha256(file: Path) -> str:
    """The checksum of a file in hex; of a file that is not there, none."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
