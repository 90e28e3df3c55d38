"""Fitting the verdict of a model to a corpus: from the scores of its pairs, and from labels where there are some."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter, OnProgress, Progress, ignore
from qpairs.data.corpus import Corpus, distinct_texts, read_corpus
from qpairs.data.labels import LabelledPairs, read_labels
from qpairs.metrics import Densities, Expectation, ScoreCounts
from qpairs.models.base import Floats, Model, as_model, encode_in_blocks
from qpairs.models.verdict import CorpusSetting, Verdict

log = logging.getLogger(__name__)

PROMISES = (0.5, 0.7, 0.8, 0.9, 0.95)  # precisions whose cost is said
MORE = 50  # labels whose effect is foretold
BY_RANK = "nearest neighbours of random questions"
FITTED_BEFORE = (
    "the model was fitted to %d labels before; if the same are given again, they count twice: start from the model as "
    "it was trained"
)


@dataclass(frozen=True)
class Promise:
    """What a precision costs in a corpus.

    Attributes:
        precision: the one-sided 95 % lower bound that is asked for.
        expected: precision and recall at the lowest threshold that reaches it; None where none does.
        labels: about how many stratified labels may get there, where none does; None where labels hardly can.
    """

    precision: float
    expected: Expectation | None
    labels: int | None


@dataclass(frozen=True)
class CorpusFit:
    """The result of fitting a verdict to a corpus.

    Attributes:
        model: with the new verdict.
        setting: what scores now mean in the corpus.
        before: expected at the threshold of the old verdict in this corpus, by the old verdict.
        after: expected at the new threshold, by the new one.
        with_more: expected at the new threshold after `MORE` more stratified labels.
        promises: what each of some precisions costs.
        used: how pairs were drawn ("" where unknown) -> labels that were used.
        left_out: reason -> labels that were not.
    """

    model: Model
    setting: CorpusSetting
    before: Expectation
    after: Expectation
    with_more: Expectation
    promises: tuple[Promise, ...]
    used: Mapping[str, int]
    left_out: Mapping[str, int]


def calibrate_corpus(
    model: Model | str | Path,
    corpus: Corpus | str | Path,
    labels: LabelledPairs | str | Path | None = None,
    *,
    on_progress: OnProgress = ignore,
) -> CorpusFit:
    """Fits what scores mean in a corpus to the corpus itself, without training. The setting for pairs stays.

    Without labels, the mixture of duplicates, near misses and strangers is estimated from the scores of the corpus (see
    `metrics.estimate_corpus`): an estimate that takes duplicates and near misses to score as they do in validation.
    With labels, the share of duplicates at each score is fitted to them (`metrics.with_labels`), and weighted by how
    many pairs of the corpus have that score; so it does not matter how often each score was drawn. Labels of the
    nearest neighbour of random questions (`drawn` is random) are left out: they were chosen by rank, not by score.

    Args:
        model: a model with one tower, or its folder.
        corpus: a file of questions, or one from `read_corpus`.
        labels: pairs of the corpus with labels, such as the labelling view of `qpairs serve` writes, or their file.
        on_progress: the stages encoding (texts) and estimating.

    Raises:
        UserError: the model has two towers, a head, or comes from a version that kept nothing of validation; a file
            cannot be used.
    """
    model = as_model(model)
    old = model.verdict
    old.require_cosine(model.path)
    if not (old.symmetric and model.one_tower):
        raise UserError(f"{model.path}: two towers; a corpus needs one encoder for all of it")
    corpus = read_corpus(corpus) if isinstance(corpus, str | Path) else corpus
    labels = read_labels(labels) if isinstance(labels, str | Path) else labels
    texts = [corpus.texts[row] for row in distinct_texts(corpus.texts)[1]]
    counts = metrics.count_scores(encode_in_blocks(model, texts, Meter(on_progress)))
    on_progress(Progress("estimating"))
    densities = _densities(old, counts, model.path)
    before = metrics.estimate_corpus(densities, counts)
    kept = _drawn_by_score(labels) if labels is not None else []
    estimate = before
    if labels is not None:
        if densities.labels:
            log.warning(FITTED_BEFORE, densities.labels)
        estimate = metrics.with_labels(before, _scores(model, labels)[kept], labels.labels[kept])
    left_out = {BY_RANK: len(labels) - len(kept)} if labels is not None and len(kept) < len(labels) else {}
    verdict = replace(old, densities=metrics.own_densities(estimate, densities))
    setting = CorpusSetting(estimate.best_threshold(), estimate)
    after = setting.expected()
    note = {"n": counts.n, "labels": estimate.labels, "precision_interval": after.precision_interval}
    return CorpusFit(
        model=model.with_verdict(verdict, {**model.scores, "calibrated_on_corpus": note}),
        setting=setting,
        before=before.expected(before.best_threshold()),
        after=after,
        with_more=metrics.after_more_labels(estimate, MORE).expected(setting.threshold),
        promises=tuple(_promise(setting, precision) for precision in PROMISES),
        used=dict(Counter(labels.drawn[row] for row in kept)) if labels is not None else {},
        left_out=left_out,
    )


def _drawn_by_score(labels: LabelledPairs) -> list[int]:
    """The rows of the labels that were chosen by nothing but their score, as far as is known."""
    rows = [row for row, drawn in enumerate(labels.drawn) if drawn != "random"]
    if not rows:
        raise UserError("labels: none of them was drawn by score; answer pairs of the stratified view")
    return rows


def _densities(verdict: Verdict, counts: ScoreCounts, where: Path) -> Densities:
    if verdict.densities:
        return verdict.densities
    if verdict.reference is None:
        raise UserError(
            f"{where}: was made by an older version, and nothing is known of the pairs that its threshold was chosen "
            "on; first qpairs calibrate --data with labelled pairs, or train anew"
        )
    reference = verdict.reference
    return metrics.densities_of_pairs(reference.quantiles, reference.n, verdict.pair.calibration, counts)


def _scores(model: Model, labels: LabelledPairs) -> Floats:
    texts = list(dict.fromkeys(labels.first + labels.second))
    row = {text: k for k, text in enumerate(texts)}
    vectors = model.encode(texts)
    left, right = ([row[text] for text in side] for side in (labels.first, labels.second))
    scores: Floats = np.einsum("ij,ij->i", vectors[left], vectors[right]).clip(-1, 1)
    return scores


def _promise(setting: CorpusSetting, precision: float) -> Promise:
    threshold = setting.estimate.threshold_at(precision)
    if threshold is not None:
        return Promise(precision, setting.expected(threshold), None)
    return Promise(precision, None, metrics.labels_needed(setting.estimate, precision))
