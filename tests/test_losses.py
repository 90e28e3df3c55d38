import inspect
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss, NTXentLoss, SupConLoss
from pytorch_metric_learning.reducers import DoNothingReducer
from sentence_transformers.sentence_transformer import losses as peer
from sentence_transformers.sentence_transformer.losses.contrastive import SiameseDistanceMetric
from torch.autograd import grad, gradcheck, set_detect_anomaly
from torch.nn import functional

from qpairs.faults import UserError
from qpairs.losses import LOSSES, Objective, Term, objective
from qpairs.losses.in_batch import info_nce
from qpairs.losses.pairwise import contrastive, logistic, online_contrastive
from qpairs.relations import SIMILARITIES, Knowledge, Relation, cosine, euclidean

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(2, 9)
every_loss = pytest.mark.parametrize("name", LOSSES)
property_test = settings(deadline=None, max_examples=20)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def points(seed, *sizes, dtype=torch.float32, d=8):
    """Unit vectors (size, d), a leaf for each size."""
    random = torch.Generator().manual_seed(seed)
    drawn = (functional.normalize(torch.randn(n, d, generator=random), dim=1) for n in sizes)
    return [x.to(dtype).requires_grad_() for x in drawn]


def random_cosines(seed, n, m, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(n, m, generator=torch.Generator().manual_seed(seed))


def random_relation(seed, n, m):
    """One positive and one negative at least, the rest of either kind or unknown."""
    kind = torch.randint(3, (n, m), generator=torch.Generator().manual_seed(seed))
    kind[0, 0], kind[-1, -1] = 0, 1
    return Relation(kind == 0, kind == 1)


def similarity(name, cosines):
    """Cosine similarities of unit vectors as the similarity that a loss is defined on."""
    return cosines if LOSSES[name].similarity == "cosine" else -(2 - 2 * cosines).clamp(min=1e-12).sqrt()


def value_and_gradient(name, sim, relation):
    sim = sim.detach().requires_grad_()
    with set_detect_anomaly(True):  # no NaN on the way either
        loss = LOSSES[name].function(sim, relation)
        return loss.detach(), grad(loss, sim)[0]


# Every row of the table


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("spread", [0, 1e-4, 1], ids=["collapsed", "nearly collapsed", "spread"])
def test_value_and_gradient_are_finite(name, dtype, spread):
    entry, (one, rest) = LOSSES[name], points(0, 1, 12)
    rows = functional.normalize(one + spread * rest, dim=1).detach().to(dtype).requires_grad_()
    loss = entry.function(SIMILARITIES[entry.similarity](rows, rows), random_relation(0, 12, 12))
    loss.backward()
    assert loss.shape == ()
    assert loss.isfinite()
    assert rows.grad.isfinite().all()


@every_loss
@property_test
@given(SEEDS, SIZES, SIZES)
def test_without_the_pairs_that_it_needs_it_is_exactly_zero(name, seed, n, m):
    sim, relation = similarity(name, random_cosines(seed, n, m)), random_relation(seed, n, m)
    none = torch.zeros(n, m, dtype=torch.bool)
    cases = [Relation(none, none)]
    if LOSSES[name].needs_both:
        cases += [Relation(relation.positive, none), Relation(none, relation.negative)]
    for case in cases:
        loss, gradient = value_and_gradient(name, sim, case)
        assert loss == 0
        assert gradient.eq(0).all()


@every_loss
@property_test
@given(SEEDS, SIZES, SIZES)
def test_each_pair_counts_by_itself_unless_it_needs_both(name, seed, n, m):
    sim, both = similarity(name, random_cosines(seed, n, m)), random_relation(seed, n, m)
    none = torch.zeros_like(both.positive)
    parts = [Relation(both.positive, none), Relation(none, both.negative)]
    (loss, gradient), *apart = [
        [x * (r.positive | r.negative).sum() for x in value_and_gradient(name, sim, r)] for r in (both, *parts)
    ]
    if LOSSES[name].needs_both:
        assert not any(part.any() for part, _ in apart)
    else:
        close(loss, sum(part for part, _ in apart))
        close(gradient, sum(part for _, part in apart))


@every_loss
@property_test
@given(SEEDS, SIZES, SIZES)
def test_pairs_that_are_in_no_mask_do_not_matter(name, seed, n, m):
    sim, relation = similarity(name, random_cosines(seed, n, m)), random_relation(seed, n, m)
    unknown = ~(relation.positive | relation.negative)
    loss, gradient = value_and_gradient(name, sim, relation)
    other, _ = value_and_gradient(name, torch.where(unknown, -0.3, sim), relation)
    close(loss, other, 1e-6)
    assert gradient[unknown].eq(0).all()


@every_loss
@property_test
@given(SEEDS, SIZES, SIZES)
def test_the_order_of_rows_and_columns_does_not_matter(name, seed, n, m):
    sim, relation = similarity(name, random_cosines(seed, n, m)), random_relation(seed, n, m)
    random = torch.Generator().manual_seed(seed)
    p, q = torch.randperm(n, generator=random)[:, None], torch.randperm(m, generator=random)[None]
    loss, gradient = value_and_gradient(name, sim, relation)
    permuted, of_permuted = value_and_gradient(
        name, sim[p, q], Relation(relation.positive[p, q], relation.negative[p, q])
    )
    close(permuted, loss)
    close(of_permuted, gradient[p, q])


@pytest.mark.parametrize("name", [n for n, e in LOSSES.items() if e.function.__module__.endswith("pairwise")])
@property_test
@given(SEEDS, SIZES, SIZES)
def test_a_loss_over_pairs_does_not_tell_rows_from_columns(name, seed, n, m):
    sim, relation = similarity(name, random_cosines(seed, n, m)), random_relation(seed, n, m)
    loss, gradient = value_and_gradient(name, sim, relation)
    transposed, of_transposed = value_and_gradient(name, sim.T, Relation(relation.positive.T, relation.negative.T))
    close(transposed, loss)
    close(of_transposed.T, gradient)


@every_loss
@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0.01, 0.3))
def test_it_falls_when_a_violating_pair_is_repaired(name, seed, n, m, step):
    cosines, relation = random_cosines(seed, n, m), random_relation(seed, n, m)
    relation.positive[0, :2], relation.negative[0, :2] = torch.tensor([True, False]), torch.tensor([False, True])
    cosines[0, :2] = torch.tensor([0.1, 0.85])  # the duplicate lies farther than the other
    before, gradient = value_and_gradient(name, similarity(name, cosines), relation)
    assert gradient[0, 0] < 0 < gradient[0, 1]
    for place, change in ((0, step), (1, -step)):
        repaired = cosines.clone()
        repaired[0, place] += change
        assert value_and_gradient(name, similarity(name, repaired), relation)[0] < before


