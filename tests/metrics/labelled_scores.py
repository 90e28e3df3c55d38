"""Labelled scores drawn at random, for the tests of this folder."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
REPEATABLE = settings(deadline=None, derandomize=True, max_examples=60)


@st.composite
def judged(draw: st.DrawFn, max_size: int = 40) -> tuple[Floats, Ints]:
    """Scores, many of them tied, and labels of both classes."""
    n = draw(st.integers(2, max_size))
    scores = draw(st.lists(st.integers(-8, 8), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)))
    return np.array(scores) / 8, np.array(labels)


def draw_pairs(rng: np.random.Generator, n: int, shift: float = 0.0, rate: float = 0.37) -> tuple[Floats, Ints]:
    """Cosine-like scores whose best threshold is about 0.76 + shift, and labels of both classes."""
    labels = (rng.random(n) < rate).astype(np.int64)
    labels[:2] = 0, 1
    return np.where(labels == 1, rng.normal(0.86, 0.08, n), rng.normal(0.66, 0.15, n)) + shift, labels
