"""A learned similarity, the linear classifier `PairHead`, and the `Score` of a pair: its probability, or the cosine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qpairs.objectives.similarities import dot


class PairHead(nn.Module):
    """A learned similarity: the logit of a linear classifier on (u, v, |u - v|, u * v).

    Reimers & Gurevych 2019, section 3 (without u * v); Conneau et al. 2017, section 3.1. It starts as logistic
    regression on the cosine, so that it is of use before it has learned.
    """

    def __init__(self, dimension: int, scale: float = 20.0, threshold: float = 0.75) -> None:
        """The logit starts as scale * (cosine - threshold) of unit embeddings.

        Args:
            dimension: of the embeddings.
            scale: of the logit.
            threshold: cosine at which the logit is 0.
        """
        super().__init__()
        weight = torch.zeros(4, dimension)  # of u, v, |u - v| and u * v
        weight[3] = scale
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor(-scale * threshold))

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Logits (..., n, m) of embeddings rows (..., n, d) and columns (..., m, d); needs n x m x d memory."""
        of_rows, of_columns, of_difference, of_product = self.weight.unbind()
        difference = (rows[..., :, None, :] - columns[..., None, :, :]).abs() @ of_difference  # (..., n, m)
        single = (rows @ of_rows)[..., :, None] + (columns @ of_columns)[..., None, :]  # (..., n, m)
        if rows.shape[-2] == columns.shape[-2] == 1:  # pairs
            return (rows * columns) @ of_product[:, None] + difference + single + self.bias
        return dot(rows * of_product, columns) + difference + single + self.bias

    def probability(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Probabilities (k,) that the questions of embeddings rows (k, d) and columns (k, d) are duplicates."""
        logits: Tensor = self(rows[:, None], columns[:, None])[:, 0, 0]
        return torch.sigmoid(logits.double()).float()


@dataclass(frozen=True)
class Score:
    """The score of a pair of questions: the cosine, or the probability of a head.

    Attributes:
        head: the classifier. None: the score is the cosine.
        symmetric: whether the score is the mean of both directions, where they differ: with two towers, or a head.
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
