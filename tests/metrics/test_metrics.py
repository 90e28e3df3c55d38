from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression

from qpairs.metrics import (
    PRECISIONS,
    Calibration,
    Confusion,
    Difference,
    all_duplicate_f1,
    average_precision,
    average_precision_interval,
    best_threshold,
    bootstrap_interval,
    brier,
    confusion,
    distribution_shift,
    expected_calibration_error,
    fit_calibration,
    fit_threshold,
    is_collapsed,
    mining_average_precision,
    operating_points,
    paired_difference,
    pairs_to_halve,
    precision_recall_curve,
    quantiles,
    retrieval_scores,
    roc_auc,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
REPEATABLE = settings(deadline=None, derandomize=True, max_examples=60)


@st.composite
def judged(draw: st.DrawFn, max_size: int = 40) -> tuple[Floats, Ints]:
    """Scores, many of them tied, and labels of both classes."""
    n = draw(st.integers(2, max_size))
    scores = draw(st.lists(st.integers(-8, 8), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)))
    return np.array(scores) / 8, np.array(labels)


def draw_pairs(rng: np.random.Generator, n: int, shift: float = 0.0, rate: float = 0.37) -> tuple[Floats, Ints]:
    """Cosine-like scores whose best threshold is about 0.76 + shift, and labels of both classes."""
    labels = (rng.random(n) < rate).astype(np.int64)
    labels[:2] = 0, 1
    return np.where(labels == 1, rng.normal(0.86, 0.08, n), rng.normal(0.66, 0.15, n)) + shift, labels


# ---------------------------------------------------------------------- thresholds and ranking


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
@given(judged(), st.integers(1, 8))
def test_an_operating_point_is_the_lowest_threshold_of_its_precision(data: tuple[Floats, Ints], least: int) -> None:
    scores, labels = data
    precisions = (0.3, 0.5, 0.75, 1.0)
    found = {point.precision: point for point in operating_points(scores, labels, precisions, least)}
    for precision in precisions:
        reached = [
            cut
            for cut in np.unique(scores)
            if (scores >= cut).sum() >= least and labels[scores >= cut].mean() >= precision
        ]
        assert (precision in found) == bool(reached)
        if reached:
            point = found[precision]
            assert ((scores >= point.threshold) == (scores >= min(reached))).all()
            assert point.recall == pytest.approx(confusion(scores, labels, point.threshold).recall)


def test_operating_points_need_twenty_pairs_and_part_the_scores_midway() -> None:
    scores, labels = np.linspace(0, 1, 41), np.arange(41) >= 21  # 20 duplicates, all above the others
    assert [point.precision for point in operating_points(scores, labels)] == list(PRECISIONS)
    strict = operating_points(scores, labels)[-1]
    assert (strict.threshold, strict.recall) == (pytest.approx((scores[20] + scores[21]) / 2), 1.0)
    assert operating_points(scores[2:], labels[2:], least=40) == []


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
@given(judged())
def test_ranking_is_that_of_scikit_learn(data: tuple[Floats, Ints]) -> None:
    scores, labels = data
    assert average_precision(scores, labels) == pytest.approx(oracle.average_precision_score(labels, scores))
    assert roc_auc(scores, labels) == pytest.approx(oracle.roc_auc_score(labels, scores))
    theirs = oracle.precision_recall_curve(labels, scores)
    mine = precision_recall_curve(scores, labels)
    for ours, other, end in zip(mine, theirs, (-1, -1, None), strict=True):
        np.testing.assert_allclose(ours, other[:end])


