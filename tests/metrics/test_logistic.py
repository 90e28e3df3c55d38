"""The logistic function and its inverse, beside those of scipy."""

import warnings

import numpy as np
import pytest
from scipy import special

from qpairs.metrics.logistic import expit, logit

ODDS = np.concatenate([np.linspace(-745, 745, 2981), np.linspace(-1, 1, 401), [np.inf, -np.inf, 1e-300, 1e300]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_and_log_odds_are_those_of_scipy(dtype: type) -> None:
    odds = ODDS[np.abs(ODDS) < 1e30].astype(dtype)
    found = expit(odds)
    assert found.dtype == dtype
    few = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(found, special.expit(odds), rtol=few, atol=np.finfo(dtype).tiny)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert logit(found).dtype == dtype
        np.testing.assert_allclose(logit(found), special.logit(found), rtol=1e2 * few, atol=few)


def test_the_ends_numbers_and_shapes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (expit(-np.inf), expit(0), expit(np.inf)) == (0.0, 0.5, 1.0)
        assert (logit(0), logit(0.5), logit(1)) == (-np.inf, 0.0, np.inf)
        assert np.isnan(expit(np.nan))
        assert isinstance(expit(0.3), float)
        assert isinstance(logit(0.3), float)
        assert expit(np.zeros((2, 3))).shape == (2, 3)
        assert logit([[0.25, 0.5]]).shape == (1, 2)
