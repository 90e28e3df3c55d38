"""A checkpoint: a folder that `SentenceTransformer(path)` loads, plus `qpairs.json`.

`qpairs.json` holds the verdict, and how it was made: the config, the split's fingerprint, the scores, the training
history and the versions of the libraries.

Encoding alone does not need sentence-transformers if `encoders.stored` can read the encoder; it is imported, and loads
the encoder, when `Checkpoint.encoder` is used: by training, saving and export.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from qpairs.config import Config, config_from
from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_folder, recover_folder
from qpairs.core.manifests import reading_weights
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.pairs import Pairs
from qpairs.data.records import require_texts
from qpairs.encoders.counter import TokenCounter
from qpairs.encoders.precision import fast_bf16
from qpairs.encoders.stored import StoredEncoder, read_stored
from qpairs.encoders.stored_mean import StoredMean
from qpairs.models import methods
from qpairs.models.base import (
    FILE,
    HEAD,
    Floats,
    Side,
    Tables,
    check_output,
    embed_in_blocks,
    fingerprint,
    model_to_dict,
)
from qpairs.models.encoding import Tower, Towers
from qpairs.models.model_file import CHECKSUMS, check_weights, read_model_file, write_model_file
from qpairs.models.predictions import predict_pairs, similarity_of
from qpairs.models.verdict import Verdict
from qpairs.models.verdict_file import verdict_from_dict
from qpairs.models.versions import versions
from qpairs.objectives.pair_head import PairHead, Score

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SCORED = 65_536  # pairs at a time


@dataclass(frozen=True)
class InFolder:
    """An encoder in a folder, whose part for encoding is already read.

    Attributes:
        stored: encodes texts.
        folder: where it is.
        checksums: of its files, from its `qpairs.json`.
    """

    stored: StoredEncoder | StoredMean
    folder: Path
    checksums: Mapping[str, Any]

    @functools.cached_property
    def whole(self) -> SentenceTransformer:
        """The whole encoder, as loaded by sentence-transformers.

        Raises:
            UserError: its files have changed since they were read.
        """
        check_weights(self.folder, self.checksums)
        return _load_whole(self.folder)


@dataclass(frozen=True)
class Checkpoint:
    """A trained encoder and its verdict: a `Model`.

    Attributes:
        source: the encoder, or its folder.
        verdict: fitted on validation.
        config: the options of the run.
        split: fingerprint and sizes of the parts, dropped pairs, leaks.
        scores: part -> report, as in `evaluation.Report.to_dict`.
        history: what training reported: step, loss, f1, average_precision.
        versions: of the libraries, python and the machine, and the time of writing.
        head: the classifier whose probability is the score of a pair; None if that is the cosine.
        path: the folder it was read from, or written to.

    >>> checkpoint.encode(["How do I pay?", "Who are you?"]).shape, checkpoint.dimension, checkpoint.one_tower
    ((2, 128), 128, True)
    """

    source: SentenceTransformer | InFolder
    verdict: Verdict
    config: Config
    split: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    versions: Mapping[str, str] = field(default_factory=lambda: versions())
    head: PairHead | None = None
    path: Path = Path()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identity of its vectors, as stored in its folder."""
        return fingerprint(self.path)

    @property
    def encoder(self) -> SentenceTransformer:
        """Texts to unit vectors, by sentence-transformers, which loads it at the first use.

        >>> type(checkpoint.encoder).__name__
        'SentenceTransformer'
        """
        return self.source.whole if isinstance(self.source, InFolder) else self.source

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        if isinstance(self.source, InFolder):
            return self.source.stored.dimension
        return self.encoder.get_embedding_dimension() or 0

    @property
    def one_tower(self) -> bool:
        """Whether both sides of a pair have the same encoder."""
        if isinstance(self.source, InFolder):
            return True
        from qpairs.encoders.towers import is_siamese

        return is_siamese(self.source)

    @functools.cached_property
    def towers(self) -> Towers:
        """The encoders of the two sides, in bfloat16 if this machine is fast at it."""
        if isinstance(self.source, InFolder):
            first = _stored_tower(self.source.stored)
            return Towers(first, first, self.dimension)
        from qpairs.encoders.towers import towers

        left, right = towers(self.source.eval())
        first = _tower(left)
        return Towers(first, first if right is left else _tower(right), self.dimension)

    def encode(self, texts: Sequence[str], side: Side = "left") -> Floats:
        """Unit vectors (n, dimension) of texts, in their order.

        >>> checkpoint.encode(["How do I pay?"]).shape
        (1, 128)
        """
        return self.towers.encode(texts, side)

    def embed_tables(self, questions: Sequence[str]) -> Tables:
        """The vectors of questions as first ones and as second ones, in float32.

        >>> rows, columns = checkpoint.embed_tables(["How do I pay?"])
        >>> rows is columns
        True
        """
        texts = require_texts(questions, "embed_tables")
        if isinstance(self.source, InFolder):
            stored = self.source.stored
            rows = stored.embed(stored.token_ids(texts))
            return rows, rows
        return embed_tables(self.source, texts)

    def score_tables(self, tables: Tables, pairs: Pairs) -> Floats:
        """Scores (n_pairs,) of pairs whose questions are already embedded.

        >>> checkpoint.score_tables(checkpoint.embed_tables(pairs.questions), pairs).shape
        (240,)
        """
        return score_tables(tables, pairs, Score(self.head, self.verdict.symmetric))

    def score_pairs(self, pairs: Pairs, on_progress: OnProgress = ignore) -> tuple[Floats, Tables]:
        """Scores (n_pairs,) of pairs, labelled or not, and the vectors of their questions.

        >>> scores, tables = checkpoint.score_pairs(pairs)
        >>> scores.shape
        (240,)
        """
        tables = embed_in_blocks(self, pairs.questions, on_progress)
        return self.score_tables(tables, pairs), tables

    @functools.cached_property
    def token_counter(self) -> TokenCounter | None:
        """Counts the tokens of whole texts as the first question of a pair is read.

        >>> checkpoint.token_counter.limit
        64
        """
        if isinstance(self.source, InFolder):
            return self.source.stored.counter
        from qpairs.encoders.tokens import token_counter
        from qpairs.encoders.towers import towers

        return token_counter(towers(self.source)[0])

    def with_verdict(self, verdict: Verdict, scores: Mapping[str, Any]) -> Checkpoint:
        """The same encoder with another verdict.

        >>> stricter = dataclasses.replace(checkpoint.verdict, pair=checkpoint.verdict.pair.at(0.9))
        >>> checkpoint.with_verdict(stricter, {}).verdict.pair.threshold
        0.9
        """
        return dataclasses.replace(self, verdict=verdict, scores=scores)

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """As `save_checkpoint`.

        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp(), "copy")
        >>> checkpoint.save(place)
        >>> load_checkpoint(place).fingerprint == checkpoint.fingerprint
        True
        """
        save_checkpoint(self, path, overwrite=overwrite)

    predict = predict_pairs
    similarity = similarity_of
    dedupe = methods.dedupe
    search = methods.search
    _facts = methods.facts
    __repr__, _repr_html_ = one_line, html_card


