"""A queue whose waiting items one thread processes together.

A batch is never delayed to grow: while the thread processes one, the next one fills up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Full
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class BatchQueue(Generic[Item]):
    """A context with a thread that processes submitted items in batches; leaving it first finishes them.

    >>> with BatchQueue(lambda items: [2 * item for item in items], lambda _: 1, batch_size=8, capacity=20) as queue:
    ...     queue.submit(21).result()
    42
    """

    def __init__(
        self,
        process: Callable[[Sequence[Item]], Sequence[object]],
        size: Callable[[Item], int],
        *,
        batch_size: int,
        capacity: int,
    ) -> None:
        """Stores the settings; entering the context starts the thread.

        Args:
            process: items to their results; a result that is an exception is raised from the item's future.
            size: of an item.
            batch_size: largest total size of a batch, unless a single item is larger.
            capacity: largest number of waiting items.
        """
        self._process = process
        self._size = size
        self._batch_size = batch_size
        self._capacity = capacity
        self._queue: deque[tuple[Item, Future[object]]] = deque()
        self._changed = threading.Condition()
        self._open = False
        self._thread = threading.Thread()

    def __enter__(self) -> Self:
        """Starts the thread."""
        self._open = True
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes the submitted items, and stops the thread."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def __len__(self) -> int:
        """Number of waiting items."""
        return len(self._queue)

    @property
    def alive(self) -> bool:
        """Whether items are processed."""
        return self._open and self._thread.is_alive()

    def submit(self, item: Item) -> Future[object]:
        """Queues an item; it is skipped if its future is cancelled before its turn.

        Raises:
            queue.Full: too many items are waiting, or the thread does not run.
        """
        future: Future[object] = Future()
        with self._changed:
            if len(self._queue) >= self._capacity or not self._open:
                raise Full
            self._queue.append((item, future))
            self._changed.notify()
        return future

    def _run(self) -> None:
        while self._open or self._queue:
            batch = self._next_batch()
            if not batch:
                continue
            items, futures = zip(*batch, strict=True)
            try:
                results = self._process(items)
            except Exception as error:
                results = [error] * len(items)
            for future, result in zip(futures, results, strict=True):
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _next_batch(self) -> list[tuple[Item, Future[object]]]:
        """Waits for items, and takes those that fit into a batch."""
        batch: list[tuple[Item, Future[object]]] = []
        room = self._batch_size
        with self._changed:
            self._changed.wait_for(lambda: self._queue or not self._open)
            while self._queue and (not batch or self._size(self._queue[0][0]) <= room):
                item, future = self._queue.popleft()
                if future.set_running_or_notify_cancel():
                    batch.append((item, future))
                    room -= self._size(item)
        return batch
