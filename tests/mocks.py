"""A model without a network, for tests whose subject is something else."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qpairs.config import Config
from qpairs.metrics import Calibration
from qpairs.models.base import Encoder, cosine_scores
from qpairs.models.verdict import PairSetting, Verdict

VERDICT = Verdict(PairSetting(0.5, Calibration(10.0, -5.0)))


@dataclass(frozen=True)
class MockModel:
    """A `Model` whose vectors come from any `Encoder`."""

    encoder: Encoder
    verdict: Verdict = VERDICT
    fingerprint: str = "a" * 16
    one_tower: bool = True
    path: Path = Path("model")
    config: Config = field(default_factory=Config)
    split: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def dimension(self):
        return self.encoder.dimension

    def encode(self, texts, side="left"):
        return self.encoder.encode(texts, side)

    def embed_tables(self, questions):
        rows = self.encode(questions)
        return rows, rows if self.one_tower else self.encode(questions, "right")

    def score_tables(self, tables, pairs):
        return cosine_scores(tables, pairs, symmetric=self.verdict.symmetric)

    def score_pairs(self, pairs, on_progress=None):
        tables = self.embed_tables(pairs.questions)
        return self.score_tables(tables, pairs), tables

    @property
    def token_counter(self):
        return None

    def with_verdict(self, verdict, scores):
        return replace(self, verdict=verdict, scores=scores)


def moved(model, **changes):
    """A model whose verdict on pairs has another threshold, calibration or operating points."""
    verdict = replace(model.verdict, pair=replace(model.verdict.pair, **changes))
    return model.with_verdict(verdict, model.scores)
