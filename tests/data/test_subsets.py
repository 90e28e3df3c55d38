from __future__ import annotations

import numpy as np

from qpairs import load_pairs, pairs_from_texts
from qpairs.data.splits import question_components
from qpairs.data.subsets import component_order


def test_components_stay_together_and_one_at_most_is_cut() -> None:
    pairs = load_pairs("sample")
    component = question_components(pairs)[pairs.left]
    rows = component_order(pairs, seed=4)
    assert sorted(rows) == list(range(len(pairs)))
    for size in (100, 1000, 4000):
        inside, outside = component[rows[:size]], component[rows[size:]]
        assert len(np.intersect1d(inside, outside)) <= 1


def test_another_seed_draws_others_and_the_same_the_same() -> None:
    pairs = load_pairs("sample")
    first = component_order(pairs, seed=0)
    assert np.array_equal(first, component_order(pairs, seed=0))
    assert len(np.intersect1d(first[:500], component_order(pairs, seed=1)[:500])) < 250


def test_a_component_of_nearly_all_pairs_is_drawn_in_pieces() -> None:
    """A chain of non-duplicates, each question with a duplicate of its own."""
    texts = [f"question {n}" for n in range(100)]
    first = [*texts[:-1], *texts]
    second = [*texts[1:], *(f"{text} again" for text in texts)]
    pairs = pairs_from_texts(first, second, [0] * 99 + [1] * 100)
    assert len(set(question_components(pairs).tolist())) == 1
    half = component_order(pairs, seed=0)[:100]
    assert 30 < (pairs.labels[half] == 1).sum() < 70
    assert np.ptp(pairs.left[half]) > 60, "drawn from one end of the chain"
