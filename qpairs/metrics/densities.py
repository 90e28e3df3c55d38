"""The densities that a verdict for a corpus is based on, from a question table with known duplicates.

Three kinds of pairs: duplicates, near misses (not the same, but about the same subject), and strangers. Duplicates and
near misses of a corpus grow with its questions, strangers with the square of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs.metrics.calibration import Calibration
from qpairs.metrics.inputs import Floats, Ints
from qpairs.metrics.logistic import expit, logit
from qpairs.metrics.score_counts import EDGES, ScoreCounts, histogram, smoothed

HIGHEST_LOW = 0.95  # so that the bins are not thinner than the counts
BINS = 64  # from the lowest score that matters to 1
RESAMPLES = 200  # of the components
FACTORS = 10  # that are kept of the uncertainty
LOCAL, LENGTH = 0.8, 0.2  # of what differs between corpora: the local part beside the constant one, and its length
DOMAIN_SD = 0.5  # of the log odds of a duplicate, between corpora; benchmarks/corpus_verdict.py finds 0.4
LARGE = 200  # questions of a component from which on its unlabelled pairs count as strangers
DEGREE = 4  # of the log density of strangers


@dataclass(frozen=True)
class Densities:
    """Scores of duplicates, near misses and strangers in a table of n questions.

    Attributes:
        n: questions of the table.
        low: the lowest score that is binned; the bins divide the range above it evenly.
        duplicates: (bins,) expected pairs of duplicates in each bin.
        below: pairs of duplicates that score lower than `low`.
        near: (bins,) pairs of near misses in each bin; of a corpus that was fitted, less than 0 where there are fewer
            strangers than their density says.
        strangers: coefficients of the log density of strangers, per pair and bin: a polynomial of x, the place in the
            range from 0 to 1, lowest degree first.
        factors: (k, bins) the uncertainty of the log odds of a duplicate in each bin, as independent parts of
            standard deviation 1.
        domain_sd: standard deviation of these log odds between corpora.
        hit_gain: (bins,) log odds by which a duplicate is among the 10 nearest of its question more often than any
            pair of its score is, which may lie in a dense place; empty where that is not known.
        own: whether they are of a corpus that the verdict was fitted to, and not of a table of validation.
        labels: pairs of that corpus that a person labelled.
        borrowed: whether the duplicates and near misses are those of other questions than the model's validation, as
            for a ready model, of which no labelled pair is known.

    >>> densities.n, round(densities.per_question, 1)
    (338, 0.4)
    """

    n: int
    low: float
    duplicates: tuple[float, ...]
    below: float
    near: tuple[float, ...]
    strangers: tuple[float, ...]
    factors: tuple[tuple[float, ...], ...]
    domain_sd: float = DOMAIN_SD
    hit_gain: tuple[float, ...] = ()
    own: bool = False
    labels: int = 0
    borrowed: bool = False

    @property
    def edges(self) -> Floats:
        """(bins + 1,) limits of the bins."""
        return bin_edges(self.low, len(self.duplicates))

    @property
    def per_question(self) -> float:
        """Pairs of duplicates for each question."""
        return (sum(self.duplicates) + self.below) / self.n

    def stranger_density(self, tilt: Floats | None = None) -> Floats:
        """(bins,) share of all stranger pairs in each bin; `tilt` (3,) is added to the first coefficients.

        >>> len(densities.stranger_density()) == len(densities.duplicates)
        True
        """
        bins, coefficients = len(self.duplicates), np.array(self.strangers)
        said = self.n * (self.n - 1) / 2 * log_density(coefficients, bins)
        fewer = np.clip(1 + np.minimum(self.near, 0.0) / np.maximum(said, 1e-300), 0.0, 1.0)
        if tilt is not None:
            coefficients[: len(tilt)] += tilt
        return np.asarray(fewer * log_density(coefficients, bins))

    @property
    def near_misses(self) -> Floats:
        """(bins,) pairs of near misses in each bin.

        >>> bool((densities.near_misses >= 0).all())
        True
        """
        return np.maximum(self.near, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        >>> Densities.from_dict(densities.to_dict()) == densities
        True
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Densities:
        """The inverse of `to_dict`.

        >>> Densities.from_dict(densities.to_dict()).n == densities.n
        True
        """
        lists = {name: tuple(data.get(name, ())) for name in ("duplicates", "near", "strangers", "hit_gain")}
        return cls(**{**data, **lists, "factors": tuple(tuple(row) for row in data["factors"])})


def bin_edges(low: float, bins: int = BINS) -> Floats:
    """(bins + 1,) limits of even bins from `low` to 1."""
    return np.linspace(low, 1.0, bins + 1)


def log_density(coefficients: Floats, bins: int) -> Floats:
    """(bins,) exp of a polynomial of the place of each bin in the range, 0 to 1, never overflowing."""
    place = (np.arange(bins) + 0.5) / bins
    return np.asarray(np.exp(np.clip(np.polynomial.polynomial.polyval(place, coefficients), -60.0, 2.0)))


def fit_densities(
    counts: ScoreCounts,
    scores: NDArray[np.floating],
    kinds: NDArray[np.int8],
    groups: Ints,
    hits: NDArray[np.floating] | None = None,
    *,
    seed: int = 0,
) -> Densities:
    """The densities of a table of questions.

    Pairs of different components count as strangers. Where labels are incomplete, the unlabelled pairs of a component
    are divided between duplicates and near misses by the share of duplicates among its labelled pairs of like score.

    Args:
        counts: of all pairs of the table.
        scores: (m,) scores of the pairs within components.
        kinds: (m,) 1 duplicate, 0 near miss, -1 unknown; 1 and 0 occur.
        groups: (m,) component of each pair.
        hits: (m,) share of the two directions in which each pair is among the 10 nearest; None where it is not known.
        seed: of the bootstrap over components.

    >>> random = np.random.default_rng(0)
    >>> kinds = (np.arange(400) % 4 == 0).astype(np.int8)
    >>> scores = (0.5 + 0.3 * kinds + 0.1 * random.normal(size=400)).clip(-1, 1)
    >>> fitted = fit_densities(counts, scores, kinds, np.arange(400) // 10)
    >>> round(fitted.below + sum(fitted.duplicates))
    100
    """
    outside = counts.counts - histogram(scores)
    half = int(np.searchsorted(np.cumsum(outside), 0.5 * max(outside.sum(), 1e-9)))
    low = min(float(EDGES[half]), HIGHEST_LOW)
    edges = bin_edges(low)
    place = np.clip(np.searchsorted(edges, scores, "right") - 1, -1, BINS - 1)  # -1: below
    share = known_share(place, kinds)
    duplicate = np.where(kinds < 0, share, kinds == 1)
    names, group = np.unique(groups, return_inverse=True)
    cell = group * (BINS + 1) + place + 1
    shape = len(names), BINS + 1
    same, near = (
        np.bincount(cell, weight, shape[0] * shape[1]).reshape(shape).astype(np.float64)
        for weight in (duplicate, 1.0 - duplicate)
    )
    strangers = fit_tail(np.maximum(ScoreCounts(outside, counts.n).rebinned(edges), 0.0), max(outside.sum(), 1.0))
    totals = same.sum(axis=0), near.sum(axis=0)
    densities = Densities(
        n=counts.n,
        low=low,
        duplicates=_rounded(smoothed(totals[0][1:])),
        below=float(totals[0][0]),
        near=_rounded(smoothed(totals[1][1:])),
        strangers=_rounded(strangers, 6),
        factors=(),
    )
    background = outside.sum() * densities.stranger_density()
    gain = () if hits is None else _hit_gain(counts, edges, place[kinds == 1], np.asarray(hits)[kinds == 1])
    return replace(densities, factors=_bootstrap(same[:, 1:], near[:, 1:], background, seed), hit_gain=gain)


def _hit_gain(counts: ScoreCounts, edges: Floats, place: Ints, hits: NDArray[np.floating]) -> tuple[float, ...]:
    """(bins,) log odds by which duplicates are among the nearest more often than any pairs of their score.

    Those of a bin are shrunk, by two pairs, towards their mean over all bins.
    """
    inside = place >= 0
    number, found = (
        smoothed(np.bincount(place[inside], weights, len(edges) - 1).astype(np.float64), 2.0)
        for weights in (None, hits[inside])
    )
    if not number.any():
        return ()
    usual = logit(np.clip(counts.hit_share(edges), 0.01, 0.99))
    mean = np.average(logit(np.clip((found + 0.5) / (number + 1.0), 0.01, 0.99)) - usual, weights=number)
    share = (found + 2.0 * expit(usual + mean)) / (number + 2.0)
    return _rounded(logit(np.clip(share, 0.01, 0.99)) - usual)


def densities_of_pairs(quantiles: ArrayLike, n: int, calibration: Calibration, counts: ScoreCounts) -> Densities:
    """Densities for a model of which only the labelled pairs of validation are known, not their question table.

    The labelled pairs are taken to be the duplicates and near misses of as many questions, and the strangers to have
    the log density of the corpus' own scores where nearly all pairs are strangers, continued as a parabola. How the
    labelled pairs were chosen is not known, so the uncertainty is twice that of a table.

    Args:
        quantiles: of the scores of the labelled pairs, evenly spaced.
        n: labelled pairs.
        calibration: of the model, for labelled pairs.
        counts: of the corpus.

    >>> densities_of_pairs(np.linspace(0, 1, 101), 800, Calibration(10.0, -5.0), counts).n
    800
    """
    half = int(np.searchsorted(np.cumsum(counts.counts), 0.5 * counts.counts.sum()))
    low = min(float(EDGES[half]), HIGHEST_LOW)
    edges, scores = bin_edges(low), np.asarray(quantiles, dtype=np.float64)
    place = np.searchsorted(edges, scores, "right").clip(max=BINS)  # 0: below
    probability, weight = calibration.probability(scores), n / len(scores)
    same, near = (
        weight * np.bincount(place, share, BINS + 1).astype(np.float64) for share in (probability, 1 - probability)
    )
    own = counts.rebinned(edges)
    body = np.where(counts.at_or_above(edges[:-1]) > 2 * counts.n, own, 0.0)
    return Densities(
        n=n,
        low=low,
        duplicates=_rounded(smoothed(same[1:])),
        below=float(same[0]),
        near=_rounded(smoothed(near[1:])),
        strangers=_rounded(fit_tail(body, counts.n * (counts.n - 1) / 2, degree=2), 6),
        factors=(),
        domain_sd=2 * DOMAIN_SD,
    )


def moved_densities(densities: Densities, duplicates: NDArray[np.floating], strength: float = 10.0) -> Densities:
    """The densities where the scores lie elsewhere, as they do in another forum.

    All bins are stretched alike, a score of 1 staying where it is, so that the mean score of duplicates moves to that
    of the new ones; by less the fewer there are.

    Args:
        densities: of another table.
        duplicates: (m,) scores of new duplicates.
        strength: of the old mean, in pairs.

    >>> moved_densities(densities, np.full(50, 0.95)).per_question == densities.per_question
    True
    """
    weights, bins = np.array(densities.duplicates), len(densities.duplicates)
    place = float(np.average((np.arange(bins) + 0.5) / bins, weights=weights)) if weights.any() else 0.5
    inside = duplicates[duplicates >= densities.low]
    if not len(inside):
        return densities
    mean = densities.low + place * (1 - densities.low)
    move = (float(inside.mean()) - mean) * len(inside) / (len(inside) + strength)
    return replace(densities, low=min(max(densities.low + move / (1 - place), -1.0), HIGHEST_LOW))


def known_share(place: Ints, kinds: NDArray[np.int8]) -> Floats:
    """(m,) share of duplicates among the labelled pairs of like score, for each pair: a smoothed, rising curve."""
    known = kinds >= 0
    bins = np.bincount(place[known] + 1, minlength=BINS + 1), np.bincount(place[kinds == 1] + 1, minlength=BINS + 1)
    total, same = (smoothed(counts.astype(np.float64), 3.0) for counts in bins)
    overall = same.sum() / max(total.sum(), 1e-9)
    curve = rising((same + overall) / (total + 1.0), total + 1.0)
    return np.asarray(curve[place + 1])


def rising(values: Floats, weights: Floats) -> Floats:
    """The rising curve nearest to the values (n,), weighted: isotonic regression (Barlow et al., 1972)."""
    from scipy.optimize import isotonic_regression  # slow to import, and a prediction needs none of it

    return np.asarray(isotonic_regression(values, weights=np.maximum(weights, 1e-12)).x)


def fit_tail(counts: Floats, pairs: float, degree: int = DEGREE) -> Floats:
    """(DEGREE + 1,) coefficients of the log density of strangers, a polynomial of a degree.

    Least squares on the logarithm of the counts, each bin weighted by at most 400 pairs, so that the body does not
    outweigh the tail; the few pairs at the top, among them unlabelled duplicates, weigh little.
    """
    place = (np.arange(len(counts)) + 0.5) / len(counts)
    some = counts > 0
    weights = np.sqrt(np.minimum(counts[some], 400.0))
    degree = min(degree, max(int(some.sum()) - 1, 0))
    if not some.any():
        return np.array([-30.0] + [0.0] * DEGREE)
    design = np.vander(place[some], degree + 1, increasing=True)
    target = np.log(counts[some] / pairs)
    coefficients = np.linalg.lstsq(design * weights[:, None], target * weights, rcond=None)[0]
    return np.append(coefficients, np.zeros(DEGREE - degree))


def _bootstrap(same: Floats, near: Floats, background: Floats, seed: int) -> tuple[tuple[float, ...], ...]:
    """The uncertainty of the log odds of a duplicate over components (groups, bins) drawn with replacement."""
    rng, number = np.random.default_rng(seed), len(same)
    drawn = rng.multinomial(number, np.full(number, 1 / number), RESAMPLES).astype(np.float64)
    odds = np.stack(
        [
            np.log((smoothed(row) + 0.05) / (smoothed(other) + background + 0.05))
            for row, other in zip(drawn @ same, drawn @ near, strict=True)
        ]
    )
    return kept_factors((odds - odds.mean(axis=0)).T @ (odds - odds.mean(axis=0)) / RESAMPLES)


def between_corpora(sd: float, bins: int) -> Floats:
    """Covariance (bins, bins) of the log odds between corpora: a constant part, and one that changes with the score."""
    place = np.arange(bins) / bins
    local = np.exp(-0.5 * ((place[:, None] - place) / LENGTH) ** 2)
    return np.asarray(sd**2 * (1 + LOCAL**2 * local))


def factors_of(covariance: Floats) -> Floats:
    """(bins, bins) independent parts of a covariance (bins, bins), the greatest first: factors.T @ factors is it."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((np.sqrt(np.maximum(values, 0.0)) * vectors).T[::-1])


def kept_factors(covariance: Floats) -> tuple[tuple[float, ...], ...]:
    """The greatest of the factors of a covariance, as they are kept in files."""
    return tuple(_rounded(row) for row in factors_of(covariance)[:FACTORS])


def _rounded(values: Floats, digits: int = 4) -> tuple[float, ...]:
    return tuple(round(float(value), digits) for value in values)


def known_pairs(cluster: Ints, component: Ints, different: tuple[Ints, Ints]) -> tuple[Ints, Ints, NDArray[np.int8]]:
    """All pairs of questions within components, and what labels say of them.

    Two questions of one cluster are duplicates; two clusters with a pair that is labelled different are different as a
    whole; of the others nothing is known. Components of more than `LARGE` questions give their known pairs alone.

    Args:
        cluster: (n,) cluster of duplicates of each question.
        component: (n,) component of each question; a cluster lies within one.
        different: pairs of questions that are labelled different.

    Returns:
        (m,) left, (m,) right, (m,) kinds as in `fit_densities`.

    >>> nobody = np.empty(0, np.int64)
    >>> left, right, kinds = known_pairs(np.array([0, 0, 1]), np.array([0, 0, 0]), (nobody, nobody))
    >>> left.tolist(), right.tolist(), kinds.tolist()
    ([0, 0, 1], [1, 2, 2], [1, -1, -1])
    """
    one, other = different
    size = np.bincount(component)[component]
    alone = -1 - np.arange(len(component))  # each a group of its own
    sides = [pairs_within(cluster), pairs_within(np.where(size <= LARGE, component, alone)), (one, other)]
    left, right = (np.concatenate(column) for column in zip(*sides, strict=True))
    left, right = np.divmod(np.unique(_keys(left, right)), 2**32)
    pair, apart = _keys(cluster[left], cluster[right]), _keys(cluster[one], cluster[other])
    kinds = np.where(cluster[left] == cluster[right], 1, np.where(np.isin(pair, apart), 0, -1))
    return left, right, kinds.astype(np.int8)


def pairs_within(group: Ints) -> tuple[Ints, Ints]:
    """(m,) left and (m,) right of all pairs of rows whose groups (n,) are equal, left < right.

    >>> [side.tolist() for side in pairs_within(np.array([5, 7, 5, 5]))]
    [[0, 0, 2], [2, 3, 3]]
    """
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    sides = [[rows[side] for side in np.triu_indices(len(rows), 1)] for rows in members if len(rows) > 1]
    if not sides:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    left, right = (np.concatenate(column) for column in zip(*sides, strict=True))
    return left, right


def _keys(one: Ints, other: Ints) -> Ints:
    """(m,) one number for each unordered pair of numbers below 2^32."""
    return np.minimum(one, other) * 2**32 + np.maximum(one, other)
