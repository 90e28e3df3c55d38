import inspect
from collections import Counter
from itertools import product
from typing import get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import miners as peer
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from sentence_transformers.sentence_transformer.losses import BatchHardTripletLoss
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from qpairs.core.exceptions import UserError
from qpairs.objectives import miners
from qpairs.objectives.miners import (
    MINERS,
    batch_hard,
    easy,
    everything,
    hard,
    multi_similarity,
    parse_miner,
    semi_hard,
)
from qpairs.objectives.relations import Relation, select_rows

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 7)
MARGINS = st.sampled_from([0.125, 0.25, 0.5])  # with sims in eighths, many triplets lie exactly on the boundaries
every_miner = pytest.mark.parametrize("name", MINERS)
property_test = settings(deadline=None, max_examples=30)


@st.composite
def batches(draw):
    """Similarities in eighths with many ties, and any relation over their rows: whole or mined, also an empty one."""
    n, m, random = draw(SIZES), draw(SIZES), torch.Generator().manual_seed(draw(SEEDS))
    rows = torch.randint(n, (draw(st.integers(0, 7)),), generator=random) if draw(st.booleans()) else None
    kind = torch.randint(draw(st.integers(1, 4)), (n if rows is None else len(rows), m), generator=random)
    first = draw(st.integers(0, 2))
    return torch.randint(-3, 4, (n, m), generator=random) / 8, Relation(kind == first, kind == first + 1, rows)


