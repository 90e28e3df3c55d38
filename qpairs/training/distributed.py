"""Several processes train one model: torchrun or accelerate starts them, and each encodes its share of a batch.

The shares are gathered before the loss, which every process computes on the whole batch: any loss and any miner sees
what a single process would see, and the gradient is the same.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from qpairs.core.exceptions import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def initialize() -> None:
    """Joins the process group that the launcher's environment describes, if it has several processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch
        from accelerate import PartialState  # type: ignore[import-untyped]

        PartialState(cpu=not torch.cuda.is_available())


def _group() -> Any:
    """`torch.distributed` if processes have joined; None if not, or if torch is not imported yet."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    return distributed if distributed is not None and distributed.is_initialized() else None


def world() -> int:
    """Number of processes."""
    group = _group()
    return group.get_world_size() if group else 1


def rank() -> int:
    """Number of this process; process 0 writes files and prints."""
    group = _group()
    return group.get_rank() if group else 0


def barrier() -> None:
    """Waits until every process has reached this call."""
    if world() > 1:
        _group().barrier()


def broadcast(value: T) -> T:
    """The value of process 0, in every process."""
    values = [value]
    if world() > 1:
        _group().broadcast_object_list(values, src=0)
    return values[0]


def check_once(check: Callable[[], None]) -> None:
    """Runs a check only in process 0, for example one that takes a lock, which only one process can hold.

    Args:
        check: raises UserError, or returns.

    Raises:
        UserError: that of process 0, in every process.

    >>> check_once(lambda: None)
    """
    failed: UserError | None = None
    if rank() == 0:
        try:
            check()
        except UserError as error:
            failed = error
    if failed := broadcast(failed):
        raise failed


@contextlib.contextmanager
def rank_zero_first() -> Iterator[None]:
    """Runs the block in process 0 first, then in the others."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


@contextlib.contextmanager
def same_draws(seed: int) -> Iterator[None]:
    """Makes torch's random choices in the block the same in every process; a single process is not affected.

    Dropout on shares of different sizes makes the generators of the processes diverge.
    """
    if world() == 1:
        yield
        return
    import torch

    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(seed)
        yield


def gather(share: Tensor, n: int) -> Tensor:
    """The embeddings (n, d) of a batch whose row i was encoded by process i mod world.

    A gradient reaches only the process's own share, times the number of processes: averaged over them, as
    DistributedDataParallel does it, the gradients of the encoder are those of a single process with the whole batch.

    Args:
        share: (ceil((n - rank) / world), d), this process's rows, in order.
        n: rows of the batch.
    """
    processes = world()
    if processes == 1:
        return share
    import torch
    from torch.nn import functional

    size = -(-n // processes)
    own = functional.pad(share, (0, 0, 0, size - len(share)))  # (size, d)
    shares = [torch.empty_like(own) for _ in range(processes)]
    torch.distributed.all_gather(shares, own.detach().contiguous())
    if own.requires_grad:
        own.register_hook(lambda gradient: gradient * processes)  # type: ignore[no-untyped-call]
    shares[rank()] = own
    return torch.stack(shares, 1).flatten(0, 1)[:n]  # row j of process r is row r + j * processes
