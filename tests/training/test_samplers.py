import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qpairs.data.pairs import pairs_from_texts
from qpairs.training.batches import build_label_graph
from qpairs.training.samplers import (
    WINDOW,
    BatchIndices,
    group_sampler,
    pair_sampler,
    sequential_sampler,
)

property_test = settings(deadline=None)


# Pairs


@property_test
@given(st.integers(1, 400), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_every_pair_is_met_once_an_epoch(n, batch_size, seed, epoch):
    lengths = np.random.default_rng(seed).integers(3, 60, n)
    for sampler in (pair_sampler(lengths, batch_size, seed), sequential_sampler(lengths, batch_size)):
        plan = sampler(epoch)
        assert sorted(np.concatenate([batch.pairs for batch in plan])) == list(range(n))
        assert sorted(len(batch.pairs) for batch in plan) == sorted(
            [batch_size] * (n // batch_size) + [n % batch_size] * (n % batch_size > 0)
        )


def listed(plan):
    return [batch.pairs.tolist() for batch in plan]


def test_the_plan_is_a_function_of_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    sample = pair_sampler(lengths, 16, seed=1)
    assert listed(sample(3)) == listed(pair_sampler(lengths, 16, seed=1)(3))
    assert listed(sample(3)) != listed(sample(4))
    assert listed(sample(3)) != listed(pair_sampler(lengths, 16, seed=2)(3))


def test_other_epochs_and_seeds_meet_other_batches_not_the_same_ones_in_another_order():
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    met = [
        {tuple(sorted(batch.pairs)) for batch in pair_sampler(lengths, 16, s)(e)} for s, e in ((1, 0), (1, 1), (2, 0))
    ]
    assert all(len(a & b) <= 2 for a, b in ((met[0], met[1]), (met[0], met[2]), (met[1], met[2])))


def test_length_does_not_decide_the_order_of_batches():
    lengths = np.random.default_rng(0).integers(3, 60, 16 * WINDOW)
    means = [lengths[batch.pairs].mean() for batch in pair_sampler(lengths, 16, seed=0)(0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_evaluation_goes_by_length_the_same_in_every_epoch():
    lengths = np.random.default_rng(0).integers(3, 60, 100)
    sample = sequential_sampler(lengths, 8)
    assert (np.diff(lengths[np.concatenate(listed(sample(0)))]) >= 0).all()
    assert listed(sample(0)) == listed(sample(1))


# Groups


def labelled_questions(seed, n=60, edges=80):
    """A table of n questions whose components have one to a dozen members."""
    random = np.random.default_rng(seed)
    left, right = random.integers(0, n, (2, edges))
    labels = (random.random(edges) < 0.35).astype(int)
    texts = [f"question number {q}" for q in range(n)]
    return pairs_from_texts([texts[q] for q in left], [texts[q] for q in right], labels)


@property_test
@given(st.integers(0, 2**32 - 1), st.integers(4, 40), st.integers(2, 4), st.integers(0, 3))
def test_groups_meet_each_question_once_an_epoch_and_components_stay_together(seed, batch_size, k, epoch):
    graph = build_label_graph(labelled_questions(seed))
    sample = group_sampler(graph, batch_size, k, seed)
    plan = sample(epoch)
    component = graph.component.numpy()
    assert sorted(np.concatenate([batch.questions for batch in plan])) == list(range(len(component)))
    assert len(plan) == len(sample(epoch + 1)) == max(1, round(len(component) / batch_size))
    assert all(abs(len(batch.questions) - len(component) / len(plan)) <= k for batch in plan)
    together = sum(len(set(component[batch.questions])) for batch in plan)
    members = np.bincount(component)
    assert together <= (-(-members // k)).sum()
    small = {c for c in range(len(members)) if members[c] <= k}
    assert all(sum(c in component[batch.questions] for batch in plan) == 1 for c in small)


def test_no_batch_is_empty_where_groups_are_as_large_as_a_batch():
    pairs = pairs_from_texts(["a", "a", "a", "x"], ["b", "c", "d", "y"], [1] * 4)  # 4 questions and 2, in batches of 4
    for seed in range(20):
        plan = group_sampler(build_label_graph(pairs), 4, 4, seed)(0)
        assert sorted(len(batch.questions) for batch in plan) == [2, 4]


def test_groups_of_a_large_component_have_at_most_k_members_and_none_is_alone():
    pairs = pairs_from_texts(["a"] * 9, list("bcdefghij"), [1] * 9)
    plan = group_sampler(build_label_graph(pairs), 4, 4, seed=0)(0)
    assert sorted(len(batch.questions) for batch in plan) in ([3, 7], [2, 4, 4], [3, 3, 4], [4, 6])


def test_components_that_a_label_tells_apart_meet_more_often_than_by_chance():
    pairs = labelled_questions(1, n=400, edges=300)

    def met(plan):
        place = np.empty(len(pairs.questions), int)
        for i, batch in enumerate(plan):
            place[batch.questions] = i
        apart = pairs.labels == 0
        return np.mean(place[pairs.left[apart]] == place[pairs.right[apart]])

    graph = build_label_graph(pairs)
    shuffled = np.array_split(np.random.default_rng(0).permutation(len(pairs.questions)), 10)
    assert met(group_sampler(graph, 40, 4, seed=0)(0)) > 4 * met([BatchIndices(questions=part) for part in shuffled])


def test_the_plan_of_groups_is_a_function_of_seed_and_epoch():
    graph = build_label_graph(labelled_questions(0))

    def plan(seed, epoch):
        return [batch.questions.tolist() for batch in group_sampler(graph, 8, 4, seed)(epoch)]

    assert plan(1, 2) == plan(1, 2)
    assert plan(1, 2) != plan(1, 3)
    assert plan(1, 2) != plan(2, 2)
