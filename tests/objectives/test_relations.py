from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qpairs.objectives.relations import (
    SIMILARITIES,
    Knowledge,
    PairHead,
    Relation,
    Score,
    cosine,
    euclidean,
    label_graph,
    look_up,
    rows_of,
)

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
def test_look_up_agrees_with_naive_loops(duplicates, twins, negatives, rows, columns):
    component, guard = joined(duplicates), joined(duplicates + twins)
    known = look_up(graph(duplicates, twins, negatives), torch.tensor(rows), torch.tensor(columns))
    for (i, a), (j, b) in product(enumerate(rows), enumerate(columns)):
        labelled = (a, b) in negatives or (b, a) in negatives
        same = component[a] == component[b]
        assert known.positive[i, j] == (same and a != b and not labelled)
        assert known.labelled[i, j] == (labelled and not same)
        assert known.strangers[i, j] == (guard[a] != guard[b])


@settings(deadline=None)
@given(EDGES, EDGES, EDGES)
def test_two_questions_of_one_duplicate_component_are_never_each_others_negative(duplicates, twins, negatives):
    known = look_up(graph(duplicates, twins, negatives), torch.arange(N), torch.arange(N))
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
    known = look_up(graph([(0, 1), (1, 2), (2, 3)], [], []), torch.arange(5), torch.arange(5))
    assert known.positive[0].tolist() == [False, True, True, True, False]


def test_contradictions_are_in_no_mask():
    known = look_up(graph([(0, 1), (1, 2)], [], [(0, 2), (3, 4)]), torch.arange(N), torch.arange(N))
    for in_batch in (False, True):
        relation = known.relation(in_batch)
        assert not relation.positive[0, 2]
        assert not relation.negative[0, 2]
        assert relation.negative[3, 4]


def test_canonically_equal_texts_and_their_duplicates_are_negative_only_where_labelled():
    known = look_up(graph([(1, 2)], [(0, 1), (3, 4)], [(4, 3)]), torch.arange(N), torch.arange(N))
    relation = known.relation(in_batch=True)
    assert not (relation.negative | relation.positive)[0, [1, 2]].any()
    assert relation.negative[3, 4]
    assert relation.negative[0, 3]


def test_only_objectives_that_assume_negatives_get_unlabelled_ones():
    known = look_up(graph([], [], [(0, 1)]), torch.arange(3), torch.arange(3))
    assert known.relation(in_batch=False).negative.nonzero().tolist() == [[0, 1], [1, 0]]
    assert known.relation(in_batch=True).negative.equal(~torch.eye(3, dtype=torch.bool))


def test_no_labels_at_all():
    known = look_up(graph([], [], []), torch.tensor([2, 5]), torch.tensor([5, 7, 8]))
    assert not known.positive.any()
    assert not known.labelled.any()
    assert known.strangers.tolist() == [[True, True, True], [False, True, True]]


def test_masks_are_rows_by_columns():
    known = look_up(graph([(0, 1)], [], [(1, 2)]), torch.tensor([1]), torch.tensor([2, 0, 1, 0]))
    assert known.positive.tolist() == [[False, True, False, True]]
    assert known.labelled.tolist() == [[True, False, False, False]]
    assert isinstance(known, Knowledge)


def embeddings(seed, n=7, m=5, d=16):
    torch.manual_seed(seed)
    rows, columns = (torch.nn.functional.normalize(torch.randn(k, d), dim=1) for k in (n, m))
    return rows.requires_grad_(), columns.requires_grad_()


@pytest.mark.parametrize("seed", range(3))
def test_similarities_and_their_gradients_agree_with_naive_ones(seed):
    oracles = {
        "cosine": lambda a, b: torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2),
        "dot": lambda a, b: torch.einsum("nd,md->nm", a, b),
        "euclidean": lambda a, b: -torch.linalg.vector_norm(a[:, None] - b[None], dim=2),
        "squared_euclidean": lambda a, b: -(a[:, None] - b[None]).square().sum(2),
    }
    assert oracles.keys() == SIMILARITIES.keys()
    for name, oracle in oracles.items():
        rows, columns = embeddings(seed)
        sim, expected = SIMILARITIES[name](rows, columns), oracle(rows, columns)
        torch.testing.assert_close(sim, expected, atol=1e-5, rtol=0)
        weights = torch.rand_like(sim)
        grads = torch.autograd.grad((sim * weights).sum(), (rows, columns))
        if name == "cosine":  # along the sphere: the oracle normalises, and so takes no steps off it
            grads = [g - (g * x).sum(1, keepdim=True) * x for g, x in zip(grads, (rows, columns), strict=True)]
        oracle_grads = torch.autograd.grad((expected * weights).sum(), (rows, columns))
        torch.testing.assert_close(list(grads), list(oracle_grads), atol=1e-5, rtol=0)


