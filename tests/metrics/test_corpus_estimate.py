import dataclasses
import itertools

import numpy as np
import pytest
from worlds import World, densities_of, world

from qpairs.metrics import (
    after_more_labels,
    estimate_corpus,
    expected_calibration_error,
    labels_needed,
    like_validation,
    own_densities,
    why_not,
    with_labels,
)
from qpairs.metrics.corpus import CorpusEstimate
from qpairs.metrics.score_counts import ScoreCounts, histogram

VALIDATION = densities_of(world(500))
THRESHOLDS = (0.7, 0.75, 0.8, 0.85, 0.9)
NARROW = world(999, 5, strangers=0.4)  # of one subject: strangers score higher


@pytest.mark.parametrize(
    "corpus",
    [
        world(500, 1),
        world(1500, 2),
        world(250, 3),
        world(1000, 4, per_question=0.2, near=0.4),  # a quarter of the duplicates
        NARROW,
        world(1000, 6, strangers=0.2),
    ],
    ids=["alike", "larger", "smaller", "fewer duplicates", "narrower", "wider"],
)
def test_expected_precision_is_found_in_a_corpus_of_another_size_and_kind(corpus: World) -> None:
    estimate = estimate_corpus(VALIDATION, corpus.counts)
    for threshold in THRESHOLDS:
        expected = estimate.expected(threshold)
        precision, recall = corpus.at(threshold)
        assert expected.pairs == pytest.approx((corpus.scores >= threshold).sum(), rel=0.05, abs=3)
        assert expected.precision == pytest.approx(precision, abs=0.08 if corpus.n != NARROW.n else 0.15)
        assert expected.recall == pytest.approx(recall, abs=0.08)
        assert expected.precision_interval[0] <= precision <= expected.precision_interval[1]
    assert corpus.f1(estimate.best_threshold()) >= corpus.best_f1() - 0.03


def test_expected_precision_and_recall_move_little_between_two_cuts() -> None:
    estimate = estimate_corpus(VALIDATION, world(120, 3).counts)
    for cut in np.arange(0.70, 0.98, 0.01):
        found = [estimate.expected(cut + step) for step in np.linspace(-0.001, 0.001, 21)]
        for one, other in itertools.pairwise(found):
            assert other.precision == pytest.approx(one.precision, abs=0.05)
            assert other.recall == pytest.approx(one.recall, abs=0.02)
            assert other.precision_interval == pytest.approx(one.precision_interval, abs=0.1)


def test_probabilities_are_shares_of_duplicates() -> None:
    corpus = world(1200, 7, per_question=0.5, near=1.0)
    estimate = estimate_corpus(VALIDATION, corpus.counts)
    upper = corpus.scores >= 0.6
    shown = estimate.probability(corpus.scores[upper])
    assert expected_calibration_error(shown, corpus.duplicate[upper]) < 0.05
    rising = estimate.probability(np.linspace(-1, 1, 500))
    assert (np.diff(rising) >= 0).all()
    assert 0 <= rising[0] < 0.01


def test_a_promised_precision_is_kept_or_refused() -> None:
    validation = densities_of(world(500, near=1.0))
    kept = promised = 0
    for seed in range(12):
        duplicates = 0.2 + 0.1 * seed
        corpus = world(400 + 100 * seed, 20 + seed, per_question=duplicates, near=duplicates)
        threshold = estimate_corpus(validation, corpus.counts).threshold_at(0.8)
        if threshold is not None:
            promised += 1
            kept += corpus.at(threshold)[0] >= 0.8
    assert promised >= 9
    assert kept >= 0.9 * promised
    assert estimate_corpus(VALIDATION, world(800, 1, near=4.0).counts).threshold_at(0.8) is None


