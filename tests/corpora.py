"""Corpora of made-up questions whose duplicates are known: unit vectors of intents, which belong to topics."""

import numpy as np

from qpairs import metrics
from qpairs.metrics import Densities

DIMENSION = 20
PER_INTENT, PER_TOPIC = 2, 5  # questions, intents


def intents(n: int) -> np.ndarray:
    """(n,) the intent of each of n questions: two of the same intent are duplicates."""
    return np.arange(n) // PER_INTENT


def topics(n: int) -> np.ndarray:
    """(n,) the topic of each of n questions: two of the same topic and different intents are near misses."""
    return intents(n) // PER_TOPIC


def questions(n: int, seed: int = 0) -> np.ndarray:
    """(n, DIMENSION) unit vectors of n questions."""
    random = np.random.default_rng(seed)
    topic, intent, own = (random.standard_normal((n, DIMENSION)) for _ in range(3))
    vectors = topic[topics(n)] + 0.55 * intent[intents(n)] + 0.3 * own
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fitted(n: int = 800, seed: int = 0) -> Densities:
    """What a validation table of n such questions says of duplicates, near misses and strangers."""
    vectors = questions(n, seed)
    left, right = metrics.pairs_within(topics(n))
    kinds = (intents(n)[left] == intents(n)[right]).astype(np.int8)
    scores = np.einsum("ij,ij->i", vectors[left], vectors[right])
    return metrics.fit_densities(metrics.count_scores(vectors), scores, kinds, topics(n)[left])
