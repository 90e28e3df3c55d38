import math
import time

import pytest
import torch
from draws import close, random_cosines, random_relation
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import ArcFaceLoss, CosFaceLoss, NormalizedSoftmaxLoss, SphereFaceLoss
from torch import nn
from torch.autograd import grad, set_detect_anomaly
from torch.nn import functional

from qpairs.objectives.losses import LOSSES
from qpairs.objectives.losses.prototypes import arcface, center, cosface, softmax, sphereface
from qpairs.objectives.prototypes import Prototypes
from qpairs.objectives.relations import Relation
from qpairs.objectives.similarities import SIMILARITIES, cosine, dot, squared_euclidean

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(2, 9)
property_test = settings(deadline=None, max_examples=25)
CLASSIFIERS = {"softmax": softmax, "cosface": cosface, "arcface": arcface, "sphereface": sphereface}
every_classifier = pytest.mark.parametrize("name", CLASSIFIERS)
every_loss = pytest.mark.parametrize("name", [name for name, entry in LOSSES.items() if entry.prototypes])


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit(seed, *shape, dtype=torch.float64):
    return functional.normalize(normal(seed, *shape, dtype=dtype), dim=-1)


def similarity(name, rows, columns):
    """As an objective reads it: prototypes are of unit length where the similarity is a cosine."""
    kind = LOSSES[name].similarity
    return SIMILARITIES[kind](rows, functional.normalize(columns, dim=1) if kind == "cosine" else columns)


def loss_of(name, rows, columns, relation):
    return LOSSES[name].function(similarity(name, rows, columns), relation)


# Losses


def margin_of(name, share):
    """A margin of each loss, from a share between 0 and 1."""
    return {} if name == "softmax" else {"margin": 1 + round(5 * share) if name == "sphereface" else share}


def peer(name, classes, d, scale, margin=0.0):
    if name == "softmax":
        return NormalizedSoftmaxLoss(classes, d, temperature=1 / scale)
    theirs = {"cosface": CosFaceLoss, "arcface": ArcFaceLoss, "sphereface": SphereFaceLoss}[name]
    return theirs(classes, d, margin=math.degrees(margin) if name == "arcface" else margin, scale=scale)


@every_classifier
@property_test
@given(SEEDS, SIZES, st.integers(2, 7), st.floats(1, 64), st.floats(0, 1))
def test_agrees_with_pytorch_metric_learning_also_in_the_gradient_of_the_prototypes(
    name, seed, n, classes, scale, share
):
    rows = unit(seed, n, 3).requires_grad_()  # of so few dimensions, angles are of all sizes
    weight = normal(seed + 1, classes, 3).requires_grad_()
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    own = labels[:, None] == torch.arange(classes)
    margin = margin_of(name, share)
    theirs = peer(name, classes, 3, scale, **margin)
    theirs.W = nn.Parameter(weight.detach().T.clone())
    sim = cosine(rows, functional.normalize(weight, dim=1))
    loss, expected = CLASSIFIERS[name](sim, Relation(own, ~own), scale=scale, **margin), theirs(rows, labels)
    close(loss, expected)
    (by_rows, by_weight), (their_rows, their_weight) = grad(loss, (rows, weight)), grad(expected, (rows, theirs.W))
    along = torch.eye(3) - rows[:, :, None] * rows[:, None]  # (n, 3, 3), tangents: they normalise
    close(*((along @ gradient[:, :, None])[:, :, 0] for gradient in (by_rows, their_rows)))
    close(by_weight, their_weight.T)


def naive_logit(name, s, margin=0.0):
    """The positive logit of similarity s, by the angle as in the papers, before the scale."""
    theta = s.acos()
    match name:
        case "softmax":
            return s
        case "cosface":
            return s - margin
        case "arcface":
            return (theta + margin).cos() if theta + margin <= math.pi else s - margin * math.sin(margin)
        case "sphereface":
            k = next(k for k in range(margin) if theta <= (k + 1) * math.pi / margin)
            return (-1) ** k * (margin * theta).cos() - 2 * k


