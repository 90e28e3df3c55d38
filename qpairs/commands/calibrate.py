"""`qpairs calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from qpairs.commands.conclusions import after_calibrate
from qpairs.commands.label import TrustOption, print_noise
from qpairs.commands.reading import NamedPairs
from qpairs.commands.search import TextColumnOption
from qpairs.commands.shared_options import shared_words
from qpairs.commands.terminal import (
    ColumnsOption,
    LabelCutOption,
    ModelArgument,
    OverwriteOption,
    SkipOption,
    counted,
    out,
    plain,
    print_conclusion,
    print_saved,
    print_skipped,
    progress_bar,
    quiet,
)
from qpairs.config import HELP
from qpairs.core.exceptions import UserError
from qpairs.data.question_file import QuestionFile

if TYPE_CHECKING:
    from qpairs.data.corpus import Corpus
    from qpairs.data.pairs import Pairs
    from qpairs.evaluation.calibrate import Fit
    from qpairs.evaluation.calibrate_corpus import CorpusFit
    from qpairs.models.base import Model


def calibrate(
    checkpoint: ModelArgument,
    output: Annotated[Path, typer.Option(help="Folder of the new model.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Labelled pairs like those to be scored: named source, Hub id, folder or file; may be repeated.",
            show_default=False,
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="Questions to be searched or deduplicated: fit the verdict to this corpus.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="Labelled pairs of the corpus, from qpairs serve --labels or qpairs label; may be repeated.",
            show_default=False,
        ),
    ] = None,
    trust: TrustOption = None,
    columns: ColumnsOption = "",
    label_values: Annotated[str, typer.Option("--label-values", help=HELP["labels"], rich_help_panel="Reading")] = "",
    label_cut: LabelCutOption = None,
    text_column: TextColumnOption = "",
    skip_bad_rows: SkipOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Fit the verdict to your own labelled pairs, your own corpus, or both, without training."""
    if not data and not corpus:
        raise UserError("calibrate: give labelled pairs with --data, a corpus with --corpus, or both")
    named = NamedPairs(data or (), columns, label_values, label_cut, skip_bad_rows)
    asked = QuestionFile(corpus, text_column, skip_bad_rows=skip_bad_rows) if corpus else None
    with quiet(), progress_bar() as on_progress:
        from qpairs.core.files import hold_output
        from qpairs.data.corpus import read_corpus
        from qpairs.evaluation.calibrate import calibrate as fit_pairs
        from qpairs.evaluation.calibrate_corpus import calibrate_corpus
        from qpairs.models.base import check_output
        from qpairs.models.base import load as load_model

        with hold_output(output):
            check_output(output, overwrite=overwrite)
            model = load_model(checkpoint)
            pairs = named.load() if data else None
            questions = read_corpus(asked.path, **asked.options) if asked else None
            fit, corpus_fit = fit_pairs(model, pairs) if pairs else None, None
            fitted = fit.model if fit else model
            if questions:
                corpus_fit = calibrate_corpus(fitted, questions, labels, trusted=trust or (), on_progress=on_progress)
            (corpus_fit.model if corpus_fit else fitted).save(output, overwrite=overwrite)
    if pairs and fit:
        _print_pairs(pairs, model, fit)
    if questions and corpus_fit:
        _print_corpus(questions, corpus_fit)
    print_saved(output)
    print_conclusion(after_calibrate(output, named, [asked.path, *asked.words(), *shared_words()] if asked else []))


def _print_pairs(pairs: Pairs, model: Model, fit: Fit) -> None:
    from qpairs.models.verdict import score_name

    print_skipped(pairs)
    low, high = fit.interval
    name = score_name(model.verdict.score)
    old, new = (judge.verdict.pair.threshold for judge in (model, fit.model))
    known = model.verdict.labelled  # a ready model has no threshold of its own
    out.print(
        f"threshold for pairs, {name}: {f'{old:.3f} -> ' if known else ''}[bold]{new:.3f}[/], from {fit.n:,} pairs",
        highlight=False,
    )
    before = f"{fit.f1_before:.3f} before, " if known else ""
    out.print(
        f"F1 on them: {before}{fit.f1_after:.3f}{' after' if known else ''} (cross-fitted); 95 % interval {low:.3f} to "
        f"{high:.3f}, {high - low:.3f} wide; about {fit.more_pairs:,} more pairs would halve it",
        highlight=False,
    )


def _print_corpus(questions: Corpus, fit: CorpusFit) -> None:
    print_skipped(questions)
    n, used = fit.setting.estimate.counts.n, sum(fit.used.values())
    if used:
        kinds = ", ".join(f"{count:,} {drawn or 'drawn in an unknown way'}" for drawn, count in fit.used.items())
        out.print(f"{counted(n, 'question')}, {counted(used, 'label')}: {plain(kinds)}", highlight=False)
    else:
        how = (
            fit.setting.basis
            if fit.setting.unlabelled
            else ("an estimate from their scores, which assumes that duplicates score as in validation")
        )
        out.print(f"{counted(n, 'question')}, no labels: {plain(how)}", highlight=False)
    for reason, count in fit.left_out.items():
        out.print(f"[yellow]{count:,} labels left out: {plain(reason)}[/]", highlight=False)
    if fit.noise:
        print_noise(fit.noise)
    if "" in fit.used:
        out.print("[yellow]Labels of unknown origin are assumed to be drawn by similarity alone.[/]")
    from qpairs.evaluation.calibrate_corpus import MORE

    after, more = fit.after, fit.with_more
    low, high = after.precision_interval
    width, narrower = high - low, more.precision_interval[1] - more.precision_interval[0]
    moved = f"threshold for this corpus {fit.before.threshold:.3f} -> [bold]{after.threshold:.3f}[/]: "
    if after.pairs < 1:
        out.print(f"{moved}no pair is more likely a duplicate than not; labels give a better estimate", highlight=False)
    else:
        out.print(
            f"{moved}expected precision {after.precision:.2f} ({low:.2f} to {high:.2f}), recall {after.recall:.2f} "
            f"({after.recall_interval[0]:.2f} to {after.recall_interval[1]:.2f})",
            highlight=False,
        )
        out.print(
            f"{MORE} more labels of the stratified view would narrow the interval of the precision from {width:.2f} to "
            f"{narrower:.2f}",
            highlight=False,
        )
    table = Table(box=None, pad_edge=False)
    for column in ("--precision", "threshold", "expected precision", "recall"):
        table.add_column(column, justify="right")
    for promise in fit.promises:
        if found := promise.expected:
            cells = f"{found.threshold:.3f}", f"{found.precision:.2f}", f"{found.recall:.2f}"
        else:
            needed = (
                f"not yet; about {promise.labels:,} more labels may be enough" if promise.labels else "out of reach"
            )
            cells = "", needed, ""
        table.add_row(f"{promise.precision:g}", *cells)
    out.print(table)
    if fit.model.verdict.score == "log odds":
        out.print("[dim]Thresholds are similarities of the encoder, before the second look.[/]")
