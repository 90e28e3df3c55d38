"""The miners: functions `(sim, Relation) -> Relation`, without a gradient, that select the pairs a loss learns from.

Triplets are an anchor a (a row), one of its positives p and one of its negatives n. With distances d = -sim, so that
margins are in units of sim, each triplet is of exactly one kind:

    easy        d(a, p) + margin < d(a, n)
    semi-hard   d(a, p) <= d(a, n) <= d(a, p) + margin
    hard        d(a, n) < d(a, p)

The kind of a negative depends on the positive, so these three miners give a relation with one row for each positive
pair: `positive` holds the pair, `negative` its negatives of that kind, `rows` the row of sim. On unit vectors FaceNet's
squared distance is 2 - 2 cosine: its margin of 0.2 is one of 0.1 on the cosine.

To add a miner, write the function and its row in `MINERS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from qpairs.core.ranges import Range
from qpairs.objectives import expressions
from qpairs.objectives.relations import Relation, select_rows

BLOCK = 2**20  # entries of sim that are compared at a time


class Miner(Protocol):
    """Selects the pairs of a relation to learn from."""

    def __call__(self, sim: Tensor, relation: Relation) -> Relation:
        """The mined relation.

        Args:
            sim: (n, m) similarity, greater is closer.
            relation: masks (r, m) over the rows of sim; r = n where `relation.rows` is None.
        """


def everything(sim: Tensor, relation: Relation) -> Relation:
    """The relation as it is: every triplet, "batch all" in Hermans et al. 2017.

    Args:
        sim: (n, m) similarity.
        relation: masks (r, m).

    Example:
        >>> print(everything(torch.tensor([[0.7, 0.9, 0.6]]), Relation.from_text("+--")))
        + - -
    """
    return relation


def easy(sim: Tensor, relation: Relation, margin: float = 0.2) -> Relation:
    """For each positive pair the negatives farther than it by more than the margin: Schroff et al. 2015, eq. 1.

    Args:
        sim: (n, m) similarity.
        relation: masks (r, m).
        margin: in units of sim.

    Example:
        >>> sim = torch.tensor([[0.7, 0.9, 0.6, 0.1]])
        >>> print(easy(sim, Relation.from_text("+---")))  # row 0 of sim: the positive pair, and its easy negative
        0: + . . -
    """
    return _triplets(sim, relation, lambda positive, negative: negative < positive - margin)


def semi_hard(sim: Tensor, relation: Relation, margin: float = 0.2, choose: int = 0) -> Relation:
    """For each positive pair the negatives farther than it, but within the margin: Schroff et al. 2015, section 3.2.

    Args:
        sim: (n, m) similarity.
        relation: masks (r, m).
        margin: in units of sim.
        choose: negatives drawn for each positive pair by torch's default generator, 1 in FaceNet; 0 keeps all.

    Example:
        >>> sim = torch.tensor([[0.7, 0.9, 0.6, 0.1]])
        >>> print(semi_hard(sim, Relation.from_text("+---")))
        0: + . - .
    """
    return _triplets(
        sim, relation, lambda positive, negative: (negative <= positive) & (negative >= positive - margin), choose
    )


def hard(sim: Tensor, relation: Relation) -> Relation:
    """For each positive pair the negatives nearer than it: Schroff et al. 2015, section 3.2.

    Args:
        sim: (n, m) similarity.
        relation: masks (r, m).

    Example:
        >>> sim = torch.tensor([[0.7, 0.9, 0.8, 0.1], [0.9, 0.7, 0.1, 0.8]])
        >>> print(hard(sim, Relation.from_text("++--", "+---")))  # a row for each positive pair that has hard negatives
        0: + . - .
    """
    return _triplets(sim, relation, lambda positive, negative: negative > positive)


def batch_hard(sim: Tensor, relation: Relation) -> Relation:
    """For each row only its farthest positive and its nearest negative: Hermans et al. 2017, eq. 5.

    The first one of several at the same distance; nothing in rows that lack either kind.

    Args:
        sim: (n, m) similarity.
        relation: masks (r, m).

    Example:
        >>> sim = torch.tensor([[0.9, 0.7, 0.6, 0.1], [0.9, 0.8, 0.6, 0.2]])
        >>> print(batch_hard(sim, Relation.from_text("++--", "..--")))
        . + - .
        . . . .
    """
    sim, column = select_rows(sim.detach(), relation)[0], torch.arange(sim.shape[1], device=sim.device)
    both = relation.positive.any(1, keepdim=True) & relation.negative.any(1, keepdim=True)  # (r, 1)
    farthest = sim.masked_fill(~relation.positive, torch.inf).argmin(1, keepdim=True)  # (r, 1)
    nearest = sim.masked_fill(~relation.negative, -torch.inf).argmax(1, keepdim=True)  # (r, 1)
    return Relation((column == farthest) & both, (column == nearest) & both, relation.rows)


def multi_similarity(sim: Tensor, relation: Relation, epsilon: float = 0.1) -> Relation:
    """The negatives nearer than the row's farthest positive, the positives farther than its nearest negative.

    Both up to epsilon; nothing in rows that lack either kind. Wang et al. 2019, eqs. 11 and 12.

    Args:
        sim: (n, m) similarity, in the paper the cosine.
        relation: masks (r, m).
        epsilon: slack, in units of sim.

    Example:
        >>> sim = torch.tensor([[0.9, 0.6, 0.55, 0.1]])
        >>> print(multi_similarity(sim, Relation.from_text("++--")))
        . + - .
    """
    sim, _ = select_rows(sim.detach(), relation)
    farthest = sim.masked_fill(~relation.positive, torch.inf).amin(1, keepdim=True)  # (r, 1)
    nearest = sim.masked_fill(~relation.negative, -torch.inf).amax(1, keepdim=True)  # (r, 1)
    return Relation(
        relation.positive & (sim < nearest + epsilon), relation.negative & (sim > farthest - epsilon), relation.rows
    )


def _triplets(sim: Tensor, relation: Relation, kind: Callable[[Tensor, Tensor], Tensor], choose: int = 0) -> Relation:
    """One row for each positive pair that has negatives of a kind, with `choose` of them if that is not 0.

    Sim is read in blocks, so that no (r, m) matrix of numbers is made.

    Args:
        sim: (n, m) similarity.
        relation: masks (., m).
        kind: similarities of positive pairs (b, 1) and of the same anchors' others (b, m) -> (b, m) bool.
        choose: how many negatives to draw for each pair.
    """
    sim, m = sim.detach(), sim.shape[1]
    anchors, positives = relation.positive.nonzero(as_tuple=True)  # (r,) each
    rows = anchors if relation.rows is None else relation.rows[anchors]  # (r,)
    pairs, negatives = [], []
    for block in torch.split(torch.arange(len(anchors), device=sim.device), BLOCK // (m + 1) + 1):
        others = sim[rows[block]]  # (b, m)
        negative = relation.negative[anchors[block]] & kind(others.gather(1, positives[block, None]), others)  # (b, m)
        found = negative.any(1)  # (b,)
        pairs.append(block[found])
        negatives.append(_draw(negative[found], choose) if choose else negative[found])
    kept = torch.cat(pairs)  # (r,)
    return Relation(positives[kept, None] == torch.arange(m, device=sim.device), torch.cat(negatives), rows[kept])


def _draw(candidates: Tensor, count: int) -> Tensor:
    """At most `count` of the candidates (b, m) of each row, drawn uniformly without replacement."""
    random = torch.rand(candidates.shape, device=candidates.device).masked_fill(~candidates, -1.0)  # (b, m)
    drawn = random.topk(min(count, random.shape[1]), sorted=False).indices  # (b, count)
    return torch.zeros_like(candidates).scatter(1, drawn, True) & candidates


@dataclass(frozen=True)
class MinerEntry:
    """A miner of the table.

    Attributes:
        function: (sim, Relation, **parameters) -> Relation.
        paper: where it was published.
        formula: what it keeps, in words.
        ranges: allowed ranges of its parameters; a parameter without one takes any number.
    """

    function: Callable[..., Relation]
    paper: str
    formula: str
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, float]:
        """The miner's own parameters and their defaults."""
        return expressions.defaults(self.function)


