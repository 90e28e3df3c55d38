"""One `Model` protocol for everything that scores pairs, and `load`, which reads a model from its folder.

Loading a checkpoint imports torch, and loading an ONNX export imports ONNX Runtime; this module imports neither.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from qpairs.config import Config, to_dict
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_folder, hold_output, recover_folder, refuse_file, visible
from qpairs.core.manifests import read_json
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.core.shapes import anything, named
from qpairs.models.model_file import FILE as FILE
from qpairs.models.model_file import FORMAT as FORMAT
from qpairs.models.model_file import RERANKER as RERANKER
from qpairs.models.model_file import OtherWeights, read_model_file
from qpairs.models.verdict import Verdict
from qpairs.models.verdict_file import verdict_to_dict

if TYPE_CHECKING:
    import pandas

    from qpairs import DedupeResult, Index, Predictions
    from qpairs.data.pairs import Pairs
    from qpairs.data.questions import QuestionSource
    from qpairs.data.sources import PairSource
    from qpairs.encoders.counter import TokenCounter

T = TypeVar("T")
Side = Literal["left", "right"]
Floats = NDArray[np.float32]
Tables = tuple[Floats, Floats]  # (n_questions, d) as first questions, and as second ones; one tower: one table twice

HEAD = "head.safetensors"  # of a checkpoint: no vector depends on it
LOOK = "second_look.json"  # beside it: what both say together
BLOCK = 8192  # texts that are encoded at a time
READS = 5  # of a folder that is replaced meanwhile
PAUSE = 0.1  # seconds until a folder that is copied is read again
TOKENIZER, WORDS = "tokenizer.json", "whitespacetokenizer_config.json"


class Encoder(Protocol):
    """Texts to unit vectors; several threads may share one.

    >>> model.encode(["How do I pay?"]).shape == (1, model.dimension)
    True
    """

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""

    def encode(self, texts: Sequence[str], side: Side = "left") -> Floats:
        """Unit vectors (n, dimension) of texts, in their order; `side` matters if two towers share nothing.

        >>> model.encode(["How do I pay?", "Who are you?"]).shape
        (2, 128)
        """


class Model(Encoder, Protocol):
    """Scores pairs of questions: a checkpoint or an export. `load` returns one.

    >>> model.verdict.pair.decide(model.score_pairs(pairs)[0]).shape
    (240,)
    """

    @property
    def path(self) -> Path:
        """The folder it was read from, or written to."""

    @property
    def fingerprint(self) -> str:
        """Identity of its vectors: 16 hex digits over weights and tokenizers, not over the verdict."""

    @property
    def verdict(self) -> Verdict:
        """What turns its scores into decisions."""

    @property
    def one_tower(self) -> bool:
        """Whether both sides of a pair have the same encoder."""

    @property
    def config(self) -> Config:
        """The options that it was trained with; an export of an older version has only `encoder` and `symmetric`."""

    @property
    def split(self) -> Mapping[str, Any]:
        """Fingerprint and sizes of the parts it was trained and evaluated on; empty if unknown."""

    @property
    def scores(self) -> Mapping[str, Any]:
        """Part -> report, as in `evaluation.Report.to_dict`."""

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """What training reported: step, loss, f1, average_precision."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the libraries, python and the machine, and the time of writing."""

    def embed_tables(self, questions: Sequence[str]) -> Tables:
        """The vectors of questions as first ones and as second ones.

        >>> rows, columns = model.embed_tables(["How do I pay?"])
        >>> rows is columns  # one tower
        True
        """

    def score_tables(self, tables: Tables, pairs: Pairs) -> Floats:
        """Scores (n_pairs,) of pairs whose questions are already embedded.

        >>> model.score_tables(model.embed_tables(pairs.questions), pairs).shape
        (240,)
        """

    def score_pairs(self, pairs: Pairs, on_progress: OnProgress = ignore) -> tuple[Floats, Tables | None]:
        """Scores (n_pairs,) of pairs, labelled or not, and the vectors of their questions, if the model has vectors.

        Progress has the stages encoding (questions) and, if a cross-encoder reads pairs, reading pairs.

        >>> scores, tables = model.score_pairs(pairs)
        >>> scores.shape
        (240,)
        """

    @property
    def token_counter(self) -> TokenCounter | None:
        """Counts the tokens of whole texts, read as the first question of a pair; None if that is impossible.

        >>> model.token_counter.limit
        64
        """

    def with_verdict(self, verdict: Verdict, scores: Mapping[str, Any]) -> Model:
        """The same model with another verdict and its scores.

        >>> model.with_verdict(model.verdict, {}).scores
        {}
        """

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Writes the model into a folder, completely or not at all.

        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp(), "copy")
        >>> model.save(place)
        >>> load(place).fingerprint == model.fingerprint
        True
        """

    def predict(
        self,
        pairs: PairSource,
        *,
        threshold: float | None = None,
        precision: float | None = None,
        columns: str | Sequence[str] = (),
        skip_bad_rows: bool = False,
        on_progress: OnProgress = ignore,
    ) -> Predictions:
        """Predictions for pairs, or their source: see `predictions.predict_pairs`.

        >>> model.predict([("How do I pay?", "How can I pay?")]).duplicate.tolist()
        [True]
        """

    @overload
    def similarity(self, first: str, second: str) -> float: ...  # type: ignore[overload-overlap]

    @overload
    def similarity(self, first: Iterable[str], second: Iterable[str]) -> Floats: ...

    def similarity(self, first: str | Iterable[str], second: str | Iterable[str]) -> float | Floats:
        """How similar two texts are, or the texts of two lists: see `predictions.similarity_of`.

        >>> model.similarity(["How do I pay?", "Who?"], ["How can I pay?", "How do I pay?"]).shape
        (2,)
        """

    def dedupe(
        self,
        questions: QuestionSource,
        *,
        threshold: float | None = None,
        precision: float | None = None,
        against: QuestionSource | None = None,
        text_column: str = "",
        on_progress: OnProgress | None = None,
    ) -> DedupeResult:
        """The duplicates among questions: see `methods.dedupe`.

        >>> model.dedupe(["How do I pay?", "how do I pay?", "Where is my order?"], threshold=0.8).kept["text"].tolist()
        ['How do I pay?', 'Where is my order?']
        """

    def search(
        self,
        questions: Iterable[str],
        among: Index | QuestionSource,
        *,
        k: int = 10,
        threshold: float | None = None,
        text_column: str = "",
        on_progress: OnProgress | None = None,
    ) -> pandas.DataFrame:
        """The nearest questions of a corpus: see `methods.search`.

        >>> model.search(["How do I pay?"], ["How can I pay?", "Who are you?"], k=1)["text"].tolist()
        ['How can I pay?']
        """


def load(path: str | Path, *, second_look: bool = True) -> Model:
    """The model in a folder that `qpairs train`, `combine`, `calibrate` or `export` wrote, or a ready one by name.

    Args:
        path: the folder; or a ready model: minilm, mpnet, a Hub id, the folder of a SentenceTransformer. The verdict of
            a ready model is estimated from each corpus itself, without labels (`models.ready`).
        second_look: whether the cross-encoder of a model of two stages is loaded; without it, the encoder decides
            alone.

    Raises:
        UserError: no such folder, no model in it, no such name, or its runtime is not installed.

    >>> model = load("runs/support")  # doctest: +SKIP
    >>> model.encode(["How do I reset my password?"]).shape  # doctest: +SKIP
    (1, 384)
    """
    path = _model_folder(Path(path))
    for attempt in range(READS):
        before = _identity(path)
        try:
            model = _load(path, second_look)
        except OtherWeights:  # which may be copied there, file by file, at this moment
            if attempt and _identity(path) == before:
                raise
            time.sleep(PAUSE)
        except UserError:
            if _identity(path) == before:
                raise
        else:
            if _identity(path) == before:
                return model
    raise UserError(
        f"{path}: was replaced while it was read, {READS} times; wait until the process that writes it is done"
    )


def _identity(path: Path) -> tuple[int, int]:
    """Identity of a folder: it changes when the folder is replaced, since nothing inside is changed in place."""
    try:
        found = path.stat()
    except OSError:  # between the two renames of a system that cannot exchange folders
        return 0, 0
    return found.st_ino, found.st_ctime_ns


def _load(path: Path, second_look: bool) -> Model:
    def parse(data: dict[str, Any]) -> Model:
        if data.get("kind", "").startswith("cross-encoder"):
            from qpairs.models.cross_encoder import open_cross_model

            return open_cross_model(path, data)
        if "kind" in data:
            from qpairs.models.exported import open_export

            return open_export(path, data)
        from qpairs.models.bi_encoder import open_checkpoint

        return open_checkpoint(path, data)

    model = read_model_file(path, parse, missing=f"{path}: no checkpoint and no export here (no {FILE})")
    if second_look and (path / RERANKER).is_dir() and not (path / LOOK).exists():
        raise UserError(
            f"{path}: a cross-encoder is in {RERANKER}, but {LOOK}, which describes how to use it, is missing; "
            "combine them again with qpairs combine, or use only the encoder with --no-reranker"
        )
    if second_look and (path / LOOK).exists():
        from qpairs.models.two_stages import open_two_stages

        return open_two_stages(path, model)
    return model


def _model_folder(path: Path) -> Path:
    """The folder of a trained or a ready model."""
    from qpairs.models.ready import ready_folder, warn_of_folder
    from qpairs.models.unfinished import require_finished

    recover_folder(path)
    if not (path / FILE).exists():
        require_finished(path)
        return ready_folder(path)
    warn_of_folder(path)
    return path


def model_to_dict(model: Model) -> dict[str, Any]:
    """The content of `qpairs.json` for every model, as plain values for JSON."""
    return {
        "format": FORMAT,
        "verdict": verdict_to_dict(model.verdict),
        "config": to_dict(model.config),
        "split": dict(model.split),
        "scores": dict(model.scores),
        "history": list(model.history),
        "versions": dict(model.versions),
    }


def as_model(model: Model | str | Path, *, second_look: bool = True) -> Model:
    """A model, or the one in a folder; `second_look` as in `load`."""
    return load(model, second_look=second_look) if isinstance(model, str | Path) else model


def embed_in_blocks(model: Model, questions: Sequence[str], on_progress: OnProgress) -> Tables:
    """`model.embed_tables` in blocks of questions; the stage of progress is encoding, and counts questions."""
    parts = list(_in_blocks(questions, Meter(on_progress), model.embed_tables))
    one_table = parts[0][0] is parts[0][1]
    rows = np.concatenate([part[0] for part in parts])
    return rows, rows if one_table else np.concatenate([part[1] for part in parts])


def encode_in_blocks(model: Encoder, texts: Sequence[str], meter: Meter) -> Floats:
    """Unit vectors (n, dimension) of texts; the meter's stage is encoding, and counts texts."""
    vectors, done = np.empty((len(texts), model.dimension), dtype=np.float32), 0
    for part in _in_blocks(texts, meter, model.encode):
        vectors[done : done + len(part)] = part
        done += len(part)
    return vectors


