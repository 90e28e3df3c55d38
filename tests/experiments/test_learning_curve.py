from __future__ import annotations

import importlib
import itertools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas
import pytest
from conftest import refused

import qpairs
from qpairs import metrics
from qpairs.config import Config
from qpairs.core.progress import OnProgress, Progress
from qpairs.data.parts import Parts, load_parts
from qpairs.data.splits import question_components
from qpairs.experiments.cells import Arrays, Result
from qpairs.experiments.curve_plot import plot_curves
from qpairs.experiments.curves import Runs, default_sizes, fit_curve
from qpairs.experiments.learning_curve import learning_curve
from qpairs.experiments.processes import ProcessError

HOME = importlib.import_module("qpairs.experiments.compare")  # where cells are trained
OPTIONS = {"encoder": "static", "batch_size": 16}
SIZES = [12, 25, 50, 100, 200, 400]


class Trainings(list[tuple[Config, Parts]]):
    """The runs so far; instead of training, an answer is wrong with a probability that falls with the pairs."""

    failing: set[int]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    found = Trainings()
    found.failing = set()

    def train(config: Config, parts: Parts, *given: Any) -> tuple[Result, Arrays]:
        on_progress: OnProgress = given[-1]
        found.append((config, parts))
        on_progress(Progress("training", 7, 9, 100.0))
        if len(parts.train) in found.failing:
            raise ProcessError("it fell")
        pairs, random = parts.test or parts.validation, np.random.default_rng(config.seed)
        noise = 0.3 * len(parts.train) ** -0.3 * random.normal(size=len(pairs))
        score = (0.6 * pairs.labels + 0.2 + 2 * noise).astype(np.float32)
        verdict = score >= 0.5
        f1 = metrics.confusion(verdict, pairs.labels, 0.5).f1
        report = {"average_precision": metrics.average_precision(score, pairs.labels), "retrieval": {}}
        report["average_precision_interval"] = (0.1, 0.9)
        arrays = {"verdict": verdict, "score": score, "label": pairs.labels}
        arrays["component"] = question_components(pairs)[pairs.left]
        return Result(f1, (f1 - 0.1, f1 + 0.1), 0.5, 1.0, 7, 0.5, 2**30, report), arrays

    monkeypatch.setattr(HOME, "train_cell", train)
    monkeypatch.setattr(HOME, "run_in_process", lambda function, log_file, on_progress: function(on_progress))
    return found


def small(pairs_csv: Path, output: Path, **changes: object) -> qpairs.LearningCurve:
    values = {"data": str(pairs_csv), "seeds": 2, **OPTIONS, **changes}
    return learning_curve(output=str(output), **values)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- what is trained


def test_subsets_are_nested_and_validation_and_test_stay(trained: Trainings, pairs_csv: Path, tmp_path: Path) -> None:
    small(pairs_csv, tmp_path / "c")
    whole = load_parts(Config(data=str(pairs_csv)))
    assert {len(parts.train) for _, parts in trained} == set(default_sizes(len(whole.train)))
    rows: dict[int, list[set[tuple[str, str]]]] = {0: [], 1: []}
    for config, parts in trained:
        assert parts.validation is trained[0][1].validation
        assert parts.test is trained[0][1].test
        rows[config.seed].append({parts.train.texts(row) for row in range(len(parts.train))})
    for of_seed in rows.values():
        assert all(less < more for less, more in itertools.pairwise(of_seed))
    assert rows[0][0] != rows[1][0]
    assert rows[0][-1] == rows[1][-1]


def test_all_sizes_take_as_many_steps_and_evaluations(trained: Trainings, pairs_csv: Path, tmp_path: Path) -> None:
    small(pairs_csv, tmp_path / "steps", seeds=1, epochs=2.0)
    full = len(trained[-1][1].train)
    for config, parts in trained:
        assert config.epochs * len(parts.train) == pytest.approx(2.0 * full)
        assert config.evaluations * config.epochs == pytest.approx(2 * 2.0)
    del trained[:]
    small(pairs_csv, tmp_path / "epochs", seeds=1, epochs=2.0, equal_epochs=True)
    assert {config.epochs for config, _ in trained} == {2.0}


