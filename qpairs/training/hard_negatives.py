"""Offline mining: the nearest questions of other components, or without labels, in the whole training set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer

from qpairs.config import Config
from qpairs.core.files import atomic_file
from qpairs.core.manifests import reading_weights
from qpairs.data.pairs import Pairs
from qpairs.encoders.tokens import embed
from qpairs.encoders.towers import towers
from qpairs.training.batches import TokenizedQuestions, build_label_graph
from qpairs.training.distributed import rank_zero_first

log = logging.getLogger(__name__)

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
BLOCK = 2**25  # similarities at a time: 128 MiB


def mine_epoch(
    encoder: SentenceTransformer,
    questions: Sequence[TokenizedQuestions],
    pairs: Pairs,
    config: Config,
    folder: Path,
    epoch: int,
) -> tuple[Ints, Ints]:
    """The negatives of an epoch, mined with the current encoder, as `nearest_negatives` returns them.

    Args:
        encoder: with one tower or two.
        questions: the questions of the pair table as read by each tower.
        pairs: the pair table.
        config: `mined`, `relative_margin` and `symmetric` are read.
        folder: where they are kept, so that a run resumed within the epoch has the same.
        epoch: number of the epoch.
    """
    file = folder / f"mined-{epoch}.safetensors"
    with rank_zero_first():
        if not file.exists():
            sides = zip(dict.fromkeys(towers(encoder)), questions, strict=True)
            embeddings = [embed(tower, tokens.ids) for tower, tokens in sides]
            rows, negatives = nearest_negatives(
                pairs,
                build_label_graph(pairs).cluster.numpy(),
                embeddings[0],
                embeddings[-1],
                count=config.mined,
                relative_margin=config.relative_margin,
                candidates=None if config.symmetric else np.unique(pairs.right),
            )
            with atomic_file(file) as fresh:
                save_file({"rows": rows, "negatives": negatives}, fresh)
            log.info("epoch %d: %d negatives mined for %d pairs", epoch, len(rows), len(pairs))
    with reading_weights(file, "remove it to mine the negatives again"):
        mined = load_file(file)
        return mined["rows"], mined["negatives"]


def nearest_negatives(
    pairs: Pairs,
    guard: Ints,
    rows: Floats,
    columns: Floats,
    *,
    count: int = 1,
    relative_margin: float = 0.05,
    candidates: Ints | None = None,
) -> tuple[Ints, Ints]:
    """The hardest negatives of each duplicate pair (a, p) that are unlikely to be duplicates themselves.

    Of all questions n of other components, those with s(a, n) <= s(a, p) (1 - relative_margin), the nearest first:
    a question nearer than that is more likely an unlabelled duplicate (Moreira et al. 2024, NV-Retriever, section 3,
    TopK-PercPos). With a margin of 0.05 the negatives are semi-hard; a margin below 0 admits hard ones, too.

    Args:
        pairs: the pair table.
        guard: (n_questions,) component of each question, equal texts joined; its members are never negatives.
        rows: (n_questions, d) unit embeddings of the questions as anchors.
        columns: (n_questions, d) unit embeddings of the questions as negatives.
        count: most negatives for each pair.
        relative_margin: least gap to the similarity of the positive, as a share of it.
        candidates: question ids that may be negatives; None: all.

    Returns:
        rows (f,) of the pair table; negatives (f, 2), an anchor and its negative.
    """
    duplicate = np.flatnonzero(pairs.labels == 1)
    allowed = np.arange(len(guard)) if candidates is None else candidates
    count = min(count, len(allowed))
    found_rows, found = [np.empty(0, np.int64)], [np.empty((0, 2), np.int64)]
    step = max(1, BLOCK // max(1, len(allowed)))
    for part in (duplicate[i : i + step] for i in range(0, len(duplicate), step)):
        anchor, positive = pairs.left[part], pairs.right[part]
        to_positive = np.einsum("kd,kd->k", rows[anchor], columns[positive])
        sim = rows[anchor] @ columns[allowed].T  # (k, candidates)
        sim[sim > (to_positive - relative_margin * np.abs(to_positive))[:, None]] = -np.inf
        sim[guard[anchor][:, None] == guard[allowed][None]] = -np.inf
        best = np.argpartition(-sim, count - 1, axis=1)[:, :count]  # (k, count)
        k, place = np.nonzero(np.isfinite(np.take_along_axis(sim, best, axis=1)))
        found_rows.append(part[k])
        found.append(np.stack([anchor[k], allowed[best[k, place]]], axis=1))
    return np.concatenate(found_rows), np.concatenate(found)


def unlabelled_neighbours(pairs: Pairs, same: Ints, embeddings: Floats, count: int) -> Ints:
    """The nearest questions of each question, without the pairs that have a label.

    Args:
        pairs: the pair table.
        same: (n_questions,) canonical id of each question, equal where texts differ in case, spaces and punctuation.
        embeddings: (n_questions, d) unit embeddings.
        count: neighbours of each question, those of the same id left out.

    Returns:
        Pairs (k, 2) of question ids, the smaller first, none twice.
    """
    n = len(embeddings)
    table, numbers, found = torch.from_numpy(embeddings), torch.from_numpy(same), [np.empty(0, np.int64)]
    count = min(count, n - 1)
    step = max(1, BLOCK // max(1, n))
    for start in range(0, n if count else 0, step):
        sim = table[start : start + step] @ table.T  # (k, n)
        sim[numbers[start : start + step, None] == numbers] = -torch.inf
        near = sim.topk(count, dim=1).indices.numpy()  # (k, count)
        here = np.arange(start, start + len(near))[:, None]
        found.append((np.minimum(here, near) * n + np.maximum(here, near)).ravel())
    labelled = np.minimum(pairs.left, pairs.right) * n + np.maximum(pairs.left, pairs.right)
    fresh = np.setdiff1d(np.concatenate(found), labelled)
    ends = np.stack(np.divmod(fresh, n), axis=1) if n else np.empty((0, 2), np.int64)
    different: Ints = ends[same[ends[:, 0]] != same[ends[:, 1]]]
    return different
