"""Architectures of today, as small random encoders: read, trained, saved, loaded and exported."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, TEXTS, write_encoder
from sentence_transformers import SentenceTransformer

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.encoders.build import build_encoder
from qpairs.encoders.tokens import embed, features, prompt_of, token_ids, word_dropout
from qpairs.export.export import export_checkpoint

ODD = ["", " ", "???", "\n", "  two  blanks ", "日本語 🙂", "card " * 60, "tab\tline\nend", "e\u0301 <s> [CLS]"]
UNKNOWN_TO_ONNX = {"gemma3"}  # PyTorch cannot trace its masks
needs_peft = pytest.mark.skipif(not importlib.util.find_spec("peft"), reason="needs qpairs[lora]")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write_encoder(name, tmp_path_factory.mktemp(name)) for name in ARCHITECTURES}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ids_and_vectors_are_those_of_sentence_transformers(folders, name):
    encoder = build_encoder(str(folders[name]), max_length=20).eval()
    ids = token_ids(encoder, TEXTS + ODD)
    ours, theirs = features(encoder, ids), encoder.preprocess(TEXTS + ODD, prompt=prompt_of(encoder))
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["attention_mask"], theirs["attention_mask"])
    vectors = encoder.encode(TEXTS + ODD, batch_size=5)
    np.testing.assert_allclose(embed(encoder, ids, batch_tokens=60), vectors, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([embed(encoder, [row]) for row in ids]), vectors, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.ptp(vectors[: len(TEXTS)] @ vectors[0]) > 0.05


def test_the_last_token_of_padding_on_the_left_is_pooled(folders):
    encoder = build_encoder(str(folders["qwen3"]), max_length=20)
    batch = features(encoder, token_ids(encoder, ["pay", " ".join(TEXTS)]))
    assert batch["attention_mask"][0, 0] == 0  # left
    assert set(batch["input_ids"][:, -1].tolist()) == {
        encoder.tokenizer.pad_token_id
    }  # <|endoftext|>, on cut texts too
    assert batch["attention_mask"][:, -1].all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_trained_saved_and_exported(folders, name, pairs_csv, tmp_path):
    options = {"data": str(pairs_csv), "max_length": 16, "epochs": 0.5, "learning_rate": 1e-3}
    trained = qpairs.train(encoder=str(folders[name]), output=str(tmp_path / "x"), **options)
    before = build_encoder(str(folders[name]), max_length=16).encode(TEXTS)
    vectors = SentenceTransformer(str(tmp_path / "x")).encode(TEXTS)
    assert np.abs(vectors - before).max() > 0.01  # it has learned something
    for model in (trained, qpairs.load(tmp_path / "x")):
        np.testing.assert_allclose(model.encode(TEXTS), vectors, atol=0.02)  # bf16 where that is fast
        np.testing.assert_allclose(model.embed_tables(TEXTS)[0], vectors, atol=1e-5)
    if name in UNKNOWN_TO_ONNX:
        with pytest.raises(UserError, match=r"cannot write this encoder as an ONNX graph .* --format static") as caught:
            export_checkpoint(tmp_path / "x", tmp_path / "fast", format="onnx", data=pairs_csv)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "fast").exists()
        return
    parity = export_checkpoint(tmp_path / "x", tmp_path / "fast", format="onnx", data=pairs_csv)
    assert parity.cosine_min > 0.9999
    np.testing.assert_allclose(
        qpairs.load(tmp_path / "fast").encode(TEXTS + ODD), trained.encoder.encode(TEXTS + ODD), atol=1e-4
    )


@pytest.mark.parametrize("name", ["modernbert", "qwen3"])
def test_a_folder_without_pooling_is_read_as_plain_text(folders, name, tmp_path):
    encoder = build_encoder(str(folders[name].parent / "bare"), max_length=20).eval()
    theirs = encoder.preprocess(TEXTS)["input_ids"]
    assert torch.equal(features(encoder, token_ids(encoder, TEXTS))["input_ids"], theirs)
    assert "user" not in encoder.tokenizer.decode(theirs[0])  # no chat template around it
    encoder.save_pretrained(str(tmp_path / "y"), create_model_card=False)
    assert np.array_equal(SentenceTransformer(str(tmp_path / "y")).encode(TEXTS), encoder.encode(TEXTS))


def test_a_tokenizer_without_padding_fills_up_with_the_end(folders, tmp_path):
    encoder = SentenceTransformer(str(folders["qwen3"]))
    encoder.tokenizer.pad_token = None
    encoder.save_pretrained(str(tmp_path / "y"), create_model_card=False)
    built = build_encoder(str(tmp_path / "y"), max_length=20)
    assert built.tokenizer.pad_token == "<|im_end|>"
    np.testing.assert_allclose(built.encode(TEXTS), built.encode(TEXTS, batch_size=1), atol=1e-5)
    encoder.tokenizer.eos_token = None
    encoder.save_pretrained(str(tmp_path / "z"), create_model_card=False)
    with pytest.raises(UserError, match=r"no padding token; set `pad_token` in its tokenizer_config\.json"):
        build_encoder(str(tmp_path / "z"))


def test_words_are_not_dropped_where_none_is_unknown(folders):
    with pytest.raises(UserError, match="no unknown token; leave --word-dropout at 0"):
        word_dropout(build_encoder(str(folders["qwen3"])), 0.1)
