"""`qpairs index` and `search`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.conclusions import after_index, after_questions
from qpairs.commands.outputs import check_file
from qpairs.commands.terminal import (
    OverwriteOption,
    RawOption,
    ReplaceOption,
    RerankerOption,
    SkipOption,
    counted,
    out,
    percent,
    plain,
    print_conclusion,
    print_left_out,
    progress_bar,
    quiet,
    shown_path,
)
from qpairs.core.exceptions import UserError
from qpairs.core.files import read_text
from qpairs.core.manifests import parse_json
from qpairs.core.shapes import text
from qpairs.core.tables import check_table_path, write_table

if TYPE_CHECKING:
    from qpairs.models.verdict import Setting
    from qpairs.retrieval.index import Manifest
    from qpairs.retrieval.search import Answer

UNKNOWN = 10  # ids that are not there, which are named

TextColumnOption = Annotated[
    str,
    typer.Option(
        help="Column of the questions, or several to join, such as title,description; without it, the only column, "
        "or question, text, sentence, q."
    ),
]
IdColumnOption = Annotated[str, typer.Option(help="Column of the ids; without it, the row number.")]


def _threshold(default: str) -> Any:
    """The option --threshold of a command; `default` says what is taken without it."""
    about = "Lowest similarity of duplicates; lowest probability if the model takes a second look."
    return typer.Option(min=-1, max=1, help=f"{about}  [default: {default}]", show_default=False)


ThresholdOption = Annotated[float | None, _threshold("where a hit becomes more likely a duplicate than not")]
CorpusThresholdOption = Annotated[float | None, _threshold("chosen for the corpus, with the highest expected F1")]
PrecisionOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Use the lowest threshold above which pairs of the corpus have this precision, with 95 % confidence.",
        show_default=False,
    ),
]


def index(
    source: Annotated[
        Path, typer.Argument(help="Folder of embeddings, from qpairs embed; or without --output, of an index.")
    ],
    output: Annotated[Path | None, typer.Option(help="Folder of the new index.", show_default=False)] = None,
    kind: Annotated[str, typer.Option(help="auto (by size), exact, ivf or hnsw.")] = "auto",
    address: Annotated[
        str,
        typer.Option(
            "--index",
            help="milvus:FILE or milvus:ADDRESS[#COLLECTION] instead of FAISS in the folder; the token of a cluster "
            "is read from MILVUS_TOKEN; searches also need MILVUS_URI.",
        ),
    ] = "",
    add: Annotated[Path | None, typer.Option(help="Add these embeddings to the index.", show_default=False)] = None,
    delete: Annotated[
        Path | None,
        typer.Option(
            help="Delete the questions with the ids in this file, one per line; in a .jsonl file, each is a JSON "
            "string, for ids with line breaks, or with spaces at either end.",
            show_default=False,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Index embeddings for search; add to an index, delete from it, or describe it."""
    if sum(option is not None for option in (output, add, delete)) > 1:
        raise UserError("index: use only one of --output, --add and --delete at a time")
    with quiet(), progress_bar() as on_progress:
        from qpairs.retrieval.embeddings import open_shards
        from qpairs.retrieval.index import add_to_index, build_index, delete_from_index, open_index

        if output:
            made = build_index(
                open_shards(source), output, kind=kind, address=address, overwrite=overwrite, on_progress=on_progress
            )
        elif add:
            made = add_to_index(source, open_shards(add), on_progress)
        elif delete:
            ids = _read_ids(delete)
            known = set(open_index(source).questions.known(ids))
            unknown = [name for name in dict.fromkeys(ids) if name not in known]
            made, deleted = delete_from_index(source, ids)
        else:
            made = open_index(source).manifest
    if delete:
        out.print(f"{counted(deleted, 'question')} deleted")
        if unknown:
            shown = ", ".join(plain(repr(name)) for name in unknown[:UNKNOWN])
            more = f" and {len(unknown) - UNKNOWN:,} more" if len(unknown) > UNKNOWN else ""
            out.print(f"[yellow]{len(unknown):,} ids are not in the index: {shown}{more}[/]", soft_wrap=True)
    _print_index(made, chosen=output is not None and kind == "auto")
    print_conclusion(after_index(made.count, None if made.kind == "exact" else made.recall, output or source))


