"""What is known of the questions of a batch, and the similarities that the losses read.

A batch is n distinct questions. `sim` (n, m) holds the similarity of row question i to column question j, greater is
closer; a `Relation` of the same shape says which of them are duplicates and which are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Relation:
    """What is known of each pair of row and column questions; what is in neither mask is unknown or not to be used.

    Attributes:
        positive: (n, m) bool, known duplicates.
        negative: (n, m) bool, known non-duplicates, and assumed ones where the objective assumes them.
    """

    positive: Tensor
    negative: Tensor


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
    """

    positive: Tensor
    labelled: Tensor
    strangers: Tensor

    def relation(self, in_batch: bool) -> Relation:
        """The masks for an objective that does, or does not, assume unlabelled pairs of strangers to be negatives."""
        return Relation(self.positive, self.labelled | self.strangers if in_batch else self.labelled)


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


def cosine(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosine similarity (n, m) of unit embeddings rows (n, d) and columns (m, d)."""
    return rows @ columns.T


def euclidean(rows: Tensor, columns: Tensor) -> Tensor:
    """Minus the Euclidean distance (n, m) of embeddings rows (n, d) and columns (m, d).

    The gradient at distance zero, where there is none, is zero. Rounding hides distances below about 5e-4.
    """
    squared = rows.square().sum(1)[:, None] + columns.square().sum(1)[None] - 2 * rows @ columns.T  # (n, m)
    apart = squared > 1e-12
    return -torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "euclidean": euclidean}
