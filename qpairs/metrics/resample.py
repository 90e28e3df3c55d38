"""F1 and average precision of several runs on the same pairs, resampled together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs.metrics.inputs import Floats, as_labelled, as_labels, ratio
from qpairs.metrics.intervals import taken_apart
from qpairs.metrics.ranking import area_under_cuts


def group_weights(groups: ArrayLike, samples: int, seed: int) -> NDArray[np.int64]:
    """(1 + samples, n) how often each pair is in a resample of whole groups; the first row is all pairs once.

    Args:
        groups: (n,) integers, the component of each pair.
        samples: number of resamples; whole groups, `taken_apart`, are drawn with replacement, as many as there are.
        seed: of the draws.

    >>> group_weights([0, 0, 1], samples=2, seed=0)[0].tolist()
    [1, 1, 1]
    """
    names, index = np.unique(taken_apart(groups), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), samples)
    return np.concatenate([np.ones((1, len(index)), np.int64), drawn[:, index]])


def resampled_f1(decisions: Sequence[ArrayLike], labels: ArrayLike, weights: NDArray[np.int64]) -> Floats:
    """(samples, runs) F1 of the decisions (n,) of each run, where pairs count as often as `weights` (samples, n) say.

    >>> resampled_f1([[1, 1, 0]], [1, 0, 1], np.array([[1, 1, 1], [2, 0, 0]])).ravel().tolist()
    [0.5, 1.0]
    """
    duplicate, called = as_labels(labels), np.stack([np.asarray(run, dtype=bool) for run in decisions])  # (runs, n)
    factors = weights.astype(np.float64)
    tp, all_called = factors @ (called & duplicate).T, factors @ called.T  # (samples, runs)
    return ratio(2 * tp, all_called + (factors @ duplicate)[:, None])


def resampled_average_precision(scores: Sequence[ArrayLike], labels: ArrayLike, weights: NDArray[np.int64]) -> Floats:
    """(samples, runs) average precision of the scores (n,) of each run; `weights` as in `resampled_f1`.

    >>> resampled_average_precision([[0.9, 0.5, 0.1]], [1, 0, 1], np.array([[1, 1, 1], [2, 0, 0]])).ravel().round(3)
    array([0.833, 1.   ])
    """
    found = np.empty((len(weights), len(scores)))
    for run, given in enumerate(scores):
        values, duplicate = as_labelled(given, labels)
        order = np.argsort(-values, kind="stable")
        last = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))  # equal scores are never separated
        for sample, drawn in enumerate(weights[:, order]):
            tp = np.cumsum(drawn * duplicate[order])[last]
            found[sample, run] = area_under_cuts(tp, np.cumsum(drawn)[last], int(tp[-1]))
    return found
