"""Selects the pairs of a corpus that people label: a question, and one that the index finds near it."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from typing import Any, Literal

from qpairs.models.base import Model
from qpairs.retrieval.dedupe import require_one_tower
from qpairs.retrieval.index import Index
from qpairs.retrieval.search import search

Choice = Literal["threshold", "random"]
Texts = tuple[str, str]

SAMPLE_SIZE = 1000  # questions whose neighbours are searched
NEIGHBOURS = 5  # of each question


def pairs_to_label(index: Index, model: Model, seed: int = 0) -> dict[Choice, dict[Texts, Texts]]:
    """Pairs of a sample of questions and their neighbours, by `pair_key`, in the order in which they are labelled.

    With the choice `threshold`, pairs nearest the model's threshold come first: their labels are the most informative.
    With `random`, the pairs are those of random questions with their nearest neighbour, which a search shows first.

    The sample consists of the questions with the smallest hashes, so that adding or deleting questions hardly
    changes it.

    Args:
        index: the corpus.
        model: that made the index.
        seed: of the sample.

    Raises:
        UserError: the index is of another model, or the model has two towers.
    """
    require_one_tower(model)
    texts = {_normal(text): _clean(text) for text in index.questions.texts()}
    key = seed.to_bytes(8, "big")
    sample = heapq.nsmallest(SAMPLE_SIZE, texts, key=lambda text: hashlib.blake2b(text.encode(), key=key).digest())
    neighbours = search(index, model, [texts[question] for question in sample], 1 + NEIGHBOURS)
    threshold = model.verdict.pair.threshold
    nearest: dict[Texts, Texts] = {}
    distances = list[tuple[float, str, str]]()
    for question, answers in zip(sample, neighbours, strict=True):
        hits = [answer.hit for answer in answers if _normal(answer.hit.text) != question]
        pairs = [(texts[question], _clean(hit.text)) for hit in hits]
        for pair in pairs[:1]:
            nearest.setdefault(pair_key(pair), pair)
        distances += [(abs(hit.similarity - threshold), *pair) for hit, pair in zip(hits, pairs, strict=True)]
    by_distance: dict[Texts, Texts] = {}
    for _, one, other in sorted(distances):
        by_distance.setdefault(pair_key((one, other)), (one, other))
    return {"threshold": by_distance, "random": nearest}


def pair_key(pair: Sequence[Any]) -> Texts:
    """Identifies a pair, whatever the order and the case of its questions.

    >>> pair_key(("How?", "Who am  I?")) == pair_key(("who am i?", "how?"))
    True
    """
    one, other = sorted((_normal(pair[0]), _normal(pair[1])))
    return one, other


def _clean(text: str) -> str:
    return " ".join(text.split())


def _normal(text: str) -> str:
    return _clean(text.casefold())
