import pytest
import torch
from draws import close, points, random_relation
from torch.nn import functional

from qpairs.core.exceptions import UserError
from qpairs.objectives.labels import BatchLabels
from qpairs.objectives.losses.in_batch import info_nce
from qpairs.objectives.losses.pairwise import contrastive
from qpairs.objectives.matryoshka import prefix_lengths, prefix_loss, require_prefixes
from qpairs.objectives.objective import parse_objective
from qpairs.objectives.relations import Relation


def knowledge(seed, n):
    relation = random_relation(seed, n, n)
    labelled = relation.negative & (torch.arange(n) % 2 == 0)
    return BatchLabels(relation.positive, labelled, relation.negative)


def test_the_loss_is_the_mean_of_the_losses_of_prefixes_of_unit_length():
    (leaf,), known = points(0, 8), knowledge(0, 8)
    whole, dimension = functional.normalize(leaf, dim=1), leaf.shape[1]
    lengths = (dimension, dimension // 2, 2)
    loss = prefix_loss(parse_objective("info_nce + 0.5*contrastive"), whole, whole, known, lengths)
    expected = []
    for length in lengths:
        part = whole[:, :length] / whole[:, :length].square().sum(1, keepdim=True).sqrt()
        in_batch, labelled = Relation(known.positive, known.unrelated), Relation(known.positive, known.labelled)
        distance = (part[:, None] - part[None]).square().sum(2).clamp(min=1e-12).sqrt()
        expected.append(info_nce(part @ part.T, in_batch) + 0.5 * contrastive(-distance, labelled))
    by_hand = sum(expected) / len(lengths)
    close(loss, by_hand)
    close(*(torch.autograd.grad(each, leaf, retain_graph=True)[0] for each in (loss, by_hand)))


def test_two_towers_are_cut_each():
    (rows, columns), known = points(1, 6, 6), knowledge(1, 6)
    objective = parse_objective("info_nce")
    short = [functional.normalize(side[:, :3], dim=1) for side in (rows, columns)]
    close(prefix_loss(objective, rows, columns, known, [3]), objective(*short, known))
    assert prefix_loss(objective, rows, columns, known, [rows.shape[1]]) == objective(rows, columns, known)


def test_prefixes_are_made_in_float32_also_under_autocast():
    (rows,), known = points(0, 8, dtype=torch.bfloat16), knowledge(0, 8)
    expected = prefix_loss(parse_objective("info_nce"), rows.float(), rows.float(), known, [8, 3])
    with torch.autocast("cpu", torch.bfloat16):
        assert prefix_loss(parse_objective("info_nce"), rows, rows, known, [8, 3]) == expected


def test_the_full_length_is_always_among_the_lengths():
    assert prefix_lengths((96, 192), 384) == (384, 192, 96)
    assert prefix_lengths((384,), 384) == (384,)
    assert prefix_lengths((), 384) == ()
    with pytest.raises(UserError, match="dims: 385 is out of range; the vectors of the encoder have 384 numbers"):
        prefix_lengths((385, 96), 384)


@pytest.mark.parametrize("loss", ["pair_softmax", "info_nce + 0.1*center", "cosface"])
def test_losses_with_weights_for_whole_vectors_are_refused(loss):
    with pytest.raises(UserError, match="learns weights for whole vectors"):
        require_prefixes(parse_objective(loss))
