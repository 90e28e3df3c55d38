"""The duplicates of a corpus from its own scores: a mixture of duplicates, near misses and strangers.

As record linkage does, where no pair is labelled (Fellegi and Sunter, 1969): what explains the counts of the scores?
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from qpairs.metrics.borrowed import estimate_borrowed
from qpairs.metrics.corpus import CorpusEstimate
from qpairs.metrics.densities import (
    DOMAIN_SD,
    Densities,
    between_corpora,
    factors_of,
    kept_factors,
    log_density,
    rising,
)
from qpairs.metrics.inputs import Floats
from qpairs.metrics.logistic import expit
from qpairs.metrics.score_counts import EDGES, ScoreCounts

MODEL_ERROR = 0.1  # relative error of the mixture in each bin, beside the chance of counting
FREE = 1.5  # how far the mixture may leave the densities of another table
UNLIKE = 0.25  # mean relative difference of the counts from which on a corpus is another one
CHANCE = 2.0  # standard deviations of a count that do not make it another one
UNSEEN_SD = 1.0  # of the log odds in a corpus whose scores are not known
OWN_SD = 0.1  # between the corpus that was labelled and itself, with some questions more or less


def estimate_corpus(densities: Densities, counts: ScoreCounts) -> CorpusEstimate:
    """The duplicates of a corpus, from its own scores and the densities of another table.

    Densities that are borrowed, as those of a ready model, are read by `borrowed.estimate_borrowed`.

    The mixture: strangers, whose log density may differ from the table's by a polynomial of degree 2; and duplicates
    and near misses, as many for each question as in the table, times one scale. These four numbers are fitted to the
    counts of the upper half of the corpus' scores by regularised least squares.

    Args:
        densities: of the validation table, or of a corpus that the verdict was fitted to; where this corpus is like
            that one, they are taken as they are.
        counts: of the corpus.

    >>> found = estimate_corpus(densities, counts)
    >>> found.counts.n, 0 <= found.expected(0.9).precision <= 1
    (338, True)
    """
    if densities.own and _is_like(densities, counts):
        return _mixture(densities, counts, densities.domain_sd)
    if densities.borrowed and not densities.own:
        return estimate_borrowed(densities, counts)
    scale, scale_sd, tilt = _fit_mixture(densities, counts.rebinned(densities.edges), counts.n)
    return _mixture(densities, counts, max(densities.domain_sd, DOMAIN_SD), scale, scale_sd, tilt)


def _is_like(densities: Densities, counts: ScoreCounts) -> bool:
    """Whether a corpus has the scores of the one that the densities were fitted to, but for growth and chance."""
    found, expected = counts.rebinned(densities.edges), expected_counts(densities, counts.n)
    enough = expected >= min(20.0, expected.max())
    beyond = np.maximum(np.abs(found - expected) - CHANCE * np.sqrt(expected), 0.0)
    return bool(np.mean(beyond[enough] / expected[enough]) < UNLIKE)


def expected_counts(densities: Densities, n: int) -> Floats:
    """(bins,) pairs that a corpus of n questions would have, if it were like the one of the densities."""
    related = n / densities.n * (np.array(densities.duplicates) + densities.near_misses)
    return np.asarray(related + n * (n - 1) / 2 * densities.stranger_density())


def like_validation(densities: Densities, n: int) -> CorpusEstimate:
    """The duplicates of a corpus of n questions whose scores are not known: taken to be like those of the table.

    Args:
        densities: of the validation table.
        n: questions of the corpus.

    >>> like_validation(densities, 1000).counts.n
    1000
    """
    above = np.append(np.cumsum(expected_counts(densities, n)[::-1])[::-1], 0.0)
    counts = ScoreCounts(-np.diff(np.interp(EDGES, densities.edges, above)), n)
    return _mixture(densities, counts, max(densities.domain_sd, UNSEEN_SD))


def _mixture(
    densities: Densities,
    counts: ScoreCounts,
    domain_sd: float,
    scale: float = 1.0,
    scale_sd: float = 0.0,
    tilt: Floats | None = None,
) -> CorpusEstimate:
    bins = len(densities.duplicates)
    ratio = scale * counts.n / densities.n
    same, near = ratio * np.array(densities.duplicates), ratio * densities.near_misses
    different = near + counts.n * (counts.n - 1) / 2 * densities.stranger_density(tilt)
    strangers = np.array(densities.strangers)
    if tilt is not None:
        strangers[: len(tilt)] += tilt
    chance = 1.0 if densities.own else 1 + densities.n / max(counts.n, 1)  # of the table's components, and of these
    factors = np.array(densities.factors).reshape(-1, bins)
    covariance = chance * factors.T @ factors + between_corpora(domain_sd, bins) + scale_sd**2
    return CorpusEstimate(
        counts=counts,
        edges=densities.edges,
        log_odds=rising(np.log((same + 1e-6) / (different + 1e-6)), same + different),
        factors=factors_of(covariance),
        duplicate_share=np.array(densities.duplicates) / max(sum(densities.duplicates) + densities.below, 1e-12),
        strangers=strangers,
        scale=scale,
        hit_gain=np.array(densities.hit_gain) if densities.hit_gain else 0.0,
        labels=densities.labels,
        borrowed=densities.borrowed,
    )


def _fit_mixture(densities: Densities, own: Floats, n: int) -> tuple[float, float, Floats]:
    """The scale of duplicates and near misses, its standard deviation in logarithms, and (3,) the tilt of strangers.

    The tilt is added to the first coefficients of their log density.

    Args:
        densities: of a table.
        own: (bins,) pairs of the corpus in the bins of the table.
        n: questions of the corpus.
    """
    pairs, related = n * (n - 1) / 2, n / densities.n * (np.array(densities.duplicates) + densities.near_misses)
    spread = FREE * np.array([1.0, 2.0, 6.0, 12.0])
    below = pairs - own.sum() + np.cumsum(own)
    upper = below >= 0.5 * pairs

    def residuals(values: Floats) -> Floats:
        expected = pairs * densities.stranger_density(values[1:]) + math.exp(values[0]) * related
        error = np.sqrt(expected + (MODEL_ERROR * expected) ** 2 + 1.0)
        return np.concatenate([((own - expected) / error)[upper], values / spread])

    from scipy.optimize import least_squares  # slow to import, and a prediction needs none of it

    fits = [least_squares(residuals, [start, 0.0, 0.0, 0.0]) for start in (0.0, -2.0, -4.0)]
    best = min(fits, key=lambda fit: float(fit.cost))
    covariance = np.linalg.inv(best.jac.T @ best.jac)
    return math.exp(float(best.x[0])), math.sqrt(float(covariance[0, 0])), np.asarray(best.x[1:])


def own_densities(estimate: CorpusEstimate, densities: Densities) -> Densities:
    """The densities of the corpus itself, so that its estimate can be made again, also when it has grown.

    Args:
        estimate: of the corpus.
        densities: that it was made from.

    >>> own_densities(estimate, densities).own
    True
    """
    bins = len(estimate.log_odds)
    pairs = estimate.counts.rebinned(estimate.edges)
    probability = expit(estimate.log_odds)
    everything = float(estimate.curves.duplicates[0, 0])
    judged = estimate.edges[:-1] >= estimate.lowest
    same = np.where(judged, pairs * probability, everything * estimate.duplicate_share)
    n = estimate.counts.n
    strangers = n * (n - 1) / 2 * log_density(estimate.strangers, bins)
    near = same * np.exp(-estimate.log_odds) - strangers  # so that the log odds come out again
    return dataclasses.replace(
        densities,
        n=n,
        duplicates=tuple(np.round(same, 4).tolist()),
        below=max(everything * (1 - float(estimate.duplicate_share.sum())), 0.0),
        near=tuple(np.round(near, 4).tolist()),
        strangers=tuple(np.round(estimate.strangers, 6).tolist()),
        factors=kept_factors(estimate.factors.T @ estimate.factors),
        domain_sd=OWN_SD,
        own=True,
        labels=estimate.labels,
    )
