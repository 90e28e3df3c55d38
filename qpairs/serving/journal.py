"""An index with a write-ahead journal: a change is on the disk before it is acknowledged.

The journal is a file in the folder of the index, with a line and a checksum for each change. Opening the folder for
changes replays it. It is merged into the index after that, when it has grown long, and on closing. Replaying it twice
changes nothing.
"""

from __future__ import annotations

import base64
import dataclasses
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.core.shapes import WrongShape, each, record, text
from qpairs.retrieval.index import Hit, Index, hold_index, save_index
from qpairs.serving.journal_file import JournalFile, open_journal

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

FILE = "journal.jsonl"
MERGE_AT = 20_000  # questions in the journal
_ADDED = record({"ids": each(text), "texts": each(text), "model": text, "vectors": text})
_DELETED = record({"deleted": each(text)})


def _change_shape(value: Any, where: str) -> None:
    """The shape of a change: questions that were added, with their vectors, or ids that were deleted."""
    (_DELETED if isinstance(value, dict) and "deleted" in value else _ADDED)(value, where)
    if len(value.get("ids", ())) != len(value.get("texts", ())):
        raise WrongShape(f"{len(value['ids'])} ids, and {len(value['texts'])} texts")


@contextmanager
def journalled(folder: str | Path) -> Iterator[Index]:
    """Opens the index in a folder for changes, and locks it; a change is on the disk when its method returns.

    A change that was only partly written when a process died, and so was not acknowledged, is discarded.

    Raises:
        UserError: the folder has no index or is locked, the journal is damaged or of another model, or the disk is
            full.
    """
    with hold_index(folder) as index, open_journal(index.folder / FILE, _change_shape) as journal:
        questions = JournalledIndex(index, journal)
        yield dataclasses.replace(index, questions=questions)
        questions.merge()


class JournalledIndex:
    """A `VectorIndex` for several threads, whose changes are on the disk when its methods return."""

    def __init__(self, index: Index, journal: JournalFile) -> None:
        self._index = index
        self._journal = journal
        self._lock = threading.RLock()
        self._length = 0  # questions in the journal
        for change in journal.read():
            self._apply(change)
        self.merge()

    def __len__(self) -> int:
        """Number of questions."""
        with self._lock:
            return len(self._index.questions)

    def known(self, ids: Sequence[str]) -> list[str]:
        """The ids that exist, of those given."""
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
            UserError: the disk is full; nothing was added.
        """
        with self._lock:
            content = base64.b64encode(vectors.astype("<f4").tobytes()).decode()
            model = self._index.manifest.fingerprint
            self._journal.write({"ids": list(ids), "texts": list(texts), "model": model, "vectors": content})
            self._index.questions.add(ids, texts, vectors)
            self._length += len(ids)
            if self._length >= MERGE_AT:
                try:
                    self.merge()
                except UserError as error:  # nothing is lost: the journal has all changes
                    log.warning("the journal keeps growing: %s", error)

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes the questions that exist, and returns their number.

        Raises:
            UserError: the disk is full; nothing was deleted.
        """
        with self._lock:
            known = self.known(ids)
            if known:
                self._journal.write({"deleted": known})
                self._index.questions.delete(known)
            return len(known)

    def merge(self) -> None:
        """Writes the index with all changes, and empties the journal.

        Raises:
            UserError: the disk is full; the journal is unchanged.
        """
        with self._lock:
            if self._journal:
                self._index = save_index(self._index)
                self._journal.clear()
                self._length = 0

    def _apply(self, change: dict[str, Any]) -> None:
        questions, manifest = self._index.questions, self._index.manifest
        if "deleted" in change:
            questions.delete(change["deleted"])
            return
        ids, texts = change["ids"], change["texts"]
        try:
            vectors = np.frombuffer(base64.b64decode(change["vectors"]), "<f4").reshape(len(ids), -1)
        except ValueError as error:
            raise UserError(
                f"{self._index.folder / FILE}: damaged ({error}); remove it to continue without it"
            ) from None
        if (change["model"], vectors.shape[1]) != (manifest.fingerprint, manifest.dimension):
            raise UserError(
                f"{self._index.folder / FILE}: has questions added to an index of another model, {change['model']}; "
                "remove it to continue without them"
            )
        known = set(questions.known(ids))
        new = [row for row, name in enumerate(ids) if name not in known]
        questions.add([ids[row] for row in new], [texts[row] for row in new], vectors[new].astype(np.float32))
