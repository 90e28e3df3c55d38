"""`qpairs label` and `qpairs label agreement`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from qpairs.commands.outputs import check_files
from qpairs.commands.terminal import (
    RawOption,
    ReplaceOption,
    counted,
    err,
    out,
    percent,
    plain,
    progress_bar,
    quiet,
    shown_path,
)
from qpairs.core.files import read_text
from qpairs.core.tables import check_table_path, write_tables

if TYPE_CHECKING:
    from qpairs.annotation.annotate import Annotation
    from qpairs.evaluation.annotators import Agreement, Noise
    from qpairs.metrics.intervals import Interval


def pairs(
    folder: Annotated[
        Path, typer.Argument(metavar="INDEX", help="Folder of an index; pairs of its questions are labelled.")
    ],
    llm: Annotated[
        str, typer.Option(help="Address of a service with OpenAI's chat completions API: vLLM, Ollama, llama.cpp.")
    ],
    model: Annotated[str, typer.Option(help="Name of the language model at --llm.")],
    budget: Annotated[int, typer.Option(min=1, help="Pairs to label, including those of earlier runs.")] = 500,
    guideline: Annotated[
        Path | None, typer.Option(help="Text file that says what counts as a duplicate.", show_default=False)
    ] = None,
    labels: Annotated[Path, typer.Option(help="CSV file of the labels.")] = Path("llm-labels.csv"),
    annotator: Annotated[
        str,
        typer.Option(
            help="Annotator name to store with the labels; without it, the name of the language model.",
            show_default=False,
        ),
    ] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Model folder, if it has moved since the index was built.", show_default=False)
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Number of concurrent requests.")] = 4,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request counts as failed.")] = 60.0,
    attempts: Annotated[int, typer.Option(min=1, help="Attempts for each request.")] = 6,
    max_tokens: Annotated[int, typer.Option(min=16, help="Most tokens in an answer.")] = 1024,
    price_in: Annotated[float, typer.Option(min=0, help="Price of a million tokens read.")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0, help="Price of a million tokens written.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed for drawing pairs; qpairs serve uses 0.")] = 0,
) -> None:
    """Let a language model label pairs of an index, drawn so that the labels can be used for calibration.

    The questions are sent only to the address of --llm. Its key is read from QPAIRS_LLM_KEY.
    """
    with quiet(), progress_bar() as on_progress:
        from dataclasses import replace

        from qpairs.annotation.annotate import Annotator, annotate
        from qpairs.annotation.endpoint import open_endpoint
        from qpairs.models.base import load
        from qpairs.retrieval.index import model_of, open_index
        from qpairs.serving.label_pairs import pairs_to_label

        endpoint = replace(open_endpoint(llm, model), timeout=timeout, attempts=attempts, max_tokens=max_tokens)
        asked = Annotator(endpoint, annotator, read_text(guideline) if guideline else "")
        name = asked.called
        opened = open_index(folder)
        encoder = load(checkpoint or model_of(opened, "--checkpoint"), second_look=False)
        drawn = list(pairs_to_label(opened, encoder, seed)["stratified"].values())
        found = annotate(drawn[:budget], asked, labels, concurrency=concurrency, on_progress=on_progress)
    if len(drawn) < budget:
        out.print(f"[yellow]The index has {len(drawn):,} pairs to draw, fewer than the budget.[/]")
    _print_annotation(name, found, found.cost(price_in, price_out) if price_in or price_out else None)
    out.print(
        f"Labels are in [bold]{shown_path(labels)}[/], all answers next to it. Until others label some of the same "
        "pairs (qpairs serve --annotator, then qpairs label agreement), they are assumed to be right.",
        highlight=False,
        soft_wrap=True,
    )


def _print_annotation(name: str, found: Annotation, cost: float | None) -> None:
    total = found.yes + found.no + found.unsure + found.unanswered
    out.print(
        f"{total:,} pairs labelled by {plain(name)}: {found.yes:,} the same, {found.no:,} different, {found.unsure:,} "
        f"unsure, {found.unanswered:,} without an answer",
        highlight=False,
        soft_wrap=True,
    )
    unknown = f" (unknown of {found.uncounted:,} answers)" if found.uncounted else ""
    price = "" if cost is None else f", cost {cost:.4f}"
    out.print(
        f"{found.tokens_in:,} tokens read, {found.tokens_out:,} written{unknown}{price}; this run: {found.asked:,} "
        f"pairs in {found.seconds:,.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    if found.failed:
        err.print(f"[yellow]{found.failed:,} pairs could not be asked; the same command asks them again.[/]")


TrustOption = Annotated[
    list[str] | None,
    typer.Option(help="Annotator whose labels are assumed to be right; may be repeated.", show_default=False),
]


def agreement(
    labels: Annotated[list[Path], typer.Argument(help="Files of labels, with a column annotator.")],
    disagreements: Annotated[
        Path | None,
        typer.Option(
            help="Write the pairs that annotators label differently to this .csv, .tsv or .jsonl. Fill in its labels "
            "and pass it as a file of labels: they override the others.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write one label for each pair to this .csv, .tsv, .jsonl or .parquet.", show_default=False),
    ] = None,
    overwrite: ReplaceOption = False,
    raw: RawOption = False,
    trust: TrustOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Show how far annotators agree and how often each is wrong; write disagreements and combined labels."""
    places = {option: path for option, path in {"--disagreements": disagreements, "--output": output}.items() if path}
    for path in places.values():
        check_table_path(path)
    check_files([*places.values()], overwrite=overwrite, options=[*places])
    with quiet(), progress_bar():
        from qpairs.data.labels import read_labels
        from qpairs.evaluation.annotators import measure_agreement

        found = measure_agreement(read_labels(*labels), trusted=trust or (), seed=seed)
    _print_agreement(found)
    print_noise(found.consensus.noise)
    disputed = int(found.consensus.judged.disputed.sum())
    settled = int((found.consensus.judged.adjudicated >= 0).sum())
    where = f", written to {shown_path(disagreements)}" if disagreements else ""
    out.print(f"{disputed:,} pairs in dispute{where}; {settled:,} adjudicated", highlight=False, soft_wrap=True)
    disputes = [(disagreements, found.consensus.disputes(), raw)] if disagreements else []
    write_tables(*disputes, *([(output, found.consensus.table(), True)] if output else []))  # the latter to train on
    if output:
        ties = int(found.consensus.ties.sum())
        without = f"; {counted(ties, 'tie')} left out; settle them with --disagreements" if ties else ""
        written = len(found.consensus.judged) - ties
        out.print(f"{written:,} pairs written to {shown_path(output)}{without}", soft_wrap=True)


