import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpairs.core.exceptions import UserError
from qpairs.data import splits
from qpairs.data.identity import canonical
from qpairs.data.pairs import pairs_from_texts
from qpairs.data.splits import (
    components,
    contradictions,
    duplicate_components,
    fingerprint,
    leak,
    question_components,
    split_pairs,
)

TEXTS = st.sampled_from(["a", "A?", "b", "B", "c", "d", "d!", "e", "f", "g", "??", "!!"])
ROWS = st.lists(st.tuples(TEXTS, TEXTS, st.integers(0, 1)), max_size=14)


def table(rows):
    first, second, labels = zip(*rows, strict=True) if rows else ([], [], [])
    return pairs_from_texts(first, second, labels)


def rows_of(pairs):
    """What a pair table says, whatever the order of its rows and sides."""
    return sorted((*sorted(pairs.texts(i)), int(pairs.labels[i])) for i in range(len(pairs)))


class Groups:
    """Union-find, the naive oracle."""

    def __init__(self):
        self.parent = {}

    def find(self, x):
        while self.parent.setdefault(x, x) != x:
            x = self.parent[x]
        return x

    def union(self, a, b):
        self.parent[self.find(a)] = self.find(b)


def naive_groups(pairs, rows, key=canonical):
    groups = Groups()
    for i in rows:
        a, b = pairs.texts(i)
        groups.union(key(a), key(b))
    return [groups.find(key(q)) for q in pairs.questions]


def same_partition(found, wanted):
    return len(set(zip(found, wanted, strict=True))) == len(set(found)) == len(set(wanted))


def small_groups(n_groups, seed, size=4):
    """Many small components: chains of 1 to `size` pairs, of labels that differ along the chain."""
    rng = np.random.default_rng(seed)
    rows = []
    for g in range(n_groups):
        for i in range(int(rng.integers(1, size + 1))):
            rows.append((f"group {g} question {i}", f"group {g} question {i + 1}", int(rng.random() < 0.37)))
    return rows


