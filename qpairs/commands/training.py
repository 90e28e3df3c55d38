"""`qpairs train`, and the options that every field of Config has."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.combine import print_second_look
from qpairs.commands.conclusions import LABELLED
from qpairs.commands.shared_options import shared_words
from qpairs.commands.terminal import (
    EXAMPLE,
    OverwriteOption,
    TomlOption,
    counted,
    duration,
    out,
    percent,
    plain,
    print_command,
    print_left_out,
    print_report,
    print_saved,
    progress_bar,
    quiet,
    shown_path,
)
from qpairs.config import (
    COMMA_LISTS,
    CROSS_ENCODER,
    GROUPS,
    HELP,
    OPTIONS,
    TYPES,
    Config,
    allowed_values,
    config_from,
    flag_of,
    read_toml,
    to_dict,
    to_toml,
    with_defaults,
)
from qpairs.core.shell import option_words
from qpairs.data.question_file import QuestionFile

if TYPE_CHECKING:
    from qpairs.models.base import Model


def _config_option(name: str, default: Any) -> inspect.Parameter:
    """The option of a field of Config; unset by default, so that it overrides a TOML file only where it is given."""
    kind, flag = TYPES[name], flag_of(name)
    if kind is bool:
        flag += f"/--no-{name.replace('_', '-')}"
        default = "yes" if default else "no"
    elif typing.get_origin(kind) is tuple:
        kind, default = str if name in COMMA_LISTS else list[str], ", ".join(map(str, default))
    shown = f"{default:g}" if isinstance(default, float) else default
    facts = [f"default: {shown}"] if shown not in ("", None) else []
    facts += [allowed_values(name)] if allowed_values(name) else []
    about = HELP[name] + (f" [{'; '.join(facts)}]" if facts else "")
    (panel,) = (group for group, fields in GROUPS.items() if name in fields.__annotations__)
    settings = typer.Option(flag, help=about, show_default=False, rich_help_panel=panel.capitalize())
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, settings]
    )


def with_config_options(*without: str, **shown: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replaces **options by an option for each field of Config, in a panel for each group.

    Args:
        without: fields that get none.
        shown: defaults in the help that differ from those of Config.
    """
    defaults = {name: spec.default for name, spec in OPTIONS.items() if name not in without} | shown

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters.values()
        options = [_config_option(name, default) for name, default in defaults.items()]
        signature = inspect.Signature([*(p for p in own if p.kind != p.VAR_KEYWORD), *options])
        function.__signature__ = signature  # type: ignore[attr-defined]
        function.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()} | {"return": None}
        return function

    return decorated


