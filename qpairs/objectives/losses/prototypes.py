"""Losses that contrast each question's own prototype with the others.

Columns are prototypes, one for each duplicate component, or other questions: `sim` (n, C) is read in the same way. The
embeddings are unit vectors, and so the logits of a softmax need a scale.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qpairs.core.ranges import Range
from qpairs.objectives.losses.entry import LossEntry
from qpairs.objectives.losses.masks import cross_entropy, masked_mean
from qpairs.objectives.relations import Relation


def softmax(sim: Tensor, relation: Relation, scale: float = 20.0) -> Tensor:
    """Softmax loss: cross-entropy of a linear classifier, without bias, whose weights are the prototypes.

    Logits are scale * s, mean over the positive entries. Wen et al. 2016, eq. 1; the scale is not in the paper, where
    embeddings are of any length.

    Args:
        sim: (n, C) dot product.
        relation: masks (n, C).
        scale: length that unit embeddings are given.

    Example:
        >>> sim = torch.tensor([[0.9, 0.8]])  # a question's own prototype and another one
        >>> softmax(sim, Relation.from_text("+-"))  # log(1 + exp(20 (0.8 - 0.9)))
        tensor(0.1269)
    """
    return cross_entropy(scale * sim[relation.positive], scale * sim, relation)


def cosface(sim: Tensor, relation: Relation, scale: float = 64.0, margin: float = 0.35) -> Tensor:
    """CosFace, large margin cosine loss: softmax loss with a margin on the cosine of the own prototype.

    The own logit is scale * (cos(theta) - margin), the others' scale * cos(theta), mean over the positive entries.
    Wang et al. 2018, eq. 4.

    Args:
        sim: (n, C) cosine similarity.
        relation: masks (n, C).
        scale: s of the paper, the length that unit embeddings are given.
        margin: m of the paper, in units of the cosine.

    Example:
        >>> sim = torch.tensor([[0.9, 0.5]])
        >>> cosface(sim, Relation.from_text("+-"))  # log(1 + exp(64 (0.5 - (0.9 - 0.35))))
        tensor(0.0400)
    """
    return cross_entropy(scale * (sim[relation.positive] - margin), scale * sim, relation)


def arcface(sim: Tensor, relation: Relation, scale: float = 64.0, margin: float = 0.5) -> Tensor:
    """ArcFace, additive angular margin loss: softmax loss with a margin on the angle of the own prototype.

    The own logit is scale * cos(theta + margin), mean over the positive entries. Deng et al. 2019, eq. 3; where
    theta + margin exceeds pi it is scale * (cos(theta) - margin * sin(margin)), as in the paper's code, so that it
    remains a falling function of theta.

    Args:
        sim: (n, C) cosine similarity.
        relation: masks (n, C).
        scale: s of the paper, the length that unit embeddings are given.
        margin: m of the paper, in radians.

    Example:
        >>> sim = torch.tensor([[0.9, 0.6]])
        >>> arcface(sim, Relation.from_text("+-"))  # log(1 + exp(64 (0.6 - cos(acos(0.9) + 0.5))))
        tensor(1.4831)
    """
    cosine = sim[relation.positive]  # (p,)
    squared = 1 - cosine.square()
    sine = torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)  # 0 has a gradient of 0 here
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    own = torch.where(cosine >= -math.cos(margin), shifted, cosine - margin * math.sin(margin))
    return cross_entropy(scale * own, scale * sim, relation)


def sphereface(sim: Tensor, relation: Relation, scale: float = 30.0, margin: int = 4) -> Tensor:
    """SphereFace, angular softmax loss: softmax loss with the angle of the own prototype multiplied by the margin.

    The own logit is scale * psi(theta), psi(theta) = (-1)^k cos(margin * theta) - 2k for theta in
    [k pi / margin, (k + 1) pi / margin], mean over the positive entries. Liu et al. 2017, without the annealing of the
    paper's code. There the scale is the embedding's length; 30 is that of its authors' OpenSphere.

    Args:
        sim: (n, C) cosine similarity.
        relation: masks (n, C).
        scale: length that unit embeddings are given.
        margin: m of the paper, a whole number of at least 1.

    Raises:
        ValueError: a margin below 1.

    Example:
        >>> sim = torch.tensor([[0.9, 0.0]])
        >>> sphereface(sim, Relation.from_text("+-"), scale=10)  # log(1 + exp(-10 cos(4 acos(0.9))))
        tensor(2.4065)
    """
    if margin < 1:
        raise ValueError(f"sphereface: margin must be a whole number of at least 1, not {margin}")
    cosine = sim[relation.positive]  # (p,)
    k = (cosine.detach().clamp(-1, 1).acos() * (margin / math.pi)).floor().clamp(max=margin - 1)
    before, multiple = torch.ones_like(cosine), cosine  # Chebyshev polynomials: cos(j theta), with no acos to derive
    for _ in range(margin - 1):
        before, multiple = multiple, 2 * cosine * multiple - before
    own = (1 - 2 * (k % 2)) * multiple - 2 * k  # psi
    return cross_entropy(scale * own, scale * sim, relation)


def center(sim: Tensor, relation: Relation) -> Tensor:
    """Center loss: half the squared distance to the own prototype, the centre of its component.

    Mean over the positive entries; negatives do not matter, so it is only of use in a sum with another loss. Wen et al.
    2016, eq. 2.

    Args:
        sim: (n, C) minus the squared Euclidean distance.
        relation: masks (n, C).

    Example:
        >>> center(torch.tensor([[-0.2, -1.0]]), Relation.from_text("+-"))
        tensor(0.1000)
    """
    return masked_mean(-sim, relation.positive) / 2


_SAMPLED: dict[str, float] = {"alpha": 0.5, "sampled": 4096}
_RANGES = {"scale": Range(above=0), "alpha": Range(above=0)}

PROTOTYPES = {
    "softmax": LossEntry(
        softmax,
        "dot",
        "Wen et al. 2016",
        "cross-entropy of picking the own prototype out",
        _RANGES,
        needs_both=True,
        prototypes=True,
        prototype_parameters=_SAMPLED,
    ),
    "center": LossEntry(
        center,
        "squared_euclidean",
        "Wen et al. 2016",
        "d²/2 to the own prototype; in a sum with another loss",
        {"alpha": Range(above=0)},
        by_pair=True,
        positives_only=True,
        prototypes=True,
        prototype_parameters={"alpha": 0.5, "by_gradient": 0},
    ),
    "sphereface": LossEntry(
        sphereface,
        "cosine",
        "Liu et al. 2017",
        "cross-entropy of picking the own prototype out, its angle multiplied by the margin",
        {**_RANGES, "margin": Range(at_least=1)},
        needs_both=True,
        prototypes=True,
        prototype_parameters=_SAMPLED,
    ),
    "cosface": LossEntry(
        cosface,
        "cosine",
        "Wang et al. 2018",
        "cross-entropy of picking the own prototype out, its cosine lowered by the margin",
        _RANGES,
        needs_both=True,
        prototypes=True,
        prototype_parameters=_SAMPLED,
    ),
    "arcface": LossEntry(
        arcface,
        "cosine",
        "Deng et al. 2019",
        "cross-entropy of picking the own prototype out, its angle widened by the margin",
        _RANGES,
        needs_both=True,
        prototypes=True,
        prototype_parameters=_SAMPLED,
    ),
}
