"""The duplicates of a corpus, after a second look at all pairs that may be some: what their probabilities add up to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs.metrics.corpus import DRAWS, CorpusEstimate, Curves, Expectation, may_have_none
from qpairs.metrics.inputs import Floats
from qpairs.metrics.logistic import expit, logit
from qpairs.metrics.score_counts import ScoreCounts
from qpairs.metrics.threshold import decide

WORTH = 0.1  # probability that a pair must be able to reach to be worth reading: the threshold of greatest F1 is half
# of that F1 (Lipton et al. 2014, Optimal Thresholding of Classifiers to Maximize F1)
SURE = 0.9  # probability that a pair must be able to fall below: every sensible threshold calls a surer one a duplicate
POINTS = 400  # thresholds that are looked at: quantiles of the probabilities


@dataclass(frozen=True)
class ReadEstimate:
    """The duplicates in a corpus whose pairs at or above a cosine have had a second look.

    Their score is the probability of being duplicates: that of the cosine in this corpus, moved by the gain of the
    second look. Thresholds are probabilities, too.

    Attributes:
        first: what the cosines say.
        cosines: (m,) of the pairs at or above `floor`.
        gains: (m,) log odds that the second look adds, 0 for pairs that it could not change.
        floor: cosine below which no pair is called a duplicate.
        part: share of the corpus' pairs at or above `floor` that are looked at: 1, or less where only those count that
            have a question of one of two files.
        spread: (k, m) independent parts of the uncertainty of the gains; None: they are certain.

    >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
    >>> read.scores.shape
    (2,)
    """

    first: CorpusEstimate
    cosines: Floats
    gains: Floats
    floor: float
    part: float = 1.0
    spread: Floats | None = None

    @property
    def counts(self) -> ScoreCounts:
        """Cosines of all pairs of the corpus."""
        return self.first.counts

    @property
    def labels(self) -> int:
        """Number of labelled pairs of this corpus that it is based on."""
        return self.first.labels

    @property
    def lowest(self) -> float:
        """The lowest threshold that is covered."""
        return float(self.curves.thresholds[0])

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """(m,) probabilities of the pairs, in their order."""
        return np.asarray(expit(self.first.log_odds_of(self.cosines) + self.gains), dtype=np.float32)

    def probability(self, scores: ArrayLike) -> Floats:
        """Probabilities that pairs with these scores are duplicates: the scores themselves.

        >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
        >>> read.probability([0.4]).tolist()
        [0.4]
        """
        return np.asarray(scores, dtype=np.float64)

    def log_odds_of(self, scores: ArrayLike) -> Floats:
        """Log odds that pairs with these scores are duplicates.

        >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
        >>> read.log_odds_of([0.5]).tolist()
        [0.0]
        """
        return np.asarray(logit(np.clip(self.probability(scores), 1e-12, 1 - 1e-12)))

    def hit_log_odds(self, scores: ArrayLike) -> Floats:
        """As `log_odds_of`: a pair that was read has one probability, whether a search found it or not.

        >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
        >>> read.hit_log_odds([0.9]).shape
        (1,)
        """
        return self.log_odds_of(scores)

    def hit_probability(self, scores: ArrayLike) -> Floats:
        """As `probability`.

        >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
        >>> read.hit_probability([0.9]).shape
        (1,)
        """
        return self.probability(scores)

    def even_threshold(self) -> float:
        """The probability at which a pair becomes more likely a duplicate than not.

        >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
        >>> -1 <= read.even_threshold() <= 2
        True
        """
        return 0.5

    @cached_property
    def curves(self) -> Curves:
        """What lies above each threshold, in draws from the uncertainty of the first estimate and of the gains."""
        order = np.argsort(-self.scores, kind="stable")
        ranked = self.scores[order].astype(np.float64)
        last = np.append(np.flatnonzero(np.diff(ranked) != 0), len(ranked) - 1) if len(ranked) else np.array([], int)
        cuts = last[np.unique(np.linspace(0, len(last) - 1, POINTS).astype(np.int64))] if len(last) else last
        right, total = np.zeros((DRAWS + 1, len(cuts))), np.zeros(DRAWS + 1)
        gains = self.gains[order]
        spread = np.zeros((0, len(gains))) if self.spread is None else self.spread[:, order]
        noise = np.random.default_rng(1).standard_normal((DRAWS + 1, len(spread)))
        noise[0] = 0.0  # the expectation itself
        for draw, odds in enumerate(self.first.draws_of(self.cosines[order])):
            found = np.cumsum(expit(odds + gains + noise[draw] @ spread))
            right[draw] = found[cuts]
            total[draw] = found[-1] if len(found) else 0.0
        missed = self.part * self.first.curves.duplicates[:, 0] * (1 - self.first.share_above(self.floor))
        thresholds = ranked[cuts][::-1] if len(cuts) else np.array([1.0])
        pairs = (cuts + 1.0)[::-1] if len(cuts) else np.array([0.0])
        right = right[:, ::-1] if len(cuts) else np.zeros((DRAWS + 1, 1))
        return Curves(thresholds, pairs, right, (total + missed)[:, None])

    def expected(self, threshold: float) -> Expectation:
        """What is expected at a threshold; linear between those of `curves`.

        Args:
            threshold: duplicate if and only if probability >= threshold.

        >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
        >>> read.expected(0.5).threshold
        0.5
        """
        pairs = float(decide(self.scores, threshold).sum())
        return self.curves.expectation(threshold, pairs, self.curves.right_among(pairs))

    def best_threshold(self) -> float:
        """The threshold of greatest expected F1 over the corpus.

        >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
        >>> 0 <= read.best_threshold() <= 1
        True
        """
        return self.curves.best_threshold()

    def default_threshold(self) -> float:
        """The threshold that is taken where none is asked for, as `CorpusEstimate.default_threshold`.

        >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
        >>> read.default_threshold() >= read.best_threshold()
        True
        """
        best = self.best_threshold()
        return max(best, 0.5) if may_have_none(self.counts.n, self.labels, self.expected(best)) else best

    def bounds(self) -> tuple[Floats, Floats]:
        """(t,) one-sided 95 % lower bound of the precision at each threshold of `curves`, and its expectation.

        >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
        >>> len(read.bounds())
        2
        """
        return self.curves.bounds()

    def threshold_at(self, precision: float) -> float | None:
        """The lowest threshold at which the lower bound of the precision reaches a value; None if it nowhere does.

        >>> read = ReadEstimate(estimate, np.array([0.9, 0.95]), np.array([1.0, -1.0]), 0.9)
        >>> read.threshold_at(1.01) is None
        True
        """
        return self.curves.threshold_at(precision)