@every_classifier
@property_test
@given(SEEDS, SIZES, SIZES, st.floats(1, 64), st.floats(0, 1))
def test_agrees_with_naive_loops_where_rows_have_several_prototypes_or_none(name, seed, n, m, scale, share):
    sim = random_cosines(seed, n, m, -0.999, 0.999).double().requires_grad_()
    relation, margin = random_relation(seed, n, m), margin_of(name, share)
    costs = []
    for i, j in relation.positive.nonzero().tolist():
        logits = [naive_logit(name, sim[i, j], **margin), *sim[i, relation.negative[i]]]
        costs.append(functional.cross_entropy(scale * torch.stack(logits)[None], torch.tensor([0])))
    loss, expected = CLASSIFIERS[name](sim, relation, scale=scale, **margin), sum(costs) / len(costs)
    close(loss, expected)
    close(grad(loss, sim), grad(expected, sim))


@property_test
@given(SEEDS, SIZES, SIZES)
def test_center_agrees_with_naive_loops(seed, n, m):
    rows, columns = unit(seed, n, 8).requires_grad_(), normal(seed + 1, m, 8).requires_grad_()
    relation = random_relation(seed, n, m)
    costs = [((rows[i] - columns[j]) ** 2).sum() / 2 for i, j in relation.positive.nonzero()]
    loss, expected = center(squared_euclidean(rows, columns), relation), sum(costs) / len(costs)
    close(loss, expected)
    close(grad(loss, (rows, columns)), grad(expected, (rows, columns)))


@property_test
@given(SEEDS, st.integers(2, 9), st.integers(2, 7))
def test_softmax_is_the_cross_entropy_of_a_linear_classifier(seed, n, classes):
    rows, weight = unit(seed, n, 8), normal(seed + 1, classes, 8)
    labels = torch.arange(n) % classes
    own = labels[:, None] == torch.arange(classes)
    loss = softmax(dot(rows, weight), Relation(own, ~own), scale=3.0)
    close(loss, functional.cross_entropy(functional.linear(3 * rows, weight), labels))


def test_without_a_margin_all_are_the_softmax_of_cosines():
    sim, relation = random_cosines(0, 6, 9, -1.0, 1.0), random_relation(0, 6, 9)
    expected = softmax(sim, relation, scale=7.0)
    close(cosface(sim, relation, scale=7.0, margin=0.0), expected)
    close(arcface(sim, relation, scale=7.0, margin=0.0), expected)
    close(sphereface(sim, relation, scale=7.0, margin=1), expected)


@every_classifier
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_at_the_ends_of_the_cosine_and_beyond_them_by_rounding_gradients_are_finite_and_draw_nearer(name, dtype):
    end = torch.tensor(1.0, dtype=dtype)
    ends = torch.stack([end, end.nextafter(2 * end), end.nextafter(0 * end)])
    sim = torch.stack([torch.cat([ends, -ends]), torch.ones(6, dtype=dtype)], dim=1).requires_grad_()  # (6, 2)
    own = torch.tensor([[True, False]]).expand(6, 2)
    with set_detect_anomaly(True):
        loss = CLASSIFIERS[name](sim, Relation(own, ~own), scale=2.0)
        loss.backward()
    assert loss.isfinite()
    assert sim.grad.isfinite().all()
    assert (sim.grad[own] < 0).all()
    assert (sim.grad[~own] > 0).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_questions_that_lie_on_their_prototypes_have_finite_gradients(name, dtype):
    rows = unit(0, 5, 16).to(dtype).requires_grad_()
    columns = rows.detach().clone().requires_grad_()
    own = torch.eye(5, dtype=torch.bool)
    loss = loss_of(name, rows, columns, Relation(own, ~own))
    loss.backward()
    assert loss.isfinite()
    assert rows.grad.isfinite().all()
    assert columns.grad.isfinite().all()


@every_classifier
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_question_that_comes_nearer_to_its_prototype_never_costs_more(name, share):
    near = torch.linspace(-1, 1, 201, dtype=torch.float64)
    own = torch.tensor([[True, False]])
    costs = [CLASSIFIERS[name](s[None], Relation(own, ~own), scale=2.0, **margin_of(name, share))
             for s in torch.stack([near, torch.zeros(201)], dim=1)]  # fmt: skip
    assert (torch.stack(costs).diff() <= 1e-12).all()


