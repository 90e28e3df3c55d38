"""A second look: what the logit of a cross-encoder adds to the log odds that a cosine gives.

A first model gives each pair a score, and a setting turns it into log odds. The cross-encoder's logit is further
evidence on the same pair; its gain is a log likelihood ratio, which does not depend on how frequent duplicates are
(Good, 1950, Probability and the Weighing of Evidence). So it is fitted once, on labelled pairs, and added wherever the
first score is read: among labelled pairs, in a corpus, and to the hits of a search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.calibration import fit_logistic
from qpairs.metrics.corpus import DESIGN_EFFECT
from qpairs.metrics.densities import factors_of
from qpairs.metrics.inputs import Floats, as_labelled
from qpairs.metrics.logistic import expit

NOWHERE = 2.0  # above all first scores
CERTAIN = 0.99  # share of the pairs of like score whose gain stays within the bounds, on either side
GRID = np.linspace(-1.0, 1.0, 2001)  # first scores: cosines, or the probabilities of a head
ENOUGH = 100  # pairs from which a quantile of 99 % is read; the spread is read in as many parts as have these, up to 4


@dataclass(frozen=True)
class SecondLook:
    """The gain in log odds that a second score brings, linear in both scores: fitted by `fit_second_look`.

    Attributes:
        intercept, first, second: gain = intercept + first * first score + second * second score.
        lowest, highest: the gain that 99 % of the pairs with a first score x exceed, or stay below: (a, b) of a + b x.
        factors: uncertainty of the three weights: factors.T @ factors is their covariance; none where it is not known.

    >>> look = SecondLook(-1.0, 0.0, 2.0, (-3.0, 0.0), (3.0, 0.0))
    >>> look.gain(0.5, 1.5).tolist()
    2.0
    """

    intercept: float
    first: float
    second: float
    lowest: tuple[float, float]
    highest: tuple[float, float]
    factors: tuple[tuple[float, float, float], ...] = ()

    def gain(self, first: ArrayLike, second: ArrayLike) -> Floats:
        """What is added to the log odds of the first scores, in their shape; 0 where the second score is NaN.

        >>> SecondLook(-1.0, 0.0, 2.0, (-3.0, 0.0), (3.0, 0.0)).gain([0.5, 0.5], [1.0, np.nan]).tolist()
        [1.0, 0.0]
        """
        seen = np.asarray(second, dtype=np.float64)
        gain = self.intercept + self.first * np.asarray(first, dtype=np.float64) + self.second * seen
        return np.where(np.isnan(seen), 0.0, gain)

    def spread(self, first: ArrayLike, second: ArrayLike) -> Floats:
        """(k, m) independent parts of the uncertainty of the gains of m pairs; 0 where the second score is NaN.

        The variance of a gain is the sum of the squares of its column.

        >>> look = SecondLook(-1.0, 0.0, 2.0, (-3.0, 0.0), (3.0, 0.0))
        >>> look.spread([0.5], [1.5]).shape
        (0, 1)
        """
        one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        design = np.stack([np.ones_like(one), one, np.nan_to_num(other)]) * ~np.isnan(other)
        return np.asarray(np.array(self.factors).reshape(-1, 3) @ design)

    def bounds(self, first: ArrayLike) -> tuple[Floats, Floats]:
        """The lowest and the highest gain to be expected at first scores, with 99 % confidence each.

        >>> look = SecondLook(-1.0, 0.0, 2.0, (-3.0, 0.0), (3.0, 0.0))
        >>> [bound.tolist() for bound in look.bounds([0.5])]
        [[-3.0], [3.0]]
        """
        x = np.asarray(first, dtype=np.float64)
        low, high = (a + b * x for a, b in (self.lowest, self.highest))
        return np.minimum(low, 0.0), np.maximum(high, 0.0)

    def band(
        self, log_odds: Callable[[Floats], Floats], least: float, most: float | None = None
    ) -> tuple[float, float]:
        """The first scores between which a second look may change the decision, both included.

        Below the band, log odds stay under `least` even with the highest gain; above it, they reach `most` even with
        the lowest one, with 99 % confidence.

        Args:
            log_odds: of first scores, in a setting; rising.
            least: log odds at or above which a pair is called a duplicate.
            most: the same, where decisions at several thresholds are of interest; None: `least`.

        Returns:
            (2.0, 2.0), above all scores, where no second look can change anything.

        >>> look = SecondLook(-1.0, 0.0, 2.0, (-3.0, 0.0), (3.0, 0.0))
        >>> low, high = look.band(lambda x: 10 * np.asarray(x) - 5, 0.0)
        >>> round(low, 2), round(high, 2)
        (0.2, 0.8)
        """
        low, high = self.bounds(GRID)
        base = log_odds(GRID)
        may = (base + high >= least) & (base + low < (least if most is None else most)) & (low < high)
        if not may.any():
            return NOWHERE, NOWHERE
        places = np.flatnonzero(may)
        return float(GRID[places[0]]), float(GRID[places[-1]])

    def reach(self, log_odds: Callable[[Floats], Floats], least: float) -> float:
        """The lowest first score at which pairs may reach log odds of `least`, with 99 % confidence.

        Args:
            log_odds: of first scores, in a setting; rising.
            least: log odds.

        Returns:
            2.0, above all scores, where none may.

        >>> look = SecondLook(-1.0, 0.0, 2.0, (-3.0, 0.0), (3.0, 0.0))
        >>> round(look.reach(lambda x: 10 * np.asarray(x) - 5, 0.0), 2)
        0.2
        """
        may = np.flatnonzero(log_odds(GRID) + self.bounds(GRID)[1] >= least)
        return float(GRID[may[0]]) if len(may) else NOWHERE


NO_LOOK = SecondLook(0.0, 0.0, 0.0, (0.0, 0.0), (0.0, 0.0))  # adds nothing, so that no pair is worth reading


def fit_second_look(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, log_odds: Callable[[Floats], Floats]
) -> SecondLook:
    """The gain of second scores over first ones, by logistic regression of the labels with an offset.

    The offset is the log odds that the first scores have already, so that the rest is what the second look adds. Where
    pairs of a higher second score are less likely duplicates, second scores are no evidence: the gain is 0 everywhere.

    Args:
        first: (n,) first scores of labelled pairs.
        second: (n,) their second scores, all known.
        labels: (n,) 0 or 1; both occur.
        log_odds: of first scores, among these pairs.

    Raises:
        ValueError: a score is not finite, or the three are not of one length, or one label does not occur.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.random(4000) < 0.5
    >>> first, second = (labels + rng.normal(0, 1, 4000) for _ in range(2))  # each has log odds score - 0.5
    >>> look = fit_second_look(first, second, labels, lambda x: x - 0.5)
    >>> bool(abs(look.second - 1) < 0.15), bool(abs(look.first) < 0.15)
    (True, True)
    """
    one, duplicate = as_labelled(first, labels)
    other, _ = as_labelled(second, labels, what="second scores")
    design = np.stack([np.ones_like(one), one, other], axis=1)
    same = int(duplicate.sum())
    targets = np.where(duplicate, (same + 1) / (same + 2), 1 / (len(one) - same + 2))  # Platt (1999): finite weights
    weights = fit_logistic(design, targets, np.ones_like(one), log_odds(one))
    intercept, of_first, of_second = weights.tolist()
    if of_second <= 0:
        return NO_LOOK
    gain = design @ weights
    lowest, highest = (_quantile_line(one, gain, share) for share in (1 - CERTAIN, CERTAIN))
    return SecondLook(intercept, of_first, of_second, lowest, highest, _factors(design, gain + log_odds(one)))


def _factors(design: Floats, log_odds: Floats) -> tuple[tuple[float, float, float], ...]:
    """The uncertainty of weights fitted to rows of a design (n, 3), as in `SecondLook`: the inverse of the information.

    Pairs of one component are right and wrong together, which widens it by `DESIGN_EFFECT`.
    """
    weight = expit(log_odds) * expit(-log_odds)
    information = design.T @ (weight[:, None] * design) / DESIGN_EFFECT
    rows = factors_of(np.linalg.pinv(information, hermitian=True))
    return tuple((float(a), float(b), float(c)) for a, b, c in rows)


def _quantile_line(x: Floats, y: Floats, share: float) -> tuple[float, float]:
    """(a, b) such that a + b x lies above this share of the y: least squares, moved by the quantile of its residuals.

    The spread of the residuals may differ along x, so the quantile is the most extreme of those of up to four parts.
    """
    slope, intercept = np.polyfit(x, y, 1) if np.ptp(x) > 0 else (0.0, float(y.mean()))
    residual = (y - (intercept + slope * x))[np.argsort(x, kind="stable")]
    parts = np.array_split(residual, max(1, min(4, len(x) // ENOUGH)))
    quantiles = [np.quantile(part, share) for part in parts]
    return float(intercept + (max(quantiles) if share > 0.5 else min(quantiles))), float(slope)
