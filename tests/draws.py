"""What several test files draw at random, and how they compare."""

import torch
from torch.nn import functional

from qpairs.objectives.relations import Relation


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
