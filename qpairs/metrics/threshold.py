"""Thresholds: what a given one gets right and wrong, and how one is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.inputs import Bools, Floats, as_labelled, as_labels, ratio
from qpairs.metrics.logistic import expit
from qpairs.metrics.ranking import distinct_cuts

PRECISIONS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)  # of the operating points
MANY_PAIRS = 1_000  # from which on the best threshold of a sample needs no smoothing

_PROBIT_TO_LOGIT = 1.702  # the logistic function at 1.702 z is within 0.01 of the normal distribution function at z


def decide(scores: ArrayLike, threshold: float) -> Bools:
    """Whether scores lie at or above a threshold, in the shape of the scores.

    Compared in float64: float32 would round the threshold, perhaps onto a score below it.

    Raises:
        ValueError: a score or the threshold is NaN, which is neither above nor below anything.

    >>> decide([0.2, 0.8], 0.5).tolist()
    [False, True]
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(threshold):
        raise ValueError("the threshold is NaN")
    if np.isnan(values).any():
        raise ValueError(f"scores contain NaN, first at row {int(np.argmax(np.isnan(values)))}")
    return np.asarray(values >= threshold)


@dataclass(frozen=True)
class Confusion:
    """Counts of true and false positives and negatives, and the ratios made of them (0.0 where undefined).

    >>> Confusion(tp=8, fp=2, fn=2, tn=8).f1
    0.8
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def precision(self) -> float:
        """Share of duplicates among the pairs called duplicates."""
        return float(ratio(self.tp, self.tp + self.fp))

    @property
    def recall(self) -> float:
        """Share of the duplicates that are found."""
        return float(ratio(self.tp, self.tp + self.fn))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return float(ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn))

    @property
    def accuracy(self) -> float:
        """Share of right decisions."""
        return float(ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn))


def confusion(scores: ArrayLike, labels: ArrayLike, threshold: float) -> Confusion:
    """Right and wrong decisions of `score >= threshold`; one class alone is allowed.

    >>> confusion([0.2, 0.9, 0.7, 0.6], [0, 1, 0, 1], 0.65)
    Confusion(tp=1, fp=1, fn=1, tn=1)
    """
    values, duplicate = as_labelled(scores, labels, both=False)
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN")
    called = decide(values, threshold)
    tp, fp = int((called & duplicate).sum()), int((called & ~duplicate).sum())
    positives = int(duplicate.sum())
    return Confusion(tp, fp, positives - tp, len(values) - positives - fp)


def all_duplicate_f1(labels: ArrayLike) -> float:
    """F1 of calling every pair a duplicate: the trivial baseline.

    >>> all_duplicate_f1([1, 0, 0])
    0.5
    """
    duplicate = as_labels(labels)
    return float(2 * duplicate.sum() / (len(duplicate) + duplicate.sum()))


def best_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """The threshold with the highest F1; among equal F1, the one with the highest precision.

    It lies midway between the two neighbouring scores that it separates, which is robust on new data; where all pairs
    are called duplicates, it is the lowest score. For few pairs see `fit_threshold`.

    >>> best_threshold([0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1])
    0.625
    """
    values, duplicate = as_labelled(scores, labels)
    distinct, tp, called = distinct_cuts(values, duplicate)
    return _below(distinct, int(np.argmax(2 * tp / (called + tp[-1]))))  # the first of equals is the most precise


def _below(distinct: Floats, cut: int) -> float:
    """The threshold midway between a score and the next lower one; the score itself where there is none between."""
    upper = float(distinct[cut])
    lower = float(distinct[cut + 1]) if cut + 1 < len(distinct) else upper
    middle = upper / 2 + lower / 2
    return middle if lower < middle <= upper else upper


@dataclass(frozen=True)
class OperatingPoint:
    """The lowest threshold whose precision is at least a value, with 95 % confidence.

    Attributes:
        precision: what was asked for; the one-sided lower bound of the threshold's precision is no less.
        threshold: duplicate if and only if score >= threshold.
        recall: share of the duplicates at or above it.

    >>> operating_points(np.linspace(0, 1, 200), np.arange(200) > 100)[0].precision
    0.5
    """

    precision: float
    threshold: float
    recall: float


def operating_points(
    scores: ArrayLike, labels: ArrayLike, precisions: Sequence[float] = PRECISIONS, confidence: float = 0.95
) -> list[OperatingPoint]:
    """The lowest threshold of each precision that can be promised, midway between scores as in `best_threshold`.

    The lower bound is that of Clopper and Pearson (1934) at each cut. Taking the lowest of many cuts hardly raises the
    chance of a false promise, since neighbouring cuts fail together: simulated with 838 pairs, 37 % duplicates and two
    normal distributions, the true precision lay below 0.7 to 0.95 in 5 % of the draws or fewer.

    Args:
        scores: (n,) similarities.
        labels: (n,) 0 or 1.
        precisions: what to promise, rising.
        confidence: that the precision is no less.

    >>> scores, labels = np.linspace(0, 1, 200), np.arange(200) >= 100
    >>> [point.precision for point in operating_points(scores, labels, [0.9, 0.99])]
    [0.9]
    """
    from scipy.special import betaincinv  # slow to import, and a prediction needs none of it

    distinct, tp, called = distinct_cuts(*as_labelled(scores, labels))
    bound = np.where(tp > 0, betaincinv(np.maximum(tp, 1), called - tp + 1, 1 - confidence), 0.0)
    cuts = {precision: np.flatnonzero(bound >= precision) for precision in precisions}
    return [
        OperatingPoint(precision, _below(distinct, int(cut[-1])), float(tp[cut[-1]] / tp[-1]))
        for precision, cut in cuts.items()
        if len(cut)
    ]


def fit_threshold(scores: ArrayLike, labels: ArrayLike, prior: float | None = None, strength: float = 4.0) -> float:
    """The threshold of greatest expected F1 on new pairs, from few labelled pairs or many.

    From MANY_PAIRS on it is `best_threshold`; below, it maximises F1 under smoothed class distributions. The result t
    is then moved towards `prior` by the share strength / (strength + n ((t - prior) / s)^2), with s the standard
    deviation within the classes: a difference that n pairs may well show by chance nearly vanishes, one that they rule
    out stays.

    Compared by simulation (F1 on fresh pairs; 5 to 1,000 pairs, normal, beta and Laplace scores, same or shifted):
    best F1 of the sample, kernels of several widths, one normal per class, Platt scaling, this mixture (the best or
    second best from 5 to 1,000); for the prior: its weighted mean with t, pseudo pairs, this share. On the
    similarities of an LSTM on real pairs the smoothed choice was better up to 800 pairs, the plain one from 1,600 on.

    Args:
        scores: (n,) similarities.
        labels: (n,) 0 or 1, both occur.
        prior: an earlier threshold.
        strength: of the prior, in pairs.

    >>> 0.3 < fit_threshold([0.1, 0.3, 0.6, 0.9], [0, 0, 1, 1]) < 0.6
    True
    """
    values, duplicate = as_labelled(scores, labels)
    order = np.lexsort((duplicate, values))
    values, duplicate = values[order], duplicate[order]
    if values[0] == values[-1]:
        return float(values[0])
    classes = values[duplicate], values[~duplicate]
    n = len(values)
    variance = sum(len(sample) * float(sample.var()) for sample in classes) / max(n - 2, 1)
    spread = max(math.sqrt(variance), 1e-3 * float(values[-1] - values[0]))
    threshold = best_threshold(values, duplicate) if n >= MANY_PAIRS else _smoothed_threshold(values, classes, spread)
    if prior is None:
        return threshold
    share = strength / (strength + n * ((threshold - prior) / spread) ** 2) if strength > 0 else 0.0
    return threshold + share * (prior - threshold)


def _smoothed_threshold(values: Floats, classes: tuple[Floats, Floats], spread: float) -> float:
    """The middle of the thresholds whose F1 is greatest under the smoothed distributions of the two classes."""
    at = np.union1d(np.linspace(values[0], values[-1], 201), np.quantile(values, np.linspace(0, 1, 201)))
    tp, fp = (len(sample) * _survival(sample, spread, at) for sample in classes)
    f1 = 2 * tp / (tp + fp + len(classes[0]))
    top = f1 >= f1.max() - 1e-9
    first = int(np.argmax(top))
    last = first + int(np.argmin(np.append(top[first:], False))) - 1
    return float(at[first] + at[last]) / 2


def _survival(sample: Floats, spread: float, at: Floats) -> Floats:
    """Smoothed share of a class that scores at or above each threshold, (t,).

    A normal distribution, worth 30 pairs, mixed with the kernel estimate of the sample (Silverman's bandwidth).
    `spread` is the standard deviation of both classes, towards which the class's own is shrunk by 5 pairs.
    """
    n = len(sample)
    own = math.sqrt((n * float(sample.var()) + 5 * spread**2) / (n + 5))
    normal = expit(_PROBIT_TO_LOGIT * (sample.mean() - at) / own)
    width = 1.06 * own * n**-0.2
    kernel = np.array([expit(_PROBIT_TO_LOGIT * (sample - t) / width).mean() for t in at])
    return np.asarray((30 * normal + n * kernel) / (30 + n))
