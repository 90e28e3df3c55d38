"""Robustness: how often the decisions of a model about questions changed by rule are wrong.

Behavioural testing as in CheckList (Ribeiro et al. 2020, section 2): invariance and directional expectation. F1 hardly
shows these errors, because few real pairs differ only in words like `before` and `after`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qpairs.data.pairs import Pairs, pairs_from_texts
from qpairs.data.perturbations import PERTURBATIONS, Vocabulary, kinds_of, perturb, vocabulary_of, warn_of_language
from qpairs.data.sources import PairSource
from qpairs.evaluation.predict import Predictions, predictions
from qpairs.evaluation.sources import as_pairs
from qpairs.metrics.intervals import Interval
from qpairs.models.base import Model, as_model
from qpairs.models.ready import shown_name
from qpairs.models.verdict import Verdict

CASES = 500  # changed questions of a kind
EXAMPLES = 3

Against = Literal["itself", "pairs"]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Failure:
    """A wrong decision: a question, its changed form, the question that this was compared with, and their score."""

    question: str
    changed: str
    other: str
    similarity: float


@dataclass(frozen=True)
class Behaviour:
    """The failures of one kind of change.

    Attributes:
        kind: a row of `PERTURBATIONS`.
        same: whether a changed question still asks the same.
        against: `itself`: the changed question is compared with the original; `pairs`: it replaces the original in a
            pair, and the decision should stay, or, for duplicates that were found, become "not duplicates".
        n: comparisons.
        failures: wrong decisions.
        interval: 95 % of the failure rate (Wilson 1927).
        examples: the failures farthest from the threshold.
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
        """Share of the comparisons that failed."""
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
    """A question of a pair, its changed form, the other question, which of the two it is, and the label of the pair."""

    kind: str
    question: str
    changed: str
    other: str
    is_first: bool
    label: int

    def comparisons(self) -> list[tuple[str, str]]:
        """The pair; the question with its changed form; the changed pair."""
        both = (self.question, self.other), (self.question, self.changed), (self.changed, self.other)
        return [(a, b) if self.is_first else (b, a) for a, b in both]


def probe(
    model: Model | str | Path,
    data: PairSource,
    kinds: str | Iterable[str] = tuple(PERTURBATIONS),
    *,
    cases: int = CASES,
    seed: int = 0,
) -> list[Behaviour]:
    """Changes questions by rule, and counts the wrong decisions.

    Args:
        model: a model, or its folder.
        data: labelled pairs, or their source, as in `load_pairs`.
        kinds: rows of `PERTURBATIONS`, as a list or as one text with commas.
        cases: most changed questions of a kind.
        seed: of the choice of questions and changes.

    Returns:
        Two for each kind, `itself` and `pairs`; none if no question fits. `itself` is left out if the sides of a pair
        may not be swapped (`symmetric` is off).

    Raises:
        UserError: the data cannot be used, or there is no such kind.

    >>> [found.kind for found in probe(model, pairs, ["typos"])]
    ['typos', 'typos']
    """
    names = kinds if isinstance(kinds, str) else ",".join(kinds)
    wanted, model, pairs = kinds_of(names) if names else [], as_model(model), as_pairs(data)
    model.verdict.require_labelled(shown_name(model))
    warn_of_language(pairs.questions, "perturb")
    vocabulary, random = vocabulary_of(pairs.questions), np.random.default_rng(seed)
    changes = [change for kind in wanted for change in _changes(pairs, kind, vocabulary, cases, random)]
    if not changes:
        return []
    compared = [comparison for change in changes for comparison in change.comparisons()]
    first, second = zip(*compared, strict=True)
    changed = pairs_from_texts(first, second, [-1] * len(compared))
    found = predictions(model.verdict.pair, model.score_pairs(changed)[0], changed, model.verdict.score)
    behaviours: list[Behaviour] = []
    for kind in dict.fromkeys(change.kind for change in changes):
        rows = np.array([i for i, change in enumerate(changes) if change.kind == kind])
        behaviours += _behaviours([changes[row] for row in rows], found, rows, model.verdict)
    return behaviours


def _behaviours(changes: Sequence[_Change], found: Predictions, rows: Rows, verdict: Verdict) -> Iterator[Behaviour]:
    """The behaviours under changes of one kind; `rows` are those of the changes among all that were compared."""
    kind, same = changes[0].kind, PERTURBATIONS[changes[0].kind].same
    similarity, duplicate = found.similarity.reshape(-1, 3)[rows], found.duplicate.reshape(-1, 3)[rows]
    before, itself, after = duplicate.T

    def behaviour(against: Against, rows: Rows, failed: NDArray[np.bool_]) -> Behaviour:
        wrong, column = rows[failed[rows]], 1 if against == "itself" else 2
        worst = wrong[np.argsort(-np.abs(similarity[wrong, column] - verdict.pair.threshold), kind="stable")]
        examples = [
            Failure(c.question, c.changed, c.question if against == "itself" else c.other, float(similarity[i, column]))
            for i, c in ((i, changes[i]) for i in worst[:EXAMPLES].tolist())
        ]
        interval = failure_interval(len(wrong), len(rows))
        return Behaviour(kind, same, against, len(rows), len(wrong), interval, examples)

    every = np.arange(len(changes))
    if verdict.symmetric:
        yield behaviour("itself", every, itself != same)
    fitting = every if same else every[before & np.array([change.label == 1 for change in changes])]
    if len(fitting):
        yield behaviour("pairs", fitting, after != before if same else after)


def _changes(pairs: Pairs, kind: str, vocabulary: Vocabulary, cases: int, random: np.random.Generator) -> list[_Change]:
    """Up to `cases` distinct questions that a rule fits; duplicates first for a rule that changes the meaning."""
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
