"""`qpairs report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpairs.commands.terminal import (
    ColumnsOption,
    LabelCutOption,
    LabelsOption,
    SkipOption,
    check_file,
    load,
    out,
    plain,
    print_skipped,
    quiet,
)
from qpairs.core.exceptions import UserError
from qpairs.core.files import write_text


def report(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or an export.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Labelled pairs; may be repeated. Without it, those that the model was tested on."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the page goes: an .html file.")] = Path("report.html"),
    columns: ColumnsOption = "",
    labels: LabelsOption = "",
    label_cut: LabelCutOption = None,
    skip_bad_rows: SkipOption = False,
    intents: Annotated[
        Path | None,
        typer.Option(help="Table with columns question and intent: all duplicates among the questions are known."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap, of the test of slices, and of the map.")] = 0,
) -> None:
    """Write one HTML page on a checkpoint or an export: figures, curves, slices, every mistake, and a map."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{output}: the page is HTML; name a file that ends in .html with --output")
    check_file(output)
    with quiet():
        from qpairs.data.intents import read_intents
        from qpairs.evaluation.report import render
        from qpairs.evaluation.sources import source_names, training_pairs_of
        from qpairs.models.base import load as load_model

        model = load_model(checkpoint)
        title = checkpoint.resolve().name
        known_intents = read_intents(intents) if intents else None
        if data:
            pairs = load(data, columns, skip_bad_rows, labels, label_cut)
            print_skipped(pairs)
            known = training_pairs_of(model)
            source = source_names(data)
            page = render(model, pairs, title=title, source=source, trained_on=known, intents=known_intents, seed=seed)
        else:
            page = render(model, title=title, intents=known_intents, seed=seed)
    write_text(output, page)
    out.print(f"The report is in [bold]{plain(str(output))}[/]: open it in a browser.", highlight=False)
