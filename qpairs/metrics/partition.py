"""How well clusters agree with the true ones: pairwise and B-cubed scores, and the adjusted Rand index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.inputs import Ints, ratio


@dataclass(frozen=True)
class PartitionScores:
    """How well a clustering agrees with the true one; undefined ratios are 0, as in `Confusion`.

    Attributes:
        precision, recall, f1: over all pairs of items: a pair counts as found where both are in one found cluster, and
            as right where both are in one true cluster. Large clusters weigh most.
        bcubed_precision: mean over the items of the share of its found cluster that is in its true cluster too.
        bcubed_recall: mean over the items of the share of its true cluster that is in its found cluster too.
        bcubed_f1: their harmonic mean.
        adjusted_rand: adjusted Rand index: 1 for equal clusters, 0 on average for random ones of the same sizes.

    >>> partition_scores([0, 0, 1], [0, 0, 1]).f1
    1.0
    """

    precision: float
    recall: float
    f1: float
    bcubed_precision: float
    bcubed_recall: float
    bcubed_f1: float
    adjusted_rand: float


def partition_scores(found: ArrayLike, gold: ArrayLike) -> PartitionScores:
    """Scores of found clusters against complete true ones.

    Pairwise and B-cubed scores are those of Bagga and Baldwin (1998, Algorithms for scoring coreference chains) and
    Amigo et al. (2009, A comparison of extrinsic clustering evaluation metrics); the adjusted Rand index is that of
    Hubert and Arabie (1985, Comparing partitions). B-cubed scores count an item as its own neighbour. All are computed
    from the clusters that share an item, in O(n log n).

    Args:
        found: (n,) integers, the found cluster of each item; which number a cluster has does not matter.
        gold: (n,) integers, the true cluster of each item.

    Raises:
        ValueError: no items, not one number for each item, or not integers.

    >>> scores = partition_scores([0, 0, 0, 1, 2], [7, 7, 8, 8, 9])
    >>> round(scores.precision, 2), scores.recall, round(scores.f1, 2)
    (0.33, 0.5, 0.4)
    >>> round(scores.bcubed_precision, 2), scores.bcubed_recall, round(scores.adjusted_rand, 2)
    (0.73, 0.8, 0.21)
    """
    (of_found, found_sizes), (of_gold, gold_sizes) = _clusters(found, "found"), _clusters(gold, "gold")
    n = len(of_found)
    if len(of_gold) != n:
        raise ValueError(f"{n} found clusters but {len(of_gold)} gold ones: one of each item is needed")
    cells, shared = np.unique(of_found * len(gold_sizes) + of_gold, return_counts=True)  # of the contingency table
    both, called, relevant = (_pairs(sizes) for sizes in (shared, found_sizes, gold_sizes))
    b_precision = float((shared * (shared / found_sizes[cells // len(gold_sizes)])).sum() / n)
    b_recall = float((shared * (shared / gold_sizes[cells % len(gold_sizes)])).sum() / n)
    return PartitionScores(
        precision=float(ratio(both, called)),
        recall=float(ratio(both, relevant)),
        f1=float(ratio(2 * both, called + relevant)),
        bcubed_precision=b_precision,
        bcubed_recall=b_recall,
        bcubed_f1=2 * b_precision * b_recall / (b_precision + b_recall),
        adjusted_rand=_adjusted_rand(both, called, relevant, n * (n - 1) // 2),
    )


def _clusters(numbers: ArrayLike, what: str) -> tuple[Ints, Ints]:
    """The clusters as 0, 1, ... for each item (n,), and their sizes (clusters,)."""
    array = np.asarray(numbers)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{what} must be one cluster number for each item, not of shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integers, not {array.dtype}")
    _, of_item, sizes = np.unique(array, return_inverse=True, return_counts=True)
    return of_item.astype(np.int64), sizes.astype(np.int64)


def _pairs(sizes: Ints) -> int:
    """Number of pairs of two items within the sets of these sizes."""
    return int((sizes * (sizes - 1) // 2).sum())


def _adjusted_rand(both: int, called: int, relevant: int, total: int) -> float:
    """The adjusted Rand index from numbers of pairs; 1 where the clusters are equal, single items or one cluster too.

    Python integers, because products of numbers of pairs go beyond 64 bits.
    """
    if both == called == relevant:
        return 1.0
    return 2 * (both * total - called * relevant) / (total * (called + relevant) - 2 * called * relevant)
