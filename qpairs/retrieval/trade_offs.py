"""What deduplication would find at several thresholds, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qpairs.core.progress import OnProgress, ignore
from qpairs.metrics import CorpusEstimate, Expectation, ReadEstimate
from qpairs.metrics.score_counts import EDGES
from qpairs.models.verdict import CorpusSetting, Setting
from qpairs.retrieval.clusters import Linkage
from qpairs.retrieval.corpus import Prepared
from qpairs.retrieval.dedupe import find_candidates, resolve

PROMISES = (0.95, 0.9, 0.8, 0.7, 0.5)  # precisions that are looked for
STEPS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2)  # pairs for each question


@dataclass(frozen=True)
class TradeOff:
    """What deduplication at a threshold would find.

    Attributes:
        threshold: the lowest cosine of duplicates, or after a second look the lowest probability.
        pairs: of duplicates.
        kept: rows that would be kept.
        expected: precision and recall over the corpus; None for a model with a verdict for pairs alone.
        why: the reason for the threshold, such as "greatest F1"; "" for a step between.
    """

    threshold: float
    pairs: int
    kept: int
    expected: Expectation | None
    why: str


def trade_offs(
    prepared: Prepared,
    chosen: Setting,
    *,
    linkage: Linkage = "star",
    recall: float = 0.9999,
    on_progress: OnProgress = ignore,
) -> list[TradeOff]:
    """What deduplication would do at the chosen threshold and at others, rising, without writing anything.

    The others are those of precisions that can be promised, and steps at which pairs double.

    Args:
        prepared: the corpus.
        chosen: the setting with the threshold that would be used.
        linkage: how clusters are made.
        recall: share of the pairs to find in a large corpus.
        on_progress: the stage comparing.

    Raises:
        UserError: there are far too many pairs.
    """
    reasons = {chosen.threshold: "chosen"}
    if isinstance(chosen, CorpusSetting):
        estimate = chosen.estimate
        for precision in PROMISES:
            at = estimate.threshold_at(precision)
            if at is not None:
                reasons.setdefault(at, f"at least {precision:g}")
        reasons.setdefault(estimate.best_threshold(), "greatest F1")
        for share in STEPS:
            reasons.setdefault(_threshold_of(estimate, share * estimate.counts.n), "")
    rows = []
    candidates = prepared.candidates or find_candidates(
        prepared.own, min(reasons), other=prepared.other, recall=recall, on_progress=on_progress
    )
    for threshold in sorted(reasons):
        found = resolve(prepared.own, candidates, threshold, linkage)
        expected = chosen.expected(threshold) if isinstance(chosen, CorpusSetting) else None
        rows.append(TradeOff(threshold, len(found.pairs), len(found.kept), expected, reasons[threshold]))
    return rows


def _threshold_of(estimate: CorpusEstimate | ReadEstimate, pairs: float) -> float:
    """The lowest threshold at or above which there are at most so many pairs."""
    if isinstance(estimate, CorpusEstimate):
        return float(EDGES[int(np.argmax(estimate.counts.at_or_above(EDGES) <= pairs))])
    few = estimate.curves.pairs <= pairs
    return float(estimate.curves.thresholds[int(np.argmax(few)) if few.any() else -1])
