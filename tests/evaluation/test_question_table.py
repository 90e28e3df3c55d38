"""Densities from labelled pairs, and the probability of hits, on questions whose intents are known."""

import numpy as np
import pytest
from noisy import INTENT, TEXTS, Noisy

from qpairs import metrics
from qpairs.data.pairs import Pairs, pairs_from_texts
from qpairs.evaluation.question_table import scores_of, table_counts, table_densities


def labelled(seed: int, share: float) -> Pairs:
    """A share of the pairs within families, labelled."""
    left, right = metrics.pairs_within(INTENT // 3)
    rows = np.random.default_rng(seed).permutation(len(left))[: round(share * len(left))]
    same = (INTENT[left[rows]] == INTENT[right[rows]]).astype(int)
    return pairs_from_texts([TEXTS[i] for i in left[rows]], [TEXTS[i] for i in right[rows]], same)


def test_few_labels_of_each_component_give_the_densities_of_all() -> None:
    vectors = Noisy(0).encode
    some, everything = labelled(0, 0.3), labelled(0, 1.0)
    found = [table_densities(pairs, (table := vectors(pairs.questions), table)) for pairs in (some, everything)]
    assert found[0] and found[1]
    assert found[1].per_question == pytest.approx(1.5)  # 4 phrasings of each intent: 6 pairs of 4 questions
    assert found[0].per_question == pytest.approx(1.5, rel=0.25)


def test_the_probability_of_a_hit_is_the_share_of_duplicates_among_hits() -> None:
    pairs = labelled(0, 0.5)
    vectors = Noisy(0).encode(pairs.questions)
    densities = table_densities(pairs, (vectors, vectors))
    assert densities and densities.hit_gain
    vectors = Noisy(5).encode(TEXTS)
    estimate = metrics.estimate_corpus(densities, table_counts((vectors, vectors)))
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -1)
    nearest = np.argsort(-scores, axis=1)[:, :10]
    cosines = np.take_along_axis(scores, nearest, axis=1).ravel()
    same = (INTENT[nearest] == INTENT[:, None]).ravel()
    error = metrics.expected_calibration_error(estimate.hit_probability(cosines), same)
    assert error < 0.05
    assert error < metrics.expected_calibration_error(estimate.probability(cosines), same)
    likely = estimate.even_threshold()
    assert estimate.hit_probability(likely) >= 0.5 > estimate.hit_probability(likely - 0.02)


def test_where_the_nearest_are_not_known_a_hit_is_judged_like_any_pair() -> None:
    pairs = labelled(0, 0.5)
    vectors = Noisy(0).encode(pairs.questions)
    densities = table_densities(pairs, (vectors, vectors))
    assert densities and max(densities.hit_gain) > 0.2
    estimate = metrics.like_validation(densities, 500)
    scores = np.linspace(0.3, 1.0, 50)
    np.testing.assert_array_equal(estimate.hit_probability(scores), estimate.probability(scores))


def test_scores_of_two_towers_are_the_mean_of_both_directions() -> None:
    rng = np.random.default_rng(0)
    tables = tuple(rng.standard_normal((6, 4)).astype(np.float32) for _ in range(2))
    one, other = (table / np.linalg.norm(table, axis=1, keepdims=True) for table in tables)
    left, right = np.array([0, 2]), np.array([1, 5])
    expected = [((one[i] @ other[j]) + (one[j] @ other[i])) / 2 for i, j in zip(left, right, strict=True)]
    np.testing.assert_allclose(scores_of((one, other), left, right), expected, rtol=1e-5)


def test_sides_that_cannot_be_swapped_and_one_label_give_none() -> None:
    pairs = labelled(0, 0.5)
    vectors = Noisy(0).encode(pairs.questions)
    assert table_densities(pairs, (vectors, vectors), symmetric=False) is None
    duplicates = pairs.subset(pairs.labels == 1)
    vectors = Noisy(0).encode(duplicates.questions)
    assert table_densities(duplicates, (vectors, vectors)) is None
