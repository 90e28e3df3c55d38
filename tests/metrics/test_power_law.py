from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from qpairs import metrics
from qpairs.metrics.power_law import EXPONENTS

SIZES = [200, 400, 800, 1600, 3200]
FEW = settings(deadline=None, derandomize=True, max_examples=40)


def squares(law: metrics.PowerLaw, scores: np.ndarray, weights: np.ndarray) -> float:
    fitted = np.array([float(law.at(size)) for size in SIZES])
    return float(weights / weights.sum() @ (fitted - scores) ** 2)


@given(limit=st.floats(0.5, 1.0), gap=st.floats(0.01, 0.3), exponent=st.floats(0.1, 1.8))
@FEW
def test_a_law_without_noise_is_found_and_continued(limit: float, gap: float, exponent: float) -> None:
    def true(n: float) -> float:
        return limit - gap * (n / SIZES[-1]) ** -exponent

    assume(true(SIZES[0]) > 0)
    law = metrics.fit_power_law(SIZES, [true(n) for n in SIZES], np.ones(5))
    assert float(law.at(6400)) == pytest.approx(true(6400), abs=2e-3)
    assert float(law.gain(3200, 6400)) == pytest.approx(true(6400) - true(3200), abs=2e-3)


@given(st.lists(st.floats(0.2, 0.99), min_size=5, max_size=5), st.integers(0, 100))
@FEW
def test_no_other_fit_within_the_bounds_is_better(scores: list[float], seed: int) -> None:
    values, weights = np.array(scores), np.random.default_rng(seed).uniform(0.5, 2, 5)
    law = metrics.fit_power_law(SIZES, values, weights)
    assert float(law.gap) >= 0
    assert float(law.limit) <= 1

    def model(n: np.ndarray, limit: float, gap: float, exponent: float) -> np.ndarray:
        return limit - gap * (n / SIZES[-1]) ** -exponent

    sigma = 1 / np.sqrt(weights)
    ends = ([-np.inf, 0, EXPONENTS[0]], [1, np.inf, EXPONENTS[-1]])
    for start in (0.1, 0.5, 1.5):
        found, _ = curve_fit(
            model, np.array(SIZES), values, p0=[0.5, 0.1, start], sigma=sigma, bounds=ends, maxfev=20000
        )
        other = float(weights / weights.sum() @ (model(np.array(SIZES), *found) - values) ** 2)
        assert squares(law, values, weights) <= other * 1.02 + 1e-9  # exponents are tried in steps of 1 %


def test_many_curves_are_fitted_as_one_by_one() -> None:
    curves = np.random.default_rng(0).uniform(0.4, 0.9, (7, 5))
    weights = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    together = metrics.fit_power_law(SIZES, curves, weights).at(5000)
    alone = [float(metrics.fit_power_law(SIZES, curve, weights).at(5000)) for curve in curves]
    assert together == pytest.approx(alone)


def test_where_more_pairs_only_hurt_nothing_is_gained() -> None:
    law = metrics.fit_power_law(SIZES, [0.8, 0.79, 0.78, 0.77, 0.76], np.ones(5))
    assert float(law.gain(3200, 6400)) == 0
    assert float(law.at(6400)) == pytest.approx(0.78)


@pytest.mark.parametrize(
    ("sizes", "scores", "weights"),
    [
        ([100, 200, 400], [0.5, 0.6, 0.7], [1, 1, 1]),
        ([100, 100, 200, 400], [0.5, 0.6, 0.7, 0.8], [1, 1, 1, 1]),
        ([100, 200, 400, 800], [0.5, 0.6, 0.7], [1, 1, 1, 1]),
        ([100, 200, 400, 800], [0.5, 0.6, 0.7, 0.8], [1, 1, 1, 0]),
    ],
)
def test_what_cannot_be_fitted_is_refused(sizes: list[int], scores: list[float], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="sizes"):
        metrics.fit_power_law(sizes, scores, weights)
