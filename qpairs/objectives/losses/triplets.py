"""Losses that want each duplicate closer than the others, by a margin: pairs of pairs, triplets, quadruplets.

They sum hinges max(0, s_n - s_p + margin) over positives p and negatives n. Such a sum is piecewise linear in the
similarities: its slope at a negative is the number of positives that the negative comes within the margin of, at a
positive minus the number of negatives that do so. Counted by binary search, these slopes give value and gradient in
O(n m log k) time, for k positives in a row, and O(n m) memory: no triplet is ever held.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qpairs.objectives.losses.pairwise import marked_columns
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
    """
    return _mean(sim, _slope(sim, relation, margin), margin, _triplets(relation))


def ranking(sim: Tensor, relation: Relation, margin: float = 0.2) -> Tensor:
    """Siamese ranking hinge: every duplicate of the batch should score above every other pair of it, by the margin.

    max(0, s_n - s_p + margin), mean over all combinations of a positive pair p and a negative pair n. Liu et al. 2017
    (RankIQA), the pairwise hinge; its scores have no bounds and its margin no default, 0.2 is that of `triplet`.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        margin: epsilon of the paper, in units of sim.
    """
    return triplet(sim.reshape(1, -1), _one_row(relation), margin)


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
    """
    everywhere = _slope(sim.reshape(1, -1), _one_row(relation), margin2).reshape(sim.shape)  # (n, m)
    elsewhere = everywhere - _slope(sim, relation, margin2)  # (n, m)
    n_elsewhere = _triplets(_one_row(relation)) - _triplets(relation)
    return triplet(sim, relation, margin) + _mean(sim, elsewhere, margin2, n_elsewhere)


def _one_row(relation: Relation) -> Relation:
    """The relation (1, n * m) in which every positive meets every negative."""
    return Relation(relation.positive.reshape(1, -1), relation.negative.reshape(1, -1))


def _triplets(relation: Relation) -> Tensor:
    """How many combinations of a positive and a negative of one row there are, a scalar."""
    row = relation.positive.nonzero()[:, 0]  # (p,)
    return relation.negative.sum(1, dtype=torch.int32)[row].sum()


def _slope(sim: Tensor, relation: Relation, margin: float) -> Tensor:
    """Slope (n, m) of the sum of a relation's hinges at each similarity, whole numbers in float32."""
    sim = sim.detach()
    columns, there = marked_columns(relation.positive)  # (n, k)
    bounds, order = (sim.gather(1, columns) - margin).masked_fill(~there, torch.inf).sort(1)  # (n, k)
    passed = torch.searchsorted(bounds, sim.contiguous(), out_int32=True)  # (n, m) how many bounds each is above
    passed *= relation.negative
    n, places = len(sim), bounds.shape[1] + 1
    start = torch.arange(0, n * places, places, dtype=torch.int32, device=sim.device)[:, None]  # (n, 1)
    histogram = (passed + start).flatten().bincount(minlength=n * places).reshape(n, places)
    passing = histogram.flip(1).cumsum(1).flip(1)[:, 1:].float()  # (n, k) negatives above each bound
    return passed.float().scatter_add_(1, columns.gather(1, order), -passing)


def _mean(sim: Tensor, slope: Tensor, margin: float, count: Tensor) -> Tensor:
    """Mean of `count` hinges, from the slope (n, m) of their sum."""
    return ((slope * sim).sum() + margin * slope.clamp(min=0).sum()) / count.clamp(min=1)
