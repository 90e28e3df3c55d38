"""Commands that write, with what was there before them and what they must have made in the end."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faults import command, run_child

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.retrieval.embeddings import open_shards
from qpairs.retrieval.index import open_index

MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
Seen = Callable[[Path], Any]  # what stands at an output; None where nothing whole does


@dataclass(frozen=True)
class Scenario:
    """A command.

    Attributes:
        name: of the scenario.
        arguments: of the command, which runs in a folder of its own beside the inputs.
        seen: what stands at its output, as values that can be compared.
        before: commands that run there first.
        loses: whether what was there may be gone where the command is killed, as it is asked to replace it.
        resumed: arguments with which the command goes on; by default the same.
    """

    name: str
    arguments: Sequence[str]
    seen: Seen
    before: Sequence[Sequence[str]] = ()
    loses: bool = False
    resumed: Sequence[str] = ()


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


EMBED = ["embed", "../in/model", "../in/questions.csv", "--output", "emb", "--shard-size", "16"]
OTHER = ["embed", "../in/model", "../in/others.csv", "--output", "emb", "--shard-size", "16"]
INDEX = ["index", "../in/emb", "--output", "idx"]
DEDUPE = ["dedupe", "../in/model", "../in/questions.csv", "--output", "dup", "--threshold", "0.6"]
CALIBRATE = ["calibrate", "../in/model", "--data", "../in/pairs.csv", "--output", "model"]
EXPORT = ["export", "../in/checkpoint", "--data", "../in/pairs.csv", "--format", "static", "--output", "model"]
EXPORT += ["--max-loss", "1"]
PREDICT = ["predict", "../in/model", "../in/pairs.csv", "--output", "scored.csv"]
EVALUATE = ["evaluate", "../in/model", "--data", "../in/pairs.csv", "--json", "report.json"]
ERRORS = ["errors", "../in/model", "--data", "../in/pairs.csv", "--output", "errors"]
REPORT = ["report", "../in/model", "--data", "../in/pairs.csv", "--output", "report.html"]
DATA = ["data", "../in/pairs.csv", "--contradictions", "against.csv"]
SEARCH = ["search", "../in/idx", "--model", "../in/model", "--file", "../in/others.csv", "--output", "found.csv"]
PUSH = ["push", "../in/checkpoint", "someone/model", "--dry-run", "model"]
AGREE = ["label", "agreement", "../in/labels.csv", "--disagreements", "disputes.csv", "--output", "joint.csv"]
TRAIN = ["train", "--data", "../in/pairs.csv", "--encoder", "static", "--epochs", "1", "--batch-size", "64"]
TRAIN += ["--output", "model"]
STRICTER = [*CALIBRATE, "--skip-bad-rows"]
OVER = ["--overwrite"]

SCENARIOS = [
    Scenario("embed", EMBED, embeddings),
    Scenario("embed --overwrite", [*EMBED, *OVER], embeddings, [OTHER], loses=True),
    Scenario("index", INDEX, index),
    Scenario("index --overwrite", [*INDEX, *OVER], index, [["index", "../in/more", "--output", "idx"]]),
    Scenario("index --add", ["index", "idx", "--add", "../in/more"], index, [INDEX]),
    Scenario("index --delete", ["index", "idx", "--delete", "../in/ids.txt"], index, [INDEX]),
    Scenario("dedupe", DEDUPE, duplicates),
    Scenario("dedupe --overwrite", [*DEDUPE, *OVER], duplicates, [[*DEDUPE, "--format", "tsv"]]),
    Scenario("calibrate", CALIBRATE, model),
    Scenario("calibrate --overwrite", [*CALIBRATE, *OVER], model, [PUSH]),
    Scenario("export", EXPORT, model),
    Scenario("export --overwrite", [*EXPORT, *OVER], model, [CALIBRATE]),
    Scenario("predict", PREDICT, files("scored.csv")),
    Scenario("predict --overwrite", [*PREDICT, *OVER], files("scored.csv"), [[*DATA[:3], "scored.csv"]]),
    Scenario("evaluate --json", EVALUATE, files("report.json")),
    Scenario("errors", [*ERRORS, *OVER], files("errors/mistakes.csv", "errors/slices.csv")),
    Scenario("report", REPORT, files("report.html")),
    Scenario("data --contradictions", DATA, files("against.csv")),
    Scenario("search --file", SEARCH, files("found.csv")),
    Scenario("label agreement", [*AGREE, *OVER], files("disputes.csv", "joint.csv")),
    Scenario("push --dry-run", PUSH, model),
    Scenario("train", TRAIN, model, resumed=["train", "--output", "model", "--resume"]),
    Scenario("train --overwrite", [*TRAIN, *OVER], model, [CALIBRATE]),
]


def make_inputs(folder: Path) -> None:
    """Writes what the commands read: a checkpoint, its export as the model, pairs, questions, embeddings, an index."""
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


def hidden(place: Path) -> list[str]:
    """What a command leaves hidden, but for the locks of folders that grow."""
    return [file.relative_to(place).as_posix() for file in place.rglob(".*") if file.name != ".lock"]
