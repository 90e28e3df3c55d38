"""A folder -> a `Model`: texts to unit vectors, and what their similarity means.

A checkpoint is run by torch, an ONNX export by ONNX Runtime, one of word vectors by numpy and scipy; each is imported
when such a folder is loaded. Several threads may share a model.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import string
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer

from qpairs.core.exceptions import UserError
from qpairs.metrics import Calibration, OperatingPoint

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from sentence_transformers import SentenceTransformer

Side = Literal["left", "right"]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

FILE = "qpairs.json"
FORMAT = 1  # of exports
GRAPH, VECTORS = "model.onnx", "vectors.safetensors"
TOKENIZER, WORDS = "tokenizer.json", "whitespacetokenizer_config.json"
HEAD = "head.safetensors"  # of a checkpoint: no vector depends on it

WINDOW = 2048  # texts that are tokenised ahead of the model, and sorted by length
BATCH_TOKENS = 256  # of a graph, each batch being one core's: what a layer hands to the next stays in its cache
KNOWN_WORDS = 2**20  # whose tokens are remembered


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
    """The model in a folder that `qpairs train`, `calibrate` or `export` wrote.

    Raises:
        UserError: no such folder, no model in it, or what runs it is not installed.
    """
    path = Path(path)
    try:
        data = json.loads((path / FILE).read_text(encoding="utf-8"))
        settings = data.get("config", data)  # a checkpoint's are those of its training
        return Model(
            encoder=open_export(path, data) if "kind" in data else _checkpoint(path),
            path=path,
            fingerprint=fingerprint(path),
            threshold=float(data["threshold"]),
            calibration=Calibration(**data["calibration"]),
            operating_points=[OperatingPoint(**point) for point in data.get("operating_points", ())],
            symmetric=settings.get("symmetric", True),
            score=settings.get("score", "cosine"),
        )
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no checkpoint and no export here (no {FILE})") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path}/{FILE}: damaged ({type(error).__name__}: {error})") from None


def fingerprint(path: Path) -> str:
    """16 hex digits over the weights and the tokenizers in a folder, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.suffix in (".safetensors", ".onnx") and name != HEAD:
            with file.open("rb") as weights:
                digest.update(f"{name}\n{hashlib.file_digest(weights, 'sha256').hexdigest()}".encode())
        elif file.name in (TOKENIZER, WORDS):
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
    """An `Encoder` of one tower, which is then both, or of two."""

    left: Tower
    right: Tower
    dimension: int

    def encode(self, texts: Sequence[str], side: Side = "left") -> Floats:
        """Unit vectors (n, dimension) of texts, in their order; a window is tokenised while the last is embedded."""
        tower: Tower = getattr(self, side)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        start = 0
        for tokens in _ahead(tower.tokenise, texts):
            embedded = tower.embed(tokens)
            vectors[start : start + len(embedded)] = embedded
            start += len(embedded)
        return vectors


