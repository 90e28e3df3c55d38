"""How long the command line takes to answer: help, and two questions asked of an export and of a checkpoint.

    python benchmarks/startup.py --json OUT [--checkpoint FOLDER --export FOLDER] [--repeats 5]

Without folders, MiniLM is trained for a few steps on the bundled pairs, and exported in 8 bits. The commands take
turns, each in a process of its own, after one round that brings their files into memory and compiles the package, as
installing it does. Seconds are those of the clock, and of the processor: the latter are what is left where nothing else
runs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from machine import circumstances
from rich.console import Console
from rich.table import Table

import qpairs
from qpairs.commands.terminal import quiet
from qpairs.export.export import export_checkpoint

CLI = Path(__file__).parents[1] / "cli.py"
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
QUESTIONS = ("How do I reset my password?", "I forgot my password.")
AIMS = {"help": 0.3, "export": 0.5, "checkpoint": 2.0}  # seconds
console = Console(width=100)


def run_once(arguments: list[str]) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a command takes; its process alone is counted."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(CLI), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=COMPILED
    )
    _, code, used = os.wait4(process.pid, 0)
    process.returncode = code
    if code:
        raise RuntimeError(f"{arguments[0]} ended with {code}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime


def make_models(folder: Path) -> tuple[Path, Path]:
    """A checkpoint of MiniLM and its export."""
    checkpoint, export = folder / "checkpoint", folder / "export"
    with quiet():
        qpairs.train(encoder="minilm", epochs=0.02, max_length=16, evaluations=1, output=str(checkpoint))
        export_checkpoint(checkpoint, export, max_loss=1.0)
    return checkpoint, export


def measure(checkpoint: Path, export: Path, repeats: int) -> list[dict[str, Any]]:
    """The median times of each command."""
    commands = {
        "help": ["--help"],
        "export": ["predict", str(export), *QUESTIONS],
        "checkpoint": ["predict", str(checkpoint), *QUESTIONS],
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(repeats + 1):
        for name, arguments in commands.items():
            seconds = run_once(arguments)
            if turn:
                taken[name].append(seconds)
    return [
        {
            "name": name,
            "seconds": statistics.median(clock for clock, _ in found),
            "cpu_seconds": statistics.median(processor for _, processor in found),
            "aim": AIMS[name],
        }
        for name, found in taken.items()
    ]


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint that is there already.")] = None,
    export: Annotated[Path | None, typer.Option(help="An export that is there already.")] = None,
    repeats: Annotated[int, typer.Option(help="Turns of which the median is taken.")] = 5,
) -> None:
    """Measures, prints a table and writes JSON."""
    measured_on = circumstances()
    with tempfile.TemporaryDirectory() as folder:
        models = (checkpoint, export) if checkpoint and export else make_models(Path(folder))
        rows = measure(*models, repeats)
    table = Table(title="From the start of a command to its end", box=None, pad_edge=False)
    for column in ("", "seconds", "processor seconds", "aim"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(row["name"], f"{row['seconds']:.2f}", f"{row['cpu_seconds']:.2f}", f"{row['aim']:.1f}")
    console.print(table)
    if json_file:
        json_file.write_text(json.dumps({**measured_on, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
