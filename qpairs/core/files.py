"""Folders that several processes may use at once, and files that are either complete or absent."""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from qpairs.core.exceptions import UserError, not_utf8

LOCK = ".lock"
UNFINISHED = ".new-"  # what the name of a file begins with that is being written
INTERRUPTED = ".unfinished"  # folder of what a command goes on with that was interrupted
INSIDE = ".qpairs-new"  # folder of unfinished work in a folder that cannot be exchanged with another one
NEW, OLD, WHOLE = "new", "old", "whole"  # in a hidden folder: being filled, replaced, to be moved out
LONG = 200  # bytes of a name, which may have 255
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG)
RETRIES = 20  # where other processes remove the folder of a lock at the same time
_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())  # places that this thread holds


@contextmanager
def exclusive_lock(
    folder: Path, *, wait: bool = False, called: Path | None = None, passing: bool = False
) -> Iterator[None]:
    """Locks a folder against other processes; creates it if needed, and removes it again if it stays empty.

    Args:
        folder: the folder.
        wait: whether to wait for another process that holds it.
        called: what messages call it.
        passing: whether an empty folder is removed in the end, whoever made it.

    Raises:
        UserError: another process has locked it, or it cannot be written.
    """
    from filelock import FileLock, Timeout  # slow to import, and the command line imports this module

    called, lock, made = called or folder, FileLock(folder / LOCK), [folder] if passing else []
    for last in (*[False] * RETRIES, True):
        try:
            made = made + [each for each in (folder, *folder.parents) if each not in made and not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=-1 if wait else 0)
            break
        except Timeout:
            raise UserError(f"{called}: another process is using this folder") from None
        except OSError as error:  # as when another process is done with the folder, and removes it
            if last or not isinstance(error, FileNotFoundError):
                raise UserError(f"{called}: cannot be written ({os_reason(error)})") from None
    try:
        yield
    finally:
        with suppress(OSError):
            if made and all(entry.name == LOCK for entry in folder.iterdir()):
                (folder / LOCK).unlink()  # while it is held: who takes it next finds that it is gone
                for each in made:
                    each.rmdir()
        lock.release()


@contextmanager
def writing(path: Path, hidden: Path | None = None) -> Iterator[None]:
    """Reports in one line that the system refuses a write of this block at `path`; other errors pass unchanged.

    Args:
        path: what is written.
        hidden: where it is written first, if that is not inside `path`.

    Raises:
        UserError: the disk is full, or the write fails for another reason.

    >>> with writing(Path("runs")):
    ...     raise OSError(28, "")
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: runs: cannot be written (No space left on device)
    """
    try:
        yield
    except OSError as error:
        if _is_refused(error, [path, *([hidden] if hidden else [])]):
            raise UserError(f"{path}: cannot be written ({os_reason(error)})") from error
        raise
    except UserError:
        raise
    except Exception as error:  # of libraries in other languages, with the words of the system
        if said := said_by_system(error):
            raise UserError(f"{path}: cannot be written ({said})") from error
        raise


def said_by_system(error: Exception) -> str:
    """What the system said, for an error that has it only in its text; '' if no write was refused.

    >>> said_by_system(RuntimeError("write error: 4051 != 20480 (No space left on device)"))
    'No space left on device'
    """
    text = str(error)
    return next((reason for reason in map(os.strerror, NOT_WRITTEN) if reason in text), "")


