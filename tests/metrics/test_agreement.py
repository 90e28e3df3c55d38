"""Agreement of annotators against scikit-learn, textbook values, and what must hold of any such measure."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from qpairs.metrics import cohen_kappa, krippendorff_alpha, percent_agreement, resampled_interval, resampled_weights

# Krippendorff (2011), section C: four observers, twelve units, five categories and missing answers; alpha = 0.743
FOUR_OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, -1, -1, -1],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, -1, 3],
        [-1, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, -1],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, -1],
    ]
).T
# the same, section A: two observers, ten units, yes or no; alpha = 0.095
TWO_OBSERVERS = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]).T
ANSWERS = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 2), min_size=n, max_size=n) for _ in range(2)])
)


def test_alpha_has_the_textbook_values() -> None:
    assert krippendorff_alpha(FOUR_OBSERVERS) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(TWO_OBSERVERS) == pytest.approx(0.095, abs=5e-4)


@settings(max_examples=60)
@given(ANSWERS)
def test_kappa_is_that_of_scikit_learn(answers: tuple[list[int], list[int]]) -> None:
    one, other = answers
    if set(one) == set(other) and len(set(one)) == 1:
        assert math.isnan(cohen_kappa(one, other))
    else:
        assert cohen_kappa(one, other) == pytest.approx(cohen_kappa_score(one, other))
    assert percent_agreement(one, other) == pytest.approx(np.mean(np.equal(one, other)))


@settings(max_examples=60)
@given(ANSWERS, st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_weights_count_pairs_as_often(answers: tuple[list[int], list[int]], often: list[int]) -> None:
    one, other = map(np.array, answers)
    weights = np.array(often[: len(one)])
    more = np.repeat(one, weights), np.repeat(other, weights)
    for measure in (percent_agreement, cohen_kappa):
        np.testing.assert_allclose(measure(one, other, weights), measure(*more))
    np.testing.assert_allclose(
        krippendorff_alpha(np.stack([one, other], 1), weights), krippendorff_alpha(np.stack(more, 1))
    )


@settings(max_examples=40)
@given(ANSWERS)
def test_names_of_categories_order_and_lone_answers_do_not_matter(answers: tuple[list[int], list[int]]) -> None:
    one, other = map(np.array, answers)
    table = np.stack([one, other], 1)
    swapped = np.array([2, 0, 1])[table]
    np.testing.assert_allclose(krippendorff_alpha(table), krippendorff_alpha(swapped), atol=1e-12)
    np.testing.assert_allclose(cohen_kappa(one, other), cohen_kappa(swapped[::-1, 1], swapped[::-1, 0]), atol=1e-12)
    lone = np.concatenate([table, [[1, -1], [-1, 0]]])
    np.testing.assert_allclose(krippendorff_alpha(table), krippendorff_alpha(lone))
    np.testing.assert_allclose(cohen_kappa(one, other), cohen_kappa(lone[:, 0], lone[:, 1]))


def test_what_is_undefined_is_nan_and_what_is_wrong_is_refused() -> None:
    assert math.isnan(percent_agreement([1, -1], [-1, 0]))
    assert math.isnan(cohen_kappa([1, -1], [-1, 0]))
    assert math.isnan(krippendorff_alpha([[1, -1], [-1, 0]]))
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    with pytest.raises(ValueError, match="2 answers of one annotator but 1"):
        cohen_kappa([1, 0], [1])
    with pytest.raises(ValueError, match="whole numbers"):
        krippendorff_alpha([[0.5, 1.0]])
    with pytest.raises(ValueError, match="dimensions"):
        krippendorff_alpha([1, 0])


def test_resamples_are_of_whole_groups() -> None:
    groups = np.array([3, 3, 7, 9, 9, 9])
    drawn = list(resampled_weights(groups, 200))
    assert all(len(set(weights[groups == group])) == 1 for weights in drawn for group in (3, 7, 9))
    assert np.mean(drawn, axis=0) == pytest.approx(np.ones(6), abs=0.2)
    assert all(map(math.isnan, resampled_interval(lambda weights: math.nan, groups, samples=5)))


def test_a_group_with_most_of_the_pairs_is_drawn_pair_by_pair() -> None:
    one, other = np.ones(120, int), (np.arange(120) % 4 > 0).astype(int)
    low, high = resampled_interval(lambda weights: percent_agreement(one, other, weights), np.zeros(120, int))
    assert low == pytest.approx(0.67, abs=0.02) and high == pytest.approx(0.83, abs=0.02)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng, inside = np.random.default_rng(0), 0
    for seed in range(60):
        truth = rng.random(200) < 0.4
        one, other = (np.where(rng.random(200) < 0.9, truth, ~truth).astype(int) for _ in range(2))
        low, high = resampled_interval(
            lambda w, a=one, b=other: percent_agreement(a, b, w), range(200), samples=200, seed=seed
        )
        inside += low <= 0.82 <= high  # both right or both wrong
    assert inside >= 51
