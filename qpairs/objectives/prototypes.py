"""Learned prototypes: one vector for each duplicate component, the columns of the losses over prototypes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from qpairs.objectives.relations import Relation


class Prototypes(nn.Module):
    """One prototype for each duplicate component, of which a step reads and moves only a few thousand.

    They are buffers, saved with the model but unknown to the optimiser, whose every step would pass over all of them
    and whose moments would triple their memory.

    Attributes:
        weight: (n_components, dimension), not of unit length.
        met: (n_components,) bool, the components that training has come across; the others have no prototype yet.
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
        """Prototypes of which none is met yet.

        Args:
            n_components: how many.
            dimension: of the embeddings.
            alpha: share of the way to its members in the batch that a prototype goes in a step.
            sampled: how many prototypes of components outside the batch are drawn as further negatives.
            by_gradient: move by the gradient of the loss, not by the rule of Wen et al. 2016.
            step: 1 / (weight x scale) of the loss, so that alpha means the same for all; by gradient alone.
        """
        super().__init__()
        self.alpha, self.sampled, self.by_gradient, self.step = alpha, sampled, by_gradient, step
        self.register_buffer("weight", torch.zeros(n_components, dimension))
        self.register_buffer("met", torch.zeros(n_components, dtype=torch.bool))

    def forward(self, embeddings: Tensor, component: Tensor) -> tuple[Tensor, Relation]:
        """The prototypes of the batch's components, and a sample of the others.

        A component new to it starts at the mean of its embeddings (imprinting, Qi et al. 2018). The others are drawn
        from those met, uniformly and without replacement, by torch's default generator (partial FC, An et al. 2021).
        In training, the columns move when the gradient of the loss, a mean over the n rows, has reached them; by rule,
        those of the batch move here: c_j -= alpha * sum_i (c_j - x_i) / (1 + n_j), Wen et al. 2016, eq. 4. In
        evaluation nothing moves and nothing is met.

        Args:
            embeddings: (n, d).
            component: (n,) int64, the component of each.

        Returns:
            Columns (k, d), a leaf that requires grad if its gradient is to move them. Relation (n, k): the own
            prototype is positive, every other one negative.
        """
        members = embeddings.detach().to(self.weight.dtype)
        own, place, count = torch.unique(component, return_inverse=True, return_counts=True)  # (m,), (n,), (m,)
        count = count[:, None].to(members.dtype)
        mean = members.new_zeros(len(own), members.shape[1]).index_add(0, place, members) / count  # (m, d)
        current = torch.where(self.met[own, None], self.weight[own], mean)  # (m, d)
        ids = torch.cat([own, self._others(own)])  # (k,)
        columns = torch.cat([current, self.weight[ids[len(own) :]]])  # (k, d)
        positive = place[:, None] == torch.arange(len(ids), device=ids.device)  # (n, k)
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
