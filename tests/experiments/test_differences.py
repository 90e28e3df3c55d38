"""Whether rows of a comparison differ, on simulated runs whose true difference is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from qpairs import metrics
from qpairs.experiments.differences import RowDifference, _quantile, row_difference, with_seeds

N = 400
Runs = list[NDArray[np.bool_]]


def simulate(
    rng: np.random.Generator, shares: Sequence[float], runs: int, sd: float
) -> tuple[NDArray[np.int8], list[Runs]]:
    """Labels, and for each share of wrong answers the runs of a row; each run has luck of its own (deviation `sd`)."""
    labels, hard = (rng.random(N) < 0.4).astype(np.int8), rng.random(N)
    rows = [
        [(hard + rng.normal(0, 0.02, N) < share + rng.normal(0, sd)) != (labels == 1) for _ in range(runs)]
        for share in shares
    ]
    return labels, rows


def mean_f1(runs: Runs, labels: NDArray[np.int8]) -> float:
    return float(np.mean([metrics.confusion(run, labels, 0.5).f1 for run in runs]))


def against_the_best(labels: NDArray[np.int8], rows: list[Runs]) -> list[RowDifference]:
    best, *others = sorted(rows, key=lambda runs: -mean_f1(runs, labels))
    return [row_difference(runs, best, labels, np.arange(N), rows=len(rows), samples=100, seed=0) for runs in others]


@pytest.mark.parametrize(("rows", "runs", "repeats"), [(2, 3, 150), (5, 3, 50)])
def test_what_differs_in_the_luck_of_seeds_alone_is_seldom_called_worse(rows: int, runs: int, repeats: int) -> None:
    rng, wrong, by_questions = np.random.default_rng(5), 0, 0
    for _ in range(repeats):
        labels, simulated = simulate(rng, [0.25] * rows, runs, sd=0.03)
        wrong += any(found.verdict == "worse" for found in against_the_best(labels, simulated))
        one, other = map(np.stack, simulated[:2])
        difference = metrics.paired_difference(one, other, labels, np.arange(N), samples=100)
        by_questions += difference.distinguishable
    assert wrong / repeats <= 0.07  # 0.05, and the error of so few repeats
    assert by_questions / repeats > 0.5, "seeds must matter, or this tests nothing"


def test_a_real_difference_is_found() -> None:
    rng, found = np.random.default_rng(6), 0
    for _ in range(40):
        labels, rows = simulate(rng, [0.20, 0.26, 0.26], 3, sd=0.005)
        found += all(one.verdict == "worse" for one in against_the_best(labels, rows))
    assert found >= 36


def test_the_interval_holds_the_true_difference_in_95_of_100_comparisons() -> None:
    rng, held, repeats = np.random.default_rng(7), 0, 200
    for _ in range(repeats):
        labels, (one, other) = simulate(rng, [0.25, 0.25], 3, sd=0.02)
        found = row_difference(one, other, labels, np.arange(N), samples=100)
        held += found.low <= 0 <= found.high
    assert held / repeats >= 0.92


@settings(deadline=None, derandomize=True, max_examples=40)
@given(data=st.data())
def test_of_two_seeds_the_better_above_the_winners_best_is_no_loss(data: st.DataObject) -> None:
    """Scores of two seeds: the loser's better one exceeds both of the winner's."""
    top = data.draw(st.floats(0.5, 0.9))
    winner = sorted(data.draw(st.lists(st.floats(0.4, top - 1e-3), min_size=2, max_size=2)))
    low = data.draw(st.floats(0.0, sum(winner) - top - 1e-3).filter(lambda x: x > 0)) if sum(winner) > top else 0.0
    value = (low + top - sum(winner)) / 2
    if value < 0:
        _, high = with_seeds(value, (value - 1e-6, value + 1e-6), [[low, top], winner])
        assert high > 0


def test_the_case_of_a_loser_with_the_best_run() -> None:
    """Over the questions alone it is worse, although one of its runs is the best of all."""
    rng = np.random.default_rng(8)
    labels, hard = (rng.random(2000) < 0.4).astype(np.int8), rng.random(2000)
    winner, loser = ([(hard < share) != (labels == 1) for share in shares] for shares in ((0.20, 0.22), (0.19, 0.28)))
    assert mean_f1(loser[:1], labels) > mean_f1(winner[:1], labels)
    over_questions = metrics.paired_difference(np.stack(loser), np.stack(winner), labels, np.arange(2000))
    assert over_questions.high < 0
    assert row_difference(loser, winner, labels, np.arange(2000)).verdict == "no difference"


def test_one_run_is_not_enough_to_call_a_row_worse() -> None:
    labels, (good, bad) = simulate(np.random.default_rng(9), [0.1, 0.4], 3, sd=0.0)
    for answers, others in ((bad[:1], good), (bad, good[:1]), (bad[:1], good[:1])):
        found = row_difference(answers, others, labels, np.arange(N))
        over_questions = metrics.paired_difference(np.stack(answers), np.stack(others), labels, np.arange(N))
        assert (found.low, found.high) == (over_questions.low, over_questions.high)
        assert not found.seeds_known
        assert found.verdict == "unknown"
    assert row_difference(good[:1], good[:1], labels, np.arange(N)).verdict == "no difference"
    assert row_difference(bad, good, labels, np.arange(N)).verdict == "worse"
    assert row_difference(good, bad, labels, np.arange(N)).verdict == "better"


def test_without_variance_over_questions_two_rows_get_the_t_interval_of_welch() -> None:
    one, other = [0.70, 0.72, 0.75], [0.80, 0.81, 0.79, 0.83]
    value = float(np.mean(one) - np.mean(other))
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert with_seeds(value, (value, value), [one, other]) == pytest.approx(tuple(expected))


def test_without_variance_over_seeds_the_interval_is_that_over_questions() -> None:
    assert with_seeds(0.1, (0.05, 0.2), [[0.8, 0.8], [0.7, 0.7]]) == pytest.approx((0.05, 0.2), abs=1e-4)


@pytest.mark.parametrize("uneven", [0.0, 0.7])
@pytest.mark.parametrize(("rows", "runs"), [(8, 2), (24, 2), (24, 3)])
def test_of_many_equal_rows_hardly_ever_is_one_called_worse(rows: int, runs: int, uneven: float) -> None:
    random, wrong, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        spread = 0.01 * np.exp(random.normal(0, uneven, (rows, 1)))
        scores = 0.75 + spread * random.normal(size=(rows, runs))
        best = int(scores.mean(axis=1).argmax())
        for row in range(rows):
            value = float(scores[row].mean() - scores[best].mean())
            beside = [scores[other].tolist() for other in range(rows) if other not in (row, best)]
            pair = [scores[row].tolist(), scores[best].tolist()]
            if row != best and with_seeds(value, (value, value), pair, rows=rows, beside=beside)[1] < 0:
                wrong += 1
                break
    assert wrong / trials < 0.085  # 0.05, and three standard errors of as many trials


def test_rows_beside_steady_the_variance_of_two_that_are_alike_by_chance() -> None:
    alike, others = [[0.70, 0.7001], [0.72, 0.7201]], [[0.68, 0.71], [0.66, 0.69], [0.70]]
    alone = with_seeds(-0.02, (-0.02, -0.02), alike, rows=5)
    beside = with_seeds(-0.02, (-0.02, -0.02), alike, rows=5, beside=others)
    assert alone[1] < 0 < beside[1]


@pytest.mark.parametrize(("rows", "freedom"), [(3, 1.1), (15, 2.25), (5, 45.0), (40, 9.0), (6, 1e9)])
def test_quantiles_of_many_rows_are_those_of_the_studentized_range(rows: int, freedom: float) -> None:
    exact = stats.studentized_range.ppf(0.95, rows, freedom) / np.sqrt(2)
    assert 0.999 * exact <= _quantile(rows, freedom) <= 1.03 * exact


def test_more_rows_and_fewer_seeds_widen_the_interval() -> None:
    runs = [[0.70, 0.72, 0.71], [0.80, 0.82, 0.81]]
    widths = [np.diff(with_seeds(-0.1, (-0.12, -0.08), runs, rows=rows))[0] for rows in (2, 3, 10)]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3
    more = [run * 3 for run in runs]
    assert np.diff(with_seeds(-0.1, (-0.12, -0.08), more))[0] < widths[0]
