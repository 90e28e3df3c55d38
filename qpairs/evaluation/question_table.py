"""All pairs of the questions of labelled pairs: their score counts, what is known about them, and their densities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.data.pairs import Pairs
from qpairs.data.splits import duplicate_components, question_components
from qpairs.metrics import Densities, ScoreCounts
from qpairs.metrics.score_counts import QUERIES
from qpairs.models.base import Floats, Tables


def symmetric_tables(tables: Tables) -> Tables:
    """Tables (n, d) whose products with each other are the scores of pairs in either order."""
    rows, columns = tables
    if columns is rows:
        return tables
    both, swapped = (np.concatenate(sides, axis=1) / np.float32(np.sqrt(2)) for sides in (tables, tables[::-1]))
    return both, swapped


def table_counts(tables: Tables) -> ScoreCounts:
    """The scores of all pairs of a question table, from `Model.embed_tables`."""
    rows, columns = symmetric_tables(tables)
    return metrics.count_scores(rows, others=columns)


def scores_of(tables: Tables, left: NDArray[np.int64], right: NDArray[np.int64], block: int = 65_536) -> Floats:
    """Scores (m,) of pairs of rows of a question table."""
    rows, columns = symmetric_tables(tables)
    found = [
        np.einsum("ij,ij->i", rows[left[start : start + block]], columns[right[start : start + block]])
        for start in range(0, len(left), block)
    ]
    return np.concatenate(found).clip(-1, 1) if found else np.empty(0, np.float32)


def table_densities(pairs: Pairs, tables: Tables, *, symmetric: bool = True, seed: int = 0) -> Densities | None:
    """The densities of duplicates, near misses and strangers among all pairs of the questions of labelled pairs.

    What the labels imply is used: two questions that are joined by duplicates are one; two such groups with a pair that
    is labelled different are different as a whole. See `metrics.fit_densities` for the other pairs.

    Args:
        pairs: labelled pairs.
        tables: embeddings of their questions, from `score_pairs`.
        symmetric: whether the sides of a pair may be swapped.
        seed: of the bootstrap over components.

    Returns:
        None if there are none: sides of different kinds, or pairs with only one label.
    """
    different = pairs.labels == 0
    if not symmetric or not different.any() or different.all():
        return None
    component, cluster = question_components(pairs), duplicate_components(pairs)
    left, right, kinds = metrics.known_pairs(cluster, component, (pairs.left[different], pairs.right[different]))
    if not (kinds == 0).any():
        return None
    scores = scores_of(tables, left, right)
    hits = _directions_among_hits(tables, left, right, scores, seed)
    return metrics.fit_densities(table_counts(tables), scores, kinds, component[left], hits, seed=seed)


def _directions_among_hits(
    tables: Tables, left: NDArray[np.int64], right: NDArray[np.int64], scores: Floats, seed: int
) -> NDArray[np.float64]:
    """(m,) share of the two directions in which a pair is among the 10 nearest of its first question.

    Only as many questions are used as `metrics.count_scores` compares; pairs of other questions get the mean share.
    """
    rows, columns = symmetric_tables(tables)
    asked = np.unique(np.concatenate([left, right]))
    if len(asked) > QUERIES:
        asked = np.sort(np.random.default_rng(seed).choice(asked, QUERIES, replace=False))
    limit = np.full(len(rows), np.nan, dtype=np.float32)
    limit[asked] = metrics.furthest_hits(rows, asked, columns)
    found = np.stack([np.where(np.isnan(limit[side]), np.nan, scores >= limit[side] - 1e-6) for side in (left, right)])
    known = ~np.isnan(found)
    share = np.where(known, found, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    mean = float(found[known].mean()) if known.any() else 0.0
    return np.asarray(np.where(known.any(axis=0), share, mean))
