"""Objectives: weighted sums of losses, each on the similarity and with the negatives that it is defined on."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from qpairs.core.exceptions import UserError
from qpairs.objectives import expressions
from qpairs.objectives.labels import BatchLabels
from qpairs.objectives.losses import LOSSES, LossEntry
from qpairs.objectives.losses.masks import marked_columns
from qpairs.objectives.miners import Miner
from qpairs.objectives.pair_head import PairHead
from qpairs.objectives.prototypes import Prototypes
from qpairs.objectives.relations import Relation, select_rows
from qpairs.objectives.similarities import SIMILARITIES

DENSE = 16  # a whole matrix of similarities costs about as much as a sixteenth of its pairs, computed one by one


@dataclass(frozen=True)
class Term:
    """One weighted loss of an objective.

    Attributes:
        name: in the table of losses, or the name of a user's function.
        weight: factor of the loss.
        parameters: those that differ from the defaults.
        custom: the loss of a user's function; None for a loss of the table.
    """

    name: str
    weight: float = 1.0
    parameters: Mapping[str, float] = field(default_factory=dict)
    custom: LossEntry | None = None

    @property
    def entry(self) -> LossEntry:
        """The loss's row in the table."""
        return self.custom or LOSSES[self.name]

    def __call__(self, sim: Tensor, relation: Relation) -> Tensor:
        """The weighted loss of similarities (n, m) and their relation.

        Raises:
            UserError: the result is no scalar.
        """
        of_prototypes = self.entry.prototype_parameters
        own = {name: value for name, value in self.parameters.items() if name not in of_prototypes}
        value = self.entry(sim, relation, **own)
        if not isinstance(value, Tensor) or value.ndim:
            found = f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:80]
            raise UserError(f"loss: {self.name} must return a scalar tensor, not {found}")
        return self.weight * value

    def prototypes(self, n_components: int, dimension: int) -> Prototypes:
        """Untrained prototypes of the loss; their steps do not depend on the loss's weight and scale."""
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
        miner: selects the pairs, or triplets, of a batch that the losses learn from; None: all.
    """

    terms: tuple[Term, ...]
    miner: Miner | None = None

    @property
    def learns_from_a_teacher(self) -> bool:
        """Whether a teacher's probabilities make a difference."""
        return any(term.entry.soft_labels for term in self.terms)

    @property
    def learns_without_labels(self) -> bool:
        """Whether a loss has negatives where no pair is labelled 0: those of the batch, or prototypes."""
        entries = [term.entry for term in self.terms if not term.entry.positives_only]
        return any(entry.in_batch or entry.prototypes for entry in entries)

    @property
    def has_head(self) -> bool:
        """Whether a classifier of pairs is trained."""
        return any(term.entry.similarity == "head" for term in self.terms)

    def learned_modules(self, n_components: int, dimension: int) -> nn.ModuleDict:
        """What the losses learn besides the encoder: prototypes and heads, keyed by the index of their term.

        Args:
            n_components: duplicate components of the training questions.
            dimension: of the embeddings.
        """
        modules: dict[str, nn.Module] = {}
        for index, term in enumerate(self.terms):
            if term.entry.prototypes:
                modules[str(index)] = term.prototypes(n_components, dimension)
            elif term.entry.similarity == "head":
                modules[str(index)] = PairHead(dimension)
        return nn.ModuleDict(modules)

    def __call__(
        self,
        rows: Tensor,
        columns: Tensor,
        labels: BatchLabels,
        members: tuple[Tensor, Tensor] | None = None,
        learned: nn.ModuleDict | None = None,
    ) -> Tensor:
        """The loss, a scalar in float32.

        Args:
            rows: (n, d) unit embeddings.
            columns: (m, d) unit embeddings.
            labels: of rows x columns.
            members: embeddings (k, d) of the batch and their duplicate components (k,), for losses with prototypes.
            learned: from `learned_modules`; may be left out where no loss learns anything.

        Raises:
            UserError: a user's loss or miner gives something else than a scalar or a relation.

        Example:
            Questions 0 and 1 are duplicates, 2 is another question.

            >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, -0.8]])
            >>> positive, unrelated = torch.zeros(2, 3, 3).bool()
            >>> positive[0, 1] = positive[1, 0] = True
            >>> unrelated[:2, 2] = unrelated[2, :2] = True
            >>> labels = BatchLabels(positive, labelled=torch.zeros(3, 3).bool(), unrelated=unrelated)
            >>> parse_objective("info_nce(temperature=0.5) + 0.1*triplet")(embeddings, embeddings, labels)
            tensor(0.3485)
        """
        with torch.autocast(rows.device.type, enabled=False):
            modules = dict(learned.items()) if learned is not None else {}
            if members is not None:
                members = members[0].float(), members[1]
            batch = _Batch(rows.float(), columns.float(), labels, members)
            values = [_value(term, batch, self.miner, modules.get(str(index))) for index, term in enumerate(self.terms)]
            return torch.stack(values).sum()


@dataclass(frozen=True)
class _Batch:
    rows: Tensor  # (n, d)
    columns: Tensor  # (m, d)
    labels: BatchLabels
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
    return term(sim, relation) if sim.numel() else batch.rows.sum() * 0


