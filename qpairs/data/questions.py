"""Questions of any number, read row by row from a file, or from rows in memory."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from qpairs.core.exceptions import UserError
from qpairs.core.files import sha256
from qpairs.data.columns import find_text_columns, joined_texts, named_column
from qpairs.data.formats import Reader, open_file, refuse_row
from qpairs.data.pairs import text_fault
from qpairs.data.records import open_table

QuestionSource: TypeAlias = str | Path | Iterable[Any]  # a file, or rows in memory: see `records.open_rows`


@dataclass(frozen=True)
class Questions:
    """A file of questions, or rows in memory, read from the start by each call of `rows`.

    Attributes:
        path: the file; of rows in memory, the name of their type.
        text_columns: the columns of the questions; the texts of several are joined.
        id_column: the column of their ids; '' if the row number is the id.
        given: the reader of rows in memory; None for a file.
        separator: of the fields of a .csv or .tsv file; '' if it is detected.
    """

    path: Path
    text_columns: tuple[str, ...]
    id_column: str = ""
    given: Reader | None = None
    separator: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """The state for another process, which opens the reader of the file itself."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self)}

    @property
    def text_column(self) -> str:
        """The columns of the questions, with commas between."""
        return ",".join(self.text_columns)

    @cached_property
    def reader(self) -> Reader:
        """The reader of the file, or of the rows in memory."""
        return self.given or open_file(self.path, self.separator)

    def rows(self, skipped: Counter[str] | None = None) -> Iterator[tuple[str, str]]:
        """Id and text of each question, runs of white space made one space. Memory use is constant.

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
                yield id_text(row[1]) if self.id_column else str(number), " ".join(row[0].split())

    def _joined(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The text, and the id if there is one."""
        texts = len(self.text_columns)
        return joined_texts(values[:texts]), *values[texts:]

    def _fault(self, text: Any, identity: Any = None) -> tuple[str, str] | None:
        return (id_fault(identity, self.id_column) if self.id_column else None) or text_fault(text, self.text_column)

    def sha256(self) -> str:
        """The checksum of the file; of rows in memory, that of their texts and ids."""
        if self.given is None:
            return sha256(self.path)
        digest = hashlib.sha256()
        for _, row in self.given.rows([*self.text_columns, *filter(None, [self.id_column])]):
            digest.update(json.dumps(row, default=str).encode() + b"\n")
        return digest.hexdigest()

    def absolute(self) -> Questions:
        """The same questions, with an absolute path that any process can read."""
        return self if self.given is not None else replace(self, path=self.path.absolute())


def open_questions(
    source: QuestionSource, *, text_column: str = "", id_column: str = "", separator: str = ""
) -> Questions:
    r"""Opens a file of questions, or rows in memory, and finds the columns to read.

    Args:
        source: a file in one of the formats of `qpairs.data.formats.FORMATS`, text in UTF-8; or what
            `records.open_rows` takes, where rows that are tuples are (id, text).
        text_column: the column of the questions, or several with commas between, whose texts are joined; without it
            the only one, or question, text, sentence or q.
        id_column: the column of their ids; without it, the number of the row or line, from 1, is the id.
        separator: of the fields of a .csv or .tsv file: one character, or tab; without it, it is detected.

    Raises:
        UserError: there is no such file or column, or the file cannot be read.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "tickets.csv")
    >>> _ = file.write_text("ticket,question\nA7,How do I pay?\nA8,Where is   my order?\n")
    >>> list(open_questions(file, id_column="ticket").rows())
    [('A7', 'How do I pay?'), ('A8', 'Where is my order?')]
    >>> list(open_questions(["How do I pay?", "Where is my order?"]).rows())
    [('1', 'How do I pay?'), ('2', 'Where is my order?')]
    """
    reader, where = open_table(source, separator=separator)
    names = list(reader.columns)
    if not names:
        in_a_file = isinstance(source, str | Path)
        raise UserError(f"{where}: " + ("no line of it is a JSON object" if in_a_file else "there are no rows in it"))
    identity = named_column(names, id_column, where=where) if id_column else ""
    given = None if isinstance(source, str | Path) else reader
    return Questions(Path(where), find_text_columns(names, text_column, where=where), identity, given, separator)


def id_fault(value: Any, column: str) -> tuple[str, str] | None:
    """What is wrong with the id of a question, in a few words and in a sentence; None if it is valid.

    >>> id_fault(" ", "ticket")
    ('no id', "column 'ticket' is empty")
    """
    missing = value is None or value != value or not str(value).strip()  # NaN is no number, and not itself
    return ("no id", f"column {column!r} is empty") if missing else None


def id_text(value: Any) -> str:
    """An id as text: a whole number without the decimal point that data frames add if other ids are missing.

    >>> id_text(7.0), id_text("A7"), id_text(7.5)
    ('7', 'A7', '7.5')
    """
    return str(int(value)) if isinstance(value, float | np.floating) and value.is_integer() else str(value)
