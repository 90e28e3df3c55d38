"""`qpairs index`, `search` and `dedupe`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpairs.commands.terminal import OverwriteOption, SkipOption, out, percent, plain, progress, quiet
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import write_text
from qpairs.core.tables import WRITERS, write_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import Progress, TaskID

    from qpairs.models.base import Model
    from qpairs.models.verdict import Setting
    from qpairs.retrieval.dedupe import Answer, Deduplicated
    from qpairs.retrieval.index import Manifest

EXAMPLES = 5
SUMMARY = "dedupe.json"

TextColumnOption = Annotated[
    str, typer.Option(help="Column of the questions; without it the only one, or question, text, sentence, q.")
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        min=-1,
        max=1,
        help="Similarity from which on it is a duplicate.  [default: the checkpoint's]",
        show_default=False,
    ),
]
PrecisionOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Take the lowest threshold that reached this precision on validation.",
        show_default=False,
    ),
]


def index(
    source: Annotated[Path, typer.Argument(help="Embeddings, from qpairs embed; without --output, an index.")],
    output: Annotated[Path | None, typer.Option(help="Folder of the new index.", show_default=False)] = None,
    kind: Annotated[str, typer.Option(help="auto (by size), exact, ivf or hnsw.")] = "auto",
    address: Annotated[
        str,
        typer.Option(
            "--index",
            help="milvus:FILE or milvus:ADDRESS[#COLLECTION] instead of FAISS in the folder; the token of a cluster "
            "is read from MILVUS_TOKEN.",
        ),
    ] = "",
    add: Annotated[Path | None, typer.Option(help="Add these embeddings to the index.", show_default=False)] = None,
    delete: Annotated[
        Path | None, typer.Option(help="Delete the ids in this file, one a line.", show_default=False)
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Index embeddings for search; add to an index, delete from it, or show what it is."""
    if sum(option is not None for option in (output, add, delete)) > 1:
        raise UserError("index: --output, --add and --delete don't go together; one at a time")
    with quiet(), progress() as bar:
        from qpairs.retrieval.embeddings import open_shards
        from qpairs.retrieval.index import add_to_index, build_index, delete_from_index, open_index

        task = bar.add_task("indexing", total=None, state="")

        def on_progress(done: int) -> None:
            bar.update(task, completed=done, state=f"{done:,} questions")

        if output:
            embeddings = open_shards(source)
            bar.update(task, total=embeddings.count)
            made = build_index(
                embeddings, output, kind=kind, address=address, overwrite=overwrite, on_progress=on_progress
            )
        elif add:
            embeddings = open_shards(add)
            bar.update(task, total=embeddings.count)
            made = add_to_index(source, embeddings, on_progress)
        elif delete:
            made, deleted = delete_from_index(source, _lines(delete))
        else:
            made = open_index(source).manifest
    if delete:
        out.print(f"{deleted:,} questions deleted")
    _print_index(made, chosen=output is not None and kind == "auto")
    out.print(f'qpairs search {output or source} "How do I ...?"', highlight=False, soft_wrap=True)


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not valid UTF-8; save the file as UTF-8") from None


def _print_index(made: Manifest, chosen: bool) -> None:
    from qpairs.retrieval.index import KINDS, NEAREST, SMALL

    where = f" in {made.address}" if made.address else ""
    why = f" (by size: exact up to {SMALL:,} questions, ivf above)" if chosen else ""
    out.print(f"{made.count:,} questions{where}, {made.dimension} numbers each", highlight=False)
    out.print(f"[bold]{made.kind}[/]: {KINDS[made.kind].about}{why}", highlight=False, soft_wrap=True)
    if made.kind != "exact":
        out.print(
            f"a search finds {percent(made.recall)} of the nearest {NEAREST}, measured against all on questions of the "
            f"index (effort {made.effort})",
            highlight=False,
            soft_wrap=True,
        )
    if made.count > 2 * made.built or made.count < made.built / 2:
        out.print(
            f"[yellow]It had {made.built:,} questions when it was built for that many; build it anew.[/]",
            highlight=False,
        )


