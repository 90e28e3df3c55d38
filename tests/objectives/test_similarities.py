import pytest
import torch

from qpairs.objectives.similarities import SIMILARITIES, cosine, euclidean


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
