"""Clusters of duplicates made of pairs, each with the question that represents it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qpairs.metrics.inputs import Ints

Linkage = Literal["star", "single"]


def clusters(n: int, left: Ints, right: Ints, similarity: NDArray[np.floating], linkage: Linkage = "star") -> Ints:
    """(n,) the question that represents each of n questions: itself, or the representative of its cluster.

    `star` goes through the questions by their number of duplicates, then by the sum of the similarities, then by row. A
    question that is no duplicate of an earlier representative becomes one; each other question joins the most similar
    representative. So all members of a cluster are duplicates of its representative, and long chains are cut (the
    greedy star cover of Aslam, Pelekhov and Rus, The star clustering algorithm, 2004). `single` keeps the chains: a
    cluster is a connected component of the graph, and members may be linked only through others.

    Args:
        n: number of questions.
        left: (m,) one question of each pair at or above the threshold; each pair stands there once.
        right: (m,) the other one.
        similarity: (m,) of the pairs.
        linkage: how clusters are made of them.

    >>> left, right, similarity = np.array([0, 1, 2]), np.array([1, 2, 3]), np.full(3, 0.9)
    >>> clusters(4, left, right, similarity).tolist(), clusters(4, left, right, similarity, "single").tolist()
    ([1, 1, 1, 3], [1, 1, 1, 1])
    """
    from scipy.sparse import coo_array, csr_array  # slow to import, and a prediction needs none of it
    from scipy.sparse.csgraph import connected_components

    ends_of = (
        np.concatenate([left, right]),
        np.concatenate([right, left]),
    )  # a sum of arrays would drop similarities of 0
    graph = coo_array((np.concatenate([similarity, similarity]), ends_of), shape=(n, n)).tocsr()
    ends, neighbours = graph.indptr, graph.indices
    order = np.lexsort((-graph.sum(axis=1), -np.diff(ends)))
    if linkage == "single":
        linked = csr_array((np.ones(len(neighbours)), neighbours, ends), shape=(n, n))
        component = connected_components(linked, directed=False)[1]
        _, first = np.unique(component[order], return_index=True)
        heads: Ints = order[first][component]
        return heads
    covered = np.zeros(n, dtype=np.bool_)
    is_head = np.zeros(n, dtype=np.bool_)
    for question in order.tolist():
        if not covered[question]:
            is_head[question] = True
            covered[neighbours[ends[question] : ends[question + 1]]] = True
    edges = graph.tocoo()
    member, head = edges.row, edges.col
    kept = ~is_head[member] & is_head[head]
    member, head, similarity = member[kept], head[kept], edges.data[kept]
    best = np.lexsort((head, -similarity, member))
    member, first = np.unique(member[best], return_index=True)
    representative = np.arange(n)
    representative[member] = head[best][first]
    return representative