def _ahead(tokenise: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> Iterator[Any]:
    """The tokens of window after window, the next one always under way in a thread."""
    windows = [texts[start : start + WINDOW] for start in range(0, len(texts), WINDOW)]
    if len(windows) < 2:
        yield from map(tokenise, windows)
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(tokenise, windows[0])
        for window in windows[1:]:
            tokens, coming = coming.result(), thread.submit(tokenise, window)
            yield tokens
        yield coming.result()


# Checkpoints, by torch


def _checkpoint(path: Path) -> Towers:
    from qpairs.encoders.build import towers
    from qpairs.models.bi_encoder import load_checkpoint

    encoder = load_checkpoint(path).encoder.eval()
    left, right = towers(encoder)
    first = _torch_tower(left)
    second = first if right is left else _torch_tower(right)
    return Towers(first, second, encoder.get_embedding_dimension() or 0)


def _torch_tower(tower: SentenceTransformer) -> Tower:
    import torch

    from qpairs.encoders.build import embed, token_ids
    from qpairs.encoders.precision import fast_bf16

    lock = threading.Lock()  # the tokenizers of transformers change their own settings
    bf16 = fast_bf16(tower)

    def tokenise(texts: Sequence[str]) -> Any:
        with lock:
            return token_ids(tower, texts)

    def run(ids: Any) -> Floats:
        with torch.autocast(tower.device.type, torch.bfloat16, enabled=bf16):
            return embed(tower, ids)

    return Tower(tokenise, run)


# Exports, without torch


@dataclass(frozen=True)
class Reading:
    """How a side of an export reads texts.

    Attributes:
        prompt: what is put before every text.
        special_tokens: whether the tokenizer adds its own.
        longest: tokens that are kept; None: all that the tokenizer gives.
        by_word: whether a blank always parts tokens, so that words can be tokenised one by one.
        pad: the id that fills up a batch.
        pad_left: whether it comes before the text.
    """

    prompt: str = ""
    special_tokens: bool = True
    longest: int | None = None
    by_word: bool = False
    pad: int = 0
    pad_left: bool = False


@dataclass(frozen=True)
class Tokens:
    """The token ids of n texts.

    Attributes:
        ids: (tokens,) of one text after the other.
        bounds: (n + 1,) where each text starts, and where the last one ends.
    """

    ids: Ints
    bounds: Ints


def open_export(path: Path, data: Mapping[str, Any]) -> Towers:
    """The encoder of an export; each of two towers has a folder of its own."""
    if data["format"] > FORMAT:
        raise UserError(f"{path}: written by a newer qpairs ({data['versions']['qpairs']}); upgrade qpairs")
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
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{folder}: an ONNX export needs ONNX Runtime: pip install 'qpairs[onnx]'") from None
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


# Tokens without transformers


def tokeniser(folder: Path, reading: Reading) -> Callable[[Sequence[str]], Tokens]:
    """Texts to the ids that the checkpoint's own tokenizer gives, from the file that is in the folder."""
    if (folder / WORDS).exists():
        rows_of = _looked_up(json.loads((folder / WORDS).read_text(encoding="utf-8")))
    else:
        rows_of = _encoded(Tokenizer.from_file(str(folder / TOKENIZER)), special_tokens=reading.special_tokens)
        rows_of = _remembered(rows_of) if reading.by_word else rows_of

    def tokenise(texts: Sequence[str]) -> Tokens:
        return joined([row[: reading.longest] for row in rows_of([reading.prompt + text for text in texts])])

    return tokenise


def joined(rows: Sequence[Sequence[int]]) -> Tokens:
    """The token ids of texts, in the form that is quick to cut batches from."""
    bounds = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=bounds[1:])
    return Tokens(np.fromiter(itertools.chain.from_iterable(rows), np.int64, bounds[-1]), bounds)


def bags(tokens: Tokens, vocabulary: int) -> csr_array:
    """How often each token occurs in each text, (n, vocabulary)."""
    from scipy.sparse import csr_array

    ones = np.ones(len(tokens.ids), dtype=np.float32)
    return csr_array((ones, tokens.ids, tokens.bounds), shape=(len(tokens.bounds) - 1, vocabulary))


Rows = Callable[[Sequence[str]], list[list[int]]]


def _encoded(tokenizer: Tokenizer, *, special_tokens: bool) -> Rows:
    def rows(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=special_tokens)]

    return rows


def _remembered(rows_of: Rows) -> Rows:
    """The same ids several times as fast: a word that was met before is not tokenised again."""
    known: dict[str, list[int]] = {}
    lock = threading.Lock()

    def rows(texts: Sequence[str]) -> list[list[int]]:
        words = [text.split(" ") for text in texts]
        with lock:
            if len(known) > KNOWN_WORDS:
                known.clear()
            new = [word for word in dict.fromkeys(itertools.chain.from_iterable(words)) if word not in known]
            known.update(zip(new, rows_of(new), strict=True))
            return [list(itertools.chain.from_iterable(map(known.__getitem__, parts))) for parts in words]

    return rows


def _looked_up(rules: Mapping[str, Any]) -> Rows:
    """The ids of sentence-transformers' WhitespaceTokenizer, which skips stop words and unknown ones.

    A word is looked up as it is, without the marks around it, and then in lower case.
    """
    vocabulary = {word: row for row, word in enumerate(rules["vocab"])}
    ids: dict[str, int | None] = {**vocabulary, **dict.fromkeys(rules["stop_words"])}

    def row(text: str) -> Iterator[int]:
        for word in (text.lower() if rules["do_lower_case"] else text).split():
            bare = word.strip(string.punctuation)
            form = next((form for form in (word, bare, bare.lower()) if form in ids), None)
            if form is not None and (found := ids[form]) is not None:
                yield found

    return lambda texts: [list(row(text)) for text in texts]
