"""`qpairs evaluate`, `predict` and `calibrate`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.terminal import (
    WRITERS,
    ColumnsOption,
    DataOption,
    OverwriteOption,
    SkipOption,
    load,
    out,
    percent,
    print_report,
    print_skipped,
    quiet,
    split_columns,
    write_text,
)
from qpairs.faults import UserError, nearest


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    data: DataOption,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")] = None,
    columns: ColumnsOption = "",
    skip_bad_rows: SkipOption = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Judge a checkpoint, at its own threshold, on labelled pairs."""
    with quiet():
        from qpairs.checkpoint import load_checkpoint
        from qpairs.encoders import encoder_note
        from qpairs.evaluation import evaluate as run

        model = load_checkpoint(checkpoint)
        pairs = load(data, columns, skip_bad_rows)
        result = run(model, pairs, seed=seed).to_dict()
    if json_file:
        write_text(json_file, json.dumps({"checkpoint": str(checkpoint), "data": data, **result}, indent=1) + "\n")
    print_skipped(pairs)
    print_report(result, "pairs", note=encoder_note(model.config.encoder))
    _print_slices(result["slices"])


def _print_slices(slices: list[Mapping[str, Any]]) -> None:
    table = Table(title="\nBy kind of pair", title_justify="left", box=None, pad_edge=False)
    for column in ("", "pairs", "duplicates", "F1", "precision", "recall"):
        table.add_column(column, justify="right" if column else "left")
    for s in slices:
        values = (f"{s[name]:.3f}" for name in ("f1", "precision", "recall"))
        table.add_row(s["name"], f"{s['n']:,}", percent(s["duplicates"]), *values)
    out.print(table)


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    questions: Annotated[list[str], typer.Argument(help="Two questions, or one file of pairs.")],
    output: Annotated[
        Path | None, typer.Option(help="Where the scored pairs go: .csv, .tsv, .jsonl or .parquet.")
    ] = None,
    columns: ColumnsOption = "",
) -> None:
    """Say of two questions, or of each pair in a file, whether they ask the same thing."""
    with quiet():
        from qpairs.checkpoint import load_checkpoint
        from qpairs.evaluation import predict as run
        from qpairs.pairs import pairs_from_texts

        if len(questions) == 2:
            if not all(q.strip() for q in questions):
                raise UserError("predict: a question is empty")
            model = load_checkpoint(checkpoint)
            verdict = run(model, pairs_from_texts([questions[0]], [questions[1]], [-1]))
            answer = "[bold green]duplicates[/]" if verdict.duplicate[0] else "[bold]not duplicates[/]"
            out.print(
                f"{answer}  similarity {verdict.similarity[0]:.3f} (threshold {model.threshold:.3f}), "
                f"probability {verdict.probability[0]:.2f}",
                highlight=False,
            )
            return
        if len(questions) != 1:
            raise UserError(f"predict: give two questions, or one file of pairs, not {len(questions)} arguments")
        _predict_file(checkpoint, questions[0], output, split_columns(columns))


def _predict_file(checkpoint: Path, source: str, output: Path | None, columns: tuple[str, ...]) -> None:
    from qpairs.checkpoint import load_checkpoint
    from qpairs.evaluation import predict as run
    from qpairs.pairs import load_pairs, read_table

    if output is None:
        raise UserError("predict: name the file for the scored pairs with --output")
    if output.suffix not in WRITERS:
        raise UserError(f"{output}: unknown kind of file; {nearest(output.suffix, WRITERS)}")
    model = load_checkpoint(checkpoint)
    pairs = load_pairs(source, columns=columns, labelled=False)
    table = read_table(source)[0].to_pandas()
    verdict = run(model, pairs)
    table["similarity"] = verdict.similarity
    table["probability"] = verdict.probability
    table["duplicate"] = verdict.duplicate.astype(int)
    fresh = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[output.suffix](table, str(fresh))
        fresh.replace(output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from None
    finally:
        fresh.unlink(missing_ok=True)
    found = int(verdict.duplicate.sum())
    out.print(f"{len(pairs):,} pairs, {found:,} called duplicates ({percent(found / len(pairs))}), written to {output}")


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    columns: ColumnsOption = "",
    skip_bad_rows: SkipOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Fit threshold and probability to a few dozen labelled pairs of your own, without training."""
    with quiet():
        from qpairs.checkpoint import check_output, load_checkpoint, save_checkpoint
        from qpairs.evaluation import calibrate as run

        check_output(output, overwrite=overwrite)
        model = load_checkpoint(checkpoint)
        pairs = load(data, columns, skip_bad_rows)
        fit = run(model, pairs)
        save_checkpoint(fit.checkpoint, output, overwrite=overwrite)
    print_skipped(pairs)
    low, high = fit.interval
    out.print(
        f"threshold {model.threshold:.3f} -> [bold]{fit.checkpoint.threshold:.3f}[/], from {fit.n:,} pairs",
        highlight=False,
    )
    out.print(
        f"F1 on them: {fit.f1_before:.3f} before, {fit.f1_after:.3f} after (cross-fitted); 95 % interval {low:.3f} to "
        f"{high:.3f}, {high - low:.3f} wide; about {fit.more_pairs:,} more pairs would halve it",
        highlight=False,
    )
    out.print(f"Saved in [bold]{output}[/].")
