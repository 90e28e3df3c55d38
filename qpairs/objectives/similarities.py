"""Similarities of embeddings, greater is closer: the matrices that losses read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def dot(rows: Tensor, columns: Tensor) -> Tensor:
    """Inner product (..., n, m) of embeddings rows (..., n, d) and columns (..., m, d)."""
    if rows.shape[-2] == columns.shape[-2] == 1:  # pairs: many products of one row and one column each
        return (rows * columns).sum(-1, keepdim=True)
    return rows @ columns.mT


def cosine(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosine similarity (..., n, m) of unit embeddings rows (..., n, d) and columns (..., m, d)."""
    return dot(rows, columns)


def squared_euclidean(rows: Tensor, columns: Tensor) -> Tensor:
    """Minus the squared Euclidean distance (..., n, m) of embeddings rows (..., n, d) and columns (..., m, d)."""
    lengths = rows.square().sum(-1)[..., :, None] + columns.square().sum(-1)[..., None, :]  # (..., n, m)
    return 2 * dot(rows, columns) - lengths


def euclidean(rows: Tensor, columns: Tensor) -> Tensor:
    """Minus the Euclidean distance (..., n, m) of embeddings rows (..., n, d) and columns (..., m, d).

    The gradient at distance zero, where there is none, is zero. Rounding hides distances below about 5e-4.
    """
    if rows.shape[-2] == columns.shape[-2] == 1:  # pairs
        distance: Tensor = torch.linalg.vector_norm(rows - columns, dim=-1, keepdim=True)  # (..., 1, 1)
        return -distance
    return -torch.cdist(rows, columns, compute_mode="use_mm_for_euclid_dist")


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "squared_euclidean": squared_euclidean,
}
