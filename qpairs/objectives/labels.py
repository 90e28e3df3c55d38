"""What the labels of a question table say about the questions of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qpairs.objectives.relations import Relation


@dataclass(frozen=True)
class LabelGraph:
    """The labels of a question table as a graph.

    Attributes:
        component: (n_questions,) int64, component of questions that labels link as duplicates, directly or in steps.
        cluster: (n_questions,) int64, component with canonically equal texts joined, too. Two questions of one cluster
            are never assumed to be non-duplicates.
        start: (n_questions + 1,) int64, where each question's part of `others` begins.
        others: (2 * n_edges,) int64, for each question those that it is labelled 0 with.
    """

    component: Tensor
    cluster: Tensor
    start: Tensor
    others: Tensor


def label_graph(component: Tensor, cluster: Tensor, left: Tensor, right: Tensor) -> LabelGraph:
    """The graph of a question table.

    Args:
        component: (n_questions,) duplicate component of each question.
        cluster: (n_questions,) component of each question with canonically equal texts joined.
        left: (n_edges,) first question of each pair labelled 0.
        right: (n_edges,) second question of each pair labelled 0.
    """
    ends, order = torch.cat([left, right]).sort()
    start = torch.searchsorted(ends, torch.arange(len(component) + 1, device=ends.device))
    return LabelGraph(component, cluster, start, torch.cat([right, left])[order])


@dataclass(frozen=True)
class BatchLabels:
    """The labels among the questions of a batch, from which each loss of an objective takes its `Relation`.

    Attributes:
        positive: (n, m) bool, different questions of one component.
        labelled: (n, m) bool, pairs labelled 0, of different components.
        unrelated: (n, m) bool, questions of different clusters, labelled or not: in-batch negatives.
        known_pairs: (k, 2) int64, row and column of each pair in `positive` or `labelled`. None: found in the masks
            when a loss needs them.
        teacher_probability: (n, m) a teacher's probability of being duplicates, or a graded label, NaN for pairs that
            have none. None: there is neither a teacher nor a grade.
        apart: (n, m) bool, pairs labelled 0, inside a component, too; read where there are probabilities. None: those
            in `labelled`.
    """

    positive: Tensor
    labelled: Tensor
    unrelated: Tensor
    known_pairs: Tensor | None = None
    teacher_probability: Tensor | None = None
    apart: Tensor | None = None

    def relation(self, in_batch: bool, soft_labels: bool = False, only_unlabelled: bool = False) -> Relation:
        """The masks of a loss.

        Args:
            in_batch: whether unlabelled pairs of different clusters are negatives, too; except those that a teacher
                takes for duplicates.
            soft_labels: whether the loss learns a teacher's probabilities, or grades. An unlabelled pair that a teacher
                has scored is then positive or negative as the teacher says; one labelled 0 is negative, whatever its
                grade, inside a component, too.
            only_unlabelled: whether unlabelled pairs of different clusters, which no teacher has scored either, are the
                only negatives.
        """
        probability = self.teacher_probability
        if only_unlabelled:
            unlabelled = self.unrelated & ~self.labelled
            return Relation(self.positive, unlabelled if probability is None else unlabelled & probability.isnan())
        negative = self.labelled
        if in_batch:
            unrelated = self.unrelated if probability is None else self.unrelated & ~(probability >= 0.5)
            negative = negative | unrelated
        if not soft_labels or probability is None:
            return Relation(self.positive, negative)
        judged = ~probability.isnan()  # (n, m)
        apart = self.labelled if self.apart is None else self.labelled | self.apart  # (n, m)
        likely = torch.where(self.positive | apart, self.positive, probability >= 0.5)  # (n, m)
        return Relation(
            positive=torch.where(judged, likely, self.positive),
            negative=torch.where(judged, ~likely, negative),
            teacher_probability=torch.where(judged, probability, self.positive.to(probability.dtype)),
        )


def batch_labels(graph: LabelGraph, rows: Tensor, columns: Tensor) -> BatchLabels:
    """The labels among row and column questions.

    Two questions of one component are never negatives: a pair labelled 0 inside a component contradicts other labels,
    and is in no mask. Nor is a question with itself.

    Args:
        graph: the labels.
        rows: (n,) int64 question ids.
        columns: (m,) int64 question ids.

    Example:
        Of four questions, 0 and 1 are labelled duplicates, 1 and 2 non-duplicates.

        >>> component = torch.tensor([0, 0, 1, 2])
        >>> graph = label_graph(component, component, torch.tensor([1]), torch.tensor([2]))
        >>> labels = batch_labels(graph, torch.arange(4), torch.arange(4))
        >>> print(labels.relation(in_batch=False))
        . + . .
        + . - .
        . - . .
        . . . .
        >>> print(labels.relation(in_batch=True))
        . + - -
        + . - -
        - - . -
        - - - .
    """
    same = graph.component[rows][:, None] == graph.component[columns][None]  # (n, m)
    labelled = _labelled(graph, rows, columns)  # (n, m)
    return BatchLabels(
        positive=same & (rows[:, None] != columns[None]) & ~labelled,
        labelled=labelled & ~same,
        unrelated=graph.cluster[rows][:, None] != graph.cluster[columns][None],
    )


def _labelled(graph: LabelGraph, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, m) bool, the pairs labelled 0. Walks the labels of the columns, which are far fewer than the n x m pairs."""
    begin = graph.start[columns]  # (m,)
    counts = graph.start[columns + 1] - begin  # (m,)
    column = torch.repeat_interleave(counts)  # (e,) index of the column that each label belongs to
    edge = torch.arange(len(column), device=column.device) + (begin - counts.cumsum(0) + counts)[column]  # (e,)
    distinct, inverse = torch.unique(rows, return_inverse=True)  # a question may stand in several rows
    row = torch.searchsorted(distinct, graph.others[edge]).clamp(max=len(distinct) - 1)  # (e,)
    in_batch = distinct[row] == graph.others[edge]  # (e,)
    labelled = torch.zeros(len(distinct), len(columns), dtype=torch.bool, device=rows.device)
    labelled[row[in_batch], column[in_batch]] = True
    return labelled[inverse]
