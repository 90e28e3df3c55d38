"""All pairs of a question table with known duplicates: the pairs above a threshold, and the best hits.

The pairs are compared in blocks, so that memory does not grow with their number.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs import metrics
from qpairs.data.pairs import UNLABELLED, Pairs
from qpairs.evaluation.question_table import symmetric_tables, table_counts
from qpairs.metrics import ReadEstimate, ScoreCounts
from qpairs.metrics.inputs import BLOCK
from qpairs.metrics.ranking import distinct_cuts
from qpairs.metrics.read_pairs import SURE
from qpairs.metrics.score_counts import EDGES, HITS
from qpairs.models.base import Floats, Tables
from qpairs.models.second_setting import SecondSetting
from qpairs.models.two_stages import Band, TwoStages

KEPT = 64  # pairs for each question; all of greatest similarity
MOST = 2**24  # pairs kept at most, if there are many duplicates
MOST_READ = 5_000  # pairs that a cross-encoder reads for a report; a minute or so on one core

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class AllPairs:
    """The stored part of the comparison of all pairs of n questions.

    Attributes:
        counts: the scores of all pairs.
        floor: pairs at or above this score are kept.
        left, right: (m,) the questions of the kept pairs, left < right; the highest score first.
        scores: (m,) their scores, falling.
        same: (m,) whether they are duplicates.
        duplicates: (k,) scores of all duplicates, rising.
        hits: (n, h) scores of the 10 nearest other questions of each, falling; fewer in a small table. After a second
            look, of some of the questions.
        hits_at: (n, h) which questions they are.
        hits_same: (n, h) whether they are duplicates.
    """

    counts: ScoreCounts
    floor: float
    left: Ints
    right: Ints
    scores: Floats
    same: NDArray[np.bool_]
    duplicates: Floats
    hits: Floats
    hits_at: Ints
    hits_same: NDArray[np.bool_]

    def called(self, thresholds: ArrayLike) -> NDArray[np.float64]:
        """Pairs at or above each threshold, in the shape of the thresholds; estimated from `counts` below `floor`."""
        wanted = np.asarray(thresholds, dtype=np.float64)
        kept = len(self.scores) - np.searchsorted(self.scores[::-1].astype(np.float64), wanted, "left")
        return np.asarray(np.where(wanted >= self.floor, kept, np.maximum(self.counts.at_or_above(wanted), kept)))

    def found(self, thresholds: ArrayLike) -> Ints:
        """Duplicates at or above each threshold, in the shape of the thresholds."""
        wanted = np.asarray(thresholds, dtype=np.float64)
        return np.asarray(len(self.duplicates) - np.searchsorted(self.duplicates.astype(np.float64), wanted, "left"))

    def best(self) -> tuple[float, float]:
        """The threshold with the highest F1 over all pairs, at least `floor`, and that F1."""
        if not len(self.scores):
            return 1.0, 0.0
        cuts, right, called = distinct_cuts(self.scores.astype(np.float64), self.same)
        f1 = 2 * right / (called + len(self.duplicates))
        place = int(np.argmax(f1))
        return float(cuts[place]), float(f1[place])


def compare_all(tables: Tables, cluster: Ints) -> AllPairs:
    """Compares all pairs of a question table.

    Args:
        tables: embeddings of n questions, from `Model.embed_tables`.
        cluster: (n,) cluster of duplicates of each question.

    >>> vectors = np.array([[1, 0], [1, 0], [0.6, 0.8]], dtype=np.float32)
    >>> compared = compare_all((vectors, vectors), np.array([0, 0, 1]))
    >>> compared.called([0.5, 0.9]).tolist(), compared.found([0.5, 0.9]).tolist()
    ([3.0, 1.0], [1, 1])
    """
    rows, columns = symmetric_tables(tables)
    n, counts = len(rows), table_counts(tables)
    nearest, floor = min(HITS, n - 1), _floor(counts, cluster)
    one, other = metrics.pairs_within(cluster)
    of_row = np.argsort(one, kind="stable")
    one, other = one[of_row], other[of_row]
    kept: list[tuple[Ints, Ints, Floats]] = []
    duplicates: list[Floats] = []
    hits, hit_places = np.empty((n, nearest), np.float32), np.empty((n, nearest), np.int64)
    step = max(1, BLOCK // n)
    for start in range(0, n, step):
        end = min(start + step, n)
        scores = rows[start:end] @ columns.T
        scores[np.arange(end - start), np.arange(start, end)] = -np.inf  # a question with itself
        row, column = np.divmod(np.flatnonzero(scores.ravel() >= floor), n)
        above = scores[row, column]
        hits[start:end], hit_places[start:end] = _nearest(scores, nearest, row, column, above)
        once = column > row + start
        kept.append((row[once] + start, column[once], above[once]))
        inside = slice(*np.searchsorted(one, [start, end]))
        duplicates.append(scores[one[inside] - start, other[inside]])
    left, right, found = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    order = np.argsort(-found, kind="stable")
    left, right = left[order], right[order]
    return AllPairs(
        counts=counts,
        floor=floor,
        left=left,
        right=right,
        scores=found[order].clip(-1, 1),
        same=cluster[left] == cluster[right],
        duplicates=np.sort(np.concatenate(duplicates)).clip(-1, 1),
        hits=hits.clip(-1, 1),
        hits_at=hit_places,
        hits_same=cluster[hit_places] == cluster[:, None],
    )


def read_again(
    compared: AllPairs, model: TwoStages, questions: tuple[str, ...], setting: SecondSetting, hits: SecondSetting
) -> tuple[AllPairs, ReadEstimate]:
    """All pairs after the second look of a model of two stages: their scores are probabilities in this corpus.

    In a large corpus only the pairs with the highest cosines and the hits of some random questions are read.

    Args:
        compared: by the cosines of the model's encoder.
        model: reads the pairs that it may change, and the hits, each up to `MOST_READ`.
        questions: (n,) texts.
        setting: for pairs of this corpus.
        hits: for the hits of searches in it.
    """
    band = setting.band(setting.worth, SURE)
    floor = max([setting.floor(setting.worth), *compared.scores[MOST_READ - 1 : MOST_READ].tolist()])
    near = compared.scores >= floor
    left, right, cosines = compared.left[near], compared.right[near], compared.scores[near]
    found = setting.after_reading(cosines, _logits(model, questions, left, right, cosines, band), floor)
    order = np.argsort(-found.scores, kind="stable")
    probability, same = found.scores[order], compared.same[near][order]
    rows = _few(hits.read_band().holds(compared.hits).sum(axis=1), MOST_READ)
    cosines, there = compared.hits[rows], compared.hits_at[rows]
    here = np.repeat(rows, there.shape[1])
    logits = _logits(model, questions, here, there.ravel(), cosines.ravel(), hits.read_band())
    missed = np.full(len(compared.duplicates) - int(same.sum()), -1.0)
    return dataclasses.replace(
        compared,
        floor=0.0,
        left=left[order],
        right=right[order],
        scores=probability,
        same=same,
        duplicates=np.append(missed, np.sort(probability[same])),
        hits=hits.probability(cosines, logits.reshape(cosines.shape)).astype(np.float32),
        hits_at=there,
        hits_same=compared.hits_same[rows],
    ), found


def _few(costs: Ints, most: int) -> Ints:
    """Rows, rising: all, or random ones whose total cost (n,) is at most `most`."""
    order = np.random.default_rng(0).permutation(len(costs))
    return np.sort(order[np.cumsum(costs[order]) <= most])


def _logits(
    model: TwoStages, questions: tuple[str, ...], left: Ints, right: Ints, cosines: NDArray[np.floating], band: Band
) -> Floats:
    """(m,) logits of the pairs in a band of cosines; NaN for the others."""
    pairs = Pairs(questions, left, right, np.full(len(left), UNLABELLED, np.int8))
    return model.read(pairs, band.holds(cosines))


def _floor(counts: ScoreCounts, cluster: Ints) -> float:
    """The lowest score of the kept pairs: above it are `KEPT` for each question, and more than the duplicates."""
    size = np.bincount(cluster - cluster.min())
    wanted = min(KEPT * counts.n + 4 * int((size * (size - 1) // 2).sum()), max(MOST, KEPT * counts.n))
    few = counts.at_or_above(EDGES) <= wanted
    return float(EDGES[int(np.argmax(few))])


def _nearest(scores: Floats, k: int, row: Ints, column: Ints, above: Floats) -> tuple[Floats, Ints]:
    """The k highest scores of each row and their positions, (rows, k) each, the highest first.

    Args:
        scores: (rows, n) scores.
        k: how many.
        row: rows of the scores above a floor, rising; these scores alone are sorted where a row has k of them.
        column: their columns.
        above: (m,) these scores.
    """
    places = np.empty((len(scores), k), np.int64)
    ends = np.searchsorted(row, np.arange(len(scores) + 1))
    enough = np.diff(ends) >= k
    order = np.lexsort((-above, row))
    places[enough] = column[order[ends[:-1][enough, None] + np.arange(k)]]
    if not enough.all():
        n = scores.shape[1]
        few = np.argpartition(scores[~enough], n - k, axis=1)[:, n - k :]
        best = np.argsort(-np.take_along_axis(scores[~enough], few, axis=1), axis=1, kind="stable")
        places[~enough] = np.take_along_axis(few, best, axis=1)
    return np.take_along_axis(scores, places, axis=1), places
