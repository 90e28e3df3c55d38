import numpy as np
import pytest
from scipy.special import expit
from worlds import World, densities_of, world

from qpairs.metrics import Calibration, CorpusEstimate, ReadEstimate, decide, estimate_corpus, fit_second_look

VALIDATION = densities_of(world(500))
CORPUS = world(300, 1)
FLOOR = 0.6


@pytest.fixture(scope="module")
def first() -> CorpusEstimate:
    return estimate_corpus(VALIDATION, CORPUS.counts)


def read(first: CorpusEstimate, corpus: World, *, floor: float = FLOOR, size: int | None = None) -> ReadEstimate:
    """The pairs at or above the floor, with gains whose log likelihood ratio is right: normal, 4 apart, variance 4."""
    rows = np.flatnonzero(corpus.scores >= floor)
    rows = rows if size is None else rows[np.random.default_rng(0).permutation(len(rows))[:size]]
    logits = np.random.default_rng(1).normal(np.where(corpus.duplicate[rows], 2.0, -2.0), 2.0)
    return ReadEstimate(first, corpus.scores[rows], logits, floor)


def test_the_score_is_the_probability_of_the_cosine_moved_by_the_gain(first: CorpusEstimate) -> None:
    estimate = ReadEstimate(first, np.array([0.7, 0.8]), np.array([0.0, 2.0]), FLOOR)
    assert estimate.scores[0] == pytest.approx(first.probability(0.7))
    assert estimate.scores[1] == pytest.approx(expit(first.log_odds_of(0.8) + 2))
    assert estimate.probability([0.1, 0.9]).tolist() == [0.1, 0.9]
    assert expit(estimate.log_odds_of([0.0, 0.25, 1.0])) == pytest.approx([0, 0.25, 1])
    assert np.isfinite(estimate.log_odds_of([0.0, 1.0])).all()
    assert (estimate.counts, estimate.labels) == (first.counts, first.labels)


def test_expected_precision_is_the_mean_probability_of_the_pairs_above(first: CorpusEstimate) -> None:
    estimate = read(first, CORPUS, size=150)  # fewer than there are cuts
    for threshold in [*np.quantile(estimate.scores, [0.1, 0.5, 0.9, 1.0]), 0.5]:
        above = estimate.scores[estimate.scores >= threshold]
        found = estimate.expected(float(threshold))
        assert found.pairs == len(above)
        assert found.precision == pytest.approx(above.mean())
        assert found.precision_bound <= found.precision + 1e-9
    of_all = read(first, CORPUS)  # more than there are cuts
    above = of_all.scores[of_all.scores >= 0.5]
    assert of_all.expected(0.5).precision == pytest.approx(above.mean(), abs=0.005)


def test_expectation_comes_true_in_a_simulated_corpus(first: CorpusEstimate) -> None:
    estimate = read(first, CORPUS)
    called = estimate.scores >= 0.5
    duplicate = CORPUS.duplicate[CORPUS.scores >= FLOOR]
    found = estimate.expected(0.5)
    assert found.precision == pytest.approx(duplicate[called].mean(), abs=0.06)
    assert found.recall == pytest.approx(duplicate[called].sum() / CORPUS.duplicate.sum(), abs=0.06)
    assert found.precision > first.expected(first.best_threshold()).precision  # the second look knows more


def test_recall_counts_the_duplicates_below_the_floor(first: CorpusEstimate) -> None:
    everything, some = read(first, CORPUS, floor=0.6), read(first, CORPUS, floor=0.8)
    lost = 1 - first.share_above(0.8)
    assert lost > 0.2
    assert some.expected(0.0).recall == pytest.approx(1 - lost, abs=0.05)
    assert everything.expected(0.0).recall == pytest.approx(first.share_above(0.6), abs=0.02)


@pytest.mark.parametrize("size", [1, 2, 7, 60, 300])
def test_the_best_threshold_is_that_of_greatest_expected_f1_of_all_cuts(first: CorpusEstimate, size: int) -> None:
    estimate = read(first, CORPUS, size=size)
    chances = estimate.scores
    duplicates = estimate.curves.duplicates[0, 0]
    f1 = {cut: 2 * chances[chances >= cut].sum() / ((chances >= cut).sum() + duplicates) for cut in chances.tolist()}
    best = estimate.best_threshold()
    assert f1[best] == pytest.approx(max(f1.values()))
    assert estimate.expected(best).f1 == pytest.approx(max(f1.values()))


