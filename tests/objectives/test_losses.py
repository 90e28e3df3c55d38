import inspect
import math

import pytest
import torch
from draws import close, points, random_cosines, random_relation
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import (
    CircleLoss,
    ContrastiveLoss,
    GeneralizedLiftedStructureLoss,
    LiftedStructureLoss,
    MultiSimilarityLoss,
    NPairsLoss,
    NTXentLoss,
    SupConLoss,
    TripletMarginLoss,
)
from pytorch_metric_learning.reducers import DoNothingReducer, MeanReducer
from sentence_transformers.sentence_transformer import losses as peer
from sentence_transformers.sentence_transformer.losses.contrastive import SiameseDistanceMetric
from torch.autograd import grad, gradcheck, set_detect_anomaly
from torch.nn import functional

from qpairs.objectives.losses import LOSSES, pair_weights
from qpairs.objectives.losses.in_batch import (
    circle,
    info_nce,
    lifted,
    lifted_generalized,
    multi_similarity,
    n_pair,
    strangers,
    supervised_contrastive,
)
from qpairs.objectives.losses.pairwise import (
    contrastive,
    cosent,
    focal,
    ghm,
    logistic,
    online_contrastive,
    pair_softmax,
    ranking,
)
from qpairs.objectives.losses.triplets import quadruplet, triplet
from qpairs.objectives.miners import batch_hard
from qpairs.objectives.objective import Term, parse_objective
from qpairs.objectives.relations import Relation, select_rows
from qpairs.objectives.similarities import SIMILARITIES, cosine, dot, euclidean, squared_euclidean

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(2, 9)
every_loss = pytest.mark.parametrize("name", LOSSES)


def losses_that(holds):
    return pytest.mark.parametrize("name", [name for name, entry in LOSSES.items() if holds(entry)])


property_test = settings(deadline=None, max_examples=20)


def similarity(name, cosines):
    """Cosine similarities of unit vectors as the similarity that a loss is defined on, or as the logits of a head."""
    squared = (2 - 2 * cosines).clamp(min=1e-12)
    return {"euclidean": -squared.sqrt(), "squared_euclidean": -squared}.get(LOSSES[name].similarity, cosines)


def value_and_gradient(name, sim, relation):
    sim = sim.detach().requires_grad_()
    loss = LOSSES[name].function(sim, relation)
    return loss.detach(), grad(loss, sim)[0]


# Every row of the table


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("spread", [0, 1e-4, 1], ids=["collapsed", "nearly collapsed", "spread"])
def test_value_and_gradient_are_finite(name, dtype, spread):
    entry, (one, rest) = LOSSES[name], points(0, 1, 12)
    rows = functional.normalize(one + spread * rest, dim=1).detach().to(dtype).requires_grad_()
    loss = entry.function(SIMILARITIES.get(entry.similarity, cosine)(rows, rows), random_relation(0, 12, 12))
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
        with set_detect_anomaly(True):  # no NaN on the way either
            loss, gradient = value_and_gradient(name, sim, case)
        assert loss == 0
        assert gradient.eq(0).all()


@every_loss
@pytest.mark.parametrize("shape", [(0, 1), (0, 4), (4, 0)])
def test_an_empty_matrix_costs_nothing(name, shape):
    none = torch.zeros(shape, dtype=torch.bool)
    with set_detect_anomaly(True):
        loss, gradient = value_and_gradient(name, torch.zeros(shape), Relation(none, none))
    assert loss == 0
    assert gradient.shape == shape


@losses_that(lambda entry: not entry.needs_both and entry is not LOSSES["ghm"])  # whose bins hold both kinds
@property_test
@given(SEEDS, SIZES, SIZES)
def test_what_the_two_kinds_cost_adds_up_unless_it_needs_both(name, seed, n, m):
    one, other = (similarity(name, random_cosines(s, n, m)) for s in (seed, seed + 1))
    relation = random_relation(seed, n, m)

    def loss(positives, negatives):
        return value_and_gradient(name, torch.where(relation.positive, positives, negatives), relation)[0]

    close(loss(one, other) + loss(other, one), loss(one, one) + loss(other, other))


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


