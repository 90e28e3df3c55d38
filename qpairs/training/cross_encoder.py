"""Trains a cross-encoder: a transformer that reads both questions of a pair at once (Devlin et al. 2019).

It learns the labels by cross-entropy, each pair in a random order. It is far too slow to search with; it scores pairs,
takes a second look at what an encoder finds, and is a good teacher for an encoder.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from torch import Tensor, nn
from torch.nn import functional

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs
from qpairs.encoders.build import build_encoder
from qpairs.encoders.dropout import set_dropout
from qpairs.encoders.packed import outputs, pack_padded, takes_packed
from qpairs.encoders.readers import is_transformer
from qpairs.training.distributed import gather, world
from qpairs.training.names import check_transformer
from qpairs.training.passes import History, Pass, evaluation_pairs, run_pass, steps_of
from qpairs.training.run import Run
from qpairs.training.samplers import Sampler, pair_sampler, sequential_sampler
from qpairs.training.trainer import adamw, check_loss, only_item

RATES = {"tiny": 5e-4, "mpnet": 8e-5}  # learning rates of cross-encoders, by what they are made from
RATE = 1e-4  # of the others
HEAD_RATE = 1e-3


@dataclass(frozen=True)
class FittedPairs:
    """A trained cross-encoder, on the CPU.

    Attributes:
        model: in its best state.
        history: losses and scores by step.
        diverged: what happened if the loss became NaN and the last good state was restored; else ''.
    """

    model: CrossEncoder
    history: History
    diverged: str = ""


def new_cross_encoder(name: str, *, texts: Sequence[str], max_length: int, seed: int) -> CrossEncoder:
    """A cross-encoder over an encoder's transformer: first token and mean of all tokens, and a linear layer to a logit.

    Args:
        name: one of `TRANSFORMERS`, a Hub id, or the folder of an encoder.
        texts: the training questions, from which `tiny` builds its vocabulary.
        max_length: tokens of a question that are read; a pair may have twice as many.
        seed: seed of the random weights.

    Raises:
        UserError: not a transformer; or a model or package is missing or broken.
    """
    check_transformer("encoder", name)
    encoder = build_encoder(name, texts=texts, max_length=2 * max_length, seed=seed)
    if not is_transformer(encoder):
        raise UserError(f"encoder: {name} is not a transformer, so it cannot read two questions at once; use minilm")
    transformer: Any = encoder[0]
    pooling = Pooling(transformer.get_embedding_dimension(), ["cls", "mean"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dimension = pooling.get_embedding_dimension()
        head = Dense(dimension, 1, activation_function=nn.Identity(), module_output_name="scores")
    modules = [transformer, pooling, head]
    model: CrossEncoder = CrossEncoder(modules=modules, device=str(encoder.device), num_labels=1)
    return model


def cross_encoder_of(config: Config, train: Pairs) -> CrossEncoder:
    """The cross-encoder of a config, not trained yet.

    Raises:
        UserError: as `new_cross_encoder`.
    """
    return new_cross_encoder(config.encoder, texts=train.questions, max_length=config.max_length, seed=config.seed)


def fit_cross_encoder(run: Run, model: CrossEncoder, stage: str = "training") -> FittedPairs:
    """Trains a cross-encoder, and keeps the state with the best average precision on validation.

    Args:
        run: config, data and the folder of the states; training resumes from the last state.
        model: what is trained.
        stage: what progress calls it.

    Raises:
        NothingKept: the loss became NaN before the first state was kept.
    """
    history, diverged = run_pass(run, cross_encoder_pass(run, model), stage)
    return FittedPairs(model.to("cpu").float(), history, diverged)


def cross_encoder_pass(run: Run, model: CrossEncoder) -> Pass:
    """What `fit_cross_encoder` trains, and on what; adds dropout to the model."""
    config, train, validation = run.config, run.parts.train, evaluation_pairs(run)
    validation = replace(validation, grades=None)  # what an evaluation compares with is 0 or 1
    sampler = pair_sampler(_tokens_of_pairs(model, train), config.batch_size, config.seed)
    in_order = sequential_sampler(_tokens_of_pairs(model, validation), config.batch_size)
    batches = PairBatches(model, train, sampler, seed=config.seed, processes=world())
    steps_per_epoch = batches.steps
    batches.steps = steps_of(config.epochs, steps_per_epoch)
    set_dropout(model, config.dropout)
    rate = config.learning_rate or RATES.get(config.encoder, RATE)
    optimizer = adamw([(model[0], rate, config.weight_decay), (model[-1], HEAD_RATE, None)])
    evaluation = PairBatches(model, validation, in_order, both_orders=True, processes=world())
    loss = CrossEncoderLoss(model)
    return Pass(loss, model, batches, evaluation, only_item, optimizer, batches.steps, steps_per_epoch)


def _tokens_of_pairs(model: CrossEncoder, pairs: Pairs) -> NDArray[np.int64]:
    """(n_pairs,) tokens of both questions together."""
    tokens = np.fromiter(map(len, model.tokenizer(list(pairs.questions)).input_ids), np.int64, len(pairs.questions))
    return tokens[pairs.left] + tokens[pairs.right]


class CrossEncoderLoss(nn.Module):
    """A cross-encoder and its loss, as one module that the Trainer can call."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, labels: Tensor, features: dict[str, Tensor], share: int, orders: int) -> dict[str, Tensor]:
        """The cross-entropy of a batch of k pairs, and their logits (k,).

        Args:
            labels: (k,) of all pairs of the batch.
            features: inputs for the pairs that this process reads, in each order: orders * n texts, packed or padded.
            share: number of pairs that this process reads: n, or 0 if it reads one only to stay in step.
            orders: 1, or 2 if the logit of a pair is the mean over both orders.

        Raises:
            Diverged: the loss is not a finite number.
        """
        own = outputs(self.model, features)["scores"].float().view(orders, -1).mean(dim=0)[:share]  # (share,)
        logits = gather(own.unsqueeze(1), len(labels)).squeeze(1)  # (k,)
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        check_loss(loss)
        return {"loss": loss, "scores": logits.detach()}


