"""Search: the questions of an index that are nearest to a question, with the verdict on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpairs.core.exceptions import UserError
from qpairs.models.base import Floats, Model, Side
from qpairs.models.verdict import Setting
from qpairs.retrieval.embeddings import shorten
from qpairs.retrieval.index import require_model
from qpairs.retrieval.index.base import Hit, Index

if TYPE_CHECKING:
    import pandas

BLOCK = 8192  # questions that are encoded and searched for at a time


@dataclass(frozen=True)
class Answer:
    """A question that a search found, the probability that it is a duplicate, and the verdict."""

    hit: Hit
    probability: float
    duplicate: bool


def search(
    index: Index, model: Model, questions: Sequence[str], k: int = 10, threshold: float | None = None
) -> list[list[Answer]]:
    """The nearest k questions of an index for each of some questions, nearest first.

    Args:
        index: from `open_index`.
        model: that made the vectors of the index.
        questions: to search for.
        k: how many to find.
        threshold: of the verdict; without it, the model's own.

    Raises:
        UserError: the index is of another model, or the model's verdict cannot be read from one cosine.
    """
    require_searchable(index, model)
    setting = model.verdict.pair if threshold is None else model.verdict.pair.at(threshold)
    found = []
    for start in range(0, len(questions), BLOCK):
        vectors = model.encode(questions[start : start + BLOCK], query_side(index))
        found += search_vectors(index, vectors, k, setting)
    return found


def search_vectors(
    index: Index, vectors: Floats, k: int, setting: Setting, *, threads: int | None = None
) -> list[list[Answer]]:
    """As `search`, for questions that are encoded already: (q, dimension of the model).

    Args:
        index: from `open_index`.
        vectors: of the questions, by the tower that `query_side` names.
        k: how many to find.
        setting: turns cosines into verdicts.
        threads: that the search may use; without it, the index decides.
    """
    found = []
    for row in index.questions.search(shorten(vectors, index.manifest.dimension), k, threads=threads):
        cosines = [hit.similarity for hit in row]
        verdicts = zip(row, setting.probability(cosines).tolist(), setting.decide(cosines).tolist(), strict=True)
        found.append([Answer(hit, probability, duplicate) for hit, probability, duplicate in verdicts])
    return found


def require_searchable(index: Index, model: Model) -> None:
    """Raises UserError where a model's verdict cannot be read from the cosines to the vectors of an index."""
    require_model(index.manifest, model.fingerprint, str(index.folder))
    model.verdict.require_cosine(model.path)
    if model.verdict.symmetric and not model.one_tower:
        raise UserError(
            f"{model.path}: its verdict is the mean of both directions between two towers, and an index has one; "
            "train one encoder, or two with --no-symmetric"
        )


def query_side(index: Index) -> Side:
    """The tower that encodes queries."""
    return "left" if index.manifest.side == "right" else "right"


def answers_table(questions: Sequence[str], answers: Sequence[Sequence[Answer]]) -> pandas.DataFrame:
    """A row for each hit: question, rank, id, text, similarity, probability, duplicate.

    Args:
        questions: that were searched for.
        answers: from `search`.

    >>> table = answers_table(["How do I pay?"], [[Answer(Hit("7", "How to pay?", 0.9), 0.8, True)]])
    >>> table.values.tolist()
    [['How do I pay?', 1, '7', 'How to pay?', 0.9, 0.8, 1]]
    """
    import pandas

    rows = [
        (question, rank, each.hit.id, each.hit.text, each.hit.similarity, each.probability, int(each.duplicate))
        for question, found in zip(questions, answers, strict=True)
        for rank, each in enumerate(found, start=1)
    ]
    columns = ["question", "rank", "id", "text", "similarity", "probability", "duplicate"]
    return pandas.DataFrame(rows, columns=columns)
