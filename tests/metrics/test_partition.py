from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_scores import REPEATABLE, Ints
from sklearn.metrics import adjusted_rand_score

from qpairs.metrics import PartitionScores, partition_scores


@st.composite
def two_partitions(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    n = draw(st.integers(1, 12))
    numbers = st.lists(st.integers(-2, 4), min_size=n, max_size=n)
    return draw(numbers), draw(numbers)


def slow_scores(found: list[int], gold: list[int]) -> PartitionScores:
    """The definitions, pair by pair and item by item."""
    n = len(found)

    def together(of: list[int]) -> set[tuple[int, int]]:
        return {(i, j) for i, j in itertools.combinations(range(n), 2) if of[i] == of[j]}

    def share(part: set[tuple[int, int]], whole: set[tuple[int, int]]) -> float:
        return len(part & whole) / len(whole) if whole else 0.0

    def bcubed(of: list[int], other: list[int]) -> float:
        mine = [[j for j in range(n) if of[j] == of[i]] for i in range(n)]
        return sum(sum(other[i] == other[j] for j in mine[i]) / len(mine[i]) for i in range(n)) / n

    def harmonic(a: float, b: float) -> float:
        return 2 * a * b / (a + b) if a + b else 0.0

    called, relevant = together(found), together(gold)
    precision, recall = share(relevant, called), share(called, relevant)
    b_precision, b_recall = bcubed(found, gold), bcubed(gold, found)
    return PartitionScores(
        precision,
        recall,
        harmonic(precision, recall),
        b_precision,
        b_recall,
        harmonic(b_precision, b_recall),
        adjusted_rand_score(gold, found),
    )


def figures(scores: PartitionScores) -> list[float]:
    return list(vars(scores).values())


@REPEATABLE
@given(data=two_partitions())
def test_the_scores_are_those_of_the_definitions(data: tuple[list[int], list[int]]) -> None:
    assert figures(partition_scores(*data)) == pytest.approx(figures(slow_scores(*data)))


@REPEATABLE
@given(data=two_partitions(), seed=st.integers(0, 9))
def test_names_of_clusters_and_order_of_items_do_not_matter(data: tuple[list[int], list[int]], seed: int) -> None:
    found, gold = map(np.array, data)
    order = np.random.default_rng(seed).permutation(len(found))
    renamed = partition_scores(100 - 7 * found[order], gold[order].astype(np.int8))
    assert figures(renamed) == pytest.approx(figures(partition_scores(found, gold)))


@REPEATABLE
@given(data=two_partitions())
def test_swapping_the_sides_swaps_precision_and_recall(data: tuple[list[int], list[int]]) -> None:
    one, other = partition_scores(*data), partition_scores(*data[::-1])
    assert (one.precision, one.bcubed_precision) == pytest.approx((other.recall, other.bcubed_recall))
    assert (one.f1, one.bcubed_f1, one.adjusted_rand) == pytest.approx((other.f1, other.bcubed_f1, other.adjusted_rand))


def test_the_example_of_bagga_and_baldwin() -> None:
    """Figure 2 and its discussion: true chains of 5, 2 and 5; joining the small one costs less than the large one."""
    gold = [1] * 5 + [2] * 2 + [3] * 5
    small_joined, large_joined = [1] * 5 + [2] * 7, [1] * 5 + [2] * 2 + [1] * 5
    small, large = partition_scores(small_joined, gold), partition_scores(large_joined, gold)
    assert (small.bcubed_precision, small.bcubed_recall) == pytest.approx((16 / 21, 1.0))
    assert (large.bcubed_precision, large.bcubed_recall) == pytest.approx((7 / 12, 1.0))


@pytest.mark.parametrize(
    ("found", "gold", "expected"),
    [
        ([0, 0, 1, 1], [5, 5, 3, 3], [1, 1, 1, 1, 1, 1, 1]),
        ([0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 1, 0.5, 2 / 3, 0]),  # nothing is joined
        ([0, 0, 0, 0], [0, 0, 1, 1], [1 / 3, 1, 0.5, 0.5, 1, 2 / 3, 0]),  # all is
        ([0, 1, 2], [0, 1, 2], [0, 0, 0, 1, 1, 1, 1]),  # no pair on either side
        ([3], [4], [0, 0, 0, 1, 1, 1, 1]),
    ],
)
def test_the_ends_of_the_scale(found: list[int], gold: list[int], expected: list[float]) -> None:
    assert figures(partition_scores(found, gold)) == pytest.approx(expected)


def test_random_clusters_have_an_adjusted_rand_index_near_zero() -> None:
    rng = np.random.default_rng(0)
    indices = [partition_scores(rng.integers(0, 9, 300), rng.integers(0, 9, 300)).adjusted_rand for _ in range(100)]
    assert np.mean(indices) == pytest.approx(0, abs=0.002)


def test_two_huge_clusters_do_not_overflow() -> None:
    gold = np.repeat([0, 1], 500_000)
    found: Ints = gold.copy()
    found[:1000] = 1
    scores = partition_scores(found, gold)
    assert scores.adjusted_rand == pytest.approx(adjusted_rand_score(gold, found))
    assert 0.99 < scores.precision < scores.bcubed_precision < 1


def test_memory_grows_with_the_items_and_not_with_their_square() -> None:
    source = (
        "import numpy as np, tracemalloc; from qpairs.metrics import partition_scores\n"
        "rng = np.random.default_rng(0); n = 300_000; gold = rng.integers(0, n, n); found = rng.integers(0, n, n)\n"
        "tracemalloc.start(); partition_scores(found, gold); print(tracemalloc.get_traced_memory()[1])"
    )
    peak = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True).stdout
    assert int(peak) < 60e6


@pytest.mark.parametrize(
    ("found", "gold", "message"),
    [
        ([], [], r"found must be one cluster number for each item, not of shape \(0,\)"),
        ([0, 1], [0], "2 found clusters but 1 gold ones"),
        ([[0, 1]], [[0, 1]], r"shape \(1, 2\)"),
        ([0, 1], [0.0, 1.5], "gold must be integers, not float64"),
    ],
)
def test_bad_input_is_named(found: list, gold: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        partition_scores(found, gold)
