"""Distillation of vectors: against written-out loops, and what must not change it."""

import itertools
from functools import partial

import numpy as np
import torch
from draws import close, points
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional

from qpairs.objectives import distillation
from qpairs.objectives.distillation import (
    DISTILLATIONS,
    fit_vectors,
    match_angles,
    match_distances,
    match_embeddings,
    match_relations,
)

SEEDS, SIZES = st.integers(0, 2**32 - 1), st.integers(3, 7)
few = settings(deadline=None, max_examples=20)


def huber(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    difference = (a - b).abs()
    return difference**2 / 2 if difference <= 1 else difference - 0.5


def both(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    (ours,), (theirs,) = points(seed, n, dtype=torch.float64), points(seed + 1, n, dtype=torch.float64, d=5)
    return 3 * ours, theirs.detach()


@few
@given(SEEDS, SIZES)
def test_distances_agree_with_naive_loops(seed: int, n: int) -> None:
    ours, theirs = both(seed, n)
    pairs = list(itertools.combinations(range(n), 2))
    a, b = (torch.stack([(x[i] - x[j]).norm() for i, j in pairs]) for x in (ours, theirs))
    expected = sum(huber(p, q) for p, q in zip(a / a.mean(), b / b.mean(), strict=True)) / len(pairs)
    close(match_distances(ours, theirs), expected)


@few
@given(SEEDS, SIZES)
def test_angles_agree_with_naive_loops(seed: int, n: int) -> None:
    ours, theirs = both(seed, n)
    costs = []
    for i, j, k in itertools.permutations(range(n), 3):
        one, other = (functional.cosine_similarity(x[i] - x[j], x[k] - x[j], dim=0) for x in (ours, theirs))
        costs.append(huber(one, other))
    close(match_angles(ours, theirs), sum(costs) / len(costs))


@few
@given(SEEDS, SIZES)
def test_relations_ignore_scale_place_and_rotation_and_the_order_of_the_questions(seed: int, n: int) -> None:
    ours, theirs = both(seed, n)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    cost = match_relations(ours, theirs)
    close(match_relations(2.5 * ours @ rotation + 1, theirs), cost)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    close(match_relations(ours[order], theirs[order]), cost)
    close(match_relations(ours, 7 * ours.detach() @ rotation), torch.tensor(0.0, dtype=torch.float64))


def test_embeddings_are_two_less_twice_the_cosine() -> None:
    one, other = points(0, 6, 6)
    close(match_embeddings(one, other.detach()), (2 - 2 * (one * other).sum(1)).mean().detach())


def test_gradients_are_those_of_finite_differences_and_finite_where_vectors_are_equal() -> None:
    for cost in DISTILLATIONS.values():
        ours, _ = both(0, 5)
        theirs = points(3, 5, dtype=torch.float64)[0].detach()
        assert gradcheck(partial(cost, teacher=theirs), (ours.detach().requires_grad_(),))
        same = torch.ones(4, 8, requires_grad=True)
        cost(same, theirs[:4].float()).backward()
        assert same.grad.isfinite().all()
        for n in (0, 1, 2):
            assert cost(torch.ones(n, 8), torch.ones(n, 8)).isfinite()


def test_of_many_questions_some_angles_are_compared(monkeypatch) -> None:
    ours, theirs = both(0, 40)
    monkeypatch.setattr(distillation, "ANGLED", 10)
    places = torch.linspace(0, 39, 10).long()
    close(match_angles(ours, theirs), match_angles(ours[places], theirs[places]))


@few
@given(SEEDS, st.integers(2, 12), st.integers(1, 12))
def test_vectors_of_another_length_keep_their_products_as_well_as_can_be(seed: int, n: int, dimension: int) -> None:
    teacher = points(seed, n)[0].detach().numpy()
    found = fit_vectors(teacher, dimension)
    assert found.shape == (n, dimension)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    if dimension >= min(n, 8):  # nothing has to be lost
        np.testing.assert_allclose(found @ found.T, teacher @ teacher.T, atol=1e-4)