@REPEATABLE
@given(judged(), st.randoms(use_true_random=False))
def test_row_order_changes_nothing(data: tuple[Floats, Ints], random: object) -> None:
    scores, labels = data
    order = list(range(len(scores)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for function in (best_threshold, average_precision, roc_auc, fit_threshold, fit_calibration):
        assert function(scores, labels) == function(scores[order], labels[order])
    probability = (scores + 1) / 2
    for judge in (brier, expected_calibration_error):
        assert judge(probability, labels) == pytest.approx(judge(probability[order], labels[order]))
    groups = np.arange(len(scores)) // 2
    assert bootstrap_interval(scores, labels, groups, 0.1, samples=20) == bootstrap_interval(
        scores[order], labels[order], groups[order], 0.1, samples=20
    )
    assert average_precision_interval(scores, labels, groups, samples=20) == average_precision_interval(
        scores[order], labels[order], groups[order], samples=20
    )


@REPEATABLE
@given(judged())
def test_a_rising_map_of_the_scores_changes_no_ranking(data: tuple[Floats, Ints]) -> None:
    scores, labels = data
    mapped = np.exp(3 * scores) - 5
    assert average_precision(mapped, labels) == average_precision(scores, labels)
    assert roc_auc(mapped, labels) == roc_auc(scores, labels)
    cuts = (confusion(s, labels, best_threshold(s, labels)) for s in (scores, mapped))
    assert next(cuts) == next(cuts)


@REPEATABLE
@given(judged())
def test_roc_auc_of_turned_scores_is_the_rest(data: tuple[Floats, Ints]) -> None:
    scores, labels = data
    assert roc_auc(-scores, labels) == pytest.approx(1 - roc_auc(scores, labels))


@REPEATABLE
@given(st.lists(st.integers(0, 1), min_size=1))
def test_all_duplicate_f1_is_the_f1_of_ones(labels: list[int]) -> None:
    assert all_duplicate_f1(labels) == pytest.approx(oracle.f1_score(labels, [1] * len(labels), zero_division=0.0))


BAD_INPUT = [
    ([], [], "there are no scores"),
    ([0.1, 0.2], [0], "2 scores but 1 labels"),
    ([0.1, np.nan], [0, 1], "NaN or infinity, first at row 1"),
    ([np.inf, 0.2], [0, 1], "NaN or infinity, first at row 0"),
    ([0.1, 0.2], [0, 2], "labels must be 0 or 1, not 2"),
    ([0.1, 0.2], [1, 1], "all 2 labels are 1: both classes are needed"),
    ([0.1, 0.2], [0, 0], "all 2 labels are 0: both classes are needed"),
    ([[0.1, 0.2]], [0, 1], "one-dimensional"),
]


@pytest.mark.parametrize(("scores", "labels", "message"), BAD_INPUT)
@pytest.mark.parametrize(
    "function",
    [best_threshold, average_precision, roc_auc, precision_recall_curve, fit_calibration, fit_threshold],
)
def test_bad_input_is_named_in_one_line(function: object, scores: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        function(scores, labels)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="threshold is NaN"):
        confusion([0.1], [1], float("nan"))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        brier([0.1, 1.2], [0, 1])
    with pytest.raises(ValueError, match="one per pair"):
        bootstrap_interval([0.1, 0.2], [0, 1], [0], 0.5)
    with pytest.raises(ValueError, match="level inside"):
        bootstrap_interval([0.1, 0.2], [0, 1], [0, 1], 0.5, level=1.0)
    with pytest.raises(ValueError, match="bins must be"):
        expected_calibration_error([0.1, 0.2], [0, 1], bins=0)
    with pytest.raises(ValueError, match="do not fit"):
        retrieval_scores(np.eye(3), [0, 0])
    with pytest.raises(ValueError, match="no question of the table has a duplicate"):
        retrieval_scores(np.eye(3), [-1, -1, 4])


# ---------------------------------------------------------------------- calibration


def test_calibration_is_the_logistic_regression_where_pairs_are_plenty() -> None:
    scores, labels = draw_pairs(np.random.default_rng(0), 20_000)
    mine = fit_calibration(scores, labels)
    theirs = LogisticRegression(C=1e9, tol=1e-9, max_iter=1000).fit(scores[:, None], labels)
    assert mine.slope == pytest.approx(theirs.coef_[0, 0], rel=2e-3)
    assert mine.intercept == pytest.approx(theirs.intercept_[0], rel=2e-3)
    np.testing.assert_allclose(mine.probability(scores), theirs.predict_proba(scores[:, None])[:, 1], atol=1e-3)


@REPEATABLE
@given(judged())
def test_calibration_meets_the_smoothed_targets_on_the_mean(data: tuple[Floats, Ints]) -> None:
    scores, labels = data
    fitted = fit_calibration(scores, labels)
    positives, negatives = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    residual = fitted.probability(scores) - targets
    assert fitted.slope >= 0
    assert residual.sum() == pytest.approx(0, abs=1e-4)  # optimal in the intercept
    if fitted.slope > 0:
        assert residual @ scores == pytest.approx(0, abs=1e-4)  # and in the slope
    else:
        assert -(residual @ scores) <= 1e-4  # no rising line is better


@pytest.mark.parametrize("n", [2, 10, 1000, 100_000])
def test_calibration_of_separable_pairs_is_finite(n: int) -> None:
    scores = np.linspace(0, 1, n)
    fitted = fit_calibration(scores, scores > 0.5)
    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    assert ((fitted.probability(scores) > 0.5) == (scores > 0.5)).all()


def test_calibration_of_wrong_or_constant_scores_is_the_base_rate() -> None:
    labels = np.arange(1000) % 4 == 0
    for scores in (np.where(labels, 0.1, 0.9), np.full(1000, 0.1 + 0.2)):
        fitted = fit_calibration(scores, labels)
        assert fitted.slope == 0
        np.testing.assert_allclose(fitted.probability(scores), 0.25, atol=2e-3)


def test_calibration_does_not_depend_on_the_scale_of_the_scores() -> None:
    scores, labels = draw_pairs(np.random.default_rng(1), 300)
    plain, wide = fit_calibration(scores, labels), fit_calibration(1e6 * scores - 7e6, labels)
    np.testing.assert_allclose(plain.probability(scores), wide.probability(1e6 * scores - 7e6), atol=1e-6)


def test_probability_never_overflows() -> None:
    with np.errstate(all="raise", under="ignore"):
        extreme = Calibration(1e4, 0.0).probability([[-10.0, 0.0, 10.0]])
    assert extreme.tolist() == [[0.0, 0.5, 1.0]]


def boundary(calibration: Calibration) -> float:
    return -calibration.intercept / calibration.slope


def test_few_pairs_keep_the_old_calibration_and_many_override_it() -> None:
    rng = np.random.default_rng(2)
    prior = fit_calibration(*draw_pairs(rng, 5000))
    fresh = draw_pairs(rng, 5000)[0]

    def drift(n: int, prior_used: Calibration | None) -> float:
        """Mean absolute change of the probability of fresh pairs, over 20 draws of n pairs."""
        fits = [fit_calibration(*draw_pairs(rng, n), prior_used) for _ in range(20)]
        return float(np.mean([np.abs(f.probability(fresh) - prior.probability(fresh)).mean() for f in fits]))

    assert drift(5, prior) < 0.6 * drift(5, None)
    assert drift(5, prior) < 0.1
    other, labels = draw_pairs(rng, 5000, shift=-0.28, rate=0.5)
    many, alone = fit_calibration(other, labels, prior), fit_calibration(other, labels)
    np.testing.assert_allclose(many.probability(other), alone.probability(other), atol=0.01)


def test_forty_pairs_move_the_calibration_to_translated_scores() -> None:
    rng = np.random.default_rng(3)
    prior = fit_calibration(*draw_pairs(rng, 5000))
    assert boundary(prior) == pytest.approx(0.81, abs=0.02)
    moved = [fit_calibration(*draw_pairs(rng, 40, shift=-0.28), prior) for _ in range(20)]
    assert np.mean([boundary(c) for c in moved]) == pytest.approx(0.53, abs=0.04)
    assert np.median([c.slope for c in moved]) > 0.6 * prior.slope


def test_prior_strength_is_monotone_and_zero_is_none() -> None:
    rng = np.random.default_rng(4)
    prior = fit_calibration(*draw_pairs(rng, 5000))
    scores, labels = draw_pairs(rng, 30, shift=0.02)
    away = [abs(fit_calibration(scores, labels, prior, strength).slope - prior.slope) for strength in (1, 10, 100, 1e4)]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 0.05 * prior.slope
    faint = fit_calibration(scores, labels, prior, 1e-4)
    unsmoothed = LogisticRegression(C=1e9, tol=1e-9, max_iter=1000).fit(scores[:, None], labels)
    assert faint.slope == pytest.approx(unsmoothed.coef_[0, 0], rel=0.01)
    assert fit_calibration(scores, labels, prior, 0) == fit_calibration(scores, labels)
    assert fit_calibration(scores, labels, Calibration(0.0, 1.0)) == fit_calibration(scores, labels)


# ---------------------------------------------------------------------- threshold of few pairs


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


# ---------------------------------------------------------------------- quality of probabilities


@REPEATABLE
@given(judged())
def test_brier_is_that_of_scikit_learn(data: tuple[Floats, Ints]) -> None:
    probability, labels = (data[0] + 1) / 2, data[1]
    assert brier(probability, labels) == pytest.approx(oracle.brier_score_loss(labels, probability))


def test_calibration_error_of_known_bins() -> None:
    probability = np.repeat([0.2, 0.9], 50)
    labels = np.r_[np.arange(50) < 15, np.arange(50) < 35]  # shares 0.3 and 0.7
    assert expected_calibration_error(probability, labels) == pytest.approx((0.1 + 0.2) / 2)
    assert expected_calibration_error(probability, labels, bins=1) == pytest.approx(0.05)
    uneven = np.repeat([0.1, 0.5, 0.9], [12, 4, 4])  # the ties at 0.1 reach beyond the middle, and stay in bin 0
    assert expected_calibration_error(uneven, uneven > 0.2, bins=2) == pytest.approx(
        (12 * 0.1 + 4 * 0.5 + 4 * 0.1) / 20
    )


def test_calibration_error_has_bins_of_equal_mass() -> None:
    rng = np.random.default_rng(7)
    probability = rng.beta(0.3, 3, 1500)  # distinct and crowded near 0
    labels = rng.random(1500) < 0.3
    by_rank = np.argsort(probability).reshape(15, 100)
    naive = np.mean([abs(probability[rows].mean() - labels[rows].mean()) for rows in by_rank])
    assert expected_calibration_error(probability, labels) == pytest.approx(naive)


# ---------------------------------------------------------------------- intervals


def test_bootstrap_over_single_pairs_gives_the_binomial_interval() -> None:
    n = 400
    labels = np.arange(n) % 2
    scores = np.where(np.arange(n) % 10 < 8, labels, 1 - labels)  # 80 % right
    low, high = bootstrap_interval(scores, labels, np.arange(n), 0.5, samples=20_000)["accuracy"]
    assert (low, high) == pytest.approx(stats.binom.ppf([0.025, 0.975], n, 0.8) / n, abs=0.003)


def naive_resamples(groups: Ints, samples: int) -> list[Ints]:
    """The rows of each resample of whole groups."""
    rng = np.random.default_rng(8)
    names = np.unique(groups)
    rows = {name: np.flatnonzero(groups == name) for name in names}
    return [np.concatenate([rows[name] for name in rng.choice(names, len(names))]) for _ in range(samples)]


def test_bootstrap_agrees_with_a_loop_over_groups() -> None:
    rng = np.random.default_rng(9)
    scores, labels = draw_pairs(rng, 300)
    groups = 7 * rng.integers(0, 60, 300) - 100
    resamples = naive_resamples(groups, 3000)
    mine = bootstrap_interval(scores, labels, groups, 0.76, samples=20_000)
    assert list(mine) == ["f1", "precision", "recall", "accuracy"]
    for name, interval in mine.items():
        naive = [getattr(confusion(scores[rows], labels[rows], 0.76), name) for rows in resamples]
        assert interval == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.006)
    naive = [average_precision(scores[rows], labels[rows]) for rows in resamples]
    low_high = average_precision_interval(scores, labels, groups, samples=3000)
    assert low_high == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.008)


