"""What holds for every metric, whatever it measures: a table with one row a metric, and the checks a row asks for."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from labelled_scores import Floats, Ints, judged

from qpairs import metrics
from qpairs.metrics import confusion

FEW = settings(deadline=None, derandomize=True, max_examples=25)


@dataclass(frozen=True)
class Traits:
    """A metric and what must not change it.

    Attributes:
        function: (scores or probabilities, labels, group of each pair) -> numbers.
        probabilities: whether it takes probabilities, not scores.
        by_rank: only the order of the scores matters, so a rising map of them changes nothing.
        repeatable: the same pairs twice give the same.
        mirrored: what the numbers become where scores are negated (probabilities: 1 - p) and labels swapped.
        one_class: whether pairs of one label are allowed.
        graded: whether it takes grades or gains, of which labels are a case: what it refuses, it says in its own words.
    """

    function: Callable[[Floats, Ints, Ints], Any]
    probabilities: bool = False
    by_rank: bool = False
    repeatable: bool = False
    mirrored: Callable[[Any], Any] | None = None
    one_class: bool = False
    graded: bool = False

    def __call__(self, scores: Any, labels: Any, groups: Any = None) -> Any:
        """The metric's value, as a list of numbers; scores of [-1, 1] become probabilities where it takes these."""
        if self.probabilities and np.ndim(scores) == 1:
            scores = (np.asarray(scores, dtype=np.float64) + 1) / 2
        return numbers(self.function(scores, labels, groups))


