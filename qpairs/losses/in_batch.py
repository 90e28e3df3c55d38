"""Losses that set each duplicate against the other questions of the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from qpairs.losses.pairwise import masked_mean
from qpairs.relations import Relation


def info_nce(sim: Tensor, relation: Relation, temperature: float = 0.05) -> Tensor:
    """InfoNCE: each anchor picks its duplicate out among its negatives, labelled and in-batch.

    -log(exp(s_ip / t) / (exp(s_ip / t) + sum over negatives k of exp(s_ik / t))), mean over the positive pairs (i, p);
    an anchor's other positives are not in its denominator. Van den Oord et al. 2018, eq. 4.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        temperature: t; smaller attends more to the hardest negatives.
    """
    logits = sim / temperature  # (n, m)
    nothing = torch.finfo(logits.dtype).min / 2
    negatives = logits.masked_fill(~relation.negative, nothing).logsumexp(1)  # (n,)
    return masked_mean(torch.logaddexp(logits, negatives[:, None]) - logits, relation.positive)
