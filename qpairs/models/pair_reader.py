"""What reads both questions of a pair at once: a cross-encoder, by torch or as an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.models.base import Floats

WINDOW = 2048  # pairs between two reports of progress, sorted by length


class PairReader(Protocol):
    """A cross-encoder: it reads both questions of a pair at once. Several threads may share one."""

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """Logits (n,) that pairs are duplicates, in their order: the mean over both orders of each pair."""


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
