"""The losses and the miners in words, from their tables and docstrings: what `qpairs losses` prints."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qpairs.core.exceptions import UserError, nearest
from qpairs.objectives.losses import LOSSES, LossEntry
from qpairs.objectives.miners import MINERS
from qpairs.objectives.prototypes import Prototypes


@dataclass(frozen=True)
class Description:
    """A loss or a miner.

    Attributes:
        kind: `loss` or `miner`.
        name: as in the options of a run.
        formula: what it computes, in words.
        paper: where it was published.
        parameters: names and defaults.
        meanings: what the parameters are.
        paragraphs: of its docstring.
        similarity: loss: the similarity that it reads.
        negatives: loss: what counts as non-duplicates.
    """

    kind: str
    name: str
    formula: str
    paper: str
    parameters: Mapping[str, float]
    meanings: Mapping[str, str]
    paragraphs: tuple[str, ...]
    similarity: str = ""
    negatives: str = ""


def describe(name: str = "") -> list[Description]:
    """The losses and miners of that name, or all, losses first.

    Raises:
        UserError: there is none of that name.

    >>> (circle,) = describe("circle")
    >>> circle.kind, circle.negatives, dict(circle.parameters)
    ('loss', 'labelled, in-batch', {'scale': 80.0, 'margin': 0.4})
    """
    tables: dict[str, Mapping[str, Any]] = {"loss": LOSSES, "miner": MINERS}
    rows = [(kind, key, entry) for kind, table in tables.items() for key, entry in table.items()]
    found = [row for row in rows if row[1] == name] if name else rows
    if not found:
        raise UserError(f"losses: no loss or miner {name!r}; {nearest(name, [key for _, key, _ in rows])}")
    return [_description(*row) for row in found]


def _description(kind: str, name: str, entry: Any) -> Description:
    paragraphs, meanings = _docstring(entry.function)
    only_losses = {}
    if isinstance(entry, LossEntry):
        only_losses = {"similarity": entry.similarity.replace("_", " "), "negatives": _negatives(entry)}
    return Description(
        kind,
        name,
        entry.formula,
        entry.paper,
        parameters=entry.parameters,
        meanings={**_docstring(Prototypes.__init__)[1], **meanings},
        paragraphs=tuple(paragraphs),
        **only_losses,
    )


def _negatives(entry: LossEntry) -> str:
    if entry.positives_only:
        return "none"
    if entry.prototypes:
        return "prototypes"
    if entry.only_unlabelled:
        return "in-batch"
    return "labelled, in-batch" if entry.in_batch else "labelled"


def _docstring(function: Callable[..., Any]) -> tuple[list[str], dict[str, str]]:
    """The paragraphs of a docstring before its sections and examples, and what it says of each argument."""
    text, _, arguments = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")
    paragraphs = text.partition("\n>>> ")[0].strip().split("\n\n")
    return paragraphs, dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE))
