"""Trains and judges the encoders on Quora pairs, beside sentence-transformers' own recipe.

    python benchmarks/quora.py --data FOLDER --json OUT [--encoders minilm,lstm] [--peer] [--extra] [--recipe]

FOLDER holds train.parquet and dev.parquet (question1, question2, is_duplicate), for --extra also
train_extra_duplicates.parquet, and test.parquet if there is one. Every threshold is chosen on dev; the F1 given for dev
is cross-fitted: each half is judged at the threshold of the other, and halves share no component.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import pandas
import typer
from machine import circumstances
from peer import train_peer
from rich.console import Console
from rich.table import Table

import qpairs
from qpairs.commands.terminal import quiet
from qpairs.config import Config, config_from, read_toml
from qpairs.data.parts import Parts, load_parts
from qpairs.encoders.build import build_encoder, encoder_note
from qpairs.training.judge import judge

HERE = Path(__file__).parent
BOTH_LOSSES: dict[str, Any] = {"loss": "2*online_contrastive + logistic", "clip": 1.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "minilm": {},
    "minilm+reranker": {"encoder": "minilm", "reranker": "minilm"},
    "cross-encoder": {"encoder": "minilm", "model": "cross-encoder"},
    "mpnet": {"encoder": "mpnet"},
    "mpnet-cross-encoder": {"encoder": "mpnet", "model": "cross-encoder"},
    "mpnet+reranker": {"encoder": "mpnet", "reranker": "mpnet"},
    "lstm": {**BOTH_LOSSES, "vectors": "glove", "epochs": 2.0, "batch_size": 128},
    "cnn": {**BOTH_LOSSES, "vectors": "glove", "epochs": 2.0, "batch_size": 128},
    "static": {**BOTH_LOSSES, "vectors": "glove", "epochs": 5.0},
    "tiny": {**BOTH_LOSSES, "epochs": 3.0},
}
DEFAULT = "minilm,lstm,cnn,static,tiny"
console = Console(width=140)


def row_of(name: str, seed: int, seconds: float, rate: float | None, checkpoint: qpairs.Model) -> dict[str, Any]:
    """A line of the results; `rate` is in training pairs per second."""
    dev, test = checkpoint.scores["validation"], checkpoint.scores.get("test")
    return {
        "name": name,
        "seed": seed,
        "seconds": seconds,
        "pairs_per_second": rate,
        "threshold": checkpoint.verdict.pair.threshold,
        "dev_f1": dev["f1_cross_fitted"],
        "dev_f1_interval": dev["f1_cross_fitted_interval"],
        "dev_average_precision": dev["average_precision"],
        "test_f1": test and test["f1"],
        "test_f1_interval": test and test["f1_interval"],
        "test_average_precision": test and test["average_precision"],
        "loss": checkpoint.config.loss,
        "epochs": checkpoint.config.epochs,
        "note": encoder_note(checkpoint.config.encoder),
    }


def run_qpairs(name: str, config: Config, folder: Path) -> dict[str, Any]:
    """Trains with qpairs; the time is that of the whole command: loading, training, judging, saving."""
    start = time.monotonic()
    rates: dict[int, float] = {}

    def on_progress(now: Any) -> None:
        figures = now.metrics
        rate = figures.get("pairs_per_second", now.rate)
        if now.stage == "training":
            rates.setdefault(now.done, rate)  # the first report of a step comes before its evaluation
        if now.done % max(1, now.total // 10) == 0:
            scores = f"loss {figures.get('loss')}, F1 {figures.get('f1')}, AP {figures.get('average_precision')}"
            console.log(f"{name}, {now.stage}: {now.done} of {now.total}, {rate:.0f} pairs/s, {scores}")

    output = folder / f"{name.replace(' ', '-')}-{config.seed}"
    checkpoint = qpairs.train(dataclasses.replace(config, output=str(output)), overwrite=True, on_progress=on_progress)
    return row_of(name, config.seed, time.monotonic() - start, rates[max(rates)], checkpoint)


def run_untrained(name: str, config: Config, parts: Parts) -> dict[str, Any]:
    """Judges an encoder as it comes."""
    start = time.monotonic()
    encoder = build_encoder(config.encoder, vectors=config.vectors, texts=parts.train.questions, seed=config.seed)
    checkpoint = judge(encoder, config, parts, [])
    return {**row_of(name, config.seed, time.monotonic() - start, None, checkpoint), "loss": "", "epochs": 0}


def run_peer(config: Config, parts: Parts) -> dict[str, Any]:
    """Trains with sentence-transformers; the time is that of training and judging."""
    encoder, taken = train_peer(config, parts.train)
    seconds = taken["seconds"]
    start = time.monotonic()
    checkpoint = judge(encoder, dataclasses.replace(config, loss="online_contrastive"), parts, [])
    whole = seconds + time.monotonic() - start
    return row_of("sentence-transformers", config.seed, whole, len(parts.train) / seconds, checkpoint)


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the results, mean and spread over seeds."""
    table = Table(title="Quora pairs, threshold chosen on dev", box=None, pad_edge=False)
    for column in ("encoder", "seeds", "minutes", "pairs/s", "dev F1", "dev AP", "test F1", "test 95 %", "test AP"):
        table.add_column(column, justify="left" if column == "encoder" else "right")
    for name in dict.fromkeys(row["name"] for row in rows):
        same = [row for row in rows if row["name"] == name]

        def mean(key: str, form: str = ".3f", same: list[dict[str, Any]] = same) -> str:
            values = [row[key] for row in same if row[key] is not None]
            spread = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
            return f"{statistics.mean(values):{form}}{spread}" if values else ""

        interval = same[0]["test_f1_interval"]
        table.add_row(
            name,
            str(len(same)),
            f"{statistics.mean(row['seconds'] for row in same) / 60:.1f}",
            mean("pairs_per_second", ".0f"),
            mean("dev_f1"),
            mean("dev_average_precision"),
            mean("test_f1"),
            f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "",
            mean("test_average_precision"),
        )
    console.print(table)


