"""One pair explained: the effect of each word on its score, and the nearest training pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.core.extras import require
from qpairs.data.pairs import Pairs, join, pairs_from_texts, text_fault
from qpairs.data.words import pieces, words
from qpairs.evaluation.predict import predictions
from qpairs.models.base import Floats, Model, as_model
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.ready import shown_name
from qpairs.models.two_stages import TwoStages

COMPARED = 4096  # training pairs that are encoded to find the nearest


@dataclass(frozen=True)
class Word:
    """A word of a question, and its effect: the score of the pair minus that of the pair without the word."""

    text: str
    effect: float


@dataclass(frozen=True)
class Neighbour:
    """A training pair, its label, and its similarity: the mean over both sides, in the better order.

    The similarity is the cosine of vectors; for a cross-encoder, which has none, that of TF-IDF over words.
    """

    question1: str
    question2: str
    label: int
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """The prediction for one pair, and what it is based on.

    Attributes:
        similarity, probability, duplicate: the prediction; the first is the score of the pair.
        threshold: of the model.
        words: those of both questions in their order, with punctuation: split at spaces, and in scripts without spaces
            into characters.
        neighbours: the nearest training pairs of either label, the nearest first.
        by_words: whether these are the nearest by TF-IDF over words, because the model has no vectors.
    """

    similarity: float
    probability: float
    duplicate: bool
    threshold: float
    words: tuple[Sequence[Word], Sequence[Word]]
    neighbours: Sequence[Neighbour]
    by_words: bool = False


def explain(
    model: Model | str | Path, question1: str, question2: str, *, trained_on: Pairs | None = None, count: int = 3
) -> Explanation:
    """Leaves each word out in turn, and finds the nearest training pairs.

    The effect of a word is exact: the model scores the shortened question. All variants are scored together; a model of
        two stages takes a second look at all of them or at none, as for the pair itself.

    Args:
        model: a model, or its folder.
        question1: the first question.
        question2: the second one.
        trained_on: the source of the neighbours; without it there are none.
        count: neighbours of each label.

    Raises:
        UserError: a question is empty or too long, or the neighbours need scikit-learn, which is not installed.
    """
    model, texts = as_model(model), (question1, question2)
    model.verdict.require_labelled(shown_name(model))
    for text, name in zip(texts, ("question1", "question2"), strict=True):
        if fault := text_fault(text, name):
            raise UserError(f"explain: {fault[1].replace('column ', '')}")
    parts = [pieces(text) for text in texts]
    shortened = [["".join(map("".join, part[:i] + part[i + 1 :])) for i in range(len(part))] for part in parts]
    words = [[word for word, _ in part] for part in parts]
    first = [question1, *shortened[0], *[question1] * len(shortened[1])]
    second = [question2, *[question2] * len(shortened[0]), *shortened[1]]
    found = predictions(model.verdict.pair, _scores(model, pairs_from_texts(first, second, np.full(len(first), -1))))
    similarity = float(found.similarity[0])
    effects = iter((similarity - found.similarity[1:].astype(np.float64)).tolist())
    return Explanation(
        similarity=similarity,
        probability=float(found.probability[0]),
        duplicate=bool(found.duplicate[0]),
        threshold=model.verdict.pair.threshold,
        words=([Word(word, next(effects)) for word in words[0]], [Word(word, next(effects)) for word in words[1]]),
        neighbours=neighbours(model, texts, trained_on, count=count) if trained_on and count else (),
        by_words=isinstance(model, CrossModel),
    )


def _scores(model: Model, variants: Pairs) -> Floats:
    """(n,) scores of a pair (the first row) and its variants, with a second look at all if the pair gets one."""
    if not isinstance(model, TwoStages):
        return model.score_pairs(variants)[0]
    scores, _ = model.first.score_pairs(variants)
    return model.join(scores, model.read(variants, np.full(len(variants), model.band.holds(scores[:1])[0])))


def neighbours(
    model: Model, texts: tuple[str, str], trained_on: Pairs, *, count: int = 3, compared: int = COMPARED
) -> list[Neighbour]:
    """The training pairs nearest to a pair, `count` of each label, the nearest first: by cosine, or by TF-IDF.

    Of more than `compared` training pairs, only the nearest by TF-IDF are encoded. A cross-encoder has no vectors, so
    TF-IDF alone decides.

    Raises:
        UserError: TF-IDF is needed, and scikit-learn is not installed.
    """
    near = trained_on
    if isinstance(model, CrossModel):
        return _nearest(near, _by_words(texts, near), count)
    if len(near) > compared:
        near = near.subset(np.sort(np.argsort(-_by_words(texts, near), kind="stable")[:compared]))
    both = join([pairs_from_texts(texts[:1], texts[1:], [-1]), near])
    rows, columns = model.embed_tables(both.questions)
    ends = [both.left[0], both.right[0]]
    return _nearest(both, _pair_similarity((rows[ends] @ columns.T + columns[ends] @ rows.T) / 2, both), count)


def _by_words(texts: tuple[str, str], pairs: Pairs) -> NDArray[np.float64]:
    """(n,) similarity of two questions to each pair by TF-IDF over words."""
    text = require("sklearn.feature_extraction.text", f"explain: to find neighbours among {len(pairs):,} pairs")
    vectorizer = text.TfidfVectorizer(analyzer=words, sublinear_tf=True)
    table = vectorizer.fit_transform(pairs.questions)
    return _pair_similarity((vectorizer.transform(texts) @ table.T).toarray(), pairs)


def _nearest(pairs: Pairs, similarity: NDArray[np.float64], count: int) -> list[Neighbour]:
    """The pairs with the highest similarity (n,), `count` of each label; pairs without a label do not count."""
    order = np.argsort(-similarity, kind="stable")
    chosen = [row for label in (1, 0) for row in order[pairs.labels[order] == label][:count].tolist()]
    return [
        Neighbour(*pairs.texts(row), int(pairs.labels[row]), float(similarity[row]))
        for row in sorted(chosen, key=lambda row: -similarity[row])
    ]


def _pair_similarity(similarity: NDArray[np.float64], pairs: Pairs) -> NDArray[np.float64]:
    """(n,) mean similarity of two questions to the two of each pair, in the better order.

    Args:
        similarity: (2, n_questions) of each of the two to all questions.
        pairs: the pairs.
    """
    one, other = similarity
    same_order, swapped = one[pairs.left] + other[pairs.right], one[pairs.right] + other[pairs.left]
    return np.asarray(np.maximum(same_order, swapped) / 2)
