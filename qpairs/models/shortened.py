"""Vectors that are cut to their first numbers, and the verdict that holds for them.

A model that was trained with `dims` has a verdict for each of these lengths. Code that reads cosines of shortened
vectors gets it from `verdict_at`, and logs `shortened_note` if there is none.
"""

from __future__ import annotations

import numpy as np

from qpairs.models.base import Floats, Model, Tables
from qpairs.models.verdict import Verdict


def shorten(vectors: Floats, dimension: int) -> Floats:
    """The first `dimension` numbers of each vector (n, d), scaled to unit length.

    >>> shorten(np.array([[3.0, 4.0, 5.0]], dtype=np.float32), 2).tolist()[0]
    [0.6000000238418579, 0.800000011920929]
    """
    return vectors if vectors.shape[1] == dimension else unit(vectors[:, :dimension])


def unit(vectors: Floats) -> Floats:
    """Vectors (n, d) scaled to unit length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def shorten_tables(tables: Tables, dimension: int) -> Tables:
    """Both tables of `Model.embed_tables`, shortened; one table twice stays one."""
    rows, columns = tables
    short = shorten(rows, dimension)
    return short, short if columns is rows else shorten(columns, dimension)


def verdict_at(model: Model, dimension: int) -> Verdict:
    """The verdict for vectors of this length, or else that of whole vectors."""
    return model.verdict.shortened.get(dimension, model.verdict)


def shortened_note(model: Model, dimension: int) -> str:
    """A warning if a model has no verdict for vectors of this length; empty if it has one."""
    if dimension == model.dimension or dimension in model.verdict.shortened:
        return ""
    judged = ", ".join(str(length) for length in sorted({model.dimension, *model.verdict.shortened}, reverse=True))
    return (
        f"the vectors are cut to {dimension} numbers, and the model has no verdict for that length: thresholds and "
        f"probabilities are those of whole vectors ({model.dimension}); it has verdicts for {judged}"
    )
