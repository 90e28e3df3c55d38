"""Plants wrong labels; measures how many `qpairs audit` ranks first, and how removing or correcting them changes F1.

    python benchmarks/audit.py --data TRAIN.parquet --validation DEV.parquet --noise 0.05 --json OUT

With --noise 0 nothing is planted: the suspects of the original labels are dropped or corrected. Labels that were wrong
before count as false alarms, so that precision is a lower bound. F1 is cross-fitted: each half of the dev pairs is
judged at the threshold of the other half; their labels are not changed.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from machine import circumstances
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qpairs
from qpairs import metrics
from qpairs.commands.terminal import quiet
from qpairs.config import Config
from qpairs.data.parts import Parts, load_parts
from qpairs.data.splits import question_components
from qpairs.evaluation.calibrate import cross_fitted
from qpairs.experiments.audit import Audit, audit

console = Console(width=120)


def plant(pairs: qpairs.Pairs, share: float, seed: int) -> tuple[qpairs.Pairs, NDArray[np.bool_]]:
    """The pairs with a random share of the labels inverted, and (n,) which ones."""
    planted = np.zeros(len(pairs), dtype=np.bool_)
    planted[np.random.default_rng(seed).choice(len(pairs), round(share * len(pairs)), replace=False)] = True
    return dataclasses.replace(pairs, labels=np.where(planted, 1 - pairs.labels, pairs.labels)), planted


def found(result: Audit, planted: NDArray[np.bool_]) -> dict[str, float]:
    """How many planted labels are among the first of the ranking, and among the suspects."""
    labels, count = result.pairs.labels, int(planted.sum())
    by_models = np.argsort(np.where(labels == 1, result.probability, 1 - result.probability), kind="stable")
    suspects = result.disputed | result.contradicted
    precision = float(planted[result.order[:count]].mean())
    return {
        "planted": count,
        "precision_at_planted": precision,
        "lift": precision / float(planted.mean()),
        "precision_at_planted_by_models_alone": float(planted[by_models[:count]].mean()),
        "precision_of_suspects": float(planted[suspects].mean()) if suspects.any() else 0.0,
        "recall_of_suspects": float(suspects[planted].mean()),
    }


def answers(config: Config, train: qpairs.Pairs, parts: Parts, folder: Path) -> NDArray[np.bool_]:
    """(n_dev,) cross-fitted verdicts on the dev pairs, of a model trained on the given pairs."""
    dev = parts.validation
    config = dataclasses.replace(config, output=str(folder / "model"))
    model = qpairs.train(config, parts=dataclasses.replace(parts, train=train, test=None), overwrite=True)
    return cross_fitted(qpairs.predict(model, dev).similarity, dev.labels, question_components(dev)[dev.left])


def main(
    data: Annotated[Path, typer.Option(help="Pairs to plant noise in and to train on.")],
    validation: Annotated[Path | None, typer.Option(help="Dev pairs; without them, a part of the data.")] = None,
    noise: Annotated[float, typer.Option(min=0, max=0.5, help="Share of the labels to invert.")] = 0.05,
    folds: Annotated[int, typer.Option(help="Folds of the audit.")] = 5,
    confidence: Annotated[float, typer.Option(help="Of the models that dispute a label.")] = 0.8,
    seeds: Annotated[int, typer.Option(help="Runs on each version of the labels.")] = 3,
    encoder: Annotated[str, typer.Option(help="Of the audit and of the runs.")] = "static",
    vectors: Annotated[str, typer.Option(help="Word vectors it starts from.")] = "glove",
    epochs: Annotated[float, typer.Option(help="Of every training.")] = 2.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
) -> None:
    """Plants, audits, trains, prints and writes JSON."""
    config = Config(
        data=(str(data),),
        validation=(str(validation),) if validation else (),
        encoder=encoder,
        vectors=vectors,
        epochs=epochs,
    )
    measured_on = circumstances()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        parts = load_parts(config)
        noisy, planted = plant(parts.train, noise, config.seed)
        result = audit(config, folds=folds, confidence=confidence, pairs=noisy)
        suspects = result.disputed | result.contradicted
        summary = {
            "noise": noise,
            "suspects": int(suspects.sum()),
            "audit_average_precision": result.average_precision,
            **(found(result, planted) if noise else {}),
        }
        console.print(summary)
        versions = {
            "as they are": noisy,
            "suspects dropped": noisy.subset(~suspects),
            "disputed mended": dataclasses.replace(
                noisy, labels=np.where(result.disputed, 1 - noisy.labels, noisy.labels)
            ),
            **({"before planting": parts.train} if noise else {}),
        }
        verdicts: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in versions}
        for seed in range(seeds):
            for name, train in versions.items():
                verdicts[name].append(answers(dataclasses.replace(config, seed=seed), train, parts, Path(folder)))
                console.log(f"seed {seed}, {name}: dev F1 {f1(verdicts[name][-1], parts):.4f}")
    rows = [row_of(name, verdicts, len(versions[name]), parts) for name in versions]
    show(rows)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        settings = {"encoder": encoder, "vectors": vectors, "epochs": epochs, "folds": folds, "confidence": confidence}
        json_file.write_text(json.dumps({**measured_on, **settings, **summary, "rows": rows}, indent=1) + "\n")


def f1(verdicts: NDArray[np.bool_], parts: Parts) -> float:
    """F1 of verdicts on the dev pairs."""
    return metrics.confusion(verdicts, parts.validation.labels, 0.5).f1


def row_of(name: str, verdicts: dict[str, list[NDArray[np.bool_]]], pairs: int, parts: Parts) -> dict[str, Any]:
    """A line of the results: dev F1 of each run, and the mean difference to the labels as they are."""
    dev = parts.validation
    groups = question_components(dev)[dev.left]
    gain = metrics.paired_difference(np.stack(verdicts[name]), np.stack(verdicts["as they are"]), dev.labels, groups)
    runs = [f1(each, parts) for each in verdicts[name]]
    return {"name": name, "pairs": pairs, "dev_f1": runs, "gain": dataclasses.asdict(gain)}


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the results, mean and spread over seeds."""
    table = Table(title="Dev F1 by the labels trained on", title_justify="left", box=None, pad_edge=False)
    for column in ("labels", "pairs", "dev F1", "gain, 95 %"):
        table.add_column(column, justify="left" if column == "labels" else "right")
    for row in rows:
        runs, gain = row["dev_f1"], row["gain"]
        spread = f" ± {statistics.stdev(runs):.4f}" if len(runs) > 1 else ""
        figures = f"{gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})"
        table.add_row(row["name"], f"{row['pairs']:,}", f"{statistics.mean(runs):.4f}{spread}", figures)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