@losses_that(lambda entry: entry.by_pair)
@property_test
@given(SEEDS, SIZES, SIZES)
def test_where_a_pair_stands_does_not_matter_to_a_loss_by_pair(name, seed, n, m):
    sim, relation = similarity(name, random_cosines(seed, n, m)), random_relation(seed, n, m)
    pairs = (relation.positive | relation.negative).flatten().nonzero()[:, 0]
    shuffled = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))]

    def column(x):
        return x.flatten()[shuffled][:, None]

    loss, gradient = value_and_gradient(name, sim, relation)
    alone, of_alone = value_and_gradient(
        name, column(sim), Relation(column(relation.positive), column(relation.negative))
    )
    close(alone, loss)
    close(of_alone, column(gradient))


@losses_that(lambda entry: entry is not LOSSES["ghm"])  # a pair that moves changes what others of its bin weigh
@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0.01, 0.3))
def test_it_falls_when_a_violating_pair_is_repaired(name, seed, n, m, step):
    cosines, relation = random_cosines(seed, n, m, 0.15, 0.8), random_relation(seed, n, m)
    relation.positive[0, :2], relation.negative[0, :2] = torch.tensor([True, False]), torch.tensor([False, True])
    cosines[0, :2] = torch.tensor([0.1, 0.85])  # the farthest duplicate, the nearest other
    entry, (before, gradient) = LOSSES[name], value_and_gradient(name, similarity(name, cosines), relation)
    assert gradient[0, 0] == 0 if entry.only_unlabelled else gradient[0, 0] < 0
    assert gradient[0, 1] == 0 if entry.positives_only else gradient[0, 1] > 0
    if entry.function is ghm:  # a repaired pair leaves its bin, whose other pairs then weigh more
        return
    changes = [] if entry.only_unlabelled else [(0, step)]
    for place, change in changes if entry.positives_only else [*changes, (1, -step)]:
        repaired = cosines.clone()
        repaired[0, place] += change
        assert value_and_gradient(name, similarity(name, repaired), relation)[0] < before


@losses_that(lambda entry: entry.monotone)
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


def test_supervised_contrastive_rises_when_a_duplicate_goes_far_ahead_of_another():
    relation = Relation(torch.tensor([[True, True, False]]), torch.tensor([[False, False, True]]))
    before, gradient = value_and_gradient("supervised_contrastive", torch.tensor([[0.9, 0.1, 0.0]]), relation)
    after, _ = value_and_gradient("supervised_contrastive", torch.tensor([[0.95, 0.1, 0.0]]), relation)
    assert after > before
    assert gradient[0, 0] > 0


def test_circle_rises_when_a_negative_is_moved_beyond_a_right_angle_against_its_gradient():
    relation = Relation(torch.tensor([[True, False]]), torch.tensor([[False, True]]))
    before, gradient = value_and_gradient("circle", torch.tensor([[0.5, -0.1]]), relation)
    after, _ = value_and_gradient("circle", torch.tensor([[0.5, -0.2]]), relation)
    assert after > before
    assert gradient[0, 1] > 0


@losses_that(lambda entry: entry is not LOSSES["circle"])  # by definition no gradient flows through its weights
def test_gradient_is_that_of_finite_differences(name):
    sim = similarity(name, random_cosines(0, 5, 6).double()).requires_grad_()
    assert gradcheck(lambda s: LOSSES[name].function(s, random_relation(0, 5, 6)), (sim,))


@every_loss
def test_parameters_are_those_of_the_function_and_of_the_objective(name):
    entry = LOSSES[name]
    sim, relation = similarity(name, random_cosines(0, 6, 6)), random_relation(0, 6, 6)
    own = list(inspect.signature(entry.function).parameters.values())[2:]
    assert list(entry.parameters) == [p.name for p in own] + list(entry.prototype_parameters)
    for parameter, default in entry.parameters.items():
        assert parse_objective(f"{name}({parameter}={default})").terms == (Term(name, 1.0, {parameter: default}),)
    for p in own:
        assert type(p.default).__name__ == p.annotation
        other = p.default + 1 if isinstance(p.default, int) else p.default * 1.1 or 0.1
        assert entry.function(sim, relation, **{p.name: p.default}) == entry.function(sim, relation)
        assert entry.function(sim, relation, **{p.name: other}) != entry.function(sim, relation)


