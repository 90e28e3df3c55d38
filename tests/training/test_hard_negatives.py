import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpairs.data.pairs import pairs_from_texts
from qpairs.training import hard_negatives as mining
from qpairs.training.batches import build_label_graph
from qpairs.training.hard_negatives import nearest_negatives


def drawn(seed, n=12, k=20, d=4):
    """k labelled pairs of n questions, their guard, and unit embeddings of two towers."""
    random = np.random.default_rng(seed)
    ends = np.argsort(random.random((k, n)), axis=1)[:, :2]
    pairs = pairs_from_texts(*[[f"q{i}" for i in side] for side in ends.T], (random.random(k) < 0.4).astype(int))
    tables = random.normal(size=(2, len(pairs.questions), d)).astype(np.float32)
    tables /= np.linalg.norm(tables, axis=2, keepdims=True)
    return pairs, build_label_graph(pairs).cluster.numpy(), *tables


def naive(pairs, guard, rows, columns, count, relative_margin, candidates):
    found = set()
    for row in np.flatnonzero(pairs.labels == 1):
        a, p = pairs.left[row], pairs.right[row]
        bound = rows[a] @ columns[p] - relative_margin * abs(rows[a] @ columns[p])
        fit = [n for n in candidates if guard[n] != guard[a] and rows[a] @ columns[n] <= bound]
        found |= {(row, a, n) for n in sorted(fit, key=lambda n: -(rows[a] @ columns[n]))[:count]}
    return found


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(-0.3, 0.3), st.booleans(), st.integers(1, 200))
def test_what_is_mined_agrees_with_naive_loops(seed, count, relative_margin, one_sided, block):
    pairs, guard, rows, columns = drawn(seed)
    candidates = np.unique(pairs.right) if one_sided else np.arange(len(guard))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mining, "BLOCK", block)
        at, negatives = nearest_negatives(
            pairs, guard, rows, columns, count=count, relative_margin=relative_margin, candidates=candidates
        )
    expected = naive(pairs, guard, rows, columns, count, relative_margin, candidates)
    assert {(int(r), int(a), int(n)) for r, (a, n) in zip(at, negatives, strict=True)} == expected


def test_a_margin_below_zero_admits_hard_negatives_and_one_above_keeps_them_out():
    pairs, guard, rows, _ = drawn(3, n=60, k=200)
    for margin, hard in ((-0.5, True), (0.05, False)):
        at, negatives = nearest_negatives(pairs, guard, rows, rows, relative_margin=margin)
        to_positive = np.einsum("kd,kd->k", rows[pairs.left[at]], rows[pairs.right[at]])
        to_negative = np.einsum("kd,kd->k", rows[negatives[:, 0]], rows[negatives[:, 1]])
        assert (to_negative > to_positive).any() == hard
        assert (guard[negatives[:, 0]] != guard[negatives[:, 1]]).all()


def test_without_duplicates_or_candidates_nothing_is_mined():
    pairs = pairs_from_texts(["a", "b"], ["c", "d"], [0, 0])
    at, negatives = nearest_negatives(pairs, np.arange(4), *[np.eye(4, dtype=np.float32)] * 2)
    assert at.shape == (0,)
    assert negatives.shape == (0, 2)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(1, 200))
def test_neighbours_agree_with_naive_loops(seed, count, block):
    pairs, _, table, _ = drawn(seed)
    n = len(pairs.questions)
    same = np.random.default_rng(seed).integers(0, n, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mining, "BLOCK", block)
        found = mining.unlabelled_neighbours(pairs, same, table, count)
    expected = set()
    for q in range(n):
        others = sorted((o for o in range(n) if same[o] != same[q]), key=lambda o: -(table[q] @ table[o]))
        expected |= {(min(q, o), max(q, o)) for o in others[:count]}
    expected -= {(min(a, b), max(a, b)) for a, b in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)}
    assert sorted(map(tuple, found.tolist())) == sorted(expected)


def test_one_question_has_no_neighbour():
    pairs = pairs_from_texts(["a"], ["a"], [1])
    assert mining.unlabelled_neighbours(pairs, np.zeros(1, np.int64), np.ones((1, 3), np.float32), 5).shape == (0, 2)
