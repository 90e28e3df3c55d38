"""Folders of results: a free name for one, and the folder of an unfinished run next to its output."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from qpairs.core.exceptions import UserError
from qpairs.core.shell import shown_command

SPLIT = "split.json"  # in the folder of a run: from when it is written, the run can be resumed
PARTIAL = ".partial"


def numbered(path: Path) -> Iterator[Path]:
    """A path, and the same with -2, -3, ... at the end of its name.

    >>> [path.as_posix() for path, _ in zip(numbered(Path("runs/x")), range(3))]
    ['runs/x', 'runs/x-2', 'runs/x-3']
    """
    yield path
    yield from (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))


def partial_of(output: Path) -> Path:
    """The folder of an unfinished run, next to its output.

    >>> partial_of(Path("runs/x")).as_posix()
    'runs/x.partial'
    """
    return output.with_name(f"{output.name}{PARTIAL}")


def is_interrupted(folder: Path) -> bool:
    """Whether a folder holds a run that can be resumed; one killed very early has nothing to resume from.

    >>> is_interrupted(Path("runs/nowhere.partial"))
    False
    """
    return (folder / SPLIT).exists()


def require_finished(path: Path) -> None:
    """Raises UserError if a folder has no model because its run is not finished; the message says how to resume.

    Args:
        path: the output of the run, or its folder next to that.

    >>> require_finished(Path("runs/nowhere"))
    """
    output = path.with_name(path.name.removesuffix(PARTIAL)) if path.name.endswith(PARTIAL) else path
    if output.name and is_interrupted(partial_of(output)):
        go_on = shown_command("qpairs", "train", "--resume", "--output", output)
        raise UserError(f"{path}: no model yet: its run is unfinished, in {partial_of(output)}; to resume it: {go_on}")
