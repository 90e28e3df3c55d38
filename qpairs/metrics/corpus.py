"""What scores mean in a corpus: precision and recall above a threshold, and the probability of a pair or a hit.

In a corpus of n questions the duplicates grow as n and the strangers as n^2, so the probability of a score depends on
the corpus. It is estimated in two steps: the mixture of duplicates, near misses and strangers that explains the
corpus' own scores (as record linkage does; Fellegi and Sunter, 1969), and, where a person labelled pairs of it, a
Gaussian process over the log odds (Rasmussen and Williams, 2006, chapter 3) whose mean is the mixture.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares
from scipy.special import expit, logit

from qpairs.metrics.densities import DOMAIN_SD, Densities, factors_of, kept_factors, log_density, rising
from qpairs.metrics.inputs import Floats
from qpairs.metrics.intervals import Interval
from qpairs.metrics.score_counts import EDGES, WIDTH, ScoreCounts

LABELS = (20, 50, 100, 200, 500, 1000, 2000)  # numbers of more labels that are tried
SAME = 0.999  # cosine of a text with itself, rounded
DRAWS = 400  # from the uncertainty
ONE_SIDED = 0.05  # share of the draws below a bound that is promised
MODEL_ERROR = 0.1  # relative error of the mixture in each bin, beside the chance of counting
FREE = 1.5  # how far the mixture may leave the densities of another table
UNLIKE = 0.25  # mean relative difference of the counts from which on a corpus is another one
DESIGN_EFFECT = 2.0  # pairs of one cluster are right and wrong together
REACH = 32  # pairs for each question: below the score that so many lie above, hardly any pair is a duplicate
UNSEEN_SD = 1.0  # of the log odds in a corpus whose scores are not known
LOCAL, LENGTH = 0.8, 0.2  # of what differs between corpora: the local part beside the constant one, and its length
LABELLED_SD = 0.5  # that a labelled corpus may differ by, beside the uncertainty of the mixture
OWN_SD = 0.1  # between the corpus that was labelled and itself, with some questions more or less


@dataclass(frozen=True)
class Expectation:
    """What is expected of calling all pairs of a corpus at or above a threshold duplicates.

    Attributes:
        threshold: duplicate if and only if score >= threshold.
        pairs: pairs at or above it.
        precision: expected share of duplicates among them.
        precision_interval: central 95 %.
        precision_bound: one-sided 95 % lower bound.
        recall: expected share of the corpus' duplicates that are among them.
        recall_interval: central 95 %.
        f1: of expected precision and recall.
    """

    threshold: float
    pairs: float
    precision: float
    precision_interval: Interval
    precision_bound: float
    recall: float
    recall_interval: Interval
    f1: float


@dataclass(frozen=True)
class Curves:
    """Candidate thresholds, and how many pairs are right above them in each draw from the uncertainty.

    Attributes:
        thresholds: (t,) rising.
        pairs: (t,) at or above each.
        right: (1 + draws, t) duplicates among them; the first row is the expectation itself.
        duplicates: (1 + draws, 1) of the whole corpus.
    """

    thresholds: Floats
    pairs: Floats
    right: Floats
    duplicates: Floats

    @property
    def precision(self) -> Floats:
        """(1 + draws, t) share of duplicates among the pairs at or above each threshold; 0 where there are none."""
        return np.minimum(self.right / np.maximum(self.pairs, 1e-12), 1.0)


@dataclass(frozen=True)
class CorpusEstimate:
    """The duplicates in a corpus, as far as its scores, validation and labels tell.

    Attributes:
        counts: scores of all pairs of the corpus.
        edges: (bins + 1,) limits of the bins.
        log_odds: (bins,) of a duplicate, rising with the score.
        factors: (k, bins) uncertainty of the log odds, as in `Densities`.
        duplicate_share: (bins,) share of the corpus' duplicates in each bin; the rest lies below.
        strangers: coefficients of the log density of its strangers, as in `Densities`.
        scale: duplicates and near misses for each question, as a multiple of those of the table they were read off.
        hit_gain: see `Densities`.
        labels: labelled pairs of this corpus that it rests on.
    """

    counts: ScoreCounts
    edges: Floats
    log_odds: Floats
    factors: Floats
    duplicate_share: Floats
    strangers: Floats
    scale: float
    hit_gain: float = 0.0
    labels: int = 0

    @property
    def middles(self) -> Floats:
        """(bins,) the scores in the middle of the bins."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)

    def probability(self, scores: ArrayLike) -> Floats:
        """Probabilities that pairs of the corpus are duplicates."""
        return np.asarray(expit(np.interp(np.asarray(scores, dtype=np.float64), self.middles, self.log_odds)))

    @cached_property
    def _hit_log_odds(self) -> Floats:
        """(bins,) of a pair among the nearest, by Bayes' rule from the shares of duplicates and of all pairs."""
        share = self.counts.hit_share(self.edges)
        of_duplicates = expit(logit(share) + self.hit_gain)
        probability = np.clip(expit(self.log_odds) * of_duplicates / share, 1e-9, 0.999)
        return rising(logit(probability), np.maximum(self.counts.rebinned(self.edges), 1e-3))

    def hit_probability(self, scores: ArrayLike) -> Floats:
        """Probabilities that hits of a search in the corpus, the 10 nearest questions, are duplicates."""
        return np.asarray(expit(np.interp(np.asarray(scores, dtype=np.float64), self.middles, self._hit_log_odds)))

    def even_threshold(self) -> float:
        """The lowest score from which on a hit is a duplicate with a probability of a half or more.

        The same text again, `SAME` and above, is one in any case.
        """
        scores = EDGES[self.edges[0] <= EDGES]
        likely = self.hit_probability(scores) >= 0.5
        return min(float(scores[int(np.argmax(likely))]), SAME) if likely.any() else SAME

    @property
    def lowest(self) -> float:
        """The lowest threshold that is judged: at most `REACH` pairs for each question lie above it.

        It lies one bin below 1 where more have a score of 1, as those of a collapsed model do.
        """
        few = self.counts.at_or_above(EDGES[:-1]) <= REACH * self.counts.n
        first = int(np.argmax(few)) if few.any() else len(few) - 1
        return max(float(EDGES[first]), float(self.edges[0]))

    @cached_property
    def curves(self) -> Curves:
        """What lies above each threshold from `lowest` on, in `DRAWS` draws from the uncertainty."""
        start = int(np.searchsorted(EDGES, self.lowest - WIDTH / 2))
        thresholds, counts = EDGES[start:-1], self.counts.counts[start:]
        rng = np.random.default_rng(0)
        noise = np.vstack([np.zeros(len(self.factors)), rng.standard_normal((DRAWS, len(self.factors)))])
        odds = self.log_odds + noise @ self.factors  # (1 + draws, bins)
        place = (thresholds + WIDTH / 2 - self.middles[0]) / (self.middles[1] - self.middles[0])
        place = np.clip(place, 0, len(self.middles) - 1)
        bin_ = np.minimum(place.astype(np.int64), len(self.middles) - 2)
        probability = expit(odds[:, bin_] * (1 - (place - bin_)) + odds[:, bin_ + 1] * (place - bin_))
        right = np.cumsum((probability * counts)[:, ::-1], axis=1)[:, ::-1]
        share = np.append(np.cumsum(self.duplicate_share[::-1])[::-1], 0.0)
        above_lowest = float(np.interp(self.lowest, self.edges, share))
        return Curves(thresholds, np.cumsum(counts[::-1])[::-1], right, right[:, :1] / max(above_lowest, 1e-6))

    def expected(self, threshold: float) -> Expectation:
        """What is expected at a threshold; duplicates below `lowest` are not counted.

        Args:
            threshold: duplicate if and only if score >= threshold.
        """
        curves = self.curves
        place = int(np.clip(np.searchsorted(curves.thresholds, threshold - 1e-9), 0, len(curves.thresholds) - 1))
        pairs = float(self.counts.at_or_above(threshold))
        right = curves.right[:, place]
        if pairs < curves.pairs[place]:  # above the last cut
            right = right * pairs / curves.pairs[place]
        precision = np.minimum(right / max(pairs, 1e-12), 1.0)
        recall = np.minimum(right / np.maximum(curves.duplicates[:, 0], 1e-12), 1.0)
        found = _with_chance(precision[1:], pairs)
        return Expectation(
            threshold=threshold,
            pairs=pairs,
            precision=float(precision[0]),
            precision_interval=_central(found),
            precision_bound=float(np.quantile(found, ONE_SIDED)),
            recall=float(recall[0]),
            recall_interval=_central(recall[1:]),
            f1=float(2 * right[0] / max(pairs + curves.duplicates[0, 0], 1e-12)),
        )

    def best_threshold(self) -> float:
        """The threshold of greatest expected F1 over the corpus."""
        curves = self.curves
        f1 = 2 * curves.right[0] / np.maximum(curves.pairs + curves.duplicates[0, 0], 1e-12)
        return float(curves.thresholds[int(np.argmax(f1))])

    def bounds(self) -> tuple[Floats, Floats]:
        """(t,) one-sided 95 % lower bound of the precision at each threshold of `curves`, and its expectation."""
        precision = self.curves.precision
        return np.quantile(_with_chance(precision[1:], self.curves.pairs), ONE_SIDED, axis=0), precision[0]

    def threshold_at(self, precision: float) -> float | None:
        """The lowest threshold at which the lower bound of the precision reaches a value; None if it nowhere does."""
        reached = np.flatnonzero((self.bounds()[0] >= precision) & (self.curves.pairs >= 1))
        return float(self.curves.thresholds[reached[0]]) if len(reached) else None


