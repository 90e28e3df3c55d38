"""Training speed beside sentence-transformers: same pairs, encoder, loss, batch and precision, taking turns in one run.

    python benchmarks/train.py --data F.parquet --json OUT [--pairs 3200] [--rounds 2] [--profile]

Pairs of F that share no question with those trained on are held out; F1 on them is cross-fitted, by the same code for
both. On one thread, time is that of the processor, so that other work on the machine counts for neither side; memory is
the most that is resident, or that of the GPU. The floor is what the matrix products alone would take: 6 operations (2
forward, 4 backward) for each weight and token of each pair, without padding, at the rate that such products reach on
this machine. The `ratio` of the JSON is that of qpairs as it comes to sentence-transformers in the same precision.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from machine import BLOCK_PARAMETERS, Stopwatch, busy, circumstances, matmul_rate, peak, reset_peak
from peer import train_peer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

import qpairs
from qpairs.commands.terminal import quiet
from qpairs.config import Config
from qpairs.data.parts import Parts, load_parts
from qpairs.encoders.build import build_encoder
from qpairs.encoders.precision import fast_bf16
from qpairs.encoders.tokens import token_ids
from qpairs.evaluation.baselines import UNTRAINED
from qpairs.training.judge import judge

NAMES = {"qpairs": "qpairs", "ST": "sentence-transformers"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TIMES = ("seconds", "cpu_seconds")
POSITIONS = 1000  # rows of an embedding of positions, at most
console = Console(width=120)


@contextmanager
def counted_tokens() -> Iterator[list[int]]:
    """How many tokens, padding included, the word embeddings are asked for in each call of training."""
    seen: list[int] = []
    own = functional.embedding  # of a module of embeddings, and of packed tokens

    def counting(ids: Tensor, weight: Tensor, *rest: Any, **more: Any) -> Tensor:
        if len(weight) > POSITIONS and torch.is_grad_enabled():
            seen.append(ids.numel())
        found: Tensor = own(ids, weight, *rest, **more)
        return found

    functional.embedding = counting
    try:
        yield seen
    finally:
        functional.embedding = own


def run_qpairs(config: Config, parts: Parts) -> tuple[dict[str, float], qpairs.Checkpoint]:
    """Time from the pairs to the last step, tokenising and loading the encoder included; and what was trained.

    Without that of the evaluation of the encoder as it comes, which the peer does not have.
    """
    began: dict[str, dict[str, float]] = {}

    def on_progress(now: Any) -> None:
        ended = now.stage == "training" and now.done == now.total
        began.setdefault("end" if ended else now.stage, {**watch.read(), "mib": peak() / 2**20})

    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch()
        config = dataclasses.replace(config, output=f"{folder}/checkpoint")
        checkpoint = qpairs.train(config, parts=parts, on_progress=on_progress)
    taken, before = began["end"], began.get(f"evaluating the {UNTRAINED}")
    if before:  # else the encoder has learned nothing yet
        taken |= {name: taken[name] - (began["preparing"][name] - before[name]) for name in TIMES}
    return taken, checkpoint


def run_peer(config: Config, parts: Parts) -> tuple[dict[str, float], qpairs.Checkpoint]:
    """The same by the trainer of sentence-transformers."""
    encoder, taken = train_peer(config, parts.train)
    return {**taken, "mib": peak() / 2**20}, judge(encoder, config, parts, [])


def measure(side: str, config: Config, parts: Parts) -> dict[str, Any]:
    """One training."""
    reset_peak()
    with counted_tokens() as tokens:
        taken, checkpoint = (run_qpairs if side == "qpairs" else run_peer)(config, parts)
    scores, pairs = checkpoint.scores["validation"], config.epochs * len(parts.train)
    return {
        "name": NAMES[side],
        "side": side,
        "precision": config.precision,
        "seed": config.seed,
        **taken,
        "pairs_per_second": pairs / busy(taken),
        "tokens_per_pair": sum(tokens) / pairs,
        "f1": scores["f1_cross_fitted"],
        "average_precision": scores["average_precision"],
    }


def print_profile(side: str, config: Config, parts: Parts) -> None:
    """Which operations take the time of one side."""
    with torch.profiler.profile() as profile:
        measure(side, config, parts)
    table = Table(title=f"{NAMES[side]}, {config.precision}: where the time goes", box=None, pad_edge=False)
    for column in ("operation", "share", "calls"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    rows = sorted(profile.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    for row in rows[:12]:
        table.add_row(row.key[:60], f"{100 * row.self_cpu_time_total / total:.1f} %", f"{row.count:,}")
    console.print(table)


def summary(rows: list[dict[str, Any]], tokens: float) -> list[dict[str, Any]]:
    """Medians over the rounds of each side, and their distance to the floor; `tokens` of a pair, without padding."""
    found = []
    for side, precision in dict.fromkeys((row["side"], row["precision"]) for row in rows):
        same = [row for row in rows if (row["side"], row["precision"]) == (side, precision)]
        middle = {
            key: statistics.median(row[key] for row in same)
            for key in ("pairs_per_second", "tokens_per_pair", "mib", "f1", "average_precision")
        }
        floor = matmul_rate(DTYPES[precision]) / (6 * BLOCK_PARAMETERS * tokens)  # pairs per second
        found.append({"side": side, "precision": precision, **middle, "floor": floor})
    return found


def show(found: list[dict[str, Any]], title: str) -> None:
    """Prints the medians, as ratios to sentence-transformers in the last precision: fp32, its default."""
    default = next(row for row in reversed(found) if row["side"] == "ST")
    table = Table(title=title, box=None, pad_edge=False)
    columns = ("", "pairs/s", "ratio", "tokens a pair", "time over the floor", "MiB", "F1", "AP")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for row in found:
        table.add_row(
            f"{NAMES[row['side']]}, {row['precision']}",
            f"{row['pairs_per_second']:,.1f}",
            f"{row['pairs_per_second'] / default['pairs_per_second']:.2f}",
            f"{row['tokens_per_pair']:.1f}",
            f"{row['floor'] / row['pairs_per_second']:.2f}",
            f"{row['mib']:,.0f}",
            f"{row['f1']:.3f}",
            f"{row['average_precision']:.3f}",
        )
    console.print(table)


def main(
    data: Annotated[Path, typer.Option(help="Labelled pairs.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    pairs: Annotated[int, typer.Option(help="Pairs to train on.")] = 3200,
    held_out: Annotated[int, typer.Option(help="Pairs to judge on.")] = 3000,
    rounds: Annotated[int, typer.Option(help="Trainings of each kind, with seeds from 0 on.")] = 2,
    encoder: Annotated[str, typer.Option(help="An encoder that is a transformer.")] = "minilm",
    batch_size: Annotated[int, typer.Option(help="Pairs in a batch.")] = 64,
    precisions: Annotated[str, typer.Option(help="bf16, fp32 or both; '': bf16 where it is fast, and fp32.")] = "",
    profile: Annotated[bool, typer.Option("--profile", help="Show which operations take the time, too.")] = False,
) -> None:
    """Measures, prints a table and writes JSON."""
    measured_on = circumstances()
    with quiet():
        config = Config(data=(str(data),), encoder=encoder, loss="online_contrastive(margin=0.5)", evaluations=1)
        config = dataclasses.replace(config, batch_size=batch_size, patience=0, dropout=0.1)
        parts = load_parts(config)
        draw = np.random.default_rng(0)
        train, validation = (
            part.subset(np.sort(draw.choice(len(part), min(count, len(part)), replace=False)))
            for part, count in ((parts.train, pairs), (parts.validation, held_out))
        )
        parts = Parts(train, validation, None, parts.split)
        fast = fast_bf16(build_encoder(encoder))
        if not (fast or precisions):
            console.print("bf16 is left out: it is slower than fp32 on this machine.")
        chosen = precisions.split(",") if precisions else ["bf16", "fp32"] if fast else ["fp32"]
        kinds = [(side, precision) for precision in chosen for side in NAMES]
        rows = []
        for seed in range(rounds):
            for side, precision in kinds:
                rows.append(measure(side, dataclasses.replace(config, precision=precision, seed=seed), parts))
                console.log({name: rows[-1][name] for name in ("side", "precision", "pairs_per_second", "f1")})
        lengths = list(map(len, token_ids(build_encoder(encoder, max_length=config.max_length), train.questions)))
        tokens = np.mean([lengths[i] + lengths[j] for i, j in zip(train.left, train.right, strict=True)])
        found = summary(rows, float(tokens))
    show(found, f"Training {encoder} on {len(train):,} pairs in batches of {batch_size}, medians of {rounds}")
    rates = {(row["side"], row["precision"]): row["pairs_per_second"] for row in found}
    best = kinds[0][1]
    results = {
        "ratio": rates["qpairs", best] / rates["ST", best],
        "ratio_to_default": rates["qpairs", best] / rates["ST", chosen[-1]],
        "f1_difference": found[0]["f1"] - found[1]["f1"],
    }
    if json_file:
        json_file.write_text(json.dumps({**results, **measured_on, "summary": found, "rows": rows}, indent=1) + "\n")
    if profile:
        with quiet():
            for side in NAMES:
                print_profile(side, dataclasses.replace(config, precision=best), parts)


if __name__ == "__main__":
    typer.run(main)
