"""Models of two stages for tests of retrieval: vectors of made-up questions, and a reader that knows their intents."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import corpora
import numpy as np
from test_index import a_model

from qpairs.config import Config
from qpairs.metrics import Calibration, SecondLook
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.two_stages import TwoStages
from qpairs.models.verdict import PairSetting, Verdict

LOOK = SecondLook(-0.2, 0.1, 1.0, (-4.0, 0.0), (4.0, 0.0))  # logits within 3.5 of 0 keep the gain within its bounds


class IntentReader:
    """A `PairReader` of questions "t0", "t1", ...: about 2 for one intent, about -2 otherwise; keeps what it read."""

    def __init__(self) -> None:
        self.calls = list[list[tuple[str, str]]]()

    @property
    def read(self) -> list[tuple[str, str]]:
        return [pair for call in self.calls for pair in call]

    def logits(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self.calls.append(list(pairs))
        return np.array([logit_of(*pair) for pair in pairs], dtype=np.float32)


def logit_of(one: str, other: str) -> float:
    """The logit of a pair, in either order."""
    ends = sorted((row_of(one), row_of(other)))
    noise = int.from_bytes(hashlib.sha256(str(ends).encode()).digest()[:4], "big") / 2**32
    intent = corpora.intents(max(ends) + 1)
    return (2.0 if intent[ends[0]] == intent[ends[1]] else -2.0) + 3 * (noise - 0.5)


def row_of(text: str) -> int:
    return int(text.strip().lower()[1:])


def two_stages(vectors: np.ndarray, *, look: SecondLook = LOOK, seed: int = 1, **options: object) -> TwoStages:
    """Questions that the encoder finds, and a reader that tells near misses from duplicates."""
    options.setdefault("densities", corpora.fitted(seed=seed))
    first = a_model(vectors, **options)
    cross = CrossModel(IntentReader(), Verdict(PairSetting(0.0, Calibration(1, 0)), "logit"), Config(), {})
    both = Verdict(PairSetting(-0.4, Calibration(0.9, 0.1)), "log odds")
    return TwoStages(first, cross, look, both, path=Path("model"))
