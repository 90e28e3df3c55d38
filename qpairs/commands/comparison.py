"""`qpairs compare` and `qpairs losses`."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qpairs.commands.terminal import OverwriteOption, TomlOption, err, out, plain, progress, quiet
from qpairs.commands.training import given_options, with_config_options
from qpairs.core.exceptions import UserError, nearest

if TYPE_CHECKING:
    from qpairs.core.progress import OnProgress, Progress
    from qpairs.experiments.results import Comparison, Row


@with_config_options("encoder", "loss", "miner", "output", budget_minutes=5.0, epochs="no limit", patience=0)
def compare(
    *,
    losses: Annotated[str, typer.Option(help="Losses as for train, with commas between them; all: every one.")] = "all",
    encoders: Annotated[str, typer.Option(help="Encoders likewise. [default: minilm]")] = "",
    miners: Annotated[
        str,
        typer.Option(
            help="Miners likewise, and two samplers that choose what a loss sees: offline (triplets, with negatives "
            "mined before each epoch) and groups. [default: everything]"
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each kind, from --seed on; the split is --seed's.")] = 3,
    output: Annotated[Path, typer.Option(help="Folder of the results; going on there is automatic.")] = Path(
        "runs/compare"
    ),
    config: TomlOption = None,
    keep_checkpoints: Annotated[bool, typer.Option("--keep-checkpoints", help="Keep what each run trained.")] = False,
    overwrite: OverwriteOption = False,
    **options: Any,
) -> None:
    """Train losses, miners and encoders on the same pairs for the same time, and say which is best, and how surely."""
    values = given_options(config, options) | {
        "losses": losses,
        "encoders": encoders,
        "miners": miners,
        "output": str(output),
    }
    with quiet(), _cells_bar() as on_progress:
        from qpairs.experiments.compare import compare as run

        found = run(
            seeds=seeds, keep_checkpoints=keep_checkpoints, overwrite=overwrite, on_progress=on_progress, **values
        )
    _print_comparison(found)
    out.print(f"\nAll cells, this table and a chart are in [bold]{output}[/].", highlight=False)


@contextlib.contextmanager
def _cells_bar() -> Iterator[OnProgress]:
    with progress() as bar:
        task = bar.add_task("loading", total=None, state="")
        done = math.inf  # cells, at the last report

        def on_progress(now: Progress) -> None:
            nonlocal done
            cell, note = plain(now.stage), escape(now.note).replace("failed:", "[red]failed:[/]", 1)
            bar.update(task, description=cell, total=now.total, completed=now.done, state=note)
            if now.done > done:
                err.print(f"cell {now.done} of {now.total}  {cell}  {note}", highlight=False, soft_wrap=True)
            done = now.done

        yield on_progress


def _print_comparison(found: Comparison) -> None:
    differ = {name: len({getattr(row, name) for row in found.rows}) > 1 for name in ("encoder", "miner")}
    kinds = [name for name in ("encoder", "loss", "miner") if differ.get(name, True)]
    table = Table(title=f"\n{plain(found.title)}", title_justify="left", box=None, pad_edge=False)
    for name in kinds:
        table.add_column(name, overflow="fold")
    for name in ("F1", "AP", "mining AP", "s", "steps", "GiB", "F1 less the best's, 95 %", ""):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in found.rows:
        figures = _figures(row) if row.results else ["failed"]
        table.add_row(*(plain(getattr(row, name)) for name in kinds), *figures)
    Console(width=max(out.width, 160)).print(table)
    same = [f"{name} {getattr(found.rows[0], name)}" for name in differ if name not in kinds]
    out.print(
        f"[dim]{plain('; '.join([*same, 'mean ± standard deviation over seeds']))}; AP is average precision; unclear: "
        "the interval (paired bootstrap over components) has zero in it.[/]",
        highlight=False,
    )
    for note in found.notes:
        out.print(f"[dim]Note: {plain(note)}.[/]", highlight=False)
    for record in found.records:
        if record.error:
            cell = ", ".join(map(str, dataclasses.astuple(record.cell)[:3]))
            out.print(f"[red]failed:[/] {plain(f'{cell}, seed {record.cell.seed}: {record.error}')}", highlight=False)


def _figures(row: Row) -> list[str]:
    def spread(measure: str) -> str:
        sd = row.sd(measure)
        return f"{row.mean(measure):.3f}" + (f" ± {sd:.3f}" if sd == sd else "")

    difference = row.difference
    return [
        f"[bold]{spread('f1')}[/]",
        spread("average_precision"),
        f"{row.mean('mining_average_precision'):.3f}",
        f"{row.mean('seconds'):,.0f}",
        f"{row.mean('steps'):,.0f}",
        f"{row.mean('peak_bytes') / 2**30:.1f}",
        f"{difference.value:.3f} ({difference.low:.3f} to {difference.high:.3f})" if difference else "",
        ("worse" if difference.distinguishable else "unclear") if difference else "best",
    ]


def losses(
    name: Annotated[str, typer.Argument(help="A loss or a miner to describe; without it, all are listed.")] = "",
) -> None:
    """List the losses and the miners, with formula, paper and defaults, or describe one."""
    from qpairs.objectives.losses import LOSSES
    from qpairs.objectives.miners import MINERS

    tables: dict[str, Mapping[str, Any]] = {"loss": LOSSES, "miner": MINERS}
    if name:
        found = [(kind, rows[name]) for kind, rows in tables.items() if name in rows]
        if not found:
            raise UserError(f"losses: no loss or miner {name!r}; {nearest(name, {**LOSSES, **MINERS})}")
        for kind, entry in found:
            _print_entry(f"{name}, a {kind}", entry)
        return
    for kind, rows in tables.items():
        table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), width=min(out.width, 100))
        table.add_column(f"{kind}, defaults", min_width=max(map(len, rows)), max_width=30)
        table.add_column("in words, paper")
        if kind == "loss":
            table.add_column("similarity, negatives", no_wrap=True)
        for row, entry in rows.items():
            defaults = ", ".join(f"{key}={value:g}" for key, value in entry.parameters.items())
            reads = (f"{entry.similarity.replace('_', ' ')}\n[dim]{_negatives(entry)}[/]",) if kind == "loss" else ()
            words = f"{plain(entry.formula)}\n[dim]{plain(entry.paper)}[/]"
            table.add_row(f"[bold]{row}[/]\n[dim]{defaults}[/]", words, *reads)
        out.print(table, "")
    out.print("qpairs losses NAME describes one of them.", highlight=False)


def _negatives(entry: Any) -> str:
    """What a loss counts as non-duplicates."""
    if entry.positives_only:
        return "none"
    if entry.prototypes:
        return "prototypes"
    return "labelled, in-batch" if entry.in_batch else "labelled"


def _print_entry(title: str, entry: Any) -> None:
    """The docstring of a row's function: its paragraphs, then the parameters as a table."""
    from qpairs.objectives.prototypes import Prototypes

    paragraphs, meanings = _docstring(entry.function)
    meanings = {**_docstring(Prototypes.__init__)[1], **meanings}
    out.print(f"[bold]{title}[/]  [dim]{plain(entry.paper)}[/]\n", highlight=False)
    for paragraph in paragraphs:
        out.print(f"{plain(paragraph)}\n", highlight=False, width=min(out.width, 100))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for key, default in entry.parameters.items():
        table.add_row(f"[bold]{key}={default:g}[/]", plain(meanings.get(key, "")))
    out.print(table, width=min(out.width, 100))


def _docstring(function: Callable[..., Any]) -> tuple[list[str], dict[str, str]]:
    """The paragraphs of a docstring, and what it says of each argument."""
    text, _, arguments = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")
    return text.strip().split("\n\n"), dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE))
