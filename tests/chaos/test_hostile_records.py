"""Journals, records of experiments, and binary files of an index that are damaged are used, or refused in one line.

A line of a journal has a checksum, which the damaged lines here have, too. Libraries in other languages read binary
files, and may end the process: they are tried in forked children.
"""

from __future__ import annotations

import base64
import json
import random
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from faults import run_child
from test_hostile import MADE, STEP, attempt, mutated, say, use_embeddings, use_index

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.experiments.cells import Cell
from qpairs.experiments.comparison_folder import hold_folder, read_record
from qpairs.retrieval.embeddings import open_shards
from qpairs.retrieval.index import build_index, open_index
from qpairs.retrieval.index.faiss import QUESTIONS as SCHEMA
from qpairs.serving.clusters import ReviewedFolder
from qpairs.serving.journal import FILE, journalled

CELL = Cell("static", "contrastive", "everything", 0)
RESULT = {"f1": 0.5, "f1_interval": [0.4, 0.6], "threshold": 0.5, "seconds": 1.0, "steps": 3, "epochs": 1.0}
RESULT |= {"peak_bytes": 7}
REPORT = {"average_precision": 0.5, "average_precision_interval": [0.4, 0.6], "retrieval": {}}
QUESTIONS = ["How do I pay?", "How can I pay?", "How can I pay now?", "Where is it?", "Where is my order?"]


@dataclass(frozen=True)
class Target:
    """A file of ours that is to be damaged: what it holds as JSON, how that is written, and what uses it."""

    file: Path
    value: Any
    written: Callable[[str], bytes]
    use: Callable[[], Any]


def journal_line(text: str) -> bytes:
    """A line of a journal with the right checksum."""
    content = text.encode("utf-8", "surrogatepass")
    return b"%08x %s\n" % (zlib.crc32(content), content)


def plain(text: str) -> bytes:
    """A JSON file."""
    return text.encode("utf-8", "surrogatepass")


def unit_vectors(texts: Sequence[str]) -> np.ndarray:
    """Stands for a model."""
    return np.tile(np.eye(1, 4, dtype=np.float32), (len(texts), 1))


def use_journal(index: Path) -> None:
    """Opens a copy of an index for changes."""
    copy = index.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(index, copy)
    with journalled(copy) as found:
        list(found.questions.texts())
        found.questions.add(["new"], ["Is it new?"], np.eye(1, found.manifest.dimension, dtype=np.float32))


def use_clusters(folder: Path) -> None:
    """Looks at clusters as they were mended, changes and writes them."""
    reviewed = ReviewedFolder(folder, unit_vectors)
    try:
        with reviewed.review() as review:
            review.page()
            review.export()
    finally:
        reviewed.close()


