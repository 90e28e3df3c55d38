"""From a source of pairs to a question table and a pair table.

A source is `sample` (the bundled pairs), `quora`, `qqp`, a Hub id, a local dataset folder, or a CSV, TSV, JSONL or
Parquet file. Reading is left to Hugging Face `datasets`; here it is decided which columns are meant, what a label is,
and which rows cannot be used.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import re
import reprlib
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError

if TYPE_CHECKING:
    import datasets

NAMED_SOURCES = {"quora": "sentence-transformers/quora-duplicates:pair-class", "qqp": "nyu-mll/glue:qqp"}
TEXT_COLUMNS = (
    ("question1", "question2"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("q1", "q2"),
    ("sentence_a", "sentence_b"),
)
LABEL_COLUMNS = ("is_duplicate", "label", "labels", "duplicate")
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
LONGEST_QUESTION = 20_000  # characters
SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}
UNLABELLED = -1
OPEN_QUOTE = "a quote is opened and never closed"


@dataclass(frozen=True)
class Pairs:
    """A question table and a pair table over it.

    Attributes:
        questions: (n_questions,) distinct texts, runs of white space made one space.
        left: (n_pairs,) index of each pair's first question.
        right: (n_pairs,) index of each pair's second question.
        labels: (n_pairs,) 1 duplicate, 0 not, -1 where the source has no labels.
        skipped: reason -> number of rows that were left out.
        taught: (n_pairs,) what a teacher thinks, the probability of being duplicates; None: nobody was asked.
    """

    questions: tuple[str, ...]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    labels: NDArray[np.int8]
    skipped: Mapping[str, int] = field(default_factory=dict)
    taught: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.labels)

    @property
    def duplicate_ratio(self) -> float:
        """Share of the pairs that are labelled duplicates."""
        return float(np.mean(self.labels == 1)) if len(self) else 0.0

    def texts(self, pair: int) -> tuple[str, str]:
        """The two questions of a pair."""
        return self.questions[self.left[pair]], self.questions[self.right[pair]]

    def subset(self, rows: NDArray[Any]) -> Pairs:
        """The pairs at `rows` (indices or a mask), over the questions that they name."""
        named, ends = np.unique(np.concatenate([self.left[rows], self.right[rows]]), return_inverse=True)
        left, right = np.split(ends.astype(np.int64), 2)
        taught = self.taught if self.taught is None else self.taught[rows]
        return Pairs(tuple(self.questions[i] for i in named), left, right, self.labels[rows], taught=taught)


def pairs_from_texts(
    first: Sequence[str], second: Sequence[str], labels: Any, skipped: Mapping[str, int] | None = None
) -> Pairs:
    """Pairs from two columns of texts; identical questions become one row of the question table.

    Args:
        first: (n_pairs,) first questions.
        second: (n_pairs,) second questions.
        labels: (n_pairs,) 1 duplicate, 0 not, -1 unknown.
        skipped: reason -> rows left out on the way here.

    Raises:
        UserError: the columns differ in length, or a label is none of the three.
    """
    if not len(first) == len(second) == len(labels):
        raise UserError(f"{len(first)} first questions, {len(second)} second ones and {len(labels)} labels: not pairs")
    if not np.isin(labels, (0, 1, UNLABELLED)).all():
        raise UserError("labels: only 0, 1 and -1 (unknown) are possible")
    index: dict[str, int] = {}
    ends = [
        np.fromiter((index.setdefault(" ".join(t.split()), len(index)) for t in column), np.int64, len(column))
        for column in (first, second)
    ]
    return Pairs(tuple(index), ends[0], ends[1], np.asarray(labels, dtype=np.int8), dict(skipped or {}))


def join(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of several sources over one question table."""
    skipped: Counter[str] = Counter()
    for part in parts:
        skipped.update(part.skipped)
    return pairs_from_texts(
        [part.questions[i] for part in parts for i in part.left],
        [part.questions[i] for part in parts for i in part.right],
        np.concatenate([part.labels for part in parts]) if parts else [],
        skipped,
    )


def need_both_labels(pairs: Pairs, where: str) -> None:
    """Raises UserError where all pairs have one label."""
    if len(pairs) and len(set(pairs.labels.tolist())) < 2:
        kind = "duplicates (1)" if pairs.labels[0] == 1 else "non-duplicates (0)"
        raise UserError(f"{where}: all {len(pairs)} pairs are {kind}; pairs of both labels are needed")


