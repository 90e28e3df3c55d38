from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from labelled_scores import Floats, Ints, judged

from qpairs import metrics

FEW = settings(deadline=None, derandomize=True, max_examples=25)


@given(judged())
@FEW
def test_weights_count_pairs_as_if_they_were_there_so_often(case: tuple[Floats, Ints]) -> None:
    scores, labels = case
    groups = np.arange(len(labels)) // 2
    weights = metrics.group_weights(groups, samples=3, seed=0)
    assert weights.shape == (4, len(labels))
    assert (weights[0] == 1).all()
    others = -np.asarray(scores)
    for score in (scores, others):
        called = np.asarray(score) >= 0
        found = metrics.resampled_f1([called, ~called], labels, weights)
        ranked = metrics.resampled_average_precision([score], labels, weights)
        for row, drawn in enumerate(weights):
            s, c, y = (np.repeat(values, drawn) for values in (score, called, labels))
            if len(y):
                assert found[row, 0] == pytest.approx(metrics.confusion(c, y, 0.5).f1)
            if 0 < y.sum() < len(y):
                assert ranked[row, 0] == pytest.approx(metrics.average_precision(s, y))


def test_whole_groups_are_drawn_together() -> None:
    groups = np.array([3, 3, 3, 9, 9, 4])
    weights = metrics.group_weights(groups, samples=50, seed=1)[1:]
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, [0, 3, 5]].sum(axis=1) == 3).all()
    assert len(np.unique(weights, axis=0)) > 5


def test_a_group_with_most_of_the_pairs_is_drawn_pair_by_pair() -> None:
    together, alone = (metrics.group_weights(groups, 20, seed=0) for groups in (np.zeros(30, int), np.arange(30)))
    assert (together == alone).all() and len(np.unique(together, axis=0)) == 21
