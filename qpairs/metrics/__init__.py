"""How well similarities tell duplicates from non-duplicates: thresholds, F1, calibration, intervals, retrieval.

Scores are similarities (greater is closer), labels are 0 or 1, and a threshold `t` means: duplicate if and only if
`score >= t`. Equal scores are never split, so nothing depends on the order of the rows. Needs numpy alone.
Every function raises ValueError, with one line that says what is wrong, on input that it cannot judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_BLOCK = 2**24  # similarities held at once
_QUANTILES = 101
_PROBIT_TO_LOGIT = 1.702  # the logistic function at 1.702 z is within 0.01 of the normal distribution function at z
PRECISIONS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)  # of the operating points
MANY_PAIRS = 1_000  # from which on the best threshold of a sample needs no smoothing


# ---------------------------------------------------------------------- input


def _finite(values: ArrayLike, what: str = "scores") -> Floats:
    """The values as a float64 vector, if there are any and all are finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what} must be one-dimensional, not of shape {array.shape}")
    if not array.size:
        raise ValueError(f"there are no {what}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} contain NaN or infinity, first at row {int(np.argmin(np.isfinite(array)))}")
    return array


def _binary(labels: ArrayLike) -> Bools:
    """The labels as a boolean vector, if there are any and all are 0 or 1."""
    array = _finite(labels, "labels")
    if wrong := set(array.tolist()) - {0.0, 1.0}:
        raise ValueError(f"labels must be 0 or 1, not {min(wrong):g}")
    return np.equal(array, 1)


def _checked(scores: ArrayLike, labels: ArrayLike, *, both: bool = True, what: str = "scores") -> tuple[Floats, Bools]:
    """Scores and labels as vectors of one length; with `both`, only if both classes occur."""
    values, duplicate = _finite(scores, what), _binary(labels)
    if len(values) != len(duplicate):
        raise ValueError(f"{len(values)} {what} but {len(duplicate)} labels")
    if both and duplicate.all() == duplicate.any():
        raise ValueError(f"all {len(duplicate)} labels are {int(duplicate[0])}: both classes are needed")
    return values, duplicate


def _ratio(part: ArrayLike, whole: ArrayLike) -> Floats:
    """The ratio part / whole, and 0 where whole is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    ratio: Floats = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return ratio


def _sigmoid(logits: ArrayLike) -> Floats:
    return np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))


def _logit(probability: ArrayLike) -> Floats:
    p = np.asarray(probability, dtype=np.float64)
    return np.asarray(np.log(p) - np.log1p(-p))


# ---------------------------------------------------------------------- thresholds and ranking


@dataclass(frozen=True)
class Confusion:
    """Counts of right and wrong answers, and the ratios made of them (0.0 where undefined)."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def precision(self) -> float:
        """Share of right answers among those of "duplicate"."""
        return float(_ratio(self.tp, self.tp + self.fp))

    @property
    def recall(self) -> float:
        """Share of the duplicates that are found."""
        return float(_ratio(self.tp, self.tp + self.fn))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return float(_ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn))

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(_ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn))


def confusion(scores: ArrayLike, labels: ArrayLike, threshold: float) -> Confusion:
    """Right and wrong answers of `score >= threshold`; one class alone is allowed.

    Scores are compared in float64: float32 comparison would round the threshold, perhaps onto a score below it.
    """
    values, duplicate = _checked(scores, labels, both=False)
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN")
    answer = values >= threshold
    tp, fp = int((answer & duplicate).sum()), int((answer & ~duplicate).sum())
    positives = int(duplicate.sum())
    return Confusion(tp, fp, positives - tp, len(values) - positives - fp)


