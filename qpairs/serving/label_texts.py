"""The texts of pairs that are labelled, and when two pairs are one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qpairs.data.identity import canonical

Texts = tuple[str, str]


def clean(text: str) -> str:
    """A text whose runs of white space are one space."""
    return " ".join(text.split())


def normal(text: str) -> str:
    """Identifies a question."""
    return canonical(text)


def pair_key(pair: Sequence[Any]) -> Texts:
    """Identifies a pair, whatever the order and the case of its questions.

    >>> pair_key(("How?", "Who am  I?")) == pair_key(("who am i?", "how?"))
    True
    """
    one, other = sorted((normal(pair[0]), normal(pair[1])))
    return one, other