def _is_refused(error: OSError, places: Sequence[Path]) -> bool:
    """Whether an error is from writing at these paths, and not from a file that is read, a pipe or a network."""
    if error.errno in NOT_WRITTEN or (not error.errno and said_by_system(error)):  # as of `shutil.copytree`
        return True
    if not isinstance(error.filename, str | bytes):
        return error.errno in (errno.EACCES, errno.EPERM)
    named, own = Path(os.fsdecode(error.filename)), [form for p in places for form in (p.absolute(), p.resolve())]
    if any(place.is_relative_to(named.absolute()) for place in own):  # it cannot be made, or is no folder
        return True
    inside = any(named.absolute().is_relative_to(place) for place in own)
    return inside and not isinstance(error, FileNotFoundError)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A file to write, hidden next to `path`, which replaces `path` when it is complete and on the disk.

    Remains of a process that was killed while it wrote this file are removed.

    Raises:
        UserError: the disk is full, or the write fails for another reason; `path` is then unchanged.
    """
    fresh = path.with_name(f"{UNFINISHED}{os.getpid()}-{_ending(path)}")
    try:
        with writing(path, fresh):
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in path.parent.glob(_unfinished(path)):
                if not _is_written(left):
                    left.unlink(missing_ok=True)
            yield fresh
            with fresh.open("rb") as written:
                os.fsync(written.fileno())
            fresh.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):  # it may be in no folder at all
            fresh.unlink()


def half_done(paths: Sequence[Path]) -> bool:
    """Whether a process that wrote these files was killed when only some of them were in place.

    It had written all of them, each with `atomic_file`, before moving the first into place. So the files in place are
    older than what it left next to the others; files that a person put there since are not.

    >>> half_done([Path("nothing.csv"), Path("here.csv")])
    False
    """
    there = [path for path in paths if path.exists()]
    left = [[file for file in path.parent.glob(_unfinished(path)) if not _is_written(file)] for path in paths]
    missing = [found for path, found in zip(paths, left, strict=True) if path not in there]
    if not (there and missing and all(missing)):
        return False
    newest = max(path.stat().st_mtime_ns for path in there)
    return all(any(file.stat().st_mtime_ns >= newest for file in found) for found in missing)


def _unfinished(path: Path) -> str:
    """The name pattern of temporary files for a path."""
    return f"{UNFINISHED}*-{glob.escape(_ending(path))}"


def _ending(path: Path) -> str:
    long = len(os.fsencode(path.name)) > LONG
    return f"{_digest(path)}{path.suffix[:16]}" if long else path.name


def _is_written(file: Path) -> bool:
    """Whether the process that began to write a file is still running."""
    return _runs(file.name[len(UNFINISHED) :].partition("-")[0])


def _runs(process: str) -> bool:
    """Whether a process with this id runs on this machine."""
    if not process.isdigit() or os.name != "posix":
        return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def hold_output(path: Path, *, wait: bool = False) -> Iterator[Path]:
    """Locks the path of a folder to be written against other processes; gives a hidden folder for the work.

    Whether it can be written is checked here, before the work; and what a killed process left is cleaned up. The hidden
    folder is removed at the end. It is next to the path, so that both can be exchanged in one step. The current folder,
    the root of a file system, and a folder whose parent cannot be written, cannot be exchanged: they must be empty, and
    the hidden folder is inside them. A lock that this thread already holds is kept.

    Args:
        path: the place.
        wait: whether to wait for another process that holds it.

    Raises:
        UserError: another process has locked it, or nothing can be written there.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp(), "model")
    >>> with hold_output(place) as work:
    ...     work.parent == place.parent, place.exists()
    (True, False)
    """
    try:
        place = path.resolve()
        inside = _cannot_be_exchanged(place)
        if inside and visible(place):
            raise UserError(
                f"{path}: is not empty, and {inside}, so that it cannot be replaced as a whole; name another folder "
                "with --output"
            )
    except (OSError, RuntimeError) as error:  # a name that is too long, or a loop of links
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise UserError(f"{path}: cannot be written ({reason})") from None
    work = place / INSIDE if inside else _beside(place)
    if place in _held.get():
        yield work
        return
    with exclusive_lock(work, wait=wait, called=path, passing=True):
        token = _held.set(_held.get() | {place})
        try:
            with writing(path, work):
                _put_in_order(place)
                yield work
        finally:
            _held.reset(token)
            if not (work / WHOLE).exists():
                for entry in work.iterdir() if work.is_dir() else ():
                    if entry.name != LOCK:
                        shutil.rmtree(entry, ignore_errors=True)


def _cannot_be_exchanged(place: Path) -> str:
    """Why a folder has to be filled in place; '' if it does not."""
    if not place.is_dir():
        return ""
    if place in (here := Path.cwd(), *here.parents):
        return "you work in it"
    if place.is_mount():
        return "is the root of a file system"
    return "" if os.access(place.parent, os.W_OK) else f"{place.parent} cannot be written"


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name[:24]}-{_digest(place)}.qpairs")


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]


def refuse_file(path: Path) -> None:
    """Raises UserError if a file is at the path of a folder to be written."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; name a folder with --output")


def visible(folder: Path) -> list[Path]:
    """What is in a folder besides what qpairs itself hides there: a lock, and unfinished or interrupted work.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> (place / ".lock").touch(), visible(place)
    (None, [])
    """
    own = (LOCK, INSIDE, INTERRUPTED)
    return [entry for entry in folder.iterdir() if entry.name not in own and not entry.name.startswith(UNFINISHED)]


