"""Which columns of a table hold the questions, their ids and the label."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Sequence
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
SCORE_COLUMNS = ("score", "scores", "similarity", "similarity_score", "relatedness_score", "rating")
ANCHOR_COLUMNS = ("anchor", "query", "question")  # beside positive, and perhaps negative
QUESTION_COLUMNS = ("question", "text", "sentence", "q")


@dataclass(frozen=True)
class Columns:
    """The columns of a table of pairs; `label` is empty if all pairs are duplicates (anchor, positive)."""

    first: str
    second: str
    label: str = ""
    negative: str = ""


@dataclass(frozen=True)
class ColumnChoice:
    """The columns of pairs, as the user names them.

    Attributes:
        names: of two texts and, if there are labels, of the label; empty: they are detected.
        labelled: whether a label column must be there.
        negative: column of a negative of the first question, in rows of duplicates.
        positives: whether every row is a pair of duplicates.
        scores: whether the label column holds graded scores.
    """

    names: tuple[str, ...] = ()
    labelled: bool = True
    negative: str = ""
    positives: bool = False
    scores: bool = False

    @property
    def with_label(self) -> bool:
        """Whether a label column is read."""
        return self.labelled and not (self.negative or self.positives)


FIND_THEM = ColumnChoice()


def column_names(columns: str | Sequence[str]) -> tuple[str, ...]:
    """Names of columns: a list of them, or a text with commas between.

    >>> column_names("q1, q2"), column_names(["first, short", "second"])
    (('q1', 'q2'), ('first, short', 'second'))
    """
    if not isinstance(columns, str):
        return tuple(columns)
    return tuple(name.strip() for name in columns.split(",") if name.strip())


def find_columns(names: Iterable[str], wanted: ColumnChoice = FIND_THEM, *, where: str) -> Columns:
    """The columns that hold the two questions and the label of a pair.

    Args:
        names: the table's columns.
        wanted: the user's own choice.
        where: the source, for messages.

    Raises:
        UserError: columns are missing; the message lists those found.

    >>> find_columns(["id", "Question1", "Question2", "is_duplicate"], where="pairs.csv")
    Columns(first='Question1', second='Question2', label='is_duplicate', negative='')
    >>> find_columns(["query", "positive", "negative"], where="pairs.csv").negative
    'negative'
    >>> find_columns(["query", "positive", "label"], where="pairs.csv").label
    'label'
    """
    names = list(names)
    known, chosen, with_label = _by_lower_case(names), wanted.names, wanted.with_label
    negative = named_column(names, wanted.negative, where=where) if wanted.negative and wanted.labelled else ""
    if chosen:
        if len(chosen) not in (2, 3) or (with_label and len(chosen) < 3):
            raise UserError(
                f"{where}: columns {','.join(chosen)!r} are not of the form TEXT1,TEXT2,LABEL (TEXT1,TEXT2 if all "
                f"rows are duplicates, with --positives or --negative COLUMN); {_found(names)}"
            )
        one, other, *labels = [named_column(names, name, where=where) for name in chosen[: 3 if with_label else 2]]
        return Columns(one, other, "".join(labels), negative)
    first, second = next(((a, b) for a, b in PAIR_COLUMNS if a in known and b in known), ("", ""))
    kinds = SCORE_COLUMNS + LABEL_COLUMNS if wanted.scores else LABEL_COLUMNS
    label = next((known[name] for name in kinds if name in known), "") if with_label else ""
    if first:
        if with_label and not label:
            raise UserError(f"{where}: no label column ({', '.join(kinds)}); {_found(names)}; {_labels_hint(known)}")
        return Columns(known[first], known[second], label, negative)
    anchor = next((name for name in ANCHOR_COLUMNS if name in known), "")
    if anchor and "positive" in known:
        negative = negative or (known.get("negative", "") if wanted.labelled and not wanted.positives else "")
        if with_label and not negative and not label and _scores(known):
            raise UserError(f"{where}: {_found(names)}; {_labels_hint(known)}")
        return Columns(known[anchor], known["positive"], "" if negative else label, negative)
    raise UserError(
        f"{where}: no pair of question columns (such as question1, question2; or, for duplicates, query, positive and "
        f"optionally negative); {_found(names)}; name them with columns (--columns); if the file has single "
        "questions, use qpairs start"
    )


def _labels_hint(known: Iterable[str]) -> str:
    """What to do if there is no label column."""
    otherwise = "or say with positives (--positives) that all rows are duplicates"
    if scores := _scores(known):
        return (
            f"{scores!r} seems to hold scores: give the lowest score of a duplicate with label_cut (--label-cut), "
            f"{otherwise}"
        )
    return f"name it with columns (--columns), {otherwise}"


def _scores(known: Iterable[str]) -> str:
    """The first column that seems to hold scores; '' if none does."""
    return next((name for name in SCORE_COLUMNS if name in known), "")


def find_question_column(names: Iterable[str], wanted: str = "", *, where: str) -> str:
    """The column that holds the questions: `wanted`, else the only one, else the first in `QUESTION_COLUMNS`.

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
            f"{where}: which column holds the questions? {_found(names)}; name it with text_column (--text-column)"
        )
    return named_column(names, wanted, where=where) if wanted else str(guess)