def _cuts(scores: Floats, duplicate: Bools) -> tuple[Floats, Ints, Ints]:
    """The distinct scores, falling, with the duplicates and the pairs at or above each."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    return ranked[last], np.cumsum(duplicate[order], dtype=np.int64)[last], last.astype(np.int64) + 1


def best_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """The threshold of greatest F1; among equal F1, that of greatest precision.

    It lies midway between the two scores that it parts, which is robust on new data; where nothing is parted
    ("all are duplicates") it is the least score. For few pairs see `fit_threshold`.
    """
    values, duplicate = _checked(scores, labels)
    distinct, tp, answered = _cuts(values, duplicate)
    return _below(distinct, int(np.argmax(2 * tp / (answered + tp[-1]))))  # the first of equals is the most precise


def _below(distinct: Floats, cut: int) -> float:
    """The threshold midway between a score and the next lower one; the score itself where there is none between."""
    upper = float(distinct[cut])
    lower = float(distinct[cut + 1]) if cut + 1 < len(distinct) else upper
    middle = upper / 2 + lower / 2
    return middle if lower < middle <= upper else upper


@dataclass(frozen=True)
class OperatingPoint:
    """The least strict threshold of a precision: no lower one reached it on validation.

    Attributes:
        precision: what was asked for; that of the threshold is no less.
        threshold: duplicate if and only if score >= threshold.
        recall: share of the duplicates at or above it.
    """

    precision: float
    threshold: float
    recall: float


def operating_points(
    scores: ArrayLike, labels: ArrayLike, precisions: Sequence[float] = PRECISIONS, least: int = 20
) -> list[OperatingPoint]:
    """The lowest threshold of each precision that can be reached; parts scores as `best_threshold` does.

    Args:
        scores: (n,) similarities.
        labels: (n,) labels.
        precisions: what to reach, rising.
        least: pairs that must lie at or above a threshold for its precision to count.
    """
    distinct, tp, answered = _cuts(*_checked(scores, labels))
    reached = np.where(answered >= least, tp / answered, 0.0)
    cuts = {p: np.flatnonzero(reached >= p) for p in precisions}
    return [
        OperatingPoint(p, _below(distinct, int(cut[-1])), float(tp[cut[-1]] / tp[-1]))
        for p, cut in cuts.items()
        if len(cut)
    ]


def precision_recall_curve(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and threshold at every distinct score, thresholds rising; three arrays of one length."""
    distinct, tp, answered = _cuts(*_checked(scores, labels))
    return (tp / answered)[::-1], (tp / tp[-1])[::-1], distinct[::-1]


def _average_precision(tp: ArrayLike, answered: ArrayLike, relevant: float) -> float:
    """Sum over the cuts of precision times what recall gained; `relevant` is the number of all that could be found."""
    tp = np.asarray(tp, dtype=np.float64)
    return float((np.diff(tp, prepend=0.0) * _ratio(tp, answered)).sum() / relevant) if relevant else 0.0


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the stepwise precision-recall curve (not interpolated), one step per distinct score."""
    _, tp, answered = _cuts(*_checked(scores, labels))
    return _average_precision(tp, answered, int(tp[-1]))


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that a duplicate scores above a non-duplicate, ties counting half (Hanley and McNeil, 1982)."""
    _, tp, answered = _cuts(*_checked(scores, labels))
    fp = answered - tp
    above = tp + np.append(0, tp[:-1])
    return float((np.diff(fp, prepend=0) * above).sum() / (2 * int(tp[-1]) * int(fp[-1])))


def all_duplicate_f1(labels: ArrayLike) -> float:
    """F1 of answering "duplicate" always: what any method has to beat."""
    duplicate = _binary(labels)
    return float(2 * duplicate.sum() / (len(duplicate) + duplicate.sum()))


# ---------------------------------------------------------------------- few pairs


@dataclass(frozen=True)
class Calibration:
    """Maps a similarity to the probability that the pair is a duplicate: sigmoid(slope * score + intercept)."""

    slope: float
    intercept: float

    def log_odds(self, scores: ArrayLike) -> Floats:
        """Log odds of a duplicate, in the shape of the scores."""
        return self.slope * np.asarray(scores, dtype=np.float64) + self.intercept

    def probability(self, scores: ArrayLike) -> Floats:
        """Probabilities, in the shape of the scores; never overflows."""
        return _sigmoid(self.log_odds(scores))


