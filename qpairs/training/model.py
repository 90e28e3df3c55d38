"""What the Trainer trains: an encoder, an objective and the objective's learned parameters, as one module."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qpairs.encoders.packed import outputs
from qpairs.encoders.towers import towers
from qpairs.objectives.distillation import Distillation
from qpairs.objectives.labels import BatchLabels
from qpairs.objectives.matryoshka import prefix_loss
from qpairs.objectives.objective import Objective
from qpairs.objectives.pair_head import Score
from qpairs.objectives.queue import Queue, with_queue
from qpairs.training.batches import Batch, Features, Questions
from qpairs.training.distributed import gather, same_draws
from qpairs.training.trainer import check_loss


class PairModel(nn.Module):
    """The loss of a batch, and the scores of its pairs.

    Args:
        encoder: texts to unit embeddings, with one tower or two.
        objective: the loss.
        learned: prototypes and heads of the objective, as `objective.learned` makes them.
        score: the score that a verdict on a pair reads.
        recompute: whether to drop the activations of a chunk of questions after the forward pass and compute them
            again, with the same dropout, when its gradient comes: gradient caching (Gao et al. 2021, section 3).
        lengths: of the prefixes whose losses are averaged, from `matryoshka.prefix_lengths`; none: whole embeddings.
        distillation: what is learned from the vectors of a teacher, in batches that have them.
        queue: vectors of past batches, which are further columns in training; None: there are none.
    """

    def __init__(
        self,
        encoder: SentenceTransformer,
        objective: Objective,
        learned: nn.ModuleDict,
        score: Score,
        recompute: bool = False,
        lengths: tuple[int, ...] = (),
        distillation: Distillation | None = None,
        queue: Queue | None = None,
    ) -> None:
        super().__init__()
        self.distillation, self.queue = distillation, queue
        self.recompute, self.lengths = recompute, lengths
        self.encoder, self.objective, self.learned, self.score = encoder, objective, learned, score
        self.towers = towers(encoder)  # a tuple, so that the parameters are registered once, under the encoder
        self.register_state_dict_post_hook(_drop_shared)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_restore_shared)  # type: ignore[no-untyped-call]

    def forward(self, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        """The loss, a scalar, and the scores (k,) of the labelled pairs.

        Args:
            batch: of n row and m column questions.
            labels: (k,) those of the batch; read only by the Trainer.

        Raises:
            Diverged: the loss is not a finite number.
        """
        known = BatchLabels(**batch["known"])  # type: ignore[arg-type]
        n, m = known.positive.shape
        rows = gather(self._embed(self.towers[0], batch["rows"]["features"]), n)  # (n, d)
        columns, members = rows, (rows, batch["rows"]["component"])
        if batch["columns"] is not None:
            columns = gather(self._embed(self.towers[1], batch["columns"]["features"]), m)  # (m, d)
            components = torch.cat([batch["rows"]["component"], batch["columns"]["component"]])  # (n + m,)
            members = torch.cat([rows, columns]), components
        queue, seen = self.queue if self.training else None, columns
        if queue is not None:
            seen, known = with_queue(queue, columns, known, batch["rows"]["ids"])  # (m + k, d)
        with same_draws(batch["seed"]):
            if self.lengths:
                loss = prefix_loss(self.objective, rows, seen, known, self.lengths)
            else:
                loss = self.objective(rows, seen, known, members, self.learned)
        if self.distillation is not None:
            loss = loss + self._distilled(self.distillation, (rows, batch["rows"]), (columns, batch["columns"]))
        check_loss(loss)
        if queue is not None:
            queue.push(rows, batch["rows"]["ids"])
        with torch.no_grad():
            return {"loss": loss, "scores": self.score(rows.float(), columns.float(), batch["left"], batch["right"])}

    def _distilled(self, distillation: Distillation, *sides: tuple[Tensor, Questions | None]) -> Tensor | float:
        """What the vectors of a teacher add to the loss: the mean over both sides if a batch has two."""
        costs = [
            distillation(embeddings, side["taught"])
            for embeddings, side in sides
            if side is not None and side["taught"] is not None
        ]
        return torch.stack(costs).mean() if costs else 0.0

    def _embed(self, tower: SentenceTransformer, chunks: list[Features]) -> Tensor:
        """Embeddings (k, d) of the questions of some chunks."""
        if self.recompute and self.training:
            return torch.cat([checkpoint(_embeddings, tower, chunk, use_reentrant=False) for chunk in chunks])
        return torch.cat([_embeddings(tower, chunk) for chunk in chunks])


def _embeddings(tower: SentenceTransformer, chunk: Features) -> Tensor:
    return outputs(tower, chunk)["sentence_embedding"]  # (k, d)


def _shared_names(module: nn.Module) -> dict[str, str]:
    """Second names of parameters that have several, such as shared word vectors -> their first names."""
    first: dict[nn.Parameter, str] = {}
    named = module.named_parameters(remove_duplicate=False)
    return {name: first[p] for name, p in named if first.setdefault(p, name) != name}


def _drop_shared(module: nn.Module, state: dict[str, Tensor], prefix: str, *metadata: Any) -> None:
    """Keeps each tensor of a state dict once: safetensors refuses duplicates."""
    for name in _shared_names(module):
        del state[prefix + name]


def _restore_shared(module: nn.Module, state: dict[str, Tensor], prefix: str, *details: Any) -> None:
    for name, first in _shared_names(module).items():
        state.setdefault(prefix + name, state[prefix + first])
