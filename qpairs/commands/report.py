"""`qpairs report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpairs.commands.outputs import check_file
from qpairs.commands.reading import NamedPairs, judged_pairs
from qpairs.commands.terminal import (
    ColumnsOption,
    JudgedDataOption,
    LabelCutOption,
    LabelsOption,
    ReplaceOption,
    SkipOption,
    print_saved,
    print_skipped,
    progress_bar,
    quiet,
    shown_path,
)
from qpairs.core.exceptions import UserError
from qpairs.core.files import write_text
from qpairs.core.progress import Progress


def report(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or an export.")],
    data: JudgedDataOption = None,
    output: Annotated[Path, typer.Option(help="File of the page, .html.")] = Path("report.html"),
    columns: ColumnsOption = "",
    labels: LabelsOption = "",
    label_cut: LabelCutOption = None,
    skip_bad_rows: SkipOption = False,
    intents: Annotated[
        Path | None,
        typer.Option(help="Table with columns question and intent: duplicates are the questions of one intent."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap, of the test of slices, and of the map.")] = 0,
    overwrite: ReplaceOption = False,
) -> None:
    """Write an HTML report on a checkpoint or an export: figures, curves, slices, every mistake, and a map."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{output}: the page is HTML; name a file that ends in .html with --output")
    check_file(output, overwrite=overwrite)
    with quiet(), progress_bar() as on_progress:
        from qpairs.data.intents import read_intents
        from qpairs.evaluation.report import render
        from qpairs.models.base import load as load_model

        model = load_model(checkpoint)
        title = checkpoint.resolve().name
        known_intents = read_intents(intents) if intents else None
        named = NamedPairs(data or (), columns, labels, label_cut, skip_bad_rows)
        judged = judged_pairs(model, named, "report")
        on_progress(Progress("judging"))
        page = render(
            model,
            judged.pairs,
            title=title,
            source=judged.source,
            trained_on=judged.trained_on,
            intents=known_intents,
            seed=seed,
        )
    write_text(output, page)
    print_skipped(judged.pairs)
    after = ": open it in a browser, and read the mistakes of the worst slices first."
    print_saved(output, f"The report on {shown_path(judged.source)} is in", after)