@every_loss
@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0.01, 0.3))
def test_it_never_rises_when_a_pair_is_moved_the_right_way(name, seed, n, m, step):
    cosines, relation = random_cosines(seed, n, m, -0.7, 0.7), random_relation(seed, n, m)
    before, _ = value_and_gradient(name, similarity(name, cosines), relation)
    for mask, change in ((relation.positive, step), (relation.negative, -step)):
        i, j = mask.nonzero()[seed % int(mask.sum())]
        moved = cosines.clone()
        moved[i, j] += change
        assert value_and_gradient(name, similarity(name, moved), relation)[0] <= before + 1e-6


@every_loss
def test_gradient_is_that_of_finite_differences(name):
    sim = similarity(name, random_cosines(0, 5, 6).double()).requires_grad_()
    assert gradcheck(lambda s: LOSSES[name].function(s, random_relation(0, 5, 6)), (sim,))


@every_loss
def test_parameters_are_those_of_the_function_and_of_the_objective(name):
    entry = LOSSES[name]
    sim, relation = similarity(name, random_cosines(0, 6, 6)), random_relation(0, 6, 6)
    assert ["sim", "relation", *entry.parameters] == list(inspect.signature(entry.function).parameters)
    for parameter, default in entry.parameters.items():
        assert isinstance(default, float)
        assert objective(f"{name}({parameter}={default})").terms == (Term(name, 1.0, {parameter: default}),)
        assert entry.function(sim, relation, **{parameter: default}) == entry.function(sim, relation)
        assert entry.function(sim, relation, **{parameter: default * 1.1}) != entry.function(sim, relation)


