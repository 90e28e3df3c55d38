"""Samplers and collation: which questions meet in a batch, and what the batch is.

A sampler is a function from a seed and an epoch to a list of batches of pair rows. `Batches` turns each of them into
distinct questions, tokenised once and for all, and what the labels say of all n x n of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qpairs.pairs import Pairs
from qpairs.relations import LabelGraph, label_graph, look_up
from qpairs.splits import canonical_ids, components, duplicate_components

Sampler = Callable[[int], list[NDArray[np.int64]]]  # epoch -> its batches of pair rows, as many in every epoch
Noise = Callable[[NDArray[np.int32], np.random.Generator], NDArray[np.int32]]  # token ids of a question -> others
WINDOW = 50  # batches; within a window of shuffled pairs, those of similar length go together


def graph_of(pairs: Pairs) -> LabelGraph:
    """The label graph of a pair table, on the CPU."""
    nodes, ones, zeros = canonical_ids(pairs.questions), pairs.labels == 1, pairs.labels == 0
    guard = components(int(nodes.max(initial=-1)) + 1, nodes[pairs.left[ones]], nodes[pairs.right[ones]])[nodes]
    arrays = (duplicate_components(pairs), guard, pairs.left[zeros], pairs.right[zeros])
    return label_graph(*map(torch.from_numpy, arrays))


def pair_sampler(lengths: NDArray[np.int64], batch_size: int, seed: int) -> Sampler:
    """Batches of labelled pairs, cut by similar length, in another order each epoch.

    Args:
        lengths: (n_pairs,) tokens of the longer question of each pair.
        batch_size: pairs per batch; the last one of an epoch may be smaller.
        seed: of the order.
    """

    def sample(epoch: int) -> list[NDArray[np.int64]]:
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(lengths))
        window = batch_size * WINDOW
        batches = []
        for start in range(0, len(order), window):
            rows = order[start : start + window]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        return [batches[i] for i in random.permutation(len(batches))]

    return sample


def in_order(lengths: NDArray[np.int64], batch_size: int) -> Sampler:
    """All pairs by length, the same in every epoch: for evaluation."""
    rows = np.argsort(lengths, kind="stable")
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return lambda epoch: batches


class Batches:
    """A map-style dataset whose item i is the batch of step i, counted over all epochs.

    An item is a function of the seed and i alone, so that a resumed run meets the same batches.
    """

    def __init__(
        self,
        pairs: Pairs,
        ids: Sequence[NDArray[np.int32]],
        features: Callable[[Sequence[NDArray[np.int32]]], dict[str, Tensor]],
        sampler: Sampler,
        steps: int | None = None,
        chunk: int = 32,
        noise: Noise | None = None,
        seed: int = 0,
    ) -> None:
        """Binds a pair table to its tokens.

        Args:
            pairs: the pair table.
            ids: token ids of each question of the table.
            features: from token ids to the padded inputs of the encoder.
            sampler: the batches of each epoch.
            steps: length of the dataset; without it, one epoch.
            chunk: questions that are padded together. Questions of a batch are sorted by length and cut into chunks,
                each padded to its own longest.
            noise: what is done to the token ids of each question before it is encoded.
            seed: of the noise.
        """
        self.pairs, self.ids, self.features, self.sampler, self.chunk = pairs, ids, features, sampler, chunk
        self.noise, self.seed = noise, seed
        self.graph = graph_of(pairs)
        self.lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        self.epoch, self.plan = 0, sampler(0)
        self.steps = steps or len(self.plan)

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        """The inputs of `training.PairModel.forward` at a step."""
        if not 0 <= step < self.steps:
            raise IndexError(step)
        epoch, place = divmod(step, len(self.plan))
        if epoch != self.epoch:
            self.epoch, self.plan = epoch, self.sampler(epoch)
        return self.collate(self.plan[place], np.random.default_rng([self.seed, step]))

    def collate(self, rows: NDArray[np.int64], random: np.random.Generator) -> dict[str, Any]:
        """A batch of pairs: its n distinct questions by length, the pairs' places among them, and their relation.

        Args:
            rows: (k,) rows of the pair table.
            random: where the noise comes from.

        Returns:
            features: a list of encoder inputs, together n questions; left, right, labels: (k,) each; positive,
            labelled, strangers: (n, n) masks as in `relations.Knowledge`.
        """
        ends = np.concatenate([self.pairs.left[rows], self.pairs.right[rows]])
        questions, inverse = np.unique(ends, return_inverse=True)
        order = np.argsort(self.lengths[questions], kind="stable")
        questions, places = questions[order], torch.from_numpy(np.argsort(order)[inverse])
        chunks = np.array_split(questions, max(1, round(len(questions) / self.chunk)))
        known = look_up(self.graph, *[torch.from_numpy(questions)] * 2)
        return {
            "features": [self.features([self._tokens(q, random) for q in chunk]) for chunk in chunks],
            "left": places[: len(rows)],
            "right": places[len(rows) :],
            "labels": torch.from_numpy(self.pairs.labels[rows].astype(np.int64)),
            "positive": known.positive,
            "labelled": known.labelled,
            "strangers": known.strangers,
        }

    def _tokens(self, question: int, random: np.random.Generator) -> NDArray[np.int32]:
        ids = self.ids[question]
        return self.noise(ids, random) if self.noise else ids
