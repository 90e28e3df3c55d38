"""`qpairs evaluate`, `predict` and `calibrate`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.terminal import (
    ColumnsOption,
    DataOption,
    SkipOption,
    load,
    out,
    percent,
    plain,
    print_report,
    print_skipped,
    print_verdict,
    progress_bar,
    quiet,
    split_columns,
)
from qpairs.core.exceptions import UserError
from qpairs.core.files import write_text
from qpairs.core.progress import Progress


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or an export.")],
    data: DataOption,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")] = None,
    columns: ColumnsOption = "",
    skip_bad_rows: SkipOption = False,
    perturb: Annotated[
        str, typer.Option(help="Change questions by rule, and count wrong decisions: kinds with commas, or all.")
    ] = "",
    intents: Annotated[
        Path | None,
        typer.Option(help="Table with columns question and intent: all duplicates among the questions are known."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap, and of the changes.")] = 0,
) -> None:
    """Evaluate a checkpoint or an export, at its own threshold, on labelled pairs."""
    with quiet(), progress_bar() as on_progress:
        from qpairs.data.perturbations import kinds_of
        from qpairs.encoders.build import encoder_note, tower_names
        from qpairs.evaluation.evaluate import evaluate as run
        from qpairs.evaluation.robustness import probe
        from qpairs.models.base import load as load_model
        from qpairs.models.verdict import score_name, score_names

        kinds = kinds_of(perturb) if perturb else []
        model = load_model(checkpoint)
        pairs = load(data, columns, skip_bad_rows)
        result = run(model, pairs, intents=intents, seed=seed, on_progress=on_progress).to_dict()
        if kinds:
            on_progress(Progress("changing questions"))
            result["perturbations"] = [found.to_dict() for found in probe(model, pairs, kinds, seed=seed)]
    if json_file:
        write_text(json_file, json.dumps({"checkpoint": str(checkpoint), "data": data, **result}, indent=1) + "\n")
    print_skipped(pairs)
    print_report(result, "pairs", note=encoder_note(model.config.encoder))
    if result["seen_in_training"] is None:
        out.print("[dim]Whether these questions were in training cannot be told: its pairs are not in files here.[/]")
    if result["shift"]["statistic"] is None:
        names = score_names(model.verdict.score)
        out.print(f"[dim]Shift unknown: the model does not hold the {names} that its threshold was chosen on.[/]")
    _print_slices(result["slices"])
    if kinds:
        ignores_order = model.verdict.score in ("cosine", "head") and "static" in tower_names(model.config.encoder)
        _print_behaviour(result["perturbations"], kinds, ignores_order, score_name(model.verdict.score))


def _print_slices(slices: list[Mapping[str, Any]]) -> None:
    table = Table(title="\nBy kind of pair", title_justify="left", box=None, pad_edge=False)
    for column in ("", "pairs", "duplicates", "F1", "precision", "recall"):
        table.add_column(column, justify="right" if column else "left")
    for s in slices:
        values = (f"{s[name]:.3f}" for name in ("f1", "precision", "recall"))
        table.add_row(s["name"], f"{s['n']:,}", percent(s["duplicates"]), *values)
    out.print(table)


def _print_behaviour(behaviours: list[Mapping[str, Any]], kinds: list[str], ignores_order: bool, score: str) -> None:
    wanted = {
        (True, "itself"): "duplicate of itself",
        (True, "pairs"): "pair keeps its verdict",
        (False, "itself"): "no duplicate of itself",
        (False, "pairs"): "pair no longer duplicate",
    }
    table = Table(title="\nWhen a question is changed", title_justify="left", box=None, pad_edge=False)
    for column in ("", "expected", "cases", "failures", "rate", "95 % interval"):
        table.add_column(column, justify="left" if column in ("", "expected") else "right")
    for b in behaviours:
        low, high = b["interval"]
        figures = f"{b['n']:,}", f"{b['failures']:,}", percent(b["rate"]), f"{100 * low:.1f} to {100 * high:.1f}"
        table.add_row(b["kind"], wanted[b["same"], b["against"]], *figures)
    out.print(table)
    missing = set(kinds) - {b["kind"] for b in behaviours}
    if missing:
        out.print(f"No question here fits these kinds: {', '.join(sorted(missing))}.")
    if "word-order" in kinds and ignores_order:
        out.print("[dim]Note: a static encoder ignores word order; judge word-order with lstm or minilm.[/]")
    for b in behaviours:
        if b["examples"] and b["against"] == "itself":
            worst = b["examples"][0]
            out.print(f"\n{b['kind']}, {score} {worst['similarity']:.3f}:", style="dim", highlight=False)
            for text in (worst["question"], worst["changed"]):
                out.print(f"  {plain(text)}", highlight=False)


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or an export.")],
    questions: Annotated[list[str], typer.Argument(help="Two questions, or one file of pairs.")],
    output: Annotated[
        Path | None, typer.Option(help="Where the scored pairs go: .csv, .tsv, .jsonl or .parquet.")
    ] = None,
    columns: ColumnsOption = "",
) -> None:
    """Predict for two questions, or for each pair in a file, whether they ask the same."""
    with quiet():
        from qpairs.data.pairs import pairs_from_texts
        from qpairs.evaluation.predict import predict as run
        from qpairs.evaluation.predict import predict_file
        from qpairs.models.base import load as load_model
        from qpairs.models.verdict import score_name

        if len(questions) == 2:
            if not all(q.strip() for q in questions):
                raise UserError("predict: a question is empty")
            model = load_model(checkpoint)
            verdict = run(model, pairs_from_texts([questions[0]], [questions[1]], [-1]))
            figures = float(verdict.similarity[0]), float(verdict.probability[0])
            print_verdict(
                score_name(model.verdict.score), *figures, bool(verdict.duplicate[0]), model.verdict.pair.threshold
            )
            return
        if len(questions) != 1:
            raise UserError(f"predict: give two questions, or one file of pairs, not {len(questions)} arguments")
        if output is None:
            raise UserError("predict: name the file for the scored pairs with --output")
        with progress_bar() as on_progress:
            named = split_columns(columns)
            found = predict_file(checkpoint, questions[0], output, columns=named, on_progress=on_progress).duplicate
    out.print(
        f"{len(found):,} pairs, {int(found.sum()):,} called duplicates ({percent(float(found.mean()))}), "
        f"written to {output}"
    )