@every_loss
def test_row_of_the_table_and_docstring_say_what_it_is(name):
    entry = LOSSES[name]
    doc = " ".join(inspect.getdoc(entry.function).split())
    assert entry.function.__name__ == name
    assert entry.paper.lower() in doc.lower()
    assert entry.similarity in doc.lower()
    assert entry.formula
    assert all(f"{parameter}: " in doc for parameter in ("sim", "relation", *entry.parameters))


# Oracles


def masked_pairs(relation):
    """The (anchor, positive, anchor, negative) indices that pytorch-metric-learning takes."""
    return *relation.positive.nonzero(as_tuple=True), *relation.negative.nonzero(as_tuple=True)


def agree(loss, expected, leaves):
    """In value, and in gradient along the sphere: some of the oracles normalise, and so take no steps off it."""
    close(loss, expected)
    ours, theirs = (grad(value, leaves, retain_graph=True) for value in (loss, expected))
    for x, g, h in zip(leaves, ours, theirs, strict=True):
        close(*(gradient - (gradient * x).sum(1, keepdim=True) * x for gradient in (g, h)))


@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0.2, 2))
def test_contrastive_agrees_with_naive_loops_and_pytorch_metric_learning(seed, n, m, margin):
    rows, columns = points(seed, n, m)
    relation = random_relation(seed, n, m)
    loss = contrastive(euclidean(rows, columns), relation, margin=margin)

    costs = []
    for i in range(n):
        for j in range(m):
            distance = (rows[i] - columns[j]).norm()
            if relation.positive[i, j]:
                costs.append(distance**2 / 2)
            if relation.negative[i, j]:
                costs.append((margin - distance).clamp(min=0) ** 2 / 2)
    agree(loss, sum(costs) / len(costs), (rows, columns))

    distances = LpDistance(normalize_embeddings=False, p=2, power=1)  # theirs has neither the squares nor the halves
    theirs = ContrastiveLoss(pos_margin=0, neg_margin=margin, distance=distances, reducer=DoNothingReducer())
    assume(relation.positive.sum() > 1)  # theirs is zero where there is but one pair of each kind
    kinds = theirs(rows, indices_tuple=masked_pairs(relation), ref_emb=columns).values()
    agree(loss, torch.cat([kind["losses"] for kind in kinds]).square().mean() / 2, (rows, columns))


def labelled_pairs(seed, n):
    """n pairs as two columns of embeddings, their labels, and their relation: each row with its own column alone."""
    left, right = points(seed, n, n)
    labels = torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed))
    return left, right, labels, Relation(torch.diag(labels == 1), torch.diag(labels == 0))


@property_test
@given(SEEDS, SIZES, st.floats(0.2, 2))
def test_contrastive_agrees_with_sentence_transformers(seed, n, margin):
    left, right, labels, relation = labelled_pairs(seed, n)
    theirs = peer.ContrastiveLoss(None, distance_metric=SiameseDistanceMetric.EUCLIDEAN, margin=margin)
    loss = contrastive(euclidean(left, right), relation, margin=margin)
    agree(loss, theirs.compute_loss_from_embeddings([left, right], labels), (left, right))


@property_test
@given(SEEDS, st.integers(2, 24), st.floats(0.2, 2))
def test_online_contrastive_agrees_with_sentence_transformers(seed, n, margin):
    left, right, labels, relation = labelled_pairs(seed, n)
    assume(0 < labels.sum() < n)  # theirs falls back to means where one kind is missing; here it is zero
    loss = online_contrastive(cosine(left, right), relation, margin=margin) * n
    theirs = peer.OnlineContrastiveLoss(None, margin=margin)
    agree(loss, theirs.compute_loss_from_embeddings([left, right], labels), (left, right))


