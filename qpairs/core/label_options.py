"""The rules of the options that say how a label column is read: labels, label_cut and label_range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from qpairs.core.exceptions import UserError


def label_meanings(labels: str | Sequence[str] | Mapping[Any, int], cut: float | None) -> list[tuple[str, int]]:
    """What values of a label column mean: each value, and 0 or 1.

    Args:
        labels: `yes=1,no=0`, a list of such parts, or a mapping from values to 0 and 1.
        cut: lowest score of a duplicate; None if the column holds labels.

    Raises:
        UserError: a part is not of this form, there are both labels and a cut, or the cut is not finite.

    >>> label_meanings("yes=1,no=0", None)
    [('yes', 1), ('no', 0)]
    """
    if labels and cut is not None:
        raise UserError("label_cut: is for graded scores, and labels is for named values; give only one of them")
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
    return [(value, int(label)) for value, label in parts]


def score_range(range: str | Sequence[float], cut: float | None) -> tuple[float, float] | None:
    """The lowest and the highest score, from the user's option; None if it is not given.

    Raises:
        UserError: it is not a range, the cut is outside it, or there is no cut.

    >>> score_range("0,5", 4), score_range((), 4)
    ((0.0, 5.0), None)
    """
    given = [part for part in range.split(",") if part.strip()] if isinstance(range, str) else list(range)
    if not given:
        return None
    ends = [finite_number(str(part)) for part in given]
    low, high = ends if len(ends) == 2 else (None, None)
    if low is None or high is None or low >= high:
        raise UserError(
            f"label_range: {','.join(map(str, given))!r}, must be the lowest and the highest score, such as 0,5"
        )
    if cut is None:
        raise UserError("label_range: is for graded scores; give label_cut, the lowest score of a duplicate")
    if not low < cut <= high:
        raise UserError(f"label_range: the cut {cut:g} is not above {low:g} and at most {high:g}")
    return low, high


def finite_number(text: str) -> float | None:
    """A finite number; None if the text is not one.

    >>> finite_number("1e3"), finite_number("inf"), finite_number("high")
    (1000.0, None, None)
    """
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