@every_loss
def test_row_of_the_table_and_docstring_say_what_it_is(name):
    entry = LOSSES[name]
    doc = " ".join(inspect.getdoc(entry.function).split())
    assert name.startswith(entry.function.__name__)
    assert entry.paper.lower() in doc.lower()
    assert entry.similarity.replace("_", " ") in doc.lower()
    assert entry.formula
    assert all(f"{parameter}: " in doc for parameter in inspect.signature(entry.function).parameters)


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


@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0.2, 2), st.floats(0, 1), st.floats(1, 3), st.floats(0, 3), st.floats(0, 3))
def test_the_general_contrastive_loss_agrees_with_naive_loops(seed, n, m, margin, near, power, pull, push):
    rows, columns = points(seed, n, m, dtype=torch.float64)
    relation, costs = random_relation(seed, n, m), []
    sim = euclidean(rows, columns)
    for i in range(n):
        for j in range(m):
            distance = (rows[i] - columns[j]).norm()
            if relation.positive[i, j]:
                costs.append(pull * (distance - near).clamp(min=0) ** power / power)
            if relation.negative[i, j]:
                costs.append(push * (margin - distance).clamp(min=0) ** power / power)
    loss = contrastive(sim, relation, margin=margin, positive_margin=near, power=power, pull=pull, push=push)
    agree(loss, sum(costs) / len(costs), (rows, columns))


@property_test
@given(SEEDS, st.integers(3, 12), st.floats(0.2, 2), st.floats(0, 1))
def test_contrastive_to_the_first_power_agrees_with_pytorch_metric_learning(seed, n, margin, near):
    rows, labels, relation = labelled_points(seed, n)
    distances = LpDistance(normalize_embeddings=False, p=2, power=1)
    theirs = ContrastiveLoss(pos_margin=near, neg_margin=margin, distance=distances, reducer=DoNothingReducer())
    assume(relation.positive.sum() > 1)
    kinds = theirs(rows, labels).values()
    loss = contrastive(euclidean(rows, rows), relation, margin=margin, positive_margin=near, power=1)
    agree(loss, torch.cat([kind["losses"] for kind in kinds]).mean(), [rows])


@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0, 4), st.floats(0.1, 0.9), st.floats(1, 40), st.floats(0, 1))
def test_focal_agrees_with_naive_loops(seed, n, m, gamma, alpha, scale, threshold):
    rows, columns = points(seed, n, m, dtype=torch.float64)
    relation, sim, costs = random_relation(seed, n, m), cosine(rows, columns), []
    for i, j in (relation.positive | relation.negative).nonzero().tolist():
        side, weight = (1, alpha) if relation.positive[i, j] else (-1, 1 - alpha)
        logit = side * scale * (sim[i, j] - threshold)
        costs.append(-weight * torch.sigmoid(-logit) ** gamma * torch.sigmoid(logit).log())
    loss = focal(sim, relation, gamma=gamma, alpha=alpha, scale=scale, threshold=threshold)
    agree(loss, sum(costs) / len(costs), (rows, columns))


@property_test
@given(SEEDS, SIZES, SIZES, st.floats(1, 40), st.floats(0, 1))
def test_focal_without_focus_is_half_of_logistic(seed, n, m, scale, threshold):
    sim, relation = random_cosines(seed, n, m), random_relation(seed, n, m)
    loss = focal(sim, relation, gamma=0, alpha=0.5, scale=scale, threshold=threshold)
    close(2 * loss, logistic(sim, relation, scale=scale, threshold=threshold))


