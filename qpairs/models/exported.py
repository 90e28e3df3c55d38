"""An export: graphs or word vectors that score pairs without torch, transformers or sentence-transformers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qpairs.config import Config, config_from
from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.manifests import reading_weights
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.pairs import Pairs
from qpairs.encoders.counter import TokenCounter
from qpairs.models import methods
from qpairs.models.base import (
    FILE,
    LOOK,
    RERANKER,
    Floats,
    Side,
    Tables,
    copied_folder,
    cosine_scores,
    embed_in_blocks,
    fingerprint,
    model_to_dict,
)
from qpairs.models.encoding import Tower, Towers
from qpairs.models.graphs import FORMS, open_graph
from qpairs.models.model_file import write_model_file
from qpairs.models.predictions import predict_pairs, similarity_of
from qpairs.models.tokens import Reading, Tokens, bag_of_words, export_counter, tokeniser
from qpairs.models.verdict import Verdict
from qpairs.models.verdict_file import verdict_from_dict

VECTORS = "vectors.safetensors"


@dataclass(frozen=True)
class Export:
    """A checkpoint in a form that runs without torch: a `Model`.

    Attributes:
        encoder: one tower or two.
        verdict: fitted again to the export's own vectors.
        config: the options of the checkpoint; in exports of older versions only `encoder` and `symmetric`.
        form: the export's part of `qpairs.json`: its kind, dimension and towers, its source, and the comparison with
            it.
        split: the parts of the checkpoint; empty in exports of older versions.
        scores: known scores of the verdict; the reports of the checkpoint do not hold for the export.
        history: the training history of the checkpoint.
        versions: of what made the export, and when.
        path: the folder.
    """

    encoder: Towers
    verdict: Verdict
    config: Config
    form: Mapping[str, Any]
    split: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    path: Path = Path()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identity of its vectors, as stored in its folder."""
        return fingerprint(self.path)

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.encoder.dimension

    @property
    def one_tower(self) -> bool:
        """Whether both sides of a pair have the same encoder."""
        return self.encoder.left is self.encoder.right

    def encode(self, texts: Sequence[str], side: Side = "left") -> Floats:
        """Unit vectors (n, dimension) of texts, in their order."""
        return self.encoder.encode(texts, side)

    def embed_tables(self, questions: Sequence[str]) -> Tables:
        """The vectors of questions as first ones and as second ones."""
        rows = self.encode(questions)
        return rows, rows if self.one_tower else self.encode(questions, "right")

    def score_tables(self, tables: Tables, pairs: Pairs) -> Floats:
        """Cosines (n_pairs,) of pairs whose questions are embedded already."""
        return cosine_scores(tables, pairs, symmetric=self.verdict.symmetric)

    def score_pairs(self, pairs: Pairs, on_progress: OnProgress = ignore) -> tuple[Floats, Tables]:
        """Cosines (n_pairs,) of pairs, labelled or not, and the vectors of their questions."""
        tables = embed_in_blocks(self, pairs.questions, on_progress)
        return self.score_tables(tables, pairs), tables

    @functools.cached_property
    def token_counter(self) -> TokenCounter:
        """Counts the tokens of whole texts as the first question of a pair is read."""
        name, reading = next(iter(self.form["towers"].items()))
        return export_counter(self.path / name, Reading(**reading))

    def with_verdict(self, verdict: Verdict, scores: Mapping[str, Any]) -> Export:
        """The same vectors with another verdict."""
        return dataclasses.replace(self, verdict=verdict, scores=scores)

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Writes the export into a folder that is whole or not there.

        Raises:
            UserError: the folder is not empty, is inside that of the export itself, or cannot be written.
        """
        of_two_stages = RERANKER, LOOK  # which the folder may have
        with copied_folder(path, self.path, overwrite=overwrite, without=of_two_stages) as fresh:
            write_export(self, fresh)

    predict = predict_pairs
    similarity = similarity_of
    dedupe = methods.dedupe
    search = methods.search
    _facts = methods.facts
    __repr__, _repr_html_ = one_line, html_card


def write_export(export: Export, folder: Path) -> None:
    """Writes the `qpairs.json` of an export, whose towers are in the folder already."""
    write_model_file(folder, {**export.form, **model_to_dict(export)})


def open_export(path: Path, data: Mapping[str, Any]) -> Export:
    """The export in a folder, from the content of its `qpairs.json`."""
    known = {name: data[name] for name in ("encoder", "symmetric") if name in data}  # of format 1
    return Export(
        open_towers(path, data),
        verdict_from_dict(data),
        config_from(data.get("config", known), where=f"{path}/{FILE}"),
        {name: data[name] for name in ("kind", "dimension", "towers", "source", "parity") if name in data},
        data.get("split", {}),
        data.get("scores", {}),
        data.get("history", ()),
        data["versions"],
        path,
    )


def open_towers(path: Path, data: Mapping[str, Any]) -> Towers:
    """The encoder of an export; each of two towers has its own folder."""
    openers: dict[str, Callable[[Path, Reading], Tower]] = {"static": _static_tower}
    openers |= {form: functools.partial(_graph_tower, form) for form in FORMS}
    make = openers[data["kind"]]
    readings = {path / name: Reading(**reading) for name, reading in data["towers"].items()}
    try:
        made = [make(folder, reading) for folder, reading in readings.items()]
    except UserError:
        raise
    except Exception as error:  # whatever tokenizers, safetensors, ONNX Runtime and OpenVINO raise
        raise UserError(
            f"{path}: cannot be loaded: {(str(error).strip() or 'no reason given').splitlines()[0]}"
        ) from error
    return Towers(made[0], made[-1], data["dimension"])


def _graph_tower(form: str, folder: Path, reading: Reading) -> Tower:
    """A graph from token ids and mask (n, width) to vectors."""
    graph = open_graph(folder, form, pad=reading.pad, pad_left=reading.pad_left)
    return Tower(tokeniser(folder, reading), graph.run)


def _static_tower(folder: Path, reading: Reading) -> Tower:
    """The normalised mean of the vectors of the tokens; zeros without tokens."""
    from safetensors.numpy import load_file

    with reading_weights(folder / VECTORS):
        table = load_file(folder / VECTORS)["vectors"]  # (vocabulary, dimension)

    def embed(tokens: Tokens) -> Floats:
        sums = bag_of_words(tokens, len(table)) @ table  # (n, dimension)
        unit: Floats = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        return unit

    return Tower(tokeniser(folder, reading), embed)
