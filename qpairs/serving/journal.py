"""An index that forgets no change: each is in a journal on the disk before it is acknowledged.

The journal lies in the folder of the index: a line for each change, with its checksum. It is played when the folder is
opened for changes, and folded into the index then, when it is long, and in the end. Playing it twice changes nothing.
"""

from __future__ import annotations

import base64
import dataclasses
import errno
import json
import logging
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.core.files import os_reason, sync_folder
from qpairs.retrieval.index import Hit, Index, hold_index, save_index

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

FILE = "journal.jsonl"
LONG = 20_000  # questions in a journal, from which on it is folded into the index


@contextmanager
def journalled(folder: str | Path) -> Iterator[Index]:
    """The index in a folder, held against other processes; what is added and deleted is on the disk at once.

    A change that was on its way to the disk when a process died, and that nobody was told of, is not in it.

    Raises:
        UserError: no index in it, another process at work there, a journal that is damaged or was written with another
            model, or a full disk.
    """
    with hold_index(folder) as index, _open(index.folder / FILE) as file:
        questions = JournalledIndex(index, file)
        yield dataclasses.replace(index, questions=questions)
        questions.fold()


@contextmanager
def _open(path: Path) -> Iterator[FileIO]:
    try:
        file = FileIO(path, "a+")
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({os_reason(error)})") from None
    with file:
        yield file


class JournalledIndex:
    """A `VectorIndex` that several threads may share, each of whose changes is on the disk when it returns."""

    def __init__(self, index: Index, file: FileIO) -> None:
        self._index = index
        self._file = file
        self._lock = threading.RLock()
        self._length = 0  # questions in the journal
        self._play()
        self.fold()

    def __len__(self) -> int:
        """Number of questions."""
        with self._lock:
            return len(self._index.questions)

    def known(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that are there."""
        with self._lock:
            return self._index.questions.known(ids)

    def texts(self) -> Iterator[str]:
        """The questions, in any order."""
        with self._lock:
            return iter(list(self._index.questions.texts()))

    def search(self, vectors: Floats, k: int, *, threads: int | None = None) -> list[list[Hit]]:
        """The nearest k questions, nearest first, for each of the vectors (q, dimension)."""
        with self._lock:
            return self._index.questions.search(vectors, k, threads=threads)

    def add(self, ids: Sequence[str], texts: Sequence[str], vectors: Floats) -> None:
        """Adds n questions with their vectors (n, dimension).

        Raises:
            UserError: the disk is full; nothing is added then.
        """
        with self._lock:
            content = base64.b64encode(vectors.astype("<f4").tobytes()).decode()
            model = self._index.manifest.fingerprint
            self._write({"ids": list(ids), "texts": list(texts), "model": model, "vectors": content})
            self._index.questions.add(ids, texts, vectors)
            self._length += len(ids)
            if self._length >= LONG:
                try:
                    self.fold()
                except UserError as error:  # which can wait: all is in the journal
                    log.warning("the journal goes on growing: %s", error)

    def delete(self, ids: Sequence[str]) -> int:
        """Takes out those of the questions that are there, and says how many they are.

        Raises:
            UserError: the disk is full; nothing is deleted then.
        """
        with self._lock:
            known = self.known(ids)
            if known:
                self._write({"deleted": known})
                self._index.questions.delete(known)
            return len(known)

    def fold(self) -> None:
        """Writes the index, after which the journal is empty.

        Raises:
            UserError: the disk is full; the journal is then as it was.
        """
        with self._lock:
            if self._file.seek(0, os.SEEK_END):
                self._index = save_index(self._index)
                self._file.truncate(0)
                os.fsync(self._file.fileno())
                self._length = 0

    def _write(self, change: dict[str, Any]) -> None:
        content = json.dumps(change).encode()
        line = b"%08x %s\n" % (zlib.crc32(content), content)
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            raise UserError(f"{self._index.folder / FILE}: cannot be written ({os_reason(error)})") from error

    def _play(self) -> None:
        self._file.seek(0)
        whole, lines = 0, self._file.readall().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            change = _read(line)
            if change is not None:
                self._repeat(change)
                whole += len(line)
            elif number < len(lines):
                where = f"{self._index.folder / FILE}, line {number}"
                raise UserError(f"{where}: damaged; take the line out to go on without what it adds or deletes")
        self._file.truncate(whole)

    def _repeat(self, change: dict[str, Any]) -> None:
        questions, manifest = self._index.questions, self._index.manifest
        if "deleted" in change:
            questions.delete(change["deleted"])
            return
        ids, texts = change["ids"], change["texts"]
        vectors = np.frombuffer(base64.b64decode(change["vectors"]), "<f4").reshape(len(ids), -1)
        if (change["model"], vectors.shape[1]) != (manifest.fingerprint, manifest.dimension):
            raise UserError(
                f"{self._index.folder / FILE}: has questions that were added to another index, of the model "
                f"{change['model']}; remove it to go on without them"
            )
        known = set(questions.known(ids))
        new = [row for row, name in enumerate(ids) if name not in known]
        questions.add([ids[row] for row in new], [texts[row] for row in new], vectors[new].astype(np.float32))


def _read(line: bytes) -> dict[str, Any] | None:
    """The change in a line; None where the line is not as it was written."""
    checksum, _, content = line.partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(content[:-1]):
        return None
    change: dict[str, Any] = json.loads(content)
    return change
