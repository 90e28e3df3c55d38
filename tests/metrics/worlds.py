"""Corpora whose scores are drawn from known distributions, so that it is known what is to be found."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpairs.metrics import Densities, ScoreCounts, fit_densities
from qpairs.metrics.score_counts import histogram


@dataclass(frozen=True)
class World:
    """All pairs of a corpus of n questions: scores, whether they are duplicates, and the component of related ones."""

    n: int
    scores: NDArray[np.float64]
    duplicate: NDArray[np.bool_]
    component: NDArray[np.int64]  # -1: strangers

    @property
    def counts(self) -> ScoreCounts:
        return ScoreCounts(histogram(self.scores), self.n)

    def at(self, threshold: float) -> tuple[float, float]:
        """Precision and recall of all pairs at or above a threshold."""
        called = self.scores >= threshold
        right = (called & self.duplicate).sum()
        return right / max(called.sum(), 1), right / self.duplicate.sum()

    def f1(self, threshold: float) -> float:
        precision, recall = self.at(threshold)
        return 2 * precision * recall / max(precision + recall, 1e-12)

    def best_f1(self) -> float:
        order = np.argsort(-self.scores)
        right = np.cumsum(self.duplicate[order])
        return float((2 * right / (np.arange(1, len(order) + 1) + right[-1])).max())


def world(n: int, seed: int = 0, *, per_question: float = 1.0, near: float = 2.0, strangers: float = 0.3) -> World:
    """A corpus with so many duplicates and near misses for each question; `strangers` is the mean of their scores."""
    rng = np.random.default_rng(seed)
    sizes = round(n * per_question), round(n * near)
    rest = n * (n - 1) // 2 - sum(sizes)
    scores = np.concatenate(
        [rng.normal(0.82, 0.08, sizes[0]), rng.normal(0.68, 0.1, sizes[1]), rng.normal(strangers, 0.12, rest)]
    )
    duplicate = np.arange(len(scores)) < sizes[0]
    component = np.concatenate([rng.integers(0, max(n // 10, 1), sum(sizes)), np.full(rest, -1)])
    return World(n, scores.clip(-0.999, 0.9999), duplicate, component)


def densities_of(validation: World) -> Densities:
    """What a validation table with complete labels tells."""
    related = validation.component >= 0
    return fit_densities(
        validation.counts,
        validation.scores[related],
        validation.duplicate[related].astype(np.int8),
        validation.component[related],
    )
