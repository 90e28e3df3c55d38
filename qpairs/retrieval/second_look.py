"""The second look of a model of two stages in retrieval: cosines find, cosine and logit together decide.

What the cross-encoder says of a pair is a gain in log odds that does not depend on how frequent duplicates are
(`metrics.SecondLook`), so it is added to the log odds that a cosine has where it is read: among all pairs of a corpus,
or among the hits of a search. Only pairs in the band are read; outside it, the second look could not change the
decision, with 99 % confidence. `search`, `dedupe` and the service all decide by this module.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.data.corpus import question_key
from qpairs.metrics import SecondLook
from qpairs.metrics.read_pairs import SURE, WORTH
from qpairs.metrics.second_look import GRID
from qpairs.models.base import Floats, Model
from qpairs.models.pair_reader import PairReader, read_pairs
from qpairs.models.two_stages import Band, TwoStages, first_stage, log_odds_of
from qpairs.models.verdict import CorpusSetting, Setting
from qpairs.retrieval.index.base import Hit

log = logging.getLogger(__name__)

EVEN = 0.5  # a hit is a duplicate where that is likelier than not
STEP = float(GRID[1] - GRID[0])  # of the cosines at which a band is looked for
MANY = 1_000_000  # pairs to read, from which on it is said how long that takes

FEW_DENSITIES = (
    "precision: the model has a verdict for labelled pairs alone, so no precision can be promised in a corpus; qpairs "
    "calibrate MODEL --corpus QUESTIONS, or use --threshold"
)
NOT_IN_CORPUS = "threshold: it is a probability, from 0 to 1, since the model takes a second look; or use --no-reranker"


def with_vectors(model: Model) -> Model:
    """What encodes: the encoder of a model of two stages, or the model itself.

    Raises:
        UserError: a cross-encoder, which has no vectors.
    """
    first = first_stage(model)
    _ = first.dimension  # a cross-encoder has none, and says so
    return first


def encoder_of(model: Model) -> Model:
    """What finds duplicates by cosines: the encoder of a model of two stages, or the model itself.

    Raises:
        UserError: a cross-encoder, which has no vectors, or a model whose verdict cannot be read from cosines.
    """
    first = with_vectors(model)
    first.verdict.require_cosine(first.path)
    return first


@dataclass(frozen=True)
class SecondSetting:
    """What cosine and logit together mean in one place: a `Setting`, which without logits decides by cosines.

    Attributes:
        base: what cosines alone mean there.
        look: what a logit adds to that.
        threshold: a pair is called a duplicate if and only if its probability is at or above it.
        bounded: whether it is the lower 95 % bound of the probability that must be at or above the threshold.

    >>> from qpairs.metrics import Calibration
    >>> from qpairs.models.verdict import PairSetting
    >>> base, look = PairSetting(0.8, Calibration(10, -8)), SecondLook(0, 0, 1, (-2, 0), (2, 0))
    >>> setting = SecondSetting(base, look)
    >>> setting.probability([0.8, 0.8, 0.8], [-2.0, np.nan, 2.0]).round(2).tolist()
    [0.12, 0.5, 0.88]
    """

    base: Setting
    look: SecondLook
    threshold: float = EVEN
    bounded: bool = False

    @property
    def precision_of(self) -> str:
        """What its probabilities and precisions are true of, in words."""
        return self.base.precision_of

    def log_odds(self, scores: ArrayLike, logits: ArrayLike | None = None) -> NDArray[np.float64]:
        """Log odds of being duplicates, in the shape of the cosines.

        Args:
            scores: cosines.
            logits: of the cross-encoder, NaN for pairs that were not read; None: none was.
        """
        return self.base.log_odds(scores) + self._gain(scores, logits)

    def probability(self, scores: ArrayLike, logits: ArrayLike | None = None) -> NDArray[np.float64]:
        """Probabilities of being duplicates, in the shape of the cosines; arguments as in `log_odds`."""
        return np.asarray(expit(self.log_odds(scores, logits)))

    def decide(self, scores: ArrayLike, logits: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Whether pairs are called duplicates, in the shape of the cosines; arguments as in `log_odds`."""
        return metrics.decide(expit(self._decisive(scores) + self._gain(scores, logits)), self.threshold)

    def band(self, least: float | None = None, most: float | None = None) -> Band:
        """The cosines between which a second look may change a decision, at 99 %; see `SecondLook.band`.

        Args:
            least: probability from which on pairs are called duplicates; None: the threshold.
            most: the highest such probability that is of interest; None: `least`.
        """
        lower = log_odds_of(self.threshold if least is None else least)
        upper = lower if most is None else log_odds_of(most)
        low, high = self.look.band(self._decisive, lower, upper)
        return Band(low - STEP, high + STEP) if low <= 1 else Band(low, high)  # what lies between two steps, too

    def read_band(self) -> Band:
        """The cosines of the hits that are read: those that it may change at any threshold from `WORTH` to `SURE`.

        So that a hit has one probability, whichever of these thresholds decides.
        """
        return self.band(min(WORTH, self.threshold), max(SURE, self.threshold))

    def floor(self, least: float) -> float:
        """The cosine below which no pair of a corpus has this probability, even with a second look, at 99 %.

        It lies no lower than what the estimate of a corpus judges: 32 pairs for each question.
        """
        lowest = self.base.estimate.lowest if isinstance(self.base, CorpusSetting) else -1.0
        return max(self.band(least, 1.0).low, lowest)

    def at(self, threshold: float) -> SecondSetting:
        """The same setting with another threshold of the probability.

        Raises:
            UserError: it is no probability.
        """
        check_probability(threshold)
        return replace(self, threshold=threshold, bounded=False)

    def threshold_at(self, precision: float) -> float | None:
        """The precision itself, as a threshold of the lower bound of each probability; None where none reaches it."""
        if not isinstance(self.base, CorpusSetting):
            return None
        return precision if self._highest_bound(self.base) >= precision else None

    def at_precision(self, precision: float) -> SecondSetting:
        """The setting that calls a pair a duplicate where the lower 95 % bound of its probability is at least this.

        Raises:
            UserError: nothing is known of the corpus, or no pair's bound could be that high.
        """
        if not isinstance(self.base, CorpusSetting):
            raise UserError(FEW_DENSITIES)
        if self.threshold_at(precision) is None:
            highest = math.floor(100 * self._highest_bound(self.base)) / 100
            raise UserError(
                f"precision: no hit is known to be a duplicate with probability {precision:g}; the highest that can be "
                f"promised is {highest:.2f}. Labels of the corpus may help: qpairs serve --labels, then qpairs "
                "calibrate --corpus --labels"
            )
        return replace(self, threshold=precision, bounded=True)

    def _highest_bound(self, base: CorpusSetting) -> float:
        """The highest lower bound of a probability that a pair may have, at 99 %."""
        odds = base.lower_log_odds(GRID) + self.look.bounds(GRID)[1]
        return float(expit(odds.max()))

    def _decisive(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Log odds of cosines that the decision rests on."""
        if self.bounded and isinstance(self.base, CorpusSetting):
            return self.base.lower_log_odds(scores)
        return self.base.log_odds(scores)

    def _gain(self, scores: ArrayLike, logits: ArrayLike | None) -> NDArray[np.float64]:
        return np.zeros(np.shape(scores)) if logits is None else self.look.gain(scores, logits)


def second_setting(base: Setting, model: TwoStages) -> SecondSetting:
    """What both stages mean where cosines mean `base`; a pair is called a duplicate where that is likelier than not.

    Where the model has a verdict for labelled pairs alone, the threshold is that of the verdict.
    """
    if isinstance(base, CorpusSetting):
        return SecondSetting(base, model.look)
    return SecondSetting(base, model.look, float(expit(model.verdict.pair.threshold)))


def check_probability(threshold: float) -> None:
    """Raises UserError where a threshold is no probability."""
    if not 0 <= threshold <= 1:
        raise UserError(NOT_IN_CORPUS)


def judge_pairs(
    model: TwoStages, reader: PairReader, cosines: Floats | NDArray[np.float64], pairs: Sequence[tuple[str, str]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities and decisions (n,) on pairs that people hand over, by the model's verdict on pairs.

    Args:
        model: of two stages.
        reader: its cross-encoder; reads the pairs in the model's band.
        cosines: (n,) of the pairs.
        pairs: (n,) their texts.
    """
    setting, logits = model.verdict.pair, np.full(len(pairs), np.nan, dtype=np.float32)
    inside = model.band.holds(np.asarray(cosines, dtype=np.float32))
    if inside.any():
        logits[inside] = read_pairs(reader, [pairs[row] for row in np.flatnonzero(inside).tolist()])
    log_odds = model.join(np.asarray(cosines, dtype=np.float32), logits)
    return setting.probability(log_odds), setting.decide(log_odds)


def shown_threshold(model: Model) -> tuple[float, Literal["similarity", "probability"]]:
    """The threshold of the verdict on pairs, as people read it, and what it is one of.

    A model of two stages decides on log odds; they are shown as the probability that they mean.
    """
    setting = model.verdict.pair
    if isinstance(model, TwoStages):
        return float(setting.probability(setting.threshold)), "probability"
    return setting.threshold, "similarity"


@dataclass(frozen=True)
class ReadShare:
    """Which of the candidates had a second look.

    Attributes:
        band: cosines between which it could change the verdict.
        read: candidates that were read.
        candidates: all of them.
    """

    band: Band
    read: int
    candidates: int

    @property
    def share(self) -> float:
        """Of the candidates, those that were read."""
        return self.read / max(self.candidates, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"band": list(self.band), "read": self.read, "candidates": self.candidates, "share": self.share}

    def __str__(self) -> str:
        """One line that says what was read, and why not the rest."""
        if not self.candidates:
            return "no pair can reach a probability of 10 %; --no-reranker decides by the encoder alone"
        where = ""
        if self.band.low <= 1:
            where = f" (cosine {max(self.band.low, -1):.2f} to {min(self.band.high, 1):.2f})"
        rest = "; outside, it could not change the verdict (99 %)" if where else "; it could not change any verdict"
        return f"second look at {self.read:,} of {self.candidates:,} candidates{where}{rest}"


def read_candidates(
    reader: PairReader, pairs: Sequence[tuple[str, str]], on_progress: OnProgress = ignore, many: int = MANY
) -> Floats:
    """Logits (n,) of candidate pairs; where there are very many, a warning says how long it will take.

    Args:
        reader: the cross-encoder.
        pairs: of texts.
        on_progress: the stage reading pairs.
        many: pairs from which on the warning is logged, after the first ones.
    """
    warned = False

    def watch(now: Progress) -> None:
        nonlocal warned
        if now.rate and now.total >= many and not warned:
            warned = True
            log.warning(
                "%s candidates are to be read, about %s pairs/s: %s; --no-reranker decides by the encoder alone",
                f"{now.total:,}",
                f"{now.rate:,.0f}",
                _duration((now.total - now.done) / now.rate),
            )
        on_progress(now)

    return read_pairs(reader, pairs, watch)


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


def read_hits(
    reader: PairReader,
    hits: Sequence[Sequence[Hit]],
    questions: Sequence[str],
    setting: SecondSetting,
    *,
    most: int | None = None,
    on_progress: OnProgress = ignore,
) -> list[NDArray[np.float32]]:
    """Logits of the hits of searches, NaN where none was read; all questions are read together, each pair once.

    Args:
        reader: the cross-encoder.
        hits: of each question, nearest first.
        questions: (q,) their texts.
        setting: in whose band hits are read; one with the text of the question is none.
        most: hits of a question that are read, at most: the nearest; None: all in the band.
        on_progress: the stage reading pairs.
    """
    band = setting.read_band()
    logits = [np.full(len(row), np.nan, dtype=np.float32) for row in hits]
    places: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row, (found, question) in enumerate(zip(hits, questions, strict=True)):
        inside = np.flatnonzero(band.holds(np.array([hit.similarity for hit in found]))).tolist()
        key = question_key(question)
        for column in [place for place in inside if question_key(found[place].text) != key][:most]:
            places.setdefault((question, found[column].text), []).append((row, column))
    read = read_candidates(reader, list(places), on_progress).tolist() if places else []
    for logit, where in zip(read, places.values(), strict=True):
        for row, column in where:
            logits[row][column] = logit
    return logits


def called_from(setting: Setting) -> str:
    """From what on a question is called a duplicate, in words: "from a similarity of 0.812 on"."""
    if not isinstance(setting, SecondSetting):
        return f"from a similarity of {setting.threshold:.3f} on"
    if setting.bounded:
        return f"where the probability is at least {setting.threshold:g}, with 95 % confidence"
    return f"from a probability of {setting.threshold:.2f} on"
