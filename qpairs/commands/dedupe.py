"""`qpairs dedupe`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer
from rich.table import Table

from qpairs.commands.conclusions import after_dedupe, after_trade_offs
from qpairs.commands.engines import EngineOption, RayAddressOption, check_engine
from qpairs.commands.search import CorpusThresholdOption, IdColumnOption, PrecisionOption, TextColumnOption
from qpairs.commands.shared_options import shared_words
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
    shown_path,
)
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.progress import OnProgress, Progress
from qpairs.core.shell import option_words
from qpairs.data.question_file import QuestionFile

if TYPE_CHECKING:
    import pandas

    from qpairs.metrics import Expectation
    from qpairs.retrieval.clusters import Linkage
    from qpairs.retrieval.corpus import DedupeResult, Prepared
    from qpairs.retrieval.large import LargeResult
    from qpairs.retrieval.second_look import ReadShare
    from qpairs.retrieval.trade_offs import TradeOff

EXAMPLES = 5
LINKAGE, RECALL = "star", 0.9999  # unless others are asked for
CHOSEN = "chosen"
UNLABELLED = (
    " Scores alone do not separate near misses from duplicates: in a corpus without duplicates all of these would be "
    "wrong. Labels do: qpairs serve --labels, then qpairs calibrate --corpus --labels."
)
MOST = 0.5  # share of a corpus that is dropped, from which on a warning is due
UNKNOWN = 0.9  # width of an interval of a share, from which on it says nothing
WIDTH = 50  # characters of a bar that stands for 1


def dedupe(
    checkpoint: ModelArgument,
    questions: Annotated[
        Path,
        typer.Argument(
            help="Questions: .csv .tsv .jsonl .parquet, or .txt with one per line. Or a folder from qpairs embed, "
            "read in parts: for more questions than fit in memory."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pairs, the clusters, and the corpus without duplicates; required without --dry-run.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what several thresholds would find, and write nothing.")
    ] = False,
    text_column: TextColumnOption = "",
    id_column: IdColumnOption = "",
    embeddings: Annotated[
        Path | None,
        typer.Option(help="Vectors from qpairs embed; only texts without one are encoded.", show_default=False),
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
    ] = LINKAGE,
    recall: Annotated[
        float, typer.Option(min=0.5, max=1, help="Share of the pairs to find in a large corpus; 1: compare all pairs.")
    ] = RECALL,
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

    Without --threshold, the one with the highest expected F1 over all pairs of this corpus is chosen.
    """
    if linkage not in ("star", "single"):
        raise UserError(f"linkage {linkage!r}: {nearest(linkage, ['star', 'single'])}")
    if bool(output) == dry_run:
        raise UserError(f"dedupe: give --output FOLDER or --dry-run{', not both' if dry_run else ''}")
    check_engine(engine)
    deciding = Deciding(threshold, precision, linkage, recall, reranker)
    writing = Writing(output, kind, raw, overwrite) if output else None
    if writing and questions.is_dir():
        _dedupe_folder(checkpoint, questions, deciding, writing, engine, ray_address)
        return
    read = Reading(QuestionFile(questions, text_column, id_column, skip_bad_rows), against, embeddings)
    if writing:
        _dedupe_file(checkpoint, read, deciding, writing)
    else:
        _try_out(checkpoint, read, deciding)


@dataclass(frozen=True)
class Reading:
    """The questions to deduplicate: their file, a second file that is read in the same way, and embeddings."""

    file: QuestionFile
    against: Path | None = None
    embeddings: Path | None = None

    def words(self) -> list[str]:
        """The words that name them in another command."""
        more = {"--against": self.against, "--embeddings": self.embeddings}
        return [str(self.file.path), *self.file.words(), *option_words(more), *shared_words()]


@dataclass(frozen=True)
class Deciding:
    """What decides which questions are duplicates; each as the option of that name."""

    threshold: float | None = None
    precision: float | None = None
    linkage: str = LINKAGE
    recall: float = RECALL
    reranker: bool = True

    @property
    def wanted(self) -> float | None:
        """The threshold or the precision that was asked for."""
        return self.precision if self.threshold is None else self.threshold

    @property
    def how(self) -> _How:
        """How pairs become clusters, and which are found, as arguments of the library."""
        return {"linkage": "star" if self.linkage == "star" else "single", "recall": self.recall}

    def words(self) -> list[str]:
        """The options that decide the same in another command, without defaults."""
        return option_words(
            {
                "--threshold": self.threshold,
                "--precision": self.precision,
                "--linkage": "" if self.linkage == LINKAGE else self.linkage,
                "--recall": None if self.recall == RECALL else self.recall,
                "--no-reranker": not self.reranker,
            }
        )


