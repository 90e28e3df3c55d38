"""`qpairs train`, and the options that every field of Config has."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.terminal import OverwriteOption, TomlOption, err, out, percent, print_report, progress, quiet
from qpairs.config import HELP, Config, config_from, read_toml
from qpairs.core.progress import OnProgress, Progress


def _config_option(name: str, kind: Any, default: Any) -> inspect.Parameter:
    """The option of a field of Config, unset by default, so that a TOML file is overridden by what is given alone."""
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        flag += f"/--no-{name.replace('_', '-')}"
    elif typing.get_origin(kind) is tuple:
        kind = str if name == "columns" else list[str]
    shown = ", ".join(default) if isinstance(default, tuple) else default
    about = HELP[name] + (f" [default: {shown}]" if shown not in ("", None) else "")
    annotation = Annotated[kind | None, typer.Option(flag, help=about, show_default=False)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def with_config_options(*without: str, **shown: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Puts an option for each field of Config in the place of **options.

    Args:
        without: fields that get none.
        shown: what the help calls the default of a field, where it is not that of Config.
    """
    defaults = {spec.name: spec.default for spec in dataclasses.fields(Config)} | shown
    kinds = {name: kind for name, kind in typing.get_type_hints(Config).items() if name not in without}

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        options = [_config_option(name, kind, defaults[name]) for name, kind in kinds.items()]
        own = inspect.signature(function, eval_str=True).parameters.values()
        signature = inspect.Signature([*options, *(p for p in own if p.kind != p.VAR_KEYWORD)])
        function.__signature__ = signature  # type: ignore[attr-defined]
        function.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()} | {"return": None}
        return function

    return decorated


def given_options(config: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Config that a TOML file and the options give; these go over that."""
    given = {name: value for name, value in options.items() if value not in (None, [])}
    values = {**(read_toml(config) if config else {}), **given}
    config_from(values, where=str(config or "options"))
    return values


@with_config_options()
def train(
    *,
    config: TomlOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run of --output.")] = False,
    overwrite: OverwriteOption = False,
    **options: Any,
) -> None:
    """Train a detector on question pairs, choose its threshold on validation, and judge it on unseen questions."""
    values = given_options(config, options)
    with quiet(), _progress_bar() as on_progress:
        from qpairs.training.fit import train as run

        checkpoint = run(resume=resume, overwrite=overwrite, on_progress=on_progress, **values)
    _print_split(checkpoint.split)
    from qpairs.encoders.build import encoder_note

    part = "test" if "test" in checkpoint.scores else "validation"
    print_report(checkpoint.scores[part], f"{part} pairs", note=encoder_note(checkpoint.config.encoder))
    if part == "validation":
        fair = checkpoint.scores["validation"]["f1_cross_fitted"]
        out.print(
            f"The threshold was chosen on these very pairs; cross-fitted, F1 is {fair:.3f}. "
            "Name unseen pairs with --test."
        )
    folder = checkpoint.config.output
    out.print(f"\nSaved in [bold]{folder}[/]. Try it:", highlight=False)
    out.print(
        f'qpairs predict {folder} "How do I reset my password?" "I forgot my password"', highlight=False, soft_wrap=True
    )


@contextlib.contextmanager
def _progress_bar() -> Iterator[OnProgress]:
    with progress() as bar:
        task = bar.add_task("loading", total=None, state="")
        evaluated: list[float] = []

        def on_progress(now: Progress) -> None:
            figures, average_precision = now.metrics, now.metrics.get("average_precision")
            loss = f"loss {figures['loss']:.3f}  " if "loss" in figures else ""
            f1 = f"F1 {figures['f1']:.3f}  AP {average_precision:.3f}  " if average_precision is not None else ""
            state = f"{loss}{f1}{figures.get('pairs_per_second', now.rate):,.0f} pairs/s"
            epoch = f"epoch {figures.get('epoch', 0):.2f}"
            first, teacher = f"first pass, {epoch}", f"teacher, {epoch}"
            names = {"training": epoch, "first pass": first, "training the teacher": teacher}
            name = names.get(now.stage, "teachers judge")
            bar.update(task, description=name, total=now.total, completed=now.done, state=state)
            if average_precision is not None and (not evaluated or evaluated[-1] != average_precision):
                evaluated.append(average_precision)
                err.print(f"step {now.done:>6} of {now.total}  {loss}validation {f1}", highlight=False)
            if now.done == now.total and now.stage == "training":
                bar.update(task, description="judging")

        yield on_progress


def _print_split(split: Mapping[str, Any]) -> None:
    table = Table(title="Pairs", title_justify="left", box=None, pad_edge=False)
    for column in ("part", "pairs", "questions", "duplicates", "questions seen in train"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part, n in split["sizes"].items():
        seen = split["leaks"].get(part)
        share = f"{seen['questions']:,}" if seen else ""
        table.add_row(part, f"{n:,}", f"{split['questions'][part]:,}", percent(split["duplicates"][part]), share)
    out.print(table)
    if split["dropped"]:
        out.print(f"{split['dropped']:,} pairs that cross parts are left out.")
    if split.get("teacher"):
        told = split["teacher"]
        out.print(
            f"teacher: F1 {told['f1']:.3f}, average precision {told['average_precision']:.3f} on validation; "
            f"judged {told['neighbours']:,} unlabelled pairs",
            highlight=False,
        )
    if split.get("generated"):
        counts = ", ".join(f"{n:,} {kind}" for kind, n in split["generated"].items())
        out.print(f"generated from training questions: {counts}", highlight=False)
    for source, counts in split["skipped"].items():
        out.print(f"{source}: rows left out: " + ", ".join(f"{n:,} {reason}" for reason, n in counts.items()))
