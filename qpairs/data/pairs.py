"""The question table and the pair table over it, in memory."""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError

if TYPE_CHECKING:
    import pandas

UNLABELLED = -1
LONGEST_QUESTION = 20_000  # characters
_HALF = re.compile("[\ud800-\udfff]")  # of a character that UTF-16 writes in two: a surrogate on its own


@dataclass(frozen=True)
class Pairs:
    """A question table and a pair table over it.

    Attributes:
        questions: (n_questions,) distinct texts, runs of white space made one space.
        left: (n_pairs,) index of each pair's first question.
        right: (n_pairs,) index of each pair's second question.
        labels: (n_pairs,) 1 duplicate, 0 not, -1 if the source has no labels.
        skipped: reason -> number of rows that were left out.
        taught: (n_pairs,) the probability of being duplicates that a teacher model gives; None without a teacher.
        grades: (n_pairs,) how similar the questions of each pair are, 0 to 1, if the source has graded labels, with NaN
            for pairs without a label; else None. See `with_grades`.

    >>> pairs = qpairs.load_pairs([("How?", "Why?", 0), ("How?", "In what way?", 1)])
    >>> pairs
    Pairs(pairs: 2, questions: 3, duplicates: 50.0%)
    >>> len(pairs), pairs.duplicate_ratio
    (2, 0.5)
    """

    questions: tuple[str, ...]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    labels: NDArray[np.int8]
    skipped: Mapping[str, int] = field(default_factory=dict)
    taught: NDArray[np.float32] | None = None
    grades: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.labels)

    @property
    def duplicate_ratio(self) -> float:
        """Share of the pairs that are labelled duplicates."""
        return float(np.mean(self.labels == 1)) if len(self) else 0.0

    def texts(self, pair: int) -> tuple[str, str]:
        """The two questions of a pair.

        >>> qpairs.load_pairs([("How?", "Why?", 0)]).texts(0)
        ('How?', 'Why?')
        """
        return self.questions[self.left[pair]], self.questions[self.right[pair]]

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        labelled = bool((self.labels != UNLABELLED).any())
        found: dict[str, object] = {"pairs": len(self), "questions": len(self.questions)}
        found["duplicates"] = f"{self.duplicate_ratio:.1%}" if labelled else "not labelled"
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in self.skipped.items())
        return "Pairs", found | ({"rows left out": skipped} if skipped else {})

    __repr__, _repr_html_ = one_line, html_card

    @property
    def table(self) -> pandas.DataFrame:
        """A row for each pair: question1, question2, is_duplicate.

        >>> pairs_from_texts(["How do I pay?"], ["How can I pay?"], [1]).table.values.tolist()
        [['How do I pay?', 'How can I pay?', 1]]
        """
        import pandas

        rows = [self.texts(row) for row in range(len(self))]
        return pandas.DataFrame(rows, columns=["question1", "question2"]).assign(is_duplicate=self.labels)

    def subset(self, rows: NDArray[Any]) -> Pairs:
        """The pairs at `rows` (indices or a mask), with a table of only their questions.

        >>> qpairs.load_pairs([("How?", "Why?", 0), ("How?", "In what way?", 1)]).subset(np.array([1])).questions
        ('How?', 'In what way?')
        """
        named, ends = np.unique(np.concatenate([self.left[rows], self.right[rows]]), return_inverse=True)
        left, right = np.split(ends.astype(np.int64), 2)
        taught, grades = (None if values is None else values[rows] for values in (self.taught, self.grades))
        texts = tuple(self.questions[i] for i in named)
        return Pairs(texts, left, right, self.labels[rows], taught=taught, grades=grades)


def pairs_from_texts(
    first: Sequence[str], second: Sequence[str], labels: Any, skipped: Mapping[str, int] | None = None
) -> Pairs:
    """Pairs from two columns of texts; identical questions become one row of the question table.

    Args:
        first: (n_pairs,) first questions.
        second: (n_pairs,) second questions.
        labels: (n_pairs,) 1 duplicate, 0 not, -1 unknown.
        skipped: reason -> rows that were left out before.

    Raises:
        UserError: a column is one text, the columns differ in length, or a label is none of the three.

    >>> pairs = pairs_from_texts(["How do I pay?", "How do I pay?"], ["How can I pay?", "Where do I pay?"], [1, 0])
    >>> pairs.questions
    ('How do I pay?', 'How can I pay?', 'Where do I pay?')
    >>> pairs.left.tolist(), pairs.right.tolist()
    ([0, 0], [1, 2])
    """
    if isinstance(first, str) or isinstance(second, str):
        raise UserError("pairs: first and second questions are lists of texts, not one text; put it in [...]")
    if not len(first) == len(second) == len(labels):
        raise UserError(f"{len(first)} first questions, {len(second)} second ones and {len(labels)} labels: not pairs")
    if not np.isin(labels, (0, 1, UNLABELLED)).all():
        raise UserError("labels: only 0, 1 and -1 (unknown) are possible")
    index: dict[str, int] = {}
    ends = [
        np.fromiter((index.setdefault(" ".join(t.split()), len(index)) for t in column), np.int64, len(column))
        for column in (first, second)
    ]
    require_unicode(index, "pairs")
    return Pairs(tuple(index), ends[0], ends[1], np.asarray(labels, dtype=np.int8), dict(skipped or {}))


