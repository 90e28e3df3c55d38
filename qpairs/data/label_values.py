"""What the values of a label column mean: 0 and 1, yes and no, what the user names, or graded scores with a cut."""

from __future__ import annotations

import functools
import logging
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs.core.label_options import finite_number, label_meanings, score_range

log = logging.getLogger(__name__)

LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
PLAIN = (
    ("yes", "no"),
    ("y", "n"),
    ("t", "f"),
    ("same", "different"),
    ("duplicate", "not duplicate"),
    ("duplicate", "not_duplicate"),
    ("duplicate", "non-duplicate"),
    ("duplicate", "different"),
    ("equivalent", "not_equivalent"),
)  # values for duplicate and not, in lower case, that are understood without being named
WAYS_OUT = (
    "give the meaning of values with --labels, such as --labels match=1,other=0, or a cut for graded scores, such as "
    "--label-cut 4"
)


@dataclass(frozen=True)
class LabelValues:
    """How a label column is read.

    Attributes:
        named: value, in lower case, -> 0 or 1, besides 0 and 1 themselves.
        cut: lowest score of a duplicate, if the column holds scores; None: it holds labels.
        range: the lowest and the highest possible score; None: those of the data.
    """

    named: Mapping[str, int] = field(default_factory=dict)
    cut: float | None = None
    range: tuple[float, float] | None = None

    def read(self, value: Any) -> int | None:
        """1 duplicate, 0 not; None if the value is neither.

        >>> label_values("yes=1,-1=0").read("Yes"), label_values("yes=1,-1=0").read(-1.0), label_values().read("maybe")
        (1, 0, None)
        >>> label_values(cut=4).read("4.2"), label_values(cut=4).read(3), label_values(cut=4).read("")
        (1, 0, None)
        """
        if self.cut is None:
            key = _key(value)
            return self.named.get(key, LABELS.get(key))
        score = self.score(value)
        return None if score is None else int(score >= self.cut)

    def score(self, value: Any) -> float | None:
        """The graded score of a value; None if it is not a finite number, or outside the range.

        >>> label_values(cut=4, range="0,5").score("4.2"), label_values(cut=4, range="0,5").score(6)
        (4.2, None)
        """
        score = finite_number(_key(value))
        low, high = self.range or (-math.inf, math.inf)
        return score if score is not None and low <= score <= high else None

    def grades(self, scores: ArrayLike) -> NDArray[np.float32] | None:
        """Scores as grades from 0 to 1, linear from the lowest to the highest of the range.

        Args:
            scores: (n_pairs,) as `score` reads them.

        Returns:
            (n_pairs,) grades; None if there is no range because all scores are equal.

        >>> label_values(cut=4, range="0,5").grades([1.0, 4.0]).tolist()
        [0.20000000298023224, 0.800000011920929]
        >>> label_values(cut=4).grades([1.0, 2.0, 5.0]).tolist()
        [0.0, 0.25, 1.0]
        """
        values = np.asarray(scores, dtype=np.float64)
        low, high = self.range or (float(values.min(initial=math.inf)), float(values.max(initial=-math.inf)))
        halves = values / 2 - low / 2  # the difference of two finite scores may be infinite
        return (halves / (high / 2 - low / 2)).astype(np.float32) if low < high else None

    def completed(self, column: Iterable[Any], name: str) -> LabelValues:
        """Adds the meaning of the values if they are one pair of `PLAIN` and the user has not named them.

        If there are other values, both of a pair must occur.

        Args:
            column: all values.
            name: of the column and its source, for the log.

        >>> label_values().completed(["Yes", "no", ""], "a.csv, column 'label'").named
        {'yes': 1, 'no': 0}
        >>> label_values().completed(["yes", "0", "1"], "a.csv, column 'label'").named
        {}
        """
        if self.named or self.cut is not None:
            return self
        found = set[str]()
        for key in map(_key, column):
            if key in LABELS:  # as in the first row of most files, so that no other is read
                return self
            found.add(key)
        found.discard("")
        for pair in PLAIN if found else ():
            if found <= {*pair} or found >= {*pair}:
                _tell(name, pair)
                return replace(self, named=dict(zip(pair, (1, 0), strict=True)))
        return self

    def fault(self, value: Any, column: str) -> str:
        """What is wrong with a value that is neither, in a sentence."""
        shown = f"label {reprlib.repr(value)} in column {column!r}"
        if self.cut is not None:
            if self.range and finite_number(_key(value)) is not None:
                return f"{shown} is outside --label-range {self.range[0]:g},{self.range[1]:g}"
            return f"{shown} is not a finite number, so it cannot be compared with --label-cut"
        more = f", nor {' or '.join(self.named)}" if self.named else ""
        return f"{shown} is neither 0 nor 1{more}; {WAYS_OUT}"


@functools.cache
def _tell(name: str, pair: tuple[str, str]) -> None:
    """Logs how a column is read, once per process, which may read it several times."""
    log.warning("%s: %r is read as duplicate, %r as not", name, *pair)


def label_values(
    labels: str | Sequence[str] | Mapping[Any, int] = (),
    cut: float | None = None,
    range: str | Sequence[float] = (),
) -> LabelValues:
    """How a label column is read, from the options of the user.

    Args:
        labels: what values mean: `yes=1,no=0`, a list of such parts, or a mapping from values to 0 and 1.
        cut: lowest score of a duplicate.
        range: the lowest and the highest possible score, `0,5` or (0, 5); without it, those of the data.

    Raises:
        UserError: a part is not of this form, there are both labels and a cut, or the cut is not in the range.

    >>> label_values({"yes": 1, "no": 0}).named
    {'yes': 1, 'no': 0}
    """
    meanings, ends = label_meanings(labels, cut), score_range(range, cut)
    return LabelValues({_key(value): label for value, label in meanings}, cut, ends)


def _key(value: Any) -> str:
    """A value as a text in lower case; a whole number without a point, however it is written."""
    if value is None or value != value:
        return ""
    text = str(value).strip().lower()
    number = finite_number(text)
    return str(int(number)) if number is not None and number.is_integer() and abs(number) < 1e15 else text