def search(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of an index.")],
    questions: Annotated[list[str] | None, typer.Argument(help="What to look for.", show_default=False)] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many to find.")] = 10,
    model: Annotated[
        Path | None, typer.Option(help="The model, where it is not where it was.", show_default=False)
    ] = None,
    threshold: ThresholdOption = None,
    precision: PrecisionOption = None,
    file: Annotated[Path | None, typer.Option(help="Look for all questions of a file.", show_default=False)] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Where the hits go: .csv, .tsv, .jsonl or .parquet; needed with --file.", show_default=False),
    ] = None,
    text_column: TextColumnOption = "",
) -> None:
    """Find the questions of an index that are nearest to one, with the verdict on each."""
    if bool(questions) == bool(file) or bool(file) != bool(output):
        raise UserError("search: give a question, or --file with --output")
    if output and output.suffix not in WRITERS:
        raise UserError(f"{output}: unknown kind of file; {nearest(output.suffix, WRITERS)}")
    with quiet():
        from qpairs.data.questions import open_questions
        from qpairs.models.base import load
        from qpairs.retrieval.dedupe import search as run
        from qpairs.retrieval.index import open_index

        opened = open_index(folder)
        if not model and not Path(opened.manifest.model).is_dir():
            raise UserError(f"{folder}: its model, {opened.manifest.model}, is not there; name it with --model")
        loaded = load(model or opened.manifest.model)
        limit = _setting(loaded, threshold, precision).threshold
        asked = [text for _, text in open_questions(file, text_column=text_column).rows()] if file else questions or []
        if not all(question.strip() for question in asked):
            raise UserError("search: the question is empty")
        answers = run(opened, loaded, asked, k, limit)
    if output:
        _write_answers(output, asked, answers)
    else:
        for question, found in zip(asked, answers, strict=True):
            _print_answers(question, found, limit)


def _setting(model: Model, threshold: float | None, precision: float | None) -> Setting:
    if threshold is not None and precision is not None:
        raise UserError("give --threshold or --precision, not both")
    model.verdict.require_cosine(model.path)
    setting = model.verdict.pair
    if precision is not None:
        return setting.at_precision(precision)
    return setting if threshold is None else setting.at(threshold)


def _print_answers(question: str, found: Sequence[Answer], threshold: float) -> None:
    table = Table(title=f"\n{plain(question)}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", justify="right")
    for column in ("similarity", "probability"):
        table.add_column(column, justify="right")
    table.add_column(f"at {threshold:.3f}")
    table.add_column("question", overflow="fold")
    for rank, answer in enumerate(found, start=1):
        verdict = "[bold green]duplicate[/]" if answer.duplicate else "[dim]another[/]"
        figures = f"{answer.hit.similarity:.3f}", f"{answer.probability:.2f}"
        table.add_row(str(rank), *figures, verdict, plain(answer.hit.text))
    out.print(table)


def _write_answers(output: Path, asked: Sequence[str], answers: Sequence[Sequence[Answer]]) -> None:
    import pandas

    rows = [
        (
            question,
            rank,
            answer.hit.id,
            answer.hit.text,
            answer.hit.similarity,
            answer.probability,
            int(answer.duplicate),
        )
        for question, found in zip(asked, answers, strict=True)
        for rank, answer in enumerate(found, start=1)
    ]
    columns = ["question", "rank", "id", "text", "similarity", "probability", "duplicate"]
    write_table(output, pandas.DataFrame(rows, columns=columns))
    known = sum(any(answer.duplicate for answer in found) for found in answers)
    out.print(
        f"{len(asked):,} questions, {known:,} with a duplicate in the index ({percent(known / max(1, len(asked)))}), "
        f"written to {output}"
    )


