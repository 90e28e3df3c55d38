"""Losses that are called directly with similarities of 16 bits are computed in 32."""

import pytest
import torch

from qpairs.objectives.losses import LOSSES, pair_weights
from qpairs.objectives.relations import Relation


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_is_that_of_the_same_numbers_in_float32(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    sim = (2 * torch.rand(40, 40) - 1).to(dtype)
    groups = torch.arange(40) // 4
    same = groups[:, None] == groups
    one = torch.eye(40, dtype=torch.bool) if LOSSES[name].prototypes else same & ~torch.eye(40, dtype=torch.bool)
    relation = Relation(one, ~same)
    loss = LOSSES[name].function
    half = sim.clone().requires_grad_()
    found = loss(half, relation)
    assert found.dtype == torch.float32 and bool(found.isfinite())
    torch.testing.assert_close(found, loss(sim.float(), relation))
    torch.testing.assert_close(LOSSES[name](sim, relation), found)
    found.backward()
    assert half.grad is not None and bool(half.grad.isfinite().all())
    assert pair_weights(name, sim, relation).isfinite().all()
