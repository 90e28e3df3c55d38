"""The queue of past vectors: what is in it, what the relation says of its columns, and losses against an oracle."""

import pytest
import torch
from draws import close, points
from hypothesis import given, settings
from hypothesis import strategies as st

from qpairs.core.exceptions import UserError
from qpairs.objectives.labels import BatchLabels, batch_labels, label_graph
from qpairs.objectives.objective import parse_objective
from qpairs.objectives.queue import EMPTY, Queue, require_in_batch, with_queue

SEEDS = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=30)
QUESTIONS = 12


def random_graph(seed: int):
    """Labels over QUESTIONS questions: components, clusters that join some of them, and pairs labelled 0."""
    random = torch.Generator().manual_seed(seed)
    component = torch.randint(6, (QUESTIONS,), generator=random)
    ends = torch.randint(QUESTIONS, (2, 8), generator=random)
    return label_graph(component, component // 2, *ends)


def batches(seed: int, count: int, size: int):
    """Vectors (size, 3) and distinct ids (size,) of some batches."""
    random = torch.Generator().manual_seed(seed)
    for number in range(count):
        yield points(seed + number, size, size)[0], torch.randperm(QUESTIONS, generator=random)[:size]


@few
@given(SEEDS, st.integers(1, 9), st.integers(1, 6), st.integers(1, 5))
def test_it_holds_the_newest_vector_of_the_last_questions(seed: int, size: int, count: int, batch: int) -> None:
    queue = Queue(size, 8, random_graph(seed))
    slots: list[tuple[int, torch.Tensor] | None] = [None] * size  # the oldest first
    for vectors, ids in batches(seed % 1000, count, batch):
        queue.push(vectors, ids)
        new = list(zip(ids.tolist(), vectors, strict=True))
        slots = [slot if slot and slot[0] not in ids else None for slot in slots]
        slots = [*slots, *new][-size:]
    expected = {slot[0]: slot[1] for slot in slots if slot}
    assert sorted(queue.ids[queue.ids != EMPTY].tolist()) == sorted(expected)
    for place, question in enumerate(queue.ids.tolist()):
        if question != EMPTY:
            assert queue.vectors[place].equal(expected[question].float())


@few
@given(SEEDS, st.sampled_from(["info_nce(temperature=0.1)", "triplet", "strangers", "0.5*contrastive + info_nce"]))
def test_a_loss_with_a_queue_is_the_loss_of_the_batch_beside_the_past_ones(seed: int, loss: str) -> None:
    """Oracle: the columns are the batch, then every other question of the past with its newest vector."""
    graph, objective = random_graph(seed), parse_objective(loss)
    *past, (rows, ids) = batches(seed % 1000, 4, 4)
    queue = Queue(QUESTIONS, rows.shape[1], graph).double()
    newest: dict[int, torch.Tensor] = {}
    for vectors, questions in past:
        queue.push(vectors, questions)
        newest |= dict(zip(questions.tolist(), vectors, strict=True))
    others = [question for question in newest if question not in ids]
    columns = torch.cat([rows, *(newest[question][None].to(rows) for question in others)])
    expected = objective(rows, columns, batch_labels(graph, ids, torch.cat([ids, torch.tensor(others, dtype=int)])))
    own = rows.detach().requires_grad_()
    value = objective(own, *with_queue(queue, own, batch_labels(graph, ids, ids), ids))
    close(value, expected)
    value.backward()
    assert own.grad.isfinite().all() and not queue.vectors.requires_grad  # no gradient reaches the past


@few
@given(SEEDS)
def test_a_duplicate_in_the_queue_is_positive_and_never_a_negative(seed: int) -> None:
    graph = random_graph(seed)
    *past, (rows, ids) = batches(seed % 1000, 5, 4)
    queue = Queue(8, rows.shape[1], graph)
    for vectors, questions in past:
        queue.push(vectors, questions)
    columns, labels = queue.columns(ids, ids)
    kept = queue.ids[(queue.ids != EMPTY) & ~torch.isin(queue.ids, ids)]
    assert len(columns) == len(kept) == labels.positive.shape[1]
    relation = labels.relation(in_batch=True)
    zeros = {
        frozenset((q, int(o))) for q in range(QUESTIONS) for o in graph.others[graph.start[q] : graph.start[q + 1]]
    }
    for i, row in enumerate(ids.tolist()):
        for j, column in enumerate(kept.tolist()):
            assert row != column
            same = bool(graph.component[row] == graph.component[column])
            labelled = frozenset((row, column)) in zeros
            apart = bool(graph.cluster[row] != graph.cluster[column])
            assert relation.positive[i, j] == (same and not labelled)
            assert relation.negative[i, j] == (not same and (labelled or apart))


def test_no_teacher_has_judged_the_queue() -> None:
    graph = random_graph(0)
    queue = Queue(4, 3, graph)
    queue.push(torch.eye(3), torch.tensor([0, 1, 2]))
    ids = torch.tensor([3, 4])
    labels = batch_labels(graph, ids, ids)
    judged = BatchLabels(labels.positive, labels.labelled, labels.unrelated, None, torch.full((2, 2), 0.7))
    _, both = with_queue(queue, torch.eye(3)[:2], judged, ids)
    assert both.teacher_probability.shape == (2, 5)
    assert both.teacher_probability[:, :2].equal(judged.teacher_probability)
    assert both.teacher_probability[:, 2:].isnan().all()


def test_losses_that_have_no_use_for_it_are_refused() -> None:
    for loss in ("contrastive", "softmax", "logistic + cosent", "pair_softmax"):
        with pytest.raises(UserError, match=r"queue: no part of '.*' takes other questions .* use one of .*info_nce"):
            require_in_batch(parse_objective(loss), loss)
    require_in_batch(parse_objective("contrastive + 0.1*info_nce"), "")
