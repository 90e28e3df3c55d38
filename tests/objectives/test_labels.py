import dataclasses
from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qpairs.objectives.labels import BatchLabels, batch_labels, label_graph

N = 9
QUESTION = st.integers(0, N - 1)
EDGES = st.lists(st.tuples(QUESTION, QUESTION), max_size=8)


def joined(edges):
    """Component of each of N questions, by joining one edge after the other."""
    component = list(range(N))
    for a, b in edges:
        component = [component[a] if c == component[b] else c for c in component]
    return component


def graph(duplicates, twins, negatives):
    """`twins` are canonically equal texts."""
    left, right = torch.tensor(negatives, dtype=torch.int64).reshape(-1, 2).T
    return label_graph(torch.tensor(joined(duplicates)), torch.tensor(joined(duplicates + twins)), left, right)


@settings(deadline=None)
@given(EDGES, EDGES, EDGES, st.lists(QUESTION, min_size=1, max_size=12), st.lists(QUESTION, min_size=1, max_size=12))
def test_batch_labels_agrees_with_naive_loops(duplicates, twins, negatives, rows, columns):
    component, cluster = joined(duplicates), joined(duplicates + twins)
    known = batch_labels(graph(duplicates, twins, negatives), torch.tensor(rows), torch.tensor(columns))
    for (i, a), (j, b) in product(enumerate(rows), enumerate(columns)):
        labelled = (a, b) in negatives or (b, a) in negatives
        same = component[a] == component[b]
        assert known.positive[i, j] == (same and a != b and not labelled)
        assert known.labelled[i, j] == (labelled and not same)
        assert known.unrelated[i, j] == (cluster[a] != cluster[b])


@settings(deadline=None)
@given(EDGES, EDGES, EDGES)
def test_two_questions_of_one_duplicate_component_are_never_each_others_negative(duplicates, twins, negatives):
    known = batch_labels(graph(duplicates, twins, negatives), torch.arange(N), torch.arange(N))
    component = torch.tensor(joined(duplicates))
    same = component[:, None] == component[None]
    for in_batch in (False, True):
        relation = known.relation(in_batch)
        assert not (relation.negative & same).any()
        assert not (relation.positive & ~same).any()
        assert not (relation.positive | relation.negative).diagonal().any()
        assert relation.negative.equal(relation.negative.T)
        assert relation.positive.equal(relation.positive.T)


def test_duplicates_in_several_steps_are_positive():
    known = batch_labels(graph([(0, 1), (1, 2), (2, 3)], [], []), torch.arange(5), torch.arange(5))
    assert known.positive[0].tolist() == [False, True, True, True, False]


def test_contradictions_are_in_no_mask():
    known = batch_labels(graph([(0, 1), (1, 2)], [], [(0, 2), (3, 4)]), torch.arange(N), torch.arange(N))
    for in_batch in (False, True):
        relation = known.relation(in_batch)
        assert not relation.positive[0, 2]
        assert not relation.negative[0, 2]
        assert relation.negative[3, 4]


def test_canonically_equal_texts_and_their_duplicates_are_negative_only_where_labelled():
    known = batch_labels(graph([(1, 2)], [(0, 1), (3, 4)], [(4, 3)]), torch.arange(N), torch.arange(N))
    relation = known.relation(in_batch=True)
    assert not (relation.negative | relation.positive)[0, [1, 2]].any()
    assert relation.negative[3, 4]
    assert relation.negative[0, 3]


def test_only_objectives_that_assume_negatives_get_unlabelled_ones():
    known = batch_labels(graph([], [], [(0, 1)]), torch.arange(3), torch.arange(3))
    assert known.relation(in_batch=False).negative.nonzero().tolist() == [[0, 1], [1, 0]]
    assert known.relation(in_batch=True).negative.equal(~torch.eye(3, dtype=torch.bool))


def test_strangers_are_unlabelled_pairs_of_different_clusters_that_no_teacher_has_judged():
    known = batch_labels(graph([(0, 1)], [(4, 5)], [(1, 2)]), torch.arange(6), torch.arange(6))
    probability = torch.full((6, 6), torch.nan)
    probability[0, 3] = 0.9
    before, after = (
        labels.relation(in_batch=True, only_unlabelled=True)
        for labels in (known, dataclasses.replace(known, teacher_probability=probability))
    )
    assert str(before).splitlines() == [
        ". + - - - -",
        "+ . . - - -",
        "- . . - - -",
        "- - - . - -",
        "- - - - . .",
        "- - - - . .",
    ]
    assert (before.negative & ~after.negative).nonzero().tolist() == [[0, 3]]
    assert not (after.negative & ~before.negative).any()


def test_what_a_teacher_takes_for_duplicates_is_no_negative_of_a_batch():
    known = batch_labels(graph([(0, 1)], [], [(1, 2)]), torch.arange(4), torch.arange(4))
    probability = torch.full((4, 4), torch.nan)
    probability[0, 3], probability[1, 3], probability[1, 2] = 0.9, 0.1, 0.9  # the last is labelled 0
    relation = dataclasses.replace(known, teacher_probability=probability).relation(in_batch=True)
    assert str(relation).splitlines() == [". + - .", "+ . - -", "- - . -", "- - - ."]


def test_no_labels_at_all():
    known = batch_labels(graph([], [], []), torch.tensor([2, 5]), torch.tensor([5, 7, 8]))
    assert not known.positive.any()
    assert not known.labelled.any()
    assert known.unrelated.tolist() == [[True, True, True], [False, True, True]]


def test_masks_are_rows_by_columns():
    known = batch_labels(graph([(0, 1)], [], [(1, 2)]), torch.tensor([1]), torch.tensor([2, 0, 1, 0]))
    assert known.positive.tolist() == [[False, True, False, True]]
    assert known.labelled.tolist() == [[True, False, False, False]]
    assert isinstance(known, BatchLabels)
