"""`qpairs learning-curve`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.comparison import with_finished_cells
from qpairs.commands.conclusions import after_learning_curve
from qpairs.commands.terminal import (
    OverwriteOption,
    TomlOption,
    out,
    plain,
    print_conclusion,
    print_saved,
    progress_bar,
    quiet,
)
from qpairs.commands.training import given_options, with_config_options
from qpairs.config import GROUPS, Config, config_words

if TYPE_CHECKING:
    from qpairs.experiments.curves import Curve

_option = functools.partial(typer.Option, rich_help_panel="Learning curve")


@with_config_options("output", "model", "reranker", "reranker_epochs")
def learning_curve(
    *,
    sizes: Annotated[
        str,
        _option(help="Numbers of training pairs, at least four, separated by commas. [default: all, half, ..., six]"),
    ] = "",
    seeds: Annotated[
        int, _option(min=1, help="Runs of each size, each with its own seed and draw, starting at --seed; one split.")
    ] = 3,
    equal_epochs: Annotated[
        bool,
        _option(
            "--equal-epochs",
            help="Train each size for --epochs passes, which takes less time; without it, every size takes as many "
            "steps as all pairs, so that only the pairs differ.",
        ),
    ] = False,
    output: Annotated[Path, _option(help="Folder of the results; the same command continues what is there.")] = Path(
        "runs/learning-curve"
    ),
    config: TomlOption = None,
    overwrite: OverwriteOption = False,
    **options: Any,
) -> None:
    """Train on more and more of the labelled pairs, and predict the gain from twice as many."""
    values = given_options(config, options)
    with quiet(), progress_bar() as on_progress:
        from qpairs.experiments.learning_curve import learning_curve as run

        found = run(
            sizes=sizes,
            seeds=seeds,
            equal_epochs=equal_epochs,
            output=str(output),
            overwrite=overwrite,
            on_progress=with_finished_cells(on_progress),
            **values,
        )
    _print_points(found.title, found.curves)
    for curve in found.curves.values():
        _print_in_words(curve)
    for note in found.notes:
        out.print(f"[dim]Note: {plain(note)}.[/]", highlight=False)
    print_saved(output, "\nThe table, all runs and a chart are in")
    twice = found.curves["f1"].predictions[0]
    print_conclusion(after_learning_curve(twice.gain, twice.gain_interval[0], twice.pairs, _same_pairs(found.config)))


def _same_pairs(config: Config) -> list[str]:
    """The options that name the pairs of a run to a comparison."""
    named = {name: getattr(config, name) for name in (*GROUPS["data"].__annotations__, "imports")}
    return config_words(Config(**named))


def _print_points(title: str, curves: Mapping[str, Curve]) -> None:
    f1, precision = curves["f1"], curves["average_precision"]
    table = Table(title=f"\n{plain(title)}", title_justify="left", box=None, pad_edge=False)
    for name in ("training pairs", "F1", "95 %", "fitted", "AP", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for point, other in zip(f1.points, precision.points, strict=True):
        fitted = f"{float(f1.law.at(point.pairs)):.3f}"
        table.add_row(
            f"{point.pairs:,}",
            f"[bold]{point.mean:.3f}[/]",
            _interval(point.interval),
            fitted,
            f"{other.mean:.3f}",
            _interval(other.interval),
        )
    for ahead, later in zip(f1.predictions, precision.predictions, strict=True):
        table.add_row(
            f"[dim]{ahead.pairs:,}, predicted[/]",
            f"[dim]{ahead.value:.3f}[/]",
            f"[dim]{_interval(ahead.interval)}[/]",
            "",
            f"[dim]{later.value:.3f}[/]",
            f"[dim]{_interval(later.interval)}[/]",
        )
    out.print(table)


def _print_in_words(curve: Curve) -> None:
    words = curve.in_words
    out.print(f"[bold]{plain(words[0].upper() + words[1:])}.[/]", highlight=False)
    if curve.backtest:
        then = curve.backtest
        out.print(
            f"[dim]Fitted up to {then.fitted_to:,} pairs, it predicted {then.predicted:.3f} for {then.pairs:,}; found: "
            f"{then.found:.3f}, {then.error:+.3f} ({then.error_interval[0]:+.3f} to {then.error_interval[1]:+.3f}).[/]",
            highlight=False,
        )


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"