def test_a_promise_holds_at_and_above_its_threshold_and_is_refused_where_it_cannot(first: CorpusEstimate) -> None:
    estimate = read(first, CORPUS)
    threshold = estimate.threshold_at(0.9)
    assert threshold is not None
    assert estimate.expected(threshold).precision_bound >= 0.9 - 0.01
    duplicate = CORPUS.duplicate[CORPUS.scores >= FLOOR]
    assert duplicate[estimate.scores >= threshold].mean() >= 0.9
    unlikely = ReadEstimate(first, np.full(50, 0.6), np.full(50, -3.0), FLOOR)
    assert unlikely.threshold_at(0.9) is None
    bounds, expected = estimate.bounds()
    assert len(bounds) == len(expected) == len(estimate.curves.thresholds)


def test_without_candidates_nothing_is_called_and_nothing_fails(first: CorpusEstimate) -> None:
    estimate = ReadEstimate(first, np.empty(0), np.empty(0), FLOOR)
    found = estimate.expected(0.5)
    assert (found.pairs, found.recall, found.f1) == (0, 0, 0)
    assert estimate.best_threshold() == estimate.lowest == 1.0
    assert estimate.threshold_at(0.9) is None
    assert not (estimate.scores >= estimate.best_threshold()).any()


def test_ties_are_called_together(first: CorpusEstimate) -> None:
    cosines, gains = np.repeat([0.75, 0.85], [30, 20]), np.repeat([-1.0, 3.0], [30, 20])
    estimate = ReadEstimate(first, cosines, gains, FLOOR)
    low, high = np.unique(estimate.scores).tolist()
    assert estimate.curves.thresholds.tolist() == [low, high]
    assert estimate.curves.pairs.tolist() == [50, 20]
    assert estimate.expected(high).pairs == 20
    assert estimate.expected(low).precision == pytest.approx((30 * low + 20 * high) / 50)


def test_a_gain_of_zero_everywhere_says_what_the_cosines_say(first: CorpusEstimate) -> None:
    rows = CORPUS.scores >= FLOOR
    estimate = ReadEstimate(first, CORPUS.scores[rows], np.zeros(rows.sum()), FLOOR)
    best = first.best_threshold()
    alone, after = first.expected(best), estimate.expected(float(first.probability(best)))
    assert after.precision == pytest.approx(alone.precision, abs=0.03)
    assert after.recall == pytest.approx(alone.recall, abs=0.03)


def test_a_promise_counts_what_is_not_known_of_the_gains(first: CorpusEstimate) -> None:
    sure = read(first, CORPUS)
    spread = np.full((1, len(sure.gains)), 1.5)  # all gains may be off together
    unsure = ReadEstimate(first, sure.cosines, sure.gains, sure.floor, spread=spread)
    for threshold in np.quantile(sure.scores, [0.5, 0.8, 0.9]):
        one, other = sure.expected(float(threshold)), unsure.expected(float(threshold))
        assert other.precision == pytest.approx(one.precision)
        assert other.precision_bound < one.precision_bound


def test_precision_is_no_lower_than_promised_where_few_labels_tell_the_gain(first: CorpusEstimate) -> None:
    broken, given, rows = 0, 0, np.flatnonzero(CORPUS.scores >= FLOOR)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels = rng.random(150) < 0.4
        ours, theirs = rng.normal(labels * 0.1 + 0.7, 0.1), rng.normal(np.where(labels, 1.0, -1.0), 1.5)
        look = fit_second_look(ours, theirs, labels, Calibration(10.0, -7.9).log_odds)  # by Bayes, with 40 % duplicates
        logits = rng.normal(np.where(CORPUS.duplicate[rows], 1.0, -1.0), 1.5)
        cosines = CORPUS.scores[rows]
        estimate = ReadEstimate(first, cosines, look.gain(cosines, logits), FLOOR, spread=look.spread(cosines, logits))
        if (threshold := estimate.threshold_at(0.6)) is not None:
            given += 1
            broken += CORPUS.duplicate[rows][decide(estimate.scores, threshold)].mean() < 0.6
    assert given >= 10
    assert broken <= 0.1 * given
