"""What a second look at pairs of a corpus changes: which pairs are worth it, and what all of them say then."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit

from qpairs.metrics import CorpusEstimate, ReadEstimate, SecondLook
from qpairs.models.two_stages import Band
from qpairs.models.verdict import CorpusSetting

WORTH = 0.1  # probability that a pair must be able to reach: the threshold of greatest F1 is half of that F1
SURE = 0.9  # probability that a pair must be able to fall below


def corpus_band(setting: CorpusSetting, look: SecondLook) -> Band:
    """Cosines of the pairs of a corpus that a second look may change, for all thresholds from `WORTH` to `SURE`.

    Pairs below it stay under the one, pairs above it stay over the other, with 99 % confidence.
    """
    return Band(*look.band(setting.log_odds, float(logit(WORTH)), float(logit(SURE))))


def after_reading(
    estimate: CorpusEstimate, look: SecondLook, cosines: ArrayLike, logits: ArrayLike, floor: float
) -> ReadEstimate:
    """The duplicates of a corpus after the second look; its scores are the probabilities of the pairs, in order.

    Args:
        estimate: of the corpus, from its cosines.
        look: what the logits add.
        cosines: (m,) of all pairs at or above `floor`.
        logits: (m,) of these pairs; NaN for those that were not read.
        floor: cosine of the lowest pair that counts.
    """
    values = np.asarray(cosines, dtype=np.float64)
    return ReadEstimate(estimate, values, look.gain(values, logits), floor)
