"""What is known of the questions of a batch, and the similarities that the losses read.

A batch is n distinct questions. `sim` (n, m) holds the similarity of row question i to column question j, greater is
closer; a `Relation` of the same shape says which of them are duplicates and which are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Relation:
    """What is known of each pair of row and column questions; what is in neither mask is unknown or not to be used.

    Attributes:
        positive: (n, m) bool, known duplicates.
        negative: (n, m) bool, known non-duplicates, and assumed ones where the objective assumes them.
        rows: (n,) int64, the row of `sim` that each row of the masks speaks of, where a miner has picked them; None
            where row i speaks of row i.
        taught: (n, m), for losses that learn probabilities: that of being duplicates, of each pair in a mask; None
            where the masks are all that is known.
    """

    positive: Tensor
    negative: Tensor
    rows: Tensor | None = None
    taught: Tensor | None = None


def rows_of(sim: Tensor, relation: Relation) -> Tensor:
    """The rows of `sim` (n, m) that the rows of a relation speak of."""
    return sim if relation.rows is None else sim[relation.rows]


@dataclass(frozen=True)
class LabelGraph:
    """Everything that the labels say of a question table.

    Attributes:
        component: (n_questions,) int64, duplicate component: known duplicates, in one or several steps.
        guard: (n_questions,) int64, the same with canonically equal texts joined too: never assumed negative.
        start: (n_questions + 1,) int64, where each question's part of `others` begins.
        others: (2 * n_edges,) int64, for each question those that it is labelled 0 with.
    """

    component: Tensor
    guard: Tensor
    start: Tensor
    others: Tensor


def label_graph(component: Tensor, guard: Tensor, left: Tensor, right: Tensor) -> LabelGraph:
    """The graph of a question table.

    Args:
        component: (n_questions,) duplicate component of each question.
        guard: (n_questions,) component of each question with canonically equal texts joined.
        left: (n_edges,) first question of each pair labelled 0.
        right: (n_edges,) second question of each pair labelled 0.
    """
    ends, order = torch.cat([left, right]).sort()
    start = torch.searchsorted(ends, torch.arange(len(component) + 1, device=ends.device))
    return LabelGraph(component, guard, start, torch.cat([right, left])[order])


@dataclass(frozen=True)
class Knowledge:
    """The labels among the questions of a batch, from which each objective takes its `Relation`.

    Attributes:
        positive: (n, m) bool, different questions of one duplicate component.
        labelled: (n, m) bool, pairs labelled 0 of different components.
        strangers: (n, m) bool, questions of different components, labelled or not: safe to assume negative.
        places: (k, 2) int64, row and column of each pair in `positive` or `labelled`; without it, a loss over labelled
            pairs searches the masks for them.
        taught: (n, m), what a teacher thinks of a pair, the probability of being duplicates, NaN where it was not
            asked; None where there is no teacher.
    """

    positive: Tensor
    labelled: Tensor
    strangers: Tensor
    places: Tensor | None = None
    taught: Tensor | None = None

    def relation(self, in_batch: bool) -> Relation:
        """The masks for an objective that does, or does not, assume unlabelled pairs of strangers to be negatives."""
        return Relation(self.positive, self.labelled | self.strangers if in_batch else self.labelled)

    def taught_relation(self, in_batch: bool) -> Relation:
        """The same for an objective that learns from a teacher, too: what it was asked of stands as it answered."""
        known = self.relation(in_batch)
        if self.taught is None:
            return known
        asked, likely = ~self.taught.isnan(), self.taught >= 0.5  # (n, m)
        return Relation(
            positive=torch.where(asked, likely, known.positive),
            negative=torch.where(asked, ~likely, known.negative),
            taught=torch.where(asked, self.taught, known.positive.to(self.taught.dtype)),
        )


def look_up(graph: LabelGraph, rows: Tensor, columns: Tensor) -> Knowledge:
    """What the labels say of rows x columns.

    Two questions of one duplicate component are never each other's negative: a pair labelled 0 inside a component
    contradicts other labels, and is in no mask. Nor is a question with itself.

    Args:
        graph: the labels.
        rows: (n,) int64 question ids.
        columns: (m,) int64 question ids.
    """
    same = graph.component[rows][:, None] == graph.component[columns][None]  # (n, m)
    labelled = _labelled(graph, rows, columns)  # (n, m)
    return Knowledge(
        positive=same & (rows[:, None] != columns[None]) & ~labelled,
        labelled=labelled & ~same,
        strangers=graph.guard[rows][:, None] != graph.guard[columns][None],
    )


def _labelled(graph: LabelGraph, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, m) bool, the pairs labelled 0: walks the labels of the columns, which are far fewer than the n x m pairs."""
    begin = graph.start[columns]  # (m,)
    counts = graph.start[columns + 1] - begin  # (m,)
    column = torch.repeat_interleave(counts)  # (e,) place of the column that each label belongs to
    edge = torch.arange(len(column), device=column.device) + (begin - counts.cumsum(0) + counts)[column]  # (e,)
    distinct, inverse = torch.unique(rows, return_inverse=True)  # a question may stand in several rows
    place = torch.searchsorted(distinct, graph.others[edge]).clamp(max=len(distinct) - 1)  # (e,)
    there = distinct[place] == graph.others[edge]  # (e,)
    labelled = torch.zeros(len(distinct), len(columns), dtype=torch.bool, device=rows.device)
    labelled[place[there], column[there]] = True
    return labelled[inverse]