def main(
    data: Annotated[
        Path, typer.Option(help="Folder with train.parquet, dev.parquet and, if there is one, test.parquet.")
    ],
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    encoders: Annotated[str, typer.Option(help="Rows of SETTINGS, with commas; none for none.")] = DEFAULT,
    peer: Annotated[bool, typer.Option("--peer", help="Run sentence-transformers' recipe too.")] = False,
    pairs: Annotated[int | None, typer.Option(help="Train on so many of the pairs only, for a quick look.")] = None,
    extra: Annotated[bool, typer.Option("--extra", help="Train on the extra duplicates too.")] = False,
    recipe: Annotated[bool, typer.Option("--recipe", help="Train benchmarks/quora.toml too.")] = False,
    untrained: Annotated[bool, typer.Option(help="Judge MiniLM and GloVe as they come, too.")] = True,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the encoders of --encoders; without it, their own.", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds per encoder.")] = 1,
    output: Annotated[Path, typer.Option(help="Where the checkpoints go.")] = Path("runs/quora"),
) -> None:
    """Trains, judges, prints a table and writes JSON."""
    test = (str(data / "test.parquet"),) if (data / "test.parquet").exists() else ()
    train = data / "train.parquet"
    if pairs:
        output.mkdir(parents=True, exist_ok=True)
        pandas.read_parquet(train).head(pairs).to_parquet(output / f"first-{pairs}.parquet")
        train = output / f"first-{pairs}.parquet"
    common = {
        "data": (str(train), *([str(data / "train_extra_duplicates.parquet")] if extra else [])),
        "validation": (str(data / "dev.parquet"),),
        "test": test,
    }
    rows: list[dict[str, Any]] = []
    measured_on = circumstances()

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        console.log({k: row[k] for k in ("name", "seed", "seconds", "dev_f1", "dev_average_precision", "test_f1")})
        if json_file:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps({**measured_on, "rows": rows}, indent=1) + "\n")

    with quiet():
        parts = load_parts(Config(**common))
        if untrained:
            keep(run_untrained("minilm, untrained", Config(**common), parts))
            keep(run_untrained("static + glove, untrained", Config(**common, encoder="static", vectors="glove"), parts))
        for seed in range(seeds):
            for name in [e for e in encoders.split(",") if e != "none"]:
                settings = {**common, "encoder": name, "seed": seed, **SETTINGS.get(name, {})}
                settings |= {"evaluations": 1} if pairs else {}
                settings |= {"learning_rate": learning_rate} if learning_rate else {}
                keep(run_qpairs(name, config_from(settings), output))
            if peer:
                keep(run_peer(Config(**common, seed=seed), parts))
            if recipe:
                settings = {**common, **read_toml(HERE / "quora.toml"), "seed": seed}
                keep(run_qpairs("best recipe", config_from(settings), output))
    show(rows)


if __name__ == "__main__":
    typer.run(main)
