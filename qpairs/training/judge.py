"""The verdict of a trained model: chosen on the validation part, and reported on it and on the test part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from qpairs import metrics
from qpairs.config import Config
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts
from qpairs.data.splits import question_components
from qpairs.evaluation.baselines import UNTRAINED, tfidf_threshold, trivial_note
from qpairs.evaluation.calibrate import cross_fitted_scores
from qpairs.evaluation.evaluate import report
from qpairs.evaluation.prefixes import PrefixScore, prefix_scores, prefix_verdicts
from qpairs.evaluation.question_table import table_densities
from qpairs.models.base import Model, Tables
from qpairs.models.bi_encoder import Checkpoint, embed_tables, score_tables
from qpairs.models.borrowed import measured_pairs, ready_verdict
from qpairs.models.cross_encoder import KINDS, CrossModel
from qpairs.models.pair_reader import PairReader, read_pairs
from qpairs.models.shortened import shorten_tables
from qpairs.models.verdict import fit_verdict
from qpairs.models.versions import versions
from qpairs.objectives.matryoshka import prefix_lengths
from qpairs.objectives.pair_head import PairHead, Score
from qpairs.training.passes import History

Scored = tuple[NDArray[np.float32], Tables | None]  # of pairs: their scores, and the vectors of their questions


def judge(
    encoder: SentenceTransformer, config: Config, parts: Parts, history: History, head: PairHead | None = None
) -> Checkpoint:
    """Chooses threshold and calibration on the validation part and reports on it, and on the test part if there is one.

    With `dims`, each length of the vectors gets its own verdict, and a report has their scores in `dimensions`.

    Args:
        encoder: a trained encoder.
        config: the options of the run.
        parts: its data.
        history: what training reported.
        head: the classifier that the verdict reads; None: the cosine.
    """
    pairs = parts.validation
    tables = embed_tables(encoder, pairs.questions)
    scores = score_tables(tables, pairs, Score(head, config.symmetric))
    verdict = fit_verdict(
        scores,
        pairs.labels,
        tfidf_threshold(pairs),
        score="cosine" if head is None else "head",
        symmetric=config.symmetric,
        densities=table_densities(pairs, tables, symmetric=config.symmetric, seed=config.seed)
        if head is None
        else None,
    )
    lengths = prefix_lengths(config.dims, tables[0].shape[1])
    shortened = prefix_verdicts(lengths, pairs, tables, verdict, seed=config.seed)
    verdict = dataclasses.replace(verdict, shortened=shortened)
    checkpoint = Checkpoint(encoder, verdict, config, parts.split, history=history, head=head)
    found = _reports(checkpoint, parts, (scores, tables), checkpoint.score_pairs)
    return dataclasses.replace(checkpoint, scores=found)


def untrained_scores(encoder: SentenceTransformer, config: Config, parts: Parts) -> dict[str, dict[str, float]]:
    """Part -> F1 and average precision of the cosine before training, at the threshold that is best on validation.

    Args:
        encoder: untrained; it is used, and not changed.
        config: the options of the run.
        parts: its data.
    """
    found, threshold = {}, 0.0
    for name, pairs in (("validation", parts.validation), ("test", parts.test)):
        if pairs is None:
            continue
        scores = score_tables(embed_tables(encoder, pairs.questions), pairs, Score(None, config.symmetric))
        if name == "validation":
            threshold = metrics.best_threshold(scores, pairs.labels)
        found[name] = {
            "f1": metrics.confusion(scores, pairs.labels, threshold).f1,
            "average_precision": metrics.average_precision(scores, pairs.labels),
        }
    return found


def beside_untrained(checkpoint: Checkpoint, untrained: Mapping[str, Mapping[str, float]]) -> Checkpoint:
    """An evaluated checkpoint whose reports have the encoder before training among their baselines.

    Args:
        checkpoint: from `judge`.
        untrained: from `untrained_scores`.
    """
    reports = dict(checkpoint.scores)
    for part, scores in untrained.items():
        report = {**reports[part], "baselines": {**reports[part]["baselines"], UNTRAINED: dict(scores)}}
        reports[part] = {**report, "trivial": trivial_note(report)}
    return dataclasses.replace(checkpoint, scores=reports)


def judge_without_labels(encoder: SentenceTransformer, config: Config, parts: Parts, history: History) -> Checkpoint:
    """The verdict of an encoder trained without labels: that of a ready model (`models.borrowed`).

    It has a setting for a corpus, estimated from the corpus itself, and none for given pairs until it is calibrated.
    There is no report.

    Args:
        encoder: of one tower, trained only on questions.
        config: the options of the run.
        parts: its data.
        history: what training reported.
    """
    pairs = measured_pairs()
    tables = embed_tables(encoder, pairs.questions)
    lengths = prefix_lengths(config.dims, tables[0].shape[1])
    verdicts = {length: ready_verdict(pairs, shorten_tables(tables, length)[0]) for length in lengths}
    whole = verdicts.pop(tables[0].shape[1], None) or ready_verdict(pairs, tables[0])
    verdict = dataclasses.replace(whole, shortened=verdicts)
    return Checkpoint(encoder, verdict, config, parts.split, history=history)


def judge_cross_encoder(
    reader: PairReader,
    config: Config,
    parts: Parts,
    history: History,
    on_progress: OnProgress = ignore,
    stage: str = "evaluating",
) -> CrossModel:
    """The verdict of a cross-encoder, as `judge` chooses that of an encoder; there is none for a corpus.

    Args:
        reader: the trained cross-encoder.
        config: the options of the run.
        parts: its data.
        history: what training reported.
        on_progress: called while pairs are read.
        stage: what progress calls it.
    """

    def score(pairs: Pairs) -> Scored:
        return read_pairs(reader, [pairs.texts(row) for row in range(len(pairs))], on_progress, stage), None

    pairs = parts.validation
    scored = score(pairs)
    verdict = fit_verdict(scored[0], pairs.labels, tfidf_threshold(pairs), score="logit")
    form, made_by = {"kind": KINDS[0]}, versions()
    model = CrossModel(reader, verdict, config, form, parts.split, history=history, versions=made_by)
    return dataclasses.replace(model, scores=_reports(model, parts, scored, score))


def _reports(model: Model, parts: Parts, scored: Scored, score: Callable[[Pairs], Scored]) -> dict[str, Any]:
    """Part -> report; that of the validation part has F1 by cross-fitting, too.

    Args:
        model: with its verdict.
        parts: the data.
        scored: the validation pairs, scored.
        score: scores pairs.
    """
    pairs, seed = parts.validation, model.config.seed
    found = {"validation": report_on_part(model, pairs, scored)}
    groups = question_components(pairs)[pairs.left]
    found["validation"] |= cross_fitted_scores(scored[0], pairs.labels, groups, seed)
    if parts.test is not None:
        found["test"] = report_on_part(model, parts.test, score(parts.test))
    return found


def report_on_part(model: Model, pairs: Pairs, scored: Scored) -> dict[str, Any]:
    """The report on a part, as a model stores it; with the scores of each length of the vectors if there are several.

    Args:
        model: with its verdict.
        pairs: labelled pairs.
        scored: their scores.
    """
    found = report(model, pairs, *scored, seed=model.config.seed)
    values, tables = found.to_dict(brief=True), scored[1]
    if tables and model.verdict.shortened:
        whole = PrefixScore(tables[0].shape[1], found.threshold, found.f1, found.average_precision)
        rows = [whole, *prefix_scores(model.verdict.shortened, pairs, tables)]
        values["dimensions"] = [dataclasses.asdict(row) for row in rows]
    return values
