from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from labelled_scores import REPEATABLE, Floats, Ints, draw_pairs, judged
from sklearn import metrics as oracle

from qpairs.metrics import (
    Confusion,
    all_duplicate_f1,
    average_precision,
    best_threshold,
    confusion,
    fit_threshold,
    operating_points,
    roc_auc,
)


@REPEATABLE
@given(judged(), st.integers(-9, 9))
def test_confusion_is_that_of_scikit_learn(data: tuple[Floats, Ints], cut: int) -> None:
    scores, labels = data
    answer = scores >= cut / 8
    mine = confusion(scores, labels, cut / 8)
    assert [[mine.tn, mine.fp], [mine.fn, mine.tp]] == oracle.confusion_matrix(labels, answer).tolist()
    precision, recall, f1, _ = oracle.precision_recall_fscore_support(
        labels, answer, average="binary", zero_division=0.0
    )
    assert (mine.precision, mine.recall, mine.f1) == pytest.approx((precision, recall, f1))
    assert mine.accuracy == pytest.approx(oracle.accuracy_score(labels, answer))


def test_undefined_ratios_are_zero() -> None:
    nothing = Confusion(0, 0, 0, 0)
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.accuracy) == (0, 0, 0, 0)


@REPEATABLE
@given(judged())
def test_best_threshold_beats_every_cut_and_is_the_most_precise_of_the_best(data: tuple[Floats, Ints]) -> None:
    scores, labels = data
    mine = confusion(scores, labels, best_threshold(scores, labels))
    others = [confusion(scores, labels, cut) for cut in scores]
    assert mine.f1 == max(c.f1 for c in others)
    assert mine.precision == max(c.precision for c in others if c.f1 == mine.f1)


def test_best_threshold_lies_midway_or_on_the_least_score() -> None:
    assert best_threshold([0.2, 0.4, 0.8, 0.9], [0, 0, 1, 1]) == pytest.approx(0.6)
    assert best_threshold([0.2, 0.4, 0.8, 0.9], [1, 0, 1, 1]) == 0.2


@REPEATABLE
@given(judged())
def test_an_operating_point_is_the_lowest_threshold_whose_bound_reaches_its_precision(
    data: tuple[Floats, Ints],
) -> None:
    scores, labels = data
    precisions = (0.05, 0.3, 0.5, 0.75)
    found = {point.precision: point for point in operating_points(scores, labels, precisions)}
    for precision in precisions:
        reached = []
        for cut in np.unique(scores):
            right, called = int(labels[scores >= cut].sum()), int((scores >= cut).sum())
            bound = scipy.stats.binomtest(right, called, alternative="greater").proportion_ci(0.95).low
            if bound >= precision - 1e-12:
                reached.append(cut)
        assert (precision in found) == bool(reached)
        if reached:
            point = found[precision]
            assert ((scores >= point.threshold) == (scores >= min(reached))).all()
            assert point.recall == pytest.approx(confusion(scores, labels, point.threshold).recall)


def test_a_promised_precision_is_rarely_missed() -> None:
    rng, promised, missed = np.random.default_rng(0), 0, 0
    for _ in range(200):
        labels = (rng.random(838) < 0.37).astype(np.int64)
        scores = rng.standard_normal(838) + 2.5 * labels
        points = operating_points(scores, labels, [0.95])
        promised += len(points)
        for point in points:
            right, wrong = (
                0.37 * scipy.stats.norm.sf(point.threshold - 2.5),
                0.63 * scipy.stats.norm.sf(point.threshold),
            )
            missed += right / (right + wrong) < 0.95
    assert promised > 150 and missed <= 0.05 * promised


def test_twenty_pairs_promise_no_more_than_they_show() -> None:
    scores, labels = np.linspace(0, 1, 41), np.arange(41) >= 21  # 20 duplicates, all above the others
    points = operating_points(scores, labels)
    assert points[-1].precision == 0.85  # 0.05 ** (1 / 20) = 0.861
    assert (points[-1].threshold, points[-1].recall) == (pytest.approx((scores[20] + scores[21]) / 2), 1.0)


