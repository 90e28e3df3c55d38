"""Adding a loss or a miner: one function and one row, both in one file."""

import inspect

import pytest
import torch
from draws import points, random_relation

from qpairs.core.exceptions import UserError
from qpairs.core.ranges import Range
from qpairs.objectives import miners
from qpairs.objectives.labels import BatchLabels
from qpairs.objectives.losses import LOSSES, LossEntry, in_batch, pairwise, prototypes, triplets
from qpairs.objectives.miners import MINERS, MinerEntry, parse_miner
from qpairs.objectives.objective import parse_objective
from qpairs.objectives.relations import Relation
from qpairs.objectives.similarities import cosine


def hinge(sim: torch.Tensor, relation: Relation, margin: float = 0.5) -> torch.Tensor:
    """Hinge loss: duplicates above the margin.

    max(0, margin - s), sum over the positive pairs. Nobody 2026.

    Args:
        sim: (n, m) cosine similarity.
        relation: masks (n, m).
        margin: least similarity of a duplicate.

    Example:
        >>> hinge(torch.tensor([[0.2]]), Relation.from_text("+"))
        tensor(0.3000)
    """
    return (margin - sim[relation.positive]).relu().sum()


def above(sim: torch.Tensor, relation: Relation, floor: float = 0.3) -> Relation:
    """The pairs above a similarity.

    Args:
        sim: (n, m) similarity.
        relation: masks (r, m).
        floor: least similarity.
    """
    return Relation(relation.positive & (sim > floor), relation.negative & (sim > floor))


def test_a_loss_is_a_function_and_a_row(run, monkeypatch):
    monkeypatch.setitem(
        LOSSES, "hinge", LossEntry(hinge, "cosine", "Nobody 2026", "max(0, margin - s)", {"margin": Range(above=0)})
    )
    (rows,), relation = points(0, 8), random_relation(0, 8, 8)
    labels = BatchLabels(relation.positive, relation.negative, relation.negative)
    loss = parse_objective("2*hinge(margin=0.9)")(rows, rows, labels)
    assert loss == 2 * hinge(cosine(rows, rows), relation, margin=0.9)
    with pytest.raises(UserError, match="loss: hinge: margin: -1, must be > 0"):
        parse_objective("hinge(margin=-1)")
    described = run("losses", "hinge").out
    assert all(words in described for words in ("hinge, a loss", "Nobody 2026", "margin=0.5", "least similarity of a"))
    assert "max(0, margin - s)" in run("losses").out


def test_a_miner_is_a_function_and_a_row(run, monkeypatch):
    monkeypatch.setitem(
        MINERS,
        "above",
        MinerEntry(above, "Nobody 2026", "pairs above a floor", {"floor": Range(at_least=-1, at_most=1)}),
    )
    (rows,), relation = points(0, 8), random_relation(0, 8, 8)
    sim = cosine(rows, rows)
    mined = parse_miner("above(floor=0.1)")(sim, relation)
    assert mined.positive.equal(relation.positive & (sim > 0.1))
    with pytest.raises(UserError, match="miner: above: floor: 2, must be -1 <= floor <= 1"):
        parse_miner("above(floor=2)")
    described = run("losses", "above").out
    assert all(words in described for words in ("above, a miner", "Nobody 2026", "floor=0.3", "least similarity."))
    assert "pairs above a floor" in run("losses").out


def test_a_row_stands_in_the_file_of_its_function():
    tables = (
        (pairwise, pairwise.PAIRWISE),
        (triplets, triplets.TRIPLETS),
        (in_batch, in_batch.IN_BATCH),
        (prototypes, prototypes.PROTOTYPES),
        (miners, MINERS),
    )
    for module, table in tables:
        assert all(inspect.getmodule(entry.function) is module for entry in table.values())
    assert {name for _, table in tables[:-1] for name in table} == set(LOSSES)
    assert sum(len(table) for _, table in tables[:-1]) == len(LOSSES)


def test_reading_an_expression_runs_no_loss(monkeypatch):
    """It used to run the loss on a 2 x 2 matrix, and a loss that needs more died with a raw RuntimeError."""

    def demanding(sim: torch.Tensor, relation: Relation) -> torch.Tensor:
        return sim.topk(9, dim=1).values.mean()

    monkeypatch.setitem(LOSSES, "demanding", LossEntry(demanding))
    (rows,), relation = points(0, 12), random_relation(0, 12, 12)
    labels = BatchLabels(relation.positive, relation.negative, relation.negative)
    assert parse_objective("demanding")(rows, rows, labels) == cosine(rows, rows).topk(9, dim=1).values.mean()


@pytest.mark.parametrize(
    ("what", "name", "entry"),
    [("loss", *row) for row in LOSSES.items()] + [("miner", *row) for row in MINERS.items()],
    ids=[*LOSSES, *MINERS],
)
def test_every_range_of_a_row_is_checked(what, name, entry):
    parse = parse_objective if what == "loss" else parse_miner
    assert set(entry.ranges) <= set(entry.parameters)
    must_have_one = {"scale", "temperature", "alpha", "beta"} | ({"margin"} if what == "miner" else set())
    assert must_have_one & set(entry.parameters) <= set(entry.ranges)
    for parameter, allowed in entry.ranges.items():
        assert allowed.allows(entry.parameters[parameter])
        bounds = {"above": 0, "at_least": -1, "below": 0, "at_most": 1}  # and what leads from each out of the range
        outside = [getattr(allowed, name) + step for name, step in bounds.items() if getattr(allowed, name) is not None]
        for value in outside:
            with pytest.raises(UserError, match=rf"^{what}: {name}: {parameter}: {value}, must be "):
                parse(f"{name}({parameter}={value})")
