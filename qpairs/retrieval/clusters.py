"""Clusters of duplicates, each with the question that represents it."""

from __future__ import annotations

from qpairs import metrics
from qpairs.metrics.linkage import Linkage
from qpairs.retrieval.blocks import Ints
from qpairs.retrieval.matches import Matches

__all__ = ["Linkage", "clusters"]


def clusters(n: int, pairs: Matches, linkage: Linkage = "star") -> Ints:
    """(n,) the question that represents each of n questions, as `metrics.clusters` makes them.

    Args:
        n: number of questions.
        pairs: those at or above the threshold; their scores say which are nearest.
        linkage: how clusters are made of them.
    """
    return metrics.clusters(n, pairs.left, pairs.right, pairs.score, linkage)
