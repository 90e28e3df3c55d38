"""`qpairs export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.conclusions import after_export
from qpairs.commands.reading import NamedPairs
from qpairs.commands.terminal import (
    ColumnsOption,
    LabelCutOption,
    LabelsOption,
    OverwriteOption,
    SkipOption,
    out,
    plain,
    print_conclusion,
    print_saved,
    progress_bar,
    quiet,
    shown_path,
)

if TYPE_CHECKING:
    from qpairs.export.parity import PairParity, Parity, StagesParity


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder of a checkpoint: of an encoder, a cross-encoder, or both.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the export.")],
    format: Annotated[
        str,
        typer.Option(
            help="fastest: whichever of the next four is fastest on this machine, by measurement; onnx: the encoder "
            "in full precision; onnx-int8: its matrix products in 8 bits; openvino, openvino-int8: the same, run "
            "by OpenVINO; static: a student, the mean of word vectors, trained on the training pairs first."
        ),
    ] = "onnx-int8",
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            "--validation",
            help="Labelled pairs to compare on; without it, those that the checkpoint was validated on.",
        ),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="F1 that may be lost; if more is lost, nothing is written. [default: 0.003; static: 0.1, as it "
            "differs far more from the checkpoint]",
            show_default=False,
        ),
    ] = None,
    columns: ColumnsOption = "",
    labels: LabelsOption = "",
    label_cut: LabelCutOption = None,
    skip_bad_rows: SkipOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a checkpoint in a form that runs without torch, about twice as fast, and compare it with the original."""
    with quiet(), progress_bar() as on_progress:
        from qpairs.evaluation.sources import warn_of_few
        from qpairs.export.export import export_checkpoint
        from qpairs.export.fastest import FASTEST, export_fastest
        from qpairs.export.parity import PairParity

        given = NamedPairs(data, columns, labels, label_cut, skip_bad_rows).load() if data else None
        if given is not None:
            warn_of_few(given, "export")
        common: dict[str, Any] = {"max_loss": max_loss, "overwrite": overwrite, "on_progress": on_progress}
        if format == FASTEST:
            found = export_fastest(checkpoint, output, data=given, **common)
            format, parity, rates = found.format, found.parity, found.rates
        else:
            parity, rates = export_checkpoint(checkpoint, output, format=format, data=given, **common), {}
    _print_parity(parity, rates, format, (checkpoint, output))
    print_saved(output, after=f". From Python: qpairs.load({shown_path(repr(str(output)))})")
    alone = isinstance(parity, PairParity)
    speed = rates[format] / rates["checkpoint"] if rates else None
    what: dict[str, Any] = {"searches": not alone, "checkpoint": checkpoint, "speed": speed}
    print_conclusion(after_export(parity.f1_before, parity.f1_after, format, output, **what))


def _print_parity(
    parity: Parity | PairParity | StagesParity, rates: Mapping[str, float], format: str, folders: tuple[Path, Path]
) -> None:
    """Prints how an export compares; `folders` are those of the checkpoint and of the export."""
    if rates:
        tried = [f"{name} {rate / rates['checkpoint']:.2f}" for name, rate in rates.items() if name != "checkpoint"]
        out.print(f"times as fast as the checkpoint, here: {', '.join(tried)}", highlight=False)
    table = Table(title=f"On {parity.n:,} pairs", title_justify="left", box=None, pad_edge=False)
    for column in ("", "F1, cross-fitted", "MB"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("checkpoint", f"{parity.f1_before:.3f}", _megabytes(folders[0]))
    table.add_row(format, f"[bold]{parity.f1_after:.3f}[/]", _megabytes(folders[1]))
    out.print(table)
    out.print("\n".join(map(plain, parity.lines())), highlight=False)


def _megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:,.1f}"
