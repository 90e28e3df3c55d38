import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qpairs.data.pairs import pairs_from_texts
from qpairs.data.splits import canonical
from qpairs.objectives.labels import batch_labels
from qpairs.training.batches import (
    WINDOW,
    Batches,
    Draw,
    Feed,
    graph_of,
    group_sampler,
    in_order,
    pair_sampler,
    triplet_sampler,
)

TEXTS = st.sampled_from(["how", "How?", "how!", "why", "Why", "what", "WHAT?", "who", "when"])
PAIRS = st.lists(st.tuples(TEXTS, TEXTS, st.integers(0, 1)), min_size=1, max_size=12)
property_test = settings(deadline=None)


def padded(ids):
    """(n, longest) token ids, zeros behind."""
    rows = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.int64)
    for row, tokens in zip(rows, ids, strict=True):
        row[: len(tokens)] = torch.from_numpy(tokens)
    return {"input_ids": rows}


def random_pairs(n, seed=0):
    """n pairs in which a question occurs 1.2 times on average, and tokens of each question: its number, repeated."""
    random = np.random.default_rng(seed)
    left, right = random.integers(0, 4 * n, (2, n))
    pairs = pairs_from_texts([f"question {q}" for q in left], [f"question {q}" for q in right], random.random(n) < 0.37)
    lengths = np.clip(random.lognormal(np.log(14) - 0.45**2 / 2, 0.45, len(pairs.questions)), 4, 128).astype(int)
    return pairs, [np.full(length, q, dtype=np.int32) for q, length in enumerate(lengths)]


def longer(pairs, ids):
    lengths = np.array([len(tokens) for tokens in ids])
    return np.maximum(lengths[pairs.left], lengths[pairs.right])


def batches(n=300, batch_size=32, seed=0, noise=None, **options):
    pairs, ids = random_pairs(n)
    feed = Feed(ids, padded, noise)
    return Batches(pairs, [feed], pair_sampler(longer(pairs, ids), batch_size, seed), seed=seed, **options)


def same(one, other):
    one, other = ([*item.pop("features"), item] for item in (dict(one), dict(other)))
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a) for a, b in zip(one, other, strict=True)
    )


# Samplers


