"""Cross-encoders: a transformer reads both questions of a pair at once. They are made, trained and saved here.

Far too slow to search with, they are good teachers of an encoder.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from torch import Tensor, nn
from torch.nn import functional
from transformers import Trainer

from qpairs.config import Config
from qpairs.core.files import atomic_folder
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.pairs import Pairs
from qpairs.encoders.build import build_encoder
from qpairs.encoders.dropout import set_dropout
from qpairs.training.samplers import Sampler, pair_sampler
from qpairs.training.trainer import (
    Observer,
    adamw,
    check_loss,
    linear_schedule,
    only_item,
    run_trainer,
    trainer_arguments,
)

FILE = "qpairs-teacher.json"
TRANSFORMERS = ("minilm", "mpnet", "tiny")  # among `encoders.ENCODERS`: a cross-encoder can be trained from these
RATES = {"tiny": 5e-4, "mpnet": 4e-5}  # learning rates of cross-encoders, by what they are made from
RATE = 1e-4  # of the others
HEAD_RATE = 1e-3
STATES = 4  # kept during a training, one after the other


def new_cross_encoder(name: str, *, texts: Sequence[str], max_length: int, seed: int) -> CrossEncoder:
    """A cross-encoder over an encoder's transformer: first token and mean of all tokens, and a linear map to a logit.

    Args:
        name: one of `TRANSFORMERS`.
        texts: the training questions, from which `tiny` makes its vocabulary.
        max_length: tokens of a question that are read; a pair may have twice as many.
        seed: seed of the random weights.

    Raises:
        UserError: a model or package that is missing or broken.
    """
    encoder = build_encoder(name, texts=texts, max_length=2 * max_length, seed=seed)
    transformer: Any = encoder[0]
    pooling = Pooling(transformer.get_embedding_dimension(), ["cls", "mean"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dimension = pooling.get_embedding_dimension()
        head = Dense(dimension, 1, activation_function=nn.Identity(), module_output_name="scores")
    modules = [transformer, pooling, head]
    model: CrossEncoder = CrossEncoder(modules=modules, device=str(encoder.device), num_labels=1)
    return model


def save_cross_encoder(model: CrossEncoder, path: Path, *, encoder: str, fingerprint: str) -> None:
    """Writes a folder that `CrossEncoder(path)` loads; it is complete, or not there.

    Args:
        model: what to write.
        path: the folder.
        encoder: the encoder that it was made from.
        fingerprint: fingerprint of the split that it was trained on.
    """
    with atomic_folder(path) as fresh:
        model.save_pretrained(str(fresh), create_model_card=False, safe_serialization=True)
        about = {"encoder": encoder, "fingerprint": fingerprint}
        (fresh / FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


class _CrossEncoderLoss(nn.Module):
    """A cross-encoder and its loss, as one module that the Trainer can call."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """The cross-entropy of a batch of pairs, features (k, tokens) each, labels (k,)."""
        logits = self.model(features)["scores"].float().view(-1)  # (k,)
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        check_loss(loss)
        return {"loss": loss}


class _PairBatches:
    """A map-style dataset whose item i is the batch of step i: pairs of similar length, each in a random order."""

    def __init__(self, model: CrossEncoder, pairs: Pairs, sampler: Sampler, steps: int, seed: int) -> None:
        self.model, self.pairs, self.steps, self.seed = model, pairs, steps, seed
        self.sample = functools.lru_cache(maxsize=1)(sampler)
        self.steps_per_epoch = len(sampler(0))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        if not 0 <= step < self.steps:
            raise IndexError(step)
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = self.sample(epoch)[place].pairs
        swapped = np.random.default_rng([self.seed, step]).random(len(rows)) < 0.5
        pairs = [self.pairs.texts(row)[:: -1 if swap else 1] for row, swap in zip(rows, swapped, strict=True)]
        labels = torch.from_numpy(self.pairs.labels[rows].astype(np.float32))
        return {"features": dict(self.model.preprocess(pairs)), "labels": labels}


def train_cross_encoder(
    name: str, config: Config, train: Pairs, folder: Path, on_progress: OnProgress = ignore
) -> CrossEncoder:
    """Trains a cross-encoder on labelled pairs, by cross-entropy.

    Args:
        name: one of `TRANSFORMERS`.
        config: `teacher_epochs`, batch size, dropout, warm-up, clipping, precision and seed are read.
        train: labelled pairs.
        folder: where its states are kept; training goes on from the last that is there.
        on_progress: called at every step.

    Raises:
        UserError: the encoder cannot be had.
        Diverged: the loss became NaN.
    """
    model = new_cross_encoder(name, texts=train.questions, max_length=config.max_length, seed=config.seed)
    tokens = np.fromiter(map(len, model.tokenizer(list(train.questions)).input_ids), np.int64, len(train.questions))
    sampler = pair_sampler(tokens[train.left] + tokens[train.right], config.batch_size, config.seed)
    steps_per_epoch = len(sampler(0))
    steps = max(1, math.ceil(steps_per_epoch * config.teacher_epochs))
    set_dropout(model, config.dropout)
    optimizer = adamw([(model[0], RATES.get(name, RATE), config.weight_decay), (model[-1], HEAD_RATE, None)])
    arguments = trainer_arguments(
        config, model, folder, steps, -(-steps // STATES), eval_strategy="no", report_to="none"
    )
    observer = Observer(replace(config, budget_minutes=0.0), steps_per_epoch, on_progress, "training the teacher")
    trainer = Trainer(
        model=_CrossEncoderLoss(model),
        args=arguments,
        data_collator=only_item,
        train_dataset=_PairBatches(model, train, sampler, steps, config.seed),
        callbacks=[observer],
        optimizers=(optimizer, linear_schedule(optimizer, steps, config.warmup)),
    )
    run_trainer(trainer, folder)
    return model