def _with_chance(precision: Floats, pairs: ArrayLike) -> Floats:
    """Expected precisions (draws, ...) to those found among so many pairs, which chance moves."""
    independent = np.maximum(np.asarray(pairs, dtype=np.float64) / DESIGN_EFFECT, 1.0)
    draws = np.random.default_rng(1).standard_normal((len(precision), *([1] * (precision.ndim - 1))))
    return np.clip(precision + draws * np.sqrt(precision * (1 - precision) / independent), 0.0, 1.0)


def _central(draws: Floats) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def estimate_corpus(densities: Densities, counts: ScoreCounts) -> CorpusEstimate:
    """The duplicates of a corpus, from its own scores and the densities of another table.

    The mixture: strangers, whose log density may differ from the table's by a polynomial of degree 2; and duplicates
    and near misses, as many for each question as in the table, times one scale. These four numbers are fitted to the
    counts of the upper half of the corpus' scores by regularised least squares.

    Args:
        densities: of the validation table, or of a corpus that the verdict was fitted to; where this corpus is like
            that one, they are taken as they are.
        counts: of the corpus.
    """
    if densities.own and _is_like(densities, counts):
        return _mixture(densities, counts, 1.0, np.array(densities.strangers), densities.domain_sd)
    scale, tilt = _fit_mixture(densities, counts.rebinned(densities.edges), counts.n)
    strangers = np.array(densities.strangers)
    strangers[: len(tilt)] += tilt
    return _mixture(densities, counts, scale, strangers, max(densities.domain_sd, DOMAIN_SD))


