"""The losses: one function `(sim, Relation) -> scalar` each, one row each in the table `LOSSES`.

To add one, write the function and its row; the parametrised tests, the options and the list of losses follow by
themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from qpairs.objectives.losses.in_batch import circle, info_nce, multi_similarity, n_pair, supervised_contrastive
from qpairs.objectives.losses.pairwise import contrastive, cosent, logistic, online_contrastive, pair_softmax
from qpairs.objectives.losses.prototypes import arcface, center, cosface, softmax, sphereface
from qpairs.objectives.losses.triplets import quadruplet, ranking, triplet
from qpairs.objectives.relations import Relation, rows_of

__all__ = ["LOSSES", "Entry", "pair_weights"]


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        function: (sim, Relation, **parameters) -> scalar.
        similarity: the similarity that the loss is defined on: a key of `relations.SIMILARITIES`, or `head`, the logit
            of a learned `relations.PairHead`.
        paper: where it was published.
        formula: what it computes, in words.
        in_batch: whether unlabelled pairs of different components count as negatives.
        needs_both: whether it sets duplicates against non-duplicates, and is zero where either are missing; if not,
            what the two kinds cost adds up, and it is zero where there are no pairs at all.
        by_pair: whether it does not matter in which row or column a pair stands, so that the labelled pairs alone, as
            a column (pairs, 1), give the same as the whole matrix.
        by_row: whether it does not matter in which column of its row a pair stands, so that the columns that a row
            marks, side by side (n, k), give the same as all of them.
        soft: whether it learns from a teacher's probabilities, too.
        positives_only: whether it reads the duplicates alone, so that the others do not matter.
        monotone: whether it never rises when a duplicate comes closer or another question goes farther.
        prototypes: whether the columns are learned prototypes, one for each duplicate component.
        prototype_parameters: those of its `prototypes.Prototypes` and their defaults.
    """

    function: Callable[..., Tensor]
    similarity: Literal["cosine", "dot", "euclidean", "squared_euclidean", "head"]
    paper: str
    formula: str
    in_batch: bool = False
    needs_both: bool = False
    by_pair: bool = False
    by_row: bool = False
    soft: bool = False
    positives_only: bool = False
    monotone: bool = True
    prototypes: bool = False
    prototype_parameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters of the loss, then those of its prototypes, and their defaults."""
        own = {name: p.default for name, p in list(inspect.signature(self.function).parameters.items())[2:]}
        return {**own, **self.prototype_parameters}


_SAMPLED: dict[str, float] = {"alpha": 0.5, "sampled": 4096}

LOSSES: dict[str, Entry] = {
    # over pairs
    "contrastive": Entry(
        contrastive,
        "euclidean",
        "Hadsell, Chopra, LeCun 2006",
        "d²/2 of duplicates, max(0, margin - d)²/2 of others",
        by_pair=True,
    ),
    "online_contrastive": Entry(
        online_contrastive,
        "cosine",
        "sentence-transformers 2019",
        "d² and max(0, margin - d)² of the hard pairs alone",
        needs_both=True,
        by_pair=True,
        soft=True,
    ),
    "logistic": Entry(
        logistic,
        "cosine",
        "Zhai et al. 2023",
        "cross-entropy of the verdict sigmoid(scale (sim - threshold))",
        by_pair=True,
        soft=True,
    ),
    "pair_softmax": Entry(
        pair_softmax,
        "head",
        "Reimers & Gurevych 2019",
        "cross-entropy of a classification head on u, v, |u - v|, u * v",
        by_pair=True,
        soft=True,
    ),
    "ranking": Entry(
        ranking,
        "cosine",
        "Liu et al. 2017",
        "max(0, s_n - s_p + margin) of every duplicate p and every other pair n of the batch",
        needs_both=True,
        by_pair=True,
    ),
    "cosent": Entry(
        cosent,
        "cosine",
        "Su 2022",
        "log(1 + sum of exp(scale (s_n - s_p))) over every duplicate p and every other pair n of the batch",
        needs_both=True,
        by_pair=True,
    ),
    # over triplets
    "triplet": Entry(
        triplet,
        "squared_euclidean",
        "Schroff et al. 2015",
        "max(0, d²_ap - d²_an + margin) of every triplet",
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
    "triplet_euclidean": Entry(
        triplet,
        "euclidean",
        "Schroff et al. 2015",
        "max(0, d_ap - d_an + margin) of every triplet",
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
    "triplet_cosine": Entry(
        triplet,
        "cosine",
        "Schroff et al. 2015",
        "max(0, s_an - s_ap + margin) of every triplet",
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
    "quadruplet": Entry(
        quadruplet,
        "squared_euclidean",
        "Chen et al. 2017",
        "triplet, and max(0, d²_ij - d²_kl + margin2) against the pairs of other anchors",
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
    # over whole batches
    "info_nce": Entry(
        info_nce,
        "cosine",
        "van den Oord et al. 2018",
        "cross-entropy of picking the duplicate out among the batch",
        in_batch=True,
        needs_both=True,
    ),
    "n_pair": Entry(
        n_pair,
        "dot",
        "Sohn 2016",
        "log(1 + sum of exp(scale (s_n - s_p))) over the negatives of each duplicate's anchor",
        in_batch=True,
        needs_both=True,
        by_row=True,
    ),
    "supervised_contrastive": Entry(
        supervised_contrastive,
        "cosine",
        "Khosla et al. 2020",
        "cross-entropy of picking all duplicates out among the batch, in equal shares",
        in_batch=True,
        needs_both=True,
        by_row=True,
        monotone=False,  # the duplicates of an anchor compete: one far closer than the rest raises it
    ),
    "multi_similarity": Entry(
        multi_similarity,
        "cosine",
        "Wang et al. 2019",
        "soft maxima of base - s over each anchor's duplicates, and of s - base over its negatives",
        in_batch=True,
        by_row=True,
    ),
    "circle": Entry(
        circle,
        "cosine",
        "Sun et al. 2020",
        "soft maximum of s_n² + (1 - s_p)² over each anchor's negatives n and duplicates p",
        in_batch=True,
        needs_both=True,
        by_row=True,
        monotone=False,  # a negative between -margin and 0 costs more as it goes farther; the slope is right
    ),
    # over prototypes
    "softmax": Entry(
        softmax,
        "dot",
        "Wen et al. 2016",
        "cross-entropy of picking the own prototype out",
        needs_both=True,
        prototypes=True,
        prototype_parameters=_SAMPLED,
    ),
    "center": Entry(
        center,
        "squared_euclidean",
        "Wen et al. 2016",
        "d²/2 to the own prototype; beside another loss",
        by_pair=True,
        positives_only=True,
        prototypes=True,
        prototype_parameters={"alpha": 0.5, "by_gradient": 0},
    ),
    "sphereface": Entry(
        sphereface,
        "cosine",
        "Liu et al. 2017",
        "cross-entropy of picking the own prototype out, its angle multiplied by the margin",
        needs_both=True,
        prototypes=True,
        prototype_parameters=_SAMPLED,
    ),
    "cosface": Entry(
        cosface,
        "cosine",
        "Wang et al. 2018",
        "cross-entropy of picking the own prototype out, its cosine lowered by the margin",
        needs_both=True,
        prototypes=True,
        prototype_parameters=_SAMPLED,
    ),
    "arcface": Entry(
        arcface,
        "cosine",
        "Deng et al. 2019",
        "cross-entropy of picking the own prototype out, its angle widened by the margin",
        needs_both=True,
        prototypes=True,
        prototype_parameters=_SAMPLED,
    ),
}


def pair_weights(loss: str | Callable[..., Tensor], sim: Tensor, relation: Relation, **parameters: float) -> Tensor:
    """The weight (n, m) that a loss gives each pair, |dL/dS|: general pair weighting, Wang et al. 2019, section 3.

    Args:
        loss: a name of `LOSSES`, or a loss function.
        sim: (n, m) similarity.
        relation: masks (r, m).
        parameters: those of the loss.

    Raises:
        KeyError: no loss of that name.
    """
    function = LOSSES[loss].function if isinstance(loss, str) else loss
    with torch.enable_grad():
        leaf = sim.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(rows_of(leaf, relation), relation, **parameters), leaf)
    return slope.abs()
