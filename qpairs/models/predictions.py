"""Predictions: scores, probabilities and decisions on pairs, and the similarity of texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.columns import ColumnChoice, column_names, find_columns
from qpairs.data.pairs import UNLABELLED, Pairs, pairs_from_texts
from qpairs.data.records import name_of, require_texts
from qpairs.data.sources import PairSource, load_pairs
from qpairs.models.coverage import warn_of_texts
from qpairs.models.ready import shown_name
from qpairs.models.verdict import ScoreKind, Setting, check_threshold, choose, score_column, score_names

if TYPE_CHECKING:
    import pandas

    from qpairs.models.base import Floats, Model


THRESHOLD_SERVES = "; or set a --threshold (threshold), which decides without a probability"


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for pairs.

    Attributes:
        similarity: (n,) score of each pair: a cosine, or another score that the verdict of the model reads.
        probability: (n,) of being duplicates; NaN for a model that was not fitted to labelled pairs, such as a ready
            one.
        duplicate: (n,) whether it is called a duplicate.
        pairs: the pairs; None if only their scores are known.
        threshold: the lowest score of a duplicate.
        score: what the scores are.
        frame: the data frame that the pairs came from, a row for each; None if they came from elsewhere, or rows were
            left out.
        text_columns: of the frame, which hold the questions.

    >>> found = model.predict([("How do I pay?", "How can I pay?"), ("Who?", "How do I pay?")])
    >>> found.duplicate.tolist()
    [True, False]
    """

    similarity: NDArray[np.float32]
    probability: NDArray[np.float64]
    duplicate: NDArray[np.bool_]
    pairs: Pairs | None = None
    threshold: float | None = None
    score: ScoreKind = "cosine"
    frame: pandas.DataFrame | None = None
    text_columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.duplicate)

    @property
    def table(self) -> pandas.DataFrame:
        """A row for each pair: question1, question2, similarity, probability, duplicate.

        The similarity is called score if it is not a cosine. Pairs of a pandas data frame keep its index, and its other
        columns follow; a column with one of the names above, such as duplicate, becomes given_duplicate.

        >>> list(model.predict([("How do I pay?", "How can I pay?")]).table)
        ['question1', 'question2', 'similarity', 'probability', 'duplicate']
        """
        import pandas

        texts: dict[str, Any] = {}
        if self.pairs is not None:
            questions = np.array(self.pairs.questions, dtype=object)
            texts = {"question1": questions[self.pairs.left], "question2": questions[self.pairs.right]}
        results = {
            score_column(self.score): self.similarity,
            "probability": self.probability,
            "duplicate": self.duplicate,
        }
        table = pandas.DataFrame(texts | results)
        if self.frame is None:
            return table
        names = list(map(str, self.frame.columns))
        shown = {names.index(name) for name in self.text_columns}
        own = self.frame.iloc[:, [place for place in range(len(names)) if place not in shown]]
        given = {name: f"given_{name}" for name in table}
        while taken := [name for name in table if given[name] in own]:
            given |= {name: f"given_{given[name]}" for name in taken}
        return pandas.concat([table.set_index(self.frame.index), own.rename(columns=given)], axis=1)

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        called = int(self.duplicate.sum())
        facts: dict[str, object] = {"pairs": len(self), "called duplicates": called}
        return "Predictions", facts | ({} if self.threshold is None else {"threshold": self.threshold})

    __repr__, _repr_html_ = one_line, html_card


def predictions(
    setting: Setting, scores: NDArray[np.float32], pairs: Pairs | None = None, score: ScoreKind = "cosine"
) -> Predictions:
    """Predictions for pairs that are already scored.

    >>> from qpairs.metrics import Calibration
    >>> from qpairs.models.verdict import PairSetting
    >>> setting = PairSetting(0.5, Calibration(slope=10.0, intercept=-5.0))
    >>> predictions(setting, np.array([0.4, 0.9], dtype=np.float32)).duplicate.tolist()
    [False, True]
    """
    decided = setting.decide(scores)
    return Predictions(scores, setting.probability(scores), decided, pairs, setting.threshold, score)


