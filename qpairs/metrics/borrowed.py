"""The duplicates of a corpus if only the model's scores on other questions are known.

The mixture of `metrics.mixture` assumes the ratio of duplicates to near misses of validation, and that strangers have
similar scores. Neither holds for other questions: near misses that are easy, or hardly any duplicates, would be read as
many duplicates or none. So less is taken over: of the pairs that score higher than strangers can explain, the share of
duplicates at each score. The number of such pairs is taken from the corpus itself.
"""

from __future__ import annotations

import numpy as np

from qpairs.metrics.corpus import CorpusEstimate
from qpairs.metrics.densities import Densities, between_corpora, factors_of, fit_tail, rising
from qpairs.metrics.inputs import Floats
from qpairs.metrics.logistic import logit
from qpairs.metrics.score_counts import ScoreCounts, smoothed

BODY = 4  # pairs for each question: where more lie above a score, nearly all pairs there are strangers
BEND = 0.5  # share of the parabola's logarithm, beside its tangent's, in the tail of strangers
LEAST, FLOOR, MOST = 0.002, 0.2, 0.98  # share of a bin's pairs that strangers leave unexplained; FLOOR: above the body
HIDDEN = 0.04  # share of duplicates among the pairs of a bin in the body, at most
BODY_WEIGHT = 400.0  # pairs of a bin that count in the fit of the body, at most


def estimate_borrowed(densities: Densities, counts: ScoreCounts) -> CorpusEstimate:
    """The duplicates of a corpus from its own scores, and from the share of duplicates among close pairs elsewhere.

    Strangers: the log of their counts is a parabola over the body of the scores, and above halfway between the parabola
    and its tangent, since the tail of cosines falls more slowly than that of a normal distribution. Of what is left,
    the share of duplicates at each score is that of the other questions. In the body, where strangers hide all else,
    duplicates are as many more as they are there. `benchmarks/start.py` finds how far this is off in corpora that are
    rich and poor in duplicates, with each domain left out of the other questions.

    Args:
        densities: of other questions, as the same encoder scores them.
        counts: of the corpus.
    """
    bins = len(densities.duplicates)
    same_there, near_there = np.array(densities.duplicates), densities.near_misses
    own = smoothed(counts.rebinned(densities.edges))
    above = np.cumsum(own[::-1])[::-1]
    strangers, end = _strangers(own, above, counts.n)
    left = np.clip(1 - strangers / np.maximum(own, 1e-9), LEAST, MOST)
    left[end:] = np.maximum(left[end:], FLOOR)
    share = rising((same_there + 0.05) / (same_there + near_there + 0.1), same_there + near_there + 1e-3)
    same = own * left * share
    beyond = max(float(same_there[end:].sum()), 1e-9)
    same[:end] = np.minimum(same_there[:end] * same[end:].sum() / beyond, own[:end] * HIDDEN)
    odds = logit(np.clip(same / np.maximum(own, 1e-9), 1e-7, share * MOST))
    empty = own < 1e-3
    odds[empty] = logit(share * MOST)[empty]
    chance = 1 + densities.n / max(counts.n, 1)
    factors = np.array(densities.factors).reshape(-1, bins)
    pairs = counts.n * (counts.n - 1) / 2
    return CorpusEstimate(
        counts=counts,
        edges=densities.edges,
        log_odds=rising(odds, own + 1e-3),
        factors=factors_of(chance * factors.T @ factors + between_corpora(densities.domain_sd, bins)),
        duplicate_share=same_there / max(float(same_there.sum()) + densities.below, 1e-12),
        strangers=fit_tail(np.minimum(strangers, own), max(pairs, 1.0)),
        scale=float(same.sum() / counts.n / max(densities.per_question, 1e-12)),
        hit_gain=np.array(densities.hit_gain) if densities.hit_gain else 0.0,
        borrowed=True,
    )


def _strangers(own: Floats, above: Floats, n: int) -> tuple[Floats, int]:
    """(bins,) strangers in each bin, and the first bin above the body of the scores.

    Args:
        own: (bins,) pairs of the corpus, smoothed.
        above: (bins,) pairs in each bin and those above it.
        n: questions.
    """
    bins = len(own)
    place = (np.arange(bins) + 0.5) / bins
    body = (above > BODY * n) & (own >= 1)
    upper = np.cumsum(own[body]) >= 0.5 * own[body].sum() if body.any() else np.zeros(0, dtype=np.bool_)
    chosen = np.flatnonzero(body)[upper] if upper.sum() >= 4 else np.flatnonzero(body)
    if len(chosen) < 3:
        return np.zeros(bins), 0
    weights = np.sqrt(np.minimum(own[chosen], BODY_WEIGHT))
    curve = np.polynomial.Polynomial.fit(place[chosen], np.log(own[chosen]), 2, w=weights)
    end = int(chosen[-1]) + 1
    last = place[end - 1]
    slope = min(float(curve.deriv()(last)), -1e-3)
    tangent = curve(last) + slope * (place - last)
    tail = BEND * np.minimum(curve(place), tangent) + (1 - BEND) * tangent
    return np.exp(np.clip(np.where(place <= last, curve(place), tail), -60.0, 60.0)), end