def _question_view(term: Term, batch: _Batch, miner: Miner | None, head: nn.Module | None) -> tuple[Tensor, Relation]:
    """The input of a loss over questions: similarities (r, m) or (pairs, 1), and their relation with `rows` cleared."""
    entry = term.entry
    relation = batch.labels.relation(entry.in_batch, entry.soft_labels, entry.only_unlabelled)
    probability = relation.teacher_probability
    if miner:
        relation = miner(batch.sim("cosine" if entry.similarity == "head" else entry.similarity), relation)
        if probability is not None:
            selected = probability if relation.rows is None else probability[relation.rows]
            relation = replace(relation, teacher_probability=selected)
    known_pairs = None if miner or entry.in_batch or probability is not None else batch.labels.known_pairs
    if entry.by_pair and (head is not None or _is_sparse(relation, known_pairs)):
        return _known_pairs(batch, relation, known_pairs, head or SIMILARITIES[entry.similarity])
    if entry.by_row and miner and _is_sparse(relation):
        return _marked_columns(batch, relation, SIMILARITIES[entry.similarity])
    return select_rows(batch.sim(entry.similarity), relation)


def _prototype_view(
    term: Term, batch: _Batch, miner: Miner | None, prototypes: nn.Module | None
) -> tuple[Tensor, Relation]:
    """The input of a loss over prototypes: similarities (r, c) of embeddings to prototypes, and their relation."""
    if batch.members is None or prototypes is None or not prototypes.training:
        empty = torch.empty(0, 0)  # in evaluation: other questions have other components, and no prototypes
        return empty, Relation(empty.bool(), empty.bool())
    embeddings, component = batch.members  # (k, d), (k,)
    columns, relation = prototypes(embeddings, component)  # (c, d)
    if term.entry.similarity == "cosine":
        columns = functional.normalize(columns, dim=1)
    sim = SIMILARITIES[term.entry.similarity](embeddings, columns)  # (k, c)
    return select_rows(sim, miner(sim, relation) if miner else relation)


def _is_sparse(relation: Relation, known_pairs: Tensor | None = None) -> bool:
    """Whether so few pairs are known that they cost less one by one than the whole matrix does."""
    if known_pairs is None:
        known = int(relation.positive.count_nonzero() + relation.negative.count_nonzero())
    else:
        known = len(known_pairs)
    return known * DENSE < relation.positive.numel()


def _known_pairs(
    batch: _Batch, relation: Relation, known_pairs: Tensor | None, similarity: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Relation]:
    """The pairs of a relation as a column: their similarity (pairs, 1), and the relation of the same shape."""
    if known_pairs is None:
        known_pairs = (relation.positive | relation.negative).nonzero()  # (pairs, 2)
    i, j = known_pairs.unbind(1)
    positive, probability = relation.positive[i, j][:, None], relation.teacher_probability
    row = i if relation.rows is None else relation.rows[i]
    first, second = batch.rows.index_select(0, row), batch.columns.index_select(0, j)  # (pairs, d) each
    sim = similarity(first[:, None], second[:, None])[:, :, 0]  # (pairs, 1)
    of_pairs = None if probability is None else probability[i, j][:, None]  # (pairs, 1)
    return sim, Relation(positive, ~positive, teacher_probability=of_pairs)


def _marked_columns(
    batch: _Batch, relation: Relation, similarity: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Relation]:
    """The columns that each row of a relation marks, side by side: similarities (r, k), and their relation."""
    columns, marked = marked_columns(relation.positive | relation.negative)  # (r, k)
    rows = batch.rows if relation.rows is None else batch.rows.index_select(0, relation.rows)  # (r, d)
    others = functional.embedding(columns, batch.columns)  # (r, k, d)
    sim = similarity(rows[:, None], others)[:, 0]  # (r, k)
    positive, negative = (mask.gather(1, columns) & marked for mask in (relation.positive, relation.negative))
    return sim, Relation(positive, negative)


def parse_objective(expression: str) -> Objective:
    """The objective that an expression such as `info_nce(temperature=0.05) + 0.5*contrastive` names.

    A sum of losses; weights before or behind a `*`, also of a sum in parentheses; parameters by name.

    Raises:
        UserError: an unknown loss or parameter (with the nearest known one), a weight that is not above 0, a number
            out of a parameter's range, or no such expression.
    """
    return Objective(expressions.parse(expression, "loss", "info_nce(temperature=0.05) + 0.5*contrastive", _terms))


def _terms(node: ast.expr) -> tuple[Term, ...]:
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _terms(left) + _terms(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            factor, terms = (left, right) if expressions.parse_number(left) is not None else (right, left)
            if (weight := expressions.parse_number(factor)) is None:
                raise SyntaxError
            if weight <= 0:
                raise UserError(f"loss: the weight {weight:g} is not above 0")
            return tuple(replace(term, weight=weight * term.weight) for term in _terms(terms))
    name, parameters = expressions.parse_call(node, "loss", LOSSES)
    return (Term(name, 1.0, parameters),)
