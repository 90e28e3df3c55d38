"""Files that are damaged, edited, cut off or made up are used as what they say, or refused in one line.

The short form tries a few hundred inputs; `pytest -m chaos -n 0 -s tests/chaos/test_hostile.py` tries 10,000.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import math
import os
import random
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import qpairs
from qpairs.config import config_from, read_toml
from qpairs.core.exceptions import UserError
from qpairs.core.files import write_text
from qpairs.core.manifests import read_manifest
from qpairs.data.corpus import read_corpus
from qpairs.data.labels import read_labels
from qpairs.models.model_file import look_file
from qpairs.models.unfinished import SPLIT
from qpairs.models.versions import versions
from qpairs.objectives.functions import objective_of
from qpairs.retrieval.embeddings import open_shards
from qpairs.retrieval.index import open_index
from qpairs.training.run import _read_split
from qpairs.training.trainer import COMPLETE, check_state, mark_complete

STEP = int(os.environ.get("QPAIRS_CHAOS_STEP", "1"))  # one in so many of the inputs
MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
PAIRS = [("How do I pay?", "How can I pay?"), ("Who are you?", "Where is my order?")]
DEEP = "@deep"  # stands for lists in lists, which `json` itself would not write
HOSTILE: list[Any] = [
    *(None, True, False, "", "x", "x" * 5000, "\x00", "../../etc/passwd", "\ud800", DEEP),
    *(0, 1, -1, 2, 0.5, 1e308, -1e308, 1e-320, 2**31, 2**63, -(2**63) - 1, 10**400, math.nan, math.inf, -math.inf),
    *([], [None], [[]], [1, "a"], [math.nan] * 3, {}, {"a": {}}, {"": None}),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON value are; of long lists, the first and the last few."""
    yield path
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for name, item in items if len(items) < 40 else [*items[:3], *items[-3:]]:
        yield from places(item, (*path, name))


def mutated(value: Any, random_: random.Random) -> str:
    """The JSON text of a value of which one place, or a few, hold something else, are missing, or are there besides."""
    value = copy.deepcopy(value)
    for _ in range(random_.choice([1, 1, 1, 2, 4])):
        path = random_.choice(list(places(value)))
        if not path:
            continue
        holder = value
        for name in path[:-1]:
            holder = holder[name]
        change = random_.random()
        if change < 0.15:
            del holder[path[-1]]
        elif change < 0.25 and isinstance(holder, dict):
            holder[random_.choice(["", "format", "threshold", "x" * 300, "\x00"])] = copy.deepcopy(
                random_.choice(HOSTILE)
            )
        elif change < 0.35 and isinstance(holder[path[-1]], int | float):
            holder[path[-1]] = random_.choice([-1, 2, 10]) * holder[path[-1]]
        else:
            holder[path[-1]] = copy.deepcopy(random_.choice(HOSTILE))
    text = json.dumps(value).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)
    return _cut(text, random_) if random_.random() < 0.15 else text


def _cut(text: str, random_: random.Random) -> str:
    """A text that was cut off, or of which a stretch is missing or is something else."""
    start = random_.randrange(len(text) + 1)
    end = random_.choice([len(text), start + random_.randrange(1, 20)])
    return text[:start] + random_.choice(["", "", "\x00", "}", "[", '"', "NaN", "\ufeff"]) + text[end:]


def use_model(folder: Path) -> None:
    """Loads a model and judges two pairs; what it says are probabilities."""
    found = qpairs.load(folder)
    said = found.predict(PAIRS)
    assert np.isfinite(said.probability).all()
    assert ((said.probability >= 0) & (said.probability <= 1)).all()
    assert math.isfinite(found.verdict.pair.threshold)
    repr(found)
    found.dedupe([text for pair in PAIRS for text in pair], threshold=0.9)


def use_index(folder: Path) -> None:
    """Opens an index and searches in it."""
    found = open_index(folder)
    query = np.ones((1, found.manifest.dimension), np.float32)
    found.questions.search(query / np.linalg.norm(query), 3)


def use_embeddings(folder: Path) -> None:
    """Reads embeddings."""
    found = open_shards(folder)
    found.matrix()
    found.sample(3)
    list(found.texts())


def use_second_look(folder: Path) -> None:
    """Reads what a model of two stages says of both."""
    read_manifest(folder / "second_look.json", lambda data: data, newest=1, missing="none", shape=look_file)


SECOND_LOOK = {
    "format": 1,
    "look": {"intercept": 0.1, "first": 1.0, "second": 2.0, "lowest": [0.0, 1.0], "highest": [0.0, 1.0], "factors": []},
    "verdict": {
        "pair": {"threshold": 0.5, "calibration": {"slope": 2.0, "intercept": -1.0}, "operating_points": []},
        "score": "log odds",
        "symmetric": True,
    },
    "scores": {},
    "versions": versions(),
}


