"""Questions that are held in memory, with all the columns of their file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.tables import COMMA, Dialect
from qpairs.data.columns import joined_texts
from qpairs.data.formats import refuse_row
from qpairs.data.pairs import text_fault
from qpairs.data.questions import QuestionSource, id_fault, id_text, open_questions
from qpairs.data.tables import table_of

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Corpus:
    """Questions, without the rows that cannot be used.

    Attributes:
        path: their file; of rows in memory, the name of their type.
        table: (n rows) all its columns, to be written back unchanged.
        texts: (n,) the questions, runs of white space made one space.
        rows: (n,) their numbers in the file, from 1.
        skipped: reason -> rows that were left out.
        ids: (n,) their ids, as texts; none if no column was named.
        text_column: the column of the questions, or several with commas between.
        skip_bad_rows: whether rows that cannot be used were left out.
        dialect: how its file separates fields, for writing it back.
        separator: the separator that was named; '' if it was detected.
    """

    path: Path
    table: pandas.DataFrame
    texts: Sequence[str]
    rows: NDArray[np.int64]
    skipped: Mapping[str, int]
    ids: Sequence[str] = ()
    text_column: str = ""
    skip_bad_rows: bool = False
    dialect: Dialect = COMMA
    separator: str = ""

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in self.skipped.items())
        found: dict[str, object] = {"questions": len(self.texts), "of": self.path}
        return "Corpus", found | ({"rows left out": skipped} if skipped else {})

    __repr__, _repr_html_ = one_line, html_card


def read_corpus(
    source: Corpus | QuestionSource,
    *,
    text_column: str = "",
    id_column: str = "",
    separator: str = "",
    skip_bad_rows: bool = False,
) -> Corpus:
    r"""Reads questions with all the columns of their file, or data frame.

    Args:
        source: a corpus, which is returned unchanged; or as in `qpairs.data.questions.open_questions`.
        text_column: the column of the questions, or several with commas between, as there.
        id_column: the column of their ids.
        separator: of the fields of a .csv or .tsv file, as there.
        skip_bad_rows: leave out rows that cannot be used; without it, the first one is an error.

    Raises:
        UserError: the file cannot be read, or has no question.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "tickets.csv")
    >>> _ = file.write_text("ticket,question\nA7,How do I pay?\nA8,\nA9,Where is   my order?\n")
    >>> corpus = read_corpus(file, skip_bad_rows=True)
    >>> corpus.texts, corpus.rows.tolist(), corpus.table["ticket"].tolist()
    (['How do I pay?', 'Where is my order?'], [1, 3], ['A7', 'A9'])
    """
    if isinstance(source, Corpus):
        return source
    questions = open_questions(source, text_column=text_column, id_column=id_column, separator=separator)
    path, reader, column = questions.path, questions.reader, questions.text_column
    table = table_of(reader, str(path), skip_bad_rows=skip_bad_rows)
    skipped, usable, texts = Counter(malformed=table.malformed), list[int](), list[str]()
    cells = [table.cells(name) for name in questions.text_columns]
    ids = table.cells(questions.id_column) if questions.id_column else None
    for place, text in enumerate(map(joined_texts, zip(*cells, strict=True))):
        no_id = None if ids is None else id_fault(ids[place], questions.id_column)
        if fault := no_id or text_fault(text, column):
            refuse_row(path, reader.unit, table.numbers[place], fault[1], skip=skip_bad_rows)
            skipped[fault[0]] += 1
        else:
            usable.append(place)
            texts.append(" ".join(str(text).split()))
    if not texts:
        raise UserError(f"{path}: there are no questions in it")
    kept = table.frame.iloc[usable]
    named = () if ids is None else [id_text(ids[place]) for place in usable]
    rows = np.array(table.numbers)[usable]
    return Corpus(path, kept, texts, rows, +skipped, named, column, skip_bad_rows, table.dialect, separator)