@property_test
@given(SEEDS, SIZES, SIZES, st.integers(1, 12), st.floats(1, 40), st.floats(0, 1))
def test_ghm_agrees_with_naive_loops_over_bins(seed, n, m, bins, scale, threshold):
    rows, columns = points(seed, n, m, dtype=torch.float64)
    relation, sim = random_relation(seed, n, m), cosine(rows, columns)
    costs = [[] for _ in range(bins)]
    for i, j in (relation.positive | relation.negative).nonzero().tolist():
        label = float(relation.positive[i, j])
        p = torch.sigmoid(scale * (sim[i, j] - threshold))
        norm = abs(p.item() - label)
        assume(abs(norm * bins - round(norm * bins)) > 1e-6)  # at the edge of a bin rounding decides
        cost = functional.binary_cross_entropy(p, torch.tensor(label, dtype=torch.float64))
        costs[min(bins - 1, int(norm * bins))].append(cost)
    expected = sum(sum(of_bin) / max(1, len(of_bin)) for of_bin in costs) / bins
    agree(ghm(sim, relation, bins=bins, scale=scale, threshold=threshold), expected, (rows, columns))


def test_ghm_with_one_bin_is_logistic_and_a_crowd_of_easy_pairs_weighs_as_much_as_one_hard_pair():
    sim, relation = random_cosines(0, 5, 6), random_relation(0, 5, 6)
    close(ghm(sim, relation, bins=1), logistic(sim, relation))
    crowd = torch.tensor([[0.95] * 9 + [0.8]])
    weights = pair_weights("ghm", crowd, Relation.from_text("+" * 9 + "-"))[0]
    slope = torch.sigmoid(20 * (crowd[0] - 0.75)) - torch.tensor([1.0] * 9 + [0.0])
    per_pair = weights / (20 * slope.abs())
    close(per_pair[:9].sum(), per_pair[9])


def labelled_pairs(seed, n):
    """n pairs as two columns of embeddings, their labels, and their relation: each row with its own column alone."""
    left, right = points(seed, n, n)
    labels = torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed))
    return left, right, labels, Relation(torch.diag(labels == 1), torch.diag(labels == 0))


def classes(labels):
    same = labels[:, None] == labels[None]
    return Relation(same & ~torch.eye(len(labels), dtype=torch.bool), ~same)


def labelled_points(seed, n):
    """Unit vectors of random classes, of which one at least has two members and one other exists, and their relation.

    In float64, where no hinge is so near its corner that two ways to compute it fall on different sides.
    """
    random = torch.Generator().manual_seed(seed)
    rows = functional.normalize(torch.randn(n, 8, generator=random, dtype=torch.float64), dim=1).requires_grad_()
    labels = torch.randint(3, (n,), generator=random)
    labels[:3] = torch.tensor([0, 0, 1])
    return rows, labels, classes(labels)


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
@given(SEEDS, SIZES, SIZES, st.floats(1, 40), st.floats(-0.5, 1))
def test_logistic_agrees_with_binary_cross_entropy(seed, n, m, scale, threshold):
    rows, columns = points(seed, n, m)
    relation, sim = random_relation(seed, n, m), cosine(rows, columns)
    pairs = relation.positive | relation.negative
    logits, labels = scale * (sim - threshold)[pairs], relation.positive[pairs].float()
    loss = logistic(sim, relation, scale=scale, threshold=threshold)
    agree(loss, functional.binary_cross_entropy_with_logits(logits, labels), (rows, columns))


@property_test
@given(SEEDS, SIZES, SIZES)
def test_pair_softmax_agrees_with_cross_entropy_of_two_classes(seed, n, m):
    relation, (sim,) = random_relation(seed, n, m), points(seed, n, d=m)
    pairs = relation.positive | relation.negative
    loss, labels = pair_softmax(10 * sim, relation), relation.positive[pairs]
    logits = torch.stack([3 - 5 * sim, 3 + 5 * sim], dim=-1)[pairs]
    agree(loss, functional.cross_entropy(logits, labels.long()), [sim])
    agree(loss, functional.binary_cross_entropy_with_logits(10 * sim[pairs], labels.float()), [sim])


@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0, 1))
def test_ranking_agrees_with_naive_loops(seed, n, m, margin):
    rows, columns = points(seed, n, m, dtype=torch.float64)
    relation, sim = random_relation(seed, n, m), cosine(rows, columns)
    costs = [(s_n - s_p + margin).clamp(min=0) for s_p in sim[relation.positive] for s_n in sim[relation.negative]]
    agree(ranking(sim, relation, margin=margin), sum(costs) / len(costs), (rows, columns))


