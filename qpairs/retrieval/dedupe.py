"""The duplicates of a corpus: pairs, clusters, and the questions that another corpus has already."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.identity import canonical, distinct_texts
from qpairs.data.records import require_texts
from qpairs.models.base import Model
from qpairs.models.shortened import shorten
from qpairs.models.verdict import check_threshold
from qpairs.retrieval.blocks import SIZE, Floats, Ints, Vectors
from qpairs.retrieval.clusters import Linkage, clusters
from qpairs.retrieval.embeddings import Embeddings
from qpairs.retrieval.matches import NO_MATCHES, Matches, find_matches

Encode = Callable[[Sequence[str]], Floats]


@dataclass(frozen=True)
class Deduplicated:
    """The duplicates of a corpus of n rows that are q distinct questions.

    Attributes:
        question: (n,) the question of each row: rows may repeat one (`data.identity`).
        first: (q,) the first row of each question.
        asked: pairs of a question and the nearest row of the other corpus, where that is a duplicate.
        pairs: pairs of duplicates among the questions that are not in the other corpus.
        representative: (q,) the question that represents each.
        similarity: (q,) cosine to the representative.
    """

    question: Ints
    first: Ints
    asked: Matches
    pairs: Matches
    representative: Ints
    similarity: Floats

    @property
    def kept(self) -> Ints:
        """The rows that represent themselves and are not in the other corpus, in order."""
        alone = self.representative == np.arange(len(self.first))
        alone[self.asked.left] = False
        rows: Ints = self.first[alone]
        return rows


def dedupe(
    texts: Sequence[str],
    encode: Encode,
    threshold: float,
    *,
    against: Sequence[str] = (),
    linkage: Linkage = "star",
    recall: float = 0.9999,
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> Deduplicated:
    """Finds the duplicates in a corpus, and the questions that another corpus has already.

    Args:
        texts: (n,) the corpus.
        encode: texts to unit vectors, of one tower: `Model.encode`, or a function from `stored`.
        threshold: least cosine of duplicates.
        against: the other corpus.
        linkage: how clusters are made, see `clusters`.
        recall: see `find_matches`.
        seed: see `find_matches`.
        on_progress: see `find_matches`.

    Raises:
        UserError: one text instead of a list, a threshold that is not a cosine, or there are far too many pairs.

    >>> vectors = {"pay": [1, 0], "Pay": [1, 0], "pay how": [0.8, 0.6], "boat": [0, 1]}
    >>> encode = lambda texts: np.array([vectors[text] for text in texts], dtype=np.float32)
    >>> dedupe(["pay", "Pay", "pay how", "boat"], encode, threshold=0.7).kept.tolist()
    [0, 3]
    """
    check_threshold(threshold)
    texts, against = require_texts(texts), require_texts(against, "against")
    own, other = distinct(texts, encode), distinct(against, encode) if against else None
    found = find_candidates(own, threshold, other=other, recall=recall, seed=seed, on_progress=on_progress)
    return resolve(own, found, threshold, linkage)


@dataclass(frozen=True)
class Distinct:
    """The distinct questions of a corpus of n rows.

    Attributes:
        question: (n,) the question of each row: rows may repeat one (`data.identity`).
        first: (q,) the first row of each question.
        vectors: (q, d) their unit vectors.
        identity: (q,) the same number for the same question in any corpus of this process.
    """

    question: Ints
    first: Ints
    vectors: Floats
    identity: Ints


def distinct(texts: Sequence[str], encode: Encode) -> Distinct:
    """The distinct questions among texts (n,), each encoded once."""
    question, first = distinct_texts(texts)
    once = [texts[row] for row in first]
    return Distinct(question, first, encode(once), np.array([hash(canonical(text)) for text in once], np.int64))


@dataclass(frozen=True)
class Candidates:
    """Pairs at or above the lowest threshold that is of interest.

    Attributes:
        asked: pairs of a question and the nearest row of the other corpus: the most similar one, or after a second look
            the most probable one.
        pairs: pairs of questions of the corpus.
    """

    asked: Matches
    pairs: Matches


def find_candidates(
    own: Distinct,
    threshold: float,
    *,
    other: Distinct | None = None,
    recall: float = 0.9999,
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> Candidates:
    """All pairs at or above a threshold within a corpus, and the nearest rows of another; arguments as in `dedupe`.

    Raises:
        UserError: there are far too many pairs.
    """
    asked, pairs = find_all(own, threshold, other=other, recall=recall, seed=seed, on_progress=on_progress)
    return Candidates(nearest_there(asked, other), pairs)


def find_all(
    own: Distinct,
    threshold: float,
    *,
    other: Distinct | None = None,
    recall: float = 0.9999,
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> tuple[Matches, Matches]:
    """All pairs at or above a threshold: of questions and those of the other corpus, and within the corpus.

    Raises:
        UserError: there are far too many pairs.
    """
    matches = functools.partial(find_matches, own.vectors, threshold, recall=recall, seed=seed, on_progress=on_progress)
    return _with_the_same(own, other, matches(others=other.vectors)) if other else NO_MATCHES, matches()


def _with_the_same(own: Distinct, other: Distinct, found: Matches) -> Matches:
    """Pairs of two corpora, with those that are one question: whatever their vectors, their similarity is 1."""
    _, left, right = np.intersect1d(own.identity, other.identity, return_indices=True)
    size = max(1, len(other.first))
    rest = found.subset(~np.isin(found.left * size + found.right, left * size + right))
    similarity = np.concatenate([rest.similarity, np.ones(len(left), np.float32)])
    left, right = np.concatenate([rest.left, left]), np.concatenate([rest.right, right])
    order = np.lexsort((right, left))
    return replace(found, left=left[order], right=right[order], similarity=similarity[order])


def same_questions(own: Distinct, other: Distinct | None, found: Matches) -> NDArray[np.bool_]:
    """(m,) which pairs of two corpora are one question: those are duplicates, whatever a model says."""
    if other is None:
        return np.zeros(len(found), dtype=np.bool_)
    same: NDArray[np.bool_] = own.identity[found.left] == other.identity[found.right]
    return same


def nearest_there(found: Matches, other: Distinct | None) -> Matches:
    """For each question that has any, the pair of highest score, with the row of the other corpus.

    Args:
        found: pairs of questions of the corpus and of distinct questions of the other one.
        other: the other corpus.
    """
    if other is None:
        return found
    best = np.lexsort((found.right, -found.similarity, -found.score, found.left))
    _, once = np.unique(found.left[best], return_index=True)
    best = best[once]
    probability = None if found.probability is None else found.probability[best]
    return replace(
        found,
        left=found.left[best],
        right=other.first[found.right[best]],
        similarity=found.similarity[best],
        probability=probability,
    )


def resolve(own: Distinct, found: Candidates, threshold: float, linkage: Linkage = "star") -> Deduplicated:
    """The duplicates at a threshold, among candidates that were found at it or at a lower one.

    Args:
        own: the corpus.
        found: its candidates.
        threshold: least score of duplicates: their cosine, or after a second look their probability.
        linkage: how clusters are made, see `clusters`.
    """
    asked = found.asked.at_or_above(threshold)
    new = np.ones(len(own.first), dtype=np.bool_)
    new[asked.left] = False
    pairs = found.pairs.at_or_above(threshold)
    pairs = pairs.subset(new[pairs.left] & new[pairs.right])
    representative = clusters(len(own.first), pairs, linkage)
    similarity = to_representatives(own.vectors, representative)
    return Deduplicated(own.question, own.first, asked, pairs, representative, similarity)


def to_representatives(vectors: Vectors, representative: Ints) -> Floats:
    """(q,) cosine of each of q questions to the one that represents it."""
    similarity = np.ones(len(representative), dtype=np.float32)
    members = np.flatnonzero(representative != np.arange(len(representative)))
    for rows in np.array_split(members, len(members) // SIZE + 1):
        similarity[rows] = np.einsum("ij,ij->i", vectors[rows], vectors[representative[rows]]).clip(max=1)
    return similarity


def require_one_tower(model: Model) -> None:
    """Raises UserError if both sides of a pair have their own encoder: cosines within a corpus then mean nothing."""
    if not (model.verdict.symmetric and model.one_tower):
        raise UserError(f"{model.path}: two towers, or sides of different kinds; a corpus needs a single encoder")


def stored(embeddings: Embeddings, model: Model, encode: Encode | None = None) -> Encode:
    """A function from texts to vectors that reads what `qpairs embed` made, and encodes the rest.

    Args:
        embeddings: where the vectors are.
        model: that made them.
        encode: encodes the other texts; without it, the model does.

    Raises:
        UserError: another model made them.
    """
    embeddings.require_model(model)

    def look_up(texts: Sequence[str]) -> Floats:
        row = {text: i for i, text in enumerate(texts)}
        vectors = np.empty((len(texts), embeddings.dimension), dtype=np.float32)
        missing = np.ones(len(texts), dtype=np.bool_)
        for _, found, block in embeddings.batches():
            rows = np.array([row.get(text, -1) for text in found])
            vectors[rows[rows >= 0]] = block[rows >= 0]
            missing[rows[rows >= 0]] = False
        if missing.any():
            rest = (encode or model.encode)([text for text, lacks in zip(texts, missing, strict=True) if lacks])
            vectors[missing] = shorten(rest, embeddings.dimension)
        return vectors

    return look_up
