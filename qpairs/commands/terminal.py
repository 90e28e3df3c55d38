"""What the commands share: the console, options, progress, and tables."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from qpairs.commands.conclusions import Conclusion
from qpairs.config import HELP
from qpairs.core.progress import OnProgress, Progress
from qpairs.core.shell import shown_command, steers

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from qpairs.data.corpus import Corpus
    from qpairs.data.pairs import Pairs

PACE = 30.0  # seconds between two lines of progress where stderr is no terminal
SILENT = os.environ.get("RANK", "0") != "0"  # of several processes that train together, the first one alone speaks
out = Console(quiet=SILENT, emoji=False)
err = Console(stderr=True, quiet=SILENT, emoji=False)

JudgedDataOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Labelled pairs: named source, Hub id, folder or file; may be repeated. Without it, those that the model "
        "was tested on.",
        show_default=False,
    ),
]
ColumnsOption = Annotated[str, typer.Option(help=HELP["columns"], rich_help_panel="Reading")]
SkipOption = Annotated[bool, typer.Option(help=HELP["skip_bad_rows"], show_default=False, rich_help_panel="Reading")]
LabelsOption = Annotated[str, typer.Option(help=HELP["labels"], rich_help_panel="Reading")]
LabelCutOption = Annotated[
    float | None, typer.Option(help=HELP["label_cut"], show_default=False, rich_help_panel="Reading")
]
TomlOption = Annotated[
    Path | None, typer.Option(help="TOML file with options by the same names; options given here override it.")
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="Folder of a checkpoint or an export; or a ready model: minilm, mpnet, a Hub id, a SentenceTransformer's."
    ),
]
RerankerOption = Annotated[
    bool,
    typer.Option(
        "--reranker/--no-reranker",
        help="Whether a model of two stages takes its second look; without it, the encoder decides alone, which is "
        "faster.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is in the output folder.")]
ReplaceOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
RawOption = Annotated[
    bool,
    typer.Option(
        "--raw", help="Write texts that begin with = + - @ unchanged; a spreadsheet would read them as formulas."
    ),
]


def plain(text: str) -> str:
    r"""A user's text as one line: not read as markup, with terminal control characters escaped.

    >>> print(plain("a \x1b[2J\n [bold]b"))
    a \x1b[2J \[bold]b
    """
    return _inert(" ".join(text.split()))


def one_line(text: str) -> str:
    r"""A message as one line, not read as markup; unlike `plain`, it keeps spaces, as it may hold paths and commands.

    >>> print(one_line("runs/a  b: \x1b[2J\n  [bold]b"))
    runs/a  b: \x1b[2J \[bold]b
    """
    return _inert(" ".join(line.strip() for line in text.splitlines() if line.strip()))


def shown_path(path: str | Path) -> str:
    r"""The name of a file or a folder, unchanged: not read as markup, with terminal control characters escaped.

    >>> print(shown_path(Path("runs/[/b or]  x\ny")))
    runs/\[/b or]  x\ny
    """
    return _inert(str(path))


def print_saved(path: Path, before: str = "Saved in", after: str = ".") -> None:
    """Says where something was written."""
    out.print(f"{before} [bold]{shown_path(path)}[/]{after}", highlight=False, soft_wrap=True)


def print_conclusion(conclusion: Conclusion, style: str = "") -> None:
    """Prints the last sentence of a command and, each on its own line to copy, the commands that come next."""
    out.print(_inert(conclusion.sentence), style=style, highlight=False, soft_wrap=True)
    for words in conclusion.commands:
        print_command("qpairs", *words)


EXAMPLE = "How do I reset my password?", "I forgot my password"


def print_command(*words: object) -> None:
    """Prints a command on its own line, to copy."""
    out.print(shown_command(*words), markup=False, highlight=False, soft_wrap=True)


def _inert(text: str) -> str:
    return escape("".join(repr(c)[1:-1] if steers(c) else c for c in text))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides progress bars and notes of other libraries; qpairs' own warnings are printed."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # read on import
    handler = logging.Handler()
    handler.emit = _print_record  # type: ignore[method-assign]
    logging.getLogger("qpairs").addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("qpairs").removeHandler(handler)


def _print_record(record: logging.LogRecord) -> None:
    """Prints a message of qpairs on stderr, not wrapped, so that a path or a command in it can be copied."""
    text = "\n".join(map(_inert, logging.Formatter().format(record).splitlines()))
    level = f"[logging.level.{record.levelname.lower()}]{record.levelname:8}[/]"
    err.print(f"{level} {text}", highlight=False, soft_wrap=True)


def _bar() -> Bar:
    """A bar on stderr, with time elapsed and left; its tasks have the field `state`."""
    from rich import progress as rich

    return rich.Progress(
        rich.SpinnerColumn(),
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=16),
        rich.TextColumn("{task.fields[state]}", table_column=Column()),  # wraps in a narrow terminal
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


@contextlib.contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """A bar on stderr with the progress of a library call, stage by stage.

    Next to the bar are the units done, the metrics `epoch`, `loss` and `pairs_per_second`, or without the last one the
    units per second, and the note. A metric `average_precision` whose value differs from the last one is an evaluation:
    it is printed with `loss` and `f1` on a line that stays. If stderr is not a terminal, as with a log file, the text
    next to the bar is printed every 30 seconds.

    >>> with progress_bar() as on_progress:
    ...     on_progress(Progress("training", done=1, total=2, metrics={"loss": 0.5}))
    """
    with _bar() as bar:
        task = bar.add_task("loading", total=None, state="")
        stage, evaluated, printed = "", None, time.monotonic()

        def on_progress(now: Progress) -> None:
            nonlocal stage, task, evaluated, printed
            if now.stage != stage:
                stage = now.stage
                bar.remove_task(task)  # its clock and its total belong to the stage before
                task = bar.add_task(plain(stage), total=None, state="")
            bar.update(task, total=now.total or None, completed=now.done, state=plain(_state(now)))
            precision = now.metrics.get("average_precision")
            if precision is not None and precision != evaluated:
                evaluated = precision
                scores = ", ".join(_figures(now, "loss", "f1", "average_precision"))
                err.print(f"{plain(stage)}, step {now.done:,} of {now.total:,}:  {scores}", highlight=False)
            if not err.is_terminal and time.monotonic() - printed >= PACE:
                printed = time.monotonic()
                err.print(f"{plain(stage)}: {plain(_state(now))}", highlight=False)

        yield on_progress


FIGURES = {
    "epoch": "epoch {:.2f}",
    "loss": "loss {:.3f}",
    "f1": "validation F1 {:.3f}",
    "average_precision": "AP {:.3f}",
    "pairs_per_second": "{:,.0f} pairs/s",
}  # a metric -> how it is shown


def _figures(now: Progress, *names: str) -> list[str]:
    return [FIGURES[name].format(now.metrics[name]) for name in names if name in now.metrics]


def _state(now: Progress) -> str:
    """The text next to the bar."""
    done = [f"{now.done:,}" + (f" of {now.total:,}" if now.total else "")] if now.done or now.total else []
    rate = [f"{now.rate:,.0f}/s"] if now.rate and "pairs_per_second" not in now.metrics else []
    return ", ".join(
        [*done, *_figures(now, "epoch", "loss", "pairs_per_second"), *rate, *([now.note] if now.note else [])]
    )


def counted(n: int, thing: str) -> str:
    """A number and a noun, in the plural unless it is one.

    >>> counted(1, "pair"), counted(1200, "pair")
    ('1 pair', '1,200 pairs')
    """
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def duration(seconds: float) -> str:
    """A time in words, with two significant figures.

    >>> duration(0.25), duration(48), duration(360), duration(9000)
    ('0.2 s', '48 s', '6 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def percent(value: float) -> str:
    """A share as `12.3 %`."""
    return f"{100 * value:.1f} %"


def print_skipped(source: Pairs | Corpus) -> None:
    """Says which rows were left out."""
    print_left_out(source.skipped)


def print_left_out(skipped: Mapping[str, int], where: str = "") -> None:
    """Says how many rows were left out, and why; nothing if none were."""
    if not skipped:
        return
    reasons = ", ".join(f"{n:,} {plain(reason)}" for reason, n in skipped.items())
    out.print(f"{shown_path(where)}{where and ': '}rows left out: {reasons}", highlight=False)


def print_verdict(
    name: str, score: float, probability: float, duplicate: bool, threshold: float, *, own: bool = True
) -> None:
    """Says in one line whether two questions are duplicates.

    Args:
        name: what the score is called.
        score: of the two.
        probability: that they are duplicates; NaN where the model gives none.
        duplicate: whether they are called duplicates.
        threshold: the lowest score of a duplicate.
        own: whether the threshold is the model's.
    """
    answer = "[bold green]duplicates[/]" if duplicate else "[bold]not duplicates[/]"
    known = "" if math.isnan(probability) else f", probability {probability:.2f}"
    out.print(f"{answer}  {name} {score:.3f} (threshold {threshold:.3f}){known}", highlight=False)
    if own and duplicate != (probability >= 0.5):
        out.print("[dim]The threshold is the one with the best F1 on validation, not probability 0.5.[/]")


def print_report(scores: Mapping[str, Any], title: str, note: str = "", *, clusters: bool = True) -> None:
    """Prints the scores of a verdict, of trivial baselines, and of duplicates in a corpus.

    Args:
        scores: `Report.to_dict()`; reports of older versions have no part on the corpus.
        title: what was evaluated.
        note: what a reader must know of the model.
        clusters: whether the scores of clusters are printed.
    """
    from qpairs.models.verdict import score_names

    names = score_names(scores.get("score", "cosine"))
    if scores["collapsed"]:
        out.print(f"[bold red]The model has collapsed:[/] its {names} do not vary, and the figures below mean nothing.")
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
    if scores.get("spearman") is not None:
        _print_spearman(scores["spearman"], scores["spearman_interval"])
    if scores.get("dimensions"):
        _print_dimensions(scores["dimensions"])
    if scores.get("trivial") and not scores["collapsed"]:
        out.print(f"[bold red]The model is {plain(scores['trivial'])}.[/]", highlight=False)
    if scores.get("seen_in_training"):
        _print_seen(scores["seen_in_training"])
    if scores["retrieval"]:
        found = scores["retrieval"]
        out.print(
            f"as search: MRR@10 {found['mrr_at_10']:.3f}, recall@1 {found['recall_at_1']:.3f}, "
            f"recall@10 {found['recall_at_10']:.3f}, AP of mining {found['mining_average_precision']:.3f}",
            highlight=False,
        )
    if scores.get("corpus"):
        _print_corpus(scores["corpus"], clusters, scores.get("score", "cosine"))
    if scores["shift"]["differs"]:
        out.print(
            f"[yellow]The {names} here differ from those the threshold was chosen on (distance "
            f"{scores['shift']['statistic']:.2f}): calibrate it (qpairs calibrate) on a few dozen labelled pairs.[/]"
        )
    if note:
        out.print(f"[dim]Note: {plain(note)}.[/]")


def _print_spearman(value: float, interval: tuple[float, float]) -> None:
    low, high = interval
    out.print(
        f"rank correlation with the grades (Spearman) {value:.3f}, 95 %: {low:.3f} to {high:.3f}; F1 is for "
        "duplicates at or above the cut",
        highlight=False,
    )


def _print_dimensions(rows: Sequence[Mapping[str, float]]) -> None:
    """Prints the scores of the verdict for each length of the vectors; `rows` are `PrefixScore`s as plain values."""
    table = Table(box=None, pad_edge=False)
    for column in ("numbers", "threshold", "F1", "AP"):
        table.add_column(column, justify="right")
    for row in rows:
        figures = (f"{row[name]:.3f}" for name in ("threshold", "f1", "average_precision"))
        table.add_row(f"{row['dimension']:,}", *figures)
    out.print("\nVectors cut to their first numbers, each length with its own threshold")
    out.print(table)


def _print_corpus(found: Mapping[str, Any], clusters: bool, score: str) -> None:
    """Prints what the model finds among all pairs of the questions; `found` is `CorpusReport` as plain values."""
    from qpairs.evaluation.corpus_report import corpus_lines, corpus_notes

    for line in corpus_lines(found, clusters=clusters):
        out.print(plain(line), highlight=False)
    for note in corpus_notes(found, score):
        out.print(f"[dim]{plain(note)}.[/]", highlight=False)


def _print_seen(seen: Mapping[str, int]) -> None:
    from qpairs.evaluation.seen import seen_note

    if note := seen_note(seen["questions"], seen["of_questions"]):
        out.print(f"[yellow]{plain(note)}.[/]", highlight=False)