def find_text_columns(names: Iterable[str], wanted: str = "", *, where: str) -> tuple[str, ...]:
    """The columns whose texts are joined to a question: those named in `wanted`, separated by commas.

    Args:
        names: the table's columns.
        wanted: the user's own choice: one name, or several with commas between; a name may have commas itself, and of
            several names that a text may begin with, the longest is meant.
        where: the file, for messages.

    Raises:
        UserError: as `find_question_column`, `wanted` is not a text, or a column is named twice.

    >>> find_text_columns(["id", "Title", "body"], "title,body", where="tickets.csv")
    ('Title', 'body')
    >>> find_text_columns(["Title, short", "body"], "Title, short,body", where="tickets.csv")
    ('Title, short', 'body')
    """
    if not isinstance(wanted, str):
        raise UserError(f"text_column: {wanted!r}, must be a text; separate several columns by commas: 'title,body'")
    names = list(names)
    if "," not in wanted or wanted in names:
        return (find_question_column(names, wanted, where=where),)
    found = tuple(named_column(names, name, where=where) for name in _taken_apart(names, wanted.split(",")))
    if len(set(found)) < len(found):
        raise UserError(f"{where}: text_column (--text-column) {wanted!r} names a column twice")
    return found


def _taken_apart(names: Sequence[str], parts: Sequence[str]) -> Iterator[str]:
    """The column names in a text: as many comma-separated parts at a time as form a column, or else one."""
    known, most, start = _by_lower_case(names), 1 + max((name.count(",") for name in names), default=0), 0
    while start < len(parts):
        ways = (",".join(parts[start : start + count]).strip() for count in range(most, 0, -1))
        name = next((name for name in ways if name in known or name.lower() in known), parts[start].strip())
        yield name
        start += 1 + name.count(",")


def joined_texts(texts: Sequence[object]) -> object:
    """The texts of several columns joined, without missing ones; a single value is unchanged.

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
    names = list(names)
    found = column_like(names, wanted)
    if found is None:
        raise UserError(f"{where}: no column {wanted!r}; {_found(names)}")
    return found


def column_like(names: Iterable[str], wanted: str) -> str | None:
    """The table's own name of a column, as `named_column`; None if there is no such column.

    >>> column_like(["ID", "text"], "id"), column_like(["ID", "text"], "grade")
    ('ID', None)
    """
    known = _by_lower_case(names)
    return known.get(wanted, known.get(wanted.lower()))


def _by_lower_case(names: Iterable[str]) -> dict[str, str]:
    """Each name unchanged and in lower case; an exact match comes before one that differs in case."""
    return {name.lower().strip(): name for name in names} | {name: name for name in names}


def _found(names: Iterable[str]) -> str:
    names = list(names)
    shown = f"found: {', '.join(map(reprlib.repr, names))}"
    other = next((mark for mark in ";|\t" if len(names) == 1 and mark in names[0]), "")
    hint = f"; if {other!r} separates the fields, write sep={other} as the first line of the file"
    return shown + (hint if other else "")