def numbers(value: Any) -> list[float]:
    if dataclasses.is_dataclass(value):
        value = dataclasses.astuple(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [number for part in value for number in numbers(part)]
    return np.ravel(value).tolist()


def plain(function: Callable[..., Any], **traits: Any) -> Traits:
    return Traits(lambda scores, labels, _: function(scores, labels), **traits)


def same(value: Any) -> Any:
    return value


def f1_at_best(scores: Floats, labels: Ints) -> float:
    return confusion(scores, labels, metrics.best_threshold(scores, labels)).f1


def accuracy(scores: Floats, labels: Ints) -> float:
    return confusion(scores, labels, 0.0625).accuracy  # between two of the scores that `judged` draws


METRICS: dict[str, Traits] = {
    "average_precision": plain(metrics.average_precision, by_rank=True, repeatable=True),
    "average_precision_interval": Traits(
        lambda scores, labels, groups: metrics.average_precision_interval(scores, labels, groups, samples=10),
        by_rank=True,
    ),
    "best_threshold": plain(metrics.best_threshold, repeatable=True),
    "best_threshold, its F1": plain(f1_at_best, by_rank=True, repeatable=True),
    "bootstrap_interval": Traits(
        lambda scores, labels, groups: metrics.bootstrap_interval(scores, labels, groups, 0.1, samples=20),
        one_class=True,
    ),
    "brier": plain(metrics.brier, probabilities=True, repeatable=True, mirrored=same, one_class=True),
    "confusion": plain(lambda scores, labels: confusion(scores, labels, 0.3), one_class=True),
    "confusion, its accuracy": plain(accuracy, repeatable=True, one_class=True),
    "expected_calibration_error": plain(metrics.expected_calibration_error, probabilities=True, one_class=True),
    "fit_calibration": plain(metrics.fit_calibration, mirrored=lambda line: [line[0], -line[1]]),
    "fit_threshold": plain(metrics.fit_threshold),
    "operating_points": plain(lambda scores, labels: metrics.operating_points(scores, labels, (0.1, 0.4))),
    "precision_recall_curve": plain(metrics.precision_recall_curve, repeatable=True),
    "precision_recall_curve, its ratios": plain(
        lambda scores, labels: metrics.precision_recall_curve(scores, labels)[:2], by_rank=True, repeatable=True
    ),
    "reliability": plain(metrics.reliability, probabilities=True, one_class=True),
    "roc_auc": plain(metrics.roc_auc, by_rank=True, repeatable=True, mirrored=same),
    "search_scores": plain(
        lambda scores, labels: metrics.search_scores(*metrics.relevant_ranks(scores, labels)), by_rank=True, graded=True
    ),
    "spearman": plain(metrics.spearman, by_rank=True, repeatable=True, mirrored=same, graded=True),
    "spearman_interval": Traits(
        lambda scores, labels, groups: metrics.spearman_interval(scores, labels, groups, samples=10),
        by_rank=True,
        graded=True,
    ),
}

every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
Data = tuple[Floats, Ints]


def assert_same(one: Any, other: Any) -> None:
    assert one == pytest.approx(other, rel=1e-6, abs=1e-9)


def check_row_order(metric: Traits, scores: Floats, labels: Ints) -> None:
    groups = np.arange(len(scores)) // 2
    for order in (np.arange(len(scores))[::-1], np.random.default_rng(0).permutation(len(scores))):
        assert_same(metric(scores[order], labels[order], groups[order]), metric(scores, labels, groups))


def check_rising_map(metric: Traits, scores: Floats, labels: Ints) -> None:
    groups = np.arange(len(scores)) // 2
    assert_same(metric(np.exp(3 * scores) - 5, labels, groups), metric(scores, labels, groups))


def check_repeated_rows(metric: Traits, scores: Floats, labels: Ints) -> None:
    assert_same(metric(np.repeat(scores, 2), np.repeat(labels, 2)), metric(scores, labels))


def check_mirror(metric: Traits, scores: Floats, labels: Ints) -> None:
    assert metric.mirrored
    assert_same(metric(-scores, 1 - labels), metric.mirrored(metric(scores, labels)))


def check_types(metric: Traits, scores: Floats, labels: Ints) -> None:
    groups = np.arange(len(scores)) // 2
    expected = metric(scores, labels, groups)  # eighths, which float32 holds exactly
    assert metric(scores.astype(np.float32), labels.astype(bool), groups) == expected
    assert metric(scores.tolist(), labels.tolist(), groups.tolist()) == expected


def checks_of(metric: Traits) -> list[Callable[[Traits, Floats, Ints], None]]:
    asked = {check_rising_map: metric.by_rank, check_repeated_rows: metric.repeatable, check_mirror: metric.mirrored}
    return [check_row_order, check_types, *(check for check, wanted in asked.items() if wanted)]


@every_metric
@FEW
@given(data=judged())
def test_what_must_not_matter_does_not(metric: Traits, data: Data) -> None:
    for check in checks_of(metric):
        check(metric, *data)


BAD_INPUT = [
    ([], [], "there are no"),
    ([0.1, 0.2], [0], "2 .* but 1 labels"),
    ([0.1, np.nan], [0, 1], "NaN or infinity, first at row 1"),
    ([np.inf, 0.2], [0, 1], "NaN or infinity, first at row 0"),
    ([0.1, 0.2], [0, 2], "labels must be 0 or 1, not 2"),
    ([[0.1, 0.2]], [0, 1], "one-dimensional"),
]
ONE_CLASS = [
    ([0.1, 0.2], [1, 1], "all 2 labels are 1: both classes are needed"),
    ([0.1, 0.2], [0, 0], "all 2 labels are 0: both classes are needed"),
]


@every_metric
def test_bad_input_is_named_in_one_line(metric: Traits) -> None:
    bad = [row for row in BAD_INPUT if 2 not in row[1]] if metric.graded else BAD_INPUT
    for scores, labels, message in bad + ([] if metric.one_class or metric.graded else ONE_CLASS):
        with pytest.raises(ValueError, match=None if metric.graded else message) as caught:
            metric(scores, labels, [0] * len(labels))
        assert "\n" not in str(caught.value)
    if metric.one_class:
        assert metric([0.1, 0.2], [1, 1], [0, 1]) == metric([0.2, 0.1], [1, 1], [1, 0])


def test_every_metric_of_scores_and_labels_has_a_row() -> None:
    public = {name: getattr(metrics, name) for name in metrics.__all__}
    functions = {name: list(inspect.signature(f).parameters) for name, f in public.items() if inspect.isfunction(f)}
    expected = {name for name, taken in functions.items() if taken[1:2] in (["labels"], ["grades"])}
    expected.add("search_scores")
    expected -= {"resampled_f1", "resampled_average_precision"}  # a number for each resample; see `test_resample`
    assert expected <= set(METRICS)


# ---------------------------------------------------------------------- a walk: adding a metric


def balanced_accuracy(scores: Floats, labels: Ints) -> float:
    """The one function."""
    counts = confusion(scores, labels, 0.0625)
    return (counts.tp / (counts.tp + counts.fn) + counts.tn / (counts.tn + counts.fp)) / 2


NEW_ROW = plain(balanced_accuracy, repeatable=True)  # the one row
SPLITS_TIES = plain(lambda scores, labels: labels[np.argsort(-scores, kind="stable")[0]])


@FEW
@given(data=judged())
def test_a_new_metric_is_one_function_and_one_row(data: Data) -> None:
    for check in checks_of(NEW_ROW):
        check(NEW_ROW, *data)


def test_a_metric_that_splits_ties_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_row_order(SPLITS_TIES, np.array([0.5, 0.5]), np.array([0, 1]))


# ---------------------------------------------------------------------- other arguments, and what is imported


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="threshold is NaN"):
        confusion([0.1], [1], float("nan"))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        metrics.brier([0.1, 1.2], [0, 1])
    with pytest.raises(ValueError, match="one per pair"):
        metrics.bootstrap_interval([0.1, 0.2], [0, 1], [0], 0.5)
    with pytest.raises(ValueError, match="level inside"):
        metrics.bootstrap_interval([0.1, 0.2], [0, 1], [0, 1], 0.5, level=1.0)
    with pytest.raises(ValueError, match="bins must be"):
        metrics.expected_calibration_error([0.1, 0.2], [0, 1], bins=0)
    with pytest.raises(ValueError, match="do not fit"):
        metrics.retrieval_scores(np.eye(3), [0, 0])
    with pytest.raises(ValueError, match="no question of the table has a duplicate"):
        metrics.retrieval_scores(np.eye(3), [-1, -1, 4])


def test_numpy_and_scipy_are_enough() -> None:
    source = (
        "import sys; from qpairs import metrics\n"
        "scores, labels = [0.1, 0.4, 0.6, 0.9], [0, 1, 0, 1]\n"
        "for name in ('average_precision', 'roc_auc', 'fit_threshold', 'fit_calibration', 'brier'):\n"
        "    getattr(metrics, name)(scores, labels)\n"
        "print({'torch', 'sklearn', 'pandas', 'datasets'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"