@property_test
@given(SEEDS, st.integers(1, 24), st.floats(1, 40))
def test_cosent_agrees_with_sentence_transformers(seed, n, scale):
    left, right, labels, relation = labelled_pairs(seed, n)
    theirs = peer.CoSENTLoss(None, scale=scale)
    loss = cosent(cosine(left, right), relation, scale=scale)
    agree(loss, theirs.compute_loss_from_embeddings([left, right], labels), (left, right))


EUCLIDEAN, SQUARED = (LpDistance(normalize_embeddings=False, p=2, power=power) for power in (1, 2))


@pytest.mark.parametrize(
    ("measure", "distance"), [(squared_euclidean, SQUARED), (euclidean, EUCLIDEAN), (cosine, CosineSimilarity())]
)
@property_test
@given(SEEDS, st.integers(3, 16), st.floats(0, 1))
def test_triplet_agrees_with_pytorch_metric_learning(measure, distance, seed, n, margin):
    rows, labels, relation = labelled_points(seed, n)
    theirs = TripletMarginLoss(margin, distance=distance, reducer=MeanReducer())  # the mean over all, as here
    agree(triplet(measure(rows, rows), relation, margin=margin), theirs(rows, labels), [rows])


@property_test
@given(SEEDS, st.integers(3, 16), st.floats(0.1, 1))
def test_triplet_agrees_with_batch_all_of_sentence_transformers(seed, n, margin):
    rows, labels, relation = labelled_points(seed, n)
    sim = euclidean(rows, rows)
    triplets = relation.positive[:, :, None] & relation.negative[:, None]  # (n, n, n)
    costly = triplets & (sim[:, None] - sim[:, :, None] + margin > 0)
    assume(costly.any())
    loss = triplet(sim, relation, margin=margin) * triplets.sum() / costly.sum()  # theirs: mean over those that cost
    agree(loss, peer.BatchAllTripletLoss(None, margin=margin).compute_loss_from_embeddings([rows], labels), [rows])


@property_test
@given(SEEDS, st.integers(2, 8), st.floats(0.1, 2))
def test_triplet_agrees_with_batch_hard_of_sentence_transformers(seed, n, margin):
    (rows,) = points(seed, 2 * n, dtype=torch.float64)
    labels = torch.arange(n).repeat(2)
    sim = euclidean(rows, rows)
    loss = triplet(sim, batch_hard(sim, classes(labels)), margin=margin)
    agree(loss, peer.BatchHardTripletLoss(None, margin=margin).compute_loss_from_embeddings([rows], labels), [rows])


@property_test
@given(SEEDS, st.integers(3, 16), st.floats(0.1, 2))
def test_triplet_agrees_with_batch_semi_hard_of_sentence_transformers(seed, n, margin):
    rows, labels, relation = labelled_points(seed, n)
    sim = euclidean(rows, rows)
    anchor, positive = relation.positive.nonzero(as_tuple=True)  # (p,)
    others = sim[anchor].masked_fill(~relation.negative[anchor], -torch.inf)  # (p, n)
    farther = others.masked_fill(others >= sim[anchor, positive][:, None], -torch.inf)  # (p, n)
    nearest = torch.where(farther.isfinite().any(1), farther.argmax(1), (-others).nan_to_num(posinf=-9).argmax(1))
    chosen = Relation(*(functional.one_hot(x, n).bool() for x in (positive, nearest)), anchor)
    loss = triplet(*select_rows(sim, chosen), margin=margin)
    agree(loss, peer.BatchSemiHardTripletLoss(None, margin=margin).compute_loss_from_embeddings([rows], labels), [rows])


@property_test
@given(SEEDS, st.integers(2, 5), st.integers(2, 5), st.floats(0, 2), st.floats(0, 2))
def test_quadruplet_agrees_with_naive_loops(seed, n, m, margin, margin2):
    rows, columns = points(seed, n, m, dtype=torch.float64)
    relation, sim = random_relation(seed, n, m), squared_euclidean(rows, columns)
    own, elsewhere = [], []
    for i, j in relation.positive.nonzero().tolist():
        for k, other in relation.negative.nonzero().tolist():
            hinge = (sim[k, other] - sim[i, j] + (margin if k == i else margin2)).clamp(min=0)
            (own if k == i else elsewhere).append(hinge)
    means = [sum(costs) / max(1, len(costs)) for costs in (own, elsewhere)]
    agree(quadruplet(sim, relation, margin=margin, margin2=margin2), sum(means), (rows, columns))