def prepare(folder: Path) -> dict[str, tuple[Path, Path, Callable[[Path], None]]]:
    """Name -> the file that is to be damaged, its folder, and what uses the folder."""
    for name in ("one", "two", "one-static", "index", "embeddings"):
        shutil.copytree(MADE / name, folder / name)
    qpairs.load(folder / "one-static").save(folder / "newer")
    write_text(folder / "second_look.json", json.dumps(SECOND_LOOK))
    write_text(folder / SPLIT, json.dumps({"fingerprint": "ab", "sizes": {"train": 3}}))
    state = folder / "checkpoint-3"
    state.mkdir()
    (state / "optimizer.pt").write_bytes(b"state")
    mark_complete(state)
    return {
        "qpairs.json of an export": (folder / "newer" / "qpairs.json", folder / "newer", use_model),
        "qpairs.json of an older export": (folder / "one-static" / "qpairs.json", folder / "one-static", use_model),
        "qpairs.json of a checkpoint": (folder / "one" / "qpairs.json", folder / "one", use_model),
        "index.json": (folder / "index" / "index.json", folder / "index", use_index),
        "manifest.json": (folder / "embeddings" / "manifest.json", folder / "embeddings", use_embeddings),
        "second_look.json": (folder / "second_look.json", folder, use_second_look),
        "split.json": (folder / SPLIT, folder, lambda place: _read_split(place) and None),
        "the mark of a state": (state / COMPLETE, state, check_state),
    }


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Callable[[Path], None]]]:
    return prepare(tmp_path_factory.mktemp("hostile"))


def attempt(use: Callable[[], Any]) -> str:
    """'' where something is used, or refused in one line; else the traceback."""
    try:
        use()
    except UserError as refused:
        return "" if "\n" not in str(refused) and len(str(refused)) < 2000 else f"not one line: {str(refused)[:300]}"
    except Exception:
        return traceback.format_exc()[-1500:]
    return ""


def run_json(name: str, target: tuple[Path, Path, Callable[[Path], None]], count: int, seed: int = 0) -> list[str]:
    """Tries so many damaged versions of a file; returns what went wrong."""
    file, folder, use = target
    content, random_, wrong = file.read_bytes(), random.Random(f"{name} {seed}"), []
    for number in range(count):
        text = mutated(json.loads(content), random_)
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        if found := attempt(lambda: use(folder)):
            wrong.append(f"{name}, number {number}: {found}")
    file.write_bytes(content)
    use(folder)
    say(f"{name}: {count:,} damaged files, {count - len(wrong):,} used or refused in one line")
    return wrong


def say(line: str) -> None:
    """Prints a line of the campaign's result."""
    sys.stdout.write(f"{line}\n")


CHEAP = ("qpairs.json of an older export", "index.json", "manifest.json", "second_look.json", "split.json")


@pytest.mark.parametrize("name", CHEAP)
def test_a_few_damaged_json_files(name: str, targets: dict[str, Any]) -> None:
    assert run_json(name, targets[name], 60) == []


