"""Work that several threads share, each of which multiplies matrices on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from qpairs.core.cores import available_cores
from qpairs.core.extras import require

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Like map, on all cores; each thread multiplies matrices on one core."""
    limits = require("threadpoolctl", "comparing many questions").threadpool_limits(1, "blas")
    with limits, ThreadPoolExecutor(available_cores()) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)