@pytest.mark.parametrize("upper", [1.0, 0.7, 5e-324, -0.3, 1.7e308])
def test_best_threshold_between_neighbouring_floats_does_not_admit_the_lower(upper: float) -> None:
    lower = float(np.nextafter(upper, -np.inf))
    assert lower < best_threshold([lower, upper], [0, 1]) <= upper
    assert -1.7e308 < best_threshold([-1.7e308, upper], [0, 1]) <= upper


def test_a_collapsed_model_gets_no_more_than_answering_duplicate_always() -> None:
    scores, labels = np.full(100, 0.7), np.arange(100) < 37
    assert confusion(scores, labels, best_threshold(scores, labels)).f1 == all_duplicate_f1(labels)
    assert average_precision(scores, labels) == pytest.approx(0.37)
    assert roc_auc(scores, labels) == 0.5


@REPEATABLE
@given(st.lists(st.integers(0, 1), min_size=1))
def test_all_duplicate_f1_is_the_f1_of_ones(labels: list[int]) -> None:
    assert all_duplicate_f1(labels) == pytest.approx(oracle.f1_score(labels, [1] * len(labels), zero_division=0.0))


def fresh_f1(shift: float, n: int, prior: float | None, raw: bool = False) -> tuple[float, float]:
    """Mean F1 on fresh pairs of thresholds fitted to n pairs, over 60 draws, and the best possible."""
    rng = np.random.default_rng(5)
    scores, labels = draw_pairs(rng, 20_000, shift)
    fits = [draw_pairs(rng, n, shift) for _ in range(60)]
    thresholds = [best_threshold(*few) if raw else fit_threshold(*few, prior) for few in fits]
    best = confusion(scores, labels, best_threshold(scores, labels)).f1
    return float(np.mean([confusion(scores, labels, t).f1 for t in thresholds])), best


@pytest.mark.parametrize("n", [20, 80])
def test_smoothing_beats_the_best_threshold_of_the_sample(n: int) -> None:
    assert fresh_f1(0.0, n, None)[0] > fresh_f1(0.0, n, None, raw=True)[0] + 0.003


def test_few_pairs_keep_a_threshold_that_fits() -> None:
    with_prior, best = fresh_f1(0.0, 5, 0.76)
    assert with_prior > best - 0.03
    assert with_prior > fresh_f1(0.0, 5, None)[0] + 0.02


def test_forty_pairs_find_a_threshold_that_has_moved() -> None:
    moved, best = fresh_f1(-0.28, 40, 0.76)
    assert moved > best - 0.02
    rng = np.random.default_rng(17)
    draws = [draw_pairs(rng, 40, shift=-0.28) for _ in range(20)]
    assert np.median([abs(fit_threshold(*few, 0.76) - fit_threshold(*few)) for few in draws]) < 0.012


def test_many_pairs_find_the_best_threshold_against_the_prior() -> None:
    scores, labels = draw_pairs(np.random.default_rng(6), 5000)
    for prior in (None, 0.3, 0.78, 1.0):
        fitted = confusion(scores, labels, fit_threshold(scores, labels, prior)).f1
        assert fitted > confusion(scores, labels, best_threshold(scores, labels)).f1 - 0.005


@REPEATABLE
@given(judged(), st.integers(-8, 8))
def test_fitted_threshold_moves_with_the_scores(data: tuple[Floats, Ints], prior: int) -> None:
    scores, labels = data
    alone, shrunk = fit_threshold(scores, labels), fit_threshold(scores, labels, prior / 8)
    assert scores.min() <= alone <= scores.max()
    assert min(alone, prior / 8) - 1e-12 <= shrunk <= max(alone, prior / 8) + 1e-12
    assert fit_threshold(4 * scores + 32, labels) == pytest.approx(4 * alone + 32)
    assert fit_threshold(4 * scores + 32, labels, prior / 2 + 32) == pytest.approx(4 * shrunk + 32)


def test_fitted_threshold_of_two_pairs_lies_between_them() -> None:
    assert fit_threshold([0.4, 0.8], [0, 1]) == pytest.approx(0.6, abs=0.02)
    assert fit_threshold([0.5, 0.5], [0, 1], prior=0.9) == 0.5
