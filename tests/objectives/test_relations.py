import torch

from qpairs.objectives.relations import Relation, select_rows


def test_the_rows_that_a_miner_selected_are_applied_once():
    """A second selection used to index the selected rows again, silently."""
    sim, mask = torch.arange(6.0).reshape(3, 2), torch.ones(3, 2, dtype=torch.bool)
    whole = Relation(mask, ~mask)
    assert select_rows(sim, whole) == (sim, whole)
    probability = torch.rand(3, 2)
    mined = Relation(mask, ~mask, torch.tensor([2, 0, 1]), probability)
    selected, relation = select_rows(sim, mined)
    assert selected.tolist() == [[4, 5], [0, 1], [2, 3]]
    assert relation.rows is None
    assert (relation.positive, relation.teacher_probability) == (mined.positive, mined.teacher_probability)
    again, same = select_rows(selected, relation)
    assert again is selected
    assert same is relation


def test_a_relation_is_drawn_in_text():
    relation = Relation.from_text("+-.", "..+")
    assert relation.positive.tolist() == [[True, False, False], [False, False, True]]
    assert relation.negative.tolist() == [[False, True, False], [False, False, False]]
    assert str(relation) == "+ - .\n. . +"
    assert str(Relation(relation.positive, relation.negative, torch.tensor([4, 0]))) == "4: + - .\n0: . . +"
