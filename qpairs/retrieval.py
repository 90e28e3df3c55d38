"""Search, the duplicates of a corpus, and clusters of them: over unit vectors, without torch.

Few questions are all compared with all. For many, the space is cut into cells by k-means, and a question is compared
with those in the cells nearest to it. How many cells that must be is read off a sample, whose duplicates are found by
comparing it with all; another sample says what share of the duplicates is found.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from threadpoolctl import threadpool_limits

from qpairs.faults import UserError
from qpairs.index import faiss_module
from qpairs.runtime import Model
from qpairs.splits import components

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

EXACT = 2_500_000_000  # comparisons, up to which all are made
BLOCK = 2048  # questions on either side of a block of comparisons
SPACE = 64  # dimensions that cells are cut in
CELLS = 4  # times the root of the number of questions
TRAINED_ON = 64  # questions for each cell
PROBES = 64  # cells that a question is compared with, at most
SAMPLE = 1024  # questions in each of the two samples
MOST_PAIRS = 50_000_000  # what is kept of them takes a gigabyte
ENCODED = 8192  # texts between two reports of progress


@dataclass(frozen=True)
class Matches:
    """The pairs of questions at or above a threshold.

    Attributes:
        left, right: (m,) rows; within one corpus left < right. Sorted.
        similarity: (m,) cosines.
        recall: share of all such pairs that were found; 1 where all were compared, nan where a sample has none.
        sampled: pairs that the recall was measured on; 0 where all were compared.
    """

    left: Ints
    right: Ints
    similarity: Floats
    recall: float = 1.0
    sampled: int = 0

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.left)


def find_matches(
    vectors: Floats,
    threshold: float,
    *,
    others: Floats | None = None,
    recall: float = 0.999,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Matches:
    """All pairs whose cosine is at or above a threshold, or most of them where there are many questions.

    Args:
        vectors: (n, d) unit vectors.
        threshold: of the cosine.
        others: (m, d) unit vectors that the first are compared with; without it, these are compared with one another.
        recall: share of the pairs that is to be found where not all can be compared; 1 compares all.
        seed: of samples and cells.
        on_progress: is told what share is done.

    Raises:
        UserError: there are far too many pairs.
    """
    targets = vectors if others is None else others
    search = _Search(vectors, targets, threshold, within=others is None)
    if recall >= 1 or len(vectors) * len(targets) <= EXACT:
        blocks = list(search.everything())
        return search.run(blocks, on_progress)
    blocks, measured, sampled = search.likely(recall, np.random.default_rng(seed))
    found = search.run(blocks, on_progress)
    return Matches(found.left, found.right, found.similarity, measured, sampled)
