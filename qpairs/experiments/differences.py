"""Whether two rows of a comparison differ: intervals over the choice of questions and over the choice of seeds.

A row has a few runs, which differ in their seed. That another seed gives another F1 is often as large an effect as what
is compared (Bouthillier et al. 2021, Accounting for variance in machine learning benchmarks), so the variance of a
difference is the sum of two: over the questions, by paired bootstrap over components, and over the seeds, from the
spread of the runs. What depends on both, such as a question that one run gets right and another does not, is counted in
both, so that the sum is rather too large than too small (Owen 2007, The pigeonhole bootstrap).

Few seeds make the second variance itself uncertain. The interval is that of Games and Howell (1976, Pairwise multiple
comparison procedures with unequal n's and/or variances): degrees of freedom by Satterthwaite (1946), and quantiles of
the studentized range, which hold for all pairs of rows at once, since the best row was chosen by these very figures.
For two rows this is Welch's t interval. Of many rows of two or three runs, some have a spread near 0 by chance, and
differ too often: so each row's variance is the mean of its own and of that of all rows together, which keeps the level
also where rows vary unequally (`tests/experiments/test_differences.py` simulates both).
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from qpairs import metrics

LEVEL = 0.95
FREEDOMS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 6, 8, 12, 20, 60, math.inf)  # between which quantiles are interpolated
Interval = tuple[float, float]
Finding = Literal["better", "worse", "no difference", "unknown"]


@dataclass(frozen=True)
class RowDifference:
    """By how much the mean F1 of one row exceeds that of another.

    Attributes:
        value: mean over the runs of the one minus mean over those of the other.
        low, high: 95 % interval over questions and seeds; over questions alone where `seeds_known` is False.
        seeds_known: whether both rows have several runs, so that the variation over seeds could be measured.
    """

    value: float
    low: float
    high: float
    seeds_known: bool

    @property
    def verdict(self) -> Finding:
        """What the interval says.

        `unknown`: zero lies outside the interval over the questions, but runs of other seeds might differ as much.

        >>> RowDifference(-0.03, -0.05, -0.01, seeds_known=True).verdict
        'worse'
        >>> RowDifference(-0.03, -0.05, -0.01, seeds_known=False).verdict
        'unknown'
        """
        if self.low <= 0 <= self.high:
            return "no difference"
        if not self.seeds_known:
            return "unknown"
        return "better" if self.value > 0 else "worse"


def row_difference(
    answers: Sequence[NDArray[np.bool_]],
    others: Sequence[NDArray[np.bool_]],
    labels: NDArray[np.int8],
    components: NDArray[np.int64],
    *,
    rows: int = 2,
    beside: Sequence[Sequence[float]] = (),
    samples: int = 1000,
    seed: int = 0,
) -> RowDifference:
    """The difference of two rows in mean F1, with an interval over questions and seeds.

    Args:
        answers: the decisions (n,) of each run of the one row.
        others: those of the other row.
        labels: (n,) 0 or 1.
        components: (n,) component of each pair.
        rows: how many rows are compared; the interval holds for all pairs of them together.
        beside: F1 of the runs of the other rows.
        samples: resamples of the components.
        seed: of the resamples.
    """
    over_questions = metrics.paired_difference(
        np.stack(answers), np.stack(others), labels, components, samples=samples, level=LEVEL, seed=seed
    )
    value, ends = over_questions.value, (over_questions.low, over_questions.high)
    if min(len(answers), len(others)) < 2:
        return RowDifference(value, *ends, seeds_known=False)
    scores = [[metrics.confusion(run, labels, 0.5).f1 for run in runs] for runs in (answers, others)]
    return RowDifference(value, *with_seeds(value, ends, scores, rows=rows, beside=beside), seeds_known=True)


def with_seeds(
    value: float,
    over_questions: Interval,
    scores: Sequence[Sequence[float]],
    *,
    rows: int = 2,
    beside: Sequence[Sequence[float]] = (),
) -> Interval:
    """The 95 % interval over questions and seeds, from that over questions alone.

    Each end is moved outwards by itself, so that a skewed interval stays skewed.

    Args:
        value: a mean over runs, or the difference of two means.
        over_questions: its 95 % interval over the questions.
        scores: the scores of the runs of each mean; two or more of each.
        rows: how many rows are compared.
        beside: the scores of the runs of the other rows; those of a single run say nothing about seeds.

    >>> low, high = with_seeds(0.75, (0.73, 0.78), [[0.74, 0.75, 0.76]])
    >>> round(low, 3), round(high, 3)
    (0.726, 0.782)
    """
    seeds = _seed_variances(scores, [runs for runs in beside if len(runs) > 1])

    def reach(width: float) -> float:
        questions = (max(width, 0.0) / stats.norm.ppf((1 + LEVEL) / 2)) ** 2
        total = questions + sum(variance for variance, _ in seeds)
        uncertainty = sum(variance**2 / freedom for variance, freedom in seeds)  # that of `questions` is negligible
        freedom = total**2 / uncertainty if uncertainty > 0 else math.inf
        return _quantile(rows, freedom) * math.sqrt(total)

    low, high = over_questions
    return value - reach(value - low), value + reach(high - value)


def _seed_variances(scores: Sequence[Sequence[float]], beside: Sequence[Sequence[float]]) -> list[tuple[float, int]]:
    """The parts that rows have in the variance of a sum of means of runs, and the degrees of freedom of each.

    With other rows, the variance of a run is the mean of that of its own row and of that of all.
    """
    runs = [*scores, *beside]
    variances = np.array([np.var(row, ddof=1) for row in runs])
    freedom = np.array([len(row) - 1 for row in runs])
    shares = np.array([1 / len(row) for row in scores] + [0.0] * len(beside))
    if beside:
        shares = (shares + freedom / freedom.sum() * shares.sum()) / 2
    return list(zip((shares * variances).tolist(), freedom.tolist(), strict=True))


def _quantile(rows: int, freedom: float) -> float:
    """How many standard errors two of this many rows differ by chance, at most, in 95 % of comparisons.

    For more than two rows interpolated in 1 / freedom, as in printed tables, because the exact value takes a fifth of
    a second; it is at most three percent too large.
    """
    if rows < 3:
        return float(stats.t.ppf((1 + LEVEL) / 2, freedom))
    after = max(1, min(bisect.bisect(FREEDOMS, freedom), len(FREEDOMS) - 1))
    first, last = FREEDOMS[after - 1], FREEDOMS[after]
    ends = (1 / last, 1 / first), (_studentized_range(rows, last), _studentized_range(rows, first))
    return float(np.interp(1 / freedom, *ends))


@functools.cache
def _studentized_range(rows: int, freedom: float) -> float:
    return float(stats.studentized_range.ppf(LEVEL, rows, freedom)) / math.sqrt(2)