def labelled(seed, n=14, classes=4):
    """Double precision, so that no triplet lies on a boundary, and each class holds two at least."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(classes).repeat(2), torch.randint(classes, (n - 2 * classes,), generator=random)])
    return torch.randn(n, 5, generator=random, dtype=torch.float64), labels


def known(labels):
    same = labels[:, None] == labels[None]
    return Relation(same & ~torch.eye(len(labels), dtype=torch.bool), ~same)


def triplets(relation):
    """Each (row of sim, positive, negative) that a relation holds, and how often."""
    found = Counter()
    for i, (positive, negative) in enumerate(zip(relation.positive, relation.negative, strict=True)):
        row = i if relation.rows is None else int(relation.rows[i])
        found.update(
            (row, p, n) for p, n in product(positive.nonzero()[:, 0].tolist(), negative.nonzero()[:, 0].tolist())
        )
    return found


def of_kind(kind, sim, relation):
    """The triplets of which kind(d(a, p), d(a, n)) is true, one by one."""
    distance = (-sim).tolist()
    return Counter(
        {(a, p, n): k for (a, p, n), k in triplets(relation).items() if kind(distance[a][p], distance[a][n])}
    )


def equal(one, other):
    rows = (one.rows is None and other.rows is None) or one.rows.equal(other.rows)
    return one.positive.equal(other.positive) and one.negative.equal(other.negative) and rows


# The definitions


@property_test
@given(batches(), MARGINS)
def test_each_kind_of_triplet_is_exactly_as_defined(batch, margin):
    assert triplets(easy(*batch, margin=margin)) == of_kind(lambda p, n: p + margin < n, *batch)
    assert triplets(hard(*batch)) == of_kind(lambda p, n: n < p, *batch)
    assert triplets(semi_hard(*batch, margin=margin)) == of_kind(lambda p, n: p <= n <= p + margin, *batch)


@property_test
@given(batches(), MARGINS)
def test_the_three_kinds_are_a_partition_of_all_triplets(batch, margin):
    kinds = [easy(*batch, margin=margin), semi_hard(*batch, margin=margin), hard(*batch)]
    assert sum(map(triplets, kinds), Counter()) == triplets(everything(*batch))


@pytest.mark.parametrize("mine", [easy, semi_hard, hard])
@property_test
@given(batches())
def test_a_mined_row_is_one_positive_pair_with_negatives_in_row_major_order(mine, batch):
    sim, relation = batch
    mined = mine(sim, relation)
    assert mined.positive.sum(1).eq(1).all()
    assert mined.negative.any(1).all()
    assert mined.positive.shape == mined.negative.shape == (len(mined.rows), sim.shape[1])
    if relation.rows is None:
        entries = list(zip(mined.rows.tolist(), mined.positive.int().argmax(1).tolist(), strict=True))
        assert entries == sorted(set(entries))


def test_the_kinds_of_one_anchors_negatives_by_hand():
    sim = torch.tensor([[0.75, 0.875, 0.75, 0.625, 0.5, 0.375]])
    relation = Relation(torch.tensor([[True, *[False] * 5]]), torch.tensor([[False, *[True] * 5]]))
    found = [mine.negative.nonzero()[:, 1].tolist() for mine in (hard(sim, relation), semi_hard(sim, relation, 0.25))]
    assert found == [[1], [2, 3, 4]]
    assert easy(sim, relation, 0.25).negative.nonzero().tolist() == [[0, 5]]


@property_test
@given(batches())
def test_batch_hard_is_the_first_farthest_positive_and_the_first_nearest_negative(batch):
    sim, relation = batch
    mined = batch_hard(sim, relation)
    for i, row in enumerate(select_rows(sim, relation)[0].tolist()):
        positives, negatives = (mask[i].nonzero()[:, 0].tolist() for mask in (relation.positive, relation.negative))
        both = positives and negatives
        assert mined.positive[i].nonzero()[:, 0].tolist() == ([min(positives, key=row.__getitem__)] if both else [])
        assert mined.negative[i].nonzero()[:, 0].tolist() == ([max(negatives, key=row.__getitem__)] if both else [])
    assert mined.rows is relation.rows


@property_test
@given(batches(), st.sampled_from([0.0, 0.125, 0.25]))
def test_multi_similarity_agrees_with_naive_loops(batch, epsilon):
    sim, relation = batch
    mined = multi_similarity(sim, relation, epsilon=epsilon)
    for i, row in enumerate(select_rows(sim, relation)[0].tolist()):
        positives, negatives = (mask[i].nonzero()[:, 0].tolist() for mask in (relation.positive, relation.negative))
        near = [n for n in negatives if any(row[n] > row[p] - epsilon for p in positives)]
        far = [p for p in positives if any(row[p] < row[n] + epsilon for n in negatives)]
        assert mined.negative[i].nonzero()[:, 0].tolist() == near
        assert mined.positive[i].nonzero()[:, 0].tolist() == far
    assert mined.rows is relation.rows


# Oracles


@pytest.mark.parametrize(
    ("mine", "kind"), [(easy, "easy"), (semi_hard, "semihard"), (hard, "hard")], ids=["easy", "semi_hard", "hard"]
)
@pytest.mark.parametrize("distance", [CosineSimilarity(), LpDistance()], ids=["cosine", "euclidean"])
@property_test
@given(SEEDS)
def test_kinds_of_triplets_agree_with_pytorch_metric_learning(mine, kind, distance, seed):
    rows, labels = labelled(seed)
    sim = distance(rows, rows) * (1 if distance.is_inverted else -1)
    options = {} if mine is hard else {"margin": 0.3}
    theirs = peer.TripletMarginMiner(margin=0.3, type_of_triplets=kind, distance=distance)(rows, labels)
    expected = Counter(zip(*(index.tolist() for index in theirs), strict=True))
    assert triplets(mine(sim, known(labels), **options)) == expected
    assert expected or kind == "easy"


@property_test
@given(SEEDS)
def test_batch_hard_agrees_with_pytorch_metric_learning(seed):
    rows, labels = labelled(seed)
    theirs = peer.BatchHardMiner(distance=LpDistance())(rows, labels)
    sim = -LpDistance()(rows, rows)
    assert triplets(batch_hard(sim, known(labels))) == Counter(zip(*(x.tolist() for x in theirs), strict=True))


@property_test
@given(SEEDS, st.floats(0, 5))
def test_batch_hard_agrees_with_sentence_transformers(seed, margin):
    rows, labels = labelled(seed)
    sim = -torch.cdist(rows, rows)
    mined = batch_hard(sim, known(labels))
    loss = (sim[mined.negative] - sim[mined.positive] + margin).clamp(min=0).mean()
    theirs = BatchHardTripletLoss(None, margin=margin).compute_loss_from_embeddings([rows], labels)
    torch.testing.assert_close(loss, theirs)


@property_test
@given(SEEDS, st.sampled_from([0.0, 0.1, 0.3]))
def test_multi_similarity_agrees_with_pytorch_metric_learning(seed, epsilon):
    rows, labels = labelled(seed)
    labels[0] = 99  # without a duplicate
    mined = multi_similarity(CosineSimilarity()(rows, rows), known(labels), epsilon=epsilon)
    anchor, positive, other, negative = peer.MultiSimilarityMiner(epsilon=epsilon)(rows, labels)
    for mask, i, j in ((mined.positive, anchor, positive), (mined.negative, other, negative)):
        assert set(map(tuple, mask.nonzero().tolist())) == set(zip(i.tolist(), j.tolist(), strict=True))


# Random choice


@property_test
@given(batches(), st.integers(1, 9), SEEDS)
def test_a_choice_keeps_every_pair_and_as_many_of_its_semi_hard_negatives_as_told(batch, choose, seed):
    whole = semi_hard(*batch, margin=0.5)
    torch.manual_seed(seed)
    chosen = semi_hard(*batch, margin=0.5, choose=choose)
    assert chosen.positive.equal(whole.positive)
    assert chosen.rows.equal(whole.rows)
    assert not (chosen.negative & ~whole.negative).any()
    assert chosen.negative.sum(1).equal(whole.negative.sum(1).clamp(max=choose))
    torch.manual_seed(seed)
    assert equal(chosen, semi_hard(*batch, margin=0.5, choose=choose))


@pytest.mark.parametrize("choose", [1, 3])
def test_each_semi_hard_negative_is_as_likely_as_the_other(choose):
    draws, candidates = 6000, 8
    sim = torch.linspace(0.9, -0.9, 20).repeat(draws, 1)
    column = torch.arange(20).repeat(draws, 1)
    relation = Relation(column == 5, column != 5)
    torch.manual_seed(0)
    chosen, again = (semi_hard(sim, relation, margin=8.5 * 1.8 / 19, choose=choose).negative for _ in range(2))
    assert not chosen.equal(again)
    counts = chosen.sum(0)
    drawn, expected = counts[6 : 6 + candidates], draws * choose / candidates
    assert counts.sum() == drawn.sum() == draws * choose
    deviation = (drawn - expected).square().sum() / expected
    assert deviation < 24.3  # chi square of 7 degrees of freedom, p = 0.001; less still without replacement


# Every row of the table


@every_miner
@property_test
@given(batches())
def test_a_miner_keeps_nothing_that_was_not_in_the_relation(name, batch):
    mined = MINERS[name].function(*batch)
    assert triplets(mined) <= triplets(batch[1])
    assert not (mined.positive & mined.negative).any()


@every_miner
@property_test
@given(batches())
def test_mining_twice_is_mining_once(name, batch):
    sim, _ = batch
    once = MINERS[name].function(*batch)
    assert triplets(MINERS[name].function(sim, once)) == triplets(once)


@every_miner
@property_test
@given(batches(), st.sampled_from([easy, semi_hard, hard]))
def test_a_miner_reads_the_mined_rows_of_another(name, batch, first):
    sim, relation = batch
    mined = first(sim, relation)
    expanded = Relation(mined.positive, mined.negative)
    mine = MINERS[name].function
    of_mined, of_expanded = mine(sim, mined), mine(sim[mined.rows], expanded)
    assert of_mined.positive.equal(of_expanded.positive)
    assert of_mined.negative.equal(of_expanded.negative)
    rows = mined.rows if of_expanded.rows is None else mined.rows[of_expanded.rows]
    assert of_mined.rows.equal(rows)


@every_miner
@property_test
@given(SEEDS)
def test_the_order_of_rows_and_columns_does_not_matter(name, seed):
    rows, labels = labelled(seed)
    sim, relation, mine = rows @ rows.T, known(labels), MINERS[name].function
    random = torch.Generator().manual_seed(seed)
    p, q = torch.randperm(len(labels), generator=random), torch.randperm(len(labels), generator=random)
    permuted = mine(sim[p][:, q], Relation(relation.positive[p][:, q], relation.negative[p][:, q]))
    back = Counter({(int(p[a]), int(q[i]), int(q[j])): k for (a, i, j), k in triplets(permuted).items()})
    assert back == triplets(mine(sim, relation))


@every_miner
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_masks_without_gradient_and_the_arguments_as_they_were(name, dtype):
    rows, labels = labelled(0)
    sim = (rows @ rows.T).to(dtype).requires_grad_() * 1
    relation, expected, before, saved = known(labels), known(labels), sim.detach().clone(), []
    with saved_tensors_hooks(saved.append, lambda x: x):
        mined = MINERS[name].function(sim, relation)
    assert not saved
    assert mined.positive.dtype == mined.negative.dtype == torch.bool
    assert mined.positive.any()
    assert mined.negative.any()
    assert sim.equal(before)
    assert equal(relation, expected)


class Largest(TorchDispatchMode):
    """The most bytes that any tensor made inside it takes."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("options", [{}, {"choose": 1}], ids=["all", "one"])
