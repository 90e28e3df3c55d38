"""Losses that set the duplicates of each question against all its negatives, labelled and in-batch, at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from qpairs.objectives.losses.pairwise import cross_entropy, marked_columns, masked_logsumexp, masked_mean
from qpairs.objectives.relations import Relation


def info_nce(sim: Tensor, relation: Relation, temperature: float = 0.05, directions: int = 1) -> Tensor:
    """InfoNCE: each anchor picks its duplicate out among its negatives, labelled and in-batch.

    -log(exp(s_ip / t) / (exp(s_ip / t) + sum over negatives k of exp(s_ik / t))), mean over the positive pairs (i, p);
    an anchor's other positives are not in its denominator. Van den Oord et al. 2018, eq. 4; both directions: Radford et
    al. 2021 (CLIP).

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        temperature: t; smaller attends more to the hardest negatives.
        directions: 1: rows pick columns; 2: columns pick rows too, mean of both, which tells two towers apart.

    Raises:
        ValueError: other directions than 1 or 2.
    """
    if directions not in (1, 2):
        raise ValueError(f"info_nce: directions is 1 or 2, not {directions}")
    if directions == 2:
        back = Relation(relation.positive.T.contiguous(), relation.negative.T.contiguous())
        return (info_nce(sim, relation, temperature) + info_nce(sim.T.contiguous(), back, temperature)) / 2
    logits = sim / temperature  # (n, m)
    return cross_entropy(logits[relation.positive], logits, relation)


def n_pair(sim: Tensor, relation: Relation, scale: float = 10.0) -> Tensor:
    """N-pair loss: each anchor's duplicate against its negatives, all at once.

    log(1 + sum over negatives k of exp(scale (s_ik - s_ip))), mean over the positive pairs (i, p): InfoNCE on the dot
    product. Sohn 2016, the multi-class N-pair loss. The paper has no scale: its embeddings are of any length, held back
    by a penalty, which unit vectors don't need. With scale 1 they could barely win; with 10 a duplicate at 1 outweighs
    a thousand others at 0.

    Args:
        sim: (n, m) dot product.
        relation: masks (n, m).
        scale: squared length that unit embeddings are given.
    """
    return info_nce(sim, relation, temperature=1 / scale)


def supervised_contrastive(sim: Tensor, relation: Relation, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss: each anchor picks all its duplicates out among the batch, in equal shares.

    -mean over positives p of log(exp(s_ip / t) / sum over positives and negatives k of exp(s_ik / t)), mean over the
    rows that have both kinds. Khosla et al. 2020, eq. 2 (L_out). Duplicates compete with each other: a duplicate that
    is far closer than the rest is held back.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        temperature: t.
    """
    logits = sim / temperature  # (n, m)
    columns, there = marked_columns(relation.positive)  # (n, k)
    own = torch.where(there, logits.gather(1, columns), 0.0).sum(1) / there.sum(1).clamp(min=1)  # (n,)
    everyone = masked_logsumexp(logits, relation.positive | relation.negative)  # (n,)
    return masked_mean(everyone - own, there.any(1) & relation.negative.any(1))


def multi_similarity(
    sim: Tensor, relation: Relation, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5
) -> Tensor:
    """Multi-similarity loss: weighs each pair by its own similarity and by those of the other pairs of its row.

    log(1 + sum over positives of exp(-alpha (s - base))) / alpha + log(1 + sum over negatives of exp(beta (s - base)))
    / beta, mean over the rows that have any pair. Wang et al. 2019. Its mining, with epsilon, is the miner of
    the same name.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        alpha: how much more the farther positives weigh.
        beta: how much more the nearer negatives weigh.
        base: lambda of the paper, the similarity that positives should be above and negatives below.
    """
    columns, there = marked_columns(relation.positive)  # (n, k)
    pull = functional.softplus(masked_logsumexp(alpha * (base - sim.gather(1, columns)), there)) / alpha  # (n,)
    push = functional.softplus(masked_logsumexp(beta * (sim - base), relation.negative)) / beta  # (n,)
    return masked_mean(pull + push, there.any(1) | relation.negative.any(1))


def circle(sim: Tensor, relation: Relation, scale: float = 80.0, margin: float = 0.4) -> Tensor:
    """Circle loss: each pair is pulled or pushed at its own pace, the more the farther it is from its optimum.

    log(1 + sum over negatives of exp(scale a_n (s_n - margin)) * sum over positives of exp(-scale a_p (s_p - 1 +
    margin))) with the weights a_n = max(0, s_n + margin) and a_p = max(0, 1 + margin - s_p), through which no gradient
    flows; mean over the rows that have both kinds. Sun et al. 2020. The defaults are the paper's for
    fine-grained image retrieval; for faces it takes 256 and 0.25.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        scale: gamma of the paper.
        margin: m of the paper, the radius of the decision boundary.
    """
    columns, there = marked_columns(relation.positive)  # (n, k)
    own = sim.gather(1, columns)  # (n, k)
    pull = masked_logsumexp(scale * (1 + margin - own.detach()).clamp(min=0) * (1 - margin - own), there)  # (n,)
    push = masked_logsumexp(scale * (sim.detach() + margin).clamp(min=0) * (sim - margin), relation.negative)  # (n,)
    return masked_mean(functional.softplus(pull + push), there.any(1) & relation.negative.any(1))