def given_options(config: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Config that a TOML file and the options give; options override the file."""
    given = {name: value for name, value in options.items() if value not in (None, [])}
    values = {**(read_toml(config) if config else {}), **given}
    config_from(values, where=str(config or "options"))
    return values


@with_config_options()
def train(
    *,
    config: TomlOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run of --output.")] = False,
    overwrite: OverwriteOption = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Load the data, try a few steps, estimate the time; write nothing."),
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print every option as TOML, for --config, and exit.")
    ] = False,
    **options: Any,
) -> None:
    """Train a model on question pairs, choose its threshold on validation, and evaluate it on unseen questions."""
    values = given_options(config, options)
    if show_config:
        typer.echo(to_toml(resolved(values)), nl=False)
        return
    if dry_run:
        _print_estimate(values, overwrite)
        return
    with quiet(), progress_bar() as on_progress:
        from qpairs.training.fit import train as run

        model = run(resume=resume, overwrite=overwrite, on_progress=on_progress, **values)
    if model.split.get("unlabelled"):
        _print_unlabelled(model.split)
    else:
        _print_split(model.split)
    if model.scores:
        _print_scores(model)
    if model.config.report_to == "tensorboard":
        from qpairs.training.passes import tensorboard_folder

        out.print("\nTraining curves:", highlight=False)
        print_command("tensorboard", "--logdir", tensorboard_folder(model.config.output))
    if not model.verdict.labelled:
        _print_without_threshold(model.config)
        return
    print_saved(Path(model.config.output), "\nSaved in", ". Try it:")
    print_command("qpairs", "predict", model.config.output, *EXAMPLE)


def _print_without_threshold(config: Config) -> None:
    """What an encoder that learned without labels is good for."""
    out.print(
        f"\nSaved in [bold]{shown_path(config.output)}[/]. Without labels it has no threshold for pairs; expected "
        "precision and recall in a corpus are estimated from it. Look for its duplicates, learn from labels, or fit "
        "the threshold to a few dozen:",
        highlight=False,
        soft_wrap=True,
    )
    file = QuestionFile(Path(config.data[0]), config.question_columns, skip_bad_rows=config.skip_bad_rows)
    shared = [*shared_words(), *option_words({"--import": list(config.imports)})]
    print_command("qpairs", "dedupe", config.output, file.path, *file.words(), *shared, "--dry-run")
    print_command("qpairs", "train", "--encoder", config.output, "--data", LABELLED)
    here = f"{config.output}-here"
    print_command("qpairs", "calibrate", config.output, "--data", LABELLED, "--output", here)


def resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a run with its value, to repeat the same run; the output folder only if it is given.

    Args:
        values: the options that are given. Those that depend on the data are left out: the passes of a cross-encoder.
    """
    config = config_from(with_defaults(values))
    found = to_dict(config)
    left_out = {"output": not config.output, "epochs": config.model == CROSS_ENCODER and "epochs" not in values}
    return {name: value for name, value in found.items() if not left_out.get(name)}


def _print_estimate(values: Mapping[str, Any], overwrite: bool) -> None:
    """Prints what a run would take."""
    with quiet(), progress_bar() as on_progress:
        from qpairs.training.fit import plan_run

        plan = plan_run(None, values, overwrite=overwrite)
        from qpairs.training.estimate import estimate_plan

        found = estimate_plan(plan, on_progress)
    (_print_unlabelled if found.split.get("unlabelled") else _print_split)(found.split)
    config = found.config
    passes = f"{config.epochs:g} {'pass' if config.epochs == 1 else 'passes'}"
    out.print(
        f"\n{found.parameters:,} numbers are trained in {counted(found.steps, 'step')} of {config.batch_size:,} pairs, "
        f"{passes}, with {counted(found.evaluations, 'evaluation')}.",
        highlight=False,
    )
    limit = ", the budget" if config.budget_minutes and found.seconds >= 60 * config.budget_minutes else ""
    out.print(
        f"About [bold]{duration(found.seconds)}[/]{limit}: {1000 * found.step_seconds:,.0f} ms a step, "
        f"{duration(found.evaluation_seconds)} an evaluation (median of {counted(found.tried, 'step')} here); "
        f"{found.peak_bytes / 2**30:.1f} GiB of memory.",
        highlight=False,
    )
    if found.without:
        out.print(f"[dim]On top of that come {'; '.join(found.without)}.[/]", highlight=False)
    out.print(
        f"Nothing was written; the model would go to {shown_path(config.output)}. Run it without --dry-run, or "
        "shorten it with --budget-minutes.",
        highlight=False,
        soft_wrap=True,
    )


def _print_scores(model: Model) -> None:
    from qpairs.encoders.build import encoder_note

    part = "test" if "test" in model.scores else "validation"
    print_report(model.scores[part], f"{part} pairs", note=encoder_note(model.config.encoder), clusters=False)
    if part == "validation":
        fair = model.scores["validation"]["f1_cross_fitted"]
        out.print(
            f"The threshold was chosen on these same pairs; cross-fitted, F1 is {fair:.3f}. Name unseen pairs with "
            "--test."
        )
    if "second_look" in model.scores:
        print_second_look(model.scores)


def _print_unlabelled(split: Mapping[str, Any]) -> None:
    about = split["unlabelled"]
    out.print(f"Learned from {counted(about['questions'], 'question')} without labels.", highlight=False)
    if about["left_out"]:
        out.print(
            f"Left out as nearly identical to another question: {counted(about['left_out'], 'question')}.",
            highlight=False,
        )
    _print_more(split)


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
    _print_more(split)


def _print_more(split: Mapping[str, Any]) -> None:
    if split.get("teacher"):
        teacher, judged = split["teacher"], ""
        if "f1" in teacher:
            judged = f"F1 {teacher['f1']:.3f}, average precision {teacher['average_precision']:.3f} on validation; "
        out.print(f"teacher: {judged}scored {teacher['neighbours']:,} unlabelled pairs", highlight=False)
    if split.get("generated"):
        counts = ", ".join(f"{n:,} {kind}" for kind, n in split["generated"].items())
        out.print(f"generated from training questions: {plain(counts)}", highlight=False)
    for source, counts in split["skipped"].items():
        print_left_out(counts, source)
