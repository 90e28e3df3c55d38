"""Matryoshka Representation Learning: the loss over prefixes of the vectors (Kusupati et al. 2022, equation 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from qpairs.core.exceptions import UserError
from qpairs.objectives.labels import BatchLabels
from qpairs.objectives.objective import Objective


def prefix_lengths(dims: Sequence[int], dimension: int) -> tuple[int, ...]:
    """The lengths at which vectors are trained and evaluated, the full one first; none if `dims` is empty.

    Args:
        dims: lengths of prefixes, as in the config.
        dimension: of whole vectors.

    Raises:
        UserError: a length is greater than the dimension.

    >>> prefix_lengths((192, 96), 384), prefix_lengths((), 384)
    ((384, 192, 96), ())
    """
    if dims and max(dims) > dimension:
        raise UserError(f"dims: {max(dims)} is out of range; the vectors of the encoder have {dimension} numbers")
    return tuple(sorted({dimension, *dims}, reverse=True)) if dims else ()


def prefix_loss(
    objective: Objective, rows: Tensor, columns: Tensor, labels: BatchLabels, lengths: Sequence[int]
) -> Tensor:
    """The mean of the losses of prefixes, a scalar in float32.

    Kusupati et al. 2022, equation 1, with the same weight for each length. Each prefix is scaled to unit length, and
    has its own similarities; a miner selects anew. The questions are encoded once.

    Args:
        objective: without prototypes and heads, see `require_prefixes`.
        rows: (n, d) unit embeddings.
        columns: (m, d) unit embeddings; `rows` itself where there is one tower.
        labels: of rows x columns.
        lengths: of the prefixes, each at most d.

    Example:
        Questions 0 and 1 are duplicates. In the first number alone they look the same, so the loss of that prefix is 0.

        >>> from qpairs.objectives.objective import parse_objective
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        >>> positive = torch.tensor([[False, True], [True, False]])
        >>> labels = BatchLabels(positive, *torch.zeros(2, 2, 2).bool())
        >>> objective = parse_objective("contrastive")
        >>> torch.stack([prefix_loss(objective, embeddings, embeddings, labels, cut) for cut in ([2], [1], [2, 1])])
        tensor([0.4000, 0.0000, 0.2000])
    """
    losses = []
    for length in lengths:
        first = _prefix(rows, length)
        losses.append(objective(first, first if columns is rows else _prefix(columns, length), labels))
    return torch.stack(losses).mean()


def require_prefixes(objective: Objective) -> None:
    """Raises UserError if a loss learns weights for whole vectors, which do not fit prefixes."""
    for term in objective.terms:
        if term.entry.prototypes or term.entry.similarity == "head":
            raise UserError(
                f"dims: the loss {term.name} learns weights for whole vectors, which their prefixes lack; choose a "
                "loss without prototypes and without a head"
            )


def _prefix(embeddings: Tensor, length: int) -> Tensor:
    """The first numbers of embeddings (n, d), scaled to unit length, in float32; the whole ones are unit vectors."""
    if length == embeddings.shape[1]:
        return embeddings
    with torch.autocast(embeddings.device.type, enabled=False):
        return functional.normalize(embeddings[:, :length].float(), dim=1)
