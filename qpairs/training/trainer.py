"""What every run of the Hugging Face Trainer shares here: arguments, the fall of the rate, progress, whole states."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from qpairs.config import Config
from qpairs.encoders.precision import trains_in_bf16
from qpairs.training.distributed import rank, world

log = logging.getLogger(__name__)

COMPLETE = "complete"  # marks a state folder whose every file is written


class Diverged(ArithmeticError):
    """The loss became NaN or infinite."""


def trainer_arguments(
    config: Config, encoder: nn.Sequential, folder: Path, steps: int, every: int, **more: Any
) -> TrainingArguments:
    """The Trainer's arguments for a dataset whose item i is the batch of step i.

    Args:
        config: what the run was told.
        encoder: what is trained.
        folder: where its states are kept.
        steps: to train for.
        every: so many steps a state is kept, and what `more` asks for at each state is done.
        more: further arguments.
    """
    bf16 = trains_in_bf16(encoder, config.precision)
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        train_sampling_strategy="sequential",
        max_steps=steps,
        max_grad_norm=config.clip,
        bf16=bf16,
        save_strategy="steps",
        save_steps=every,
        logging_steps=max(1, every // 20),
        logging_nan_inf_filter=False,
        label_names=["labels"],
        use_cpu=not torch.cuda.is_available() and (bf16 or world() > 1),
        ddp_find_unused_parameters=True,  # BERT has a pooler that takes no part
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        seed=config.seed,
        **more,
    )


def only_item(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The collation of a dataset whose items are whole batches."""
    (item,) = items
    return item


def linear_schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float, budget_minutes: float = 0.0
) -> torch.optim.lr_scheduler.LambdaLR:
    """A linear rise, then a linear fall to 0: over the steps, or over the budget if that ends earlier."""
    warmup, budget, start = max(warmup, 1 / steps), budget_minutes * 60, time.monotonic()

    def factor(step: int) -> float:
        done = max(step / steps, (time.monotonic() - start) / budget if budget else 0.0)
        return max(0.0, min(done / warmup, (1 - done) / max(1e-9, 1 - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@dataclass(frozen=True)
class Progress:
    """How far a run is; numbers that are not known yet are None.

    Attributes:
        step, steps: optimiser steps done, and in all.
        epoch: passes over the training pairs.
        rate: training pairs per second since the start or the resumption.
        loss: mean since the last report.
        f1, average_precision: on validation, F1 at its best threshold.
        collapsed: the validation similarities do not vary.
        phase: what is trained: `itself` (an encoder that will teach itself), `teacher` (a cross-encoder) or `encoder`;
            or `judging`: the teachers judge pairs, step of steps.
    """

    step: int
    steps: int
    epoch: float
    rate: float
    loss: float | None = None
    f1: float | None = None
    average_precision: float | None = None
    collapsed: bool = False
    phase: str = "encoder"


class Observer(TrainerCallback):  # the Trainer's own seam: it calls every event on every callback
    """Tells `on_progress` how far the run is, keeps the history, and marks states that are whole."""

    def __init__(
        self,
        config: Config,
        steps_per_epoch: int,
        on_progress: Callable[[Progress], None] | None,
        phase: str = "encoder",
    ) -> None:
        self.config, self.steps_per_epoch, self.on_progress = config, steps_per_epoch, on_progress
        self.last = Progress(0, 0, 0.0, 0.0, phase=phase)
        self.start: tuple[float, int] | None = None

    def _tell(self, step: int, steps: int, **changes: Any) -> None:
        start_time, start_step = self.start or (time.monotonic(), step)
        rate = (step - start_step) * self.config.batch_size / max(1e-9, time.monotonic() - start_time)
        self.last = dataclasses.replace(
            self.last, step=step, steps=steps, epoch=step / self.steps_per_epoch, rate=rate, **changes
        )
        if self.on_progress:
            self.on_progress(self.last)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.start = (time.monotonic(), state.global_step)
        self._tell(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tells the step, and ends a run whose budget is spent."""
        start, budget = self.start or (time.monotonic(), 0), self.config.budget_minutes * 60
        late = budget > 0 and time.monotonic() - start[0] > budget
        if late or state.global_step == state.max_steps:
            control.should_evaluate, control.should_save = args.eval_strategy != "no", True
            control.should_training_stop = control.should_training_stop or late
        self._tell(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tells loss and scores, and names a model that has collapsed.

        Raises:
            Diverged: the loss is not a finite number.
        """
        logs = kwargs["logs"]
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise Diverged
            self._tell(state.global_step, state.max_steps, loss=logs["loss"])
        if "eval_f1" in logs:
            collapsed = bool(logs["eval_collapsed"])
            if collapsed:
                log.warning(
                    "step %d: the model has collapsed: it maps all questions to nearly one point, and similarities no "
                    "longer vary; lower the learning rate, or choose another loss",
                    state.global_step,
                )
            scores = {
                "f1": logs["eval_f1"],
                "average_precision": logs["eval_average_precision"],
                "collapsed": collapsed,
            }
            self._tell(state.global_step, state.max_steps, **scores)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Marks the state that was written, and throws away those that nothing needs any more."""
        if rank() > 0:
            return
        here = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        mark(here)
        for other in states(Path(args.output_dir)):
            if other != here and str(other) != str(state.best_model_checkpoint):
                (other / COMPLETE).unlink()
                shutil.rmtree(other)


def mark(state: Path) -> None:
    """Marks a state as whole."""
    (state / COMPLETE).touch()


def states(folder: Path) -> list[Path]:
    """The whole states of an interrupted run, the oldest first: those that were written to the end."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))
