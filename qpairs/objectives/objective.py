"""Objectives: weighted sums of losses, each on the similarity and with the negatives that it is defined on."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from qpairs.core.exceptions import UserError
from qpairs.objectives import expressions
from qpairs.objectives.losses import LOSSES, Entry
from qpairs.objectives.losses.pairwise import marked_columns
from qpairs.objectives.miners import Miner
from qpairs.objectives.prototypes import Prototypes
from qpairs.objectives.relations import SIMILARITIES, Knowledge, PairHead, Relation, rows_of

DENSE = 16  # a matrix of similarities costs about as much as a sixteenth of its pairs one by one
POSITIVE = ("scale", "temperature", "alpha", "beta")  # parameters that must be greater than 0


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

    @property
    def loss_parameters(self) -> dict[str, float]:
        """The parameters that the loss itself takes, without those of its prototypes."""
        return {name: value for name, value in self.parameters.items() if name not in self.entry.prototype_parameters}

    def prototypes(self, n_components: int, dimension: int) -> Prototypes:
        """Prototypes of the loss, not met yet; their steps do not depend on the loss's weight and scale."""
        given = {**self.entry.parameters, **self.parameters}
        return Prototypes(
            n_components,
            dimension,
            alpha=given["alpha"],
            sampled=int(given.get("sampled", 0)),
            by_gradient=bool(given.get("by_gradient", 1)),
            step=1 / (self.weight * given.get("scale", 1.0)),
        )


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses, each on the similarity and with the negatives that it is defined on.

    Attributes:
        terms: the losses.
        miner: which of the pairs, or triplets, of a batch they see; None: all.
    """

    terms: tuple[Term, ...]
    miner: Miner | None = None

    @property
    def learns_from_a_teacher(self) -> bool:
        """Whether a teacher's probabilities make a difference."""
        return any(term.entry.soft for term in self.terms)

    @property
    def has_head(self) -> bool:
        """Whether a classifier of pairs is trained."""
        return any(term.entry.similarity == "head" for term in self.terms)

    def learned(self, n_components: int, dimension: int) -> nn.ModuleDict:
        """What the losses learn besides the encoder: prototypes and heads, keyed by the place of their term.

        Args:
            n_components: duplicate components of the training questions.
            dimension: of the embeddings.
        """
        made: dict[str, nn.Module] = {}
        for place, term in enumerate(self.terms):
            if term.entry.prototypes:
                made[str(place)] = term.prototypes(n_components, dimension)
            elif term.entry.similarity == "head":
                made[str(place)] = PairHead(dimension)
        return nn.ModuleDict(made)

    def __call__(
        self,
        rows: Tensor,
        columns: Tensor,
        known: Knowledge,
        members: tuple[Tensor, Tensor] | None = None,
        learned: nn.ModuleDict | None = None,
    ) -> Tensor:
        """The loss, a scalar in float32.

        Args:
            rows: (n, d) unit embeddings.
            columns: (m, d) unit embeddings.
            known: what the labels say of rows x columns.
            members: embeddings (k, d) of the batch and their duplicate components (k,), for losses with prototypes.
            learned: from `learned`; may be left out where no loss learns anything.
        """
        with torch.autocast(rows.device.type, enabled=False):
            modules = dict(learned.items()) if learned is not None else {}
            if members is not None:
                members = members[0].float(), members[1]
            batch = _Batch(rows.float(), columns.float(), known, members)
            values = [
                term.weight * _value(term, batch, self.miner, modules.get(str(place)))
                for place, term in enumerate(self.terms)
            ]
            return torch.stack(values).sum()


@dataclass(frozen=True)
class _Batch:
    rows: Tensor  # (n, d)
    columns: Tensor  # (m, d)
    known: Knowledge
    members: tuple[Tensor, Tensor] | None  # (k, d), (k,)
    sims: dict[str, Tensor] = field(default_factory=dict)  # (n, m) each, computed when a loss asks for it

    def sim(self, name: str) -> Tensor:
        if name not in self.sims:
            self.sims[name] = SIMILARITIES[name](self.rows, self.columns)
        return self.sims[name]


def _value(term: Term, batch: _Batch, miner: Miner | None, learned: nn.Module | None) -> Tensor:
    sim, relation = (
        _prototype_view(term, batch, miner, learned)
        if term.entry.prototypes
        else _question_view(term, batch, miner, learned)
    )
    return term.entry.function(sim, relation, **term.loss_parameters) if sim.numel() else batch.rows.sum() * 0


