"""The mistakes of a model on labelled pairs, and the slices in which they are frequent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpairs.core.cards import html_card, one_line
from qpairs.core.tables import rows_table
from qpairs.data.pairs import Pairs
from qpairs.data.sources import PairSource
from qpairs.data.splits import duplicate_components, question_components
from qpairs.evaluation.predict import Predictions, predict
from qpairs.evaluation.slices import ErrorSlice, error_slices, wordings_of
from qpairs.evaluation.sources import as_pairs
from qpairs.evaluation.wording import Wording, vocabulary
from qpairs.models.base import Model, as_model
from qpairs.models.ready import shown_name

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Mistake:
    """A wrong decision.

    Attributes:
        row: of the pair in the pair table.
        question1, question2: the pair.
        label: 1 duplicate, 0 not.
        similarity, probability: the prediction.
        distance: score minus threshold.
        component1, component2: duplicate component of each question; the same for a pair labelled 0 means that other
            labels contradict its own.
        shared: words that both questions have.
        only1, only2: words that only one question has.
        why: the slices it lies in where mistakes are significantly more frequent, the worst first.
        slices: all slices it lies in.
    """

    row: int
    question1: str
    question2: str
    label: int
    similarity: float
    probability: float
    distance: float
    component1: int
    component2: int
    shared: tuple[str, ...]
    only1: tuple[str, ...]
    only2: tuple[str, ...]
    why: tuple[str, ...]
    slices: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """The mistakes of a model on labelled pairs.

    Attributes:
        pairs: the pairs.
        predictions: of the model on them.
        threshold: of the model.
        slices: those with significantly more mistakes first, then by falling lift.
        members: (slices, n) bool, the pairs of each slice.
        wordings: (n,) what the rules read.
    """

    pairs: Pairs
    predictions: Predictions
    threshold: float
    slices: Sequence[ErrorSlice]
    members: NDArray[np.bool_] = field(repr=False)
    wordings: Sequence[Wording] = field(repr=False)

    @property
    def table(self) -> pandas.DataFrame:
        """The mistakes, a row for each and a column for each field of `Mistake`.

        >>> from qpairs.evaluation.mistakes import analyse
        >>> list(analyse(model, pairs).table)[:4]
        ['row', 'question1', 'question2', 'label']
        """
        return rows_table(Mistake, self.mistakes())

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        worst = ", ".join(part.name for part in self.slices[:3] if part.worse)
        found = {"pairs": len(self.pairs), "mistakes": int(self.wrong.sum()), "duplicates missed": self.missed}
        return "Analysis", found | ({"frequent where": worst} if worst else {})

    __repr__, _repr_html_ = one_line, html_card

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(n,) whether the decision on each pair is wrong."""
        return np.asarray(self.predictions.duplicate != (self.pairs.labels == 1))

    @property
    def missed(self) -> int:
        """Duplicates that are missed."""
        return int((self.wrong & (self.pairs.labels == 1)).sum())

    def mistakes(self, slice_number: int | None = None) -> list[Mistake]:
        """The mistakes, or those of one slice, the farthest from the threshold first."""
        rows = np.flatnonzero(self.wrong if slice_number is None else self.wrong & self.members[slice_number])
        distance = self.predictions.similarity.astype(np.float64) - self.threshold
        component = duplicate_components(self.pairs)
        return [
            self._mistake(row, float(distance[row]), component)
            for row in rows[np.argsort(-np.abs(distance[rows]), kind="stable")].tolist()
        ]

    def _mistake(self, row: int, distance: float, component: NDArray[np.int64]) -> Mistake:
        one, other = self.wordings[row].words
        both = set(one) & set(other)
        around = [part for part, inside in zip(self.slices, self.members[:, row], strict=True) if inside]
        return Mistake(
            row,
            *self.pairs.texts(row),
            label=int(self.pairs.labels[row]),
            similarity=float(self.predictions.similarity[row]),
            probability=float(self.predictions.probability[row]),
            distance=distance,
            component1=int(component[self.pairs.left[row]]),
            component2=int(component[self.pairs.right[row]]),
            shared=tuple(dict.fromkeys(word for word in one if word in both)),
            only1=tuple(dict.fromkeys(word for word in one if word not in both)),
            only2=tuple(dict.fromkeys(word for word in other if word not in both)),
            why=tuple(part.name for part in around if part.worse),
            slices=tuple(part.name for part in around),
        )


def analyse(
    model: Model | str | Path,
    data: PairSource,
    *,
    trained_on: Pairs | None = None,
    predictions: Predictions | None = None,
    seed: int = 0,
) -> Analysis:
    """Finds the mistakes of a model on labelled pairs, and the slices in which they are frequent.

    Args:
        model: a model, or its folder.
        data: labelled pairs, or their source, as in `load_pairs`.
        trained_on: the training pairs, whose words are the known ones; without it, those of the data.
        predictions: of the model on the pairs, if they exist already.
        seed: of the bootstrap and of the test.

    Raises:
        UserError: the data cannot be used.
    """
    model, pairs = as_model(model), as_pairs(data)
    model.verdict.require_labelled(shown_name(model))
    predictions = predictions or predict(model, pairs)
    wordings = wordings_of(pairs, vocabulary((trained_on or pairs).questions))
    groups = question_components(pairs)[pairs.left]
    slices, members = error_slices(pairs, predictions, wordings, groups, seed=seed)
    return Analysis(pairs, predictions, model.verdict.pair.threshold, slices, members, wordings)
