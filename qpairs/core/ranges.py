"""Ranges of numbers as data: one object checks a value and words the error message."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """The numbers between two bounds.

    Attributes:
        low: lower bound.
        high: upper bound.
        open_low: whether the lower bound itself is excluded.
        open_high: whether the upper bound itself is excluded.

    Example:
        >>> 1.5 in Range(0, 1, open_high=True)
        False
        >>> Range(0, 1, open_high=True).describe("dropout")
        '0 <= dropout < 1'
        >>> Range(0, open_low=True).describe("temperature")
        '> 0'
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def describe(self, name: str) -> str:
        """The range in mathematical notation, with a name for the number where it has two bounds."""
        low, high = "<" if self.open_low else "<=", "<" if self.open_high else "<="
        if math.isinf(self.high):
            return f"{low.replace('<', '>')} {self.low:g}"
        if math.isinf(self.low):
            return f"{high} {self.high:g}"
        return f"{self.low:g} {low} {name} {high} {self.high:g}"


ABOVE_ZERO = Range(0, open_low=True)