def _is_like(densities: Densities, counts: ScoreCounts) -> bool:
    """Whether a corpus has the scores of the one that the densities were fitted to, but for growth."""
    found, expected = counts.rebinned(densities.edges), expected_counts(densities, counts.n)
    enough = expected >= 20
    if not enough.any():
        return False
    return bool(np.mean(np.abs(found[enough] / expected[enough] - 1)) < UNLIKE)


def expected_counts(densities: Densities, n: int) -> Floats:
    """(bins,) pairs that a corpus of n questions would have, if it were like the one of the densities."""
    related = n / densities.n * (np.array(densities.duplicates) + densities.near)
    return np.asarray(related + n * (n - 1) / 2 * densities.stranger_density())


def like_validation(densities: Densities, n: int) -> CorpusEstimate:
    """The duplicates of a corpus of n questions whose scores are not known: taken to be like those of the table.

    Args:
        densities: of the validation table.
        n: questions of the corpus.
    """
    strangers = np.array(densities.strangers)
    above = np.append(np.cumsum(expected_counts(densities, n)[::-1])[::-1], 0.0)
    counts = ScoreCounts(-np.diff(np.interp(EDGES, densities.edges, above)), n)
    return _mixture(densities, counts, 1.0, strangers, max(densities.domain_sd, UNSEEN_SD))


