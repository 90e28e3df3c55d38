"""Dropout whose zeros are drawn eight to a random number: torch's own takes a seventh of a training step on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEVELS = 2**8  # a probability is rounded to a multiple of 1 / LEVELS


@dataclass(frozen=True)
class Zeros:
    """Which elements of a tensor are dropped: 8 random bits each, so that a byte is kept and not a factor.

    Attributes:
        bits: int8, in the shape of the tensor.
        dropped: elements whose bits are less than -128 + dropped are.
    """

    bits: Tensor
    dropped: int

    @property
    def scale(self) -> float:
        """What the elements that are kept are multiplied by."""
        return LEVELS / (LEVELS - self.dropped)

    def kept(self, dtype: torch.dtype) -> Tensor:
        """1 where an element is kept, else 0."""
        kept = torch.empty(self.bits.shape, dtype=dtype, device=self.bits.device)
        torch.ge(self.bits, self.dropped - LEVELS // 2, out=kept)  # faster than a mask of bools and its cast
        return kept

    def factors(self, dtype: torch.dtype) -> Tensor:
        """`scale` where an element is kept, else 0."""
        return self.kept(dtype).mul_(self.scale)


def draw_zeros(shape: Sequence[int], p: float, device: torch.device) -> Zeros | None:
    """Drops each element with probability p, 0 <= p < 1; None: nothing is dropped.

    >>> draw_zeros([1000], 0.5, torch.device("cpu")).factors(torch.float32).unique()
    tensor([0., 2.])
    """
    dropped = min(round(p * LEVELS), LEVELS - 1)  # something is kept, and can be scaled
    if not dropped:
        return None
    count = torch.Size(shape).numel()
    words = torch.empty(-(-count // 8), dtype=torch.int64, device=device).random_(-(2**63), None)
    return Zeros(words.view(torch.int8)[:count].view(*shape), dropped)


class QuickDropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014, section 10), the zeros drawn from 8 random bits each.

    Unbiased, and reproducible from torch's seed; not the same zeros as `nn.Dropout` from the same seed.
    """

    def __init__(self, p: float) -> None:
        """Drops each element with probability p, 0 <= p < 1."""
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The input (...), in training with a share p of its elements zero and the others divided by 1 - p."""
        return quick_dropout(x, self.p) if self.training else x


def quick_dropout(x: Tensor, p: float) -> Tensor:
    """A tensor of which a share p of the elements is zero, and the others are divided by 1 - p, 0 <= p < 1.

    >>> quick_dropout(torch.ones(1000), 0.5).unique()
    tensor([0., 2.])
    """
    zeros = draw_zeros(x.shape, p, x.device)
    if zeros is None:
        return x
    out: Tensor = _Dropped.apply(x, zeros.bits, zeros.dropped)  # type: ignore[no-untyped-call]
    return out


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: Tensor, dropped: int) -> Tensor:
        ctx.save_for_backward(bits)
        ctx.dropped = dropped
        return Zeros(bits, dropped).factors(x.dtype).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (bits,) = ctx.saved_tensors
        return Zeros(bits, ctx.dropped).factors(gradient.dtype).mul_(gradient), None, None


def set_dropout(module: nn.Module, p: float) -> bool:
    """Sets the probability of every dropout inside a module, and makes those that run on a CPU quick ones.

    Returns whether there is any.

    >>> set_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), 0.3), set_dropout(nn.Sequential(nn.Tanh()), 0.3)
    (True, False)
    """
    quick, found = not torch.cuda.is_available(), False
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout | QuickDropout):
                setattr(parent, name, QuickDropout(p) if quick else nn.Dropout(p))
                found = True
    return found
