"""The two halves of a transformer block over packed tokens, each with its own gradient.

Tokens are packed where those of one question directly follow those of another, without padding: (tokens, d). Attention
is within a question; questions of one length that follow each other are a run, and are multiplied together.

Autograd over the single operations keeps every product, reads each of them several times, and adds up what comes back
by two ways. Here what is cheap is computed again from little that is kept, and the gradient of a residual is where a
product adds its own. The blocks normalise after each half, as BERT does (Devlin et al. 2019; Vaswani et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qpairs.encoders.dropout import LEVELS, Zeros, draw_zeros

CACHED = 512  # tokens whose inner activations stay in a CPU's cache from one operation to the next
Runs = Sequence[tuple[int, int]]  # questions of one length that follow each other: how many, and that length


@dataclass(frozen=True)
class Half:
    """What the half of a block needs besides its tensors.

    Attributes:
        runs: how the tokens are divided into questions.
        heads: of attention.
        eps: of the normalisation.
        p: dropout of what is added to the residual.
        p_attention: dropout of the attention's probabilities.
    """

    runs: Runs
    heads: int
    eps: float
    p: float
    p_attention: float = 0.0


def attention_half(
    x: Tensor,
    projections: tuple[Tensor, Tensor],
    out: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    half: Half,
    bias: Tensor | None = None,
) -> Tensor:
    """Self-attention, what it adds to the residual, and the normalisation: (tokens, d) float32 to the same.

    Args:
        x: (tokens, d) float32.
        projections: weight (3 d, d) and bias (3 d,) of queries, keys and values; their type is that of the products.
        out: weight (d, d) and bias (d,) of what the heads have found.
        norm: scale and shift (d,) of the normalisation, float32.
        half: runs, heads and dropout.
        bias: (heads, n, n) float32 that is added to the scores before the softmax; n at least the longest length.

    >>> d = torch.eye(4), torch.zeros(4)
    >>> norm = torch.ones(4), torch.zeros(4)
    >>> three = torch.eye(4).repeat(3, 1), torch.zeros(12)
    >>> attention_half(torch.randn(5, 4), three, d, norm, Half([(1, 2), (1, 3)], heads=2, eps=1e-12, p=0.0)).shape
    torch.Size([5, 4])
    """
    found: Tensor = _Attention.apply(half, x, *projections, *out, *norm, bias)  # type: ignore[no-untyped-call]
    return found


def feed_forward_half(
    x: Tensor, inner: tuple[Tensor, Tensor], outer: tuple[Tensor, Tensor], norm: tuple[Tensor, Tensor], half: Half
) -> Tensor:
    """Two linear layers with GELU between, what they add to the residual, and the normalisation.

    Args:
        x: (tokens, d) float32.
        inner: weight (k, d) and bias (k,) of the first layer; their type is that of the products.
        outer: weight (d, k) and bias (d,) of the second.
        norm: scale and shift (d,) of the normalisation, float32.
        half: dropout.

    >>> inner, outer = (torch.ones(8, 4), torch.zeros(8)), (torch.ones(4, 8), torch.zeros(4))
    >>> norm = torch.ones(4), torch.zeros(4)
    >>> feed_forward_half(torch.randn(5, 4), inner, outer, norm, Half([], heads=2, eps=1e-12, p=0.0)).shape
    torch.Size([5, 4])
    """
    found: Tensor = _FeedForward.apply(half, x, *inner, *outer, *norm)  # type: ignore[no-untyped-call]
    return found


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        half: Half,
        x: Tensor,
        weight: Tensor,
        shift: Tensor,
        out: Tensor,
        out_shift: Tensor,
        scale: Tensor,
        offset: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        qkv = torch.addmm(shift, x.to(weight.dtype), weight.t())
        context, kept = _attend(qkv, half, bias)
        added = torch.addmm(out_shift, context, out.t())
        normed, *residual = _add_and_norm(x, added, scale, offset, half)
        ctx.half, ctx.bias_shape = half, None if bias is None else bias.shape
        ctx.save_for_backward(x, weight, out, scale, offset, context, *residual, *(t for run in kept for t in run))
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out, scale, offset, context, total, mean, deviation, bits, *flat = ctx.saved_tensors
        kept = list(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))
        of_x, of_added, of_scale, of_offset = _norm_gradient(
            gradient, (total, mean, deviation, bits), scale, offset, ctx.half, weight.dtype
        )
        of_context = of_added @ out
        of_out, of_out_shift = of_added.t() @ context, of_added.sum(0)
        of_bias = None if ctx.bias_shape is None else x.new_zeros(ctx.bias_shape)
        of_qkv = _attend_gradient(of_context, kept, ctx.half, of_bias)
        of_weight, of_shift = of_qkv.t() @ x.to(weight.dtype), of_qkv.sum(0)
        _add_product(of_x, of_qkv, weight)
        return None, of_x, of_weight, of_shift, of_out, of_out_shift, of_scale, of_offset, of_bias


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        half: Half,
        x: Tensor,
        weight: Tensor,
        shift: Tensor,
        out: Tensor,
        out_shift: Tensor,
        scale: Tensor,
        offset: Tensor,
    ) -> Tensor:
        inner = weight.new_empty(len(x), len(weight))
        added = weight.new_empty(x.shape)
        for rows in _blocks(x):
            torch.addmm(shift, x[rows].to(weight.dtype), weight.t(), out=inner[rows])
            torch.addmm(out_shift, torch.nn.functional.gelu(inner[rows]), out.t(), out=added[rows])
        normed, *residual = _add_and_norm(x, added, scale, offset, half)
        ctx.half = half
        ctx.save_for_backward(x, weight, out, scale, offset, inner, *residual)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out, scale, offset, inner, *residual = ctx.saved_tensors
        of_x, of_added, of_scale, of_offset = _norm_gradient(gradient, residual, scale, offset, ctx.half, weight.dtype)
        of_weight, of_out = torch.zeros_like(weight), torch.zeros_like(out)
        of_shift, of_out_shift = weight.new_zeros(len(weight)), of_added.sum(0)
        for rows in _blocks(x):
            of_out.addmm_(of_added[rows].t(), torch.nn.functional.gelu(inner[rows]))
            of_inner = torch.ops.aten.gelu_backward(of_added[rows] @ out, inner[rows])
            of_weight.addmm_(of_inner.t(), x[rows].to(weight.dtype))
            of_shift += of_inner.sum(0)
            _add_product(of_x[rows], of_inner, weight)
        return None, of_x, of_weight, of_shift, of_out, of_out_shift, of_scale, of_offset


def _blocks(x: Tensor) -> Iterator[slice]:
    """The tokens, on a CPU so many at a time that what is between two products stays in its cache."""
    size = CACHED if x.device.type == "cpu" else max(1, len(x))
    return (slice(start, start + size) for start in range(0, len(x), size))


def _add_product(x: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a b to x, in one operation where the types are the same."""
    if x.dtype == a.dtype:
        x.addmm_(a, b)
    else:
        x += a @ b


