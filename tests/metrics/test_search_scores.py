"""Scores of a search: against written-out loops, scikit-learn, and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from qpairs import metrics

FEW = settings(deadline=None, max_examples=50)


def drawn(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    m = int(random.integers(1, 30))
    similarity = random.integers(0, 6, m) / 6 if ties else random.permutation(m) / m
    gains = random.integers(0, 4, m).astype(float) * (random.random(m) < 0.4)
    gains[random.integers(m)] = 2.0
    return similarity, gains


@FEW
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_they_agree_with_naive_loops_where_ties_come_last(seed: int, k: int) -> None:
    similarity, gains = drawn(seed, ties=True)
    order = sorted(range(len(gains)), key=lambda i: (-similarity[i], gains[i]))
    relevant = [i for i in order if gains[i] > 0]
    ranks = [order.index(i) + 1 for i in relevant]
    found = metrics.search_scores(*metrics.relevant_ranks(similarity, gains), [k])
    assert found["mrr"] == pytest.approx(1 / ranks[0])
    assert found["map"] == pytest.approx(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]))
    assert found[f"recall_at_{k}"] == pytest.approx(sum(rank <= k for rank in ranks) / len(ranks))
    got = sum(gains[i] / math.log2(place + 2) for place, i in enumerate(order[:k]))
    best = sum(gain / math.log2(place + 2) for place, gain in enumerate(sorted(gains, reverse=True)[:k]))
    assert found[f"ndcg_at_{k}"] == pytest.approx(got / best)


@FEW
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_without_ties_they_agree_with_scikit_learn(seed: int, k: int) -> None:
    similarity, gains = drawn(seed, ties=False)
    found = metrics.search_scores(*metrics.relevant_ranks(similarity, gains), [k])
    assert found["map"] == pytest.approx(label_ranking_average_precision_score([gains > 0], [similarity]))
    if len(gains) > 1:
        assert found[f"ndcg_at_{k}"] == pytest.approx(ndcg_score([gains], [similarity], k=k))


@FEW
@given(st.integers(0, 10_000))
def test_the_order_of_the_corpus_does_not_matter_and_what_is_not_searched_does_not_count(seed: int) -> None:
    similarity, gains = drawn(seed, ties=True)
    order = np.random.default_rng(seed).permutation(len(gains))
    before = metrics.search_scores(*metrics.relevant_ranks(similarity, gains))
    assert metrics.search_scores(*metrics.relevant_ranks(similarity[order], gains[order])) == before
    more = metrics.relevant_ranks(np.append(similarity, -np.inf), np.append(gains, 0.0))
    assert metrics.search_scores(*more) == before


@pytest.mark.parametrize(
    ("similarity", "gains", "words"),
    [([0.1], [1, 2], "one length"), ([math.nan], [1], "NaN"), ([0.1], [-1], "from 0 on")],
)
def test_bad_input_is_refused(similarity, gains, words) -> None:
    with pytest.raises(ValueError, match=words):
        metrics.relevant_ranks(similarity, gains)
    with pytest.raises(ValueError, match="ranks rising"):
        metrics.search_scores([2, 1], [1, 1])


def test_a_mean_has_an_interval_that_covers_it_as_often_as_it_says() -> None:
    random, covered = np.random.default_rng(0), 0
    for seed in range(200):
        low, high = metrics.mean_interval(random.random(60) ** 2, seed=seed, samples=400)
        covered += low <= 1 / 3 <= high
    assert 0.88 <= covered / 200 <= 0.99
    with pytest.raises(ValueError, match="finite"):
        metrics.mean_interval([])
