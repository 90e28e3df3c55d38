"""The losses and miners in words."""

import pytest

from qpairs import LOSSES, MINERS, UserError
from qpairs.objectives.descriptions import describe


def test_all_are_described_in_the_order_of_their_tables() -> None:
    found = describe()
    assert [row.name for row in found if row.kind == "loss"] == list(LOSSES)
    assert [row.name for row in found if row.kind == "miner"] == list(MINERS)
    assert all(row.formula and row.paper and row.paragraphs for row in found)
    assert all(row.similarity and row.negatives for row in found if row.kind == "loss")


@pytest.mark.parametrize("found", describe(), ids=lambda row: row.name)
def test_every_parameter_has_a_meaning(found) -> None:
    assert all(found.meanings.get(name) for name in found.parameters)


@pytest.mark.parametrize(
    ("name", "negatives"),
    [
        ("contrastive", "labelled"),
        ("info_nce", "labelled, in-batch"),
        ("strangers", "in-batch"),
        ("arcface", "prototypes"),
        ("center", "none"),
    ],
)
def test_what_a_loss_counts_as_non_duplicates(name: str, negatives: str) -> None:
    assert [row.negatives for row in describe(name)] == [negatives]


def test_an_unknown_name_is_one_line_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no loss or miner 'semihard'; did you mean 'semi_hard'"):
        describe("semihard")