def _cross_entropy(logits: Floats, targets: Floats, weights: Floats) -> float:
    return float((weights * (np.logaddexp(0.0, logits) - targets * logits)).sum())


def _logistic(design: Floats, targets: Floats, weights: Floats, offset: Floats) -> Floats:
    """Weighted logistic regression on soft targets in (0, 1), by Newton's method with backtracking.

    Args:
        design: (n, k) inputs.
        targets: (n,) probabilities to meet.
        weights: (n,) how many pairs each row stands for.
        offset: (n,) fixed part of the logits.

    Returns:
        (k,) coefficients.
    """
    coefficients = np.zeros(design.shape[1])
    loss = _cross_entropy(offset, targets, weights)
    for _ in range(100):
        probability = _sigmoid(design @ coefficients + offset)
        gradient = design.T @ (weights * (probability - targets))  # (k,)
        curvature = design.T @ ((weights * probability * (1 - probability))[:, None] * design)  # (k, k)
        curvature += (1e-12 + 1e-10 * np.trace(curvature)) * np.eye(len(gradient))
        step = np.linalg.solve(curvature, gradient)
        decrement, size = float(gradient @ step), 1.0
        while size > 1e-10:
            trial = coefficients - size * step
            if (reached := _cross_entropy(design @ trial + offset, targets, weights)) <= loss - 1e-4 * size * decrement:
                break
            size /= 2
        else:
            break
        coefficients, loss = trial, reached
        if decrement < 1e-12 * (1 + loss):
            break
    return coefficients


def _moved(prior: Calibration, scores: Floats, targets: Floats) -> float:
    """The prior's intercept, moved to where these scores lie, its slope kept.

    Minimises cross entropy plus log(1 + move^2), the density of a standard Cauchy distribution over the move in
    logits: its heavy tails cost a wide move hardly more than a middling one. The optimum lies between the old
    intercept and the one that these pairs alone would choose.
    """
    ones, logits = np.ones_like(scores), prior.slope * scores + prior.intercept
    free = float(_logistic(ones[:, None], targets, ones, logits)[0])
    moves = np.linspace(0.0, free, 101)
    losses = [_cross_entropy(logits + move, targets, ones) + math.log1p(move**2) for move in moves]
    return prior.intercept + float(moves[np.argmin(losses)])