@property_test
@given(SEEDS, SIZES, st.integers(0, 2), st.floats(0.05, 1))
def test_info_nce_agrees_with_sentence_transformers(seed, n, hard_negatives, temperature):
    anchors, *documents = leaves = points(seed, *[n] * (2 + hard_negatives))
    positive = torch.eye(n, n * len(documents), dtype=torch.bool)
    loss = info_nce(cosine(anchors, torch.cat(documents)), Relation(positive, ~positive), temperature=temperature)
    theirs = peer.MultipleNegativesRankingLoss(None, scale=1 / temperature)
    agree(loss, theirs.compute_loss_from_embeddings(leaves, torch.zeros(n)), leaves)


@property_test
@given(SEEDS, SIZES, st.floats(0.05, 1))
def test_info_nce_in_both_directions_agrees_with_sentence_transformers(seed, n, temperature):
    anchors, documents = leaves = points(seed, n, n)
    positive = torch.eye(n, dtype=torch.bool)
    loss = info_nce(cosine(anchors, documents), Relation(positive, ~positive), temperature=temperature, directions=2)
    theirs = peer.MultipleNegativesRankingLoss(
        None, scale=1 / temperature, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    agree(loss, theirs.compute_loss_from_embeddings(leaves, torch.zeros(n)), leaves)


def test_info_nce_has_one_direction_or_two():
    with pytest.raises(ValueError, match="directions is 1 or 2, not 3"):
        info_nce(torch.zeros(2, 2), random_relation(0, 2, 2), directions=3)


@property_test
@given(SEEDS, st.integers(3, 12), st.floats(0.1, 1))
def test_info_nce_agrees_with_ntxent_where_anchors_have_several_duplicates(seed, n, temperature):
    rows, labels, relation = labelled_points(seed, n)
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
@given(SEEDS, SIZES)
def test_n_pair_agrees_with_pytorch_metric_learning(seed, n):
    (rows,) = points(seed, 2 * n)
    positive = torch.eye(n, dtype=torch.bool)
    loss = n_pair(dot(rows[:n], rows[n:]), Relation(positive, ~positive), scale=1.0)
    agree(loss, NPairsLoss()(rows, torch.arange(n).repeat(2)), [rows])


@property_test
@given(SEEDS, st.integers(3, 16), st.floats(0.05, 1))
def test_supervised_contrastive_agrees_with_pytorch_metric_learning(seed, n, temperature):
    rows, labels, relation = labelled_points(seed, n)
    loss = supervised_contrastive(cosine(rows, rows), relation, temperature=temperature)
    agree(loss, SupConLoss(temperature=temperature)(rows, labels), [rows])


@property_test
@given(SEEDS, st.integers(3, 16), st.floats(0.5, 10), st.floats(1, 60), st.floats(0, 1))
def test_multi_similarity_agrees_with_pytorch_metric_learning(seed, n, alpha, beta, base):
    rows, labels, relation = labelled_points(seed, n)
    loss = multi_similarity(cosine(rows, rows), relation, alpha=alpha, beta=beta, base=base)
    agree(loss, MultiSimilarityLoss(alpha=alpha, beta=beta, base=base)(rows, labels), [rows])


@property_test
@given(SEEDS, st.integers(3, 16), st.floats(1, 256), st.floats(0.1, 0.5))
def test_circle_agrees_with_pytorch_metric_learning(seed, n, scale, margin):
    rows, labels, relation = labelled_points(seed, n)
    loss = circle(cosine(rows, rows), relation, scale=scale, margin=margin)
    agree(loss, CircleLoss(m=margin, gamma=scale)(rows, labels), [rows])


@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0.1, 2))
def test_lifted_agrees_with_naive_loops(seed, n, m, margin):
    rows, columns = points(seed, n, m, dtype=torch.float64)
    relation, sim = random_relation(seed, n, m), euclidean(rows, columns)
    costs = []
    for i, j in relation.positive.nonzero().tolist():
        near = [*(margin + sim[i])[relation.negative[i]], *(margin + sim[:, j])[relation.negative[:, j]]]
        costs.append((torch.stack(near).exp().sum().log() - sim[i, j]).clamp(min=0) ** 2 / 2 if near else 0 * sim.sum())
    agree(lifted(sim, relation, margin=margin), sum(costs) / len(costs), (rows, columns))


