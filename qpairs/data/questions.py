"""A file of questions of any length, read row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qpairs.core.exceptions import UserError
from qpairs.core.files import sha256
from qpairs.data.columns import find_text_columns, joined_texts, named_column
from qpairs.data.formats import Reader, open_file, refuse_row
from qpairs.data.pairs import text_fault


@dataclass(frozen=True)
class Questions:
    """A file of questions, which is read from the start by each call of `rows`.

    Attributes:
        path: the file.
        text_columns: the columns of the questions; the texts of several are joined.
        id_column: the column of their ids; '' where the number of the row is the id.
    """

    path: Path
    text_columns: tuple[str, ...]
    id_column: str = ""

    @property
    def text_column(self) -> str:
        """The columns of the questions, with commas between."""
        return ",".join(self.text_columns)

    @cached_property
    def reader(self) -> Reader:
        """The reader of the file."""
        return open_file(self.path)

    def rows(self, skipped: Counter[str] | None = None) -> Iterator[tuple[str, str]]:
        """Id and text of each question, runs of white space made one space. Memory is flat.

        Args:
            skipped: counts the rows that cannot be used, by reason; without it, the first one is an error.

        Raises:
            UserError: such a row, or a file that cannot be read.
        """
        columns, unit = [*self.text_columns, *filter(None, [self.id_column])], self.reader.unit
        for number, values in self.reader.rows(columns):
            row = values if isinstance(values, str) else self._joined(values)
            fault = ("malformed", row) if isinstance(row, str) else self._fault(*row)
            if fault:
                refuse_row(self.path, unit, number, fault[1], skip=skipped is not None)
                if skipped is not None:
                    skipped[fault[0]] += 1
            else:
                yield str(row[1] if self.id_column else number), " ".join(row[0].split())

    def _joined(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The text, and the id if there is one."""
        texts = len(self.text_columns)
        return joined_texts(values[:texts]), *values[texts:]

    def _fault(self, text: Any, identity: Any = None) -> tuple[str, str] | None:
        if self.id_column and (identity is None or not str(identity).strip()):
            return "no id", f"column {self.id_column!r} is empty"
        return text_fault(text, self.text_column)

    def sha256(self) -> str:
        """The checksum of the file."""
        return sha256(self.path)


def open_questions(path: str | Path, *, text_column: str = "", id_column: str = "") -> Questions:
    r"""Opens a file of questions, and finds the columns to read.

    Args:
        path: a file in one of the formats of `qpairs.data.formats.FORMATS`, text in UTF-8.
        text_column: the column of the questions, or several with commas between, whose texts are joined; without it
            the only one, or question, text, sentence or q.
        id_column: the column of their ids; without it, the number of the row or line, from 1, is the id.

    Raises:
        UserError: there is no such file or column, or the file cannot be read.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "tickets.csv")
    >>> _ = file.write_text("ticket,question\nA7,How do I pay?\nA8,Where is   my order?\n")
    >>> list(open_questions(file, id_column="ticket").rows())
    [('A7', 'How do I pay?'), ('A8', 'Where is my order?')]
    """
    names = list(open_file(Path(path)).columns)
    if not names:
        raise UserError(f"{path}: no line of it is a JSON object")
    identity = named_column(names, id_column, where=str(path)) if id_column else ""
    return Questions(Path(path), find_text_columns(names, text_column, where=str(path)), identity)
