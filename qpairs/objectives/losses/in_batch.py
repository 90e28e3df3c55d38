"""Losses over the whole batch: in-batch negatives, against the duplicates of each question or by themselves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from qpairs.core.ranges import Range
from qpairs.objectives.losses.entry import LossEntry
from qpairs.objectives.losses.masks import cross_entropy, marked_columns, masked_logsumexp, masked_mean
from qpairs.objectives.relations import Relation


def info_nce(sim: Tensor, relation: Relation, temperature: float = 0.05, directions: int = 1) -> Tensor:
    """InfoNCE: each anchor picks its duplicate out among its negatives, labelled and in-batch.

    -log(exp(s_ip / t) / (exp(s_ip / t) + sum over negatives k of exp(s_ik / t))), mean over the positive pairs (i, p);
    an anchor's other positives are not in its denominator. Van den Oord et al. 2018, eq. 4; both directions: Radford et
    al. 2021 (CLIP).

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        temperature: t; the smaller, the more the hardest negatives weigh.
        directions: 1: rows pick columns; 2: columns pick rows, too, mean of both, which differ with two towers.

    Raises:
        ValueError: other directions than 1 or 2.

    Example:
        >>> sim = torch.tensor([[0.9, 0.6]])  # an anchor's duplicate and a negative
        >>> info_nce(sim, Relation.from_text("+-"), temperature=0.1)  # log(1 + exp((0.6 - 0.9) / 0.1))
        tensor(0.0486)
    """
    if directions not in (1, 2):
        raise ValueError(f"info_nce: directions is 1 or 2, not {directions}")
    if directions == 2:
        transposed = Relation(relation.positive.T.contiguous(), relation.negative.T.contiguous())
        return (info_nce(sim, relation, temperature) + info_nce(sim.T.contiguous(), transposed, temperature)) / 2
    logits = sim / temperature  # (n, m)
    return cross_entropy(logits[relation.positive], logits, relation)


def n_pair(sim: Tensor, relation: Relation, scale: float = 10.0) -> Tensor:
    """N-pair loss: each anchor's duplicate against its negatives, all at once.

    log(1 + sum over negatives k of exp(scale (s_ik - s_ip))), mean over the positive pairs (i, p): InfoNCE on the dot
    product. Sohn 2016, the multi-class N-pair loss. The paper has no scale: its embeddings are of any length, limited
    by a penalty, which unit vectors don't need. With scale 1 the loss of unit vectors stays high; with 10 a duplicate
    at 1 outweighs a thousand others at 0.

    Args:
        sim: (n, m) dot product.
        relation: masks (n, m).
        scale: squared length that unit embeddings are given.

    Example:
        >>> sim = torch.tensor([[0.9, 0.6, 0.6]])
        >>> n_pair(sim, Relation.from_text("+--"))  # log(1 + 2 exp(10 (0.6 - 0.9)))
        tensor(0.0949)
    """
    return info_nce(sim, relation, temperature=1 / scale)


def supervised_contrastive(sim: Tensor, relation: Relation, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss: each anchor picks all its duplicates out among the batch, in equal shares.

    -mean over positives p of log(exp(s_ip / t) / sum over positives and negatives k of exp(s_ik / t)), mean over the
    rows that have both kinds. Khosla et al. 2020, eq. 2 (L_out). Duplicates compete with each other: one that is far
    closer than the rest raises the loss.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        temperature: t.

    Example:
        >>> sim = torch.tensor([[0.9, 0.7, 0.6]])  # log(e^9 + e^7 + e^6) - (9 + 7) / 2
        >>> supervised_contrastive(sim, Relation.from_text("++-"))
        tensor(1.1698)
    """
    logits = sim / temperature  # (n, m)
    columns, marked = marked_columns(relation.positive)  # (n, k)
    own = torch.where(marked, logits.gather(1, columns), 0.0).sum(1) / marked.sum(1).clamp(min=1)  # (n,)
    normaliser = masked_logsumexp(logits, relation.positive | relation.negative)  # (n,)
    return masked_mean(normaliser - own, marked.any(1) & relation.negative.any(1))


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
        alpha: inverse temperature of the positives: the larger, the more the farther ones weigh.
        beta: inverse temperature of the negatives: the larger, the more the nearer ones weigh.
        base: lambda of the paper, the similarity that positives should be above and negatives below.

    Example:
        >>> sim = torch.tensor([[0.9, 0.6]])  # log(1 + exp(-2 (0.9 - 0.5))) / 2 + log(1 + exp(50 (0.6 - 0.5))) / 50
        >>> multi_similarity(sim, Relation.from_text("+-"))
        tensor(0.2857)
    """
    columns, marked = marked_columns(relation.positive)  # (n, k)
    pull = functional.softplus(masked_logsumexp(alpha * (base - sim.gather(1, columns)), marked)) / alpha  # (n,)
    push = functional.softplus(masked_logsumexp(beta * (sim - base), relation.negative)) / beta  # (n,)
    return masked_mean(pull + push, marked.any(1) | relation.negative.any(1))


def circle(sim: Tensor, relation: Relation, scale: float = 80.0, margin: float = 0.4) -> Tensor:
    """Circle loss: the gradient of each pair is weighted by its distance from its optimum.

    log(1 + sum over negatives of exp(scale a_n (s_n - margin)) * sum over positives of exp(-scale a_p (s_p - 1 +
    margin))) with the weights a_n = max(0, s_n + margin) and a_p = max(0, 1 + margin - s_p), through which no gradient
    flows; mean over the rows that have both kinds. Sun et al. 2020. The defaults are the paper's for
    fine-grained image retrieval; for faces it takes 256 and 0.25.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        scale: gamma of the paper.
        margin: m of the paper, the radius of the decision boundary.

    Example:
        >>> sim = torch.tensor([[0.9, 0.6]])  # a_p = 1 + 0.4 - 0.9 and a_n = 0.6 + 0.4
        >>> circle(sim, Relation.from_text("+-"), scale=10)  # log(1 + exp(10 a_n (0.6 - 0.4) - 10 a_p (0.9 - 1 + 0.4)))
        tensor(0.9741)
    """
    columns, marked = marked_columns(relation.positive)  # (n, k)
    own = sim.gather(1, columns)  # (n, k)
    pull = masked_logsumexp(scale * (1 + margin - own.detach()).clamp(min=0) * (1 - margin - own), marked)  # (n,)
    push = masked_logsumexp(scale * (sim.detach() + margin).clamp(min=0) * (sim - margin), relation.negative)  # (n,)
    return masked_mean(functional.softplus(pull + push), marked.any(1) & relation.negative.any(1))


def lifted(sim: Tensor, relation: Relation, margin: float = 1.0) -> Tensor:
    """Lifted structured loss: each duplicate pair against all negatives of both of its questions.

    max(0, J_ij)² / 2, mean over the positive pairs, with J_ij = log(sum over negatives k of row i of exp(margin - d_ik)
    + sum over negatives l of column j of exp(margin - d_lj)) + d_ij. Song et al. 2016, eq. 4; their sum of both is a
    smooth bound on the hardest negative.

    Args:
        sim: (n, m) minus the Euclidean distance.
        relation: masks (n, m).
        margin: alpha of the paper, by which each negative should be farther than the duplicate.

    Example:
        >>> sim = torch.tensor([[-0.5, -0.9]])  # J = log(exp(1 - 0.9)) + 0.5; the column has no negative
        >>> lifted(sim, Relation.from_text("+-"))  # 0.6² / 2
        tensor(0.1800)
    """
    near = margin + sim  # (n, m)
    of_rows = masked_logsumexp(near, relation.negative)  # (n,)
    of_columns = masked_logsumexp(near.T, relation.negative.T)  # (m,)
    row, column = relation.positive.nonzero(as_tuple=True)  # (p,) each
    excess = torch.logaddexp(of_rows[row], of_columns[column]) - sim[row, column]
    return excess.relu().square().sum() / (2 * max(1, len(row)))


def lifted_generalized(sim: Tensor, relation: Relation, margin: float = 1.0) -> Tensor:
    """Generalized lifted structured loss: a smooth bound on the triplet of each anchor's hardest pairs.

    max(0, log(sum over positives p of exp(d_ip)) + log(sum over negatives k of exp(margin - d_ik))), mean over the rows
    that have both kinds. Hermans et al. 2017, eq. 10: all positives of an anchor at once, where Song et al. 2016 take
    one.

    Args:
        sim: (n, m) minus the Euclidean distance.
        relation: masks (n, m).
        margin: m of the paper.

    Example:
        >>> sim = torch.tensor([[-0.5, -0.9]])
        >>> lifted_generalized(sim, Relation.from_text("+-"))  # 0.5 + (1 - 0.9)
        tensor(0.6000)
    """
    columns, marked = marked_columns(relation.positive)  # (n, k)
    pull = masked_logsumexp(-sim.gather(1, columns), marked)  # (n,)
    push = masked_logsumexp(margin + sim, relation.negative)  # (n,)
    return masked_mean((pull + push).relu(), marked.any(1) & relation.negative.any(1))


def strangers(sim: Tensor, relation: Relation, margin: float = 0.5) -> Tensor:
    """Pushes strangers apart up to the margin: unlabelled pairs of questions of different duplicate components.

    max(0, margin - d)² with the cosine distance d, mean over the strangers of the batch: the push of the contrastive
    loss (Hadsell, Chopra, LeCun 2006, eq. 4), as `online_contrastive` has it for labelled pairs. To be added to a loss
    over labelled pairs, whose pull brings all questions nearer to each other: among all pairs of a corpus nearly all
    are strangers, and none of them are labelled. Where strangers stay beyond the margin, it costs nothing.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        margin: cosine distance beyond which a stranger costs nothing.

    Example:
        >>> strangers(torch.tensor([[0.9, 0.6, 0.2]]), Relation.from_text("+--"))  # (0.6 - 0.5)² / 2
        tensor(0.0050)
    """
    return masked_mean((sim - 1 + margin).clamp(min=0).square(), relation.negative)


IN_BATCH = {
    "info_nce": LossEntry(
        info_nce,
        "cosine",
        "van den Oord et al. 2018",
        "cross-entropy of picking the duplicate out among the batch",
        {"temperature": Range(above=0), "directions": Range(at_least=1, at_most=2)},
        in_batch=True,
        needs_both=True,
    ),
    "n_pair": LossEntry(
        n_pair,
        "dot",
        "Sohn 2016",
        "log(1 + sum of exp(scale (s_n - s_p))) over the negatives of each duplicate's anchor",
        {"scale": Range(above=0)},
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
    "supervised_contrastive": LossEntry(
        supervised_contrastive,
        "cosine",
        "Khosla et al. 2020",
        "cross-entropy of picking all duplicates out among the batch, in equal shares",
        {"temperature": Range(above=0)},
        in_batch=True,
        needs_both=True,
        by_row=True,
        monotone=False,  # the duplicates of an anchor compete: one far closer than the rest raises it
    ),
    "multi_similarity": LossEntry(
        multi_similarity,
        "cosine",
        "Wang et al. 2019",
        "soft maxima of base - s over each anchor's duplicates, and of s - base over its negatives",
        {"alpha": Range(above=0), "beta": Range(above=0)},
        in_batch=True,
        by_row=True,
    ),
    "circle": LossEntry(
        circle,
        "cosine",
        "Sun et al. 2020",
        "soft maximum of s_n² + (1 - s_p)² over each anchor's negatives n and duplicates p",
        {"scale": Range(above=0)},
        in_batch=True,
        needs_both=True,
        by_row=True,
        monotone=False,  # a negative between -margin and 0 costs more as it goes farther; its gradient is right
    ),
    "lifted": LossEntry(
        lifted,
        "euclidean",
        "Song et al. 2016",
        "max(0, soft maximum of margin - d_n + d_p)²/2 over the negatives n of both questions of each duplicate p",
        in_batch=True,
        needs_both=True,
    ),
    "lifted_generalized": LossEntry(
        lifted_generalized,
        "euclidean",
        "Hermans et al. 2017",
        "max(0, soft maximum of d_p + margin - d_n) over each anchor's duplicates p and negatives n",
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
    "strangers": LossEntry(
        strangers,
        "cosine",
        "Hadsell, Chopra, LeCun 2006",
        "max(0, margin - d)² of unlabelled pairs of different components",
        in_batch=True,
        only_unlabelled=True,
    ),
}
