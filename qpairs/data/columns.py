"""Which columns of a table hold the questions, their ids and the label."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qpairs.core.exceptions import UserError

PAIR_COLUMNS = (
    ("question1", "question2"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("q1", "q2"),
    ("sentence_a", "sentence_b"),
)
LABEL_COLUMNS = ("is_duplicate", "label", "labels", "duplicate")
QUESTION_COLUMNS = ("question", "text", "sentence", "q")


@dataclass(frozen=True)
class Columns:
    """The columns of a table of pairs; `label` is empty where all pairs are duplicates (anchor, positive)."""

    first: str
    second: str
    label: str = ""
    negative: str = ""


def find_columns(names: Iterable[str], wanted: Iterable[str] = (), *, where: str, labelled: bool = True) -> Columns:
    """The columns that hold the two questions and the label of a pair.

    Args:
        names: the table's columns.
        wanted: the user's own choice: two texts and, when there are labels, the label.
        where: the source, for messages.
        labelled: whether a label column must be there.

    Raises:
        UserError: columns are missing; the message lists those found.

    >>> find_columns(["id", "Question1", "Question2", "is_duplicate"], where="pairs.csv")
    Columns(first='Question1', second='Question2', label='is_duplicate', negative='')
    """
    known, found, wanted = _by_lower_case(names), _found(names), list(wanted)
    if wanted:
        if len(wanted) not in (2, 3) or (labelled and len(wanted) < 3):
            raise UserError(f"{where}: columns {','.join(wanted)!r} are not of the form TEXT1,TEXT2,LABEL; {found}")
        return Columns(*(named_column(names, name, where=where) for name in wanted[: 3 if labelled else 2]))
    label = next((known[name] for name in LABEL_COLUMNS if name in known), "")
    for first, second in PAIR_COLUMNS:
        if first in known and second in known:
            if labelled and not label:
                raise UserError(
                    f"{where}: no label column ({', '.join(LABEL_COLUMNS)}); {found}; name it with --columns"
                )
            return Columns(known[first], known[second], label if labelled else "")
    if "anchor" in known and "positive" in known:
        return Columns(known["anchor"], known["positive"], negative=known.get("negative", "") if labelled else "")
    raise UserError(
        f"{where}: no pair of question columns (such as question1, question2); {found}; name them with --columns"
    )


def find_question_column(names: Iterable[str], wanted: str = "", *, where: str) -> str:
    """The column that holds the questions: `wanted`, else the only one, else the first of `QUESTION_COLUMNS` there is.

    Args:
        names: the table's columns.
        wanted: the user's own choice.
        where: the file, for messages.

    Raises:
        UserError: there is no such column, or none can be chosen; the message lists those found.
    """
    names, known = list(names), _by_lower_case(names)
    guess = names[0] if len(names) == 1 else next((known[name] for name in QUESTION_COLUMNS if name in known), None)
    if not wanted and guess is None:
        raise UserError(
            f"{where}: which column holds the questions? {_found(names)}; name it with --text-column (train: --columns)"
        )
    return named_column(names, wanted, where=where) if wanted else str(guess)


def find_text_columns(names: Iterable[str], wanted: str = "", *, where: str) -> tuple[str, ...]:
    """The columns whose texts, one after the other, are a question: those that `wanted` joins by commas.

    Args:
        names: the table's columns.
        wanted: the user's own choice: one name, or several with commas between; a name that has a comma itself comes
            first.
        where: the file, for messages.

    Raises:
        UserError: as `find_question_column`, or a column is named twice.

    >>> find_text_columns(["id", "Title", "body"], "title,body", where="tickets.csv")
    ('Title', 'body')
    """
    names = list(names)
    if "," not in wanted or wanted in names:
        return (find_question_column(names, wanted, where=where),)
    found = tuple(named_column(names, name.strip(), where=where) for name in wanted.split(","))
    if len(set(found)) < len(found):
        raise UserError(f"{where}: --text-column {wanted!r} names a column twice")
    return found


def joined_texts(texts: Sequence[object]) -> object:
    """The texts of several columns as one, those that are missing left out; a single value stays as it is.

    >>> joined_texts(["No sound", None, "The speaker is on."])
    'No sound The speaker is on.'
    """
    if len(texts) == 1:
        return texts[0]
    wrong = next((text for text in texts if text is not None and not isinstance(text, str)), None)
    return wrong if wrong is not None else " ".join(text for text in texts if isinstance(text, str) and text.strip())


def named_column(names: Iterable[str], wanted: str, *, where: str) -> str:
    """The table's own name of the column that the user calls `wanted`; case does not matter.

    Raises:
        UserError: there is no such column; the message lists those found.
    """
    known = _by_lower_case(names)
    if wanted not in known and wanted.lower() not in known:
        raise UserError(f"{where}: no column {wanted!r}; {_found(names)}")
    return known[wanted if wanted in known else wanted.lower()]


def _by_lower_case(names: Iterable[str]) -> dict[str, str]:
    """Each name by itself and in lower case; an exact name comes before one in other case."""
    return {name.lower().strip(): name for name in names} | {name: name for name in names}


def _found(names: Iterable[str]) -> str:
    names = list(names)
    shown = f"found: {', '.join(map(reprlib.repr, names))}"
    other = next((mark for mark in ";|\t" if len(names) == 1 and mark in names[0]), "")
    return (
        f"{shown}; if {other!r} separates the fields, write sep={other} as the first line of the file"
        if other
        else shown
    )
