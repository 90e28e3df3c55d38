"""How well a model finds the duplicates of a corpus: over all pairs of a question table, not only the labelled ones.

If not all duplicates are known, an unlabelled one counts as wrong: then precision, and the share of duplicates among
hits, are lower bounds.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.data.pairs import Pairs
from qpairs.evaluation.all_pairs import AllPairs, compare_all, read_again
from qpairs.metrics import PartitionScores
from qpairs.metrics.intervals import Interval
from qpairs.models.base import Model, Tables
from qpairs.models.second_setting import second_setting
from qpairs.models.two_stages import first_stage, second_stage
from qpairs.models.verdict import CorpusSetting, Setting

log = logging.getLogger(__name__)

LIMIT = 50_000  # questions; all are compared with all
BINS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the probability of hits
ASKED = (0.5, 0.7, 0.8, 0.9)  # precisions
POINTS = 41  # thresholds of the curve
FEW = 10  # pairs above its highest threshold
WRONG = 20  # wrong pairs that are listed
ENOUGH = 20  # hits in a bin from which on its share is worth a line

LOWER_BOUNDS = (
    "Labels are incomplete: an unlabelled duplicate counts as wrong, so precision and the shares of hits are lower "
    "bounds"
)
NO_DENSITIES = (
    "The model has a verdict only for labelled pairs: in a corpus its threshold is too low and its probabilities are "
    "too high; train it again, or calibrate it (qpairs calibrate)"
)
PROBABILITIES = "Scores and thresholds in the corpus are probabilities, after the second look"


@dataclass(frozen=True)
class Hits:
    """The hits of searches whose probability lies in a range.

    Attributes:
        low, high: the range; `high` itself is in the next one, except for 1.
        n: hits.
        probability: their mean probability; 0 without hits.
        duplicates: share of duplicates among them; 0 without hits.
    """

    low: float
    high: float
    n: int
    probability: float
    duplicates: float


@dataclass(frozen=True)
class Promise:
    """The result for a requested precision.

    Attributes:
        asked: the requested precision.
        threshold: that the verdict gives for it; None if it promises none.
        pairs: pairs at or above the threshold.
        precision: found among them; 0 without pairs.
        recall: found.
    """

    asked: float
    threshold: float | None
    pairs: int = 0
    precision: float = 0.0
    recall: float = 0.0


@dataclass(frozen=True)
class Point:
    """Found and expected precision and recall at a threshold; expected values are None in the setting for pairs."""

    threshold: float
    pairs: int
    precision: float
    recall: float
    expected_precision: float | None
    expected_precision_interval: Interval | None
    expected_recall: float | None
    expected_recall_interval: Interval | None


@dataclass(frozen=True)
class WrongPair:
    """A pair wrongly called duplicates, as far as the duplicates are known."""

    question1: str
    question2: str
    similarity: float
    probability: float


@dataclass(frozen=True)
class CorpusReport:
    """How well a model finds the duplicates among all pairs of a question table.

    Attributes:
        n: questions.
        duplicates: pairs of duplicates among them.
        complete: whether all duplicates are known.
        setting: the setting that was used: that of a corpus, or that of pairs for models without densities.
        at_threshold: found and expected, at the threshold of the setting.
        f1: found there.
        best_f1: the highest over all thresholds: what the same vectors could reach.
        best_threshold: its threshold.
        hits: the 10 nearest others of each question, by their probability in 12 fixed ranges.
        hit_calibration_error: expected calibration error of these hits.
        promises: for requested precisions.
        clusters: scores of the star clusters at the threshold; None where more than 64 pairs for each question lie
            above it.
        curve: found and expected at rising thresholds.
        wrong: the up to 20 most similar pairs at or above the threshold that are no duplicates.
    """

    n: int
    duplicates: int
    complete: bool
    setting: Literal["corpus", "pair"]
    at_threshold: Point
    f1: float
    best_f1: float
    best_threshold: float
    hits: Sequence[Hits]
    hit_calibration_error: float
    promises: Sequence[Promise]
    clusters: PartitionScores | None
    curve: Sequence[Point]
    wrong: Sequence[WrongPair]

    def brief(self) -> CorpusReport:
        """The report without the texts of questions and without the curve, as stored in a model."""
        return dataclasses.replace(self, curve=(), wrong=())


def corpus_report(
    model: Model, pairs: Pairs, tables: Tables, cluster: NDArray[np.int64], complete: bool
) -> CorpusReport | None:
    """The report over all pairs of the questions of labelled pairs.

    Args:
        model: whose verdict is applied.
        pairs: labelled pairs; only their questions are read.
        tables: embeddings of their questions, from `score_pairs`.
        cluster: (n_questions,) cluster of duplicates of each question.
        complete: whether the clusters hold all duplicates.

    Returns:
        None if there is none: for more than 50,000 questions, if the sides of a pair may not be swapped, if a head
            decides, or if no question has a duplicate.
    """
    second, verdict, n = second_stage(model), first_stage(model).verdict, len(pairs.questions)
    if n > LIMIT or not verdict.symmetric or verdict.score != "cosine":
        log.info("no report on the corpus: %d questions, symmetric: %s, %s", n, verdict.symmetric, verdict.score)
        return None
    if len(np.unique(cluster)) == n:
        return None
    compared = compare_all(tables, cluster)
    setting = verdict.pair if verdict.densities is None else verdict.corpus(compared.counts)
    shown = setting.for_hits() if isinstance(setting, CorpusSetting) else setting
    if second and isinstance(setting, CorpusSetting):
        both, hits = (second_setting(base, second) for base in (setting, shown))
        compared, found = read_again(compared, second, pairs.questions, both, hits)
        shown = setting = CorpusSetting(found.default_threshold(), found)
    at_threshold = _point(compared, setting, setting.threshold)
    best_threshold, best_f1 = compared.best()
    probability, same = shown.probability(compared.hits).ravel(), compared.hits_same.ravel()
    return CorpusReport(
        n=n,
        duplicates=len(compared.duplicates),
        complete=complete,
        setting="corpus" if isinstance(setting, CorpusSetting) else "pair",
        at_threshold=at_threshold,
        f1=_f1(at_threshold.precision, at_threshold.recall),
        best_f1=best_f1,
        best_threshold=best_threshold,
        hits=hit_bins(probability, same),
        hit_calibration_error=metrics.expected_calibration_error(probability, same),
        promises=[_promise(compared, setting, asked) for asked in ASKED],
        clusters=_clusters(compared, setting.threshold, cluster),
        curve=_curve(compared, setting),
        wrong=_wrong(compared, setting, pairs.questions),
    )


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _point(compared: AllPairs, setting: Setting, threshold: float) -> Point:
    """What is found at a threshold, and what the setting expects."""
    called, right = float(compared.called(threshold)), int(compared.found(threshold))
    expected = setting.expected(threshold) if isinstance(setting, CorpusSetting) else None
    return Point(
        threshold=threshold,
        pairs=round(called),
        precision=right / called if called else 0.0,
        recall=right / len(compared.duplicates),
        expected_precision=expected.precision if expected else None,
        expected_precision_interval=expected.precision_interval if expected else None,
        expected_recall=expected.recall if expected else None,
        expected_recall_interval=expected.recall_interval if expected else None,
    )


def hit_bins(probability: NDArray[np.float64], same: NDArray[np.bool_]) -> list[Hits]:
    """The hits by their probability, in the ranges between `BINS`.

    Args:
        probability: (m,) of hits.
        same: (m,) whether they are duplicates.

    >>> found = hit_bins(np.array([0.005, 0.85, 0.88, 1.0]), np.array([False, True, False, True]))
    >>> [(hits.low, hits.n, round(hits.probability, 3), hits.duplicates) for hits in found if hits.n]
    [(0.0, 1, 0.005, 0.0), (0.8, 2, 0.865, 0.5), (0.9, 1, 1.0, 1.0)]
    """
    place = np.searchsorted(BINS[1:-1], probability, "right")
    n, total, right = (np.bincount(place, weights, len(BINS) - 1) for weights in (None, probability, same))
    mean, share = (np.divide(sums, n, out=np.zeros(len(n)), where=n > 0) for sums in (total, right))
    rows = zip(BINS[:-1], BINS[1:], n.tolist(), mean.tolist(), share.tolist(), strict=True)
    return [Hits(low, high, int(count), p, d) for low, high, count, p, d in rows]


def _promise(compared: AllPairs, setting: Setting, asked: float) -> Promise:
    threshold = setting.threshold_at(asked)
    if threshold is None:
        return Promise(asked, None)
    found = _point(compared, setting, threshold)
    return Promise(asked, threshold, found.pairs, found.precision, found.recall)


def _clusters(compared: AllPairs, threshold: float, cluster: NDArray[np.int64]) -> PartitionScores | None:
    if threshold < compared.floor:
        return None
    above = metrics.decide(compared.scores, threshold)
    left, right, scores = compared.left[above], compared.right[above], compared.scores[above]
    return metrics.partition_scores(metrics.clusters(len(cluster), left, right, scores), cluster)


def _curve(compared: AllPairs, setting: Setting) -> list[Point]:
    """Rising thresholds, from the lowest that the setting covers to that with `FEW` pairs above it."""
    if not len(compared.scores):
        return []
    lowest = setting.estimate.lowest if isinstance(setting, CorpusSetting) else compared.floor
    highest = float(compared.scores[min(FEW, len(compared.scores)) - 1])
    thresholds = np.unique(np.linspace(min(lowest, highest), highest, POINTS).round(3))
    return [_point(compared, setting, float(threshold)) for threshold in thresholds]


def _wrong(compared: AllPairs, setting: Setting, questions: Sequence[str]) -> list[WrongPair]:
    rows = np.flatnonzero(metrics.decide(compared.scores, setting.threshold) & ~compared.same)[:WRONG]
    probability = setting.probability(compared.scores[rows])
    return [
        WrongPair(questions[compared.left[row]], questions[compared.right[row]], float(compared.scores[row]), float(p))
        for row, p in zip(rows.tolist(), probability, strict=True)
    ]


def corpus_lines(found: Mapping[str, Any], *, clusters: bool = True) -> list[str]:
    """A report on a corpus in a few lines, the headline first.

    Args:
        found: `CorpusReport` as plain values.
        clusters: whether there is a line on clusters.
    """
    at = found["at_threshold"]
    expected = _with_interval(at, "precision"), _with_interval(at, "recall")
    expectation = f"expected precision {expected[0]}, recall {expected[1]}; " if all(expected) else ""
    lines = [
        f"in a corpus of {found['n']:,} questions: precision {at['precision']:.2f}, recall {at['recall']:.2f}, F1 "
        f"{found['f1']:.2f} at the threshold {at['threshold']:.3f} ({expectation}best possible F1 "
        f"{found['best_f1']:.2f}, at {found['best_threshold']:.3f})"
    ]
    if shown := shown_hits(found["hits"]):
        lines.append(
            f"of {shown['n']:,} hits shown with {range_text(shown['low'], shown['high'])}, "
            f"{100 * shown['duplicates']:.0f} % were duplicates; calibration error of hits "
            f"{found['hit_calibration_error']:.3f}"
        )
    if clusters and (scores := found["clusters"]):
        lines.append(
            f"as clusters: pairwise precision {scores['precision']:.2f}, recall {scores['recall']:.2f}; B-cubed "
            f"precision {scores['bcubed_precision']:.2f}, recall {scores['bcubed_recall']:.2f}; adjusted Rand index "
            f"{scores['adjusted_rand']:.2f}"
        )
    return lines


def corpus_notes(found: Mapping[str, Any], score: str = "cosine") -> list[str]:
    """Notes for reading a report on a corpus correctly, as sentences without a full stop.

    Args:
        found: `CorpusReport` as plain values.
        score: what the scores of the model are on pairs, as in `Verdict`.
    """
    notes = [PROBABILITIES] if score == "log odds" and found["setting"] == "corpus" else []
    notes += [LOWER_BOUNDS] if not found["complete"] else []
    return [*notes, NO_DENSITIES] if found["setting"] == "pair" else notes


def shown_hits(hits: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The most probable bin with at least `ENOUGH` hits, or the most probable one; None without hits."""
    some = [row for row in hits if row["n"]]
    return next((row for row in reversed(some) if row["n"] >= ENOUGH), some[-1] if some else None)


def range_text(low: float, high: float) -> str:
    """A range of probabilities in words.

    >>> range_text(0.8, 0.9)
    '80 to 90 %'
    """
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _with_interval(at: Mapping[str, Any], name: str) -> str:
    if at[f"expected_{name}"] is None:
        return ""
    low, high = at[f"expected_{name}_interval"]
    return f"{at[f'expected_{name}']:.2f} [{low:.2f}, {high:.2f}]"
