from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qpairs.data.identity import canonical
from qpairs.data.pairs import pairs_from_texts
from qpairs.objectives.labels import batch_labels
from qpairs.training.batches import Batches, TokenizedQuestions, build_label_graph, model_inputs, pair_lengths
from qpairs.training.samplers import BatchIndices, pair_sampler, triplet_sampler

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
    return pair_lengths(TokenizedQuestions(ids, padded), pairs)


def batches(n=300, batch_size=32, seed=0, word_dropout=None, **options):
    pairs, ids = random_pairs(n)
    questions = TokenizedQuestions(ids, padded, word_dropout)
    return Batches(
        pairs, [questions], pair_sampler(pair_lengths(questions, pairs), batch_size, seed), seed=seed, **options
    )


def same(one, other):
    """Whether two nested dicts and lists of tensors are equal."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one.equal(other) if isinstance(one, torch.Tensor) else one == other


def first_tokens(questions):
    """The first token of each question: its number, where `random_pairs` made the tokens."""
    return torch.cat([features["input_ids"][:, 0] for features in questions["features"]])


# Padding


def test_padding_is_a_fraction_of_what_random_batches_need():
    pairs, ids = random_pairs(6000)
    size = sum(map(len, ids))

    def waste(sampler, chunk):
        """Share of padding among the tokens of an epoch."""
        cells = tokens = 0
        items = Batches(pairs, [TokenizedQuestions(ids, padded)], sampler, chunk=chunk)
        for item in (items[i] for i in range(len(items))):
            for chunk_ids in (features["input_ids"] for features in item["rows"]["features"]):
                cells += chunk_ids.numel()
                tokens += sum(len(ids[q]) for q in chunk_ids[:, 0])
        assert tokens >= size
        return 1 - tokens / cells

    lengths, order = longer(pairs, ids), np.random.default_rng(0).permutation(len(pairs))
    at_random = waste(
        lambda epoch: [BatchIndices(rows) for rows in np.array_split(order, len(order) // 64)], chunk=10**6
    )
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
    graph = build_label_graph(pairs)
    for found, texts_too in ((graph.component, False), (graph.cluster, True)):
        naive = naive_components(pairs, texts_too)
        assert (found[:, None] == found[None]).numpy().tolist() == (naive[:, None] == naive[None]).tolist()


@property_test
@given(PAIRS)
def test_questions_of_one_component_and_equal_texts_are_never_assumed_negative(rows):
    pairs = pairs_from_texts(*zip(*rows, strict=True))
    everything = torch.arange(len(pairs.questions))
    strangers = batch_labels(build_label_graph(pairs), everything, everything).unrelated
    naive = naive_components(pairs, texts_too=True)
    assert strangers.tolist() == (naive[:, None] != naive[None]).tolist()


def test_pairs_without_a_label_tell_nothing():
    graph = build_label_graph(pairs_from_texts(["a", "c"], ["b", "d"], [-1, -1]))
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
    items = Batches(pairs, [TokenizedQuestions(ids, padded)], sampler, chunk=3)
    for step, draw in enumerate(sampler(0)):
        item, rows_of_step = items[step], draw.pairs
        chunks = [features["input_ids"] for features in item["rows"]["features"]]
        questions = torch.cat([chunk[:, 0] for chunk in chunks])
        assert [len(ids[q]) for q in questions] == sorted(len(ids[q]) for q in questions)
        assert all(chunk.shape[1] == max(len(ids[q]) for q in chunk[:, 0]) for chunk in chunks)
        assert set(questions.tolist()) == {*pairs.left[rows_of_step], *pairs.right[rows_of_step]}
        assert len(questions) == len(set(questions.tolist()))
        assert questions[item["left"]].tolist() == pairs.left[rows_of_step].tolist()
        assert questions[item["right"]].tolist() == pairs.right[rows_of_step].tolist()
        assert item["labels"].tolist() == pairs.labels[rows_of_step].tolist()
        known = batch_labels(items.graph, questions, questions)
        for name in ("positive", "labelled", "unrelated"):
            assert item["known"][name].equal(getattr(known, name))


def test_the_pairs_of_a_batch_stand_in_its_masks():
    for item in batches():
        one = item["labels"] == 1
        assert item["known"]["positive"][item["left"][one], item["right"][one]].float().mean() > 0.9
        assert item["known"]["labelled"][item["left"][~one], item["right"][~one]].float().mean() > 0.9
        assert item["known"]["unrelated"].float().mean() > 0.9


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
    sizes = [len(features["input_ids"]) for features in item["rows"]["features"]]
    assert len(sizes) == expected
    assert max(sizes) - min(sizes) <= 1


# Word dropout


def test_word_dropout_is_drawn_from_seed_and_step_and_leaves_the_pair_table_alone():
    def drop(ids, random):
        return np.where(random.random(len(ids)) < 0.5, -1, ids).astype(np.int32)

    one, again, other = (batches(word_dropout=drop, seed=seed) for seed in (1, 1, 2))
    before = [ids.copy() for ids in one.towers[0].ids]
    assert same(one[3], again[3])
    assert not same(one[3], other[3])
    assert not same(one[3], batches()[3])
    assert all(np.array_equal(a, b) for a, b in zip(before, one.towers[0].ids, strict=True))


# Mined negatives


def test_mined_negatives_come_with_the_pair_that_they_were_mined_for_and_count_as_labelled():
    pairs, ids = random_pairs(200)
    guard = build_label_graph(pairs).cluster.numpy()
    random = np.random.default_rng(0)

    def mine(epoch):
        rows = random.permutation(np.flatnonzero(pairs.labels == 1))[:50]
        strangers = [random.choice(np.flatnonzero(guard != guard[pairs.left[row]])) for row in rows]
        mined[epoch] = set(zip(rows.tolist(), pairs.left[rows].tolist(), strangers, strict=True))
        return rows, np.stack([pairs.left[rows], strangers], axis=1)

    mined = {}
    sampler = triplet_sampler(pair_sampler(longer(pairs, ids), 32, 0), mine)
    items = Batches(pairs, [TokenizedQuestions(ids, padded)], sampler, steps=14)
    for epoch in (0, 1):
        plan = sampler(epoch)
        found = {(int(a), int(n)) for indices in plan for a, n in indices.negatives}
        assert found == {(a, n) for _, a, n in mined[epoch]}
        for indices in plan:
            assert {int(a) for a in indices.negatives[:, 0]} <= set(pairs.left[indices.pairs].tolist())
    indices = next(indices for indices in plan if len(indices.negatives))
    item = items.collate(indices, random)
    questions, labelled = first_tokens(item["rows"]).tolist(), item["known"]["labelled"]
    for a, n in indices.negatives:
        i, j = questions.index(a), questions.index(n)
        assert labelled[i, j]
        assert labelled[j, i]
    known = batch_labels(items.graph, *[torch.tensor(questions)] * 2)
    assert labelled.sum() - known.labelled.sum() <= 2 * len(indices.negatives)
    assert len(item["labels"]) == len(indices.pairs)


# Two towers, and questions with a fixed side


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_second_tower_reads_the_columns_with_its_own_tokens(symmetric):
    pairs, ids = random_pairs(100)
    other_ids = [np.concatenate([tokens[:1], tokens + 1000]) for tokens in ids]
    sampler, towers = pair_sampler(longer(pairs, ids), 16, 0), [TokenizedQuestions(i, padded) for i in (ids, other_ids)]
    items = Batches(pairs, towers, sampler, symmetric=symmetric)
    for step, indices in enumerate(sampler(0)):
        item = items[step]
        rows, columns = first_tokens(item["rows"]), first_tokens(item["columns"])
        assert rows[item["left"]].tolist() == pairs.left[indices.pairs].tolist()
        assert columns[item["right"]].tolist() == pairs.right[indices.pairs].tolist()
        assert all((features["input_ids"][:, 1] >= 1000).all() for features in item["columns"]["features"])
        known = batch_labels(items.graph, rows, columns)
        assert all(item["known"][name].equal(getattr(known, name)) for name in ("positive", "labelled", "unrelated"))
        assert item["rows"]["component"].tolist() == items.graph.cluster[rows].tolist()
        assert item["columns"]["component"].tolist() == items.graph.cluster[columns].tolist()
        if symmetric:
            assert rows.equal(columns)
        else:
            assert set(rows.tolist()) == set(pairs.left[indices.pairs].tolist())
            assert set(columns.tolist()) == set(pairs.right[indices.pairs].tolist())


# All of a batch


def naive_known(pairs, guard, component, indices, symmetric, rows, columns):
    """What a batch knows of rows x columns, by loops over its pairs."""
    table = {(a, b): label for a, b, label in zip(pairs.left, pairs.right, pairs.labels, strict=True)}
    mined = [tuple(pair) for pair in indices.negatives]
    asked = {(pairs.left[row], pairs.right[row]): pairs.taught[row] for row in indices.pairs}
    both = (lambda a, b: [(a, b), (b, a)]) if symmetric else (lambda a, b: [(a, b)])
    positive, labelled, strangers, taught = (np.zeros((len(rows), len(columns)), np.float32) for _ in range(4))
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            zero = table.get((a, b)) == 0 or table.get((b, a)) == 0
            positive[i, j] = component[a] == component[b] and a != b and not zero
            labelled[i, j] = (zero and component[a] != component[b]) or any(pair in mined for pair in both(a, b))
            strangers[i, j] = guard[a] != guard[b]
            taught[i, j] = next((asked[pair] for pair in both(a, b) if pair in asked and a != b), np.nan)
    masks = {"positive": positive > 0, "labelled": labelled > 0, "unrelated": strangers > 0}
    return {name: torch.from_numpy(table) for name, table in {**masks, "teacher_probability": taught}.items()}


@property_test
@given(PAIRS, st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_batch_agrees_with_naive_loops(texts, symmetric, two_towers, seed):
    distinct = {frozenset((a, b)): (a, b, label) for a, b, label in texts}.values()
    pairs, random = pairs_from_texts(*zip(*distinct, strict=True)), np.random.default_rng(seed)
    pairs = replace(pairs, taught=random.random(len(pairs)).astype(np.float32))
    n = len(pairs.questions)
    ids = [np.full(random.integers(1, 9), q, dtype=np.int32) for q in range(n)]
    component, guard = (naive_components(pairs, texts_too) for texts_too in (False, True))
    mined = [(a, b) for a in range(n) for b in range(n) if guard[a] != guard[b] and random.random() < 0.1]
    indices = BatchIndices(
        pairs=np.flatnonzero(random.random(len(pairs)) < 0.7),
        questions=np.flatnonzero(random.random(n) < 0.3) if symmetric else np.empty(0, np.int64),
        negatives=np.array(mined, np.int64).reshape(-1, 2),
    )
    items = Batches(
        pairs, [TokenizedQuestions(ids, padded)] * (1 + two_towers), lambda epoch: [indices], symmetric=symmetric
    )
    if not len(indices.pairs) + len(indices.questions) + len(mined):
        return
    item = items[0]
    left, right = (
        set(side[indices.pairs]) | set(indices.negatives[:, k]) for k, side in enumerate((pairs.left, pairs.right))
    )
    sides = (left, right) if not symmetric else [left | right | set(indices.questions)] * 2
    assert (item["columns"] is None) == (symmetric and not two_towers)
    rows, columns = (first_tokens(item[name] or item["rows"]).tolist() for name in ("rows", "columns"))
    for found, wanted in ((rows, sides[0]), (columns, sides[1])):
        assert sorted(found) == sorted(wanted)
        assert [len(ids[q]) for q in found] == sorted(len(ids[q]) for q in found)
    for row, i, j, label in zip(indices.pairs, item["left"], item["right"], item["labels"], strict=True):
        assert (rows[i], columns[j], label) == (pairs.left[row], pairs.right[row], pairs.labels[row])
    known = naive_known(pairs, guard, component, indices, symmetric, rows, columns)
    for name, wanted in known.items():
        torch.testing.assert_close(item["known"][name], wanted, equal_nan=True)
    places = (known["positive"] | known["labelled"]).nonzero()
    assert item["known"]["known_pairs"].equal(places)
    found = item["rows"]["component"]
    assert (found[:, None] == found[None]).tolist() == [[guard[a] == guard[b] for b in rows] for a in rows]


def test_the_model_gets_the_batch_and_the_trainer_its_labels():
    (item,) = [batches()[0]]
    inputs = model_inputs([item])
    assert inputs["batch"] is item
    assert inputs["labels"] is item["labels"]
