"""Files of labelled pairs: who labelled each, and how it was drawn from its corpus."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.core.tables import unguarded
from qpairs.data.columns import find_columns, named_column
from qpairs.data.label_values import label_values
from qpairs.data.pairs import text_fault
from qpairs.data.questions import QuestionSource
from qpairs.data.records import PAIR, open_table

LABEL_FILE_COLUMNS = ("question1", "question2", "is_duplicate", "drawn", "drawing_probability", "annotator")
ADJUDICATED = "adjudicated"  # the annotator whose answers settle disagreements
LONGEST_NAME = 100  # characters of an annotator's
DRAWN = ("stratified", "random", "threshold")  # how a pair may have been drawn


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs with a label each, and how they were drawn, in the order in which they were labelled.

    Attributes:
        first: (n,) first questions.
        second: (n,) second questions.
        labels: (n,) 1 duplicate, 0 not.
        drawn: (n,) one of `DRAWN`; '' if unknown.
        probability: (n,) that one draw gives this pair, among all pairs of the corpus; nan if unknown. A total over the
            corpus is estimated by weighting each pair that was drawn alike by 1 / probability, and dividing by the
            number of draws (Hansen and Hurwitz, "On the theory of sampling from finite populations", 1943). Pairs drawn
            by `threshold` are not a random sample and have no probability.
        annotator: (n,) who labelled each, '' if unknown. A pair labelled by several annotators has a row for each.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    labels: NDArray[np.int8]
    drawn: tuple[str, ...]
    probability: NDArray[np.float64]
    annotator: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Without annotators, all are set to unknown."""
        object.__setattr__(self, "annotator", self.annotator or ("",) * len(self.labels))

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.labels)


def annotator_name(name: str) -> str:
    """The name of an annotator as stored in files: runs of white space become one space.

    Raises:
        UserError: it is too long, or has characters that cannot be printed.

    >>> annotator_name(" Ana  B. ")
    'Ana B.'
    """
    clean = " ".join(name.split())
    if not clean.isprintable() or len(clean) > LONGEST_NAME:
        raise UserError(
            f"annotator: {clean[:LONGEST_NAME]!r} is not a name: use at most {LONGEST_NAME} printable characters"
        )
    return clean


def read_labels(*sources: LabelledPairs | QuestionSource) -> LabelledPairs:
    r"""Reads labels of pairs, such as `qpairs serve --labels` and `qpairs label` write.

    Args:
        sources: files in one of the formats of `qpairs.data.formats.FORMATS`, what `records.open_rows` takes, or labels
            already read, joined in order. The columns of questions and label are found as in any file of pairs;
            `drawn`, `drawing_probability` and `annotator` may be missing or empty. Rows of the annotator `adjudicated`
            that have no label yet are left out.

    Raises:
        UserError: a file cannot be read; columns are missing; or a value is not what it should be: the message names
            the row and the column.

    >>> import tempfile
    >>> from pathlib import Path
    >>> file = Path(tempfile.mkdtemp(), "labels.csv")
    >>> _ = file.write_text("question1,question2,is_duplicate,drawn,drawing_probability\nHow?,Why?,0,stratified,0.01\n")
    >>> pairs = read_labels(file)
    >>> pairs.labels.tolist(), pairs.drawn, pairs.probability.tolist(), pairs.annotator
    ([0], ('stratified',), [0.01], ('',))
    """
    if len(sources) == 1 and isinstance(sources[0], LabelledPairs):
        return sources[0]
    rows = [row for source in sources for row in _rows(source)]
    first, second, labels, drawn, probabilities, annotators = zip(*rows, strict=True) if rows else ((),) * 6
    probability = np.asarray(probabilities, dtype=np.float64)
    return LabelledPairs(first, second, np.asarray(labels, np.int8), drawn, probability, annotators)


def _rows(source: LabelledPairs | QuestionSource) -> Iterator[tuple[str, str, int, str, float, str]]:
    """The rows of a source, a value for each of `LABEL_FILE_COLUMNS`."""
    if isinstance(source, LabelledPairs):
        given = source.first, source.second, source.labels.tolist(), source.drawn, source.probability.tolist()
        yield from zip(*given, source.annotator, strict=True)
        return
    reader, path = open_table(source, PAIR)
    names = find_columns(reader.columns, where=str(path))
    if not names.label or names.negative:
        raise UserError(
            f"{path}: no label column ({LABEL_FILE_COLUMNS[2]}); a file of labels needs two questions and a label"
        )
    extra = [name for name in LABEL_FILE_COLUMNS[3:] if name in {column.lower().strip() for column in reader.columns}]
    columns = [names.first, names.second, names.label]
    columns += [named_column(reader.columns, name, where=str(path)) for name in extra]
    column = (row[0] for _, row in reader.rows([names.label]) if not isinstance(row, str))
    meanings = label_values().completed(column, f"{path}, column {names.label!r}")
    for number, row in reader.rows(columns):
        values = {} if isinstance(row, str) else dict(zip(LABEL_FILE_COLUMNS[:3] + tuple(extra), row, strict=True))
        who = "" if _text(values.get("annotator")) == "" else " ".join(str(values["annotator"]).split())
        if who == ADJUDICATED and not _text(values["is_duplicate"]):
            continue
        label = None if isinstance(row, str) else meanings.read(row[2])
        fault = row if isinstance(row, str) else _fault(row, columns, extra, label)
        if fault or label is None:
            raise UserError(f"{path}, {reader.unit} {number}: {fault}")
        probability = _text(values.get("drawing_probability"))
        if who == ADJUDICATED:  # in a file that was made for people
            row = (*map(unguarded, row[:2]), *row[2:])
        yield (
            *(row[0], row[1], label, _text(values.get("drawn"))),
            *(float(probability) if probability else math.nan, who),
        )


def _fault(row: Sequence[Any], columns: Sequence[str], extra: Sequence[str], label: int | None) -> str:
    """What is wrong with the values of a row, in a sentence that names the column; '' if nothing is."""
    for text, column in zip(row[:2], columns, strict=False):
        if fault := text_fault(text, column):
            return fault[1]
    if label is None:
        return f"label {reprlib.repr(row[2])} in column {columns[2]!r} is neither 0 nor 1"
    values = dict(zip(extra, row[3:], strict=True))
    if _text(values.get("drawn")) not in ("", *DRAWN):
        return f"{reprlib.repr(values['drawn'])} in column 'drawn' is none of {', '.join(DRAWN)}"
    probability = _text(values.get("drawing_probability"))
    if probability and not _is_probability(probability):
        return f"{reprlib.repr(probability)} in column 'drawing_probability' is not above 0 and at most 1"
    return ""


def _text(value: Any) -> str:
    """A value as a text in lower case; '' for none, also where a column of numbers has none."""
    return "" if value is None or value != value else str(value).strip().lower()


def _is_probability(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False