def test_rows_of_the_table_offer_the_parameters_of_the_prototypes_after_those_of_the_loss():
    assert LOSSES["sphereface"].parameters == {"scale": 30.0, "margin": 4, "alpha": 0.5, "sampled": 4096}
    assert LOSSES["center"].parameters == {"alpha": 0.5, "by_gradient": 0}
    whole = [v for e in LOSSES.values() for v in e.parameters.values() if isinstance(v, int)]
    assert {4, 4096, 0} <= set(whole)
    assert list(LOSSES["arcface"].parameters) == ["scale", "margin", "alpha", "sampled"]
    assert LOSSES["info_nce"].prototype_parameters == {}


# Prototypes


def known(seed, n_components=30, d=8, **options):
    """Prototypes that are all met but the last five."""
    prototypes = Prototypes(n_components, d, **options).double()
    prototypes.met[:-5] = True
    prototypes.weight[:-5] = normal(seed, n_components - 5, d)
    return prototypes


def batch(seed, n=12, n_components=30, d=8):
    component = torch.randint(n_components, (n,), generator=torch.Generator().manual_seed(seed))
    return unit(seed + 1, n, d).requires_grad_(), component


def test_a_new_component_starts_at_the_mean_of_its_embeddings():
    prototypes, rows = Prototypes(4, 8), unit(0, 5, 8, dtype=torch.float32).requires_grad_()
    columns, relation = prototypes(rows, torch.tensor([3, 1, 3, 3, 1]))
    expected = torch.stack([rows[[1, 4]].mean(0), rows[[0, 2, 3]].mean(0)])
    close(columns, expected)
    close(prototypes.weight[[1, 3]], expected)
    assert prototypes.met.tolist() == [False, True, False, True]
    assert relation.positive.tolist() == [[False, True], [True, False], [False, True], [False, True], [True, False]]
    assert relation.negative.equal(~relation.positive)
    assert columns.is_leaf
    assert columns.requires_grad


def test_a_component_met_before_keeps_its_prototype():
    prototypes, (rows, _) = known(0), batch(0)
    before = prototypes.weight.clone()
    columns, _ = prototypes(rows, torch.arange(12))
    assert columns[:12].equal(before[:12])
    assert prototypes.weight.equal(before)


@property_test
@given(SEEDS, st.integers(1, 20), st.sampled_from([0, 1, 7, 4096]))
def test_columns_are_the_own_prototypes_and_a_sample_of_the_others_that_were_met(seed, n, sampled):
    prototypes, (rows, component) = known(seed, sampled=sampled), batch(seed, n)
    met = set(range(25))
    columns, relation = prototypes(rows, component)
    own = component.unique()
    ids = [(prototypes.weight == column).all(1).nonzero().item() for column in columns]
    assert ids[: len(own)] == own.tolist()
    others = ids[len(own) :]
    assert len(set(others)) == len(others) == min(sampled, len(met - set(own.tolist())))
    assert set(others) <= met - set(own.tolist())
    assert relation.positive.equal(component[:, None] == torch.tensor(ids))
    assert relation.negative.equal(component[:, None] != torch.tensor(ids))


def test_the_sample_is_uniform_and_comes_from_the_seed():
    prototypes, (rows, _) = known(0, sampled=5), batch(0)
    own, drawn = torch.arange(12) % 3, torch.zeros(30)

    def others(seed):
        torch.manual_seed(seed)
        columns, _ = prototypes(rows, own)
        return (prototypes.weight[:, None] == columns[3:]).all(2).any(1)

    for seed in range(400):
        drawn += others(seed)
    assert others(1).equal(others(1))
    assert not others(1).equal(others(2))
    assert drawn[[0, 1, 2, *range(25, 30)]].eq(0).all()
    assert (drawn[3:25] / 400 - 5 / 22).abs().max() < 0.105  # five standard deviations