def test_finished_runs_are_kept_and_more_seeds_may_be_asked_for(
    trained: Trainings, pairs_csv: Path, tmp_path: Path
) -> None:
    def interrupt(now: Progress) -> None:
        if now.done == 3 and now.note.startswith("step"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(pairs_csv, tmp_path, on_progress=interrupt)
    before = len(trained) - 1
    small(pairs_csv, tmp_path)
    n = len(default_sizes(len(trained[-1][1].train)))
    assert len(trained) == 1 + 2 * n
    assert before == 3
    del trained[:]
    more = small(pairs_csv, tmp_path, seeds=3)
    assert [config.seed for config, _ in trained] == [2] * n
    assert [len(point.values) for point in more.curves["f1"].points] == [3] * n
    with pytest.raises(qpairs.UserError, match=r"holds a learning curve with another encoder;.*--overwrite"):
        small(pairs_csv, tmp_path, encoder="tiny")


def test_sizes_that_failed_are_left_out_and_named_and_too_few_are_refused(
    trained: Trainings, pairs_csv: Path, tmp_path: Path
) -> None:
    trained.failing = {25}
    found = small(pairs_csv, tmp_path / "c", sizes=SIZES)
    assert [point.pairs for point in found.curves["f1"].points] == [12, 50, 100, 200, 400]
    assert "2 runs failed, the first with: it fell" in found.notes
    trained.failing = {12, 25, 50}
    with pytest.raises(qpairs.UserError, match="3 sizes are trained; a curve needs 4: it fell"):
        small(pairs_csv, tmp_path / "d", sizes=SIZES)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": "10,20,x,40"}, "whole numbers"),
        ({"sizes": 100}, "whole numbers with commas"),
        ({"sizes": "100,200,300"}, "a curve needs 4"),
        ({"sizes": "1,20,30,40"}, "2 <= size"),
        ({"sizes": "10,20,30,4000"}, "number of training pairs"),
        ({"seeds": 0}, "learning-curve: seeds"),
        ({"seeds": 1.5}, "seeds must be a whole number"),
        ({"teacher": "minilm"}, "its own teacher"),
        ({"encoder": "lstn"}, "lstn"),
        ({"data": "missing.csv"}, "no such file"),
    ],
)
def test_everything_is_checked_before_the_first_run(
    trained: Trainings, pairs_csv: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(qpairs.UserError, match=words) as error:
        small(pairs_csv, tmp_path / "c", **changes)
    assert "\n" not in str(error.value)
    assert trained == []
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- what is said


def test_files_say_what_the_curve_says(trained: Trainings, pairs_csv: Path, tmp_path: Path) -> None:
    found = small(pairs_csv, tmp_path, sizes="400,12,25,50,100,200")
    written = json.loads((tmp_path / "learning_curve.json").read_text())
    assert written == json.loads(json.dumps(found.to_dict()))
    table = pandas.read_csv(tmp_path / "curve.csv")
    pandas.testing.assert_frame_equal(table, found.to_frame(), check_dtype=False)
    runs = pandas.read_csv(tmp_path / "results.csv")
    curve = found.curves["f1"]
    assert runs.groupby("pairs")["f1"].mean().tolist() == pytest.approx([point.mean for point in curve.points])
    assert ElementTree.parse(tmp_path / "learning_curve.svg").getroot().tag.endswith("svg")
    assert [ahead.pairs for ahead in curve.predictions] == [800, 1600]
    assert curve.backtest is not None
    assert (curve.backtest.fitted_to, curve.backtest.pairs) == (200, 400)
    assert curve.backtest.found == curve.points[-1].mean
    assert not list((tmp_path / "cells").glob("*/")), "a checkpoint is left"


def test_the_command_prints_the_table_and_what_twice_the_pairs_bring(run, trained: Trainings, pairs_csv: Path) -> None:
    sizes = ["--sizes", ",".join(map(str, SIZES))]
    code, out, err = run("learning-curve", "--data", pairs_csv, "--encoder", "static", "--seeds", 2, *sizes)
    assert code == 0, err
    assert "cell 12 of 12  400 pairs, static" in err
    words = " ".join(out.split())
    assert "800, predicted" in words
    assert "Twice the pairs (800) would add 0." in words
    assert "Fitted up to 200 pairs, it predicted 0." in words
    refused(run("learning-curve", "--data", pairs_csv, "--sizes", "10,20"), "a curve needs 4")


def test_one_seed_is_enough_and_what_it_cannot_tell_is_said(
    trained: Trainings, pairs_csv: Path, tmp_path: Path
) -> None:
    found = small(pairs_csv, tmp_path, seeds=1)
    assert any("--seeds 3" in note for note in found.notes)
    low, high = found.curves["f1"].predictions[0].gain_interval
    assert 0 <= low <= found.curves["f1"].predictions[0].gain <= high


def worlds(number: int, seeds: int = 3) -> Runs:
    """Scores of the runs of each size: a power law, and noise of the questions and of the runs."""
    random = np.random.default_rng(number)
    questions = np.concatenate([[0.0], random.normal(0, 0.015, 150)]) + random.normal(0, 0.015)
    scores = []
    for size in SIZES:
        mean = 0.9 - 0.5 * size**-0.4
        runs = mean + random.normal(0, 0.008, seeds)
        scores.append(questions[:, None] + runs[None])
    return Runs(SIZES, scores)


def test_intervals_of_gain_and_backtest_hold_the_truth_about_as_often_as_they_say() -> None:
    true_gain = 0.5 * (400**-0.4 - 800**-0.4)
    held, kept = [], []
    for number in range(40):
        curve = fit_curve("f1", worlds(number))
        low, high = curve.predictions[0].gain_interval
        held.append(low <= true_gain <= high)
        assert curve.backtest is not None
        kept.append(curve.backtest.error_interval[0] <= 0 <= curve.backtest.error_interval[1])
    assert np.mean(held) >= 0.85
    assert np.mean(kept) >= 0.85


def test_intervals_of_gain_with_one_run_of_each_of_four_sizes_hold_the_truth_too() -> None:
    true_gain, held = 0.5 * (400**-0.4 - 800**-0.4), []
    for number in range(40):
        runs = worlds(number, seeds=1)
        low, high = fit_curve("f1", Runs(SIZES[2:], runs.scores[2:])).predictions[0].gain_interval
        held.append(low <= true_gain <= high)
    assert np.mean(held) >= 0.9


def test_intervals_of_scores_lie_between_0_and_1() -> None:
    """With a run of each of four sizes, F1 was said to be up to 1.3."""
    for level in (0.97, 0.03):
        random = np.random.default_rng(0)
        scores = [level + random.normal(0, 0.02) + np.zeros((201, 1)) for _ in SIZES[2:]]
        curve = fit_curve("f1", Runs(SIZES[2:], [score.clip(0, 1) for score in scores]))
        for one in (*curve.points, *curve.predictions):
            assert 0 <= one.interval[0] < one.interval[1] <= 1


def test_no_measure_hides_another_on_the_chart(tmp_path: Path) -> None:
    """The bars of the second lay on the dots of the first, and the last tick went over the edge."""
    curves = [fit_curve(measure, worlds(0)) for measure in ("f1", "average_precision")]
    plot_curves(curves, tmp_path / "curve.svg", title="pairs")
    root = ElementTree.parse(tmp_path / "curve.svg").getroot()
    marks = [
        mark for mark in root if mark.get("class", "").split()[:1] in (["line"], ["dot"]) and mark.get("cx") != "21"
    ]
    kinds = [mark.get("class", "").split()[0] for mark in marks]
    assert kinds == sorted(kinds, reverse=True)  # dots lie on the lines
    places = [float(mark.get("cx", 0)) for mark in marks if mark.tag.endswith("circle")]
    assert len(places) == 2 * (len(SIZES) + 2)
    assert min(b - a for a, b in itertools.pairwise(sorted(places))) >= 9  # as wide as a dot


def test_intervals_are_wider_with_noisier_runs() -> None:
    def width(spread: float) -> float:
        random = np.random.default_rng(0)
        scores = [np.full((201, 1), 0.9 - 0.5 * s**-0.4) + random.normal(0, spread, (1, 3)) for s in SIZES]
        low, high = fit_curve("f1", Runs(SIZES, scores)).predictions[0].gain_interval
        return high - low

    assert width(0.02) > 2 * width(0.002)
