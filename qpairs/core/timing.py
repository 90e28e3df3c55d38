"""Which of two computations is faster on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

TURNS = 8  # the first of each is slow


def best_ratio(run_f32: Callable[[], object], run_bf16: Callable[[], object]) -> float:
    """How many times as fast a computation is in bfloat16 as in float32, from the best of `TURNS` turns of each.

    Args:
        run_f32: computes it in float32.
        run_bf16: in bfloat16; both take turns, so that other work on the machine slows both alike.

    >>> best_ratio(lambda: sum(range(100_000)), lambda: None) > 1
    True
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for run, taken in zip((run_f32, run_bf16), times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return min(times[0]) / min(times[1])
