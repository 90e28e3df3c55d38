"""Losses, miners, encoders and readers of one's own follow into every command and process, and into no load."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from children import fork_cells, run_script, start_script
from conftest import refused

import qpairs
from qpairs.core import imports
from qpairs.core.exceptions import UserError
from qpairs.data.formats import FORMATS
from qpairs.experiments.custom import custom_rows, digest, names_of
from qpairs.experiments.processes import run_in_process
from qpairs.objectives import plugins
from qpairs.objectives.losses import LOSSES, LossEntry
from qpairs.objectives.miners import MINERS
from qpairs.objectives.relations import Relation

MODULE = """
import torch
from qpairs.data.formats import FORMATS, Delimited
from qpairs.objectives.losses import LOSSES, LossEntry

def gap(sim, relation, margin=0.5):
    \"\"\"Both kinds of pair a margin apart.\"\"\"
    return (margin - sim[relation.positive]).relu().sum() + (sim[relation.negative] - margin).relu().sum()

LOSSES["gap"] = LossEntry(gap, formula="hinge on both sides", in_batch=True)
FORMATS[".psv"] = lambda path: Delimited(path, "|")
"""
QUICK = {"encoders": "static", "seeds": 1, "budget_minutes": 0, "epochs": 0.2, "batch_size": 16}
COMMON = ("--encoder", "static", "--epochs", "0.2", "--batch-size", "16")


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: pytest.MonkeyPatch):
    """The tables, and the modules that were imported, are as before afterwards."""
    tables, modules = (LOSSES, MINERS, FORMATS), set(sys.modules)
    before = [dict(table) for table in tables]
    monkeypatch.setattr(imports, "_imported", {})
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)
    for name in set(sys.modules) - modules:
        if name.startswith(("my_", "broken")):
            del sys.modules[name]


@pytest.fixture
def here(tmp_path: Path, pairs_csv: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of one's own and pairs in a format of one's own."""
    monkeypatch.chdir(tmp_path)
    Path("my_losses.py").write_text(MODULE)
    rows = qpairs.load_pairs(pairs_csv).table
    rows.to_csv("pairs.psv", sep="|", index=False)
    return tmp_path


def pull(sim: torch.Tensor, relation: Relation, weight: float = 1.0) -> torch.Tensor:
    return weight * ((1 - sim[relation.positive]).sum() + sim[relation.negative].relu().sum())