def test_nothing_larger_than_the_masks_is_held(options, monkeypatch):
    monkeypatch.setattr(miners, "BLOCK", 2**16)
    labels = torch.arange(1024) // 4
    sim, relation = torch.rand(1024, 1024, generator=torch.Generator().manual_seed(0)), known(labels)
    with Largest() as largest:
        mined = semi_hard(sim, relation, **options)
    assert 2500 < len(mined.rows) <= 3 * 1024
    assert mined.positive.shape == mined.negative.shape == (len(mined.rows), 1024)
    assert largest.bytes <= max(sim.nbytes, mined.negative.nbytes)


@property_test
@given(batches(), st.integers(1, 40))
def test_blocks_do_not_show(batch, size):
    expected = semi_hard(*batch, margin=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(miners, "BLOCK", size)
        assert equal(semi_hard(*batch, margin=0.5), expected)


# Table and expressions


@every_miner
def test_row_of_the_table_and_docstring_say_what_it_is(name):
    entry = MINERS[name]
    doc = " ".join(inspect.getdoc(entry.function).split())
    assert entry.function.__name__ == name
    assert entry.paper in doc
    assert entry.formula
    assert all(f"{parameter}: " in doc for parameter in ("sim", "relation", *entry.parameters))
    assert ["sim", "relation", *entry.parameters] == list(inspect.signature(entry.function).parameters)
    types = get_type_hints(entry.function)
    assert all(type(default) is types[parameter] for parameter, default in entry.parameters.items())


@every_miner
def test_a_name_alone_is_the_miner_with_its_defaults(name):
    rows, labels = labelled(0)
    sim, relation = rows @ rows.T, known(labels)
    assert equal(parse_miner(name)(sim, relation), MINERS[name].function(sim, relation))


def test_parameters_of_an_expression_reach_the_miner():
    rows, labels = labelled(0)
    sim, relation = rows @ rows.T, known(labels)
    assert equal(parse_miner("easy(margin=0.7)")(sim, relation), easy(sim, relation, margin=0.7))
    torch.manual_seed(0)
    mined = parse_miner("semi_hard(margin=3, choose=1)")(sim, relation)
    torch.manual_seed(0)
    assert equal(mined, semi_hard(sim, relation, margin=3, choose=1))
    assert mined.negative.sum(1).eq(1).all()
    assert not equal(mined, semi_hard(sim, relation, margin=3))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("semihard", "unknown miner 'semihard'; did you mean 'semi_hard'? there are: everything, easy, "),
        ("semi_hard(margn=1)", "semi_hard has no parameter 'margn'; did you mean 'margin'? there are: margin, choose"),
        ("hard(margin=0.1)", "hard has no parameter 'margin'; there are none"),
        ("semi_hard(margin=0)", "semi_hard: margin: 0, must be > 0"),
        ("semi_hard(choose=1.5)", "semi_hard(choose=...) takes a whole number of at least 0, not '1.5'"),
        ("semi_hard(choose=-1)", "semi_hard(choose=...) takes a whole number of at least 0, not '-1'"),
        ("multi_similarity(epsilon=all)", "multi_similarity(epsilon=...) takes a number, not 'all'"),
        ("easy + hard", "cannot read 'easy + hard'; write it like 'semi_hard(margin=0.1, choose=1)'"),
        ("", "cannot read ''"),
    ],
)
def test_what_is_no_miner_is_refused_in_one_line(expression, message):
    with pytest.raises(UserError) as refusal:
        parse_miner(expression)
    assert str(refusal.value).startswith(f"miner: {message}")
    assert "\n" not in str(refusal.value)
