"""Losses over triplets and quadruplets: each duplicate closer than the others, by a margin.

They sum hinges max(0, s_n - s_p + margin) over positives p and negatives n. Such a sum is piecewise linear in the
similarities: its slope at a negative is the number of positives that the negative comes within the margin of, at a
positive minus the number of negatives that do so. Counted by binary search, these slopes give value and gradient in
O(n m log k) time, for k positives in a row, and O(n m) memory: triplets are never enumerated in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qpairs.objectives.losses.entry import LossEntry
from qpairs.objectives.losses.masks import marked_columns
from qpairs.objectives.relations import Relation


def triplet(sim: Tensor, relation: Relation, margin: float = 0.2) -> Tensor:
    """Triplet loss: each duplicate of an anchor should be closer than each of its negatives, by the margin.

    max(0, s_an - s_ap + margin), mean over all triplets (a, p, n) of the relation, also those that cost nothing, so
    that it never rises when a pair is moved the right way. Schroff et al. 2015 (FaceNet), section 3.1, on the
    squared Euclidean distance; the plain Euclidean distance (Hermans et al. 2017) and the cosine (Faghri et al. 2018)
    are used with the same margin.

    Args:
        sim: (n, m) minus the squared Euclidean or the Euclidean distance, or cosine similarity.
        relation: masks (n, m).
        margin: alpha of the paper, in units of sim.

    Example:
        >>> sim = torch.tensor([[0.9, 0.8, 0.1]])  # an anchor's duplicate, a near and a far non-duplicate
        >>> triplet(sim, Relation.from_text("+--"))  # (max(0, 0.8 - 0.9 + 0.2) + max(0, 0.1 - 0.9 + 0.2)) / 2
        tensor(0.0500)
    """
    return _mean(sim, _slope(sim, relation, margin), margin, _triplets(relation))


def quadruplet(sim: Tensor, relation: Relation, margin: float = 1.0, margin2: float = 0.5) -> Tensor:
    """Quadruplet loss: the triplet loss, and each duplicate closer than the negative pairs without its anchor.

    max(0, s_in - s_ij + margin), mean over the triplets, plus max(0, s_kl - s_ij + margin2), mean over the positive
    pairs (i, j) and the negative pairs (k, l) of other rows, k != i. Chen et al. 2017, where i, k and l are of three
    classes: a relation does not tell whether i and l are. The paper learns its metric; here it is the squared Euclidean
    distance.

    Args:
        sim: (n, m) minus the squared Euclidean distance.
        relation: masks (n, m).
        margin: alpha_1 of the paper, between pairs of one anchor.
        margin2: alpha_2 of the paper, between pairs of different anchors.

    Example:
        >>> sim = torch.tensor([[-0.1, -0.9], [-1.0, -0.4]])
        >>> quadruplet(sim, Relation.from_text("+-", ".-"))  # max(0, 0.1 - 0.9 + 1) + max(0, 0.1 - 0.4 + 0.5)
        tensor(0.4000)
    """
    everywhere = _slope(sim.reshape(1, -1), one_row(relation), margin2).reshape(sim.shape)  # (n, m)
    elsewhere = everywhere - _slope(sim, relation, margin2)  # (n, m)
    n_elsewhere = _triplets(one_row(relation)) - _triplets(relation)
    return triplet(sim, relation, margin) + _mean(sim, elsewhere, margin2, n_elsewhere)


def one_row(relation: Relation) -> Relation:
    """The relation (1, n * m) in which each positive and each negative of the batch form a triplet."""
    return Relation(relation.positive.reshape(1, -1), relation.negative.reshape(1, -1))


def _triplets(relation: Relation) -> Tensor:
    """How many combinations of a positive and a negative of one row there are, a scalar."""
    row = relation.positive.nonzero()[:, 0]  # (p,)
    return relation.negative.sum(1, dtype=torch.int32)[row].sum()


def _slope(sim: Tensor, relation: Relation, margin: float) -> Tensor:
    """Gradient (n, m) of the sum of a relation's hinges, whole numbers in float32."""
    sim = sim.detach()
    columns, marked = marked_columns(relation.positive)  # (n, k)
    bounds, order = (sim.gather(1, columns) - margin).masked_fill(~marked, torch.inf).sort(1)  # (n, k)
    n_below = torch.searchsorted(bounds, sim.contiguous(), out_int32=True)  # (n, m) bounds below each similarity
    n_below *= relation.negative
    n, bins = len(sim), bounds.shape[1] + 1
    start = torch.arange(0, n * bins, bins, dtype=torch.int32, device=sim.device)[:, None]  # (n, 1)
    histogram = (n_below + start).flatten().bincount(minlength=n * bins).reshape(n, bins)
    n_above = histogram.flip(1).cumsum(1).flip(1)[:, 1:].float()  # (n, k) negatives above each bound
    return n_below.float().scatter_add_(1, columns.gather(1, order), -n_above)


def _mean(sim: Tensor, slope: Tensor, margin: float, count: Tensor) -> Tensor:
    """Mean of `count` hinges, from the slope (n, m) of their sum."""
    return ((slope * sim).sum() + margin * slope.clamp(min=0).sum()) / count.clamp(min=1)


TRIPLETS = {
    "triplet": LossEntry(
        triplet,
        "squared_euclidean",
        "Schroff et al. 2015",
        "max(0, d²_ap - d²_an + margin) of every triplet",
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
    "triplet_euclidean": LossEntry(
        triplet,
        "euclidean",
        "Schroff et al. 2015",
        "max(0, d_ap - d_an + margin) of every triplet",
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
    "triplet_cosine": LossEntry(
        triplet,
        "cosine",
        "Schroff et al. 2015",
        "max(0, s_an - s_ap + margin) of every triplet",
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
    "quadruplet": LossEntry(
        quadruplet,
        "squared_euclidean",
        "Chen et al. 2017",
        "triplet, and max(0, d²_ij - d²_kl + margin2) against the pairs of other anchors",
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
}
