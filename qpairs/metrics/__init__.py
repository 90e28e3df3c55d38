"""How well similarities tell duplicates from non-duplicates: thresholds, ranking, calibration, intervals, shift.

Scores are similarities (greater is closer), labels are 0 or 1, and a threshold `t` means: duplicate if and only if
`score >= t`. Equal scores are never separated, so the order of the rows does not matter. Needs numpy and scipy only.
Every function raises ValueError, with one line that says what is wrong, on input that it cannot judge.

A new metric is one function in the file of its subject, its name below, and one row of the table in
`tests/metrics/test_invariance.py`.
"""

from qpairs.metrics.agreement import (
    NONE,
    cohen_kappa,
    krippendorff_alpha,
    percent_agreement,
    resampled_interval,
    resampled_weights,
)
from qpairs.metrics.annotators import AnnotatorRates, dawid_skene
from qpairs.metrics.calibration import Calibration, brier, expected_calibration_error, fit_calibration, reliability
from qpairs.metrics.corpus import CorpusEstimate, Expectation
from qpairs.metrics.corpus_labels import after_more_labels, labels_needed, why_not, with_labels
from qpairs.metrics.densities import (
    Densities,
    densities_of_pairs,
    fit_densities,
    known_pairs,
    moved_densities,
    pairs_within,
)
from qpairs.metrics.intervals import (
    Difference,
    average_precision_interval,
    bootstrap_interval,
    mean_interval,
    paired_difference,
    pairs_to_halve,
    spearman_interval,
    taken_apart,
    unseen,
)
from qpairs.metrics.linkage import Linkage, clusters
from qpairs.metrics.mixture import estimate_corpus, like_validation, own_densities
from qpairs.metrics.partition import PartitionScores, partition_scores
from qpairs.metrics.power_law import PowerLaw, fit_power_law
from qpairs.metrics.ranking import (
    average_precision,
    mining_average_precision,
    precision_recall_curve,
    relevant_ranks,
    retrieval_scores,
    roc_auc,
    search_scores,
    spearman,
)
from qpairs.metrics.read_pairs import ReadEstimate
from qpairs.metrics.resample import group_weights, resampled_average_precision, resampled_f1
from qpairs.metrics.score_counts import ScoreCounts, count_scores, furthest_hits
from qpairs.metrics.second_look import SecondLook, fit_second_look
from qpairs.metrics.shift import Shift, distribution_shift, is_collapsed, quantiles
from qpairs.metrics.threshold import (
    MANY_PAIRS,
    PRECISIONS,
    Confusion,
    OperatingPoint,
    all_duplicate_f1,
    best_threshold,
    confusion,
    decide,
    fit_threshold,
    operating_points,
)

__all__ = [
    "MANY_PAIRS",
    "NONE",
    "PRECISIONS",
    "AnnotatorRates",
    "Calibration",
    "Confusion",
    "CorpusEstimate",
    "Densities",
    "Difference",
    "Expectation",
    "Linkage",
    "OperatingPoint",
    "PartitionScores",
    "PowerLaw",
    "ReadEstimate",
    "ScoreCounts",
    "SecondLook",
    "Shift",
    "after_more_labels",
    "all_duplicate_f1",
    "average_precision",
    "average_precision_interval",
    "best_threshold",
    "bootstrap_interval",
    "brier",
    "clusters",
    "cohen_kappa",
    "confusion",
    "count_scores",
    "dawid_skene",
    "decide",
    "densities_of_pairs",
    "distribution_shift",
    "estimate_corpus",
    "expected_calibration_error",
    "fit_calibration",
    "fit_densities",
    "fit_power_law",
    "fit_second_look",
    "fit_threshold",
    "furthest_hits",
    "group_weights",
    "is_collapsed",
    "known_pairs",
    "krippendorff_alpha",
    "labels_needed",
    "like_validation",
    "mean_interval",
    "mining_average_precision",
    "moved_densities",
    "operating_points",
    "own_densities",
    "paired_difference",
    "pairs_to_halve",
    "pairs_within",
    "partition_scores",
    "percent_agreement",
    "precision_recall_curve",
    "quantiles",
    "relevant_ranks",
    "reliability",
    "resampled_average_precision",
    "resampled_f1",
    "resampled_interval",
    "resampled_weights",
    "retrieval_scores",
    "roc_auc",
    "search_scores",
    "spearman",
    "spearman_interval",
    "taken_apart",
    "unseen",
    "why_not",
    "with_labels",
]
