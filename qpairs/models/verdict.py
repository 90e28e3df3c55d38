"""The verdict turns the score of a pair into a decision and a probability. It is saved with every model.

A score means different things in different settings: among given pairs, a third are duplicates; among all pairs of a
corpus, hardly any. So a `Verdict` has `Setting`s, one for each use of a score. Nothing else compares a score with a
threshold.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.core.ranges import Range
from qpairs.core.shell import shown_command
from qpairs.metrics import (
    Calibration,
    CorpusEstimate,
    Densities,
    Expectation,
    OperatingPoint,
    ReadEstimate,
    ScoreCounts,
)

log = logging.getLogger(__name__)

ONE_SIDED = 1.6449  # standard deviations below a mean, where the lower bound of 95 % lies

ScoreKind = Literal["cosine", "head", "logit", "log odds"]

SCORE_NAMES = {
    "cosine": ("similarity", "similarities"),
    "head": ("score", "scores"),
    "logit": ("logit", "logits"),
    "log odds": ("log odds", "log odds"),
}  # what a score is called, one and several

NO_DENSITIES = (
    "the model has a verdict only for labelled pairs: in a corpus, its probabilities are far too high; run qpairs "
    "calibrate MODEL --corpus QUESTIONS, or train again, to get one for a corpus"
)

NO_LABELS = "estimated from this corpus, no labels"

LEVELS = {
    True: ((0.9, "very likely a duplicate"), (0.5, "probably a duplicate"), (0.0, "perhaps a duplicate")),
    False: ((0.5, "close, but below the threshold"), (0.2, "perhaps related"), (0.0, "another question")),
}  # decision -> words from each probability on


def score_name(score: str) -> str:
    """The name of a score wherever it is shown; `score` is that of a `Verdict`.

    >>> score_name("cosine"), score_name("log odds")
    ('similarity', 'log odds')
    """
    return SCORE_NAMES[score][0]


def score_names(score: str) -> str:
    """The name of a score in the plural.

    >>> score_names("logit")
    'logits'
    """
    return SCORE_NAMES[score][1]


def score_column(score: str) -> str:
    """The column of a score in tables: `similarity` for a cosine, and for a head as in older versions.

    >>> score_column("cosine"), score_column("logit")
    ('similarity', 'score')
    """
    return "similarity" if score in ("cosine", "head") else "score"


def words(probability: float, duplicate: bool) -> str:
    """A verdict in words, the same wherever it is shown, from the decision and the probability.

    The words never contradict the decision, whichever threshold decides. The probability is rounded as shown, to whole
    percent.

    >>> words(0.93, True), words(0.93, False)
    ('very likely a duplicate', 'close, but below the threshold')
    """
    return next(said for least, said in LEVELS[duplicate] if round(probability, 2) >= least)


@dataclass(frozen=True)
class Reference:
    """The scores that a threshold was chosen on: 101 quantiles from the smallest to the largest, of n pairs."""

    quantiles: Sequence[float]
    n: int


class Setting(Protocol):
    """What scores mean in one setting: among given pairs, or in a corpus."""

    @property
    def threshold(self) -> float:
        """A pair is called a duplicate if and only if its score is at or above this."""

    @property
    def precision_of(self) -> str:
        """For which pairs its probabilities and precisions hold, in words."""

    def log_odds(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Log odds of being duplicates, in the shape of the scores; rising with the score."""

    def decide(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Whether pairs are called duplicates, in the shape of the scores."""

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of being duplicates, in the shape of the scores."""

    def at(self, threshold: float) -> Setting:
        """The same setting with another threshold."""

    def threshold_at(self, precision: float) -> float | None:
        """The lowest threshold whose precision is at least this, with 95 % confidence; None if there is none."""

    def at_precision(self, precision: float) -> Setting:
        """The setting with the threshold of `threshold_at`.

        Raises:
            UserError: there is none; the message says what is possible.
        """


@dataclass(frozen=True)
class PairSetting:
    """What scores mean among given pairs, such as labelled ones.

    Attributes:
        threshold: a pair is called a duplicate if and only if its score is at or above it.
        calibration: score to probability of being duplicates.
        operating_points: thresholds for a precision, rising; none in checkpoints of older versions.
    """

    threshold: float
    calibration: Calibration
    operating_points: Sequence[OperatingPoint] = ()

    @property
    def precision_of(self) -> str:
        """For which pairs its probabilities and precisions hold."""
        return "of pairs like those of validation"

    def decide(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Whether pairs are called duplicates, in the shape of the scores.

        >>> PairSetting(0.5, Calibration(10.0, -5.0)).decide([0.4, 0.5])
        array([False,  True])
        """
        return metrics.decide(scores, self.threshold)

    def log_odds(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Log odds of being duplicates, in the shape of the scores."""
        return self.calibration.log_odds(scores)

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of being duplicates, in the shape of the scores."""
        return self.calibration.probability(scores)

    def at(self, threshold: float) -> PairSetting:
        """The same setting with another threshold."""
        return replace(self, threshold=threshold)

    def threshold_at(self, precision: float) -> float | None:
        """The threshold of the next operating point at or above a precision; None if there is none."""
        return next((point.threshold for point in self.operating_points if point.precision >= precision), None)

    def at_precision(self, precision: float) -> PairSetting:
        """The setting with the lowest threshold whose precision on validation is at least this, with 95 % confidence.

        Raises:
            UserError: no threshold reaches it, or there are no operating points.
        """
        if (threshold := self.threshold_at(precision)) is not None:
            return self.at(threshold)
        if not self.operating_points:
            raise UserError(
                "precision: the model was fitted to too few pairs to promise any precision; use --threshold, or "
                "calibrate it on more labelled pairs"
            )
        best = self.operating_points[-1]
        raise UserError(
            f"precision: no threshold reached precision {precision:g} on validation, with 95 % confidence; the "
            f"highest is {best.precision:g}, with recall {best.recall:.2f}"
        )


@dataclass(frozen=True)
class CorpusSetting:
    """What scores mean among all pairs of a corpus of n questions, and for the hits of a search in it.

    Attributes:
        threshold: a pair is called a duplicate if and only if its score is at or above it.
        estimate: the estimate of the duplicates in the corpus; after a second look at its pairs, scores and threshold
            are probabilities.
        hits: whether scores are those of the hits of a search, the nearest of a question, or of any pairs.
    """

    threshold: float
    estimate: CorpusEstimate | ReadEstimate
    hits: bool = False

    @property
    def precision_of(self) -> str:
        """For which pairs its probabilities and precisions hold, and on how many labels they are based."""
        if labels := self.of_cosines.labels:
            return f"{self.among}, estimated from {labels:,} label{'s' if labels > 1 else ''}"
        return f"{self.among}, {NO_LABELS}" if self.unlabelled else self.among

    @property
    def among(self) -> str:
        """Among how many questions its probabilities hold, in words."""
        return f"of a {'hit' if self.hits else 'pair'} among {self.estimate.counts.n:,} questions"

    @property
    def unlabelled(self) -> bool:
        """Whether the estimate is based on no labels, neither of this corpus nor of the model's own validation."""
        return self.of_cosines.borrowed and not self.of_cosines.labels

    @property
    def basis(self) -> str:
        """What the estimate is based on, in words."""
        if labels := self.of_cosines.labels:
            return f"estimated from {labels:,} label{'s' if labels > 1 else ''} of this corpus"
        if self.unlabelled:
            return NO_LABELS
        return "estimated from its own scores and the validation questions of the model"

    @property
    def of_cosines(self) -> CorpusEstimate:
        """What cosines say about the corpus, without a second look."""
        return self.estimate.first if isinstance(self.estimate, ReadEstimate) else self.estimate

    def decide(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Whether pairs are called duplicates, in the shape of the scores."""
        return metrics.decide(scores, self.threshold)

    def log_odds(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Log odds that pairs of the corpus, or the hits of a search in it, are duplicates."""
        return self.of_cosines.hit_log_odds(scores) if self.hits else self.estimate.log_odds_of(scores)

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Probabilities that pairs of the corpus, or the hits of a search in it, are duplicates."""
        return self.of_cosines.hit_probability(scores) if self.hits else self.estimate.probability(scores)

    def expected(self, threshold: float | None = None) -> Expectation:
        """Expected precision and recall over the corpus, at the setting's threshold or another."""
        return self.estimate.expected(self.threshold if threshold is None else threshold)

    def at(self, threshold: float) -> CorpusSetting:
        """The same setting with another threshold.

        Raises:
            UserError: it is not a cosine, or after a second look not a probability.
        """
        check_threshold(threshold, "probability" if isinstance(self.estimate, ReadEstimate) else "cosine")
        return replace(self, threshold=threshold)

    def for_pairs(self) -> CorpusSetting:
        """The setting for all pairs of the corpus, at the threshold with the highest expected F1."""
        return CorpusSetting(self.estimate.best_threshold(), self.estimate)

    def for_hits(self) -> CorpusSetting:
        """The setting for the hits of a search, which are called duplicates if that is more likely than not."""
        return CorpusSetting(self.of_cosines.even_threshold(), self.of_cosines, hits=True)

    def threshold_at(self, precision: float) -> float | None:
        """The lowest threshold at or above which pairs of the corpus have this precision, with 95 % confidence."""
        return self.estimate.threshold_at(precision)

    def at_precision(self, precision: float) -> CorpusSetting:
        """The setting with the threshold of `threshold_at`.

        Raises:
            UserError: there is none; the message says what can be promised, and whether more labels may help.
        """
        threshold = self.threshold_at(precision)
        if threshold is None:
            raise UserError(f"precision: {metrics.why_not(self.estimate, precision)}")
        return replace(self, threshold=threshold)

    def lower_log_odds(self, cosines: ArrayLike, more: ArrayLike = 0.0) -> NDArray[np.float64]:
        """One-sided 95 % lower bounds of `log_odds`, for each pair or hit by itself.

        `at_precision` promises a share of all pairs above a threshold; this bound holds for a single pair, so that a
        second look can be added to it. The log odds are taken as normal around their mean.

        Args:
            cosines: of the pairs.
            more: standard deviations of what is added to the log odds, in addition to their own.
        """
        if isinstance(self.estimate, ReadEstimate):
            raise ValueError("the scores of pairs that were read do not contain their cosines")
        return self.log_odds(cosines) - ONE_SIDED * np.hypot(self.estimate.deviation_of(cosines), more)


SCORE_RANGES: dict[str, Range] = {
    "cosine": Range(-1, at_most=1),
    "head": Range(0, at_most=1),
    "probability": Range(0, at_most=1),
}  # of other scores, none


BOTH = "threshold, precision: give only one of them"


def check_threshold(threshold: float, score: str = "cosine") -> None:
    """Raises UserError if no score can be on one side of a threshold.

    Args:
        threshold: of a score.
        score: what it is: see `Verdict.score`; probability for that of a second look.

    >>> check_threshold(1.2)
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: threshold: 1.2, must be -1 <= threshold <= 1
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.number):
        raise UserError(f"threshold: {threshold!r}, must be a number")
    if not math.isfinite(threshold):
        raise UserError(f"threshold: {threshold!r}, must be a finite number")
    allowed = SCORE_RANGES.get(score)
    if allowed and not allowed.allows(threshold):
        raise UserError(f"threshold: {threshold!r}, must be {allowed.text('threshold')}")


def check_precision(precision: float | None) -> None:
    """Raises UserError if a requested precision is impossible; None requests nothing.

    >>> check_precision(2)
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: precision: 2, must be 0 < precision <= 1
    """
    if precision is not None and not 0 < precision <= 1:
        raise UserError(f"precision: {precision!r}, must be 0 < precision <= 1")


def choose(setting: Setting, threshold: float | None = None, precision: float | None = None) -> Setting:
    """The setting with the requested threshold, if any.

    Args:
        setting: what scores mean.
        threshold: the lowest score of a duplicate.
        precision: that the duplicates must have.

    Raises:
        UserError: both are given, the setting does not allow the threshold, or the precision is invalid or cannot be
            promised.
    """
    check_precision(precision)
    if threshold is not None and precision is not None:
        raise UserError(BOTH)
    if precision is not None:
        return setting.at_precision(precision)
    return setting if threshold is None else setting.at(threshold)


@dataclass(frozen=True)
class Verdict:
    """Turns the scores of a model into decisions.

    Attributes:
        pair: the setting for given pairs.
        score: the score it reads: the cosine of two vectors, the probability that a head gives, the logit of a
            cross-encoder, or the log odds that a model of two stages gives.
        symmetric: whether the sides of a pair may be swapped; two towers then score the mean of both directions.
        reference: the scores that `pair` was fitted to; None in exports of older versions.
        tfidf_threshold: of the TF-IDF baseline, chosen on the same pairs; None likewise.
        densities: of duplicates, near misses and strangers in the validation table, or in a corpus that the verdict
            was fitted to; None in models of older versions, and if cosines do not decide.
        shortened: number of leading numbers of a vector -> the verdict on vectors cut to these; the full length is not
            among them. See `models.shortened.verdict_at`.
        labelled: whether `pair` was fitted to the user's labelled pairs; that of a ready model was fitted to the
            bundled pairs, and is only the starting point of a fit to labels.
    """

    pair: PairSetting
    score: ScoreKind = "cosine"
    symmetric: bool = True
    reference: Reference | None = None
    tfidf_threshold: float | None = None
    densities: Densities | None = None
    shortened: Mapping[int, Verdict] = field(default_factory=dict)
    labelled: bool = True

    def corpus(self, counts: ScoreCounts | int) -> Setting:
        """What scores mean among all pairs of a corpus; its threshold is the estimate's `default_threshold`.

        Args:
            counts: the scores of the corpus, which say how it differs from the validation table; or only its number of
                questions, if the scores are unknown: then it is assumed to be like the validation table.

        A verdict without densities gives the setting for pairs, which does not hold in a corpus, and logs a warning.
        """
        if self.densities is None:
            log.warning(NO_DENSITIES)
            return self.pair
        if isinstance(counts, int):
            estimate = metrics.like_validation(self.densities, counts)
        else:
            estimate = metrics.estimate_corpus(self.densities, counts)
        return CorpusSetting(estimate.default_threshold(), estimate)

    def search(self, counts: ScoreCounts | int) -> Setting:
        """What scores mean for the hits of a search among n questions; `counts` as in `corpus`.

        A nearest neighbour of a question is more likely right than another pair with the same score. A hit is called a
        duplicate if that is more likely than not.
        """
        setting = self.corpus(counts)
        return setting.for_hits() if isinstance(setting, CorpusSetting) else setting

    def require_labelled(self, where: object, otherwise: str = "") -> None:
        """Raises UserError if there is no threshold for given pairs.

        Args:
            where: names the model.
            otherwise: what to do instead.
        """
        if not self.labelled:
            raise UserError(
                f"{where}: has no threshold for pairs, since it was not fitted to labelled pairs; train on such pairs "
                "with qpairs train, or fit a threshold to them: "
                + shown_command("qpairs", "calibrate", where, "--data", "PAIRS", "--output", "FOLDER")
                + otherwise
            )

    def require_cosine(self, where: object) -> None:
        """Raises UserError if the verdict of a model does not work on cosines; `where` names the model."""
        if self.score == "head":
            raise UserError(f"{where}: its verdict needs the score of a head, not a cosine; train with --score cosine")
        if self.score != "cosine":
            raise UserError(
                f"{where}: its verdict is read from {score_names(self.score)} of a cross-encoder, not from cosines; "
                "name an encoder, or both combined by qpairs combine"
            )


def fit_verdict(
    scores: NDArray[np.float32],
    labels: NDArray[np.int8],
    tfidf_threshold: float | None,
    *,
    score: ScoreKind = "cosine",
    symmetric: bool = True,
    prior: PairSetting | None = None,
    densities: Densities | None = None,
) -> Verdict:
    """The verdict fitted to labelled pairs.

    Args:
        scores: (n,) scores of the pairs.
        labels: (n,) 1 duplicate, 0 not; both occur.
        tfidf_threshold: of the TF-IDF baseline on the same pairs; None if unknown.
        score: what the scores are.
        symmetric: whether the sides of a pair may be swapped.
        prior: an earlier setting, which threshold and calibration shrink towards when the pairs are few.
        densities: for the setting of a corpus.
    """
    setting = PairSetting(
        metrics.fit_threshold(scores, labels, prior.threshold if prior else None),
        metrics.fit_calibration(scores, labels, prior.calibration if prior else None),
        metrics.operating_points(scores, labels),
    )
    return Verdict(
        setting, score, symmetric, Reference(metrics.quantiles(scores), len(scores)), tfidf_threshold, densities
    )