def one_giant(n, seed, edges=1.2):
    """A sparse random graph: one large component and small ones."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, n, (int(edges * n), 2))
    return [(f"question {a}", f"question {b}", int(rng.random() < 0.2)) for a, b in ends.tolist() if a != b]


def check_split(pairs, split, whole_components):
    parts = (split.train, split.validation, split.test)
    texts = [{canonical(q) for q in part.questions} for part in parts]
    assert not any(a & b for a, b in itertools.combinations(texts, 2))
    assert sum(map(len, parts)) + split.dropped == len(pairs)
    kept = sorted(row for part in parts for row in rows_of(part))
    if split.dropped == 0:
        assert kept == rows_of(pairs)
    else:
        assert not set(kept) - set(rows_of(pairs))
    if whole_components:
        home = dict(zip(pairs.questions, question_components(pairs).tolist(), strict=True))
        groups = [{home[q] for q in part.questions} for part in parts]
        assert not any(a & b for a, b in itertools.combinations(groups, 2))
        assert split.dropped == 0


@given(ROWS)
def test_components_against_union_find(rows):
    pairs = table(rows)
    everything = range(len(pairs))
    same = [i for i in everything if pairs.labels[i] == 1]
    assert same_partition(question_components(pairs).tolist(), naive_groups(pairs, everything))
    assert same_partition(duplicate_components(pairs).tolist(), naive_groups(pairs, same, key=lambda q: q))


def test_components_of_an_edge_that_is_there_often_and_of_nothing():
    left = np.zeros(256, dtype=np.int64)
    assert components(2, left, left + 1).tolist() == [0, 0]
    assert components(0, left[:0], left[:0]).tolist() == []


@given(ROWS)
def test_contradictions_against_a_naive_loop(rows):
    pairs = table(rows)
    group = dict(
        zip(pairs.questions, naive_groups(pairs, [i for i in range(len(pairs)) if pairs.labels[i] == 1]), strict=True)
    )
    naive = []
    for i in range(len(pairs)):
        a, b = pairs.texts(i)
        if pairs.labels[i] == 0 and group[a] == group[b]:
            naive.append(i)
    assert contradictions(pairs).tolist() == naive


def test_contradictions_by_hand():
    def rows(*given):
        return contradictions(table(given)).tolist()

    assert rows(("a", "b", 1), ("b", "c", 1), ("a", "c", 0), ("c", "d", 0)) == [2]
    assert rows(("a", "b", 1), ("b", "a", 0)) == [1]
    assert rows(("a", "b", 1), ("B!", "c", 1), ("a", "c", 0)) == [2]
    assert rows(("a", "A?", 0), ("a", "b", 0)) == [0]
    assert rows(("a", "b", 0), ("b", "c", 0), ("a", "c", 0)) == []
    assert rows() == []


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(60, 150), st.integers(0, 5), st.sampled_from([0.0, 0.1, 0.2]))
def test_small_components_are_placed_whole(data_seed, n_groups, seed, test_fraction):
    pairs = table(small_groups(n_groups, data_seed))
    split = split_pairs(pairs, test_fraction=test_fraction, seed=seed)
    check_split(pairs, split, whole_components=True)
    assert (len(split.test) > 0) == (test_fraction > 0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(5, 120), st.floats(0.3, 3.0), st.integers(0, 3))
def test_whatever_splits_shares_no_question(data_seed, n, edges, seed):
    pairs = table(one_giant(n, data_seed, edges))
    try:
        split = split_pairs(pairs, validation_fraction=0.3, test_fraction=0.3, seed=seed)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        check_split(pairs, split, whole_components=False)


@pytest.mark.parametrize("rows", [small_groups(120, 1), one_giant(400, 2)], ids=["small", "giant"])
@settings(deadline=None, max_examples=15)
@given(shuffle=st.integers(0, 2**32 - 1))
def test_order_of_rows_and_sides_changes_nothing(rows, shuffle):
    rng = np.random.default_rng(shuffle)
    order, turned = rng.permutation(len(rows)), rng.random(len(rows)) < 0.5
    moved = [(rows[i][1], rows[i][0], rows[i][2]) if turn else rows[i] for i, turn in zip(order, turned, strict=True)]
    one, other = split_pairs(table(rows), seed=3), split_pairs(table(moved), seed=3)
    assert one.fingerprint == other.fingerprint
    assert (one.dropped, one.largest) == (other.dropped, other.largest)
    for name in ("train", "validation", "test"):
        assert rows_of(getattr(one, name)) == rows_of(getattr(other, name))


def test_sizes_and_ratio_are_those_wanted():
    pairs = table(small_groups(3000, 7, size=12))
    split = split_pairs(pairs, validation_fraction=0.1, test_fraction=0.2)
    for part, share in ((split.train, 0.7), (split.validation, 0.1), (split.test, 0.2)):
        assert len(part) / len(pairs) == pytest.approx(share, abs=0.001)
        assert part.duplicate_ratio == pytest.approx(pairs.duplicate_ratio, abs=0.002)


def test_components_larger_than_a_part_go_to_train():
    cliques = [(f"{c} {i}", f"{c} {j}", (i + j) % 2) for c in "xy" for i, j in itertools.combinations(range(18), 2)]
    pairs = table(small_groups(300, 3) + cliques)
    assert 0.1 < len(cliques) / 2 / len(pairs) < 0.2
    split = split_pairs(pairs)
    assert {f"{c} {i}" for c in "xy" for i in range(18)} <= set(split.train.questions)
    assert split.largest == pytest.approx(len(cliques) / 2 / len(pairs))
    for part in (split.validation, split.test):
        assert len(part) / len(pairs) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_a_giant_component_is_cut_where_little_is_lost(seed):
    pairs = table(one_giant(4000, seed))
    split = split_pairs(pairs, seed=seed)
    assert split.largest > 0.5
    check_split(pairs, split, whole_components=False)
    for part in (split.train, split.validation, split.test):
        assert part.duplicate_ratio == pytest.approx(pairs.duplicate_ratio, abs=0.004)
    for part in (split.validation, split.test):
        assert 0.07 < len(part) / len(pairs) < 0.13
    cluster = duplicate_components(pairs)
    part = np.random.default_rng(seed).choice(3, len(pairs.questions), p=[0.8, 0.1, 0.1])[cluster]
    at_random = (part[pairs.left] != part[pairs.right]).sum()
    assert 0 < split.dropped < 0.5 * at_random


def test_two_components_too_large_to_place_are_both_cut():
    rows = [
        (f"{side} {a}", f"{side} {b}", y) for side in "xy" for a, b, y in one_giant(1000, 5, edges=2)
    ] + small_groups(50, 0)
    pairs = table(rows)
    split = split_pairs(pairs)
    check_split(pairs, split, whole_components=False)
    assert 0.3 < split.largest < 0.5
    assert {q[0] for q in split.test.questions} == {q[0] for q in split.train.questions} == {"x", "y", "g"}


def test_every_question_is_brought_into_its_canonical_form_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(text):
        seen.append(text)
        return canonical(text)

    monkeypatch.setattr(splits, "canonical", noted)
    pairs = table(
        [(f"a {i}", f"a {i + 1}", i % 2) for i in range(40)] + [(f"b {i}", f"c {i}", i % 2) for i in range(99)]
    )
    assert split_pairs(pairs).dropped  # one component was cut
    assert sorted(seen) == sorted(pairs.questions)


def test_seeds_choose():
    for rows in (small_groups(200, 4), one_giant(600, 4)):
        pairs = table(rows)
        assert split_pairs(pairs, seed=1).fingerprint == split_pairs(pairs, seed=1).fingerprint
        assert len({split_pairs(pairs, seed=seed).fingerprint for seed in range(5)}) == 5


def test_fingerprint_sees_texts_labels_and_parts():
    one = table([("a", "b", 1), ("c", "d", 0)])
    assert fingerprint([one]) == fingerprint([table([("D", "c?", 0), ("b", "a", 1)])])
    assert len(fingerprint([one])) == 16
    others = [
        [table([("a", "b", 0), ("c", "d", 0)])],
        [table([("a", "x", 1), ("c", "d", 0)])],
        [table([("a", "b", 1)]), table([("c", "d", 0)])],
        [table([("a", "b", 1)])],
    ]
    assert len({fingerprint(parts) for parts in [[one], *others]}) == 5


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([("a", "b", 1), ("c", "d", 1)], {}, "not of both labels"),
        ([("a", "b", 0), ("b", "c", 0)], {}, "not of both labels"),
        ([], {}, "not of both labels"),
        ([("a", "b", 1), ("c", "d", 0)], {}, "too few separate groups"),
        (small_groups(50, 0), {"validation_fraction": 0.6, "test_fraction": 0.4}, "cannot be 0.6 and 0.4"),
        (small_groups(50, 0), {"test_fraction": -0.1}, "cannot be"),
        (small_groups(50, 0), {"test_fraction": float("nan")}, "cannot be"),
    ],
)
def test_what_cannot_be_split_is_one_line(rows, options, words):
    with pytest.raises(UserError, match=words) as caught:
        split_pairs(table(rows), **options)
    assert "\n" not in str(caught.value)


def test_leak():
    train = table([("How are you?", "b", 1), ("c", "d", 0)])
    part = table([("how are YOU", "x", 1), ("x", "y", 0), ("D", "c!", 0), ("y", "z", 1)])
    found = leak(train, part)
    assert (found.questions, found.of_questions, found.pairs, found.of_pairs) == (3, 6, 2, 4)
    split = split_pairs(table(small_groups(100, 0)))
    assert leak(split.train, split.test).questions == leak(split.train, split.validation).pairs == 0


def test_80_000_pairs_take_little_more_than_four_times_as_long_as_20_000():
    """A growth, since seconds depend on the processor; a step over all pairs of components would take 16 times."""
    seconds = []
    for groups in (8_000, 32_000):
        pairs = table(small_groups(groups, 9))
        times = []
        for _ in range(2):
            start = time.process_time()
            split_pairs(pairs)
            times.append(time.process_time() - start)
        seconds.append(min(times))
    assert len(pairs) > 75_000
    assert seconds[1] < 8 * seconds[0]
