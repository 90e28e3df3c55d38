"""Losses over labelled pairs: every pair counts by itself, or against those of the other kind anywhere in the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from qpairs.objectives.relations import Relation


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where a mask of their shape holds; zero, with a gradient of zero, where it holds nowhere."""
    return torch.where(mask, values, 0.0).sum() / mask.count_nonzero().clamp(min=1)


def masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """Log of the summed exponentials (n,) of the values (n, m) that a mask (n, m) holds; next to -inf where none."""
    return torch.where(mask, values, torch.finfo(values.dtype).min / 2).logsumexp(1)


def marked_columns(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The columns that each row of a mask (n, m) marks, side by side: far fewer to work on where marks are rare.

    Returns:
        Columns (n, k) int64, k being the most that a row marks, and which of them are there (n, k) bool.
    """
    row, column = mask.nonzero(as_tuple=True)
    counts = row.bincount(minlength=len(mask))  # (n,)
    there = torch.arange(max(counts.tolist(), default=0), device=mask.device) < counts[:, None]  # (n, k)
    return torch.zeros_like(there, dtype=torch.int64).masked_scatter(there, column), there


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


def contrastive(sim: Tensor, relation: Relation, margin: float = 1.0) -> Tensor:
    """Contrastive loss: draws duplicates together, pushes the others apart to the margin.

    Half of d² for duplicates and half of max(0, margin - d)² for the others, mean over the pairs of the relation.
    Hadsell, Chopra, LeCun 2006, eq. 4 (there Y = 0 is the similar pair; here a duplicate is positive, label 1).

    Args:
        sim: (n, m) minus the Euclidean distance.
        relation: masks (n, m).
        margin: distance beyond which a non-duplicate costs nothing; unit vectors are at most 2 apart.
    """
    with torch.no_grad():
        short = (margin + sim).relu_().mul_(relation.negative)  # (n, m) way that a non-duplicate still has to go
        half_square = short.square().sum() / 2
    slope = torch.dot(short.flatten(), sim.flatten())
    push = slope + (half_square - slope).detach()  # the value of half_square, and its gradient, `short`, at no cost
    pull = sim[relation.positive].square().sum() / 2
    count = relation.positive.count_nonzero() + relation.negative.count_nonzero()
    return (pull + push) / count.clamp(min=1)


def online_contrastive(sim: Tensor, relation: Relation, margin: float = 0.5) -> Tensor:
    """Contrastive loss over the hard pairs of the batch alone.

    With cosine distance d: d² for the duplicates farther than the nearest non-duplicate, max(0, margin - d)² for the
    non-duplicates nearer than the farthest duplicate. OnlineContrastiveLoss of sentence-transformers 2019 sums these;
    here the sum is divided by the number of pairs in the relation, so that its scale does not depend on the batch.
    Where the relation has a teacher's probability p, a pair costs p of what it would as a duplicate and 1 - p of what
    it would as none, if it is hard as such; p = 1/2 parts duplicates from others in the search for the hard ones.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        margin: cosine distance beyond which a non-duplicate costs nothing.
    """
    distance = 1 - sim
    nearest_negative = functional.pad(distance.detach()[relation.negative], (0, 1), value=torch.inf).amin()
    farthest_positive = functional.pad(distance.detach()[relation.positive], (0, 1), value=-torch.inf).amax()
    far, near = distance > nearest_negative, distance < farthest_positive  # (n, m) hard as duplicates, as others
    known = relation.positive | relation.negative
    pull, push = distance.square(), (margin - distance).clamp(min=0).square()  # (n, m)
    if relation.taught is None:
        cost = torch.where(relation.positive, pull * far, push * near)  # (n, m)
    else:
        cost = relation.taught * pull * far + (1 - relation.taught) * push * near
    return masked_mean(cost, known)


def logistic(sim: Tensor, relation: Relation, scale: float = 20.0, threshold: float = 0.75) -> Tensor:
    """Cross-entropy of a logistic verdict on each pair: the sigmoid loss with a fixed temperature and bias.

    softplus(-z (scale (sim - threshold))) with z = 1 for duplicates and -1 for the others, mean over the pairs of the
    relation. Zhai et al. 2023 (SigLIP), section 3.2, over labelled pairs. Learns a teacher's probabilities, too, as
    `pair_softmax` does.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        scale: inverse temperature of the verdict.
        threshold: similarity at which the verdict is undecided.
    """
    return pair_softmax(scale * (sim - threshold), relation)


def pair_softmax(sim: Tensor, relation: Relation) -> Tensor:
    """Softmax loss over pairs: cross-entropy of a classification head on u, v, |u - v| and u * v.

    softplus(-z sim) with z = 1 for duplicates and -1 for the others, mean over the pairs of the relation: that of a
    softmax over two classes whose logits differ by sim. Reimers & Gurevych 2019, section 3 (the head: Conneau et al.
    2017). Where the relation has a teacher's probability p, p softplus(-sim) + (1 - p) softplus(sim) (Hinton et al.
    2015, section 2).

    Args:
        sim: (n, m) logit of the head, the log odds of a duplicate.
        relation: masks (n, m).
    """
    target = relation.positive.to(sim.dtype) if relation.taught is None else relation.taught  # (n, m)
    cost = functional.binary_cross_entropy_with_logits(sim, target, reduction="none")  # (n, m)
    return masked_mean(cost, relation.positive | relation.negative)


def cosent(sim: Tensor, relation: Relation, scale: float = 20.0) -> Tensor:
    """CoSENT: every duplicate of the batch should be more similar than every other pair of it.

    log(1 + sum over positive pairs p and negative pairs n of exp(scale (s_n - s_p))), one value for the whole batch;
    the double sum is the product of two. Su 2022 (CoSENT), with labels 0 and 1.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        scale: inverse temperature.
    """
    nearest = (scale * sim[relation.negative]).logsumexp(0)
    farthest = (-scale * sim[relation.positive]).logsumexp(0)
    return functional.softplus(nearest + farthest)
