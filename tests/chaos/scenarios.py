"""Commands that write, with what was there before them and what they must have made in the end."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from children import fork_cells_in_child
from clients import cluster_client, index_client, keys_for, label_client, served_to, session_client
from faults import FaultyCell, command, run_child

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.retrieval.embeddings import open_shards
from qpairs.retrieval.index import open_index
from qpairs.serving.journal import journalled
from qpairs.serving.journal_file import open_journal

MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
QUESTIONS = len((MADE / "questions.txt").read_text("utf-8").splitlines())
WHOLE = bool(os.environ.get("QPAIRS_CHAOS_WHOLE"))
Seen = Callable[[Path], Any]  # what stands at an output; None where nothing whole does


@dataclass(frozen=True)
class Scenario:
    """A command.

    Attributes:
        name: of the scenario.
        arguments: of the command, which runs in a folder of its own beside the inputs.
        seen: what stands at its output, as values that can be compared.
        before: commands that run there first.
        copied: inputs that are copied there first.
        loses: whether what was there may be gone where the command is killed, as it is asked to replace it.
        resumed: arguments with which the command goes on; by default the same.
        parts: whether what stands there is a dictionary of parts, each of which is whole by itself.
        prepare: makes the process of the command ready, as by someone who makes changes while it runs.
        changes: how many changes are then acknowledged.
        cells: whether the command starts other processes.
        every: disk full, two kills and two processes come at one in so many file events, as it takes long.
        kills: kills come at one in so many.
    """

    name: str
    arguments: Sequence[str]
    seen: Seen
    before: Sequence[Sequence[str]] = ()
    copied: Sequence[str] = ()
    loses: bool = False
    resumed: Sequence[str] = ()
    parts: bool = False
    prepare: Callable[[], None] = lambda: None
    changes: int = 0
    cells: bool = False
    every: int = 1
    kills: int = 1

    def run(self, *, again: bool = False) -> None:
        """In a child: runs the command, or what goes on with it."""
        self.prepare()
        command(self.resumed if again and self.resumed else self.arguments)()

    @property
    def command(self) -> str:
        """Its name."""
        return "label agreement" if self.arguments[0] == "label" else self.arguments[0]


def whole(seen: Callable[[Path], Any]) -> Seen:
    """What stands at a place, or None where the user is told that there is nothing whole."""

    def look(place: Path) -> Any:
        try:
            return seen(place)
        except UserError:
            return None

    return look


@whole
def embeddings(place: Path) -> Any:
    """Ids, texts and vectors."""
    found = open_shards(place / "emb")
    found.verify()
    return list(found.texts()), hashlib.sha256(found.matrix().tobytes()).hexdigest()


@whole
def index(place: Path) -> Any:
    """Ids that an index has, and what a search finds."""
    found = open_index(place / "idx")
    query = np.ones((1, found.manifest.dimension), np.float32) / np.sqrt(found.manifest.dimension)
    return found.manifest.count, sorted(found.questions.texts()), found.questions.search(query, 3)


@whole
def model(place: Path) -> Any:
    """Weights and verdict."""
    found = qpairs.load(place / "model")
    return found.fingerprint, repr(found.verdict)


def duplicates(place: Path) -> Any:
    """The files of a result, whole if its summary is there."""
    folder = place / "dup"
    return contents(folder) if (folder / "dedupe.json").exists() or (folder / "pairs.csv").exists() else None


def contents(folder: Path) -> Any:
    """Names and checksums of the files in a folder, but for what is hidden."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith("."))
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def files(*names: str) -> Seen:
    """The bytes of some files; None where none is there."""

    def look(place: Path) -> Any:
        there = {name: (place / name).read_bytes() for name in names if (place / name).exists()}
        return there or None

    return look


