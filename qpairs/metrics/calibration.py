"""Scores to probabilities, and how good probabilities are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.inputs import Bools, Floats, Ints, as_labelled
from qpairs.metrics.logistic import expit, logit


@dataclass(frozen=True)
class Calibration:
    """Maps a similarity to the probability that the pair is a duplicate: sigmoid(slope * score + intercept).

    >>> Calibration(slope=10.0, intercept=-5.0).probability([0.5]).tolist()
    [0.5]
    """

    slope: float
    intercept: float

    def log_odds(self, scores: ArrayLike) -> Floats:
        """Log odds of a duplicate, in the shape of the scores.

        >>> Calibration(slope=10.0, intercept=-5.0).log_odds([0.7]).round(2).tolist()
        [2.0]
        """
        return self.slope * np.asarray(scores, dtype=np.float64) + self.intercept

    def probability(self, scores: ArrayLike) -> Floats:
        """Probabilities, in the shape of the scores; never overflows.

        >>> Calibration(slope=4.0, intercept=-2.0).probability([0.0, 0.5]).round(2).tolist()
        [0.12, 0.5]
        """
        return np.asarray(expit(self.log_odds(scores)))


def fit_calibration(
    scores: ArrayLike, labels: ArrayLike, prior: Calibration | None = None, strength: float = 10.0
) -> Calibration:
    """Platt scaling (Platt, 1999), with his smoothed targets, so that separable pairs have an optimum too.

    Scores that fall with the label, or are constant, give slope 0 and the base rate. With a `prior` it updates as
    Steyerberg et al. (2004) do: first the prior's intercept alone is moved to where the new scores lie (similarities
    of another forum may be lower throughout), then slope and intercept are fitted together to the pairs, targets
    unsmoothed, and to pseudo pairs worth `strength` pairs, which lie where the moved prior gives 10 to 90 % and are
    labelled by it. By simulation (5 to 200 pairs; the mean over same and translated scores) its log loss on fresh
    pairs is below that of no prior, and of pseudo pairs on the unmoved prior.

    Args:
        scores: (n,) similarities.
        labels: (n,) 0 or 1, both occur.
        prior: an earlier calibration.
        strength: of the prior, in pairs.

    >>> calibration = fit_calibration([0.1, 0.2, 0.3, 0.8, 0.9], [0, 0, 0, 1, 1])
    >>> calibration.probability([0.2, 0.85]).round(2).tolist()
    [0.2, 0.74]
    """
    values, duplicate = as_labelled(scores, labels)
    order = np.lexsort((duplicate, values))
    values, duplicate = values[order], duplicate[order]
    positives, negatives = int(duplicate.sum()), int((~duplicate).sum())
    targets = np.where(duplicate, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    weights = np.ones_like(values)
    if prior is not None and prior.slope > 0 and strength > 0:
        assumed = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
        values = np.append(values, (logit(assumed) - _moved_intercept(prior, values, targets)) / prior.slope)
        targets, weights = (
            np.append(duplicate, assumed),
            np.append(weights, np.full(len(assumed), strength / len(assumed))),
        )
    centre = float(values.mean())
    spread = float(np.abs(values - centre).max())
    slope = 0.0
    if spread > 1e-12 * max(1.0, abs(centre)):
        design = np.stack([(values - centre) / spread, np.ones_like(values)], axis=1)  # (n, 2)
        slope, intercept = fit_logistic(design, targets, weights, np.zeros_like(values)).tolist()
    if slope <= 0:
        return Calibration(0.0, float(logit(np.average(targets, weights=weights))))
    return Calibration(slope / spread, intercept - slope * centre / spread)


def _moved_intercept(prior: Calibration, scores: Floats, targets: Floats) -> float:
    """The prior's intercept, moved to where these scores lie, its slope kept.

    Minimises cross entropy plus log(1 + move^2), the density of a standard Cauchy distribution over the move in
    logits: with its heavy tails a wide move costs hardly more than a moderate one. The optimum lies between the old
    intercept and the one that these pairs alone would choose.
    """
    ones, logits = np.ones_like(scores), prior.slope * scores + prior.intercept
    free = float(fit_logistic(ones[:, None], targets, ones, logits)[0])
    moves = np.linspace(0.0, free, 101)
    losses = [_cross_entropy(logits + move, targets, ones) + math.log1p(move**2) for move in moves]
    return prior.intercept + float(moves[np.argmin(losses)])


def fit_logistic(design: Floats, targets: Floats, weights: Floats, offset: Floats) -> Floats:
    """Weighted logistic regression on soft targets in (0, 1), by Newton's method with backtracking.

    Own code, because scikit-learn's has neither soft targets nor an offset.

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
        probability = expit(design @ coefficients + offset)
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


def _cross_entropy(logits: Floats, targets: Floats, weights: Floats) -> float:
    return float((weights * (np.logaddexp(0.0, logits) - targets * logits)).sum())


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared difference of probability and label (Brier, 1950): 0 is perfect, a constant 1/2 has 0.25.

    >>> round(brier([0.1, 0.8], [0, 1]), 3)
    0.025
    """
    values, duplicate = _probabilities(probabilities, labels)
    return float(np.mean((values - duplicate) ** 2))


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Mean over pairs of |mean probability - share of duplicates| in their bin (Naeini et al., 2015).

    The bins are those of `reliability`.

    >>> expected_calibration_error([0.5] * 4, [1, 0, 1, 0])
    0.0
    """
    mean, share, n = reliability(probabilities, labels, bins)
    return float((n * np.abs(mean - share)).sum() / n.sum())


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> tuple[Floats, Floats, Ints]:
    """What a reliability diagram shows: of each bin the mean probability, the share of duplicates, number of pairs.

    Bins hold about equally many pairs; equal probabilities share the bin of their middle rank. Empty bins are left
    out, so there may be fewer than `bins`.

    >>> [len(part) for part in reliability(np.linspace(0, 1, 100), np.arange(100) > 50)]
    [15, 15, 15]
    """
    values, duplicate = _probabilities(probabilities, labels)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    ranked = np.sort(values)
    middle = (np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right") - 1) / 2
    _, place, n = np.unique((middle * bins / len(values)).astype(np.int64), return_inverse=True, return_counts=True)
    return np.bincount(place, values) / n, np.bincount(place, duplicate) / n, n.astype(np.int64)


def _probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Bools]:
    """Probabilities in [0, 1] and labels, as vectors of one length."""
    values, duplicate = as_labelled(probabilities, labels, both=False, what="probabilities")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"probabilities must lie in [0, 1], not {values.min():g} to {values.max():g}")
    return values, duplicate