def test_import_goes_with_every_command(run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fork_cells(monkeypatch)
    refused(run("train", "--data", "pairs.psv", *COMMON), "pairs.psv", "unknown kind of file")
    done = run(
        *("train", "--import", "my_losses.py", "--data", "pairs.psv", "--loss", "gap(margin=0.4) + contrastive"),
        *(*COMMON, "--output", "mine"),
    )
    assert done.code == 0, done.err
    assert run("evaluate", "mine", "--data", "pairs.psv", "--import", "my_losses.py").code == 0
    assert run("data", "pairs.psv", "--import", "my_losses").code == 0
    assert "Both kinds of pair a margin apart" in run("losses", "gap", "--import", "my_losses.py").out
    compared = run(
        *("compare", "--import", "my_losses.py", "--data", "pairs.psv", "--losses", "gap,contrastive", "--encoders"),
        *("static", "--seeds", "1", "--budget-minutes", "0", "--epochs", "0.2", "--batch-size", "16"),
    )
    assert compared.code == 0, compared.err
    assert "failed" not in compared.out
    assert "gap" in compared.out


def test_a_checkpoint_keeps_its_imports_and_loading_it_runs_nothing(here: Path) -> None:
    model = qpairs.train(data="pairs.psv", loss="gap", imports=["my_losses.py"], encoder="static", epochs=0.2)
    assert model.config.imports == ("my_losses.py",)
    Path("my_losses.py").write_text("raise SystemExit('this ran')")
    script = f"import qpairs, sys; m = qpairs.load({str(model.path)!r}); m.predict([('a b', 'c d')]); "
    script += "print('my_losses' in sys.modules, m.config.loss)"
    done = run_script(script)
    assert done.stdout.split() == ["False", "gap"], done.stderr
    Path("my_losses.py").unlink()
    assert qpairs.load(model.path).config.loss == "gap"


def test_an_interrupted_run_of_a_loss_of_ones_own_goes_on(here: Path, run) -> None:
    def stop(now: qpairs.Progress) -> None:
        if now.stage == "training" and now.done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qpairs.train(
            data="pairs.psv",
            loss="gap",
            imports=["my_losses.py"],
            encoder="static",
            output="mine",
            on_progress=stop,
        )
    code = "from qpairs.commands import main; main()"
    resume = (code, "train", "--resume", "--output", "mine")
    shutil.move("my_losses.py", "kept.py")
    done = run_script(*resume)
    assert done.returncode == 2
    assert "import: my_losses.py: no such file" in done.stderr
    shutil.move("kept.py", "my_losses.py")
    done = run_script(*resume)
    assert done.returncode == 0, done.stderr
    assert qpairs.load("mine").config.loss == "gap"


def test_functions_are_compared_from_a_script_without_a_guard(here: Path, pairs_csv: Path) -> None:
    """Every cell failed, or the script ran again in each; here its only one, in a process that starts anew."""
    Path("script.py").write_text(
        f"""
import qpairs
print("the script runs")
def gap(sim, relation):
    return (0.5 - sim[relation.positive]).relu().sum() + (sim[relation.negative] - 0.5).relu().sum()
def same(sim, relation):
    return relation
qpairs.objectives = None
found = qpairs.compare(data={str(pairs_csv)!r}, losses=[gap], miners=[same], output="cmp", **{QUICK!r})
assert [record.error for record in found.records] == [""], found.records
print(sorted(row.loss for row in found.rows))
"""
    )
    run_it = "import runpy; runpy.run_path('script.py', run_name='__main__')"
    done = run_script(run_it)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["the script runs", "['function __main__.gap']"]
    again = run_script(run_it)
    assert again.stdout == done.stdout
    assert "the script runs" not in "".join(log.read_text() for log in Path("cmp/cells").glob("*.log"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cells are trained in this process; the losses of those that were."""
    from qpairs.experiments import compare as _  # noqa: F401

    losses: list[str] = []

    def here(function, log_file, on_progress):
        losses.append(function.args[0].loss)
        return function(on_progress)

    monkeypatch.setattr(sys.modules["qpairs.experiments.compare"], "run_in_process", here)
    return losses


def test_a_cell_whose_function_changed_is_trained_again(
    trained: list[str], pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = {"data": str(pairs_csv), "output": str(tmp_path / "cmp"), **QUICK}
    strong, weak = functools.partial(pull, weight=2.0), functools.partial(pull, weight=1.0)
    found = qpairs.compare(losses=[strong, weak], **common)
    assert {row.loss for row in found.rows} == {f"function test_custom.pull(weight={w})" for w in (1.0, 2.0)}
    assert len(trained) == 2
    qpairs.compare(losses=[strong, weak, "contrastive"], **common)
    assert trained[2:] == ["contrastive"]
    monkeypatch.setattr("test_custom.digest", digest)
    monkeypatch.setattr("qpairs.experiments.custom._source", lambda function: "changed")
    qpairs.compare(losses=[strong, "contrastive"], **common)
    assert trained[3:] == ["function test_custom.pull(weight=2.0)"]


FLOOR = 0.0


def lower(sim: torch.Tensor) -> torch.Tensor:
    return (sim - FLOOR).relu().sum()


def with_weight(weight: float):
    def weighted(sim: torch.Tensor, relation: Relation) -> torch.Tensor:
        return weight * lower(sim[relation.negative]) - sim[relation.positive].sum()

    return weighted


class Weighted:
    def __init__(self, weight: float) -> None:
        self.weights = torch.tensor([weight])

    def __call__(self, sim: torch.Tensor, relation: Relation) -> torch.Tensor:
        return self.weights[0] * pull(sim, relation)


@pytest.mark.parametrize("made", [with_weight, Weighted, lambda weight: functools.partial(pull, weight=weight)])
def test_what_a_function_reads_is_part_of_its_code(made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss with another number in it kept the results of the one before."""
    assert digest([made(1.0)], []) == digest([made(1.0)], []) != digest([made(2.0)], [])
    before = digest([with_weight(1.0)], [])
    monkeypatch.setattr("test_custom.FLOOR", 0.5)
    assert digest([with_weight(1.0)], []) != before


def test_a_cell_whose_row_of_the_table_changed_is_trained_again(
    trained: list[str], pairs_csv: Path, tmp_path: Path
) -> None:
    losses = ["mine", "contrastive"]
    for weight in (1.0, 1.0, 2.0):
        LOSSES["mine"] = LossEntry(with_weight(weight), in_batch=True)
        qpairs.compare(losses=losses, data=str(pairs_csv), output=str(tmp_path / "cmp"), **QUICK)
    assert trained == ["mine", "contrastive", "mine"]


def test_rows_of_ones_own_are_sent_to_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fork_cells(monkeypatch)
    LOSSES["pull"] = LossEntry(pull)
    assert custom_rows()["losses"] == {"pull": LOSSES["pull"]}
    rows = custom_rows()

    def ask(on_progress):
        from qpairs.experiments.custom import add_rows
        from qpairs.objectives.losses import LOSSES as there

        before = "pull" in there
        add_rows(rows)
        return before, "pull" in there, os.getpid()

    before, after, process = run_in_process(ask, tmp_path / "log")
    assert (before, after) == (False, True)
    assert process != os.getpid()


def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    script = f"""
import os, pathlib, threading, time
from qpairs.experiments.processes import run_in_process
def forever(on_progress):
    pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
    time.sleep(600)
run_in_process(forever, pathlib.Path({str(tmp_path / "log")!r}))
"""
    parent = start_script(script)
    try:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 120)
        child = int((tmp_path / "pid").read_text())
    finally:
        parent.process.kill()
        parent.wait()
    wait_until(lambda: not is_running(child), 30)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    stream = (tmp_path / "open").open("w")
    with pytest.raises(UserError, match="cannot be sent to another process"):
        run_in_process(functools.partial(print, stream), tmp_path / "log")


def test_two_functions_of_one_name_are_refused() -> None:
    def named(margin):
        def loss(sim, relation):
            return sim.sum() * margin

        return loss

    with pytest.raises(UserError, match=r"two functions are called .*rename one"):
        names_of("losses", [named(1), named(2)])
    names, functions = names_of("losses", ["cosent", pull])
    assert names == ["cosent", "function test_custom.pull"]
    assert functions == {"function test_custom.pull": pull}


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("my_missing.py", None, "import: my_missing.py: no such file"),
        ("my_nothing", None, "import: no module 'my_nothing', and no file my_nothing.py here"),
        ("broken.py", "x = 1\n\nx.y\n", "import: broken.py, line 3: AttributeError: 'int' object has no attribute 'y'"),
        ("broken.py", "x = 1\nx = = 2\n", "import: broken.py, line 2: SyntaxError: invalid syntax"),
        ("broken.py", "import my_nowhere\n", "import: broken.py, line 1: ModuleNotFoundError: No module named"),
        ("json.py", "x = 1\n", "import: json.py: a module 'json' exists already"),
        ("my-losses.py", "x = 1\n", "import: my-losses.py: a module 'my-losses' exists already"),
    ],
)
def test_what_cannot_be_imported_is_one_line(run, tmp_path: Path, name: str, code: str | None, words: str) -> None:
    if code is not None:
        (tmp_path / name).write_text(code)
    refused(run("losses", "--import", name), words)
    assert "broken" not in sys.modules


def test_losses_of_installed_packages(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    points = [
        EntryPoint("pulling", "test_custom:pull", plugins.GROUP),
        EntryPoint("contrastive", "test_custom:pull", plugins.GROUP),
        EntryPoint("absent", "my_nowhere:loss", plugins.GROUP),
        EntryPoint("number", "test_custom:QUICK", plugins.GROUP),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "qpairs.losses" else [])
    plugins._add_entry_points.cache_clear()
    built_in = LOSSES["contrastive"]
    plugins.register_custom()
    plugins._add_entry_points.cache_clear()
    assert LOSSES["pulling"].function is pull
    assert LOSSES["contrastive"] is built_in
    assert [name in caplog.text for name in ("'contrastive'", "'absent'", "'number'")] == [True] * 3
