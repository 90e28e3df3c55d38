"""A cross-encoder by torch reads packed tokens, and says what sentence-transformers says of padded ones."""

from pathlib import Path

import numpy as np
import pytest
from cross_encoders import KINDS, small_cross_encoder
from sentence_transformers import CrossEncoder
from torch import nn

from qpairs.models import torch_pairs
from qpairs.models.torch_pairs import TorchPairs

WORDS = ["how", "do", "I", "pay", "with", "my", "card", "when", "the", "bank", "says", "no"]
PAIRS = [(" ".join(WORDS[: 1 + n % 7]), " ".join(WORDS[n % 5 : 4 + n % 9])) for n in range(200)]


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_pairs, "fast_bf16", lambda model: False)


def predicted(model: CrossEncoder, pairs: list[tuple[str, str]]) -> np.ndarray:
    return model.predict(pairs, activation_fn=nn.Identity(), show_progress_bar=False)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_tokens_give_the_logits_of_padded_ones(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_cross_encoder(kind, [" ".join(WORDS)], tmp_path)
    one, other = predicted(model, PAIRS), predicted(model, [pair[::-1] for pair in PAIRS])
    monkeypatch.setattr(CrossEncoder, "predict", None)
    given = TorchPairs(model, both_orders=False).logits(PAIRS)
    assert given.std() > 1e-3
    np.testing.assert_allclose(given, one, atol=1e-5)
    np.testing.assert_allclose(TorchPairs(model).logits(PAIRS), (one + other) / 2, atol=1e-5)
    assert TorchPairs(model).logits([]).shape == (0,)


def test_a_prompt_of_its_own_goes_through_sentence_transformers(tmp_path: Path) -> None:
    model = small_cross_encoder("tiny", [" ".join(WORDS)], tmp_path)
    model.prompts, model.default_prompt_name = {"pay": "card "}, "pay"
    prompted = predicted(model, PAIRS)
    model.default_prompt_name = None
    assert np.abs(prompted - predicted(model, PAIRS)).max() > 1e-3
    model.default_prompt_name = "pay"
    np.testing.assert_allclose(TorchPairs(model, both_orders=False).logits(PAIRS), prompted, atol=1e-5)
