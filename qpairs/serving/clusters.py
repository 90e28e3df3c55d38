"""The clusters that `qpairs dedupe` found, and corrections by people: another representative, splits, merges.

Each change is in a journal next to the clusters before it is acknowledged. The files of dedupe are unchanged; the
corrected clusters, and the file without duplicates according to them, are written into the folder `edited`. Several
processes may change the same clusters: each reads what the others wrote before it writes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from qpairs.core.files import exclusive_lock
from qpairs.core.shapes import each, one_of, record, whole
from qpairs.core.tables import ENDINGS, write_table
from qpairs.evaluation.wording import differing_words
from qpairs.models.base import Floats
from qpairs.models.shortened import shorten
from qpairs.retrieval.corpus import SUMMARY
from qpairs.serving.cluster_files import (
    EDITED,
    Member,
    read_clusters,
    summary_in,
    write_kept,
)
from qpairs.serving.journal_file import JournalFile, open_journal

log = logging.getLogger(__name__)

Encode = Callable[[Sequence[str]], Floats]
Order = Literal["size", "doubt"]

CHANGE = record(
    {"change": one_of("represent", "split", "merge", "undo")},
    {"cluster": whole(), "row": whole(), "rows": each(whole()), "other": whole()},
)  # in the journal
LISTED = 50  # members of a cluster that are listed, the least similar


@dataclass(frozen=True)
class Cluster:
    """Questions that count as duplicates, identified by their representative.

    Attributes:
        id: the row of the representative.
        size: members.
        members: the representative, then the least similar first; at most `LISTED`.
    """

    id: int
    size: int
    members: list[Member]


@dataclass(frozen=True)
class Clusters:
    """Some of the clusters.

    Attributes:
        folder: of dedupe.
        total: clusters that have all words of the text that was looked for.
        removed: rows removed from the file without duplicates, by all current clusters.
        changes: number that can be undone.
        clusters: those of the page.
    """

    folder: str
    total: int
    removed: int
    changes: int
    clusters: list[Cluster]


class _State(NamedTuple):
    """Row -> question, and row of each representative -> rows of its cluster, the representative first."""

    members: Mapping[int, Member]
    clusters: dict[int, list[int]]


class ClusterReview:
    """The clusters in a folder of dedupe and the changes to them; `ReviewedFolder.review` gives them to one thread."""

    def __init__(self, folder: Path, file: Path, journal: JournalFile, encode: Encode) -> None:
        """Reads the clusters and replays the changes.

        Args:
            folder: of dedupe.
            file: its clusters.
            journal: of changes to these.
            encode: texts to unit vectors of the model, for the cosines to new representatives.

        Raises:
            UserError: a file cannot be read.
        """
        self._folder, self._journal, self._encode = folder, journal, encode
        summary = summary_in(folder) if (folder / SUMMARY).is_file() else {}
        self._raw = bool(summary.get("raw"))
        self._dimension: int | None = summary.get("dimension")  # of dedupe's vectors; older versions did not tell
        self._members, self._base, self._heads = read_clusters(file, raw=self._raw)
        self._similarity: dict[tuple[int, int], float] = {}  # (row, representative), where that is a new one
        self._changes = _effective(journal.read())
        self._clusters: dict[int, list[int]] = {}
        self._replay()

    @property
    def changes(self) -> int:
        """The number of changes that can be undone."""
        return len(self._changes)

    def page(self, offset: int = 0, limit: int = 20, text: str = "", order: Order = "doubt") -> Clusters:
        """Some clusters: the largest first, or those with the least similar member first."""
        wanted = [word.casefold() for word in text.split()]
        found = [
            head
            for head, rows in self._clusters.items()
            if all(any(word in self._members[row].question.casefold() for row in rows) for word in wanted)
        ]
        if order == "size":
            found.sort(key=lambda head: (-len(self._clusters[head]), head))
        else:
            self._measure(found)
            found.sort(key=lambda head: (min(self._cosine(row, head) for row in self._clusters[head]), head))
        shown = found[offset : offset + limit]
        self._measure(shown)
        return Clusters(
            folder=str(self._folder),
            total=len(found),
            removed=sum(len(rows) - 1 for rows in self._clusters.values()),
            changes=len(self._changes),
            clusters=[self._cluster(head) for head in shown],
        )

    def represent(self, cluster: int, row: int) -> None:
        """Makes a member the representative of its cluster.

        Raises:
            LookupError: there is no such cluster or member.
            UserError: the journal cannot be written.
        """
        self._change({"change": "represent", "cluster": cluster, "row": row})

    def split(self, cluster: int, rows: Sequence[int]) -> None:
        """Takes members out of a cluster; together they form a new cluster, represented by the first.

        Raises:
            LookupError: there is no such cluster or member, or no member would be left.
            UserError: the journal cannot be written.
        """
        self._change({"change": "split", "cluster": cluster, "rows": list(rows)})

    def merge(self, cluster: int, other: int) -> None:
        """Merges two clusters; the first keeps its representative.

        Raises:
            LookupError: there is no such cluster, or both are the same.
            UserError: the journal cannot be written.
        """
        self._change({"change": "merge", "cluster": cluster, "other": other})

    def undo(self) -> None:
        """Undoes the last change.

        Raises:
            LookupError: there is none.
            UserError: the journal cannot be written.
        """
        with self._newest():
            if not self._changes:
                raise LookupError("there is no change to undo")
            self._journal.write({"change": "undo"})
            self._changes.pop()
            self._replay()

    def export(self) -> list[Path]:
        """Writes the current clusters, and the file without duplicates according to them, into the folder `edited`.

        Raises:
            SourceChanged: the deduplicated file is gone, or has other rows than before.
            UserError: a file cannot be written.
        """
        with self._newest():
            return self._write()

    def _write(self) -> list[Path]:
        import pandas

        heads = [head for head, rows in self._clusters.items() if len(rows) > 1]
        self._measure(heads)
        rows = [(head, row) for head in sorted(heads) for row in self._clusters[head]]
        removed = {row for head, rows in self._clusters.items() for row in rows[1:]}
        members = [self._members[row] for _, row in rows]
        columns: dict[str, list[Any]] = {"cluster": [head for head, _ in rows], "row": [row for _, row in rows]}
        if any(member.id for member in self._members.values()):
            columns["id"] = [member.id for member in members]
        columns |= {
            "question": [member.question for member in members],
            "representative": [int(head == row) for head, row in rows],
            "similarity": [self._cosine(row, head) for head, row in rows],
        }
        made = self._folder / EDITED / "clusters.csv"
        questions = {row: member.question for row, member in self._members.items()}
        kept = write_kept(self._folder, removed, questions)
        write_table(made, pandas.DataFrame(columns), raw=self._raw)
        return [kept, made]

    def _change(self, change: dict[str, Any]) -> None:
        with self._newest():
            changed = _changed(_State(self._members, self._clusters), change)
            self._journal.write(change)
            self._changes.append(change)
            self._clusters = changed

    @contextmanager
    def _newest(self) -> Iterator[None]:
        """Locks the changes against other processes, and reads what these have changed."""
        with _held(self._folder):
            changes = _effective(self._journal.read())
            if changes != self._changes:
                self._changes = changes
                self._replay()
            yield

    def _replay(self) -> None:
        """Applies the changes; one that the clusters do not allow is left out."""
        self._clusters = {head: list(rows) for head, rows in self._base.items()}
        for number, change in enumerate(self._changes, 1):
            try:
                self._clusters = _changed(_State(self._members, self._clusters), change)
            except (LookupError, TypeError):
                log.warning(
                    "%s: change %d of %d does not fit these clusters, and is left out",
                    self._journal.path,
                    number,
                    len(self._changes),
                )

    def _cluster(self, head: int) -> Cluster:
        rows = self._clusters[head]
        others = sorted(rows[1:], key=lambda row: (self._cosine(row, head), row))[: LISTED - 1]
        return Cluster(head, len(rows), [self._member(row, head) for row in (head, *others)])

    def _member(self, row: int, head: int) -> Member:
        member = self._members[row]
        differ = differing_words(self._members[head].question, member.question)
        return replace(member, similarity=self._cosine(row, head), differ=differ)

    def _cosine(self, row: int, head: int) -> float:
        if row == head:
            return 1.0
        return self._members[row].similarity if self._heads[row] == head else self._similarity[row, head]

    def _measure(self, heads: Sequence[int]) -> None:
        """Computes the cosines of members to new representatives."""
        new = [
            (row, head)
            for head in heads
            for row in self._clusters[head]
            if row != head and self._heads[row] != head and (row, head) not in self._similarity
        ]
        if new:
            one, other = (self._vectors(rows) for rows in zip(*new, strict=True))
            cosines = np.einsum("ij,ij->i", one, other).clip(-1, 1).tolist()
            self._similarity |= dict(zip(new, cosines, strict=True))

    def _vectors(self, rows: Sequence[int]) -> Floats:
        """The vectors (n, d) of questions, as long as those of dedupe."""
        vectors = self._encode([self._members[row].question for row in rows])
        return shorten(vectors, self._dimension or vectors.shape[1])


class ReviewedFolder:
    """The current clusters in a folder: dedupe may write them, or others, while they are reviewed."""

    def __init__(self, folder: Path, encode: Encode, *, read_only: bool = False) -> None:
        """Reads nothing yet.

        Args:
            folder: of dedupe, now or later.
            encode: as for `ClusterReview`.
            read_only: whether the clusters cannot be changed, and no file is created.
        """
        self.folder = folder
        self._encode, self._read_only = encode, read_only
        self._lock = threading.Lock()
        self._read: tuple[Path, int, int] | None = None
        self._open: tuple[ClusterReview, ExitStack] | None = None

    @contextmanager
    def review(self) -> Iterator[ClusterReview]:
        """The clusters with all corrections, for one thread at a time.

        Raises:
            LookupError: there are none.
            UserError: a file cannot be read.
        """
        with self._lock:
            file = next((path for suffix in ENDINGS if (path := self.folder / f"clusters{suffix}").is_file()), None)
            if file is None:
                raise LookupError("there are no clusters yet")
            about = file.stat()
            seen = file, about.st_mtime_ns, about.st_size
            if self._open is None or seen != self._read:
                self._close()
                self._open = self._opened(file)
                self._read = seen
            yield self._open[0]

    def close(self) -> None:
        """Closes the journal of changes once no thread needs it; the next review opens it again."""
        with self._lock:
            self._close()

    def _opened(self, file: Path) -> tuple[ClusterReview, ExitStack]:
        path = self.folder / f"changes-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}.jsonl"
        with ExitStack() as held, nullcontext() if self._read_only else _held(self.folder):
            journal = held.enter_context(open_journal(path, CHANGE, read_only=self._read_only))
            return ClusterReview(self.folder, file, journal, self._encode), held.pop_all()

    def _close(self) -> None:
        if self._open:
            self._open[1].close()
            self._open = None


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Locks the changes to the clusters in a folder; other processes wait.

    The lock is next to the folder, which dedupe replaces; if it cannot be replaced, inside it.
    """
    place = folder.resolve()
    stays = place.is_mount() or not os.access(place.parent, os.W_OK)
    name = f".changes-{hashlib.sha256(os.fsencode(place.name)).hexdigest()[:12]}"
    with exclusive_lock((place if stays else place.parent) / name, wait=True, called=folder, passing=True):
        yield


def _effective(changes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The changes in a journal that were not undone."""
    kept: list[dict[str, Any]] = []
    for change in changes:
        if change.get("change") == "undo":
            kept = kept[:-1]
        else:
            kept.append(change)
    return kept


def _changed(state: _State, change: Mapping[str, Any]) -> dict[int, list[int]]:
    """The clusters after a change.

    Raises:
        LookupError: the change is not possible.
    """
    clusters = dict(state.clusters)
    head = change.get("cluster", 0)
    if head not in clusters:
        raise LookupError("this cluster no longer exists; reload the page")
    rows = clusters.pop(head)
    match change:
        case {"change": "represent", "row": row} if row in rows:
            clusters[row] = [row, *(other for other in rows if other != row)]
        case {"change": "split", "rows": [first, *_] as taken} if set(taken) < set(rows):
            left = [row for row in rows if row not in set(taken)]
            clusters[left[0]] = left
            clusters[first] = list(dict.fromkeys(taken))
        case {"change": "merge", "other": other} if other in clusters:
            clusters[head] = [*rows, *clusters.pop(other)]
        case _:
            raise LookupError("this is not possible in this cluster; reload the page")
    return clusters
