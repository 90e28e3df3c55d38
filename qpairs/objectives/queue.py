"""A queue of the vectors of past batches: more columns, and so more negatives, than a batch has questions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qpairs.core.exceptions import UserError
from qpairs.objectives.labels import BatchLabels, LabelGraph, batch_labels
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.objective import Objective

EMPTY = -1  # id of a place that holds no question


class Queue(nn.Module):
    """The last vectors of the questions of past batches, first in, first out: further columns of the similarities.

    Wang et al. 2020 (cross-batch memory, section 3.2): the vectors are those of the encoder itself as it was a few
    steps ago, and no gradient reaches them. He et al. 2020 (MoCo, section 3.1) make them with a second encoder that
    follows slowly, which doubles the encoder's memory and its work; when an encoder is fine-tuned, its own vectors
    change little between two steps.

    Each vector has its question's id, from which the labels are read. So a question is never a negative of itself, nor
    of another one of its component, however long ago it was encoded; those of one component are positives. A question
    is in the queue at most once, and not at all while it is in the batch. The state is saved with the model.

    Attributes:
        vectors: (size, d) in float32.
        ids: (size,) int64, the question of each; EMPTY where there is none.
        place: () int64, where the next vector goes.

    >>> from qpairs.objectives.labels import label_graph
    >>> component = torch.tensor([0, 0, 1, 2])
    >>> graph = label_graph(component, component, torch.tensor([1]), torch.tensor([2]))
    >>> queue = Queue(2, 2, graph)
    >>> queue.push(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), torch.tensor([0, 1, 2]))  # 0 falls out
    >>> queue.ids
    tensor([1, 2])
    >>> columns, labels = queue.columns(torch.tensor([0, 3]), torch.tensor([0, 3]))
    >>> columns
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    >>> print(labels.relation(in_batch=True))
    + -
    - -
    """

    vectors: Tensor
    ids: Tensor
    place: Tensor

    def __init__(self, size: int, dimension: int, graph: LabelGraph) -> None:
        """An empty queue.

        Args:
            size: vectors in it, at most.
            dimension: of the embeddings.
            graph: labels of the question table whose ids are pushed; not part of the state.
        """
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, dimension))
        self.register_buffer("ids", torch.full((size,), EMPTY))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.graph = graph  # no buffer: several processes would send it round at every step

    def columns(self, rows: Tensor, batch: Tensor) -> tuple[Tensor, BatchLabels]:
        """The vectors (k, d) of the questions that are not in the batch, and the labels (n, k) of rows and them.

        Args:
            rows: (n,) int64 question ids.
            batch: (m,) int64 question ids of the columns that the batch has already.
        """
        if self.graph.component.device != self.ids.device:
            self.graph = LabelGraph(**{name: values.to(self.ids.device) for name, values in vars(self.graph).items()})
        kept = (self.ids != EMPTY) & ~torch.isin(self.ids, batch)  # (size,)
        return self.vectors[kept], batch_labels(self.graph, rows, self.ids[kept])

    @torch.no_grad()
    def push(self, vectors: Tensor, ids: Tensor) -> None:
        """Puts the vectors of a batch in the place of the oldest; older vectors of the same questions go.

        Args:
            vectors: (m, d); of more than the queue holds, the last.
            ids: (m,) int64, distinct.
        """
        vectors, ids = vectors[-len(self.ids) :], ids[-len(self.ids) :]
        self.ids[torch.isin(self.ids, ids)] = EMPTY
        places = (self.place + torch.arange(len(ids), device=ids.device)) % len(self.ids)  # (m,)
        self.vectors[places], self.ids[places] = vectors.detach().to(self.vectors.dtype), ids
        self.place.copy_((self.place + len(ids)) % len(self.ids))


def with_queue(queue: Queue, columns: Tensor, labels: BatchLabels, ids: Tensor) -> tuple[Tensor, BatchLabels]:
    """The columns of a batch and those of a queue behind them, and the labels of both.

    Args:
        queue: of past vectors.
        columns: (m, d) embeddings of the batch, which are its rows, too.
        labels: of rows x columns, (m, m).
        ids: (m,) int64 question ids.

    Returns:
        (m + k, d) and the labels (m, m + k). No teacher has scored the pairs with the queue.
    """
    past, more = queue.columns(ids, ids)  # (k, d), labels (m, k)
    probability, apart = labels.teacher_probability, labels.apart
    if probability is not None:
        unjudged = probability.new_full((len(ids), len(past)), torch.nan)
        probability = torch.cat([probability, unjudged], dim=1)
    positive, labelled, unrelated = (
        torch.cat([getattr(labels, name), getattr(more, name)], dim=1) for name in ("positive", "labelled", "unrelated")
    )
    if apart is not None:
        apart = torch.cat([apart, torch.zeros_like(more.labelled)], dim=1)
    both = BatchLabels(positive, labelled, unrelated, teacher_probability=probability, apart=apart)
    return torch.cat([columns, past.to(columns.dtype)]), both


def require_in_batch(objective: Objective, loss: str) -> None:
    """Raises UserError if no loss takes unlabelled questions as negatives, which a queue provides.

    Args:
        objective: that is trained with a queue.
        loss: what the user calls it.
    """
    if not any(term.entry.in_batch for term in objective.terms):
        taking = ", ".join(name for name, entry in LOSSES.items() if entry.in_batch)
        raise UserError(
            f"queue: no part of {loss!r} takes other questions as negatives, which a queue provides; use one of "
            f"{taking}"
        )