@property_test
@given(SEEDS, st.integers(3, 12), st.floats(0.1, 2))
def test_lifted_agrees_with_pytorch_metric_learning(seed, n, margin):
    rows, labels, relation = labelled_points(seed, n)
    theirs = LiftedStructureLoss(neg_margin=margin, reducer=MeanReducer())(rows, labels)
    agree(lifted(euclidean(rows, rows), relation, margin=margin), theirs, [rows])


@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0.1, 2))
def test_lifted_generalized_agrees_with_naive_loops(seed, n, m, margin):
    rows, columns = points(seed, n, m, dtype=torch.float64)
    relation, sim = random_relation(seed, n, m), euclidean(rows, columns)
    costs = [0 * sim.sum()]
    for i in range(n):
        positives, negatives = -sim[i][relation.positive[i]], margin + sim[i][relation.negative[i]]
        if len(positives) and len(negatives):
            costs.append((positives.exp().sum().log() + negatives.exp().sum().log()).clamp(min=0))
    expected = sum(costs) / max(1, len(costs) - 1)
    agree(lifted_generalized(sim, relation, margin=margin), expected, (rows, columns))


@property_test
@given(SEEDS, st.integers(2, 6), st.floats(0.1, 2))
def test_lifted_generalized_agrees_with_pytorch_metric_learning(seed, n, margin):
    (rows,) = points(seed, 2 * n, dtype=torch.float64)
    labels = torch.arange(n).repeat(2)
    theirs = GeneralizedLiftedStructureLoss(neg_margin=margin, reducer=MeanReducer())(rows, labels)
    agree(lifted_generalized(euclidean(rows, rows), classes(labels), margin=margin), theirs, [rows])


@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0.1, 1.2))
def test_strangers_agrees_with_naive_loops_and_the_push_of_online_contrastive(seed, n, m, margin):
    sim, relation = random_cosines(seed, n, m).double(), random_relation(seed, n, m)
    costs = [max(0.0, s - 1 + margin) ** 2 for s in sim[relation.negative].tolist()]
    close(strangers(sim, relation, margin), torch.tensor(sum(costs) / len(costs), dtype=torch.float64))

    far = Relation(torch.tensor([[True, False]]), torch.tensor([[False, True]]))
    one = torch.tensor([[-0.9, 0.8]], dtype=torch.float64)  # a duplicate so far away that the other pair is hard
    slope, expected = (
        grad(f(leaf, far, margin=margin), leaf)[0]
        for f in (strangers, online_contrastive)
        for leaf in [one.clone().requires_grad_()]
    )
    close(slope[0, 1], 2 * expected[0, 1])  # online_contrastive divides by both pairs
    assert slope[0, 0] == 0


def test_hand_computed_values():
    sim = torch.tensor([[0.9, 0.6]])
    relation = Relation(torch.tensor([[True, False]]), torch.tensor([[False, True]]))
    close(contrastive(-(1 - sim), relation), torch.tensor((0.1**2 + 0.6**2) / 4))
    close(online_contrastive(sim, relation), torch.tensor(0.0))
    close(online_contrastive(1 - sim, relation), torch.tensor(0.9**2 / 2))
    close(logistic(sim, relation), torch.tensor(math.log1p(math.exp(-3))))
    close(info_nce(sim, relation, temperature=0.1), torch.tensor(math.log1p(math.exp(-3))))
    close(pair_softmax(sim, relation), (functional.softplus(-sim[0, 0]) + functional.softplus(sim[0, 1])) / 2)
    close(ranking(sim, relation, margin=0.4), torch.tensor(0.1))
    close(cosent(sim, relation, scale=10), torch.tensor(math.log1p(math.exp(-3))))
    close(triplet(sim, relation, margin=0.4), torch.tensor(0.1))
    close(quadruplet(sim, relation), torch.tensor(0.7))
    close(n_pair(sim, relation), torch.tensor(math.log1p(math.exp(-3))))
    close(supervised_contrastive(sim, relation), torch.tensor(math.log1p(math.exp(-3))))
    close(multi_similarity(sim, relation), torch.tensor(math.log1p(math.exp(-0.8)) / 2 + math.log1p(math.exp(5)) / 50))
    close(strangers(sim, relation), torch.tensor(0.1**2))
    close(circle(sim, relation, scale=10), torch.tensor(math.log1p(math.exp(10 * (1.0 * 0.2 - 0.5 * 0.3)))))