def test_dependent_pairs_widen_the_interval() -> None:
    scores, labels = draw_pairs(np.random.default_rng(10), 200)
    copies = [np.repeat(x, 9) for x in (scores, labels, np.arange(200))]
    widths = [
        np.diff(bootstrap_interval(copies[0], copies[1], groups, 0.76)["f1"])[0]
        for groups in (copies[2], np.arange(1800))
    ]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.15)


def test_bootstrap_is_fixed_by_its_seed_and_memory_flat() -> None:
    scores, labels = draw_pairs(np.random.default_rng(11), 100_000)
    first = bootstrap_interval(scores, labels, np.arange(100_000), 0.76)
    assert first == bootstrap_interval(scores, labels, np.arange(100_000), 0.76)
    assert first != bootstrap_interval(scores, labels, np.arange(100_000), 0.76, seed=1)
    peak = subprocess.run(
        [
            sys.executable,
            "-c",
            "import numpy as np, tracemalloc; from qpairs.metrics import bootstrap_interval\n"
            "rng = np.random.default_rng(0); n = 5000; groups = np.repeat(np.arange(n), rng.integers(1, 40, n))\n"
            "scores = rng.random(len(groups)); labels = rng.random(len(groups)) < scores; tracemalloc.start()\n"
            "bootstrap_interval(scores, labels, groups, 0.5, samples=8000); print(tracemalloc.get_traced_memory()[1])",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert int(peak) < 60e6


def draw_runs(rng: np.random.Generator, n: int, *wrong: float) -> tuple[Ints, list[NDArray[np.bool_]]]:
    """Labels, and for each share of wrong answers those of three runs, which err on much the same pairs."""
    labels, hard = (rng.random(n) < 0.4).astype(np.int64), rng.random(n)
    return labels, [(hard + rng.normal(0, 0.02, (3, n)) < share) != (labels == 1) for share in wrong]


def test_paired_difference_agrees_with_a_loop_over_groups() -> None:
    labels, (answers, others) = draw_runs(np.random.default_rng(12), 400, 0.25, 0.3)
    others, groups = others[:2], 3 * np.random.default_rng(13).integers(0, 90, 400) - 50
    mine = paired_difference(answers, others, labels, groups, samples=20_000)

    def f1(runs: NDArray[np.bool_], rows: Ints) -> float:
        return float(np.mean([confusion(run[rows], labels[rows], 0.5).f1 for run in runs]))

    def gap(rows: Ints) -> float:
        return f1(answers, rows) - f1(others, rows)

    assert mine.value == pytest.approx(gap(np.arange(400)))
    naive = np.quantile([gap(rows) for rows in naive_resamples(groups, 1500)], [0.025, 0.975])
    assert (mine.low, mine.high) == pytest.approx(tuple(naive), abs=0.003)


def test_pairing_tells_apart_what_separate_intervals_do_not() -> None:
    labels, (better, worse) = draw_runs(np.random.default_rng(14), 2000, 0.20, 0.23)
    groups = np.arange(2000)
    ends = [bootstrap_interval(runs[0], labels, groups, 0.5)["f1"] for runs in (better, worse)]
    assert ends[0][0] < ends[1][1]
    difference = paired_difference(better, worse, labels, groups)
    assert difference.low > 0
    assert difference.distinguishable
    turned = paired_difference(worse, better, labels, groups)
    assert turned.value == -difference.value
    assert turned.distinguishable


def test_the_same_answers_do_not_differ() -> None:
    labels, (answers,) = draw_runs(np.random.default_rng(15), 100, 0.2)
    same = paired_difference(answers, answers[::-1], labels, np.arange(100))
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0))
    assert not Difference(0.1, -0.1, 0.3).distinguishable
    with pytest.raises(ValueError, match=r"shape \(runs, 100\), not \(100,\)"):
        paired_difference(answers[0], answers, labels, np.arange(100))


