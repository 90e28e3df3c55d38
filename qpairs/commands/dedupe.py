"""`qpairs dedupe`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer
from rich.table import Table

from qpairs.commands.conclusions import after_dedupe, after_trade_offs
from qpairs.commands.engines import EngineOption, RayAddressOption, check_engine
from qpairs.commands.search import CorpusThresholdOption, IdColumnOption, PrecisionOption, TextColumnOption
from qpairs.commands.terminal import (
    ModelArgument,
    OverwriteOption,
    RawOption,
    RerankerOption,
    SkipOption,
    counted,
    out,
    percent,
    plain,
    print_conclusion,
    print_saved,
    print_skipped,
    progress_bar,
    quiet,
)
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.progress import OnProgress, Progress

if TYPE_CHECKING:
    from qpairs.metrics import Expectation
    from qpairs.retrieval.clusters import Linkage
    from qpairs.retrieval.corpus import DedupeResult, Prepared
    from qpairs.retrieval.large import LargeResult
    from qpairs.retrieval.second_look import ReadShare
    from qpairs.retrieval.trade_offs import TradeOff

EXAMPLES = 5
CHOSEN = "chosen"
UNLABELLED = (
    " Scores alone do not tell near misses from duplicates: in a corpus without duplicates all of these would be "
    "wrong. Labels tell: qpairs serve --labels, then qpairs calibrate --corpus --labels."
)
MOST = 0.5  # share of a corpus that is dropped, from which on a warning is due
WIDTH = 50  # characters of a bar that stands for 1


def dedupe(
    checkpoint: ModelArgument,
    questions: Annotated[
        Path,
        typer.Argument(
            help="Questions: .csv .tsv .jsonl .parquet, or .txt with one a line. Or a folder from qpairs embed, "
            "which is read a part at a time: for more questions than memory holds."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pairs, the clusters, and the corpus without its duplicates; needed without --dry-run.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what several thresholds would do, and write nothing.")
    ] = False,
    text_column: TextColumnOption = "",
    id_column: IdColumnOption = "",
    embeddings: Annotated[
        Path | None,
        typer.Option(help="Vectors from qpairs embed; only texts that they lack are encoded.", show_default=False),
    ] = None,
    threshold: CorpusThresholdOption = None,
    precision: PrecisionOption = None,
    against: Annotated[
        Path | None, typer.Option(help="Drop questions already present in this file.", show_default=False)
    ] = None,
    linkage: Annotated[
        str,
        typer.Option(
            help="star: all members are duplicates of the one kept; single: members may be linked only through others."
        ),
    ] = "star",
    recall: Annotated[
        float, typer.Option(min=0.5, max=1, help="Share of the pairs to find in a large corpus; 1 compares all.")
    ] = 0.9999,
    kind: Annotated[
        str, typer.Option("--format", help="Format of pairs and clusters: csv, tsv, jsonl or parquet.")
    ] = "csv",
    skip_bad_rows: SkipOption = False,
    overwrite: OverwriteOption = False,
    raw: RawOption = False,
    reranker: RerankerOption = True,
    engine: EngineOption = "plain",
    ray_address: RayAddressOption = "",
) -> None:
    """Find the duplicates in a corpus of questions, and keep one of each cluster.

    The threshold is chosen for this corpus: that of greatest expected F1 over all its pairs, if none is given.
    """
    if linkage not in ("star", "single"):
        raise UserError(f"linkage {linkage!r}: {nearest(linkage, ['star', 'single'])}")
    if bool(output) == dry_run:
        raise UserError("dedupe: give --output FOLDER, or --dry-run")
    check_engine(engine)
    reading = Reading(text_column, id_column, skip_bad_rows, embeddings)
    if questions.is_dir():
        deciding = Deciding(reranker, threshold, precision, linkage, recall, kind, raw)
        _dedupe_folder(checkpoint, questions, output, deciding, engine, ray_address, overwrite=overwrite)
        return
    with quiet(), progress_bar() as on_progress:
        from qpairs.core.files import hold_output
        from qpairs.models.verdict import choose
        from qpairs.retrieval.corpus import check_format, find_duplicates
        from qpairs.retrieval.trade_offs import trade_offs

        check_format(kind)
        with hold_output(output) if output else contextlib.nullcontext():
            if output:
                _require_free(output, overwrite=overwrite)
            looking = Looking(reranker, recall, precision if threshold is None else threshold)
            prepared = _prepare(checkpoint, questions, against, reading, looking, on_progress)
            setting = choose(prepared.setting, threshold, precision)
            how: _How = {"linkage": "star" if linkage == "star" else "single", "recall": recall}
            if output:
                result = find_duplicates(prepared, setting, **how, on_progress=on_progress)
                result.write(output, kind, raw=raw)
            else:
                rows = [] if _is_one(prepared) else trade_offs(prepared, setting, **how, on_progress=on_progress)
    for corpus in filter(None, (prepared.corpus, prepared.against)):
        print_skipped(corpus)
    if output:
        _print_end(result, output)
    elif not rows:
        out.print(
            "One distinct question: nothing to compare; "
            f"{counted(len(prepared.corpus.texts) - 1, 'exact repeat')} of it. Nothing was written.",
            highlight=False,
            soft_wrap=True,
        )
    else:
        _print_trade_offs(rows, prepared)
        chosen = next((row.threshold for row in rows if row.why == CHOSEN), None)
        print_conclusion(after_trade_offs(chosen, checkpoint, questions))


class _How(TypedDict):
    linkage: Linkage
    recall: float


@dataclass(frozen=True)
class Reading:
    """How files of questions are read, and the embeddings that are there already."""

    text_column: str
    id_column: str
    skip_bad_rows: bool
    embeddings: Path | None


@dataclass(frozen=True)
class Looking:
    """How pairs are judged.

    Attributes:
        reranker: whether a model of two stages takes its second look.
        recall: share of the pairs to find.
        wanted: threshold or precision that was asked for.
    """

    reranker: bool
    recall: float
    wanted: float | None


@dataclass(frozen=True)
class Deciding:
    """What decides in a corpus that is read from its embeddings; each as the option of that name."""

    reranker: bool
    threshold: float | None
    precision: float | None
    linkage: str
    recall: float
    kind: str
    raw: bool


def _dedupe_folder(
    checkpoint: Path,
    folder: Path,
    output: Path | None,
    deciding: Deciding,
    engine: str,
    ray_address: str,
    *,
    overwrite: bool,
) -> None:
    """Finds the duplicates among embedded questions, a part at a time."""
    assert output is not None  # there is no dry run
    with quiet(), progress_bar() as on_progress:
        from qpairs.models.base import load
        from qpairs.retrieval.executors import executor_of
        from qpairs.retrieval.large import dedupe_embeddings

        _require_free(output, overwrite=overwrite)
        result = dedupe_embeddings(
            load(checkpoint, second_look=deciding.reranker),
            folder,
            output,
            threshold=deciding.threshold,
            precision=deciding.precision,
            linkage="star" if deciding.linkage == "star" else "single",
            recall=deciding.recall,
            kind=deciding.kind,
            raw=deciding.raw,
            engine=executor_of(engine, ray_address),
            on_progress=on_progress,
        )
    _print_end(result, output)


def _print_end(result: DedupeResult | LargeResult, output: Path) -> None:
    """What was found, where it is, and what it means."""
    print_summary(result)
    print_saved(output)
    expected = result.expected if result.expected and result.expected.pairs >= 1 else None
    figures = (expected.precision, expected.recall) if expected else None
    folder = _of_folder(result)
    print_conclusion(after_dedupe(result.summary["pairs"], figures, bool(result.labels), output, folder=folder))


def _of_folder(result: DedupeResult | LargeResult) -> bool:
    """Whether the corpus is a folder of embeddings, for which there is no dry run."""
    return Path(result.summary["questions"]).is_dir()


def _is_one(prepared: Prepared) -> bool:
    """Whether a corpus is one question, repeated."""
    return not prepared.other and len(prepared.own.first) == 1


def _prepare(
    checkpoint: Path,
    questions: Path,
    against: Path | None,
    reading: Reading,
    looking: Looking,
    on_progress: OnProgress,
) -> Prepared:
    from qpairs.data.corpus import read_corpus
    from qpairs.models.base import load
    from qpairs.retrieval.corpus import prepare
    from qpairs.retrieval.dedupe import require_one_tower
    from qpairs.retrieval.embeddings import open_shards
    from qpairs.retrieval.second_look import encoder_of

    model = load(checkpoint, second_look=looking.reranker)
    require_one_tower(encoder_of(model))
    on_progress(Progress("reading"))
    options: Any = {
        "text_column": reading.text_column,
        "id_column": reading.id_column,
        "skip_bad_rows": reading.skip_bad_rows,
    }
    corpus, other = read_corpus(questions, **options), read_corpus(against, **options) if against else None
    return prepare(
        model,
        corpus,
        against=other,
        embeddings=open_shards(reading.embeddings) if reading.embeddings else None,
        recall=looking.recall,
        wanted=looking.wanted,
        on_progress=on_progress,
    )


def _require_free(output: Path, *, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; name a folder with --output")
    from qpairs.core.files import visible

    if not overwrite and output.is_dir() and visible(output):
        raise UserError(f"{output}: the folder is in use; name another with --output, or pass --overwrite")


def print_summary(result: DedupeResult | LargeResult) -> None:
    """Prints what was found, what is expected of it and on what basis, and the pairs nearest to the threshold."""
    summary = result.summary
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("[dim]questions[/]", f"{summary['rows']:,}")
    table.add_row("[dim]distinct, but for case, spaces and punctuation[/]", f"{summary['distinct']:,}")
    if summary["against"]:
        table.add_row(f"[dim]asked in {plain(summary['against'])} already[/]", f"{summary['asked']:,}")
    unit = "a probability of " if result.read else ""
    table.add_row(f"[dim]pairs at or above {unit}{summary['threshold']:.3f}[/]", f"{summary['pairs']:,}")
    if result.expected and result.expected.pairs >= 1:
        both = " (of all pairs of both files)" if summary["against"] and not result.read else ""
        table.add_row(f"[dim]  of which duplicates, expected{both}[/]", _share(result.expected, "precision"))
        table.add_row("[dim]  share of all duplicates found, expected[/]", _share(result.expected, "recall"))
    table.add_row(f"[dim]clusters, of at most {summary['largest']:,}[/]", f"{summary['clusters']:,}")
    table.add_row("[dim]kept[/]", f"[bold]{summary['kept']:,}[/] ({percent(summary['kept'] / summary['rows'])})")
    out.print(table)
    _print_read(result.read)
    _print_basis(result)
    if summary["recall_measured_on"]:
        out.print(
            f"Not all were compared with all: {percent(summary['recall'])} of the pairs are found, measured on "
            f"{summary['recall_measured_on']:,} of a sample.",
            highlight=False,
        )
    least = result.nearest(EXAMPLES)
    if len(least):
        out.print("\n[bold]nearest to the threshold[/]  [dim]similarity, probability[/]", highlight=False)
    for pair in least.itertuples():
        print_pair(pair)


def print_pair(pair: Any) -> None:
    """Prints a row of `DedupeResult.pairs`: similarity, probability, and both questions."""
    figures = f"{pair.similarity:.3f}  {pair.probability:.2f}"
    one, another = plain(pair.question1), plain(pair.question2)
    out.print(f"  {figures}  {one}\n  [dim]             {another}[/]", highlight=False, soft_wrap=True)


def _print_read(read: ReadShare | None) -> None:
    if read:
        out.print(f"{plain(str(read)).capitalize()}.", highlight=False)


def _print_basis(result: DedupeResult | LargeResult) -> None:
    """What the expectation rests on, and a warning before most of a corpus is given up."""
    from qpairs.models.verdict import CorpusSetting

    expected, summary = result.expected, result.summary
    if expected and expected.pairs >= 1:
        among = result.setting.among if isinstance(result.setting, CorpusSetting) else ""
        out.print(
            f"[dim]Expected {plain(among)}; {plain(summary['basis'])}; 95 % intervals."
            + ("" if result.labels else UNLABELLED)
            + "[/]",
            highlight=False,
        )
    dropped = 1 - summary["kept"] / summary["distinct"]  # repeats in other letters are no question of a model
    if dropped > MOST:
        way = "--threshold" if _of_folder(result) else "qpairs dedupe --dry-run"
        doubt = f"; about {percent(1 - expected.precision)} of its pairs are expected to be wrong" if expected else ""
        out.print(
            f"[yellow]This drops {percent(dropped)} of the distinct questions{doubt}. See {way}, and --precision.[/]",
            highlight=False,
        )


def _share(expected: Expectation, name: str) -> str:
    low, high = getattr(expected, f"{name}_interval")
    return f"{getattr(expected, name):.2f} [dim]({low:.2f} to {high:.2f})[/]"


def _print_trade_offs(rows: Sequence[TradeOff], prepared: Prepared) -> None:
    from qpairs.models.verdict import CorpusSetting

    questions, read = len(prepared.corpus.texts), prepared.read
    basis = prepared.setting.basis if isinstance(prepared.setting, CorpusSetting) else ""
    judged = [row.expected for row in rows if row.expected]
    table = Table(box=None, pad_edge=False)
    unit = "probability" if read else "threshold"
    names = [unit, "pairs", "kept", "", *(("precision", "at least", "recall") if judged else ())]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        cells = [f"{row.threshold:.3f}", f"{row.pairs:,}", f"{row.kept:,}", f"{100 * row.kept / questions:.0f} %"]
        if row.expected:
            figures = row.expected.precision, row.expected.precision_bound, row.expected.recall
            cells += [f"{figure:.2f}" for figure in figures]
        table.add_row(*cells, row.why, style="bold" if row.why == CHOSEN else None)
    out.print(table)
    if judged:
        out.print(f"\n{unit}  [green]precision[/] above [blue]recall[/], expected")
        for expected in judged:
            for name, colour, lead in (
                ("precision", "green", f"{expected.threshold:9.3f}"),
                ("recall", "blue", " " * 9),
            ):
                value = getattr(expected, name)
                out.print(f"{lead}  [{colour}]{'█' * round(WIDTH * value)}[/] {value:.2f}", highlight=False)
        out.print(
            f"\n[dim]At least: the precision that is promised, one-sided 95 %. All of it {plain(basis)}.[/]",
            highlight=False,
        )
    _print_read(read)
    out.print("[dim]Nothing was written.[/]", highlight=False)
