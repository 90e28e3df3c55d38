"""What the names of encoders and teachers say about a run before torch is imported: which cross-encoders it trains."""

from __future__ import annotations

from collections.abc import Sequence

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.encoders.build import ENCODERS, tower_names
from qpairs.training.distributed import world

TRANSFORMERS = tuple(name for name, kind in ENCODERS.items() if not kind.takes_vectors)  # these read two questions
ITSELF = "itself"  # the name of the teacher that is the encoder after a first pass over the labels


def check_transformer(what: str, name: str) -> None:
    """Raises UserError if, by its name, an encoder cannot become a cross-encoder.

    Args:
        what: the option that names it.
        name: one of `ENCODERS`, a folder or a Hub id.

    >>> check_transformer("a", "lstm")
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: a: lstm is not a transformer, so it cannot read two questions at once; use minilm
    """
    if len(tower_names(name)) > 1:
        raise UserError(f"{what}: {name} has two towers; a cross-encoder is one transformer; use minilm")
    if name in ENCODERS and name not in TRANSFORMERS:
        raise UserError(f"{what}: {name} is not a transformer, so it cannot read two questions at once; use minilm")


def check_cross_encoder(config: Config) -> None:
    """Raises UserError if a config cannot train a cross-encoder, before any work is done."""
    check_transformer("encoder", config.encoder)
    if config.budget_minutes and world() > 1:
        raise UserError("budget_minutes: clocks differ between processes; set epochs instead")


def teachers_to_train(names: Sequence[str]) -> tuple[str, ...]:
    """Those of a config's `teacher` that a run trains itself; the others are loaded.

    Raises:
        UserError: an encoder that is not a transformer, a name that is given twice, or two cross-encoders to train.
    """
    found = tuple(name for name in names if name in (*TRANSFORMERS, ITSELF))
    for name in names:
        if name in ENCODERS and name not in found:
            raise UserError(
                f"teacher: {name} is not a transformer, so it cannot read two questions at once; use minilm or mpnet"
            )
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"teacher: {name} is named twice; name each teacher once")
    if len(found) - found.count(ITSELF) > 1:
        raise UserError(f"teacher: only one cross-encoder can be trained, not several ({', '.join(found)})")
    return found


def cross_encoder_to_train(names: Sequence[str]) -> str:
    """The transformer that a run trains a cross-encoder from; '' if it trains none.

    Raises:
        UserError: as `teachers_to_train`.
    """
    return next((name for name in teachers_to_train(names) if name != ITSELF), "")
