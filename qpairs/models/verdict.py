"""The verdict: what turns the score of a pair into a decision and a probability. Saved with every model.

A score means different things in different places: among pairs that people hand over, a third are duplicates; among
all pairs of a corpus, hardly any. So a `Verdict` holds `Setting`s, one for each place where a score is read. Nothing
else compares a score with a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.metrics import Calibration, OperatingPoint

ScoreKind = Literal["cosine", "head"]


@dataclass(frozen=True)
class Reference:
    """The scores that a threshold was chosen on: 101 quantiles from the smallest to the largest, of n pairs."""

    quantiles: Sequence[float]
    n: int


@dataclass(frozen=True)
class Setting:
    """What scores mean in one place.

    Attributes:
        threshold: a pair is called a duplicate if and only if its score is at or above it.
        calibration: score to probability of being duplicates.
        operating_points: thresholds for a precision, rising; none in checkpoints of older versions.
    """

    threshold: float
    calibration: Calibration
    operating_points: Sequence[OperatingPoint] = ()

    def decide(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Whether pairs are called duplicates, in the shape of the scores.

        >>> Setting(0.5, Calibration(10.0, -5.0)).decide([0.4, 0.5])
        array([False,  True])
        """
        return metrics.decide(scores, self.threshold)

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of being duplicates, in the shape of the scores."""
        return self.calibration.probability(scores)

    def at(self, threshold: float) -> Setting:
        """The same setting with another threshold."""
        return replace(self, threshold=threshold)

    def at_precision(self, precision: float) -> Setting:
        """The setting with the lowest threshold that reached a precision on validation.

        It is that of the next operating point at or above the precision.

        Raises:
            UserError: no threshold did, or there are no operating points.
        """
        if not self.operating_points:
            raise UserError("precision: the model has no thresholds for a precision; qpairs calibrate makes them")
        best = self.operating_points[-1]
        if precision > best.precision:
            raise UserError(
                f"precision: no threshold reached precision {precision:g} on validation; the highest is "
                f"{best.precision:g}, with recall {best.recall:.2f}"
            )
        return self.at(next(point.threshold for point in self.operating_points if point.precision >= precision))


@dataclass(frozen=True)
class Verdict:
    """What turns the scores of a model into decisions.

    Attributes:
        pair: for two questions that a person hands over.
        score: what is read: the cosine of two vectors, or the probability that a head gives.
        symmetric: whether the sides of a pair may be swapped; two towers then score the mean of both directions.
        reference: the scores that `pair` was fitted to; None in exports of older versions.
        tfidf_threshold: of the TF-IDF baseline, chosen on the same pairs; None likewise.
    """

    pair: Setting
    score: ScoreKind = "cosine"
    symmetric: bool = True
    reference: Reference | None = None
    tfidf_threshold: float | None = None

    def require_cosine(self, where: object) -> None:
        """Raises UserError where the verdict of a model cannot be read from cosines; `where` names the model."""
        if self.score != "cosine":
            raise UserError(
                f"{where}: its verdict is that of a head, which cosines don't have; train with --score cosine"
            )


def fit_verdict(
    scores: NDArray[np.float32],
    labels: NDArray[np.int8],
    tfidf_threshold: float | None,
    *,
    score: ScoreKind = "cosine",
    symmetric: bool = True,
    prior: Setting | None = None,
) -> Verdict:
    """The verdict that labelled pairs give.

    Args:
        scores: (n,) scores of the pairs.
        labels: (n,) 1 duplicate, 0 not; both occur.
        tfidf_threshold: of the TF-IDF baseline on the same pairs; None where it is unknown.
        score: what the scores are.
        symmetric: whether the sides of a pair may be swapped.
        prior: an earlier setting, which threshold and calibration shrink towards when the pairs are few.
    """
    setting = Setting(
        metrics.fit_threshold(scores, labels, prior.threshold if prior else None),
        metrics.fit_calibration(scores, labels, prior.calibration if prior else None),
        metrics.operating_points(scores, labels),
    )
    return Verdict(setting, score, symmetric, Reference(metrics.quantiles(scores), len(scores)), tfidf_threshold)


def verdict_to_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values for JSON."""
    return asdict(verdict)


def verdict_from_dict(data: Mapping[str, Any]) -> Verdict:
    """The verdict in the JSON of a model; before format 2 its parts stood side by side in the file.

    Raises:
        KeyError, TypeError: a part is missing, or is not what it should be.
    """
    if "verdict" in data:
        stored = data["verdict"]
        score, symmetric, pair = stored["score"], stored["symmetric"], stored["pair"]
    else:
        options, stored = data.get("config", data), data
        score, symmetric, pair = options.get("score", "cosine"), options.get("symmetric", True), data
    reference, tfidf = stored.get("reference"), stored.get("tfidf_threshold")
    return Verdict(
        Setting(
            float(pair["threshold"]),
            Calibration(**pair["calibration"]),
            [OperatingPoint(**point) for point in pair.get("operating_points", ())],
        ),
        score,
        symmetric,
        reference and Reference(**reference),
        tfidf if tfidf is None else float(tfidf),
    )
