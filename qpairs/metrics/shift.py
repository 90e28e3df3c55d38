"""The distribution of scores: whether they vary at all, and whether it is still that of a reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.inputs import Floats, as_scores, ratio

_QUANTILES = 101


@dataclass(frozen=True)
class Shift:
    """Kolmogorov-Smirnov distance (0 to 1) of n new scores from a reference, and its p value.

    >>> distribution_shift([0.8, 0.9], quantiles([0.1, 0.2]), 2).statistic
    1.0
    """

    statistic: float
    p_value: float
    n: int


def distribution_shift(scores: ArrayLike, reference_quantiles: ArrayLike, reference_n: int) -> Shift:
    """Whether scores come from another distribution than those that a threshold was chosen on.

    Two-sample Kolmogorov-Smirnov test with the asymptotic p value. The quantiles give the reference to one step
    (0.01 for 101), so the p value is that of the distance less one step. Another share of duplicates shifts the
    scores, too, without the model being any worse.

    Args:
        scores: (n,) new similarities.
        reference_quantiles: evenly spaced quantiles of the reference, as `quantiles` gives them.
        reference_n: how many scores the reference had.

    >>> reference = [i / 100 for i in range(101)]
    >>> round(distribution_shift([0.5 + i / 200 for i in range(101)], reference, 101).statistic, 2)
    0.5
    """
    values, reference = np.sort(as_scores(scores)), np.sort(as_scores(reference_quantiles, "reference quantiles"))
    if len(reference) < 2 or reference_n < 1:
        raise ValueError(f"a reference needs 2 quantiles and 1 score, not {len(reference)} and {reference_n}")
    at, n = np.union1d(values, reference), len(values)
    below, upto = _reference_cdf(reference, at)
    gap_below = np.abs(np.searchsorted(values, at, "left") / n - below)
    gap_upto = np.abs(np.searchsorted(values, at, "right") / n - upto)
    statistic = float(max(gap_below.max(), gap_upto.max()))
    effective = n * reference_n / (n + reference_n)
    from scipy.special import kolmogorov  # slow to import

    return Shift(statistic, float(kolmogorov(math.sqrt(effective) * (statistic - 1 / (len(reference) - 1)))), n)


def _reference_cdf(reference: Floats, at: Floats) -> tuple[Floats, Floats]:
    """Shares of the reference below, and at or below, each value: linear between its evenly spaced quantiles."""
    knots, first, ties = np.unique(reference, return_index=True, return_counts=True)
    shares = np.linspace(0, 1, len(reference))
    below, upto = shares[first], shares[first + ties - 1]
    left = np.clip(np.searchsorted(knots, at, "right") - 1, 0, len(knots) - 1)
    right = np.minimum(left + 1, len(knots) - 1)
    between = np.clip(ratio(at - knots[left], knots[right] - knots[left]), 0, 1)
    inside = upto[left] + between * (below[right] - upto[left])
    outside = np.where(at < knots[0], 0.0, np.where(at > knots[-1], 1.0, inside))
    knot = at == knots[left]
    return np.where(knot, below[left], outside), np.where(knot, upto[left], outside)


def quantiles(scores: ArrayLike) -> list[float]:
    """The 0, 1, ..., 100 % quantiles: a summary of the scores small enough for a checkpoint.

    >>> len(quantiles([0.1, 0.5, 0.9]))
    101
    """
    values: list[float] = np.quantile(as_scores(scores), np.linspace(0, 1, _QUANTILES)).tolist()
    return values


def is_collapsed(scores: ArrayLike, tolerance: float = 0.01) -> bool:
    """Whether similarities no longer vary: the 1 and the 99 % quantile lie within `tolerance`.

    That is so for a model that maps every question to one point. `tolerance` is in units of cosine. False for a
    single score.

    >>> is_collapsed([0.5, 0.5, 0.5]), is_collapsed([0.1, 0.9, 0.5])
    (True, False)
    """
    values = as_scores(scores)
    low, high = np.quantile(values, [0.01, 0.99])
    return len(values) > 1 and bool(high - low < tolerance)
