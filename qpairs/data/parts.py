"""The training, validation and test pairs of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qpairs.config import Config, config_from
from qpairs.core.exceptions import UserError
from qpairs.core.tables import unguarded
from qpairs.data.augment import generate_pairs
from qpairs.data.corpus import read_corpus
from qpairs.data.formats import FORMATS, ending_of
from qpairs.data.identity import canonical, question_digests
from qpairs.data.pairs import Pairs, join, need_both_labels
from qpairs.data.records import IN_MEMORY, given_name
from qpairs.data.sources import is_several, load_pairs
from qpairs.data.splits import fingerprint, leak, split_pairs
from qpairs.data.unlabelled import distinct_questions, pairs_of_questions, read_unlabelled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The pairs of a run, and how they were cut.

    Attributes:
        train, validation: the parts that every run has; validation is empty if there are no labels.
        test: the pairs to evaluate on; None if the user named a validation part and no test.
        split: what the checkpoint stores: fingerprint, sizes, dropped and skipped pairs, leaks; if the pairs are not in
            files, also digests of the training questions.
    """

    train: Pairs
    validation: Pairs
    test: Pairs | None
    split: dict[str, Any]


TRAINED_ON = "trained_on"  # in the split: digests of the training questions
MOST_DIGESTS = 400_000  # questions; the file of a model is 3 MB larger with so many
# options that say how to read
READING = ("columns", "labels", "label_cut", "label_range", "negative", "positives", "skip_bad_rows")


def reading_options(config: Config, part: str = "data") -> dict[str, Any]:
    """How the pairs of a run are read, as arguments of `load_pairs`.

    If the data is not a table of labelled pairs, its columns do not apply to the other parts.

    Args:
        config: the options of the run.
        part: data, validation, test or drop_suspects.

    >>> reading_options(Config(labels="yes=1,no=0", positives=True, columns="a,b"), "validation")
    {'labels': ('yes=1', 'no=0'), 'label_cut': None, 'label_range': (), 'skip_bad_rows': False}
    """
    options = {name: getattr(config, name) for name in READING}
    if part == "data":
        return options
    own_columns = config.unlabelled or config.positives or bool(config.negative)
    for name in ("positives", "negative", *(["columns"] if own_columns else [])):
        del options[name]
    return options


def separate_pairs(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Pairs]]:
    """Splits options into values that a config can hold, with names in place of pairs in memory, and these pairs.

    Args:
        options: fields of a config, of which `data`, `validation`, `test` and `drop_suspects` may be whatever
            `load_pairs` takes.

    Raises:
        UserError: rows in memory that are not pairs.

    >>> options, pairs = separate_pairs({"data": [("How do I pay?", "How can I pay?", 1)], "epochs": 2})
    >>> options, len(pairs["data"])
    ({'data': 'in memory: 1 pairs (list)', 'epochs': 2}, 1)
    """
    kept, given = dict(options), dict[str, Pairs]()
    for name in ("data", "validation", "test", "drop_suspects"):
        source: Any = options.get(name)
        parts = list(source) if is_several(source) else [source]
        if source is None or (isinstance(source, list | tuple) and not source):
            continue
        unlabelled = name == "data" and options.get("unlabelled")
        if unlabelled and (texts := _questions_in_memory(source, parts, options)) is not None:
            given[name], kept[name] = texts, f"in memory: {len(texts.questions):,} questions"
        elif all(isinstance(part, str | Path) for part in parts):
            kept[name] = [str(part) for part in parts] if is_several(source) else str(source)
        else:
            chosen = {key: options[key] for key in (*READING, "unlabelled") if key in options}
            how = reading_options(config_from({**chosen, "data": IN_MEMORY}), name)
            given[name] = load_pairs(source, **how, labelled=name != "drop_suspects")
            kept[name] = given_name(source, len(given[name]))
    return kept, given


def _questions_in_memory(source: Any, parts: Sequence[Any], options: Mapping[str, Any]) -> Pairs | None:
    """Questions without labels that are not in files: their table, without pairs; None if they are in files."""
    if all(isinstance(part, str | Path) for part in parts):
        one = isinstance(source, str | Path) or len(parts) == 1
        if one or any(ending_of(part) in FORMATS for part in parts) or all(map(os.path.exists, parts)):
            return None
        parts = [source]  # a list of texts
    columns = options.get("columns", ())
    text_column = options.get("text_column") or (columns if isinstance(columns, str) else ",".join(columns))
    skip = bool(options.get("skip_bad_rows"))
    texts = [text for part in parts for text in read_corpus(part, text_column=text_column, skip_bad_rows=skip).texts]
    none = np.empty(0, np.int64)
    return Pairs(tuple(dict.fromkeys(texts)), none, none, none.astype(np.int8))


