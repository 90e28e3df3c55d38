"""Files of rows: one reader for each format, for pairs, questions and whole tables alike.

A new format is one class with the members of `Reader`, and one row of `FORMATS`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import reprlib
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from qpairs.core.exceptions import UserError, nearest, not_utf8
from qpairs.core.files import os_reason
from qpairs.core.tables import COMMA, Dialect
from qpairs.data.class_names import class_names, column_types, named_classes
from qpairs.data.compressed import OPENERS, ZIP, faults, is_compressed, open_uncompressed, uncompressed_name
from qpairs.data.separators import HEAD, SEPARATOR, SEPARATORS, separates, separator_character

if TYPE_CHECKING:
    import pyarrow

LONGEST_FIELD = 1 << 24  # characters of a field of a CSV file before its quote counts as one that is never closed
ROWS = 8192  # of a Parquet file at a time
BLOCK = 1 << 20  # bytes of a text file at a time, up to the end of a line
_NAMED_SEPARATOR = re.compile(r"\"?sep=(.)\"?\s*", re.I)  # the first line by which Excel is told the separator
_SPACE = re.compile(r"\s*")
OPEN_QUOTE = "a quote is opened and never closed"
SKIP_THEM = "pass --skip-bad-rows (skip_bad_rows=True)"  # how rows that cannot be used are left out

Row = tuple[Any, ...] | str  # the values of a row, or what is wrong with it
Types: TypeAlias = "Mapping[str, pyarrow.DataType | None]"


class Reader(Protocol):
    """A table that is read row by row, from the start at each call of `rows`."""

    @property
    def unit(self) -> str:
        """What messages call a row: `row` or `line`."""

    @property
    def columns(self) -> Types:
        """The type of each column by its name; None if the format does not say.

        Raises:
            UserError: the table cannot be read.
        """

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """The number of each row, from 1, and its values in `columns`, or what is wrong; in constant memory.

        Raises:
            UserError: the table cannot be read.
        """


def open_file(path: Path, separator: str = "") -> Reader:
    r"""The reader of a file, by the ending of its name.

    Args:
        path: the file.
        separator: of the fields of a .csv or .tsv file, as in `separated_by`; '' detects it.

    Raises:
        UserError: there is no such file, it is empty, its ending is unknown, or it has no such separator.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "tickets.csv")
    >>> _ = file.write_text("title^paid, or not\nHow do I pay?^no\n")
    >>> list(open_file(file).columns), list(open_file(file, "^").columns)
    (['title^paid', 'or not'], ['title', 'paid, or not'])
    """
    if not path.is_file():
        raise UserError(f"{path}: " + ("is a folder; name a file in it" if path.is_dir() else "no such file"))
    if not os.path.getsize(path):
        raise UserError(f"{path}: the file is empty")
    suffix = ending_of(path)
    if suffix not in FORMATS:
        known = f"{nearest(suffix, FORMATS)}; these may be compressed: {', '.join([*OPENERS, ZIP])}"
        raise UserError(f"{path}: unknown kind of file; {known}")
    if is_compressed(path) and suffix not in PACKED:
        raise UserError(f"{path}: a {suffix} file is not read compressed; unpack it")
    reader = FORMATS[suffix](path)
    if not separator:
        return reader
    if not isinstance(reader, Delimited):
        raise UserError(f"{path}: separator: {separator!r} is for .csv and .tsv files; leave it out")
    return replace(reader, told=separator_character(separator))


def dialect_of(reader: Reader) -> Dialect:
    r"""How a .csv file separates its fields, to write it back in the same way; commas for all other formats.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "pairs.csv")
    >>> _ = file.write_text("question1;question2\nHow do I pay?;How can I pay?\n")
    >>> dialect_of(open_file(file))
    Dialect(separator=';', named=False)
    """
    return reader.dialect if isinstance(reader, Delimited) and ending_of(reader.path) == ".csv" else COMMA


def ending_of(path: str | Path) -> str:
    """The ending that gives the format of a file, in lower case; for a compressed file, that of the file in it.

    Raises:
        UserError: a .zip that does not hold exactly one file.

    >>> ending_of("data/pairs.CSV"), ending_of("pairs.jsonl.gz"), ending_of("nyu-mll/glue")
    ('.csv', '.jsonl', '')
    """
    return Path(uncompressed_name(Path(path))).suffix.lower()


def refuse_row(where: str | Path, unit: str, number: int, reason: str, *, skip: bool) -> None:
    """Raises UserError about a row that cannot be used, unless such rows are skipped.

    A quote that is never closed is always an error, because the rest of the file would be lost with the row.
    """
    if reason == OPEN_QUOTE:
        raise UserError(f"{where}, {unit} {number}: {reason}; all rows after it would be lost")
    if not skip:
        raise UserError(f"{where}, {unit} {number}: {reason}; correct it, or {SKIP_THEM}")


@dataclass(frozen=True)
class Delimited:
    """CSV and TSV; the first row has the column names, and blank lines are not rows.

    Files with tabs are quoted like CSV (Quora's release, where a question may hold line ends) or not at all (GLUE's).
    The form with fewer malformed rows is taken, then the one with more rows.
    """

    path: Path
    delimiter: str
    unit: str = "row"
    told: str = ""

    @cached_property
    def separator(self) -> str:
        """The separator of the fields: that of a first line `sep=;`, else the one in the header, else `delimiter`.

        What is `told` for this file comes first, and must be in its header. What `SEPARATOR` names comes before what is
        guessed, if it is in the header. Another of `SEPARATORS` is taken from the header if `delimiter` is not in it,
        and the header then has as many column names as the rows after it have fields.

        Raises:
            UserError: what is told is not in the header.
        """
        lines = list(itertools.islice(_lines(self.path), HEAD))
        if self.told:
            header = next((line for line in lines if not _NAMED_SEPARATOR.fullmatch(line)), "")
            if len(next(csv.reader([header], delimiter=self.told), [])) < 2:
                shown = textwrap.shorten(header, 60, placeholder=" ...")
                mark = "tab" if self.told == "\t" else self.told
                raise UserError(f"{self.path}: separator: {mark!r} is not in its first line, {shown!r}")
            return self.told
        if named := _NAMED_SEPARATOR.fullmatch(lines[0]) if lines else None:
            return named[1]
        told = os.environ.get(SEPARATOR, "")
        if len(told) == 1 and lines and len(next(csv.reader(lines[:1], delimiter=told), [])) > 1:
            return told
        if not lines or len(next(csv.reader(lines[:1], delimiter=self.delimiter), [])) > 1:
            return self.delimiter
        clear = [separator for separator in SEPARATORS if separates(lines, separator)]
        return clear[0] if len(clear) == 1 else self.delimiter

    @property
    def dialect(self) -> Dialect:
        """How the fields are separated."""
        first = next(_lines(self.path), "")
        return Dialect(self.separator, _NAMED_SEPARATOR.fullmatch(first) is not None)

    @cached_property
    def columns(self) -> Types:
        """As in `Reader`: all are strings."""
        import pyarrow  # slow to import, as its `parquet` is

        return _distinct(self.path, [(name, pyarrow.string()) for name in self._header])

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """As in `Reader`."""
        places = [self._header.index(name) for name in columns]
        for number, row in self._records(self._quoting):
            if number:
                yield number, row if isinstance(row, str) else tuple([row[place] for place in places])

    @cached_property
    def _header(self) -> list[str]:
        header = next((row for _, row in self._records(self._quoting) if isinstance(row, list)), None)
        if header is None:
            raise UserError(f"{self.path}: the file is empty")
        return header

    @cached_property
    def _quoting(self) -> Any:
        def malformed(quoting: Any) -> tuple[int, int]:
            counts = Counter(isinstance(row, str) for _, row in self._records(quoting))
            return counts[True], -counts[False]

        return min((csv.QUOTE_MINIMAL, csv.QUOTE_NONE), key=malformed) if self.separator == "\t" else csv.QUOTE_MINIMAL

    def _records(self, quoting: Any) -> Iterator[tuple[int, list[str] | str]]:
        """The header, as row 0, and each row, or what is wrong with it."""
        lines = _lines(self.path)
        first = next(lines, "")
        lines = lines if _NAMED_SEPARATOR.fullmatch(first) else itertools.chain([first], lines)
        reader = csv.reader(lines, delimiter=self.separator, quoting=quoting, strict=True)
        limit = csv.field_size_limit(LONGEST_FIELD)
        width = number = 0
        try:
            while True:
                try:
                    row = next(reader)
                except csv.Error as error:
                    unclosed = any(sign in str(error) for sign in ("end of data", "field larger"))
                    number += 1
                    yield number, OPEN_QUOTE if unclosed else f"broken quotes ({error})"
                    continue
                if not row or (len(row) == 1 and not row[0].strip()):
                    continue
                if not width:
                    width = len(row)
                    yield 0, _header_names(row)
                else:
                    number += 1
                    yield number, row if len(row) == width else f"{len(row)} fields, but the header has {width}"
        except StopIteration:
            return
        finally:
            csv.field_size_limit(limit)


def _header_names(header: Sequence[str]) -> list[str]:
    """The names of the columns; several without a name are named by their position."""
    names = [name.strip() for name in header]
    unnamed = names.count("") > 1
    return [name or (f"column {place}" if unnamed else "") for place, name in enumerate(names, start=1)]


@dataclass(frozen=True)
class JsonObjects:
    """JSON objects, with None for a missing key; blank lines are not rows.

    Attributes:
        path: the file.
        unit: what messages call an object.
        texts: from the file to the text of each object.
    """

    path: Path
    unit: str
    texts: Callable[[Path], Iterator[str]]

    @cached_property
    def columns(self) -> Types:
        """As in `Reader`: the keys of all objects."""
        return dict.fromkeys(key for _, row in self._objects() if isinstance(row, dict) for key in row)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """As in `Reader`."""
        for number, row in self._objects():
            yield number, row if isinstance(row, str) else tuple([row.get(name) for name in columns])

    def _objects(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        for number, text in enumerate(self.texts(self.path), start=1):
            if text.strip():
                try:
                    row = json.loads(text)
                    json.dumps(row if "\\u" in text else "", ensure_ascii=False).encode()  # fails on half a character
                except (ValueError, RecursionError) as error:
                    yield number, f"not valid JSON ({error})"
                    continue
                yield number, row if isinstance(row, dict) else "not a JSON object"


@dataclass(frozen=True)
class Parquet:
    """Parquet, whose columns have types."""

    path: Path
    unit: str = "row"

    @cached_property
    def columns(self) -> Types:
        """As in `Reader`."""
        try:
            from pyarrow import parquet

            schema = parquet.read_schema(self._source())
        except faults() as error:
            raise _unreadable(self.path, error) from error
        return _distinct(self.path, column_types(schema))

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """As in `Reader`."""
        number = 0
        try:
            from pyarrow import parquet

            with parquet.ParquetFile(self._source(), buffer_size=1 << 20) as file:
                classes = class_names(file.schema_arrow)
                for batch in file.iter_batches(ROWS, columns=list(dict.fromkeys(columns)), use_threads=False):
                    cells = (named_classes(batch.column(name).to_pylist(), classes.get(name, ())) for name in columns)
                    for row in zip(*cells, strict=True):
                        number += 1
                        yield number, row
        except faults() as error:
            raise _unreadable(self.path, error) from error

    def _source(self) -> Path | pyarrow.BufferReader:
        """The file; a compressed one is decompressed in memory, because Parquet is read from its end."""
        if not is_compressed(self.path):
            return self.path
        import pyarrow

        with open_uncompressed(self.path) as file:
            return pyarrow.BufferReader(file.read())


@dataclass(frozen=True)
class PlainText:
    """Plain text with one question per line, in the column `text`; blank lines are not rows."""

    path: Path
    unit: str = "line"

    @property
    def columns(self) -> Types:
        """As in `Reader`."""
        import pyarrow

        return {"text": pyarrow.string()}

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """As in `Reader`."""
        for number, line in enumerate(_lines(self.path), start=1):
            if line.strip():
                yield number, (line.rstrip("\r\n"),) * len(columns)


FORMATS: dict[str, Callable[[Path], Reader]] = {
    ".csv": lambda path: Delimited(path, ","),
    ".tsv": lambda path: Delimited(path, "\t"),
    ".jsonl": lambda path: JsonObjects(path, "line", _lines),
    ".json": lambda path: JsonObjects(path, "row", _json_texts),
    ".parquet": Parquet,
    ".txt": PlainText,
}  # the ending of a file's name -> its reader
PACKED = frozenset(FORMATS)  # what is read compressed, too: a reader of the user's own opens its file itself


def _lines(path: Path) -> Iterator[str]:
    r"""The lines of a text file in UTF-8, with their ends: \n, \r\n or \r."""
    number, encoding = 1, "utf-8-sig"
    try:
        with open_uncompressed(path) as file:
            while block := file.read(BLOCK) + file.readline():
                yield from io.StringIO(block.decode(encoding), newline="")
                number, encoding = number + block.count(b"\n"), "utf-8"
    except UnicodeDecodeError as error:
        start = error.object if number == 1 else b""
        number += error.object.count(b"\n", 0, error.start)
        raise UserError(f"{path}, line {number}: {not_utf8(start)}") from None
    except faults() as error:
        raise _unreadable(path, error) from error


def _json_texts(path: Path) -> Iterator[str]:
    """The text of each object of a JSON array, or of consecutive objects; these are held in memory."""
    text, values, place = "".join(_lines(path)).strip(), list[Any](), 0
    try:
        while place < len(text):
            value, place = json.JSONDecoder().raw_decode(text, place)
            place += len(_SPACE.match(text, place)[0])  # type: ignore[index]
            values.append(value)
        yield from map(json.dumps, values[0] if len(values) == 1 and isinstance(values[0], list) else values)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _distinct(path: Path, columns: Iterable[tuple[str, Any]]) -> Types:
    columns = list(columns)
    twice = [name for name, count in Counter(name for name, _ in columns).items() if name and count > 1]
    if twice:
        raise UserError(f"{path}: the column {reprlib.repr(twice[0])} appears twice")
    return dict(columns)


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = os_reason(error) if isinstance(error, OSError) else str(error)
    return UserError(f"{path}: cannot be read: {textwrap.shorten(reason, 300)}")
