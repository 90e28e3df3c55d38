import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_index import clustered

from qpairs.core.exceptions import UserError
from qpairs.retrieval import blocks, cells, matches
from qpairs.retrieval.clusters import clusters
from qpairs.retrieval.matches import Matches, find_matches


def pairs_of(found: Matches) -> dict[tuple[int, int], float]:
    return {(int(a), int(b)): float(s) for a, b, s in zip(found.left, found.right, found.similarity, strict=True)}


def naive(vectors: np.ndarray, threshold: float, others: np.ndarray | None = None) -> dict[tuple[int, int], float]:
    """All pairs by two loops."""
    columns = vectors if others is None else others
    return {
        (i, j): float(row @ column)
        for i, row in enumerate(vectors)
        for j, column in enumerate(columns)
        if (others is not None or i < j) and float(row @ column) >= threshold
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 40), st.integers(0, 99), st.booleans())
def test_all_pairs_are_those_of_two_loops(n: int, m: int, side: int, seed: int, within: bool) -> None:
    random = np.random.default_rng(seed)
    vectors, others = (random.integers(-1, 2, (k, 4)).astype(np.float32) for k in (n, m))  # whole numbers: exact ties
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "SIZE", side)
        for threshold in (1.0, 2.0):
            found = find_matches(vectors / 2, threshold / 4, others=None if within else others / 2)
            expected = naive(vectors / 2, threshold / 4, None if within else others / 2)
            assert pairs_of(found) == expected
            assert list(pairs_of(found)) == sorted(expected)
            assert (found.recall, found.sampled) == (1, 0)


def test_a_threshold_between_two_numbers_of_single_precision() -> None:
    similarity = np.float32(0.7)
    vectors = np.array([[1, 0], [similarity, np.sqrt(1 - similarity**2)]], dtype=np.float32)
    assert len(find_matches(vectors, float(similarity))) == 1
    assert len(find_matches(vectors, np.nextafter(float(similarity), 1))) == 0


VECTORS = clustered(6000, 24, spread=0.5)


def test_faiss_is_needed_for_very_many_questions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # not installed
    assert len(find_matches(VECTORS, 0.8)) > 0
    monkeypatch.setattr(matches, "EXACT", 0)
    with pytest.raises(UserError, match="duplicates of so many questions needs faiss: pip install"):
        find_matches(VECTORS, 0.8)


@pytest.mark.parametrize("others", [None, clustered(6000, 24, spread=0.5)[::3] + np.float32(0.02)])
def test_cells_find_nearly_all_pairs_and_say_how_many(
    others: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if others is not None:
        others = others / np.linalg.norm(others, axis=1, keepdims=True)
    everything = find_matches(VECTORS, 0.8, others=others)
    compared = 0
    compare_block = blocks._compare_block

    def counted(comparison: blocks.Comparison, block: blocks.Block) -> blocks.Pairs:
        nonlocal compared
        compared += len(block[0]) * len(block[1])
        return compare_block(comparison, block)

    monkeypatch.setattr(matches, "EXACT", 0)
    monkeypatch.setattr(cells, "SAMPLE", 300)
    monkeypatch.setattr(cells, "CELL", (6000 if others is None else 2000) // 150)
    monkeypatch.setattr(blocks, "_compare_block", counted)
    for recall in (0.9, 0.999):
        compared = 0
        found = find_matches(VECTORS, 0.8, others=others, recall=recall)
        share = len(found) / len(everything)
        assert share >= recall - 0.05
        assert found.recall == pytest.approx(share, abs=0.03)
        assert found.sampled > 100
        assert pairs_of(found).keys() <= pairs_of(everything).keys()
        again = find_matches(VECTORS, 0.8, others=others, recall=recall)
        assert pairs_of(again) == pairs_of(found)
        assert compared / 2 < (0.6 if recall < 0.99 else 0.9) * len(VECTORS) * len(
            VECTORS if others is None else others
        )
    assert len(find_matches(VECTORS, 0.8, others=others, recall=1)) == len(everything)


def test_the_gap_reaches_beyond_a_small_sample() -> None:
    random = np.random.default_rng(0)
    for pairs, tolerance in ((50_000, 0.15), (100, 0.6)):
        gaps = random.exponential(0.01, pairs).astype(np.float32)
        assert cells.gap_for(gaps, 0.9999) == pytest.approx(-0.01 * np.log(1e-4), rel=tolerance)
        assert cells.gap_for(gaps, 0.5) == pytest.approx(-0.01 * np.log(0.5), rel=tolerance)
    none_divided = np.zeros(100, dtype=np.float32)
    assert cells.gap_for(none_divided, 0.9) == cells.gap_for(none_divided[:0], 0.9) == cells.GAP


def test_a_few_new_questions_are_compared_with_all_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "EXACT", 0)
    found = find_matches(VECTORS[:50], 0.8, others=VECTORS)
    assert (found.recall, found.sampled) == (1, 0)


def test_nothing_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "EXACT", 0)
    monkeypatch.setattr(cells, "SAMPLE", 100)
    monkeypatch.setattr(cells, "CELL", 100)
    found = find_matches(VECTORS[:2000], 0.99999)
    assert len(found) == found.sampled == 0
    assert np.isnan(found.recall)
    assert list(clusters(5, found)) == [0, 1, 2, 3, 4]


def test_far_too_many_pairs_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_PAIRS", 1000)
    with pytest.raises(UserError, match=r"over 1,000 pairs are at or above -1\.000"):
        find_matches(VECTORS[:200], -1.0)


def test_progress_counts_the_comparisons() -> None:
    reports = []
    find_matches(VECTORS[:3000], 0.8, on_progress=reports.append)
    assert {now.stage for now in reports} == {"comparing"}
    assert (reports[0].done, reports[-1].done) == (0, reports[-1].total)
    assert reports[-1].total == 2048**2 + 952**2 + 2048 * 952  # each pair of spans once