@pytest.mark.chaos
def test_many_damaged_json_files(targets: dict[str, Any]) -> None:
    share = {name: (500 if "checkpoint" in name else 1000) // STEP for name in targets}
    assert [wrong for name, target in targets.items() for wrong in run_json(name, target, share[name], 1)] == []


WEIGHTS = (
    "one-static/vectors.safetensors",
    "newer/vectors.safetensors",
    "one/model.safetensors",
    "two/head.safetensors",
)


def damaged_weights(content: bytes, random_: random.Random) -> bytes:
    """Weights that are cut off, or whose header is something else."""
    size = random_.randrange(len(content))
    header = bytearray(content)
    for _ in range(random_.randrange(1, 4)):
        header[random_.randrange(200)] = random_.randrange(256)
    return random_.choice([content[:size], bytes(header), b"", content[:8], content[: size // 50]])


def run_weights(folder: Path, name: str, count: int) -> list[str]:
    """Tries so many damaged versions of a file of weights."""
    file, random_, wrong = folder / name, random.Random(name), []
    content = file.read_bytes()
    for number in range(count):
        file.write_bytes(damaged := damaged_weights(content, random_))
        found = attempt(lambda: use_model(file.parent))
        if found and _may_be_read(file) and damaged[8:] != content[8:] and "assert" in found:
            found = ""  # without a checksum, as in older folders, other numbers are other weights
        if found:
            wrong.append(f"{name}, number {number}: {found}")
    file.write_bytes(content)
    say(f"{name}: {count:,} damaged files, {count - len(wrong):,} used or refused in one line")
    return wrong


def _may_be_read(file: Path) -> bool:
    try:
        with safe_open(file, "numpy") as weights:
            return bool(list(weights.keys()))
    except Exception:
        return False


def test_a_few_damaged_weights(targets: dict[str, Any]) -> None:
    folder = targets["index.json"][1].parent
    assert [wrong for name in WEIGHTS[:2] for wrong in run_weights(folder, name, 15)] == []


@pytest.mark.chaos
def test_many_damaged_weights(targets: dict[str, Any]) -> None:
    folder = targets["index.json"][1].parent
    assert [
        wrong for name in WEIGHTS for wrong in run_weights(folder, name, (250 if "vectors" in name else 100) // STEP)
    ] == []


# Tables, options, and losses

CELL = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["0", "1", "NaN", "", "=1+1", '"', "'", "\x00", "\r\n", "[/b]", "\ufeff", "1e400", "-0", "true"]),
)
HEADER = st.sampled_from(
    ["question1", "question2", "is_duplicate", "label", "question", "id", "drawn", "annotator", ""]
)
TABLE = st.tuples(st.lists(st.one_of(HEADER, CELL), max_size=5), st.lists(st.lists(CELL, max_size=5), max_size=6))
COUNTS: Counter[str] = Counter()


def delimited(table: tuple[list[str], list[list[str]]], separator: str, quoted: bool) -> bytes:
    """A file of values with commas or tabs, quoted well or not at all."""
    rows = [table[0], *table[1]]
    cells = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' if quoted else cell for cell in row] for row in rows]
    return "\n".join(separator.join(row) for row in cells).encode("utf-8", "surrogatepass")


def json_lines(table: tuple[list[str], list[list[str]]]) -> bytes:
    """A file of JSON objects."""
    return "\n".join(json.dumps(dict(zip(table[0], row, strict=False))) for row in table[1]).encode()


def parquet(table: tuple[list[str], list[list[str]]]) -> bytes:
    """A Parquet file."""
    columns = {
        name: [row[place] if place < len(row) else None for row in table[1]] for place, name in enumerate(table[0])
    }
    sink = io.BytesIO()
    pandas.DataFrame(columns).to_parquet(sink)
    return sink.getvalue()


FILES: dict[str, st.SearchStrategy[bytes]] = {
    ".csv": st.one_of(st.builds(delimited, TABLE, st.just(","), st.booleans()), st.binary(max_size=200)),
    ".tsv": st.one_of(st.builds(delimited, TABLE, st.just("\t"), st.booleans()), st.binary(max_size=200)),
    ".jsonl": st.one_of(TABLE.map(json_lines), st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))),
    ".parquet": st.one_of(TABLE.filter(lambda table: len(set(table[0])) == len(table[0])).map(parquet), st.binary()),
}


def try_file(suffix: str, content: bytes, folder: Path) -> None:
    """Reads a file as pairs, questions and labels."""
    file = folder / f"given{suffix}"
    file.write_bytes(content)
    COUNTS[suffix] += 1
    for read in (qpairs.load_pairs, read_corpus, read_labels):
        for options in ({}, {"skip_bad_rows": True}) if read is not read_labels else ({},):
            source = file if read is read_labels else str(file)
            found = attempt(functools.partial(read, source, **options))
            assert not found, (content, found)


def try_toml(text: str, folder: Path) -> None:
    """Reads options."""
    COUNTS[".toml"] += 1
    (folder / "given.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    found = attempt(lambda: config_from(read_toml(folder / "given.toml")))
    assert not found, (text, found)


def try_loss(text: str) -> None:
    """Reads an expression of losses, and one of miners."""
    COUNTS["loss expressions"] += 1
    for use in (lambda: objective_of(text), lambda: objective_of("softmax", text)):
        found = attempt(use)
        assert not found, (text, found)


NAMES = st.sampled_from(
    ["epochs", "encoder", "data", "loss", "batch_size", "learning_rate", "columns", "x", "schedule"]
)
VALUES = st.sampled_from(
    ["1", "-1", "nan", "inf", "1e400", '"a"', "[]", '["a"]', "true", "{}", "{a=1}", "", "1979-05-27", "[[1]]", '"""']
)
TOML = st.one_of(
    st.lists(st.tuples(NAMES, VALUES), max_size=4).map(lambda rows: "\n".join(f"{a} = {b}" for a, b in rows)),
    st.text(max_size=60),
)
WORD = st.sampled_from(
    [
        "softmax",
        "contrastive",
        "triplet",
        "pair_softmax",
        "offline",
        "everything",
        "+",
        "*",
        "0.5",
        "1e400",
        "nan",
        "(",
        ")",
        ",",
        "scale=",
        "margin=1",
        "-",
        "2**",
        "x",
    ]
)
LOSS = st.one_of(
    st.lists(WORD, max_size=8).map("".join), st.lists(WORD, max_size=8).map(" ".join), st.text(max_size=40)
)


def _reader_of(suffix: str, folder: Path) -> Callable[[bytes], None]:
    return lambda content: try_file(suffix, content, folder)


def fuzz(count: int, folder: Path) -> None:
    """Tries so many inputs of each kind."""
    options = settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    COUNTS.clear()
    for suffix, strategy in FILES.items():
        options(given(strategy)(_reader_of(suffix, folder)))()
    options(given(TOML)(lambda text: try_toml(text, folder)))()
    options(given(LOSS)(try_loss))()
    say(", ".join(f"{n:,} {kind}" for kind, n in COUNTS.items()) + ": all used or refused in one line")


def test_a_few_made_up_tables_options_and_losses(tmp_path: Path) -> None:
    fuzz(25, tmp_path)


@pytest.mark.chaos
def test_many_made_up_tables_options_and_losses(tmp_path: Path) -> None:
    fuzz(500 // STEP, tmp_path)
