"""Fits the verdict of a model to a user's own pairs, and estimates F1 on these pairs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.core.cards import html_card, one_line
from qpairs.data.identity import question_digests
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.sources import PairSource
from qpairs.data.splits import question_components
from qpairs.evaluation.baselines import tfidf_threshold
from qpairs.evaluation.joint import Judged, fit_joint, folds_of
from qpairs.evaluation.question_table import table_densities
from qpairs.evaluation.seen import CALIBRATED_ON, DIGESTS, seen_in_training, seen_note
from qpairs.evaluation.sources import as_pairs
from qpairs.metrics import Densities, SecondLook
from qpairs.metrics.intervals import Interval
from qpairs.models.base import Model, Tables, as_model, cosine_scores
from qpairs.models.shortened import shorten_tables
from qpairs.models.two_stages import TwoStages
from qpairs.models.verdict import PairSetting, Verdict, fit_verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """The result of fitting a verdict to a user's own pairs.

    Attributes:
        model: with the new verdict.
        n: pairs it was fitted on.
        f1_before: on these pairs, at the old threshold.
        f1_after: on these pairs, at the new threshold, by cross-fitting.
        interval: 95 % of f1_after.
        more_pairs: how many more labelled pairs would halve the interval.
    """

    model: Model
    n: int
    f1_before: float
    f1_after: float
    interval: Interval
    more_pairs: int

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        low, high = self.interval
        return "Fit", {
            "labelled pairs": self.n,
            "F1 before": self.f1_before,
            "F1 after": f"{self.f1_after:.3f} ({low:.3f} to {high:.3f}), cross-fitted",
            "threshold": self.model.verdict.pair.threshold,
            "more pairs that would halve the interval": self.more_pairs,
        }

    __repr__, _repr_html_ = one_line, html_card


def calibrate(model: Model | str | Path, data: PairSource, *, seed: int = 0) -> Fit:
    """Fits threshold and probability to labelled pairs of the user's own, without training.

    Both are shrunk towards the old ones when the pairs are few (see `metrics.fit_threshold`, `fit_calibration`). The
    verdicts for shortened vectors, if the model has some, are fitted in the same way. In a model of two stages the
    verdict of the encoder is fitted first, and then that of both; what the cross-encoder's logit adds is fitted again
    if there are many pairs.

    Args:
        model: a model, or its folder.
        data: a few dozen labelled pairs or more, or their source, as in `load_pairs`.
        seed: of the bootstrap.

    Raises:
        UserError: the data cannot be used, or has pairs of one label only.

    Example, where `model` is a model or its folder, and `pairs` are labelled:

    >>> fit = calibrate(model, pairs)  # fit.model.save writes the model with its new verdict
    >>> f"F1 {fit.f1_before:.2f} before, {fit.f1_after:.2f} after"
    'F1 0.62 before, 0.79 after'
    """
    model, pairs = as_model(model), as_pairs(data)
    need_both_labels(pairs, "calibrate")
    _warn_of_known(model, pairs)
    fit = _calibrate_both(model, pairs, seed) if isinstance(model, TwoStages) else _calibrate_one(model, pairs, seed)
    if fit.model.verdict.pair.calibration.slope <= 0:
        log.warning(
            "duplicates do not score higher in these pairs: every pair gets the probability %.2f, the share of "
            "duplicates; check the labels (qpairs audit), or train a model on pairs like these",
            fit.model.verdict.pair.probability([0.0])[0],
        )
    return fit


def _warn_of_known(model: Model, pairs: Pairs) -> None:
    """Warns where the model was trained on these questions: it scores them better than those that it will be asked."""
    seen = seen_in_training(model, pairs)
    if seen and seen.questions:
        log.warning(
            "calibrate: %s, nor do a threshold and probabilities fitted to them; name other pairs",
            seen_note(seen.questions, seen.of_questions),
        )


def _calibrate_one(model: Model, pairs: Pairs, seed: int) -> Fit:
    """Fits the verdict of a model that is not a `TwoStages`."""
    scores, tables = model.score_pairs(pairs)
    labels, groups, old = pairs.labels, question_components(pairs)[pairs.left], model.verdict
    tfidf, shortened = tfidf_threshold(pairs), {}
    for length, before in old.shortened.items():
        short = shorten_tables(model.embed_tables(pairs.questions) if tables is None else tables, length)
        found = cosine_scores(short, pairs, symmetric=old.symmetric)
        shortened[length] = _refit(before, pairs, found, short, tfidf)
    new = replace(_refit(old, pairs, scores, tables, tfidf), shortened=shortened)
    decided = cross_fitted(scores, labels, groups, old.pair.threshold, folds=10)
    interval = metrics.bootstrap_interval(decided, labels, groups, 0.5, seed=seed)["f1"]
    return Fit(
        model=model.with_verdict(new, {**model.scores, CALIBRATED_ON: _figures(pairs, interval)}),
        n=len(pairs),
        f1_before=metrics.confusion(scores, labels, old.pair.threshold).f1,
        f1_after=metrics.confusion(decided, labels, 0.5).f1,
        interval=interval,
        more_pairs=metrics.pairs_to_halve(len(pairs)),
    )


def _figures(pairs: Pairs, interval: Interval) -> dict[str, Any]:
    """What a model keeps of the pairs that its verdict was fitted to, see `seen.seen_in_calibration`."""
    return {"n": len(pairs), "f1_interval": interval, DIGESTS: question_digests(pairs.questions)}


def _calibrate_both(model: TwoStages, pairs: Pairs, seed: int) -> Fit:
    """Fits the verdict of the encoder, and then that of both models."""
    first = _calibrate_one(model.first, pairs, seed).model
    scores, _ = model.first.score_pairs(pairs)
    logits = model.read(pairs, np.ones(len(pairs), dtype=np.bool_))
    labels, old = pairs.labels, model.verdict.pair
    judged = Judged(scores, logits, labels, question_components(pairs)[pairs.left])
    kept = model.look if len(pairs) < metrics.MANY_PAIRS else None
    fitted = fit_joint(judged, first.verdict.pair, tfidf_threshold(pairs), look=kept, prior=old, seed=seed)
    before = model.join(scores, np.where(model.band.holds(scores), logits, np.float32(np.nan)))
    decided = _cross_fitted_both(judged, model, kept)
    interval = metrics.bootstrap_interval(decided, labels, judged.groups, 0.5, seed=seed)["f1"]
    found = {**model.scores, CALIBRATED_ON: _figures(pairs, interval)}
    return Fit(
        model=replace(model, first=first, look=fitted.look, verdict=fitted.verdict, scores=found),
        n=len(pairs),
        f1_before=metrics.confusion(before, labels, old.threshold).f1,
        f1_after=metrics.confusion(decided, labels, 0.5).f1,
        interval=interval,
        more_pairs=metrics.pairs_to_halve(len(pairs)),
    )


def _cross_fitted_both(judged: Judged, model: TwoStages, kept: SecondLook | None) -> NDArray[np.bool_]:
    """Decisions (n,) of both models on each fold, with everything calibrated on the other folds."""
    scores, labels, old = judged.scores, judged.labels, model.first.verdict.pair
    decided = np.zeros(len(scores), dtype=np.bool_)
    for here, rest in folds_of(judged.groups, labels, 10):
        setting = PairSetting(old.threshold, metrics.fit_calibration(scores[rest], labels[rest], old.calibration))
        look = kept or metrics.fit_second_look(scores[rest], judged.logits[rest], labels[rest], setting.log_odds)
        both = setting.log_odds(scores) + look.gain(scores, judged.logits)
        threshold = metrics.fit_threshold(both[rest], labels[rest], model.verdict.pair.threshold)
        decided[here] = metrics.decide(both[here], threshold)
    return decided


def _refit(
    old: Verdict, pairs: Pairs, scores: NDArray[np.float32], tables: Tables | None, tfidf: float | None
) -> Verdict:
    """A verdict fitted to labelled pairs with these scores; an old one is its prior."""
    return fit_verdict(
        scores,
        pairs.labels,
        tfidf,
        score=old.score,
        symmetric=old.symmetric,
        prior=old.pair,
        densities=_densities(old, pairs, scores, tables),
    )


def _densities(old: Verdict, pairs: Pairs, scores: NDArray[np.float32], tables: Tables | None) -> Densities | None:
    """Those of the pairs' own question table if there are many pairs; the old ones, moved, if there are few."""
    if old.score != "cosine" or tables is None:
        return None
    if old.densities and len(pairs) < metrics.MANY_PAIRS:
        return metrics.moved_densities(old.densities, scores[pairs.labels == 1])
    return table_densities(pairs, tables, symmetric=old.symmetric) or old.densities