class _How(TypedDict):
    linkage: Linkage
    recall: float


@dataclass(frozen=True)
class Writing:
    """Where the results go, and how they are written; each as the option of that name."""

    output: Path
    kind: str
    raw: bool
    overwrite: bool

    def require_free(self) -> None:
        """Raises UserError where the folder may not be written to."""
        from qpairs.core.files import refuse_file, visible

        output = self.output
        refuse_file(output)
        if not self.overwrite and output.is_dir() and visible(output):
            raise UserError(f"{output}: the folder is not empty; name another with --output, or pass --overwrite")


def _dedupe_folder(
    checkpoint: Path, folder: Path, deciding: Deciding, writing: Writing, engine: str, ray_address: str
) -> None:
    """Finds the duplicates among embedded questions, a part at a time."""
    with quiet(), progress_bar() as on_progress:
        from qpairs.core.files import hold_output
        from qpairs.models.base import load
        from qpairs.retrieval.executors import executor_of
        from qpairs.retrieval.large import dedupe_embeddings

        with hold_output(writing.output):
            writing.require_free()
            result = dedupe_embeddings(
                load(checkpoint, second_look=deciding.reranker),
                folder,
                writing.output,
                threshold=deciding.threshold,
                precision=deciding.precision,
                **deciding.how,
                kind=writing.kind,
                raw=writing.raw,
                engine=executor_of(engine, ray_address),
                on_progress=on_progress,
            )
    _print_end(result, checkpoint, writing.output)


def _dedupe_file(checkpoint: Path, read: Reading, deciding: Deciding, writing: Writing) -> None:
    """Finds the duplicates among the questions of a file, and writes them."""
    with quiet(), progress_bar() as on_progress:
        from qpairs.core.files import hold_output
        from qpairs.models.verdict import choose
        from qpairs.retrieval.corpus import check_format, find_duplicates

        check_format(writing.kind)
        with hold_output(writing.output):
            writing.require_free()
            prepared = _prepare(checkpoint, read, deciding, on_progress)
            setting = choose(prepared.setting, deciding.threshold, deciding.precision)
            result = find_duplicates(prepared, setting, **deciding.how, on_progress=on_progress)
            result.write(writing.output, writing.kind, raw=writing.raw)
    _print_all_skipped(prepared)
    _print_end(result, checkpoint, writing.output)


def _try_out(checkpoint: Path, read: Reading, deciding: Deciding) -> None:
    """Shows what several thresholds would find among the questions of a file."""
    with quiet(), progress_bar() as on_progress:
        from qpairs.models.verdict import choose
        from qpairs.retrieval.trade_offs import trade_offs

        prepared = _prepare(checkpoint, read, deciding, on_progress)
        setting = choose(prepared.setting, deciding.threshold, deciding.precision)
        rows = [] if _is_one(prepared) else trade_offs(prepared, setting, **deciding.how, on_progress=on_progress)
    _print_all_skipped(prepared)
    if not rows:
        out.print(
            "One distinct question: nothing to compare; "
            f"{counted(len(prepared.corpus.texts) - 1, 'exact repeat')} of it. Nothing was written.",
            highlight=False,
            soft_wrap=True,
        )
        return
    _print_trade_offs(rows, prepared)
    chosen = next((row.threshold for row in rows if row.why == CHOSEN), None)
    print_conclusion(after_trade_offs(chosen, ["dedupe", checkpoint, *read.words(), *deciding.words()]))


def _print_all_skipped(prepared: Prepared) -> None:
    for corpus in filter(None, (prepared.corpus, prepared.against)):
        print_skipped(corpus)


def _print_end(result: DedupeResult | LargeResult, checkpoint: Path, output: Path) -> None:
    """What was found, where it is, and what it means."""
    print_summary(result)
    print_saved(output)
    expected, figures = result.expected, None
    if expected and expected.pairs >= 1:
        low, high = expected.precision_interval
        figures = (expected.precision, expected.recall) if high - low < UNKNOWN else None
    folder = _of_folder(result)
    found = result.summary["pairs"], figures, bool(result.labels)
    print_conclusion(after_dedupe(*found, checkpoint, output, folder=folder))


