"""Losses that set each question's own prototype against the others.

Columns are prototypes, one for each duplicate component, or other questions: `sim` (n, C) is read in the same way. The
embeddings are unit vectors, and so the logits of a softmax need a scale.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qpairs.objectives.losses.pairwise import cross_entropy, masked_mean
from qpairs.objectives.relations import Relation


def softmax(sim: Tensor, relation: Relation, scale: float = 20.0) -> Tensor:
    """Softmax loss: cross-entropy of a linear classifier, without bias, whose weights are the prototypes.

    Logits are scale * s, mean over the positive entries. Wen et al. 2016, eq. 1; the scale is not in the paper, where
    embeddings are of any length.

    Args:
        sim: (n, C) dot product.
        relation: masks (n, C).
        scale: length that unit embeddings are given.
    """
    return cross_entropy(scale * sim[relation.positive], scale * sim, relation)


def cosface(sim: Tensor, relation: Relation, scale: float = 64.0, margin: float = 0.35) -> Tensor:
    """CosFace, large margin cosine loss: the own prototype must win by a margin in the cosine.

    The own logit is scale * (cos(theta) - margin), the others' scale * cos(theta), mean over the positive entries.
    Wang et al. 2018, eq. 4.

    Args:
        sim: (n, C) cosine similarity.
        relation: masks (n, C).
        scale: s of the paper, the length that unit embeddings are given.
        margin: m of the paper, in units of the cosine.
    """
    return cross_entropy(scale * (sim[relation.positive] - margin), scale * sim, relation)


def arcface(sim: Tensor, relation: Relation, scale: float = 64.0, margin: float = 0.5) -> Tensor:
    """ArcFace, additive angular margin loss: the own prototype must win by a margin in the angle.

    The own logit is scale * cos(theta + margin), mean over the positive entries. Deng et al. 2019, eq. 3; where
    theta + margin is beyond pi it is scale * (cos(theta) - margin * sin(margin)), as in the paper's code, so that it
    goes on falling.

    Args:
        sim: (n, C) cosine similarity.
        relation: masks (n, C).
        scale: s of the paper, the length that unit embeddings are given.
        margin: m of the paper, in radians.
    """
    cosine = sim[relation.positive]  # (p,)
    squared = 1 - cosine.square()
    sine = torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)  # 0 has a gradient of 0 here
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    own = torch.where(cosine >= -math.cos(margin), shifted, cosine - margin * math.sin(margin))
    return cross_entropy(scale * own, scale * sim, relation)


def sphereface(sim: Tensor, relation: Relation, scale: float = 30.0, margin: int = 4) -> Tensor:
    """SphereFace, angular softmax loss: the own prototype must win at a multiple of its angle.

    The own logit is scale * psi(theta), psi(theta) = (-1)^k cos(margin * theta) - 2k for theta in
    [k pi / margin, (k + 1) pi / margin], mean over the positive entries. Liu et al. 2017, without
    the annealing of the paper's code. There the scale is the embedding's length; 30 is that of its authors' OpenSphere.

    Args:
        sim: (n, C) cosine similarity.
        relation: masks (n, C).
        scale: length that unit embeddings are given.
        margin: m of the paper, a whole number from 1 on.

    Raises:
        ValueError: a margin below 1.
    """
    if margin < 1:
        raise ValueError(f"sphereface: margin is a whole number from 1 on, not {margin}")
    cosine = sim[relation.positive]  # (p,)
    k = (cosine.detach().clamp(-1, 1).acos() * (margin / math.pi)).floor().clamp(max=margin - 1)
    before, multiple = torch.ones_like(cosine), cosine  # Chebyshev polynomials: cos(j theta), with no acos to derive
    for _ in range(margin - 1):
        before, multiple = multiple, 2 * cosine * multiple - before
    own = (1 - 2 * (k % 2)) * multiple - 2 * k  # psi
    return cross_entropy(scale * own, scale * sim, relation)


def center(sim: Tensor, relation: Relation) -> Tensor:
    """Center loss: half the squared distance to the own prototype, the centre of its component.

    Mean over the positive entries; negatives do not matter, so it is of use beside another loss only. Wen et al. 2016,
    eq. 2.

    Args:
        sim: (n, C) minus the squared Euclidean distance, `relations.squared_euclidean`.
        relation: masks (n, C).
    """
    return masked_mean(-sim, relation.positive) / 2
