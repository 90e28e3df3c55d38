"""Whether the evaluated questions were in the training pairs: then the figures do not hold for new questions."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.data.identity import among, canonical
from qpairs.data.pairs import Pairs
from qpairs.data.parts import TRAINED_ON, in_files, reading_options, training_pairs
from qpairs.data.sources import load_pairs
from qpairs.data.splits import Leak, leak_of
from qpairs.encoders.build import ENCODERS, tower_names
from qpairs.models.base import FILE, Model, load
from qpairs.models.two_stages import first_stage, second_stage

CALIBRATED_ON, DIGESTS = "calibrated_on", "questions"  # in the scores of a calibrated model: digests of its questions
LARGEST = 200_000  # training pairs; to cut more of them again takes minutes


def seen_in_training(model: Model, pairs: Pairs, trained_on: Pairs | None = None) -> Leak | None:
    """How many of the questions were in the training pairs, without regard to case, spaces and punctuation.

    The training pairs are read again from their files; nothing is downloaded. If no question is in those files, they
    are not split again, which takes most of the time. For a model trained on pairs in memory or on the Hub, the split
    has digests of the questions. For a model of two stages, the training pairs of both count; and those of a checkpoint
    that was the initial encoder, if it still exists.

    Args:
        model: its config names the sources of its training pairs, and its split how they were cut.
        pairs: the evaluated pairs.
        trained_on: the training pairs, if already loaded; for a model of two stages, those of its encoder.

    Returns:
        The counts; None if the training pairs are not in files here (and no digests are stored), have changed, or are
        more than LARGEST.

    >>> from qpairs.models.base import load
    >>> seen = seen_in_training(load("runs/support"), load_pairs("more.csv"))  # doctest: +SKIP
    >>> seen_note(seen.questions, seen.of_questions)  # doctest: +SKIP
    '12 of 340 questions were seen in training; F1 on them does not hold for new questions'
    """
    first, second, asked = (
        first_stage(model),
        second_stage(model),
        {canonical(question) for question in pairs.questions},
    )
    if trained_on is None:
        known = _known(first, asked)
    else:
        earlier = _known_before(first.config, asked, frozenset())
        known = None if earlier is None else earlier | (asked & set(map(canonical, trained_on.questions)))
    if second and second.second.split != first.split:
        more = _known(second.second, asked)
        known = None if known is None or more is None else known | more
    return None if known is None else leak_of(known, pairs)


def seen_by_encoder(config: Config, pairs: Pairs) -> Leak | None:
    """How many of the questions the encoder of a run was trained on before, if it is a checkpoint of an earlier run.

    Args:
        config: of the run.
        pairs: its validation or test pairs.

    Returns:
        The counts; None if unknown.

    >>> seen_by_encoder(Config(encoder="minilm"), load_pairs([("How do I pay?", "How can I pay?", 1)])).questions
    0
    """
    known = _known_before(config, {canonical(question) for question in pairs.questions}, frozenset())
    return None if known is None else leak_of(known, pairs)


def _known(model: Model, asked: Set[str], passed: frozenset[Path] = frozenset()) -> Set[str] | None:
    """Those of the questions, in canonical form, that are in the training pairs; None if unknown.

    Args:
        model: its encoder may be a checkpoint, whose training pairs count, too.
        asked: canonical forms.
        passed: folders of checkpoints trained from this one, directly or in steps.
    """
    own = _known_of_run(model.config, model.split, asked)
    earlier = None if own is None else _known_before(model.config, asked, passed)
    return None if own is None or earlier is None else own | earlier


def encoder_checkpoints(encoder: str) -> tuple[Path, ...]:
    """The folders of qpairs checkpoints that `Config.encoder` names; a name of `ENCODERS` is no folder, as in training.

    >>> encoder_checkpoints("minilm")
    ()
    """
    return tuple(Path(name) for name in tower_names(encoder) if name not in ENCODERS and (Path(name) / FILE).exists())


def _known_before(config: Config, asked: Set[str], passed: frozenset[Path]) -> Set[str] | None:
    known: set[str] = set()
    for folder in (path.resolve() for path in encoder_checkpoints(config.encoder)):
        # one that was trained from the folder which it has replaced is not the one that the run began with
        before = None if folder in passed else _known_to(folder, asked, passed)
        if before is None:
            return None
        known |= before
    return known


def _known_to(folder: Path, asked: Set[str], passed: frozenset[Path]) -> Set[str] | None:
    with contextlib.suppress(UserError):
        return _known(first_stage(load(folder)), asked, passed | {folder})
    return None


def _known_of_run(config: Config, split: Mapping[str, Any], asked: Set[str]) -> Set[str] | None:
    with contextlib.suppress(UserError, OSError, ValueError):
        if TRAINED_ON in split:
            return among(split[TRAINED_ON], asked)
        if not split or split.get("sizes", {}).get("train", 0) > LARGEST or not in_files(config):
            return None
        data = load_pairs(config.data, **reading_options(config))
        if asked.isdisjoint(map(canonical, data.questions)):
            return set() if len(data) == _pairs_before(config, split) else None
        train = training_pairs(dataclasses.replace(config, augment=0.0), split)  # its questions are changed ones
        return asked & set(map(canonical, train.questions)) if train else None
    return None


def seen_in_calibration(model: Model, pairs: Pairs) -> int:
    """How many of the questions were in the labelled pairs that `qpairs calibrate` fitted the verdict to.

    >>> seen_in_calibration(model, pairs)
    0
    """
    asked = set(map(canonical, pairs.questions))
    with contextlib.suppress(ValueError, TypeError, AttributeError):  # a damaged note is as none
        return len(among(model.scores.get(CALIBRATED_ON, {}).get(DIGESTS, ""), asked))
    return 0


def seen_note(questions: int, of_questions: int) -> str:
    """The note on evaluated questions that were in the training pairs; empty if there are none.

    >>> seen_note(3, 1200)
    '3 of 1,200 questions were seen in training; F1 on them does not hold for new questions'
    """
    if not questions:
        return ""
    return (
        f"{questions:,} of {of_questions:,} questions were seen in training; F1 on them does not hold for new questions"
    )


def _pairs_before(config: Config, split: Mapping[str, Any]) -> int:
    """How many pairs were cut into the parts of a finished run."""
    named = {"validation": bool(config.validation), "test": bool(config.test)}
    cut = sum(n for part, n in split["sizes"].items() if not named.get(part))
    suspects: int = split.get("skipped", {}).get("train", {}).get("suspected label", 0)
    return int(cut + split.get("dropped", 0) + suspects)
