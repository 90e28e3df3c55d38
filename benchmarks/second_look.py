"""What a second look costs and brings: pairs per second of each form, and failures on changed questions.

    python benchmarks/second_look.py --model FOLDER --data F.parquet --json OUT [--questions 10000] [--pairs 1000]

FOLDER is a model of two stages, from `qpairs train --reranker` or `qpairs combine`, or an export of one; F.parquet
holds labelled pairs of unseen questions (question1, question2, is_duplicate). The forms take turns in one run, and
every rate is the median of the turns. Set OMP_NUM_THREADS to the cores that are to be used.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
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
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs
from qpairs.evaluation.robustness import probe
from qpairs.metrics import average_precision, confusion
from qpairs.models.base import Model, load
from qpairs.models.two_stages import TwoStages
from qpairs.retrieval.corpus import dedupe_corpus

console = Console(width=140)
PERTURBATIONS = ("word-order", "negation")


def rates(forms: dict[str, Callable[[], object]], units: int, turns: int) -> dict[str, float]:
    """Units per second of each form, the median of the turns."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(turns):
        for name, run in forms.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: units / statistics.median(times) for name, times in seconds.items()}


def quality(model: Model, scores: np.ndarray, pairs: Pairs) -> dict[str, float]:
    """F1 at the threshold that the model chose on validation, and average precision."""
    return {
        "f1": confusion(scores, pairs.labels, model.verdict.pair.threshold).f1,
        "average_precision": average_precision(scores, pairs.labels),
    }


def pair_forms(model: TwoStages, pairs: Pairs, turns: int) -> list[dict[str, Any]]:
    """Rate and quality of the encoder alone, of the cross-encoder alone, and of both, on labelled pairs."""
    models: dict[str, Model] = {"encoder alone": model.first, "cross-encoder alone": model.second, "both": model}
    speed = rates({name: partial(each.score_pairs, pairs) for name, each in models.items()}, len(pairs), turns)
    return [
        {"name": name, "pairs_per_second": speed[name], **quality(each, each.score_pairs(pairs)[0], pairs)}
        for name, each in models.items()
    ]


def corpus_forms(model: TwoStages, questions: list[str], queries: list[str], folder: Path) -> list[dict[str, Any]]:
    """Seconds of finding duplicates in a corpus and of searching it, by the encoder alone and by both stages."""
    file = folder / "corpus.csv"
    pandas.DataFrame({"question": questions}).to_csv(file, index=False)
    qpairs.embed(model.first, file, folder / "embeddings")
    qpairs.build_index(qpairs.open_shards(folder / "embeddings"), folder / "index")
    index = qpairs.open_index(folder / "index")
    rows = []
    for name, judge in (("encoder alone", model.first), ("both", model)):
        start = time.perf_counter()
        found = dedupe_corpus(judge, file)
        deduplicated = time.perf_counter() - start
        start = time.perf_counter()
        qpairs.search(index, judge, queries)
        read = found.summary.get("second_look") or {}
        rows.append(
            {
                "name": name,
                "dedupe_seconds": deduplicated,
                "questions_per_second": len(questions) / deduplicated,
                "pairs": len(found.found.pairs),
                "expected": found.expected and dataclasses.asdict(found.expected),
                "read": read.get("read", 0),
                "share_read": read.get("share", 0.0),
                "searches_per_second": len(queries) / (time.perf_counter() - start),
            }
        )
    return rows


def failures(model: Model, pairs: Pairs) -> dict[str, float]:
    """Share of the changed questions that are judged wrong, by kind of change."""
    found = probe(model, pairs, kinds=PERTURBATIONS)
    return {f"{row.kind}, {row.against}": row.rate for row in found}


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints rows as a table; what is no number or text is left out."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    names = [name for name, value in rows[0].items() if isinstance(value, int | float | str)]
    for name in names:
        table.add_column(name.replace("_", " "), justify="left" if name == "name" else "right")
    for row in rows:
        table.add_row(*(f"{row[name]:,.3f}" if isinstance(row[name], float) else str(row[name]) for name in names))
    console.print(table)


def main(
    model: Annotated[Path, typer.Option(help="Folder of a model of two stages.")],
    data: Annotated[Path, typer.Option(help="Labelled pairs of unseen questions, as Parquet.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    questions: Annotated[int, typer.Option(help="Questions of the corpus.")] = 10_000,
    pairs: Annotated[int, typer.Option(help="Pairs that are judged.")] = 1_000,
    queries: Annotated[int, typer.Option(help="Searches.")] = 200,
    turns: Annotated[int, typer.Option(help="Turns of each form.")] = 3,
) -> None:
    """Measures, prints tables and writes JSON."""
    both = load(model)
    if not isinstance(both, TwoStages):
        raise UserError(f"{model}: no model of two stages")
    measured_on = circumstances()
    every = qpairs.load_pairs(data)
    some = every.subset(np.sort(np.random.default_rng(0).permutation(len(every))[:pairs]))
    corpus, asked = list(every.questions[:questions]), list(every.questions[-queries:])
    with quiet(), tempfile.TemporaryDirectory() as folder:
        on_pairs = pair_forms(both, some, turns)
        show(
            f"{len(some):,} labelled pairs, {both.scores['second_look']['share']:.0%} of validation in the band",
            on_pairs,
        )
        in_corpus = corpus_forms(both, corpus, asked, Path(folder))
        show(f"A corpus of {len(corpus):,} questions", in_corpus)
        changed = {"encoder alone": failures(both.first, some), "both": failures(both, some)}
    show("Share of changed questions judged wrong", [{"name": name, **row} for name, row in changed.items()])
    if json_file:
        found = {
            "cores": os.environ.get("OMP_NUM_THREADS"),
            "rows": on_pairs,
            "corpus": in_corpus,
            "failures": changed,
        }
        json_file.write_text(json.dumps({**measured_on, **found}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
