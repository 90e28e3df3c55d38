import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import densities_of, world

from qpairs.metrics import Densities, fit_densities, known_pairs, moved_densities, pairs_within
from qpairs.metrics.densities import LARGE, smoothed


def test_densities_are_those_of_the_table() -> None:
    table = world(600)
    densities = densities_of(table)
    assert densities.per_question == pytest.approx(1.0, abs=0.02)
    edges = densities.edges
    upper = table.scores >= 0.8
    above = float(np.array(densities.duplicates)[edges[:-1] >= 0.8].sum())
    assert above == pytest.approx((table.duplicate & upper).sum(), rel=0.1)
    strangers = densities.stranger_density() * (table.component < 0).sum()
    assert strangers[edges[:-1] >= 0.5].sum() == pytest.approx(
        (table.scores[table.component < 0] >= edges[edges >= 0.5][0]).sum(), rel=0.15
    )
    assert Densities.from_dict(densities.to_dict()) == densities


def test_unlabelled_pairs_are_divided_like_the_labelled_ones_of_like_score() -> None:
    table = world(800, near=1.0)
    related = table.component >= 0
    kinds = table.duplicate[related].astype(np.int8)
    kinds[np.random.default_rng(0).random(len(kinds)) < 0.6] = -1
    densities = fit_densities(table.counts, table.scores[related], kinds, table.component[related])
    assert densities.per_question == pytest.approx(1.0, abs=0.1)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=25))
def test_pairs_within_groups_are_all_pairs_of_equal_numbers(group: list[int]) -> None:
    found = set(zip(*(side.tolist() for side in pairs_within(np.array(group))), strict=True))
    n = len(group)
    assert found == {(i, j) for i in range(n) for j in range(i + 1, n) if group[i] == group[j]}


@given(st.integers(2, 14), st.data())
def test_known_pairs_follow_from_the_labels(n: int, data: st.DataObject) -> None:
    cluster = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    component = cluster // 2  # a cluster lies within one component
    apart = [
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if component[i] == component[j] and cluster[i] != cluster[j] and data.draw(st.booleans())
    ]
    one, other = (np.array([pair[side] for pair in apart], dtype=np.int64) for side in (0, 1))
    left, right, kinds = known_pairs(cluster, component, (one, other))
    told = {frozenset((cluster[i], cluster[j])) for i, j in apart}
    expected = {
        (i, j): 1 if cluster[i] == cluster[j] else 0 if frozenset((cluster[i], cluster[j])) in told else -1
        for i in range(n)
        for j in range(i + 1, n)
        if component[i] == component[j]
    }
    assert dict(zip(zip(left.tolist(), right.tolist(), strict=True), kinds.tolist(), strict=True)) == expected


def test_a_large_component_gives_its_known_pairs_alone() -> None:
    n = LARGE + 50
    cluster = np.arange(n) // 2
    left, _, kinds = known_pairs(cluster, np.zeros(n, np.int64), (np.array([0]), np.array([5])))
    assert len(left) == n // 2 + 1
    assert sorted(set(kinds.tolist())) == [0, 1]


def test_few_duplicates_of_another_forum_move_the_densities() -> None:
    densities = densities_of(world(400))
    lower = np.random.default_rng(0).normal(0.7, 0.05, 200)
    moved = moved_densities(densities, lower)
    place = (np.arange(len(moved.duplicates)) + 0.5) / len(moved.duplicates)
    mean = moved.low + np.average(place, weights=moved.duplicates) * (1 - moved.low)
    assert mean == pytest.approx(0.7, abs=0.02)
    assert densities.low > moved_densities(densities, lower[:5]).low > moved.low
    assert moved_densities(densities, lower[:0]) == densities


@given(st.lists(st.floats(0, 100), min_size=2, max_size=40), st.sampled_from([0.5, 1.5, 3.0]))
def test_smoothing_keeps_the_sum(counts: list[float], width: float) -> None:
    assert smoothed(np.array(counts), width).sum() == pytest.approx(sum(counts))
