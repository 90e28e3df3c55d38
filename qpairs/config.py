"""What a training run is told: one frozen dataclass, the same names in TOML, in the options and in the checkpoint."""

from __future__ import annotations

import dataclasses
import json
import sys
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qpairs.core.exceptions import UserError, nearest

KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
CHOICES = {
    "precision": ("auto", "fp32", "bf16"),
    "report_to": ("none", "tensorboard", "wandb", "trackio"),
    "sampler": ("pairs", "triplets", "groups"),
    "score": ("cosine", "head"),
}


def _option(default: Any, about: str) -> Any:
    return field(default=default, metadata={"help": about})


@dataclass(frozen=True)
class Config:
    """Every choice of a training run.

    Raises:
        UserError: a value of the wrong type or out of its range.
    """

    data: tuple[str, ...] = _option(
        ("sample",),
        "Training pairs: sample, quora, qqp, a Hub id[:config], a dataset folder, .csv .tsv .jsonl .parquet.",
    )
    validation: tuple[str, ...] = _option((), "Pairs that every choice is made on; without it, a part of the data.")
    test: tuple[str, ...] = _option((), "Pairs for the verdict; without it and --validation, a part of the data.")
    columns: tuple[str, ...] = _option((), "The columns to read, when they have unusual names: TEXT1,TEXT2[,LABEL].")
    skip_bad_rows: bool = _option(False, "Leave broken rows out and count them, instead of stopping at the first.")
    validation_fraction: float = _option(0.1, "Share of the data for validation, where no part is named.")
    test_fraction: float = _option(0.1, "Share of the data for the test, where no part is named.")
    drop_suspects: str = _option("", "A file of pairs that training leaves out, such as qpairs audit writes.")
    augment: float = _option(
        0.0, "Pairs to generate besides, a share of the training pairs: questions beside what rules change them to."
    )
    encoder: str = _option("minilm", "minilm, lstm, cnn, static, tiny, a Hub id, a folder; two towers: lstm+cnn.")
    vectors: str = _option("", "Word vectors that lstm, cnn and static start from: glove, or a GloVe text file.")
    share_vectors: bool = _option(False, "Let two towers of words share their word vectors.")
    symmetric: bool = _option(True, "Two towers: score both directions and take the mean; or first against second.")
    max_length: int = _option(64, "Tokens of a question that are read; the rest is cut off.")
    loss: str = _option(
        "online_contrastive",
        "A loss, or a weighted sum with parameters: 'info_nce(temperature=0.05) + 0.5*contrastive'.",
    )
    teacher: tuple[str, ...] = _option(
        (),
        "Who to learn from besides the labels: minilm or tiny trains a cross-encoder first, itself trains the encoder "
        "with the loss first, and then goes on towards all teachers' probabilities; or a cross-encoder's folder or Hub "
        "id, or a checkpoint's folder. Of several, the mean counts.",
    )
    teacher_epochs: float = _option(1.0, "teacher: passes of a cross-encoder over the training pairs.")
    second_epochs: float = _option(1.0, "itself: passes over the judged pairs, after the first ones.")
    neighbours: int = _option(1, "teacher: nearest questions that it judges each question beside, labelled or not.")
    score: str = _option("cosine", "What the verdict reads: cosine, or head, the classifier that pair_softmax trains.")
    miner: str = _option("everything", "Which pairs of a batch the loss sees: a miner, with parameters if need be.")
    sampler: str = _option(
        "pairs",
        "What meets in a batch: pairs; triplets (with negatives mined before each epoch); groups of duplicates.",
    )
    group_size: int = _option(4, "groups: questions of one component in a batch, at most.")
    mined: int = _option(1, "triplets: negatives mined for each duplicate pair.")
    relative_margin: float = _option(0.05, "triplets: distance of mined negatives from the positive, a share of it.")
    dropout: float = _option(0.1, "Dropout inside the encoder while it is trained.")
    word_dropout: float = _option(0.0, "Share of the tokens that are hidden from the encoder while it is trained.")
    epochs: float = _option(1.0, "Passes over the training pairs.")
    budget_minutes: float = _option(
        0.0, "Stop training after so long, the learning rate falling by the clock; 0: no limit."
    )
    batch_size: int = _option(64, "Pairs in a batch, of all processes together.")
    gradient_cache: int = _option(
        0, "Questions whose activations are held at a time, so that memory limits no batch; 0: the whole batch."
    )
    learning_rate: float | None = _option(None, "Highest learning rate of AdamW; without it, the encoder's own.")
    weight_decay: float = _option(0.01, "Weight decay of AdamW (not on biases and norms).")
    warmup: float = _option(0.1, "Share of the steps in which the learning rate rises, before it falls to 0.")
    clip: float = _option(
        0.05, "Largest norm of the gradient; so small that batches with few hard pairs weigh as much as others."
    )
    precision: str = _option("auto", "fp32, bf16, or auto: bf16 where the hardware is fast at it.")
    evaluations: int = _option(2, "Times per epoch that validation is looked at and a state to resume from is kept.")
    patience: int = _option(4, "Evaluations without a better average precision before training stops; 0: never.")
    seed: int = _option(0, "The one seed of every random choice.")
    output: str = _option("", "Folder of the checkpoint; without it, runs/DATA-ENCODER.")
    report_to: str = _option("none", "none, tensorboard, wandb or trackio.")

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            object.__setattr__(self, spec.name, _typed(spec.name, getattr(self, spec.name)))
        ranges = {
            "augment": 0 <= self.augment <= 1,
            "dropout": 0 <= self.dropout < 1,
            "word_dropout": 0 <= self.word_dropout < 1,
            "epochs": self.epochs > 0,
            "teacher_epochs": self.teacher_epochs > 0,
            "second_epochs": self.second_epochs > 0,
            "neighbours": self.neighbours >= 0,
            "budget_minutes": self.budget_minutes >= 0,
            "group_size": self.group_size >= 2,
            "mined": self.mined >= 1,
            "relative_margin": -1 <= self.relative_margin < 1,
            "batch_size": self.batch_size >= 2,
            "gradient_cache": self.gradient_cache >= 0,
            "max_length": 4 <= self.max_length <= 512,
            "learning_rate": self.learning_rate is None or self.learning_rate > 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup < 1,
            "clip": self.clip > 0,
            "evaluations": self.evaluations >= 1,
            "patience": self.patience >= 0,
            "seed": 0 <= self.seed < 2**32,
            "validation_fraction": 0 < self.validation_fraction < 1,
            "test_fraction": 0 < self.test_fraction < 1 and self.validation_fraction + self.test_fraction < 1,
            "columns": len(self.columns) in (0, 2, 3),
            "data": len(self.data) > 0,
        }
        for name, fits in ranges.items():
            if not fits:
                raise UserError(f"{name}: {getattr(self, name)!r} is out of range ({HELP[name]})")
        for name, options in CHOICES.items():
            if getattr(self, name) not in options:
                raise UserError(f"{name}: unknown {getattr(self, name)!r}; {nearest(getattr(self, name), options)}")