def _mixture(
    densities: Densities, counts: ScoreCounts, scale: float, strangers: Floats, domain_sd: float
) -> CorpusEstimate:
    bins = len(densities.duplicates)
    ratio = scale * counts.n / densities.n
    same, near = ratio * np.array(densities.duplicates), ratio * np.array(densities.near)
    different = near + counts.n * (counts.n - 1) / 2 * log_density(strangers, bins)
    chance = 1.0 if densities.own else 1 + densities.n / max(counts.n, 1)  # of the table's components, and of these
    factors = np.array(densities.factors).reshape(-1, bins)
    covariance = chance * factors.T @ factors + _between_corpora(domain_sd, bins)
    return CorpusEstimate(
        counts=counts,
        edges=densities.edges,
        log_odds=rising(np.log((same + 1e-6) / (different + 1e-6)), same + different),
        factors=factors_of(covariance),
        duplicate_share=np.array(densities.duplicates) / max(sum(densities.duplicates) + densities.below, 1e-12),
        strangers=strangers,
        scale=scale,
        hit_gain=densities.hit_gain,
        labels=densities.labels,
    )


def _between_corpora(sd: float, bins: int) -> Floats:
    """Covariance (bins, bins) of the log odds between corpora: a constant part, and one that changes with the score."""
    place = np.arange(bins) / bins
    local = np.exp(-0.5 * ((place[:, None] - place) / LENGTH) ** 2)
    return np.asarray(sd**2 * (1 + LOCAL**2 * local))


def _fit_mixture(densities: Densities, own: Floats, n: int) -> tuple[float, Floats]:
    """The scale of duplicates and near misses, and what is added to the log density of strangers, (3,).

    Args:
        densities: of a table.
        own: (bins,) pairs of the corpus in the bins of the table.
        n: questions of the corpus.
    """
    pairs, related = n * (n - 1) / 2, n / densities.n * (np.array(densities.duplicates) + densities.near)
    spread = FREE * np.array([1.0, 2.0, 6.0, 12.0])
    below = pairs - own.sum() + np.cumsum(own)
    upper = below >= 0.5 * pairs

    def residuals(values: Floats) -> Floats:
        expected = pairs * densities.stranger_density(values[1:]) + math.exp(values[0]) * related
        error = np.sqrt(expected + (MODEL_ERROR * expected) ** 2 + 1.0)
        return np.concatenate([((own - expected) / error)[upper], values / spread])

    fits = [least_squares(residuals, [start, 0.0, 0.0, 0.0]) for start in (0.0, -2.0, -4.0)]
    best = min(fits, key=lambda fit: float(fit.cost)).x
    return math.exp(float(best[0])), np.asarray(best[1:])


def with_labels(estimate: CorpusEstimate, scores: ArrayLike, labels: ArrayLike) -> CorpusEstimate:
    """The estimate after labels of the corpus' own pairs, whose choice depended on nothing but their score.

    Laplace's approximation of a Gaussian process over the log odds, with the old estimate as its mean. As the share of
    duplicates is modelled at each score, and the corpus' counts weight the scores, pairs may be drawn with any
    probability that depends on the score: those near a threshold do not count as a sample of all.

    Args:
        estimate: before the labels.
        scores: (m,) of the labelled pairs.
        labels: (m,) 1 duplicate, 0 not.
    """
    bins, answers = len(estimate.log_odds), np.asarray(labels, dtype=np.float64)
    place = np.clip(np.searchsorted(estimate.edges, np.asarray(scores), "right") - 1, 0, bins - 1)
    drawn = np.bincount(place, minlength=bins).astype(np.float64)
    right = np.bincount(place, answers, minlength=bins).astype(np.float64)
    prior = estimate.factors.T @ estimate.factors + _between_corpora(LABELLED_SD, bins) + 1e-4 * np.eye(bins)
    odds, covariance = _laplace(estimate.log_odds, prior, drawn, right)
    return dataclasses.replace(
        estimate,
        log_odds=rising(odds, estimate.counts.rebinned(estimate.edges) + 1e-3),
        factors=factors_of(covariance),
        labels=estimate.labels + len(answers),
    )