MINERS: dict[str, MinerEntry] = {
    "everything": MinerEntry(everything, "Hermans et al. 2017", "every known pair"),
    "easy": MinerEntry(
        easy, "Schroff et al. 2015", "triplets with d(a, p) + margin < d(a, n)", {"margin": Range(above=0)}
    ),
    "semi_hard": MinerEntry(
        semi_hard,
        "Schroff et al. 2015",
        "triplets with d(a, p) <= d(a, n) <= d(a, p) + margin",
        {"margin": Range(above=0)},
    ),
    "hard": MinerEntry(hard, "Schroff et al. 2015", "triplets with d(a, n) < d(a, p)"),
    "batch_hard": MinerEntry(
        batch_hard, "Hermans et al. 2017", "the farthest duplicate and the nearest non-duplicate of each question"
    ),
    "multi_similarity": MinerEntry(
        multi_similarity,
        "Wang et al. 2019",
        "negatives with s > min s(positive) - epsilon, positives with s < max s(negative) + epsilon",
    ),
}


def parse_miner(expression: str) -> Miner:
    """The miner that an expression such as `semi_hard(margin=0.1, choose=1)` names.

    Raises:
        UserError: an unknown miner or parameter (with the nearest known one), a number out of a parameter's range, or
            no such expression.
    """
    name, parameters = expressions.parse(
        expression,
        "miner",
        "semi_hard(margin=0.1, choose=1)",
        lambda node: expressions.parse_call(node, "miner", MINERS),
    )
    return functools.partial(MINERS[name].function, **parameters)