class PairBatches:
    """A map-style dataset whose item i is the batch of step i: pairs of similar length.

    An item depends only on the seed and i, so that a resumed run gets the same batches. With several processes, item i
    is the share of process i mod processes in step i // processes: every processes-th pair.
    """

    def __init__(
        self,
        model: CrossEncoder,
        pairs: Pairs,
        sampler: Sampler,
        *,
        seed: int = 0,
        both_orders: bool = False,
        processes: int = 1,
    ) -> None:
        """Binds a pair table to a tokenizer.

        Args:
            model: whose tokenizer reads the pairs.
            pairs: labelled.
            sampler: the batches of each epoch.
            seed: of the order of each pair.
            both_orders: whether each pair appears in both orders, or in a random one.
            processes: number of processes that share the pairs of each step.
        """
        self.model, self.pairs, self.seed = model, pairs, seed
        self.packs = takes_packed(model)
        self.both_orders, self.processes = both_orders, processes
        self.sample = functools.lru_cache(maxsize=1)(sampler)
        self.steps_per_epoch = self.steps = len(sampler(0))

    def __len__(self) -> int:
        """Number of steps, times that of the processes."""
        return self.steps * self.processes

    def __getitem__(self, item: int) -> dict[str, Any]:
        """The batch of a step, for one process."""
        if not 0 <= item < len(self):
            raise IndexError(item)
        step, process = divmod(item, self.processes)
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = self.sample(epoch)[place].pairs
        share = len(rows[process :: self.processes])
        texts = [self.pairs.texts(row) for row in rows]
        if not self.both_orders:
            swapped = np.random.default_rng([self.seed, step]).random(len(rows)) < 0.5
            texts = [(b, a) if swap else (a, b) for (a, b), swap in zip(texts, swapped, strict=True)]
        own = texts[process :: self.processes] or texts[:1]  # every process takes part in every step
        features = dict(self.model.preprocess([*own, *((b, a) for a, b in own)] if self.both_orders else own))
        if self.packs:
            features = pack_padded(features)
        targets = self.pairs.labels if self.pairs.grades is None else self.pairs.grades
        return {  # the Trainer takes the size of the first tensor as the size of the batch
            "labels": torch.from_numpy(targets[rows].astype(np.float32)),
            "features": features,
            "share": share,
            "orders": 1 + self.both_orders,
        }
