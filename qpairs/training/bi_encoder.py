"""Trains an encoder: batches, model and optimiser of one pass, and its result."""

from __future__ import annotations

import functools
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import nn

from qpairs.config import OPTIONS, Config
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs
from qpairs.encoders.build import build_encoder, tower_names
from qpairs.encoders.dropout import set_dropout
from qpairs.encoders.lora import add_adapters, check_adapters, merge_adapters
from qpairs.encoders.packed import pack, takes_packed
from qpairs.encoders.precision import trains_in_bf16
from qpairs.encoders.tokens import Ids, features, token_counter, token_ids, word_dropout
from qpairs.encoders.towers import is_siamese, towers
from qpairs.models.coverage import warn_of_texts
from qpairs.objectives.distillation import Distillation
from qpairs.objectives.matryoshka import prefix_lengths
from qpairs.objectives.objective import Objective
from qpairs.objectives.pair_head import PairHead, Score
from qpairs.objectives.queue import Queue
from qpairs.training.batches import Batches, TokenizedQuestions, build_label_graph, model_inputs, pair_lengths
from qpairs.training.distributed import world
from qpairs.training.hard_negatives import mine_epoch
from qpairs.training.model import PairModel
from qpairs.training.passes import Pass, evaluation_pairs, run_pass, steps_of
from qpairs.training.run import Run
from qpairs.training.samplers import Sampler, group_sampler, pair_sampler, sequential_sampler, triplet_sampler
from qpairs.training.trainer import adamw, complete_states

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
LEARNING_RATES = {"lstm": 3e-3, "cnn": 1e-3, "static": 1e-2, "tiny": 5e-4}
FINE_TUNING_RATE = 5e-5  # of pretrained encoders
SHORT_RUN_RATE = 1e-4  # of MiniLM in short runs; in longer ones it falls to the rate above
LONG_RUN = 1225  # steps, after which it is that rate
LORA_RATE = 2e-4  # of adapters
HEAD_RATE = 1e-2  # of prototypes and of a head on pairs


@dataclass(frozen=True)
class Fitted:
    """A trained encoder, on the CPU.

    Attributes:
        encoder: in its best state.
        head: the classifier that the verdict reads; None: it reads the cosine.
        history: losses and scores by step.
        diverged: what happened if the loss became NaN and the last good state was restored; else ''.
    """

    encoder: SentenceTransformer
    head: PairHead | None
    history: list[dict[str, Any]]
    diverged: str = ""


def new_encoder(config: Config, train: Pairs) -> SentenceTransformer:
    """The encoder of a config, not trained yet.

    Raises:
        UserError: it cannot be built, its vectors are shorter than one of `dims`, it cannot have the adapters that
            `lora` asks for, or vectors of two towers would be queued.
    """
    encoder = build_encoder(
        config.encoder,
        vectors=config.vectors,
        texts=train.questions,
        max_length=config.max_length,
        seed=config.seed,
        share_vectors=config.share_vectors,
        prompt=config.prompt,
        project=config.project,
    )
    warn_of_texts(token_counter(towers(encoder)[0]), list(dict.fromkeys(train.questions)), "train")
    prefix_lengths(config.dims, encoder.get_embedding_dimension() or 0)
    if config.lora:
        check_adapters(encoder, config.encoder)
    if config.queue and not is_siamese(encoder):
        raise UserError("queue: needs one tower, and this encoder has two; leave it out")
    return encoder


def fit_bi_encoder(
    run: Run,
    encoder: SentenceTransformer,
    objective: Objective,
    stage: str = "training",
    rate_factor: float = 1.0,
    taught: Floats | None = None,
) -> Fitted:
    """Trains an encoder on the training pairs, and keeps the state with the best average precision on validation.

    Without labels to evaluate with, it keeps the last state.

    Args:
        run: config, data and the folder of the states; training resumes from the last state.
        encoder: what is trained.
        objective: the loss.
        stage: what progress calls it.
        rate_factor: factor on all learning rates.
        taught: (n_questions, t) a teacher's vectors of the training questions, to be learned, too.

    Raises:
        UserError: the loss became NaN before the first state was kept.
    """
    config, (work, model) = run.config, encoder_pass(run, encoder, objective, rate_factor, taught)
    try:
        history, diverged = run_pass(run, work, stage)
    except UserError:  # a loss or a miner that is a function has returned something else
        if not complete_states(run.folder) and not config.teacher:
            shutil.rmtree(run.folder, ignore_errors=True)
        raise
    if config.lora:
        merge_adapters(encoder)
    return Fitted(encoder.to("cpu").float(), model.score.head and model.score.head.to("cpu"), history, diverged)


def encoder_pass(
    run: Run,
    encoder: SentenceTransformer,
    objective: Objective,
    rate_factor: float = 1.0,
    taught: Floats | None = None,
) -> tuple[Pass, PairModel]:
    """What `fit_bi_encoder` trains, and on what; adds adapters and dropout to the encoder."""
    config = run.config
    if config.lora:  # before the batches, which are made for the layers that there are
        add_adapters(encoder, config.lora, dropout=config.dropout, seed=config.seed)
    batches = training_batches(encoder, run)
    batches.taught = taught
    validation = None if config.without_labels else evaluation_batches(encoder, run)
    dimension = encoder.get_embedding_dimension() or 0
    learned = objective.learned_modules(int(batches.graph.cluster.max()) + 1, dimension)
    head = next((module for module in learned.values() if isinstance(module, PairHead)), None)
    score = Score(head if config.score == "head" else None, config.symmetric)
    lengths = prefix_lengths(config.dims, dimension)
    model = PairModel(
        encoder,
        objective,
        learned,
        score,
        recompute=config.gradient_cache > 0,
        lengths=lengths,
        distillation=None if taught is None else Distillation(config.distill, config.distill_weight),
        queue=Queue(config.queue, dimension, batches.graph) if config.queue else None,
    )
    steps_per_epoch = batches.steps
    batches.steps = steps_of(config.epochs, steps_per_epoch)
    if not set_dropout(encoder, config.dropout):
        _warn_of_no_dropout(config)
    optimizer = _optimizer(model, config, rate_factor, max(batches.steps, steps_per_epoch))
    return Pass(model, encoder, batches, validation, model_inputs, optimizer, batches.steps, steps_per_epoch), model


