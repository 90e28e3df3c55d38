"""A file of questions, of any length, read row by row: CSV, TSV, JSONL, Parquet, or plain text with one in a line."""

from __future__ import annotations

import csv
import io
import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import sha256
from qpairs.data.pairs import OPEN_QUOTE, csv_rows, json_rows, text_fault

KINDS = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")
TEXT_COLUMNS = ("question", "text", "sentence", "q")
LONGEST_FIELD = 1 << 24  # characters
ROWS = 8192  # of a Parquet file at a time
BLOCK = 1 << 20  # bytes of a text file at a time, up to the end of a line

Record = tuple[Any, Any] | str  # identity and text, or what is wrong with the row


@dataclass(frozen=True)
class Questions:
    """A file of questions, which is read anew by each call of `rows`.

    Attributes:
        path: the file.
        text_column: the column of the questions.
        id_column: the column of their identities; '' where the number of the row is the identity.
        quoting: of a CSV or TSV file, as in the module csv.
    """

    path: Path
    text_column: str
    id_column: str = ""
    quoting: Any = csv.QUOTE_MINIMAL

    def rows(self, skipped: Counter[str] | None = None) -> Iterator[tuple[str, str]]:
        """Identity and text of each question, runs of white space made one space; memory is flat.

        Args:
            skipped: counts the rows that cannot be used, by what is wrong; without it, the first one is an error.

        Raises:
            UserError: such a row, or a file that cannot be read.
        """
        unit = "line" if self.path.suffix.lower() in (".jsonl", ".txt") else "row"
        for number, record in self._records():
            fault = ("malformed", record) if isinstance(record, str) else self._fault(*record)
            if fault and fault[1] == OPEN_QUOTE:
                raise UserError(f"{self.path}, row {number}: {OPEN_QUOTE}; all that follows would be lost")
            if fault and skipped is None:
                raise UserError(f"{self.path}, {unit} {number}: {fault[1]}; mend it, or pass --skip-bad-rows")
            if fault and skipped is not None:
                skipped[fault[0]] += 1
                continue
            yield str(record[0] if self.id_column else number), " ".join(record[1].split())

    def _fault(self, identity: Any, text: Any) -> tuple[str, str] | None:
        if self.id_column and (identity is None or not str(identity).strip()):
            return "no id", f"column {self.id_column!r} is empty"
        return text_fault(text, self.text_column)

    def _records(self) -> Iterator[tuple[int, Record]]:
        """The numbered rows; blank lines are none."""
        match self.path.suffix.lower():
            case ".csv" | ".tsv":
                return self._from_csv()
            case ".jsonl":
                return self._from_jsonl()
            case ".parquet":
                return self._from_parquet()
            case _:
                return ((number, (None, line)) for number, line in enumerate(_lines(self.path), 1) if line.strip())

    def _from_csv(self) -> Iterator[tuple[int, Record]]:
        identity = text = 0
        for number, row in _delimited(self.path, self.quoting):
            if isinstance(row, str):
                yield number, row
            elif number:
                yield number, (row[identity], row[text])
            else:
                identity, text = (row.index(name) if name else -1 for name in (self.id_column, self.text_column))

    def _from_jsonl(self) -> Iterator[tuple[int, Record]]:
        for number, row in json_rows(_lines(self.path)):
            yield number, row if isinstance(row, str) else (row.get(self.id_column), row.get(self.text_column))

    def _from_parquet(self) -> Iterator[tuple[int, Record]]:
        number = 0
        columns = list(dict.fromkeys(name for name in (self.id_column, self.text_column) if name))
        try:
            with parquet.ParquetFile(self.path, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
                    texts = batch.column(self.text_column).to_pylist()
                    identities = batch.column(self.id_column).to_pylist() if self.id_column else texts
                    for record in zip(identities, texts, strict=True):
                        number += 1
                        yield number, record
        except (pyarrow.ArrowException, OSError) as error:
            raise _unreadable(self.path, error) from error

    def sha256(self) -> str:
        """The checksum of the file."""
        return sha256(self.path)


def open_questions(path: str | Path, *, text_column: str = "", id_column: str = "") -> Questions:
    """Finds out how a file of questions is to be read.

    Args:
        path: a .csv, .tsv, .jsonl, .parquet or .txt file, in UTF-8.
        text_column: the column of the questions; without it the only one, or one of `TEXT_COLUMNS`.
        id_column: the column of their identities; without it, the number of the row or line, from 1, is the identity.

    Raises:
        UserError: no such file or column, or a file that cannot be read.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if kind not in KINDS:
        raise UserError(f"{path}: unknown kind of file; {nearest(kind, KINDS)}")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty")
    quoting = _quoting(path) if kind == ".tsv" else csv.QUOTE_MINIMAL
    names = _column_names(path, quoting)
    where, found = str(path), f"found: {', '.join(map(reprlib.repr, names))}"
    known = {name.lower().strip(): name for name in names} | {name: name for name in names}
    for wanted in (text_column, id_column):
        if wanted and wanted not in known and wanted.lower() not in known:
            raise UserError(f"{where}: no column {wanted!r}; {found}")
    guess = names[0] if len(names) == 1 else next((name for name in TEXT_COLUMNS if name in known), "")
    if not (text_column or guess):
        raise UserError(f"{where}: which column holds the questions? {found}; name it with --text-column")
    text, identity = (known.get(name) or known.get(name.lower(), "") for name in (text_column or guess, id_column))
    return Questions(path, text, identity, quoting)


def _column_names(path: Path, quoting: Any) -> Sequence[str]:
    match path.suffix.lower():
        case ".parquet":
            try:
                names: list[str] = parquet.read_schema(path).names
            except (pyarrow.ArrowException, OSError) as error:
                raise _unreadable(path, error) from error
            return names
        case ".jsonl":
            first = next((row for _, row in json_rows(_lines(path)) if isinstance(row, dict)), None)
            if first is None:
                raise UserError(f"{path}: no line of it is a JSON object")
            return list(first)
        case ".txt":
            return ["text"]
    header = next((row for _, row in _delimited(path, quoting) if isinstance(row, list)), None)
    if header is None:
        raise UserError(f"{path}: the file is empty")
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise UserError(f"{path}: the column {reprlib.repr(twice[0])} is there twice")
    return header


def _quoting(path: Path) -> Any:
    """How a table with tabs is quoted: the form with fewer malformed rows, then with more rows, as in `pairs`."""

    def faults(quoting: Any) -> tuple[int, int]:
        counts = Counter(isinstance(row, str) for _, row in _delimited(path, quoting))
        return counts[True], -counts[False]

    return min((csv.QUOTE_MINIMAL, csv.QUOTE_NONE), key=faults)


def _delimited(path: Path, quoting: Any) -> Iterator[tuple[int, list[str] | str]]:
    return csv_rows(_lines(path), "," if path.suffix.lower() == ".csv" else "\t", quoting, LONGEST_FIELD)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends, be these of Unix, of Windows or of old Macintoshes."""
    number, encoding = 1, "utf-8-sig"
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK) + file.readline():
                yield from io.StringIO(block.decode(encoding), newline="")
                number, encoding = number + block.count(b"\n"), "utf-8"
    except UnicodeDecodeError as error:
        number += error.object.count(b"\n", 0, error.start)
        raise UserError(f"{path}, line {number}: not valid UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read: {' '.join(str(error).split())}")
