"""Who makes the files of a long job: this process, or the workers of a Ray cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from qpairs.core.exceptions import UserError


@dataclass(frozen=True)
class Job:
    """A file to make.

    Attributes:
        file: its path in the output folder.
        texts: (n,) the texts of its rows.
        ids: (n,) their identities; none where the texts stand for themselves.
        places: (n,) where the vector of a text is kept already; -1 where the text is to be encoded. None for all -1.
    """

    file: str
    texts: Sequence[str]
    ids: Sequence[str] | None = None
    places: Sequence[int] | None = None


@dataclass(frozen=True)
class Part:
    """A file that was made: its path in the folder, its rows, the texts encoded for it, and its checksum."""

    file: str
    rows: int
    encoded: int
    sha256: str


Jobs = Callable[[], Iterable[Job]]
Make = Callable[[Job], Part]
Engine = Callable[[Jobs, Make], Iterator[Part]]


def in_order(jobs: Jobs, make: Make) -> Iterator[Part]:
    """The plain engine: one job after the other, in this process."""
    return map(make, jobs())


def on_ray(address: str | None = None) -> Engine:
    """An engine of Ray Data, with a worker for each GPU of a cluster or, where it has none, for each CPU.

    The job list is read by one task and streamed to the workers; a job whose worker dies is done again by another. All
    machines must see the input, the checkpoint and the output folder under the same paths.

    Args:
        address: of the cluster, `auto` or HOST:PORT; None: one on this machine, for this call.

    Raises:
        UserError: Ray is not installed, or no cluster answers; from the engine, also what a worker reports.
    """
    try:
        import pyarrow
        import ray.data
    except ImportError:
        raise UserError("the engine ray is not installed; pip install 'qpairs[ray]'") from None

    def run(jobs: Jobs, make: Make) -> Iterator[Part]:
        def rows(_: Any) -> Iterator[Any]:
            for job in jobs():
                yield pyarrow.Table.from_pylist([asdict(job)])

        class Worker:  # Ray makes one in each process
            def __call__(self, batch: Any) -> Any:
                (row,) = batch.to_pylist()
                part, fault = Part(row["file"], 0, 0, ""), ""
                try:
                    part = make(Job(**row))
                except UserError as error:  # raised here, it would come back in Ray's wrapping
                    fault = str(error)
                return pyarrow.Table.from_pylist([{**asdict(part), "fault": fault}])

        with _cluster(address) as resources:
            context = ray.data.DataContext.get_current().copy()
            context.enable_progress_bars = False
            context.target_max_block_size = 1  # bytes: each job is a block of its own
            size, needs = workers(resources)
            with ray.data.DataContext.current(context):
                listed = ray.data.from_items([0]).map_batches(rows, num_cpus=0, batch_size=None)
                made = listed.map_batches(
                    Worker,
                    compute=ray.data.ActorPoolStrategy(size=size),
                    batch_size=1,
                    batch_format="pyarrow",
                    **needs,
                )
            for row in made.iter_rows():
                if fault := row.pop("fault"):
                    raise UserError(fault)
                yield Part(**row)

    return run


def workers(resources: Mapping[str, float]) -> tuple[int, dict[str, float]]:
    """How many workers a cluster takes, and what each of them needs: a GPU where there are any, else a CPU."""
    if gpus := int(resources.get("GPU", 0)):
        return gpus, {"num_gpus": 1}
    return max(1, int(resources.get("CPU", 1))), {"num_cpus": 1}


@contextmanager
def _cluster(address: str | None) -> Iterator[Mapping[str, float]]:
    """The resources of a cluster, which is left as it was found; one on this machine ends with the context."""
    import ray

    joined = not ray.is_initialized()
    if joined:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            host, _, port = (address or "").rpartition(":")
            if host:
                socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself asks for minutes
            ray.init(address or "local", log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"no Ray cluster answers at {address or 'this machine'}: {reason}") from error
    try:
        yield ray.cluster_resources()
    finally:
        if joined:
            ray.shutdown()
