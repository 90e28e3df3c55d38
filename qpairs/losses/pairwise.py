"""Losses over labelled pairs: every pair of the relation counts by itself, or against the hardest of the other kind."""

from __future__ import annotations

import torch
from torch import Tensor

from qpairs.relations import Relation


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values (n, m) where mask (n, m) holds; zero, with a gradient of zero, where it holds nowhere."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def contrastive(sim: Tensor, relation: Relation, margin: float = 1.0) -> Tensor:
    """Contrastive loss: draws duplicates together, pushes the others apart to the margin.

    Half of d² for duplicates and half of max(0, margin - d)² for the others, mean over the pairs of the relation.
    Hadsell, Chopra, LeCun 2006, eq. 4 (there Y = 0 is the similar pair; here a duplicate is positive, label 1).

    Args:
        sim: (n, m) minus the Euclidean distance.
        relation: masks (n, m).
        margin: distance beyond which a non-duplicate costs nothing; unit vectors are at most 2 apart.
    """
    distance = -sim
    cost = torch.where(relation.positive, distance.square(), (margin - distance).clamp(min=0).square()) / 2  # (n, m)
    return masked_mean(cost, relation.positive | relation.negative)


def online_contrastive(sim: Tensor, relation: Relation, margin: float = 0.5) -> Tensor:
    """Contrastive loss over the hard pairs of the batch alone.

    With cosine distance d: d² for the duplicates farther than the nearest non-duplicate, max(0, margin - d)² for the
    non-duplicates nearer than the farthest duplicate. OnlineContrastiveLoss of sentence-transformers 2019 sums these;
    here the sum is divided by the number of pairs in the relation, so that its scale does not depend on the batch.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        margin: cosine distance beyond which a non-duplicate costs nothing.
    """
    distance = 1 - sim
    nearest_negative = distance.detach().masked_fill(~relation.negative, torch.inf).amin()
    farthest_positive = distance.detach().masked_fill(~relation.positive, -torch.inf).amax()
    hard_positive = relation.positive & (distance > nearest_negative)  # (n, m)
    hard_negative = relation.negative & (distance < farthest_positive)  # (n, m)
    cost = torch.where(hard_positive, distance.square(), (margin - distance).clamp(min=0).square())  # (n, m)
    total = torch.where(hard_positive | hard_negative, cost, 0.0).sum()
    return total / (relation.positive | relation.negative).sum().clamp(min=1)


def logistic(sim: Tensor, relation: Relation, scale: float = 20.0, threshold: float = 0.75) -> Tensor:
    """Cross-entropy of a logistic verdict on each pair: the sigmoid loss with a fixed temperature and bias.

    softplus(-z (scale (sim - threshold))) with z = 1 for duplicates and -1 for the others, mean over the pairs of the
    relation. Zhai et al. 2023 (SigLIP), eq. in section 3.2, over labelled pairs.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        scale: inverse temperature of the verdict.
        threshold: similarity at which the verdict is undecided.
    """
    logit = scale * (sim - threshold)  # (n, m)
    cost = torch.nn.functional.softplus(torch.where(relation.positive, -logit, logit))  # (n, m)
    return masked_mean(cost, relation.positive | relation.negative)
