"""The pairs that a caller names, and those that a model was trained and tested on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from qpairs.core.exceptions import UserError
from qpairs.data.formats import FORMATS, ending_of
from qpairs.data.labels import LabelledPairs, read_labels
from qpairs.data.pairs import Pairs
from qpairs.data.parts import parts_of, training_pairs
from qpairs.data.questions import QuestionSource
from qpairs.data.sources import PairSource, is_several, load_pairs
from qpairs.models.base import Model
from qpairs.models.ready import shown_name

log = logging.getLogger(__name__)

FEW = 10  # pairs of a label


def as_pairs(data: PairSource, *, columns: str | Sequence[str] = (), skip_bad_rows: bool = False) -> Pairs:
    """Pairs with labels, or those of a source, as in `load_pairs`."""
    return load_pairs(data, columns=columns, skip_bad_rows=skip_bad_rows)


def as_labels(labels: LabelledPairs | QuestionSource | Sequence[LabelledPairs | QuestionSource]) -> LabelledPairs:
    """Labels with their annotators, or those of a source or of several, as in `read_labels`."""
    if isinstance(labels, LabelledPairs):
        return labels
    return read_labels(*labels) if is_several(labels, LabelledPairs) else read_labels(labels)


def pairs_if_given(data: PairSource | None) -> Pairs | None:
    """As `as_pairs`; None if nothing, or an empty list, is given."""
    return None if data is None or (isinstance(data, list | tuple) and not data) else as_pairs(data)


def training_pairs_of(model: Model) -> Pairs | None:
    """The training pairs of a model; None if they are unknown, gone, or have changed."""
    return training_pairs(model.config, model.split) if model.split else None


def why_unjudged(model: Model) -> str:
    """Why no labelled pairs are known that a model was judged on as it was made; '' where some are.

    >>> why_unjudged(model).endswith("one-static does not store which pairs it was tested on")
    True
    """
    name = shown_name(model)
    if not model.split:  # a ready model whose verdict was fitted, or an export of an older version
        return f"{name} does not store which pairs it was tested on"
    return f"{name} learned without labels, and was tested on no pairs" if model.config.without_labels else ""


def tested_on(model: Model, what: str = "report") -> tuple[Pairs, str, Pairs]:
    """The pairs that a model was tested on (without a test part: validated on), their source, the training pairs.

    Args:
        model: trained by qpairs.
        what: the first word of an error: the caller.

    Raises:
        UserError: they are unknown, gone, or have changed.
    """
    if why := why_unjudged(model):
        raise UserError(f"{what}: {why}; name labelled pairs with data (--data)")
    try:
        parts = parts_of(model.config, model.split)
    except UserError as error:
        raise UserError(f"{what}: its test pairs are unavailable ({error}); name others with data (--data)") from error
    config = model.config
    if parts.test is None:
        return parts.validation, f"{source_names(config.validation)} (validation)", parts.train
    where = source_names(config.test) if config.test else f"{source_names(config.data)}, the part kept for the test"
    return parts.test, where, parts.train


def warn_of_few(pairs: Pairs, what: str) -> None:
    """Logs a warning where pairs of either label are so few that what is fitted to them hardly means anything.

    Args:
        pairs: labelled.
        what: who fits something to them.

    >>> warn_of_few(pairs, "combine")
    """
    duplicates = int((pairs.labels == 1).sum())
    if min(duplicates, len(pairs) - duplicates) < FEW:
        log.warning(
            "%s: labelled duplicates: %s, other pairs: %s; with fewer than %d of each, threshold, probability and F1 "
            "hardly mean anything",
            *(what, f"{duplicates:,}", f"{len(pairs) - duplicates:,}", FEW),
        )


def source_names(sources: Iterable[str]) -> str:
    """The names of sources, without the folders of the machine.

    >>> source_names(["/home/me/pairs.csv", "sample"])
    'pairs.csv, sample'
    """
    return ", ".join(
        Path(name).name if Path(name).is_absolute() or ending_of(name) in FORMATS else name for name in sources
    )
