"""Packed tokens against the encoder itself: the same vectors and gradients, for every kind that is known."""

import itertools
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, TEXTS, write_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from torch import nn

from qpairs.encoders import packed
from qpairs.encoders.build import build_encoder
from qpairs.encoders.dropout import set_dropout
from qpairs.encoders.fused import Half, attention_half, feed_forward_half
from qpairs.encoders.lora import add_adapters
from qpairs.encoders.packed import KINDS, outputs, pack, pack_padded, takes_packed
from qpairs.encoders.tokens import features, token_ids
from qpairs.training.cross_encoder import new_cross_encoder

KNOWN = ("bert", "mpnet", "roberta", "xlm-roberta", "tiny")
MORE = ["", "a", "zzzz 日本語 [PAD] <pad>", "card " * 40, "Is my card blocked?", "Why can't I log in to the app?"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `build_encoder` makes each of: a small model of each architecture, or one from nothing."""
    made = {name: str(write_encoder(name, tmp_path_factory.mktemp(name))) for name in ARCHITECTURES}
    return {"tiny": "tiny", **made}


@pytest.fixture(scope="module")
def encoders(folders: dict[str, str]) -> dict[str, SentenceTransformer]:
    made = {name: build_encoder(folder, texts=TEXTS, max_length=24) for name, folder in folders.items()}
    for encoder in made.values():
        set_dropout(encoder, 0.0)
    return made


def embedded(encoder, given):
    return outputs(encoder, given)["sentence_embedding"]


def gradients(encoder, embed, dtype=torch.float32):
    """The vectors, and the gradients of all parameters that take part, of a sum that weighs all of them otherwise."""
    encoder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        vectors = embed()
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    (vectors.float() * weights).sum().backward()
    return vectors.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


def assert_same(found, expected, share, zero):
    """Vectors and gradients differ by a share of their length at most; shorter than `zero` of the longest is zero."""
    assert found[1].keys() == expected[1].keys()
    longest = max(gradient.norm() for gradient in expected[1].values())
    torch.testing.assert_close(found[0], expected[0], atol=share, rtol=0)
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= share * max(gradient.norm(), zero * longest), name


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize(
    ("dtype", "share", "zero"), [(torch.float32, 2e-5, 0.01), (torch.bfloat16, 0.06, 0.05)], ids=["fp32", "bf16"]
)
@pytest.mark.parametrize("how", ["fused", "padded"])
def test_vectors_and_gradients_are_those_of_the_encoder(name, dtype, share, zero, how, encoders, monkeypatch):
    if how == "padded":  # as on a GPU
        monkeypatch.setattr(packed, "fused_layer", packed.padded_layer)
    encoder = encoders[name].train()
    assert takes_packed(encoder)
    ids = token_ids(encoder, [*TEXTS, *MORE, *TEXTS[:2]])  # some of one length, not side by side
    expected = gradients(encoder, lambda: encoder(features(encoder, ids))["sentence_embedding"], dtype)
    assert_same(gradients(encoder, lambda: embedded(encoder, pack(ids)), dtype), expected, share, zero)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize(
    ("dtype", "share", "zero"), [(torch.float32, 2e-5, 0.01), (torch.bfloat16, 0.06, 0.05)], ids=["fp32", "bf16"]
)
def test_logits_of_a_cross_encoder_are_its_own(name, dtype, share, zero, folders):
    model = new_cross_encoder(folders[name], texts=TEXTS, max_length=24, seed=0).train()
    set_dropout(model, 0.0)
    assert takes_packed(model)
    padded = model.preprocess([*itertools.product(TEXTS[:4], MORE[1:5]), (TEXTS[0], TEXTS[0])])
    if name == "bert":  # its tokens have types
        middle = padded["attention_mask"].sum(1, keepdim=True) // 2
        padded["token_type_ids"] = (padded["attention_mask"].cumsum(1) > middle).long() * padded["attention_mask"]
    own = gradients(model, lambda: model(dict(padded))["scores"], dtype)
    packed = pack_padded(padded)
    assert len(packed["runs"]) > 1
    assert_same(gradients(model, lambda: outputs(model, packed)["scores"], dtype), own, share, zero)


@pytest.mark.parametrize("name", KNOWN)
def test_in_training_on_a_cpu_no_zeros_are_drawn_one_by_one(name, encoders, monkeypatch):
    encoder = encoders[name].train()
    batch = pack(token_ids(encoder, TEXTS))
    set_dropout(encoder, 0.3)
    still = embedded(encoder.eval(), batch)
    monkeypatch.setattr(packed.functional, "dropout", None)  # torch's own
    assert (embedded(encoder.train(), batch) - still).norm() > 0.1 * still.norm()
    set_dropout(encoder, 0.0)


@pytest.mark.parametrize("name", KNOWN)
def test_gradients_are_those_of_the_zeros_that_were_drawn(name, encoders):
    """By finite differences: what is computed again in the gradient drops the same elements."""
    encoder = encoders[name].train()
    packed = pack(sorted(token_ids(encoder, [*TEXTS, *MORE]), key=len))
    layers = [p for key, p in encoder.named_parameters() if "layer" in key and key.endswith("weight")]

    def value() -> torch.Tensor:
        torch.manual_seed(1)
        return (embedded(encoder, packed) * torch.linspace(-1, 1, encoder.get_embedding_dimension())).sum()

    set_dropout(encoder, 0.3)
    encoder.zero_grad()
    value().backward()
    length = torch.stack([p.grad.norm() for p in layers if p.grad is not None]).norm()
    step, ends = 1e-2 / length, []
    with torch.no_grad():
        for sign in (1, -2, 1):  # there, to the other side, and back
            for p in layers:
                p.add_(sign * step * p.grad) if p.grad is not None else None
            ends.append(value().double())
    set_dropout(encoder, 0.0)
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(length.square().item(), rel=0.02)


@pytest.mark.parametrize("name", KNOWN)
def test_in_evaluation_nothing_is_dropped(name, encoders):
    encoder = encoders[name]
    ids = token_ids(encoder, TEXTS)
    set_dropout(encoder, 0.5)
    with torch.no_grad():
        vectors = embedded(encoder.eval(), pack(ids))
        torch.testing.assert_close(vectors, encoder(features(encoder, ids))["sentence_embedding"])
        assert (embedded(encoder.train(), pack(ids)) - vectors).abs().max() > 0.01
    set_dropout(encoder, 0.0)


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - set(KNOWN)))
def test_other_kinds_are_called_as_they_are(name, encoders):
    assert not takes_packed(encoders[name])


def test_adapters_in_the_layers_are_not_passed_by():
    pytest.importorskip("peft")
    encoder = build_encoder("tiny", texts=TEXTS)
    add_adapters(encoder, 4)
    assert not takes_packed(encoder)


@pytest.mark.parametrize("change", ["activation", "pooling", "shift", "class", "half precision"])
def test_an_encoder_that_differs_from_its_class_is_called_as_it_is(change):
    encoder = build_encoder("tiny", texts=TEXTS)
    model = encoder[0].model
    if change == "activation":
        model.config.activation = "relu"
    elif change == "pooling":
        encoder[1].pooling_mode = "max"
    elif change == "shift":
        model.transformer.layer[0].ffn.lin1 = nn.Linear(256, 1024, bias=False)
    elif change == "class":
        model.__class__ = type("DistilBertModel", (type(model),), {"__module__": "elsewhere"})
    else:
        encoder.half()
    assert not takes_packed(encoder)


def test_the_kinds_that_are_known_are_tested():
    assert {type(build_encoder("tiny", texts=TEXTS)[0].model).__name__} <= set(KINDS)
    assert len(KINDS) == len(KNOWN)


# The halves of a layer, with dropout: their gradients against differences


def tensors(*shapes):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=random, dtype=torch.float64).requires_grad_() for shape in shapes]


def repeated(function):
    """The function, with the same zeros at each call."""

    def call(*inputs):
        torch.manual_seed(1)
        return function(*inputs)

    return call


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("biased", [False, True])
def test_the_gradient_of_attention_is_that_of_its_function(p, biased, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # differences need double precision throughout
    half = Half([(2, 3), (1, 1), (1, 4)], heads=2, eps=1e-5, p=p, p_attention=p)
    inputs = tensors((11, 4), (12, 4), (12,), (4, 4), (4,), (4,), (4,), (2, 4, 4))

    def run(x, weight, shift, out, out_shift, scale, offset, bias):
        pairs = (weight, shift), (out, out_shift), (scale, offset)
        return attention_half(x, *pairs, half, bias if biased else None)

    assert torch.autograd.gradcheck(repeated(run), inputs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_the_gradient_of_feed_forward_is_that_of_its_function(p, monkeypatch):
    monkeypatch.setattr("qpairs.encoders.fused.CACHED", 3)  # several blocks
    half = Half([], heads=1, eps=1e-5, p=p)

    def run(x, weight, shift, out, out_shift, scale, offset):
        return feed_forward_half(x, (weight, shift), (out, out_shift), (scale, offset), half)

    inputs = tensors((7, 4), (6, 4), (6,), (4, 6), (4,), (4,), (4,))
    assert torch.autograd.gradcheck(repeated(run), inputs, atol=1e-4, rtol=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_packed_tokens_are_those_of_the_texts_in_their_order(lengths):
    ids = [torch.arange(10 * i, 10 * i + n).int().numpy() for i, n in enumerate(lengths)]
    found = pack(ids)
    assert [length for n, length in found["runs"] for _ in range(n)] == lengths == found["lengths"].tolist()
    assert found["input_ids"].tolist() == [token for row in ids for token in row.tolist()]
    assert found["positions"].tolist() == [place for n in lengths for place in range(n)]


def test_an_encoder_without_texts_of_any_length_is_trained_padded(tmp_path: Path):
    from qpairs.training.bi_encoder import _batch_maker

    encoder = build_encoder("tiny", texts=TEXTS)
    make = _batch_maker(encoder)
    ids = token_ids(encoder, TEXTS)
    assert "runs" in make(ids)
    assert "runs" not in make([*ids, ids[0][:0]])
