"""Draws pairs of a corpus at random from all score ranges, so that few labels say most about precision.

Nearly all pairs of a corpus are strangers, and the duplicates are among the few with the highest scores. A plain random
sample of pairs would contain no duplicates. So the pairs are divided into strata by the rank of their score, and as
many pairs are drawn from each, until it has none left; weights of 1 / (probability of drawing) then give estimates for
the whole corpus (Cochran, "Sampling Techniques", 1977, chapters 5 and 5A; Horvitz and Thompson 1952).
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from qpairs.data.identity import canonical
from qpairs.models.base import Floats
from qpairs.retrieval.index import Index
from qpairs.retrieval.index.base import Hit
from qpairs.serving.label_texts import Texts

BOUNDS = tuple(2.0**k / 8 for k in range(9))  # ranks that end a stratum, per question of the corpus: 1/8, 1/4, ... 32
HITS = 100  # of each question at first; more where all of them score above the lowest bound
MOST_HITS = 16_384  # the most that Milvus returns
DRAWS = 500  # of each stratum at most


@dataclass(frozen=True)
class Frame:
    """The pairs that can be drawn: those of a sampled question and any other question of the corpus.

    Attributes:
        sample: sampled questions.
        others: all other questions of the corpus.
    """

    sample: Sequence[str]
    others: Sequence[str]

    @property
    def size(self) -> int:
        """Number of pairs that can be drawn."""
        m = len(self.sample)
        return m * (m - 1) // 2 + m * len(self.others)

    @property
    def share(self) -> float:
        """Share of all pairs of the corpus that can be drawn: the probability that a pair is in the frame."""
        n = len(self.sample) + len(self.others)
        return self.size / (n * (n - 1) / 2) if n > 1 else 1.0

    def pair(self, number: int) -> Texts:
        """The pair with a number from 0 to `size` - 1.

        >>> frame = Frame(["a", "b"], ["c"])
        >>> [frame.pair(number) for number in range(frame.size)]
        [('a', 'b'), ('a', 'c'), ('b', 'c')]
        """
        n = len(self.sample) + len(self.others)
        first = bisect_right(range(len(self.sample)), number, key=lambda i: i * (n - 1) - i * (i - 1) // 2) - 1
        second = first + 1 + number - (first * (n - 1) - first * (first - 1) // 2)
        m = len(self.sample)
        return self.sample[first], self.sample[second] if second < m else self.others[second - m]

    def ends(self) -> list[int]:
        """How many pairs of the frame lie above the end of each stratum but the last, highest scores first."""
        n = len(self.sample) + len(self.others)
        return sorted({min(self.size, round(bound * n * self.share)) for bound in BOUNDS})


def nearest_questions(index: Index, vectors: Floats, frame: Frame) -> list[dict[str, Hit]]:
    """For each sampled question, the nearest other ones by `normal`, nearest first.

    There are at least those that form a pair above the last stratum, as far as the index finds them.

    Args:
        index: the corpus.
        vectors: (m, dimension of the index) of the sampled questions.
        frame: of which they are the sample.
    """
    count, sampled = len(index.questions), set(frame.sample)
    k, searched = 1 + HITS, list(range(len(frame.sample)))
    found: list[dict[str, Hit]] = [{} for _ in searched]
    form = cache(canonical)  # a question is found by many others
    beyond = np.full(len(searched), -np.inf)  # what was not found scores at most this
    while searched:
        k = min(k, count, MOST_HITS)
        for i, row in zip(searched, index.questions.search(vectors[searched], k), strict=True):
            nearest = {form(hit.text): hit for hit in reversed(row)}
            nearest.pop(frame.sample[i], None)
            found[i] = dict(reversed(nearest.items()))
            beyond[i] = row[-1].similarity if len(row) == k < count else -np.inf
        deeper = np.isfinite(beyond) & (beyond >= _lowest_bound(found, sampled, frame))
        searched = [] if k == MOST_HITS else np.flatnonzero(deeper).tolist()
        k *= 4
    return found


def _lowest_bound(found: Sequence[Mapping[str, Hit]], sampled: set[str], frame: Frame) -> float:
    """A score that is at most that of the last pair above the last stratum; minus infinity if too few are found."""
    hits = [(hit.similarity, 0.5 if name in sampled else 1.0) for row in found for name, hit in row.items()]
    if not hits:
        return -np.inf
    scores, pairs = np.array(sorted(hits, reverse=True)).T  # a pair of two sampled questions is found from both ends
    enough = np.flatnonzero(np.cumsum(pairs) >= frame.ends()[-1])
    return float(scores[enough[0]]) if len(enough) else -np.inf


def draw_pairs(scores: Mapping[Texts, float], frame: Frame, seed: int = 0) -> dict[Texts, float]:
    """Pairs in the order in which they are labelled, and the probability that one draw gives each of them.

    A corpus of n questions has n (n - 1) / 2 pairs. The n / 8 pairs with the highest scores are the first stratum; the
    next end at ranks n / 4, n / 2, n, 2 n ... 32 n; all other pairs are the last one. Each draw takes the next stratum
    in a balanced random order (each block of draws is a permutation of the strata), and a random pair of it, without
    replacement. So wherever a person stops, the number of draws of strata that have pairs left differs by at most one.

    Of a large corpus only the pairs of the frame are drawn, each with the same probability within a stratum, and the
    number of pairs of a stratum in the whole corpus is estimated by that in the frame over the frame's share.

    Args:
        scores: pairs of the frame with the highest scores, as sorted keys; all that lie above the last stratum.
        frame: the pairs that can be drawn.
        seed: of the order.

    >>> frame = Frame(["a", "b", "c"], [])
    >>> draws = draw_pairs({("a", "b"): 0.9, ("a", "c"): 0.2, ("b", "c"): 0.1}, frame)
    >>> sorted(draws), sum(draws.values())
    ([('a', 'b'), ('a', 'c'), ('b', 'c')], 1.0)
    """
    ranked = sorted(scores, key=lambda key: (-scores[key], key))
    strata = _strata(ranked, frame)
    last = frame.size - sum(map(len, strata))
    sizes = [*map(len, strata), *([last] if last else [])]
    orders = [heapq.nsmallest(DRAWS, stratum, key=lambda key: _hash(key, seed)) for stratum in strata]
    if last:
        orders.append(_draw_last(frame, {key for stratum in strata for key in stratum}, seed))
    probabilities = [frame.share / (len(sizes) * size) for size in sizes]
    drawn = {}
    generator, queues = np.random.default_rng(seed), [iter(order) for order in orders]
    for _ in range(max(map(len, orders), default=0)):
        for stratum in generator.permutation(len(queues)):
            if (key := next(queues[stratum], None)) is not None:
                drawn[key] = probabilities[stratum]
    return drawn


def _strata(ranked: Sequence[Texts], frame: Frame) -> list[Sequence[Texts]]:
    """The strata above the last one, highest scores first; none is empty."""
    ends = sorted({0, *(min(len(ranked), end) for end in frame.ends())})
    return [ranked[start:end] for start, end in itertools.pairwise(ends)]


def _draw_last(frame: Frame, above: set[Texts], seed: int) -> list[Texts]:
    """Random pairs of the frame that are not above the last stratum, with equal probability, in random order."""
    numbers = random.Random(seed).sample(range(frame.size), min(frame.size, DRAWS + len(above)))
    keys: Iterator[Texts] = ((min(pair), max(pair)) for pair in map(frame.pair, numbers))
    return [key for _, key in zip(range(DRAWS), (key for key in keys if key not in above), strict=False)]


def _hash(key: Texts, seed: int) -> bytes:
    return hashlib.blake2b("\0".join(key).encode(), key=seed.to_bytes(8, "big"), digest_size=16).digest()
