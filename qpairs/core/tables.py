"""Tables to files: one writer, whose file is complete or absent."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import atomic_file, writing

if TYPE_CHECKING:
    import pandas

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")  # of the names of files that are written


@dataclass(frozen=True)
class Dialect:
    """How a .csv file separates its fields.

    Attributes:
        separator: one character.
        named: whether a first line `sep=;` names it, for spreadsheets.
    """

    separator: str = ","
    named: bool = False


COMMA = Dialect()
DELIMITED = (".csv", ".tsv")  # which spreadsheets open
RETURN = "\r\n"
SINGLE = ("float32", "Float32", "float[pyarrow]")  # types of numbers of four bytes
FORMULA = re.compile(r"'*[=+\-@\t\r]")


def check_table_path(path: Path) -> None:
    """Raises UserError if no writer knows the ending of a file's name."""
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: unknown kind of file; {nearest(path.suffix, ENDINGS)}")


def guarded(text: str) -> str:
    """A text for a cell of a file that people open: no spreadsheet reads it as a formula.

    Texts that begin with = + - @, a tab or a carriage return get an apostrophe in front, and so do those that would
    look like one of these; `unguarded` removes it.

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
        raw: whether texts in CSV and TSV are written unchanged, not `guarded`.
        dialect: of a .csv file: that of the user's file, if its rows are written back.

    Raises:
        UserError: another ending, a file that cannot be written, or values that the format cannot hold, such as a
            Parquet column of texts and numbers; what was at `path` is then unchanged.

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
    with atomic_file(path) as fresh, _telling(path):
        _fill(fresh, [table], dialect if path.suffix == ".csv" else COMMA)


def write_table_in_parts(path: Path, parts: Iterable[pandas.DataFrame], *, raw: bool = False) -> None:
    r"""Writes data frames with the same columns into one file, in the formats of `write_table`.

    Args:
        path: the file.
        parts: one or more; only one is in memory at a time.
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
    with atomic_file(path) as fresh, _telling(path):
        _fill(fresh, parts if raw else (_guard(part, path) for part in parts))


def write_tables(*tables: tuple[Path, pandas.DataFrame, bool]) -> None:
    """Writes tables that belong together: all are written before the first is moved into place, as `half_done` expects.

    Args:
        tables: the file, the table, and whether it is raw, of each; as in `write_table`.

    Raises:
        UserError: as `write_table`.

    >>> import tempfile
    >>> import pandas
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_tables(*((folder / name, pandas.DataFrame({"row": [1]}), True) for name in ("a.csv", "b.csv")))
    >>> sorted(file.name for file in folder.iterdir())
    ['a.csv', 'b.csv']
    """
    for path, _, _ in tables:
        check_table_path(path)
    with _all_or_none([path for path, _, _ in tables]), ExitStack() as held:
        fresh = [held.enter_context(atomic_file(path)) for path, _, _ in tables]
        for file, (path, table, raw) in reversed([*zip(fresh, tables, strict=True)]):  # the last takes its place first
            with writing(path, file), _telling(path):
                _fill(file, [table if raw else _guard(table, path)])


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Reports in one line values that a format cannot hold."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
        raise UserError(f"{path}: cannot be written ({' '.join(str(error).split())})") from error


@contextmanager
def _all_or_none(paths: Sequence[Path]) -> Iterator[None]:
    """If this block fails, those of the files that were not there before are removed."""
    new = [path for path in paths if not path.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise


def _fill(file: Path, parts: Iterable[pandas.DataFrame], dialect: Dialect = COMMA) -> None:
    if file.suffix == ".parquet":
        _write_parquet_in_parts(file, parts)
        return
    separator = "\t" if file.suffix == ".tsv" else dialect.separator
    with file.open("w", encoding="utf-8", newline="") as opened:
        if dialect.named:
            opened.write(f"sep={separator}\n")
        for number, part in enumerate(parts):
            if file.suffix == ".jsonl":
                opened.writelines(_json_lines(part))
                continue
            rows: Any = _Rows(opened)
            part.to_csv(rows, index=False, sep=separator, header=number == 0, lineterminator=RETURN)


@dataclass(frozen=True)
class _Rows:
    """A file for CSV rows from Python's writer, which ends each with a carriage return.

    The writer quotes a text with a carriage return only if lines end in one; in the file they end in a line feed.
    """

    file: TextIO

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix(RETURN) + "\n")


def _json_lines(table: pandas.DataFrame) -> Iterator[str]:
    """The rows of a table as lines of JSON, numbers to their last digit, which pandas would round to ten decimals.

    Raises:
        ValueError: two columns have one name.
    """
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_json).encode
    names = [str(name) for name in table]
    if len(set(names)) < len(names):
        raise ValueError("two columns have one name")
    for row in zip(*(_cells(table.iloc[:, place]) for place in range(len(names))), strict=True):
        cells = dict(zip(names, row, strict=True))
        try:
            line = encode(cells)
        except ValueError:  # NaN or an infinity, which JSON has no form for, inside a list or an object
            line = encode(_finite(cells))
        yield f"{line}\n"


def _cells(column: pandas.Series[Any]) -> list[Any]:
    """The values of a column as Python objects, None if missing or not finite."""
    if str(column.dtype) in SINGLE:
        column = column.astype("float32").astype(str).astype(float)  # 0.95, not 0.949999988079071
    values = column.astype(object).where(column.notna(), None).tolist()
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def _finite(value: Any) -> Any:
    """A JSON value with None in place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(value: Any) -> Any:
    """The JSON form of a value that JSON does not have: a date as ISO 8601, an array as a list, else a text."""
    for form in ("isoformat", "tolist"):
        if hasattr(value, form):
            return getattr(value, form)()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _guard(table: pandas.DataFrame, path: Path) -> pandas.DataFrame:
    """The table with its texts `guarded`, if spreadsheets open this kind of file."""
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
        called: field -> name of its column, if that differs.

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
        called: field -> name of its column, if that differs.
        raw: as in `write_table`.

    Raises:
        UserError: as `write_table`.
    """
    write_table(path, rows_table(kind, rows, called), raw=raw)
