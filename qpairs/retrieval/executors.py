"""What runs the jobs of `embed` and `dedupe`: this process, one after the other, or the workers of a Ray cluster."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from qpairs.core.exceptions import UserError
from qpairs.core.extras import require
from qpairs.core.imports import import_all, imported


@dataclass(frozen=True)
class Job:
    """A file to write.

    Attributes:
        file: its path in the output folder.
        texts: (n,) the texts of its rows.
        ids: (n,) their ids; None in a file of repeated texts.
        places: (n,) the row of each text in the files of repeated texts; -1 where the text is to be encoded. None where
            all are to be encoded.
    """

    file: str
    texts: Sequence[str]
    ids: Sequence[str] | None = None
    places: Sequence[int] | None = None


@dataclass(frozen=True)
class WrittenFile:
    """A file that was written: its path in the folder, its rows, the texts encoded for it, and its checksum."""

    file: str
    rows: int
    encoded: int
    sha256: str


class AnyJob(Protocol):
    """What an executor runs: a dataclass that names the file to write."""

    @property
    def file(self) -> str:
        """Its path in the output folder."""


AJob = TypeVar("AJob", bound=AnyJob)


class Executor(Protocol):
    """Runs jobs, each of which writes a file, in any order and in any process."""

    def __call__(
        self, jobs: Callable[[], Iterable[AJob]], write: Callable[[AJob], WrittenFile]
    ) -> Iterator[WrittenFile]:
        """The files that were written, as they come."""


def run_serially(jobs: Callable[[], Iterable[AJob]], write: Callable[[AJob], WrittenFile]) -> Iterator[WrittenFile]:
    """The plain executor: one job after the other, in this process."""
    return map(write, jobs())


def ray_executor(address: str | None = None) -> Executor:
    """An executor of Ray Data, with a worker for each GPU of a cluster or, where it has none, for each CPU.

    One task lists the jobs and streams them to the workers; a job whose worker dies is done again by another. The
    input, the model and the output folder must have the same paths on all machines.

    Args:
        address: of the cluster, `auto` or HOST:PORT; None starts one on this machine, for this call.

    Raises:
        UserError: Ray is not installed, or no cluster answers; from the executor, also what a worker reports.
    """
    data = require("ray.data", "the engine ray")
    import pyarrow

    def run(jobs: Callable[[], Iterable[AJob]], write: Callable[[AJob], WrittenFile]) -> Iterator[WrittenFile]:
        own = imported()  # readers of one's own

        def rows(_: Any) -> Iterator[Any]:
            import_all(own)
            for job in jobs():
                yield pyarrow.table({"job": [pickle.dumps(job)]})

        class Worker:  # Ray makes one in each process
            def __call__(self, batch: Any) -> Any:
                job = pickle.loads(batch["job"][0].as_py())
                written, error = WrittenFile(job.file, 0, 0, ""), ""
                try:
                    written = write(job)
                except UserError as raised:  # Ray would wrap it in an exception of its own
                    error = str(raised)
                return pyarrow.Table.from_pylist([{**asdict(written), "error": error}])

        with _cluster(address) as resources:
            context = data.DataContext.get_current().copy()
            context.enable_progress_bars = False
            context.target_max_block_size = 1  # bytes: each job is a block of its own
            size, needs = workers(resources)
            with data.DataContext.current(context):
                listed = data.from_items([0]).map_batches(rows, num_cpus=0, batch_size=None)
                files = listed.map_batches(
                    Worker,
                    compute=data.ActorPoolStrategy(size=size),
                    batch_size=1,
                    batch_format="pyarrow",
                    **needs,
                )
            for row in files.iter_rows():
                if error := row.pop("error"):
                    raise UserError(error)
                yield WrittenFile(**row)

    return run


def executor_of(engine: str, address: str = "") -> Executor:
    """The executor of a name: plain or ray; the address is that of a Ray cluster, '' for one on this machine.

    >>> executor_of("plain") is run_serially
    True
    """
    return ray_executor(address or None) if engine == "ray" else run_serially


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