def _in_blocks(texts: Sequence[str], meter: Meter, make: Callable[[Sequence[str]], T]) -> Iterator[T]:
    """The results of `make` for each `BLOCK` texts, at least once; the stage of progress is encoding."""
    meter.begin("encoding", len(texts))
    for start in range(0, max(1, len(texts)), BLOCK):
        block = texts[start : start + BLOCK]
        yield make(block)
        meter.advance(len(block))


def cosine_scores(tables: Tables, pairs: Pairs, *, symmetric: bool = True, block: int = 65_536) -> Floats:
    """Cosines (n_pairs,) of pairs whose questions are already embedded.

    Args:
        tables: unit vectors (n_questions, d) of the questions, as first ones and as second ones.
        pairs: of these questions.
        symmetric: whether two towers score the mean of both directions, or only the first against the second.
        block: pairs at a time.
    """
    rows, columns = tables
    scores = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), block):
        left, right = pairs.left[start : start + block], pairs.right[start : start + block]
        found = (rows[left] * columns[right]).sum(axis=1)
        if symmetric and columns is not rows:
            found = (found + (rows[right] * columns[left]).sum(axis=1)) / 2
        scores[start : start + block] = found
    return scores.clip(-1, 1)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raises UserError if a model cannot be written to the folder `path`, before any work is done.

    Raises:
        UserError: the path is a file or a folder that is not empty, is locked by another process, or cannot be written.
    """
    with hold_output(path):
        refuse_file(path)
        if path.is_dir() and visible(path):
            if not overwrite:
                raise UserError(f"{path}: the folder is not empty; name another with --output, or pass --overwrite")
            if not (path / FILE).exists():
                raise UserError(
                    f"{path}: not a qpairs checkpoint, so it is not overwritten; name another with --output"
                )


def require_outside(path: Path, source: Path) -> None:
    """Raises UserError if a model is to be written into the folder from which its files are copied.

    >>> require_outside(Path("bi/new"), Path("bi"))
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: bi/new: is inside bi, whose files are copied; name another folder with --output
    """
    if source.resolve() in path.resolve().parents:
        raise UserError(f"{path}: is inside {source}, whose files are copied; name another folder with --output")


@contextmanager
def copied_folder(path: Path, source: Path, *, overwrite: bool, without: Sequence[str] = ()) -> Iterator[Path]:
    """A folder to fill, as `atomic_folder`, that already has the files of a model.

    Args:
        path: the folder it becomes.
        source: the folder of the model.
        overwrite: whether another model there may be replaced.
        without: names that are left out.

    Raises:
        UserError: the path is inside the folder of the model, is a folder that is not empty, or cannot be written.
    """
    require_outside(path, source)
    with atomic_folder(path) as fresh:
        check_output(path, overwrite=overwrite)
        shutil.copytree(source, fresh, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*without))
        yield fresh


def fingerprint(path: Path) -> str:
    """16 hex digits over the weights and the tokenizers in a folder, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if name.startswith(f"{RERANKER}/"):
            continue
        if file.suffix in (".safetensors", ".onnx") and name != HEAD:
            with file.open("rb") as weights:
                digest.update(f"{name}\n{hashlib.file_digest(weights, 'sha256').hexdigest()}".encode())
        elif file.name in (TOKENIZER, WORDS):
            rules = read_json(file, named(anything), missing=f"{file}: missing")
            rules.pop("padding", None)  # which the last call to the tokenizer leaves behind
            digest.update(f"{name}\n{json.dumps(rules, sort_keys=True)}".encode())
    return digest.hexdigest()[:16]