def test_one_group_has_no_width() -> None:
    low, high = bootstrap_interval([0.1, 0.9, 0.8], [0, 1, 0], [4, 4, 4], 0.5)["f1"]
    assert low == high == pytest.approx(2 / 3)


def test_halving_an_interval_takes_three_times_as_many_more() -> None:
    rng = np.random.default_rng(12)
    scores, labels = draw_pairs(rng, 4000)
    n = 1000
    total = n + pairs_to_halve(n)
    few, more = (np.diff(bootstrap_interval(scores[:k], labels[:k], np.arange(k), 0.76)["f1"])[0] for k in (n, total))
    assert total == 4000
    assert more == pytest.approx(few / 2, rel=0.15)


# ---------------------------------------------------------------------- distribution of the scores


def test_collapse_is_named() -> None:
    rng = np.random.default_rng(13)
    assert is_collapsed(np.full(50, 0.93))
    assert is_collapsed(0.999 + 1e-4 * rng.normal(size=500))
    outlier = np.full(500, 1.0)
    outlier[0] = -1
    assert is_collapsed(outlier)
    assert not is_collapsed(rng.normal(0.9, 0.02, 500))
    assert not is_collapsed([0.5])


@pytest.mark.parametrize("shift", [0.0, 0.05, -0.3])
def test_shift_is_the_kolmogorov_smirnov_test(shift: float) -> None:
    rng = np.random.default_rng(14)
    reference, new = rng.beta(5, 3, 8000), rng.beta(5, 3, 400) + shift
    mine = distribution_shift(new, quantiles(reference), len(reference))
    theirs = stats.ks_2samp(new, reference, method="asymp")
    assert mine.n == 400
    assert mine.statistic == pytest.approx(theirs.statistic, abs=0.01)
    effective = np.sqrt(400 * 8000 / 8400)
    assert mine.p_value == pytest.approx(stats.kstwobign.sf(effective * (mine.statistic - 0.01)), abs=1e-9)
    assert (mine.p_value < 0.01) == (theirs.pvalue < 0.01)


