from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, Trainer

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Progress, ignore
from qpairs.training.trainer import (
    COMPLETE,
    SPENT,
    Diverged,
    Observer,
    adamw,
    complete_states,
    linear_schedule,
    mark_complete,
    only_item,
    run_trainer,
    spent_seconds,
    trainer_arguments,
)

STEPS = 12


class Line(nn.Module):
    """A mock of a model: the line y = w x with the loss of one point; step `at` may have another loss."""

    def __init__(self, losses: dict[int, float] | None = None) -> None:
        super().__init__()
        self.weight, self.losses, self.calls = nn.Parameter(torch.zeros(1)), losses or {}, 0

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.weight * x
        self.calls += self.training
        loss = (scores - labels).square().mean() * self.losses.get(self.calls, 1.0)
        return {"loss": loss, "scores": scores.detach()}


POINTS = [{"x": torch.tensor([1.0 + step % 3]), "labels": torch.tensor([2.0])} for step in range(STEPS)]


def fit(
    model: Line,
    folder: Path,
    on_progress: Any = ignore,
    scores: Any = None,
    budget_minutes: float = 0.0,
    patience: int = 0,
    **more: Any,
) -> Trainer:
    """Trains a line, with states at every third step."""
    config = Config(batch_size=8, clip=1.0, precision="fp32", budget_minutes=budget_minutes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 3} if scores else {"eval_strategy": "no"}
    trainer = Trainer(
        model=model,
        args=trainer_arguments(config, nn.Sequential(model), folder, STEPS, 3, report_to="none", **options, **more),
        data_collator=only_item,
        train_dataset=POINTS,
        eval_dataset=POINTS[:2],
        compute_metrics=scores,
        callbacks=[
            Observer(config, steps_per_epoch=4, on_progress=on_progress, stage="drawing"),
            *([EarlyStoppingCallback(patience)] if patience else []),
        ],
        optimizers=(optimizer, linear_schedule(optimizer, STEPS, 0.1)),
    )
    run_trainer(trainer, folder)
    return trainer


# The optimiser


def test_vectors_never_decay_and_shared_parameters_belong_to_the_first_part() -> None:
    tower, other, head = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(2, 1)
    other.weight = tower.weight
    groups = adamw([(tower, 0.1, 0.01), (other, 0.2, 0.02), (head, 0.3, None)]).param_groups
    found = [(group["lr"], group["weight_decay"], *map(id, group["params"])) for group in groups]
    assert found == [
        (0.1, 0.01, id(tower.weight)),
        (0.1, 0.0, id(tower.bias)),
        (0.2, 0.0, id(other.bias)),
        (0.3, 0.0, id(head.weight), id(head.bias)),
    ]


