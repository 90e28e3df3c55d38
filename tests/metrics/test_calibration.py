from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from labelled_scores import REPEATABLE, Floats, Ints, draw_pairs, judged
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression

from qpairs.metrics import (
    Calibration,
    brier,
    expected_calibration_error,
    fit_calibration,
)


def test_calibration_is_the_logistic_regression_where_pairs_are_plenty() -> None:
    scores, labels = draw_pairs(np.random.default_rng(0), 20_000)
    mine = fit_calibration(scores, labels)
    theirs = LogisticRegression(C=1e9, tol=1e-9, max_iter=1000).fit(scores[:, None], labels)
    assert mine.slope == pytest.approx(theirs.coef_[0, 0], rel=2e-3)
    assert mine.intercept == pytest.approx(theirs.intercept_[0], rel=2e-3)
    np.testing.assert_allclose(mine.probability(scores), theirs.predict_proba(scores[:, None])[:, 1], atol=1e-3)


@REPEATABLE
@given(judged())
def test_calibration_meets_the_smoothed_targets_on_the_mean(data: tuple[Floats, Ints]) -> None:
    scores, labels = data
    fitted = fit_calibration(scores, labels)
    positives, negatives = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    residual = fitted.probability(scores) - targets
    assert fitted.slope >= 0
    assert residual.sum() == pytest.approx(0, abs=1e-4)  # optimal in the intercept
    if fitted.slope > 0:
        assert residual @ scores == pytest.approx(0, abs=1e-4)  # and in the slope
    else:
        assert -(residual @ scores) <= 1e-4  # no rising line is better


@pytest.mark.parametrize("n", [2, 10, 1000, 100_000])
def test_calibration_of_separable_pairs_is_finite(n: int) -> None:
    scores = np.linspace(0, 1, n)
    fitted = fit_calibration(scores, scores > 0.5)
    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    assert ((fitted.probability(scores) > 0.5) == (scores > 0.5)).all()


def test_calibration_of_wrong_or_constant_scores_is_the_base_rate() -> None:
    labels = np.arange(1000) % 4 == 0
    for scores in (np.where(labels, 0.1, 0.9), np.full(1000, 0.1 + 0.2)):
        fitted = fit_calibration(scores, labels)
        assert fitted.slope == 0
        np.testing.assert_allclose(fitted.probability(scores), 0.25, atol=2e-3)


def test_calibration_does_not_depend_on_the_scale_of_the_scores() -> None:
    scores, labels = draw_pairs(np.random.default_rng(1), 300)
    plain, wide = fit_calibration(scores, labels), fit_calibration(1e6 * scores - 7e6, labels)
    np.testing.assert_allclose(plain.probability(scores), wide.probability(1e6 * scores - 7e6), atol=1e-6)


def test_probability_never_overflows() -> None:
    with np.errstate(all="raise", under="ignore"):
        extreme = Calibration(1e4, 0.0).probability([[-10.0, 0.0, 10.0]])
    assert extreme.tolist() == [[0.0, 0.5, 1.0]]


def boundary(calibration: Calibration) -> float:
    return -calibration.intercept / calibration.slope


def test_few_pairs_keep_the_old_calibration_and_many_override_it() -> None:
    rng = np.random.default_rng(2)
    prior = fit_calibration(*draw_pairs(rng, 5000))
    fresh = draw_pairs(rng, 5000)[0]

    def drift(n: int, prior_used: Calibration | None) -> float:
        """Mean absolute change of the probability of fresh pairs, over 20 draws of n pairs."""
        fits = [fit_calibration(*draw_pairs(rng, n), prior_used) for _ in range(20)]
        return float(np.mean([np.abs(f.probability(fresh) - prior.probability(fresh)).mean() for f in fits]))

    assert drift(5, prior) < 0.6 * drift(5, None)
    assert drift(5, prior) < 0.1
    other, labels = draw_pairs(rng, 5000, shift=-0.28, rate=0.5)
    many, alone = fit_calibration(other, labels, prior), fit_calibration(other, labels)
    np.testing.assert_allclose(many.probability(other), alone.probability(other), atol=0.01)


def test_forty_pairs_move_the_calibration_to_translated_scores() -> None:
    rng = np.random.default_rng(3)
    prior = fit_calibration(*draw_pairs(rng, 5000))
    assert boundary(prior) == pytest.approx(0.81, abs=0.02)
    moved = [fit_calibration(*draw_pairs(rng, 40, shift=-0.28), prior) for _ in range(20)]
    assert np.mean([boundary(c) for c in moved]) == pytest.approx(0.53, abs=0.04)
    assert np.median([c.slope for c in moved]) > 0.6 * prior.slope


def test_prior_strength_is_monotone_and_zero_is_none() -> None:
    rng = np.random.default_rng(4)
    prior = fit_calibration(*draw_pairs(rng, 5000))
    scores, labels = draw_pairs(rng, 30, shift=0.02)
    away = [abs(fit_calibration(scores, labels, prior, strength).slope - prior.slope) for strength in (1, 10, 100, 1e4)]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 0.05 * prior.slope
    faint = fit_calibration(scores, labels, prior, 1e-4)
    unsmoothed = LogisticRegression(C=1e9, tol=1e-9, max_iter=1000).fit(scores[:, None], labels)
    assert faint.slope == pytest.approx(unsmoothed.coef_[0, 0], rel=0.01)
    assert fit_calibration(scores, labels, prior, 0) == fit_calibration(scores, labels)
    assert fit_calibration(scores, labels, Calibration(0.0, 1.0)) == fit_calibration(scores, labels)


@REPEATABLE
@given(judged())
def test_brier_is_that_of_scikit_learn(data: tuple[Floats, Ints]) -> None:
    probability, labels = (data[0] + 1) / 2, data[1]
    assert brier(probability, labels) == pytest.approx(oracle.brier_score_loss(labels, probability))


def test_calibration_error_of_known_bins() -> None:
    probability = np.repeat([0.2, 0.9], 50)
    labels = np.r_[np.arange(50) < 15, np.arange(50) < 35]  # shares 0.3 and 0.7
    assert expected_calibration_error(probability, labels) == pytest.approx((0.1 + 0.2) / 2)
    assert expected_calibration_error(probability, labels, bins=1) == pytest.approx(0.05)
    uneven = np.repeat([0.1, 0.5, 0.9], [12, 4, 4])  # the ties at 0.1 reach beyond the middle, and stay in bin 0
    assert expected_calibration_error(uneven, uneven > 0.2, bins=2) == pytest.approx(
        (12 * 0.1 + 4 * 0.5 + 4 * 0.1) / 20
    )


def test_calibration_error_has_bins_of_equal_mass() -> None:
    rng = np.random.default_rng(7)
    probability = rng.beta(0.3, 3, 1500)  # distinct and crowded near 0
    labels = rng.random(1500) < 0.3
    by_rank = np.argsort(probability).reshape(15, 100)
    naive = np.mean([abs(probability[rows].mean() - labels[rows].mean()) for rows in by_rank])
    assert expected_calibration_error(probability, labels) == pytest.approx(naive)
