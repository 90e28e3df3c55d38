"""Samplers and collation: which questions meet in a batch, and what the batch is.

A sampler is a function from an epoch to its list of draws: pairs of the table, further questions, mined negatives.
`Batches` turns each of them into distinct questions, tokenised once and for all, and what the labels say of all n x n
of them. Pairs, triplets and groups differ in their sampler alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qpairs.data.pairs import Pairs
from qpairs.data.splits import canonical_ids, components, duplicate_components
from qpairs.objectives.labels import LabelGraph, batch_labels, label_graph

Ints = NDArray[np.int64]
Noise = Callable[[NDArray[np.int32], np.random.Generator], NDArray[np.int32]]  # token ids of a question -> others
WINDOW = 50  # batches; within a window of shuffled pairs, those of similar length go together


@dataclass(frozen=True)
class Draw:
    """What meets in a batch.

    Attributes:
        pairs: (k,) rows of the pair table.
        questions: (e,) further questions.
        negatives: (f, 2) pairs of questions that count as labelled 0: an anchor and a negative mined for it.
    """

    pairs: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    questions: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    negatives: Ints = field(default_factory=lambda: np.empty((0, 2), np.int64))


Sampler = Callable[[int], list[Draw]]  # epoch -> its draws, as many in every epoch


@dataclass(frozen=True)
class Feed:
    """What a tower reads.

    Attributes:
        ids: token ids of each question of the table.
        features: from token ids to the padded inputs of the tower.
        noise: what is done to the token ids of a question before it is encoded.
    """

    ids: Sequence[NDArray[np.int32]]
    features: Callable[[Sequence[NDArray[np.int32]]], dict[str, Tensor]]
    noise: Noise | None = None


def graph_of(pairs: Pairs) -> LabelGraph:
    """The label graph of a pair table, on the CPU."""
    nodes, ones, zeros = canonical_ids(pairs.questions), pairs.labels == 1, pairs.labels == 0
    guard = components(int(nodes.max(initial=-1)) + 1, nodes[pairs.left[ones]], nodes[pairs.right[ones]])[nodes]
    arrays = (duplicate_components(pairs), guard, pairs.left[zeros], pairs.right[zeros])
    return label_graph(*map(torch.from_numpy, arrays))


def pair_sampler(lengths: Ints, batch_size: int, seed: int) -> Sampler:
    """Batches of labelled pairs, cut by similar length, in another order each epoch.

    Args:
        lengths: (n_pairs,) tokens of the longer question of each pair.
        batch_size: pairs per batch; the last one of an epoch may be smaller.
        seed: of the order.
    """

    def sample(epoch: int) -> list[Draw]:
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(lengths))
        window = batch_size * WINDOW
        batches = []
        for start in range(0, len(order), window):
            rows = order[start : start + window]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        return [Draw(batches[i]) for i in random.permutation(len(batches))]

    return sample


def in_order(lengths: Ints, batch_size: int) -> Sampler:
    """All pairs by length, the same in every epoch: for evaluation."""
    rows = np.argsort(lengths, kind="stable")
    draws = [Draw(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    return lambda epoch: draws


def triplet_sampler(pairs: Sampler, mine: Callable[[int], tuple[Ints, Ints]]) -> Sampler:
    """The batches of another sampler, with negatives that are mined before each epoch (offline mining).

    Args:
        pairs: which pairs meet.
        mine: epoch -> rows (f,) of the pair table, and negatives (f, 2): an anchor of that pair, and its negative.
    """

    def sample(epoch: int) -> list[Draw]:
        rows, negatives = mine(epoch)
        order = np.argsort(rows, kind="stable")
        rows, negatives = rows[order], negatives[order]

        def of(draw: Draw) -> Ints:
            begin, end = (np.searchsorted(rows, draw.pairs, side) for side in ("left", "right"))
            runs = [negatives[i:j] for i, j in zip(begin, end, strict=True)]
            return np.concatenate([negatives[:0], *runs])

        return [replace(draw, negatives=of(draw)) for draw in pairs(epoch)]

    return sample


def group_sampler(graph: LabelGraph, batch_size: int, group_size: int, seed: int) -> Sampler:
    """Batches of P duplicate components x K of their questions; each question is met once an epoch.

    Most components have two members or one, so P is whatever fills the batch. A component of more than K members is
    dealt out in groups of at most K. Components that a label tells apart follow each other, so that labelled
    non-duplicates meet, too.

    Args:
        graph: the labels.
        batch_size: questions per batch, about.
        group_size: K, at least 2.
        seed: of the order.
    """
    component = graph.component.numpy()
    members = np.split(np.argsort(component, kind="stable"), np.cumsum(np.bincount(component))[:-1])
    batches = max(1, round(len(component) / batch_size))

    def sample(epoch: int) -> list[Draw]:
        random = np.random.default_rng([seed, epoch])
        groups = [
            group
            for c in _neighbours_first(random.permutation(len(members)), members, graph)
            for group in np.array_split(random.permutation(members[c]), -(-len(members[c]) // group_size))
        ]
        first = np.cumsum([0, *map(len, groups)])[:-1]  # place of each group's first question in the epoch
        cuts = np.searchsorted(first * batches // len(component), np.arange(1, batches))
        turn = np.arange(len(cuts))  # where groups are about as large as a batch, each batch still gets one
        cuts = np.minimum(np.maximum.accumulate(cuts - turn) + turn, len(groups) - len(cuts) + turn)
        return [
            Draw(questions=np.concatenate(part)) for part in (groups[i:j] for i, j in pairwise([0, *cuts, len(groups)]))
        ]

    return sample


def _neighbours_first(order: Ints, members: list[Ints], graph: LabelGraph) -> Iterator[int]:
    """The components in an order in which each is followed by those that labels tell from it, where they are left."""
    component, start, others = graph.component.tolist(), graph.start.tolist(), graph.others.tolist()
    left = dict.fromkeys(range(len(members)), True)
    for c in order.tolist():
        if left[c]:
            near = dict.fromkeys(component[o] for q in members[c].tolist() for o in others[start[q] : start[q + 1]])
            for one in (c, *near):
                if left[one]:
                    left[one] = False
                    yield one


class Batches:
    """A map-style dataset whose item i is the batch of step i, counted over all epochs.

    An item is a function of the seed and i alone (and of what a sampler mines), so that a resumed run meets the same
    batches.
    """

    def __init__(
        self,
        pairs: Pairs,
        feeds: Sequence[Feed],
        sampler: Sampler,
        *,
        sided: bool = False,
        steps: int | None = None,
        chunk: int = 32,
        seed: int = 0,
        processes: int = 1,
    ) -> None:
        """Binds a pair table to its tokens.

        Args:
            pairs: the pair table.
            feeds: what the tower reads, or each of two towers.
            sampler: the batches of each epoch.
            sided: whether the first question of a pair is always a row, and the second a column.
            steps: length of the dataset; without it, one epoch.
            chunk: questions that are padded together. Questions of a batch are sorted by length and cut into chunks,
                each padded to its own longest.
            seed: of the noise.
            processes: among which the questions of each step are shared out: item i is then the share of process
                i mod processes in step i // processes, with the encoder inputs of every processes-th question.
        """
        self.pairs, self.feeds, self.sampler, self.sided = pairs, feeds, sampler, sided
        self.chunk, self.seed, self.processes = chunk, seed, processes
        self.graph = graph_of(pairs)
        self.lengths = [np.fromiter(map(len, feed.ids), np.int64, len(feed.ids)) for feed in feeds]
        self.epoch, self.plan = 0, sampler(0)
        self.steps = steps or len(self.plan)

    def __len__(self) -> int:
        """Number of steps, times that of the processes."""
        return self.steps * self.processes

    def __getitem__(self, item: int) -> dict[str, Any]:
        """The inputs of `training.PairModel.forward` at a step, for one process."""
        if not 0 <= item < len(self):
            raise IndexError(item)
        step, process = divmod(item, self.processes)
        epoch, place = divmod(step, len(self.plan))
        if epoch != self.epoch:
            self.epoch, self.plan = epoch, self.sampler(epoch)
        return self.collate(self.plan[place], np.random.default_rng([self.seed, step]), process)

    def collate(self, draw: Draw, random: np.random.Generator, process: int = 0) -> dict[str, Any]:
        """A batch: its distinct questions by length, the pairs' places among them, and their relation.

        Args:
            draw: what meets.
            random: where the noise comes from.
            process: whose share of the questions is to be encoded.

        Returns:
            features: a list of encoder inputs, together the process's share of the n row questions; component: (n,)
            their guard; column_features and column_component: likewise of the m column questions, where other questions
            or another tower make the columns; left, right, labels: (k,) of the pairs, left among the rows and right
            among the columns; positive, labelled, strangers (n, m) and places as in `labels.BatchLabels`, and taught
            (n, m) where a teacher was asked.
        """
        k, (anchors, negatives) = len(draw.pairs), draw.negatives.T
        lefts = np.concatenate([self.pairs.left[draw.pairs], anchors])
        rights = np.concatenate([self.pairs.right[draw.pairs], negatives])
        if self.sided:
            (rows, left), (columns, right) = self._by_length(lefts), self._by_length(rights)
        else:
            rows, places = self._by_length(np.concatenate([lefts, rights, draw.questions]))
            columns, left, right = rows, places[: len(lefts)], places[len(lefts) : 2 * len(lefts)]
        known = batch_labels(self.graph, torch.from_numpy(rows), torch.from_numpy(columns))
        known.labelled[left[k:], right[k:]] = True
        if not self.sided:
            known.labelled[right[k:], left[k:]] = True
        item = {
            "features": self._features(self.feeds[0], rows[process :: self.processes], random),
            "left": torch.from_numpy(left[:k]),
            "right": torch.from_numpy(right[:k]),
            "labels": torch.from_numpy(self.pairs.labels[draw.pairs].astype(np.int64)),
            "component": self.graph.cluster[torch.from_numpy(rows)],
            "positive": known.positive,
            "labelled": known.labelled,
            "strangers": known.unrelated,
            "places": (known.positive | known.labelled).nonzero(),
        }
        if self.pairs.taught is not None:
            taught = torch.full(known.positive.shape, torch.nan)
            asked = torch.from_numpy(self.pairs.taught[draw.pairs])
            taught[left[:k], right[:k]] = asked
            if not self.sided:
                taught[right[:k], left[:k]] = asked
            item["taught"] = taught
        if self.sided or len(self.feeds) > 1:
            item["column_features"] = self._features(self.feeds[-1], columns[process :: self.processes], random)
            item["column_component"] = self.graph.cluster[torch.from_numpy(columns)]
        return item

    def _by_length(self, ends: Ints) -> tuple[Ints, Ints]:
        """The distinct questions, the shortest first, and the place of each end among them."""
        questions, inverse = np.unique(ends, return_inverse=True)
        order = np.argsort(self.lengths[0][questions], kind="stable")
        return questions[order], np.argsort(order)[inverse]

    def _features(self, feed: Feed, questions: Ints, random: np.random.Generator) -> list[dict[str, Tensor]]:
        """The inputs of a tower for the questions, in chunks."""
        chunks = np.array_split(questions, max(1, round(len(questions) / self.chunk)))
        return [feed.features([self._tokens(feed, q, random) for q in chunk]) for chunk in chunks]

    def _tokens(self, feed: Feed, question: int, random: np.random.Generator) -> NDArray[np.int32]:
        ids = feed.ids[question]
        return feed.noise(ids, random) if feed.noise else ids
