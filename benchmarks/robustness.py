"""Trains with and without generated pairs, and counts the failures of both on changed questions.

    python benchmarks/robustness.py --data FOLDER --json OUT [--encoder minilm] [--pairs N] [--augment 0.2] [--seeds 3]
    python benchmarks/robustness.py --data FOLDER --json OUT --judge BEFORE,AFTER

FOLDER holds train.parquet and dev.parquet (question1, question2, is_duplicate). Thresholds are chosen on dev; the F1
given for dev is cross-fitted. Failures are counted twice: on the questions of dev, changed by the very rules that
generated pairs to train on (from other questions), and on the pairs of suite.toml, which are written in other words.
A static encoder reads no order of words: judge word-order with lstm or minilm. With --judge, nothing is trained: the
checkpoints are evaluated that `qpairs train --validation FOLDER/dev.parquet` made with and without --augment.
"""

from __future__ import annotations

import json
import statistics
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas
import typer
from machine import circumstances
from rich.console import Console
from rich.table import Table

import qpairs
from qpairs.commands.terminal import quiet
from qpairs.config import config_from
from qpairs.evaluation.predict import predict
from qpairs.evaluation.robustness import failure_interval, probe
from qpairs.models.bi_encoder import load_checkpoint

SUITE = Path(__file__).parent / "suite.toml"
FILLED = 12  # pairs that are made of each template
console = Console(width=140)


def suite() -> list[tuple[str, str, str, bool]]:
    """Kind, two questions, whether they are duplicates: the templates of the suite, filled the same way each time."""
    content = tomllib.loads(SUITE.read_text(encoding="utf-8"))
    random = np.random.default_rng(0)
    rows: dict[tuple[str, str, str, bool], None] = {}
    for test in content["test"]:
        for templates in test["pairs"]:
            names = sorted({name for text in templates for _, name, *_ in string.Formatter().parse(text) if name})
            for _ in range(FILLED):
                chosen = {name: str(random.choice(content["fill"][name])) for name in names}
                first, second = (text.format(**chosen) for text in templates)
                rows[test["kind"], first, second, test["duplicate"]] = None
    return list(rows)


def failures(checkpoint: qpairs.Checkpoint, dev: qpairs.Pairs, cases: int, seed: int) -> list[dict[str, Any]]:
    """What goes wrong with the questions of dev, and with the suite: source, kind, expectation, n, failures."""
    found = [
        {"source": f"dev, {b.against}", "kind": b.kind, "duplicate": b.same, "n": b.n, "failures": b.failures}
        for b in probe(checkpoint, dev, cases=cases, seed=seed)
    ]
    rows = suite()
    pairs = qpairs.pairs_from_texts([row[1] for row in rows], [row[2] for row in rows], [int(row[3]) for row in rows])
    wrong = predict(checkpoint, pairs).duplicate != (pairs.labels == 1)
    for kind, duplicate in dict.fromkeys((row[0], row[3]) for row in rows):
        here = [i for i, row in enumerate(rows) if (row[0], row[3]) == (kind, duplicate)]
        counts = {"n": len(here), "failures": int(wrong[here].sum())}
        found.append({"source": "suite", "kind": kind, "duplicate": duplicate, **counts})
    return found


def row_of(checkpoint: qpairs.Checkpoint, dev: qpairs.Pairs, cases: int) -> dict[str, Any]:
    """A line of the results."""
    config, scores = checkpoint.config, checkpoint.scores["validation"]
    return {
        "name": f"{config.encoder}, {config.augment:.0%} generated",
        "seed": config.seed,
        "augment": config.augment,
        "generated": checkpoint.split.get("generated", {}),
        "dev_f1": scores["f1_cross_fitted"],
        "dev_f1_interval": scores["f1_cross_fitted_interval"],
        "dev_average_precision": scores["average_precision"],
        "failures": failures(checkpoint, dev, cases, config.seed),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Prints dev F1 and the failure rates, before and after, with their intervals over the cases of all seeds."""
    shares = list(dict.fromkeys(row["augment"] for row in rows))
    table = Table(title="Failures in %", box=None, pad_edge=False)
    table.add_column("source")
    table.add_column("kind")
    table.add_column("expected")
    for share in shares:
        scores = [row["dev_f1"] for row in rows if row["augment"] == share]
        spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
        name = next(row["name"] for row in rows if row["augment"] == share)
        table.add_column(f"{name}\ndev F1 {statistics.mean(scores):.3f}{spread}", justify="right")
    for key in dict.fromkeys((f["source"], f["kind"], f["duplicate"]) for row in rows for f in row["failures"]):
        cells = []
        for share in shares:
            same = [f for row in rows if row["augment"] == share for f in row["failures"]]
            same = [f for f in same if (f["source"], f["kind"], f["duplicate"]) == key]
            n, failed = (sum(f[name] for f in same) for name in ("n", "failures"))
            low, high = failure_interval(failed, n) if n else (0.0, 1.0)
            cells.append(f"{100 * failed / n:.1f} ({100 * low:.0f} to {100 * high:.0f}) of {n:,}" if n else "")
        source, kind, duplicate = key
        table.add_row(source, kind, "duplicate" if duplicate else "no duplicate", *cells)
    console.print(table)


def main(
    data: Annotated[Path, typer.Option(help="Folder with train.parquet and dev.parquet.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    encoder: Annotated[str, typer.Option(help="Which encoder.")] = "minilm",
    vectors: Annotated[str, typer.Option(help="What word vectors start from: glove, for static and lstm.")] = "",
    epochs: Annotated[float, typer.Option(help="Passes over the training pairs.")] = 1.0,
    augment: Annotated[float, typer.Option(help="Generated pairs, as a share of the training pairs.")] = 0.2,
    pairs: Annotated[int | None, typer.Option(help="Train on so many of the pairs only, for a quick look.")] = None,
    cases: Annotated[int, typer.Option(help="Changed questions of a kind.")] = 500,
    seeds: Annotated[int, typer.Option(help="Seeds.")] = 3,
    output: Annotated[Path, typer.Option(help="Where the checkpoints go.")] = Path("runs/robustness"),
    judge: Annotated[str, typer.Option(help="Judge these checkpoints, with commas, instead of training.")] = "",
) -> None:
    """Trains, evaluates, prints a table and writes JSON."""
    train = data / "train.parquet"
    if pairs:
        output.mkdir(parents=True, exist_ok=True)
        train = output / f"first-{pairs}.parquet"
        pandas.read_parquet(data / "train.parquet").head(pairs).to_parquet(train)
    options = {"data": [str(train)], "validation": [str(data / "dev.parquet")], "encoder": encoder, "vectors": vectors}

    def trained() -> Iterator[qpairs.Checkpoint]:
        for seed in range(seeds):
            for share in (0.0, augment):
                folder = str(output / f"{Path(encoder).name}-{share:g}-{seed}")
                config = config_from({**options, "epochs": epochs, "seed": seed, "augment": share, "output": folder})
                yield qpairs.train(config, overwrite=True)

    rows: list[dict[str, Any]] = []
    measured_on = circumstances()
    with quiet():
        dev = qpairs.load_pairs(data / "dev.parquet")
        for checkpoint in map(load_checkpoint, judge.split(",")) if judge else trained():
            rows.append(row_of(checkpoint, dev, cases))
            console.log({name: rows[-1][name] for name in ("name", "seed", "dev_f1", "dev_average_precision")})
            if json_file:
                json_file.parent.mkdir(parents=True, exist_ok=True)
                json_file.write_text(json.dumps({**measured_on, "rows": rows}, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    typer.run(main)
