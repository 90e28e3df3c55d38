"""The cluster files of `qpairs dedupe`, and those written after corrections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpairs.core.exceptions import UserError
from qpairs.core.files import os_reason
from qpairs.core.manifests import read_json
from qpairs.core.shapes import flag, optional, record, text, whole
from qpairs.core.tables import DELIMITED, ENDINGS, unguarded, write_table, write_table_in_parts
from qpairs.data.corpus import Corpus, read_corpus
from qpairs.data.formats import open_file
from qpairs.data.identity import canonical
from qpairs.retrieval.corpus import SUMMARY
from qpairs.retrieval.embeddings import open_shards

if TYPE_CHECKING:
    import pandas

COLUMNS = ("cluster", "row", "question", "representative", "similarity")
EDITED = "edited"  # the folder of mended files
FACTS = record(
    {"questions": text, "rows": whole()},
    {
        "questions_path": optional(text),
        "text_column": text,
        "skip_bad_rows": flag,
        "separator": text,
        "dimension": whole(1),
        "raw": flag,
    },
    others=True,
)  # of dedupe.json, that are needed here


class SourceChanged(UserError):
    """The deduplicated file is gone, or has changed since.

    >>> raise SourceChanged("questions.csv: no such file")
    Traceback (most recent call last):
    qpairs.serving.cluster_files.SourceChanged: questions.csv: no such file
    """


@dataclass(frozen=True)
class Member:
    """A question of a cluster.

    Attributes:
        row: its number in the file, from 1.
        id: its id; '' if no id column was read.
        question: its text.
        similarity: cosine to the representative of its cluster.
        differ: the word of the representative and that of this question, if they differ only in one name, number or
            sign (`differing_words`); else None.
    """

    row: int
    id: str
    question: str
    similarity: float
    differ: tuple[str, str] | None = None


def read_clusters(file: Path, *, raw: bool) -> tuple[dict[int, Member], dict[int, list[int]], dict[int, int]]:
    """Row -> member, representative -> rows of its cluster, and row -> representative.

    Args:
        file: of clusters.
        raw: whether its texts are unchanged, not `guarded`.
    """
    reader = open_file(file)
    text_of = unguarded if file.suffix in DELIMITED and not raw else str
    if missing := [name for name in COLUMNS if name not in reader.columns]:
        raise UserError(f"{file}: no column {missing[0]!r}; name the folder that qpairs dedupe wrote")
    with_ids = "id" in reader.columns
    members, clusters, heads = dict[int, Member](), dict[int, list[int]](), dict[int, int]()
    for number, values in reader.rows([*COLUMNS, *(["id"] if with_ids else [])]):
        try:
            if isinstance(values, str):
                raise ValueError(values)
            head, row = int(values[0]), int(values[1])
            identity = text_of(str(values[5])) if with_ids else ""
            members[row] = Member(row, identity, text_of(str(values[2])), float(values[4]))
        except (ValueError, TypeError) as error:
            raise UserError(f"{file}, {reader.unit} {number}: {error}; run qpairs dedupe again") from None
        heads[row] = head
        clusters.setdefault(head, []).append(row)
    for head, rows in clusters.items():
        rows.sort(key=lambda row, head=head: (row != head, row))  # type: ignore[misc]
    return members, clusters, heads


def write_kept(folder: Path, removed: set[int], questions: Mapping[int, str]) -> Path:
    """Writes the remaining rows of the deduplicated file, in the format of dedupe.

    Args:
        folder: that dedupe wrote.
        removed: numbers of rows.
        questions: the question of each row of a cluster, as it was reviewed.

    Raises:
        SourceChanged: it is gone, or has other rows or questions than before.
        UserError: the file cannot be written.
    """
    summary, source = summary_in(folder), deduplicated_file(folder)
    if source.is_dir():
        suffix = next((ending for ending in ENDINGS if (folder / f"kept{ending}").is_file()), ".csv")
        made = folder / EDITED / f"kept{suffix}"
        write_table_in_parts(made, _embedded_rows(source, summary["rows"], removed, questions), raw=True)
        return made
    try:
        corpus = read_corpus(
            source,
            text_column=summary.get("text_column", ""),
            separator=summary.get("separator", ""),
            skip_bad_rows=summary.get("skip_bad_rows", False),
        )
    except UserError as error:
        raise SourceChanged(str(error)) from None
    _require_rows(source, len(corpus.rows), summary["rows"])
    _require_questions(source, corpus.rows.tolist(), corpus.texts, questions)
    asked = next((path for suffix in ENDINGS if (path := folder / f"asked{suffix}").is_file()), None)
    if asked and summary.get("against"):
        removed = removed | _rows_of_asked(asked, corpus)
    left = [place for place, number in enumerate(corpus.rows.tolist()) if number not in removed]
    suffix = source.suffix.lower()
    made = folder / EDITED / f"kept{suffix if suffix in ENDINGS else '.csv'}"
    write_table(made, corpus.table.iloc[left], raw=True, dialect=corpus.dialect)
    return made


def _rows_of_asked(file: Path, corpus: Corpus) -> set[int]:
    """All rows of the questions that the other corpus has; the file has only the first row of each."""
    first = {int(values[0]) for _, values in open_file(file).rows(["row"]) if not isinstance(values, str)}
    questions = list(zip(corpus.rows.tolist(), map(canonical, corpus.texts), strict=True))
    asked = {question for row, question in questions if row in first}
    return {row for row, question in questions if question in asked}


def _embedded_rows(
    source: Path, count: int, removed: set[int], questions: Mapping[int, str]
) -> Iterator[pandas.DataFrame]:
    """Row, id and question of the remaining embedded questions, in parts.

    Raises:
        SourceChanged: the embeddings are gone, have another number, or are of other questions.
    """
    import pandas

    try:
        embeddings, row = open_shards(source), 0
        _require_rows(source, embeddings.count, count)
        for ids, texts in zip(embeddings.column("id"), embeddings.column("text"), strict=True):
            part = pandas.DataFrame({"row": range(row + 1, row + len(ids) + 1), "id": ids, "question": texts})
            _require_questions(source, part["row"], texts, questions)
            row += len(ids)
            left = part[~part["row"].isin(removed)]
            if len(left):
                yield left
    except UserError as error:
        raise SourceChanged(str(error)) from None


def _require_rows(source: Path, found: int, count: int) -> None:
    if found != count:
        raise SourceChanged(f"{source}: has {found:,} rows, not the {count:,} that were reviewed; dedupe it again")


def deduplicated_file(folder: Path) -> Path:
    """The source that was deduplicated into a folder: at its old path, or else at the path that was given.

    Raises:
        UserError: the folder is not from dedupe.
    """
    summary = summary_in(folder)
    named = Path(summary["questions"])
    try:
        there = Path(summary.get("questions_path") or named)
        return there if there.exists() else named
    except (OSError, ValueError) as error:  # no path at all
        reason = os_reason(error) if isinstance(error, OSError) else error
        raise UserError(f"{folder / SUMMARY}: damaged ({reason}); run qpairs dedupe again") from None


def summary_in(folder: Path) -> dict[str, Any]:
    """The content of dedupe.json."""
    missing = f"{folder / SUMMARY}: not what qpairs dedupe wrote"
    summary: dict[str, Any] = read_json(folder / SUMMARY, FACTS, missing=missing, mend="run qpairs dedupe again")
    return summary


def _require_questions(source: Path, rows: Iterable[int], texts: Iterable[str], questions: Mapping[int, str]) -> None:
    for row, question in zip(rows, texts, strict=True):
        if questions.get(row, question) != question:
            raise SourceChanged(f"{source}: has another question in row {row:,} than was reviewed; dedupe it again")
