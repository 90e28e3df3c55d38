"""The CSV file of labels, and beside it that of skipped pairs.

Both are read for each request and replaced as a whole, so that an acknowledged label is on the disk. The file of labels
is a table of pairs that training and calibration read; `qpairs.data.labels` has its format.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_file
from qpairs.data.formats import open_file
from qpairs.data.labels import LABEL_FILE_COLUMNS, read_labels
from qpairs.serving.label_texts import Texts

SKIPPED = ("question1", "question2", "after")  # how many labels there were when the pair was skipped
OLD_COLUMNS = LABEL_FILE_COLUMNS[:3]  # of files of earlier versions, in which nothing says how a pair was drawn


class Row(NamedTuple):
    """A labelled pair: 1 duplicate, 0 not; how it was drawn, and with what probability, as in `LabelledPairs`."""

    question1: str
    question2: str
    label: int
    drawn: str = ""
    probability: float = math.nan


@dataclass(frozen=True)
class Labels:
    """The rows of both files, oldest first."""

    labelled: list[Row]
    skipped: list[tuple[str, str, int]]

    @property
    def last_is_skip(self) -> bool:
        """Whether the last answer was a skip."""
        return bool(self.skipped) and self.skipped[-1][2] >= len(self.labelled)


class LabelFile:
    """A file of labels, `NAME.csv`, and its `NAME.skipped.csv`; it does not lock.

    Raises:
        UserError: of every method: a file is not what it should be, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        """Creates the file if it does not exist."""
        if path.suffix.lower() != ".csv":
            raise UserError(f"{path}: labels are kept in a .csv file; name another file with --labels")
        self.path = path
        self._skipped_path = path.with_suffix(".skipped.csv")
        if not path.exists():
            self.write_labels([])
        self.read()

    def read(self) -> Labels:
        """Both files."""
        skipped = _read_skipped(self._skipped_path) if self._skipped_path.exists() else []
        return Labels(_read_labelled(self.path), skipped)

    def write_labels(self, rows: Sequence[Row]) -> None:
        """Replaces all labels."""
        lines = [(*row[:4], "" if math.isnan(row.probability) else f"{row.probability:.6g}") for row in rows]
        _write(self.path, LABEL_FILE_COLUMNS, lines)

    def add_skip(self, labels: Labels, pair: Texts) -> None:
        """Appends a skipped pair to what was read."""
        _write(self._skipped_path, SKIPPED, [*labels.skipped, (*pair, len(labels.labelled))])

    def remove_last(self, labels: Labels) -> None:
        """Removes the last label or skip of what was read.

        Raises:
            LookupError: there is none.
        """
        if labels.last_is_skip:
            _write(self._skipped_path, SKIPPED, labels.skipped[:-1])
        elif labels.labelled:
            self.write_labels(labels.labelled[:-1])
        else:
            raise LookupError("there is no answer to undo")


def _read_labelled(path: Path) -> list[Row]:
    try:
        if (names := tuple(open_file(path).columns)) not in (LABEL_FILE_COLUMNS, OLD_COLUMNS):
            raise UserError(
                f"{path}: not a file of {','.join(LABEL_FILE_COLUMNS)}: its columns are {','.join(names)!r}"
            )
        read = read_labels(path)
    except UserError as error:
        raise UserError(f"{error}; name another file with --labels") from None
    columns = read.first, read.second, read.labels.tolist(), read.drawn, read.probability.tolist()
    return [Row(*values) for values in zip(*columns, strict=True)]


def _read_skipped(path: Path) -> list[tuple[str, str, int]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names, *rows = csv.reader(file, strict=True)
        if tuple(names) != SKIPPED:
            raise ValueError(f"the columns are {','.join(names)!r}")
        return [(one, other, int(number)) for one, other, number in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a file of {','.join(SKIPPED)} ({error}); name another with --labels") from None


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