def dot(rows: Tensor, columns: Tensor) -> Tensor:
    """Inner product (..., n, m) of embeddings rows (..., n, d) and columns (..., m, d)."""
    if rows.shape[-2] == columns.shape[-2] == 1:  # pairs: many products of one row and one column each
        return (rows * columns).sum(-1, keepdim=True)
    return rows @ columns.mT


def cosine(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosine similarity (..., n, m) of unit embeddings rows (..., n, d) and columns (..., m, d)."""
    return dot(rows, columns)


def squared_euclidean(rows: Tensor, columns: Tensor) -> Tensor:
    """Minus the squared Euclidean distance (..., n, m) of embeddings rows (..., n, d) and columns (..., m, d)."""
    lengths = rows.square().sum(-1)[..., :, None] + columns.square().sum(-1)[..., None, :]  # (..., n, m)
    return 2 * dot(rows, columns) - lengths


def euclidean(rows: Tensor, columns: Tensor) -> Tensor:
    """Minus the Euclidean distance (..., n, m) of embeddings rows (..., n, d) and columns (..., m, d).

    The gradient at distance zero, where there is none, is zero. Rounding hides distances below about 5e-4.
    """
    if rows.shape[-2] == columns.shape[-2] == 1:  # pairs
        distance: Tensor = torch.linalg.vector_norm(rows - columns, dim=-1, keepdim=True)  # (..., 1, 1)
        return -distance
    return -torch.cdist(rows, columns, compute_mode="use_mm_for_euclid_dist")


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "squared_euclidean": squared_euclidean,
}


class PairHead(nn.Module):
    """A learned similarity: the logit of a linear classifier on (u, v, |u - v|, u * v).

    Reimers & Gurevych 2019, section 3 (without u * v); Conneau et al. 2017, section 3.1. It starts as a logistic
    verdict on the cosine, so that it is of use before it has learned.
    """

    def __init__(self, dimension: int, scale: float = 20.0, threshold: float = 0.75) -> None:
        """Starts as scale (cosine - threshold) of unit embeddings of `dimension`."""
        super().__init__()
        weight = torch.zeros(4, dimension)  # of u, v, |u - v| and u * v
        weight[3] = scale
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor(-scale * threshold))

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Logits (..., n, m) of embeddings rows (..., n, d) and columns (..., m, d); needs n x m x d memory."""
        first, second, apart, product = self.weight.unbind()
        gaps = (rows[..., :, None, :] - columns[..., None, :, :]).abs() @ apart  # (..., n, m)
        ends = (rows @ first)[..., :, None] + (columns @ second)[..., None, :]  # (..., n, m)
        if rows.shape[-2] == columns.shape[-2] == 1:  # pairs
            return (rows * columns) @ product[:, None] + gaps + ends + self.bias
        return dot(rows * product, columns) + gaps + ends + self.bias

    def probability(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Probabilities (k,) that the questions of embeddings rows (k, d) and columns (k, d) are duplicates."""
        logits: Tensor = self(rows[:, None], columns[:, None])[:, 0, 0]
        return torch.sigmoid(logits.double()).float()


@dataclass(frozen=True)
class Score:
    """What a verdict on a pair reads: the cosine, or the probability of a head.

    Attributes:
        head: the classifier; None: the cosine.
        symmetric: whether the score is the mean of both directions, where they differ: two towers, or a head.
    """

    head: PairHead | None = None
    symmetric: bool = True

    def __call__(self, rows: Tensor, columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Scores (k,) of pairs.

        Args:
            rows: (n, d) unit embeddings of questions as first ones.
            columns: (m, d) unit embeddings of questions as second ones; `rows` itself where there is one tower.
            left: (k,) row of each pair's first question.
            right: (k,) column of its second one.
        """
        score = self._one_way(rows[left], columns[right])
        if self.symmetric and (self.head is not None or columns is not rows):
            score = (score + self._one_way(rows[right], columns[left])) / 2
        return score

    def _one_way(self, first: Tensor, second: Tensor) -> Tensor:
        """Scores (k,) of embeddings first (k, d) against second (k, d)."""
        if self.head is not None:
            return self.head.probability(first, second)
        return (first * second).sum(1)
