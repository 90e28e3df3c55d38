"""Reading both questions of a pair at once: a cross-encoder, by torch or as an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.models.base import Floats

WINDOW = 2048  # pairs between two reports of progress, sorted by length


class PairReader(Protocol):
    """A cross-encoder: it reads both questions of a pair at once. Several threads may share one."""

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """Logits (n,) that pairs are duplicates, in their order: the mean over both orders of each pair."""


def without_long_ends(
    pairs: Sequence[tuple[str, str]], longest: int, ends: Callable[[list[str]], Sequence[Sequence[int]]]
) -> list[tuple[str, str]]:
    """The pairs, each text cut to what would be read of it alone.

    A tokenizer that cuts pairs keeps what it cuts off, in every combination of the pieces of both texts: memory and
    time grow with the product of their lengths. It gives an odd token to the longer text, which therefore stays the
    longer one.

    Args:
        pairs: of texts.
        longest: most tokens of a pair. A text of as many characters is not cut.
        ends: from texts to the places where each token of each text ends.

    >>> without_long_ends([("How do I pay?", "Why?")], 1, lambda texts: [[3, 6, 8, 12, 13], [3, 4]])
    [('How do I', 'Why?')]
    """
    long = list(dict.fromkeys(text for pair in pairs for text in pair if len(text) > longest))
    if not long:
        return list(pairs)
    places = dict(zip(long, ends(long), strict=True))

    def cut(text: str, other: str) -> str:
        known = places.get(text, ())
        kept = longest + 1 + (len(known) > len(places.get(other, ())))
        return text if len(known) <= kept else text[: known[kept - 1]]

    return [(cut(a, b), cut(b, a)) for a, b in pairs]


def read_pairs(
    reader: PairReader,
    pairs: Sequence[tuple[str, str]],
    on_progress: OnProgress = ignore,
    stage: str = "reading pairs",
) -> Floats:
    """Logits (n,) of pairs, window after window; progress counts pairs.

    Args:
        reader: a cross-encoder.
        pairs: of texts.
        on_progress: called after each window.
        stage: what progress calls it.
    """
    meter, logits = Meter(on_progress), np.empty(len(pairs), dtype=np.float32)
    meter.begin(stage, len(pairs))
    for start in range(0, len(pairs), WINDOW):
        part = pairs[start : start + WINDOW]
        logits[start : start + len(part)] = reader.logits(part)
        meter.advance(len(part))
    return logits