HELP: dict[str, str] = {spec.name: spec.metadata["help"] for spec in dataclasses.fields(Config)}
_TYPES: dict[str, Any] = typing.get_type_hints(Config)


def _typed(name: str, value: Any) -> Any:
    """The value as the field's type, without guessing: lists become tuples, whole numbers become floats."""
    kind = _TYPES[name]
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        if name == "columns" and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        value = (value,) if isinstance(value, str) else value
        if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
            return tuple(value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= sys.float_info.max:
            return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    expected = KINDS.get(kind, "a list of texts")
    raise UserError(f"{name}: expected {expected}, not {value!r} ({HELP[name]})")


def config_from(values: Mapping[str, Any], where: str = "config") -> Config:
    """A config from names and values; what is left out keeps its default.

    Args:
        values: field names to values.
        where: what an error message names as the origin of a key.

    Raises:
        UserError: an unknown name (with the nearest known one), or a value that does not fit.
    """
    for name in values:
        if name not in HELP:
            raise UserError(f"{where}: unknown key {name!r}; {nearest(name, HELP)}")
    return Config(**values)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The keys and values of a TOML config file.

    Raises:
        UserError: no such file, or no valid TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read the config file ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a TOML file: {error}") from None


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain values that JSON and TOML hold; fields without a value are left out."""
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(config).items()}
    return {name: value for name, value in values.items() if value is not None}


def to_toml(config: Config) -> str:
    """The config as a TOML text that `read_toml` reads back."""
    text = "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in to_dict(config).items())
    return text.replace("\x7f", "\\u007f")  # the one character that JSON leaves bare and TOML forbids
