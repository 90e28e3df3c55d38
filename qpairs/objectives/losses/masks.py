"""What the losses share: means and sums over masks, and the softmax cross-entropy of a relation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from qpairs.objectives.relations import Relation


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where a mask of their shape holds; zero, with a gradient of zero, where it holds nowhere."""
    return torch.where(mask, values, 0.0).sum() / mask.count_nonzero().clamp(min=1)


def masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """Row-wise logsumexp (n,) of the values (n, m) where a mask (n, m) holds; next to -inf where it holds nowhere."""
    return torch.where(mask, values, torch.finfo(values.dtype).min / 2).logsumexp(1)


def marked_columns(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The columns that each row of a mask (n, m) marks, side by side: far fewer to work on where marks are rare.

    Returns:
        Columns (n, k) int64, k being the most that a row marks, and which of them are no padding (n, k) bool.

    Example:
        >>> marked_columns(torch.tensor([[False, True, True], [True, False, False]]))
        (tensor([[1, 2],
                [0, 0]]), tensor([[ True,  True],
                [ True, False]]))
    """
    row, column = mask.nonzero(as_tuple=True)
    counts = row.bincount(minlength=len(mask))  # (n,)
    marked = torch.arange(max(counts.tolist(), default=0), device=mask.device) < counts[:, None]  # (n, k)
    return torch.zeros_like(marked, dtype=torch.int64).masked_scatter(marked, column), marked


def cross_entropy(own: Tensor, logits: Tensor, relation: Relation) -> Tensor:
    """Softmax cross-entropy of picking a duplicate out among the negatives of its row.

    -log(exp(own) / (exp(own) + sum over negatives k of exp(logits_ik))), mean over the positive pairs; the row's other
    positives are not in the denominator.

    Args:
        own: (p,) logit of each positive pair, in the order of `logits[relation.positive]`.
        logits: (n, m) logits, of which those of the negatives are read.
        relation: masks (n, m).
    """
    row, column = relation.positive.nonzero(as_tuple=True)  # (p,) each
    one_each = len(row) > 0 and torch.equal(row, torch.arange(len(logits), device=row.device))
    if one_each and (relation.positive ^ relation.negative).all():  # a classifier
        return functional.cross_entropy(logits.index_put((row, column), own), column)
    others = masked_logsumexp(logits, relation.negative)  # (n,)
    return functional.softplus(others[row] - own).sum() / max(1, len(row))
