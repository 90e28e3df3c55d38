"""`qpairs compare` and `qpairs losses`."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qpairs.commands.conclusions import Conclusion, after_compare
from qpairs.commands.terminal import (
    SILENT,
    OverwriteOption,
    TomlOption,
    counted,
    duration,
    err,
    out,
    plain,
    print_conclusion,
    print_saved,
    progress_bar,
    quiet,
)
from qpairs.commands.training import given_options, with_config_options
from qpairs.config import OPTIONS, Config, config_words
from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, Progress

if TYPE_CHECKING:
    from qpairs.experiments.results import Comparison, Row
    from qpairs.objectives.descriptions import Description

_option = functools.partial(typer.Option, rich_help_panel="Comparison")


@with_config_options(
    *("encoder", "loss", "miner", "output", "model", "reranker", "reranker_epochs"),
    budget_minutes=5.0,
    epochs="no limit",
    patience=0,
)
def compare(
    *,
    losses: Annotated[str, _option(help="Losses as for train, separated by commas; all: every loss.")] = "all",
    encoders: Annotated[str, _option(help="Encoders, separated by commas. [default: minilm]")] = "",
    miners: Annotated[
        str,
        _option(
            help="Miners, separated by commas, and two samplers: offline (triplets, with negatives mined before each "
            "epoch) and groups. [default: everything]",
        ),
    ] = "",
    seeds: Annotated[
        int, _option(min=1, help="Runs of each combination, with seeds starting at --seed; one split for all.")
    ] = 3,
    output: Annotated[Path, _option(help="Folder of the results; the same command continues what is there.")] = Path(
        "runs/compare"
    ),
    keep_checkpoints: Annotated[bool, _option("--keep-checkpoints", help="Keep the checkpoint of each run.")] = False,
    config: TomlOption = None,
    overwrite: OverwriteOption = False,
    dry_run: Annotated[bool, _option("--dry-run", help="List the runs and the hours they take; train none.")] = False,
    **options: Any,
) -> None:
    """Train losses, miners and encoders on the same pairs for the same time, and rank them with intervals."""
    values = given_options(config, options) | {
        "losses": losses,
        "encoders": encoders,
        "miners": miners,
        "output": str(output),
    }
    if dry_run:
        _print_plan(values, seeds)
        return
    with quiet(), progress_bar() as on_progress:
        from qpairs.experiments.compare import compare as run

        found = run(
            seeds=seeds,
            keep_checkpoints=keep_checkpoints,
            overwrite=overwrite,
            on_progress=with_finished_cells(on_progress),
            **values,
        )
    _print_comparison(found)
    print_saved(output, "\nAll cells, this table and a chart are in")
    best = found.rows[0]
    if not best.results:
        raise UserError("compare: no cell finished, so there is nothing to compare; the lines above say why")
    same = sum(bool(row.difference and row.difference.verdict != "worse") for row in found.rows)
    name = best.loss if len({row.loss for row in found.rows}) > 1 else f"{best.encoder} with {best.loss}"
    print_conclusion(after_compare(name, same, _run_of(best, found.config), others=len(found.rows) > 1))


def _run_of(row: Row, base: Config) -> list[str]:
    """The options of a run like the cells of a row, without their time limit."""
    from qpairs.experiments.cells import Cell

    config = Cell(row.encoder, row.loss, row.miner, base.seed).config(base, Path())
    usual: dict[str, Any] = {name: OPTIONS[name].default for name in ("output", "budget_minutes", "epochs", "patience")}
    return config_words(dataclasses.replace(config, **usual), always=("encoder", "loss"))


def _print_plan(values: dict[str, Any], seeds: int) -> None:
    with quiet(), progress_bar() as on_progress:
        from qpairs.experiments.compare import plan_comparison

        found = plan_comparison(seeds=seeds, on_progress=on_progress, **values)
    kinds = list(dict.fromkeys((cell.encoder, cell.loss, cell.miner) for cell in found.cells))
    table = Table(box=None, pad_edge=False)
    for name in ("encoder", "loss", "miner"):
        table.add_column(name, overflow="fold")
    table.add_column("seeds", justify="right")
    table.add_column("a cell", justify="right")
    for encoder, loss, miner in kinds:
        table.add_row(plain(encoder), plain(loss), plain(miner), str(seeds), duration(60 * found.minutes[encoder]))
    out.print(table)
    sizes = ", ".join(f"{part} {n:,}" for part, n in found.split["sizes"].items())
    out.print(
        f"\n{counted(len(found.cells), 'cell')} on one split ({sizes}): about [bold]{duration(3600 * found.hours)}[/] "
        "of training, one after the other; loading and final evaluation come on top. Nothing was trained: run it "
        "without --dry-run, or shorten it with --budget-minutes, --seeds or fewer --losses.",
        highlight=False,
    )


def with_finished_cells(on_progress: OnProgress) -> OnProgress:
    """Also prints a line for every cell that has finished."""
    finished = math.inf  # cells, at the last report

    def report(now: Progress) -> None:
        nonlocal finished
        on_progress(now)
        if now.done > finished:
            note = escape(now.note).replace("failed:", "[red]failed:[/]", 1)
            line = f"cell {now.done} of {now.total}  {plain(now.stage)}  {note}"
            err.print(line, highlight=False, soft_wrap=True)
        finished = now.done

    return report


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
    Console(width=max(out.width, 160), quiet=SILENT, emoji=False).print(table)
    same = [f"{name} {getattr(found.rows[0], name)}" for name in differ if name not in kinds]
    out.print(
        f"[dim]{plain('; '.join([*same, 'mean ± standard deviation over seeds']))}; AP is average precision; no "
        "difference: the simultaneous interval, over questions and seeds, contains zero.[/]",
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
        difference.verdict if difference else "best",
    ]


def losses(
    name: Annotated[str, typer.Argument(help="A loss or a miner to describe; without it, all are listed.")] = "",
) -> None:
    """List the losses and the miners, with formula, paper and defaults, or describe one."""
    with progress_bar():
        from qpairs.objectives.descriptions import describe
        from qpairs.objectives.plugins import register_custom

        register_custom()
        found = describe(name)
    if name:
        for description in found:
            _print_description(description)
        return
    for kind in ("loss", "miner"):
        _print_overview(kind, [description for description in found if description.kind == kind])
    print_conclusion(Conclusion("One of them is described by:", (("losses", "NAME"),)))


def _print_overview(kind: str, rows: Sequence[Description]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), width=min(out.width, 100))
    table.add_column(f"{kind}, defaults", min_width=max(len(row.name) for row in rows), max_width=30)
    table.add_column("in words, paper")
    if kind == "loss":
        table.add_column("similarity, negatives", no_wrap=True)
    for row in rows:
        defaults = ", ".join(f"{key}={value:g}" for key, value in row.parameters.items())
        reads = (f"{row.similarity}\n[dim]{row.negatives}[/]",) if kind == "loss" else ()
        words = f"{plain(row.formula)}\n[dim]{plain(row.paper)}[/]"
        table.add_row(f"[bold]{plain(row.name)}[/]\n[dim]{plain(defaults)}[/]", words, *reads)
    out.print(table, "")


def _print_description(found: Description) -> None:
    out.print(f"[bold]{plain(found.name)}, a {plain(found.kind)}[/]  [dim]{plain(found.paper)}[/]\n", highlight=False)
    for paragraph in found.paragraphs:
        out.print(f"{plain(paragraph)}\n", highlight=False, width=min(out.width, 100))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for key, default in found.parameters.items():
        table.add_row(f"[bold]{plain(key)}={default:g}[/]", plain(found.meanings.get(key, "")))
    out.print(table, width=min(out.width, 100))
