"""How many pairs of each kind are duplicates, by their labels: the slices of `qpairs errors`, without a model.

python benchmarks/kinds.py --data F.parquet [--json OUT]
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from machine import circumstances
from rich.console import Console
from rich.table import Table

import qpairs
from qpairs.data.pairs import Pairs
from qpairs.evaluation.wording import KINDS, Wording, vocabulary

console = Console(width=110)


def count_kinds(pairs: Pairs) -> list[dict[str, object]]:
    """Of each value of each kind: its pairs, and the share of them that are duplicates."""
    known, labels = vocabulary(pairs.questions), defaultdict[tuple[str, str], list[int]](list)
    for row, label in enumerate(pairs.labels.tolist()):
        wording = Wording(pairs.texts(row), known)
        for name, kind in KINDS.items():
            if (value := kind.value(wording)) is not None:
                labels[name, value].append(label)
    return [
        {"kind": kind, "value": value, "pairs": len(found), "duplicates": float(np.mean(found))}
        for kind in KINDS
        for (name, value), found in sorted(labels.items())
        if name == kind
    ]


def main(
    data: Annotated[Path, typer.Option(help="Labelled pairs.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
) -> None:
    """Counts, prints a table and writes JSON."""
    measured_on, pairs = circumstances(), qpairs.load_pairs(data)
    rows, share = count_kinds(pairs), float(pairs.labels.mean())
    table = Table("kind", "value", title=f"{len(pairs):,} pairs, {share:.1%} of them duplicates", box=None)
    for column in ("pairs", "duplicates"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(str(row["kind"]), str(row["value"]), f"{row['pairs']:,}", f"{row['duplicates']:.1%}")
    console.print(table)
    if json_file:
        about = {**measured_on, "data": str(data), "pairs": len(pairs), "duplicates": share}
        json_file.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
