"""The allowed content of `qpairs.json` and `second_look.json`, and the files they were written with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, get_args

from qpairs.core.exceptions import UserError
from qpairs.core.files import os_reason, sha256
from qpairs.core.manifests import read_manifest
from qpairs.core.shapes import (
    Shape,
    WrongShape,
    anything,
    each,
    flag,
    inside,
    named,
    number,
    one_of,
    optional,
    record,
    text,
    whole,
)
from qpairs.models.verdict import SCORE_RANGES, ScoreKind

T = TypeVar("T")

FILE = "qpairs.json"
FORMAT = 2  # 1: the parts of the verdict stood side by side in the file
RERANKER = "reranker"  # folder of the cross-encoder in a model of two stages: no vector depends on it

WEIGHTS = (".safetensors", ".onnx")  # endings of the files of weights
READING = (
    *("config.json", "tokenizer.json", "modules.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", ".model"),
)  # how the names end of the other files that vectors depend on: tokenizers, their words, and the modules' settings
CHECKSUMS = "weights"  # key of the checksums of both; older versions had those of weights alone
LONGEST = 1 << 20  # numbers of a vector, bins of a histogram

_SCORE = number(-1e6, 1e6)
_COUNT = number(0, 1e18)
_OBJECT = named(anything)
_CALIBRATION = record({"slope": number(), "intercept": number()})
_POINT = record({"precision": number(0, 1), "threshold": _SCORE, "recall": number(0, 1)})
_PAIR = record({"threshold": _SCORE, "calibration": _CALIBRATION}, {"operating_points": each(_POINT)}, others=True)
_REFERENCE = record({"quantiles": each(number(), least=2), "n": whole(1)})


def _length(name: Any, where: str) -> None:
    if not (name.isascii() and name.isdigit() and len(name) < 8):
        raise WrongShape(f"{where} is {name[:20]!r}, not a length")


def _tower(name: Any, where: str) -> None:
    if name:  # the folder itself has none
        inside(name, where)


def _densities(value: Any, where: str) -> None:
    """Densities whose lists have a number for each bin."""
    record(
        {
            "n": whole(1),
            "low": number(-1, 0.9999),
            "duplicates": each(_COUNT, least=1),
            "below": _COUNT,
            "near": each(number(), least=1),
            "strangers": each(number(), least=3),
            "factors": each(each(number())),
        },
        {
            "domain_sd": number(0, 1e3),
            "hit_gain": each(number()),
            "own": flag,
            "labels": whole(),
            "borrowed": flag,
        },
    )(value, where)
    bins = len(value["duplicates"])
    rows = {"near": value["near"], "hit_gain": value.get("hit_gain") or value["near"]}
    rows |= {f"factors[{place}]": row for place, row in enumerate(value["factors"])}
    for name, row in rows.items():
        if len(row) != bins:
            raise WrongShape(f"{where}.{name} has {len(row)} numbers, but duplicates has {bins}")
    if not any(value["duplicates"]) and not value["below"]:
        raise WrongShape(f"{where}.duplicates has no pairs")


def _verdict(value: Any, where: str) -> None:
    record(
        {"pair": _PAIR, "score": one_of(*get_args(ScoreKind)), "symmetric": flag},
        {
            "reference": optional(_REFERENCE),
            "tfidf_threshold": optional(number(-1, 2)),
            "densities": optional(_densities),
            "shortened": named(_verdict, _length),
            "labelled": flag,
        },
        others=True,
    )(value, where)
    _threshold(value["pair"]["threshold"], value["score"], f"{where}.pair.threshold")


def _threshold(value: float, score: Any, where: str) -> None:
    """A threshold with scores on both sides of it."""
    allowed = SCORE_RANGES.get(score) if isinstance(score, str) else None
    if allowed and not allowed.allows(value):
        raise WrongShape(f"{where} is {value!r}, must be {allowed.text('threshold')}")


_SPLIT = record(
    {},
    {"fingerprint": text, "sizes": named(whole()), "skipped": named(named(whole())), "trained_on": text},
    others=True,
)
_READING = record(
    {},
    {
        "prompt": text,
        "special_tokens": flag,
        "longest": optional(whole(1)),
        "by_word": flag,
        "pad": whole(),
        "pad_left": flag,
    },
)
_KNOWN: dict[str, Shape] = {
    "verdict": _verdict,
    "config": _OBJECT,
    "split": _SPLIT,
    "scores": named(_OBJECT),
    "history": each(_OBJECT),
    "versions": named(text),
    "kind": text,
    "dimension": whole(1, LONGEST),
    "towers": named(_READING, _tower),
    "reading": _READING,
    "encoder": text,
    "symmetric": flag,
    "threshold": _SCORE,
    "calibration": _CALIBRATION,
    "operating_points": each(_POINT),
    "reference": optional(_REFERENCE),
    "tfidf_threshold": optional(number(-1, 2)),
    "densities": optional(_densities),
    CHECKSUMS: named(record({"bytes": whole(), "sha256": text}), inside),
}  # of all formats: before the second, the parts of the verdict stood side by side


def model_file(value: Any, where: str) -> None:
    """The shape of `qpairs.json`.

    Raises:
        WrongShape: a value is not what its key allows.
    """
    record({"versions": named(text)}, _KNOWN, others=True)(value, where)
    if "verdict" not in value:
        record({"threshold": _SCORE, "calibration": _CALIBRATION}, others=True)(value, where)
        score = value.get("config", value).get("score", "cosine")
        _threshold(value["threshold"], score, f"{where}.threshold" if where else "threshold")


_NUMBERS = each(number(), length=2)
look_file = record(
    {
        "look": record(
            {"intercept": number(), "first": number(), "second": number(), "lowest": _NUMBERS, "highest": _NUMBERS},
            {"factors": each(each(number(), length=3))},
        ),
        "verdict": _verdict,
        "scores": named(_OBJECT),
        "versions": named(text),
    },
    {"stages": record({"encoder": text, "cross-encoder": text})},
    others=True,
)  # the shape of `second_look.json`


class OtherWeights(UserError):
    """Weights in a folder, or files that say how to use them, are not those of its `qpairs.json`."""


def write_model_file(folder: Path, content: Mapping[str, Any]) -> None:
    r"""Writes `qpairs.json` into a folder that has all other files.

    Sizes and checksums of the files that vectors depend on are added.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> write_model_file(place, {"format": 2})
    >>> (place / FILE).read_text()
    '{\n "format": 2,\n "weights": {}\n}\n'
    """
    weights = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if name != FILE and file.name.endswith(WEIGHTS + READING) and not name.startswith(f"{RERANKER}/"):
            weights[name] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    text = json.dumps({**content, CHECKSUMS: weights}, indent=1)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_model_file(folder: Path, parse: Callable[[dict[str, Any]], T], *, missing: str) -> T:
    """Parses the `qpairs.json` of a folder, and checks that the other files are those that it was written with.

    Files of older versions have no checksums, or only those of weights; a file without one is not checked.

    Args:
        folder: of a model.
        parse: converts the content of the file to what the caller wants.
        missing: the message if there is no such file.

    Raises:
        UserError: the file is missing, damaged, or written by a newer qpairs.
        OtherWeights: a file that vectors depend on is missing, cut off, edited, or of another model.

    >>> read_model_file(folder / "one", lambda data: data["config"]["encoder"], missing="no model here")
    'static'
    """

    def checked(data: dict[str, Any]) -> T:
        with ThreadPoolExecutor(1) as beside:  # a checksum takes as long as opening a graph, and lets Python go
            checking = beside.submit(check_weights, folder, data.get(CHECKSUMS, {}))
            try:
                return parse(data)
            finally:
                checking.result()  # what is raised here is raised in place of what `parse` raised of such a file

    return read_manifest(folder / FILE, checked, newest=FORMAT, missing=missing, shape=model_file)


def check_weights(folder: Path, known: Mapping[str, Any]) -> None:
    """Raises OtherWeights if a file of a folder differs from the stored size and checksum."""
    for name, expected in known.items():
        file = folder / name
        try:
            same = file.stat().st_size == expected["bytes"] and sha256(file) == expected["sha256"]
        except OSError as error:
            raise OtherWeights(f"{file}: cannot be read ({os_reason(error)}); the model is not complete") from None
        if not same:
            what, it = ("weights", "them") if file.suffix in WEIGHTS else ("file", "it")
            raise OtherWeights(
                f"{file}: not the {what} that the verdict next to {it} was fitted to: cut off, edited, or of another "
                "model; copy the whole folder again, or train again"
            )
