"""Learned prototypes: one vector for each duplicate component, the columns of the losses over prototypes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from qpairs.objectives.relations import Relation


class Prototypes(nn.Module):
    """One prototype for each duplicate component. A step reads and updates only a few thousand of them.

    They are buffers, saved with the model but not updated by the optimiser: each of its steps would go over all of
    them, and its moments would triple their memory.

    Attributes:
        weight: (n_components, dimension), not of unit length.
        met: (n_components,) bool, components that have occurred in training; the others have no prototype yet.

    Example:
        >>> prototypes = Prototypes(n_components=5, dimension=2)
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> columns, relation = prototypes(embeddings, component=torch.tensor([3, 1, 1]))
        >>> columns.detach()  # of the components 1 and 3: the mean of their embeddings, at their first occurrence
        tensor([[0.3000, 0.9000],
                [1.0000, 0.0000]])
        >>> print(relation)
        - +
        + -
        + -
    """

    weight: Tensor
    met: Tensor

    def __init__(
        self,
        n_components: int,
        dimension: int,
        *,
        alpha: float = 0.5,
        sampled: int = 4096,
        by_gradient: bool = True,
        step: float = 1.0,
    ) -> None:
        """Prototypes of components that have not occurred yet.

        Args:
            n_components: how many.
            dimension: of the embeddings.
            alpha: learning rate: the share of the way to its members in the batch that a prototype moves in a step.
            sampled: prototypes of components outside the batch that are drawn as further negatives.
            by_gradient: update by the gradient of the loss, not by the rule of Wen et al. 2016.
            step: 1 / (weight x scale) of the loss, so that alpha means the same for all losses; by gradient only.
        """
        super().__init__()
        self.alpha, self.sampled, self.by_gradient, self.step = alpha, sampled, by_gradient, step
        self.register_buffer("weight", torch.zeros(n_components, dimension))
        self.register_buffer("met", torch.zeros(n_components, dtype=torch.bool))

    def forward(self, embeddings: Tensor, component: Tensor) -> tuple[Tensor, Relation]:
        """The prototypes of the batch's components, and a sample of the others.

        A new component starts at the mean of its embeddings (imprinting, Qi et al. 2018). The others are drawn from
        those that have occurred, uniformly and without replacement, by torch's default generator (partial FC, An et
        al. 2021). In training, the columns are updated in the backward pass, by the gradient of the loss, a mean over
        the n rows; by rule, those of the batch are updated here: c_j -= alpha * sum_i (c_j - x_i) / (1 + n_j), Wen et
        al. 2016, eq. 4. In evaluation nothing is updated.

        Args:
            embeddings: (n, d).
            component: (n,) int64, the component of each.

        Returns:
            Columns (k, d), a leaf that requires grad if they are updated by gradient. Relation (n, k): the own
            prototype is positive, every other one negative.
        """
        members = embeddings.detach().to(self.weight.dtype)
        own, index, count = torch.unique(component, return_inverse=True, return_counts=True)  # (m,), (n,), (m,)
        count = count[:, None].to(members.dtype)
        mean = members.new_zeros(len(own), members.shape[1]).index_add(0, index, members) / count  # (m, d)
        current = torch.where(self.met[own, None], self.weight[own], mean)  # (m, d)
        ids = torch.cat([own, self._others(own)])  # (k,)
        columns = torch.cat([current, self.weight[ids[len(own) :]]])  # (k, d)
        positive = index[:, None] == torch.arange(len(ids), device=ids.device)  # (n, k)
        if self.training:
            if self.by_gradient:
                rate = self.alpha * self.step * len(members) / positive.sum(0).clamp(min=1)  # (k,)
                columns.requires_grad_()
                columns.register_post_accumulate_grad_hook(partial(self._descend, ids, rate))  # type: ignore[no-untyped-call]
            else:
                current = current.lerp(mean, self.alpha * count / (1 + count))
            self.weight[own], self.met[own] = current, True
        return columns, Relation(positive, ~positive)

    def _others(self, own: Tensor) -> Tensor:
        candidates = self.met.index_fill(0, own, False).nonzero()[:, 0]
        return candidates[torch.randperm(len(candidates), device=own.device)[: self.sampled]]

    def _descend(self, ids: Tensor, rate: Tensor, columns: Tensor) -> None:
        """A step of gradient descent: of the sum over the rows, or where a prototype has members, of their mean."""
        assert columns.grad is not None
        self.weight.index_add_(0, ids, rate[:, None] * columns.grad, alpha=-1)
        columns.grad = None
