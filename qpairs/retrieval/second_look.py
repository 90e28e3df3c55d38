"""Reading candidates and hits with the cross-encoder of a model of two stages, and saying which were read.

`models.second_setting` says which pairs are worth it, and what cosine and logit together mean.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.data.identity import canonical
from qpairs.models.base import Floats, Model
from qpairs.models.pair_reader import PairReader, read_pairs
from qpairs.models.second_setting import SecondSetting
from qpairs.models.two_stages import Band, TwoStages, first_stage
from qpairs.models.verdict import Setting
from qpairs.retrieval.index.base import Hit

log = logging.getLogger(__name__)

MANY = 1_000_000  # pairs to read, from which on it is said how long that takes


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
            return "no two different questions reach a probability of 10 %; --no-reranker uses only the encoder"
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
                "%s candidates to read, at about %s pairs/s: %s; --no-reranker uses only the encoder",
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
        key = canonical(question)
        for column in [place for place in inside if canonical(found[place].text) != key][:most]:
            places.setdefault((question, found[column].text), []).append((row, column))
    read = read_candidates(reader, list(places), on_progress).tolist() if places else []
    for logit, where in zip(read, places.values(), strict=True):
        for row, column in where:
            logits[row][column] = logit
    return logits


def called_from(setting: Setting) -> str:
    """When a question is called a duplicate, in words: "at a similarity of 0.812 or more"."""
    if not isinstance(setting, SecondSetting):
        return f"at a similarity of {setting.threshold:.3f} or more"
    if setting.bounded:
        return f"if the probability is at least {setting.threshold:g}, with 95 % confidence"
    return f"at a probability of {setting.threshold:.2f} or more"
