"""The output files of commands, checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from qpairs.core.exceptions import UserError
from qpairs.core.files import half_done, os_reason
from qpairs.models.unfinished import numbered


def check_file(path: Path, *, overwrite: bool, option: str = "--output") -> None:
    """Checks that a command can write a file, before any work is done.

    Args:
        path: the file.
        overwrite: whether an existing file may be replaced.
        option: that sets its path.

    Raises:
        UserError: it exists already, or cannot be written.
    """
    try:
        there = bool(path.lstat())
    except FileNotFoundError:
        there = False
    except OSError as error:  # its name is too long, or what should be a folder is a file
        raise UserError(f"{path}: cannot be written ({os_reason(error)}); name another file with {option}") from None
    standing = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not (standing.is_dir() and os.access(standing, os.W_OK)):
        raise UserError(f"{path}: cannot be written; name another file with {option}")
    if there and not overwrite:
        raise UserError(f"{path}: exists already; name another file with {option}, or pass --overwrite")


def check_files(paths: Sequence[Path], *, overwrite: bool, options: Sequence[str] = ()) -> None:
    """As `check_file`, for files that are written together; those left by a killed run are removed.

    They are removed before the traces that identify them, as this run may be killed, too. `options` name the files, one
    for each, if that is not `--output`.
    """
    own = not overwrite and half_done(paths)
    for path in paths if own else ():
        with suppress(OSError):
            path.unlink(missing_ok=True)
    for path, option in zip(paths, options or ["--output"] * len(paths), strict=True):
        check_file(path, overwrite=overwrite or own, option=option)


def free_folder(folder: Path, names: Sequence[str]) -> Path:
    """The first of a folder, folder-2, ... that has none of the files that a command writes there.

    Files left by a killed run do not count: `check_files` removes them.

    >>> free_folder(Path("nowhere"), ["a.csv"]).as_posix()
    'nowhere'
    """
    return next(
        place
        for place in numbered(folder)
        if half_done([place / name for name in names]) or not any(os.path.lexists(place / name) for name in names)
    )