def test_distance_zero_has_a_distance_of_about_zero_and_a_finite_gradient():
    rows, _ = embeddings(0)
    sim = euclidean(rows, rows)
    sim.sum().backward()
    torch.testing.assert_close(sim.diagonal(), torch.zeros(7), atol=1e-3, rtol=0)
    assert rows.grad.isfinite().all()
    same = torch.ones(2, 4, requires_grad=True)  # squares that float32 holds exactly
    euclidean(same, same).sum().backward()
    assert same.grad.eq(0).all()


def test_greater_is_closer():
    rows, near, far = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]]), torch.tensor([[0.0, 1.0]])
    for similarity in (cosine, euclidean):
        assert similarity(rows, near) > similarity(rows, far)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_of_pairs_are_the_diagonal_of_the_matrix(name):
    rows, columns = (x[:4].detach() for x in embeddings(0))
    pairs = SIMILARITIES[name](rows[:, None], columns[:, None])
    assert pairs.shape == (len(rows), 1, 1)
    torch.testing.assert_close(pairs.flatten(), SIMILARITIES[name](rows, columns).diagonal(), atol=1e-6, rtol=0)


def test_rows_of_a_relation_are_those_that_a_miner_picked():
    sim, mask = torch.arange(6.0).reshape(3, 2), torch.ones(4, 2, dtype=torch.bool)
    assert rows_of(sim, Relation(mask[:3], mask[:3])) is sim
    assert rows_of(sim, Relation(mask, mask, torch.tensor([2, 0, 0, 1]))).tolist() == [[4, 5], [0, 1], [0, 1], [2, 3]]


# Heads and scores


def random_head(d):
    head = PairHead(d)
    with torch.no_grad():
        head.weight.normal_()
        head.bias.normal_()
    return head


def test_a_head_is_a_linear_classifier_on_u_v_their_gap_and_their_product():
    rows, columns = (x.detach() for x in embeddings(0))
    head = random_head(rows.shape[1])
    logits = head(rows, columns)
    for i, u in enumerate(rows):
        for j, v in enumerate(columns):
            features = torch.cat([u, v, (u - v).abs(), u * v])
            torch.testing.assert_close(logits[i, j], features @ head.weight.flatten() + head.bias)
    pairs = head.probability(rows[[0, 1]], columns[[1, 0]])
    torch.testing.assert_close(pairs, torch.sigmoid(torch.stack([logits[0, 1], logits[1, 0]])))


def test_a_head_starts_as_a_verdict_on_the_cosine():
    rows, columns = (x.detach() for x in embeddings(0))
    torch.testing.assert_close(PairHead(rows.shape[1])(rows, columns), 20 * (rows @ columns.T - 0.75))


def test_a_score_is_the_mean_of_both_directions_where_they_differ():
    (rows, columns), (left, right) = embeddings(0), torch.tensor([[0, 1], [2, 0]])
    rows, columns = rows.detach()[:3], columns.detach()[:3]
    one_way = (rows[left] * columns[right]).sum(1)
    other_way = (rows[right] * columns[left]).sum(1)
    torch.testing.assert_close(Score(symmetric=False)(rows, columns, left, right), one_way)
    torch.testing.assert_close(Score()(rows, columns, left, right), (one_way + other_way) / 2)
    assert Score()(rows, rows, left, right).equal((rows[left] * rows[right]).sum(1))
    head = random_head(rows.shape[1])
    there, back = head.probability(rows[left], rows[right]), head.probability(rows[right], rows[left])
    torch.testing.assert_close(Score(head)(rows, rows, left, right), (there + back) / 2)
    torch.testing.assert_close(Score(head)(rows, rows, right, left), (there + back) / 2)
    torch.testing.assert_close(Score(head, symmetric=False)(rows, rows, left, right), there)