def recover_folder(path: Path) -> None:
    """Cleans up after a process that was killed while it replaced a folder; does nothing while one runs.

    Raises:
        UserError: it cannot be written.

    >>> recover_folder(Path("nothing/here"))
    """
    place = path.resolve()
    for work, left in ((_beside(place), OLD), (place / INSIDE, WHOLE)):
        if (work / left).is_dir():
            with suppress(UserError), exclusive_lock(work, called=path, passing=True):
                _put_in_order(place)


def _put_in_order(place: Path) -> None:
    old, whole = _beside(place) / OLD, place / INSIDE / WHOLE
    if old.exists() and not place.exists():  # killed between the two renames of a system that cannot exchange folders
        old.rename(place)
    if whole.exists():
        _move_out(whole, place)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A hidden folder to fill, which replaces `path` when it is complete and on the disk.

    What was at `path` is then gone; until then, or if filling fails, it is unchanged. If the system can exchange two
    folders, there is one at `path` at any moment; otherwise the next reader cleans up after a killed process. A link
    stays a link: the folder that it points to is replaced. Files are readable to everybody who can read the folder. If
    another process writes the same folder, this waits for it; `hold_output` before the work refuses instead.

    Raises:
        UserError: the disk is full, or the write fails for another reason.
    """
    with hold_output(path, wait=True) as work:
        place, fresh, old = path.resolve(), work / NEW, work / OLD
        shutil.rmtree(fresh, ignore_errors=True)
        with writing(path, work):
            try:
                fresh.mkdir()
                yield fresh
                _put_on_disk(fresh)
                if work.parent == place:
                    fresh.rename(work / WHOLE)
                    _move_out(work / WHOLE, place)
                elif not (place.exists() and _exchange(fresh, place)):
                    if place.exists():
                        place.rename(old)
                    fresh.rename(place)
                sync_folder(place.parent)
            except OSError:
                if old.exists() and not place.exists():
                    old.rename(place)
                raise


def keep_others(folder: Path, fresh: Path, *, replaced: Sequence[str]) -> None:
    """Copies other files of a folder into the one that replaces it.

    Args:
        folder: what is replaced; it may be missing.
        fresh: what replaces it.
        replaced: patterns of names, as for `Path.match`, of what is not copied.

    >>> import tempfile
    >>> folder, fresh = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    >>> (folder / "notes.txt").touch(), (folder / "pairs.csv").touch()
    (None, None)
    >>> keep_others(folder, fresh, replaced=["pairs.*"])
    >>> [file.name for file in fresh.iterdir()]
    ['notes.txt']
    """

    def copy(source: str, target: str) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:  # a file system without hard links
            shutil.copy2(source, target, follow_symlinks=False)

    for entry in visible(folder) if folder.is_dir() else []:
        if any(entry.match(pattern) for pattern in replaced):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, fresh / entry.name, symlinks=True, copy_function=copy)
        else:
            copy(str(entry), str(fresh / entry.name))


def _put_on_disk(folder: Path) -> None:
    """Syncs all files in a folder to the disk, readable to everybody who can read the folder."""
    mode = folder.stat().st_mode & 0o666
    for entry in [folder, *folder.rglob("*")]:
        if entry.is_dir():
            sync_folder(entry)
        elif entry.is_file() and not entry.is_symlink():
            if entry.stat().st_nlink == 1:
                entry.chmod(mode)  # safetensors makes files for their owner alone
            with entry.open("rb") as written:
                os.fsync(written.fileno())


def _move_out(whole: Path, place: Path) -> None:
    """Moves a complete folder from its hidden path into place, and finishes what a killed process began."""
    for entry in sorted(whole.iterdir()):
        entry.rename(place / entry.name)
    whole.rmdir()
    sync_folder(place)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step, as Linux can (renameat2); False if that is impossible."""
    at_working_folder, exchange = -100, 2
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):  # no such call in the C library of this system
        return False
    paths = os.fsencode(one), os.fsencode(other)
    return bool(rename(at_working_folder, paths[0], at_working_folder, paths[1], exchange) == 0)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, complete or not at all, with line ends unchanged.

    Raises:
        UserError: it cannot be written; what was at `path` is then unchanged.
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
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {not_utf8(error.object)}") from None


def sync_folder(folder: Path) -> None:
    """Syncs the names of the files in a folder to the disk, if the system supports it."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def os_reason(error: OSError) -> str:
    """What the system says, in its own words, whichever library passes it on."""
    return os.strerror(error.errno) if error.errno else said_by_system(error) or str(error)


def sha256(file: Path) -> str:
    """The checksum of a file in hex; '' for a missing file."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
