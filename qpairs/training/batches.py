"""Batches: from the indices of a sampler to padded token ids and the labels of the questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qpairs.data.identity import canonical_ids
from qpairs.data.pairs import Pairs
from qpairs.data.splits import components, duplicate_components
from qpairs.objectives.labels import LabelGraph, batch_labels, label_graph
from qpairs.training.samplers import BatchIndices, Sampler

Ints = NDArray[np.int64]
TokenIds = NDArray[np.int32]
Features = dict[str, Any]  # inputs of an encoder: input_ids (k, tokens) and so on, or packed ones


class Questions(TypedDict):
    """The questions on one side of the similarity matrix.

    Attributes:
        features: inputs of the tower, padded or packed, in chunks of similar length; with several processes, each has
            only its share of the questions.
        ids: (n,) int64, row of each question in the question table.
        component: (n,) int64, duplicate component of each question, equal texts joined; for losses with prototypes.
        taught: (n, t) a teacher's vectors of the questions; None without such a teacher.
    """

    features: list[Features]
    ids: Tensor
    component: Tensor
    taught: Tensor | None


class Batch(TypedDict):
    """A training batch: n distinct questions as rows, m as columns, and what is known about each of the n x m pairs.

    It is a dict, not a dataclass, since the Trainer moves only tensors in dicts and lists to the device.

    Attributes:
        rows: the n row questions.
        columns: the m column questions, if they differ or another tower encodes them; None: the rows.
        known: the fields of `labels.BatchLabels`: masks (n, m).
        left: (k,) int64, row of the first question of each labelled pair.
        right: (k,) int64, column of its second question.
        labels: (k,) int64, its label.
        seed: of the random choices of miners and prototypes, the same in every process.
    """

    rows: Questions
    columns: Questions | None
    known: dict[str, Tensor | None]
    left: Tensor
    right: Tensor
    labels: Tensor
    seed: int


def model_inputs(items: list[Batch]) -> dict[str, Any]:
    """The arguments of `PairModel.forward` for the batch of a step, with the labels where the Trainer expects them."""
    (batch,) = items
    return {"batch": batch, "labels": batch["labels"]}


@dataclass(frozen=True)
class TokenizedQuestions:
    """The questions of a pair table as a tower reads them.

    Attributes:
        ids: token ids of each question.
        pad: from the token ids of some questions to the padded inputs of the tower.
        word_dropout: changes the token ids of a question at random before it is encoded; None: unchanged.
    """

    ids: Sequence[TokenIds]
    pad: Callable[[Sequence[TokenIds]], Features]
    word_dropout: Callable[[TokenIds, np.random.Generator], TokenIds] | None = None

    @property
    def lengths(self) -> Ints:
        """(n_questions,) tokens of each question."""
        return np.fromiter(map(len, self.ids), np.int64, len(self.ids))


def pair_lengths(questions: TokenizedQuestions, pairs: Pairs) -> Ints:
    """(n_pairs,) tokens of the longer question of each pair."""
    return np.maximum(questions.lengths[pairs.left], questions.lengths[pairs.right])


def build_label_graph(pairs: Pairs) -> LabelGraph:
    """The label graph of a pair table, on the CPU."""
    nodes, ones, zeros = canonical_ids(pairs.questions), pairs.labels == 1, pairs.labels == 0
    guard = components(int(nodes.max(initial=-1)) + 1, nodes[pairs.left[ones]], nodes[pairs.right[ones]])[nodes]
    arrays = (duplicate_components(pairs), guard, pairs.left[zeros], pairs.right[zeros])
    return label_graph(*map(torch.from_numpy, arrays))


class Batches:
    """A map-style dataset whose item i is the batch of step i, counted over all epochs.

    An item depends only on the seed and i (and on the negatives that the sampler mines), so that a resumed run gets the
    same batches.
    """

    def __init__(
        self,
        pairs: Pairs,
        towers: Sequence[TokenizedQuestions],
        sampler: Sampler,
        *,
        symmetric: bool = True,
        steps: int | None = None,
        chunk: int = 32,
        seed: int = 0,
        processes: int = 1,
    ) -> None:
        """Binds a pair table to its tokens.

        Args:
            pairs: the pair table.
            towers: its questions as read by the one tower, or by each of two towers.
            sampler: the batches of each epoch.
            symmetric: whether every question of a batch is a row and a column; if not, the first question of a pair is
                a row, and the second a column.
            steps: length of the dataset; None: one epoch.
            chunk: number of questions that are padded together. The questions of a batch are sorted by length and cut
                into chunks, each padded to its own longest.
            seed: seed of the word dropout.
            processes: number of processes that share the questions of each step: item i is then the share of process
                i mod processes in step i // processes, every processes-th question.
        """
        self.pairs, self.towers, self.sampler, self.symmetric = pairs, towers, sampler, symmetric
        self.chunk, self.seed, self.processes = chunk, seed, processes
        self.graph = build_label_graph(pairs)
        self.taught: NDArray[np.float32] | None = None  # (n_questions, t) vectors of a teacher
        self.lengths = towers[0].lengths
        self.epoch, self.plan = 0, sampler(0)
        self.steps = steps or len(self.plan)

    def __len__(self) -> int:
        """Number of steps, times that of the processes."""
        return self.steps * self.processes

    def __getitem__(self, item: int) -> Batch:
        """The batch of a step, for one process."""
        if not 0 <= item < len(self):
            raise IndexError(item)
        step, process = divmod(item, self.processes)
        epoch, place = divmod(step, len(self.plan))
        if epoch != self.epoch:
            self.epoch, self.plan = epoch, self.sampler(epoch)
        seed = np.random.SeedSequence([self.seed, step])
        draws = int(seed.generate_state(1)[0])
        return self.collate(self.plan[place], np.random.default_rng(seed), process, draws)

    def collate(self, indices: BatchIndices, random: np.random.Generator, process: int = 0, seed: int = 0) -> Batch:
        """A batch: its distinct questions by length, its pairs, and what is known about all pairs.

        Args:
            indices: the content of the batch.
            random: source of the word dropout.
            process: the process whose share of the questions is to be encoded.
            seed: of the random choices of miners and prototypes.
        """
        k, (anchors, negatives) = len(indices.pairs), indices.negatives.T
        first = np.concatenate([self.pairs.left[indices.pairs], anchors])
        second = np.concatenate([self.pairs.right[indices.pairs], negatives])
        if self.symmetric:
            rows, places = self._by_length(np.concatenate([first, second, indices.questions]))
            columns, left, right = rows, places[: len(first)], places[len(first) : 2 * len(first)]
        else:
            (rows, left), (columns, right) = self._by_length(first), self._by_length(second)
        known = batch_labels(self.graph, torch.from_numpy(rows), torch.from_numpy(columns))
        self._set(known.labelled, left[k:], right[k:], True)
        probabilities = apart = None
        soft = self.pairs.grades if self.pairs.taught is None else self.pairs.taught
        if soft is not None:
            other = np.flatnonzero(first[:k] != second[:k])  # a question tells nothing of itself
            ends, soft_pairs = (left[other], right[other]), indices.pairs[other]
            probabilities = torch.full(known.positive.shape, torch.nan)
            self._set(probabilities, *ends, torch.from_numpy(soft[soft_pairs]))
            apart = torch.zeros_like(known.labelled)
            self._set(apart, *ends, torch.from_numpy(self.pairs.labels[soft_pairs] == 0))
        places_known = (known.positive | known.labelled).nonzero()
        two_sides = not self.symmetric or len(self.towers) > 1
        return {  # the Trainer takes the size of the first tensor as the size of the batch
            "rows": self._questions(self.towers[0], rows, random, process),
            "columns": self._questions(self.towers[-1], columns, random, process) if two_sides else None,
            "known": {**vars(known), "known_pairs": places_known, "teacher_probability": probabilities, "apart": apart},
            "left": torch.from_numpy(left[:k]),
            "right": torch.from_numpy(right[:k]),
            "labels": torch.from_numpy(self.pairs.labels[indices.pairs].astype(np.int64)),
            "seed": seed,
        }

    def _set(self, table: Tensor, left: Ints, right: Ints, values: Tensor | bool) -> None:
        """Sets the cells (left, right) of a table (n, m), and the mirrored cells if it is symmetric."""
        table[left, right] = values
        if self.symmetric:
            table[right, left] = values

    def _by_length(self, ends: Ints) -> tuple[Ints, Ints]:
        """The distinct questions, the shortest first, and the position of each side of the pairs among them."""
        questions, inverse = np.unique(ends, return_inverse=True)
        order = np.argsort(self.lengths[questions], kind="stable")
        return questions[order], np.argsort(order)[inverse]

    def _questions(
        self, tower: TokenizedQuestions, questions: Ints, random: np.random.Generator, process: int
    ) -> Questions:
        """The inputs of a tower for a process's share of the questions, in chunks, and the components of all."""
        share = questions[process :: self.processes]
        if not len(share):  # every process encodes something in every step; `gather` drops it
            share = questions[:1]
        chunks = np.array_split(share, max(1, round(len(share) / self.chunk)))
        dropout = tower.word_dropout or (lambda ids, random: ids)
        features = [tower.pad([dropout(tower.ids[q], random) for q in chunk]) for chunk in chunks]
        return {
            "features": features,
            "ids": torch.from_numpy(questions),
            "component": self.graph.cluster[torch.from_numpy(questions)],
            "taught": None if self.taught is None else torch.from_numpy(self.taught[questions]),
        }
