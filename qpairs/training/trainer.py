"""What all runs of the Hugging Face Trainer share: arguments, optimiser, schedule, progress, states."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.core.files import read_text, sha256, write_text
from qpairs.core.manifests import parse_json
from qpairs.core.memory import freed_memory_kept
from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.core.shapes import inside, named, number, text
from qpairs.encoders.precision import trains_in_bf16
from qpairs.training.distributed import barrier, rank, world

log = logging.getLogger(__name__)

SPENT = "seconds.json"  # in a state: how long the run had trained
ENDED = "ended"  # in a state: the pass was over then
COMPLETE = "complete"  # marks the folder of a state whose every file is written
NEEDED = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")  # of a state


class Diverged(ArithmeticError):
    """The loss became NaN or infinite."""


def check_loss(loss: Tensor) -> None:
    """Raises Diverged if a loss on the CPU is not finite; on a GPU, `Observer` checks when the loss is logged."""
    if loss.device.type == "cpu" and not torch.isfinite(loss):
        raise Diverged


def trainer_arguments(
    config: Config, encoder: nn.Sequential, folder: Path, steps: int, every: int, **more: Any
) -> TrainingArguments:
    """The Trainer's arguments for a dataset whose item i is the batch of step i.

    Args:
        config: the choices of the run.
        encoder: what is trained.
        folder: for its states.
        steps: number of steps to train for.
        every: number of steps between two states, and between two evaluations if `more` has them.
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