# The schedule


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.5])
def test_the_rate_rises_and_falls_linearly(warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    schedule, rates = linear_schedule(optimizer, 100, warmup), []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    top = round(100 * warmup)
    naive = [2.0 * (step / top if step < top else (100 - step) / (100 - top)) for step in range(100)]
    assert rates == pytest.approx(naive, abs=1e-6)
    assert schedule.get_last_lr()[0] == 0.0


@pytest.mark.parametrize(("steps", "rates"), [(1, [1.0]), (2, [1.0, 0.5]), (9, [1.0, 8 / 9])])
def test_every_step_of_a_short_run_trains(steps: int, rates: list[float]) -> None:
    factor = linear_schedule(torch.optim.SGD([torch.zeros(1)], lr=1.0), steps, 0.1).lr_lambdas[0]
    assert [factor(step) for step in range(len(rates))] == pytest.approx(rates)


def test_a_budget_that_ends_before_the_steps_sets_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    factor = linear_schedule(torch.optim.SGD([torch.zeros(1)], lr=1.0), 100, 0.1, budget_minutes=1.0).lr_lambdas[0]
    now += 30.0  # half of the budget
    assert factor(10) == pytest.approx(0.5 / 0.9)
    assert factor(80) == pytest.approx(0.2 / 0.9)  # here the steps end first
    now += 60.0
    assert factor(10) == 0.0


def test_what_was_spent_before_an_interruption_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(Line(), tmp_path)
    assert 0 < spent_seconds(tmp_path) < 60
    state = complete_states(tmp_path)[-1]
    (state / SPENT).write_text("40.5")
    mark_complete(state)
    assert spent_seconds(tmp_path) == 40.5
    (state / SPENT).write_text("?")
    with pytest.raises(UserError, match=rf"{state.name}/{SPENT}: damaged .*; remove {state.name} to resume"):
        spent_seconds(tmp_path)
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    schedule = linear_schedule(torch.optim.SGD([torch.zeros(1)], lr=1.0), 100, 0.1, budget_minutes=1.0, spent=30.0)
    assert schedule.lr_lambdas[0](10) == pytest.approx(0.5 / 0.9)
    for spent, ends in ((0.0, False), (40.5, True)):
        observer = Observer(Config(budget_minutes=1.0), 4, spent=spent)
        state_now = SimpleNamespace(global_step=1, max_steps=9)
        control = SimpleNamespace(should_evaluate=False, should_save=False, should_training_stop=False)
        observer.on_train_begin(None, state_now, control)
        now += 20.0
        observer.on_step_end(SimpleNamespace(eval_strategy="steps"), state_now, control)
        assert control.should_training_stop == ends


# States


def test_complete_states_are_listed_in_order_and_others_are_not(tmp_path: Path) -> None:
    for step, complete in ((100, True), (20, True), (300, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if complete:
            (folder / COMPLETE).touch()
    assert [p.name for p in complete_states(tmp_path)] == ["checkpoint-20", "checkpoint-100"]


def test_the_newest_state_and_the_best_one_are_kept(tmp_path: Path) -> None:
    scores = iter([0.1, 0.9, 0.5, 0.3])

    def score(prediction: Any) -> dict[str, float]:
        return {"f1": 0.5, "average_precision": next(scores), "collapsed": 0.0}

    best = {"load_best_model_at_end": True, "metric_for_best_model": "average_precision", "greater_is_better": True}
    fit(Line(), tmp_path, scores=score, **best)
    assert [p.name for p in complete_states(tmp_path)] == ["checkpoint-6", "checkpoint-12"]
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-6"]


def test_training_goes_on_from_the_last_complete_state(tmp_path: Path) -> None:
    unbroken, broken, resumed = Line(), Line({8: float("nan")}), Line()
    fit(unbroken, tmp_path / "unbroken")
    with pytest.raises(Diverged):
        fit(broken, tmp_path / "broken")
    assert [p.name for p in complete_states(tmp_path / "broken")] == ["checkpoint-6"]
    (tmp_path / "broken" / "checkpoint-9").mkdir()  # a process died while it wrote this one
    fit(resumed, tmp_path / "broken")
    assert resumed.calls == STEPS - 6
    assert torch.equal(resumed.weight, unbroken.weight)


def test_a_pass_that_was_over_makes_no_step_more(tmp_path: Path) -> None:
    scores = iter([0.1, 0.9, 0.5, 0.3])

    def score(prediction: Any) -> dict[str, float]:
        return {"f1": 0.5, "average_precision": next(scores), "collapsed": 0.0}

    best = {"load_best_model_at_end": True, "metric_for_best_model": "average_precision", "greater_is_better": True}
    model, again = Line(), Line()
    trainer = fit(model, tmp_path, scores=score, patience=1, **best)
    assert (trainer.state.global_step, model.calls) == (9, 9)
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    resumed = fit(again, moved, scores=score, patience=1, **best)
    assert again.calls == 0
    assert torch.equal(again.weight, model.weight)
    assert resumed.state.log_history == trainer.state.log_history[:-1]  # without the times of the whole pass
    spent = Line()
    fit(spent, tmp_path / "budget", budget_minutes=1e-9)
    fit(again, tmp_path / "budget", budget_minutes=1e-9)
    assert (spent.calls, again.calls) == (1, 0)
    assert torch.equal(again.weight, spent.weight)


# Events


def test_progress_counts_steps_and_carries_the_figures(tmp_path: Path) -> None:
    seen: list[Progress] = []

    def score(prediction: Any) -> dict[str, float]:
        assert prediction.predictions.shape == prediction.label_ids.shape == (2,)
        return {"f1": 0.5, "average_precision": 0.25, "collapsed": 0.0}

    fit(Line(), tmp_path, seen.append, score)
    assert {now.stage for now in seen} == {"drawing"}
    assert [now.done for now in seen if "loss" not in now.metrics] == [0, 1]
    assert sorted({now.done for now in seen}) == list(range(STEPS + 1))
    assert all(now.total == STEPS and now.metrics["epoch"] == now.done / 4 for now in seen)
    assert next(now.done for now in seen if "f1" in now.metrics) == 3
    last = seen[-1]
    assert (last.metrics["f1"], last.metrics["average_precision"], last.metrics["collapsed"]) == (0.5, 0.25, 0.0)
    assert 0 < last.metrics["loss"] < seen[3].metrics["loss"]
    assert last.metrics["pairs_per_second"] == pytest.approx(8 * last.rate)


def test_a_collapsed_model_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Progress] = []
    fit(Line(), tmp_path, seen.append, lambda prediction: {"f1": 0.5, "average_precision": 0.25, "collapsed": 1.0})
    assert "step 3: the model has collapsed" in caplog.text
    assert seen[-1].metrics["collapsed"] == 1.0


def test_a_spent_budget_ends_the_run_with_a_state_and_an_evaluation(tmp_path: Path) -> None:
    evaluated = []

    def score(prediction: Any) -> dict[str, float]:
        evaluated.append(prediction)
        return {"f1": 0.5, "average_precision": 0.25, "collapsed": 0.0}

    trainer = fit(Line(), tmp_path, scores=score, budget_minutes=1e-9)
    assert trainer.state.global_step == 1
    assert [p.name for p in complete_states(tmp_path)] == ["checkpoint-1"]
    assert len(evaluated) == 1
