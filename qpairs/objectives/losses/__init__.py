"""The losses: one function `(sim, Relation) -> scalar` each, one row each in the table `LOSSES`.

To add one, write the function and, in the table below it in the same file, its row. The parametrised tests, the options
and the list of losses follow from the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from qpairs.objectives.losses.entry import LossEntry, in_float32
from qpairs.objectives.losses.in_batch import IN_BATCH
from qpairs.objectives.losses.pairwise import PAIRWISE
from qpairs.objectives.losses.prototypes import PROTOTYPES
from qpairs.objectives.losses.triplets import TRIPLETS
from qpairs.objectives.relations import Relation, select_rows

__all__ = ["LOSSES", "LossEntry", "pair_weights"]

LOSSES: dict[str, LossEntry] = {
    name: replace(entry, function=in_float32(entry.function))
    for name, entry in {**PAIRWISE, **TRIPLETS, **IN_BATCH, **PROTOTYPES}.items()
}


def pair_weights(loss: str | Callable[..., Tensor], sim: Tensor, relation: Relation, **parameters: float) -> Tensor:
    """The weight (n, m) that a loss gives each pair, |dL/dS|: general pair weighting, Wang et al. 2019, section 3.

    Args:
        loss: a name of `LOSSES`, or a loss function.
        sim: (n, m) similarity.
        relation: masks (r, m), also of a miner.
        parameters: those of the loss.

    Raises:
        KeyError: no loss of that name.

    Example:
        >>> pair_weights("triplet_cosine", torch.tensor([[0.5, 0.6, 0.2]]), Relation.from_text("+--"))
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    function = LOSSES[loss].function if isinstance(loss, str) else loss
    with torch.enable_grad():
        leaf = sim.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(*select_rows(leaf, relation), **parameters), leaf)
    return slope.abs()
