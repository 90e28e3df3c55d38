"""When two texts are one question, and two pairs one pair: case and white space do not count."""

from __future__ import annotations

from qpairs.data.corpus import pair_key as pair_key
from qpairs.data.corpus import question_key

Texts = tuple[str, str]


def clean(text: str) -> str:
    """A text whose runs of white space are one space."""
    return " ".join(text.split())


def normal(text: str) -> str:
    """Identifies a question."""
    return question_key(text)