def cross_fitted(
    scores: NDArray[np.float32],
    labels: NDArray[np.int8],
    groups: NDArray[np.int64],
    prior: float | None = None,
    folds: int = 2,
) -> NDArray[np.bool_]:
    """Decisions (n,) by cross-fitting: each fold at a threshold fitted to the others, so F1 is not optimistic.

    Args:
        scores: (n,) similarities.
        labels: (n,) labels.
        groups: (n,) component of each pair; folds share none.
        prior: the old threshold that `metrics.fit_threshold` shrinks towards.
        folds: into how many parts the components are divided, at random with a fixed seed.

    >>> scores, labels = np.array([0.1, 0.9, 0.2, 0.8], dtype=np.float32), np.array([0, 1, 0, 1], dtype=np.int8)
    >>> cross_fitted(scores, labels, np.array([0, 0, 1, 1])).tolist()
    [False, True, False, True]
    """
    decided = np.zeros(len(scores), dtype=np.bool_)
    for here, rest in folds_of(groups, labels, folds):
        decided[here] = metrics.decide(scores[here], metrics.fit_threshold(scores[rest], labels[rest], prior))
    return decided


def cross_fitted_scores(
    scores: NDArray[np.float32], labels: NDArray[np.int8], groups: NDArray[np.int64], seed: int = 0
) -> dict[str, float | Interval]:
    """F1 by cross-fitting and its 95 % interval, as stored in a model: `f1_cross_fitted`, `f1_cross_fitted_interval`.

    Args:
        scores: (n,) scores.
        labels: (n,) labels.
        groups: (n,) component of each pair.
        seed: of the bootstrap.
    """
    decided = cross_fitted(scores, labels, groups)
    return {
        "f1_cross_fitted": metrics.confusion(decided, labels, 0.5).f1,
        "f1_cross_fitted_interval": metrics.bootstrap_interval(decided, labels, groups, 0.5, seed=seed)["f1"],
    }
