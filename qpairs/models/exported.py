"""An export: ONNX graphs or word vectors that judge pairs without torch, transformers or sentence-transformers."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qpairs.config import Config, config_from
from qpairs.core.exceptions import UserError
from qpairs.core.extras import require
from qpairs.core.files import atomic_folder
from qpairs.data.pairs import Pairs
from qpairs.models.base import FILE, FORMAT, Floats, Side, Tables, check_output, cosine_scores, fingerprint
from qpairs.models.encoding import Tower, Towers
from qpairs.models.tokens import Ints, Reading, Tokens, bags, tokeniser
from qpairs.models.verdict import Verdict, verdict_from_dict, verdict_to_dict

GRAPH, VECTORS = "model.onnx", "vectors.safetensors"
BATCH_TOKENS = 256  # of a graph, each batch being one core's: what a layer hands to the next stays in its cache


@dataclass(frozen=True)
class Export:
    """A checkpoint in a form that runs without torch: a `Model`.

    Attributes:
        encoder: one tower or two.
        verdict: fitted anew to the export's own vectors.
        path: the folder.
        data: the content of its `qpairs.json`.
    """

    encoder: Towers
    verdict: Verdict
    path: Path
    data: Mapping[str, Any]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identity of its vectors, as its folder has them."""
        return fingerprint(self.path)

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.encoder.dimension

    @property
    def one_tower(self) -> bool:
        """Whether both sides of a pair have the same encoder."""
        return self.encoder.left is self.encoder.right

    @functools.cached_property
    def config(self) -> Config:
        """The options of the checkpoint; in exports of older versions `encoder` and `symmetric` alone."""
        known = {name: self.data[name] for name in ("encoder", "symmetric") if name in self.data}
        return config_from(self.data.get("config", known), where=f"{self.path}/{FILE}")

    @property
    def split(self) -> Mapping[str, Any]:
        """The parts of the checkpoint; empty in exports of older versions."""
        split: Mapping[str, Any] = self.data.get("split", {})
        return split

    @property
    def scores(self) -> Mapping[str, Any]:
        """What is known of how good the verdict is; the reports of the checkpoint are not true of the export."""
        scores: Mapping[str, Any] = self.data.get("scores", {})
        return scores

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The training history of the checkpoint."""
        history: Sequence[Mapping[str, Any]] = self.data.get("history", ())
        return history

    @property
    def versions(self) -> Mapping[str, str]:
        """Of what made the export, and when."""
        versions: Mapping[str, str] = self.data["versions"]
        return versions

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

    def with_verdict(self, verdict: Verdict, scores: Mapping[str, Any]) -> Export:
        """The same vectors with another verdict."""
        return dataclasses.replace(self, verdict=verdict, data={**self.data, "scores": dict(scores)})

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Writes the export into a folder that is whole or not there.

        Raises:
            UserError: the folder is in use, or cannot be written.
        """
        with atomic_folder(path) as fresh:
            check_output(path, overwrite=overwrite)
            shutil.copytree(self.path, fresh, dirs_exist_ok=True)
            parts = ("threshold", "calibration", "operating_points")  # of format 1
            data = {name: value for name, value in self.data.items() if name not in parts}
            data |= {"format": FORMAT, "verdict": verdict_to_dict(self.verdict)}
            (fresh / FILE).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def open_export(path: Path, data: Mapping[str, Any]) -> Export:
    """The export in a folder, of whose `qpairs.json` the content is `data`."""
    return Export(open_towers(path, data), verdict_from_dict(data), path, data)


def open_towers(path: Path, data: Mapping[str, Any]) -> Towers:
    """The encoder of an export; each of two towers has a folder of its own."""
    make = {"onnx": _onnx_tower, "onnx-int8": _onnx_tower, "static": _static_tower}[data["kind"]]
    readings = {path / name: Reading(**reading) for name, reading in data["towers"].items()}
    try:
        made = [make(folder, reading) for folder, reading in readings.items()]
    except UserError:
        raise
    except Exception as error:  # whatever tokenizers, safetensors and ONNX Runtime raise
        raise UserError(
            f"{path}: cannot be loaded: {(str(error).strip() or 'no reason given').splitlines()[0]}"
        ) from error
    return Towers(made[0], made[-1], data["dimension"])


def _onnx_tower(folder: Path, reading: Reading) -> Tower:
    """A graph from token ids and mask (n, width) to vectors; each core runs batches of its own."""
    onnxruntime = require("onnxruntime", f"{folder}: an ONNX export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
    cores = _cores()
    pool = ThreadPoolExecutor(cores)
    dimension = session.get_outputs()[0].shape[1]

    def embed(tokens: Tokens) -> Floats:
        lengths = np.diff(tokens.bounds)
        vectors = np.empty((len(lengths), dimension), dtype=np.float32)

        def run(rows: Ints) -> None:
            vectors[rows] = session.run(None, _padded(tokens, rows, reading))[0]

        share = math.ceil(lengths.sum() / cores)  # of few texts, so that no core waits for another
        list(pool.map(run, _by_length(lengths, min(BATCH_TOKENS, share))))
        return vectors

    return Tower(tokeniser(folder, reading), embed)


def _cores() -> int:
    """The cores that this process may use, or as many as OMP_NUM_THREADS says."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    affinity = getattr(os, "sched_getaffinity", None)  # on Linux alone
    return int(asked) if asked.isdigit() else len(affinity(0)) if affinity else os.cpu_count() or 1


def _by_length(lengths: Ints, batch_tokens: int) -> Iterator[Ints]:
    """Rows of texts of about one length, the longest first, such that a batch has so many tokens with its padding."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[0]])))
        yield order[:size]
        order = order[size:]


def _padded(tokens: Tokens, rows: Ints, reading: Reading) -> dict[str, Ints]:
    """Token ids and their mask, (rows, width) each."""
    lengths = tokens.bounds[rows + 1] - tokens.bounds[rows]
    places = np.arange(max(1, lengths.max()))
    inside = places < lengths[:, None]
    mask = inside[:, ::-1] if reading.pad_left else inside
    ids = np.full(mask.shape, reading.pad, dtype=np.int64)
    ids[mask] = tokens.ids[(tokens.bounds[rows, None] + places)[inside]]
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}


def _static_tower(folder: Path, reading: Reading) -> Tower:
    """The normalised mean of the vectors of the tokens; of no token at all, zeros."""
    from safetensors.numpy import load_file

    table = load_file(folder / VECTORS)["vectors"]  # (vocabulary, dimension)

    def embed(tokens: Tokens) -> Floats:
        sums = bags(tokens, len(table)) @ table  # (n, dimension)
        unit: Floats = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        return unit

    return Tower(tokeniser(folder, reading), embed)