def load_pairs(
    source: str | Path | Sequence[str | Path],
    *,
    columns: Sequence[str] = (),
    skip_bad_rows: bool = False,
    labelled: bool = True,
) -> Pairs:
    """Loads question pairs.

    Args:
        source: `sample`, `quora`, `qqp`, a Hub id, a dataset folder (both with an optional `:config` and `[split]`), a
            .csv, .tsv, .jsonl or .parquet file; or several of these, which are joined.
        columns: names of the two text columns and, when there are labels, of the label column; without it the names
            of the usual releases are recognised.
        skip_bad_rows: leave out rows that cannot be used, and count them in `skipped`.
        labelled: whether labels are needed; without, they are -1.

    Raises:
        UserError: what cannot be read, with the row and how to mend it.
    """
    if not isinstance(source, str | Path):
        return join([load_pairs(s, columns=columns, skip_bad_rows=skip_bad_rows, labelled=labelled) for s in source])
    table, malformed = read_table(source, skip_bad_rows=skip_bad_rows)
    names = find_columns(table.column_names, columns, where=str(source), labelled=labelled)
    pairs = _usable_pairs(table, names, str(source), skip_bad_rows, labelled, malformed)
    if not len(pairs):
        raise UserError(f"{source}: no usable pairs in it; left out: {dict(pairs.skipped)}")
    return pairs


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what; `label` is empty where all pairs are positives (anchor, positive)."""

    first: str
    second: str
    label: str = ""
    negative: str = ""


def find_columns(names: Sequence[str], wanted: Sequence[str] = (), *, where: str, labelled: bool = True) -> Columns:
    """The columns that hold the questions and the label.

    Args:
        names: the table's columns.
        wanted: the user's own choice: two texts and, when there are labels, the label.
        where: the source, for messages.
        labelled: whether a label column must be there.

    Raises:
        UserError: columns are missing; the message names those found.
    """
    found = f"found: {', '.join(map(reprlib.repr, names))}"
    known = {name.lower().strip(): name for name in names} | {name: name for name in names}
    if wanted:
        if len(wanted) not in (2, 3) or (labelled and len(wanted) < 3):
            raise UserError(f"{where}: columns {','.join(wanted)!r} are not of the form TEXT1,TEXT2,LABEL; {found}")
        wanted = wanted[: 3 if labelled else 2]
        for name in wanted:
            if name not in known and name.lower() not in known:
                raise UserError(f"{where}: no column {name!r}; {found}")
        return Columns(*(known.get(name) or known[name.lower()] for name in wanted))
    label = next((known[name] for name in LABEL_COLUMNS if name in known), "")
    for first, second in TEXT_COLUMNS:
        if first in known and second in known:
            if labelled and not label:
                raise UserError(
                    f"{where}: no label column ({', '.join(LABEL_COLUMNS)}); {found}; name it with --columns"
                )
            return Columns(known[first], known[second], label if labelled else "")
    if "anchor" in known and "positive" in known:
        return Columns(known["anchor"], known["positive"], negative=known.get("negative", "") if labelled else "")
    raise UserError(
        f"{where}: no pair of question columns (such as question1, question2); {found}; name them with --columns"
    )


def _usable_pairs(
    table: datasets.Dataset, names: Columns, where: str, skip: bool, labelled: bool, malformed: int
) -> Pairs:
    first, second, labels, skipped = list[str](), list[str](), list[int](), Counter(malformed=malformed)
    text_columns = [name for name in (names.first, names.second, names.negative) if name]
    given = table[names.label][:] if names.label else [1] * len(table)
    for number, (value, *texts) in enumerate(zip(given, *(table[c][:] for c in text_columns), strict=True), start=1):
        label = LABELS.get(str(value).strip().lower(), UNLABELLED)
        fault = next(filter(None, map(text_fault, texts, text_columns)), None)
        if label == UNLABELLED and not fault:
            fault = "label", f"label {reprlib.repr(value)} in column {names.label!r} is neither 0 nor 1"
        if fault and not skip:
            raise UserError(f"{where}, row {number}: {fault[1]}; mend it, or pass --skip-bad-rows")
        if fault:
            skipped[fault[0]] += 1
            continue
        first += texts[:1] * (len(texts) - 1)
        second += texts[1:]
        labels += [label, 0][: len(texts) - 1]
    return pairs_from_texts(first, second, labels if labelled else [UNLABELLED] * len(labels), +skipped)


def text_fault(text: Any, column: str) -> tuple[str, str] | None:
    """What keeps a value from being a question: the kind of fault, and a sentence; None where nothing does."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return "empty question", f"column {column!r} has no question"
    if not isinstance(text, str):
        return "not a text", f"column {column!r} holds {reprlib.repr(text)}, which is not a text"
    if len(text) > LONGEST_QUESTION:
        return "too long", f"column {column!r} holds {len(text):,} characters (at most {LONGEST_QUESTION:,})"
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        return "not a text", f"column {column!r} holds {reprlib.repr(text)}, which is not valid Unicode"
    return None


