"""What scores mean in a corpus, where the duplicates that are known are those of other questions."""

from dataclasses import replace

import numpy as np
import pytest
from corpora import fitted, intents, questions

from qpairs import metrics
from qpairs.metrics.corpus import SAME

THERE = replace(fitted(), borrowed=True, domain_sd=0.9)


def corpus(n: int, seed: int, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and intents of questions, of which a share of the intents keeps its second phrasing."""
    vectors, intent = questions(n, seed), intents(n)
    lone = np.random.default_rng(seed).random(n // 2 + 1) >= share
    kept = ~(lone[intent] & (np.arange(n) % 2 == 1))
    return vectors[kept], intent[kept]


def found(vectors: np.ndarray, intent: np.ndarray, threshold: float) -> tuple[float, float]:
    left, right = np.triu_indices(len(vectors), 1)
    scores, same = (vectors @ vectors.T)[left, right], intent[left] == intent[right]
    called = scores >= threshold
    return float(same[called].mean()), float(same[called].sum() / same.sum())


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
@pytest.mark.parametrize("n", [400, 2000])
def test_found_precision_is_inside_its_interval_in_rich_and_in_poor_corpora(n: int, share: float) -> None:
    inside = 0
    for seed in range(1, 6):
        vectors, intent = corpus(n, seed, share)
        estimate = metrics.estimate_corpus(THERE, metrics.count_scores(vectors))
        expected = estimate.expected(estimate.best_threshold())
        low, high = expected.precision_interval
        inside += low <= found(vectors, intent, expected.threshold)[0] <= high
        assert high - low > 0.2
        assert estimate.borrowed and estimate.labels == 0
    assert inside >= 4


@pytest.mark.parametrize("n", [1, 2, 3, 10, 40])
def test_a_small_corpus_has_an_estimate(n: int) -> None:
    estimate = metrics.estimate_corpus(THERE, metrics.count_scores(questions(n, 3)))
    assert np.isfinite(estimate.log_odds).all() and np.isfinite(estimate.factors).all()
    assert 0 <= estimate.expected(estimate.best_threshold()).precision <= 1


def test_log_odds_rise_and_no_more_duplicates_are_expected_than_there_are_pairs() -> None:
    estimate = metrics.estimate_corpus(THERE, metrics.count_scores(questions(600, 7)))
    assert (np.diff(estimate.log_odds) >= -1e-12).all()
    curves = estimate.curves
    assert (curves.right[0] <= curves.pairs + 1e-9).all()


def test_a_corpus_whose_vectors_are_all_alike_has_an_estimate() -> None:
    alike = np.tile(questions(1, 0), (50, 1))
    estimate = metrics.estimate_corpus(THERE, metrics.count_scores(alike))
    assert np.isfinite(estimate.log_odds).all()


def test_the_densities_of_a_corpus_that_was_fitted_give_its_estimate_again() -> None:
    counts = metrics.count_scores(questions(600, 5))
    first = metrics.estimate_corpus(THERE, counts)
    own = metrics.own_densities(first, THERE)
    again = metrics.estimate_corpus(own, counts)
    one, other = (estimate.expected(estimate.best_threshold()) for estimate in (first, again))
    assert other.precision == pytest.approx(one.precision, abs=0.03)
    assert other.threshold == pytest.approx(one.threshold, abs=0.02)
    assert again.borrowed


def test_labels_count_more_than_what_is_borrowed() -> None:
    vectors, intent = corpus(1000, 9)
    counts = metrics.count_scores(vectors)
    before = metrics.estimate_corpus(THERE, counts)
    rng, (left, right) = np.random.default_rng(0), np.triu_indices(len(vectors), 1)
    scores, same = (vectors @ vectors.T)[left, right], intent[left] == intent[right]
    top = np.argsort(-scores)[: 4 * len(vectors)]
    drawn = rng.choice(top, 200, replace=False)
    after = metrics.with_labels(before, scores[drawn], same[drawn])
    threshold = before.best_threshold()
    true = found(vectors, intent, threshold)[0]
    assert abs(after.expected(threshold).precision - true) < 0.12
    widths = [np.diff(each.expected(threshold).precision_interval)[0] for each in (before, after)]
    assert widths[1] < 0.6 * widths[0]


@pytest.mark.parametrize("n", [4, 10, 24, 50])
def test_a_small_corpus_in_which_nothing_is_known_loses_only_what_is_likelier_a_duplicate(n: int) -> None:
    for seed in range(5):
        vectors, _ = corpus(n, seed, share=0.0)  # no duplicates at all
        estimate = metrics.estimate_corpus(THERE, metrics.count_scores(vectors))
        best, taken = estimate.best_threshold(), estimate.default_threshold()
        assert estimate.expected(best).precision_interval[0] < 0.01
        assert taken > best
        assert (estimate.probability(np.linspace(taken + 0.01, 1, 50)) >= 0.5).all() or taken == SAME
        scores = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
        assert (scores >= taken).sum() <= (scores >= best).sum() / 2


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_where_there_are_duplicates_the_threshold_is_that_of_greatest_f1(share: float) -> None:
    for seed in range(1, 4):
        vectors, _ = corpus(400, seed, share)
        estimate = metrics.estimate_corpus(THERE, metrics.count_scores(vectors))
        assert estimate.default_threshold() == estimate.best_threshold()
