"""A checkpoint and pairs -> how often its verdict is wrong about changed questions, for each kind of change.

Behavioural testing as in CheckList (Ribeiro et al. 2020, section 2): invariance and directional expectation. A high F1
hides it, for a set of real pairs has few that differ in `before` and `after` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qpairs.data.pairs import Pairs, pairs_from_texts
from qpairs.data.perturbations import PERTURBATIONS, Vocabulary, perturb, vocabulary_of
from qpairs.evaluation.evaluate import Interval, as_pairs, predict
from qpairs.models.base import Model, as_model

CASES = 500  # changed questions of a kind
EXAMPLES = 3

Against = Literal["itself", "pairs"]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Failure:
    """A question, what it became, and the one that this was compared with, at what similarity: a wrong verdict."""

    question: str
    changed: str
    other: str
    similarity: float


@dataclass(frozen=True)
class Behaviour:
    """What became of the verdict on questions that were changed in one way.

    Attributes:
        kind: a row of `PERTURBATIONS`.
        same: whether a changed question should still ask the same.
        against: `itself`, where the changed question is compared with what it was; `pairs`, where it takes its place in
            a pair: the verdict should stay, or, for a pair that was rightly called duplicates, fall.
        n: comparisons.
        failures: how many went wrong.
        interval: 95 % of the failure rate (Wilson 1927).
        examples: the failures that lie farthest from the threshold.
    """

    kind: str
    same: bool
    against: Against
    n: int
    failures: int
    interval: Interval
    examples: Sequence[Failure]

    @property
    def rate(self) -> float:
        """Share of the comparisons that went wrong."""
        return self.failures / self.n

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "rate": self.rate}


def failure_interval(failures: int, n: int) -> Interval:
    """95 % interval of a failure rate (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(failures, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class _Change:
    """A question of a pair, the first or the second one, what it became, the other one, and the label of the pair."""

    kind: str
    question: str
    changed: str
    other: str
    is_first: bool
    label: int

    def comparisons(self) -> list[tuple[str, str]]:
        """The pair; the question with its changed self; the changed pair."""
        both = (self.question, self.other), (self.question, self.changed), (self.changed, self.other)
        return [(a, b) if self.is_first else (b, a) for a, b in both]


def probe(
    model: Model | str | Path,
    data: Pairs | str | Path | Sequence[str | Path],
    kinds: Iterable[str] = tuple(PERTURBATIONS),
    *,
    cases: int = CASES,
    seed: int = 0,
) -> list[Behaviour]:
    """Changes questions by rule and judges the verdicts at the model's threshold.

    Args:
        model: a model, or its folder.
        data: labelled pairs, or their source.
        kinds: rows of `PERTURBATIONS`.
        cases: changed questions of a kind, at most.
        seed: of the choice of questions and changes.

    Returns:
        Two for each kind, `itself` and `pairs`; none for what has no case. Where the sides of a pair differ in kind
        (`symmetric` is off), a question has no verdict with itself.
    """
    judge, pairs = as_model(model), as_pairs(data)
    vocabulary, random = vocabulary_of(pairs.questions), np.random.default_rng(seed)
    changes = [change for kind in kinds for change in _changes(pairs, kind, vocabulary, cases, random)]
    if not changes:
        return []
    compared = [comparison for change in changes for comparison in change.comparisons()]
    first, second = zip(*compared, strict=True)
    verdicts = predict(judge, pairs_from_texts(first, second, [-1] * len(compared)))
    similarity, duplicate = verdicts.similarity.reshape(-1, 3), verdicts.duplicate.reshape(-1, 3)  # (n, 3)
    labels = np.array([change.label for change in changes])
    before, itself, after = duplicate.T

    def behaviour(kind: str, against: Against, rows: Rows, failed: NDArray[np.bool_]) -> Behaviour:
        wrong, column = rows[failed[rows]], ("itself", "pairs").index(against) + 1
        worst = wrong[np.argsort(-np.abs(similarity[wrong, column] - judge.verdict.pair.threshold), kind="stable")]
        examples = [
            Failure(
                c.question, c.changed, c.other if against == "pairs" else c.question, float(similarity[row, column])
            )
            for row in worst[:EXAMPLES].tolist()
            for c in [changes[row]]
        ]
        interval = failure_interval(len(wrong), len(rows))
        return Behaviour(kind, PERTURBATIONS[kind].same, against, len(rows), len(wrong), interval, examples)

    found = []
    for kind in dict.fromkeys(change.kind for change in changes):
        rows, same = np.array([i for i, change in enumerate(changes) if change.kind == kind]), PERTURBATIONS[kind].same
        if judge.verdict.symmetric:
            found.append(behaviour(kind, "itself", rows, itself != same))
        if not same:
            rows = rows[before[rows] & (labels[rows] == 1)]
        if len(rows):
            found.append(behaviour(kind, "pairs", rows, after != before if same else after))
    return found


def _changes(pairs: Pairs, kind: str, vocabulary: Vocabulary, cases: int, random: np.random.Generator) -> list[_Change]:
    """Up to so many distinct questions that a rule fits; for a rule that makes another question, duplicates first."""
    ends: Rows = random.permutation(2 * len(pairs))
    if not PERTURBATIONS[kind].same:
        ends = ends[np.argsort(-pairs.labels[ends // 2], kind="stable")]
    found: list[_Change] = []
    seen: set[str] = set()
    for pair, end in zip((ends // 2).tolist(), (ends % 2).tolist(), strict=True):
        texts = pairs.texts(pair)
        question, other = texts[end], texts[1 - end]
        if len(found) < cases and question not in seen:
            seen.add(question)
            changed = perturb(question, kind, vocabulary, random)
            if changed:
                found.append(_Change(kind, question, changed, other, end == 0, int(pairs.labels[pair])))
    return found