@every_loss
@pytest.mark.parametrize("by_gradient", [True, False], ids=["by gradient", "by rule"])
def test_only_the_columns_move(name, by_gradient):
    prototypes, (rows, component) = known(0, sampled=6, by_gradient=by_gradient), batch(0)
    before = prototypes.weight.clone()
    columns, relation = prototypes(rows, component)
    loss_of(name, rows, columns, relation).backward()
    moved = (prototypes.weight != before).any(1)
    own = torch.zeros(30, dtype=torch.bool).index_fill(0, component, True)
    assert moved[own & prototypes.met].sum() > 5
    others = (moved & ~own).sum()
    assert others == 0 if not by_gradient or name == "center" else 0 < others <= 6
    assert not list(prototypes.parameters())


@every_loss
@property_test
@given(SEEDS, st.floats(0.01, 1), st.floats(0.001, 2))
def test_moving_by_gradient_is_a_step_of_sgd_on_the_mean_of_the_members(name, seed, alpha, step):
    prototypes, (rows, component) = known(seed, alpha=alpha, step=step), batch(seed)
    columns, relation = prototypes(rows, component)
    weight = nn.Parameter(prototypes.weight.clone())
    loss_of(name, rows, columns, relation).backward()

    ids = torch.cat([component.unique(), torch.tensor([i for i in range(25) if i not in component])])
    own = component[:, None] == ids
    loss_of(name, rows, weight[ids], Relation(own, ~own)).mul(len(rows)).backward()  # the sum over the rows
    weight.grad /= torch.bincount(component, minlength=30).clamp(min=1)[:, None]
    torch.optim.SGD([weight], lr=alpha * step).step()
    close(prototypes.weight, weight.detach(), 1e-6)


