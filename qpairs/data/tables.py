"""Whole tables, with all the columns of a file, for commands that add columns or keep some of the rows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qpairs.core.exceptions import UserError
from qpairs.core.tables import COMMA, Dialect
from qpairs.data.formats import Reader, dialect_of, refuse_row
from qpairs.data.questions import QuestionSource
from qpairs.data.records import Frame, open_table

if TYPE_CHECKING:
    import pandas
    import pyarrow


@dataclass(frozen=True)
class Table:
    """A whole table, to be written back by `qpairs.core.tables.write_table` with the user's own columns intact.

    Attributes:
        frame: all columns: of pyarrow types if the file has types, or if all values are of one simple type; other
            columns (mixed or nested JSON) hold Python objects.
        numbers: (n_rows,) the number of each row in the file, from 1.
        malformed: rows that were left out.
        dialect: how the file separates its fields, for writing it back.
    """

    frame: pandas.DataFrame
    numbers: Sequence[int]
    malformed: int = 0
    dialect: Dialect = COMMA

    def cells(self, name: str) -> list[Any]:
        """The values of a column as Python objects, None if missing."""
        column = self.frame.iloc[:, list(map(str, self.frame.columns)).index(name)]
        return list(column.astype(object).where(column.notna(), None))


def read_table(source: QuestionSource, *, skip_bad_rows: bool = False) -> Table:
    r"""Reads a file, or rows in memory, with all columns.

    Args:
        source: a file in one of the formats of `qpairs.data.formats.FORMATS`, or what `records.open_rows` takes.
        skip_bad_rows: leave out malformed rows; without it, the first one is an error.

    Raises:
        UserError: the file cannot be read, or has no rows.

    >>> import tempfile
    >>> from pathlib import Path
    >>> file = Path(tempfile.mkdtemp(), "tickets.jsonl")
    >>> _ = file.write_text('{"question": "How do I pay?", "votes": 3}\n\n{"question": "Why?"}\n')
    >>> table = read_table(file)
    >>> table.frame["question"].tolist(), table.frame["votes"].dtype, table.numbers
    (['How do I pay?', 'Why?'], int64[pyarrow], [1, 3])
    """
    reader, where = open_table(source)
    return table_of(reader, where, skip_bad_rows=skip_bad_rows)


def table_of(reader: Reader, where: str, *, skip_bad_rows: bool = False) -> Table:
    """As `read_table`, from an open reader; `where` is the source, for messages. A data frame is returned unchanged."""
    import pandas

    if isinstance(reader, Frame) and len(reader.frame):
        return Table(reader.frame, range(1, len(reader.frame) + 1))
    numbers, rows, malformed = list[int](), list[tuple[Any, ...]](), 0
    for number, row in reader.rows(list(reader.columns)):
        if isinstance(row, str):
            refuse_row(where, reader.unit, number, row, skip=skip_bad_rows)
            malformed += 1
        else:
            numbers.append(number)
            rows.append(row)
    if not rows or not reader.columns:
        raise UserError(f"{where}: there are no rows in it")
    values = zip(reader.columns.items(), zip(*rows, strict=True), strict=True)
    frame = pandas.DataFrame({name: _series(cells, kind) for (name, kind), cells in values})
    return Table(frame, numbers, malformed, dialect_of(reader))


def _series(cells: Sequence[Any], kind: pyarrow.DataType | None) -> pandas.Series[Any]:
    """A column of a pyarrow type, or of Python objects if that type would change or refuse some of them."""
    import pandas
    import pyarrow

    kinds = {type(cell) for cell in cells if cell is not None}
    simple = len(kinds) == 1 and kinds <= {str, bool, int, float} if kind is None else not pyarrow.types.is_date(kind)
    with contextlib.suppress(pyarrow.ArrowException, ValueError, OverflowError):
        if simple:  # no dates: pandas cannot write those of pyarrow as JSON
            array = pyarrow.array(cells, type=kind)
            return pandas.Series(array, dtype=pandas.ArrowDtype(array.type))
    return pandas.Series(cells, dtype=object)
