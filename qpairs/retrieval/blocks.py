"""Cosines of many unit vectors with many, block by block on all cores, of which those above a threshold are kept.

Most pairs of long vectors are ruled out by short ones. With a the part of a vector along the main axes of a sample and
r the length of the rest, the cosine of two vectors is at most a1 . a2 + r1 r2 (Cauchy and Schwarz), which is the
product of two vectors (a, r). Only pairs whose bound reaches the threshold are computed in full, so none is lost.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qpairs.core.directions import main_directions
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter
from qpairs.retrieval.index.threads import in_threads

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Block = tuple[NDArray[np.integer], NDArray[np.integer]]  # rows and columns to compare, each with each
Pairs = tuple[Ints, Ints, Floats]  # (m,) rows, columns and cosines

SIZE = 2048  # rows and columns of a block
SHORT = 64  # numbers of a short vector
LONG = 128  # numbers of a vector, from which on a short one saves time
EQUAL = 1 - 1e-6  # cosine from which on two vectors are the same: in float32, one of length 1 has no more with itself
SLACK = 1e-5  # of a bound in single precision
SAMPLE = 20_000  # vectors that the axes are taken from
FEW = 0.01  # share of a block that bounds leave over, above which the whole block is computed in full
AT_ONCE = 8192  # pairs whose cosines are computed one by one
MOST_PAIRS = 30_000_000  # which take two gigabytes to sort


class Vectors(Protocol):
    """Unit vectors in memory, as an array (n, d), or on a disk."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, rows: NDArray[np.integer], /) -> Floats:
        """Those of some rows (k,), as (k, d)."""


@dataclass(frozen=True)
class Comparison:
    """What is compared with what.

    Attributes:
        rows: n unit vectors.
        columns: m of them, the unit vectors that they are compared with.
        threshold: the least cosine of a pair; that of vectors that are equal but for rounding is 1.
        within: whether rows and columns are the same, so that each pair counts once and none is with itself.
        short: the short vectors of rows and columns; None: all cosines are computed in full.
    """

    rows: Vectors
    columns: Vectors
    threshold: float
    within: bool
    short: tuple[Vectors, Vectors] | None = None


def main_axes(sample: Floats) -> Floats | None:
    """(d, SHORT - 1) orthonormal axes that hold most of the length of a sample (n, d); None where d is small."""
    if sample.shape[1] < LONG:
        return None
    return np.ascontiguousarray(main_directions(sample, SHORT - 1), dtype=np.float32)


def axes_sample(vectors: Vectors) -> Floats:
    """Up to `SAMPLE` of the vectors, evenly spaced, to find their main axes."""
    return vectors[np.unique(np.linspace(0, len(vectors) - 1, SAMPLE).astype(np.int64))]


def short_vectors(vectors: Floats, axes: Floats) -> Floats:
    """(n, SHORT) of unit vectors (n, d): the part along the axes, and the length of the rest, rounded up."""
    along = vectors @ axes
    rest = np.sqrt(np.maximum(0, 1 - np.einsum("ij,ij->i", along, along)) + 1e-6)
    return np.concatenate([along, rest[:, None]], axis=1, dtype=np.float32)


def with_short_vectors(comparison: Comparison) -> Comparison:
    """A comparison of vectors in memory, with their short vectors where those save time."""
    rows, columns = comparison.rows, comparison.columns
    axes = main_axes(axes_sample(columns))
    if axes is None:
        return comparison
    short = short_table(columns, axes)
    return replace(comparison, short=(short if comparison.within else short_table(rows, axes), short))


def short_table(vectors: Vectors, axes: Floats) -> Floats:
    """(n, SHORT) short vectors of n vectors."""
    return np.concatenate([short_vectors(vectors[rows], axes) for rows in spans(len(vectors))])


def spans(n: int) -> list[Ints]:
    """The numbers below n, in parts that fit a block."""
    return [np.arange(i, min(i + SIZE, n)) for i in range(0, n, SIZE)]


def all_blocks(comparison: Comparison) -> Iterator[Block]:
    """Blocks in which all rows meet all columns; within one set of vectors, each pair of spans once."""
    columns = spans(len(comparison.columns))
    for i, rows in enumerate(columns if comparison.within else spans(len(comparison.rows))):
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
            raise too_many(MOST_PAIRS, comparison.threshold)
        if meter:
            meter.advance(size)
    left, right, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return left, right, similarity


def too_many(most: int, threshold: float) -> UserError:
    """The error of a threshold with more pairs than can be kept."""
    return UserError(f"over {most:,} pairs are at or above {threshold:.3f}; raise --threshold or --precision")


def _compare_block(comparison: Comparison, block: Block) -> Pairs:
    rows, columns = block
    at, values = _reached(comparison, rows, columns)
    left: Ints = rows[at // len(columns)].astype(np.int64)
    right: Ints = columns[at % len(columns)].astype(np.int64)
    values = np.where(values >= EQUAL, np.float32(1), values)
    kept = values.astype(np.float64) >= comparison.threshold
    if comparison.within:
        kept &= left < right if rows is columns else left != right
    return left[kept], right[kept], values[kept]


def _reached(comparison: Comparison, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> tuple[Ints, Floats]:
    """(m,) places in a block, row by row, that may be at or above the threshold, and (m,) their cosines."""
    least = np.float32(min(comparison.threshold, EQUAL)) - np.float32(SLACK)
    at = None
    if comparison.short:
        bounds = (comparison.short[0][rows] @ comparison.short[1][columns].T).ravel()
        at = np.flatnonzero(bounds >= least)
    if at is None or len(at) > FEW * len(rows) * len(columns):
        at = np.flatnonzero((comparison.rows[rows] @ comparison.columns[columns].T).ravel() >= least)
    left, right = rows[at // len(columns)], columns[at % len(columns)]
    return at, cosines_of(comparison.rows, comparison.columns, left, right)


def cosines_of(rows: Vectors, columns: Vectors, left: NDArray[np.integer], right: NDArray[np.integer]) -> Floats:
    """(m,) the cosines of pairs; those of products of matrices would depend on the block, in their last digit."""
    values = np.empty(len(left), np.float32)
    for i in range(0, len(left), AT_ONCE):
        some = slice(i, i + AT_ONCE)
        values[some] = np.einsum("ij,ij->i", rows[left[some]], columns[right[some]])
    return values


def distinct(comparison: Comparison, pairs: Pairs) -> Pairs:
    """The pairs, each once, sorted."""
    left, right, similarity = pairs
    if comparison.within:
        left, right = np.minimum(left, right), np.maximum(left, right)
    _, first = np.unique(left * len(comparison.columns) + right, return_index=True)
    return left[first], right[first], similarity[first]
