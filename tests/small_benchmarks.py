"""Benchmarks as a user runs them, on a small folder of the same shape."""

import json
import subprocess
import sys
from pathlib import Path

import pandas

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def write_folder(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    """A folder as that of the Quora pairs, of 600 rows."""
    path.mkdir(exist_ok=True)
    table = pandas.DataFrame(rows, columns=["question1", "question2", "is_duplicate"])
    table[:400].to_parquet(path / "train.parquet")
    table[400:500].to_parquet(path / "dev.parquet")
    table[500:].to_parquet(path / "test.parquet")
    table[:50].assign(is_duplicate=1).to_parquet(path / "train_extra_duplicates.parquet")
    return path


def run_benchmark(benchmark: str, folder: Path, *options: str) -> tuple[list[dict], str]:
    """The rows that a benchmark writes, and what it prints."""
    command = [sys.executable, str(BENCHMARKS / benchmark), "--json", "out.json", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    written = json.loads((folder / "out.json").read_text())
    assert {"date", "commit", "machine"} <= written.keys()
    assert all(row["name"] in " ".join(done.stdout.split()) for row in written["rows"])
    return written["rows"], done.stdout
