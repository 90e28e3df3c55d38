"""Pairs per second of training by several processes of one thread each, beside one of them, taking turns.

    python benchmarks/processes.py --data F.parquet --json OUT [--processes 2] [--pairs 1600] [--encoder minilm]

Each trains on the first pairs of F by the command line, once on a few and once on all: the time that is the same for
both, of starting and of judging, is taken off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import pandas
import typer
from machine import circumstances
from rich.console import Console
from rich.table import Table

import qpairs

CLI = Path(__file__).parent.parent / "cli.py"
HELD_OUT = 300  # pairs to judge on
FEW = 128  # pairs of a run whose time is that of starting and judging
console = Console(width=100)


def seconds(processes: int, encoder: str, pairs: Path, held_out: Path) -> float:
    """Time of a whole `qpairs train`, of one epoch, by so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        options = ["--data", pairs, "--validation", held_out, "--encoder", encoder, "--output", f"{folder}/checkpoint"]
        command = [sys.executable, *launcher, CLI, "train", *options, "--epochs", "1", "--evaluations", "1"]
        start = time.perf_counter()
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        taken = time.perf_counter() - start
    if done.returncode:
        raise qpairs.UserError(f"training by {processes} processes failed: {done.stderr.strip()[-500:]}")
    return taken


def main(
    data: Annotated[Path, typer.Option(help="Parquet file of question1, question2, is_duplicate.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    processes: Annotated[int, typer.Option(min=2, help="How many, of one thread each.")] = 2,
    pairs: Annotated[int, typer.Option(min=2 * FEW, help="Pairs to train on.")] = 1600,
    encoder: Annotated[str, typer.Option(help="What is trained.")] = "minilm",
) -> None:
    """Measures, prints a table and writes JSON."""
    measured_on = circumstances()
    table = pandas.read_parquet(data)
    if len(table) < pairs + HELD_OUT:
        raise typer.BadParameter(f"{data} has {len(table):,} pairs; {pairs:,} and {HELD_OUT} to judge on are needed")
    with tempfile.TemporaryDirectory() as temporary:
        few, many, held_out = (Path(temporary) / f"{name}.parquet" for name in ("few", "many", "held-out"))
        table[:FEW].to_parquet(few)
        table[:pairs].to_parquet(many)
        table[pairs : pairs + HELD_OUT].to_parquet(held_out)
        rows = []
        for count in (1, processes):
            short, whole = (seconds(count, encoder, part, held_out) for part in (few, many))
            rate = (pairs - FEW) / (whole - short)
            rows.append({"name": f"{count} of one thread", "seconds": whole, "pairs_per_second": rate})
    ratio = rows[1]["pairs_per_second"] / rows[0]["pairs_per_second"]
    shown = Table(title=f"Training {encoder} on {pairs:,} pairs", title_justify="left", box=None, pad_edge=False)
    for column in ("processes", "pairs/s", "ratio"):
        shown.add_column(column, justify="right")
    for row in rows:
        shown.add_row(
            row["name"],
            f"{row['pairs_per_second']:.1f}",
            f"{row['pairs_per_second'] / rows[0]['pairs_per_second']:.2f}",
        )
    console.print(shown)
    if json_file:
        json_file.write_text(json.dumps({"ratio": ratio, **measured_on, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
