"""Training by sentence-transformers, for the benchmarks that stand beside it."""

from __future__ import annotations

import math
import tempfile

import datasets
import torch
from machine import Stopwatch
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import OnlineContrastiveLoss

import qpairs
from qpairs.config import Config
from qpairs.encoders.build import build_encoder
from qpairs.encoders.precision import trains_in_bf16
from qpairs.training.bi_encoder import own_rate


def train_peer(config: Config, train: qpairs.Pairs) -> tuple[SentenceTransformer, dict[str, float]]:
    """The recipe of sentence-transformers for Quora, OnlineContrastiveLoss with margin 0.5, by its own trainer.

    The learning rate is that of qpairs for as many steps: 5e-5, the trainer's own, on as many pairs as Quora has here.

    Args:
        config: encoder, epochs, batch size, warm-up, precision and seed.
        train: pairs.

    Returns:
        The encoder, and the time from the pairs to the last step, loading it included, as of a `Stopwatch`.
    """
    steps = math.ceil(len(train) / config.batch_size * max(1.0, config.epochs))
    first, second = zip(*map(train.texts, range(len(train))), strict=True)
    columns = {"sentence1": list(first), "sentence2": list(second), "label": train.labels.astype(int)}
    watch = Stopwatch()
    encoder = build_encoder(config.encoder, max_length=config.max_length)
    bf16 = trains_in_bf16(encoder, config.precision)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=encoder,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                num_train_epochs=config.epochs,
                per_device_train_batch_size=config.batch_size,
                learning_rate=own_rate(config.encoder, config, steps),
                warmup_steps=config.warmup,
                bf16=bf16,
                use_cpu=bf16 and not torch.cuda.is_available(),
                seed=config.seed,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=datasets.Dataset.from_dict(columns),
            loss=OnlineContrastiveLoss(encoder, margin=0.5),
        )
        trainer.train()
    taken = watch.read()
    return encoder.to("cpu").float(), taken
