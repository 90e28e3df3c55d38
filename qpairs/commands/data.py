"""`qpairs data`."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qpairs.commands.terminal import ColumnsOption, SkipOption, load, out, percent, plain, print_skipped, quiet
from qpairs.core.exceptions import UserError
from qpairs.core.files import write_text


def data(
    source: Annotated[
        list[str], typer.Argument(help="Pairs: a named source, Hub id, folder or file; several are joined.")
    ],
    columns: ColumnsOption = "",
    skip_bad_rows: SkipOption = False,
    examples: Annotated[int, typer.Option(min=0, help="Examples of each kind.")] = 3,
    contradictions_file: Annotated[
        Path | None, typer.Option("--contradictions", help="Write the contradicting pairs to this CSV.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the examples.")] = 0,
) -> None:
    """Show what a source of pairs holds: sizes, ratio, lengths, components, contradictions, the split, examples."""
    with quiet():
        import numpy as np

        from qpairs.data.splits import contradictions, question_components, split_pairs

        pairs = load(source, columns, skip_bad_rows)
        faults = contradictions(pairs)
        sizes = np.bincount(question_components(pairs))
        words = np.array([len(q.split()) for q in pairs.questions])
    print_skipped(pairs)
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "pairs": f"{len(pairs):,}",
        "duplicates": percent(pairs.duplicate_ratio),
        "distinct questions": f"{len(pairs.questions):,}",
        "words per question": f"{words.mean():.1f} on average, at most {words.max()}",
        "components": f"{len(sizes):,}, of {sizes.mean():.1f} questions on average, at most {sizes.max():,}",
        "contradictions": f"{len(faults):,} pairs labelled 0 that other labels, or their very words, make one question",
    }
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", value)
    out.print(table)
    with contextlib.suppress(UserError):
        cut = split_pairs(pairs, seed=seed)
        parts = ", ".join(f"{name} {len(getattr(cut, name)):,}" for name in ("train", "validation", "test"))
        out.print(f"[dim]split[/] {parts}, {cut.dropped:,} dropped, fingerprint {cut.fingerprint}", highlight=False)
    random = np.random.default_rng(seed)
    for title, found in (
        ("duplicates", np.flatnonzero(pairs.labels == 1)),
        ("not duplicates", np.flatnonzero(pairs.labels == 0)),
        ("contradictions", faults),
    ):
        chosen = random.permutation(found)[:examples]
        if len(chosen):
            out.print(f"\n[bold]{title}[/]")
        for row in chosen:
            one, other = map(plain, pairs.texts(int(row)))
            out.print(f"  {one}\n  [dim]{other}[/]\n", highlight=False, soft_wrap=True)
    if contradictions_file:
        lines = [("question1", "question2", "is_duplicate"), *((*pairs.texts(int(i)), 0) for i in faults)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        write_text(contradictions_file, text.getvalue())
