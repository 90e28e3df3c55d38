"""The CSV file of labels, and next to it the file of skipped pairs.

Both are read for each request and replaced as a whole, so that an acknowledged label is on the disk. The file of labels
is a table of pairs that training and calibration read; `qpairs.data.labels` has its format.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_file, exclusive_lock
from qpairs.data.formats import open_file
from qpairs.data.labels import LABEL_FILE_COLUMNS, annotator_name, read_labels
from qpairs.serving.label_texts import Texts

SKIPPED = ("question1", "question2", "after", "annotator")  # how many labels there were when the pair was skipped
KNOWN = (LABEL_FILE_COLUMNS, LABEL_FILE_COLUMNS[:5], LABEL_FILE_COLUMNS[:3])  # columns, now and in earlier versions

Skip = tuple[str, str, int]


class Row(NamedTuple):
    """A labelled pair: 1 duplicate, 0 not; how it was drawn, with what probability, and by whom it was labelled."""

    question1: str
    question2: str
    label: int
    drawn: str = ""
    probability: float = math.nan
    annotator: str = ""


@dataclass(frozen=True)
class Labels:
    """The rows of both files, oldest first: those of one annotator, and separately those of all others."""

    labelled: list[Row]
    skipped: list[Skip]
    others: list[Row] = field(default_factory=list)
    others_skipped: list[tuple[str, str, int, str]] = field(default_factory=list)

    @property
    def last_is_skip(self) -> bool:
        """Whether the last answer was a skip."""
        return bool(self.skipped) and self.skipped[-1][2] >= len(self.labelled)


class LabelFile:
    """A file of labels, `NAME.csv`, and its `NAME.skipped.csv`, as written by one annotator.

    Reading, changing and writing them requires the lock (`held`), since several processes may write one file.

    Raises:
        UserError: of every method: a file is not what it should be, or cannot be read or written.
    """

    def __init__(self, path: Path, annotator: str = "", remedy: str = "name another file with --labels") -> None:
        """Creates the file if it does not exist; `remedy` is what to do where it is no file of labels."""
        if path.suffix.lower() != ".csv":
            raise UserError(f"{path}: labels are kept in a .csv file; {remedy}")
        self.path, self.annotator, self._remedy = path, annotator_name(annotator), remedy
        self._skipped_path = path.with_suffix(".skipped.csv")
        if not path.exists():
            with self.held():
                if not path.exists():  # still
                    self.write_labels(Labels([], []), [])
        self.read()

    def of(self, annotator: str) -> LabelFile:
        """The same files, as written by another annotator.

        Raises:
            UserError: the name is not valid.
        """
        other = copy.copy(self)
        other.annotator = annotator_name(annotator)
        return other

    @contextmanager
    def held(self) -> Iterator[None]:
        """Locks the files; other processes wait."""
        name = hashlib.sha256(self.path.name.encode()).hexdigest()[:16]  # of any length, as that of the file may be
        with exclusive_lock(self.path.with_name(f".labels-{name}"), wait=True, called=self.path, passing=True):
            yield

    def read(self) -> Labels:
        """Both files."""
        skipped = _read_skipped(self._skipped_path, self._remedy) if self._skipped_path.exists() else []
        rows = _read_labelled(self.path, self._remedy)
        return Labels(
            [row for row in rows if row.annotator == self.annotator],
            [row[:3] for row in skipped if row[3] == self.annotator],
            [row for row in rows if row.annotator != self.annotator],
            [row for row in skipped if row[3] != self.annotator],
        )

    def write_labels(self, labels: Labels, rows: Sequence[Row]) -> None:
        """Replaces the annotator's labels of what was read."""
        kept = [*labels.others, *(row._replace(annotator=self.annotator) for row in rows)]
        lines = [
            (*row[:4], "" if math.isnan(row.probability) else f"{row.probability:.6g}", row.annotator) for row in kept
        ]
        _write(self.path, LABEL_FILE_COLUMNS, lines)

    def add_skip(self, labels: Labels, pair: Texts) -> None:
        """Appends a skipped pair to what was read."""
        self._write_skips(labels, [*labels.skipped, (*pair, len(labels.labelled))])

    def remove_last(self, labels: Labels) -> None:
        """Removes the annotator's last label or skip of what was read.

        Raises:
            LookupError: there is none.
        """
        if labels.last_is_skip:
            self._write_skips(labels, labels.skipped[:-1])
        elif labels.labelled:
            self.write_labels(labels, labels.labelled[:-1])
        else:
            raise LookupError("there is no answer to undo")

    def _write_skips(self, labels: Labels, skips: Sequence[Skip]) -> None:
        own = [(*skip, self.annotator) for skip in skips]
        _write(self._skipped_path, SKIPPED, [*labels.others_skipped, *own])


def _read_labelled(path: Path, remedy: str) -> list[Row]:
    try:
        if (names := tuple(open_file(path).columns)) not in KNOWN:
            raise UserError(
                f"{path}: not a file of {','.join(LABEL_FILE_COLUMNS)}: its columns are {','.join(names)!r}"
            )
        read = read_labels(path)
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from None
    columns = read.first, read.second, read.labels.tolist(), read.drawn, read.probability.tolist(), read.annotator
    return [Row(*values) for values in zip(*columns, strict=True)]


def _read_skipped(path: Path, remedy: str) -> list[tuple[str, str, int, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names, *rows = csv.reader(file, strict=True)
        if tuple(names) not in (SKIPPED, SKIPPED[:3]):
            raise ValueError(f"the columns are {','.join(names)!r}")
        nobody = [""] * (len(SKIPPED) - len(names))
        return [(one, other, int(number), who) for one, other, number, who in (row + nobody for row in rows)]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a file of {','.join(SKIPPED)} ({error}); {remedy}") from None


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
