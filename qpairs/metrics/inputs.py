"""Checks of what metrics are given; every function raises ValueError with one line that says what is wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BLOCK = 2**24  # numbers held in memory at once


def as_scores(values: ArrayLike, what: str = "scores") -> Floats:
    """The values as a float64 vector, if there are any and all are finite; `what` names them in messages."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what} must be one-dimensional, not of shape {array.shape}")
    if not array.size:
        raise ValueError(f"there are no {what}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} contain NaN or infinity, first at row {int(np.argmin(np.isfinite(array)))}")
    return array


def as_labels(labels: ArrayLike) -> Bools:
    """The labels as a boolean vector, if there are any and all are 0 or 1."""
    array = as_scores(labels, "labels")
    if wrong := set(array.tolist()) - {0.0, 1.0}:
        raise ValueError(f"labels must be 0 or 1, not {min(wrong):g}")
    return np.equal(array, 1)


def as_labelled(
    scores: ArrayLike, labels: ArrayLike, *, both: bool = True, what: str = "scores"
) -> tuple[Floats, Bools]:
    """Scores and labels as vectors of one length; with `both`, both classes must occur."""
    values, duplicate = as_scores(scores, what), as_labels(labels)
    if len(values) != len(duplicate):
        raise ValueError(f"{len(values)} {what} but {len(duplicate)} labels")
    if both and duplicate.all() == duplicate.any():
        raise ValueError(f"all {len(duplicate)} labels are {int(duplicate[0])}: both classes are needed")
    return values, duplicate


def ratio(part: ArrayLike, whole: ArrayLike) -> Floats:
    """The ratio part / whole, and 0 where whole is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    quotient: Floats = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return quotient
