"""How far annotators agree: percent agreement, Cohen's kappa and Krippendorff's alpha, with intervals by bootstrap.

Answers are whole numbers from 0, one for each category, and `NONE` if an annotator did not label a pair. Weights say
how often each pair counts, so that a resample is a vector of weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.inputs import Floats, Ints
from qpairs.metrics.intervals import Interval, taken_apart

NONE = -1  # no answer


def percent_agreement(first: ArrayLike, second: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Share of the pairs that two annotators label the same; nan if they share none.

    Args:
        first: (n,) answers of one annotator.
        second: (n,) answers of the other.
        weights: (n,) how often each pair counts; once without them.

    >>> percent_agreement([1, 0, 1, -1], [1, 0, 0, 1])
    0.6666666666666666
    """
    one, other, weight = _shared(first, second, weights)
    return float(weight @ (one == other) / weight.sum()) if weight.sum() else math.nan


def cohen_kappa(first: ArrayLike, second: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Cohen's kappa: agreement beyond what the shares of the answers would give by chance.

    (observed - expected) / (1 - expected) agreement (Cohen, "A coefficient of agreement for nominal scales", 1960).
    nan where both annotators give one and the same answer to all pairs, or share no pair.

    Args:
        first: (n,) answers of one annotator.
        second: (n,) answers of the other.
        weights: (n,) how often each pair counts; once without them.

    >>> round(cohen_kappa([1, 1, 0, 0], [1, 0, 0, 0]), 3)
    0.5
    """
    one, other, weight = _shared(first, second, weights)
    total, kinds = float(weight.sum()), int(max(one.max(initial=0), other.max(initial=0))) + 1
    if not total:
        return math.nan
    shares = [np.bincount(side, weight, minlength=kinds) / total for side in (one, other)]
    expected = float(shares[0] @ shares[1])
    return (float(weight @ (one == other)) / total - expected) / (1 - expected) if expected < 1 - 1e-12 else math.nan


def krippendorff_alpha(answers: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Krippendorff's alpha for categories without an order, any number of annotators, and missing answers.

    1 - observed / expected disagreement, over pairs with two answers or more (Krippendorff, "Computing Krippendorff's
    Alpha-Reliability", 2011). nan where all answers are the same, or no pair has two.

    Args:
        answers: (n, annotators) answers; `NONE` where there is none.
        weights: (n,) how often each pair counts; once without them.

    >>> krippendorff_alpha([[1, 1], [0, 0], [1, 0], [0, 0]])
    0.5333333333333333
    """
    table = _answers(answers, 2)
    weight = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=np.float64)
    counts = np.stack([(table == kind).sum(axis=1) for kind in range(int(table.max(initial=0)) + 1)], axis=1)
    given = counts.sum(axis=1)
    some = given >= 2
    counts, given, weight = counts[some], given[some], weight[some]
    apart = weight @ ((given**2 - (counts**2).sum(axis=1)) / np.maximum(given - 1, 1))
    totals = weight @ counts
    total = totals.sum()
    by_chance = total**2 - (totals**2).sum()
    return float(1 - (total - 1) * apart / by_chance) if by_chance > 0 else math.nan


def resampled_weights(groups: ArrayLike, samples: int, seed: int = 0) -> Iterator[Floats]:
    """(n,) how often each pair counts, for each resample of whole groups with replacement.

    Cluster bootstrap (Field and Welsh, "Bootstrapping clustered data", 2007); a group with more than half of the pairs
    is `taken_apart`.

    Args:
        groups: (n,) the component of each pair.
        samples: number of resamples.
        seed: of the draws.

    >>> [int(weights.sum()) for weights in resampled_weights([0, 1, 2], 3)]
    [3, 3, 3]
    """
    names, place = np.unique(taken_apart(groups), return_inverse=True)
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        yield drawn[place].astype(np.float64)


def resampled_interval(
    measure: Callable[[Floats], float], groups: ArrayLike, *, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of a measure, over resamples as in `resampled_weights`.

    Resamples in which the measure is undefined are left out; (nan, nan) where it is in all.

    Args:
        measure: of weights (n,), how often each pair counts.
        groups: (n,) the component of each pair.
        samples: number of resamples.
        level: coverage of the interval.
        seed: of the draws.

    >>> low, high = resampled_interval(lambda weights: float(weights[:50].sum() / weights.sum()), range(100))
    >>> round(low, 1), round(high, 1)
    (0.4, 0.6)
    """
    values = np.array([measure(weights) for weights in resampled_weights(groups, samples, seed)])
    defined = values[~np.isnan(values)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _shared(first: ArrayLike, second: ArrayLike, weights: ArrayLike | None) -> tuple[Ints, Ints, Floats]:
    """The answers of both and the weights, of the pairs that both labelled."""
    one, other = _answers(first, 1), _answers(second, 1)
    if len(one) != len(other):
        raise ValueError(f"{len(one)} answers of one annotator but {len(other)} of the other")
    weight = np.ones(len(one)) if weights is None else np.asarray(weights, dtype=np.float64)
    both = (one != NONE) & (other != NONE)
    return one[both], other[both], weight[both]


def _answers(values: ArrayLike, dimensions: int) -> Ints:
    table = np.asarray(values)
    if table.ndim != dimensions:
        raise ValueError(f"answers must have {dimensions} dimensions, not shape {table.shape}")
    if table.size and (table.dtype.kind not in "iub" or table.min() < NONE):
        raise ValueError(f"answers must be whole numbers of at least {NONE} (no answer)")
    return table.astype(np.int64)
