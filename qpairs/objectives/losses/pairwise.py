"""Losses over labelled pairs: each pair by itself, or against the pairs of the other kind anywhere in the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from qpairs.core.ranges import Range
from qpairs.objectives.losses.entry import LossEntry, in_float32
from qpairs.objectives.losses.masks import masked_mean
from qpairs.objectives.losses.triplets import one_row, triplet
from qpairs.objectives.relations import Relation


@in_float32
def contrastive(sim: Tensor, relation: Relation, margin: float = 1.0) -> Tensor:
    """Contrastive loss: pulls duplicates together, pushes the others apart up to the margin.

    Half of d² for duplicates and half of max(0, margin - d)² for the others, mean over the pairs of the relation.
    Hadsell, Chopra, LeCun 2006, eq. 4 (there Y = 0 is the similar pair; here a duplicate is positive, label 1).

    Args:
        sim: (n, m) minus the Euclidean distance.
        relation: masks (n, m).
        margin: distance beyond which a non-duplicate costs nothing; unit vectors are at most 2 apart.

    Example:
        >>> sim = torch.tensor([[-0.1, -0.4]])  # distances of a duplicate and of a non-duplicate
        >>> contrastive(sim, Relation.from_text("+-"))  # (0.1² / 2 + (1 - 0.4)² / 2) / 2
        tensor(0.0925)
    """
    with torch.no_grad():
        hinge = (margin + sim).relu_().mul_(relation.negative)  # (n, m) distance that is missing to the margin
        half_square = hinge.square().sum() / 2
    slope = torch.dot(hinge.flatten(), sim.flatten())
    push = slope + (half_square - slope).detach()  # the value of half_square, and its gradient, `hinge`, at no cost
    pull = sim[relation.positive].square().sum() / 2
    count = relation.positive.count_nonzero() + relation.negative.count_nonzero()
    return (pull + push) / count.clamp(min=1)


@in_float32
def online_contrastive(sim: Tensor, relation: Relation, margin: float = 0.5) -> Tensor:
    """Contrastive loss over the hard pairs of the batch only.

    With cosine distance d: d² for the duplicates farther than the nearest non-duplicate, max(0, margin - d)² for the
    non-duplicates nearer than the farthest duplicate. OnlineContrastiveLoss of sentence-transformers 2019 sums these;
    here the sum is divided by the number of pairs in the relation, so that its scale does not depend on the batch.
    With a teacher's probability p, the cost of a pair is p times that of a duplicate plus 1 - p times that of a
    non-duplicate, each only if the pair is hard as such; pairs with p >= 1/2 are the duplicates in the search for hard
    ones.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        margin: cosine distance beyond which a non-duplicate costs nothing.

    Example:
        >>> relation = Relation.from_text("+-")
        >>> online_contrastive(torch.tensor([[0.6, 0.9]]), relation)  # (0.4² + (0.5 - 0.1)²) / 2
        tensor(0.1600)
        >>> online_contrastive(torch.tensor([[0.9, 0.6]]), relation)  # no hard pair
        tensor(0.)
    """
    distance = 1 - sim
    nearest_negative = functional.pad(distance.detach()[relation.negative], (0, 1), value=torch.inf).amin()
    farthest_positive = functional.pad(distance.detach()[relation.positive], (0, 1), value=-torch.inf).amax()
    far, near = distance > nearest_negative, distance < farthest_positive  # (n, m) hard as duplicates, as others
    known = relation.positive | relation.negative
    pull, push = distance.square(), (margin - distance).clamp(min=0).square()  # (n, m)
    probability = relation.teacher_probability
    if probability is None:
        cost = torch.where(relation.positive, pull * far, push * near)  # (n, m)
    else:
        cost = probability * pull * far + (1 - probability) * push * near
    return masked_mean(cost, known)


@in_float32
def logistic(sim: Tensor, relation: Relation, scale: float = 20.0, threshold: float = 0.75) -> Tensor:
    """Cross-entropy of a logistic regression on the similarity: the sigmoid loss with a fixed temperature and bias.

    softplus(-z (scale (sim - threshold))) with z = 1 for duplicates and -1 for the others, mean over the pairs of the
    relation. Zhai et al. 2023 (SigLIP), section 3.2, over labelled pairs. Learns a teacher's probabilities as
    `pair_softmax` does.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        scale: inverse temperature.
        threshold: similarity at which the probability is 1/2.

    Example:
        >>> logistic(torch.tensor([[0.9]]), Relation.from_text("+"))  # log(1 + exp(-20 (0.9 - 0.75)))
        tensor(0.0486)
    """
    return pair_softmax(scale * (sim - threshold), relation)


@in_float32
def pair_softmax(sim: Tensor, relation: Relation) -> Tensor:
    """Softmax loss over pairs: cross-entropy of a classification head on u, v, |u - v| and u * v.

    softplus(-z sim) with z = 1 for duplicates and -1 for the others, mean over the pairs of the relation: that of a
    softmax over two classes whose logits differ by sim. Reimers & Gurevych 2019, section 3 (the head: Conneau et al.
    2017). With a teacher's probability p: p softplus(-sim) + (1 - p) softplus(sim), Hinton et al. 2015, section 2.

    Args:
        sim: (n, m) logit of the head, the log odds of a duplicate.
        relation: masks (n, m).

    Example:
        >>> pair_softmax(torch.tensor([[3.0, -1.0]]), Relation.from_text("+-"))  # -log(sigmoid), mean of both pairs
        tensor(0.1809)
    """
    probability = relation.teacher_probability
    target = relation.positive.to(sim.dtype) if probability is None else probability  # (n, m)
    cost = functional.binary_cross_entropy_with_logits(sim, target, reduction="none")  # (n, m)
    return masked_mean(cost, relation.positive | relation.negative)


@in_float32
def ranking(sim: Tensor, relation: Relation, margin: float = 0.2) -> Tensor:
    """Siamese ranking hinge: every duplicate of the batch should score above every other pair of it, by the margin.

    max(0, s_n - s_p + margin), mean over all combinations of a positive pair p and a negative pair n. Liu et al. 2017
    (RankIQA), the pairwise hinge; its scores have no bounds and its margin no default, 0.2 is that of `triplet`.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        margin: epsilon of the paper, in units of sim.

    Example:
        >>> ranking(torch.tensor([[0.9], [0.8]]), Relation.from_text("+", "-"))  # max(0, 0.8 - 0.9 + 0.2)
        tensor(0.1000)
    """
    return triplet(sim.reshape(1, -1), one_row(relation), margin)


@in_float32
def cosent(sim: Tensor, relation: Relation, scale: float = 20.0) -> Tensor:
    """CoSENT: every duplicate of the batch should be more similar than every other pair of it.

    log(1 + sum over positive pairs p and negative pairs n of exp(scale (s_n - s_p))), one value for the whole batch;
    the double sum is the product of two. Su 2022 (CoSENT), with labels 0 and 1.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        scale: inverse temperature.

    Example:
        >>> cosent(torch.tensor([[0.9], [0.6]]), Relation.from_text("+", "-"), scale=10)  # log(1 + exp(10 (0.6 - 0.9)))
        tensor(0.0486)
    """
    nearest = (scale * sim[relation.negative]).logsumexp(0)
    farthest = (-scale * sim[relation.positive]).logsumexp(0)
    return functional.softplus(nearest + farthest)


PAIRWISE = {
    "contrastive": LossEntry(
        contrastive,
        "euclidean",
        "Hadsell, Chopra, LeCun 2006",
        "d²/2 of duplicates, max(0, margin - d)²/2 of others",
        by_pair=True,
    ),
    "online_contrastive": LossEntry(
        online_contrastive,
        "cosine",
        "sentence-transformers 2019",
        "d² and max(0, margin - d)² of the hard pairs only",
        needs_both=True,
        by_pair=True,
        soft_labels=True,
    ),
    "logistic": LossEntry(
        logistic,
        "cosine",
        "Zhai et al. 2023",
        "cross-entropy of the probability sigmoid(scale (sim - threshold))",
        {"scale": Range(above=0)},
        by_pair=True,
        soft_labels=True,
    ),
    "pair_softmax": LossEntry(
        pair_softmax,
        "head",
        "Reimers & Gurevych 2019",
        "cross-entropy of a classification head on u, v, |u - v|, u * v",
        by_pair=True,
        soft_labels=True,
    ),
    "ranking": LossEntry(
        ranking,
        "cosine",
        "Liu et al. 2017",
        "max(0, s_n - s_p + margin) of every duplicate p and every other pair n of the batch",
        needs_both=True,
        by_pair=True,
    ),
    "cosent": LossEntry(
        cosent,
        "cosine",
        "Su 2022",
        "log(1 + sum of exp(scale (s_n - s_p))) over every duplicate p and every other pair n of the batch",
        {"scale": Range(above=0)},
        needs_both=True,
        by_pair=True,
    ),
}
