"""The methods that all model classes share.

A class takes these functions as methods (`dedupe = methods.dedupe`). `dedupe` and `search` use packages above this one,
through the public names of qpairs, which are loaded at the first call: a model that only scores pairs needs none of
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import qpairs
from qpairs.core.shapes import WrongShape, each, number, record, whole
from qpairs.data.records import require_texts
from qpairs.models.verdict import score_name

if TYPE_CHECKING:
    import pandas

    from qpairs.core.progress import OnProgress
    from qpairs.data.questions import QuestionSource
    from qpairs.models.base import Model

REPORT = record(
    {"n": whole(), "f1": number(), "f1_interval": each(number(), length=2)}, others=True
)  # what is shown of it


def dedupe(
    model: Model,
    questions: QuestionSource,
    *,
    threshold: float | None = None,
    precision: float | None = None,
    against: QuestionSource | None = None,
    text_column: str = "",
    on_progress: OnProgress | None = None,
) -> qpairs.DedupeResult:
    """The duplicates among questions; `qpairs.dedupe_corpus` has more options.

    Args:
        model: that compares them.
        questions: a list of texts, a data frame, a file, or anything else that `open_questions` takes.
        threshold: as in `dedupe_corpus`; without it and without a precision, the one with the highest expected F1 in
            this corpus.
        precision: that the pairs of duplicates must have, as a one-sided 95 % lower bound.
        against: questions that were asked before.
        text_column: the column of the questions, of both files, as in `open_questions`.
        on_progress: as in `dedupe_corpus`.

    Returns:
        The result, whose `pairs`, `clusters` and `kept` are data frames.

    Raises:
        UserError: as `dedupe_corpus`.

    >>> found = model.dedupe(["How do I pay?", "how do I pay?", "How can I pay?", "Where is my order?"], threshold=0.8)
    >>> found.kept["text"].tolist()
    ['How do I pay?', 'Where is my order?']
    """
    more: dict[str, Any] = {} if on_progress is None else {"on_progress": on_progress}
    return qpairs.dedupe_corpus(
        model, questions, threshold=threshold, precision=precision, against=against, text_column=text_column, **more
    )


def search(
    model: Model,
    questions: Iterable[str],
    among: qpairs.Index | QuestionSource,
    *,
    k: int = 10,
    threshold: float | None = None,
    text_column: str = "",
    on_progress: OnProgress | None = None,
) -> pandas.DataFrame:
    """The nearest questions of a corpus for each of some questions, with the verdict on each.

    Args:
        model: that compares them.
        questions: a list of texts to search for.
        among: the corpus: an index from `open_index` or `index_in_memory`, which is not rebuilt for each search; or a
            list of texts, a data frame, or a file, which are encoded now.
        k: how many to find for each.
        threshold: as in `qpairs.search`.
        text_column: the column of the questions in a corpus that is encoded now, as in `open_questions`.
        on_progress: as in `qpairs.search` and `index_in_memory`.

    Returns:
        A row for each hit: question, rank, id, text, similarity, probability, duplicate, verdict (in words).

    Raises:
        UserError: a text instead of a list; the corpus cannot be read; or the index is of another model.

    >>> known = ["How can I pay?", "Where is my order?", "Who are you?"]
    >>> model.search(["How do I pay?"], known, k=1)["text"].tolist()
    ['How can I pay?']
    """
    asked = require_texts(questions, "search: questions")
    more: dict[str, Any] = {} if on_progress is None else {"on_progress": on_progress}
    if isinstance(among, qpairs.Index):
        index = among
    else:
        index = qpairs.index_in_memory(model, among, text_column=text_column, **more)
    return qpairs.answers_table(asked, qpairs.search(index, model, asked, k, threshold, **more))


def facts(model: Model) -> tuple[str, Mapping[str, object]]:
    """The facts of a model: its folder, its kind, its threshold, and its scores."""
    found: dict[str, object] = {"folder": model.path, "encoder": model.config.encoder}
    threshold, kind = model.verdict.pair.threshold, score_name(model.verdict.score)
    found["threshold"] = f"{threshold:.3f} ({kind})" if model.verdict.labelled else "none for pairs, without labels"
    part = next((name for name in ("test", "validation") if _has_f1(model.scores.get(name))), "")
    if part:
        report = model.scores[part]
        low, high = report["f1_interval"]
        found[f"F1 on {report['n']:,} {part} pairs"] = f"{report['f1']:.3f} ({low:.3f} to {high:.3f})"
    if size := model.split.get("sizes", {}).get("train"):
        found["trained on"] = f"{size:,} pairs ({', '.join(model.config.data)})"
    return type(model).__name__, found


def _has_f1(report: object) -> bool:
    """Whether a report has scores; models from elsewhere, or damaged ones, may have none."""
    try:
        REPORT(report, "")
    except WrongShape:
        return False
    return True
