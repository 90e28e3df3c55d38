"""What the values of a label column mean: 0 and 1, values that the user names, or graded scores with a cut."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qpairs.core.exceptions import UserError

LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
WAYS_OUT = (
    "say what values mean with --labels, such as --labels yes=1,no=0, or cut graded scores, such as --label-cut 4"
)


@dataclass(frozen=True)
class LabelValues:
    """How a label column is read.

    Attributes:
        named: value, in lower case, -> 0 or 1, besides 0 and 1 themselves.
        cut: score from which on a pair is a duplicate, where the column holds scores; None: it holds labels.
    """

    named: Mapping[str, int] = field(default_factory=dict)
    cut: float | None = None

    def read(self, value: Any) -> int | None:
        """1 duplicate, 0 not; None where the value says neither.

        >>> label_values("yes=1,-1=0").read("Yes"), label_values("yes=1,-1=0").read(-1.0), label_values().read("maybe")
        (1, 0, None)
        >>> label_values(cut=4).read("4.2"), label_values(cut=4).read(3), label_values(cut=4).read("")
        (1, 0, None)
        """
        key = _key(value)
        if self.cut is None:
            return self.named.get(key, LABELS.get(key))
        score = _number(key)
        return None if score is None else int(score >= self.cut)

    def fault(self, value: Any, column: str) -> str:
        """What is wrong with a value that says neither, in a sentence."""
        shown = f"label {reprlib.repr(value)} in column {column!r}"
        if self.cut is not None:
            return f"{shown} is no finite number, which --label-cut compares with"
        more = f", nor {' or '.join(self.named)}" if self.named else f"; {WAYS_OUT}"
        return f"{shown} is neither 0 nor 1{more}"


def label_values(labels: str | Sequence[str] | Mapping[Any, int] = (), cut: float | None = None) -> LabelValues:
    """How a label column is read, from the options of the user.

    Args:
        labels: what values mean: `yes=1,no=0`, a list of such parts, or a mapping from values to 0 and 1.
        cut: score from which on a pair is a duplicate.

    Raises:
        UserError: a part is not of this form, or there are both labels and a cut.

    >>> label_values({"yes": 1, "no": 0}).named
    {'yes': 1, 'no': 0}
    """
    if labels and cut is not None:
        raise UserError("label_cut: is for graded scores, and labels name values; give one of them")
    if cut is not None and not math.isfinite(cut):
        raise UserError(f"label_cut: {cut!r}, must be a finite number")
    if isinstance(labels, Mapping):
        parts = [(str(value), str(label)) for value, label in labels.items()]
    else:
        texts = labels.split(",") if isinstance(labels, str) and labels else list(labels)
        parts = [(value, label) for value, _, label in (text.rpartition("=") for text in texts)]
    for value, label in parts:
        if not value.strip() or label.strip() not in ("0", "1"):
            raise UserError(f"labels: {f'{value}={label}'!r}, must be VALUE=0 or VALUE=1, such as yes=1,no=0")
    return LabelValues({_key(value): int(label) for value, label in parts}, cut)


def _key(value: Any) -> str:
    """A value as a text in lower case; a whole number without a point, however it is written."""
    if value is None or value != value:
        return ""
    text = str(value).strip().lower()
    number = _number(text)
    return str(int(number)) if number is not None and number.is_integer() and abs(number) < 1e15 else text


def _number(text: str) -> float | None:
    """A finite number; None where the text is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