@property_test
@given(st.integers(1, 400), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_every_pair_is_met_once_an_epoch(n, batch_size, seed, epoch):
    lengths = np.random.default_rng(seed).integers(3, 60, n)
    for sampler in (pair_sampler(lengths, batch_size, seed), in_order(lengths, batch_size)):
        plan = sampler(epoch)
        assert sorted(np.concatenate([draw.pairs for draw in plan])) == list(range(n))
        assert sorted(len(draw.pairs) for draw in plan) == sorted(
            [batch_size] * (n // batch_size) + [n % batch_size] * (n % batch_size > 0)
        )


def listed(plan):
    return [draw.pairs.tolist() for draw in plan]


def test_the_plan_is_a_function_of_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    sample = pair_sampler(lengths, 16, seed=1)
    assert listed(sample(3)) == listed(pair_sampler(lengths, 16, seed=1)(3))
    assert listed(sample(3)) != listed(sample(4))
    assert listed(sample(3)) != listed(pair_sampler(lengths, 16, seed=2)(3))


def test_other_epochs_and_seeds_meet_other_batches_not_the_same_ones_in_another_order():
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    met = [{tuple(sorted(draw.pairs)) for draw in pair_sampler(lengths, 16, s)(e)} for s, e in ((1, 0), (1, 1), (2, 0))]
    assert all(len(a & b) <= 2 for a, b in ((met[0], met[1]), (met[0], met[2]), (met[1], met[2])))


def test_length_does_not_decide_the_order_of_batches():
    lengths = np.random.default_rng(0).integers(3, 60, 16 * WINDOW)
    means = [lengths[draw.pairs].mean() for draw in pair_sampler(lengths, 16, seed=0)(0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_evaluation_goes_by_length_the_same_in_every_epoch():
    lengths = np.random.default_rng(0).integers(3, 60, 100)
    sample = in_order(lengths, 8)
    assert (np.diff(lengths[np.concatenate(listed(sample(0)))]) >= 0).all()
    assert listed(sample(0)) == listed(sample(1))


def test_padding_is_a_fraction_of_what_random_batches_need():
    pairs, ids = random_pairs(6000)
    size = sum(map(len, ids))

    def waste(sampler, chunk):
        """Share of padding among the tokens of an epoch."""
        cells = tokens = 0
        items = Batches(pairs, [Feed(ids, padded)], sampler, chunk=chunk)
        for item in (items[i] for i in range(len(items))):
            for chunk_ids in (features["input_ids"] for features in item["features"]):
                cells += chunk_ids.numel()
                tokens += sum(len(ids[q]) for q in chunk_ids[:, 0])
        assert tokens >= size
        return 1 - tokens / cells

    lengths, order = longer(pairs, ids), np.random.default_rng(0).permutation(len(pairs))
    at_random = waste(lambda epoch: [Draw(rows) for rows in np.array_split(order, len(order) // 64)], chunk=10**6)
    by_length = waste(pair_sampler(lengths, 64, seed=0), chunk=32)
    assert at_random > 0.4
    assert by_length < at_random / 4


# The label graph


def naive_components(pairs, texts_too):
    component = list(range(len(pairs.questions)))
    edges = [(a, b) for a, b, label in zip(pairs.left, pairs.right, pairs.labels, strict=True) if label == 1]
    if texts_too:
        keys = [canonical(text) for text in pairs.questions]
        edges += [(keys.index(key), q) for q, key in enumerate(keys)]
    for a, b in edges:
        component = [component[a] if c == component[b] else c for c in component]
    return np.array(component)


@property_test
@given(PAIRS)
def test_graph_joins_duplicates_and_guards_canonically_equal_texts(rows):
    pairs = pairs_from_texts(*zip(*rows, strict=True))
    graph = graph_of(pairs)
    for found, texts_too in ((graph.component, False), (graph.cluster, True)):
        naive = naive_components(pairs, texts_too)
        assert (found[:, None] == found[None]).numpy().tolist() == (naive[:, None] == naive[None]).tolist()


@property_test
@given(PAIRS)
def test_questions_of_one_component_and_equal_texts_are_never_assumed_negative(rows):
    pairs = pairs_from_texts(*zip(*rows, strict=True))
    everything = torch.arange(len(pairs.questions))
    strangers = batch_labels(graph_of(pairs), everything, everything).unrelated
    naive = naive_components(pairs, texts_too=True)
    assert strangers.tolist() == (naive[:, None] != naive[None]).tolist()


def test_pairs_without_a_label_tell_nothing():
    graph = graph_of(pairs_from_texts(["a", "c"], ["b", "d"], [-1, -1]))
    assert len(graph.component.unique()) == 4
    assert len(graph.others) == 0


# Items


@property_test
@given(PAIRS, st.integers(1, 5), st.integers(0, 9))
def test_an_item_holds_its_pairs(rows, batch_size, seed):
    pairs = pairs_from_texts(*zip(*rows, strict=True))
    random = np.random.default_rng(seed)
    ids = [np.full(random.integers(1, 9), q, dtype=np.int32) for q in range(len(pairs.questions))]
    sampler = pair_sampler(longer(pairs, ids), batch_size, seed)
    items = Batches(pairs, [Feed(ids, padded)], sampler, chunk=3)
    for step, draw in enumerate(sampler(0)):
        item, rows_of_step = items[step], draw.pairs
        chunks = [features["input_ids"] for features in item["features"]]
        questions = torch.cat([chunk[:, 0] for chunk in chunks])
        assert [len(ids[q]) for q in questions] == sorted(len(ids[q]) for q in questions)
        assert all(chunk.shape[1] == max(len(ids[q]) for q in chunk[:, 0]) for chunk in chunks)
        assert set(questions.tolist()) == {*pairs.left[rows_of_step], *pairs.right[rows_of_step]}
        assert len(questions) == len(set(questions.tolist()))
        assert questions[item["left"]].tolist() == pairs.left[rows_of_step].tolist()
        assert questions[item["right"]].tolist() == pairs.right[rows_of_step].tolist()
        assert item["labels"].tolist() == pairs.labels[rows_of_step].tolist()
        known = batch_labels(items.graph, questions, questions)
        for name, mask in (("positive", known.positive), ("labelled", known.labelled), ("strangers", known.unrelated)):
            assert item[name].equal(mask)


def test_the_pairs_of_a_batch_stand_in_its_masks():
    for item in batches():
        one = item["labels"] == 1
        assert item["positive"][item["left"][one], item["right"][one]].float().mean() > 0.9
        assert item["labelled"][item["left"][~one], item["right"][~one]].float().mean() > 0.9
        assert item["strangers"].float().mean() > 0.9


def test_an_item_is_a_function_of_seed_and_step_alone():
    steps = 25  # two and a half epochs
    in_turn = list(batches(steps=steps))
    assert len(in_turn) == steps
    asked = batches(steps=steps)
    for step in np.random.default_rng(0).permutation(steps):
        assert same(asked[step], in_turn[step])
    assert not same(in_turn[0], in_turn[10])
    assert not same(batches(seed=1)[0], in_turn[0])


def test_length_is_one_epoch_unless_given():
    assert len(batches(n=300, batch_size=32)) == 10
    assert len(batches(n=300, batch_size=32, steps=7)) == 7
    for step in (7, -1):
        with pytest.raises(IndexError):
            batches(steps=7)[step]


def test_fewer_pairs_than_a_batch_holds():
    items = batches(n=5, batch_size=64, steps=3)
    assert [len(item["labels"]) for item in items] == [5, 5, 5]


@pytest.mark.parametrize(("chunk", "expected"), [(1000, 1), (32, 2), (16, 4)])
def test_questions_are_padded_in_chunks_of_about_equal_size(chunk, expected):
    item = batches(n=3000, batch_size=32, chunk=chunk)[0]
    sizes = [len(features["input_ids"]) for features in item["features"]]
    assert len(sizes) == expected
    assert max(sizes) - min(sizes) <= 1


# Noise


def test_noise_is_drawn_from_seed_and_step_and_leaves_the_pair_table_alone():
    def noise(ids, random):
        return np.where(random.random(len(ids)) < 0.5, -1, ids).astype(np.int32)

    noisy, again, other = batches(noise=noise, seed=1), batches(noise=noise, seed=1), batches(noise=noise, seed=2)
    before = [ids.copy() for ids in noisy.feeds[0].ids]
    assert same(noisy[3], again[3])
    assert not same(noisy[3], other[3])
    assert not same(noisy[3], batches()[3])
    assert all(np.array_equal(a, b) for a, b in zip(before, noisy.feeds[0].ids, strict=True))


# Groups and triplets


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
    graph = graph_of(labelled_questions(seed))
    sample = group_sampler(graph, batch_size, k, seed)
    plan = sample(epoch)
    component = graph.component.numpy()
    assert sorted(np.concatenate([draw.questions for draw in plan])) == list(range(len(component)))
    assert len(plan) == len(sample(epoch + 1)) == max(1, round(len(component) / batch_size))
    assert all(abs(len(draw.questions) - len(component) / len(plan)) <= k for draw in plan)
    together = sum(len(set(component[draw.questions])) for draw in plan)
    members = np.bincount(component)
    assert together <= (-(-members // k)).sum()
    small = {c for c in range(len(members)) if members[c] <= k}
    assert all(sum(c in component[draw.questions] for draw in plan) == 1 for c in small)


def test_no_batch_is_empty_where_groups_are_as_large_as_a_batch():
    pairs = pairs_from_texts(["a", "a", "a", "x"], ["b", "c", "d", "y"], [1] * 4)  # 4 questions and 2, in batches of 4
    for seed in range(20):
        plan = group_sampler(graph_of(pairs), 4, 4, seed)(0)
        assert sorted(len(draw.questions) for draw in plan) == [2, 4]


def test_groups_of_a_large_component_have_at_most_k_members_and_none_is_alone():
    pairs = pairs_from_texts(["a"] * 9, list("bcdefghij"), [1] * 9)
    plan = group_sampler(graph_of(pairs), 4, 4, seed=0)(0)
    assert sorted(len(draw.questions) for draw in plan) in ([3, 7], [2, 4, 4], [3, 3, 4], [4, 6])


def test_components_that_a_label_tells_apart_meet_more_often_than_by_chance():
    pairs = labelled_questions(1, n=400, edges=300)

    def met(plan):
        batch = np.empty(len(pairs.questions), int)
        for i, draw in enumerate(plan):
            batch[draw.questions] = i
        apart = pairs.labels == 0
        return np.mean(batch[pairs.left[apart]] == batch[pairs.right[apart]])

    graph = graph_of(pairs)
    shuffled = np.array_split(np.random.default_rng(0).permutation(len(pairs.questions)), 10)
    assert met(group_sampler(graph, 40, 4, seed=0)(0)) > 4 * met([Draw(questions=part) for part in shuffled])


def test_the_plan_of_groups_is_a_function_of_seed_and_epoch():
    graph = graph_of(labelled_questions(0))

    def plan(seed, epoch):
        return [draw.questions.tolist() for draw in group_sampler(graph, 8, 4, seed)(epoch)]

    assert plan(1, 2) == plan(1, 2)
    assert plan(1, 2) != plan(1, 3)
    assert plan(1, 2) != plan(2, 2)


def test_mined_negatives_come_with_the_pair_that_they_were_mined_for_and_count_as_labelled():
    pairs, ids = random_pairs(200)
    guard = graph_of(pairs).cluster.numpy()
    random = np.random.default_rng(0)

    def mine(epoch):
        rows = random.permutation(np.flatnonzero(pairs.labels == 1))[:50]
        strangers = [random.choice(np.flatnonzero(guard != guard[pairs.left[row]])) for row in rows]
        mined[epoch] = set(zip(rows.tolist(), pairs.left[rows].tolist(), strangers, strict=True))
        return rows, np.stack([pairs.left[rows], strangers], axis=1)

    mined = {}
    sampler = triplet_sampler(pair_sampler(longer(pairs, ids), 32, 0), mine)
    items = Batches(pairs, [Feed(ids, padded)], sampler, steps=14)
    for epoch in (0, 1):
        plan = sampler(epoch)
        found = {(int(a), int(n)) for draw in plan for a, n in draw.negatives}
        assert found == {(a, n) for _, a, n in mined[epoch]}
        for draw in plan:
            assert {int(a) for a in draw.negatives[:, 0]} <= set(pairs.left[draw.pairs].tolist())
    draw = next(draw for draw in plan if len(draw.negatives))
    item = items.collate(draw, random)
    questions = torch.cat([chunk["input_ids"][:, 0] for chunk in item["features"]]).tolist()
    for a, n in draw.negatives:
        i, j = questions.index(a), questions.index(n)
        assert item["labelled"][i, j]
        assert item["labelled"][j, i]
    known = batch_labels(items.graph, *[torch.tensor(questions)] * 2)
    assert item["labelled"].sum() - known.labelled.sum() <= 2 * len(draw.negatives)
    assert len(item["labels"]) == len(draw.pairs)


# Two towers, and sides of different kinds


@pytest.mark.parametrize("sided", [False, True])
def test_a_second_tower_reads_the_columns_with_its_own_tokens(sided):
    pairs, ids = random_pairs(100)
    other_ids = [np.concatenate([tokens[:1], tokens + 1000]) for tokens in ids]
    sampler = pair_sampler(longer(pairs, ids), 16, 0)
    items = Batches(pairs, [Feed(ids, padded), Feed(other_ids, padded)], sampler, sided=sided)
    for step, draw in enumerate(sampler(0)):
        item = items[step]
        rows, columns = (
            torch.cat([chunk["input_ids"][:, 0] for chunk in item[name]]) for name in ("features", "column_features")
        )
        assert rows[item["left"]].tolist() == pairs.left[draw.pairs].tolist()
        assert columns[item["right"]].tolist() == pairs.right[draw.pairs].tolist()
        assert all((chunk["input_ids"][:, 1] >= 1000).all() for chunk in item["column_features"])
        known = batch_labels(items.graph, rows, columns)
        assert item["positive"].equal(known.positive)
        assert item["labelled"].equal(known.labelled)
        assert item["strangers"].equal(known.unrelated)
        assert item["component"].tolist() == items.graph.cluster[rows].tolist()
        assert item["column_component"].tolist() == items.graph.cluster[columns].tolist()
        if sided:
            assert set(rows.tolist()) == set(pairs.left[draw.pairs].tolist())
            assert set(columns.tolist()) == set(pairs.right[draw.pairs].tolist())
        else:
            assert rows.equal(columns)
