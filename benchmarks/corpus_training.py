"""Trains with several losses, and judges each on labelled pairs and among all pairs of a table of questions.

    python benchmarks/corpus_training.py --json OUT [--losses "A|B"] [--encoder minilm] [--seeds 1] [--quora FOLDER]

The bundled questions tell of every pair whether it is a duplicate: two questions of one intent are. So the answers are
complete for three corpora: the questions of the validation part, of the test part, and of the domains that --leave-out
names, for which a second encoder is trained on the other domains. Of each corpus, all pairs are ranked: best F1 over
all thresholds, and average precision (of the 10 closest pairs per question). The parts are those of seed 0; --seeds
changes the training alone. F1 of the labelled pairs: cross-fitted on validation; on the test at the threshold of
validation.

With --quora, the same on Quora pairs: trained on the first --pairs of train.parquet, judged on dev.parquet. Its labels
are not complete, so that its average precision of mining only compares.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas
import typer
from machine import circumstances
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer

import qpairs
from qpairs import metrics
from qpairs.commands.terminal import quiet
from qpairs.config import Config
from qpairs.data.parts import Parts, load_parts
from qpairs.encoders.build import build_encoder
from qpairs.models.bi_encoder import embed_tables
from qpairs.training.judge import judge

QUESTIONS = Path(__file__).parent.parent / "data" / "questions"
UNTRAINED = "untrained"
LEFT_OUT = "travel,health,programming"
LOSSES = f"online_contrastive | {Config().loss}"
MEASURES = {
    "minutes": "minutes of training and judging",
    "validation_f1": "validation: pair F1",
    "validation_average_precision": "validation: pair AP",
    "validation_corpus_f1": "validation: corpus F1",
    "validation_mining": "validation: mining AP",
    "test_f1": "test: pair F1",
    "test_average_precision": "test: pair AP",
    "test_calibration_error": "test: error of probability",
    "test_corpus_f1": "test: corpus F1",
    "test_mining": "test: mining AP",
    "left_out_corpus_f1": "domains left out: corpus F1",
    "left_out_mining": "domains left out: mining AP",
    "quora_f1": "Quora dev: pair F1",
    "quora_average_precision": "Quora dev: pair AP",
    "quora_calibration_error": "Quora dev: error of probability",
    "quora_mining": "Quora dev: mining AP",
}  # in the rows of the JSON file -> in the table
console = Console(width=160)


@dataclasses.dataclass(frozen=True)
class Gold:
    """The bundled questions.

    Attributes:
        domain: of each question, by its text.
        intent: of each question, by its text; two questions are duplicates if and only if they have the same.
    """

    domain: dict[str, str]
    intent: dict[str, str]


def read_gold(folder: Path = QUESTIONS) -> Gold:
    """The questions in the TOML files of a folder, one file for each domain."""
    domain, intent = {}, {}
    for file in sorted(folder.glob("*.toml")):
        for family in tomllib.loads(file.read_text(encoding="utf-8"))["family"]:
            for name, questions in family["intents"].items():
                for text in (" ".join(question.split()) for question in questions):
                    domain[text], intent[text] = file.stem, f"{file.stem}/{family['name']}/{name}"
    return Gold(domain, intent)


def corpus_scores(
    encoder: SentenceTransformer, questions: Sequence[str], component: NDArray[np.int64]
) -> tuple[float, float]:
    """Best F1 over thresholds, and average precision, of finding the duplicates among all pairs of some questions.

    Args:
        encoder: gives the embeddings.
        questions: n texts.
        component: (n,) equal for duplicates.
    """
    embeddings = embed_tables(encoder, questions)[0]
    i, j = np.triu_indices(len(questions), 1)
    cosines, duplicate = (embeddings @ embeddings.T)[i, j], component[i] == component[j]
    threshold = metrics.best_threshold(cosines, duplicate)
    return metrics.confusion(cosines, duplicate, threshold).f1, metrics.mining_average_precision(embeddings, component)


def without(parts: Parts, gold: Gold, domains: Sequence[str]) -> Parts:
    """The parts without the training and validation pairs that have a question of some domains; no test."""

    def rest(pairs: qpairs.Pairs) -> qpairs.Pairs:
        inside = np.array([gold.domain[text] in domains for text in pairs.questions])
        return pairs.subset(~(inside[pairs.left] | inside[pairs.right]))

    return dataclasses.replace(parts, train=rest(parts.train), validation=rest(parts.validation), test=None)


def trained(config: Config, parts: Parts) -> tuple[qpairs.Checkpoint, float]:
    """A checkpoint of the parts, and the minutes of training it; untrained where the config names that loss."""
    start = time.monotonic()
    if config.loss == UNTRAINED:
        encoder = build_encoder(
            config.encoder, vectors=config.vectors, texts=parts.train.questions, max_length=config.max_length
        )
        checkpoint = judge(encoder, dataclasses.replace(config, loss="online_contrastive"), parts, [])
    else:
        checkpoint = qpairs.train(config, parts=parts, overwrite=True)
    return checkpoint, (time.monotonic() - start) / 60


def bundled(config: Config, gold: Gold, left_out: Sequence[str]) -> dict[str, float]:
    """The scores of a config on the bundled pairs; `loss` may be `untrained`."""
    parts = load_parts(Config())  # of seed 0, whatever the seed of training
    assert parts.test is not None
    checkpoint, minutes = trained(config, parts)
    row = {"minutes": minutes}
    number = {name: index for index, name in enumerate(dict.fromkeys(gold.intent.values()))}
    for name, pairs in (("validation", parts.validation), ("test", parts.test)):
        scores = checkpoint.scores[name]
        intents = np.array([number[gold.intent[text]] for text in pairs.questions])
        row[f"{name}_f1"] = scores["f1_cross_fitted" if name == "validation" else "f1"]
        row[f"{name}_average_precision"] = scores["average_precision"]
        row[f"{name}_calibration_error"] = scores["calibration_error"]
        found = corpus_scores(checkpoint.encoder, pairs.questions, intents)
        row[f"{name}_corpus_f1"], row[f"{name}_mining"] = found
    if left_out:
        other, _ = trained(config, without(parts, gold, left_out))
        questions = [text for text, domain in gold.domain.items() if domain in left_out]
        intents = np.array([number[gold.intent[text]] for text in questions])
        row["left_out_corpus_f1"], row["left_out_mining"] = corpus_scores(other.encoder, questions, intents)
    return row


def quora(config: Config, data: Path, pairs: int, folder: Path) -> dict[str, float]:
    """The scores of a config on Quora pairs."""
    first = folder / f"first-{pairs}.parquet"
    if not first.exists():
        pandas.read_parquet(data / "train.parquet").head(pairs).to_parquet(first)
    parts = load_parts(dataclasses.replace(config, data=(str(first),), validation=(str(data / "dev.parquet"),)))
    checkpoint, _ = trained(config, parts)
    scores = checkpoint.scores["validation"]
    return {
        "quora_f1": scores["f1_cross_fitted"],
        "quora_average_precision": scores["average_precision"],
        "quora_calibration_error": scores["calibration_error"],
        "quora_mining": scores["retrieval"]["mining_average_precision"],
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the results, mean and spread over seeds: a line for each measure, a column for each loss."""
    table = Table(title="Labelled pairs and all pairs of a corpus", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    names = list(dict.fromkeys(row["name"] for row in rows))
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for key, text in MEASURES.items():
        if any(key in row for row in rows):
            table.add_row(text, *(_cell([row[key] for row in rows if row["name"] == name]) for name in names))
    console.print(table)


def _cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main(
    json_file: Annotated[Path, typer.Option("--json", help="Where the results go.")],
    losses: Annotated[str, typer.Option(help="Losses to train with, separated by |.")] = LOSSES,
    encoder: Annotated[str, typer.Option(help="As of qpairs train.")] = "minilm",
    untrained: Annotated[bool, typer.Option(help="Judge the encoder as it comes, too.")] = True,
    seeds: Annotated[int, typer.Option(help="Seeds per loss.")] = 1,
    epochs: Annotated[float, typer.Option(help="Of every training.")] = 1.0,
    leave_out: Annotated[str, typer.Option(help="Domains of the third corpus, with commas; none for none.")] = LEFT_OUT,
    quora_folder: Annotated[
        Path | None, typer.Option("--quora", help="Folder with train.parquet and dev.parquet.")
    ] = None,
    pairs: Annotated[int, typer.Option(help="Quora pairs to train on.")] = 16_000,
) -> None:
    """Trains, judges, prints a table and writes JSON."""
    measured_on, gold, rows = circumstances(), read_gold(), []
    names = [*([UNTRAINED] if untrained else []), *(loss.strip() for loss in losses.split("|"))]
    with quiet(), tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for name in names if seed == 0 else names[-len(losses.split("|")) :]:
                config = Config(loss=name, encoder=encoder, epochs=epochs, seed=seed, output=str(Path(folder, "model")))
                row: dict[str, Any] = {"name": name, "seed": seed}
                row |= bundled(config, gold, [domain for domain in leave_out.split(",") if domain != "none"])
                row |= quora(config, quora_folder, pairs, Path(folder)) if quora_folder else {}
                console.log({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()})
                rows.append(row)
                json_file.parent.mkdir(parents=True, exist_ok=True)
                settings = {"encoder": encoder, "epochs": epochs, "leave_out": leave_out, "pairs": pairs}
                json_file.write_text(json.dumps({**measured_on, **settings, "rows": rows}, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    typer.run(main)