def embed_tables(encoder: SentenceTransformer, questions: Sequence[str]) -> Tables:
    """The vectors of questions as first ones and as second ones; one tower gives one table twice."""
    from qpairs.encoders.tokens import embed, token_ids
    from qpairs.encoders.towers import towers

    query, document = towers(encoder)
    rows = embed(query, token_ids(query, questions))
    return rows, rows if document is query else embed(document, token_ids(document, questions))


def score_tables(tables: Tables, pairs: Pairs, score: Score) -> Floats:
    """Scores (n_pairs,) of pairs whose questions are already embedded: cosines, or a head's probabilities."""
    rows, columns = tables
    first = torch.from_numpy(rows)
    second = first if columns is rows else torch.from_numpy(columns)
    ends = zip(*(torch.split(torch.from_numpy(side), SCORED) for side in (pairs.left, pairs.right)), strict=True)
    with torch.inference_mode():
        found = [score(first, second, left, right) for left, right in ends]
    scores: Floats = torch.cat([torch.empty(0), *found]).clamp(-1, 1).numpy()
    return scores


def _tower(tower: SentenceTransformer) -> Tower:
    from qpairs.encoders.tokens import embed, token_ids

    lock = threading.Lock()  # the tokenizers of transformers change their own settings
    bf16 = fast_bf16(tower)

    def tokenise(texts: Sequence[str]) -> Any:
        with lock:
            return token_ids(tower, texts)

    def run(ids: Any) -> Floats:
        with torch.autocast(tower.device.type, torch.bfloat16, enabled=bf16):
            return embed(tower, ids)

    return Tower(tokenise, run)


