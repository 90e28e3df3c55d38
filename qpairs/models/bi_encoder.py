"""A checkpoint: a folder that `SentenceTransformer(path)` loads, plus `qpairs.json`.

`qpairs.json` holds what turns a similarity into a verdict (threshold, calibration), and what must be known to trust
it: the config, the split's fingerprint, the scores, the training history and the versions of the libraries.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from qpairs.config import Config, config_from, to_dict
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_folder
from qpairs.encoders.build import load_encoder
from qpairs.metrics import Calibration, OperatingPoint
from qpairs.objectives.pair_head import PairHead, Score

FILE = "qpairs.json"
HEAD = "head.safetensors"
FORMAT = 1
LIBRARIES = ("qpairs", "torch", "transformers", "sentence-transformers", "datasets", "numpy")


@dataclass(frozen=True)
class Reference:
    """The similarities that a threshold was chosen on: 101 quantiles from the smallest to the largest, of n pairs."""

    quantiles: Sequence[float]
    n: int


@dataclass(frozen=True)
class Checkpoint:
    """A trained encoder and the verdict that goes with it.

    Attributes:
        encoder: texts to unit vectors.
        threshold: similarity from which on two questions are called duplicates, chosen on validation.
        calibration: similarity to probability of being duplicates, fitted on validation.
        reference: the similarities of the validation pairs.
        tfidf_threshold: of the TF-IDF baseline, chosen on the same pairs.
        config: what the run was told.
        split: fingerprint and sizes of the parts, dropped pairs, leaks.
        scores: part -> report, as in `evaluation.Report.to_dict`.
        history: what training reported: step, loss, f1, average_precision.
        versions: of the libraries, python and the machine, and the time of writing.
        head: the classifier whose probability is the score of a pair; None where that is the cosine.
        operating_points: thresholds for a precision, from validation; none in checkpoints of older versions.
    """

    encoder: SentenceTransformer
    threshold: float
    calibration: Calibration
    reference: Reference
    tfidf_threshold: float
    config: Config
    split: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    versions: Mapping[str, str] = field(default_factory=lambda: versions())
    head: PairHead | None = None
    operating_points: Sequence[OperatingPoint] = ()

    @property
    def score(self) -> Score:
        """What the verdict on a pair reads."""
        return Score(self.head, self.config.symmetric)


def versions() -> dict[str, str]:
    """Versions of what made a checkpoint, and when it was made (UTC)."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {**libraries, "python": platform.python_version(), "machine": platform.machine(), "written": now}


def save_checkpoint(checkpoint: Checkpoint, path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a checkpoint beside its place and renames it there: the folder is whole, or it is not there.

    Args:
        checkpoint: what to write.
        path: the folder.
        overwrite: whether a folder that is there already may be replaced.

    Raises:
        UserError: the folder is in use, or cannot be written.
    """
    path = Path(path)
    with atomic_folder(path) as fresh:
        check_output(path, overwrite=overwrite)
        checkpoint.encoder.save_pretrained(str(fresh), create_model_card=False, safe_serialization=True)
        if checkpoint.head is not None:
            save_file(checkpoint.head.state_dict(), fresh / HEAD)
        (fresh / FILE).write_text(json.dumps(_to_json(checkpoint), indent=1) + "\n", encoding="utf-8")
    return path


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raises UserError where a checkpoint cannot be written to `path`, before any work is done."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; name a folder with --output")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise UserError(f"{path}: the folder is in use; name another with --output, or pass --overwrite")
        if not (path / FILE).exists():
            raise UserError(f"{path}: not a qpairs checkpoint, so it is not overwritten; name another with --output")
    standing = next(parent for parent in [path, *path.absolute().parents] if parent.exists())
    if not os.access(standing, os.W_OK):
        raise UserError(f"{path}: no permission to write in {standing}")


def _to_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "threshold": checkpoint.threshold,
        "calibration": asdict(checkpoint.calibration),
        "operating_points": [asdict(point) for point in checkpoint.operating_points],
        "reference": {"quantiles": list(checkpoint.reference.quantiles), "n": checkpoint.reference.n},
        "tfidf_threshold": checkpoint.tfidf_threshold,
        "config": to_dict(checkpoint.config),
        "split": dict(checkpoint.split),
        "scores": dict(checkpoint.scores),
        "history": list(checkpoint.history),
        "versions": dict(checkpoint.versions),
    }


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint that `save_checkpoint` wrote.

    Raises:
        UserError: no such folder, or no qpairs checkpoint in it.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such checkpoint folder")
    try:
        data = json.loads((path / FILE).read_text(encoding="utf-8"))
        if "kind" in data:
            raise UserError(f"{path}: an export ({data['kind']}); name the checkpoint that it was made from")
        if data["format"] > FORMAT:
            raise UserError(f"{path}: written by a newer qpairs ({data['versions']['qpairs']}); upgrade qpairs")
        return Checkpoint(
            load_encoder(path),
            float(data["threshold"]),
            Calibration(**data["calibration"]),
            Reference(**data["reference"]),
            float(data["tfidf_threshold"]),
            config_from(data["config"], where=f"{path}/{FILE}"),
            data["split"],
            data["scores"],
            data["history"],
            data["versions"],
            _load_head(path / HEAD),
            [OperatingPoint(**point) for point in data.get("operating_points", ())],
        )
    except FileNotFoundError:
        raise UserError(f"{path}: not a qpairs checkpoint (no {FILE} in it)") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{path}/{FILE}: damaged ({type(error).__name__}: {error})") from None


def _load_head(file: Path) -> PairHead | None:
    if not file.exists():
        return None
    weights = load_file(file)
    head = PairHead(weights["weight"].shape[1])
    head.load_state_dict(weights)
    return head
