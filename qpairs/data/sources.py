"""Pairs from all sources: the bundled ones, files, data set folders, the Hugging Face Hub, rows in memory."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.data.columns import ColumnChoice, column_names, find_columns
from qpairs.data.formats import FORMATS, PACKED, PlainText, Reader, ending_of, open_file, refuse_row
from qpairs.data.hub import dataset_name, open_dataset
from qpairs.data.label_values import LabelValues, label_values
from qpairs.data.pairs import UNLABELLED, Pairs, join, pairs_from_texts, text_fault
from qpairs.data.records import IN_MEMORY, PAIR, name_of, open_rows
from qpairs.data.tables import Table, table_of

Floats: TypeAlias = NDArray[np.float64]
PairSource: TypeAlias = Pairs | str | Path | Iterable[Any]  # pairs, where they are, or rows: see `load_pairs`

log = logging.getLogger(__name__)

NAMED_SOURCES = {"quora": "sentence-transformers/quora-duplicates:pair-class", "qqp": "nyu-mll/glue:qqp"}


def load_pairs(
    source: PairSource,
    *,
    columns: str | Sequence[str] = (),
    skip_bad_rows: bool = False,
    labelled: bool = True,
    labels: str | Sequence[str] | Mapping[Any, int] = (),
    label_cut: float | None = None,
    label_range: str | Sequence[float] = (),
    negative: str = "",
    positives: bool = False,
) -> Pairs:
    r"""Loads question pairs.

    Args:
        source: `sample`, `quora`, `qqp`, a Hub id, a data set folder (both with an optional `:config` and `[split]`), a
            .csv, .tsv, .jsonl, .json or .parquet file, also compressed (.gz, .bz2, .xz, .zst, .zip); rows in memory: a
            data frame of pandas or polars, a `datasets.Dataset`, a mapping from columns to lists, or a list or iterator
            of dicts or of tuples (question1, question2, label), without the label if there is none; pairs, which are
            returned unchanged; or a list of several of these, which are joined.
        columns: names of the two text columns and, if there are labels, of the label column, as a list or separated by
            commas; without it, the usual names are recognised.
        skip_bad_rows: leave out rows that cannot be used, and count them in `skipped`.
        labelled: whether labels are needed; without, they are -1.
        labels: what the values of the label column mean, if they are not 0 and 1: `yes=1,no=0`, or a mapping. Common
            ones, such as yes and no, are understood without it.
        label_cut: lowest score of a duplicate, if the label column holds graded scores; the scores themselves are kept,
            as `Pairs.grades` from 0 to 1.
        label_range: the lowest and the highest possible score, which become the grades 0 and 1: `0,5`. Without it, the
            lowest and the highest score of all the sources.
        negative: column of a negative of the first question, in rows whose two questions are duplicates (triplets);
            such columns are found by the names anchor or query, positive, negative. Without a negative, a label column
            next to anchor and positive is read.
        positives: every row is a pair of duplicates, and no label column is read.

    Raises:
        UserError: what cannot be read, with the row and how to fix it.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "pairs.csv")
    >>> _ = file.write_text("q1,q2,label\nHow do I pay?,How can I pay?,1\nHow do I pay?,,0\n")
    >>> pairs = load_pairs(file, skip_bad_rows=True)
    >>> pairs.questions, pairs.labels.tolist(), pairs.skipped
    (('How do I pay?', 'How can I pay?'), [1], {'empty question': 1})
    >>> load_pairs([("How do I pay?", "How can I pay?", 1), ("How do I pay?", "Who are you?", 0)]).labels.tolist()
    [1, 0]
    >>> graded = [("How do I pay?", "How can I pay?", 4.5), ("How?", "Why?", 0.0)]
    >>> pairs = load_pairs(graded, label_cut=4, label_range="0,5")
    >>> pairs.labels.tolist(), pairs.grades.tolist()
    ([1, 0], [0.8999999761581421, 0.0])
    """
    values = label_values(labels, label_cut, label_range)
    wanted = ColumnChoice(column_names(columns), labelled, negative, positives, scores=label_cut is not None)
    parts: Sequence[Any] = source if is_several(source) else [source]
    found = [
        (part, None) if isinstance(part, Pairs) else _pairs_in(*_reader_of(part), wanted, values, skip_bad_rows)
        for part in parts
    ]
    graded = _with_scores(found, values)
    return join(graded) if is_several(source) else graded[0]


def _with_scores(parts: Sequence[tuple[Pairs, Floats | None]], values: LabelValues) -> list[Pairs]:
    """Pairs with their scores as grades, by one range for all of them."""
    scores = [scores for _, scores in parts if scores is not None]
    grades = values.grades(np.concatenate(scores)) if scores else None
    if grades is None:
        return [pairs for pairs, _ in parts]
    own = iter(np.split(grades, np.cumsum([len(part) for part in scores])[:-1]))
    return [pairs if scores is None else replace(pairs, grades=next(own)) for pairs, scores in parts]


def is_several(source: Any, read: type[Any] = Pairs) -> TypeGuard[Sequence[Any]]:
    """Whether it is a list of sources: names, files, data frames, data sets or data already read; and not of rows.

    Args:
        source: the source.
        read: the type of data already read.

    >>> is_several(["mine.csv", "sample"]), is_several([("How?", "Why?", 0)]), is_several("sample")
    (True, False, False)
    """
    return (
        isinstance(source, list | tuple)
        and bool(source)
        and all(isinstance(part, str | Path | read) or hasattr(part, "columns") for part in source)
    )


@dataclass(frozen=True)
class PairTable:
    """Pairs without labels, and all columns of their source.

    Attributes:
        pairs: of the rows that have two questions; the others are counted in `skipped`.
        table: (n_rows) all columns, row for row.
        usable: (n_rows,) which rows the pairs are, in their order.
    """

    pairs: Pairs
    table: Table
    usable: NDArray[np.bool_]


def load_pair_table(source: PairSource, *, columns: Sequence[str] = (), skip_bad_rows: bool = False) -> PairTable:
    """Pairs to predict for; a row without two questions stays in the table, but is not a pair.

    Args:
        source: one source, as in `load_pairs`.
        columns: names of the two text columns; without it, the usual names are recognised.
        skip_bad_rows: leave malformed rows out of the table; without it, the first one is an error.

    Raises:
        UserError: what cannot be read, with the row and how to fix it; or no row has two questions.

    >>> found = load_pair_table([("How do I pay?", "How can I pay?"), ("Who?", "")])
    >>> len(found.pairs), found.pairs.skipped, found.usable.tolist()
    (1, {'empty question': 1}, [True, False])
    """
    reader, where = _reader_of(source)
    table = table_of(reader, where, skip_bad_rows=skip_bad_rows)
    names = find_columns(reader.columns, ColumnChoice(tuple(columns), labelled=False), where=where)
    pair, skipped = (names.first, names.second), Counter[str]()
    rows = list(zip(*(table.cells(name) for name in pair), strict=True))
    faults = [next(filter(None, map(text_fault, row, pair)), None) for row in rows]
    skipped.update(fault[0] for fault in faults if fault)
    kept = [row for row, fault in zip(rows, faults, strict=True) if not fault]
    if not kept:
        raise UserError(f"{where}: no row has two questions in the columns {pair[0]!r} and {pair[1]!r}")
    first, second = zip(*kept, strict=True)
    pairs = pairs_from_texts(first, second, [UNLABELLED] * len(kept), skipped)
    return PairTable(pairs, table, np.array([not fault for fault in faults]))


def _reader_of(source: Any) -> tuple[Reader, str]:
    """The reader of a source of pairs, and what messages call it."""
    if isinstance(source, str | Path):
        return open_source(source), str(source)
    return open_rows(source, PAIR), name_of(source)


def open_source(source: str | Path) -> Reader:
    """The reader of a source of pairs.

    Raises:
        UserError: the source cannot be found or fetched.
    """
    name = NAMED_SOURCES.get(str(source), str(source))
    if name.startswith(IN_MEMORY):
        raise UserError(f"{name} were given in Python and are not in a file; give them again")
    path = sample_path() if name == "sample" else Path(name)
    suffixes = [suffix for suffix, reader in FORMATS.items() if reader is not PlainText]  # a text file has no pairs
    is_folder = os.path.isdir(path)
    if is_folder and (only := _only_file(path)):
        return open_file(only)
    if not is_folder and ending_of(path) in suffixes:
        return open_file(path)
    dataset = None if os.path.isfile(path) else dataset_name(name)
    if dataset is None:
        raise UserError(
            f"{source}: {'unknown kind of file' if os.path.exists(name) else 'no such file or folder, and no Hub id'}; "
            f"give OWNER/NAME[:CONFIG], a folder, a file ending in {' '.join(suffixes)}, or sample, "
            f"{', '.join(NAMED_SOURCES)}"
            + ("; in Python, pairs are rows: [(question1, question2), ...]" if " " in name else "")
        )
    try:
        return open_dataset(dataset, str(source))
    except UserError as error:
        if is_folder and not any(ending_of(file) in suffixes for file in path.rglob("*")):
            raise UserError(f"{error}; no file in this folder ends in {' '.join(suffixes)}") from None
        raise


def _only_file(folder: Path) -> Path | None:
    """The file of a folder that holds only one data file; None if `datasets` reads the folder."""
    inside = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return inside[0] if len(inside) == 1 and inside[0].is_file() and ending_of(inside[0]) in PACKED else None


def sample_path() -> Path:
    """The file of the bundled pairs: inside the package in an installed wheel, next to it in a checkout."""
    here = Path(__file__).parent
    installed = here / "pairs.csv"
    return installed if installed.exists() else here.parent.parent / "data" / "pairs.csv"


def _pairs_in(
    reader: Reader, where: str, wanted: ColumnChoice, values: LabelValues, skip: bool
) -> tuple[Pairs, Floats | None]:
    """The pairs that a reader finds, and the graded score of each, (n_pairs,), if there are scores."""
    _need_rows(reader, where, skip)
    names = find_columns(reader.columns, wanted, where=where)
    graded = bool(names.label) and values.cut is not None and wanted.labelled
    text_columns = [name for name in (names.first, names.second, names.negative) if name]
    first, second, labels, skipped = list[str](), list[str](), list[int](), Counter[str]()
    scores = list[float]()
    if wanted.with_label and not names.label and (values.named or values.cut is not None):
        option = "labels (--labels)" if values.cut is None else "label_cut (--label-cut)"
        log.warning("%s: no label column, so all rows are read as duplicates, without %s", where, option)
    if names.label:
        column = (row[0] for _, row in reader.rows([names.label]) if not isinstance(row, str))
        values = values.completed(column, f"{where}, column {names.label!r}")
    for number, row in reader.rows([*text_columns, *filter(None, [names.label])]):
        if isinstance(row, str):
            refuse_row(where, reader.unit, number, row, skip=skip)
            skipped["malformed"] += 1
            continue
        texts, value = row[: len(text_columns)], row[-1]
        label = values.read(value) if names.label else 1
        fault = next(filter(None, map(text_fault, texts, text_columns)), None)
        if label is None and not fault:
            fault = "label", values.fault(value, names.label)
        if fault or label is None:
            refuse_row(where, reader.unit, number, fault[1] if fault else "", skip=skip)
            skipped[fault[0] if fault else "label"] += 1
            continue
        first += texts[:1] * (len(texts) - 1)
        second += texts[1:]
        labels += [label, 0][: len(texts) - 1]
        if graded:
            scores.append(values.score(value) or 0.0)
    if not labels:
        raise UserError(f"{where}: no usable pairs; left out: {dict(skipped)}")
    known = labels if wanted.labelled else [UNLABELLED] * len(labels)
    return pairs_from_texts(first, second, known, skipped), np.array(scores) if graded else None


def _need_rows(reader: Reader, where: str, skip: bool) -> None:
    """Raises UserError if a table has no rows, before columns are looked for."""
    for number, row in reader.rows(list(reader.columns)[:1]):
        if isinstance(row, str):
            refuse_row(where, reader.unit, number, row, skip=skip)
        elif reader.columns:
            return
    raise UserError(f"{where}: there are no rows in it")