def _question_view(term: Term, batch: _Batch, miner: Miner | None, head: nn.Module | None) -> tuple[Tensor, Relation]:
    """What a loss over questions sees: similarities (r, m) or (pairs, 1), and their relation."""
    entry = term.entry
    relation = batch.known.taught_relation(entry.in_batch) if entry.soft else batch.known.relation(entry.in_batch)
    taught = relation.taught
    if miner:
        relation = miner(batch.sim("cosine" if entry.similarity == "head" else entry.similarity), relation)
        relation = replace(relation, taught=taught if taught is None else rows_of(taught, relation))
    places = None if miner or entry.in_batch or taught is not None else batch.known.places
    if entry.by_pair and (head is not None or _is_sparse(relation, places)):
        return _pairs_alone(batch, relation, places, head or SIMILARITIES[entry.similarity])
    if entry.by_row and miner and _is_sparse(relation):
        return _marked_alone(batch, relation, SIMILARITIES[entry.similarity])
    return rows_of(batch.sim(entry.similarity), relation), relation


def _prototype_view(
    term: Term, batch: _Batch, miner: Miner | None, prototypes: nn.Module | None
) -> tuple[Tensor, Relation]:
    """What a loss over prototypes sees: similarities (r, k) of embeddings to prototypes, and their relation."""
    if batch.members is None or prototypes is None or not prototypes.training:
        none = torch.empty(0, 0)  # in evaluation: other questions have other components, and no prototypes
        return none, Relation(none.bool(), none.bool())
    embeddings, component = batch.members  # (k, d), (k,)
    columns, relation = prototypes(embeddings, component)  # (c, d)
    if term.entry.similarity == "cosine":
        columns = functional.normalize(columns, dim=1)
    sim = SIMILARITIES[term.entry.similarity](embeddings, columns)  # (k, c)
    relation = miner(sim, relation) if miner else relation
    return rows_of(sim, relation), relation


def _is_sparse(relation: Relation, places: Tensor | None = None) -> bool:
    """Whether so few pairs are known that they cost less one by one than the whole matrix does."""
    if places is None:
        known = int(relation.positive.count_nonzero() + relation.negative.count_nonzero())
    else:
        known = len(places)
    return known * DENSE < relation.positive.numel()


def _pairs_alone(
    batch: _Batch, relation: Relation, places: Tensor | None, similarity: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Relation]:
    """The pairs of a relation as a column: their similarity (pairs, 1), and the relation of the same shape."""
    if places is None:
        places = (relation.positive | relation.negative).nonzero()  # (pairs, 2)
    i, j = places.unbind(1)
    positive = relation.positive[i, j][:, None]
    taught = relation.taught if relation.taught is None else relation.taught[i, j][:, None]
    row = i if relation.rows is None else relation.rows[i]
    first, second = batch.rows.index_select(0, row), batch.columns.index_select(0, j)  # (pairs, d) each
    sim = similarity(first[:, None], second[:, None])[:, :, 0]  # (pairs, 1)
    return sim, Relation(positive, ~positive, taught=taught)


def _marked_alone(
    batch: _Batch, relation: Relation, similarity: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Relation]:
    """The columns that each row of a relation marks, side by side: similarities (r, k), and their relation."""
    columns, there = marked_columns(relation.positive | relation.negative)  # (r, k)
    rows = batch.rows if relation.rows is None else batch.rows.index_select(0, relation.rows)  # (r, d)
    others = functional.embedding(columns, batch.columns)  # (r, k, d)
    sim = similarity(rows[:, None], others)[:, 0]  # (r, k)
    positive, negative = (mask.gather(1, columns) & there for mask in (relation.positive, relation.negative))
    return sim, Relation(positive, negative)


def objective(expression: str) -> Objective:
    """The objective that an expression such as `info_nce(temperature=0.05) + 0.5*contrastive` names.

    A sum of losses; weights before or behind a `*`, also of a sum in parentheses; parameters by name.

    Raises:
        UserError: an unknown loss or parameter (with the nearest known one), a weight that is not above 0, a
            number that a parameter doesn't take, or no such expression.
    """
    return Objective(expressions.read(expression, "loss", "info_nce(temperature=0.05) + 0.5*contrastive", _terms))


def _terms(node: ast.expr) -> tuple[Term, ...]:
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _terms(left) + _terms(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            factor, terms = (left, right) if expressions.number(left) is not None else (right, left)
            if (weight := expressions.number(factor)) is None:
                raise SyntaxError
            if weight <= 0:
                raise UserError(f"loss: the weight {weight:g} is not above 0")
            return tuple(Term(t.name, weight * t.weight, t.parameters) for t in _terms(terms))
    name, parameters = expressions.call(node, "loss", LOSSES, POSITIVE)
    term, one = Term(name, 1.0, parameters), torch.eye(2)
    try:
        term.entry.function(one, Relation(one > 0, one == 0), **term.loss_parameters)
    except ValueError as error:
        raise UserError(f"loss: {error}") from None
    return (term,)
