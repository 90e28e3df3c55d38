"""The optimiser: AdamW with a learning rate for each part of a model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from qpairs.config import Config
from qpairs.encoders.build import tower_names
from qpairs.training.model import PairModel

LEARNING_RATES = {"lstm": 3e-3, "cnn": 1e-3, "static": 1e-2, "tiny": 5e-4}
FINE_TUNING_RATE = 5e-5  # of pretrained encoders
HEAD_RATE = 1e-2  # of prototypes and of a head on pairs


def adamw(parts: Iterable[tuple[nn.Module, float, float | None]]) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) in which a parameter has the options of the first part that it is in.

    Args:
        parts: module, learning rate, and weight decay of its matrices; vectors never decay. None: nothing decays.

    >>> optimizer = adamw([(nn.Linear(3, 2), 0.1, 0.01)])
    >>> [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    [(0.1, 0.01), (0.1, 0.0)]
    """
    seen: set[nn.Parameter] = set()
    groups: list[dict[str, object]] = []

    def add(parameters: Iterable[nn.Parameter], rate: float, decay: float) -> None:
        fresh = [p for p in parameters if p.requires_grad and p not in seen]
        seen.update(fresh)
        if fresh:
            groups.append({"params": fresh, "lr": rate, "weight_decay": decay})

    for module, rate, decay in parts:
        if decay is not None:
            add((p for p in module.parameters() if p.ndim > 1), rate, decay)
        add(module.parameters(), rate, 0.0)
    return torch.optim.AdamW(groups, fused=True)


def pair_optimizer(model: PairModel, config: Config, rate_factor: float = 1.0) -> torch.optim.AdamW:
    """The optimiser of a model: each tower has its own learning rate, and so have prototypes and head.

    Args:
        model: what is trained.
        config: its encoder, learning rate and weight decay.
        rate_factor: factor on all learning rates.
    """
    names = zip(tower_names(config.encoder), model.towers, strict=False)
    parts: list[tuple[nn.Module, float, float | None]] = [
        (tower, (config.learning_rate or LEARNING_RATES.get(name, FINE_TUNING_RATE)) * rate_factor, config.weight_decay)
        for name, tower in names
    ]
    return adamw([*parts, (model.learned, HEAD_RATE * rate_factor, None)])
