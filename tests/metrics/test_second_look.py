import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_scores import REPEATABLE, judged
from scipy.special import expit, logit

from qpairs.metrics import SecondLook, brier, expected_calibration_error, fit_second_look

SLOPE, MIDDLE = 40.0, 0.6  # of the log odds that a cosine has in the simulated world


def first_log_odds(cosines: np.ndarray) -> np.ndarray:
    return SLOPE * (cosines - MIDDLE)


def drawn(n: int, seed: int, rate: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines, logits and labels: given the label, both are independent and normal, so both log odds are linear.

    At a rate of a half the log odds of a cosine are `first_log_odds`, and the gain of a logit is 1.5 times the logit.
    """
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < rate
    labels[:2] = 0, 1
    sign = np.where(labels, 1.0, -1.0)
    cosines = MIDDLE + 0.08 * sign + rng.normal(0, 0.004**0.5, n)  # log odds 2 * 0.08 / 0.004 = 40 for each unit
    logits = 0.75 * sign + rng.normal(0, 1.0, n)  # log odds 2 * 0.75 / 1 = 1.5
    return cosines.clip(-1, 1), logits, labels


def test_the_weights_of_a_known_world_are_found() -> None:
    look = fit_second_look(*drawn(40_000, 0), first_log_odds)
    assert look.second == pytest.approx(1.5, abs=0.06)
    assert look.first == pytest.approx(0, abs=2)  # 5 % of the slope that the offset has already
    assert look.intercept + look.first * MIDDLE == pytest.approx(0, abs=0.08)


def test_what_the_first_score_says_wrongly_is_mended() -> None:
    look = fit_second_look(*drawn(40_000, 1), lambda cosines: 0.5 * first_log_odds(cosines) + 1)
    assert look.first == pytest.approx(SLOPE / 2, abs=2)
    assert look.second == pytest.approx(1.5, abs=0.06)


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.9])
def test_the_gain_is_a_likelihood_ratio_so_it_holds_under_another_prior(rate: float) -> None:
    look = fit_second_look(*drawn(20_000, 2), first_log_odds)
    cosines, logits, labels = drawn(60_000, 3, rate)
    there = first_log_odds(cosines) + logit(rate)
    probability = expit(there + look.gain(cosines, logits))
    assert expected_calibration_error(probability, labels) < 0.01
    assert probability.sum() == pytest.approx(labels.sum(), rel=0.06)
    assert brier(probability, labels) < 0.8 * brier(expit(there), labels)


def test_of_pairs_of_like_score_98_to_99_percent_stay_within_each_bound() -> None:
    cosines, logits, labels = drawn(20_000, 4)
    look = fit_second_look(cosines, logits, labels, first_log_odds)
    gain = look.gain(cosines, logits)
    low, high = (a + b * cosines for a, b in (look.lowest, look.highest))
    assert 0.98 <= (gain >= low).mean() <= 0.999
    assert 0.98 <= (gain <= high).mean() <= 0.999
    for part in np.array_split(np.argsort(cosines), 5):
        assert (gain >= low)[part].mean() >= 0.98
        assert (gain <= high)[part].mean() >= 0.98
    lowest, highest = look.bounds(cosines)
    assert (lowest <= 0).all()
    assert (highest >= 0).all()


@pytest.mark.parametrize("least", [-1.0, 0.0, 2.0])
def test_outside_the_band_reading_would_change_next_to_nothing(least: float) -> None:
    look = fit_second_look(*drawn(20_000, 5), first_log_odds)
    cosines, logits, _ = drawn(20_000, 6)
    low, high = look.band(first_log_odds, least)
    outside = (cosines < low) | (cosines > high)
    everything = first_log_odds(cosines) + look.gain(cosines, logits) >= least
    banded = np.where(outside, first_log_odds(cosines) >= least, everything)
    assert (everything[outside] == banded[outside]).mean() >= 0.99
    assert 0.02 < outside.mean() < 0.98
    assert -1 < low < high < 1


def test_the_band_for_several_thresholds_holds_the_bands_of_each() -> None:
    look = fit_second_look(*drawn(5_000, 7), first_log_odds)
    wide, narrow = look.band(first_log_odds, -1.0, 2.0), [look.band(first_log_odds, at) for at in (-1.0, 2.0)]
    assert wide[0] == min(low for low, _ in narrow)
    assert wide[1] == max(high for _, high in narrow)


def test_where_no_gain_reaches_the_threshold_there_is_no_band() -> None:
    look = SecondLook(0.0, 0.0, 1.0, (-1.0, 0.0), (1.0, 0.0))
    assert look.band(lambda x: np.zeros_like(x), 5.0) == (2.0, 2.0)
    assert look.band(lambda x: np.full_like(x, 9.0), 5.0) == (2.0, 2.0)
    assert look.band(lambda x: np.zeros_like(x), 0.5) == (-1.0, 1.0)
    assert look.band(lambda x: 10 * x, 0.0) == pytest.approx((-0.1, 0.1), abs=2e-3)


def test_a_score_that_is_not_there_gains_nothing() -> None:
    look = SecondLook(-1.0, 3.0, 2.0, (-3.0, 0.0), (3.0, 0.0))
    assert look.gain([0.5, 0.5, 0.0], [1.0, np.nan, 0.0]).tolist() == [2.5, 0.0, -1.0]
    assert look.gain(0.5, 1.0) == 2.5


@REPEATABLE
@given(judged(), st.sampled_from(["separating", "constant", "huge", "the first again"]))
def test_separable_constant_and_few_pairs_stay_finite(pairs: tuple[np.ndarray, np.ndarray], kind: str) -> None:
    first, labels = pairs
    second = {
        "separating": 8.0 * labels - 4,
        "constant": np.full(len(labels), 3.0),
        "huge": 1e4 * labels + first,
        "the first again": first,
    }[kind]
    for scores in (first, np.full(len(first), 0.5)):
        look = fit_second_look(scores, second, labels, lambda x: 4 * x)
        assert np.isfinite([look.intercept, look.first, look.second, *look.lowest, *look.highest]).all()
        assert np.isfinite(look.gain(scores, second)).all()
        low, high = look.band(lambda x: 4 * x, 0.0)
        assert low <= high


def test_a_separating_second_score_decides() -> None:
    first, labels = np.tile([0.4, 0.6], 20), np.repeat([0, 1], 20)
    second = np.where(labels == 1, 2.0, -2.0)
    look = fit_second_look(first, second, labels, lambda x: 4 * (x - 0.5))
    total = 4 * (first - 0.5) + look.gain(first, second)
    assert ((total > 0) == (labels == 1)).all()
    assert np.abs(total).max() == pytest.approx(np.log(21), rel=0.2)  # as sure as 20 pairs of a kind make one


def test_an_unknown_second_score_is_refused_when_it_is_fitted() -> None:
    with pytest.raises(ValueError, match="second scores contain NaN"):
        fit_second_look([0.1, 0.9], [np.nan, 1.0], [0, 1], lambda x: x)
    with pytest.raises(ValueError, match="1 second scores but 2"):
        fit_second_look([0.1, 0.9], [1.0], [0, 1], lambda x: x)


def test_second_scores_that_tell_the_opposite_are_no_evidence() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(500) < 0.4
    first, second = labels + rng.normal(0, 1, 500), -3.0 * labels + rng.normal(0, 1, 500)
    look = fit_second_look(first, second, labels, lambda x: x - 0.5)
    assert look.gain(first, second).tolist() == [0.0] * 500
    assert look.band(lambda x: 10 * x, 0.0) == (2.0, 2.0)


def test_the_uncertainty_of_the_weights_is_that_of_fits_to_other_pairs() -> None:
    def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        labels = rng.random(400) < 0.5
        return labels + rng.normal(0, 1, 400), labels + rng.normal(0, 1, 400), labels

    looks = [fit_second_look(*drawn(seed), lambda x: x - 0.5) for seed in range(60)]
    x, z = np.array([0.0, 1.0, 2.0]), np.array([-1.0, 0.5, 3.0])
    found = np.std([look.gain(x, z) for look in looks], axis=0)
    told = np.mean([np.sqrt((look.spread(x, z) ** 2).sum(axis=0)) for look in looks], axis=0)
    np.testing.assert_allclose(told, np.sqrt(2) * found, rtol=0.25)  # pairs of one component are right together
    assert looks[0].spread(x, np.full(3, np.nan)).tolist() == np.zeros((3, 3)).tolist(), "what is not read is sure"
    assert SecondLook(0, 0, 1, (0, 0), (0, 0)).spread(x, z).shape == (0, 3)


def test_a_pair_may_reach_log_odds_from_where_the_highest_gain_lifts_it_there() -> None:
    look = SecondLook(0.0, 0.0, 1.0, (-2.0, 0.0), (3.0, 0.0))
    assert look.reach(lambda x: 10 * x, 0.0) == pytest.approx(-0.3, abs=1e-3)
    assert look.reach(lambda x: 10 * x, 14.0) == 2.0
    nothing = SecondLook(0.0, 0.0, 0.0, (0.0, 0.0), (0.0, 0.0))
    assert nothing.reach(lambda x: 10 * x, 1.0) == pytest.approx(0.1, abs=1e-3)
    assert nothing.band(lambda x: 10 * x, -1.0, 1.0) == (2.0, 2.0), "nothing is worth reading where nothing is gained"
