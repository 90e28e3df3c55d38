"""Which columns of a file hold the questions, if their names do not say."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qpairs.core.exceptions import UserError
from qpairs.data.columns import find_question_column
from qpairs.data.formats import open_file
from qpairs.data.words import words as words_in

ROWS = 500  # that are looked at
LEAST_WORDS, LEAST_DISTINCT = 2.0, 0.2  # of a column of questions: words in a text on average, share of distinct texts
EXAMPLES = 5  # rows, or texts, of which one is shown
CLEARLY = 2.0  # times as many words as in any other column


@dataclass(frozen=True)
class TextColumn:
    """A column that may hold the questions.

    Attributes:
        name: of the column.
        words: in a text, on average.
        example: a text.
    """

    name: str
    words: float
    example: str


@dataclass(frozen=True)
class TextColumns:
    """Which columns of a file may hold the questions.

    Attributes:
        columns: those that may, the most likely first.
        sure: whether the first one is surely it.
        row: of all columns by their names, the values in one row.
    """

    columns: Sequence[TextColumn]
    sure: bool
    row: Mapping[str, object]


def text_columns(path: str | Path, separator: str = "") -> TextColumns:
    r"""The columns of a file that may hold the questions.

    A column is certain if it is the only one, has a usual name for questions, or is the only one with texts; or if its
    texts have twice as many words as those of any other.

    Args:
        path: a file in one of the formats of `qpairs.data.formats.FORMATS`.
        separator: of its fields, as in `open_file`.

    Raises:
        UserError: the file cannot be read, or has no column of texts.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "tickets.csv")
    >>> _ = file.write_text("ticket,title,state\nA7,How do I pay?,open\nA8,Where is my order?,open\n")
    >>> found = text_columns(file)
    >>> found.columns[0].name, found.sure
    ('title', True)
    """
    reader = open_file(Path(path), separator)
    names = list(reader.columns)
    rows = [row for _, row in itertools.islice(reader.rows(names), ROWS) if not isinstance(row, str)]
    found = [_described(name, [row[place] for row in rows]) for place, name in enumerate(names)]
    fullest = max(rows[:EXAMPLES], key=lambda row: sum(1 for value in row if str(value or "").strip()), default=())
    row = dict(zip(names, fullest, strict=False))
    texts = sorted((column for column in found if column), key=lambda column: -column.words)
    try:
        named = find_question_column(names, where=str(path))
    except UserError:
        if not texts:
            shown = ", ".join(map(reprlib.repr, names))
            raise UserError(f"{path}: no column holds texts of several words; found: {shown}") from None
        return TextColumns(texts, len(texts) == 1 or texts[0].words >= CLEARLY * texts[1].words, row)
    return TextColumns([TextColumn(named, 0.0, ""), *(column for column in texts if column.name != named)], True, row)


def _described(name: str, values: Sequence[object]) -> TextColumn | None:
    """A column, if most of its values are different texts of several words."""
    texts = [" ".join(value.split()) for value in values if isinstance(value, str) and value.strip()]
    wordy = [text for text in texts if any(character.isalpha() for character in text)]
    if not wordy or len(wordy) < len(values) / 2:
        return None
    words = sum(len(words_in(text)) for text in wordy) / len(wordy)
    distinct = len(set(wordy)) / len(wordy)
    if words < LEAST_WORDS or distinct < LEAST_DISTINCT:
        return None
    return TextColumn(name, words, max(wordy[:EXAMPLES], key=len))
