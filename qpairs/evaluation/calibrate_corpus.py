"""Fitting the verdict of a model to a corpus: from the scores of its pairs, and from labels if there are any."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter, OnProgress, Progress, ignore
from qpairs.data.corpus import Corpus, read_corpus
from qpairs.data.identity import distinct_texts
from qpairs.data.judgements import Judgements
from qpairs.data.labels import LabelledPairs
from qpairs.data.questions import QuestionSource
from qpairs.evaluation.annotators import Consensus, Noise, find_consensus
from qpairs.evaluation.sources import as_labels
from qpairs.metrics import CorpusEstimate, Densities, Expectation, ScoreCounts
from qpairs.models.base import Floats, Model, Tables, as_model, encode_in_blocks
from qpairs.models.shortened import shorten, shorten_tables
from qpairs.models.two_stages import TwoStages
from qpairs.models.verdict import CorpusSetting, Verdict

log = logging.getLogger(__name__)

PROMISES = (0.5, 0.7, 0.8, 0.9, 0.95)  # precisions whose cost is said
MORE = 50  # labels whose effect is predicted
BY_RANK = "nearest neighbours of random questions"
FOREIGN = "with a question that is not in the corpus"
LEAST_QUESTIONS = 20
FITTED_BEFORE = (
    "the model was already fitted to %d labels; if the same are given again, they count twice: start from the model "
    "before that fit"
)


@dataclass(frozen=True)
class Promise:
    """What a precision costs in a corpus.

    Attributes:
        precision: the requested one-sided 95 % lower bound.
        expected: precision and recall at the lowest threshold that reaches it; None if none does.
        labels: about how many stratified labels may reach it, if no threshold does; None if labels hardly can.
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
        used: how pairs were drawn ("" where unknown) -> labels that were used.
        left_out: reason -> labels that were not.
        noise: how often each annotator is wrong, if there are several.
    """

    model: Model
    setting: CorpusSetting
    before: Expectation
    after: Expectation
    with_more: Expectation
    used: Mapping[str, int]
    left_out: Mapping[str, int]
    noise: tuple[Noise, ...] = ()

    @cached_property
    def promises(self) -> tuple[Promise, ...]:
        """The cost of each of several precisions."""
        return tuple(_promise(self.setting, precision) for precision in PROMISES)

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        low, high = self.after.precision_interval
        return "CorpusFit", {
            "questions": self.setting.estimate.counts.n,
            "labels": sum(self.used.values()),
            "threshold": self.setting.threshold,
            "expected precision": f"{self.after.precision:.2f} ({low:.2f} to {high:.2f})",
            "expected recall": f"{self.after.recall:.2f}",
        }

    __repr__, _repr_html_ = one_line, html_card


class Answers(NamedTuple):
    """Labelled pairs as input of the fit: vectors (r, d) of both sides, labels (r,), and their log ratios (r,)."""

    vectors: Tables
    labels: NDArray[np.int8]
    log_ratios: NDArray[np.float64]


def calibrate_corpus(
    model: Model | str | Path,
    corpus: Corpus | QuestionSource,
    labels: LabelledPairs | QuestionSource | Sequence[LabelledPairs | QuestionSource] | None = None,
    *,
    trusted: Sequence[str] = (),
    on_progress: OnProgress = ignore,
) -> CorpusFit:
    """Fits what scores mean in a corpus to the corpus itself, without training. The setting for pairs stays.

    Without labels, the mixture of duplicates, near misses and strangers is estimated from the scores of the corpus (see
    `metrics.estimate_corpus`): an estimate that assumes that duplicates and near misses score as in validation. With
    labels, the share of duplicates at each score is fitted to them (`metrics.with_labels`), and weighted by how many
    pairs of the corpus have that score; so it does not matter how often each score was drawn. Labels of the nearest
    neighbour of random questions (`drawn` is random) are left out: they were chosen by rank, not by score. The verdicts
    for shortened vectors, if the model has some, are fitted in the same way. A pair counts once, however many
    annotators labelled it: if annotators share pairs, the error rate of each is estimated, and less certain labels
    count less (`qpairs.evaluation.annotators.find_consensus`).

    For a model of two stages, the verdict of the encoder is fitted: what the second look adds to its log odds is the
    same in every corpus.

    Args:
        model: a model with one tower, or its folder.
        corpus: a file of questions, or rows in memory, as in `read_corpus`.
        labels: pairs of the corpus with labels, as in `read_labels`, such as the labelling view of `qpairs serve`
            writes; or several such files or data frames.
        trusted: annotators whose labels are assumed to be right, if there are several.
        on_progress: the stages encoding (texts) and estimating.

    Raises:
        UserError: the model has two towers, a head, is a cross-encoder alone, or comes from a version that stored
            nothing about validation; a file cannot be used.
    """
    counted = count_corpus(model, corpus, on_progress=on_progress)
    if labels is not None:
        labels = as_labels(labels)
    on_progress(Progress("estimating"))
    densities = counted.encoder.verdict.densities
    if labels is not None and densities and densities.labels:
        log.warning(FITTED_BEFORE, densities.labels)
    return fit_corpus(counted, labels, trusted=trusted, warn=True)


@dataclass(frozen=True)
class CountedCorpus:
    """A corpus as a model sees it, so that the fit can be repeated as labels arrive.

    Attributes:
        model: whose verdict is fitted.
        texts: its distinct questions.
        counts: length of the vectors -> scores of all pairs; the full length, and those with their own verdict, which
            is unchanged if they are missing.
    """

    model: Model
    texts: Sequence[str]
    counts: Mapping[int, ScoreCounts]

    @property
    def encoder(self) -> Model:
        """The model, or the encoder of one of two stages."""
        return self.model.first if isinstance(self.model, TwoStages) else self.model


def count_corpus(
    model: Model | str | Path,
    corpus: Corpus | QuestionSource,
    *,
    encode: Callable[[Sequence[str]], Floats] | None = None,
    on_progress: OnProgress = ignore,
) -> CountedCorpus:
    """Encodes a corpus and counts the scores of its pairs; arguments and errors as `calibrate_corpus`.

    Args:
        model: a model with one tower, or its folder.
        corpus: the questions.
        encode: gives vectors (n, d) of texts that are already encoded; without it, the model encodes.
        on_progress: the stage encoding.
    """
    model = as_model(model)
    encoder = model.first if isinstance(model, TwoStages) else model
    encoder.verdict.require_cosine(encoder.path)
    if not (encoder.verdict.symmetric and encoder.one_tower):
        raise UserError(f"{encoder.path}: two towers; a corpus needs a single encoder")
    texts = enough_questions(read_corpus(corpus))
    vectors = encode(texts) if encode else encode_in_blocks(encoder, texts, Meter(on_progress))
    lengths = [encoder.dimension, *encoder.verdict.shortened]
    return CountedCorpus(model, texts, {length: metrics.count_scores(shorten(vectors, length)) for length in lengths})


def enough_questions(corpus: Corpus) -> list[str]:
    """The distinct questions of a corpus that a verdict can be fitted to.

    Raises:
        UserError: there are fewer than `LEAST_QUESTIONS`.

    >>> enough_questions(read_corpus(["How do I pay?"]))
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: list: 1 different question; at least 20 are needed to fit a corpus
    """
    texts = [corpus.texts[row] for row in distinct_texts(corpus.texts)[1]]
    if len(texts) < LEAST_QUESTIONS:
        found = f"{len(texts)} different question{'' if len(texts) == 1 else 's'}"
        raise UserError(f"{corpus.path}: {found}; at least {LEAST_QUESTIONS} are needed to fit a corpus")
    return texts


def fit_corpus(
    counted: CountedCorpus, labels: LabelledPairs | None = None, *, trusted: Sequence[str] = (), warn: bool = False
) -> CorpusFit:
    """Fits the verdict of a model to a counted corpus, and to labels of its pairs; see `calibrate_corpus`.

    Args:
        counted: from `count_corpus`.
        labels: pairs of the corpus.
        trusted: annotators whose labels are assumed to be right, if there are several.
        warn: whether to log a warning if all labels are the same.

    Raises:
        UserError: no label can be used, or the model comes from a version that stored nothing about validation.
    """
    model, encoder = counted.model, counted.encoder
    old = encoder.verdict
    found = find_consensus(labels, trusted=trusted) if labels is not None else None
    kept, left_out = _usable(found.judged, counted.texts) if found else ([], {})
    answers = _answers(encoder, found, kept) if found else None
    if answers and warn:
        _warn_of_one_kind(answers.labels)
    own, before = _own_densities(old, counted.counts[encoder.dimension], answers, encoder.path)
    shortened = {}
    for length, short in old.shortened.items():
        if length not in counted.counts:
            shortened[length] = short
            continue
        cut = answers._replace(vectors=shorten_tables(answers.vectors, length)) if answers else None
        densities, _ = _own_densities(short, counted.counts[length], cut, encoder.path)
        shortened[length] = replace(short, densities=densities)
    verdict, counts = replace(old, densities=own, shortened=shortened), before.counts
    estimate = metrics.estimate_corpus(own, counts)  # as whoever loads the model will have it
    if answers and warn:
        _warn_of_missed(answers, estimate.lowest)
    setting = CorpusSetting(estimate.default_threshold(), estimate)
    after = setting.expected()
    note = {"n": counts.n, "labels": estimate.labels, "precision_interval": after.precision_interval}
    fitted = encoder.with_verdict(verdict, {**encoder.scores, "calibrated_on_corpus": note})
    return CorpusFit(
        model=replace(model, first=fitted) if isinstance(model, TwoStages) else fitted,
        setting=setting,
        before=before.expected(before.default_threshold()),
        after=after,
        with_more=metrics.after_more_labels(estimate, MORE).expected(setting.threshold),
        used=dict(Counter(found.judged.drawn[row] for row in kept)) if found else {},
        left_out=left_out,
        noise=found.noise if found and len(found.noise) > 1 else (),
    )


def _usable(labels: Judgements, texts: Sequence[str]) -> tuple[list[int], dict[str, int]]:
    """The rows of the labels that are pairs of the corpus chosen by their score, and why others are left out."""
    number, _ = distinct_texts([*texts, *labels.first, *labels.second])
    of_corpus = set(number[: len(texts)].tolist())
    one, other = number[len(texts) :][: len(labels)], number[len(texts) + len(labels) :]
    kept, left_out = list[int](), Counter[str]()
    for row, drawn in enumerate(labels.drawn):
        if int(one[row]) not in of_corpus or int(other[row]) not in of_corpus:
            left_out[FOREIGN] += 1
        elif drawn == "random":
            left_out[BY_RANK] += 1
        else:
            kept.append(row)
    if not kept:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in left_out.items())
        raise UserError(f"labels: none can be used: {reasons}; label pairs of this corpus in the stratified view")
    return kept, dict(left_out)


def _warn_of_missed(answers: Answers, lowest: float) -> None:
    """Warns of labelled duplicates whose scores are so low that the expected recall does not include them."""
    rows, columns = answers.vectors
    duplicates = (rows * columns).sum(axis=1)[answers.labels == 1]
    if missed := int((duplicates < lowest).sum()):
        log.warning(
            "%d of %d labelled duplicates have a similarity below %.3f, where duplicates are not searched: the "
            "expected recall leaves them out; check whether these labels are right",
            missed,
            len(duplicates),
            lowest,
        )


def _warn_of_one_kind(labels: NDArray[np.int8]) -> None:
    if len(set(labels.tolist())) == 1:
        kind = "duplicates" if labels[0] else "different"
        log.warning("all %d labels are %s: were they drawn over the whole range of scores?", len(labels), kind)


def _own_densities(
    verdict: Verdict, counts: ScoreCounts, answers: Answers | None, where: Path
) -> tuple[Densities, CorpusEstimate]:
    """Densities fitted to the scores of a corpus and to labels, and the estimate from the earlier ones.

    Args:
        verdict: with what was known.
        counts: of the corpus.
        answers: labelled pairs; None without labels.
        where: the folder of the model, for an error message.
    """
    densities = _densities(verdict, counts, where)
    before = estimate = metrics.estimate_corpus(densities, counts)
    if answers is not None:
        scores: Floats = np.einsum("ij,ij->i", *answers.vectors).clip(-1, 1)
        estimate = metrics.with_labels(before, scores, answers.labels, answers.log_ratios)
    return metrics.own_densities(estimate, densities), before


def _densities(verdict: Verdict, counts: ScoreCounts, where: Path) -> Densities:
    if verdict.densities:
        return verdict.densities
    if verdict.reference is None:
        raise UserError(
            f"{where}: was made by an older version, which stored nothing about the pairs for its threshold; first "
            "run qpairs calibrate --data with labelled pairs, or train again"
        )
    reference = verdict.reference
    return metrics.densities_of_pairs(reference.quantiles, reference.n, verdict.pair.calibration, counts)


def _answers(model: Model, found: Consensus, rows: Sequence[int]) -> Answers:
    """The labelled pairs at some rows."""
    one, other = ([side[row] for row in rows] for side in (found.judged.first, found.judged.second))
    texts = list(dict.fromkeys(one + other))
    place = {text: k for k, text in enumerate(texts)}
    vectors = model.encode(texts)
    left, right = (vectors[[place[text] for text in side]] for side in (one, other))
    return Answers((left, right), found.labels[rows], found.log_ratio[rows])


def _promise(setting: CorpusSetting, precision: float) -> Promise:
    threshold = setting.estimate.threshold_at(precision)
    if threshold is not None:
        return Promise(precision, setting.expected(threshold), None)
    return Promise(precision, None, metrics.labels_needed(setting.estimate, precision))