def dedupe(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint or an export.")],
    questions: Annotated[Path, typer.Argument(help="Questions: .csv .tsv .jsonl .parquet, or .txt with one a line.")],
    output: Annotated[
        Path, typer.Option(help="Folder for the pairs, the clusters, and the corpus without its duplicates.")
    ],
    text_column: TextColumnOption = "",
    embeddings: Annotated[
        Path | None, typer.Option(help="Vectors from qpairs embed; only what they lack is encoded.", show_default=False)
    ] = None,
    threshold: ThresholdOption = None,
    precision: PrecisionOption = None,
    against: Annotated[
        Path | None, typer.Option(help="Leave out, too, what this other file asks already.", show_default=False)
    ] = None,
    linkage: Annotated[
        str,
        typer.Option(help="star: all of a cluster are like the one that is kept; single: likes of likes are, too."),
    ] = "star",
    recall: Annotated[
        float, typer.Option(min=0.5, max=1, help="Share of the pairs to find in a large corpus; 1 compares all.")
    ] = 0.9999,
    kind: Annotated[str, typer.Option("--format", help="Of pairs and clusters: csv, tsv, jsonl, parquet.")] = "csv",
    skip_bad_rows: SkipOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Find the questions of a corpus that ask the same, and keep one of each."""
    if f".{kind}" not in WRITERS:
        raise UserError(f"format {kind!r}: {nearest(kind, [suffix[1:] for suffix in WRITERS])}")
    if linkage not in ("star", "single"):
        raise UserError(f"linkage {linkage!r}: {nearest(linkage, ['star', 'single'])}")
    with quiet(), progress() as bar:
        from qpairs.core.files import exclusive_lock
        from qpairs.models.base import load
        from qpairs.retrieval.dedupe import dedupe as run
        from qpairs.retrieval.dedupe import require_one_tower, stored
        from qpairs.retrieval.embeddings import open_shards

        task = bar.add_task("reading", total=None, state="")
        corpus = _read(questions, text_column, skip_bad_rows)
        other = _read(against, text_column, skip_bad_rows) if against else None
        model = load(checkpoint)
        require_one_tower(model)
        limit = _setting(model, threshold, precision).threshold
        with exclusive_lock(output):
            if not overwrite and any(entry.name != ".lock" for entry in output.iterdir()):
                raise UserError(f"{output}: the folder is in use; name another with --output, or pass --overwrite")
            encode = _encoder(model, bar, task)
            found = run(
                corpus.texts,
                stored(open_shards(embeddings), model, encode) if embeddings else encode,
                limit,
                against=other.texts if other else (),
                linkage="star" if linkage == "star" else "single",
                recall=recall,
                on_progress=lambda done: bar.update(task, description="comparing", total=1, completed=done, state=""),
            )
            bar.update(task, description="writing", total=None)
            summary = _summary(found, limit, model, corpus, other)
            _write(output, f".{kind}", found, model, corpus, other)
            write_text(output / SUMMARY, json.dumps(summary, indent=1) + "\n")
    for skipped in (corpus.skipped, other.skipped if other else {}):
        if skipped:
            out.print("rows left out: " + ", ".join(f"{n:,} {reason}" for reason, n in skipped.items()))
    _print_summary(summary, found, corpus)
    out.print(f"Saved in [bold]{output}[/].", highlight=False)


@dataclass(frozen=True)
class Corpus:
    """A file of questions, without the rows that cannot be used.

    Attributes:
        path: the file.
        table: a data frame with all its columns.
        texts: (n,) the questions, runs of white space made one space.
        rows: (n,) their numbers in the file, from 1.
        skipped: reason -> rows that were left out.
    """

    path: Path
    table: Any
    texts: Sequence[str]
    rows: Any
    skipped: Mapping[str, int]


def _read(path: Path, text_column: str, skip_bad_rows: bool) -> Corpus:
    import numpy as np
    import pandas

    from qpairs.data.pairs import text_fault
    from qpairs.data.questions import open_questions
    from qpairs.data.tables import read_table

    questions = open_questions(path, text_column=text_column)
    malformed = 0
    if path.suffix.lower() == ".txt":
        table = pandas.DataFrame({"text": [text for _, text in questions.rows()]})
    else:
        data = read_table(path, skip_bad_rows=skip_bad_rows)
        table, malformed = data.frame, data.malformed
    column = questions.text_column
    values = [None if value is pandas.NA else value for value in table[column]]
    faults = {row: fault for row, value in enumerate(values) if (fault := text_fault(value, column))}
    if faults and not skip_bad_rows:
        row, (_, what) = next(iter(faults.items()))
        raise UserError(f"{path}, row {row + 1}: {what}; mend it, or pass --skip-bad-rows")
    usable = np.array([row for row in range(len(values)) if row not in faults], dtype=np.int64)
    if not len(usable):
        raise UserError(f"{path}: there are no questions in it")
    skipped = Counter(kind for kind, _ in faults.values()) + Counter(malformed=malformed)
    return Corpus(path, table.iloc[usable], [" ".join(values[row].split()) for row in usable], usable + 1, skipped)


def _encoder(model: Model, bar: Progress, task: TaskID) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        from qpairs.retrieval.dedupe import ENCODED

        vectors = np.empty((len(texts), model.dimension), dtype=np.float32)
        for start in range(0, len(texts), ENCODED):
            state = f"{start:,} of {len(texts):,} texts"
            bar.update(task, description="encoding", total=len(texts), completed=start, state=state)
            vectors[start : start + ENCODED] = model.encode(texts[start : start + ENCODED])
        return vectors

    return encode


def _summary(
    found: Deduplicated, threshold: float, model: Model, corpus: Corpus, other: Corpus | None
) -> dict[str, Any]:
    sizes = Counter(found.representative[found.question].tolist())
    clusters = [n for n in sizes.values() if n > 1]
    return {
        "questions": str(corpus.path),
        "against": str(other.path) if other else None,
        "model": str(model.path),
        "fingerprint": model.fingerprint,
        "threshold": threshold,
        "rows": len(corpus.texts),
        "distinct": len(found.first),
        "asked": len(found.asked),
        "pairs": len(found.pairs),
        "clusters": len(clusters),
        "largest": max(clusters, default=1),
        "kept": len(found.kept),
        "recall": found.pairs.recall,
        "recall_measured_on": found.pairs.sampled,
    }


def _write(folder: Path, suffix: str, found: Deduplicated, model: Model, corpus: Corpus, other: Corpus | None) -> None:
    import numpy as np
    import pandas

    def columns(name: str, rows: Any, source: Corpus) -> dict[str, Any]:
        return {f"row{name}": source.rows[rows], f"question{name}": [source.texts[row] for row in rows]}

    def verdict(similarity: Any) -> dict[str, Any]:
        return {"similarity": similarity, "probability": model.verdict.pair.probability(similarity)}

    left, right = found.first[found.pairs.left], found.first[found.pairs.right]
    pairs = columns("1", left, corpus) | columns("2", right, corpus) | verdict(found.pairs.similarity)
    write_table(folder / f"pairs{suffix}", pandas.DataFrame(pairs))
    stands = found.representative[found.question]  # (n,) the question that stands for each row
    members = np.flatnonzero(np.bincount(stands, minlength=len(found.first))[stands] > 1)
    members = members[np.lexsort((members, members != found.first[stands[members]], found.first[stands[members]]))]
    head = found.first[stands[members]]
    clusters = {
        "cluster": corpus.rows[head],
        **columns("", members, corpus),
        "representative": (members == head).astype(int),
        "similarity": found.similarity[found.question[members]],
    }
    write_table(folder / f"clusters{suffix}", pandas.DataFrame(clusters))
    if other:
        asked = columns("", found.first[found.asked.left], corpus) | columns("_there", found.asked.right, other)
        write_table(folder / f"asked{suffix}", pandas.DataFrame(asked | verdict(found.asked.similarity)))
    own = corpus.path.suffix.lower()
    write_table(folder / f"kept{own if own in WRITERS else '.csv'}", corpus.table.iloc[found.kept])


def _print_summary(summary: Mapping[str, Any], found: Deduplicated, corpus: Corpus) -> None:
    import numpy as np

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("[dim]questions[/]", f"{summary['rows']:,}")
    table.add_row("[dim]distinct, but for case and white space[/]", f"{summary['distinct']:,}")
    if summary["against"]:
        table.add_row(f"[dim]asked in {plain(summary['against'])} already[/]", f"{summary['asked']:,}")
    table.add_row(f"[dim]pairs at or above {summary['threshold']:.3f}[/]", f"{summary['pairs']:,}")
    table.add_row(f"[dim]clusters, of at most {summary['largest']:,}[/]", f"{summary['clusters']:,}")
    table.add_row("[dim]kept[/]", f"[bold]{summary['kept']:,}[/] ({percent(summary['kept'] / summary['rows'])})")
    out.print(table)
    if summary["recall_measured_on"]:
        out.print(
            f"Not all were compared with all: {percent(summary['recall'])} of the pairs are found, measured on "
            f"{summary['recall_measured_on']:,} of a sample.",
            highlight=False,
        )
    least = np.argsort(found.pairs.similarity, kind="stable")[:EXAMPLES]
    if len(least):
        out.print("\n[bold]nearest to the threshold[/]")
    for pair in least:
        ends = (found.first[side[pair]] for side in (found.pairs.left, found.pairs.right))
        one, another = (plain(corpus.texts[row]) for row in ends)
        out.print(
            f"  {found.pairs.similarity[pair]:.3f}  {one}\n  [dim]       {another}[/]", highlight=False, soft_wrap=True
        )
