"""Tables to files: one writer, whose file is whole or not there."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import atomic_file

if TYPE_CHECKING:
    import pandas

WRITERS: dict[str, Callable[[Any, str], Any]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda table, path: table.to_json(path, orient="records", lines=True, force_ascii=False),
    ".parquet": lambda table, path: table.to_parquet(path),
}  # the ending of a file's name -> how a data frame is written


@dataclass(frozen=True)
class Dialect:
    """How a .csv file separates its fields.

    Attributes:
        separator: one character.
        named: whether a first line `sep=;` names it, by which spreadsheets are told.
    """

    separator: str = ","
    named: bool = False


COMMA = Dialect()
DELIMITED = (".csv", ".tsv")  # which spreadsheets open
FORMULA = re.compile(r"'*[=+\-@\t\r]")


def check_table_path(path: Path) -> None:
    """Raises UserError where no writer knows the ending of a file's name."""
    if path.suffix not in WRITERS:
        raise UserError(f"{path}: unknown kind of file; {nearest(path.suffix, WRITERS)}")


def guarded(text: str) -> str:
    """A text for a cell of a file that people open: no spreadsheet takes it for a formula.

    Texts that begin with = + - @, a tab or a carriage return get an apostrophe before them, and so do those that would
    look like one of these; `unguarded` takes it away.

    >>> guarded("=1+1"), guarded("'=1+1"), guarded("'tis")
    ("'=1+1", "''=1+1", "'tis")
    """
    return f"'{text}" if FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """The inverse of `guarded`.

    >>> [unguarded(guarded(text)) for text in ("=1+1", "'=1+1", "'tis", "-")]
    ['=1+1', "'=1+1", "'tis", '-']
    """
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def write_table(path: Path, table: pandas.DataFrame, *, raw: bool = False, dialect: Dialect = COMMA) -> None:
    r"""Writes a data frame in the format that the name ends in: .csv, .tsv, .jsonl or .parquet.

    Args:
        path: the file.
        table: the data frame.
        raw: whether texts of CSV and TSV are written as they are, and not `guarded`.
        dialect: of a .csv file: that of the user's own file, where its rows are written back.

    Raises:
        UserError: another ending, a file that cannot be written, or values that the format cannot hold, such as a
            Parquet column of texts and numbers; what was at `path` is then as it was.

    >>> import tempfile
    >>> import pandas
    >>> file = Path(tempfile.mkdtemp(), "scored.csv")
    >>> write_table(file, pandas.DataFrame({"similarity": [0.5]}))
    >>> file.read_text()
    'similarity\n0.5\n'
    >>> write_table(file, pandas.DataFrame({"a": ["x"], "b": ["y; z"]}), dialect=Dialect(";", named=True))
    >>> file.read_text()
    'sep=;\na;b\nx;"y; z"\n'
    """
    check_table_path(path)
    table = table if raw else _guard(table, path)
    with atomic_file(path) as fresh:
        try:
            if path.suffix == ".csv":
                _write_csv(table, fresh, dialect)
            else:
                WRITERS[path.suffix](table, str(fresh))
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{path}: cannot be written ({' '.join(str(error).split())})") from error


def write_table_in_parts(path: Path, parts: Iterable[pandas.DataFrame], *, raw: bool = False) -> None:
    r"""Writes data frames with the same columns one below the other, in the formats of `write_table`.

    Args:
        path: the file.
        parts: one or more; memory is that of one.
        raw: as in `write_table`.

    Raises:
        UserError: as `write_table`.

    >>> import tempfile
    >>> import pandas
    >>> file = Path(tempfile.mkdtemp(), "scored.csv")
    >>> write_table_in_parts(file, [pandas.DataFrame({"similarity": [score]}) for score in (0.5, 0.75)])
    >>> file.read_text()
    'similarity\n0.5\n0.75\n'
    """
    check_table_path(path)
    parts = parts if raw else (_guard(part, path) for part in parts)
    with atomic_file(path) as fresh:
        if path.suffix == ".parquet":
            _write_parquet_in_parts(fresh, parts)
            return
        with fresh.open("w", encoding="utf-8", newline="") as file:
            for number, part in enumerate(parts):
                if path.suffix == ".jsonl":
                    part.to_json(file, orient="records", lines=True, force_ascii=False)
                else:
                    separator = "\t" if path.suffix == ".tsv" else ","
                    part.to_csv(file, index=False, sep=separator, header=number == 0, lineterminator="\n")


def _write_csv(table: pandas.DataFrame, path: Path, dialect: Dialect) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if dialect.named:
            file.write(f"sep={dialect.separator}\n")
        table.to_csv(file, index=False, sep=dialect.separator, lineterminator="\n")


def _guard(table: pandas.DataFrame, path: Path) -> pandas.DataFrame:
    """The table with its texts `guarded`, where spreadsheets open what is written at a path."""
    if path.suffix not in DELIMITED:
        return table
    return table.map(lambda value: guarded(value) if isinstance(value, str) else value)


def _write_parquet_in_parts(fresh: Path, parts: Iterable[pandas.DataFrame]) -> None:
    import pyarrow
    from pyarrow import parquet

    writer, schema = None, None
    try:
        for part in parts:
            table = pyarrow.Table.from_pandas(part, schema, preserve_index=False)
            schema = table.schema
            writer = writer or parquet.ParquetWriter(fresh, schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()


def rows_table(kind: type[Any], rows: Sequence[Any], called: Mapping[str, str] | None = None) -> pandas.DataFrame:
    """A data frame of dataclasses of one kind, a column for each field; texts of a tuple are joined by semicolons.

    Args:
        kind: the dataclass.
        rows: the dataclasses.
        called: field -> name of its column, where that is another.

    >>> from qpairs.core.progress import Progress
    >>> rows_table(Progress, [Progress("reading", 1, 2)])["stage"].tolist()
    ['reading']
    """
    import pandas

    names = [spec.name for spec in dataclasses.fields(kind)]
    lines = [[getattr(row, name) for name in names] for row in rows]
    joined = [["; ".join(map(str, value)) if isinstance(value, tuple) else value for value in line] for line in lines]
    return pandas.DataFrame(joined, columns=[(called or {}).get(name, name) for name in names])


def write_rows(
    path: Path, kind: type[Any], rows: Sequence[Any], called: Mapping[str, str] | None = None, *, raw: bool = False
) -> None:
    """Writes the table of dataclasses, see `rows_table`.

    Args:
        path: the file.
        kind: the dataclass.
        rows: the dataclasses.
        called: field -> name of its column, where that is another.
        raw: as in `write_table`.

    Raises:
        UserError: as `write_table`.
    """
    write_table(path, rows_table(kind, rows, called), raw=raw)
