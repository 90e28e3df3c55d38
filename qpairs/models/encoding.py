"""An encoder of one tower or two: a thread tokenises texts ahead of the model that embeds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from qpairs.core.exceptions import UserError
from qpairs.data.records import require_texts
from qpairs.models.base import Floats, Side

WINDOW = 2048  # texts that are tokenised ahead of the model, and sorted by length


@dataclass(frozen=True)
class Tower:
    """One side of an encoder; the tokens pass from `tokenise` to `embed`, in any form.

    Attributes:
        tokenise: texts to tokens, from one thread or several.
        embed: the tokens of n texts to unit vectors (n, dimension), likewise.
    """

    tokenise: Callable[[Sequence[str]], Any]
    embed: Callable[[Any], Floats]


@dataclass(frozen=True)
class Towers:
    """An `Encoder` of one tower, which is then both, or of two."""

    left: Tower
    right: Tower
    dimension: int

    def encode(self, texts: Sequence[str], side: Side = "left") -> Floats:
        """Unit vectors (n, dimension) of texts, in their order; a window is tokenised while the last is embedded.

        Raises:
            UserError: one text instead of a list.
        """
        texts = require_texts(texts, "encode")
        tower: Tower = getattr(self, side)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        start = 0
        for tokens in _tokenised_ahead(tower.tokenise, texts):
            embedded = tower.embed(tokens)
            if embedded.shape[1:] != (self.dimension,):
                raise UserError(
                    f"the vectors of the model have {embedded.shape[-1]} numbers, but its qpairs.json says "
                    f"{self.dimension}: one of them is damaged; export it again"
                )
            vectors[start : start + len(embedded)] = embedded
            start += len(embedded)
        return vectors


def _tokenised_ahead(tokenise: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> Iterator[Any]:
    """The tokens of each window, while a thread tokenises the next one."""
    windows = [texts[start : start + WINDOW] for start in range(0, len(texts), WINDOW)]
    if len(windows) < 2:
        yield from map(tokenise, windows)
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(tokenise, windows[0])
        for window in windows[1:]:
            tokens, coming = coming.result(), thread.submit(tokenise, window)
            yield tokens
        yield coming.result()
