"""The training, validation and test pairs of a run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.data.augment import generate_pairs
from qpairs.data.pairs import Pairs, join, need_both_labels
from qpairs.data.sources import load_pairs
from qpairs.data.splits import fingerprint, leak, split_pairs
from qpairs.data.unlabelled import pairs_of_questions, read_unlabelled


@dataclass(frozen=True)
class Parts:
    """The pairs of a run, and how they were cut.

    Attributes:
        train, validation: the parts that every run has; validation is empty where there are no labels.
        test: the pairs to evaluate on; None where the user named a validation part and no test.
        split: what the checkpoint saves: fingerprint, sizes, dropped and skipped pairs, leaks.
    """

    train: Pairs
    validation: Pairs
    test: Pairs | None
    split: dict[str, Any]


def load_parts(config: Config) -> Parts:
    """Loads the pairs of a run, and cuts from the data the parts that the config does not name.

    Of unlabelled data, all is for training; the validation part is empty if the config names none.

    If it names neither validation nor test, both are cut; if only a test, validation is cut; if only a validation part,
    there is no test.

    Raises:
        UserError: a source cannot be used, or a part has pairs of one label only.
    """

    def load(sources: tuple[str, ...]) -> Pairs:
        return load_pairs(sources, columns=config.columns, skip_bad_rows=config.skip_bad_rows)

    if config.unlabelled:
        return _unlabelled_parts(config, load)
    data, dropped = load(config.data), 0
    validation = load(config.validation) if config.validation else None
    test = load(config.test) if config.test else None
    skipped = {
        name: dict(part.skipped) for name, part in (("data", data), ("validation", validation), ("test", test)) if part
    }
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
        before, train = len(train), _without(train, load_pairs(config.drop_suspects, labelled=False))
        skipped["train"] = {"suspected label": before - len(train)}
        if not len(train):
            raise UserError(f"{config.drop_suspects}: names every training pair, so that none is left")
    parts = {"train": train, "validation": validation} | ({"test": test} if test is not None else {})
    for name, part in parts.items():
        need_both_labels(part, name)
    split = _description(parts, dropped, skipped)
    if config.augment:
        taken = [text for part in parts.values() for text in part.questions]
        more, split["generated"] = generate_pairs(train, config.augment, config.seed, taken)
        train = join([train, more])
    return Parts(train, validation, test, split)


def _unlabelled_parts(config: Config, load: Callable[[tuple[str, ...]], Pairs]) -> Parts:
    found = read_unlabelled(config)
    named = {"validation": config.validation, "test": config.test}
    parts = {name: load(sources) for name, sources in named.items() if sources}
    for name, part in parts.items():
        need_both_labels(part, name)
    taken = [text for part in parts.values() for text in part.questions]
    train, generated = pairs_of_questions(found.questions, augment=config.augment, seed=config.seed, taken=taken)
    skipped = {"data": found.skipped} | {name: dict(part.skipped) for name, part in parts.items()}
    split = _description({"train": train, **parts}, 0, skipped)
    split |= {"unlabelled": {"questions": len(found.questions), "left_out": found.left_out}}
    split |= {"generated": generated} if config.augment else {}
    return Parts(train, parts.get("validation", train.subset(np.arange(0))), parts.get("test"), split)


def _description(parts: Mapping[str, Pairs], dropped: int, skipped: Mapping[str, dict[str, int]]) -> dict[str, Any]:
    train = parts["train"]
    return {
        "fingerprint": fingerprint(list(parts.values())),
        "sizes": {name: len(part) for name, part in parts.items()},
        "questions": {name: len(part.questions) for name, part in parts.items()},
        "duplicates": {name: part.duplicate_ratio for name, part in parts.items()},
        "dropped": dropped,
        "skipped": {name: counts for name, counts in skipped.items() if counts},
        "leaks": {name: dataclasses.asdict(leak(train, part)) for name, part in parts.items() if name != "train"},
    }


def parts_of(config: Config, split: Mapping[str, Any]) -> Parts:
    """The parts of a finished run, loaded and cut again.

    Args:
        config: the config of the run.
        split: `Parts.split` as its checkpoint has it.

    Raises:
        UserError: a source is gone, or has changed.
    """
    parts = load_parts(config)
    if parts.split["fingerprint"] != split.get("fingerprint"):
        raise UserError(f"{', '.join(config.data)}: the data has changed since the checkpoint was trained")
    return parts


def training_pairs(config: Config, split: Mapping[str, Any]) -> Pairs | None:
    """The training pairs of a finished run; None where their sources are gone, or have changed."""
    with contextlib.suppress(UserError):
        return parts_of(config, split).train
    return None


def _without(train: Pairs, suspects: Pairs) -> Pairs:
    """The training pairs that are not among the suspects, in either order of the two questions."""
    named = {frozenset(suspects.texts(row)) for row in range(len(suspects))}
    return train.subset(np.array([frozenset(train.texts(row)) not in named for row in range(len(train))], dtype=bool))