@REPEATABLE
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 6))
def test_a_tied_reference_is_no_shift_from_itself(values: list[int], moved: int) -> None:
    reference = np.repeat(values, 300)
    same = distribution_shift(reference, quantiles(reference), len(reference))
    assert same.statistic <= 0.011
    assert same.p_value > 0.9
    other = np.append(reference, np.full(len(reference), moved + 0.5))
    exact = stats.ks_2samp(other, reference).statistic
    assert distribution_shift(other, quantiles(reference), len(reference)).statistic == pytest.approx(exact, abs=0.011)


def test_distant_scores_are_a_whole_shift() -> None:
    away = distribution_shift(np.linspace(2, 3, 100), quantiles(np.linspace(0, 1, 100)), 100)
    assert away.statistic == 1
    assert away.p_value < 1e-12


# ---------------------------------------------------------------------- retrieval


def naive_retrieval(embeddings: Floats, component: Ints) -> dict[str, float]:
    rows = []
    similarity = np.rint(1e6 * (embeddings @ embeddings.T))
    for query in range(len(embeddings)):
        others = [j for j in range(len(embeddings)) if j != query]
        relevant = {j for j in others if component[j] == component[query] >= 0}
        if not relevant:
            continue
        ranking = sorted(others, key=lambda j: (-similarity[query, j], j in relevant))
        hits = [j in relevant for j in ranking]
        first = hits.index(True) + 1
        rows.append([1 / first if first <= 10 else 0.0] + [sum(hits[:k]) / len(relevant) for k in (1, 5, 10)])
    return dict(zip(("mrr_at_10", "recall_at_1", "recall_at_5", "recall_at_10"), np.mean(rows, axis=0), strict=True))


