"""Whether an encoder is faster in bfloat16 on this machine."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from qpairs.core.timing import best_ratio

_DECIDED: list[bool] = []  # by the blocks of `decided_before`, the innermost last
SPEEDUP = 1.5  # of bfloat16 on a CPU, above which it is used: far from common values, so that noise does not decide


def fast_bf16(encoder: nn.Sequential) -> bool:
    """Whether this machine trains an encoder faster in bfloat16 than in float32; on a CPU, transformers alone do."""
    from qpairs.encoders.readers import is_transformer

    return (torch.cuda.is_available() or is_transformer(encoder)) and transformers_fast_in_bf16()


def transformers_fast_in_bf16() -> bool:
    """Whether this machine runs a transformer faster in bfloat16 than in float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    abilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    able = bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    return able and (_DECIDED[-1] if _DECIDED else bf16_speedup() > SPEEDUP)


@contextlib.contextmanager
def decided_before(fast: bool) -> Iterator[None]:
    """Lets what was measured before hold in the block, so that other work on the machine does not change a run.

    A CPU that has no instructions for bfloat16 is not fast, whatever was measured on another one.

    >>> with decided_before(False):
    ...     torch.cuda.is_available() or transformers_fast_in_bf16()
    False
    """
    _DECIDED.append(fast)
    try:
        yield
    finally:
        _DECIDED.pop()


@functools.cache
def bf16_speedup() -> float:
    """How many times as fast this CPU multiplies matrices in bfloat16 as in float32.

    The instruction set does not decide: an AMD EPYC with AVX512-BF16 reaches 5, an Intel Xeon with it 0.5, with AMX 8.
    """
    operands = [
        (torch.ones(1024, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    ]
    with torch.no_grad():
        return best_ratio(*(functools.partial(functional.linear, *each) for each in operands))


def trains_in_bf16(encoder: nn.Sequential, precision: str) -> bool:
    """Whether an encoder is trained in bfloat16, by a config's `precision`."""
    return precision == "bf16" or (precision == "auto" and fast_bf16(encoder))
