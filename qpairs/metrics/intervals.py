"""Intervals by bootstrap over groups of pairs, because pairs that share questions are not independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.inputs import BLOCK, Floats, Ints, as_labelled, as_labels, ratio
from qpairs.metrics.ranking import area_under_cuts, spearman
from qpairs.metrics.threshold import decide

Interval = tuple[float, float]
MOST = 0.5  # share of all pairs, above which a group is not resampled as one


def bootstrap_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    threshold: float,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals of f1, precision, recall and accuracy at a fixed threshold.

    Whole groups are drawn with replacement, as many as there are (cluster bootstrap; Field and Welsh, 2007), since
    pairs that share questions are not independent; a group with more than half of the pairs is `taken_apart`. Undefined
    ratios count as 0, as in `Confusion`. Where no decision of a kind is wrong, or none is right, no resample has one:
    the interval then reaches to the share that `unseen` allows.

    Args:
        scores: (n,) similarities.
        labels: (n,) 0 or 1.
        groups: (n,) integers, the component of each pair.
        threshold: duplicate if and only if score >= threshold.
        samples: number of resamples.
        level: coverage of the interval.
        seed: of the draws.

    >>> interval = bootstrap_interval([0.2, 0.9, 0.7, 0.6] * 25, [0, 1, 0, 1] * 25, range(100), 0.65)
    >>> [round(end, 1) for end in interval["accuracy"]]
    [0.4, 0.6]
    """
    values, duplicate = as_labelled(scores, labels, both=False)
    index, number = _grouped(groups, len(values), samples, level)
    called = decide(values, threshold)
    masks = (called & duplicate, called & ~duplicate, ~called & duplicate, ~called & ~duplicate)
    counts = np.stack([np.bincount(index[mask], minlength=number) for mask in masks], axis=1)  # (groups, 4)
    tp, fp, fn, tn = _resampled(counts, samples, seed).T
    resampled = {
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
    }
    right_wrong = {
        "f1": ((0,), (1, 2)),
        "precision": ((0,), (1,)),
        "recall": ((0,), (2,)),
        "accuracy": ((0, 3), (1, 2)),
    }
    found = {}
    for name, (right, wrong) in right_wrong.items():
        low, high = _percentiles(resampled[name], level)
        has_right, has_wrong = counts[:, right].any(axis=1), counts[:, wrong].any(axis=1)
        share = unseen(int((has_right | has_wrong).sum()), level)
        least, most = (_as_f1(1 - share), _as_f1(share)) if name == "f1" else (1 - share, share)
        if has_right.any() or has_wrong.any():
            low = low if has_wrong.any() else min(low, least)
            high = high if has_right.any() else max(high, most)
        found[name] = (low, high)
    return found


def unseen(n: int, level: float = 0.95) -> float:
    """The greatest share of a kind of which none is among n: the end of the exact interval (Clopper and Pearson, 1934).

    >>> round(unseen(10), 2), round(unseen(1000), 4)
    (0.31, 0.0037)
    """
    return 1 - ((1 - level) / 2) ** (1 / n) if n else 1.0


def _as_f1(jaccard: float) -> float:
    """F1, 2 tp / (2 tp + fp + fn), from the share tp / (tp + fp + fn)."""
    return 2 * jaccard / (1 + jaccard)


def average_precision_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    samples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the average precision, resampled as in `bootstrap_interval`.

    A resample without duplicates counts as 0. If all duplicates are ranked above all other pairs, they are so in every
    resample: the interval then reaches down to the share that `unseen` allows.

    >>> low, high = average_precision_interval([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], [0, 1, 2, 3])
    >>> low <= high
    True
    """
    values, duplicate = as_labelled(scores, labels)
    index, number = _grouped(groups, len(values), samples, level, duplicate, values)
    order = np.argsort(-values, kind="stable")
    ranked, relevant, index = values[order], duplicate[order], index[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    rng = np.random.default_rng(seed)
    resampled = []
    for _ in range(samples):
        weights = np.bincount(rng.integers(number, size=number), minlength=number)[index]
        tp = np.cumsum(weights * relevant)[last]
        resampled.append(area_under_cuts(tp, np.cumsum(weights)[last], int(tp[-1])))
    low, high = _percentiles(np.array(resampled), level)
    perfect = values[duplicate].min() > values[~duplicate].max()
    return (min(low, 1 - unseen(len(np.unique(index[relevant])), level)) if perfect else low), high


def spearman_interval(
    scores: ArrayLike,
    grades: ArrayLike,
    groups: ArrayLike,
    *,
    samples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the rank correlation of scores and grades, resampled as in `bootstrap_interval`.

    >>> low, high = spearman_interval([0.9, 0.8, 0.3, 0.1], [1.0, 0.6, 0.7, 0.0], [0, 1, 2, 3])
    >>> low <= high
    True
    """
    values, wanted = np.asarray(scores, dtype=np.float64), np.asarray(grades, dtype=np.float64)
    index, number = _grouped(groups, len(values), samples, level, wanted, values)
    rng, order = np.random.default_rng(seed), np.argsort(index, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(index, minlength=number))[:-1])
    rows = (np.concatenate([members[g] for g in rng.integers(number, size=number)]) for _ in range(samples))
    return _percentiles(np.array([spearman(values[drawn], wanted[drawn]) for drawn in rows]), level)


@dataclass(frozen=True)
class Difference:
    """A difference and its interval.

    >>> Difference(0.02, 0.01, 0.03).distinguishable
    True
    """

    value: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