def predict_pairs(
    model: Model,
    pairs: PairSource,
    *,
    threshold: float | None = None,
    precision: float | None = None,
    columns: str | Sequence[str] = (),
    skip_bad_rows: bool = False,
    on_progress: OnProgress = ignore,
) -> Predictions:
    """Predictions for given pairs; labels are not read.

    Args:
        model: that predicts.
        pairs: labelled or not, or their source, as in `load_pairs`, such as a list of (question1, question2).
        threshold: the lowest score of a duplicate; without it, that of the model; a ready model has none.
        precision: that the duplicates must have on pairs like those of validation, as a one-sided 95 % lower bound,
            instead of a threshold.
        columns: names of the two text columns, as in `load_pairs`.
        skip_bad_rows: leave out rows that cannot be used; without it, the first one is an error.
        on_progress: the stages of `Model.score_pairs`.

    Raises:
        UserError: the pairs cannot be used, the model has no threshold and none is given, or the precision cannot be
            promised.

    >>> model.predict([("How do I pay?", "How can I pay?")], threshold=1.0).duplicate.tolist()
    [False]
    """
    given = load_pairs(pairs, columns=columns, labelled=False, skip_bad_rows=skip_bad_rows)
    if threshold is None:
        model.verdict.require_labelled(shown_name(model), THRESHOLD_SERVES)
    else:
        check_threshold(threshold, model.verdict.score)
    setting = choose(model.verdict.pair, threshold, precision)
    warn_of_texts(model.token_counter, given.questions, "predict", given)
    scores = model.score_pairs(given, on_progress)[0]
    if not np.isfinite(scores).all():
        raise UserError(
            f"predict: the model gives {score_names(model.verdict.score)} that are not numbers; it is damaged"
        )
    found = predictions(setting, scores, given, model.verdict.score)
    frame: Any = pairs if hasattr(pairs, "iloc") else ()
    if len(given) and len(frame) == len(given):
        wanted = ColumnChoice(column_names(columns), labelled=False)
        names = find_columns(map(str, frame.columns), wanted, where=name_of(frame))
        found = replace(found, frame=frame, text_columns=(names.first, names.second))
    if not model.verdict.labelled:
        found = replace(found, probability=np.full(len(scores), np.nan))
    return found


@overload
def similarity_of(model: Model, first: str, second: str) -> float: ...  # type: ignore[overload-overlap]


@overload
def similarity_of(model: Model, first: Iterable[str], second: Iterable[str]) -> Floats: ...


def similarity_of(model: Model, first: str | Iterable[str], second: str | Iterable[str]) -> float | Floats:
    """How similar texts are: the score that the verdict of the model reads, such as their cosine.

    Args:
        model: that compares.
        first: n texts, or one.
        second: n texts, each compared with the one at the same position, or one.

    Returns:
        Scores (n,), or one number if both are one text.

    Raises:
        UserError: one is a text and the other a list, or the lists differ in length.

    >>> f"{model.similarity('How do I pay?', 'How can I pay?'):.2f}"
    '0.92'
    >>> model.similarity(["How do I pay?", "Who?"], ["How can I pay?", "How do I pay?"]).shape
    (2,)
    """
    if isinstance(first, str) and isinstance(second, str):
        return float(similarity_of(model, [first], [second])[0])
    texts = require_texts(first, "similarity: first"), require_texts(second, "similarity: second")
    if len(texts[0]) != len(texts[1]):
        raise UserError(
            f"similarity: {len(texts[0])} first texts and {len(texts[1])} second ones; they must be equally many"
        )
    return model.score_pairs(pairs_from_texts(*texts, [UNLABELLED] * len(texts[0])))[0]