def _read_ids(file: Path) -> list[str]:
    """The ids in a file, one per line."""
    lines = [line for line in re.split(r"\r\n|\n|\r", read_text(file)) if line.strip()]
    if file.suffix.lower() != ".jsonl":
        return [line.strip() for line in lines]
    return [parse_json(line, text, where=f"{file}, line {number}") for number, line in enumerate(lines, 1)]


def _print_index(made: Manifest, chosen: bool) -> None:
    from qpairs.retrieval.index import NEAREST
    from qpairs.retrieval.index.kinds import KINDS, SMALL

    where = f" in {made.address}" if made.address else ""
    why = f" (by size: exact up to {SMALL:,} questions, ivf above)" if chosen else ""
    out.print(f"{counted(made.count, 'question')}{plain(where)}, {made.dimension:,} numbers each", highlight=False)
    out.print(f"[bold]{made.kind}[/]: {KINDS[made.kind]}{why}", highlight=False, soft_wrap=True)
    if made.kind != "exact":
        out.print(
            f"a search finds {percent(made.recall)} of the nearest {NEAREST}, compared with exact search for "
            f"questions of the index (effort {made.state.get('effort', 0)})",
            highlight=False,
            soft_wrap=True,
        )
    print_outgrown(made, made.count)


def print_outgrown(manifest: Manifest, count: int) -> None:
    """Says if an index should be rebuilt because it has become much larger or smaller."""
    if manifest.outgrown(count):
        out.print(
            f"[yellow]The index was built for {manifest.built:,} questions and now has {count:,}; rebuild it.[/]",
            highlight=False,
        )


def search(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of an index.")],
    questions: Annotated[list[str] | None, typer.Argument(help="Questions to search for.", show_default=False)] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many questions to find.")] = 10,
    model: Annotated[
        Path | None, typer.Option(help="Model folder, if it has moved since the index was built.", show_default=False)
    ] = None,
    threshold: ThresholdOption = None,
    precision: PrecisionOption = None,
    file: Annotated[
        Path | None, typer.Option(help="Search for all questions in this file.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File of the results: .csv, .tsv, .jsonl or .parquet; required with --file.", show_default=False
        ),
    ] = None,
    text_column: TextColumnOption = "",
    skip_bad_rows: SkipOption = False,
    reranker: RerankerOption = True,
    overwrite: ReplaceOption = False,
    raw: RawOption = False,
) -> None:
    """Find the questions of an index that are nearest to a given one, with the verdict on each."""
    if bool(questions) == bool(file) or bool(file) != bool(output):
        raise UserError("search: give a question, or --file with --output")
    if threshold is not None and precision is not None:
        from qpairs.models.verdict import BOTH

        raise UserError(BOTH)
    _check_output(output, overwrite=overwrite)
    with quiet(), progress_bar() as on_progress:
        from qpairs.models.base import load
        from qpairs.models.second_setting import check_corpus_threshold
        from qpairs.models.verdict import choose
        from qpairs.retrieval.index import model_of, open_index
        from qpairs.retrieval.search import require_searchable, setting_for
        from qpairs.retrieval.search import search as run

        opened = open_index(folder)
        used = model or model_of(opened, "--model")
        loaded = load(used, second_look=reranker)
        require_searchable(opened, loaded)
        asked, skipped = _asked(file, text_column, skip_bad_rows) if file else (questions or [], {})
        if not all(question.strip() for question in asked):
            raise UserError("search: the question is empty")
        if threshold is not None:
            check_corpus_threshold(loaded, threshold)
        setting = choose(setting_for(opened, loaded), threshold, precision)
        answers = run(opened, loaded, asked, k, setting=setting, on_progress=on_progress)
    if output:
        print_left_out(skipped)
        _write_answers(output, asked, answers, raw)
    else:
        _print_answers(asked, answers, with_ids=_has_ids(answers, opened.manifest))
    _print_setting(setting, answers)
    _print_model(None if model else used)
    print_outgrown(opened.manifest, len(opened.questions))
    print_conclusion(after_questions(len(asked), _known(answers), folder, used, reranker=reranker))


