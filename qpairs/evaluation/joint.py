"""What an encoder and a cross-encoder mean together, fitted on labelled pairs: gain, band and verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.metrics import SecondLook, fit_second_look
from qpairs.models.base import Floats
from qpairs.models.two_stages import Band
from qpairs.models.verdict import PairSetting, Verdict, fit_verdict

FOLDS = 5
ROUNDS = 5  # of threshold and band


@dataclass(frozen=True)
class Judged:
    """Labelled pairs that both models have scored.

    Attributes:
        scores: (n,) of the encoder.
        logits: (n,) of the cross-encoder, for all pairs.
        labels: (n,) 1 duplicate, 0 not; both occur.
        groups: (n,) component of each pair; folds share none.
    """

    scores: Floats
    logits: Floats
    labels: NDArray[np.int8]
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class Joint:
    """What both mean together.

    Attributes:
        look: the gain of the second, fitted to all pairs.
        verdict: of both.
        scores: (n,) log odds that the verdict was fitted to, read only in the band.
        everywhere: (n,) log odds with all pairs read.
        seen: (n,) whether a pair lies in the band.
    """

    look: SecondLook
    verdict: Verdict
    scores: Floats
    everywhere: NDArray[np.float64]
    seen: NDArray[np.bool_]


def fit_joint(
    judged: Judged,
    setting: PairSetting,
    tfidf_threshold: float | None,
    *,
    look: SecondLook | None = None,
    prior: PairSetting | None = None,
    seed: int = 0,
) -> Joint:
    """Fits gain, band, threshold, calibration and operating points.

    The verdict is fitted to gains of cross-fitting, where each pair is scored by a fit to pairs of other components, so
    that it is not optimistic.

    Args:
        judged: labelled pairs that neither model was trained on.
        setting: of the encoder, for pairs.
        tfidf_threshold: of the TF-IDF baseline on these pairs; None if unknown.
        look: an earlier gain, kept if the pairs are too few to fit one.
        prior: an earlier setting of both, which threshold and calibration shrink towards when the pairs are few.
        seed: of the folds.
    """
    scores, labels = judged.scores, judged.labels
    base = setting.log_odds(scores)
    if look is None:
        everywhere = base + _cross_fitted_gain(judged, setting, seed)
        look = fit_second_look(scores, judged.logits, labels, setting.log_odds)
    else:
        everywhere = base + look.gain(scores, judged.logits)
    threshold = metrics.fit_threshold(everywhere, labels, prior.threshold if prior else None)
    for _ in range(ROUNDS):  # the band follows from the threshold, and the threshold from what is read in the band
        seen = Band(*look.band(setting.log_odds, threshold)).holds(scores)
        both = np.where(seen, everywhere, base).astype(np.float32)
        verdict = fit_verdict(both, labels, tfidf_threshold, score="log odds", prior=prior)
        if verdict.pair.threshold == threshold:
            break
        threshold = verdict.pair.threshold
    seen = Band(*look.band(setting.log_odds, threshold)).holds(scores)
    return Joint(look, verdict, np.where(seen, everywhere, base).astype(np.float32), everywhere, seen)


def _cross_fitted_gain(judged: Judged, setting: PairSetting, seed: int) -> NDArray[np.float64]:
    """(n,) gain of each pair, fitted to the pairs of the other folds; folds share no component."""
    scores, logits, labels = judged.scores, judged.logits, judged.labels
    gain = np.zeros(len(scores))
    for here, rest in folds_of(judged.groups, labels, FOLDS, seed):
        look = fit_second_look(scores[rest], logits[rest], labels[rest], setting.log_odds)
        gain[here] = look.gain(scores[here], logits[here])
    return gain


def folds_of(
    groups: NDArray[np.int64], labels: NDArray[np.int8], folds: int, seed: int = 0
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """The pairs of each fold, and the other pairs to fit on: all pairs, if the others have only one label.

    Args:
        groups: (n,) component of each pair; folds share none, but for one that is `metrics.taken_apart`.
        labels: (n,) labels.
        folds: into how many parts the components are divided, at random.
        seed: of the division.

    >>> [(here.tolist(), rest.tolist()) for here, rest in folds_of(np.array([0, 1]), np.array([0, 0]), 2)]
    [([True, False], [True, True]), ([False, True], [True, True])]
    """
    number, groups = np.unique(metrics.taken_apart(groups), return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(number))[groups] % folds
    found = []
    for k in np.unique(fold):
        here = fold == k
        found.append((here, ~here if len(set(labels[~here].tolist())) == 2 else np.ones_like(here)))
    return found
