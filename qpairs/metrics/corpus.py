"""What scores mean in a corpus: precision and recall above a threshold, and the probability of a pair or a hit.

In a corpus of n questions the duplicates grow as n and the strangers as n^2, so the probability of a score depends on
the corpus. `mixture` estimates it from the corpus' own scores, `corpus_labels` from labels of its pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.densities import rising
from qpairs.metrics.inputs import Floats
from qpairs.metrics.intervals import Interval
from qpairs.metrics.logistic import expit, logit
from qpairs.metrics.score_counts import EDGES, WIDTH, ScoreCounts

SAME = 0.999  # cosine of a text with itself, rounded
DRAWS = 400  # from the uncertainty
ONE_SIDED = 0.05  # share of the draws below a bound that is promised
DESIGN_EFFECT = 2.0  # pairs of one cluster are right and wrong together
NO_DUPLICATES = 0.01  # a precision that is not told from 0
SMALL = 100  # questions; in larger corpora that are rich, F1 would lose more than it spares (docs/corpus.md)
REACH = 32  # pairs for each question: below the score that so many lie above, hardly any pair is a duplicate


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

    >>> estimate.expected(0.9).threshold
    0.9
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

    def right_among(self, pairs: float) -> Floats:
        """(1 + draws,) duplicates among so many pairs with the highest scores, linear between the thresholds."""
        known = np.append(0.0, self.pairs[::-1])
        return np.array([np.interp(pairs, known, np.append(0.0, row[::-1])) for row in self.right])

    def expectation(self, threshold: float, pairs: float, right: Floats) -> Expectation:
        """What is expected of so many pairs above a threshold.

        Args:
            threshold: duplicate if and only if score >= threshold.
            pairs: at or above it.
            right: (1 + draws,) duplicates among them.
        """
        precision = np.minimum(right / max(pairs, 1e-12), 1.0)
        recall = np.minimum(right / np.maximum(self.duplicates[:, 0], 1e-12), 1.0)
        found = _with_chance(precision[1:], pairs)
        return Expectation(
            threshold=threshold,
            pairs=pairs,
            precision=float(precision[0]),
            precision_interval=_central(found),
            precision_bound=float(np.quantile(found, ONE_SIDED)),
            recall=float(recall[0]),
            recall_interval=_central(recall[1:]),
            f1=float(2 * right[0] / max(pairs + self.duplicates[0, 0], 1e-12)),
        )

    def best_threshold(self) -> float:
        """The threshold of greatest expected F1."""
        f1 = 2 * self.right[0] / np.maximum(self.pairs + self.duplicates[0, 0], 1e-12)
        return float(self.thresholds[int(np.argmax(f1))])

    def bounds(self) -> tuple[Floats, Floats]:
        """(t,) one-sided 95 % lower bound of the precision at each threshold, and its expectation."""
        precision = self.precision
        return np.quantile(_with_chance(precision[1:], self.pairs), ONE_SIDED, axis=0), precision[0]

    def threshold_at(self, precision: float) -> float | None:
        """The lowest threshold at which the lower bound of the precision reaches a value; None if it nowhere does."""
        reached = np.flatnonzero((self.bounds()[0] >= precision) & (self.pairs >= 1))
        return float(self.thresholds[reached[0]]) if len(reached) else None


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
        hit_gain: (bins,) see `Densities`; 0 where it is not known.
        labels: number of labelled pairs of this corpus that it is based on.
        borrowed: see `Densities`.

    >>> expected = estimate.expected(estimate.best_threshold())
    >>> expected.precision_interval[0] <= expected.precision <= expected.precision_interval[1]
    True
    """

    counts: ScoreCounts
    edges: Floats
    log_odds: Floats
    factors: Floats
    duplicate_share: Floats
    strangers: Floats
    scale: float
    hit_gain: Floats | float = 0.0
    labels: int = 0
    borrowed: bool = False

    @property
    def middles(self) -> Floats:
        """(bins,) the scores in the middle of the bins."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)

    def log_odds_of(self, scores: ArrayLike) -> Floats:
        """Log odds that pairs of the corpus are duplicates.

        >>> estimate.log_odds_of([0.5, 0.9]).shape
        (2,)
        """
        return np.interp(np.asarray(scores, dtype=np.float64), self.middles, self.log_odds)

    def probability(self, scores: ArrayLike) -> Floats:
        """Probabilities that pairs of the corpus are duplicates.

        >>> estimate.probability([0.5, 0.9]).shape
        (2,)
        """
        return np.asarray(expit(self.log_odds_of(scores)))

    def deviation_of(self, scores: ArrayLike) -> Floats:
        """Standard deviations of the log odds of pairs, from what is not known of the corpus.

        >>> estimate.deviation_of([0.9]).shape
        (1,)
        """
        spread = np.sqrt((self.factors**2).sum(axis=0))
        return np.asarray(np.interp(np.asarray(scores, dtype=np.float64), self.middles, spread))

    @cached_property
    def _hit_log_odds(self) -> Floats:
        """(bins,) of a pair among the nearest, by Bayes' rule from the shares of duplicates and of all pairs.

        Those of any pair where the nearest are not known.
        """
        if not self.counts.hits.any():
            return self.log_odds
        share = self.counts.hit_share(self.edges)
        of_duplicates = expit(logit(share) + self.hit_gain)
        probability = np.clip(expit(self.log_odds) * of_duplicates / share, 1e-9, 0.999)
        return rising(logit(probability), np.maximum(self.counts.rebinned(self.edges), 1e-3))

    def hit_log_odds(self, scores: ArrayLike) -> Floats:
        """Log odds that hits of a search in the corpus, the 10 nearest questions, are duplicates.

        >>> estimate.hit_log_odds([0.9]).shape
        (1,)
        """
        return np.interp(np.asarray(scores, dtype=np.float64), self.middles, self._hit_log_odds)

    def hit_probability(self, scores: ArrayLike) -> Floats:
        """Probabilities that hits of a search in the corpus, the 10 nearest questions, are duplicates.

        >>> (estimate.hit_probability([0.9]) <= 1).tolist()
        [True]
        """
        return np.asarray(expit(self.hit_log_odds(scores)))

    @cached_property
    def _drawn(self) -> Floats:
        """(1 + draws, bins) log odds: as expected, then drawn from the uncertainty."""
        rng = np.random.default_rng(0)
        noise = np.vstack([np.zeros(len(self.factors)), rng.standard_normal((DRAWS, len(self.factors)))])
        return np.asarray(self.log_odds + noise @ self.factors)

    def draws_of(self, scores: Floats) -> Iterator[Floats]:
        """(m,) log odds of pairs with these scores (m,): as expected, then in `DRAWS` draws from the uncertainty.

        >>> len(list(estimate.draws_of([0.9]))) > 0
        True
        """
        place = np.clip((scores - self.middles[0]) / (self.middles[1] - self.middles[0]), 0, len(self.middles) - 1)
        bin_ = np.minimum(place.astype(np.int64), len(self.middles) - 2)
        for odds in self._drawn:
            yield odds[bin_] + (place - bin_) * (odds[bin_ + 1] - odds[bin_])

    def even_threshold(self) -> float:
        """The lowest score at which a hit is a duplicate with a probability of at least a half.

        The same text again, `SAME` and above, is one in any case.

        >>> -1 <= estimate.even_threshold() <= 2
        True
        """
        scores = EDGES[self.edges[0] <= EDGES]
        likely = self.hit_probability(scores) >= 0.5
        return min(float(scores[int(np.argmax(likely))]), SAME) if likely.any() else SAME

    @property
    def lowest(self) -> float:
        """The lowest threshold that is covered: at most `REACH` pairs for each question lie above it.

        It lies one bin below 1 where more have a score of 1, as those of a collapsed model do.
        """
        few = self.counts.at_or_above(EDGES[:-1]) <= REACH * self.counts.n
        first = int(np.argmax(few)) if few.any() else len(few) - 1
        return max(float(EDGES[first]), float(self.edges[0]))

    @cached_property
    def curves(self) -> Curves:
        """What lies above each threshold, starting at `lowest`, in `DRAWS` draws from the uncertainty."""
        start = int(np.searchsorted(EDGES, self.lowest - WIDTH / 2))
        thresholds, counts = EDGES[start:-1], self.counts.counts[start:]
        probability = expit(np.stack(list(self.draws_of(thresholds + WIDTH / 2))))
        right = np.cumsum((probability * counts)[:, ::-1], axis=1)[:, ::-1]
        above_lowest = max(self.share_above(self.lowest), 1e-6)
        return Curves(thresholds, np.cumsum(counts[::-1])[::-1], right, right[:, :1] / above_lowest)

    def share_above(self, threshold: float) -> float:
        """Share of the duplicates of the corpus at or above a threshold, as in validation.

        >>> 0 <= estimate.share_above(0.9) <= 1
        True
        """
        share = np.append(np.cumsum(self.duplicate_share[::-1])[::-1], 0.0)
        return float(np.interp(threshold, self.edges, share, left=1.0))

    def expected(self, threshold: float) -> Expectation:
        """What is expected at a threshold, linear between those of `curves`.

        Below `lowest`, the duplicates are as many more as in validation, but no more than the pairs there.

        Args:
            threshold: duplicate if and only if score >= threshold.

        >>> estimate.expected(0.9).threshold
        0.9
        """
        curves = self.curves
        pairs = float(self.counts.at_or_above(threshold))
        right = curves.right_among(pairs)
        if threshold < self.lowest:
            more = curves.duplicates[:, 0] * self.share_above(threshold) - right
            right = right + np.clip(more, 0.0, pairs - curves.pairs[0])
        return curves.expectation(threshold, pairs, right)

    def best_threshold(self) -> float:
        """The threshold of greatest expected F1 over the corpus.

        >>> 0 < estimate.best_threshold() <= 1
        True
        """
        return self.curves.best_threshold()

    def default_threshold(self) -> float:
        """The default threshold: with the highest expected F1, if there are duplicates at all.

        The scores of a corpus of fewer than `SMALL` questions without labels may not tell that there are any
        (`may_have_none`). F1 would call most pairs duplicates there, since those that it might find outweigh all that
        are wrong; so a pair has to be more likely a duplicate than not, as in a search.

        >>> estimate.default_threshold() >= estimate.best_threshold()
        True
        """
        best = self.best_threshold()
        if not may_have_none(self.counts.n, self.labels, self.expected(best)):
            return best
        likely = self.probability(EDGES) >= 0.5
        return max(best, float(EDGES[int(np.argmax(likely))]) if likely.any() else SAME)

    def bounds(self) -> tuple[Floats, Floats]:
        """(t,) one-sided 95 % lower bound of the precision at each threshold of `curves`, and its expectation.

        >>> bound, expected = estimate.bounds()
        >>> (bound <= expected + 1e-9).all().item()
        True
        """
        return self.curves.bounds()

    def threshold_at(self, precision: float) -> float | None:
        """The lowest threshold at which the lower bound of the precision reaches a value; None if it nowhere does.

        >>> estimate.threshold_at(1.01) is None
        True
        """
        return self.curves.threshold_at(precision)


def may_have_none(n: int, labels: int, expected: Expectation) -> bool:
    """Whether a corpus is so small, and so little is known about it, that it may have no duplicates at all.

    Args:
        n: its questions.
        labels: labelled pairs of it.
        expected: at the threshold of greatest expected F1; all pairs may be wrong by its 95 % interval.

    >>> may_have_none(500, 0, estimate.expected(0.9)), may_have_none(50, 10, estimate.expected(0.9))
    (False, False)
    """
    return n < SMALL and not labels and expected.precision_interval[0] < NO_DUPLICATES


def _with_chance(precision: Floats, pairs: ArrayLike) -> Floats:
    """Expected precisions (draws, ...) to those found among so many pairs, which chance moves."""
    independent = np.maximum(np.asarray(pairs, dtype=np.float64) / DESIGN_EFFECT, 1.0)
    draws = np.random.default_rng(1).standard_normal((len(precision), *([1] * (precision.ndim - 1))))
    return np.clip(precision + draws * np.sqrt(precision * (1 - precision) / independent), 0.0, 1.0)


def _central(draws: Floats) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
