"""A pass of training with evaluations: the state with the best average precision on validation is kept, or the last."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_utils import EvalPrediction

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs
from qpairs.training.run import Run
from qpairs.training.trainer import (
    Diverged,
    Observer,
    check_state,
    complete_states,
    linear_schedule,
    run_trainer,
    spent_seconds,
    trainer_arguments,
)

VALIDATION_LIMIT = 4096  # validation pairs that are scored during training; the threshold is chosen on all

History = list[dict[str, Any]]


class NothingKept(UserError):
    """The loss became NaN before the first state was kept."""


@dataclass(frozen=True)
class Pass:
    """What is trained in a pass, and on what.

    Attributes:
        model: from a batch to its loss and the scores of its pairs; at the end, in its best state.
        encoder: the part whose kind decides the number format. train, validation: datasets whose item i is the batch of
        step i; without validation, the last state is kept.
        collate: from a list of one item to the inputs of the model.
        optimizer: has the peak rates.
        steps: of training.
        steps_per_epoch: of training.
    """

    model: nn.Module
    encoder: nn.Sequential
    train: Any
    validation: Any
    collate: Callable[[list[Any]], Any]
    optimizer: torch.optim.Optimizer
    steps: int
    steps_per_epoch: int


def run_pass(run: Run, work: Pass, stage: str = "training") -> tuple[History, str]:
    """Trains from the last state in the run's folder, and leaves the model in its best state.

    Args:
        run: config, and the folder of the states.
        work: what is trained.
        stage: what progress calls it.

    Returns:
        Losses and scores by step; and what happened if the loss became NaN and the last good state was restored, else
        ''.

    Raises:
        NothingKept: the loss became NaN before the first state was kept.
    """
    config, spent = run.config, spent_seconds(run.folder)
    trainer = Trainer(
        model=work.model,
        args=_arguments(run, work),
        data_collator=work.collate,
        train_dataset=work.train,
        eval_dataset=work.validation,
        compute_metrics=_validation_scores,
        callbacks=_callbacks(run, work, Observer(config, work.steps_per_epoch, run.on_progress, stage, spent)),
        optimizers=(
            work.optimizer,
            linear_schedule(work.optimizer, work.steps, config.warmup, config.budget_minutes, spent),
        ),
    )
    diverged = ""
    try:
        run_trainer(trainer, run.folder)
    except Diverged:
        diverged = f"the loss became NaN at step {min(trainer.state.global_step + 1, work.steps)}"
        _restore(work.model, run.folder, diverged)
    return _history(trainer.state.log_history, work.steps_per_epoch), diverged


def tensorboard_folder(output: str) -> Path:
    """The folder with the curves of all runs, next to a run's output, for `tensorboard --logdir`.

    >>> tensorboard_folder("runs/mine").as_posix()
    'runs/tensorboard'
    """
    return Path(output).parent / "tensorboard"


def steps_of(epochs: float, steps_per_epoch: int) -> int:
    """The steps of a number of epochs, at least one."""
    return max(1, math.ceil(steps_per_epoch * epochs))


def evaluation_pairs(run: Run) -> Pairs:
    """The validation pairs, or a sample of them if they are more than `VALIDATION_LIMIT`."""
    pairs = run.parts.validation
    if len(pairs) <= VALIDATION_LIMIT:
        return pairs
    rows = np.random.default_rng(run.config.seed).choice(len(pairs), VALIDATION_LIMIT, replace=False)
    return pairs.subset(np.sort(rows))


def _restore(model: nn.Module, folder: Path, diverged: str) -> None:
    """Loads the last good state."""
    states = complete_states(folder)
    if not states:
        shutil.rmtree(folder, ignore_errors=True)
        raise NothingKept(f"{diverged}, before the first evaluation; nothing was saved; lower --learning-rate")
    check_state(states[-1])
    model.load_state_dict(load_file(states[-1] / "model.safetensors"))


def _arguments(run: Run, work: Pass) -> TrainingArguments:
    config = run.config
    every = math.ceil(work.steps_per_epoch / config.evaluations)
    choice: dict[str, Any] = {"eval_strategy": "no"}
    if work.validation is not None:
        choice = {
            "eval_strategy": "steps",
            "eval_steps": every,
            "load_best_model_at_end": True,
            "metric_for_best_model": "average_precision",
            "greater_is_better": True,
        }
    return trainer_arguments(
        config,
        work.encoder,
        run.folder,
        work.steps,
        every,
        **choice,
        restore_callback_states_from_checkpoint=True,
        # processes that make batches ahead of a GPU; mined negatives need the model of this one
        dataloader_num_workers=4 if torch.cuda.is_available() and config.sampler != "triplets" else 0,
        report_to="none" if config.report_to == "tensorboard" else config.report_to,
    )


def _callbacks(run: Run, work: Pass, observer: Observer) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [observer]
    if run.config.report_to == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(tensorboard_folder(run.config.output) / run.folder.stem)
        callbacks.append(TensorBoardCallback(writer))  # type: ignore[no-untyped-call]
    if run.config.patience and work.validation is not None:
        callbacks.append(EarlyStoppingCallback(run.config.patience))
    return callbacks


def _validation_scores(prediction: EvalPrediction) -> dict[str, float]:
    scores, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    if not np.isfinite(scores).all():
        raise Diverged
    threshold = metrics.best_threshold(scores, labels)
    return {
        "f1": metrics.confusion(scores, labels, threshold).f1,
        "average_precision": metrics.average_precision(scores, labels),
        "collapsed": float(metrics.is_collapsed(scores)),
    }


def _history(logs: list[dict[str, float]], steps_per_epoch: int) -> History:
    """The Trainer's log as stored in a checkpoint."""
    kept = ("loss", "eval_loss", "eval_f1", "eval_average_precision")
    rows = [
        {"step": row["step"], "epoch": row["step"] / steps_per_epoch, **{k: row[k] for k in kept if k in row}}
        for row in logs
    ]
    return [row for row in rows if len(row) > 2]
