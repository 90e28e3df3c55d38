"""`qpairs errors`, `audit` and `explain`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.conclusions import LABELLED, Conclusion, after_errors
from qpairs.commands.outputs import check_file, check_files, free_folder
from qpairs.commands.reading import NamedPairs, judged_pairs
from qpairs.commands.terminal import (
    ColumnsOption,
    JudgedDataOption,
    LabelCutOption,
    LabelsOption,
    RawOption,
    ReplaceOption,
    SkipOption,
    TomlOption,
    counted,
    err,
    out,
    percent,
    plain,
    print_command,
    print_conclusion,
    print_saved,
    print_skipped,
    print_verdict,
    progress_bar,
    quiet,
    shown_path,
)
from qpairs.commands.training import given_options, with_config_options
from qpairs.config import config_from, config_words
from qpairs.core.progress import Progress
from qpairs.core.tables import check_table_path, rows_table, write_rows, write_tables

if TYPE_CHECKING:
    from qpairs.evaluation.explain import Word
    from qpairs.evaluation.mistakes import Analysis, Mistake
    from qpairs.evaluation.slices import ErrorSlice

FOLDER = Path("errors")  # unless another is named
SHOWN = 12  # slices in the table
ILLUSTRATED = 3  # slices with examples
BAR = 12  # characters of the longest bar


def errors(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or an export.")],
    data: JudgedDataOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for mistakes.csv and slices.csv.  [default: errors; if that has results, errors-2 ...]",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Examples of each of the worst slices.")] = 2,
    columns: ColumnsOption = "",
    labels: LabelsOption = "",
    label_cut: LabelCutOption = None,
    skip_bad_rows: SkipOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap and of the test of slices.")] = 0,
    overwrite: ReplaceOption = False,
    raw: RawOption = False,
) -> None:
    """Show the mistakes of a checkpoint or an export, and the kinds of pair with frequent mistakes."""
    names = "mistakes.csv", "slices.csv"
    output = output or (FOLDER if overwrite else free_folder(FOLDER, names))
    mistakes, slices = (output / name for name in names)
    check_files([mistakes, slices], overwrite=overwrite)
    with quiet(), progress_bar() as on_progress:
        from qpairs.evaluation.mistakes import Mistake, analyse
        from qpairs.evaluation.slices import ErrorSlice
        from qpairs.models.base import load as load_model
        from qpairs.models.verdict import score_column, score_name

        model = load_model(checkpoint)
        named = NamedPairs(data or (), columns, labels, label_cut, skip_bad_rows)
        judged = judged_pairs(model, named, "errors")
        on_progress(Progress("judging"))
        found = analyse(model, judged.pairs, trained_on=judged.trained_on, seed=seed)
    called = {"similarity": score_column(model.verdict.score)}
    tables = rows_table(Mistake, found.mistakes(), called), rows_table(ErrorSlice, found.slices)
    write_tables((mistakes, tables[0], raw), (slices, tables[1], raw))
    print_skipped(judged.pairs)
    out.print(
        f"Evaluated on {counted(len(judged.pairs), 'pair')}: {shown_path(judged.source)}.",
        highlight=False,
        soft_wrap=True,
    )
    if judged.trained_on is None:
        out.print("[dim]The training pairs are unavailable: known words are those of the data itself.[/]")
    _print_analysis(found, examples, score_name(model.verdict.score))
    worst = next((part.name for part in found.slices if part.worse), "")
    out.print()
    print_conclusion(after_errors(worst))
    print_saved(output, "Every mistake and every slice are in")


def _print_analysis(found: Analysis, examples: int, score: str) -> None:
    n, mistakes = len(found.pairs), int(found.wrong.sum())
    extra = mistakes - found.missed
    out.print(
        f"{mistakes:,} of {counted(n, 'decision')} {'is' if mistakes == 1 else 'are'} wrong ({percent(mistakes / n)}): "
        f"{counted(extra, 'pair')} {'is called a duplicate' if extra == 1 else 'are called duplicates'} wrongly, "
        f"{counted(found.missed, 'duplicate')} {'is' if found.missed == 1 else 'are'} missed.",
        highlight=False,
    )
    worse = [part for part in found.slices if part.worse]
    if worse:
        _print_slices(f"Mistakes are frequent in {len(worse)} of {counted(len(found.slices), 'slice')}", worse[:SHOWN])
    elif found.slices:
        _print_slices(f"Mistakes are frequent in none of {counted(len(found.slices), 'slice')}", found.slices[:3])
    for number, part in enumerate(worse[:ILLUSTRATED] if examples else []):
        out.print(f"\n[bold]{plain(part.name)}[/]  [dim]{plain(part.rule)}[/]", highlight=False)
        for mistake in found.mistakes(number)[:examples]:
            _print_mistake(mistake, score)


def _print_slices(title: str, slices: Sequence[ErrorSlice]) -> None:
    table = Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False)
    for column in ("", "pairs", "wrong", "lift", "p", "F1", "95 % interval"):
        table.add_column(column, justify="right" if column else "left", no_wrap=bool(column))
    for part in slices:
        low, high = part.f1_interval
        table.add_row(
            plain(part.name),
            f"{part.n:,}",
            percent(part.error_rate),
            f"{part.lift:.2f}",
            f"{part.p_corrected:.4f}",
            f"{part.f1:.3f}",
            f"{low:.3f} to {high:.3f}",
        )
    out.print(table)
    out.print("[dim]lift: error rate here divided by that elsewhere; p: p-value, corrected for the number of slices[/]")


def _print_mistake(mistake: Mistake, score: str) -> None:
    from qpairs.data.words import pieces, words

    what = "[red]missed[/]" if mistake.label else "[yellow]not duplicates[/]"
    out.print(f"  {what}, {score} {mistake.similarity:.3f} ({mistake.distance:+.3f})", highlight=False)
    for text, own in ((mistake.question1, mistake.only1), (mistake.question2, mistake.only2)):
        parts = ((plain(part), blank, any(word in own for word in words(part))) for part, blank in pieces(text))
        marked = (f"[bold]{part}[/]{blank}" if is_own else part + blank for part, blank, is_own in parts)
        out.print(f"    {''.join(marked)}", highlight=False, soft_wrap=True)


@with_config_options(
    *("validation", "test", "test_fraction", "drop_suspects", "output", "report_to"),
    *("augment", "positives", "unlabelled", "text_column"),
)
def audit(
    *,
    folds: Annotated[int, typer.Option(min=2, help="Parts for cross-validation, which share no question.")] = 5,
    confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Probability of the other label from which a label counts as disputed.")
    ] = 0.8,
    output: Annotated[Path, typer.Option(help="CSV file for the suspects.")] = Path("suspects.csv"),
    examples: Annotated[int, typer.Option(min=0, help="Suspects to show.")] = 5,
    overwrite: ReplaceOption = False,
    raw: RawOption = False,
    config: TomlOption = None,
    **options: Any,
) -> None:
    """Rank labels that are probably wrong: disputed by cross-validated models, or contradicted by other labels."""
    values = given_options(config, options)
    check_table_path(output)
    check_file(output, overwrite=overwrite)
    with quiet(), progress_bar() as on_progress:
        from qpairs.experiments.audit import Suspect
        from qpairs.experiments.audit import audit as run

        try:
            found = run(folds=folds, confidence=confidence, on_progress=on_progress, **values)
        except KeyboardInterrupt:
            err.print("interrupted; nothing was written")
            raise
    suspects = found.suspects
    write_rows(output, Suspect, suspects, raw=raw)
    print_skipped(found.pairs)
    out.print(
        f"[bold]{len(suspects):,}[/] of {len(found.pairs):,} labels are suspect: models dispute "
        f"{int(found.disputed.sum()):,}, other labels contradict {int(found.contradicted.sum()):,}, both "
        f"{int((found.disputed & found.contradicted).sum()):,}.",
        highlight=False,
    )
    out.print(
        f"[dim]The models reach an average precision of {found.average_precision:.3f} on questions they have not "
        "seen: the lower it is, the less a dispute means.[/]",
        highlight=False,
    )
    for suspect in suspects[:examples]:
        label = "duplicates" if suspect.is_duplicate else "not duplicates"
        out.print(
            f"\n  labelled [bold]{label}[/], probability {suspect.probability:.3f}; {plain(suspect.reason)}",
            highlight=False,
        )
        for text in (suspect.question1, suspect.question2):
            out.print(f"    {plain(text)}", highlight=False, soft_wrap=True)
    if suspects:
        out.print(
            f"\nRanked in [bold]{shown_path(output)}[/]. Remove the rows whose label is right; train without the rest:",
            highlight=False,
            soft_wrap=True,
        )
        again = dataclasses.replace(config_from(values), drop_suspects=str(output))
        print_command("qpairs", "train", *config_words(again))


def explain(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or an export.")],
    question1: Annotated[str, typer.Argument(help="The first question.")],
    question2: Annotated[str, typer.Argument(help="The second question.")],
    neighbours: Annotated[int, typer.Option(min=0, help="Nearest training pairs of each label; 0: none.")] = 3,
) -> None:
    """Show the effect of each word on the score of two questions, and the nearest training pairs."""
    with quiet(), progress_bar():
        from qpairs.evaluation.explain import explain as run
        from qpairs.evaluation.sources import training_pairs_of, why_unjudged
        from qpairs.models.base import load as load_model
        from qpairs.models.verdict import score_name

        model = load_model(checkpoint)
        name = score_name(model.verdict.score)
        trained_on = training_pairs_of(model) if neighbours else None
        found = run(model, question1, question2, trained_on=trained_on, count=neighbours)
    print_verdict(name, found.similarity, found.probability, found.duplicate, found.threshold)
    _print_words(found.words, name)
    how = " by their words" if found.by_words else ""
    for label, title in ((1, "duplicates"), (0, "not duplicates")):
        near = [pair for pair in found.neighbours if pair.label == label]
        if near:
            out.print(f"\nNearest training pairs{how} labelled [bold]{title}[/]")
        for pair in near:
            out.print(f"  {pair.similarity:.3f}  {plain(pair.question1)}", highlight=False, soft_wrap=True)
            out.print(f"         [dim]{plain(pair.question2)}[/]", highlight=False, soft_wrap=True)
    if neighbours and trained_on is None:
        out.print("\n[dim]No neighbours: the training pairs are unavailable, or have changed.[/]")
    judged = [] if trained_on and not why_unjudged(model) else ["--data", LABELLED]
    words = "errors", checkpoint, *judged
    out.print()
    print_conclusion(
        Conclusion("Words with long bars matter most. To see whether such pairs are often wrong:", (words,))
    )


def _print_words(words: tuple[Sequence[Word], Sequence[Word]], score: str) -> None:
    """The words of both questions side by side, each with a bar."""
    most = max(abs(word.effect) for side in words for word in side) or 1.0
    table = Table(
        title=f"\nWhat each word adds to the {score}: [green]together[/] or [red]apart[/]",
        title_justify="left",
        title_style="",
        box=None,
        pad_edge=False,
        show_header=False,
    )
    for _ in words:
        table.add_column(overflow="fold")
        table.add_column(justify="right", no_wrap=True)
        table.add_column(width=BAR, no_wrap=True)
    for row in itertools.zip_longest(*words):
        table.add_row(*itertools.chain.from_iterable(_bar(word, most) for word in row))
    out.print(table)


def _bar(word: Word | None, most: float) -> tuple[str, str, str]:
    if word is None:
        return "", "", ""
    colour = "green" if word.effect > 0 else "red"
    return plain(word.text), f"{word.effect:+.3f}", f"[{colour}]{'█' * round(BAR * abs(word.effect) / most)}[/]"
