from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_scores import REPEATABLE
from scipy import stats

from qpairs.metrics import (
    distribution_shift,
    is_collapsed,
    quantiles,
)


def test_collapse_is_named() -> None:
    rng = np.random.default_rng(13)
    assert is_collapsed(np.full(50, 0.93))
    assert is_collapsed(0.999 + 1e-4 * rng.normal(size=500))
    outlier = np.full(500, 1.0)
    outlier[0] = -1
    assert is_collapsed(outlier)
    assert not is_collapsed(rng.normal(0.9, 0.02, 500))
    assert not is_collapsed([0.5])


@pytest.mark.parametrize("shift", [0.0, 0.05, -0.3])
def test_shift_is_the_kolmogorov_smirnov_test(shift: float) -> None:
    rng = np.random.default_rng(14)
    reference, new = rng.beta(5, 3, 8000), rng.beta(5, 3, 400) + shift
    mine = distribution_shift(new, quantiles(reference), len(reference))
    theirs = stats.ks_2samp(new, reference, method="asymp")
    assert mine.n == 400
    assert mine.statistic == pytest.approx(theirs.statistic, abs=0.01)
    effective = np.sqrt(400 * 8000 / 8400)
    assert mine.p_value == pytest.approx(stats.kstwobign.sf(effective * (mine.statistic - 0.01)), abs=1e-9)
    assert (mine.p_value < 0.01) == (theirs.pvalue < 0.01)


@settings(REPEATABLE, max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 6))
def test_a_tied_reference_is_no_shift_from_itself(values: list[int], moved: int) -> None:
    reference = np.repeat(values, 300)
    same = distribution_shift(reference, quantiles(reference), len(reference))
    assert same.statistic <= 0.011
    assert same.p_value > 0.9
    other = np.append(reference, np.full(len(reference), moved + 0.5))
    exact = stats.ks_2samp(other, reference).statistic
    assert distribution_shift(other, quantiles(reference), len(reference)).statistic == pytest.approx(exact, abs=0.011)


def test_distant_scores_are_a_whole_shift() -> None:
    away = distribution_shift(np.linspace(2, 3, 100), quantiles(np.linspace(0, 1, 100)), 100)
    assert away.statistic == 1
    assert away.p_value < 1e-12