@property_test
@given(SEEDS, SIZES, st.integers(0, 2), st.floats(0.05, 1))
def test_info_nce_agrees_with_sentence_transformers(seed, n, hard_negatives, temperature):
    anchors, *documents = leaves = points(seed, *[n] * (2 + hard_negatives))
    positive = torch.eye(n, n * len(documents), dtype=torch.bool)
    loss = info_nce(cosine(anchors, torch.cat(documents)), Relation(positive, ~positive), temperature=temperature)
    theirs = peer.MultipleNegativesRankingLoss(None, scale=1 / temperature)
    agree(loss, theirs.compute_loss_from_embeddings(leaves, torch.zeros(n)), leaves)


def classes(labels):
    same = labels[:, None] == labels[None]
    return Relation(same & ~torch.eye(len(labels), dtype=torch.bool), ~same)


@property_test
@given(SEEDS, st.integers(3, 12), st.floats(0.1, 1))
def test_info_nce_agrees_with_ntxent_where_anchors_have_several_duplicates(seed, n, temperature):
    (rows,) = points(seed, n)
    labels = torch.randint(3, (n,), generator=torch.Generator().manual_seed(seed))
    relation = classes(labels)
    assume(relation.positive.any() and relation.negative.any())
    loss = info_nce(cosine(rows, rows), relation, temperature=temperature)
    agree(loss, NTXentLoss(temperature=temperature)(rows, labels), [rows])


@property_test
@given(SEEDS, SIZES, st.floats(0.1, 1))
def test_info_nce_agrees_with_supcon_where_each_anchor_has_one_duplicate(seed, n, temperature):
    (rows,) = points(seed, 2 * n)
    labels = torch.arange(n).repeat(2)
    loss = info_nce(cosine(rows, rows), classes(labels), temperature=temperature)
    agree(loss, SupConLoss(temperature=temperature)(rows, labels), [rows])


@property_test
@given(SEEDS, SIZES, SIZES, st.floats(1, 40), st.floats(-0.5, 1))
def test_logistic_agrees_with_binary_cross_entropy(seed, n, m, scale, threshold):
    rows, columns = points(seed, n, m)
    relation, sim = random_relation(seed, n, m), cosine(rows, columns)
    pairs = relation.positive | relation.negative
    logits, labels = scale * (sim - threshold)[pairs], relation.positive[pairs].float()
    loss = logistic(sim, relation, scale=scale, threshold=threshold)
    agree(loss, functional.binary_cross_entropy_with_logits(logits, labels), (rows, columns))


# Objectives


def knowledge(seed, n):
    relation = random_relation(seed, n, n)
    labelled = relation.negative & (torch.arange(n) % 2 == 0)
    return Knowledge(relation.positive, labelled, relation.negative)


def test_an_objective_is_the_weighted_sum_of_its_losses_each_on_its_own_similarity_and_negatives():
    (rows,), known = points(0, 8), knowledge(0, 8)
    total = objective("0.5*contrastive(margin=0.7) + info_nce*3 + logistic")(rows, rows, known)
    labelled, in_batch = Relation(known.positive, known.labelled), Relation(known.positive, known.strangers)
    sim, minus_distance = cosine(rows, rows), euclidean(rows, rows)
    close(
        total, 0.5 * contrastive(minus_distance, labelled, 0.7) + 3 * info_nce(sim, in_batch) + logistic(sim, labelled)
    )


@every_loss
def test_an_objective_is_computed_in_float32_also_under_autocast(name):
    (rows,), known = points(0, 8, dtype=torch.bfloat16), knowledge(0, 8)
    expected = objective(name)(rows.float(), rows.float(), known)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(name)(rows, rows, known)
    assert loss.dtype == torch.float32
    assert loss == expected


