"""Low-rank adapters: what is trained, that they are merged, and that a broken run is resumed bit by bit."""

import importlib.util
import logging
import sys

import numpy as np
import pytest
import torch
from architectures import TEXTS, write_encoder
from conftest import refused
from sentence_transformers import SentenceTransformer

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Progress
from qpairs.encoders.build import build_encoder
from qpairs.encoders.lora import add_adapters, check_adapters, merge_adapters

needs_peft = pytest.mark.skipif(not importlib.util.find_spec("peft"), reason="needs qpairs[lora]")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: write_encoder(name, tmp_path_factory.mktemp(name)) for name in ("bert", "qwen3")}


@needs_peft
@pytest.mark.parametrize(("name", "layers"), [("bert", 6), ("qwen3", 7)])
def test_adapters_start_at_nothing_and_are_merged(folders, name, layers, caplog):
    encoder = build_encoder(str(folders[name])).eval()
    names, before = list(encoder.state_dict()), encoder.encode(TEXTS)
    with caplog.at_level(logging.INFO, logger="qpairs"):
        add_adapters(encoder, 4, dropout=0.1, seed=1)
    trained = {key: value for key, value in encoder.named_parameters() if value.requires_grad}
    assert len(trained) == 2 * 2 * layers  # A and B, of 2 blocks
    assert all("lora_" in key and 4 in value.shape for key, value in trained.items())
    assert f"{sum(value.numel() for value in trained.values()):,} of " in caplog.text
    np.testing.assert_allclose(encoder.eval().encode(TEXTS), before, atol=1e-6)
    again = build_encoder(str(folders[name]))
    add_adapters(again, 4, dropout=0.1, seed=1)
    assert all(torch.equal(trained[key], value) for key, value in again.named_parameters() if value.requires_grad)
    with torch.no_grad():
        for value in trained.values():
            value.normal_(std=0.2)
    changed = encoder.encode(TEXTS)
    merge_adapters(encoder)
    assert list(encoder.state_dict()) == names
    assert all(value.requires_grad for value in encoder.parameters())
    assert np.abs(changed - before).max() > 0.01
    np.testing.assert_allclose(encoder.encode(TEXTS), changed, atol=1e-5)


@needs_peft
def test_a_checkpoint_is_a_plain_encoder_in_which_low_ranks_have_changed(folders, pairs_csv, tmp_path):
    options = {"data": str(pairs_csv), "encoder": str(folders["bert"]), "max_length": 16, "epochs": 1.0}
    options |= {"loss": "online_contrastive + 0.1*pair_softmax", "lora": 3}
    model = qpairs.train(output=str(tmp_path / "x"), **options)
    before, after = (SentenceTransformer(str(path))[0].model.state_dict() for path in (folders["bert"], tmp_path / "x"))
    assert list(before) == list(after)
    ranks = {
        key: int(torch.linalg.matrix_rank(after[key] - before[key], atol=1e-5))
        for key in before
        if before[key].ndim > 1
    }
    linear = {key for key in ranks if key.startswith("encoder.") and key.endswith(".weight") and "LayerNorm" not in key}
    assert {ranks[key] for key in linear} <= {1, 2, 3} and len(linear) == 12
    assert all(torch.equal(before[key], after[key]) for key in set(before) - linear)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path / "x")).encode(TEXTS), model.encode(TEXTS), atol=0.02)
    assert model.config.lora == 3


@needs_peft
def test_a_broken_run_ends_with_the_same_weights(folders, pairs_csv, tmp_path):
    options = {"data": str(pairs_csv), "encoder": str(folders["bert"]), "max_length": 16, "lora": 4, "batch_size": 32}
    options |= {"precision": "fp32"}
    whole = qpairs.train(output=str(tmp_path / "whole"), **options)

    def break_off(now: Progress) -> None:
        if now.stage == "training" and now.done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qpairs.train(output=str(tmp_path / "x"), on_progress=break_off, **options)
    assert list((tmp_path / "x.partial").glob("checkpoint-*"))
    broken = qpairs.train(output=str(tmp_path / "x"), resume=True)
    ours, theirs = whole.encoder.state_dict(), broken.encoder.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_what_cannot_have_adapters_is_one_line(folders, run, pairs_csv, monkeypatch):
    def told(encoder, rank="8"):
        return run("train", "--data", pairs_csv, "--encoder", encoder, "--lora", rank, "--output", "x")

    for name in ("lstm", "cnn", "static", "tiny", "lstm+cnn"):
        refused(told(name), f"lora: is for a pretrained transformer, which {name} is not")
    refused(told("minilm", "-1"), "lora")
    encoder = build_encoder(str(folders["bert"]))
    monkeypatch.setitem(sys.modules, "peft", None)  # any import of it fails
    with pytest.raises(UserError, match=r"^lora needs peft: pip install 'qpairs\[lora\]'$"):
        check_adapters(encoder, "mine")
