"""The losses: one function `(sim, Relation) -> scalar` each, one row each in the table `LOSSES`.

To add one, write the function and its row; the parametrised tests, the options and the list of losses follow by
themselves.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from qpairs.faults import UserError, nearest
from qpairs.losses.in_batch import info_nce
from qpairs.losses.pairwise import contrastive, logistic, online_contrastive
from qpairs.relations import SIMILARITIES, Knowledge

__all__ = ["LOSSES", "Entry", "Objective", "Term", "objective"]


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        function: (sim, Relation, **parameters) -> scalar.
        similarity: the similarity that the loss is defined on, a key of `relations.SIMILARITIES`.
        paper: where it was published.
        formula: what it computes, in words.
        in_batch: whether unlabelled pairs of different components count as negatives.
        needs_both: whether it sets duplicates against non-duplicates, and is zero where either are missing; if not,
            each pair counts by itself, and it is zero where there are no pairs at all.
    """

    function: Callable[..., Tensor]
    similarity: Literal["cosine", "euclidean"]
    paper: str
    formula: str
    in_batch: bool = False
    needs_both: bool = False

    @property
    def parameters(self) -> dict[str, float]:
        """The loss's own parameters and their defaults."""
        return {name: p.default for name, p in list(inspect.signature(self.function).parameters.items())[2:]}


LOSSES: dict[str, Entry] = {
    "contrastive": Entry(
        contrastive, "euclidean", "Hadsell, Chopra, LeCun 2006", "d²/2 of duplicates, max(0, margin - d)²/2 of others"
    ),
    "online_contrastive": Entry(
        online_contrastive,
        "cosine",
        "sentence-transformers 2019",
        "d² and max(0, margin - d)² of the hard pairs alone",
        needs_both=True,
    ),
    "logistic": Entry(
        logistic, "cosine", "Zhai et al. 2023", "cross-entropy of the verdict sigmoid(scale (sim - threshold))"
    ),
    "info_nce": Entry(
        info_nce,
        "cosine",
        "van den Oord et al. 2018",
        "cross-entropy of picking the duplicate out among the batch",
        in_batch=True,
        needs_both=True,
    ),
}
POSITIVE = ("scale", "temperature")  # parameters that must be greater than 0


@dataclass(frozen=True)
class Term:
    """One weighted loss of an objective."""

    name: str
    weight: float = 1.0
    parameters: dict[str, float] = field(default_factory=dict)

    @property
    def entry(self) -> Entry:
        """The loss's row in the table."""
        return LOSSES[self.name]


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses, each on the similarity and with the negatives that it is defined on."""

    terms: tuple[Term, ...]

    def __call__(self, rows: Tensor, columns: Tensor, known: Knowledge) -> Tensor:
        """The loss, a scalar in float32.

        Args:
            rows: (n, d) unit embeddings.
            columns: (m, d) unit embeddings.
            known: what the labels say of rows x columns.
        """
        with torch.autocast(rows.device.type, enabled=False):
            rows, columns = rows.float(), columns.float()
            names = sorted({term.entry.similarity for term in self.terms})
            sims = {name: SIMILARITIES[name](rows, columns) for name in names}  # each (n, m)
            losses = [
                t.weight * t.entry.function(sims[t.entry.similarity], known.relation(t.entry.in_batch), **t.parameters)
                for t in self.terms
            ]
            return torch.stack(losses).sum()


def objective(expression: str) -> Objective:
    """The objective that an expression such as `info_nce(temperature=0.05) + 0.5*contrastive` names.

    A sum of losses; weights before or behind a `*`, also of a sum in parentheses; parameters by name.

    Raises:
        UserError: an unknown loss or parameter (with the nearest known one), a weight that is not above 0, a
            parameter that is not a number, or no such expression.
    """
    try:
        return Objective(tuple(_terms(ast.parse(expression.strip(), mode="eval").body)))
    except (SyntaxError, RecursionError, MemoryError):
        example = "info_nce(temperature=0.05) + 0.5*contrastive"
        raise UserError(f"loss: cannot read {expression[:80]!r}; write it like {example!r}") from None


def _terms(node: ast.expr) -> list[Term]:
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _terms(left) + _terms(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            factor, terms = (left, right) if _number(left) is not None else (right, left)
            if (weight := _number(factor)) is None:
                raise SyntaxError
            if weight <= 0:
                raise UserError(f"loss: the weight {weight:g} is not above 0")
            return [Term(t.name, weight * t.weight, t.parameters) for t in _terms(terms)]
        case ast.Name(id=name):
            return [Term(_known(name))]
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords):
            parameters = [_parameter(_known(name), keyword) for keyword in keywords]
            if len(dict(parameters)) == len(parameters):
                return [Term(name, 1.0, dict(parameters))]
    raise SyntaxError


def _known(name: str) -> str:
    if name not in LOSSES:
        raise UserError(f"loss: unknown loss {name!r}; {nearest(name, LOSSES)}")
    return name


def _number(node: ast.expr) -> float | None:
    try:
        value = float(ast.unparse(node))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _parameter(loss: str, keyword: ast.keyword) -> tuple[str, float]:
    known, name, value = LOSSES[loss].parameters, keyword.arg, _number(keyword.value)
    if name is None:
        raise SyntaxError
    if name not in known:
        raise UserError(f"loss: {loss} has no parameter {name!r}; {nearest(name, known)}")
    if value is None:
        raise UserError(f"loss: {loss}({name}=...) takes a number, not {ast.unparse(keyword.value)[:80]!r}")
    if value <= 0 and name in POSITIVE:
        raise UserError(f"loss: {loss}({name}={value:g}) must be above 0")
    return name, value
