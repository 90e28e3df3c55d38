import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from queue import Full

import pytest

from qpairs.serving.batching import BatchQueue


class Gate:
    """Work that doubles numbers, and waits at a gate until it is opened; negative numbers are errors."""

    def __init__(self) -> None:
        self.batches = list[Sequence[int]]()
        self.arrived, self.opened = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[int]) -> Sequence[object]:
        self.batches.append(list(items))
        self.arrived.set()
        assert self.opened.wait(10)
        return [ValueError(item) if item < 0 else 2 * item for item in items]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def test_what_gathers_during_a_batch_is_the_next_one(gate: Gate) -> None:
    with BatchQueue(gate, lambda _: 1, batch_size=8, capacity=20) as queue:
        futures = [queue.submit(0)]
        assert gate.arrived.wait(10)
        futures += [queue.submit(item) for item in range(1, 12)]
        assert len(queue) == 11
        gate.opened.set()
        assert [future.result(10) for future in futures] == [2 * item for item in range(12)]
    assert gate.batches == [[0], [*range(1, 9)], [9, 10, 11]]


def test_a_batch_is_no_larger_than_allowed_unless_one_item_is(gate: Gate) -> None:
    with BatchQueue(gate, lambda item: item, batch_size=8, capacity=20) as queue:
        futures = [queue.submit(1)]
        assert gate.arrived.wait(10)
        futures += [queue.submit(item) for item in (20, 5, 3, 1, 7)]
        gate.opened.set()
        assert [future.result(10) for future in futures] == [2, 40, 10, 6, 2, 14]
    assert gate.batches == [[1], [20], [5, 3], [1, 7]]


def test_an_error_is_that_of_one_item_or_of_all(gate: Gate) -> None:
    gate.opened.set()
    with BatchQueue(gate, lambda _: 1, batch_size=8, capacity=20) as queue:
        good, bad = queue.submit(3), queue.submit(-3)
        assert good.result(10) == 6
        assert isinstance(bad.exception(10), ValueError)

    def fails(items: Sequence[int]) -> Sequence[object]:
        raise OSError("all")

    with BatchQueue(fails, lambda _: 1, batch_size=8, capacity=20) as queue:
        assert isinstance(queue.submit(1).exception(10), OSError)
        assert isinstance(queue.submit(2).exception(10), OSError), "the thread lives on"


def test_a_full_queue_refuses_and_a_cancelled_item_is_left_out(gate: Gate) -> None:
    with BatchQueue(gate, lambda _: 1, batch_size=8, capacity=2) as queue:
        queue.submit(0)
        assert gate.arrived.wait(10)
        cancelled, other = queue.submit(1), queue.submit(2)
        with pytest.raises(Full):
            queue.submit(3)
        assert cancelled.cancel()
        gate.opened.set()
        assert other.result(10) == 4
        with pytest.raises(CancelledError):
            cancelled.result(10)
    assert gate.batches == [[0], [2]]


def test_on_leaving_what_was_submitted_is_finished(gate: Gate) -> None:
    with BatchQueue(gate, lambda _: 1, batch_size=1, capacity=20) as queue:
        futures = [queue.submit(item) for item in range(5)]
        assert queue.alive
        gate.opened.set()
    assert [future.result(0) for future in futures] == [0, 2, 4, 6, 8]
    assert not queue.alive
    with pytest.raises(Full):
        queue.submit(6)
    with queue:
        assert queue.submit(7).result(10) == 14