@pytest.mark.parametrize(
    ("expression", "terms"),
    [
        ("contrastive", [Term("contrastive")]),
        ("  info_nce() ", [Term("info_nce")]),
        (
            "info_nce(temperature=0.05) + 0.5*contrastive",
            [Term("info_nce", 1, {"temperature": 0.05}), Term("contrastive", 0.5)],
        ),
        (
            "contrastive * 2 + logistic(scale=10, threshold=-.1)",
            [Term("contrastive", 2), Term("logistic", 1, {"scale": 10, "threshold": -0.1})],
        ),
        ("2*(info_nce + 0.25*logistic)", [Term("info_nce", 2), Term("logistic", 0.5)]),
        ("(info_nce + logistic)*2 + contrastive", [Term("info_nce", 2), Term("logistic", 2), Term("contrastive")]),
        ("2*info_nce*3", [Term("info_nce", 6)]),
        ("1e-3*contrastive(margin=2)", [Term("contrastive", 1e-3, {"margin": 2})]),
    ],
)
def test_expressions(expression, terms):
    assert objective(expression) == Objective(tuple(terms))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("contrastve", "unknown loss 'contrastve'; did you mean 'contrastive'?"),
        ("0.5*info_nec + contrastive", "did you mean 'info_nce'?"),
        ("os", "unknown loss 'os'; there are: contrastive, "),
        ("info_nce(temprature=0.1)", "info_nce has no parameter 'temprature'; did you mean 'temperature'?"),
        ("contrastive(temperature=0.1)", "contrastive has no parameter 'temperature'"),
        ("contrastiv(margin=1)", "did you mean 'contrastive'?"),
        ("info_nce(temperature='0.1')", "info_nce(temperature=...) takes a number"),
        ("info_nce(temperature=True)", "takes a number, not 'True'"),
        ("info_nce(temperature=1e999)", "takes a number"),
        ("info_nce(temperature=nan)", "takes a number"),
        ("info_nce(temperature=2j)", "takes a number"),
        ("info_nce(temperature={[]: 1})", "takes a number"),
        ("info_nce(temperature=__import__('os').system('true'))", "takes a number"),
        ("info_nce(temperature=0)", "info_nce(temperature=0) must be above 0"),
        ("logistic(scale=-3)", "logistic(scale=-3) must be above 0"),
        ("-1*contrastive", "the weight -1 is not above 0"),
        ("info_nce + contrastive*0", "the weight 0 is not above 0"),
        *(
            (garbage, "cannot read")
            for garbage in (
                *(
                    "",
                    " ",
                    "+",
                    "info_nce +",
                    "info_nce contrastive",
                    "info_nce - contrastive",
                    "-contrastive",
                    "0.5",
                    "1+2",
                ),
                *(
                    "info_nce*contrastive",
                    "True*info_nce",
                    "1e999*info_nce",
                    "'2'*info_nce",
                    "info_nce/2",
                    "2**info_nce",
                ),
                *(
                    "info_nce(0.05)",
                    "info_nce(*[1])",
                    "info_nce(**{'temperature': 1})",
                    "info_nce(temperature=1, temperature=2)",
                ),
                *(
                    "__import__('os')",
                    "__import__('os').system('true')",
                    "LOSSES['info_nce']",
                    "lambda: info_nce",
                    "info_nce.function",
                ),
                *(
                    "info_nce; contrastive",
                    "a = info_nce",
                    "info_nce\0",
                    "f'{info_nce}'",
                    "info_nce +" * 5000 + "info_nce",
                ),
                *("(" * 500 + "info_nce" + ")" * 500, "-" * 100_000 + "info_nce", "1" * 5000 + "*info_nce", "é*" * 99),
            )
        ),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_objective_is_refused_in_one_line(expression, message):
    with pytest.raises(UserError) as refusal:
        objective(expression)
    text = str(refusal.value)
    assert message in text
    assert text.startswith("loss: ")
    assert "\n" not in text
    assert len(text) < 250


def test_every_loss_is_offered_where_a_name_is_unknown():
    with pytest.raises(UserError, match=", ".join(LOSSES)):
        objective("unheard_of")


def test_hand_computed_values():
    sim = torch.tensor([[0.9, 0.6]])
    relation = Relation(torch.tensor([[True, False]]), torch.tensor([[False, True]]))
    close(contrastive(-(1 - sim), relation), torch.tensor((0.1**2 + 0.6**2) / 4))
    close(online_contrastive(sim, relation), torch.tensor(0.0))
    close(online_contrastive(1 - sim, relation), torch.tensor(0.9**2 / 2))
    close(logistic(sim, relation), torch.tensor(math.log1p(math.exp(-3))))
    close(info_nce(sim, relation, temperature=0.1), torch.tensor(math.log1p(math.exp(-3))))
