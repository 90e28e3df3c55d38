"""`qpairs data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from qpairs.commands.conclusions import after_data
from qpairs.commands.outputs import check_file
from qpairs.commands.reading import NamedPairs
from qpairs.commands.terminal import (
    ColumnsOption,
    LabelCutOption,
    LabelsOption,
    RawOption,
    ReplaceOption,
    SkipOption,
    out,
    percent,
    plain,
    print_conclusion,
    print_skipped,
    progress_bar,
    quiet,
)
from qpairs.config import Config
from qpairs.core.tables import check_table_path, write_table

if TYPE_CHECKING:
    from qpairs.data.summary import Summary


def data(
    source: Annotated[
        list[str],
        typer.Argument(help="Labelled pairs: named source, Hub id, folder or file; several are joined."),
    ],
    columns: ColumnsOption = "",
    labels: LabelsOption = "",
    label_cut: LabelCutOption = None,
    skip_bad_rows: SkipOption = False,
    examples: Annotated[int, typer.Option(min=0, help="Examples of each kind.")] = 3,
    contradictions_file: Annotated[
        Path | None,
        typer.Option("--contradictions", help="Write the contradictions to this .csv, .tsv, .jsonl or .parquet."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the examples.")] = 0,
    overwrite: ReplaceOption = False,
    raw: RawOption = False,
) -> None:
    """Show what pairs contain: sizes, share of duplicates, lengths, components, contradictions, examples."""
    if contradictions_file:
        check_table_path(contradictions_file)
        check_file(contradictions_file, overwrite=overwrite, option="--contradictions")
    named = NamedPairs(source, columns, labels, label_cut, skip_bad_rows)
    with quiet(), progress_bar():
        from qpairs.data.parts import has_positives_alone
        from qpairs.data.summary import summarize

        found = summarize(named.load(), seed=seed)
    print_skipped(found.pairs)
    _print_figures(found)
    for title, pairs in found.examples(examples, seed=seed).items():
        if pairs:
            out.print(f"\n[bold]{title}[/]")
        for first, second in pairs:
            out.print(f"  {plain(first)}\n  [dim]{plain(second)}[/]\n", highlight=False, soft_wrap=True)
    if contradictions_file:
        write_table(contradictions_file, found.contradiction_table(), raw=raw)
    alone, obstacle = has_positives_alone(found.pairs), found.obstacle
    counts = len(found.contradictions), len(found.pairs)
    print_conclusion(after_data(*counts, named, obstacle=obstacle, alone=alone))


def _print_figures(found: Summary) -> None:
    pairs, words, sizes = found.pairs, found.words, found.components
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "pairs": f"{len(pairs):,}",
        "duplicates": percent(pairs.duplicate_ratio),
        "distinct questions": f"{len(pairs.questions):,}",
        "words per question": f"{words.mean():.1f} on average, at most {words.max()}",
        "components": f"{len(sizes):,}, of {sizes.mean():.1f} questions on average, at most {sizes.max():,}",
        "contradictions": f"{len(found.contradictions):,} pairs labelled 0 that other labels, or equal texts, make "
        "duplicates",
    }
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", value)
    out.print(table)
    limit = Config().max_length
    if longer := found.longer_than(limit):
        out.print(
            f"[yellow]At least {longer:,} questions ({percent(longer / len(words))}) have more than the {limit} tokens "
            "that qpairs train reads, and would be cut: raise --max-length there.[/]",
            highlight=False,
        )
    if found.split:
        cut = found.split
        parts = ", ".join(f"{name} {len(getattr(cut, name)):,}" for name in ("train", "validation", "test"))
        out.print(f"[dim]split[/] {parts}, {cut.dropped:,} dropped, fingerprint {cut.fingerprint}", highlight=False)