@st.composite
def tables(draw: st.DrawFn) -> tuple[Floats, Ints]:
    """Unit vectors on a coarse grid (many ties) and components, at least one of them of two questions."""
    n = draw(st.integers(2, 45))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    component = rng.integers(-1, max(1, n // draw(st.integers(1, 12))), n)
    component[:2] = 3
    vectors = rng.integers(-1, 2, (n, 3)) + 0.5
    embeddings = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = rng.permutation(n)
    return embeddings[order], component[order]


@REPEATABLE
@given(tables(), st.sampled_from([1, 3, 1024]))
def test_retrieval_agrees_with_a_loop(table: tuple[Floats, Ints], chunk: int) -> None:
    assert retrieval_scores(*table, chunk=chunk) == pytest.approx(naive_retrieval(*table))


def naive_mining(embeddings: Floats, component: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    left, right = np.triu_indices(len(embeddings), 1)
    similarity = np.rint(1e6 * (embeddings @ embeddings.T))
    return similarity[left, right], (component[left] == component[right]) & (component[left] >= 0)


@REPEATABLE
@given(tables(), st.sampled_from([1, 3, 1024]), st.integers(1, 200))
def test_mining_agrees_with_a_loop(table: tuple[Floats, Ints], chunk: int, kept: int) -> None:
    scores, labels = naive_mining(*table)
    everything = mining_average_precision(*table, max_pairs=len(scores), chunk=chunk)
    assert everything == pytest.approx(oracle.average_precision_score(labels, scores))
    falling = -np.sort(-scores)
    whole = scores > falling[kept] if kept < len(scores) else np.ones_like(labels)
    found = labels[whole].sum()
    share = oracle.average_precision_score(labels[whole], scores[whole]) * found / labels.sum() if found else 0.0
    assert mining_average_precision(*table, max_pairs=kept, chunk=chunk) == pytest.approx(share)


def test_perfect_and_collapsed_tables() -> None:
    component = np.repeat(np.arange(30), 3)
    perfect = np.eye(30)[component]
    assert retrieval_scores(perfect, component) == {
        "mrr_at_10": 1,
        "recall_at_1": 0.5,
        "recall_at_5": 1,
        "recall_at_10": 1,
    }
    assert mining_average_precision(perfect, component) == 1
    noise = np.random.default_rng(15).normal(size=(90, 8)) * 1e-8
    collapsed = np.full((90, 8), 8**-0.5) + noise
    assert set(retrieval_scores(collapsed, component).values()) == {0.0}
    assert mining_average_precision(collapsed, component) == 0
    everything = mining_average_precision(collapsed, component, max_pairs=10_000)
    assert everything == pytest.approx(90 / (90 * 89 / 2))


def test_the_chunk_of_queries_changes_nothing() -> None:
    rng = np.random.default_rng(16)
    vectors = rng.normal(size=(500, 16))
    embeddings, component = vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rng.integers(-1, 200, 500)
    assert retrieval_scores(embeddings, component, chunk=7) == retrieval_scores(embeddings, component)
    assert mining_average_precision(embeddings, component, chunk=7) == pytest.approx(
        mining_average_precision(embeddings, component)
    )


def test_metrics_need_numpy_alone() -> None:
    source = (
        "import sys, importlib.util as u; spec = u.spec_from_file_location('alone', sys.argv[1])\n"
        "module = u.module_from_spec(spec); sys.modules['alone'] = module; spec.loader.exec_module(module)\n"
        "print({'torch', 'scipy', 'sklearn', 'qpairs'} & set(sys.modules))"
    )
    from qpairs import metrics

    path = metrics.__file__
    run = subprocess.run([sys.executable, "-c", source, path], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"
