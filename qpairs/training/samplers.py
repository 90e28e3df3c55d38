"""Samplers: functions from an epoch to the list of its batches, each given as indices into the pair table.

Training on pairs, triplets and groups of duplicates differs only in the sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qpairs.objectives.labels import LabelGraph

Ints = NDArray[np.int64]
WINDOW = 50  # batches; within a window of shuffled pairs, pairs of similar length share a batch


@dataclass(frozen=True)
class BatchIndices:
    """What a batch is made of.

    Attributes:
        pairs: (k,) rows of the pair table.
        questions: (e,) further question ids.
        negatives: (f, 2) question ids of an anchor and a negative mined for it; the two count as labelled 0.
    """

    pairs: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    questions: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    negatives: Ints = field(default_factory=lambda: np.empty((0, 2), np.int64))


Sampler = Callable[[int], list[BatchIndices]]  # epoch -> its batches, the same number in every epoch


def pair_sampler(lengths: Ints, batch_size: int, seed: int) -> Sampler:
    """Batches of labelled pairs of similar length, in another order each epoch.

    Args:
        lengths: (n_pairs,) tokens of the longer question of each pair.
        batch_size: pairs per batch; the last batch of an epoch may be smaller.
        seed: seed of the order.

    >>> sample = pair_sampler(np.array([5, 3, 4]), batch_size=2, seed=0)
    >>> sorted(len(batch.pairs) for batch in sample(0))
    [1, 2]
    """

    def sample(epoch: int) -> list[BatchIndices]:
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(lengths))
        window = batch_size * WINDOW
        batches = []
        for start in range(0, len(order), window):
            rows = order[start : start + window]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        return [BatchIndices(batches[i]) for i in random.permutation(len(batches))]

    return sample


def sequential_sampler(lengths: Ints, batch_size: int) -> Sampler:
    """All pairs from the shortest to the longest, the same in every epoch: for evaluation."""
    rows = np.argsort(lengths, kind="stable")
    batches = [BatchIndices(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    return lambda epoch: batches


def triplet_sampler(pairs: Sampler, mine: Callable[[int], tuple[Ints, Ints]]) -> Sampler:
    """The batches of another sampler, with negatives that are mined before each epoch (offline mining).

    Args:
        pairs: sampler of the pairs.
        mine: epoch -> rows (f,) of the pair table, and negatives (f, 2): an anchor of that pair, and its negative.
    """

    def sample(epoch: int) -> list[BatchIndices]:
        rows, negatives = mine(epoch)
        order = np.argsort(rows, kind="stable")
        rows, negatives = rows[order], negatives[order]

        def negatives_of(batch: BatchIndices) -> Ints:
            begin, end = (np.searchsorted(rows, batch.pairs, side) for side in ("left", "right"))
            return np.concatenate([negatives[:0], *(negatives[i:j] for i, j in zip(begin, end, strict=True))])

        return [replace(batch, negatives=negatives_of(batch)) for batch in pairs(epoch)]

    return sample


def group_sampler(graph: LabelGraph, batch_size: int, group_size: int, seed: int) -> Sampler:
    """Batches of P duplicate components with up to K of their questions each; every question occurs once per epoch.

    P is the number of components that fills the batch, since most of them have one or two members. A component of
    more than K members is cut into groups of at most K. Components with labelled non-duplicates between them follow
    each other, so that these non-duplicates often share a batch.

    Args:
        graph: the labels.
        batch_size: approximate number of questions per batch.
        group_size: K, at least 2.
        seed: seed of the order.
    """
    component = graph.component.numpy()
    members = np.split(np.argsort(component, kind="stable"), np.cumsum(np.bincount(component))[:-1])
    batches = max(1, round(len(component) / batch_size))

    def sample(epoch: int) -> list[BatchIndices]:
        random = np.random.default_rng([seed, epoch])
        groups = [
            group
            for c in _neighbours_first(random.permutation(len(members)), members, graph)
            for group in np.array_split(random.permutation(members[c]), -(-len(members[c]) // group_size))
        ]
        first = np.cumsum([0, *map(len, groups)])[:-1]  # position of each group's first question in the epoch
        cuts = np.searchsorted(first * batches // len(component), np.arange(1, batches))
        turn = np.arange(len(cuts))  # where groups are about as large as a batch, each batch still gets one
        cuts = np.minimum(np.maximum.accumulate(cuts - turn) + turn, len(groups) - len(cuts) + turn)
        parts = (groups[i:j] for i, j in pairwise([0, *cuts, len(groups)]))
        return [BatchIndices(questions=np.concatenate(part)) for part in parts]

    return sample


def _neighbours_first(order: Ints, members: list[Ints], graph: LabelGraph) -> Iterator[int]:
    """The components in the given order, except that those with a label 0 to a component directly follow it."""
    component, start, others = graph.component.tolist(), graph.start.tolist(), graph.others.tolist()
    remaining = dict.fromkeys(range(len(members)), True)
    for c in order.tolist():
        if remaining[c]:
            near = dict.fromkeys(component[o] for q in members[c].tolist() for o in others[start[q] : start[q + 1]])
            for one in (c, *near):
                if remaining[one]:
                    remaining[one] = False
                    yield one
