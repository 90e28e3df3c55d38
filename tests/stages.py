"""Cross-encoders and models of two stages, with and without a network, for tests whose subject is something else."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from qpairs.config import Config
from qpairs.data.pairs import Pairs
from qpairs.metrics import Calibration, SecondLook
from qpairs.models.base import Model
from qpairs.models.cross_encoder import CrossModel, write_cross_model
from qpairs.models.two_stages import TwoStages
from qpairs.models.verdict import PairSetting, Verdict

CROSS_VERDICT = Verdict(PairSetting(0.0, Calibration(1.0, 0.0)), "logit")
LOOK = SecondLook(0.0, 0.0, 1.0, (-3.0, 0.0), (3.0, 0.0))
JOINT = Verdict(PairSetting(0.0, Calibration(1.0, 0.0)), "log odds")


@dataclass
class Overlap:
    """A `PairReader` without a network: its logit is 8 times the share of common words, less 4; it counts its pairs."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.asked += pairs
        sides = [(set(one.lower().split()), set(other.lower().split())) for one, other in pairs]
        return np.array([8 * len(a & b) / max(len(a | b), 1) - 4 for a, b in sides], dtype=np.float32)


def overlap_model(verdict: Verdict = CROSS_VERDICT, **changes: Any) -> CrossModel:
    """A cross-encoder that reads nothing but which words both questions have."""
    return replace(CrossModel(Overlap(), verdict, Config(), {"kind": "cross-encoder"}, path=Path("cross")), **changes)


def two_stages(first: Model, **changes: Any) -> TwoStages:
    """An encoder and a cross-encoder of word overlap."""
    return replace(TwoStages(first, overlap_model(), LOOK, JOINT, path=Path("both")), **changes)


def write_tiny_cross_model(folder: Path, pairs: Pairs, config: Config | None = None, **parts: Any) -> CrossModel:
    """A real cross-encoder of random weights, in a folder, whose verdict is fitted to the pairs."""
    from qpairs.evaluation.baselines import tfidf_threshold
    from qpairs.models.base import load
    from qpairs.models.verdict import fit_verdict
    from qpairs.training.cross_encoder import new_cross_encoder

    network = new_cross_encoder("tiny", texts=pairs.questions, max_length=32, seed=0)
    network.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
    config = replace(config or Config(), encoder="tiny", max_length=32)
    unfitted = CrossModel(Overlap(), CROSS_VERDICT, config, {"kind": "cross-encoder"}, path=folder, **parts)
    write_cross_model(unfitted, folder)
    model = load(folder)
    assert isinstance(model, CrossModel)
    scores, _ = model.score_pairs(pairs)
    fitted = model.with_verdict(fit_verdict(scores, pairs.labels, tfidf_threshold(pairs), score="logit"), model.scores)
    write_cross_model(fitted, folder)
    return fitted
