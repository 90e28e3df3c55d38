"""What a value from a JSON file must be: shapes as data, which check a value and say where it is wrong.

A JSON file may be cut off, edited by hand or made up. A shape says what each place in it may hold, so that code that
reads the file can rely on it.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Shape = Callable[[Any, str], None]  # a value and its place, such as `verdict.pair.threshold`

LONGEST_NAME = 255  # bytes
LARGEST = 2**63 - 1  # a whole number that arrays hold


class WrongShape(ValueError):
    """A value is not what its place holds; the message says which, and what is expected."""


def _refuse(value: Any, where: str, expected: str) -> None:
    raise WrongShape(f"{where or 'the file'} is {reprlib.repr(value)}, not {expected}")


def anything(value: Any, where: str) -> None:
    """Any JSON value.

    >>> anything({"a": [1]}, "scores")
    """


def flag(value: Any, where: str) -> None:
    """True or false.

    >>> flag(True, "symmetric")
    """
    if not isinstance(value, bool):
        _refuse(value, where, "true or false")


def text(value: Any, where: str) -> None:
    """A text that UTF-8 can hold.

    >>> text("minilm", "model")
    """
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        _refuse(value, where, "a text")


def inside(value: Any, where: str) -> None:
    """The path of a file that lies in the folder of the JSON file.

    >>> inside("shards/000000.parquet", "file")
    """
    text(value, where)
    parts = Path(value).parts
    long = any(len(part.encode()) > LONGEST_NAME for part in parts)
    if not parts or Path(value).is_absolute() or ".." in parts or "\0" in value or long:
        _refuse(value, where, "the path of a file in the folder")


def number(low: float = -math.inf, high: float = math.inf) -> Shape:
    """A finite number in a range.

    >>> number(0, 1)(0.5, "precision")
    """

    def check(value: Any, where: str) -> None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or (isinstance(value, int) and abs(value) > LARGEST) or not math.isfinite(value):
            _refuse(value, where, "a finite number")
        if not low <= value <= high:
            _refuse(value, where, f"in the range {low:g} to {high:g}")

    return check


def whole(low: int = 0, high: int = LARGEST) -> Shape:
    """A whole number in a range.

    >>> whole(1)(384, "dimension")
    """

    def check(value: Any, where: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            _refuse(value, where, f"a whole number{f' of {low} or more' if high == LARGEST else f' {low} to {high}'}")

    return check


def one_of(*values: str) -> Shape:
    """One of some texts.

    >>> one_of("left", "right")("left", "side")
    """

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in values:
            _refuse(value, where, f"one of {', '.join(values)}")

    return check


def optional(shape: Shape) -> Shape:
    """Null, or a shape.

    >>> optional(text)(None, "note")
    """

    def check(value: Any, where: str) -> None:
        if value is not None:
            shape(value, where)

    return check


def each(shape: Shape, *, length: int | None = None, least: int = 0) -> Shape:
    """A list whose items have a shape: exactly `length` items, or at least `least`.

    >>> each(number(), length=2)([0.1, 0.2], "interval")
    """

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            _refuse(value, where, "a list")
        if len(value) < least or (length is not None and len(value) != length):
            _refuse(value, where, f"a list of {length if length is not None else f'at least {least}'}")
        for place, item in enumerate(value):
            shape(item, f"{where}[{place}]")

    return check


def named(shape: Shape, key: Shape = anything) -> Shape:
    """An object whose names and values each have a shape.

    >>> named(whole())({"empty": 3}, "skipped")
    """

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            _refuse(value, where, "an object")
        for name, item in value.items():
            key(name, f"a name in {where or 'the file'}")
            shape(item, _inside(where, name))

    return check


def record(required: Mapping[str, Shape], maybe: Mapping[str, Shape] | None = None, *, others: bool = False) -> Shape:
    """An object with given names.

    Args:
        required: the names it must have, with the shapes of their values.
        maybe: those that it may have.
        others: whether it may have further names.

    >>> record({"n": whole()}, {"note": text})({"n": 3}, "reference")
    """
    known = {**required, **(maybe or {})}

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            _refuse(value, where, "an object")
        for name in required:
            if name not in value:
                raise WrongShape(f"{_inside(where, name)} is missing")
        for name, item in value.items():
            if name in known:
                known[name](item, _inside(where, name))
            elif not others:
                raise WrongShape(f"{_inside(where, name)} is not known")

    return check


def _inside(where: str, name: str) -> str:
    shown = name if name.isidentifier() else reprlib.repr(name)
    return f"{where}.{shown}" if where else shown