def _of_folder(result: DedupeResult | LargeResult) -> bool:
    """Whether the corpus is a folder of embeddings, for which there is no dry run."""
    return Path(result.summary["questions"]).is_dir()


def _is_one(prepared: Prepared) -> bool:
    """Whether a corpus is one question, repeated."""
    return not prepared.other and len(prepared.own.first) == 1


def _prepare(checkpoint: Path, read: Reading, deciding: Deciding, on_progress: OnProgress) -> Prepared:
    from qpairs.data.corpus import read_corpus
    from qpairs.models.base import load
    from qpairs.retrieval.corpus import prepare
    from qpairs.retrieval.dedupe import require_one_tower
    from qpairs.retrieval.embeddings import open_shards
    from qpairs.retrieval.second_look import encoder_of

    model = load(checkpoint, second_look=deciding.reranker)
    require_one_tower(encoder_of(model))
    on_progress(Progress("reading"))
    options = read.file.options
    return prepare(
        model,
        read_corpus(read.file.path, **options),
        against=read_corpus(read.against, **options) if read.against else None,
        embeddings=open_shards(read.embeddings) if read.embeddings else None,
        recall=deciding.recall,
        wanted=deciding.wanted,
        on_progress=on_progress,
    )


def print_summary(result: DedupeResult | LargeResult) -> None:
    """Prints what was found, what is expected of it and on what basis, and the pairs to look at."""
    from qpairs.retrieval.corpus import DedupeResult

    summary = result.summary
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("[dim]questions[/]", f"{summary['rows']:,}")
    table.add_row("[dim]distinct, but for case, spaces and punctuation[/]", f"{summary['distinct']:,}")
    if summary["against"]:
        table.add_row(f"[dim]asked in {shown_path(summary['against'])} already[/]", f"{summary['asked']:,}")
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
    _print_search_recall(summary["search_recall"], summary["search_recall_measured_on"])
    least = result.nearest(EXAMPLES)
    if len(least):
        out.print("\n[bold]nearest to the threshold[/]  [dim]similarity, probability[/]", highlight=False)
    for pair in least.itertuples():
        print_pair(pair)
    if isinstance(result, DedupeResult):
        _print_one_word_apart(result.one_word_apart)


def _print_one_word_apart(pairs: pandas.DataFrame) -> None:
    """The pairs that differ in one name, number or sign alone."""
    if not len(pairs):
        return
    differ = "pair differs" if len(pairs) == 1 else "pairs differ"
    out.print(
        f"\n[yellow]{len(pairs):,} {differ} in one name, number or sign alone[/], and such pairs are rarely "
        "duplicates, whatever their probability: check them first",
        highlight=False,
    )
    for pair in pairs.head(EXAMPLES).itertuples():
        print_pair(pair)


def print_pair(pair: Any) -> None:
    """Prints a row of `DedupeResult.pairs`: similarity, probability, and both questions."""
    figures = f"{pair.similarity:.3f}  {pair.probability:.2f}"
    one, another = plain(pair.question1), plain(pair.question2)
    out.print(f"  {figures}  {one}\n  [dim]             {another}[/]", highlight=False, soft_wrap=True)


def _print_read(read: ReadShare | None) -> None:
    if read:
        out.print(f"{plain(str(read)).capitalize()}.", highlight=False)


def _print_search_recall(recall: float | None, measured_on: int) -> None:
    """The share of the pairs that was found, if not all questions were compared with all."""
    found = "the share of pairs found is unknown, as a sample had none; --recall 1 compares all"
    if recall is not None:
        found = f"{percent(recall)} of the pairs are found, measured on {measured_on:,} of a sample"
    if recall is None or measured_on:
        out.print(f"Not all pairs were compared: {found}.", highlight=False, soft_wrap=True)


def _print_basis(result: DedupeResult | LargeResult) -> None:
    """What the expectation is based on, and a warning if most of a corpus would be dropped."""
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
            f"\n[dim]At least: lower 95 % bound of the precision, one-sided. All figures {plain(basis)}.[/]",
            highlight=False,
        )
    _print_read(read)
    out.print("[dim]Nothing was written.[/]", highlight=False)