def sample_path() -> Path:
    """Where the bundled pairs lie: inside the package in an installed wheel, beside it in a checkout."""
    here = Path(__file__).parent
    installed = here / "pairs.csv"
    return installed if installed.exists() else here.parent.parent / "data" / "pairs.csv"


def read_table(source: str | Path, *, skip_bad_rows: bool = False) -> tuple[datasets.Dataset, int]:
    """A source as one Hugging Face dataset, whatever its columns, and the number of malformed rows left out.

    Splits are joined, but for those whose labels are hidden (all -1, as in GLUE's test parts).

    Raises:
        UserError: it is not there, is empty, cannot be parsed or cannot be fetched.
    """
    name = NAMED_SOURCES.get(str(source), str(source))
    path = sample_path() if name == "sample" else Path(name)
    kind = "" if os.path.isdir(path) else SUFFIXES.get(path.suffix.lower(), "")
    if kind and not os.path.exists(path):
        raise UserError(f"{source}: no such file")
    if kind and not os.path.getsize(path):
        raise UserError(f"{source}: the file is empty")
    malformed: list[str] = []
    with _reading(str(source)) as datasets:
        if not kind:
            table = datasets.concatenate_datasets(_read_dataset(name, str(source)))
        elif kind == "csv":
            columns, malformed = _parse_csv(path)
            features = datasets.Features({name: datasets.Value("string") for name in columns})
            table = datasets.Dataset.from_dict(columns, features=features)
        elif kind == "jsonl":
            columns, malformed = _parse_jsonl(path)
            table = datasets.Dataset.from_dict(columns, on_mixed_types="use_json")
        else:
            table = _load(kind, split="train", data_files=str(path))
    if malformed and not skip_bad_rows:
        raise UserError(f"{source}, {malformed[0]}; mend it, or pass --skip-bad-rows")
    if not len(table):
        raise UserError(f"{source}: there are no rows in it")
    return table, len(malformed)


@contextlib.contextmanager
def _reading(source: str) -> Iterator[Any]:
    """The module `datasets`, without progress bars and log, its errors turned into one line about the source."""
    import datasets
    from huggingface_hub import utils as hub

    switches = [m for m in (datasets, hub) if not m.are_progress_bars_disabled()]
    level = logging.root.manager.disable
    for module in switches:
        module.disable_progress_bars()
    logging.disable(logging.CRITICAL)
    try:
        yield datasets
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(cause).__name__
        raise UserError(f"{source}: cannot be read: {textwrap.shorten(reason, 300)}") from error
    finally:
        logging.disable(level)
        for module in switches:
            module.enable_progress_bars()


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not valid UTF-8; save the file as UTF-8") from None


def _parse_csv(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """The columns of a CSV or TSV file, and what is wrong with each malformed row.

    Tables with tabs come in two forms: quoted like a CSV (Quora's own release, where a question may hold line ends),
    and with no quoting at all (GLUE's). The form with fewer malformed rows is taken, then the one with more rows.
    """
    text = _text(path)
    if path.suffix.lower() == ".csv":
        header, rows, malformed = _csv_rows(text, ",", csv.QUOTE_MINIMAL)
    else:
        forms = [_csv_rows(text, "\t", quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE)]
        header, rows, malformed = min(forms, key=lambda form: (len(form[2]), -len(form[1])))
    if malformed and malformed[-1].endswith(OPEN_QUOTE):
        raise UserError(f"{path}, {malformed[-1]}; all that follows would be lost")
    if not header:
        raise UserError(f"{path}: the file is empty")
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise UserError(f"{path}: the column {reprlib.repr(twice[0])} is there twice")
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return {name: list(column) for name, column in zip(header, columns, strict=True)}, malformed


def _csv_rows(text: str, delimiter: str, quoting: Any) -> tuple[list[str], list[list[str]], list[str]]:
    """The header, the rows with as many fields, and what is wrong with each other one."""
    header, rows, malformed = list[str](), list[list[str]](), list[str]()
    for number, row in csv_rows(io.StringIO(text, newline=""), delimiter, quoting, longest=len(text)):
        if isinstance(row, str):
            malformed.append(f"row {number}: {row}")
        elif number:
            rows.append(row)
        else:
            header = row
    return header, rows, malformed


def csv_rows(lines: Iterable[str], delimiter: str, quoting: Any, longest: int) -> Iterator[tuple[int, list[str] | str]]:
    """The header, numbered 0, and each row from 1 on, or what is wrong with it; blank lines are no rows.

    Args:
        lines: of the file, with their ends.
        delimiter: between fields.
        quoting: as in the module csv.
        longest: characters that a field may have before a quote counts as one that is never closed.
    """
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    limit = csv.field_size_limit(longest)
    width = number = 0
    try:
        while True:
            try:
                row = next(reader)
            except csv.Error as error:
                unclosed = any(sign in str(error) for sign in ("end of data", "field larger"))
                number += 1
                yield number, OPEN_QUOTE if unclosed else f"broken quotes ({error})"
                continue
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if not width:
                width = len(row)
                yield 0, [name.strip() for name in row]
            else:
                number += 1
                yield number, row if len(row) == width else f"{len(row)} fields where the header has {width}"
    except StopIteration:
        return
    finally:
        csv.field_size_limit(limit)


def _parse_jsonl(path: Path) -> tuple[dict[str, list[Any]], list[str]]:
    """The columns of a JSONL file, with None where a line lacks a key, and what is wrong with each malformed line."""
    rows, malformed = list[dict[str, Any]](), list[str]()
    for number, row in json_rows(_text(path).split("\n")):
        if isinstance(row, str):
            malformed.append(f"line {number}: {row}")
        else:
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}, malformed


