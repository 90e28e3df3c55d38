from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from labelled_scores import Ints, draw_pairs
from numpy.typing import NDArray
from scipy import stats

from qpairs.evaluation.calibrate import cross_fitted
from qpairs.evaluation.joint import folds_of
from qpairs.metrics import (
    Difference,
    average_precision,
    average_precision_interval,
    bootstrap_interval,
    confusion,
    decide,
    fit_threshold,
    paired_difference,
    pairs_to_halve,
    taken_apart,
    unseen,
)


def test_bootstrap_over_single_pairs_gives_the_binomial_interval() -> None:
    n = 400
    labels = np.arange(n) % 2
    scores = np.where(np.arange(n) % 10 < 8, labels, 1 - labels)  # 80 % right
    low, high = bootstrap_interval(scores, labels, np.arange(n), 0.5, samples=20_000)["accuracy"]
    assert (low, high) == pytest.approx(stats.binom.ppf([0.025, 0.975], n, 0.8) / n, abs=0.003)


@pytest.mark.parametrize("n", [8, 40])
def test_intervals_of_rare_mistakes_hold_the_truth_as_often_as_they_say(n: int) -> None:
    """Without a mistake among few pairs, accuracy and precision were said to be 1.000 to 1.000."""
    rng, labels, held = np.random.default_rng(2), np.ones(n, np.int64), []
    for _ in range(400):
        right = rng.random(n) < 0.95
        found = bootstrap_interval(np.where(right, labels, 1 - labels), labels, np.arange(n), 0.5, samples=200)
        held += [found[name][0] <= 0.95 <= found[name][1] for name in ("accuracy", "recall")]
    assert np.mean(held) >= 0.94


def test_figures_without_a_mistake_or_without_a_hit_are_as_uncertain_as_the_pairs_are_few() -> None:
    groups = np.repeat(np.arange(10), 3)
    labels = np.tile([1, 0, 0], 10)
    perfect = bootstrap_interval(labels, labels, groups, 0.5)
    share = unseen(10)
    assert share == pytest.approx(stats.beta.ppf(0.975, 1, 10))  # Clopper and Pearson
    assert perfect["precision"] == perfect["recall"] == perfect["accuracy"] == pytest.approx((1 - share, 1))
    assert perfect["f1"] == pytest.approx((2 * (1 - share) / (2 - share), 1))
    hopeless = bootstrap_interval(1 - labels, labels, groups, 0.5)
    assert hopeless["precision"] == hopeless["accuracy"] == pytest.approx((0, share))
    assert hopeless["f1"] == pytest.approx((0, 2 * share / (1 + share)))
    assert bootstrap_interval(0 * labels, labels, groups, 0.5)["precision"] == (0, 0)  # nothing is called


def naive_resamples(groups: Ints, samples: int) -> list[Ints]:
    """The rows of each resample of whole groups."""
    rng = np.random.default_rng(8)
    names = np.unique(groups)
    rows = {name: np.flatnonzero(groups == name) for name in names}
    return [np.concatenate([rows[name] for name in rng.choice(names, len(names))]) for _ in range(samples)]


def test_a_perfect_ranking_of_few_pairs_is_not_certain() -> None:
    for n in (10, 50):
        low, high = average_precision_interval([0.9] * n + [0.1] * n, [1] * n + [0] * n, range(2 * n))
        assert high == 1 and low == pytest.approx(1 - unseen(n))


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


def test_a_group_with_most_of_the_pairs_is_resampled_pair_by_pair() -> None:
    scores, labels = draw_pairs(np.random.default_rng(3), 60)
    alone, together = (
        bootstrap_interval(scores, labels, groups, 0.76) for groups in (np.arange(60), np.zeros(60, np.int64))
    )
    low, high = together["f1"]
    assert high - low > 0.1 and together == alone


@pytest.mark.parametrize("groups", [[4, 4, 7, 7], [3], [0, 1, 1, 2]])
def test_a_group_with_half_of_the_pairs_and_a_single_pair_stay_as_they_are(groups: list[int]) -> None:
    assert taken_apart(groups).tolist() == groups


@pytest.mark.parametrize("seed", range(5))
def test_few_components_with_sparse_numbers_fill_all_folds(seed: int) -> None:
    groups = np.array([0, 0, 40, 40, 1000, 1000])
    folds = folds_of(groups, np.array([0, 1] * 3, dtype=np.int8), 3, seed)
    assert [len(set(groups[here])) for here, _ in folds] == [1, 1, 1]
    assert all(not (here & rest).any() for here, rest in folds)


def test_pairs_that_all_share_a_question_are_cross_fitted() -> None:
    random = np.random.default_rng(0)
    scores, labels = random.random(60).astype(np.float32), (np.arange(60) % 3 == 0).astype(np.int8)
    decided = cross_fitted(scores, labels, np.zeros(60, np.int64))
    assert (decided != decide(scores, fit_threshold(scores, labels))).any()  # each fold has the threshold of the other


def test_halving_an_interval_takes_three_times_as_many_more() -> None:
    rng = np.random.default_rng(12)
    scores, labels = draw_pairs(rng, 4000)
    n = 1000
    total = n + pairs_to_halve(n)
    few, more = (np.diff(bootstrap_interval(scores[:k], labels[:k], np.arange(k), 0.76)["f1"])[0] for k in (n, total))
    assert total == 4000
    assert more == pytest.approx(few / 2, rel=0.15)