def after_more_labels(estimate: CorpusEstimate, more: int) -> CorpusEstimate:
    """The estimate as it is expected to be after more stratified labels: the same mean, with less uncertainty.

    Args:
        estimate: now.
        more: labels, divided evenly between strata whose number of pairs doubles, from n / 8 of n questions on.
    """
    counts = estimate.counts
    ends = counts.n * np.append(0.0, 2.0 ** np.arange(-3, 6))  # pairs above the end of each stratum
    pairs = estimate.counts.rebinned(estimate.edges)
    above = np.append(np.cumsum(pairs[::-1])[::-1], 0.0)
    placed = np.stack([np.clip(above, low, high) - low for low, high in pairwise(ends)])  # (strata, bins + 1)
    share = -np.diff(placed, axis=1) / np.maximum(placed[:, :1], 1e-12)
    drawn = share.sum(axis=0) * more / (len(ends) - 1)
    probability = expit(estimate.log_odds)
    prior = estimate.factors.T @ estimate.factors + 1e-6 * np.eye(len(drawn))
    _, covariance = _laplace(estimate.log_odds, prior, drawn, drawn * probability)
    return dataclasses.replace(estimate, factors=factors_of(covariance), labels=estimate.labels + more)


def _laplace(mean: Floats, prior: Floats, drawn: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Mode and covariance of log odds (bins,), given how many of the pairs drawn in each bin were right.

    Newton's method of Rasmussen and Williams (2006), algorithm 3.1.
    """
    odds, identity = mean.copy(), np.eye(len(mean))
    for _ in range(100):
        probability = expit(odds)
        weight = drawn * probability * (1 - probability)
        root = np.sqrt(weight)
        target = weight * (odds - mean) + right - drawn * probability
        inner = identity + root[:, None] * prior * root
        step = mean + prior @ (target - root * np.linalg.solve(inner, root * (prior @ target))) - odds
        odds = odds + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-8:
            break
    root = np.sqrt(drawn * expit(odds) * expit(-odds))
    inner = identity + root[:, None] * prior * root
    covariance = prior - (prior * root) @ np.linalg.solve(inner, root[:, None] * prior)
    return odds, (covariance + covariance.T) / 2


def own_densities(estimate: CorpusEstimate, densities: Densities) -> Densities:
    """The densities of the corpus itself, so that its estimate can be made again, also when it has grown.

    Args:
        estimate: of the corpus.
        densities: that it was made from.
    """
    bins = len(estimate.log_odds)
    pairs = estimate.counts.rebinned(estimate.edges)
    probability = expit(estimate.log_odds)
    everything = float(estimate.curves.duplicates[0, 0])
    judged = estimate.edges[:-1] >= estimate.lowest
    same = np.where(judged, pairs * probability, everything * estimate.duplicate_share)
    n = estimate.counts.n
    strangers = n * (n - 1) / 2 * log_density(estimate.strangers, bins)
    # what the log odds say of the others, so that they come out again
    near = np.maximum(same * np.exp(-estimate.log_odds) - strangers, 0.0)
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


def why_not(estimate: CorpusEstimate, precision: float) -> str:
    """Why no threshold is known to reach a precision, what can be had, and how many labels might help."""
    bound, expected = estimate.bounds()
    some = estimate.curves.pairs >= 1
    if not some.any():
        return "no pair of the corpus scores high enough to be judged"
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


def labels_needed(estimate: CorpusEstimate, precision: float) -> int | None:
    """About how many more stratified labels may lift the lower bound of the precision to a value; None: hardly any.

    The numbers tried are `LABELS`; see `after_more_labels`.
    """
    for more in LABELS:
        if after_more_labels(estimate, more).threshold_at(precision) is not None:
            return more
    return None
