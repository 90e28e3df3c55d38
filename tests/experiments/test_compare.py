import dataclasses
import importlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas
import psutil
import pytest
from children import Started, fork_cells, start_script
from rich.console import Console
from safetensors.numpy import load_file

import qpairs
from qpairs import metrics
from qpairs.config import Config
from qpairs.core.progress import OnProgress, Progress
from qpairs.data.parts import Parts, load_parts
from qpairs.data.splits import question_components
from qpairs.experiments.cells import Arrays, Cell, Result, expand_losses, parse_list
from qpairs.experiments.compare import compare
from qpairs.experiments.differences import row_difference, with_seeds
from qpairs.experiments.processes import ProcessError
from qpairs.experiments.results import Comparison, Row
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.miners import MINERS
from qpairs.objectives.objective import parse_objective

GOOD, BAD, FAILING = "contrastive(margin=0.1)", "contrastive(margin=0.3)", "contrastive"
QUICK = {"encoders": "static", "budget_minutes": 0.02, "batch_size": 16, "seeds": 2}


HOME = importlib.import_module("qpairs.experiments.compare")  # qpairs.experiments.compare is also a function


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configs of the cells that were trained; instead of training, the margin is the share of wrong answers."""
    configs: list[Config] = []

    def train(
        config: Config, parts: Parts, functions: Any, rows: Any, on_progress: OnProgress
    ) -> tuple[Result, Arrays]:
        configs.append(config)
        on_progress(Progress("training", 7, 9, 100.0))
        Path(config.output).mkdir()
        wrong = parse_objective(config.loss).terms[0].parameters.get("margin")
        if wrong is None:
            raise ProcessError("it fell")
        pairs = parts.validation if parts.test is None else parts.test
        verdict = (pairs.labels == 1) ^ (np.random.default_rng(config.seed).random(len(pairs)) < wrong)
        f1 = metrics.confusion(verdict, pairs.labels, 0.5).f1
        report = {"average_precision": f1 / 2, "average_precision_interval": (0.1, 0.6), "retrieval": {}}
        report["collapsed"] = config.loss == BAD
        return Result(f1, (f1 - 0.1, f1 + 0.1), 0.5, 1.0, 7, 0.5, 2**30, report), {"verdict": verdict}

    monkeypatch.setattr(HOME, "train_cell", train)
    monkeypatch.setattr(HOME, "run_in_process", lambda function, log_file, on_progress: function(on_progress))
    return configs


def small(pairs_csv: Path, output: Path, **changes: object) -> Comparison:
    values = {"data": str(pairs_csv), "losses": f"{BAD},{GOOD}", **QUICK, **changes}
    return compare(output=str(output), **values)  # type: ignore[arg-type]


def as_options(values: dict[str, object]) -> list[object]:
    return [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", value)]


# ---------------------------------------------------------------------- which cells


def test_all_is_every_loss_and_each_can_be_trained() -> None:
    losses = expand_losses(["all"])
    assert len(losses) == len(LOSSES)
    assert "softmax + 0.003*center" in losses
    assert "online_contrastive + 0.6*strangers" in losses
    assert not {"center", "strangers"} & set(losses)
    assert {term.name for loss in losses for term in parse_objective(loss).terms} == set(LOSSES)
    assert expand_losses(["cosent", "all", "center"])[0] == "cosent"
    assert set(expand_losses(["cosent", "all", "center"])) == set(losses)


def test_commas_inside_parentheses_belong_to_parameters() -> None:
    listed = "info_nce(temperature=0.1), 2*(contrastive(margin=1) + multi_similarity(alpha=1, beta=2)),cosent,cosent"
    assert parse_list("losses", listed) == [
        "info_nce(temperature=0.1)",
        "2*(contrastive(margin=1) + multi_similarity(alpha=1, beta=2))",
        "cosent",
    ]


def test_a_cell_takes_what_it_has_a_use_for(tmp_path: Path) -> None:
    base = Config(vectors="glove", score="head")
    lstm = Cell("lstm", "pair_softmax", "offline", 3).config(base, tmp_path)
    assert (lstm.vectors, lstm.score, lstm.seed) == ("glove", "head", 3)
    assert (lstm.sampler, lstm.miner) == ("triplets", "everything")
    minilm = Cell("minilm", "contrastive", "semi_hard", 0).config(base, tmp_path)
    assert (minilm.vectors, minilm.score) == ("", "cosine")
    assert (minilm.sampler, minilm.miner) == ("pairs", "semi_hard")
    assert Cell("tiny", "contrastive", "groups", 0).config(base, tmp_path).sampler == "groups"


def test_files_of_different_cells_have_different_names() -> None:
    cells = [
        Cell(*choice, 0) for choice in (("a/b", "c", "d"), ("a", "b-c", "d"), ("a", "b+c", "d"), ("a", "b" * 300, "d"))
    ]
    names = {cell.name for cell in cells}
    assert len(names) == len(cells)
    assert all(len(name) < 120 and "/" not in name for name in names)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"losses": "contrastive,contrastiv"}, "did you mean 'contrastive'"),
        ({"losses": "contrastive,,cosent"}, "is empty"),
        ({"miners": "everything,semihard"}, "did you mean 'semi_hard'"),
        ({"encoders": "static,lstn"}, "lstn"),
        ({"losses": [3]}, "losses: 3 is neither a text nor a function"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 1.5}, "seeds must be a whole number"),
        ({"budget_minutes": 0.0}, "--epochs"),
        ({"data": "missing.csv"}, "no such file"),
        ({"epoch": 3}, "unknown key 'epoch'"),
    ],
)
def test_everything_is_checked_before_the_first_cell(
    trained: list[Config], pairs_csv: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(qpairs.UserError, match=words) as error:
        small(pairs_csv, tmp_path / "c", **changes)
    assert "\n" not in str(error.value)
    assert trained == []
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- rows and tables


def verdicts(folder: Path, row: Row) -> list[np.ndarray]:
    names = [record.cell.name for record in row.records]
    return [load_file(folder / "cells" / f"{name}.safetensors")["verdict"] for name in names]


def test_rows_are_set_against_the_best(trained: list[Config], pairs_csv: Path, tmp_path: Path) -> None:
    found = small(pairs_csv, tmp_path, losses=f"{FAILING},{BAD},{GOOD}")
    assert [row.loss for row in found.rows] == [GOOD, BAD, FAILING]
    best, worse, failed = found.rows
    assert best.mean("f1") == np.mean(best.values("f1"))
    assert best.sd("f1") == pytest.approx(np.std(best.values("f1"), ddof=1))
    middle = best.mean("f1")
    over_both = with_seeds(middle, (middle - 0.1, middle + 0.1), [best.values("f1")])
    assert best.interval("f1") == pytest.approx((max(over_both[0], 0.0), min(over_both[1], 1.0)))
    assert best.difference is None
    pairs = load_parts(found.config).test
    assert pairs is not None
    assert (found.part, found.n) == ("test", len(pairs))
    groups = question_components(pairs)[pairs.left]
    both = verdicts(tmp_path, worse), verdicts(tmp_path, best)
    assert worse.difference == row_difference(*both, pairs.labels, groups)
    assert worse.to_dict()["verdict"] == worse.difference.verdict
    assert worse.difference.value == pytest.approx(worse.mean("f1") - best.mean("f1"))
    assert [record.error for record in failed.records] == ["it fell", "it fell"]
    assert failed.difference is None
    assert found.notes == (f"static, {BAD}, everything has collapsed: its similarities do not vary",)


def test_with_one_seed_no_row_is_called_worse_and_that_is_said(
    trained: list[Config], pairs_csv: Path, tmp_path: Path
) -> None:
    one = small(pairs_csv, tmp_path / "one", seeds=1)
    assert one.rows[1].difference is not None
    assert one.rows[1].difference.high < 0
    assert one.rows[1].difference.verdict == "unknown"
    assert one.rows[0].interval("f1") == pytest.approx(one.rows[0].values("f1_interval")[0])
    assert sum("the variation over seeds is unknown" in note for note in one.notes) == 1
    several = small(pairs_csv, tmp_path / "several", seeds=4)
    assert several.rows[1].difference is not None
    assert several.rows[1].difference.verdict == "worse"
    assert not any("other seeds" in note for note in several.notes)


def test_runs_that_made_fewer_steps_in_the_same_time_are_named(
    trained: list[Config], pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("steps" in note for note in small(pairs_csv, tmp_path / "even").notes)
    train = HOME.train_cell

    def slow(config: Config, *rest: Any) -> tuple[Result, Arrays]:
        result, arrays = train(config, *rest)
        return dataclasses.replace(result, steps=700 if config.loss == BAD else 1400), arrays

    monkeypatch.setattr(HOME, "train_cell", slow)
    (note,) = [note for note in small(pairs_csv, tmp_path / "uneven").notes if "steps" in note]
    assert "700 to 1,400 steps in the same time" in note
    assert BAD in note
    assert GOOD not in note
    by_epochs = small(pairs_csv, tmp_path / "epochs", budget_minutes=0, epochs=1.0)
    assert not any("steps" in note for note in by_epochs.notes)


def test_every_cell_has_the_same_split_and_its_own_seed(
    trained: list[Config], pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Config] = []
    monkeypatch.setattr(HOME, "load_parts", lambda config, given: loads.append(config) or load_parts(config, given))
    small(pairs_csv, tmp_path, seed=5)
    assert [config.seed for config in loads] == [5]
    assert [config.seed for config in trained] == [5, 6, 5, 6]
    assert {config.budget_minutes for config in trained} == {0.02}


def test_the_files_say_what_the_rows_say(trained: list[Config], pairs_csv: Path, tmp_path: Path) -> None:
    found = small(pairs_csv, tmp_path, losses=f"{FAILING},{BAD},{GOOD}", miners="everything,semi_hard")
    summary, cells = (pandas.read_csv(tmp_path / name) for name in ("summary.csv", "results.csv"))
    pandas.testing.assert_frame_equal(summary, found.to_frame().fillna(np.nan), check_dtype=False)
    assert len(summary) == 6
    assert len(cells) == 12
    mean = cells.groupby(["loss", "miner"])["f1"].mean()
    assert all(mean[row.loss, row.miner] == pytest.approx(row.mean("f1"), nan_ok=True) for row in found.rows)
    assert ElementTree.parse(tmp_path / "comparison.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert not list((tmp_path / "cells").glob("*/")), "a checkpoint is left"


def test_without_a_test_part_f1_is_cross_fitted_and_that_is_said(
    trained: list[Config], pairs_csv: Path, tmp_path: Path
) -> None:
    found = small(pairs_csv, tmp_path, validation=str(pairs_csv))
    assert found.part == "validation"
    assert "cross-fitted" in found.title
    assert any("--test" in note for note in found.notes)


def test_what_stands_in_for_center_is_said(trained: list[Config], pairs_csv: Path, tmp_path: Path) -> None:
    found = small(pairs_csv, tmp_path, losses="all", seeds=1)
    assert len(found.rows) == len(LOSSES)
    assert any("center cannot be trained alone" in note for note in found.notes)
    assert not (tmp_path / "comparison.svg").exists(), "nothing finished, and there is nothing to draw"


def test_the_command_prints_cells_and_rows(run, trained: list[Config], pairs_csv: Path) -> None:
    losses = ["--losses", f"{GOOD},{BAD},{FAILING}"]
    code, out, err = run("compare", "--data", pairs_csv, "--output", "c", *losses, *as_options(QUICK))
    assert code == 0, err
    lines = [line for line in err.splitlines() if line.startswith("cell ")]
    assert [line.split("  ")[0] for line in lines] == [f"cell {n} of 6" for n in range(1, 7)]
    assert re.fullmatch(r"cell 1 of 6  static, .*, everything, seed 0  F1 0\.\d{3}  AP 0\.\d{3}", lines[0])
    assert lines[5].endswith("seed 1  failed: it fell")
    assert re.search(r"0\.1\) +0\.\d{3} ± 0\.\d{3} +0\.\d{3} ± 0\.\d{3}.* best", out)
    assert len(re.findall(r"failed: static, contrastive, everything, seed [01]: it fell", out)) == 2


def test_a_comparison_of_which_nothing_finished_is_told_by_its_exit_code(
    run, trained: list[Config], pairs_csv: Path
) -> None:
    arguments = ["--data", pairs_csv, "--output", "c", "--losses", FAILING]
    code, out, err = run("compare", *arguments, *as_options(QUICK))
    assert code == 2
    assert "failed: static, contrastive, everything, seed 0: it fell" in out
    assert err.splitlines()[-1].startswith("error: compare: no cell finished")
    assert len(list(Path("c/cells").glob("*.json"))) == 2, "what failed is kept"


# ---------------------------------------------------------------------- going on


def test_finished_cells_are_kept_and_failed_ones_tried_again(
    trained: list[Config], pairs_csv: Path, tmp_path: Path
) -> None:
    reports: list[Progress] = []

    def interrupt(now: Progress) -> None:
        reports.append(now)
        if now.done == 2 and now.note.startswith("step"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(pairs_csv, tmp_path, on_progress=interrupt)
    seen = [(now.stage, now.done, now.note.split()[0]) for now in reports]
    cells = [f"static, {loss}, everything, seed {seed}" for loss in (BAD, GOOD) for seed in (0, 1)]
    steps = [(cell, n, note) for n, cell in enumerate(cells) for note in ("loading", "step", "F1")]
    assert seen == [(cell, n + (note == "F1"), note) for cell, n, note in steps[:8]]
    assert {now.total for now in reports} == {4}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    assert len(before) == 2
    del trained[:]
    found = small(pairs_csv, tmp_path, losses=f"{BAD},{GOOD},{FAILING}")
    assert [(config.loss, config.seed) for config in trained] == [(GOOD, 0), (GOOD, 1), (FAILING, 0), (FAILING, 1)]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    del trained[:]
    again = small(pairs_csv, tmp_path, losses=f"{BAD},{GOOD},{FAILING}")
    assert [config.loss for config in trained] == [FAILING, FAILING]
    pandas.testing.assert_frame_equal(again.to_frame(), found.to_frame())


def test_a_folder_of_another_comparison_is_refused_and_can_be_overwritten(
    trained: list[Config], pairs_csv: Path, tmp_path: Path
) -> None:
    small(pairs_csv, tmp_path / "c")
    with pytest.raises(qpairs.UserError, match=r"another budget_minutes, batch_size;.*--overwrite"):
        small(pairs_csv, tmp_path / "c", budget_minutes=0.03, batch_size=32)
    changed = tmp_path / "pairs.csv"
    lines = pairs_csv.read_text().splitlines(keepends=True)
    changed.write_text("".join(lines))
    small(changed, tmp_path / "d")
    changed.write_text("".join([lines[0], *lines[:0:-1]]))  # the same pairs, in another order
    with pytest.raises(qpairs.UserError, match="another judged"):
        small(changed, tmp_path / "d")
    del trained[:]
    small(pairs_csv, tmp_path / "c", budget_minutes=0.03, overwrite=True)
    assert len(trained) == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(qpairs.UserError, match="does not hold a comparison"):
        small(pairs_csv, tmp_path / "mine", overwrite=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_checkpoints_are_kept_if_asked_for(trained: list[Config], pairs_csv: Path, tmp_path: Path) -> None:
    small(pairs_csv, tmp_path, keep_checkpoints=True)
    assert all(Path(config.output).is_dir() for config in trained)


# ---------------------------------------------------------------------- real processes


def waits_for(condition: Callable[[], bool], started: Started) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert started.process.is_alive(), started.wait()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_interrupted_and_killed_it_goes_on_and_a_diverging_loss_costs_its_own_cells(
    run, pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork_cells(monkeypatch)  # of the last command
    losses = ["--losses", "contrastive,logistic(scale=1e39)"]
    arguments = ["compare", "--data", pairs_csv, "--output", "c", *losses, *as_options(QUICK | {"seeds": 1})]
    cells = tmp_path / "c" / "cells"

    def start(how: str = "fork_cells_in_child()") -> Started:
        script = f"from children import fork_cells_in_child; {how}; from qpairs.commands import main; main()"
        return start_script(script, *arguments)

    started = start("'a cell that starts anew, with its imports'")
    waits_for(lambda: any(cells.glob("*.log")), started)
    os.killpg(started.process.pid, signal.SIGINT)  # as Ctrl-C does
    ended = started.wait()
    assert ended.returncode == 130
    assert "the same command resumes" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert "leaked" not in ended.stderr

    started = start()
    waits_for(lambda: len(list(cells.glob("*.log"))) == 2 and any(cells.glob("*.json")), started)
    children = psutil.Process(started.process.pid).children(recursive=True)
    started.process.kill()
    started.wait()
    assert psutil.wait_procs(children, timeout=120)[1] == [], "a cell outlives the comparison"
    (first,) = cells.glob("*.json")
    written = first.read_bytes()

    code, out, err = run(*arguments)
    assert code == 0, err
    assert first.read_bytes() == written
    assert len(list(cells.glob("*.json"))) == 2
    assert re.search(r"contrastive +0\.\d{3} +0\.\d{3}.* best", out)
    assert "failed: static, logistic(scale=1e39), everything, seed 0: the loss became NaN" in out
    record = json.loads(written)
    arrays = load_file(first.with_suffix(".safetensors"))
    assert metrics.confusion(arrays["verdict"], arrays["label"], 0.5).f1 == record["result"]["f1"]
    assert record["result"]["f1"] == record["result"]["report"]["f1"]
    assert arrays["component"].shape == arrays["label"].shape == (record["result"]["report"]["n"],)
    assert 0.5 < record["result"]["seconds"] < 30
    assert 2**27 < record["result"]["peak_bytes"] < 2**32
    code, _, err = run(*arguments, "--batch-size", "32")
    assert code == 2
    assert "another batch_size" in err
    assert len(err.strip().splitlines()) == 1


# ---------------------------------------------------------------------- qpairs losses


def test_losses_lists_every_row(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qpairs.commands.comparison.out", Console(width=100))
    _, shown, _ = run("losses")
    first = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert first >= {*LOSSES, *MINERS}
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert "…" not in shown
    together = " ".join(shown.split())
    for entry in (*LOSSES.values(), *MINERS.values()):
        assert entry.paper in together


def test_losses_describes_a_loss_and_the_miner_of_the_same_name(run) -> None:
    shown = " ".join(run("losses", "multi_similarity")[1].split())
    for words in ("a loss", "a miner", "Wang et al. 2019", "alpha=2 inverse temperature", "epsilon=0.1 slack"):
        assert words in shown
    assert "sampled=4096 prototypes" in " ".join(run("losses", "arcface")[1].split())
    code, _, err = run("losses", "arcfase")
    assert code == 2
    assert "did you mean 'arcface'" in err
