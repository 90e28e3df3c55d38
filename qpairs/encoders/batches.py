"""Token ids to batches: texts of about one length together, and their ids as a padded matrix. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def by_length(lengths: Ints, batch_tokens: int) -> Iterator[Ints]:
    """Rows of texts of about one length, the longest first.

    Args:
        lengths: (n,) tokens of the texts.
        batch_tokens: tokens of a batch, padding included; a single longer text is a batch of its own.

    >>> [rows.tolist() for rows in by_length(np.array([2, 9, 3]), 6)]
    [[1], [2, 0]]
    """
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[0]])))
        yield order[:size]
        order = order[size:]


def padded(ids: Ints, lengths: Ints, pad: int = 0, pad_left: bool = False) -> tuple[Ints, Ints]:
    """The token ids of n texts as a matrix, and its mask: (n, width) each.

    Args:
        ids: (tokens,) of one text after the other.
        lengths: (n,) tokens of the texts.
        pad: the id that fills up a row.
        pad_left: whether it comes before the text.

    >>> padded(np.array([5, 6, 7]), np.array([1, 2]))[0].tolist()
    [[5, 0], [6, 7]]
    """
    columns = np.arange(max(1, lengths.max(initial=0)))
    mask = (columns[::-1] if pad_left else columns) < lengths[:, None]
    matrix = np.full(mask.shape, pad, dtype=np.int64)
    matrix[mask] = ids
    return matrix, mask.astype(np.int64)