def _asked(file: Path, text_column: str, skip_bad_rows: bool) -> tuple[list[str], Mapping[str, int]]:
    """The questions in a file, and how many rows were left out, by reason."""
    from qpairs.data.questions import open_questions

    skipped = Counter[str]()
    rows = open_questions(file, text_column=text_column).rows(skipped if skip_bad_rows else None)
    return [text for _, text in rows], skipped


def _check_output(output: Path | None, *, overwrite: bool) -> None:
    if output:
        check_table_path(output)
        check_file(output, overwrite=overwrite)


def _print_model(used: Path | None) -> None:
    """Says which model was loaded; the index names it, and may come from elsewhere."""
    if used:
        out.print(f"[dim]Model: {shown_path(used)}, as the index says.[/]", highlight=False, soft_wrap=True)


def _has_ids(answers: Sequence[Sequence[Answer]], manifest: Manifest) -> bool:
    """Whether the ids of hits came from a column, or differ from the row numbers."""
    rows = max(manifest.built, manifest.count)
    ids = [answer.hit.id for found in answers for answer in found]
    return bool(manifest.named_ids) or not all(one.isdecimal() and 1 <= int(one) <= rows for one in ids)


def _print_answers(asked: Sequence[str], answers: Sequence[Sequence[Answer]], *, with_ids: bool) -> None:
    for question, found in zip(asked, answers, strict=True):
        _print_hits(question, found, with_ids=with_ids)


def _print_hits(question: str, found: Sequence[Answer], *, with_ids: bool) -> None:
    from qpairs.retrieval.search import heading

    out.print(f"\n[bold]{plain(question)}[/]\n{heading(found)}", highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    for column in ("similarity", "probability"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    if with_ids:
        table.add_column("id", overflow="fold")
    table.add_column("question", overflow="fold")
    for rank, answer in enumerate(found, start=1):
        verdict = f"[{'bold green' if answer.duplicate else 'dim'}]{answer.verdict}[/]"
        figures = f"{answer.hit.similarity:.3f}", f"{answer.probability:.2f}"
        named = [plain(answer.hit.id)] if with_ids else []
        table.add_row(str(rank), *figures, verdict, *named, plain(answer.hit.text))
    out.print(table)


def _print_setting(setting: Setting, answers: Sequence[Sequence[Answer]]) -> None:
    """Says what the probabilities mean, and which of the hits shown had a second look, if any."""
    from qpairs.models.second_setting import SecondSetting
    from qpairs.retrieval.second_look import ReadShare, called_from

    out.print(
        f"\n[dim]Probability of asking the same: that {plain(setting.precision_of)}. Called a duplicate: "
        f"{called_from(setting)}.[/]",
        highlight=False,
    )
    if isinstance(setting, SecondSetting):
        hits = [answer for found in answers for answer in found]
        share = ReadShare(setting.read_band(), sum(answer.read for answer in hits), len(hits))
        out.print(f"[dim]{plain(str(share)).capitalize()}.[/]", highlight=False)


def _known(answers: Sequence[Sequence[Answer]]) -> int:
    """Questions with a hit that is called a duplicate."""
    return sum(any(answer.duplicate for answer in found) for found in answers)


def _write_answers(output: Path, asked: Sequence[str], answers: Sequence[Sequence[Answer]], raw: bool) -> None:
    from qpairs.retrieval.search import answers_table

    write_table(output, answers_table(asked, answers), raw=raw)
    known = _known(answers)
    out.print(
        f"{counted(len(asked), 'question')}, {known:,} with a duplicate in the index "
        f"({percent(known / max(1, len(asked)))}), written to {shown_path(output)}",
        soft_wrap=True,
    )