def _stored_tower(stored: StoredEncoder | StoredMean) -> Tower:
    bf16 = stored.fast_bf16

    def run(ids: Any) -> Floats:
        with torch.autocast(stored.device, torch.bfloat16, enabled=bf16):
            return stored.embed(ids)

    return Tower(stored.token_ids, run)


def save_checkpoint(checkpoint: Checkpoint, path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a checkpoint next to its path and renames it: the folder is complete, or absent.

    Args:
        checkpoint: what to write.
        path: the folder.
        overwrite: whether an existing folder may be replaced.

    Raises:
        UserError: the folder is not empty, or cannot be written.

    >>> import tempfile
    >>> save_checkpoint(checkpoint, Path(tempfile.mkdtemp(), "copy")).name
    'copy'
    """
    path = Path(path)
    with atomic_folder(path) as fresh:
        check_output(path, overwrite=overwrite)
        checkpoint.encoder.save_pretrained(str(fresh), create_model_card=False, safe_serialization=True)
        if checkpoint.head is not None:
            save_file(checkpoint.head.state_dict(), fresh / HEAD)
        write_model_file(fresh, model_to_dict(checkpoint))
    return path


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint that `save_checkpoint` wrote; `qpairs.load` reads exports, too.

    Raises:
        UserError: no such folder, or no qpairs checkpoint in it.

    >>> load_checkpoint(folder / "one").config.encoder
    'static'
    """
    path = Path(path)
    recover_folder(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such checkpoint folder")
    missing = f"{path}: not a qpairs checkpoint (no {FILE} in it)"
    return read_model_file(path, functools.partial(open_checkpoint, path), missing=missing)


def open_checkpoint(path: Path, data: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint in a folder, from the content of its `qpairs.json`.

    Raises:
        UserError: it is an export, or damaged.
    """
    if "kind" in data:
        raise UserError(f"{path}: an export ({data['kind']}); name the checkpoint that it was made from")
    stored = read_stored(path)
    return Checkpoint(
        _load_whole(path) if stored is None else InFolder(stored, path, data.get(CHECKSUMS, {})),
        verdict_from_dict(data),
        config_from(data["config"], where=f"{path}/{FILE}"),
        data["split"],
        data["scores"],
        data["history"],
        data["versions"],
        _load_head(path / HEAD),
        path,
    )


def _load_whole(path: Path) -> SentenceTransformer:
    from qpairs.encoders.pretrained import load_encoder

    return load_encoder(path)


def _load_head(file: Path) -> PairHead | None:
    if not file.exists():
        return None
    with reading_weights(file):
        weights = load_file(file)
        head = PairHead(weights["weight"].shape[1])
        try:
            head.load_state_dict(weights)
        except RuntimeError as error:  # other names or shapes
            raise ValueError(str(error)) from None
    return head