def strata(corpus: World, labels: int, seed: int) -> np.ndarray:
    """Pairs drawn as the stratified view draws them."""
    rng, order = np.random.default_rng(seed), np.argsort(-corpus.scores)
    ends = [int(corpus.n * 2.0**k) for k in range(-3, 6)]
    parts = [part for part in np.split(order, ends) if len(part)]
    return np.concatenate([rng.choice(part, min(labels // len(parts), len(part)), replace=False) for part in parts])


def test_labels_mend_what_validation_cannot_know() -> None:
    # three times the near misses for each duplicate: no table of another kind can know that
    inside, errors_before, errors_after = 0, [], []
    for seed in range(10):
        corpus = world(600, 40 + seed, per_question=0.5, near=3.0)
        before = estimate_corpus(VALIDATION, corpus.counts)
        drawn = strata(corpus, 100, seed)
        after = with_labels(before, corpus.scores[drawn], corpus.duplicate[drawn])
        threshold = after.best_threshold()
        expected, found = after.expected(threshold), corpus.at(threshold)[0]
        inside += expected.precision_interval[0] <= found <= expected.precision_interval[1]
        errors_before.append(abs(before.expected(threshold).precision - found))
        errors_after.append(abs(expected.precision - found))
        width_before = np.diff(before.expected(threshold).precision_interval)
        assert np.diff(expected.precision_interval) < 0.7 * width_before
    assert inside >= 9
    assert np.mean(errors_after) < 0.6 * np.mean(errors_before)


def test_labels_near_a_threshold_are_no_sample_of_the_corpus() -> None:
    corpus = world(600, 3, per_question=0.5, near=3.0)
    before = estimate_corpus(VALIDATION, corpus.counts)
    near = np.argsort(np.abs(corpus.scores - 0.8))[:200]
    after = with_labels(before, corpus.scores[near], corpus.duplicate[near])
    share = corpus.duplicate[near].mean()
    assert after.probability(0.8) == pytest.approx(share, abs=0.08)
    assert after.probability(0.55) < 0.1 < share  # far below, they say little


def test_a_fitted_corpus_is_estimated_alike_again_and_another_one_anew() -> None:
    corpus = world(600, 8, per_question=0.5, near=3.0)
    drawn = strata(corpus, 100, 0)
    fitted = with_labels(estimate_corpus(VALIDATION, corpus.counts), corpus.scores[drawn], corpus.duplicate[drawn])
    own = own_densities(fitted, VALIDATION)
    again = estimate_corpus(own, corpus.counts)
    assert (own.own, again.labels) == (True, fitted.labels)
    for threshold in THRESHOLDS:
        one, other = fitted.expected(threshold), again.expected(threshold)
        assert other.precision == pytest.approx(one.precision, abs=0.02)
        assert other.precision_interval == pytest.approx(one.precision_interval, abs=0.05)
    foreign = estimate_corpus(own, world(600, 9, per_question=0.5, near=1.0, strangers=0.45).counts)
    doubt = [np.sqrt((each.factors**2).sum(axis=0)).min() for each in (again, foreign)]
    assert doubt[1] > 0.5 > doubt[0]


def test_without_scores_a_corpus_is_taken_to_be_like_the_table() -> None:
    estimate = like_validation(VALIDATION, 500)
    seen = estimate_corpus(VALIDATION, world(500, 1).counts)
    for threshold in THRESHOLDS:
        one, other = estimate.expected(threshold), seen.expected(threshold)
        assert one.precision == pytest.approx(other.precision, abs=0.06)
        assert np.diff(one.precision_interval) > np.diff(other.precision_interval)
    assert like_validation(VALIDATION, 50_000).probability(0.7) < 0.2 * estimate.probability(0.7)


def test_more_labels_narrow_and_a_refusal_says_how_many_may_do() -> None:
    estimate = estimate_corpus(VALIDATION, world(800, 11, per_question=0.5).counts)
    widths = [np.diff(after_more_labels(estimate, m).expected(0.8).precision_interval)[0] for m in (0, 50, 500)]
    assert widths[0] > widths[1] > widths[2]
    bound, expected = estimate.bounds()
    reachable = 0.7 * float(bound.max()) + 0.3 * float(expected.max())
    more = labels_needed(estimate, reachable)
    assert more is not None
    assert f"about {more:,} more labels" in why_not(estimate, reachable)
    hopeless = estimate_corpus(VALIDATION, world(800, 12, per_question=0.01, near=4.0).counts)
    assert "the highest that can be promised is" in why_not(hopeless, 0.999)
    assert labels_needed(hopeless, 0.9999) is None


def test_a_corpus_of_two_questions_and_one_without_high_scores() -> None:
    tiny = estimate_corpus(VALIDATION, world(2, 1, per_question=0.0, near=0.0).counts)
    assert 0 <= tiny.expected(0.9).precision <= 1
    assert tiny.threshold_at(0.5) is None
    nothing: CorpusEstimate = dataclasses.replace(
        tiny, counts=dataclasses.replace(tiny.counts, counts=np.zeros_like(tiny.counts.counts))
    )
    assert nothing.expected(0.5).pairs == 0
    assert "no pair" in why_not(nothing, 0.5)


def test_at_the_lowest_threshold_all_duplicates_are_found() -> None:
    corpus = world(500, 1)
    estimate = estimate_corpus(VALIDATION, corpus.counts)
    expected = estimate.expected(-1.0)
    assert expected.recall == pytest.approx(1.0)
    assert expected.precision == pytest.approx(corpus.at(-1.0)[0], rel=0.2)
    recalls = [estimate.expected(threshold).recall for threshold in np.linspace(-1, 1, 50)]
    assert (np.diff(recalls) <= 1e-3).all()


def test_the_same_pairs_have_the_same_expectation_below_what_the_curves_cover() -> None:
    scores = np.concatenate([[0.95, 0.9, 0.87], np.full(60 * 59 // 2 - 3, 0.1)])
    found = estimate_corpus(VALIDATION, ScoreCounts(histogram(scores), 60))
    estimate = dataclasses.replace(found, duplicate_share=found.duplicate_share / 2)  # half score below all bins
    at_lowest, below = estimate.expected(estimate.lowest), estimate.expected(estimate.lowest - 0.05)
    assert at_lowest.pairs == below.pairs == 3 and at_lowest.recall == pytest.approx(0.5)
    assert dataclasses.replace(below, threshold=at_lowest.threshold) == at_lowest
    cuts = [estimate.expected(threshold) for threshold in np.linspace(-0.5, estimate.lowest + 0.1, 50)]
    precision, pairs = (np.array([getattr(cut, name) for cut in cuts]) for name in ("precision", "pairs"))
    assert (np.diff(precision * pairs) >= np.diff(pairs) - 1e-9).all()  # never more than the pairs that a cut adds


def test_duplicates_that_scores_hardly_show_are_not_known_to_be_few() -> None:
    # strangers up to high scores: how many duplicates are among them, the counts do not tell
    corpus = world(400, 2, per_question=0.05, near=0.1, strangers=0.55)
    low, high = estimate_corpus(VALIDATION, corpus.counts).expected(0.8).precision_interval
    assert low <= corpus.at(0.8)[0] <= high


@pytest.mark.parametrize(
    ("n", "per_question", "near", "strangers"),
    [(60, 0.5, 2.0, 0.45), (90, 0.5, 0.2, 0.45), (90, 2.0, 0.2, 0.6), (60, 0.5, 0.2, 0.3)],
)
def test_a_small_corpus_whose_strangers_score_high_keeps_what_labels_told(
    n: int, per_question: float, near: float, strangers: float
) -> None:
    for seed in range(3):
        corpus = world(n, seed, per_question=per_question, near=near, strangers=strangers)
        before, drawn = estimate_corpus(VALIDATION, corpus.counts), strata(corpus, 40, seed)
        fitted = with_labels(before, corpus.scores[drawn], corpus.duplicate[drawn])
        own = own_densities(fitted, VALIDATION)
        again = estimate_corpus(own, corpus.counts)
        for threshold in THRESHOLDS:
            one, other = fitted.expected(threshold), again.expected(threshold)
            assert other.precision == pytest.approx(one.precision, abs=0.01)
        grown = estimate_corpus(own, corpus.counts.scaled(2 * n))
        assert 0 <= grown.expected(0.7).precision <= again.expected(0.7).precision + 0.01  # there are more strangers


@pytest.mark.parametrize("n", [60, 300])
def test_a_fitted_corpus_is_told_from_one_of_another_kind(n: int) -> None:
    kind = {"per_question": 0.5, "near": 1.0}
    for seed in range(4):
        corpus = world(n, seed, strangers=0.35, **kind)
        drawn = strata(corpus, 30, seed)
        before = estimate_corpus(VALIDATION, corpus.counts)
        own = own_densities(with_labels(before, corpus.scores[drawn], corpus.duplicate[drawn]), VALIDATION)
        others = world(n, seed + 50, strangers=0.35, **kind), world(n, seed + 90, strangers=0.5, **kind)
        alike, another = (estimate_corpus(own, other.counts) for other in others)
        doubt = [np.sqrt((each.factors**2).sum(axis=0)).min() for each in (estimate_corpus(own, corpus.counts), alike)]
        assert doubt[0] == pytest.approx(doubt[1])  # what was learned of it holds
        assert np.sqrt((another.factors**2).sum(axis=0)).min() > 0.5  # and is doubted in another
