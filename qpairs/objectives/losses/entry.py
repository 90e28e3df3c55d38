"""A row of the table of losses: a function, and what an objective must know to call it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from qpairs.core.ranges import Range
from qpairs.objectives.expressions import defaults
from qpairs.objectives.relations import Relation, select_rows

F = TypeVar("F", bound=Callable[..., Tensor])


def in_float32(loss: F) -> F:
    """The loss, computed in float32 where the similarity has 16 bits, whose exponentials and sums overflow.

    Args:
        loss: (sim, Relation, **parameters) -> scalar.

    >>> @in_float32
    ... def total(sim: Tensor, relation: Relation) -> Tensor:
    ...     return sim.sum()
    >>> total(torch.full((300, 300), 1.0, dtype=torch.float16), Relation.from_text("+"))
    tensor(90000.)
    """

    @functools.wraps(loss)
    def computed(sim: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return loss(sim.float() if sim.dtype in (torch.float16, torch.bfloat16) else sim, *args, **kwargs)

    return cast(F, computed)


@dataclass(frozen=True)
class LossEntry:
    """A loss of the table.

    Attributes:
        function: (sim, Relation, **parameters) -> scalar.
        similarity: the similarity that the loss is defined on: a key of `similarities.SIMILARITIES`, or `head`, the
            logit of a learned `pair_head.PairHead`.
        paper: where it was published.
        formula: what it computes, in words.
        ranges: allowed ranges of its parameters; a parameter without one takes any number.
        in_batch: whether unlabelled pairs of different components count as negatives.
        only_unlabelled: whether they are the only negatives, so that it does not read the pairs that are labelled 0.
        needs_both: whether it contrasts duplicates with non-duplicates, and is zero where either are missing. If not,
            it is zero where there are no pairs at all.
        by_pair: whether it does not matter in which row or column a pair stands, so that the labelled pairs as one
            column (pairs, 1) give the same as the whole matrix.
        by_row: whether it does not matter in which column of its row a pair stands, so that the marked columns of each
            row, side by side (n, k), give the same as all of them.
        soft_labels: whether it learns a teacher's probabilities and graded labels, too.
        positives_only: whether it reads duplicates only.
        monotone: whether it never rises when a duplicate comes closer or another question goes farther.
        prototypes: whether the columns are learned prototypes, one for each duplicate component.
        prototype_parameters: those of its `prototypes.Prototypes` and their defaults.
    """

    function: Callable[..., Tensor]
    similarity: Literal["cosine", "dot", "euclidean", "squared_euclidean", "head"] = "cosine"
    paper: str = ""
    formula: str = ""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    in_batch: bool = False
    only_unlabelled: bool = False
    needs_both: bool = False
    by_pair: bool = False
    by_row: bool = False
    soft_labels: bool = False
    positives_only: bool = False
    monotone: bool = True
    prototypes: bool = False
    prototype_parameters: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, sim: Tensor, relation: Relation, **parameters: float) -> Tensor:
        """The loss, a scalar.

        Args:
            sim: (n, m) similarity.
            relation: masks (r, m); where a miner has set its `rows`, these rows of sim are selected first.
            parameters: of the loss.
        """
        return self.function(*select_rows(sim, relation), **parameters)

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters of the loss, then those of its prototypes, and their defaults."""
        return {**defaults(self.function), **self.prototype_parameters}
