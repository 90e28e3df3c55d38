"""The duplicates of a corpus from labels of its pairs: a Gaussian process over the log odds.

Its mean is the estimate before the labels (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006,
chapter 3).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.corpus import CorpusEstimate
from qpairs.metrics.densities import between_corpora, factors_of, rising
from qpairs.metrics.inputs import Floats
from qpairs.metrics.logistic import expit
from qpairs.metrics.read_pairs import ReadEstimate

LABELLED_SD = 0.75  # that a labelled corpus may differ by, beside the uncertainty of the mixture
STEPS = 300  # of Newton's method
LABELS = (20, 50, 100, 200, 500, 1000, 2000)  # numbers of more labels that are tried


def with_labels(
    estimate: CorpusEstimate, scores: ArrayLike, labels: ArrayLike, log_ratios: ArrayLike | None = None
) -> CorpusEstimate:
    """The estimate after labels of the corpus' own pairs, whose choice depended on nothing but their score.

    Laplace's approximation of a Gaussian process over the log odds, with the old estimate as its mean. As the share of
    duplicates is modelled at each score, and the corpus' counts weight the scores, pairs may be drawn with any
    probability that depends on the score: those near a threshold do not count as a sample of all.

    A label of annotators who err enters as the likelihood of their answers, p L1 + (1 - p) L0 at a share p of
    duplicates, with L1 and L0 the probabilities of the answers for a duplicate and for another pair. Its maximum is
    found by expectation maximization, and the information that is missing for want of the truth is taken off (Louis,
    "Finding the observed information matrix when using the EM algorithm", 1982): what says nothing counts nothing.

    Args:
        estimate: before the labels.
        scores: (m,) of the labelled pairs.
        labels: (m,) 1 duplicate, 0 not.
        log_ratios: (m,) log (L1 / L0) of each label, infinite for a sure one; without them all labels are sure.

    >>> with_labels(estimate, [0.9, 0.95, 0.8], [1, 1, 0]).labels
    3
    """
    bins, answers = len(estimate.log_odds), np.asarray(labels)
    place = np.clip(np.searchsorted(estimate.edges, np.asarray(scores), "right") - 1, 0, bins - 1)
    drawn = np.bincount(place, minlength=bins).astype(np.float64)
    ratios = np.where(answers == 1, np.inf, -np.inf) if log_ratios is None else np.asarray(log_ratios)

    def complete(odds: Floats) -> tuple[Floats, Floats]:
        truth = expit(odds[place] + ratios)
        right, variance = np.bincount(place, truth, bins), np.bincount(place, truth * (1 - truth), bins)
        return right.astype(np.float64), variance.astype(np.float64)

    prior = estimate.factors.T @ estimate.factors + between_corpora(LABELLED_SD, bins) + 1e-4 * np.eye(bins)
    odds, covariance = _laplace(estimate.log_odds, prior, drawn, complete)
    return dataclasses.replace(
        estimate,
        log_odds=rising(odds, estimate.counts.rebinned(estimate.edges) + 1e-3),
        factors=factors_of(covariance),
        labels=estimate.labels + len(answers),
    )


def after_more_labels(estimate: CorpusEstimate | ReadEstimate, more: int) -> CorpusEstimate | ReadEstimate:
    """The estimate as it is expected to be after more stratified labels: the same mean, with less uncertainty.

    Args:
        estimate: now.
        more: labels, divided evenly between strata whose number of pairs doubles, starting at n / 8 for n questions.

    >>> after_more_labels(estimate, 50).best_threshold() == estimate.best_threshold()
    True
    """
    if isinstance(estimate, ReadEstimate):
        return dataclasses.replace(estimate, first=_surer(estimate.first, more))
    return _surer(estimate, more)


def _surer(estimate: CorpusEstimate, more: int) -> CorpusEstimate:
    counts = estimate.counts
    ends = counts.n * np.append(0.0, 2.0 ** np.arange(-3, 6))  # pairs above the end of each stratum
    pairs = estimate.counts.rebinned(estimate.edges)
    above = np.append(np.cumsum(pairs[::-1])[::-1], 0.0)
    placed = np.stack([np.clip(above, low, high) - low for low, high in pairwise(ends)])  # (strata, bins + 1)
    share = -np.diff(placed, axis=1) / np.maximum(placed[:, :1], 1e-12)
    drawn = share.sum(axis=0) * more / (len(ends) - 1)
    probability = expit(estimate.log_odds)
    prior = estimate.factors.T @ estimate.factors + 1e-6 * np.eye(len(drawn))
    _, covariance = _laplace(estimate.log_odds, prior, drawn, lambda _: (drawn * probability, np.zeros(len(drawn))))
    return dataclasses.replace(estimate, factors=factors_of(covariance), labels=estimate.labels + more)


def _laplace(
    mean: Floats, prior: Floats, drawn: Floats, complete: Callable[[Floats], tuple[Floats, Floats]]
) -> tuple[Floats, Floats]:
    """Mode and covariance of log odds (bins,), given what is known of the pairs drawn in each bin.

    Newton's method of Rasmussen and Williams (2006), algorithm 3.1, each step with the expected truth of the labels.

    Args:
        mean: (bins,) before the labels.
        prior: (bins, bins) covariance before the labels.
        drawn: (bins,) labelled pairs.
        complete: log odds -> (bins,) how many of the labelled pairs are expected to be right, and the variance of that.
    """
    odds, identity = mean.copy(), np.eye(len(mean))
    for _ in range(STEPS):
        probability = expit(odds)
        weight = drawn * probability * (1 - probability)
        root = np.sqrt(weight)
        target = weight * (odds - mean) + complete(odds)[0] - drawn * probability
        inner = identity + root[:, None] * prior * root
        step = mean + prior @ (target - root * np.linalg.solve(inner, root * (prior @ target))) - odds
        odds = odds + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-8:
            break
    root = np.sqrt(np.maximum(drawn * expit(odds) * expit(-odds) - complete(odds)[1], 0.0))
    inner = identity + root[:, None] * prior * root
    covariance = prior - (prior * root) @ np.linalg.solve(inner, root[:, None] * prior)
    return odds, (covariance + covariance.T) / 2


def why_not(estimate: CorpusEstimate | ReadEstimate, precision: float) -> str:
    """Why no threshold is known to reach a precision, what is possible, and how many labels might help.

    >>> len(why_not(estimate, 0.99)) > 20
    True
    """
    bound, expected = estimate.bounds()
    some = estimate.curves.pairs >= 1
    if not some.any():
        return "no pair of the corpus scores high enough for an estimate"
    best = int(np.argmax(np.where(some, bound, -1.0)))
    likely = int(np.argmax(np.where(some, expected, -1.0)))
    had = (
        f"no threshold is known to reach {precision:g} in this corpus; the highest that can be promised is "
        f"{math.floor(100 * bound[best]) / 100:.2f}, at {estimate.curves.thresholds[best]:.3f} (expected "
        f"{expected[best]:.2f})"
    )
    more = labels_needed(estimate, precision)
    if more is None:
        return (
            f"{had}; more labels would hardly get there, since {expected[likely]:.2f} at most is expected: train on "
            "pairs like these, or use --threshold"
        )
    return (
        f"{had}; with about {more:,} more labels of the stratified view it may be reached: qpairs serve --labels, then "
        "qpairs calibrate --corpus --labels"
    )


def labels_needed(estimate: CorpusEstimate | ReadEstimate, precision: float) -> int | None:
    """About how many more stratified labels may lift the lower bound of the precision to a value; None: hardly any.

    The numbers tried are `LABELS`; see `after_more_labels`.

    >>> labels_needed(estimate, 0.0001)
    20
    """
    for more in LABELS:
        if after_more_labels(estimate, more).threshold_at(precision) is not None:
            return more
    return None
