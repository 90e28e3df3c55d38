"""Losses and miners that are functions of the user: `qpairs.train(loss=my_loss, miner=my_miner)`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qpairs.core.exceptions import UserError
from qpairs.objectives.expressions import FUNCTION, Function
from qpairs.objectives.losses import LossEntry
from qpairs.objectives.miners import Miner, parse_miner
from qpairs.objectives.objective import Objective, Term, parse_objective
from qpairs.objectives.relations import Relation


def separate_functions(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Function]]:
    """Splits options into values that a config can hold, with names in place of functions, and the functions.

    Args:
        options: fields of a config, of which `loss` and `miner` may be functions instead of expressions.

    Returns:
        Options that a config can hold; functions by option.
    """
    functions = {what: options[what] for what in ("loss", "miner") if callable(options.get(what))}
    return {**options, **{what: function_name(function) for what, function in functions.items()}}, functions


def function_name(function: Function) -> str:
    """The name of a function in a config: `function module.name`."""
    function = function.function if isinstance(function, LossEntry) else function
    if isinstance(function, functools.partial):
        given = [*map(repr, function.args), *(f"{name}={value!r}" for name, value in function.keywords.items())]
        return f"{function_name(function.func)}({', '.join(given)})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{FUNCTION}{named.__module__}.{named.__qualname__}"


def objective_of(loss: str | Function, miner: str | Function = "everything") -> Objective:
    """The objective of a loss and a miner, each an expression or a function.

    Args:
        loss: an expression of losses; or (sim, Relation) -> scalar, on the cosine similarity, with unlabelled pairs of
            different components as negatives, too; or a `LossEntry` that says otherwise.
        miner: an expression; or (sim, Relation) -> Relation.

    Raises:
        UserError: no such loss or miner, or a function of other arguments.

    Example:
        >>> def margin_loss(sim: Tensor, relation: Relation) -> Tensor:
        ...     return (0.5 - sim[relation.positive]).relu().sum() + (sim[relation.negative] - 0.5).relu().sum()
        >>> objective_of(margin_loss).terms[0].name
        'qpairs.objectives.functions.margin_loss'
    """
    objective = parse_objective(loss) if isinstance(loss, str) else Objective((_term(loss),))
    if miner == "everything":
        return objective
    return replace(objective, miner=parse_miner(miner) if isinstance(miner, str) else _checked_miner(miner))


def _term(loss: Function) -> Term:
    name = _checked_name("loss", loss)
    return Term(name, custom=loss if isinstance(loss, LossEntry) else LossEntry(loss, in_batch=True))


def _checked_miner(miner: Function) -> Miner:
    """The miner without a gradient, its results checked."""
    name = _checked_name("miner", miner)

    def mine(sim: Tensor, relation: Relation) -> Relation:
        with torch.no_grad():
            mined = miner(sim.detach(), relation)
        shape = (len(sim) if getattr(mined, "rows", None) is None else len(mined.rows), sim.shape[1])
        if not isinstance(mined, Relation) or any(
            mask.dtype != torch.bool or mask.shape != shape for mask in (mined.positive, mined.negative)
        ):
            raise UserError(f"miner: {name} must return a Relation of two boolean masks of shape {shape}")
        return mined

    return mine


def _checked_name(what: str, function: Function) -> str:
    """The qualified name of a function that can be called with (sim, relation)."""
    name = function_name(function).removeprefix(FUNCTION)
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise UserError(f"{what}: {name} must take two arguments, (sim, relation)") from None
    except ValueError:  # a function of C, which does not say what it takes
        pass
    return name
