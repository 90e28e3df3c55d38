"""Reading `name(parameter=number, ...)`: how a row of a table of functions is named in options and files."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, TypeVar

from qpairs.core.exceptions import UserError, nearest

T = TypeVar("T")


class Entry(Protocol):
    """A row of a table."""

    @property
    def parameters(self) -> Mapping[str, float]:
        """The row's own parameters and their defaults; one whose default is an int takes whole numbers alone."""


def defaults(function: Callable[..., Any]) -> dict[str, float]:
    """The parameters of a function that have a default, and these defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def read(expression: str, what: str, example: str, build: Callable[[ast.expr], T]) -> T:
    """What `build` makes of an expression, which is parsed and never evaluated.

    Args:
        expression: what the user wrote.
        what: what it should name, such as `loss`: the first word of every error.
        example: how it should look.
        build: (node) -> result; raises SyntaxError where the expression has another form.

    Raises:
        UserError: no such expression.
    """
    try:
        return build(ast.parse(expression.strip(), mode="eval").body)
    except UserError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: a zero byte, before Python 3.11.4
        raise UserError(f"{what}: cannot read {expression[:80]!r}; write it like {example!r}") from None


def call(
    node: ast.expr, what: str, table: Mapping[str, Entry], positive: Collection[str] = ()
) -> tuple[str, dict[str, float]]:
    """The name and the parameters that `name` or `name(parameter=number, ...)` gives.

    Args:
        node: the parsed expression.
        what: what a row of the table is, such as `loss`.
        table: the rows by name.
        positive: parameters that must be above 0.

    Raises:
        SyntaxError: an expression of another form.
        UserError: an unknown name or parameter (with the nearest known one), or a number that a parameter doesn't take.
    """
    match node:
        case ast.Name(id=name):
            keywords: list[ast.keyword] = []
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords):
            pass
        case _:
            raise SyntaxError
    if name not in table:
        raise UserError(f"{what}: unknown {what} {name!r}; {nearest(name, table)}")
    known = table[name].parameters
    parameters = [_parameter(keyword, f"{what}: {name}", known, positive) for keyword in keywords]
    if len(dict(parameters)) < len(parameters):
        raise SyntaxError
    return name, dict(parameters)


def number(node: ast.expr) -> float | None:
    """The finite number that an expression is, with its sign; None if it is none."""
    try:
        value = float(ast.unparse(node))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _parameter(
    keyword: ast.keyword, owner: str, known: Mapping[str, float], positive: Collection[str]
) -> tuple[str, float]:
    name, value = keyword.arg, number(keyword.value)
    if name is None:
        raise SyntaxError
    if name not in known:
        raise UserError(f"{owner} has no parameter {name!r}; {nearest(name, known) if known else 'there are none'}")
    whole = isinstance(known[name], int)
    if value is None or (whole and (value < 0 or not value.is_integer())):
        kind = "a whole number from 0 on" if whole else "a number"
        raise UserError(f"{owner}({name}=...) takes {kind}, not {ast.unparse(keyword.value)[:80]!r}")
    if value <= 0 and name in positive:
        raise UserError(f"{owner}({name}={value:g}) must be above 0")
    return name, int(value) if whole else value
