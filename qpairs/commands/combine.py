"""`qpairs combine`, and the table of what a second look gains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.reading import NamedPairs
from qpairs.commands.terminal import (
    EXAMPLE,
    ColumnsOption,
    LabelCutOption,
    LabelsOption,
    OverwriteOption,
    SkipOption,
    out,
    percent,
    print_command,
    print_saved,
    progress_bar,
    quiet,
)


def combine(
    encoder: Annotated[Path, typer.Argument(help="Folder of an encoder: a checkpoint or an export.")],
    cross_encoder: Annotated[Path, typer.Argument(help="Folder of a cross-encoder, from train or an export.")],
    output: Annotated[Path, typer.Option(help="Folder of the combined model.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Labelled pairs that neither was trained on; without it, those that the encoder was validated on.",
            show_default=False,
        ),
    ] = None,
    columns: ColumnsOption = "",
    labels: LabelsOption = "",
    label_cut: LabelCutOption = None,
    skip_bad_rows: SkipOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Combine an encoder with a cross-encoder that reads only the pairs whose decision it can change."""
    named = NamedPairs(data or (), columns, labels, label_cut, skip_bad_rows)
    with quiet(), progress_bar() as on_progress:
        from qpairs.evaluation.combine import combine_folders

        model = combine_folders(
            encoder,
            cross_encoder,
            output,
            named.load() if data else (),
            overwrite=overwrite,
            on_progress=on_progress,
        )
    print_second_look(model.scores)
    print_saved(output, "\nSaved in", ". Try it:")
    print_command("qpairs", "evaluate", output, *named.like("OTHERS.csv").words())
    print_command("qpairs", "predict", output, *EXAMPLE)


def print_second_look(scores: Mapping[str, Any]) -> None:
    """Prints what an encoder and a cross-encoder reach alone and together; `scores` are those of a `TwoStages`."""
    both, alone = scores["validation"], scores["second_look"]
    table = Table(title=f"\nOn {both['n']:,} validation pairs", title_justify="left", box=None, pad_edge=False)
    for column in ("", "F1, cross-fitted", "AP"):
        table.add_column(column, justify="right" if column else "left")
    for name, which in (("encoder alone", "first"), ("cross-encoder alone", "second")):
        table.add_row(name, f"{alone[f'f1_{which}']:.3f}", f"{alone[f'average_precision_{which}']:.3f}")
    table.add_row("both", f"[bold]{both['f1_cross_fitted']:.3f}[/]", f"{both['average_precision']:.3f}")
    out.print(table)
    low, high = alone["band"]
    if not alone["share"] and low < high:
        out.print(
            f"The cross-encoder reads pairs that the encoder scores {low:.3f} to {high:.3f}, and no validation pair "
            "is among them: its effect cannot be measured here.",
            highlight=False,
        )
        return
    if not alone["share"]:
        out.print(
            "The cross-encoder reads none of these pairs: it adds nothing to the encoder. Use the encoder alone, or "
            "train the cross-encoder on more pairs."
        )
        return
    out.print(
        f"The cross-encoder reads pairs that the encoder scores {low:.2f} to {high:.2f}, {percent(alone['share'])} of "
        "these; elsewhere it could not change the decision, at 99 %.",
        highlight=False,
    )
