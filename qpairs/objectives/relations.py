"""Relations: which pairs of row and column questions are duplicates and which are not.

A loss reads a similarity matrix `sim` (n, m), greater is closer, and a `Relation` of the same shape, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Relation:
    """Masks over pairs of row and column questions. A pair in neither mask is unknown, or not used.

    Attributes:
        positive: (n, m) bool, duplicates.
        negative: (n, m) bool, non-duplicates, labelled or assumed.
        rows: (n,) int64, set by miners: the row of `sim` that each row of the masks belongs to. None: row i of the
            masks belongs to row i of `sim`. Losses never see it set, see `select_rows`.
        teacher_probability: (n, m) probability of being duplicates, for losses that learn from a teacher, or graded
            labels from 0 to 1; read only where a mask holds. None: there is neither a teacher nor a grade.

    Example:
        >>> relation = Relation.from_text("+-", ".-")
        >>> relation.positive
        tensor([[ True, False],
                [False, False]])
        >>> print(relation)
        + -
        . -
    """

    positive: Tensor
    negative: Tensor
    rows: Tensor | None = None
    teacher_probability: Tensor | None = None

    @classmethod
    def from_text(cls, *rows: str) -> Relation:
        """A relation drawn in text: a string per row, with `+` for positive, `-` for negative, `.` for neither.

        >>> print(Relation.from_text("+-", ".-"))
        + -
        . -
        """
        return cls(*(torch.tensor([[sign == mark for sign in row] for row in rows]) for mark in "+-"))

    def __str__(self) -> str:
        """The masks drawn in text; where a miner has selected rows, each with the row of `sim` in front."""
        names = [""] * len(self.positive) if self.rows is None else [f"{row}: " for row in self.rows.tolist()]
        masks = zip(names, self.positive.tolist(), self.negative.tolist(), strict=True)
        return "\n".join(
            name + " ".join("+" if p else "-" if n else "." for p, n in zip(positive, negative, strict=True))
            for name, positive, negative in masks
        )


def select_rows(sim: Tensor, relation: Relation) -> tuple[Tensor, Relation]:
    """The rows of `sim` that a mined relation belongs to, and the relation with `rows` cleared.

    Since `rows` is cleared, no row is selected twice.

    Args:
        sim: (n, m) similarity.
        relation: masks (r, m); r = n where `relation.rows` is None.

    Returns:
        Similarity (r, m), and masks (r, m) over it.

    Example:
        >>> sim = torch.tensor([[0.1], [0.2], [0.3]])
        >>> mask = torch.tensor([[True], [True]])
        >>> sim, relation = select_rows(sim, Relation(mask, ~mask, rows=torch.tensor([2, 0])))
        >>> sim.flatten(), relation.rows
        (tensor([0.3000, 0.1000]), None)
    """
    if relation.rows is None:
        return sim, relation
    cleared = Relation(relation.positive, relation.negative, teacher_probability=relation.teacher_probability)
    return sim[relation.rows], cleared
