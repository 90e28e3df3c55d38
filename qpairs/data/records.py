"""Rows that are held in memory: data frames, data sets, lists and iterators, read like a file.

`open_rows` is the only place where Python objects become a `Reader`; pairs, questions, corpora and labels are read from
it with the same rules and messages as from a file. Messages name the type that holds the rows.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpairs.core.exceptions import UserError
from qpairs.data.class_names import class_names, column_types, named_classes
from qpairs.data.formats import Reader, Row, Types, open_file
from qpairs.data.hub import Dataset
from qpairs.data.pairs import require_unicode

if TYPE_CHECKING:
    import pandas
    import pyarrow

PAIR = ("question1", "question2", "is_duplicate")  # what the places of a row that is a tuple are called
QUESTION = ("id", "text")
TEXTS = "text"  # the column of rows that are texts
IN_MEMORY = "in memory: "  # starts the name, in a config, of pairs that were given in Python


@dataclass(frozen=True)
class Records:
    """Rows as Python objects: the values in `names`, or what is wrong with a row."""

    names: Sequence[str]
    values: Sequence[Row]
    unit: str = "row"

    @property
    def columns(self) -> Types:
        """As in `Reader`: nothing is known of the types."""
        return dict.fromkeys(self.names)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """As in `Reader`."""
        places = [self.names.index(name) for name in columns]
        for number, row in enumerate(self.values, start=1):
            yield number, row if isinstance(row, str) else tuple([row[place] for place in places])


@dataclass(frozen=True)
class Frame:
    """A data frame of pandas; missing values are None."""

    frame: pandas.DataFrame
    unit: str = "row"

    @cached_property
    def columns(self) -> Types:
        """As in `Reader`: nothing is known of the types."""
        return dict.fromkeys(map(str, self.frame.columns))

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """As in `Reader`."""
        names = list(self.columns)
        cells = [self.frame.iloc[:, names.index(name)].astype(object) for name in columns]
        yield from enumerate(zip(*(column.where(column.notna(), None) for column in cells), strict=True), start=1)


@dataclass(frozen=True)
class ArrowTable:
    """A table of Arrow, which data frames of polars and relations of DuckDB become without a copy."""

    table: pyarrow.Table
    unit: str = "row"

    @cached_property
    def columns(self) -> Types:
        """As in `Reader`."""
        return dict(column_types(self.table.schema))

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """As in `Reader`."""
        classes = class_names(self.table.schema)
        cells = (named_classes(self.table.column(name).to_pylist(), classes.get(name, ())) for name in columns)
        yield from enumerate(zip(*cells, strict=True), start=1)


def open_table(source: Any, names: Sequence[str] = QUESTION, separator: str = "") -> tuple[Reader, str]:
    """The reader of a file, or of rows in memory, and what messages call it.

    Args:
        source: a path, or what `open_rows` takes.
        names: as there.
        separator: of a file, as in `open_file`.

    Raises:
        UserError: as `open_file` and `open_rows`; or rows in memory with a separator.
    """
    if isinstance(source, str) and not Path(source).suffix and not Path(source).exists():
        raise UserError(f"{reprlib.repr(source)}: no such file; in Python, questions are a list of texts: [...]")
    if isinstance(source, str | Path):
        return open_file(Path(source), separator), str(source)
    if separator:
        raise UserError(
            f"separator: {separator!r} is for .csv and .tsv files, and rows in memory have none; leave it out"
        )
    return open_rows(source, names), name_of(source)


def open_rows(source: Any, names: Sequence[str]) -> Reader:
    """The reader of rows that are held in memory; an iterator is first read into a list.

    Args:
        source: a data frame of pandas or polars, a table of Arrow, a `datasets.Dataset`, a mapping from columns to
            lists, or rows: dicts, tuples, dataclasses or texts.
        names: names of the items of a row that is a tuple.

    Raises:
        UserError: it is none of these, or two columns have one name.

    >>> reader = open_rows([("How do I pay?", "How can I pay?", 1)], PAIR)
    >>> list(reader.rows(["question2", "is_duplicate"]))
    [(1, ('How can I pay?', 1))]
    """
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        _no_column_twice(list(map(str, source.columns)), name_of(source))
        return Frame(source)
    if hasattr(source, "features") and hasattr(source, "column_names") and hasattr(source, "__len__"):
        return Dataset(source)
    if hasattr(source, "features") and hasattr(source, "column_names") and source.features:  # streamed
        return _streamed(source)
    if hasattr(source, "collect") and hasattr(source, "collect_schema"):
        raise UserError(f"{name_of(source)}: has no rows yet; pass its .collect()")
    if hasattr(source, "__arrow_c_stream__") and (hasattr(source, "columns") or hasattr(source, "read_all")):
        return _arrow(source)
    if isinstance(source, Mapping):
        return _columns(source)
    if isinstance(source, str | bytes) or not isinstance(source, Iterable):
        raise UserError(
            f"{name_of(source)}: {reprlib.repr(source)} has no rows; give a data frame, a data set, or a list of "
            "dicts, tuples or texts"
        )
    return _records(source.tolist() if hasattr(source, "tolist") else list(source), names)


def name_of(source: Any) -> str:
    """The name in messages of rows in memory: the name of their type."""
    return type(source).__name__


def given_name(source: Any, rows: int) -> str:
    """The name in a config of pairs that were given in Python.

    >>> given_name([], 2400)
    'in memory: 2,400 pairs (list)'
    """
    return f"{IN_MEMORY}{rows:,} pairs ({name_of(source)})"


def require_texts(texts: Any, what: str = "texts") -> list[str]:
    """Texts as a list; a single text, whose characters would be read as texts, is refused.

    Args:
        texts: a list, a series, an array, or an iterator of texts.
        what: the argument, for the message.

    Raises:
        UserError: it is a text, or holds anything but texts, or half a character.

    >>> require_texts(iter(["How do I pay?"]))
    ['How do I pay?']
    >>> require_texts("hello there")
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: texts: 'hello there' is one text, not a list; put it in [...]
    """
    if isinstance(texts, str | bytes):
        raise UserError(f"{what}: {reprlib.repr(texts)} is one text, not a list; put it in [...]")
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping) or hasattr(texts, "columns"):
        raise UserError(f"{what}: {reprlib.repr(texts)} is not a list of texts")
    found = texts if isinstance(texts, list) else list(texts)
    for number, text in enumerate(found, start=1):
        if not isinstance(text, str):
            raise UserError(f"{what}, number {number}: {reprlib.repr(text)} is not a text")
    require_unicode(found, what)
    return found


def _streamed(source: Any) -> Reader:
    import datasets

    return Dataset(datasets.Dataset.from_list(list(source), features=source.features))


def _arrow(source: Any) -> Reader:
    import pyarrow

    try:
        table = pyarrow.table(source)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise UserError(f"{name_of(source)}: cannot be read: {' '.join(str(error).split())[:300]}") from error
    _no_column_twice(table.column_names, name_of(source))
    return ArrowTable(table)


def _columns(source: Mapping[Any, Any]) -> Records:
    """The rows of a mapping from columns to lists of one length."""
    lengths = {str(name): len(c) for name, c in source.items() if hasattr(c, "__len__") and not isinstance(c, str)}
    parts = [name for name, column in source.items() if hasattr(column, "features")]
    if parts:
        raise UserError(f"{name_of(source)}: has several parts; pass one of them: {', '.join(map(str, parts))}")
    if len(lengths) < len(source) or len(set(lengths.values())) > 1:
        found = ", ".join(f"{name}: {length:,}" for name, length in lengths.items()) or "none"
        raise UserError(f"{name_of(source)}: columns must be lists of one length; found {found}")
    columns = (column.tolist() if hasattr(column, "tolist") else list(column) for column in source.values())
    return Records(list(lengths), list(zip(*(map(_present, column) for column in columns), strict=True)))


def _records(rows: Sequence[Any], names: Sequence[str]) -> Records:
    """Rows that are dicts, dataclasses, tuples or texts; all of the same kind as the first."""
    first: Any = next((row for row in rows if row is not None), None)
    if dataclasses.is_dataclass(first):
        fields = [spec.name for spec in dataclasses.fields(first)]
        return Records(fields, [tuple(getattr(row, name, None) for name in fields) for row in rows])
    if isinstance(first, Mapping):
        keys = list(dict.fromkeys(key for row in rows if isinstance(row, Mapping) for key in row))
        return Records(
            list(map(str, keys)),
            [
                tuple([_present(row.get(key)) for key in keys]) if isinstance(row, Mapping) else _not(row, "a dict")
                for row in rows
            ],
        )
    first = first.tolist() if hasattr(first, "tolist") else first
    if isinstance(first, Sequence) and not isinstance(first, str | bytes):
        width = len(first)
        named = getattr(first, "_fields", None) or (
            *names[:width],
            *(f"column {n + 1}" for n in range(len(names), width)),
        )
        return Records(list(named), [_values(row, width) for row in rows])
    return Records([TEXTS], [(_present(row),) for row in rows])


def _values(row: Any, width: int) -> Row:
    row = row.tolist() if hasattr(row, "tolist") else row
    if not isinstance(row, Sequence) or isinstance(row, str | bytes):
        return _not(row, "a tuple")
    if len(row) != width:
        return f"{len(row)} values, but the first row has {width}"
    return tuple(map(_present, row))


def _not(row: Any, kind: str) -> str:
    return f"{reprlib.repr(row)} is not {kind}, as the first row is"


def _present(value: Any) -> Any:
    """A value, or None for a missing one: NaN, of numpy or pandas."""
    return (
        None
        if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
        else value
    )


def _no_column_twice(names: Sequence[str], where: str) -> None:
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where}: the column {reprlib.repr(twice)} appears twice")
