"""The options of a run: a frozen dataclass for each group, with default, help text and range; the same names in TOML.

`Config` holds the fields of all groups. The command line makes an option of every field and a panel of every group; the
checkpoint stores the fields. To add an option, add a field to its group.
"""

from __future__ import annotations

import dataclasses
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qpairs.core.exceptions import UserError, nearest
from qpairs.core.label_options import finite_number, label_meanings, score_range
from qpairs.core.ranges import Range
from qpairs.core.shell import option_words

WITHOUT_LABELS = "info_nce"  # the loss of unlabelled data, unless another is named or a teacher answers
COMMA_LISTS = ("columns", "labels", "label_range", "dims")  # options that are one text on the command line: A,B,C
FLAGS = {"imports": "--import"}  # options whose field has another name, since theirs is a word of Python
LISTS = {int: "whole numbers", float: "numbers", str: "texts"}
KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}


def option(default: Any, help: str, range: Range | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A field of a group.

    Args:
        default: its value where none is given.
        help: what it does, for `--help`.
        range: the numbers it allows.
        choices: the texts it allows.
    """
    return dataclasses.field(default=default, metadata={"help": help, "range": range, "choices": choices})


@dataclass(frozen=True)
class DataOptions:
    """Which pairs are read, and how they are cut into parts."""

    data: tuple[str, ...] = option(
        ("sample",),
        "Training pairs: sample, quora, qqp, a Hub id[:config], a dataset folder, .csv .tsv .jsonl .parquet.",
    )
    validation: tuple[str, ...] = option(
        (), "Pairs on which the threshold and the best checkpoint are chosen; without it, a part of the data."
    )
    test: tuple[str, ...] = option(
        (), "Pairs of the final evaluation; without it and --validation, a part of the data."
    )
    columns: tuple[str, ...] = option(
        (),
        "Columns to read, if their names are unusual: TEXT1,TEXT2 or TEXT1,TEXT2,LABEL.",
    )
    labels: tuple[str, ...] = option(
        (), "What the values of the label column mean, if neither 0 and 1 nor yes and no: match=1,other=0."
    )
    label_cut: float | None = option(
        None,
        "Lowest score of a duplicate, if the label column holds graded scores.",
        Range(-(10**6), at_most=10**6),
    )
    label_range: tuple[float, ...] = option(
        (),
        "Lowest and highest possible score, such as 0,5: losses that learn grades map them to 0 and 1; without it, "
        "those of the data.",
    )
    negative: str = option(
        "",
        "Column of a negative, a question that is not a duplicate of the first, in data whose rows are "
        "duplicates (triplets).",
    )
    positives: bool = option(
        False,
        "Every row of the data is a pair of duplicates, and no label column is read: for losses that take the other "
        "questions of a batch as negatives; name labelled pairs with --validation.",
    )
    unlabelled: bool = option(
        False,
        "The data are questions without labels: the encoder learns to tell each from the others. Name labelled "
        "pairs, if there are any, with --validation.",
    )
    text_column: str = option(
        "", "Column of the questions in unlabelled data; the texts of several, such as title,body, are joined."
    )
    skip_bad_rows: bool = option(False, "Skip and count broken rows, instead of stopping at the first.")
    validation_fraction: float = option(
        0.1, "Share of the data for validation, if that is not given.", Range(above=0, below=1)
    )
    test_fraction: float = option(0.1, "Share of the data for the test, if that is not given.", Range(above=0, below=1))
    drop_suspects: str = option("", "File of pairs to leave out of training, as written by qpairs audit.")
    augment: float = option(
        0.0,
        "Pairs to generate, as a share of the training pairs: a question and a copy of it changed by rules.",
        Range(0, at_most=1),
    )


@dataclass(frozen=True)
class EncoderOptions:
    """The model that encodes a question or reads a pair, and its dropout in training."""

    model: str = option(
        "bi-encoder",
        "bi-encoder: a vector for each question, to search with; cross-encoder: reads both questions of a pair at "
        "once, is slower, and more accurate with many labels; --reranker combines both.",
        choices=("bi-encoder", "cross-encoder"),
    )
    encoder: str = option("minilm", "minilm, mpnet, lstm, cnn, static, tiny, a Hub id, a folder; two towers: lstm+cnn.")
    vectors: str = option(
        "",
        "Pretrained word vectors for lstm, cnn and static: glove, or a GloVe text file; for static also minilm, "
        "mpnet or the folder of an encoder, whose vectors of single tokens are taken.",
    )
    share_vectors: bool = option(False, "Two towers: one table of word vectors for both.")
    symmetric: bool = option(
        True, "Two towers: score both orders and take the mean; if not, only the first question against the second."
    )
    max_length: int = option(64, "Tokens read of each question; the rest is cut off.", Range(4, at_most=512))
    prompt: str = option(
        "",
        "Prompt before every question: the name of a prompt of the encoder, a text such as 'query: ', or none; "
        "without it, the encoder's default, or else its prompt for similar texts.",
    )
    project: int = option(
        0, "Dimension of the vectors after a linear layer at the end, which is trained; 0: no such layer.", Range(0)
    )
    lora: int = option(
        0,
        "Rank of low-rank adapters (LoRA), which are trained in place of the transformer's weights and merged into "
        "them at the end; 0: train all weights.",
        Range(0, at_most=1024),
    )
    dropout: float = option(0.1, "Dropout in the encoder during training.", Range(0, below=1))
    word_dropout: float = option(0.0, "Share of the tokens that are masked during training.", Range(0, below=1))


@dataclass(frozen=True)
class ObjectiveOptions:
    """What is learned: the loss, the pairs it reads, and the score of a pair."""

    loss: str = option(
        "online_contrastive + 0.6*strangers",
        "A loss, or a weighted sum with parameters: 'info_nce(temperature=0.05) + 0.5*contrastive'.",
    )
    miner: str = option("everything", "Pairs of a batch that the loss reads: a miner, optionally with parameters.")
    score: str = option(
        "cosine",
        "Score of a pair: cosine, or head, the classifier that the loss pair_softmax trains.",
        choices=("cosine", "head"),
    )
    dims: tuple[int, ...] = option(
        (),
        "Lengths to which vectors may be cut, such as 384,192,96 (Matryoshka): each prefix is trained and has its "
        "own verdict; the full length is always included.",
    )


@dataclass(frozen=True)
class TeacherOptions:
    """Distillation: models whose probabilities, or vectors, are learned in addition to the labels."""

    teacher: tuple[str, ...] = option(
        (),
        "Teachers, in addition to the labels; several are averaged. minilm, mpnet or tiny: train a cross-encoder "
        "first; itself: train the encoder on the labels first, then towards its own probabilities; or the folder or "
        "Hub id of a cross-encoder, or the folder of a checkpoint.",
    )
    distill: str = option(
        "probabilities",
        "What is learned from the teacher: probabilities, soft labels of pairs; embeddings, its vectors; relations, "
        "the distances and angles between the questions of a batch. The last two are added to the loss, and need one "
        "teacher that has vectors: a checkpoint, minilm, mpnet, a Hub id, a SentenceTransformer.",
        choices=("probabilities", "embeddings", "relations"),
    )
    distill_weight: float = option(1.0, "embeddings, relations: weight relative to the loss.", Range(above=0))
    teacher_epochs: float = option(1.0, "Passes of the cross-encoder over the training pairs.", Range(above=0))
    second_epochs: float = option(
        1.0, "itself: passes of the second training, towards the probabilities.", Range(above=0)
    )
    neighbours: int = option(
        1,
        "Nearest neighbours with which the teachers score each question, in addition to the labelled pairs.",
        Range(0),
    )


@dataclass(frozen=True)
class RerankerOptions:
    """A second look: a cross-encoder that reads the pairs on which it can change the encoder's decision."""

    reranker: str = option(
        "",
        "Cross-encoder that takes a second look: minilm, mpnet or tiny, to train one in this run, or the folder of "
        "one that qpairs train --model cross-encoder wrote; if it is also a teacher, it is trained once.",
    )
    reranker_epochs: float | None = option(
        None,
        "Passes of the reranker over the training pairs; without it, enough for 30,000 pairs, 1 to 4.",
        Range(above=0),
    )


@dataclass(frozen=True)
class ScheduleOptions:
    """The length of training, the optimizer, and the evaluations during training."""

    epochs: float = option(
        1.0,
        "Passes over the training pairs; without it, a cross-encoder makes enough for 30,000 pairs, 1 to 4.",
        Range(above=0),
    )
    budget_minutes: float = option(
        0.0,
        "Time limit of training, over which the learning rate falls; 0: no limit. Training a teacher or reranker "
        "comes on top.",
        Range(0),
    )
    learning_rate: float | None = option(
        None, "Peak learning rate of AdamW; without it, the encoder's default.", Range(above=0)
    )
    weight_decay: float = option(0.01, "Weight decay of AdamW, except on biases and norms.", Range(0))
    warmup: float = option(
        0.1, "Share of the steps in which the learning rate rises, before it falls to 0.", Range(0, below=1)
    )
    clip: float = option(
        0.05,
        "Largest norm of the gradient (clipping); the default is so small that batches with few hard pairs weigh as "
        "much as others.",
        Range(above=0),
    )
    evaluations: float = option(2.0, "Evaluations and checkpoints per epoch.", Range(above=0))
    patience: int = option(
        4, "Evaluations without a better average precision before training stops; 0: never.", Range(0)
    )


@dataclass(frozen=True)
class BatchOptions:
    """What a training batch consists of."""

    batch_size: int = option(64, "Pairs in a batch, over all processes.", Range(2))
    sampler: str = option(
        "pairs",
        "What a batch consists of: labelled pairs; triplets, with negatives mined before each epoch; or groups of "
        "duplicates.",
        choices=("pairs", "triplets", "groups"),
    )
    group_size: int = option(4, "groups: most questions of one component in a batch.", Range(2))
    mined: int = option(1, "triplets: negatives mined for each duplicate pair.", Range(1))
    relative_margin: float = option(
        0.05,
        "triplets: how much less similar than the positive a mined negative must be, as a share.",
        Range(-1, below=1),
    )
    queue: int = option(
        0,
        "Questions of past batches whose stored vectors are compared with the batch, too: more negatives for losses "
        "that take other questions as negatives; 0: none.",
        Range(0, at_most=2**20),
    )
    gradient_cache: int = option(
        0,
        "Questions whose activations are held in memory at a time, for batches that would not fit; 0: the whole batch.",
        Range(0),
    )


@dataclass(frozen=True)
class RunOptions:
    """Number format, seed, and what is written."""

    precision: str = option(
        "auto",
        "Number format of training; auto: bf16 where that is fast.",
        choices=("auto", "fp32", "bf16"),
    )
    seed: int = option(0, "Seed of every random choice.", Range(0, below=2**32))
    output: str = option("", "Folder of the checkpoint; without it, runs/DATA-ENCODER.")
    imports: tuple[str, ...] = option(
        (), "Module, or .py file, to import before the run: your own losses, miners, encoders and readers."
    )
    report_to: str = option(
        "none", "Where training curves are written.", choices=("none", "tensorboard", "wandb", "trackio")
    )


GROUPS: dict[str, type[Any]] = {
    "data": DataOptions,
    "encoder": EncoderOptions,
    "objective": ObjectiveOptions,
    "teachers": TeacherOptions,
    "reranker": RerankerOptions,
    "schedule": ScheduleOptions,
    "batches": BatchOptions,
    "run": RunOptions,
}  # the name of a group: its table in TOML, its panel in --help


@dataclass(frozen=True)
class Config(
    RunOptions,
    BatchOptions,
    ScheduleOptions,
    RerankerOptions,
    TeacherOptions,
    ObjectiveOptions,
    EncoderOptions,
    DataOptions,
):  # dataclasses order fields from the last base to the first
    """Every option of a training run; a function that needs one group takes that group, and is passed the config.

    Raises:
        UserError: a value of the wrong type or out of its range, or options that do not go together.

    >>> Config(epochs=2).epochs
    2.0
    >>> Config(dropout=1.5)
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: dropout: 1.5, must be 0 <= dropout < 1
    """

    def __repr__(self) -> str:
        """The options that differ from their defaults, as a call."""
        given = {name: getattr(self, name) for name in OPTIONS if getattr(self, name) != OPTIONS[name].default}
        return f"Config({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def __post_init__(self) -> None:
        for name in OPTIONS:
            object.__setattr__(self, name, checked(name, getattr(self, name)))
        label_meanings(self.labels, self.label_cut)
        score_range(self.label_range, self.label_cut)
        for broken, message in RULES:
            if broken(self):
                raise UserError(message)

    @property
    def probability_teachers(self) -> tuple[str, ...]:
        """The teachers whose probabilities are learned."""
        return self.teacher if self.distill == "probabilities" else ()

    @property
    def question_columns(self) -> str:
        """The columns of unlabelled questions with commas between, also of a run that names one by `columns`."""
        return self.text_column or ",".join(self.columns)

    @property
    def without_labels(self) -> bool:
        """Whether there are no labels to evaluate with: no best checkpoint is chosen, and no threshold for pairs."""
        return self.unlabelled and not self.validation


CROSS_ENCODER = "cross-encoder"  # the `model` that reads both questions of a pair at once
ENCODER_ALONE = {
    **dict.fromkeys(
        ("loss", "miner", "sampler", "queue", "gradient_cache"), "learns each pair by itself, by cross-entropy"
    ),
    "score": "gives a logit, which is its score",
    **dict.fromkeys(("teacher", "distill"), "learns from the labels alone"),
    "reranker": "reads every pair itself",
    **dict.fromkeys(("vectors", "share_vectors"), "is a transformer, without word vectors"),
    "symmetric": "reads a pair in both orders",
    "word_dropout": "reads all tokens",
    **dict.fromkeys(("dims", "project"), "has no vectors"),
    "prompt": "reads pairs as they are",
    "lora": "is trained as a whole",
}  # options of a bi-encoder -> why they are nothing for a cross-encoder, which ...


NEED_LABELS = {
    "model": "a cross-encoder learns from labels",
    "reranker": "is fitted to labels",
    "score": "a head learns from labels",
    "drop_suspects": "names labelled pairs",
}  # options that are nothing for unlabelled data -> why


def _with_labels(name: str) -> Callable[[Config], bool]:
    return lambda c: c.unlabelled and getattr(c, name) != OPTIONS[name].default


def _for_an_encoder(name: str) -> Callable[[Config], bool]:
    return lambda c: c.model == CROSS_ENCODER and getattr(c, name) != OPTIONS[name].default


RULES: tuple[tuple[Callable[[Config], bool], str], ...] = (
    (lambda c: not c.data, "data: name at least one source of pairs"),
    (
        lambda c: c.unlabelled and (c.positives or bool(c.negative)),
        "positives, negative: are for pairs, and unlabelled data has single questions; leave them out",
    ),
    (lambda c: min(c.dims, default=1) < 1, "dims: each length must be at least 1"),
    (
        lambda c: bool(c.dims) and c.score == "head",
        "dims: prefixes are compared by cosine, which does not go with --score head",
    ),
    (
        lambda c: not c.unlabelled and len(c.columns) not in (0, 2, 3),
        "columns: name two or three: TEXT1,TEXT2 or TEXT1,TEXT2,LABEL",
    ),
    (
        lambda c: c.unlabelled and len(c.columns) > 1,
        "columns: names the columns of pairs; name the columns of unlabelled questions with text_column "
        "(--text-column)",
    ),
    (
        lambda c: bool(c.text_column) and not c.unlabelled,
        "text_column: names the questions of unlabelled data; name the columns of pairs with columns (--columns)",
    ),
    (
        lambda c: bool(c.text_column and c.columns),
        "columns: names the columns of pairs, and text_column the questions of unlabelled data; leave one out",
    ),
    (
        lambda c: c.unlabelled and c.data == ("sample",),
        "unlabelled: name the file of your questions with --data",
    ),
    (
        lambda c: c.without_labels and bool(c.test),
        "test: without labels no threshold is chosen, so there is none to test; name labelled pairs with --validation",
    ),
    (
        lambda c: c.validation_fraction + c.test_fraction >= 1,
        "test_fraction: its sum with validation_fraction must be below 1, so that pairs are left for training",
    ),
    (
        lambda c: c.distill != "probabilities" and len(c.teacher) != 1,
        "distill: embeddings and relations need exactly one teacher; name it with --teacher",
    ),
    (
        lambda c: bool(c.probability_teachers) and c.sampler == "groups",
        "teacher: scores pairs, and the sampler groups draws none; use pairs or triplets",
    ),
    (
        lambda c: not c.symmetric and c.sampler == "groups",
        "sampler: groups ignore on which side a question stands; use pairs or triplets with --no-symmetric",
    ),
    (
        lambda c: not c.symmetric and c.augment > 0,
        "augment: pairs a question with its changed copy, which --no-symmetric does not allow",
    ),
    (
        lambda c: not c.symmetric and c.queue > 0,
        "queue: its vectors stand on both sides of a pair, which --no-symmetric does not allow",
    ),
    (
        lambda c: not c.symmetric and bool(c.probability_teachers) and c.neighbours > 0,
        "neighbours: pairs any two near questions, which --no-symmetric does not allow; set it to 0",
    ),
    (
        lambda c: 0 < c.queue < 2 * c.batch_size,
        "queue: must be at least twice batch_size, the number of questions in a batch",
    ),
    (
        lambda c: not c.symmetric and bool(c.reranker),
        "reranker: reads a pair in both orders, which --no-symmetric does not allow",
    ),
    (
        lambda c: c.reranker in c.probability_teachers and c.reranker_epochs not in (None, c.teacher_epochs),
        "reranker_epochs: the reranker is also the teacher, and is trained once; give teacher_epochs the same value",
    ),
    *(
        (_with_labels(name), f"{name}: {why}, and unlabelled data has none; leave it out")
        for name, why in NEED_LABELS.items()
    ),
    *((_for_an_encoder(name), f"{name}: a cross-encoder {why}; leave it out") for name, why in ENCODER_ALONE.items()),
)  # between options, as far as the config alone decides: whether one is broken, and what to say
OPTIONS = {spec.name: spec for spec in dataclasses.fields(Config)}
HELP: dict[str, str] = {name: spec.metadata["help"] for name, spec in OPTIONS.items()}
TYPES: dict[str, Any] = typing.get_type_hints(Config)


def allowed_values(name: str) -> str:
    """What an option allows, for `--help`; empty if it allows any value of its type.

    >>> allowed_values("dropout"), allowed_values("precision"), allowed_values("output")
    ('0 <= x < 1', 'one of auto, fp32, bf16', '')
    """
    metadata = OPTIONS[name].metadata
    if metadata["choices"]:
        return "one of " + ", ".join(metadata["choices"])
    return metadata["range"].text() if metadata["range"] else ""


def checked(name: str, value: Any) -> Any:
    """The value of an option, as the type of its field.

    Raises:
        UserError: it has another type, or is out of its range.

    >>> checked("epochs", 2)
    2.0
    """
    value, metadata = _typed(name, value), OPTIONS[name].metadata
    allowed, choices = metadata["range"], metadata["choices"]
    if allowed and value is not None and not allowed.allows(value):
        raise UserError(f"{name}: {value!r}, must be {allowed.text(name)}")
    if choices and value not in choices:
        raise UserError(f"{name}: unknown {value!r}; {nearest(value, choices)}")
    return value


def _typed(name: str, value: Any) -> Any:
    """The value as the field's type, without guessing: lists become tuples, whole numbers become floats."""
    kind = TYPES[name]
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        return _listed(name, value, typing.get_args(kind)[0])
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= sys.float_info.max:
            return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise UserError(f"{name}: {value!r}, must be {KINDS[kind]}")


def _listed(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    """A list of texts, or of numbers, as a tuple; whole numbers the largest first and each once."""
    given = value
    if name == "labels" and isinstance(value, Mapping):
        value = [f"{text}={label}" for text, label in value.items()]
    if name in COMMA_LISTS and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
        if kind is int and all(part.isdecimal() for part in value):
            value = [int(part) for part in value]
        if kind is float:
            numbers = [finite_number(part) for part in value]
            value = value if None in numbers else numbers
    value = value if isinstance(value, list | tuple) else (value,)
    if kind is float:
        value = [float(part) if type(part) is int else part for part in value]
    if all(isinstance(part, kind) and not isinstance(part, bool) for part in value):
        return tuple(sorted(set(value), reverse=True)) if kind is int else tuple(value)
    raise UserError(f"{name}: {given!r}, must be a list of {LISTS[kind]}")


def config_from(values: Mapping[str, Any], where: str = "config") -> Config:
    """A config from names and values; what is left out keeps its default.

    Args:
        values: field names to values.
        where: what an error message names as the origin of a key.

    Raises:
        UserError: an unknown name (with the nearest known one), or a value that does not fit.
    """
    for name in values:
        if name not in OPTIONS:
            raise UserError(f"{where}: unknown key {name!r}; {nearest(name, OPTIONS)}")
    return Config(**values)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The options in a TOML file, as flat keys (`epochs = 3`) or in tables named as in `GROUPS` (`[schedule]`).

    Keys may be written as on the command line, too: `batch-size`.

    Raises:
        UserError: no such file, no valid TOML, an option of another group in a table, one given twice, or a value that
            it cannot have.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read the config file ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a TOML file: {error}") from None
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key in GROUPS and isinstance(value, dict):
            names = [spec.name for spec in dataclasses.fields(GROUPS[key])]
            for written, own in value.items():
                _add(values, written, own, str(path), names, f" in [{key}]")
        else:
            _add(values, key, value, str(path), list(OPTIONS))
    return values


def _add(values: dict[str, Any], key: str, value: Any, path: str, names: Sequence[str], where: str = "") -> None:
    """Adds an option of a TOML file to those that are read already."""
    name = key.replace("-", "_")
    if name not in names:
        raise UserError(f"{path}: unknown key {key!r}{where}; {nearest(name, names)}")
    if name in values:
        raise UserError(f"{path}: {name} is given twice")
    try:
        checked(name, value)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    values[name] = value


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain values that JSON and TOML hold; fields without a value are left out."""
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(config).items()}
    return {name: value for name, value in values.items() if value is not None}


def flag_of(name: str) -> str:
    """The option of a field on the command line.

    >>> flag_of("batch_size"), flag_of("imports")
    ('--batch-size', '--import')
    """
    return FLAGS.get(name, f"--{name.replace('_', '-')}")


def config_words(config: Config, always: Sequence[str] = ()) -> list[str]:
    """The words of a command that give the options of a config, without those that have their defaults.

    Args:
        config: the options.
        always: names of options that are given in any case.

    >>> config_words(Config(encoder="lstm", symmetric=False, dims=[64, 32]))
    ['--encoder', 'lstm', '--no-symmetric', '--dims', '64,32']
    """
    usual, options = to_dict(Config()), dict[str, object]()
    for name, value in to_dict(config).items():
        flag = flag_of(name)
        if value == usual.get(name) and name not in always:
            continue
        if value is False:
            options[f"--no-{flag.removeprefix('--')}"] = True
        else:
            options[flag] = ",".join(map(str, value)) if name in COMMA_LISTS else value
    return option_words(options)


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the defaults that depend on others: unlabelled data has its own loss, unless a teacher scores it.

    The vectors of a teacher are learned in addition to the loss, and do not replace it.

    >>> with_defaults({"unlabelled": True})["loss"]
    'info_nce'
    """
    judged = values.get("teacher") and values.get("distill", OPTIONS["distill"].default) == "probabilities"
    follows = {"loss": WITHOUT_LABELS} if values.get("unlabelled") and not judged else {}
    return {**follows, **values}


def to_toml(config: Config | Mapping[str, Any]) -> str:
    """The config, or the options, as a TOML text that `read_toml` reads back."""
    import tomli_w

    return tomli_w.dumps(to_dict(config) if isinstance(config, Config) else config)
