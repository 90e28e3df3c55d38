"""Clusters of so many pairs that they are read from a disk, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpairs.core.progress import Meter
from qpairs.metrics import clusters
from qpairs.metrics.linkage import Linkage
from qpairs.retrieval.blocks import Ints
from qpairs.retrieval.disk import row_parts

PAIR = np.dtype([("left", "<u4"), ("right", "<u4"), ("similarity", "<f4")])
PairRows = NDArray[np.void]  # of the type PAIR
AT_ONCE = 4_000_000  # pairs whose components are divided into clusters together


def components(n: int, edges: Iterable[tuple[Ints, Ints]]) -> Ints:
    """(n,) the least row of the connected component of each of n rows, in 8 bytes a row and a part of the edges.

    Union-find over an array (Tarjan, Efficiency of a good but not linear set union algorithm, 1975), for many edges at
    a time: each root that an edge joins to a lesser one gets the least of them as its parent, until no edge joins two.

    Args:
        n: number of rows.
        edges: the ends of edges (k,) and (k,), some at a time.

    >>> components(5, [(np.array([1, 3]), np.array([2, 4])), (np.array([2]), np.array([4]))]).tolist()
    [0, 1, 1, 1, 1]
    """
    parent = np.arange(n)
    for left, right in edges:
        one, other = left, right
        while len(one):
            one, other = _root(parent, one), _root(parent, other)
            apart = one != other
            one, other = one[apart], other[apart]
            np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
    for part in row_parts(n):
        parent[part] = _root(parent, np.arange(part.start, part.stop))
    return parent


def _root(parent: Ints, rows: Ints) -> Ints:
    """(k,) the root of each row; the parents (n,) of rows on the way become roots."""
    root = parent[rows]
    while True:
        further = parent[root]
        if np.array_equal(root, further):
            parent[rows] = root
            return root
        root = further


def clusters_on_disk(n: int, pairs: PairRows, linkage: Linkage, folder: Path, meter: Meter) -> Ints:
    """(n,) the question that represents each of n questions, as `metrics.clusters` makes them of all pairs at once.

    Components are found first. Then the pairs of some components at a time, about `AT_ONCE`, are divided: no cluster
    is in two components, so the result is the same. A component with more pairs is divided in memory alone.

    Args:
        n: number of questions.
        pairs: (m,) each once, perhaps mapped into memory.
        linkage: how clusters are made.
        folder: for files that are removed again.
        meter: counts pairs.
    """
    meter.begin("clustering", 2 * len(pairs))

    def edges() -> Iterator[tuple[Ints, Ints]]:
        for part in row_parts(len(pairs)):
            yield pairs["left"][part].astype(np.int64), pairs["right"][part].astype(np.int64)
            meter.advance(part.stop - part.start)

    root = components(n, edges())
    sizes = np.zeros(n, np.int64)  # pairs of each component
    for part in row_parts(len(pairs)):
        np.add.at(sizes, root[pairs["left"][part]], 1)
    batch = (np.cumsum(sizes) - sizes) // AT_ONCE  # of each root
    representative = np.arange(n)
    count = int(batch[-1]) + 1 if n else 0
    files = [folder / f"batch-{number}.bin" for number in range(count)]
    for file in files:
        file.unlink(missing_ok=True)
    for part in row_parts(len(pairs)):
        of_pair = batch[root[pairs["left"][part]]]
        for number in np.unique(of_pair):
            with files[number].open("ab") as out:
                out.write(pairs[part][of_pair == number].tobytes())
    for file in (file for file in files if file.exists()):
        own = np.fromfile(file, PAIR)
        rows, ends = np.unique(np.concatenate([own["left"], own["right"]]), return_inverse=True)
        left, right = ends[: len(own)], ends[len(own) :]
        representative[rows] = rows[clusters(len(rows), left, right, own["similarity"], linkage)]
        meter.advance(len(own))
        file.unlink()
    return representative
