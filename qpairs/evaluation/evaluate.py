"""Evaluation: a model and labelled pairs give a `Report`.

The threshold is the model's, chosen on validation: nothing is chosen on the reported pairs.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.data.intents import known_clusters, read_intents
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.questions import QuestionSource
from qpairs.data.sources import PairSource
from qpairs.data.splits import Leak, duplicate_components, question_components
from qpairs.evaluation.baselines import baselines, trivial_note
from qpairs.evaluation.corpus_report import CorpusReport, corpus_report
from qpairs.evaluation.question_table import symmetric_tables
from qpairs.evaluation.seen import seen_in_calibration, seen_in_training
from qpairs.evaluation.slices import Slice, slices
from qpairs.evaluation.sources import as_pairs
from qpairs.metrics.intervals import Interval
from qpairs.models.base import Model, Tables, as_model
from qpairs.models.coverage import warn_of_texts
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.predictions import predictions
from qpairs.models.ready import shown_name
from qpairs.models.verdict import Reference, ScoreKind, Setting, check_threshold, score_names

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

RETRIEVAL_LIMIT = 50_000  # questions; the retrieval scores compare all with all
HIDDEN = ("scores", "labels", "pairs", "setting", "seed")  # fields that are not in the JSON form
SHIFTED = 0.15  # Kolmogorov-Smirnov distance from which on the old threshold should not be trusted


@dataclass(frozen=True)
class Shift:
    """How far the scores differ from those on which the threshold was chosen.

    Attributes:
        statistic: Kolmogorov-Smirnov distance, 0 to 1; nan if those are unknown.
        p_value: of so large a distance by chance; nan likewise.
        differs: whether the distance is so large that the threshold should be fitted again.
    """

    statistic: float
    p_value: float
    differs: bool


@dataclass(frozen=True)
class Report:
    """How well a model finds duplicates among labelled pairs.

    Attributes:
        n, n_questions: pairs, and distinct questions.
        duplicates: share of duplicates.
        threshold: that of the model.
        f1, precision, recall, accuracy: of the decisions at the threshold.
        average_precision, roc_auc: of the ranking by score.
        f1_interval, precision_interval, recall_interval, accuracy_interval, average_precision_interval: 95 % by
            bootstrap over the components of the question graph.
        calibration_error: expected calibration error over 15 bins of equal mass.
        brier: mean squared error of the probability.
        collapsed: the scores do not vary, and the other numbers mean nothing.
        shift: distance to the pairs on which the threshold was chosen.
        baselines: scores of trivial baselines on the same pairs: name -> f1 and average_precision.
        slices: the decisions by length and by word overlap.
        retrieval: over the question table: mrr_at_10, recall_at_1, 5 and 10, mining_average_precision.
        scores, labels: (n,) score and label of each pair; not in the JSON form.
        seen_in_training: how many of the questions were in the training pairs; None if unknown.
        corpus: the decisions over all pairs of the questions; None if `corpus_report` gives none.
        score: what the scores are.
        pairs, setting: the pairs, and what decided on them; not in the JSON form.
        spearman, spearman_interval: rank correlation of score and graded label, with 95 %; None if the labels are 0 and
            1.
        from_validation: whether the threshold is the one chosen on validation, so that nothing is chosen on the
            reported pairs; false after `rethreshold`.

    >>> report = qpairs.evaluate(model, pairs)
    >>> f"{report.f1:.2f}, {len(report.mistakes)} mistakes"
    '0.62, 104 mistakes'
    """

    n: int
    n_questions: int
    duplicates: float
    threshold: float
    f1: float
    precision: float
    recall: float
    accuracy: float
    average_precision: float
    roc_auc: float
    f1_interval: Interval
    precision_interval: Interval
    recall_interval: Interval
    accuracy_interval: Interval
    average_precision_interval: Interval
    calibration_error: float
    brier: float
    collapsed: bool
    shift: Shift
    baselines: Mapping[str, Mapping[str, float]]
    slices: Sequence[Slice]
    retrieval: Mapping[str, float]
    scores: NDArray[np.float32] = field(repr=False, compare=False)
    labels: NDArray[np.int8] = field(repr=False, compare=False)
    seen_in_training: Leak | None = None
    corpus: CorpusReport | None = None
    score: ScoreKind = "cosine"
    pairs: Pairs | None = field(default=None, repr=False, compare=False)
    setting: Setting | None = field(default=None, repr=False, compare=False)
    from_validation: bool = True
    spearman: float | None = None
    spearman_interval: Interval | None = None
    seed: int = field(default=0, repr=False, compare=False)  # of the bootstrap

    @property
    def confusion(self) -> metrics.Confusion:
        """Right and wrong decisions: tp, fp, fn, tn."""
        return metrics.confusion(self.scores, self.labels, self.threshold)

    @property
    def mistakes(self) -> pandas.DataFrame:
        """The wrong decisions, the farthest from the threshold first.

        A row for each: question1, question2, is_duplicate (the label), similarity (`score`, if it is not a cosine),
        probability, duplicate (the decision), and distance (score minus threshold).

        >>> list(qpairs.evaluate(model, pairs).mistakes)[:4]
        ['question1', 'question2', 'is_duplicate', 'similarity']
        """
        pairs, setting = self._judged
        table = predictions(setting, self.scores, pairs, self.score).table
        table.insert(2, "is_duplicate", self.labels)
        table["distance"] = self.scores.astype(np.float64) - self.threshold
        wrong = table[table["duplicate"] != (table["is_duplicate"] == 1)]
        return wrong.sort_values("distance", key=abs, ascending=False, kind="stable")

    def rethreshold(self, threshold: float) -> Report:
        """The report with another threshold: decisions, their scores and intervals, and the slices are recomputed.

        What does not depend on the threshold stays, and so does the part on the corpus, which has its own. The
        threshold is then no longer the one chosen on validation (`from_validation` is false): choosing it by its F1 on
        these same pairs makes that F1 optimistic.

        Args:
            threshold: the lowest score of a duplicate.

        Raises:
            UserError: no score can be on one side of it.

        >>> report = qpairs.evaluate(model, pairs)
        >>> strict = report.rethreshold(0.95)
        >>> strict.precision > report.precision, strict.recall < report.recall, strict.from_validation
        (True, True, False)
        """
        check_threshold(threshold, self.score)
        threshold = float(threshold)
        pairs, setting = self._judged
        groups = question_components(pairs)[pairs.left]
        return dataclasses.replace(
            self,
            **_decided(self.scores, self.labels, groups, threshold, self.seed),
            slices=slices(pairs, self.scores, threshold),
            setting=setting.at(threshold),
            from_validation=False,
        )

    @property
    def _judged(self) -> tuple[Pairs, Setting]:
        if self.pairs is None or self.setting is None:
            raise UserError("report: it was made without its pairs; evaluate the model again")
        return self.pairs, self.setting

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        low, high = self.f1_interval
        source = "chosen on validation" if self.from_validation else "given; no longer the one of validation"
        found = {
            "pairs": f"{self.n:,} ({self.duplicates:.0%} duplicates)",
            "F1": f"{self.f1:.3f} ({low:.3f} to {high:.3f})",
            "precision": self.precision,
            "recall": self.recall,
            "average precision": self.average_precision,
            "threshold": f"{self.threshold:.3f} ({source})",
        }
        return "Report", found | ({"warning": self.trivial} if self.trivial else {})

    __repr__, _repr_html_ = one_line, html_card

    @property
    def trivial(self) -> str:
        """Which trivial baselines the model is no better than, see `trivial_note`; empty if it is better than all."""
        return trivial_note(vars(self))

    def to_dict(self, *, brief: bool = False) -> dict[str, Any]:
        """The report as plain values for JSON, without the arrays; an unknown shift is None.

        Args:
            brief: without the texts of questions and the curve of the corpus, as stored in a model.

        >>> import json
        >>> len(json.dumps(qpairs.evaluate(model, pairs).to_dict())) > 1000
        True
        """
        shown = dataclasses.replace(self, pairs=None, setting=None)
        if brief and shown.corpus:
            shown = dataclasses.replace(shown, corpus=shown.corpus.brief())
        values = dataclasses.asdict(shown) | {"trivial": self.trivial}
        if math.isnan(self.shift.statistic):
            values["shift"] |= {"statistic": None, "p_value": None}
        return {name: value for name, value in values.items() if name not in HIDDEN}


def evaluate(
    model: Model | str | Path,
    data: PairSource,
    *,
    columns: str | Sequence[str] = (),
    skip_bad_rows: bool = False,
    intents: Mapping[str, str] | QuestionSource | None = None,
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> Report:
    """Evaluates a model, at its own threshold, on labelled pairs.

    Args:
        model: a model, or its folder.
        data: labelled pairs, or their source, as in `load_pairs`.
        columns: as in `load_pairs`, and so
        skip_bad_rows: whether rows that cannot be used are left out.
        intents: question -> intent for all questions of the pairs, or a table of them (`read_intents`): then all
            duplicates in the corpus of these questions are known.
        seed: of the bootstrap.
        on_progress: the stages reading, encoding (questions), reading pairs and judging.

    Raises:
        UserError: the data cannot be used, has pairs of one label only, or a question without intent.

    Example, where `model` is a model or its folder, and `pairs` are labelled:

    >>> report = evaluate(model, pairs)
    >>> f"F1 {report.f1:.2f}, 95 % interval {report.f1_interval[0]:.2f} to {report.f1_interval[1]:.2f}"
    'F1 0.62, 95 % interval 0.56 to 0.69'
    """
    on_progress(Progress("reading"))
    model, pairs = as_model(model), as_pairs(data, columns=columns, skip_bad_rows=skip_bad_rows)
    need_both_labels(pairs, "evaluate")
    model.verdict.require_labelled(shown_name(model))
    known = intents if intents is None or isinstance(intents, Mapping) else read_intents(intents)
    if known is not None:
        if isinstance(model, CrossModel):
            raise UserError(f"intents: {model.path} is a cross-encoder, which has no verdict for a corpus")
        known_clusters(pairs, known)  # an error is raised before the questions are embedded
    warn_of_texts(model.token_counter, pairs.questions, "evaluate", pairs)
    _warn_of_calibration(model, pairs)
    scores, tables = model.score_pairs(pairs, on_progress)
    on_progress(Progress("judging"))
    found = report(model, pairs, scores, tables, intents=known, seed=seed)
    return dataclasses.replace(found, seen_in_training=seen_in_training(model, pairs))


def _warn_of_calibration(model: Model, pairs: Pairs) -> None:
    known = seen_in_calibration(model, pairs)
    if known:
        log.warning(
            "evaluate: the model was calibrated on %s of these %s questions; its threshold and probabilities fit them "
            "better than new ones",
            f"{known:,}",
            f"{len(pairs.questions):,}",
        )


@functools.cache
def _tell_of_one_group() -> None:
    """Warns once per process that intervals are too narrow."""
    log.warning(
        "more than half of the pairs are linked by shared questions; intervals and cross-fitting treat each of them "
        "as independent, and are narrower than they should be"
    )


def report(
    model: Model,
    pairs: Pairs,
    scores: NDArray[np.float32],
    tables: Tables | None,
    *,
    intents: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Report:
    """The report on pairs that are already scored.

    Args:
        model: whose verdict is applied.
        pairs: labelled pairs.
        scores: (n_pairs,) scores.
        tables: embeddings of their questions, from `score_pairs`; None for a model without vectors.
        intents: question -> intent, as in `evaluate`.
        seed: of the bootstrap.
    """
    verdict, labels = model.verdict, pairs.labels
    threshold = verdict.pair.threshold
    if not np.isfinite(scores).all():
        raise UserError(f"evaluate: the model gives {score_names(verdict.score)} that are not numbers; it is damaged")
    groups = question_components(pairs)[pairs.left]
    if not np.array_equal(metrics.taken_apart(groups), groups):
        _tell_of_one_group()
    probability = verdict.pair.probability(scores)
    return Report(
        n=len(pairs),
        n_questions=len(pairs.questions),
        duplicates=pairs.duplicate_ratio,
        **_decided(scores, labels, groups, threshold, seed),
        average_precision=metrics.average_precision(scores, labels),
        roc_auc=metrics.roc_auc(scores, labels),
        average_precision_interval=metrics.average_precision_interval(scores, labels, groups, seed=seed),
        calibration_error=metrics.expected_calibration_error(probability, labels),
        brier=metrics.brier(probability, labels),
        collapsed=metrics.is_collapsed(scores),
        shift=shift(scores, verdict.reference),
        baselines=baselines(pairs, verdict.tfidf_threshold),
        slices=slices(pairs, scores, threshold),
        retrieval=retrieval(pairs, tables, verdict.symmetric) if tables else {},
        scores=scores,
        labels=labels,
        corpus=corpus_report(model, pairs, tables, *known_clusters(pairs, intents)) if tables else None,
        score=verdict.score,
        pairs=pairs,
        setting=verdict.pair,
        seed=seed,
        **_graded(scores, pairs.grades, groups, seed),
    )


def _graded(
    scores: NDArray[np.float32], grades: NDArray[np.float32] | None, groups: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """The fields of a report on graded labels."""
    if grades is None:
        return {}
    interval = metrics.spearman_interval(scores, grades, groups, seed=seed)
    return {"spearman": metrics.spearman(scores, grades), "spearman_interval": interval}


def _decided(
    scores: NDArray[np.float32], labels: NDArray[np.int8], groups: NDArray[np.int64], threshold: float, seed: int
) -> dict[str, Any]:
    """The fields of a report that depend on the threshold, with their intervals."""
    found = metrics.confusion(scores, labels, threshold)
    interval = metrics.bootstrap_interval(scores, labels, groups, threshold, seed=seed)
    names = ("f1", "precision", "recall", "accuracy")
    values = {name: getattr(found, name) for name in names}
    return {"threshold": threshold, **values, **{f"{name}_interval": interval[name] for name in names}}


def shift(scores: NDArray[np.float32], reference: Reference | None) -> Shift:
    """How far scores (n,) differ from those on which the threshold was chosen; nan if these are unknown.

    >>> shift(np.array([0.8, 0.9], dtype=np.float32), None)
    Shift(statistic=nan, p_value=nan, differs=False)
    """
    if reference is None:
        return Shift(math.nan, math.nan, False)
    distance = metrics.distribution_shift(scores, reference.quantiles, reference.n)
    return Shift(distance.statistic, distance.p_value, distance.p_value < 0.001 and distance.statistic > SHIFTED)


def retrieval(pairs: Pairs, tables: Tables, symmetric: bool = True) -> dict[str, float]:
    """Scores of searching the duplicates of each question among all others, and of mining all pairs, by cosine.

    Empty for too many questions, if the sides of a pair may not be swapped, or if no question has a duplicate.

    Args:
        pairs: labelled pairs.
        tables: embeddings of their questions, from `score_pairs`.
        symmetric: whether any question may be a query, and be found.
    """
    if len(pairs.questions) > RETRIEVAL_LIMIT or not symmetric:
        log.info("retrieval scores are left out: %d questions, symmetric: %s", len(pairs.questions), symmetric)
        return {}
    component = duplicate_components(pairs)
    if len(np.unique(component)) == len(component):
        return {}
    rows, columns = symmetric_tables(tables)
    return {
        **metrics.retrieval_scores(rows, component, others=columns),
        "mining_average_precision": metrics.mining_average_precision(rows, component, others=columns),
    }
