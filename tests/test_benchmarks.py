"""The benchmarks in this process: that they can be imported and called, what they compute, and their tables.

`test_benchmark_runs.py` runs each as the README says, and `test_benchmark_measures.py` holds what is aimed at.
"""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import typer
from conftest import write_csv
from small_benchmarks import BENCHMARKS, write_folder
from typer.testing import CliRunner

import qpairs
from qpairs.objectives.losses import LOSSES

SCRIPTS = sorted(file.stem for file in BENCHMARKS.glob("*.py") if "typer.run(main)" in file.read_text())


@pytest.fixture(scope="module")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a benchmark as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))

        @cache
        def load(name: str) -> ModuleType:
            spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, spec.name, module)
            spec.loader.exec_module(module)
            return module

        yield load


def command(module: ModuleType) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(module.main)
    return app


def run(module: ModuleType, json_file: Path, *options: object) -> tuple[list[dict], str]:
    """The rows that a benchmark writes, and what it prints."""
    done = CliRunner().invoke(command(module), ["--json", str(json_file), *map(str, options)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    written = json.loads(json_file.read_text())
    assert {"date", "commit", "machine"} <= written.keys()
    return written["rows"], " ".join(done.output.split())


def test_the_benchmarks_are_found() -> None:
    assert len(SCRIPTS) > 15
    assert {"quora", "losses", "encode", "train", "serve"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_can_be_imported_and_knows_its_options(name: str, script: Callable[[str], ModuleType]) -> None:
    app = command(script(name))
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    options = [option for option in typer.main.get_command(app).params if not getattr(option, "hidden", False)]
    assert options
    assert all(option.opts[0] in shown.output for option in options if option.opts[0].startswith("--"))
    wrong = CliRunner().invoke(app, ["--nothing", "1"])
    assert wrong.exit_code == 2
    assert "--nothing" in wrong.output


# ---------------------------------------------------------------------- in their smallest form


def test_quora_trains_and_judges_on_dev_and_test(
    script: Callable[[str], ModuleType], sample_rows: list, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "quora", sample_rows)
    options = ("--data", folder, "--encoders", "static", "--no-untrained", "--output", tmp_path / "runs")
    rows, shown = run(script("quora"), tmp_path / "out.json", *options)
    assert [(row["name"], row["seed"]) for row in rows] == [("static", 0)]
    assert all(0 < row["test_f1"] < 1 and 0 < row["dev_f1"] < 1 for row in rows)
    assert "static" in shown


def test_labels_that_err_are_judged_in_simulated_corpora(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    rows, told = run(script("annotators"), tmp_path / "out.json", "--corpora", "1")
    assert len(rows) == 8
    assert all(0 <= row["inside"] <= 1 and 0 < row["f1_share"] <= 1 for row in rows)
    assert "both, by how often each is right" in told


def test_duplicates_are_counted_for_each_kind_of_pair(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    pairs = [("Sort in C++?", "Sort in C#?", 0), ("Sort in Go 1?", "Sort in Go 2?", 1), ("How to pay?", "Pay how?", 1)]
    data = write_csv(tmp_path / "pairs.csv", pairs)
    rows, shown = run(script("kinds"), tmp_path / "out.json", "--data", data)
    (found,) = (row for row in rows if row["kind"] == "one word")
    assert (found["value"], found["pairs"], found["duplicates"]) == ("a name, a number or a sign", 2, 0.5)
    assert "3 pairs, 66.7% of them duplicates" in shown


def test_a_model_of_one_stage_has_no_second_look_to_measure(
    script: Callable[[str], ModuleType], checkpoint: qpairs.Checkpoint, pairs_csv: Path
) -> None:
    with pytest.raises(qpairs.UserError, match="no model of two stages"):
        script("second_look").main(model=checkpoint.path, data=pairs_csv)


# ---------------------------------------------------------------------- what they compute


def gradient(losses: ModuleType, case: object, side: str, n: int, members: int) -> torch.Tensor:
    """Along the sphere, where it does not matter whether a loss normalises, and of length 1."""
    embeddings, classes = losses.questions(n, members)
    losses.step(losses.loss_of(case, side, n, classes), embeddings)
    x, g = embeddings.detach(), embeddings.grad
    along = g - (g * x).sum(1, keepdim=True) * x
    return along / along.norm()


def test_losses_are_measured_on_the_same_work_as_those_of_the_peers(script: Callable[[str], ModuleType]) -> None:
    losses = script("losses")
    own_start = {"pair_softmax", *(name for name, entry in LOSSES.items() if entry.prototypes)}
    for case, peers in losses.PEERS.items():
        if case.loss in own_start:  # what they learn starts elsewhere than with the peers
            continue
        for members in (2, 4) if case.over == "labels" else (2,):
            expected = gradient(losses, case, "qpairs", 32, members)
            for side in peers:
                cosine = (gradient(losses, case, side, 32, members) * expected).sum()
                assert cosine > (0.95 if side == "PML" else 0.999), (case, side)


def test_every_loss_has_work_to_be_measured_on(script: Callable[[str], ModuleType]) -> None:
    losses = script("losses")
    for name in LOSSES:
        for case in losses.cases_of(name):
            embeddings, classes = losses.questions(8, 2)
            losses.step(losses.loss_of(case, "qpairs", 8, classes), embeddings)
            assert embeddings.grad.isfinite().all(), case


def test_planted_labels_are_inverted_and_told(script: Callable[[str], ModuleType], sample_rows: list) -> None:
    pairs = qpairs.load_pairs(sample_rows)
    noisy, planted = script("audit").plant(pairs, 0.1, seed=0)
    assert planted.sum() == round(0.1 * len(pairs))
    assert ((noisy.labels != pairs.labels) == planted).all()


def test_a_corpus_is_thinned_to_few_duplicates(script: Callable[[str], ModuleType]) -> None:
    intents = {f"question {i}": f"intent {i // 4}" for i in range(80)}
    for two, allowed in ((0.0, {1}), (0.5, {1, 2}), (1.0, {2})):
        kept = script("start").thinned(list(intents), intents, two, seed=0)
        counts = np.unique([intents[question] for question in kept], return_counts=True)[1]
        assert len(counts) == 20
        assert set(counts.tolist()) == allowed


def test_the_median_of_the_rounds_is_kept_beside_the_floor(script: Callable[[str], ModuleType]) -> None:
    row = {
        "side": "ST",
        "precision": "fp32",
        "tokens_per_pair": 20.0,
        "mib": 9.0,
        "f1": 0.5,
        "average_precision": 0.5,
    }
    (found,) = script("train").summary([{**row, "pairs_per_second": rate} for rate in (1.0, 5.0, 3.0)], tokens=20.0)
    assert found["pairs_per_second"] == 3.0
    assert found["floor"] > 0


# ---------------------------------------------------------------------- tables of given rows

SIDES = [
    {"side": side, "precision": "fp32", "pairs_per_second": rate, "tokens_per_pair": 21.5, "floor": 90.0, "mib": 1234.0}
    | {"f1": 0.712, "average_precision": 0.801}
    for side, rate in (("qpairs", 30.0), ("ST", 10.0))
]
ENCODED = {
    "tokens": 11.5,
    "judged": 1000,
    "operations": 2e8,
    "rates": {"fp32": 6e10},
    "ratio": 4.5,
    "ratio_to_hand_made": 1.25,
    "rows": [
        {"name": "qpairs onnx", "questions_per_second": 1234.0, "ratio": 4.5, "over_floor": 1.5, "tokenising": 0.1}
        | {"f1": 0.71, "f1_lost": 0.002, "mib": 12.0}
    ],
    "aims": [
        {"instructions": "amx_bf16", "peer": "sentence-transformers", "aim": 6.0, "found": None},
        {"instructions": "avx512_vnni", "peer": "sentence-transformers", "aim": 4.5, "found": 4.75},
    ],
}
SERVED = {
    "questions": 1000,
    "encoding_rate": 4321.0,
    "rows": [
        {"name": "micro-batches", "clients": 8, "requests_per_second": 812.0, "p50_ms": 9.0, "p99_ms": 21.5}
        | {"requests_per_batch": 3.5, "ratio": 2.25, "p99_ratio": 0.75}
    ],
    "aims": [{"figure": "p99_ms", "clients": 8, "aim": 30.0, "found": 21.5}],
    "memory": {"minutes": 10.0, "requests": 5000, "mib_early": 200.0, "mib_late": 201.5, "p99_ms": 22.0},
}
FAILURES = [
    {"name": name, "augment": share, "dev_f1": 0.6}
    | {"failures": [{"source": "suite", "kind": "negation", "duplicate": False, "n": 50, "failures": failed}]}
    for name, share, failed in (("before", 0.0, 25), ("after", 0.2, 5))
]
FOUND = [
    {"name": "qpairs", "size": size, "seconds": seconds, "extrapolated": False, "gib": 0.5, "pairs": 4000}
    | {"missed": 3, "below": 2, "recall": 0.9987}
    for size, seconds in ((1000, 1.0), (4000, 8.0))
]
SEARCH = {"vectors": 4000, "dimension": 384, "kind": "hnsw", "effort": 64, "build_seconds": 3.0}
SEARCH |= {"ms_median": 0.5, "ms_95": 0.75, "recall_at_10": 0.991}
GAIN = {"value": 0.0123, "low": -0.001, "high": 0.02}
LABELS = [
    {"name": "50 labels", "labels": 50, "how": "calibrated", "corpus_f1": 0.4, "corpus_best_f1": 0.5}
    | {"f1": f1, "average_precision": 0.7}
    for f1 in (0.6, 0.7)
]
TABLES: list[tuple[str, tuple[Any, ...], list[str]]] = [
    ("train", (SIDES, "Training"), ["qpairs, fp32", "sentence-transformers, fp32", "3.00", "9.00", "1,234", "0.801"]),
    ("encode", (ENCODED,), ["qpairs onnx", "1,234", "4.50", "this machine lacks them", "found 4.75", "+0.002"]),
    ("serve", (SERVED,), ["micro-batches", "812.0", "21.5", "2.25", "aim 30, found 21.5", "from 200.0 to 201.5 MiB"]),
    ("robustness", (FAILURES,), ["negation", "50.0 (", "10.0 (", "no duplicate", "dev F1 0.600"]),
    ("dedupe", (FOUND, SEARCH, 0.93), ["n^1.50", "0.9987", "recall@10 0.991", "at or above 0.930"]),
    ("audit", ([{"name": "as they are", "pairs": 480, "dev_f1": [0.5, 0.6], "gain": GAIN}],), ["0.5500 ±", "+0.0123"]),
    ("few_labels", (LABELS, "Few"), ["50 labels", "0.650 ± 0.071", "0.400 ± 0.000"]),
    ("corpus_training", ([{"name": "cosent", "minutes": 1.5, "test_f1": 0.61}],), ["cosent", "0.610", "test: pair F1"]),
    ("second_look", ("Pairs", [{"name": "both", "pairs_per_second": 12.25, "read": 7}]), ["both", "12.250", "7"]),
    (
        "scale",
        ([{"name": "qpairs", "size": 500_000, "seconds": 61.0, "failed": "no room"}],),
        ["500,000", "(no room)"],
    ),
]


@pytest.mark.parametrize(("name", "given", "words"), TABLES, ids=[name for name, *_ in TABLES])
def test_a_table_shows_its_rows(
    name: str,
    given: tuple[Any, ...],
    words: list[str],
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
) -> None:
    script(name).show(*given)
    shown = " ".join(capsys.readouterr().out.split())
    assert [word for word in words if word not in shown] == [], shown