def paired_difference(
    answers: ArrayLike,
    others: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """By how much the F1 of decisions exceeds that of others on the same pairs, each a mean over runs.

    Both are resampled together, in whole groups as in `bootstrap_interval` (paired bootstrap; Efron and Tibshirani,
    1993, chapter 8): what makes a pair hard for both cancels out. The interval covers the choice of pairs, not how
    far runs of other seeds differ.

    Args:
        answers: (runs, n) 0 or 1, the decisions of each run.
        others: (other runs, n) 0 or 1.
        labels: (n,) 0 or 1.
        groups: (n,) integers, the component of each pair.
        samples: number of resamples.
        level: coverage of the interval.
        seed: of the draws.

    >>> found = paired_difference([[1, 1, 0, 0]], [[1, 0, 0, 0]], [1, 1, 0, 0], [0, 1, 2, 3])
    >>> round(found.value, 3)
    0.333
    """
    duplicate, sides = as_labels(labels), [np.asarray(side, dtype=bool) for side in (answers, others)]
    index, number = _grouped(groups, len(duplicate), samples, level)
    for side in sides:
        if side.ndim != 2 or side.shape[1] != len(duplicate) or not len(side):
            raise ValueError(f"answers must be of shape (runs, {len(duplicate)}), not {side.shape}")
    runs = np.concatenate(sides)  # (r, n)
    masks = np.concatenate([runs & duplicate, runs, duplicate[None]])  # (2r + 1, n)
    counts = np.stack([np.bincount(index[mask], minlength=number) for mask in masks], axis=1)  # (groups, 2r + 1)
    drawn = np.concatenate([counts.sum(axis=0, keepdims=True), _resampled(counts, samples, seed)])
    tp, called, relevant = np.split(drawn, [len(runs), 2 * len(runs)], axis=1)
    f1 = ratio(2 * tp, called + relevant)  # (1 + samples, r), the first without resampling
    differences = f1[:, : len(sides[0])].mean(axis=1) - f1[:, len(sides[0]) :].mean(axis=1)
    return Difference(float(differences[0]), *_percentiles(differences[1:], level))


def mean_interval(values: ArrayLike, *, samples: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile interval of a mean over units that are drawn independently, such as the queries of a search.

    Args:
        values: (n,) one for each unit.
        samples: number of resamples of n units with replacement (Efron and Tibshirani, 1993, chapter 6).
        level: coverage of the interval.
        seed: of the draws: the same for several measures of the same units, so that they are resampled together.

    >>> low, high = mean_interval([0.0, 1.0] * 50)
    >>> 0.3 < low < 0.5 < high < 0.7
    True
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError("values must be a vector of finite numbers, one at least")
    _grouped(np.arange(len(array)), len(array), samples, level)
    rng, rows = np.random.default_rng(seed), max(1, BLOCK // (8 * len(array)))
    sizes = [min(rows, samples - start) for start in range(0, samples, rows)]
    drawn = [array[rng.integers(len(array), size=(size, len(array)))].mean(axis=1) for size in sizes]
    return _percentiles(np.concatenate(drawn), level)


def pairs_to_halve(n: int) -> int:
    """How many more labelled pairs halve the width of an interval from n pairs: it falls as 1 / sqrt(n), so 3n more.

    >>> pairs_to_halve(100)
    300
    """
    return 3 * n


def _grouped(groups: ArrayLike, n: int, samples: int, level: float, *keys: ArrayLike) -> tuple[Ints, int]:
    """Groups as 0, 1, ... per pair, `taken_apart` by keys, and their number."""
    array = np.asarray(groups)
    if array.shape != (n,):
        raise ValueError(f"groups must be one per pair, ({n},), not of shape {array.shape}")
    if samples < 1 or not 0 < level < 1:
        raise ValueError(f"at least 1 sample and a level inside (0, 1) are needed, not {samples} and {level}")
    names, index = np.unique(taken_apart(array, *keys), return_inverse=True)
    return index.astype(np.int64), len(names)


def taken_apart(groups: ArrayLike, *keys: ArrayLike) -> Ints:
    """Groups (n,) of which none has more than half of the pairs: such a one is made of single pairs.

    Resampled whole, it would be the sample itself again and again, so that the interval had no width; and of folds that
    share no group, there would be one.

    Args:
        groups: (n,) integers.
        keys: (n,) each, by which single pairs are numbered, the last one first; without one, by their place.

    >>> taken_apart([4, 4, 4, 7]).tolist(), taken_apart([4, 4, 7, 7]).tolist()
    ([8, 9, 10, 7], [4, 4, 7, 7])
    """
    array = np.asarray(groups)
    names, index, sizes = np.unique(array, return_inverse=True, return_counts=True)
    alone = (sizes > MOST * len(array)) & (sizes > 1)
    if not alone.any():
        return array
    place = np.arange(len(array))
    if keys:
        place[np.lexsort(np.stack([np.asarray(key) for key in keys]))] = place.copy()
    return np.where(alone[index], int(names[-1]) + 1 + place, array)


def _resampled(counts: Ints, samples: int, seed: int) -> Ints:
    """Sums (samples, k) of the counts (groups, k) of as many groups as there are, drawn with replacement.

    Groups of equal counts are alike, so a resample is one multinomial draw over the kinds of group.
    """
    kinds, members = np.unique(counts, axis=0, return_counts=True)  # (kinds, k), (kinds,)
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // (8 * len(kinds)))
    sizes = [min(rows, samples - start) for start in range(0, samples, rows)]
    return np.concatenate([rng.multinomial(len(counts), members / len(counts), size) @ kinds for size in sizes])


def _percentiles(values: Floats, level: float) -> Interval:
    """The ends of the central interval that holds the share `level` of the values (n,)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
