"""The CSV file of labels, and beside it that of skipped pairs.

Both are read for each request and replaced as a whole, so that an acknowledged label is on the disk. The file of labels
is a table of pairs that training and calibration read.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_file
from qpairs.serving.label_pairs import Texts

Row = tuple[str, str, int]

LABELS = ("question1", "question2", "is_duplicate")
SKIPPED = ("question1", "question2", "after")  # how many labels there were when the pair was skipped


@dataclass(frozen=True)
class Labels:
    """The rows of both files, oldest first."""

    labelled: list[Row]
    skipped: list[Row]

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
        self.path = path
        self._skipped_path = path.with_suffix(".skipped.csv")
        if not path.exists():
            _write(path, LABELS, [])
        self.read()

    def read(self) -> Labels:
        """Both files."""
        skipped = _read(self._skipped_path, SKIPPED) if self._skipped_path.exists() else []
        return Labels(_read(self.path, LABELS), skipped)

    def add_label(self, labels: Labels, pair: Texts, label: int) -> None:
        """Appends a label to what was read: 1 duplicate, 0 not."""
        _write(self.path, LABELS, [*labels.labelled, (*pair, label)])

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
            _write(self.path, LABELS, labels.labelled[:-1])
        else:
            raise LookupError("there is no answer to undo")


def _read(path: Path, header: Sequence[str]) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names, *rows = csv.reader(file, strict=True)
        if tuple(names) != tuple(header):
            raise ValueError(f"the columns are {','.join(names)!r}")
        if header is LABELS and not {row[2] for row in rows if len(row) == len(header)} <= {"0", "1"}:
            raise ValueError("a label is neither 0 nor 1")
        return [(one, other, int(number)) for one, other, number in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a file of {','.join(header)} ({error}); name another with --labels") from None


def _write(path: Path, header: Sequence[str], rows: Sequence[Row]) -> None:
    with atomic_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