def _print_agreement(found: Agreement) -> None:
    judged = found.consensus.judged
    out.print(
        f"{len(judged):,} pairs, {int(judged.shared.sum()):,} of them labelled by two annotators or more",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("annotators", overflow="fold")
    for column in ("pairs", "agreement", "95 % interval", "kappa", "95 % interval"):
        table.add_column(column, justify="right")
    for pair in found.pairs:
        table.add_row(
            f"{_name(pair.first)}, {_name(pair.second)}",
            f"{pair.n:,}",
            percent(pair.agreement),
            _interval(pair.agreement_interval),
            f"{pair.kappa:.2f}",
            _interval(pair.kappa_interval),
        )
    out.print(table)
    out.print(
        f"Krippendorff's alpha, all annotators: {found.alpha:.2f} ({_interval(found.alpha_interval)}). All figures "
        "are for the labelled pairs, not for all pairs of the corpus.",
        highlight=False,
    )


def print_noise(noise: Sequence[Noise]) -> None:
    """Prints how often each annotator is wrong, and whose answers are assumed to be right."""
    table = Table(title="\nHow often each is right (Dawid and Skene)", title_justify="left", box=None, pad_edge=False)
    table.add_column("annotator", overflow="fold")
    for column in ("pairs", "shared", "of duplicates", "of others"):
        table.add_column(column, justify="right")
    for each in noise:
        cells = (
            _share(each.sensitivity, each.sensitivity_interval),
            _share(each.specificity, each.specificity_interval),
        )
        table.add_row(_name(each.annotator), f"{each.answers:,}", f"{each.shared:,}", *cells)
    out.print(table)


def _name(annotator: str) -> str:
    return plain(annotator) or "no name"


def _share(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "taken as right"
    return percent(value) + (f" ({percent(interval[0])} to {percent(interval[1])})" if interval else "")


def _interval(interval: Interval) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"
