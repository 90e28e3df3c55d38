"""Subsets of a data set, drawn by whole components of its question graph, so that a subset is like the whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpairs.data.pairs import Pairs
from qpairs.data.splits import duplicate_components, question_components

LARGE = 0.05  # share of the pairs from which a component is drawn in pieces


def component_order(pairs: Pairs, seed: int) -> NDArray[np.int64]:
    """(n_pairs,) the rows, component by component in an order drawn from `seed`.

    The first n rows are a subset of n pairs, and each larger one holds the smaller ones. At most one component is cut,
    at the end of a subset. A component with more than a twentieth of all pairs would be a subset by itself: it is drawn
    in pieces, the duplicate components of the first questions of its pairs.

    >>> from qpairs.data.pairs import pairs_from_texts
    >>> pairs = pairs_from_texts(["a", "c", "a", "d"], ["b", "d", "e", "f"], [1, 0, 0, 1])
    >>> rows = component_order(pairs, seed=0).tolist()
    >>> sorted(map(sorted, (rows[:2], rows[2:])))  # a, b and e are one component; c, d and f the other
    [[0, 2], [1, 3]]
    """
    component = question_components(pairs)[pairs.left]  # (n_pairs,)
    sizes = np.bincount(component, minlength=1)
    pieces = duplicate_components(pairs)[pairs.left] + len(sizes)
    units = np.unique(np.where(sizes[component] > max(LARGE * len(pairs), 2), pieces, component), return_inverse=True)[
        1
    ]
    place = np.random.default_rng(seed).permutation(int(units.max(initial=-1)) + 1)
    return np.argsort(place[units], kind="stable")
