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
LONG = ((3, 500), (500, 3), (500, 400), (60, 60), (2, 2))  # words of both texts


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


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_are_cut_before_they_are_paired_and_are_read_as_far_as_before(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_cross_encoder(kind, [" ".join(WORDS)], tmp_path)
    random = np.random.default_rng(0)
    pairs = [(" ".join(random.choice(WORDS, a)), " ".join(random.choice(WORDS, b))) for a, b in LONG]
    whole = predicted(model, pairs)
    tokenised: list[tuple[str, str]] = []
    preprocess = model.preprocess
    monkeypatch.setattr(model, "preprocess", lambda texts: tokenised.extend(texts) or preprocess(texts))
    np.testing.assert_allclose(TorchPairs(model, both_orders=False).logits(pairs), whole, atol=1e-5)
    for (a, b), (given_a, given_b) in zip(tokenised, pairs, strict=True):
        assert given_a.startswith(a)
        assert given_b.startswith(b)
        assert max(len(a.split()), len(b.split())) <= model.max_seq_length + 2


def test_a_prompt_of_its_own_goes_through_sentence_transformers(tmp_path: Path) -> None:
    model = small_cross_encoder("tiny", [" ".join(WORDS)], tmp_path)
    model.prompts, model.default_prompt_name = {"pay": "card "}, "pay"
    prompted = predicted(model, PAIRS)
    model.default_prompt_name = None
    assert np.abs(prompted - predicted(model, PAIRS)).max() > 1e-3
    model.default_prompt_name = "pay"
    np.testing.assert_allclose(TorchPairs(model, both_orders=False).logits(PAIRS), prompted, atol=1e-5)