# Pair weights


@property_test
@given(SEEDS, SIZES, SIZES, st.floats(0.5, 10), st.floats(1, 60), st.floats(0, 1))
def test_weights_of_multi_similarity_are_those_of_the_paper(seed, n, m, alpha, beta, base):
    sim, relation = random_cosines(seed, n, m, -1.0).double(), random_relation(seed, n, m)
    expected = torch.zeros_like(sim)
    for i in range(n):
        positives, negatives = sim[i][relation.positive[i]], sim[i][relation.negative[i]]
        for j in range(m):
            s = sim[i, j]
            if relation.positive[i, j]:
                expected[i, j] = 1 / ((-alpha * (base - s)).exp() + (-alpha * (positives - s)).exp().sum())
            if relation.negative[i, j]:
                expected[i, j] = 1 / ((beta * (base - s)).exp() + (beta * (negatives - s)).exp().sum())
    rows = (relation.positive | relation.negative).any(1).sum()  # the loss is their mean
    close(pair_weights("multi_similarity", sim, relation, alpha=alpha, beta=beta, base=base), expected / rows)


def first_weight(kind, similarities):
    """The weight that multi_similarity gives the first of several pairs of a row, all of one kind."""
    sim = torch.tensor([similarities])
    every = torch.ones_like(sim, dtype=torch.bool)
    relation = Relation(every, ~every) if kind == "positive" else Relation(~every, every)
    return pair_weights("multi_similarity", sim, relation)[0, 0]


def test_self_similarity_a_negative_weighs_more_the_nearer_it_is_and_a_positive_the_farther():
    assert first_weight("negative", [0.4]) < first_weight("negative", [0.5]) < first_weight("negative", [0.6])
    assert first_weight("positive", [0.4]) > first_weight("positive", [0.5]) > first_weight("positive", [0.6])


def test_negative_relative_similarity_a_negative_weighs_most_when_the_others_are_farther():
    farther, same, nearer = (first_weight("negative", [0.5, x, x]) for x in (0.4, 0.5, 0.6))
    assert farther > same > nearer


def test_positive_relative_similarity_a_positive_weighs_most_when_the_others_are_closer():
    closer, same, farther = (first_weight("positive", [0.5, x, x]) for x in (0.6, 0.5, 0.4))
    assert closer > same > farther


def test_a_triplet_weighs_its_two_pairs_alike_where_it_costs_and_not_at_all_where_it_does_not():
    sim = torch.tensor([[0.5, 0.6, 0.2]])
    relation = Relation(torch.tensor([[True, False, False]]), torch.tensor([[False, True, True]]))
    close(pair_weights("triplet_cosine", sim, relation), torch.tensor([[0.5, 0.5, 0.0]]))


def test_weights_fall_on_the_rows_that_a_miner_picked():
    sim, relation = random_cosines(0, 4, 5), random_relation(0, 3, 5)
    rows = torch.tensor([2, 0, 2])
    with torch.no_grad():
        weights = pair_weights(cosent, sim, Relation(relation.positive, relation.negative, rows), scale=5.0)
        of_rows = pair_weights(cosent, sim[rows], relation, scale=5.0)
    signed = torch.where(relation.positive, -of_rows, of_rows)
    close(weights, torch.zeros(4, 5).index_add(0, rows, signed).abs())
