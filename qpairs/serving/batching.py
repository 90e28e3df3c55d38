"""A queue, and one thread that works together on what waits in it together.

Nothing waits for company: while the thread is at work on one batch, the next one gathers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Full
from types import TracebackType
from typing import Generic, Self, TypeVar

Job = TypeVar("Job")


class Microbatches(Generic[Job]):
    """A context in which a thread works on jobs; on leaving it, what was submitted is finished first."""

    def __init__(
        self,
        work: Callable[[Sequence[Job]], Sequence[object]],
        size: Callable[[Job], int],
        *,
        largest: int,
        waiting: int,
    ) -> None:
        """Only stores.

        Args:
            work: jobs to their answers; an answer that is an exception is raised to the one who asked.
            size: of a job.
            largest: what the sizes of a batch add up to at most, unless one job alone is larger.
            waiting: jobs that may wait.
        """
        self._work = work
        self._size = size
        self._largest = largest
        self._waiting = waiting
        self._queue: deque[tuple[Job, Future[object]]] = deque()
        self._changed = threading.Condition()
        self._open = False
        self._thread = threading.Thread()

    def __enter__(self) -> Self:
        """Starts the thread."""
        self._open = True
        self._thread = threading.Thread(target=self._run, name="microbatches", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes what was submitted, and stops the thread."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def __len__(self) -> int:
        """Number of jobs that wait."""
        return len(self._queue)

    @property
    def alive(self) -> bool:
        """Whether jobs are worked on."""
        return self._open and self._thread.is_alive()

    def submit(self, job: Job) -> Future[object]:
        """Puts a job into the queue; one whose future is cancelled before its turn is left out.

        Raises:
            queue.Full: too many jobs wait.
        """
        future: Future[object] = Future()
        with self._changed:
            if len(self._queue) >= self._waiting or not self._open:
                raise Full
            self._queue.append((job, future))
            self._changed.notify()
        return future

    def _run(self) -> None:
        while self._open or self._queue:
            batch = self._next()
            if not batch:
                continue
            jobs, futures = zip(*batch, strict=True)
            try:
                answers = self._work(jobs)
            except Exception as error:
                answers = [error] * len(jobs)
            for future, answer in zip(futures, answers, strict=True):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _next(self) -> list[tuple[Job, Future[object]]]:
        """What waits, up to the largest batch."""
        taken: list[tuple[Job, Future[object]]] = []
        room = self._largest
        with self._changed:
            self._changed.wait_for(lambda: self._queue or not self._open)
            while self._queue and (not taken or self._size(self._queue[0][0]) <= room):
                job, future = self._queue.popleft()
                if future.set_running_or_notify_cancel():
                    taken.append((job, future))
                    room -= self._size(job)
        return taken
