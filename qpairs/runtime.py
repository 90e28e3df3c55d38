"""A folder -> a `Model`: texts to unit vectors, and what their similarity means.

A checkpoint is run by torch, which is imported when one is loaded. Several threads may share a model.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs.faults import UserError
from qpairs.metrics import Calibration, OperatingPoint

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Side = Literal["left", "right"]
Floats = NDArray[np.float32]

FILE = "qpairs.json"
WINDOW = 4096  # texts that are tokenised ahead of the model, and sorted by length


class Encoder(Protocol):
    """Texts to unit vectors."""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""

    def encode(self, texts: Sequence[str], side: Side = "left") -> Floats:
        """Unit vectors (n, dimension) of texts, in their order; `side` matters where two towers share nothing."""


@dataclass(frozen=True)
class Model:
    """What a folder gives that answers questions: an encoder and its verdict.

    Attributes:
        encoder: texts to unit vectors.
        path: the folder.
        fingerprint: identity of the vectors: 16 hex digits over weights and tokenizer, not over the calibration.
        threshold: score from which on two questions are called duplicates.
        calibration: score to probability of being duplicates.
        operating_points: thresholds for a precision, rising; none in checkpoints of older versions.
        symmetric: whether the sides of a pair may be swapped; two towers then score the mean of both directions.
        score: what threshold, calibration and operating points are of: the cosine, or the probability of a head.
    """

    encoder: Encoder
    path: Path
    fingerprint: str
    threshold: float
    calibration: Calibration
    operating_points: Sequence[OperatingPoint]
    symmetric: bool
    score: Literal["cosine", "head"] = "cosine"

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.encoder.dimension

    def encode(self, texts: Sequence[str], side: Side = "left") -> Floats:
        """Unit vectors (n, dimension) of texts, in their order."""
        return self.encoder.encode(texts, side)

    def require_cosine(self) -> None:
        """Raises UserError where a verdict cannot be read from the cosine, because a head gives it."""
        if self.score != "cosine":
            raise UserError(
                f"{self.path}: its verdict is that of a head, which cosines don't have; train with --score cosine"
            )

    def probability(self, similarity: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of being duplicates, in the shape of the cosines."""
        self.require_cosine()
        return self.calibration.probability(similarity)

    def threshold_for(self, precision: float) -> float:
        """The lowest threshold that reached a precision on validation, from the next operating point above it.

        Raises:
            UserError: no threshold did, or the folder has no operating points.
        """
        self.require_cosine()
        if not self.operating_points:
            raise UserError(f"{self.path}: no thresholds for a precision in it; qpairs calibrate makes them")
        best = self.operating_points[-1]
        if precision > best.precision:
            raise UserError(
                f"{self.path}: no threshold reached precision {precision:g} on validation; the highest is "
                f"{best.precision:g}, with recall {best.recall:.2f}"
            )
        return next(point.threshold for point in self.operating_points if point.precision >= precision)


def load(path: str | Path) -> Model:
    """The model in a folder that `qpairs train` or `qpairs calibrate` wrote.

    Raises:
        UserError: no such folder, or no model in it.
    """
    path = Path(path)
    encoder, data = _checkpoint(path)
    return Model(
        encoder=encoder,
        path=path,
        fingerprint=fingerprint(path),
        threshold=float(data["threshold"]),
        calibration=Calibration(**data["calibration"]),
        operating_points=[OperatingPoint(**point) for point in data.get("operating_points", ())],
        symmetric=data["config"].get("symmetric", True),
        score=data["config"].get("score", "cosine"),
    )


def fingerprint(path: Path) -> str:
    """16 hex digits over the weights and the tokenizer in a folder, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.suffix in (".safetensors", ".onnx") and name != "head.safetensors":
            digest.update(f"{name}\n".encode())
            with file.open("rb") as weights:
                digest.update(hashlib.file_digest(weights, "sha256").digest())
        elif file.name in ("tokenizer.json", "whitespacetokenizer_config.json"):
            rules = json.loads(file.read_text(encoding="utf-8"))
            rules.pop("padding", None)  # which the last call to the tokenizer leaves behind
            digest.update(f"{name}\n{json.dumps(rules, sort_keys=True)}".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Tower:
    """One side of an encoder; what its tokens are is its own affair.

    Attributes:
        tokenise: texts to tokens, from one thread or several.
        embed: the tokens of n texts to unit vectors (n, dimension), likewise.
    """

    tokenise: Callable[[Sequence[str]], Any]
    embed: Callable[[Any], Floats]


@dataclass(frozen=True)
class Towers:
    """An `Encoder` of one tower, which is then both, or two."""

    left: Tower
    right: Tower
    dimension: int

    def encode(self, texts: Sequence[str], side: Side = "left") -> Floats:
        """Unit vectors (n, dimension) of texts, in their order; each window is tokenised while the last is embedded."""
        tower: Tower = getattr(self, side)
        if len(texts) <= WINDOW:
            return tower.embed(tower.tokenise(texts))
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        start = 0
        for block in _ahead(tower.tokenise, texts):
            embedded = tower.embed(block)
            vectors[start : start + len(embedded)] = embedded
            start += len(embedded)
        return vectors


def _ahead(tokenise: Callable[[Sequence[str]], Any], texts: Iterable[str]) -> Iterator[Any]:
    """The tokens of window after window, the next one always under way in a thread."""
    rest = iter(texts)

    def window() -> Any:
        found = list(itertools.islice(rest, WINDOW))
        return tokenise(found) if found else None

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(window)
        while (tokens := coming.result()) is not None:
            coming = thread.submit(window)
            yield tokens


# Checkpoints, by torch


def _checkpoint(path: Path) -> tuple[Towers, dict[str, Any]]:
    from qpairs.checkpoint import load_checkpoint
    from qpairs.encoders import towers

    checkpoint = load_checkpoint(path)
    encoder = checkpoint.encoder.eval()
    left, right = towers(encoder)
    first = _torch_tower(left)
    second = first if right is left else _torch_tower(right)
    data = json.loads((path / FILE).read_text(encoding="utf-8"))
    return Towers(first, second, encoder.get_embedding_dimension() or 0), data


def _torch_tower(tower: SentenceTransformer) -> Tower:
    import torch

    from qpairs.encoders import embed, token_ids
    from qpairs.training import fast_bf16

    lock = threading.Lock()  # the tokenizers of transformers change their own settings
    bf16 = fast_bf16(tower)

    def tokenise(texts: Sequence[str]) -> Any:
        with lock:
            return token_ids(tower, texts)

    def run(ids: Any) -> Floats:
        with torch.autocast(tower.device.type, torch.bfloat16, enabled=bf16):
            return embed(tower, ids)

    return Tower(tokenise, run)