def load_parts(config: Config, given: Mapping[str, Pairs] | None = None) -> Parts:
    """Loads the pairs of a run, and cuts from the data the parts that the config does not name.

    Unlabelled data is all for training; the validation part is empty if the config names none.

    If it names neither validation nor test, both are cut; if only a test, validation is cut; if only a validation part,
    there is no test.

    Args:
        config: the options of the run.
        given: option -> pairs that are in memory, which the config only names.

    Raises:
        UserError: a source cannot be used, or a part has pairs of one label only.
    """
    given = given or {}

    def load(name: str) -> Pairs:
        if name in given:
            return given[name]
        return load_pairs(getattr(config, name), **reading_options(config, name))

    if config.unlabelled:
        return _unlabelled_parts(config, load, given.get("data"))
    data, dropped = load("data"), 0
    validation = load("validation") if config.validation else None
    test = load("test") if config.test else None
    skipped = {
        name: dict(part.skipped) for name, part in (("data", data), ("validation", validation), ("test", test)) if part
    }
    if validation is None or not has_positives_alone(data):
        need_both_labels(data, "data")
    train = data
    if validation is None:
        cut = split_pairs(
            data,
            validation_fraction=config.validation_fraction,
            test_fraction=0.0 if test is not None else config.test_fraction,
            seed=config.seed,
        )
        train, validation, dropped = cut.train, cut.validation, cut.dropped
        test = test if test is not None else cut.test
    if config.drop_suspects:
        suspects = given.get("drop_suspects") or load_pairs(config.drop_suspects, labelled=False)
        before, train = len(train), _without(train, suspects)
        if before == len(train):
            log.warning("%s: names none of the training pairs, so nothing is left out", config.drop_suspects)
        skipped["train"] = {"suspected label": before - len(train)}
        if not len(train):
            raise UserError(f"{config.drop_suspects}: names every training pair, so nothing is left to train on")
    parts = {"train": train, "validation": validation} | ({"test": test} if test is not None else {})
    for name, part in parts.items():
        if name != "train" or not has_positives_alone(part):
            need_both_labels(part, name)
    split = _description(parts, dropped, skipped) | _trained_on(config, train.questions)
    if config.augment:
        taken = [text for part in parts.values() for text in part.questions]
        more, split["generated"] = generate_pairs(train, config.augment, config.seed, taken)
        train = join([train, more])
    return Parts(train, validation, test, split)


def has_positives_alone(pairs: Pairs) -> bool:
    """Whether all pairs are duplicates: a loss then takes other questions as negatives.

    >>> has_positives_alone(load_pairs([("How do I pay?", "How can I pay?")], positives=True))
    True
    """
    return len(pairs) > 0 and bool((pairs.labels == 1).all())


def _unlabelled_parts(config: Config, load: Callable[[str], Pairs], in_memory: Pairs | None) -> Parts:
    found = read_unlabelled(config) if in_memory is None else distinct_questions(in_memory.questions, config.data)
    parts = {name: load(name) for name in ("validation", "test") if getattr(config, name)}
    for name, part in parts.items():
        need_both_labels(part, name)
    taken = [text for part in parts.values() for text in part.questions]
    train, generated = pairs_of_questions(found.questions, augment=config.augment, seed=config.seed, taken=taken)
    skipped = {"data": found.skipped} | {name: dict(part.skipped) for name, part in parts.items()}
    split = _description({"train": train, **parts}, 0, skipped)
    split |= _trained_on(config, found.questions)
    split |= {"unlabelled": {"questions": len(found.questions), "left_out": found.left_out}}
    split |= {"generated": generated} if config.augment else {}
    return Parts(train, parts.get("validation", train.subset(np.arange(0))), parts.get("test"), split)


def _description(parts: Mapping[str, Pairs], dropped: int, skipped: Mapping[str, dict[str, int]]) -> dict[str, Any]:
    train = parts["train"]
    form = {question: canonical(question) for part in parts.values() for question in part.questions}.__getitem__
    return {
        "fingerprint": fingerprint(list(parts.values()), form),
        "sizes": {name: len(part) for name, part in parts.items()},
        "questions": {name: len(part.questions) for name, part in parts.items()},
        "duplicates": {name: part.duplicate_ratio for name, part in parts.items()},
        "dropped": dropped,
        "skipped": {name: counts for name, counts in skipped.items() if counts},
        "leaks": {name: dataclasses.asdict(leak(train, part, form)) for name, part in parts.items() if name != "train"},
    }


def _trained_on(config: Config, questions: Sequence[str]) -> dict[str, str]:
    """Digests of the training questions, if these cannot be read again from files."""
    wanted = not in_files(config) and len(questions) <= MOST_DIGESTS
    return {TRAINED_ON: question_digests(questions)} if wanted else {}


def in_files(config: Config) -> bool:
    """Whether all pairs of a run are in local files: not in memory, on the Hub, nor in a folder that `datasets` reads.

    >>> in_files(Config(data="sample")), in_files(Config(data="quora"))
    (True, False)
    """
    sources = [*config.data, *config.validation, *config.test, *filter(None, [config.drop_suspects])]
    return bool(sources) and all(
        source == "sample" or (os.path.isfile(source) and ending_of(source) in FORMATS) for source in sources
    )


def parts_of(config: Config, split: Mapping[str, Any]) -> Parts:
    """The parts of a finished run, loaded and cut again.

    Args:
        config: the config of the run.
        split: `Parts.split` as stored in its checkpoint.

    Raises:
        UserError: a source is gone, or has changed.
    """
    parts = load_parts(config)
    if parts.split["fingerprint"] != split.get("fingerprint"):
        raise UserError(f"{', '.join(config.data)}: the data has changed since the checkpoint was trained")
    return parts


def training_pairs(config: Config, split: Mapping[str, Any]) -> Pairs | None:
    """The training pairs of a finished run; None if their sources are gone or have changed."""
    with contextlib.suppress(UserError):
        return parts_of(config, split).train
    return None


def _without(train: Pairs, suspects: Pairs) -> Pairs:
    """The training pairs that are not among the suspects, in either order, as they are or `guarded` in a file."""
    texts = [suspects.texts(row) for row in range(len(suspects))]
    named = {frozenset(map(form, pair)) for pair in texts for form in (str, unguarded)}
    return train.subset(np.array([frozenset(train.texts(row)) not in named for row in range(len(train))], dtype=bool))