def adamw(parts: Iterable[tuple[nn.Module, float, float | None]]) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) in which a parameter has the options of the first part that contains it.

    Args:
        parts: module, learning rate, and weight decay of its matrices; vectors never decay. None: nothing decays.

    >>> optimizer = adamw([(nn.Linear(3, 2), 0.1, 0.01)])
    >>> [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    [(0.1, 0.01), (0.1, 0.0)]
    """
    seen: set[nn.Parameter] = set()
    groups: list[dict[str, object]] = []

    def add(parameters: Iterable[nn.Parameter], rate: float, decay: float) -> None:
        fresh = [p for p in parameters if p.requires_grad and p not in seen]
        seen.update(fresh)
        if fresh:
            groups.append({"params": fresh, "lr": rate, "weight_decay": decay})

    for module, rate, decay in parts:
        if decay is not None:
            add((p for p in module.parameters() if p.ndim > 1), rate, decay)
        add(module.parameters(), rate, 0.0)
    return torch.optim.AdamW(groups, fused=True)


def linear_schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float, budget_minutes: float = 0.0, spent: float = 0.0
) -> torch.optim.lr_scheduler.LambdaLR:
    """A learning rate that rises linearly, then falls linearly to 0: over the steps, or over a budget that ends first.

    Args:
        optimizer: has the peak rates.
        steps: number of steps.
        warmup: share of the steps in which the rate rises; less than a step: it falls from the first step.
        budget_minutes: time after which the rate is 0, whatever the steps; 0: no limit.
        spent: seconds of the budget before an interruption.

    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> schedule = linear_schedule(optimizer, steps=10, warmup=0.2)
    >>> [schedule.lr_lambdas[0](step) for step in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    >>> linear_schedule(optimizer, steps=1, warmup=0.1).lr_lambdas[0](0)
    1.0
    """
    rises, budget, start = warmup * steps >= 1, budget_minutes * 60, time.monotonic() - spent

    def factor(step: int) -> float:
        done = max(step / steps, (time.monotonic() - start) / budget if budget else 0.0)
        falling = (1 - done) / max(1e-9, 1 - warmup)
        return max(0.0, min(done / warmup, falling) if rises else 1 - done)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Observer(TrainerCallback):  # the Trainer's own seam: it calls every event on every callback
    """Reports progress, ends a run whose time budget is spent, and marks states that are complete.

    Progress counts steps; its metrics are epoch, pairs_per_second and, as soon as they are known, loss (mean since the
    last report), f1 (validation, at its best threshold), average_precision (validation) and collapsed (1.0 if the
    validation similarities do not vary).
    """

    def __init__(
        self,
        config: Config,
        steps_per_epoch: int,
        on_progress: OnProgress = ignore,
        stage: str = "training",
        spent: float = 0.0,
    ) -> None:
        self.config, self.steps_per_epoch, self.on_progress, self.stage = config, steps_per_epoch, on_progress, stage
        self.metrics: dict[str, float] = {}
        self.start: tuple[float, int] | None = None
        self.spent = spent  # seconds, before an interruption

    def _report(self, state: Any, **metrics: float) -> None:
        step = state.global_step
        start_time, start_step = self.start or (time.monotonic(), step)
        rate = (step - start_step) / max(1e-9, time.monotonic() - start_time)
        self.metrics |= metrics
        figures = {"epoch": step / self.steps_per_epoch, "pairs_per_second": rate * self.config.batch_size}
        self.on_progress(Progress(self.stage, step, state.max_steps, rate, metrics={**figures, **self.metrics}))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.start = (time.monotonic(), state.global_step)
        self._report(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Reports the step, and ends a run whose budget is spent."""
        start, budget = self.start or (time.monotonic(), 0), self.config.budget_minutes * 60
        late = budget > 0 and self.spent + time.monotonic() - start[0] > budget
        if late or state.global_step == state.max_steps:
            control.should_evaluate, control.should_save = args.eval_strategy != "no", True
            control.should_training_stop = control.should_training_stop or late
        self._report(state)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Reports loss and scores, and warns if the model has collapsed.

        Raises:
            Diverged: the loss is not a finite number.
        """
        logs = kwargs["logs"]
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise Diverged
            self._report(state, loss=logs["loss"])
        if "eval_f1" in logs:
            if logs["eval_collapsed"]:
                log.warning(
                    "step %d: the model has collapsed: it maps all questions to nearly one point, and similarities no "
                    "longer vary; lower the learning rate, or choose another loss",
                    state.global_step,
                )
            self._report(state, **{name: logs[f"eval_{name}"] for name in ("f1", "average_precision", "collapsed")})

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Marks the state that was just written, and deletes all others but the best one."""
        barrier()  # every process has written its random numbers into the state
        if rank() > 0:
            return
        newest = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        seconds = self.spent + time.monotonic() - (self.start[0] if self.start else time.monotonic())
        write_text(newest / SPENT, json.dumps(seconds))
        if control.should_training_stop:
            write_text(newest / ENDED, "")
        mark_complete(newest)
        for other in complete_states(Path(args.output_dir)):
            if other != newest and str(other) != str(state.best_model_checkpoint):
                (other / COMPLETE).unlink()
                shutil.rmtree(other)


def spent_seconds(folder: Path) -> float:
    """The seconds that an interrupted run had trained when it wrote its last complete state; 0 if there is none.

    >>> spent_seconds(Path("nowhere"))
    0.0
    """
    found = complete_states(folder)
    if not found or not (file := found[-1] / SPENT).exists():  # the states of older versions have none
        return 0.0
    mend = f"remove {found[-1].name} to resume without this state, or start again with --overwrite"
    return float(parse_json(read_text(file), number(0), where=str(file), mend=mend))


def mark_complete(state: Path) -> None:
    """Marks a state as complete, with the checksum of each of its files."""
    files = (file for file in sorted(state.rglob("*")) if file.is_file() and file.name != COMPLETE)
    write_text(state / COMPLETE, json.dumps({file.relative_to(state).as_posix(): sha256(file) for file in files}))


def check_state(state: Path) -> None:
    """Raises UserError if a state has changed since it was written, so that the resumed run would differ.

    States of older versions have an empty mark; for them, only missing files are found.
    """
    written = read_text(state / COMPLETE)
    known = (
        parse_json(written, named(text, inside), where=str(state / COMPLETE)) if written else dict.fromkeys(NEEDED, "")
    )
    for name, checksum in known.items():
        found = sha256(state / name)
        if not found or (checksum and checksum != found):
            raise UserError(
                f"{state / name}: {'damaged' if found else 'missing'}, and without it the run would not resume as it "
                f"was; remove {state.name} to resume without this state, or start again with --overwrite"
            )


def complete_states(folder: Path) -> list[Path]:
    """The completely written states of an interrupted run, the oldest first."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def run_trainer(trainer: Trainer, folder: Path) -> None:
    """Trains, from the last complete state in a folder if there is one, without output on the terminal.

    If the pass had ended in that state, by its steps, `patience` or its budget, the best state is loaded without a
        step: the Trainer would make another one.
    """
    trainer.remove_callback(PrinterCallback)
    found = complete_states(folder)
    if found:
        check_state(found[-1])
    if found and (found[-1] / ENDED).exists():
        trainer.state = TrainerState.load_from_json(str(found[-1] / "trainer_state.json"))
        best = folder / Path(trainer.state.best_model_checkpoint or found[-1]).name
        check_state(best)
        assert trainer.model is not None
        trainer.model.load_state_dict(load_file(best / "model.safetensors"))
        return
    with freed_memory_kept():
        trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
