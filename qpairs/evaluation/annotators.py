"""Several annotators of the same pairs: how far they agree, how often each is wrong, and each pair's likely label."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.core.exceptions import UserError, nearest
from qpairs.data.judgements import Judgements, side_by_side
from qpairs.data.labels import ADJUDICATED, LABEL_FILE_COLUMNS, LabelledPairs
from qpairs.data.pairs import pairs_from_texts
from qpairs.data.questions import QuestionSource
from qpairs.data.splits import question_components
from qpairs.evaluation.sources import as_labels
from qpairs.metrics.intervals import Interval

if TYPE_CHECKING:
    import pandas

LEAST_SHARED = 20  # pairs that others judged, too, for an estimate of how often an annotator errs
RESAMPLES = 100  # of the estimate of errors
DRAWS = 10  # of the errors, from what the answers of a resample leave open
TIE = 5e-5  # distance of a probability from a half that its four places do not show
Labels: TypeAlias = LabelledPairs | QuestionSource | Sequence[LabelledPairs | QuestionSource]
CONSENSUS = "consensus"  # annotator in the file of joint labels


@dataclass(frozen=True)
class Noise:
    """How often an annotator is wrong.

    Attributes:
        annotator: name; '' without one.
        answers: pairs labelled.
        shared: those that another annotator labelled, too.
        sensitivity: share of the duplicates that are labelled so; None if unknown, and the answers are assumed to be
            right.
        specificity: share of the other pairs that are called different; None likewise.
        sensitivity_interval: central 95 %, where it was asked for.
        specificity_interval: likewise.
    """

    annotator: str
    answers: int
    shared: int
    sensitivity: float | None
    specificity: float | None
    sensitivity_interval: Interval | None = None
    specificity_interval: Interval | None = None


@dataclass(frozen=True)
class Consensus:
    """What the answers of all annotators say about each pair.

    Attributes:
        judged: the distinct pairs and their answers.
        noise: of each annotator.
        log_ratio: (n,) log of P(answers | duplicate) / P(answers | not); infinite if the answer is assumed to be right.
        probability: (n,) that a pair is a duplicate, by its answers and the share of duplicates among pairs that were
            drawn as often.
    """

    judged: Judgements
    noise: tuple[Noise, ...]
    log_ratio: NDArray[np.float64]
    probability: NDArray[np.float64]

    @property
    def labels(self) -> NDArray[np.int8]:
        """(n,) the more likely label of each pair."""
        return np.asarray(self.probability > 0.5, dtype=np.int8)

    @property
    def ties(self) -> NDArray[np.bool_]:
        """(n,) whether the answers support both labels equally."""
        return np.asarray(np.abs(self.probability - 0.5) < TIE)

    def table(self) -> pandas.DataFrame:
        """A row for each pair, in the columns of a file of labels, with the probability that it is a duplicate.

        A pair without a more likely label (`ties`) has no row.
        """
        rows = np.flatnonzero(~self.ties)
        table = _table(self.judged, rows, CONSENSUS)
        table["is_duplicate"] = self.labels[rows]
        return table.assign(probability=self.probability[rows].round(4))

    def disputes(self) -> pandas.DataFrame:
        """A row for each pair that annotators label differently, the least certain first, for a person to settle.

        The label is empty. With labels filled in, the file is read as answers of the annotator `adjudicated`, which
        override the others.
        """
        rows = np.flatnonzero(self.judged.disputed)
        rows = rows[np.argsort(np.abs(self.probability[rows] - 0.5), kind="stable")]
        table = _table(self.judged, rows, ADJUDICATED)
        return table.assign(
            probability=self.probability[rows].round(4), answers=[_answers(self.judged, int(row)) for row in rows]
        )


@dataclass(frozen=True)
class PairOfAnnotators:
    """How far two annotators agree on the pairs that both labelled.

    Attributes:
        first, second: their names.
        n: pairs that both labelled.
        agreement: share of these with the same label, with its 95 % interval.
        kappa: Cohen's kappa, with its 95 % interval; nan if undefined.
    """

    first: str
    second: str
    n: int
    agreement: float
    agreement_interval: Interval
    kappa: float
    kappa_interval: Interval


@dataclass(frozen=True)
class Agreement:
    """How far annotators agree, among the pairs that were labelled; not among all pairs of a corpus.

    Attributes:
        consensus: what the answers say about each pair, and how often each annotator is wrong.
        pairs: each two annotators with a pair in common.
        alpha: Krippendorff's alpha (nominal) over all annotators; nan if undefined.
        alpha_interval: its 95 % interval.
    """

    consensus: Consensus
    pairs: tuple[PairOfAnnotators, ...]
    alpha: float
    alpha_interval: Interval


def find_consensus(labels: Labels, *, trusted: Sequence[str] = ()) -> Consensus:
    """Estimates how often each annotator is wrong, and the most likely label of each pair (see `metrics.dawid_skene`).

    Pairs that were drawn with like probability form a group with its own share of duplicates. The answers of an
    annotator who shares fewer than `LEAST_SHARED` pairs with others are assumed to be right; so are those of two whose
    pairs are one group and not adjudicated, since nothing then shows who is wrong. Adjudicated answers override all
    others.

    Args:
        labels: a row for each answer, or their source, or several, as in `read_labels`.
        trusted: annotators whose answers are assumed to be right.

    Raises:
        UserError: the labels cannot be read, there are none, or none from a trusted annotator.

    >>> rows = LabelledPairs(("How?",), ("Why?",), np.array([1]), ("",), np.ones(1), ("ana",))
    >>> find_consensus(rows).probability.tolist(), find_consensus(rows).noise[0].sensitivity
    ([1.0], None)
    """
    labels = as_labels(labels)
    if not len(labels):
        raise UserError("labels: there are no labels in the file")
    judged = side_by_side(labels)
    given = judged.answers >= 0
    other = given.sum(axis=1) + (judged.adjudicated >= 0)
    shared = (given & (other >= 2)[:, None]).sum(axis=0)
    for name in trusted:
        if name not in judged.annotators:
            raise UserError(f"labels: no annotator is called {name!r}; {nearest(name, judged.annotators)}")
    judges = (shared >= LEAST_SHARED) & ~np.isin(judged.annotators, list(trusted))
    settled = int((_known(judged, judges) >= 0).sum())
    if judges.sum() < 3 and settled < LEAST_SHARED and len(set(_groups(judged).tolist())) < 2:
        judges = np.zeros_like(judges)
    known = _known(judged, judges)
    ratio, probability = np.zeros(len(judged)), np.full(len(judged), 0.5)
    rates = None
    if judges.any():
        rates = metrics.dawid_skene(judged.answers[:, judges], groups=_groups(judged), known=known)
        ratio, probability = rates.log_ratio, rates.probability
    column = np.cumsum(judges) - 1
    noise = tuple(
        Noise(
            name,
            int(given[:, number].sum()),
            int(shared[number]),
            float(rates.sensitivity[column[number]]) if rates and judges[number] else None,
            float(rates.specificity[column[number]]) if rates and judges[number] else None,
        )
        for number, name in enumerate(judged.annotators)
    )
    sure = known >= 0
    ratio = np.where(sure, np.where(known == 1, math.inf, -math.inf), ratio)
    return Consensus(judged, noise, ratio, np.where(sure, known, probability).astype(np.float64))


def measure_agreement(labels: Labels, *, trusted: Sequence[str] = (), seed: int = 0) -> Agreement:
    """How far annotators agree, with 95 % intervals by bootstrap.

    Pairs drawn at random with a known probability are resampled individually; all others in components of pairs that
    share questions.

    Args:
        labels: as in `find_consensus`.
        trusted: as in `find_consensus`.
        seed: of the bootstrap.

    Raises:
        UserError: no pair has answers of two annotators; or as `find_consensus`.

    >>> texts = tuple(f"How do I pay {i}?" for i in range(8))
    >>> rows = LabelledPairs(texts, texts[::-1], np.arange(8) // 2 % 2, ("",) * 8, np.ones(8), ("ana", "llm") * 4)
    >>> measure_agreement(rows).pairs[0].n
    4
    """
    consensus = find_consensus(labels, trusted=trusted)
    judged = consensus.judged
    if not judged.shared.any():
        names = ", ".join(repr(name) if name else "one without a name" for name in judged.annotators)
        raise UserError(
            f"labels: no pair was labelled by two annotators (there are: {names}); agreement needs pairs with several "
            "labels: label some of the same pairs again under another name"
        )
    units, alpha = _units(judged), metrics.krippendorff_alpha(judged.answers)
    of_alpha = metrics.resampled_interval(lambda w: metrics.krippendorff_alpha(judged.answers, w), units, seed=seed)
    return Agreement(
        replace(consensus, noise=_with_intervals(consensus, units, seed)),
        tuple(_compare(judged, one, other, units, seed) for one, other in _with_pairs_in_common(judged)),
        alpha,
        _not_perfect(of_alpha, alpha, judged.answers, units),
    )


def _known(judged: Judgements, judges: NDArray[np.bool_]) -> NDArray[np.int8]:
    """(n,) the answer that is assumed to be right, -1 if there is none or two such answers differ."""
    trusted = judged.answers[:, ~judges]
    yes, no = (trusted == 1).any(axis=1), (trusted == 0).any(axis=1)
    known = np.where(yes == no, -1, np.where(yes, 1, 0))
    return np.where(judged.adjudicated >= 0, judged.adjudicated, known).astype(np.int8)


def _groups(judged: Judgements) -> NDArray[np.int64]:
    """(n,) the group of each pair: its probability of being drawn, to a factor of two."""
    height = np.round(np.log2(np.nan_to_num(judged.probability, nan=2.0)))
    return np.unique(height, return_inverse=True)[1].astype(np.int64)


def _units(judged: Judgements) -> NDArray[np.int64]:
    """(n,) the group with which each pair is resampled: itself if it was drawn at random, else its component."""
    pairs = pairs_from_texts(judged.first, judged.second, np.zeros(len(judged), np.int8))
    alone = ~np.isnan(judged.probability)
    return np.where(alone, -1 - np.arange(len(judged)), question_components(pairs)[pairs.left])


def _with_pairs_in_common(judged: Judgements) -> list[tuple[int, int]]:
    given = judged.answers >= 0
    columns = itertools.combinations(range(len(judged.annotators)), 2)
    return [(one, other) for one, other in columns if (given[:, one] & given[:, other]).any()]


def _compare(judged: Judgements, one: int, other: int, units: NDArray[np.int64], seed: int) -> PairOfAnnotators:
    both = (judged.answers[:, [one, other]] >= 0).all(axis=1)
    first, second = judged.answers[both][:, [one, other]].T
    groups = units[both]
    agreement, kappa = metrics.percent_agreement(first, second), metrics.cohen_kappa(first, second)
    of_agreement = metrics.resampled_interval(lambda w: metrics.percent_agreement(first, second, w), groups, seed=seed)
    of_kappa = metrics.resampled_interval(lambda w: metrics.cohen_kappa(first, second, w), groups, seed=seed)
    answers = np.stack([first, second], axis=1)
    return PairOfAnnotators(
        judged.annotators[one],
        judged.annotators[other],
        int(both.sum()),
        agreement,
        _not_perfect(of_agreement, agreement, answers, groups, by_chance=False),
        kappa,
        _not_perfect(of_kappa, kappa, answers, groups),
    )


def _not_perfect(
    interval: Interval, value: float, answers: NDArray[np.int8], units: NDArray[np.int64], by_chance: bool = True
) -> Interval:
    """The interval of an agreement, where all answers agree with the room for those that `metrics.unseen` allows.

    Args:
        interval: by bootstrap, whose resamples agree as perfectly as the pairs.
        value: of the agreement; 1 where it is perfect.
        answers: (n, annotators) from which it was measured.
        units: (n,) what each pair is resampled with.
        by_chance: whether it is measured beyond what chance would give.
    """
    if value != 1:  # or it is nan
        return interval
    shared = (answers >= 0).sum(axis=1) >= 2
    room = metrics.unseen(len(np.unique(metrics.taken_apart(units[shared]))))
    given = answers[shared][answers[shared] >= 0]
    apart = 2 * float(given.mean()) * (1 - float(given.mean())) if by_chance else 1.0
    return max(1 - room / apart, -1.0 if by_chance else 0.0), 1.0


def _with_intervals(consensus: Consensus, units: NDArray[np.int64], seed: int) -> tuple[Noise, ...]:
    """The noise of each annotator with its interval, where it is known.

    The spread of the estimate alone would leave out that few answers pull it towards that of every annotator: a good
    one would lie above the interval. So errors are drawn from what the answers of each resample leave open.
    """
    judged = consensus.judged
    judges = np.array([noise.sensitivity is not None for noise in consensus.noise], dtype=np.bool_)
    if not judges.any():
        return consensus.noise
    answers, groups, known = judged.answers[:, judges], _groups(judged), _known(judged, judges)
    resampled = (
        metrics.dawid_skene(answers, groups=groups, known=known, weights=weights)
        for weights in metrics.resampled_weights(units, RESAMPLES, seed)
    )
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([rates.draw(rng, DRAWS) for rates in resampled])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)  # (2, judges) each
    column = np.cumsum(judges) - 1
    return tuple(
        replace(
            noise,
            sensitivity_interval=(float(low[0, column[number]]), float(high[0, column[number]])),
            specificity_interval=(float(low[1, column[number]]), float(high[1, column[number]])),
        )
        if judges[number]
        else noise
        for number, noise in enumerate(consensus.noise)
    )


def _table(judged: Judgements, rows: NDArray[np.int64], annotator: str) -> pandas.DataFrame:
    """The pairs at some rows, in the columns of a file of labels, without a label."""
    import pandas

    def at(values: Sequence[str]) -> list[str]:
        return [values[row] for row in rows]

    columns = at(judged.first), at(judged.second), "", at(judged.drawn), judged.probability[rows], annotator
    return pandas.DataFrame(dict(zip(LABEL_FILE_COLUMNS, columns, strict=True)), index=range(len(rows)))


def _answers(judged: Judgements, row: int) -> str:
    """The answers of all annotators to a pair, such as `ana: yes; llm: no`."""
    said = zip(judged.annotators, judged.answers[row].tolist(), strict=True)
    return "; ".join(f"{name or 'no name'}: {'yes' if answer else 'no'}" for name, answer in said if answer >= 0)
