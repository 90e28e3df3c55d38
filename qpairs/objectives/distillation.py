"""Distillation of vectors: an encoder learns how a teacher places the questions of a batch, in addition to its loss.

A teacher's probabilities go another way: they are soft labels of pairs (`Relation.teacher_probability`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qpairs.core.directions import main_directions

ANGLED = 128  # questions whose angles are compared, at most: there are as many triples as their cube


def match_embeddings(embeddings: Tensor, teacher: Tensor) -> Tensor:
    """Embedding distillation: the squared distance to the teacher's vectors, mean over the questions.

    Reimers & Gurevych 2020, section 2, with the sum over the numbers of a vector instead of their mean: for unit
    vectors it is 2 - 2 cos, whatever their length.

    Args:
        embeddings: (n, d) of the encoder that learns.
        teacher: (n, d) of the same questions, see `fit_vectors`.

    Example:
        >>> match_embeddings(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]))  # 2 - 2 * 0.6
        tensor(0.8000)
    """
    return (embeddings - teacher).square().sum() / max(1, len(embeddings))


def match_distances(embeddings: Tensor, teacher: Tensor) -> Tensor:
    """Relational distillation of distances (RKD-D): those of the batch in units of their mean, as the teacher has them.

    The Huber loss of the differences, mean over the pairs of different questions. Park et al. 2019, eq. 5 to 7; the
    dimensions of both may differ.

    Args:
        embeddings: (n, d) of the encoder that learns.
        teacher: (n, t) of the same questions.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [3.0]])  # distances 1, 2 and 3, in units of their mean 0.5, 1 and 1.5
        >>> match_distances(10 * line, line)
        tensor(0.)
        >>> match_distances(torch.tensor([[0.0], [1.0], [2.0]]), line)  # 0.75, 0.75, 1.5: (0.25² + 0.25² + 0) / 2 / 3
        tensor(0.0208)
    """
    if len(embeddings) < 2:
        return embeddings.sum() * 0
    with torch.no_grad():
        wanted = _relative_distances(teacher)
    return functional.huber_loss(_relative_distances(embeddings), wanted)


def match_angles(embeddings: Tensor, teacher: Tensor) -> Tensor:
    """Relational distillation of angles (RKD-A): those of all triples of the batch as the teacher has them.

    The Huber loss of the differences of cos(angle at j between i and k), mean over the triples of different questions.
    Park et al. 2019, eq. 8 and 9. Of more than 128 questions, 128 at equal steps.

    Args:
        embeddings: (n, d) of the encoder that learns.
        teacher: (n, t) of the same questions.

    Example:
        >>> corner = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])  # 90, 45 and 45 degrees
        >>> match_angles(2 * corner, corner)
        tensor(0.)
        >>> even = torch.tensor([[1.0, 0.0], [-0.5, 0.866], [-0.5, -0.866]])  # 60 degrees each
        >>> match_angles(even, corner)  # (0.5² + 0.207² + 0.207²) / 2 / 3
        tensor(0.0560)
    """
    n = len(embeddings)
    if n < 3:
        return embeddings.sum() * 0
    if n > ANGLED:
        places = torch.linspace(0, n - 1, ANGLED, device=embeddings.device).long()
        embeddings, teacher, n = embeddings[places], teacher[places], ANGLED
    with torch.no_grad():
        wanted = _angles(teacher)
    same = torch.eye(n, dtype=torch.bool, device=embeddings.device)
    different = ~(same[:, :, None] | same[:, None, :] | same[None])  # (n, n, n): j, i, k
    cost = functional.huber_loss(_angles(embeddings), wanted, reduction="none")
    return torch.where(different, cost, 0.0).sum() / (n * (n - 1) * (n - 2))


def _relative_distances(embeddings: Tensor) -> Tensor:
    """Distances (n (n - 1) / 2,) of all pairs in units of their mean; the gradient at distance zero is zero."""
    distances = functional.pdist(embeddings)
    return distances / distances.mean().clamp(min=1e-6)


def _angles(embeddings: Tensor) -> Tensor:
    """Cosines (n, n, n) of the angle at j between i and k, in the order j, i, k."""
    between = embeddings[None] - embeddings[:, None]  # (n, n, d): from j to i
    unit = functional.normalize(between, dim=2, eps=1e-6)
    return unit @ unit.mT


def match_relations(embeddings: Tensor, teacher: Tensor) -> Tensor:
    """Relational distillation: distances, and angles with twice the weight, as in Park et al. 2019, section 4.1.

    Args:
        embeddings: (n, d) of the encoder that learns.
        teacher: (n, t) of the same questions.

    Example:
        >>> corner = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
        >>> match_relations(2 * corner, corner)
        tensor(0.)
    """
    return match_distances(embeddings, teacher) + 2 * match_angles(embeddings, teacher)


DISTILLATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "embeddings": match_embeddings,
    "relations": match_relations,
}


@dataclass(frozen=True)
class Distillation:
    """What is learned from a teacher's vectors: a row of `DISTILLATIONS`, and its weight relative to the loss.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0]])
        >>> Distillation("embeddings", weight=0.5)(embeddings, torch.tensor([[0.6, 0.8]]))
        tensor(0.4000)
    """

    name: str
    weight: float = 1.0

    def __call__(self, embeddings: Tensor, teacher: Tensor) -> Tensor:
        """The weighted cost, a scalar in float32."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.weight * DISTILLATIONS[self.name](embeddings.float(), teacher.float())


def fit_vectors(teacher: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """Unit vectors of a given dimension whose products are those of a teacher's, as nearly as there can be.

    Longer vectors are projected on their first singular vectors (Eckart and Young 1936), shorter ones end with zeros.

    Args:
        teacher: (n, t) unit vectors.
        dimension: of the result.

    >>> fit_vectors(np.float32([[0.6, 0.8]]), 3).tolist()
    [[0.6000000238418579, 0.800000011920929, 0.0]]
    """
    if teacher.shape[1] <= dimension:
        return np.pad(teacher, ((0, 0), (0, dimension - teacher.shape[1])))
    kept = teacher @ main_directions(teacher, dimension)
    return np.asarray(kept / np.linalg.norm(kept, axis=1, keepdims=True).clip(min=1e-9), dtype=np.float32)
