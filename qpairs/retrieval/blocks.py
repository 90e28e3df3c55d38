"""Cosines of many unit vectors with many, block by block on all cores, of which those above a threshold are kept."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter
from qpairs.retrieval.index.threads import in_threads

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Block = tuple[NDArray[np.integer], NDArray[np.integer]]  # rows and columns to compare, each with each
Pairs = tuple[Ints, Ints, Floats]  # (m,) rows, columns and cosines

SIZE = 2048  # rows and columns of a block
MOST_PAIRS = 30_000_000  # which take two gigabytes to sort


@dataclass(frozen=True)
class Comparison:
    """What is compared with what.

    Attributes:
        rows: (n, d) unit vectors.
        columns: (m, d) the unit vectors that they are compared with.
        threshold: the least cosine of a pair.
        within: whether rows and columns are the same, so that each pair counts once and none is with itself.
    """

    rows: Floats
    columns: Floats
    threshold: float
    within: bool


def spans(n: int) -> list[Ints]:
    """The numbers below n, in parts that fit a block."""
    return [np.arange(i, min(i + SIZE, n)) for i in range(0, n, SIZE)]


def all_blocks(comparison: Comparison) -> Iterator[Block]:
    """Blocks in which all rows meet all columns; within one set of vectors, each pair of spans once."""
    columns = spans(len(comparison.columns))
    for i, rows in enumerate(spans(len(comparison.rows))):
        for part in columns[i if comparison.within else 0 :]:
            yield rows, part


def compare(comparison: Comparison, blocks: Sequence[Block], meter: Meter | None = None) -> Pairs:
    """The pairs at or above the threshold in some blocks, in no order, perhaps twice.

    Args:
        comparison: the vectors and the threshold.
        blocks: which of them to compare.
        meter: counts the comparisons.

    Raises:
        UserError: there are more than `MOST_PAIRS` pairs.
    """
    sizes = [len(rows) * len(columns) for rows, columns in blocks]
    if meter:
        meter.begin("comparing", sum(sizes))
    found: list[Pairs] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    pairs = 0
    for size, part in zip(sizes, in_threads(functools.partial(_compare_block, comparison), blocks), strict=True):
        found.append(part)
        pairs += len(part[0])
        if pairs > MOST_PAIRS:
            raise UserError(
                f"over {MOST_PAIRS:,} pairs are at or above {comparison.threshold:.3f}; raise --threshold or "
                "--precision"
            )
        if meter:
            meter.advance(size)
    left, right, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return left, right, similarity


def _compare_block(comparison: Comparison, block: Block) -> Pairs:
    rows, columns = block
    similarity = (comparison.rows[rows] @ comparison.columns[columns].T).ravel()  # (rows * columns,)
    at = np.flatnonzero(similarity >= np.float32(comparison.threshold))
    left: Ints = rows[at // len(columns)].astype(np.int64)
    right: Ints = columns[at % len(columns)].astype(np.int64)
    values: Floats = similarity[at]
    kept = values.astype(np.float64) >= comparison.threshold
    if comparison.within:
        kept &= left != right
    return left[kept], right[kept], values[kept].clip(max=1)


def distinct(comparison: Comparison, pairs: Pairs) -> Pairs:
    """The pairs, each once, sorted."""
    left, right, similarity = pairs
    if comparison.within:
        left, right = np.minimum(left, right), np.maximum(left, right)
    _, first = np.unique(left * len(comparison.columns) + right, return_index=True)
    return left[first], right[first], similarity[first]