@whole
def changed_index(place: Path) -> Any:
    """Ids and texts of an index, with the changes that its journal holds, as a copy of it has them."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(place / "idx", Path(folder, "idx"))
        with journalled(copy) as found:
            ids = [*map(str, range(1, QUESTIONS + 1)), "n1", "n2", "n3"]
            return sorted(found.questions.known(ids)), sorted(found.questions.texts())


def mended_clusters(place: Path) -> Any:
    """The changes to the clusters, and the files that were written of them."""
    (file,) = (place / "dup").glob("changes-*.jsonl") if any((place / "dup").glob("changes-*")) else (Path("none"),)
    with open_journal(file, read_only=True) as journal:
        return {"changes": journal.read() or None, **contents(place / "dup" / "edited")}


def session(folder: str) -> Seen:
    """Answers, model and duplicates of `qpairs start`."""

    def look(place: Path) -> Any:
        found = files("labels.csv", "labels.skipped.csv")(place / folder) or {}
        done = (
            contents(place / folder / "duplicates")
            if (place / folder / "duplicates" / "dedupe.json").exists()
            else None
        )
        return {**found, "model": model(place / folder), "duplicates": done}

    return look


def cells(folder: str, table: str) -> Seen:
    """What the finished cells of an experiment measured, and its table."""

    def look(place: Path) -> Any:
        found: dict[str, Any] = {}
        for file in sorted((place / folder / "cells").glob("[!.]*.json")):
            if result := json.loads(file.read_text("utf-8"))["result"]:
                found[file.name] = result["f1"], result["threshold"]
        if (place / folder / table).exists():
            rows = (place / folder / table).read_text("utf-8").splitlines()
            found[table] = [row.partition(",")[0] for row in rows], len(rows)
        return found or None

    return look


def forked_cells() -> None:
    """Cells are forked from the command, and not started anew."""
    fork_cells_in_child(FaultyCell)


def small_networks() -> None:
    """The transformer from nothing is smaller still."""
    from qpairs.encoders import tiny

    def small(**options: Any) -> Any:
        from transformers import DistilBertConfig

        return DistilBertConfig(**{**options, "dim": 16, "n_layers": 1, "n_heads": 1, "hidden_dim": 16})

    tiny.DistilBertConfig = small


PAIRS = ["--data", "../in/pairs.csv"]
EMBED = ["embed", "../in/model", "../in/questions.csv", "--output", "emb", "--shard-size", "16"]
OTHER = ["embed", "../in/model", "../in/others.csv", "--output", "emb", "--shard-size", "16"]
INDEX = ["index", "../in/emb", "--output", "idx"]
DEDUPE = ["dedupe", "../in/model", "../in/questions.csv", "--output", "dup", "--threshold", "0.6"]
CALIBRATE = ["calibrate", "../in/model", *PAIRS, "--output", "model"]
CORPUS = ["calibrate", "../in/fitted", "--corpus", "../in/questions.csv", "--output", "model"]
EXPORT = ["export", "../in/checkpoint", *PAIRS, "--max-loss", "1", "--output", "model", "--format"]
COMBINE = ["combine", "../in/model", "../in/cross", *PAIRS, "--output", "model"]
PREDICT = ["predict", "../in/model", "../in/pairs.csv", "--output"]
EVALUATE = ["evaluate", "../in/model", *PAIRS, "--json", "report.json"]
ERRORS = ["errors", "../in/model", *PAIRS, "--output", "errors"]
REPORT = ["report", "../in/model", *PAIRS, "--output", "report.html"]
DATA = ["data", "../in/pairs.csv", "--contradictions"]
SEARCH = ["search", "../in/idx", "--model", "../in/model", "--file", "../in/others.csv", "--output"]
PUSH = ["push", "../in/checkpoint", "someone/model", "--dry-run", "model"]
AGREE = ["label", "agreement", "../in/labels.csv", "--disagreements", "disputes.csv", "--output", "joint.csv"]
QUICK = [*PAIRS, "--encoder", "static", "--epochs", "1", "--batch-size", "64"]
TRAIN = ["train", *QUICK, "--output", "model"]
CROSS = ["train", *PAIRS, "--model", "cross-encoder", "--encoder", "tiny", "--epochs", "1", "--batch-size", "64"]
CROSS += ["--output", "model"]
RESUME = ["train", "--output", "model", "--resume"]
AUDIT = ["audit", *QUICK, "--folds", "2", "--output", "suspects.csv"]
CELLS = [*PAIRS, "--epochs", "1", "--batch-size", "64", "--seeds", "1"]
COMPARE = ["compare", *CELLS, "--encoders", "static", "--losses", "contrastive,cosent", "--budget-minutes", "0"]
COMPARE += ["--output", "cmp"]
CURVE = [
    "learning-curve",
    *CELLS,
    "--encoder",
    "static",
    "--sizes",
    "24,36,48,64",
    "--equal-epochs",
    "--output",
    "curve",
]
SERVE = ["serve", "../in/fitted", "--port", "0"]
START = ["start", "../in/questions.csv", "--model", "../in/fitted", "--output", "session", "--budget"]
OVER = ["--overwrite"]

LIGHT = [
    Scenario("embed", EMBED, embeddings),
    Scenario("embed --overwrite", [*EMBED, *OVER], embeddings, [OTHER], loses=True),
    Scenario("embed --dtype int8", [*EMBED, "--dtype", "int8"], embeddings),
    Scenario("index", INDEX, index),
    Scenario("index --overwrite", [*INDEX, *OVER], index, [["index", "../in/more", "--output", "idx"]]),
    Scenario("index --kind hnsw", [*INDEX, "--kind", "hnsw"], index),
    Scenario("index --add", ["index", "idx", "--add", "../in/more"], index, [INDEX]),
    Scenario("index --add, hnsw", ["index", "idx", "--add", "../in/more"], index, [[*INDEX, "--kind", "hnsw"]]),
    Scenario("index --delete", ["index", "idx", "--delete", "../in/ids.txt"], index, [INDEX]),
    Scenario("dedupe", DEDUPE, duplicates),
    Scenario("dedupe --overwrite", [*DEDUPE, *OVER], duplicates, [[*DEDUPE, "--format", "tsv"]]),
    *(Scenario(f"dedupe --format {kind}", [*DEDUPE, "--format", kind], duplicates) for kind in ("jsonl", "parquet")),
    Scenario("dedupe --against", [*DEDUPE, "--against", "../in/others.csv"], duplicates),
    Scenario("dedupe of embeddings", ["dedupe", "../in/model", "../in/emb", *DEDUPE[3:]], duplicates),
    *(
        Scenario(f"search, {kind}", [*SEARCH, f"found.{kind}"], files(f"found.{kind}"))
        for kind in ("csv", "jsonl", "parquet")
    ),
    Scenario("search --overwrite", [*SEARCH, "found.csv", *OVER], files("found.csv"), [[*DATA, "found.csv"]]),
    *(
        Scenario(f"predict, {kind}", [*PREDICT, f"scored.{kind}"], files(f"scored.{kind}"))
        for kind in ("csv", "tsv", "jsonl", "parquet")
    ),
    Scenario("predict --overwrite", [*PREDICT, "scored.csv", *OVER], files("scored.csv"), [[*DATA, "scored.csv"]]),
    Scenario("data --contradictions", [*DATA, "against.csv"], files("against.csv")),
]
LIVED = [
    Scenario(
        "serve --index",
        [*SERVE, "--index", "idx"],
        changed_index,
        [INDEX],
        prepare=served_to(index_client(QUESTIONS)),
        changes=5,
    ),
    Scenario(
        "serve --index, hnsw",
        [*SERVE, "--index", "idx"],
        changed_index,
        [[*INDEX, "--kind", "hnsw"]],
        prepare=served_to(index_client(QUESTIONS)),
        changes=5,
    ),
    Scenario(
        "serve --labels",
        [*SERVE, "--index", "idx", "--labels", "labels.csv", "--annotator", "ana"],
        files("labels.csv", "labels.skipped.csv"),
        [INDEX],
        parts=True,
        prepare=served_to(label_client()),
        changes=7,
    ),
    Scenario(
        "serve --clusters",
        [*SERVE, "--clusters", "dup"],
        mended_clusters,
        [DEDUPE],
        parts=True,
        prepare=served_to(cluster_client()),
        changes=5,
    ),
    Scenario(
        "serve --questions",
        [*SERVE, "--questions", "questions.csv"],
        session("questions-qpairs"),
        copied=["questions.csv"],
        parts=True,
        prepare=served_to(session_client()),
        changes=4,
    ),
    Scenario(
        "start",
        [*START, "5"],
        session("session"),
        parts=True,
        prepare=keys_for("session/labels.csv"),
        changes=4,
    ),
    Scenario(
        "start, gone on with",
        [*START, "5"],
        session("session"),
        [[*START, "2"]],
        parts=True,
        prepare=keys_for("session/labels.csv"),
        changes=4,
    ),
]
HEAVY = [
    Scenario("calibrate", CALIBRATE, model),
    Scenario("calibrate --overwrite", [*CALIBRATE, *OVER], model, [PUSH]),
    Scenario("calibrate --corpus", CORPUS, model),
    Scenario("evaluate --json", EVALUATE, files("report.json")),
    Scenario("errors", ERRORS, files("errors/mistakes.csv", "errors/slices.csv"), parts=True),
    Scenario("report", REPORT, files("report.html")),
    Scenario("label agreement", AGREE, files("disputes.csv", "joint.csv"), parts=True),
    Scenario("push --dry-run", PUSH, model),
    Scenario("export --format static", [*EXPORT, "static"], model),
    Scenario("export --overwrite", [*EXPORT, "static", *OVER], model, [CALIBRATE]),
    Scenario("export --format onnx", [*EXPORT, "onnx"], model),
    Scenario("combine", COMBINE, model),
    Scenario("combine --overwrite", [*COMBINE, *OVER], model, [CALIBRATE]),
    Scenario("audit", AUDIT, files("suspects.csv")),
    Scenario("train", TRAIN, model, resumed=RESUME),
    Scenario("train --overwrite", [*TRAIN, *OVER], model, [CALIBRATE]),
    Scenario("train, cross-encoder", CROSS, model, resumed=RESUME, prepare=small_networks),
    Scenario("compare", COMPARE, cells("cmp", "results.csv"), parts=True, prepare=forked_cells, cells=True),
    Scenario(
        "learning-curve",
        CURVE,
        cells("curve", "curve.csv"),
        parts=True,
        prepare=forked_cells,
        cells=True,
    ),
]
THINNED = {
    "dedupe of embeddings": (3, 1),
    **dict.fromkeys(("serve --index", "serve --index, hnsw", "serve --labels", "serve --clusters"), (2, 1)),
    **dict.fromkeys(("serve --questions", "start", "start, gone on with"), (8, 2)),
    **dict.fromkeys(("calibrate --overwrite", "calibrate --corpus", "push --dry-run", "export --overwrite"), (2, 1)),
    **dict.fromkeys(("combine", "combine --overwrite"), (6, 2)),
    **dict.fromkeys(("train", "train --overwrite"), (8, 2)),
    "train, cross-encoder": (12, 4),
    "compare": (8, 3),
    "learning-curve": (12, 6),
}  # `every` and `kills` of what takes long, unless QPAIRS_CHAOS_WHOLE is set
# Those first that import least: forking a large process takes longer.
SCENARIOS = [
    replace(scenario, **dict(zip(("every", "kills"), () if WHOLE else THINNED.get(scenario.name, ()), strict=False)))
    for scenario in (*LIGHT, *LIVED, *HEAVY)
]


def make_inputs(folder: Path) -> None:
    """Writes what the commands read: a checkpoint, its export as the model, a cross-encoder, pairs, questions,
    embeddings, an index.
    """
    folder.mkdir()
    shutil.copytree(MADE / "one", folder / "checkpoint")
    shutil.copytree(MADE / "one-static", folder / "model")
    lines = (MADE / "pairs.csv").read_text("utf-8").splitlines()
    (folder / "pairs.csv").write_text("\n".join(lines[:161]) + "\n", "utf-8")
    texts = (MADE / "questions.txt").read_text("utf-8").splitlines()
    (folder / "questions.csv").write_text("\n".join(["question", *map(json.dumps, texts)]) + "\n", "utf-8")
    (folder / "others.csv").write_text("\n".join(["question", *map(json.dumps, texts[:7])]) + "\n", "utf-8")
    more = [f"m{row},{json.dumps(text + ' please')}" for row, text in enumerate(texts[:9])]
    (folder / "more.csv").write_text("\n".join(["id,question", *more]) + "\n", "utf-8")
    (folder / "ids.txt").write_text("2\n5\n", "utf-8")
    labels = [f"{line},stratified,0.1,{who}" for line in lines[1:31] for who in ("ana", "bo")]
    (folder / "labels.csv").write_text(
        "\n".join(["question1,question2,is_duplicate,drawn,drawing_probability,annotator", *labels]) + "\n", "utf-8"
    )
    for arguments in (
        ["embed", "model", "questions.csv", "--output", "emb"],
        ["embed", "model", "more.csv", "--id-column", "id", "--output", "more"],
        ["index", "emb", "--output", "idx"],
    ):
        made = run_child(command(arguments), folder)
        assert made.code == 0, made.text


def warm_up(folder: Path) -> None:
    """Does once, in this process, what each child would do before its command, and which takes long."""
    import torch

    from qpairs.encoders.precision import bf16_speedup

    torch.set_num_threads(1)  # a child would wait for a thread that it has not got
    bf16_speedup()
    qpairs.load(folder / "cross")


def make_models(folder: Path) -> None:
    """Writes what takes more imports than the rest: a model that knows the densities of its scores, and a
    cross-encoder of random weights.
    """
    if not (folder / "cross").exists():
        for action in (
            command(["calibrate", "model", "--data", "pairs.csv", "--output", "fitted"]),
            lambda: _write_cross_encoder(folder),
        ):
            made = run_child(action, folder)
            assert made.code == 0, made.text
        warm_up(folder)


def _write_cross_encoder(folder: Path) -> None:
    from stages import write_tiny_cross_model

    small_networks()
    write_tiny_cross_model(folder / "cross", qpairs.load_pairs(str(folder / "pairs.csv")))


def hidden(place: Path) -> list[str]:
    """What a command leaves hidden, but for the locks of folders that grow."""
    return [file.relative_to(place).as_posix() for file in place.rglob(".*") if file.name != ".lock"]
