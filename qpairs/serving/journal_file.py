"""A file of changes, a line with a checksum for each: a change is on the disk when its write returns."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from qpairs.core.exceptions import UserError
from qpairs.core.files import os_reason, sync_folder
from qpairs.core.manifests import parse_json
from qpairs.core.shapes import Shape, anything, named

CHANGE = named(anything)
WITHOUT = "remove the line to continue without its change"


class JournalFile:
    """Changes in the order in which they were made; `open_journal` opens one.

    A change that was only partly written when a process died, and so was not acknowledged, is discarded.

    >>> import tempfile
    >>> with open_journal(Path(tempfile.mkdtemp(), "changes.jsonl")) as journal:
    ...     journal.write({"deleted": ["7"]})
    ...     journal.read()
    [{'deleted': ['7']}]
    """

    def __init__(self, path: Path, file: FileIO, shape: Shape) -> None:
        self.path = path
        self._file = file
        self._shape = shape

    def __bool__(self) -> bool:
        """Whether it holds anything."""
        return self._file.seek(0, os.SEEK_END) > 0

    def read(self) -> list[dict[str, Any]]:
        """The changes; an incomplete last line is ignored, and removed unless the journal is read-only.

        Raises:
            UserError: another line is damaged.
        """
        self._file.seek(0)
        intact, changes, lines = 0, list[dict[str, Any]](), self._file.readall().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            where, content = f"{self.path}, line {number}", _content(line)
            if content is not None:
                changes.append(parse_json(content, self._shape, where=where, mend=WITHOUT))
                intact += len(line)
            elif number < len(lines):
                raise UserError(f"{where}: damaged; {WITHOUT}")
        if self._file.writable():
            self._file.truncate(intact)
        return changes

    def write(self, change: dict[str, Any]) -> None:
        """Appends a change.

        Raises:
            UserError: the disk is full; nothing was appended.
        """
        content = json.dumps(change).encode()
        line = b"%08x %s\n" % (zlib.crc32(content), content)
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            raise UserError(f"{self.path}: cannot be written ({os_reason(error)})") from error

    def clear(self) -> None:
        """Removes all changes."""
        self._file.truncate(0)
        os.fsync(self._file.fileno())


@contextmanager
def open_journal(path: Path, shape: Shape = CHANGE, *, read_only: bool = False) -> Iterator[JournalFile]:
    """Opens a journal, and creates it if needed.

    Args:
        path: the file.
        shape: of each change in it.
        read_only: whether it is only read; a missing one is not created, and has no changes.

    Raises:
        UserError: it cannot be written or read.
    """
    try:
        if read_only:
            file = FileIO(path if path.exists() else os.devnull, "r")
        else:
            file = FileIO(path, "a+")
            sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be {'read' if read_only else 'written'} ({os_reason(error)})") from None
    with file:
        yield JournalFile(path, file, shape)


def _content(line: bytes) -> str | None:
    """The JSON text of the change in a line; None if the line is damaged or incomplete."""
    checksum, _, content = line.partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(content[:-1]):
        return None
    return content.decode("utf-8", "replace")
