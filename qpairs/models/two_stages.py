"""Two models as one: an encoder finds pairs, and a cross-encoder takes a second look if that can change the decision.

The folder is that of the encoder, unchanged (`SentenceTransformer(path)` loads it), with the cross-encoder in
`reranker/` (`CrossEncoder(path / "reranker")` loads it) and `second_look.json`, which says what both mean together.
Retrieve and re-rank: Nogueira and Cho (2019), Passage Re-ranking with BERT.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from qpairs.config import Config
from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_folder, read_text
from qpairs.core.manifests import read_manifest
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.pairs import Pairs
from qpairs.encoders.counter import TokenCounter
from qpairs.metrics import SecondLook
from qpairs.models import methods
from qpairs.models.base import (
    FILE,
    LOOK,
    RERANKER,
    Floats,
    Model,
    Side,
    Tables,
    check_output,
    embed_in_blocks,
    load,
    require_outside,
)
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.exported import Export
from qpairs.models.model_file import CHECKSUMS, look_file
from qpairs.models.pair_reader import read_pairs
from qpairs.models.predictions import predict_pairs, similarity_of
from qpairs.models.verdict import Verdict
from qpairs.models.verdict_file import verdict_from_dict, verdict_to_dict

LOOK_FORMAT = 1


class Band(NamedTuple):
    """First scores from `low` to `high`, for which the second look can change the decision."""

    low: float
    high: float

    def holds(self, scores: ArrayLike) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether scores lie in it."""
        values = np.asarray(scores, dtype=np.float64)
        return np.asarray((values >= self.low) & (values <= self.high))


