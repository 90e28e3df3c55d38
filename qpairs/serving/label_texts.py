"""The texts of pairs that are labelled."""

from __future__ import annotations

Texts = tuple[str, str]


def clean(text: str) -> str:
    """A text whose runs of white space are one space."""
    return " ".join(text.split())
