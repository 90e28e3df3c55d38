"""The benchmarks run as the README says, on a small folder of the same shape."""

import json
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def folder(sample_rows: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quora")
    table = pandas.DataFrame(sample_rows, columns=["question1", "question2", "is_duplicate"])
    table[:400].to_parquet(path / "train.parquet")
    table[400:500].to_parquet(path / "dev.parquet")
    table[500:].to_parquet(path / "test.parquet")
    table[:50].assign(is_duplicate=1).to_parquet(path / "train_extra_duplicates.parquet")
    return path


def run(folder: Path, tmp_path: Path, *options: str) -> list[dict]:
    command = [sys.executable, str(BENCHMARKS / "quora.py"), "--data", str(folder), "--json", "out.json", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert {"date", "commit", "machine"} <= written.keys()
    assert all(row["name"] in done.stdout for row in written["rows"])
    return written["rows"]


def test_quora_trains_and_judges_on_dev_and_test(folder: Path, tmp_path: Path) -> None:
    rows = run(folder, tmp_path, "--encoders", "static", "--no-untrained", "--seeds", "2")
    assert [(row["name"], row["seed"]) for row in rows] == [("static", 0), ("static", 1)]
    assert all(0 < row["test_f1"] < 1 and 0 < row["dev_f1"] < 1 for row in rows)


@pytest.mark.slow
def test_quora_runs_the_peer_and_the_recipe(folder: Path, tmp_path: Path) -> None:
    rows = run(folder, tmp_path, "--encoders", "none", "--peer", "--pairs", "128", "--recipe")
    names = [row["name"] for row in rows]
    assert names == [
        "minilm, untrained",
        "static + glove, untrained",
        "sentence-transformers",
        "best recipe",
    ]
