"""What labels of a language model that errs bring to the verdict on a corpus, taken as right and by how often it is.

    python benchmarks/annotators.py --json OUT

Corpora are simulated, so that all duplicates are known. A language model labels 300 pairs, a person who is right in
98 % labels 60 of them. Figures are those at the threshold that the true labels of all 300 would choose.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from machine import circumstances
from rich.console import Console
from rich.table import Table

from qpairs.metrics import CorpusEstimate, dawid_skene, estimate_corpus, with_labels

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "metrics"))
from test_annotators import VALIDATION, drawn_of, judge
from worlds import World, world

PERSON = 0.98, 0.98  # right of duplicates, of others
PAIRS, BOTH = 300, 60
MODELS = (0.9, 0.97), (0.8, 0.9)
console = Console(width=140)


def estimates(corpus: World, model: tuple[float, float], seed: int) -> dict[str, CorpusEstimate]:
    """The estimate of a corpus by each kind of labels."""
    rng = np.random.default_rng(seed)
    before = estimate_corpus(VALIDATION, corpus.counts)
    rows, strata = drawn_of(corpus, PAIRS, rng)
    scores, truth = corpus.scores[rows], corpus.duplicate[rows]
    answers = judge(truth, [model, PERSON], rng)
    answers[BOTH:, 1] = -1
    rates, person = dawid_skene(answers, groups=strata), answers[:, 1] >= 0
    return {
        "person alone": with_labels(before, scores[:BOTH], answers[:BOTH, 1]),
        "both, taken as right": with_labels(before, scores, np.where(person, answers[:, 1], answers[:, 0])),
        "both, by how often each is right": with_labels(before, scores, answers[:, 0], rates.log_ratio),
        "true labels of all": with_labels(before, scores, truth),
    }


def figures(model: tuple[float, float], corpora: int) -> list[dict[str, object]]:
    """A row for each kind of labels: means over the corpora."""
    found: dict[str, list[tuple[float, bool, float]]] = {}
    for seed in range(corpora):
        corpus = world(600, 40 + seed, per_question=0.5, near=1.5)
        by = estimates(corpus, model, seed)
        threshold = by["true labels of all"].best_threshold()
        recall = corpus.at(threshold)[1]
        for name, estimate in by.items():
            expected = estimate.expected(threshold)
            low, high = expected.recall_interval
            share = corpus.f1(estimate.best_threshold()) / corpus.best_f1()
            found.setdefault(name, []).append((abs(expected.recall - recall), low <= recall <= high, share))
    rows = []
    for name, values in found.items():
        error, inside, share = (float(value) for value in np.mean(values, axis=0))
        rows.append({"model": list(model), "name": name, "recall_error": error, "inside": inside, "f1_share": share})
    return rows


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    corpora: Annotated[int, typer.Option(min=1, help="Simulated corpora.")] = 20,
) -> None:
    """Measures, prints a table and writes JSON."""
    measured_on, rows = circumstances(), [row for model in MODELS for row in figures(model, corpora)]
    table = Table(box=None, pad_edge=False)
    for column in ("model right", "labels", "error of recall", "in its interval", "F1, share of the best"):
        table.add_column(column, justify="left" if column in ("model right", "labels") else "right")
    for row in rows:
        right = ", ".join(f"{part:.2f}" for part in row["model"])  # type: ignore[attr-defined]
        table.add_row(right, str(row["name"]), *(f"{row[name]:.3f}" for name in ("recall_error", "inside", "f1_share")))
    console.print(table)
    if json_file:
        json_file.write_text(json.dumps({**measured_on, "corpora": corpora, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
