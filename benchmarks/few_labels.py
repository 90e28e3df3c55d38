"""How good is a model with few labels of the questions in hand, and does it pay to learn from them without labels?

    python benchmarks/few_labels.py --json OUT [--encoder minilm] [--base ready] [--domains travel,health,programming]

The bundled questions of --domains are the target, of which no other label is known. Of their pairs, whole components
with two fifths of them are the test; labels are drawn from the others, each larger number of them holding the smaller.
The base is the encoder as it comes (ready), or trained on the pairs of the other domains (trained); its verdict is
fitted to pairs of the other domains. In the unlabelled pass, it then learns from all questions of the target, without
labels: `qpairs train --data questions.csv --unlabelled`.

With 0 labels the model is judged as it is; with more, calibrated on all of them (`qpairs calibrate`), and trained on
two thirds with the threshold from the last third (`qpairs train --encoder BASE --data labels.csv`). Judged are F1 and
average precision of the test pairs; F1 of all pairs of the test questions, at the threshold for a corpus; and the best
F1 that any threshold would have there.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from corpus_training import Gold, read_gold, without
from corpus_verdict import corpus_of, judged
from machine import circumstances
from rich.console import Console
from rich.table import Table

import qpairs
from qpairs import metrics
from qpairs.commands.terminal import quiet
from qpairs.config import Config
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts, load_parts
from qpairs.data.splits import split_pairs
from qpairs.data.subsets import component_order
from qpairs.encoders.build import build_encoder
from qpairs.models.base import Model
from qpairs.training.judge import judge

MEASURES = {
    "f1": "pair F1",
    "average_precision": "pair AP",
    "corpus_f1": "corpus F1",
    "corpus_best_f1": "best corpus F1",
}
TEST, VALIDATION, BATCH, LEAST_STEPS = 0.4, 1 / 3, 32, 40
console = Console(width=140)


@dataclass(frozen=True)
class Target:
    """The questions that no base has seen labels of.

    Attributes:
        questions: all of them.
        pool: pairs that labels are drawn from.
        test: pairs that share no question with these.
    """

    questions: Sequence[str]
    pool: Pairs
    test: Pairs


@dataclass(frozen=True)
class Options:
    """What all runs share."""

    encoder: str
    base: str
    labels: Sequence[int]
    passes: float
    loss: str
    augment: float
    word_dropout: float
    max_length: int

    def config(self, folder: Path, seed: int, **changes: Any) -> Config:
        """The options of a training."""
        values = {"encoder": self.encoder, "max_length": self.max_length, "output": str(folder), "seed": seed}
        return Config(**{**values, **changes})


def target_of(domains: Sequence[str], gold: Gold, seed: int) -> Target:
    """The target, its pairs cut by components."""
    pairs = qpairs.load_pairs("sample")
    inside = np.array([gold.domain[text] in domains for text in pairs.questions])
    cut = split_pairs(
        pairs.subset(inside[pairs.left] & inside[pairs.right]), validation_fraction=TEST, test_fraction=0.0, seed=seed
    )
    return Target([text for text, domain in gold.domain.items() if domain in domains], cut.train, cut.validation)


def base_model(options: Options, others: Parts, folder: Path, seed: int) -> Model:
    """The base, saved in a folder."""
    config = options.config(folder, seed)
    if options.base == "trained":
        return qpairs.train(config, parts=others)
    encoder = build_encoder(options.encoder, texts=others.train.questions, max_length=options.max_length, seed=seed)
    return saved(judge(encoder, config, others, []), folder)


def saved(model: Model, folder: Path) -> Model:
    """The model as its folder has it."""
    model.save(folder)
    return qpairs.load(folder)


def after_the_pass(base: Model, options: Options, target: Target, others: Parts, folder: Path, seed: int) -> Model:
    """The base after it has learned from the target's questions, with a verdict fitted as that of the base."""
    file = folder.with_suffix(".csv")
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([["question"], *([text] for text in target.questions)])
    config = options.config(
        folder.with_name(f"{folder.name}-pass"),
        seed,
        data=(str(file),),
        unlabelled=True,
        encoder=str(base.path),
        loss=options.loss,
        epochs=options.passes,
        augment=options.augment,
        word_dropout=options.word_dropout,
    )
    learned = qpairs.train(config)
    return saved(judge(learned.encoder, config, dataclasses.replace(others, test=None), []), folder)


