"""All duplicates among the questions of labelled pairs: from complete intents, or from the labels alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.data.columns import named_column
from qpairs.data.pairs import Pairs, text_fault
from qpairs.data.questions import QuestionSource
from qpairs.data.records import open_table
from qpairs.data.sources import sample_path
from qpairs.data.splits import duplicate_components

COLUMNS = ("question", "intent")


def read_intents(source: QuestionSource) -> Mapping[str, str]:
    r"""Question -> intent, from a table with the columns question and intent; two of one intent are duplicates.

    Args:
        source: a file in one of the formats of `qpairs.data.formats.FORMATS` that have columns, or rows in memory.

    Raises:
        UserError: the file cannot be read, a column is missing, a value is empty, or a question has two intents.

    >>> import tempfile
    >>> from pathlib import Path
    >>> file = Path(tempfile.mkdtemp(), "intents.csv")
    >>> _ = file.write_text("question,intent\nHow do I pay?,pay\nWhere can I pay?,pay\nWho are you?,about\n")
    >>> read_intents(file)["Where can I pay?"]
    'pay'
    """
    reader, path = open_table(source, COLUMNS)
    names = [named_column(list(reader.columns), name, where=str(path)) for name in COLUMNS]
    found = dict[str, str]()
    for number, row in reader.rows(names):
        if fault := row if isinstance(row, str) else _fault(*row):
            raise UserError(f"{path}, {reader.unit} {number}: {fault}")
        question, intent = " ".join(row[0].split()), str(row[1]).strip()
        if found.setdefault(question, intent) != intent:
            raise UserError(
                f"{path}, {reader.unit} {number}: the question {question!r} has the intents {found[question]!r} and "
                f"{intent!r}"
            )
    if not found:
        raise UserError(f"{path}: there are no rows in it")
    return found


def _fault(question: object, intent: object) -> str:
    """What is wrong with a row; empty if nothing is."""
    if fault := text_fault(question, COLUMNS[0]):
        return fault[1]
    return "" if intent is not None and str(intent).strip() else f"column {COLUMNS[1]!r} is empty"


@cache
def bundled_intents() -> Mapping[str, str]:
    """Question -> intent of all bundled questions."""
    return read_intents(sample_path().with_name("intents.csv"))


def known_clusters(pairs: Pairs, intents: Mapping[str, str] | None = None) -> tuple[NDArray[np.int64], bool]:
    """The duplicates among the questions of labelled pairs, as clusters, and whether all duplicates are known.

    Args:
        pairs: labelled pairs.
        intents: question -> intent, of all questions; two of one intent are duplicates, all others are not. Without
            it, the bundled intents are used if all questions are bundled ones, otherwise the labels: two questions that
                are joined by pairs labelled duplicates are duplicates.

    Returns:
        (n_questions,) the cluster of each question, and whether the clusters are complete: clusters from labels are
        not, because an unlabelled pair may be a duplicate.

    Raises:
        UserError: a question has no intent.

    >>> from qpairs.data.pairs import pairs_from_texts
    >>> pairs = pairs_from_texts(["a", "b"], ["b", "c"], [1, 0])
    >>> cluster, complete = known_clusters(pairs)
    >>> cluster.tolist(), complete
    ([0, 0, 1], False)
    >>> cluster, complete = known_clusters(pairs, {"a": "x", "b": "y", "c": "x"})
    >>> cluster.tolist(), complete
    ([0, 1, 0], True)
    """
    if intents is None:
        if not _bundled(pairs):
            return duplicate_components(pairs), False
        intents = bundled_intents()
    elif unknown := [question for question in pairs.questions if question not in intents]:
        raise UserError(
            f"intents: {len(unknown):,} of {len(pairs.questions):,} questions have no intent, first {unknown[0]!r}; "
            "all need one"
        )
    _, cluster = np.unique([intents[question] for question in pairs.questions], return_inverse=True)
    return cluster.astype(np.int64), True


def _bundled(pairs: Pairs) -> bool:
    """Whether all questions of the pairs are bundled ones."""
    return bool(pairs.questions) and all(question in bundled_intents() for question in pairs.questions)