def _warn_of_no_dropout(config: Config) -> None:
    mend = "--word-dropout 0.1 masks tokens"
    if config.dropout != OPTIONS["dropout"].default:
        log.warning("dropout: %s has no dropout, so %g has no effect; %s", config.encoder, config.dropout, mend)
    if config.unlabelled and not config.word_dropout:
        log.warning("unlabelled: %s has no dropout: both copies of a question are equal; %s", config.encoder, mend)


def _optimizer(model: PairModel, config: Config, rate_factor: float, steps: int) -> torch.optim.AdamW:
    """Each tower has its own learning rate, and so have prototypes and head."""
    sides, names = list(dict.fromkeys(model.towers)), tower_names(config.encoder)
    if len(names) == 1:  # one tower, or the folder of an encoder of two
        names *= len(sides)
    parts: list[tuple[nn.Module, float, float | None]] = [
        (tower, (config.learning_rate or own_rate(name, config, steps)) * rate_factor, config.weight_decay)
        for name, tower in zip(names, sides, strict=True)
    ]
    return adamw([*parts, (model.learned, HEAD_RATE * rate_factor, None)])


def own_rate(name: str, config: Config, steps: int) -> float:
    """The learning rate of a tower if the config sets none.

    That of MiniLM, learning from labels, falls as the inverse square root of the number of steps, as the optimal rate
    of gradient descent does for a convex loss (Zinkevich 2003, theorem 1). docs/lab_book.md has the rates that were
    tried.

    Args:
        name: of the tower's encoder.
        config: the options of the run.
        steps: of an epoch, or of all epochs if that is more: part of an epoch takes the rate of a whole one.

    >>> from qpairs.config import Config
    >>> [f"{own_rate('minilm', Config(), steps):.1e}" for steps in (105, 250, 500, 1225, 5000)]
    ['1.0e-04', '1.0e-04', '7.8e-05', '5.0e-05', '5.0e-05']
    >>> own_rate("mpnet", Config(), 105), own_rate("lstm", Config(), 105)
    (5e-05, 0.003)
    """
    if config.lora:
        return LORA_RATE
    if name == "minilm" and not config.unlabelled:
        return min(SHORT_RUN_RATE, FINE_TUNING_RATE * math.sqrt(max(1.0, LONG_RUN / steps)))
    return LEARNING_RATES.get(name, FINE_TUNING_RATE)


# Batches


def training_batches(encoder: SentenceTransformer, run: Run) -> Batches:
    """The training pairs, in the batches of the config's sampler."""
    config, pairs = run.config, run.parts.train
    questions = _tokenized(encoder, pairs, config.word_dropout)
    sampler = pair_sampler(pair_lengths(questions[0], pairs), config.batch_size, config.seed)
    if config.sampler == "groups":
        size = 2 * config.batch_size  # questions, as many as in a batch of pairs
        sampler = group_sampler(build_label_graph(pairs), size, min(config.group_size, size), config.seed)
    elif config.sampler == "triplets":
        mine = functools.partial(mine_epoch, encoder, questions, pairs, config, run.folder)
        sampler = triplet_sampler(sampler, mine)
    return _batches(encoder, pairs, questions, sampler, config)


def evaluation_batches(encoder: SentenceTransformer, run: Run) -> Batches:
    """The validation pairs once, or a sample of them if they are more than `VALIDATION_LIMIT`."""
    config, pairs = run.config, evaluation_pairs(run)
    questions = _tokenized(encoder, pairs)
    sampler = sequential_sampler(pair_lengths(questions[0], pairs), config.batch_size)
    return _batches(encoder, pairs, questions, sampler, config)


def _batches(
    encoder: SentenceTransformer, pairs: Pairs, questions: list[TokenizedQuestions], sampler: Sampler, config: Config
) -> Batches:
    options: dict[str, Any] = {"symmetric": config.symmetric, "seed": config.seed, "processes": world()}
    return Batches(pairs, questions, sampler, chunk=_chunk(config, encoder), **options)


def _tokenized(encoder: SentenceTransformer, pairs: Pairs, dropped: float = 0.0) -> list[TokenizedQuestions]:
    """The questions as read by each tower, with a share of the tokens dropped at random."""
    return [
        TokenizedQuestions(
            token_ids(tower, pairs.questions),
            _batch_maker(tower),
            word_dropout(tower, dropped) if dropped else None,
        )
        for tower in dict.fromkeys(towers(encoder))
    ]


def _batch_maker(tower: SentenceTransformer) -> Callable[[Sequence[Ids]], dict[str, Any]]:
    """A function from token ids to a tower's inputs: packed ones, if it takes them."""
    padded = functools.partial(features, tower)
    if not takes_packed(tower):
        return padded
    return lambda ids: pack(ids) if all(map(len, ids)) else padded(ids)


def _chunk(config: Config, encoder: SentenceTransformer) -> int:
    """Questions in one call: all of them, or fewer on a CPU if they are padded, to limit padding."""
    packed = all(map(takes_packed, towers(encoder)))
    if config.gradient_cache or packed or torch.cuda.is_available():
        return config.gradient_cache or 2**20
    return 128 if trains_in_bf16(encoder, config.precision) else 32
