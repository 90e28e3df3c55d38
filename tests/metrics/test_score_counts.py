import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qpairs.metrics import ScoreCounts, count_scores
from qpairs.metrics.score_counts import EDGES


def unit(n: int, seed: int, d: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(2, 60), st.integers(0, 5))
def test_all_pairs_of_a_small_table_are_counted_once(n: int, seed: int) -> None:
    vectors = unit(n, seed)
    scores = (vectors @ vectors.T)[np.triu_indices(n, 1)].astype(np.float64)
    counts = count_scores(vectors)
    assert counts.n == n
    assert counts.counts.sum() == n * (n - 1) / 2
    for edge in (-1.0, -0.5, 0.0, 0.5):
        close = (np.abs(scores - edge) < 1e-5).sum()
        assert abs(counts.at_or_above(edge) - (scores >= edge).sum()) <= close


def test_a_sample_of_the_questions_stands_for_the_table() -> None:
    vectors = unit(1500, 0)
    whole, sample = count_scores(vectors), count_scores(vectors, queries=300)
    assert abs(sample.counts.sum() / whole.counts.sum() - 1) < 1e-9
    np.testing.assert_allclose(sample.at_or_above([0.0, 0.3, 0.6]), whole.at_or_above([0.0, 0.3, 0.6]), rtol=0.1)
    assert (count_scores(vectors, queries=300).counts == sample.counts).all()  # the same sample each time


def test_counts_move_between_bins_sizes_and_json() -> None:
    counts = count_scores(unit(50, 1))
    edges = np.linspace(-1, 1, 21)
    assert abs(counts.rebinned(edges).sum() - 50 * 49 / 2) < 1e-9
    assert abs(counts.scaled(500).counts.sum() - 500 * 499 / 2) < 1e-6
    again = ScoreCounts.from_dict(counts.to_dict())
    assert again.n == 50
    np.testing.assert_allclose(again.counts, counts.counts, atol=1e-3)


def test_the_score_of_a_question_with_itself_in_other_words_is_in_the_last_bin() -> None:
    vectors = unit(3, 2)
    counts = count_scores(np.concatenate([vectors, vectors[:1]]))
    assert counts.counts[-1] == 1
    assert counts.at_or_above(EDGES[-2]) == 1


def test_two_towers_are_counted_over_ordered_pairs() -> None:
    rows, columns = unit(20, 3), unit(20, 4)
    scores = (rows @ columns.T)[~np.eye(20, dtype=bool)]
    counts = count_scores(rows, others=columns)
    assert counts.counts.sum() == 190
    assert abs(counts.at_or_above(0.2) - (scores >= 0.2).sum() / 2) < 1
