"""The main directions of vectors: those along which they are longest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def main_directions(vectors: NDArray[np.floating], k: int) -> NDArray[np.float64]:
    """The first `k` right singular vectors, the main direction first; projection on them preserves dot products best.

    No other `k` directions preserve the dot products better (Eckart and Young 1936); for centred vectors they are the
    principal axes. The sign is chosen so that the largest number is positive: the same on all machines.

    Args:
        vectors: (n, d).
        k: number of directions; all d if there are fewer.

    Returns:
        (d, k) orthonormal columns.

    >>> main_directions(np.array([[0.0, -3.0], [1.0, 0.0]]), 1).tolist()
    [[0.0], [1.0]]
    """
    wide = vectors.astype(np.float64)
    _, ascending = np.linalg.eigh(wide.T @ wide)
    first = ascending[:, ::-1][:, :k]
    signs: NDArray[np.float64] = np.sign(first[np.abs(first).argmax(axis=0), np.arange(first.shape[1])])
    return first * signs