@pytest.mark.parametrize("weight", [0.003, 1, 50])
@pytest.mark.parametrize("members", [1, 2, 12])
def test_alpha_is_the_share_of_the_way_to_the_members_however_many_they_are(members, weight):
    prototypes, (rows, _) = known(0, alpha=0.25, sampled=0, step=1 / weight), batch(0)
    component = torch.arange(12) // members
    before = prototypes.weight.clone()
    columns, relation = prototypes(rows, component)
    (weight * center(squared_euclidean(rows, columns), relation)).backward()
    means = rows.detach().reshape(12 // members, members, 8).mean(1)
    own = component.unique()
    close(prototypes.weight[own], 0.75 * before[own] + 0.25 * means)


@property_test
@given(SEEDS, st.floats(0.01, 1))
def test_moving_by_rule_agrees_with_the_papers_own_in_naive_loops(seed, alpha):
    prototypes, (rows, component) = known(seed, alpha=alpha, by_gradient=False, sampled=3), batch(seed)
    component %= 25
    before = prototypes.weight.clone()
    expected = before.clone()
    for j in range(30):
        gaps = [before[j] - x for x, c in zip(rows.detach(), component, strict=True) if c == j]
        expected[j] -= alpha * sum(gaps) / (1 + len(gaps))
    columns, _ = prototypes(rows, component)
    close(prototypes.weight, expected)
    assert columns[: len(component.unique())].equal(before[component.unique()])  # the loss sees them as they were
    assert not columns.requires_grad


@pytest.mark.parametrize("by_gradient", [True, False], ids=["by gradient", "by rule"])
def test_in_evaluation_nothing_moves_and_nothing_is_met(by_gradient):
    prototypes, (rows, component) = known(0, sampled=6, by_gradient=by_gradient).eval(), batch(0)
    component[:2], before = 29, {name: value.clone() for name, value in prototypes.state_dict().items()}
    columns, relation = prototypes(rows, component)
    loss_of("cosface", rows, columns, relation).backward()
    assert all(value.equal(before[name]) for name, value in prototypes.state_dict().items())
    close(columns[relation.positive[0]], rows[component == 29].mean(0, keepdim=True))  # not met: as training would
    assert rows.grad.isfinite().all()


def steps(prototypes, seeds):
    for seed in seeds:
        torch.manual_seed(seed)
        rows, component = batch(seed)
        columns, relation = prototypes(rows, component)
        loss_of("arcface", rows, columns, relation).backward()
    return prototypes.state_dict()


def test_a_run_resumed_from_the_state_dict_equals_an_unbroken_one():
    unbroken = steps(Prototypes(30, 8, sampled=6, step=1 / 64).double(), range(8))
    resumed = Prototypes(30, 8, sampled=6, step=1 / 64).double()
    resumed.load_state_dict(steps(Prototypes(30, 8, sampled=6, step=1 / 64).double(), range(4)))
    assert unbroken.keys() == {"weight", "met"}
    for name, value in steps(resumed, range(4, 8)).items():
        assert value.equal(unbroken[name])


def test_embeddings_get_the_gradient_of_the_loss_with_fixed_prototypes():
    prototypes, (rows, component) = known(0), batch(0)
    columns, relation = prototypes(rows, component)
    (expected,) = grad(loss_of("cosface", rows, columns.detach().clone(), relation), rows)
    loss_of("cosface", rows, columns, relation).backward()
    assert rows.grad.equal(expected)


def test_sixty_thousand_components_cost_little():
    prototypes = Prototypes(60_000, 384, step=1 / 64)
    prototypes.weight.normal_()
    prototypes.met.fill_(True)
    costs = []
    for seed in range(5):
        rows, component = batch(seed, 128, 60_000, 384)
        start = time.process_time()
        columns, relation = prototypes(rows.float(), component)
        loss_of("cosface", rows.float(), columns, relation).backward()
        costs.append(time.process_time() - start)
    assert len(columns) == 4096 + len(component.unique())
    assert min(costs) < 0.4  # seconds of processor time; 0.06 on a core of an AMD EPYC
    assert sum(buffer.nbytes for buffer in prototypes.buffers()) < 300e6


# Learning


def blobs(seed, components, members):
    """Noisy members (components * members, 24) of components that differ in the first 8 dimensions alone."""
    means = functional.pad(normal(seed, components, 8, dtype=torch.float32), (0, 16))
    noise = normal(seed + 1, components * members, 24, dtype=torch.float32) * torch.tensor([0.4] * 8 + [1.2] * 16)
    return means.repeat_interleave(members, 0) + noise, torch.arange(components).repeat_interleave(members)


def trained(weights, steps=150):
    """A linear encoder trained on blobs by a weighted sum of losses."""
    torch.manual_seed(0)
    x, component = blobs(0, 60, 4)
    encoder = nn.Linear(24, 8, bias=False)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=0.01)
    learned = {}
    for name, weight in weights.items():
        entry = LOSSES[name]
        step = 1 / (weight * entry.parameters.get("scale", 1.0))
        learned[name] = Prototypes(60, 8, step=step, sampled=20, by_gradient=name != "center")
    for _ in range(steps):
        picked = torch.randperm(len(x))[:64]
        rows = functional.normalize(encoder(x[picked]), dim=1)
        losses = [w * loss_of(name, rows, *learned[name](rows, component[picked])) for name, w in weights.items()]
        optimiser.zero_grad()
        sum(losses).backward()
        optimiser.step()
    return encoder


def judged(encoder):
    """On components that it never saw: how often the nearest is a duplicate, and the spread within components."""
    x, component = blobs(7, 60, 4)
    rows = functional.normalize(encoder(x), dim=1).detach()
    nearest = cosine(rows, rows).fill_diagonal_(-1).argmax(1)
    grouped = rows.reshape(60, 4, 8)
    spread = (grouped - grouped.mean(1, keepdim=True)).square().sum(2).mean() / rows.var(0).sum()
    return (component[nearest] == component).float().mean(), spread


@pytest.mark.parametrize("weights", [{name: 1.0} for name in CLASSIFIERS] + [{"softmax": 1.0, "center": 1.0}], ids=str)
def test_a_linear_encoder_learns_to_find_duplicates_of_components_that_it_never_saw(weights):
    (before, wide), (after, narrow) = judged(trained(weights, 0)), judged(trained(weights))
    assert after > before + 0.2
    assert narrow < 0.7 * wide


def test_center_makes_components_tighter_than_softmax_alone():
    alone, light, heavy = (
        judged(trained({"softmax": 1.0} | center))[1] for center in ({}, {"center": 1.0}, {"center": 3.0})
    )
    assert heavy < light < alone
    assert heavy < 0.85 * alone