def with_grades(pairs: Pairs, grades: Any, cut: float = 0.5) -> Pairs:
    """Pairs with graded labels: a pair at or above the cut is a duplicate, and some losses can learn the grades.

    Args:
        pairs: any; their labels are replaced.
        grades: (n_pairs,) how similar the questions of each pair are, 0 to 1.
        cut: the lowest grade of a duplicate.

    Raises:
        UserError: a grade is not a number from 0 to 1, or the number of grades is not that of pairs.

    >>> pairs = with_grades(pairs_from_texts(["How?", "Who?"], ["In what way?", "Why?"], [-1, -1]), [0.8, 0.25])
    >>> pairs.labels.tolist(), pairs.grades.tolist()
    ([1, 0], [0.800000011920929, 0.25])
    """
    values = np.asarray(grades, dtype=np.float64)
    if values.shape != (len(pairs),):
        raise UserError(f"grades: one for each of {len(pairs)} pairs is needed, not an array of shape {values.shape}")
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(wrong):
        raise UserError(f"grades: row {wrong[0] + 1} has {values[wrong[0]]:g}, must be from 0 to 1")
    return replace(pairs, labels=(values >= cut).astype(np.int8), grades=values.astype(np.float32))


def join(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of several sources over one question table; if one has grades, labels of the others serve as grades.

    A pair without a label has no grade: NaN.
    """
    skipped: Counter[str] = Counter()
    for part in parts:
        skipped.update(part.skipped)
    joined = pairs_from_texts(
        [part.questions[i] for part in parts for i in part.left],
        [part.questions[i] for part in parts for i in part.right],
        np.concatenate([part.labels for part in parts]) if parts else [],
        skipped,
    )
    if all(part.grades is None for part in parts):
        return joined
    own = [part.labels.astype(np.float32) if part.grades is None else part.grades for part in parts]
    grades = np.where(joined.labels == UNLABELLED, np.float32(np.nan), np.concatenate(own))
    return replace(joined, grades=grades)


def need_both_labels(pairs: Pairs, where: str) -> None:
    """Raises UserError if all pairs have the same label."""
    if len(pairs) and len(set(pairs.labels.tolist())) < 2:
        kind = "duplicates (1)" if pairs.labels[0] == 1 else "non-duplicates (0)"
        ways = "; to train on duplicates alone, name labelled pairs with --validation" if where == "data" else ""
        raise UserError(f"{where}: all {len(pairs)} pairs are {kind}; pairs of both labels are needed{ways}")


def text_fault(text: Any, column: str) -> tuple[str, str] | None:
    """Why a value cannot be a question: the kind of fault, and a sentence; None if it can."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return "empty question", f"column {column!r} has no question"
    if not isinstance(text, str):
        return "not a text", f"column {column!r} holds {reprlib.repr(text)}, which is not a text"
    if len(text) > LONGEST_QUESTION:
        return "too long", f"column {column!r} holds {len(text):,} characters (at most {LONGEST_QUESTION:,})"
    if not _is_unicode(text):
        return "not a text", f"column {column!r} holds {reprlib.repr(text)}, which is not valid Unicode"
    return None


def require_unicode(texts: Iterable[str], what: str) -> None:
    r"""Raises UserError about the first text with half a character, which no tokenizer and no file accepts.

    Args:
        texts: to check.
        what: they are, for the message.

    >>> require_unicode(["How do I pay?", "How \ud800?"], "questions")
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: questions, number 2: 'How \ud800?' is not valid Unicode
    """
    for number, text in enumerate(texts, start=1):
        if not _is_unicode(text):
            raise UserError(f"{what}, number {number}: {reprlib.repr(text)} is not valid Unicode")


def _is_unicode(text: str) -> bool:
    return text.isascii() or not _HALF.search(text)
