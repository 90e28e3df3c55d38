"""Labelled pairs with the answers of all their annotators side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpairs.data.identity import pair_key
from qpairs.data.labels import ADJUDICATED, LabelledPairs

PREFERRED = ("stratified", "threshold", "random", "")  # which way of drawing counts where a pair was drawn in several


@dataclass(frozen=True)
class Judgements:
    """Distinct pairs and what each annotator answered.

    Attributes:
        first: (n,) first questions, in the order in which the pairs were first labelled.
        second: (n,) second questions.
        drawn: (n,) as in `LabelledPairs`.
        probability: (n,) as in `LabelledPairs`.
        annotators: (m,) their names, sorted; '' those without a name.
        answers: (n, m) 1 duplicate, 0 not, -1 no answer.
        adjudicated: (n,) 1 or 0 if an adjudicator settled the pair, -1 otherwise.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    drawn: tuple[str, ...]
    probability: NDArray[np.float64]
    annotators: tuple[str, ...]
    answers: NDArray[np.int8]
    adjudicated: NDArray[np.int8]

    def __len__(self) -> int:
        """Number of distinct pairs."""
        return len(self.first)

    @property
    def shared(self) -> NDArray[np.bool_]:
        """(n,) pairs that two or more annotators labelled."""
        return np.asarray((self.answers >= 0).sum(axis=1) >= 2)

    @property
    def disputed(self) -> NDArray[np.bool_]:
        """(n,) pairs that annotators label differently and no adjudicator has settled."""
        both = (self.answers == 1).any(axis=1) & (self.answers == 0).any(axis=1)
        return np.asarray(both & (self.adjudicated < 0))


def side_by_side(labels: LabelledPairs) -> Judgements:
    """Collects the rows of each pair, whatever the order and the case of its questions.

    Where an annotator labelled a pair twice, the later answer counts.

    Args:
        labels: a row for each answer.

    >>> rows = LabelledPairs(("How?", "why?"), ("Why?", "How?"), np.array([1, 0]), ("", ""), np.ones(2), ("ana", "llm"))
    >>> both = side_by_side(rows)
    >>> both.annotators, both.answers.tolist(), both.disputed.tolist()
    (('ana', 'llm'), [[1, 0]], [True])
    """
    place: dict[tuple[str, str], int] = {}
    pairs = zip(labels.first, labels.second, strict=True)
    row = [place.setdefault(pair_key(pair), len(place)) for pair in pairs]
    names = tuple(sorted(set(labels.annotator) - {ADJUDICATED}))
    column = {name: number for number, name in enumerate(names)}
    n = len(place)
    answers, adjudicated = np.full((n, len(names)), -1, np.int8), np.full(n, -1, np.int8)
    texts: list[tuple[str, str]] = [("", "")] * n
    ways: list[tuple[int, float]] = [(len(PREFERRED), math.nan)] * n
    for number, pair in enumerate(row):
        if texts[pair] == ("", ""):
            texts[pair] = labels.first[number], labels.second[number]
        rank = PREFERRED.index(labels.drawn[number])
        if rank < ways[pair][0]:
            ways[pair] = rank, float(labels.probability[number])
        if labels.annotator[number] == ADJUDICATED:
            adjudicated[pair] = labels.labels[number]
        else:
            answers[pair, column[labels.annotator[number]]] = labels.labels[number]
    return Judgements(
        tuple(one for one, _ in texts),
        tuple(other for _, other in texts),
        tuple(PREFERRED[rank] for rank, _ in ways),
        np.array([probability for _, probability in ways], dtype=np.float64),
        names,
        answers,
        adjudicated,
    )
