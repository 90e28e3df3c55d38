"""Expressions such as `info_nce(temperature=0.05)`: how options and files name a row of a table of functions.

An expression is parsed, never evaluated. Names and ranges of the parameters are data of the table's rows.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from qpairs.core.exceptions import UserError, nearest
from qpairs.core.ranges import Range

T = TypeVar("T")
Function = Callable[..., Any]  # a loss or miner of the user's own
FUNCTION = "function "  # starts the name, in a config, of a loss or miner that is a function and no expression


class Row(Protocol):
    """A row of a table."""

    @property
    def parameters(self) -> Mapping[str, float]:
        """The row's parameters and their defaults. An int takes only whole numbers of at least 0."""

    @property
    def ranges(self) -> Mapping[str, Range]:
        """The range of each parameter that has one; the others take any number."""


def defaults(function: Callable[..., Any]) -> dict[str, float]:
    """The parameters of a function that have a default, and these defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def parse(expression: str, what: str, example: str, build: Callable[[ast.expr], T]) -> T:
    """The result of `build` on the syntax tree of an expression.

    Args:
        expression: what the user wrote.
        what: what it should name, such as `loss`: the first word of every error.
        example: a valid expression, for the error message.
        build: (node) -> result; raises SyntaxError where the expression has another form.

    Raises:
        UserError: no valid expression.
    """
    if expression.startswith(FUNCTION):
        raise UserError(
            f"{what}: {expression[:80]!r} is a Python function; pass the function itself, also to resume: "
            f"qpairs.train({what}=...)"
        )
    try:
        return build(ast.parse(expression.strip(), mode="eval").body)
    except UserError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: a zero byte, before Python 3.11.4
        raise UserError(f"{what}: cannot read {expression[:80]!r}; write it like {example!r}") from None


def parse_call(node: ast.expr, what: str, table: Mapping[str, Row]) -> tuple[str, dict[str, float]]:
    """The name and the parameters of a call `name` or `name(parameter=number, ...)`.

    Args:
        node: the parsed expression.
        what: what a row of the table is, such as `loss`.
        table: the rows by name.

    Raises:
        SyntaxError: an expression of another form.
        UserError: an unknown name or parameter (with the nearest known one), no number, or a number out of range.
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
    parameters = [_parse_parameter(keyword, f"{what}: {name}", table[name]) for keyword in keywords]
    if len(dict(parameters)) < len(parameters):
        raise SyntaxError
    return name, dict(parameters)


def parse_number(node: ast.expr) -> float | None:
    """The finite number, with its sign, that an expression is; None if it is none."""
    try:
        value = float(ast.unparse(node))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _parse_parameter(keyword: ast.keyword, owner: str, row: Row) -> tuple[str, float]:
    name, value, known = keyword.arg, parse_number(keyword.value), row.parameters
    if name is None:
        raise SyntaxError
    if name not in known:
        raise UserError(f"{owner} has no parameter {name!r}; {nearest(name, known) if known else 'there are none'}")
    whole = isinstance(known[name], int)
    if value is None or (whole and (value < 0 or not value.is_integer())):
        kind = "a whole number of at least 0" if whole else "a number"
        raise UserError(f"{owner}({name}=...) takes {kind}, not {ast.unparse(keyword.value)[:80]!r}")
    if name in row.ranges and not row.ranges[name].allows(value):
        raise UserError(f"{owner}: {name}: {value:g}, must be {row.ranges[name].text(name).removeprefix(f'{name} ')}")
    return name, int(value) if whole else value