def with_labels(start: Model, labels: Pairs, options: Options, folder: Path, seed: int) -> Iterator[tuple[str, Model]]:
    """What can be done with a few labels: calibrate, or train."""
    yield "calibrated", qpairs.calibrate(start, labels).model
    cut = split_pairs(labels, validation_fraction=VALIDATION, test_fraction=0.0, seed=seed)
    epochs = max(2.0, LEAST_STEPS * BATCH / len(cut.train))
    evaluations = 4 / epochs
    config = options.config(
        folder, seed, encoder=str(start.path), batch_size=BATCH, epochs=epochs, evaluations=evaluations, patience=0
    )
    yield (
        "trained",
        qpairs.train(config, parts=Parts(cut.train, cut.validation, None, {"fingerprint": cut.fingerprint})),
    )


def scores_of(model: Model, target: Target, gold: Gold) -> dict[str, float]:
    """Pair and corpus scores on the test."""
    test = target.test
    scores, _ = model.score_pairs(test)
    corpus = corpus_of(model, list(test.questions), [gold.intent[text] for text in test.questions])
    found = judged(model.verdict.corpus(metrics.count_scores(corpus.vectors)), corpus)
    return {
        "f1": metrics.confusion(scores, test.labels, model.verdict.pair.threshold).f1,
        "average_precision": metrics.average_precision(scores, test.labels),
        "corpus_f1": found["f1"],
        "corpus_best_f1": found["best_f1"],
    }


def one_seed(options: Options, domains: Sequence[str], gold: Gold, folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of a seed."""
    target, others = target_of(domains, gold, seed), without(load_parts(Config()), gold, domains)
    base = base_model(options, others, folder / "base", seed)
    order = component_order(target.pool, seed)
    for passed in (False, True):
        began = time.monotonic()
        start = after_the_pass(base, options, target, others, folder / "learned", seed) if passed else base
        minutes = (time.monotonic() - began) / 60
        for count in options.labels:
            named = {"seed": seed, "labels": count, "unlabelled_pass": passed, "pass_minutes": minutes}
            models = (
                [("as it is", start)]
                if not count
                else with_labels(start, target.pool.subset(order[:count]), options, folder / f"{count}-{passed}", seed)
            )
            for how, model in models:
                name = f"{count} labels, {how}" + (", after the pass" if passed else "")
                yield {"name": name, "how": how, **named, **scores_of(model, target, gold)}


def show(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Prints the results, mean and spread over seeds."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("", *MEASURES.values()):
        table.add_column(column, justify="right" if column else "left")
    for name in dict.fromkeys(row["name"] for row in sorted(rows, key=lambda row: (row["labels"], row["how"]))):
        mine = [row for row in rows if row["name"] == name]
        table.add_row(name, *(_cell([row[measure] for row in mine]) for measure in MEASURES))
    console.print(table)


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main(
    json_file: Annotated[Path, typer.Option("--json", help="Where the results go.")],
    encoder: Annotated[str, typer.Option(help="As of qpairs train.")] = "minilm",
    base: Annotated[str, typer.Option(help="ready: the encoder as it comes; trained: on the other domains.")] = "ready",
    domains: Annotated[str, typer.Option(help="The target, with commas.")] = "travel,health,programming",
    labels: Annotated[str, typer.Option(help="Numbers of labels, with commas.")] = "0,50,200,1000",
    seeds: Annotated[int, typer.Option(help="Runs, with other labels and test pairs each.")] = 1,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    passes: Annotated[float, typer.Option(help="Epochs of the unlabelled pass.")] = 3.0,
    loss: Annotated[str, typer.Option(help="Of the unlabelled pass.")] = "info_nce",
    augment: Annotated[float, typer.Option(help="Rule-made pairs of the unlabelled pass, as a share.")] = 0.0,
    word_dropout: Annotated[float, typer.Option(help="Of the unlabelled pass.")] = 0.0,
    max_length: Annotated[int, typer.Option(help="Tokens that are read of a question.")] = 64,
) -> None:
    """Trains, judges, prints a table and writes JSON."""
    measured_on, gold, rows = circumstances(), read_gold(), []
    counts = sorted(int(count) for count in labels.split(","))
    options = Options(encoder, base, counts, passes, loss, augment, word_dropout, max_length)
    for seed in range(first_seed, first_seed + seeds):
        with quiet(), tempfile.TemporaryDirectory() as folder:
            for row in one_seed(options, domains.split(","), gold, Path(folder), seed):
                console.log({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
                rows.append(row)
                settings = {"domains": domains, **dataclasses.asdict(options)}
                json_file.write_text(json.dumps({**measured_on, **settings, "rows": rows}, indent=1) + "\n")
    show(rows, f"{encoder}, {base}; target {domains}; {seeds} seeds")


if __name__ == "__main__":
    typer.run(main)
