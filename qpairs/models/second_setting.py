"""What cosine and logit mean together in one setting: a `Setting` on top of that of the cosines alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.metrics import ReadEstimate, SecondLook
from qpairs.metrics.logistic import expit
from qpairs.metrics.read_pairs import SURE, WORTH
from qpairs.metrics.second_look import GRID
from qpairs.models.base import Model
from qpairs.models.two_stages import Band, TwoStages, log_odds_of, second_stage
from qpairs.models.verdict import CorpusSetting, Setting, check_threshold

EVEN = 0.5  # a hit is a duplicate where that is likelier than not
STEP = float(GRID[1] - GRID[0])  # of the cosines at which a band is looked for

FEW_DENSITIES = (
    "precision: the model has a verdict only for labelled pairs, so no precision can be promised in a corpus; run "
    "qpairs calibrate MODEL --corpus QUESTIONS, or use --threshold"
)
NOT_IN_CORPUS = (
    "threshold: must be a probability, from 0 to 1, since the model takes a second look; or use --no-reranker"
)


@dataclass(frozen=True)
class SecondSetting:
    """What cosine and logit mean together: a `Setting`, which without logits decides by cosines.

    Attributes:
        base: what cosines alone mean.
        look: what a logit adds.
        threshold: a pair is called a duplicate if and only if its probability is at or above it.
        bounded: whether it is the lower 95 % bound of the probability that must be at or above the threshold.

    >>> from qpairs.metrics import Calibration
    >>> from qpairs.models.verdict import PairSetting
    >>> base, look = PairSetting(0.8, Calibration(10, -8)), SecondLook(0, 0, 1, (-2, 0), (2, 0))
    >>> setting = SecondSetting(base, look)
    >>> setting.probability([0.8, 0.8, 0.8], [-2.0, np.nan, 2.0]).round(2).tolist()
    [0.12, 0.5, 0.88]
    """

    base: Setting
    look: SecondLook
    threshold: float = EVEN
    bounded: bool = False

    @property
    def precision_of(self) -> str:
        """For which pairs its probabilities and precisions hold, in words."""
        return self.base.precision_of

    def log_odds(self, scores: ArrayLike, logits: ArrayLike | None = None) -> NDArray[np.float64]:
        """Log odds of being duplicates, in the shape of the cosines.

        Args:
            scores: cosines.
            logits: of the cross-encoder, NaN for pairs that were not read; None: none were read.
        """
        return self.base.log_odds(scores) + self._gain(scores, logits)

    def probability(self, scores: ArrayLike, logits: ArrayLike | None = None) -> NDArray[np.float64]:
        """Probabilities of being duplicates, in the shape of the cosines; arguments as in `log_odds`."""
        return np.asarray(expit(self.log_odds(scores, logits)))

    def decide(self, scores: ArrayLike, logits: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Whether pairs are called duplicates, in the shape of the cosines; arguments as in `log_odds`."""
        gain = self._gain(scores, logits)
        if self.bounded and isinstance(self.base, CorpusSetting) and logits is not None:
            unsure = np.sqrt((self.look.spread(scores, logits) ** 2).sum(axis=0))
            return metrics.decide(expit(self.base.lower_log_odds(scores, unsure) + gain), self.threshold)
        return metrics.decide(expit(self._decisive(scores) + gain), self.threshold)

    @property
    def worth(self) -> float:
        """The probability that a pair must be able to reach to be worth reading.

        The threshold with the highest F1 is half of that F1 (Lipton et al. 2014, Optimal Thresholding of Classifiers to
        Maximize F1), and with a second look F1 is at least what is expected without; at most `WORTH`.
        """
        if isinstance(self.base, CorpusSetting):
            return min(WORTH, self.base.for_pairs().expected().f1 / 2)
        return WORTH

    def band(self, least: float | None = None, most: float | None = None) -> Band:
        """The cosines between which a second look may change a decision, at 99 %; see `SecondLook.band`.

        Args:
            least: lowest probability of a duplicate; None: the threshold.
            most: the highest such probability that is of interest; None: `least`.
        """
        lower = log_odds_of(self.threshold if least is None else least)
        upper = lower if most is None else log_odds_of(most)
        low, high = self.look.band(self._decisive, lower, upper)
        return Band(low - STEP, high + STEP) if low <= 1 else Band(low, high)  # what lies between two steps, too

    def read_band(self) -> Band:
        """The cosines of the hits that are read: those that it may change at any threshold from `worth` to `SURE`.

        So a hit has one probability, whichever of these thresholds decides.
        """
        return self.band(min(self.worth, self.threshold), max(SURE, self.threshold))

    def floor(self, least: float) -> float:
        """The cosine below which no pair of a corpus has this probability, even with a second look, at 99 %.

        It is never below the range that the estimate of a corpus covers: 32 pairs for each question.
        """
        lowest = self.base.estimate.lowest if isinstance(self.base, CorpusSetting) else -1.0
        return max(self.look.reach(self._decisive, log_odds_of(least)) - STEP, lowest)

    def after_reading(self, cosines: ArrayLike, logits: ArrayLike, floor: float, part: float = 1.0) -> ReadEstimate:
        """The duplicates of the corpus, after a second look at all pairs at or above a floor that it may change.

        Args:
            cosines: (m,) of all pairs at or above the floor.
            logits: (m,) NaN for pairs that were not read.
            floor: see `floor`.
            part: see `ReadEstimate`.

        Raises:
            ValueError: it is not a setting of a corpus.
        """
        if not isinstance(self.base, CorpusSetting):
            raise ValueError("only a corpus has duplicates to estimate")
        values = np.asarray(cosines, dtype=np.float64)
        gains, spread = self.look.gain(values, logits), self.look.spread(values, logits)
        return ReadEstimate(self.base.of_cosines, values, gains, floor, part, spread)

    def at(self, threshold: float) -> SecondSetting:
        """The same setting with another threshold of the probability.

        Raises:
            UserError: it is not a probability.
        """
        check_probability(threshold)
        return replace(self, threshold=threshold, bounded=False)

    def threshold_at(self, precision: float) -> float | None:
        """The precision itself, as a threshold of the lower bound of each probability; None if none reaches it."""
        if not isinstance(self.base, CorpusSetting):
            return None
        return precision if self._highest_bound(self.base) >= precision else None

    def at_precision(self, precision: float) -> SecondSetting:
        """The setting that calls a pair a duplicate if the lower 95 % bound of its probability is at least this.

        Raises:
            UserError: nothing is known about the corpus, or no pair's bound could be that high.
        """
        if not isinstance(self.base, CorpusSetting):
            raise UserError(FEW_DENSITIES)
        if self.threshold_at(precision) is None:
            highest = math.floor(100 * self._highest_bound(self.base)) / 100
            raise UserError(
                f"precision: no hit is known to be a duplicate with probability {precision:g}; the highest that can be "
                f"promised is {highest:.2f}. Labels of the corpus may help: qpairs serve --labels, then qpairs "
                "calibrate --corpus --labels"
            )
        return replace(self, threshold=precision, bounded=True)

    def _highest_bound(self, base: CorpusSetting) -> float:
        """The highest lower bound of a probability that a pair may have, at 99 %."""
        odds = base.lower_log_odds(GRID) + self.look.bounds(GRID)[1]
        return float(expit(odds.max()))

    def _decisive(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Log odds of cosines on which the decision is based."""
        if self.bounded and isinstance(self.base, CorpusSetting):
            return self.base.lower_log_odds(scores)
        return self.base.log_odds(scores)

    def _gain(self, scores: ArrayLike, logits: ArrayLike | None) -> NDArray[np.float64]:
        return np.zeros(np.shape(scores)) if logits is None else self.look.gain(scores, logits)


def second_setting(base: Setting, model: TwoStages) -> SecondSetting:
    """What both stages mean if cosines mean `base`; a pair is called a duplicate if that is more likely than not.

    If the model has a verdict only for labelled pairs, the threshold is that of the verdict.
    """
    if isinstance(base, CorpusSetting):
        return SecondSetting(base, model.look)
    return SecondSetting(base, model.look, float(expit(model.verdict.pair.threshold)))


def check_corpus_threshold(model: Model, threshold: float) -> None:
    """Raises UserError if a threshold is outside the range of the score that decides in a corpus.

    That is a probability if the model takes a second look, and a cosine otherwise.

    Args:
        model: that decides.
        threshold: from the user.

    >>> check_corpus_threshold(checkpoint, 1.2)
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: threshold: 1.2, must be -1 <= threshold <= 1
    """
    (check_probability if second_stage(model) else check_threshold)(threshold)


def check_probability(threshold: float) -> None:
    """Raises UserError if a threshold is not a probability."""
    try:
        check_threshold(threshold, "probability")
    except UserError:
        raise UserError(NOT_IN_CORPUS) from None
