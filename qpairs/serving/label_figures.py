"""What the labels of one choice say about the model: a figure with its interval, for growing numbers of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.data.pairs import pairs_from_texts
from qpairs.data.splits import question_components
from qpairs.serving.label_file import Row

Measure = Literal["precision", "F1"]

MIN_LABELS, MIN_OF_EACH = 10, 3  # for an interval of F1
MIN_CALLED = 5  # pairs that the model calls duplicates, for an interval of the precision


@dataclass(frozen=True)
class Figure:
    """A measure of the model at its threshold with its 95 % interval, from the first n labelled pairs."""

    n: int
    value: float
    low: float
    high: float


def f1_figures(rows: Sequence[Row], verdict: NDArray[np.bool_]) -> tuple[list[Figure], str]:
    """F1 after 10, 20, 40, ... labels and after all, with its interval by bootstrap over components.

    Args:
        rows: (n,) labelled pairs, oldest first.
        verdict: (n,) whether the model calls them duplicates.

    Returns:
        The figures, and what is needed for the first one, '' if there is one.
    """
    labels = [row.label for row in rows]
    pairs = pairs_from_texts([row.question1 for row in rows], [row.question2 for row in rows], labels)
    groups = question_components(pairs)[pairs.left]
    figures = []
    for n in _steps(len(rows)):
        duplicates = sum(labels[:n])
        if n < MIN_LABELS or min(duplicates, n - duplicates) < MIN_OF_EACH:
            continue
        low, high = metrics.bootstrap_interval(verdict[:n], labels[:n], groups[:n], 0.5)["f1"]
        figures.append(Figure(n, metrics.confusion(verdict[:n], labels[:n], 0.5).f1, low, high))
    missing = (
        f"F1 needs at least {MIN_LABELS} answers, {MIN_OF_EACH} of each kind; so far there are {len(rows)}: "
        f"{sum(labels)} the same, {len(rows) - sum(labels)} different"
    )
    return figures, "" if figures else missing


def precision_figures(rows: Sequence[Row], verdict: NDArray[np.bool_]) -> tuple[list[Figure], str]:
    """Precision over all pairs of the corpus after 10, 20, 40, ... labels of stratified pairs, and after all.

    Each pair counts with the number of pairs w that it stands for (`_weights`). The interval is that of Wilson (1927)
    for the effective number of pairs of equal weight: (sum of w)^2 / (sum of w (w - 1)). This is the effective size of
        Kish ("Survey Sampling", 1965), except for strata whose pairs are all labelled, which are known exactly.

    Args:
        rows: (n,) stratified pairs, oldest first.
        verdict: (n,) whether the model calls them duplicates.

    Returns:
        The figures, and what is needed for the first one, '' if there is one.

    >>> rows = [Row("a", "b", i % 2, "stratified", 0.01) for i in range(10)]
    >>> figures, missing = precision_figures(rows, np.ones(10, dtype=bool))
    >>> [figure.value for figure in figures]
    [0.5]
    """
    labels = np.array([row.label for row in rows], dtype=np.float64)
    probability = np.array([row.probability for row in rows])
    figures = []
    for n in _steps(len(rows)):
        called = verdict[:n]
        if n < MIN_LABELS or np.count_nonzero(called) < MIN_CALLED:
            continue
        weights = _weights(probability[:n])[called]
        total = weights.sum()
        precision = float(weights @ labels[:n][called] / total)
        low, high = _wilson(precision, float(total**2 / max(weights @ (weights - 1), 1e-12)))
        figures.append(Figure(n, precision, low, high))
    missing = (
        f"Precision needs at least {MIN_LABELS} answers to pairs of this kind, {MIN_CALLED} of them to pairs that the "
        f"model calls the same; so far there are {len(rows)} and {np.count_nonzero(verdict)}"
    )
    return figures, "" if figures else missing


def _weights(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) how many pairs of the corpus each labelled one stands for: 1 if its stratum has none left.

    `draw_pairs` draws equally often from each stratum that has pairs left. One draw takes a given pair with
    `probability`, so as many `draws` as there would be if no stratum ran out take it with `draws` times that, or for
    sure. Those that were not made have the share of the strata that ran out.
    """
    draws, used_up = float(len(probability)), np.zeros(len(probability), dtype=np.bool_)
    while (now := probability * draws > 1 + 1e-9).sum() > used_up.sum():
        used_up = now
        left = 1 - probability[used_up].sum()
        draws = float((~used_up).sum()) / max(left, 1e-12)
    return np.maximum(1 / (probability * draws), 1.0) if draws else np.ones(len(probability))


def _steps(n: int) -> list[int]:
    return [*(size for k in range(32) if (size := MIN_LABELS << k) < n), n]


def _wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share of n observations; n need not be whole."""
    middle, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = ((middle + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)
