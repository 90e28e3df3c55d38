"""Ranges of numbers as data: one object checks a value and words the error message."""

from __future__ import annotations

import operator
from dataclasses import dataclass

FULFILS = {">=": operator.ge, ">": operator.gt, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True)
class Range:
    """The numbers that an option or a parameter allows; a bound of None means no bound.

    >>> Range(at_least=0, below=1).text("dropout")
    '0 <= dropout < 1'
    >>> Range(above=0).allows(0)
    False
    """

    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    at_most: float | None = None

    def allows(self, value: float) -> bool:
        """Whether a number is in the range."""
        return all(FULFILS[sign](value, bound) for sign, bound in self._bounds())

    def text(self, name: str = "x") -> str:
        """The range as an inequality."""
        bounds = self._bounds()
        if len(bounds) == 1:
            return f"{name} {bounds[0][0]} {bounds[0][1]}"
        (low_sign, low), (high_sign, high) = bounds
        return f"{low} {low_sign.replace('>', '<')} {name} {high_sign} {high}"

    def _bounds(self) -> list[tuple[str, float]]:
        bounds = zip(FULFILS, (self.at_least, self.above, self.below, self.at_most), strict=True)
        return [(sign, bound) for sign, bound in bounds if bound is not None]