@dataclass(frozen=True)
class TwoStages:
    """An encoder and a cross-encoder that decide together: a `Model`, whose score is the log odds of a duplicate.

    Vectors are those of the encoder, so its index works for this model, too.

    Attributes:
        first: the encoder, with its own verdict.
        second: the cross-encoder.
        look: what the logit of the second adds to the log odds of the first.
        verdict: of both together, on given pairs.
        scores: part -> report, as in `evaluation.Report.to_dict`; `second_look`: what it changed on validation.
        versions: of the libraries that combined them, and the time.
        path: the folder.
    """

    first: Model
    second: CrossModel
    look: SecondLook
    verdict: Verdict
    scores: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    path: Path = Path()

    @property
    def fingerprint(self) -> str:
        """Identity of its vectors, which are the encoder's."""
        return self.first.fingerprint

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.first.dimension

    @property
    def one_tower(self) -> bool:
        """Whether both sides of a pair have the same encoder."""
        return self.first.one_tower

    @property
    def config(self) -> Config:
        """The options of the encoder's run."""
        return self.first.config

    @property
    def split(self) -> Mapping[str, Any]:
        """Fingerprint and sizes of the parts of the encoder's run."""
        return self.first.split

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """What the training of the encoder reported."""
        return self.first.history

    @functools.cached_property
    def band(self) -> Band:
        """First scores of pairs whose decision the second look can change; outside it cannot, at 99 %."""
        return Band(*self.look.band(self.first.verdict.pair.log_odds, self.verdict.pair.threshold))

    def encode(self, texts: Sequence[str], side: Side = "left") -> Floats:
        """Unit vectors (n, dimension) of texts, in their order."""
        return self.first.encode(texts, side)

    def embed_tables(self, questions: Sequence[str]) -> Tables:
        """The vectors of questions as first ones and as second ones."""
        return self.first.embed_tables(questions)

    def score_tables(self, tables: Tables, pairs: Pairs) -> Floats:
        """Log odds (n_pairs,) of pairs whose questions are already embedded; pairs in the band are read."""
        scores = self.first.score_tables(tables, pairs)
        return self.join(scores, self.read(pairs, self.band.holds(scores)))

    def score_pairs(self, pairs: Pairs, on_progress: OnProgress = ignore) -> tuple[Floats, Tables]:
        """Log odds (n_pairs,) of pairs, labelled or not, and the vectors of their questions."""
        tables = embed_in_blocks(self, pairs.questions, on_progress)
        scores = self.first.score_tables(tables, pairs)
        return self.join(scores, self.read(pairs, self.band.holds(scores), on_progress)), tables

    def join(self, scores: Floats, logits: Floats) -> Floats:
        """Log odds (n,) that both models give together.

        Args:
            scores: (n,) scores of the first.
            logits: (n,) of the second; NaN for pairs that it has not read.
        """
        log_odds = self.first.verdict.pair.log_odds(scores) + self.look.gain(scores, logits)
        return log_odds.astype(np.float32)

    def read(self, pairs: Pairs, rows: np.ndarray[Any, np.dtype[np.bool_]], on_progress: OnProgress = ignore) -> Floats:
        """Logits (n_pairs,) of the cross-encoder for the pairs that a mask names; NaN for the others.

        A pair that occurs several times, in either order, is read once.
        """
        logits = np.full(len(pairs), np.nan, dtype=np.float32)
        ends = np.sort(np.stack([pairs.left[rows], pairs.right[rows]], axis=1), axis=1)
        once, place = np.unique(ends, axis=0, return_inverse=True)
        texts = [(pairs.questions[left], pairs.questions[right]) for left, right in once.tolist()]
        logits[rows] = read_pairs(self.second.reader, texts, on_progress)[place.ravel()]
        return logits

    @property
    def token_counter(self) -> TokenCounter | None:
        """Counts the tokens of whole texts as the encoder reads them."""
        return self.first.token_counter

    def with_verdict(self, verdict: Verdict, scores: Mapping[str, Any]) -> TwoStages:
        """The same two models with another verdict."""
        return dataclasses.replace(self, verdict=verdict, scores=scores)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes both models into a folder that is whole or not there.

        Raises:
            UserError: the folder is not empty, is inside that of one of them, or cannot be written.
        """
        path = Path(path)
        for stage in (self.first, self.second):
            if isinstance(stage, Export | CrossModel):  # whose files are copied
                require_outside(path, stage.path)
        with atomic_folder(path) as fresh:
            check_output(path, overwrite=overwrite)
            self.first.save(fresh)
            (fresh / LOOK).unlink(missing_ok=True)
            self.second.save(fresh / RERANKER, overwrite=True)
            self.write_look(fresh)

    predict = predict_pairs
    similarity = similarity_of
    dedupe = methods.dedupe
    search = methods.search
    _facts = methods.facts
    __repr__, _repr_html_ = one_line, html_card

    def write_look(self, folder: Path) -> None:
        """Writes `second_look.json` into the folder of the encoder, which already has `reranker/`."""
        found = {
            "format": LOOK_FORMAT,
            "look": asdict(self.look),
            "verdict": verdict_to_dict(self.verdict),
            "scores": dict(self.scores),
            "versions": dict(self.versions),
            "stages": _stages_in(folder),
        }
        (folder / LOOK).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def open_two_stages(path: Path, first: Model) -> TwoStages:
    """The model of two stages in a folder whose encoder is already open.

    Raises:
        UserError: its cross-encoder is missing, or a file is damaged; or they are not the two that were combined.
    """
    again = "combine them again: qpairs combine ENCODER CROSS_ENCODER --output FOLDER"
    if not (path / RERANKER / FILE).exists():
        raise UserError(f"{path / RERANKER}: no {FILE} here; use only the encoder with --no-reranker, or {again}")
    second = load(path / RERANKER)
    if not isinstance(second, CrossModel):
        raise UserError(f"{path / RERANKER}: not a cross-encoder")

    def parse(data: dict[str, Any]) -> TwoStages:
        joined, here = data.get("stages", {}), _stages_in(path)  # older versions have none
        for name in joined:
            if joined[name] != here[name]:
                raise UserError(f"{path / LOOK}: was fitted to another {name} than the one in {path}; {again}")
        stored = data["look"]
        look = SecondLook(
            **stored
            | {name: tuple(stored[name]) for name in ("lowest", "highest")}
            | {"factors": tuple(tuple(row) for row in stored.get("factors", ()))}
        )
        return TwoStages(first, second, look, verdict_from_dict(data), data["scores"], data["versions"], path)

    return read_manifest(path / LOOK, parse, newest=LOOK_FORMAT, missing=f"{path}: no {LOOK} here", shape=look_file)


def _stages_in(path: Path) -> dict[str, str]:
    """A digest of the checksums of each model in a combined folder."""
    found = {}
    for name, folder in (("encoder", path), ("cross-encoder", path / RERANKER)):
        weights = json.loads(read_text(folder / FILE)).get(CHECKSUMS, {})
        found[name] = hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()
    return found


def first_stage(model: Model) -> Model:
    """The model that finds candidates: the encoder of a model of two stages, or the model itself."""
    return model.first if isinstance(model, TwoStages) else model


def second_stage(model: Model) -> TwoStages | None:
    """The model, if it takes a second look at candidates."""
    return model if isinstance(model, TwoStages) else None


def log_odds_of(probability: float) -> float:
    """The log odds of a probability in [0, 1]; infinite at its ends."""
    if probability in (0.0, 1.0):
        return math.inf if probability else -math.inf
    return math.log(probability / (1 - probability))
