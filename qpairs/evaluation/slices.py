"""Slices: the pairs of one kind, the decisions on them, and whether mistakes are significantly more frequent there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.data.pairs import Pairs
from qpairs.evaluation.predict import Predictions
from qpairs.evaluation.wording import KINDS, LENGTHS, OVERLAPS, Wording, band_of
from qpairs.metrics.inputs import BLOCK
from qpairs.metrics.intervals import Interval

MIN_PAIRS = 20  # of a slice of mistakes
FLIPS = 9_999  # of the signs in a test
LEAST_DEVIATION = 0.1  # of a flipped sum; less could only be by rounding, or where few groups are all there is
SIGNIFICANT = 0.05  # p value, corrected for the number of slices


@dataclass(frozen=True)
class Slice:
    """The decisions on the pairs of one kind."""

    kind: str
    name: str
    n: int
    duplicates: float
    f1: float
    precision: float
    recall: float


def slices(pairs: Pairs, scores: NDArray[np.float32], threshold: float) -> list[Slice]:
    """The decisions by words of the longer question, and by word overlap (Jaccard); empty slices are left out."""
    wordings = wordings_of(pairs, frozenset())
    lengths = [band_of(wording.length, LENGTHS) for wording in wordings]
    overlaps = [band_of(wording.overlap, OVERLAPS) for wording in wordings]
    result = []
    kinds = (("length", "", lengths, LENGTHS), ("overlap", "word overlap ", overlaps, OVERLAPS))
    for kind, title, found, bands in kinds:
        for _, _, band in bands:
            rows, name = np.array(found) == band, title + band
            if rows.any():
                c = metrics.confusion(scores[rows], pairs.labels[rows], threshold)
                duplicates = float(np.mean(pairs.labels[rows] == 1))
                result.append(Slice(kind, name, int(rows.sum()), duplicates, c.f1, c.precision, c.recall))
    return result


def wordings_of(pairs: Pairs, known: frozenset[str]) -> list[Wording]:
    """What the rules read of each pair; `known` words are those of `vocabulary`."""
    return [Wording(pairs.texts(row), known) for row in range(len(pairs))]


@dataclass(frozen=True)
class ErrorSlice:
    """The mistakes among the pairs of one kind and value.

    Attributes:
        kind: a key of `KINDS`.
        value: what its rule gave.
        rule: in words.
        n: pairs.
        errors: wrong decisions among them.
        f1: of the decisions.
        f1_interval: 95 %, by bootstrap over components.
        error_rate: errors / n.
        lift: error_rate over the error rate of all other pairs.
        p_value: of such a large difference of the error rates by chance.
        p_corrected: of such a large difference in any of the slices by chance.
    """

    kind: str
    value: str
    rule: str
    n: int
    errors: int
    f1: float
    f1_interval: Interval
    error_rate: float
    lift: float
    p_value: float
    p_corrected: float

    @property
    def name(self) -> str:
        """Kind and value."""
        return f"{self.kind}: {self.value}"

    @property
    def worse(self) -> bool:
        """Whether mistakes are significantly more frequent here than elsewhere."""
        return self.lift > 1 and self.p_corrected < SIGNIFICANT


def error_slices(
    pairs: Pairs,
    predictions: Predictions,
    wordings: Sequence[Wording],
    groups: NDArray[np.int64],
    *,
    seed: int = 0,
) -> tuple[list[ErrorSlice], NDArray[np.bool_]]:
    """The slices of at least `MIN_PAIRS` pairs: first those with significantly more mistakes, then by falling lift.

    Args:
        pairs: labelled pairs.
        predictions: of a model on them.
        wordings: (n,) from `wordings_of`.
        groups: (n,) component of each pair.
        seed: of the bootstrap and of the test.

    Returns:
        The slices, and their pairs as (slices, n) bool.
    """
    keys, members = _members(wordings)
    wrong = predictions.duplicate != (pairs.labels == 1)
    p_values = zip(*sign_flip_test(wrong, members, groups, seed=seed), strict=True)
    found = []
    for (kind, value), rows, (p_value, p_corrected) in zip(keys, members, p_values, strict=True):
        decided, labels = predictions.duplicate[rows], pairs.labels[rows]
        rate, elsewhere = float(wrong[rows].mean()), float(wrong[~rows].mean()) if not rows.all() else 0.0
        found.append(
            ErrorSlice(
                kind=kind,
                value=value,
                rule=KINDS[kind].rule,
                n=int(rows.sum()),
                errors=int(wrong[rows].sum()),
                f1=metrics.confusion(decided, labels, 0.5).f1,
                f1_interval=metrics.bootstrap_interval(decided, labels, groups[rows], 0.5, seed=seed)["f1"],
                error_rate=rate,
                lift=rate / elsewhere if elsewhere else float("inf") if rate and not rows.all() else 1.0,
                p_value=float(p_value),
                p_corrected=float(p_corrected),
            )
        )
    order = sorted(range(len(found)), key=lambda i: (not found[i].worse, -found[i].lift))
    return [found[i] for i in order], members[order]


def _members(wordings: Sequence[Wording]) -> tuple[list[tuple[str, str]], NDArray[np.bool_]]:
    """Kind and value of each slice of at least `MIN_PAIRS` pairs, and its pairs: (slices, n) bool."""
    found: dict[tuple[str, str], list[int]] = {}
    for row, wording in enumerate(wordings):
        for name, kind in KINDS.items():
            if value := kind.value(wording):
                found.setdefault((name, value), []).append(row)
    keys = [key for key, rows in found.items() if len(rows) >= MIN_PAIRS]
    members = np.zeros((len(keys), len(wordings)), dtype=np.bool_)
    for member, key in zip(members, keys, strict=True):
        member[found[key]] = True
    return keys, members


def sign_flip_test(
    wrong: NDArray[np.bool_],
    members: NDArray[np.bool_],
    groups: NDArray[np.int64],
    *,
    flips: int = FLIPS,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P values of each slice: are mistakes independent of the slice, if pairs of a group are dependent?

    If it is, the contribution of each group to their covariance is as likely positive as negative, so the signs of
    the groups are flipped at random (Hemerik, Goeman and Finos, 2020, for the model with only an intercept). The
    corrected p value compares with the largest statistic of all slices under the same flips (Westfall and Young,
    1993), which accounts for slices that overlap. A group with more than half of the pairs is taken apart
    (`metrics.taken_apart`): a single sign would not be informative. Flipped sums are divided by their standard
    deviation (De Santis et al. 2022), since the mean, from which all contributions are measured, depends on a large
    group.

    Args:
        wrong: (n,) wrong decisions.
        members: (slices, n) the pairs of each slice.
        groups: (n,) component of each pair.
        flips: of all signs; the least p value is 1 / (flips + 1).
        seed: of the flips.

    Returns:
        p value (slices,), and p value corrected for their number (slices,).
    """
    if not len(members):
        return np.empty(0), np.empty(0)
    index = np.unique(metrics.taken_apart(groups), return_inverse=True)[1]
    centred = wrong - wrong.mean()
    parts = np.stack([np.bincount(index, (rows - rows.mean()) * centred) for rows in members], 1)  # (groups, slices)
    spread = np.sqrt((parts**2).sum(0))  # (slices,), the same under every flip
    parts = np.divide(parts, spread, out=np.zeros_like(parts), where=spread > 1e-12)
    inside = np.stack([np.bincount(index, rows - rows.mean()) for rows in members], 1).astype(np.float64)
    statistic = np.abs(parts.sum(0)) - 1e-9  # (slices,)
    exceeded, exceeded_by_largest = np.ones(len(members)), np.ones(len(members))
    random = np.random.default_rng(seed)
    block = max(1, BLOCK // len(parts))
    for start in range(0, flips, block):
        drawn = random.choice(np.array([-1, 1], dtype=np.int8), (min(block, flips - start), len(parts)))
        signs = drawn.astype(np.float32)
        flipped = np.abs(signs @ parts) / _deviation(signs, inside, np.bincount(index))  # (flips, slices)
        exceeded += (flipped >= statistic).sum(0)
        exceeded_by_largest += (flipped.max(1, keepdims=True) >= statistic).sum(0)
    return exceeded / (flips + 1), exceeded_by_largest / (flips + 1)


def _deviation(
    signs: NDArray[np.float32], inside: NDArray[np.float64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(flips, slices) standard deviation of flipped sums, where that without flips is 1; not below `LEAST_DEVIATION`.

    Args:
        signs: (flips, groups) 1 or -1.
        inside: (groups, slices) pairs of each group in a slice, less those that its share of all pairs would be.
        sizes: (groups,) pairs of each.
    """
    n, unflipped = sizes.sum(), (inside**2).sum(0)
    sums, leaning = signs @ inside, signs @ (inside * sizes[:, None])
    variance = unflipped - 2 * sums / n * leaning + (sums / n) ** 2 * (sizes**2).sum()
    share = np.divide(variance, unflipped, out=np.ones_like(variance), where=unflipped > 1e-9)
    deviation: NDArray[np.float64] = np.sqrt(share.clip(LEAST_DEVIATION**2))
    return deviation
