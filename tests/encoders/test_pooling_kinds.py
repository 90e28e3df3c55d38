"""Ways in which published encoders end: qpairs gives the vectors that sentence-transformers gives, of length 1."""

import itertools
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import TEXTS, write_encoder
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

import qpairs
from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.encoders.build import build_encoder
from qpairs.encoders.tokens import embed, token_ids
from qpairs.export.export import export_checkpoint
from qpairs.metrics import Calibration
from qpairs.models.bi_encoder import Checkpoint, load_checkpoint, save_checkpoint
from qpairs.models.verdict import PairSetting, Reference, Verdict

ASKED = [*TEXTS, "Ok", "query", "How do I block my card? " * 20]
PROMPTS = {"query": "query: "}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder("bert", tmp_path_factory.mktemp("bert")).parent / "bare"


def written(
    bare: Path, folder: Path, pooling: str, *, left: bool = False, prompted: bool = True, rest: str = "normalize"
) -> Path:
    """An encoder that leaves its prompt out of the pooling, if it has one."""
    torch.manual_seed(0)
    transformer = Transformer(str(bare))
    transformer.tokenizer.padding_side = "left" if left else "right"
    more = {
        "normalize": [Normalize()],
        "none": [],
        "dense": [Dense(32, 16, activation_function=torch.nn.Tanh()), Normalize()],
        "dense last": [Normalize(), Dense(32, 16, activation_function=torch.nn.Tanh())],
    }[rest]
    encoder = SentenceTransformer(
        modules=[transformer, Pooling(32, pooling, include_prompt=False), *more],
        prompts=PROMPTS if prompted else None,
        device="cpu",
    )
    encoder.default_prompt_name = "query" if prompted else None
    encoder.save_pretrained(str(folder), create_model_card=False)
    return folder


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def checkpoint_of(folder: Path, place: Path) -> Path:
    verdict = Verdict(PairSetting(0.5, Calibration(9, -5)), reference=Reference([0.0, 1.0], 2), tfidf_threshold=0.5)
    config = Config(encoder=str(folder), data=("gone.csv",))
    save_checkpoint(Checkpoint(build_encoder(str(folder), max_length=64), verdict, config), place)
    return place


KINDS = [
    *itertools.product(["mean", "cls", "max", "lasttoken", "weightedmean"], [False, True], [True], ["normalize"]),
    *itertools.product(["mean"], [False], [True, False], ["none", "dense", "dense last"]),
]


@pytest.mark.parametrize(("pooling", "left", "prompted", "rest"), KINDS)
def test_the_vectors_are_those_of_sentence_transformers(
    bare: Path, tmp_path: Path, pooling: str, left: bool, prompted: bool, rest: str
) -> None:
    folder = written(bare, tmp_path / "m", pooling, left=left, prompted=prompted, rest=rest)
    wanted = unit(SentenceTransformer(str(folder), device="cpu").encode(ASKED, batch_size=1))
    encoder = build_encoder(str(folder), max_length=64)
    place = checkpoint_of(folder, tmp_path / "checkpoint")
    for found in (embed(encoder, token_ids(encoder, ASKED)), load_checkpoint(place).encode(ASKED)):
        assert (found * wanted).sum(1).min() > 1 - 1e-3
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    again = unit(SentenceTransformer(str(place), device="cpu").encode(ASKED, batch_size=1))
    np.testing.assert_allclose(again, wanted, atol=1e-4)


@pytest.mark.parametrize(("pooling", "left"), [("mean", False), ("mean", True), ("lasttoken", True), ("cls", False)])
def test_a_graph_leaves_the_prompt_out_too(
    bare: Path, tmp_path: Path, pairs_csv: Path, pooling: str, left: bool
) -> None:
    folder = written(bare, tmp_path / "m", pooling, left=left)
    wanted = unit(SentenceTransformer(str(folder), device="cpu").encode(ASKED, batch_size=1))
    place = checkpoint_of(folder, tmp_path / "checkpoint")
    pairs = qpairs.load_pairs(pairs_csv).subset(np.arange(40))
    export_checkpoint(place, tmp_path / "x", format="onnx", data=pairs, max_loss=1.0)
    found = qpairs.load(tmp_path / "x").encode(ASKED)
    assert (found * wanted).sum(1).min() > 1 - 1e-3
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_graph_that_cannot_leave_it_out_is_refused(bare: Path, tmp_path: Path, pairs_csv: Path) -> None:
    place = checkpoint_of(written(bare, tmp_path / "m", "weightedmean"), tmp_path / "checkpoint")
    pairs = qpairs.load_pairs(pairs_csv).subset(np.arange(40))
    with pytest.raises(UserError, match=r"leaves out the prompt cannot be written.*--format static"):
        export_checkpoint(place, tmp_path / "x", format="onnx", data=pairs, max_loss=1.0)
    assert not (tmp_path / "x").exists()


def test_lengths_are_1_in_bfloat16_too(bare: Path, tmp_path: Path) -> None:
    encoder = build_encoder(str(written(bare, tmp_path / "m", "mean", rest="dense")), max_length=64)
    with torch.autocast("cpu", torch.bfloat16):
        found = embed(encoder, token_ids(encoder, ASKED))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_training_reads_what_is_pooled(bare: Path, tmp_path: Path, pairs_csv: Path) -> None:
    folder = written(bare, tmp_path / "m", "mean")
    model = qpairs.train(
        data=str(pairs_csv), encoder=str(folder), epochs=0.2, output=str(tmp_path / "run"), max_length=32
    )
    wanted = SentenceTransformer(str(tmp_path / "run"), device="cpu").encode(TEXTS, batch_size=1)
    assert (model.encode(TEXTS) * wanted).sum(1).min() > 1 - 1e-3


def test_code_of_its_own_is_one_line_at_once(bare: Path, tmp_path: Path) -> None:
    shutil.copytree(bare, tmp_path / "own")
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "own.Mine", "AutoModel": "own.MineModel"}}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    (tmp_path / "own" / "own.py").write_text("raise SystemExit('was run')\n")
    start = time.monotonic()
    with pytest.raises(UserError, match=r"needs its own code \(trust_remote_code\).*does not run; choose") as caught:
        build_encoder(str(tmp_path / "own"))
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