def json_rows(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The object of each line, or what is wrong with it, numbered from 1; blank lines have none."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
                json.dumps(row if "\\u" in line else "", ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                yield number, f"not valid JSON ({error})"
                continue
            yield number, row if isinstance(row, dict) else "not a JSON object"


_DATASET_NAME = re.compile(r"(?P<id>[^:\[\]]+)(:(?P<config>[^:\[\]]+))?(\[(?P<split>.+)\])?")


def _read_dataset(name: str, source: str) -> list[datasets.Dataset]:
    """The splits of a dataset folder or of a dataset on the Hub, but for those whose labels are hidden."""
    parts = _DATASET_NAME.fullmatch(name)
    identity, config, split = parts.group("id", "config", "split") if parts else (name, None, None)
    if os.path.isdir(name):
        identity, config, split = name, None, None
    if os.path.isdir(identity):
        data = _read_folder(os.path.abspath(identity), config, split)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", identity) and Path(identity).suffix not in SUFFIXES:
        data = _fetch(identity, config, split, source)
    else:
        raise UserError(
            f"{source}: {'unknown kind of file' if os.path.exists(name) else 'no such file or folder, and no Hub id'}; "
            f"give OWNER/NAME[:CONFIG], a folder, a file ending in {' '.join(SUFFIXES)}, or sample, "
            f"{', '.join(NAMED_SOURCES)}"
        )
    splits = list(data.values()) if isinstance(data, dict) else [data]
    return [part for part in splits if not _hidden_labels(part)] or splits


def _load(path: str, config: str | None = None, split: str | None = None, **options: Any) -> Any:
    """Local files through `datasets`, in memory and past its cache, which knows a file by its time of change alone."""
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        builder = datasets.load_dataset_builder(path, config, cache_dir=cache, **options)
        if hasattr(builder.config, "keep_default_na"):
            builder.config.keep_default_na = False  # in a CSV file the question "NA" is a text
        builder.download_and_prepare()
        if not any(part.num_examples for part in builder.info.splits.values()):
            return datasets.Dataset.from_dict({})
        return builder.as_dataset(split, in_memory=True)


def _read_folder(folder: str, config: str | None, split: str | None) -> Any:
    import datasets

    if not any(os.path.exists(os.path.join(folder, mark)) for mark in ("state.json", "dataset_dict.json")):
        return _load(folder, config, split)
    data = datasets.load_from_disk(folder, keep_in_memory=True)
    splits = data if isinstance(data, dict) else {}
    if config or (split and split not in splits):
        raise UserError(f"{folder}: no part {config or split!r} in it; there are: {', '.join(splits) or 'none'}")
    return splits[split] if split else data


def _fetch(identity: str, config: str | None, split: str | None, source: str) -> Any:
    """A dataset of the Hub, or its copy in the cache of `datasets` where the Hub does not answer.

    The Hub is asked first, once, because `datasets` tries again for half a minute.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    offline = datasets.config.HF_HUB_OFFLINE
    try:
        HfApi().dataset_info(identity, timeout=10)
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(
            f"{source}: no folder of that name here, and no dataset on the Hugging Face Hub (or a private one); "
            "check the name, or log in with `hf auth login`"
        ) from None
    except HfHubHTTPError:
        raise
    except Exception:  # of whatever HTTP library is underneath: there was no answer
        datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(identity, config, split=split)
    except ConnectionError:
        raise UserError(
            f"{source}: no folder of that name here, and the Hugging Face Hub cannot be reached; "
            "check the network, or give a local file or folder"
        ) from None
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _hidden_labels(table: datasets.Dataset) -> bool:
    names = [name for name in table.column_names if name.lower() in LABEL_COLUMNS]
    return any(len(table) > 0 and all(label == UNLABELLED for label in table[name][:]) for name in names)
