"""The places of the files that commands write, looked at before any work is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from qpairs.core.exceptions import UserError
from qpairs.core.files import half_done, os_reason
from qpairs.models.unfinished import numbered


def check_file(path: Path, *, overwrite: bool, option: str = "--output") -> None:
    """Looks at the place of a file that a command writes, before any work is done.

    Args:
        path: the file.
        overwrite: whether one that is there may be replaced.
        option: that names it.

    Raises:
        UserError: it is there already, or cannot be written.
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
        raise UserError(f"{path}: is there already; name another file with {option}, or pass --overwrite")


def check_files(paths: Sequence[Path], *, overwrite: bool) -> None:
    """As `check_file`, of files that are written together; those of a run that was killed between them go.

    They go before that run's traces do, by which they are known: this run may be killed, too.
    """
    own = not overwrite and half_done(paths)
    for path in paths if own else ():
        with suppress(OSError):
            path.unlink(missing_ok=True)
    for path in paths:
        check_file(path, overwrite=overwrite or own)


def free_folder(folder: Path, names: Sequence[str]) -> Path:
    """The first of a folder, folder-2, ... in which none of the files is that a command writes there.

    Those of a run that was killed between them do not count: `check_files` removes them.

    >>> free_folder(Path("nowhere"), ["a.csv"]).as_posix()
    'nowhere'
    """
    return next(
        place
        for place in numbered(folder)
        if half_done([place / name for name in names]) or not any(os.path.lexists(place / name) for name in names)
    )
