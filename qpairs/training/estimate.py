"""The time and memory of a run, estimated from a few real steps: `qpairs train --dry-run`."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from qpairs.config import Config
from qpairs.core.memory import peak_memory
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.encoders.precision import trains_in_bf16
from qpairs.training.bi_encoder import encoder_pass, new_encoder
from qpairs.training.cross_encoder import cross_encoder_of, cross_encoder_pass
from qpairs.training.fit import Plan, plan_run
from qpairs.training.names import ITSELF
from qpairs.training.options import TrainOptions, shows_options
from qpairs.training.passes import Pass
from qpairs.training.run import Run

TRIED, LONGEST = 12, 20.0  # steps, and seconds, that an estimate takes at most; the first step warms up


@dataclass(frozen=True)
class Estimate:
    """The time and memory that a run will take on this machine.

    Attributes:
        config: its options, with its output folder.
        split: of its data, as a checkpoint stores it.
        parameters: number of trained parameters.
        steps: of training; fewer if the time budget or patience ends it first.
        step_seconds: of a step, median of the timed ones.
        evaluations: on validation, during training.
        evaluation_seconds: of one.
        peak_bytes: greatest memory while the steps were tried: of the GPU, or else of the process.
        tried: steps that were timed.
        without: what the estimate leaves out: a teacher, with the pairs and passes that it adds, or a reranker.
    """

    config: Config
    split: Mapping[str, Any]
    parameters: int
    steps: int
    step_seconds: float
    evaluations: int
    evaluation_seconds: float
    peak_bytes: int
    tried: int
    without: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of training with its evaluations, limited by the budget."""
        found = self.steps * self.step_seconds + self.evaluations * self.evaluation_seconds
        budget = 60 * self.config.budget_minutes
        return min(found, budget) if budget else found


@shows_options
def estimate(
    config: Config | None = None,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
    **options: Unpack[TrainOptions],
) -> Estimate:
    """Estimates a training run: loads its data, builds its model, and times a few real steps.

    Nothing is written. The steps are spread over an epoch, so that short and long questions count.

    Args:
        config: the choices of the run; None: the defaults.
        overwrite: whether the run may replace the model of `output`, as in `train`.
        on_progress: called at every step that is tried.
        options: fields of `Config`, as in `train`.

    Raises:
        UserError: something that the user can fix, as `train` would say it.

    >>> found = estimate(data="mine.csv", encoder="minilm")  # doctest: +SKIP
    >>> f"{found.steps} steps, {found.seconds / 60:.0f} minutes"  # doctest: +SKIP
    '188 steps, 2 minutes'
    """
    return estimate_plan(plan_run(config, options, overwrite=overwrite), on_progress)


def estimate_plan(plan: Plan, on_progress: OnProgress = ignore) -> Estimate:
    """The estimate of a run that is planned.

    Args:
        plan: the run.
        on_progress: called at every step that is tried.
    """
    config = plan.config
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, plan.parts, Path(folder))
        if plan.guides is None:
            work = cross_encoder_pass(run, cross_encoder_of(config, plan.parts.train))
        else:
            work, _ = encoder_pass(run, new_encoder(config, plan.parts.train), plan.guides.objective)
        times = _timed(work, config, on_progress)
        evaluation = 0.0 if work.validation is None else _evaluation_seconds(work, config)
    every = work.steps_per_epoch / config.evaluations
    return Estimate(
        config=config,
        split=plan.parts.split,
        parameters=sum(p.numel() for p in work.model.parameters() if p.requires_grad),
        steps=work.steps,
        step_seconds=statistics.median(times[1:] or times),
        evaluations=0 if work.validation is None else max(1, round(work.steps / every)),
        evaluation_seconds=evaluation,
        peak_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory(),
        tried=len(times) - (len(times) > 1),
        without=_on_top(plan),
    )


def _on_top(plan: Plan) -> tuple[str, ...]:
    """What comes on top of the timed steps."""
    config = plan.config
    near = config.neighbours * len(plan.parts.train.questions)
    parts = {
        "the teachers": config.probability_teachers,
        f"their pairs of nearest questions, at most {near:,} in each pass": config.probability_teachers and near,
        f"passes towards their probabilities: {config.second_epochs:g}": ITSELF in config.probability_teachers,
        "the vectors of the teacher": config.teacher and not config.probability_teachers,
        "the reranker": config.reranker,
    }
    return tuple(name for name, there in parts.items() if there)


def _timed(work: Pass, config: Config, on_progress: OnProgress) -> list[float]:
    """The seconds of some steps, spread over an epoch; the first one warms up."""
    device, meter, times, began = _device(work.model), Meter(on_progress), list[float](), time.monotonic()
    meter.begin("trying steps", TRIED)
    for number in range(TRIED):
        start = time.perf_counter()
        inputs = _on(device, work.collate([work.train[number * work.steps_per_epoch // TRIED % len(work.train)]]))
        with _autocast(work, config, device):
            loss = work.model(**inputs)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(work.model.parameters(), config.clip)
        work.optimizer.step()
        work.optimizer.zero_grad()
        loss.item()  # waits for a GPU
        times.append(time.perf_counter() - start)
        meter.advance()
        if time.monotonic() - began > LONGEST and len(times) > 1:
            break
    return times


def _evaluation_seconds(work: Pass, config: Config) -> float:
    """The seconds of an evaluation, from the first, the middle and the last of its batches."""
    device, places, times = _device(work.model), {0, len(work.validation) // 2, len(work.validation) - 1}, []
    work.model.eval()
    with torch.no_grad(), _autocast(work, config, device):
        for place in sorted(places):
            start = time.perf_counter()
            work.model(**_on(device, work.collate([work.validation[place]])))["scores"].sum().item()
            times.append(time.perf_counter() - start)
    return statistics.mean(times) * len(work.validation)


def _device(model: nn.Module) -> torch.device:
    """The device that the Trainer would take; the model is there afterwards."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    return device


def _autocast(work: Pass, config: Config, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=trains_in_bf16(work.encoder, config.precision))


def _on(device: torch.device, inputs: Any) -> Any:
    """Nested dicts and lists with their tensors on a device."""
    if isinstance(inputs, torch.Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {name: _on(device, value) for name, value in inputs.items()}
    if isinstance(inputs, list):
        return [_on(device, value) for value in inputs]
    return inputs