def use_comparison(folder: Path) -> None:
    """Goes on with a comparison."""
    with hold_folder(folder, {"seed": 0, "split": "ab"}, overwrite=False):
        read_record(folder, CELL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index, clusters and a comparison."""
    place = tmp_path_factory.mktemp("records")
    model = qpairs.load(MADE / "one-static")
    build_index(open_shards(MADE / "embeddings"), place / "index")
    (place / "q.csv").write_text("\n".join(["question", *QUESTIONS]) + "\n")
    from qpairs.data.corpus import read_corpus
    from qpairs.retrieval.corpus import dedupe_corpus

    dedupe_corpus(model, read_corpus(place / "q.csv"), threshold=0.3).write(place / "dup")
    (place / "compare" / "cells").mkdir(parents=True)
    (place / "compare" / "compare.json").write_text("{}")
    return place


def targets(folder: Path) -> dict[str, Target]:
    """Name -> what is damaged."""
    dimension = open_shards(MADE / "embeddings").dimension
    model = open_shards(MADE / "embeddings").fingerprint
    vectors = base64.b64encode(np.eye(1, dimension, dtype="<f4").tobytes()).decode()
    added = {"ids": ["a"], "texts": ["Is it?"], "model": model, "vectors": vectors}
    dup, compare = folder / "dup", folder / "compare"
    use_clusters(dup)
    (changes,) = dup.glob("changes-*.jsonl")
    with ReviewedFolder(dup, unit_vectors).review() as review:
        largest = review.page(order="size").clusters[0]
    split = {"change": "split", "cluster": largest.id, "rows": [largest.members[-1].row]}
    record = {"cell": {}, "result": {**RESULT, "report": REPORT}, "error": "", "custom": ""}
    summary = json.loads((dup / "dedupe.json").read_text())
    return {
        "journal of an index, added": Target(
            folder / "index" / FILE, added, journal_line, lambda: use_journal(folder / "index")
        ),
        "journal of an index, deleted": Target(
            folder / "index" / FILE, {"deleted": ["1"]}, journal_line, lambda: use_journal(folder / "index")
        ),
        "journal of clusters": Target(changes, split, journal_line, lambda: use_clusters(dup)),
        "dedupe.json": Target(dup / "dedupe.json", summary, plain, lambda: use_clusters(dup)),
        "record of a cell": Target(
            compare / "cells" / f"{CELL.name}.json", record, plain, lambda: read_record(compare, CELL)
        ),
        "compare.json": Target(
            compare / "compare.json", {"seed": 0, "split": "ab"}, plain, lambda: use_comparison(compare)
        ),
    }


def run_target(name: str, target: Target, count: int) -> list[str]:
    """Tries so many damaged versions of a file; returns what went wrong."""
    kept = target.file.read_bytes() if target.file.exists() else None
    target.file.write_bytes(target.written(json.dumps(target.value)))
    target.use()
    random_, wrong = random.Random(name), []
    for number in range(count):
        target.file.write_bytes(target.written(text := mutated(target.value, random_)))
        if found := attempt(target.use):
            wrong.append(f"{name}, number {number}: {text[:300]} {found}")
    if kept is None:
        target.file.unlink()
    else:
        target.file.write_bytes(kept)
    say(f"{name}: {count:,} damaged files, {count - len(wrong):,} used or refused in one line")
    return wrong


def test_a_few_damaged_records(folder: Path) -> None:
    assert [wrong for name, target in targets(folder).items() for wrong in run_target(name, target, 25)] == []


@pytest.mark.chaos
def test_many_damaged_records(folder: Path) -> None:
    assert [wrong for name, target in targets(folder).items() for wrong in run_target(name, target, 500 // STEP)] == []


# Binary files


def damaged(content: bytes, random_: random.Random) -> bytes:
    """A file that is cut off, or some bytes of which, at its ends for the most part, are others."""
    if random_.random() < 0.3:
        return content[: random_.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(random_.choice([1, 1, 2, 8])):
        span = random_.choice([min(200, len(content)), len(content)])
        place = random_.choice([0, len(content) - span]) + random_.randrange(span)
        changed[place] = random_.choice([0, 1, 0x7F, 0x80, 0xFF, random_.randrange(256)])
    return bytes(changed)


def use_onnx(folder: Path) -> None:
    """Loads an export in ONNX and judges a pair."""
    qpairs.load(folder).predict([("How do I pay?", "How can I pay?")])


def binaries(folder: Path) -> dict[str, tuple[Path, Callable[[], None]]]:
    """Name -> the file, and what uses it."""
    for name in ("embeddings", "one-onnx", "one-static"):
        if not (folder / name).exists():
            shutil.copytree(MADE / name, folder / name)
    index, embeddings = folder / "index", folder / "embeddings"
    (shard,) = (embeddings / "shards").iterdir()
    return {
        **{
            pattern: (next(index.glob(pattern)), lambda: use_index(index))
            for pattern in ("vectors-*.faiss", "questions-*.arrow", "deleted-*.npy")
        },
        "shards/*.parquet": (shard, lambda: use_embeddings(embeddings)),
        "tokenizer.json": (folder / "one-static" / "tokenizer.json", lambda: use_onnx(folder / "one-static")),
        "model.onnx": (folder / "one-onnx" / "model.onnx", lambda: use_onnx(folder / "one-onnx")),
    }


BATCH = 25  # files that are tried in a child


def run_binary(name: str, file: Path, use: Callable[[], None], count: int) -> list[str]:
    """Tries so many damaged versions of a file, some in a child; one that dies is found out."""
    content, random_ = file.read_bytes(), random.Random(name)
    versions, wrong = [damaged(content, random_) for _ in range(count)], list[str]()

    def some(first: int, end: int) -> list[str]:
        found = []
        for version in versions[first:end]:
            file.unlink()  # what is mapped into memory stays as it was
            file.write_bytes(version)
            found.append(attempt(use))
        return found

    def tried(first: int, end: int) -> None:
        ended = run_child(lambda: some(first, end), file.parent)
        if ended.code == 0:
            wrong.extend(f"{name}, number {first + n}: {text}" for n, text in enumerate(ended.value) if text)
        elif end - first == 1:
            wrong.append(f"{name}, number {first}: the process ended with {ended.code} {ended.text[-500:]}")
        else:
            middle = (first + end) // 2
            tried(first, middle)
            tried(middle, end)

    for first in range(0, count, BATCH):
        tried(first, min(first + BATCH, count))
    file.write_bytes(content)
    use()
    say(f"{name}: {count:,} damaged files, {count - len(wrong):,} used or refused in one line")
    return wrong


def test_a_few_damaged_binary_files(folder: Path) -> None:
    assert [wrong for name, (file, use) in binaries(folder).items() for wrong in run_binary(name, file, use, 15)] == []


@pytest.mark.chaos
def test_many_damaged_binary_files(folder: Path) -> None:
    share = 250 // STEP
    wrong = [bad for name, (file, use) in binaries(folder).items() for bad in run_binary(name, file, use, share)]
    assert wrong == []


@pytest.mark.parametrize("places", [[0, 9, 1 << 40], [0, 3, 1], [-5, 0, 1]], ids=["beyond the end", "back", "before"])
def test_texts_that_would_lie_outside_their_file_are_refused(places: list[int], folder: Path, tmp_path: Path) -> None:
    """Arrow would read them there, and the process would end."""
    shutil.copytree(folder / "index", tmp_path / "index")
    (file,) = (tmp_path / "index").glob("questions-*.arrow")
    columns = {"id": ["1", "2"], "text": ["one", ", other"]}
    with pyarrow.ipc.new_file(str(file), SCHEMA) as writer:
        writer.write_table(pyarrow.table(columns, SCHEMA))
    good, bad = (np.array(values, np.int64).tobytes() for values in ([0, 3, 10], places))
    assert file.read_bytes().count(good) == 1
    file.write_bytes(file.read_bytes().replace(good, bad))
    with pytest.raises(UserError, match="the index is damaged"):
        open_index(tmp_path / "index")