# Residual and normalisation


def _add_and_norm(x: Tensor, added: Tensor, scale: Tensor, offset: Tensor, half: Half) -> tuple[Tensor, ...]:
    """The normalised sum (tokens, d), and what its gradient needs: the sum, mean, deviation and random bits."""
    zeros = draw_zeros(added.shape, half.p, x.device)
    added = added.to(x.dtype)
    if zeros is None:
        total, bits = added.add_(x), x.new_empty(0)
    else:
        total, bits = torch.addcmul(x, added, zeros.kept(x.dtype), value=zeros.scale), zeros.bits
    normed, mean, deviation = torch.native_layer_norm(total, scale.shape, scale, offset, half.eps)
    return normed, total, mean, deviation, bits


def _norm_gradient(
    gradient: Tensor, kept: Sequence[Tensor], scale: Tensor, offset: Tensor, half: Half, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x (fresh), of what was added to it (as `dtype`), of scale and of offset."""
    total, mean, deviation, bits = kept
    of_total, of_scale, of_offset = torch.ops.aten.native_layer_norm_backward(
        gradient.contiguous(), total, list(scale.shape), mean, deviation, scale, offset, [True] * 3
    )
    of_added = of_total
    if bits.numel():
        of_added = _zeros(bits, half.p).factors(of_total.dtype).mul_(of_total)
    elif of_added.dtype == dtype:
        of_added = of_total.clone()  # of_total is changed in place
    return of_total, of_added.to(dtype), of_scale, of_offset


def _zeros(bits: Tensor, p: float) -> Zeros:
    return Zeros(bits, round(p * LEVELS))


# Attention within each question


def _attend(qkv: Tensor, half: Half, bias: Tensor | None) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """What the heads find, (tokens, d), and of each run: queries, keys and values; probabilities; random bits."""
    d = qkv.shape[1] // 3
    found, kept, start = qkv.new_empty(len(qkv), d), [], 0
    for n, length in half.runs:
        rows = slice(start, start + n * length)
        parts = (
            qkv[rows].view(n, length, 3, half.heads, -1).permute(2, 0, 3, 1, 4).reshape(3, n * half.heads, length, -1)
        )
        query, key, value = parts  # (n heads, length, d / heads) each
        scores = torch.empty(len(query), length, length, dtype=qkv.dtype, device=qkv.device)
        _scaled_product(query, key.transpose(1, 2), query.shape[-1], scores)
        if bias is not None:
            scores.view(n, half.heads, length, length).add_(bias[:, :length, :length])
        probability = torch.softmax(scores.float(), -1)  # torch's softmax of short rows is slow in bfloat16
        zeros = draw_zeros(probability.shape, half.p_attention, qkv.device)
        weights = probability if zeros is None else zeros.factors(probability.dtype).mul_(probability)
        _heads(found[rows], n, half.heads).copy_(
            torch.bmm(weights.to(qkv.dtype), value).view(n, half.heads, length, -1)
        )
        kept.append((parts, probability, qkv.new_empty(0) if zeros is None else zeros.bits))
        start += n * length
    return found, kept


def _attend_gradient(
    gradient: Tensor, kept: Sequence[tuple[Tensor, Tensor, Tensor]], half: Half, of_bias: Tensor | None
) -> Tensor:
    """The gradient (tokens, 3 d) of queries, keys and values; that of the bias is added to `of_bias`."""
    of_qkv, start = gradient.new_empty(len(gradient), 3 * gradient.shape[1]), 0
    for (n, length), (parts, probability, bits) in zip(half.runs, kept, strict=True):
        rows = slice(start, start + n * length)
        query, key, value = parts
        of_found = _heads(gradient[rows], n, half.heads).reshape(n * half.heads, length, -1)
        of_weights = torch.bmm(of_found, value.transpose(1, 2)).float()
        weights = probability
        if bits.numel():
            factors = _zeros(bits, half.p_attention).factors(probability.dtype)
            weights, of_weights = factors * probability, of_weights.mul_(factors)
        of_scores = torch._softmax_backward_data(of_weights, probability, -1, probability.dtype)
        if of_bias is not None:
            of_bias[:, :length, :length] += of_scores.view(n, half.heads, length, length).sum(0)
        of_scores = of_scores.to(gradient.dtype)
        of_parts = torch.empty_like(parts)
        _scaled_product(of_scores, key, key.shape[-1], of_parts[0])
        _scaled_product(of_scores.transpose(1, 2), query, key.shape[-1], of_parts[1])
        torch.bmm(weights.to(gradient.dtype).transpose(1, 2), of_found, out=of_parts[2])
        of_qkv[rows].view(n, length, 3, half.heads, -1).copy_(
            of_parts.view(3, n, half.heads, length, -1).permute(1, 3, 0, 2, 4)
        )
        start += n * length
    return of_qkv


def _scaled_product(a: Tensor, b: Tensor, size: int, out: Tensor) -> None:
    """Writes a b / sqrt(size): attention's scores, and what their gradient brings to queries and keys."""
    torch.baddbmm(out.new_empty(1, 1, 1), a, b, beta=0, alpha=size**-0.5, out=out)


def _heads(rows: Tensor, n: int, heads: int) -> Tensor:
    """(n questions, heads, length, d / heads) of (n length, d)."""
    return rows.view(n, -1, heads, rows.shape[1] // heads).transpose(1, 2)
