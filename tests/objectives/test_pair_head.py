import torch
from draws import points

from qpairs.objectives.pair_head import PairHead, Score


def random_head(d):
    head = PairHead(d)
    with torch.no_grad():
        head.weight.normal_()
        head.bias.normal_()
    return head


def test_a_head_is_a_linear_classifier_on_u_v_their_gap_and_their_product():
    rows, columns = (x.detach() for x in points(0, 7, 5, d=16))
    head = random_head(rows.shape[1])
    logits = head(rows, columns)
    for i, u in enumerate(rows):
        for j, v in enumerate(columns):
            features = torch.cat([u, v, (u - v).abs(), u * v])
            torch.testing.assert_close(logits[i, j], features @ head.weight.flatten() + head.bias)
    pairs = head.probability(rows[[0, 1]], columns[[1, 0]])
    torch.testing.assert_close(pairs, torch.sigmoid(torch.stack([logits[0, 1], logits[1, 0]])))


def test_a_head_starts_as_a_verdict_on_the_cosine():
    rows, columns = (x.detach() for x in points(0, 7, 5, d=16))
    torch.testing.assert_close(PairHead(rows.shape[1])(rows, columns), 20 * (rows @ columns.T - 0.75))


def test_a_score_is_the_mean_of_both_directions_where_they_differ():
    (rows, columns), (left, right) = points(0, 7, 5, d=16), torch.tensor([[0, 1], [2, 0]])
    rows, columns = rows.detach()[:3], columns.detach()[:3]
    one_way = (rows[left] * columns[right]).sum(1)
    other_way = (rows[right] * columns[left]).sum(1)
    torch.testing.assert_close(Score(symmetric=False)(rows, columns, left, right), one_way)
    torch.testing.assert_close(Score()(rows, columns, left, right), (one_way + other_way) / 2)
    assert Score()(rows, rows, left, right).equal((rows[left] * rows[right]).sum(1))
    head = random_head(rows.shape[1])
    there, back = head.probability(rows[left], rows[right]), head.probability(rows[right], rows[left])
    torch.testing.assert_close(Score(head)(rows, rows, left, right), (there + back) / 2)
    torch.testing.assert_close(Score(head)(rows, rows, right, left), (there + back) / 2)
    torch.testing.assert_close(Score(head, symmetric=False)(rows, rows, left, right), there)