def fit_calibration(
    scores: ArrayLike, labels: ArrayLike, prior: Calibration | None = None, strength: float = 10.0
) -> Calibration:
    """Platt scaling (Platt, 1999), with his smoothed targets, so that separable pairs have an optimum too.

    Scores that run the wrong way, or are constant, give slope 0 and the base rate. With a `prior` it proceeds as
    Steyerberg et al. (2004) update a clinical score: first the prior's intercept alone is moved to where the new
    scores lie (another forum's similarities may be lower all over), then slope and intercept are fitted together
    to the pairs, targets unsmoothed, and to pseudo pairs worth `strength` of them, which lie where the moved prior
    says 10 to 90 % and are labelled by it. By simulation (5 to 200 pairs; the mean over same and translated scores)
    its log loss on fresh pairs is below that of no prior, and of pseudo pairs on the unmoved prior.
    """
    values, duplicate = _checked(scores, labels)
    order = np.lexsort((duplicate, values))
    values, duplicate = values[order], duplicate[order]
    positives, negatives = int(duplicate.sum()), int((~duplicate).sum())
    targets = np.where(duplicate, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    weights = np.ones_like(values)
    if prior is not None and prior.slope > 0 and strength > 0:
        says = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
        values = np.append(values, (_logit(says) - _moved(prior, values, targets)) / prior.slope)
        targets, weights = np.append(duplicate, says), np.append(weights, np.full(len(says), strength / len(says)))
    centre = float(values.mean())
    spread = float(np.abs(values - centre).max())
    slope = 0.0
    if spread > 1e-12 * max(1.0, abs(centre)):
        design = np.stack([(values - centre) / spread, np.ones_like(values)], axis=1)  # (n, 2)
        slope, intercept = _logistic(design, targets, weights, np.zeros_like(values)).tolist()
    if slope <= 0:
        return Calibration(0.0, float(_logit(np.average(targets, weights=weights))))
    return Calibration(slope / spread, intercept - slope * centre / spread)


def _survival(sample: Floats, spread: float, at: Floats) -> Floats:
    """Smoothed share of a class that scores at or above each threshold, (t,).

    A normal distribution, worth 30 pairs, mixed with the kernel estimate of the sample (Silverman's bandwidth).
    `spread` is the standard deviation of both classes, towards which the class's own is shrunk by 5 pairs.
    """
    n = len(sample)
    own = math.sqrt((n * float(sample.var()) + 5 * spread**2) / (n + 5))
    normal = _sigmoid(_PROBIT_TO_LOGIT * (sample.mean() - at) / own)
    width = 1.06 * own * n**-0.2
    kernel = np.array([_sigmoid(_PROBIT_TO_LOGIT * (sample - t) / width).mean() for t in at])
    return np.asarray((30 * normal + n * kernel) / (30 + n))


def fit_threshold(scores: ArrayLike, labels: ArrayLike, prior: float | None = None, strength: float = 4.0) -> float:
    """The threshold of greatest F1 to be expected on new pairs, from few labelled ones or many.

    From MANY_PAIRS on it is `best_threshold`; below, it maximises F1 under smoothed class distributions. The result t
    then goes towards `prior` by the share strength / (strength + n ((t - prior) / s)^2), with s the standard deviation
    within the classes: a difference that n pairs may well show by chance is all but closed, one that they rule out
    stays.

    Compared by simulation (F1 on fresh pairs; 5 to 1,000 pairs, normal, beta and Laplace scores, same or shifted):
    best F1 of the sample, kernels of several widths, one normal per class, Platt scaling, this mixture (the best or
    next to it from 5 to 1,000); for the prior, its weighted mean with t, pseudo pairs beside it, this share. On the
    similarities of an LSTM on real pairs the smoothed choice won up to 800 pairs, and the plain one from 1,600 on.
    """
    values, duplicate = _checked(scores, labels)
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


# ---------------------------------------------------------------------- quality of probabilities


def _probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Bools]:
    values, duplicate = _checked(probabilities, labels, both=False, what="probabilities")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"probabilities must lie in [0, 1], not {values.min():g} to {values.max():g}")
    return values, duplicate


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared difference of probability and label (Brier, 1950); 0 is perfect, 0.25 is what 1/2 always gets."""
    values, duplicate = _probabilities(probabilities, labels)
    return float(np.mean((values - duplicate) ** 2))


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Mean over pairs of |mean probability - share of duplicates| in their bin (Naeini et al., 2015).

    The bins are those of `reliability`.
    """
    mean, share, n = reliability(probabilities, labels, bins)
    return float((n * np.abs(mean - share)).sum() / n.sum())


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> tuple[Floats, Floats, Ints]:
    """What a reliability diagram shows: of each bin the mean probability, the share of duplicates, and its pairs.

    Bins hold about equally many pairs; equal probabilities share one, that of their middle rank. Empty ones are left
    out, so that there may be fewer than `bins`.
    """
    values, duplicate = _probabilities(probabilities, labels)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    ranked = np.sort(values)
    middle = (np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right") - 1) / 2
    _, place, n = np.unique((middle * bins / len(values)).astype(np.int64), return_inverse=True, return_counts=True)
    return np.bincount(place, values) / n, np.bincount(place, duplicate) / n, n.astype(np.int64)


# ---------------------------------------------------------------------- intervals


def _grouped(groups: ArrayLike, n: int, samples: int, level: float) -> tuple[Ints, int]:
    """Groups as 0, 1, ... per pair, and their number."""
    array = np.asarray(groups)
    if array.shape != (n,):
        raise ValueError(f"groups must be one per pair, ({n},), not of shape {array.shape}")
    if samples < 1 or not 0 < level < 1:
        raise ValueError(f"at least 1 sample and a level inside (0, 1) are needed, not {samples} and {level}")
    names, index = np.unique(array, return_inverse=True)
    return index.astype(np.int64), len(names)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(counts: Ints, samples: int, seed: int) -> Ints:
    """Sums (samples, k) of the counts (groups, k) of as many groups as there are, drawn with replacement.

    Groups of equal counts are alike, so a resample is one multinomial draw over the kinds of group.
    """
    kinds, members = np.unique(counts, axis=0, return_counts=True)  # (kinds, k), (kinds,)
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // (8 * len(kinds)))
    sizes = [min(rows, samples - start) for start in range(0, samples, rows)]
    return np.concatenate([rng.multinomial(len(counts), members / len(counts), size) @ kinds for size in sizes])


def bootstrap_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    threshold: float,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of f1, precision, recall and accuracy at a fixed threshold.

    Whole groups are drawn with replacement, as many as there are (cluster bootstrap; Field and Welsh, 2007), since
    pairs that share questions are not independent. Undefined ratios count as 0, as in `Confusion`.

    Args:
        scores: (n,) similarities.
        labels: (n,) 0 or 1.
        groups: (n,) integers, the component of each pair.
        threshold: duplicate if and only if score >= threshold.
        samples: number of resamples.
        level: coverage of the interval.
        seed: of the draws.
    """
    values, duplicate = _checked(scores, labels, both=False)
    index, number = _grouped(groups, len(values), samples, level)
    answer = values >= threshold
    masks = (answer & duplicate, answer & ~duplicate, ~answer & duplicate, ~answer & ~duplicate)
    counts = np.stack([np.bincount(index[mask], minlength=number) for mask in masks], axis=1)  # (groups, 4)
    tp, fp, fn, tn = _resampled(counts, samples, seed).T
    resampled = {
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
    }
    return {name: _percentiles(ratio, level) for name, ratio in resampled.items()}


@dataclass(frozen=True)
class Difference:
    """A difference and its interval."""

    value: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves zero out."""
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
    """By how much the F1 of answers exceeds that of others on the same pairs, each a mean over runs.

    Both are resampled together, in whole groups as in `bootstrap_interval` (paired bootstrap; Efron and Tibshirani,
    1993, chapter 8): what makes a pair hard for both cancels out. The interval speaks of the choice of pairs; how far
    runs of other seeds differ is not in it.

    Args:
        answers: (runs, n) 0 or 1, what each run says of the pairs.
        others: (other runs, n) 0 or 1.
        labels: (n,) 0 or 1.
        groups: (n,) integers, the component of each pair.
        samples: number of resamples.
        level: coverage of the interval.
        seed: of the draws.
    """
    duplicate, sides = _binary(labels), [np.asarray(side, dtype=bool) for side in (answers, others)]
    index, number = _grouped(groups, len(duplicate), samples, level)
    for side in sides:
        if side.ndim != 2 or side.shape[1] != len(duplicate) or not len(side):
            raise ValueError(f"answers must be of shape (runs, {len(duplicate)}), not {side.shape}")
    runs = np.concatenate(sides)  # (r, n)
    masks = np.concatenate([runs & duplicate, runs, duplicate[None]])  # (2r + 1, n)
    counts = np.stack([np.bincount(index[mask], minlength=number) for mask in masks], axis=1)  # (groups, 2r + 1)
    drawn = np.concatenate([counts.sum(axis=0, keepdims=True), _resampled(counts, samples, seed)])
    tp, answered, relevant = np.split(drawn, [len(runs), 2 * len(runs)], axis=1)
    f1 = _ratio(2 * tp, answered + relevant)  # (1 + samples, r), the first of the pairs as they are
    differences = f1[:, : len(sides[0])].mean(axis=1) - f1[:, len(sides[0]) :].mean(axis=1)
    return Difference(float(differences[0]), *_percentiles(differences[1:], level))


def average_precision_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    samples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the average precision, resampled as in `bootstrap_interval`.

    A resample without duplicates counts as 0.
    """
    values, duplicate = _checked(scores, labels)
    index, number = _grouped(groups, len(values), samples, level)
    order = np.argsort(-values, kind="stable")
    ranked, relevant, index = values[order], duplicate[order], index[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    rng = np.random.default_rng(seed)
    resampled = []
    for _ in range(samples):
        weights = np.bincount(rng.integers(number, size=number), minlength=number)[index]
        tp = np.cumsum(weights * relevant)[last]
        resampled.append(_average_precision(tp, np.cumsum(weights)[last], int(tp[-1])))
    return _percentiles(np.array(resampled), level)


def pairs_to_halve(n: int) -> int:
    """How many more labelled pairs halve an interval that n pairs gave.

    Its width falls as 1 / sqrt(n), so half of it takes 4n pairs in all: 3n more.
    """
    return 3 * n


# ---------------------------------------------------------------------- distribution of the scores


@dataclass(frozen=True)
class Shift:
    """Kolmogorov-Smirnov distance (0 to 1) of n new scores from a reference, and its p value."""

    statistic: float
    p_value: float
    n: int


def is_collapsed(scores: ArrayLike, tolerance: float = 0.01) -> bool:
    """Whether similarities no longer vary: the 1 and the 99 % quantile lie within `tolerance`.

    So does a model that maps every question to one point. The default is a hundredth, in units of cosine. A single
    score tells nothing: False.
    """
    values = _finite(scores)
    low, high = np.quantile(values, [0.01, 0.99])
    return len(values) > 1 and bool(high - low < tolerance)


def quantiles(scores: ArrayLike) -> list[float]:
    """The 0, 1, ..., 100 % quantiles: a summary of the scores small enough for a checkpoint."""
    values: list[float] = np.quantile(_finite(scores), np.linspace(0, 1, _QUANTILES)).tolist()
    return values


def _reference_cdf(reference: Floats, at: Floats) -> tuple[Floats, Floats]:
    """Shares of the reference below, and at or below, each value: linear between its evenly spaced quantiles."""
    knots, first, ties = np.unique(reference, return_index=True, return_counts=True)
    shares = np.linspace(0, 1, len(reference))
    below, upto = shares[first], shares[first + ties - 1]
    left = np.clip(np.searchsorted(knots, at, "right") - 1, 0, len(knots) - 1)
    right = np.minimum(left + 1, len(knots) - 1)
    between = np.clip(_ratio(at - knots[left], knots[right] - knots[left]), 0, 1)
    inside = upto[left] + between * (below[right] - upto[left])
    outside = np.where(at < knots[0], 0.0, np.where(at > knots[-1], 1.0, inside))
    knot = at == knots[left]
    return np.where(knot, below[left], outside), np.where(knot, upto[left], outside)


def distribution_shift(scores: ArrayLike, reference_quantiles: ArrayLike, reference_n: int) -> Shift:
    """Whether scores come from another distribution than those that a threshold was chosen on.

    Two-sample Kolmogorov-Smirnov test with the asymptotic p value. The summary knows the reference to one quantile
    step (0.01 for 101), so the p value is that of the distance less one step. Another share of duplicates shifts
    the mix of scores too, without the model being any worse.

    Args:
        scores: (n,) new similarities.
        reference_quantiles: evenly spaced quantiles of the reference, as `quantiles` gives them.
        reference_n: how many scores the reference had.
    """
    values, reference = np.sort(_finite(scores)), np.sort(_finite(reference_quantiles, "reference quantiles"))
    if len(reference) < 2 or reference_n < 1:
        raise ValueError(f"a reference needs 2 quantiles and 1 score, not {len(reference)} and {reference_n}")
    at, n = np.union1d(values, reference), len(values)
    below, upto = _reference_cdf(reference, at)
    gap_below = np.abs(np.searchsorted(values, at, "left") / n - below)
    gap_upto = np.abs(np.searchsorted(values, at, "right") / n - upto)
    statistic = float(max(gap_below.max(), gap_upto.max()))
    effective = n * reference_n / (n + reference_n)
    return Shift(statistic, _kolmogorov(math.sqrt(effective) * (statistic - 1 / (len(reference) - 1))), n)


def _kolmogorov(x: float) -> float:
    """Probability that the Kolmogorov distribution exceeds x (Kolmogorov, 1933)."""
    if x < 0.2:  # 1 to twelve digits, and the series no longer converges
        return 1.0
    terms = np.arange(1, 101)
    return float(np.clip(2 * (np.where(terms % 2, 1, -1) * np.exp(-2 * (terms * x) ** 2)).sum(), 0, 1))


# ---------------------------------------------------------------------- retrieval


Tables = tuple[NDArray[np.float32], NDArray[np.float32]]


def _tables(embeddings: ArrayLike, component: ArrayLike, others: ArrayLike | None) -> tuple[Tables, Ints, Ints]:
    """Both sides' embeddings ordered by component, so that each is a run of rows; its start and size for every row.

    Returns:
        embeddings (n, d) of the questions as queries, and as what is found; start (n,), size (n,) of the run, size 1
        for questions without component.
    """
    table, group = np.asarray(embeddings, dtype=np.float32), np.asarray(component)
    found = table if others is None else np.asarray(others, dtype=np.float32)
    if table.ndim != 2 or group.shape != table.shape[:1] or found.shape != table.shape:
        raise ValueError(f"embeddings (n, d) and component (n,) do not fit: {table.shape} and {group.shape}")
    if not (np.isfinite(table).all() and np.isfinite(found).all()):
        raise ValueError("embeddings contain NaN or infinity")
    alone = group < 0
    group = np.where(alone, group.max(initial=-1) + 1 + np.cumsum(alone), group)
    order = np.argsort(group, kind="stable")
    _, start, index, size = np.unique(group[order], return_index=True, return_inverse=True, return_counts=True)
    if not (size > 1).any():
        raise ValueError("no question of the table has a duplicate: nothing can be retrieved")
    return (table[order], found[order]), start[index].astype(np.int64), size[index].astype(np.int64)


def _cosines(rows: NDArray[np.float32], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines in whole millionths, (rows, table): what differs by rounding of float32 alone is a tie."""
    similarity: NDArray[np.float32] = rows @ table.T
    similarity *= np.float32(1e6)
    np.rint(similarity, out=similarity)
    return similarity


def _greatest(similarity: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The k greatest of each row, falling; (n, m) -> (n, min(k, m))."""
    kept = np.partition(similarity, similarity.shape[1] - k, axis=1)[:, -k:] if similarity.shape[1] > k else similarity
    return np.sort(kept, axis=1)[:, ::-1]


def retrieval_scores(
    embeddings: ArrayLike, component: ArrayLike, *, others: ArrayLike | None = None, chunk: int = 1024
) -> dict[str, float]:
    """Search in the question table: each question that has a duplicate against all other questions.

    Recall at k is |duplicates among the first k| / |duplicates|, the standard definition: it cannot reach 1 for a
    question of more than k duplicates. The reciprocal rank is that of the first duplicate, 0 beyond 10. Both are
    means over the queries. Ties (cosines are compared in millionths) are broken pessimistically: a non-duplicate of
    equal cosine comes first.

    Args:
        embeddings: (n, d) unit vectors.
        component: (n,) duplicate component of each question; negative, or a component of one, means no duplicates.
        others: (n, d) embeddings of the same questions as what is searched, where a second tower makes them.
        chunk: queries at a time at most; fewer where the table is long, so that memory stays flat.

    Returns:
        mrr_at_10, recall_at_1, recall_at_5, recall_at_10.
    """
    tables, start, size = _tables(embeddings, component, others)
    queries = np.flatnonzero(size > 1)
    step = max(1, min(chunk, _BLOCK // len(size)))
    ranks = np.concatenate(
        [_ranks(tables, start, size, queries[begin : begin + step]) for begin in range(0, len(queries), step)]
    )  # (queries, 10)
    duplicates = size[queries] - 1
    recall = {f"recall_at_{k}": float(((ranks <= k).sum(axis=1) / duplicates).mean()) for k in (1, 5, 10)}
    return {"mrr_at_10": float(np.where(ranks[:, 0] <= 10, 1 / ranks[:, 0], 0.0).mean()), **recall}


def _ranks(tables: Tables, start: Ints, size: Ints, query: Ints) -> Floats:
    """Pessimistic ranks of the 10 best duplicates of each query, (q, 10): exact up to 10, beyond it merely greater."""
    similarity = _cosines(tables[0][query], tables[1])  # (q, n)
    run = start[query, None] + np.arange(size[query].max())  # (q, largest component)
    outside = (run >= (start + size)[query, None]) | (run == query[:, None])
    run = np.where(outside, query[:, None], run)
    relevant = np.where(outside, np.float32(-np.inf), np.take_along_axis(similarity, run, axis=1))
    np.put_along_axis(similarity, run, np.float32(-np.inf), axis=1)
    hits, misses = _greatest(relevant, 10), _greatest(similarity, 10)  # (q, <= 10) each
    ranks = np.full((len(query), 10), np.inf)
    for place in range(hits.shape[1]):
        before = place + (misses >= hits[:, place, None]).sum(axis=1)
        ranks[:, place] = np.where(np.isfinite(hits[:, place]), 1 + before, np.inf)
    return ranks


def mining_average_precision(
    embeddings: ArrayLike,
    component: ArrayLike,
    *,
    others: ArrayLike | None = None,
    max_pairs: int | None = None,
    chunk: int = 1024,
) -> float:
    """Average precision of finding the duplicates of a question table: all pairs of it, ranked by cosine.

    Only the `max_pairs` closest pairs are kept (10 per question if not given); duplicates beyond them count as not
    found. Ties (cosines are compared in millionths) are never split: equal pairs that do not all fit are left out.

    Args:
        embeddings: (n, d) unit vectors.
        component: (n,) duplicate component of each question; negative means no duplicates.
        others: (n, d) embeddings as the second of a pair, such that their product with the first ones is symmetric.
        max_pairs: pairs kept.
        chunk: rows at a time at most; fewer where the table is long, so that memory stays flat.
    """
    tables, start, size = _tables(embeddings, component, others)
    kept = 10 * len(size) if max_pairs is None else max_pairs
    if kept < 1:
        raise ValueError(f"max_pairs must be at least 1, not {kept}")
    values, relevant, floor = np.empty(0, dtype=np.float32), np.empty(0, dtype=bool), np.float32(-np.inf)
    for similarity, same in _pair_blocks(tables, start, size, chunk):
        above = similarity > floor
        values, relevant = np.append(values, similarity[above]), np.append(relevant, same[above])
        if len(values) > kept:
            floor = np.partition(values, len(values) - kept - 1)[len(values) - kept - 1]
            above = values > floor
            values, relevant = values[above], relevant[above]
    if not len(values):
        return 0.0
    _, tp, answered = _cuts(values.astype(np.float64), relevant)
    total = float((size - 1).sum() / 2)
    return _average_precision(tp, answered, total)


def _pair_blocks(tables: Tables, start: Ints, size: Ints, chunk: int) -> Iterator[tuple[NDArray[np.float32], Bools]]:
    """Cosine, and whether it is a duplicate, of every pair of rows once; in blocks of bounded length."""
    n = len(size)
    step = max(1, min(chunk, _BLOCK // n))
    for begin in range(0, n, step):
        rows = np.arange(begin, min(begin + step, n))
        later = np.arange(begin, n) > rows[:, None]  # (rows, n - begin)
        same = np.arange(begin, n) < (start + size)[rows, None]  # rows of a component are neighbours
        yield _cosines(tables[0][rows], tables[1][begin:])[later], same[later]
