"""The command line: options in, library calls, tables out. Imports stay inside the commands: --help is quick."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import inspect
import io
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from qpairs import __version__
from qpairs.config import HELP, Config, config_from, read_toml
from qpairs.faults import UserError, nearest

if TYPE_CHECKING:
    from rich.progress import Progress

    from qpairs.comparison import Comparison, Row, State
    from qpairs.pairs import Pairs

app = typer.Typer(
    help="Tells whether two questions ask the same thing, and finds the duplicates in a pile of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console()
err = Console(stderr=True)

DataOption = Annotated[list[str], typer.Option(help="Pairs: a named source, Hub id, folder or file; may be repeated.")]
ColumnsOption = Annotated[str, typer.Option(help=HELP["columns"])]
SkipOption = Annotated[bool, typer.Option(help=HELP["skip_bad_rows"])]
TomlOption = Annotated[Path | None, typer.Option(help="A TOML file with the same names; options go over it.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is in the output folder.")]


def main() -> None:
    """Runs the command line; a user's error is one line on stderr and exit code 2."""
    try:
        app()
    except UserError as error:
        err.print(f"[bold red]error:[/] {_plain(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(" ".join(text.split()))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        out.print(f"qpairs {__version__}", highlight=False)
        raise typer.Exit


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' own bars and notes off the terminal; qpairs' own warnings come through rich."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import transformers
    from rich.logging import RichHandler

    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    handler = RichHandler(console=err, show_time=False, show_path=False, markup=False)
    logging.getLogger("qpairs").addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("qpairs").removeHandler(handler)


def _split_columns(columns: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in columns.split(",")) if columns else ()


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


def _with_config_options(*without: str, **shown: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
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


@app.command()
@_with_config_options()
def train(
    *,
    config: TomlOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run of --output.")] = False,
    overwrite: OverwriteOption = False,
    **options: Any,
) -> None:
    """Train a detector on question pairs, choose its threshold on validation, and judge it on unseen questions."""
    values = _given(config, options)
    with quiet(), _progress_bar() as on_progress:
        from qpairs.training import train as run

        checkpoint = run(resume=resume, overwrite=overwrite, on_progress=on_progress, **values)
    _print_split(checkpoint.split)
    from qpairs.encoders import encoder_note

    part = "test" if "test" in checkpoint.scores else "validation"
    _print_report(checkpoint.scores[part], f"{part} pairs", note=encoder_note(checkpoint.config.encoder))
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


def _given(config: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Config that a TOML file and the options give; these go over that."""
    given = {name: value for name, value in options.items() if value not in (None, [])}
    values = {**(read_toml(config) if config else {}), **given}
    config_from(values, where=str(config or "options"))
    return values


def _bar() -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[Any], None]]:
    with _bar() as bar:
        task = bar.add_task("loading", total=None, state="")
        evaluated: list[float] = []

        def on_progress(now: Any) -> None:
            loss = f"loss {now.loss:.3f}  " if now.loss is not None else ""
            f1 = f"F1 {now.f1:.3f}  AP {now.average_precision:.3f}  " if now.f1 is not None else ""
            state = f"{loss}{f1}{now.rate:,.0f} pairs/s"
            bar.update(task, description=f"epoch {now.epoch:.2f}", total=now.steps, completed=now.step, state=state)
            if now.average_precision is not None and (not evaluated or evaluated[-1] != now.average_precision):
                evaluated.append(now.average_precision)
                err.print(f"step {now.step:>6} of {now.steps}  {loss}validation {f1}", highlight=False)
            if now.step == now.steps:
                bar.update(task, description="judging")

        yield on_progress


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _print_split(split: Mapping[str, Any]) -> None:
    table = Table(title="Pairs", title_justify="left", box=None, pad_edge=False)
    for column in ("part", "pairs", "questions", "duplicates", "questions seen in train"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part, n in split["sizes"].items():
        seen = split["leaks"].get(part)
        share = f"{seen['questions']:,}" if seen else ""
        table.add_row(part, f"{n:,}", f"{split['questions'][part]:,}", _percent(split["duplicates"][part]), share)
    out.print(table)
    if split["dropped"]:
        out.print(f"{split['dropped']:,} pairs that cross parts are left out.")
    for source, counts in split["skipped"].items():
        out.print(f"{source}: rows left out: " + ", ".join(f"{n:,} {reason}" for reason, n in counts.items()))


def _print_report(scores: Mapping[str, Any], title: str, note: str = "") -> None:
    if scores["collapsed"]:
        out.print(
            "[bold red]The model has collapsed:[/] its similarities do not vary, and the figures below mean nothing."
        )
    table = Table(title=f"\nVerdict on {scores['n']:,} {title}", title_justify="left", box=None, pad_edge=False)
    for column in ("", "F1", "95 % interval", "precision", "recall", "AP"):
        table.add_column(column, justify="right" if column else "left")
    low, high = scores["f1_interval"]
    table.add_row(
        f"qpairs at threshold {scores['threshold']:.3f}",
        f"[bold]{scores['f1']:.3f}[/]",
        f"{low:.3f} to {high:.3f}",
        f"{scores['precision']:.3f}",
        f"{scores['recall']:.3f}",
        f"{scores['average_precision']:.3f}",
    )
    for name, values in scores["baselines"].items():
        table.add_row(name, f"{values['f1']:.3f}", "", "", "", f"{values['average_precision']:.3f}", style="dim")
    out.print(table)
    out.print(
        f"AP is average precision; accuracy {scores['accuracy']:.3f}, ROC AUC {scores['roc_auc']:.3f}, "
        f"error of probability {scores['calibration_error']:.3f}",
        highlight=False,
    )
    if scores["retrieval"]:
        found = scores["retrieval"]
        out.print(
            f"as search: MRR@10 {found['mrr_at_10']:.3f}, recall@1 {found['recall_at_1']:.3f}, "
            f"recall@10 {found['recall_at_10']:.3f}, AP of mining {found['mining_average_precision']:.3f}",
            highlight=False,
        )
    if scores["shift"]["differs"]:
        out.print(
            f"[yellow]The similarities here differ from those the threshold was chosen on (distance "
            f"{scores['shift']['statistic']:.2f}): fit it to a few dozen labelled pairs with qpairs calibrate.[/]"
        )
    if note:
        out.print(f"[dim]Note: {note}.[/]")


@app.command()
@_with_config_options("encoder", "loss", "miner", "output", budget_minutes=5.0, epochs="no limit", patience=0)
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
    values = _given(config, options) | {"losses": losses, "encoders": encoders, "miners": miners, "output": str(output)}
    with quiet(), _cells_bar() as on_progress:
        from qpairs.comparison import compare as run

        found = run(
            seeds=seeds, keep_checkpoints=keep_checkpoints, overwrite=overwrite, on_progress=on_progress, **values
        )
    _print_comparison(found)
    out.print(f"\nAll cells, this table and a chart are in [bold]{output}[/].", highlight=False)


@contextlib.contextmanager
def _cells_bar() -> Iterator[Callable[[State], None]]:
    with _bar() as bar:
        task = bar.add_task("loading", total=None, state="")

        def on_progress(now: State) -> None:
            cell = _plain(f"{now.cell.encoder}, {now.cell.loss}, {now.cell.miner}, seed {now.cell.seed}")
            state = f"step {now.training.step:,}" if now.training else "loading"
            bar.update(task, description=cell, total=now.cells, completed=now.finished, state=state)
            if now.record:
                result = now.record.result
                verdict = (
                    f"F1 {result.f1:.3f}  AP {result.average_precision:.3f}"
                    if result
                    else f"[red]failed:[/] {_plain(now.record.error)}"
                )
                err.print(f"cell {now.finished} of {now.cells}  {cell}  {verdict}", highlight=False, soft_wrap=True)

        yield on_progress


def _print_comparison(found: Comparison) -> None:
    differ = {name: len({getattr(row, name) for row in found.rows}) > 1 for name in ("encoder", "miner")}
    kinds = [name for name in ("encoder", "loss", "miner") if differ.get(name, True)]
    table = Table(title=f"\n{_plain(found.title)}", title_justify="left", box=None, pad_edge=False)
    for name in kinds:
        table.add_column(name, overflow="fold")
    for name in ("F1", "AP", "mining AP", "s", "steps", "GiB", "F1 less the best's, 95 %", ""):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in found.rows:
        figures = _figures(row) if row.results else ["failed"]
        table.add_row(*(_plain(getattr(row, name)) for name in kinds), *figures)
    Console(width=max(out.width, 160)).print(table)
    same = [f"{name} {getattr(found.rows[0], name)}" for name in differ if name not in kinds]
    out.print(
        f"[dim]{_plain('; '.join([*same, 'mean ± standard deviation over seeds']))}; AP is average precision; unclear: "
        "the interval (paired bootstrap over components) has zero in it.[/]",
        highlight=False,
    )
    for note in found.notes:
        out.print(f"[dim]Note: {_plain(note)}.[/]", highlight=False)
    for record in found.records:
        if record.error:
            cell = ", ".join(map(str, dataclasses.astuple(record.cell)[:3]))
            out.print(f"[red]failed:[/] {_plain(f'{cell}, seed {record.cell.seed}: {record.error}')}", highlight=False)


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


@app.command()
def losses(
    name: Annotated[str, typer.Argument(help="A loss or a miner to describe; without it, all are listed.")] = "",
) -> None:
    """List the losses and the miners, with formula, paper and defaults, or describe one."""
    from qpairs.losses import LOSSES
    from qpairs.miners import MINERS

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
            words = f"{_plain(entry.formula)}\n[dim]{_plain(entry.paper)}[/]"
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
    from qpairs.prototypes import Prototypes

    paragraphs, meanings = _docstring(entry.function)
    meanings = {**_docstring(Prototypes.__init__)[1], **meanings}
    out.print(f"[bold]{title}[/]  [dim]{_plain(entry.paper)}[/]\n", highlight=False)
    for paragraph in paragraphs:
        out.print(f"{_plain(paragraph)}\n", highlight=False, width=min(out.width, 100))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for key, default in entry.parameters.items():
        table.add_row(f"[bold]{key}={default:g}[/]", _plain(meanings.get(key, "")))
    out.print(table, width=min(out.width, 100))


def _docstring(function: Callable[..., Any]) -> tuple[list[str], dict[str, str]]:
    """The paragraphs of a docstring, and what it says of each argument."""
    text, _, arguments = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")
    return text.strip().split("\n\n"), dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE))


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    data: DataOption,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")] = None,
    columns: ColumnsOption = "",
    skip_bad_rows: SkipOption = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Judge a checkpoint, at its own threshold, on labelled pairs."""
    with quiet():
        from qpairs.checkpoint import load_checkpoint
        from qpairs.encoders import encoder_note
        from qpairs.evaluation import evaluate as run

        model = load_checkpoint(checkpoint)
        pairs = _load(data, columns, skip_bad_rows)
        result = run(model, pairs, seed=seed).to_dict()
    if json_file:
        _write(json_file, json.dumps({"checkpoint": str(checkpoint), "data": data, **result}, indent=1) + "\n")
    _print_skipped(pairs)
    _print_report(result, "pairs", note=encoder_note(model.config.encoder))
    _print_slices(result["slices"])


def _load(data: list[str], columns: str, skip_bad_rows: bool, labelled: bool = True) -> Pairs:
    from qpairs.pairs import load_pairs

    return load_pairs(data, columns=_split_columns(columns), skip_bad_rows=skip_bad_rows, labelled=labelled)


def _print_skipped(pairs: Pairs) -> None:
    if pairs.skipped:
        out.print("rows left out: " + ", ".join(f"{n:,} {reason}" for reason, n in pairs.skipped.items()))


def _print_slices(slices: list[Mapping[str, Any]]) -> None:
    table = Table(title="\nBy kind of pair", title_justify="left", box=None, pad_edge=False)
    for column in ("", "pairs", "duplicates", "F1", "precision", "recall"):
        table.add_column(column, justify="right" if column else "left")
    for s in slices:
        values = (f"{s[name]:.3f}" for name in ("f1", "precision", "recall"))
        table.add_row(s["name"], f"{s['n']:,}", _percent(s["duplicates"]), *values)
    out.print(table)


def _write(path: Path, text: str) -> None:
    """Writes beside the place and renames."""
    fresh = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8", newline="")
        fresh.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        fresh.unlink(missing_ok=True)


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    questions: Annotated[list[str], typer.Argument(help="Two questions, or one file of pairs.")],
    output: Annotated[
        Path | None, typer.Option(help="Where the scored pairs go: .csv, .tsv, .jsonl or .parquet.")
    ] = None,
    columns: ColumnsOption = "",
) -> None:
    """Say of two questions, or of each pair in a file, whether they ask the same thing."""
    with quiet():
        from qpairs.checkpoint import load_checkpoint
        from qpairs.evaluation import predict as run
        from qpairs.pairs import pairs_from_texts

        if len(questions) == 2:
            if not all(q.strip() for q in questions):
                raise UserError("predict: a question is empty")
            model = load_checkpoint(checkpoint)
            verdict = run(model, pairs_from_texts([questions[0]], [questions[1]], [-1]))
            answer = "[bold green]duplicates[/]" if verdict.duplicate[0] else "[bold]not duplicates[/]"
            out.print(
                f"{answer}  similarity {verdict.similarity[0]:.3f} (threshold {model.threshold:.3f}), "
                f"probability {verdict.probability[0]:.2f}",
                highlight=False,
            )
            return
        if len(questions) != 1:
            raise UserError(f"predict: give two questions, or one file of pairs, not {len(questions)} arguments")
        _predict_file(checkpoint, questions[0], output, _split_columns(columns))


WRITERS: dict[str, Callable[[Any, str], Any]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda table, path: table.to_json(path, orient="records", lines=True, force_ascii=False),
    ".parquet": lambda table, path: table.to_parquet(path),
}


def _predict_file(checkpoint: Path, source: str, output: Path | None, columns: tuple[str, ...]) -> None:
    from qpairs.checkpoint import load_checkpoint
    from qpairs.evaluation import predict as run
    from qpairs.pairs import load_pairs, read_table

    if output is None:
        raise UserError("predict: name the file for the scored pairs with --output")
    if output.suffix not in WRITERS:
        raise UserError(f"{output}: unknown kind of file; {nearest(output.suffix, WRITERS)}")
    model = load_checkpoint(checkpoint)
    pairs = load_pairs(source, columns=columns, labelled=False)
    table = read_table(source)[0].to_pandas()
    verdict = run(model, pairs)
    table["similarity"] = verdict.similarity
    table["probability"] = verdict.probability
    table["duplicate"] = verdict.duplicate.astype(int)
    fresh = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[output.suffix](table, str(fresh))
        fresh.replace(output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from None
    finally:
        fresh.unlink(missing_ok=True)
    found = int(verdict.duplicate.sum())
    out.print(
        f"{len(pairs):,} pairs, {found:,} called duplicates ({_percent(found / len(pairs))}), written to {output}"
    )


@app.command()
def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    columns: ColumnsOption = "",
    skip_bad_rows: SkipOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Fit threshold and probability to a few dozen labelled pairs of your own, without training."""
    with quiet():
        from qpairs.checkpoint import check_output, load_checkpoint, save_checkpoint
        from qpairs.evaluation import calibrate as run

        check_output(output, overwrite=overwrite)
        model = load_checkpoint(checkpoint)
        pairs = _load(data, columns, skip_bad_rows)
        fit = run(model, pairs)
        save_checkpoint(fit.checkpoint, output, overwrite=overwrite)
    _print_skipped(pairs)
    low, high = fit.interval
    out.print(
        f"threshold {model.threshold:.3f} -> [bold]{fit.checkpoint.threshold:.3f}[/], from {fit.n:,} pairs",
        highlight=False,
    )
    out.print(
        f"F1 on them: {fit.f1_before:.3f} before, {fit.f1_after:.3f} after (cross-fitted); 95 % interval {low:.3f} to "
        f"{high:.3f}, {high - low:.3f} wide; about {fit.more_pairs:,} more pairs would halve it",
        highlight=False,
    )
    out.print(f"Saved in [bold]{output}[/].")


@app.command()
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

        from qpairs.splits import contradictions, question_components, split_pairs

        pairs = _load(source, columns, skip_bad_rows)
        faults = contradictions(pairs)
        sizes = np.bincount(question_components(pairs))
        words = np.array([len(q.split()) for q in pairs.questions])
    _print_skipped(pairs)
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "pairs": f"{len(pairs):,}",
        "duplicates": _percent(pairs.duplicate_ratio),
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
            one, other = map(_plain, pairs.texts(int(row)))
            out.print(f"  {one}\n  [dim]{other}[/]\n", highlight=False, soft_wrap=True)
    if contradictions_file:
        lines = [("question1", "question2", "is_duplicate"), *((*pairs.texts(int(i)), 0) for i in faults)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        _write(contradictions_file, text.getvalue())
