"""Checkpoints: what they answer, and how they are written and read."""

import dataclasses
import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mocks import VERDICT, moved

import qpairs
from qpairs.config import Config
from qpairs.core.files import OLD, hold_output
from qpairs.encoders import precision
from qpairs.encoders.build import build_encoder
from qpairs.models.base import FILE, HEAD, cosine_scores, load, model_to_dict
from qpairs.models.bi_encoder import Checkpoint, InFolder, load_checkpoint, save_checkpoint
from qpairs.models.model_file import OtherWeights
from qpairs.models.shortened import shorten_tables
from qpairs.objectives.pair_head import PairHead

TEXTS = ["how do I pay", "how do I pay by card", "where is my card", "how do I close my account", "close my account"]
PAIRS = qpairs.pairs_from_texts(TEXTS[:3], TEXTS[1:4], [1, 0, 0])


def untrained(encoder: str, head: PairHead | None = None) -> Checkpoint:
    verdict = dataclasses.replace(VERDICT, score="head" if head else "cosine")
    known = {"split": {"fingerprint": "0"}, "scores": {"test": {"f1": 0.5}}, "history": ({"step": 1, "loss": 0.7},)}
    return Checkpoint(build_encoder(encoder, texts=TEXTS), verdict, Config(encoder=encoder), head=head, **known)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return untrained("static")


@pytest.fixture(scope="module", params=["static", "lstm", "static+static", "head", "tiny"])
def any_checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    torch.manual_seed(0)
    return untrained("static", PairHead(128)) if request.param == "head" else untrained(request.param)


def test_what_is_saved_is_what_is_loaded(any_checkpoint: Checkpoint, tmp_path: Path) -> None:
    there = save_checkpoint(any_checkpoint, tmp_path / "x")
    assert model_to_dict(any_checkpoint)["scores"] == {"test": {"f1": 0.5}}
    assert (there / HEAD).exists() == (any_checkpoint.head is not None)
    for back in (load_checkpoint(there), load(there)):
        assert model_to_dict(back) == json.loads(json.dumps(model_to_dict(any_checkpoint)))
        assert back.config == any_checkpoint.config
        assert back.path == there
        for ours, theirs in zip(any_checkpoint.score_pairs(PAIRS), back.score_pairs(PAIRS), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for side in ("left", "right"):
            np.testing.assert_array_equal(back.encode(TEXTS, side), any_checkpoint.encode(TEXTS, side))


def test_one_tower_gives_one_table_and_two_give_two(checkpoint: Checkpoint) -> None:
    two = untrained("static+static")
    for model in (checkpoint, two):
        rows, columns = model.embed_tables(TEXTS)
        assert model.one_tower == (rows is columns) == (model is checkpoint)
        assert rows.shape == columns.shape == (len(TEXTS), model.dimension)
        np.testing.assert_allclose(model.encode(TEXTS), rows, atol=1e-6)
        np.testing.assert_allclose(model.encode(TEXTS, "right"), columns, atol=1e-6)


def test_scores_are_cosines_or_what_the_head_gives(checkpoint: Checkpoint) -> None:
    scores, tables = checkpoint.score_pairs(PAIRS)
    np.testing.assert_allclose(scores, cosine_scores(tables, PAIRS), atol=1e-6)
    torch.manual_seed(0)
    head = PairHead(128)
    judged = dataclasses.replace(checkpoint, head=head).score_tables(tables, PAIRS)
    vectors = torch.from_numpy(tables[0])
    with torch.inference_mode():
        expected = head.probability(vectors[PAIRS.left], vectors[PAIRS.right])
    np.testing.assert_allclose(judged, expected, atol=1e-6)


def test_another_verdict_leaves_the_vectors_as_they_are(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "x")
    save_checkpoint(checkpoint.with_verdict(moved(checkpoint, threshold=0.9).verdict, {}), tmp_path / "y")
    old, new = load_checkpoint(tmp_path / "x"), load_checkpoint(tmp_path / "y")
    assert (new.verdict.pair.threshold, new.scores) == (0.9, {})
    assert new.fingerprint == old.fingerprint


def test_versions_say_what_made_it(checkpoint: Checkpoint) -> None:
    assert checkpoint.versions["torch"] == importlib.metadata.version("torch")
    assert {"qpairs", "transformers", "python", "machine", "written"} <= checkpoint.versions.keys()


def test_a_checkpoint_is_replaced_whole_or_not_at_all(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = qpairs.save_checkpoint(checkpoint, tmp_path / "x")
    before = (path / FILE).read_bytes()

    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(qpairs.UserError, match="No space left"):
            qpairs.save_checkpoint(checkpoint, path, overwrite=True)
    assert (path / FILE).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    qpairs.save_checkpoint(moved(checkpoint, threshold=0.25), path, overwrite=True)
    assert qpairs.load_checkpoint(path).verdict.pair.threshold == 0.25


def test_a_replacement_that_was_killed_between_its_renames_is_recovered(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = qpairs.save_checkpoint(checkpoint, tmp_path / "x")
    with hold_output(path) as work:
        pass
    work.mkdir()
    path.rename(work / OLD)
    assert qpairs.load_checkpoint(path).verdict.pair.threshold == checkpoint.verdict.pair.threshold
    qpairs.save_checkpoint(checkpoint, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    work.mkdir()
    path.rename(work / OLD)
    with pytest.raises(qpairs.UserError, match="not empty"):
        qpairs.save_checkpoint(checkpoint, path)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("{", "damaged"),
        ("{}", "damaged"),
        ('{"format": 99, "versions": {"qpairs": "9"}}', r"newer qpairs \(9\)"),
        (None, "not a qpairs checkpoint"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(
    checkpoint: Checkpoint, tmp_path: Path, damage: str | None, words: str
) -> None:
    path = qpairs.save_checkpoint(checkpoint, tmp_path / "x")
    (path / FILE).unlink() if damage is None else (path / FILE).write_text(damage)
    with pytest.raises(qpairs.UserError, match=words) as caught:
        qpairs.load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_an_export_is_no_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = save_checkpoint(checkpoint, tmp_path / "x")
    data = json.loads((path / FILE).read_text())
    (path / FILE).write_text(json.dumps({**data, "kind": "onnx"}))
    with pytest.raises(qpairs.UserError, match=r"an export \(onnx\); name the checkpoint"):
        load_checkpoint(path)
    with pytest.raises(qpairs.UserError, match="no such checkpoint folder"):
        load_checkpoint(tmp_path / "none")


def test_the_whole_encoder_is_loaded_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda: 1.0)  # sentence-transformers encodes in float32
    trained = untrained("tiny", PairHead(256))
    stored = load_checkpoint(save_checkpoint(trained, tmp_path / "x"))
    stricter = stored.with_verdict(moved(stored, threshold=0.9).verdict, {})
    for model in (stored, stricter):
        assert isinstance(model.source, InFolder)
        np.testing.assert_array_equal(model.score_pairs(PAIRS)[0], trained.score_pairs(PAIRS)[0])
        for ours, theirs in zip(model.embed_tables(TEXTS), trained.embed_tables(TEXTS), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        short = shorten_tables(model.embed_tables(TEXTS), 64)[0]
        np.testing.assert_allclose(
            short, trained.encoder.encode(TEXTS, truncate_dim=64, normalize_embeddings=True), atol=1e-5
        )
        assert (model.dimension, model.one_tower) == (256, True)
        assert model.token_counter is not None
        assert model.token_counter.limit == 128
    assert "whole" not in vars(stored.source)
    assert stricter.encoder is stored.encoder
    stricter.save(tmp_path / "y")
    again = load_checkpoint(tmp_path / "y")
    assert (again.fingerprint, again.verdict.pair.threshold) == (stored.fingerprint, 0.9)
    np.testing.assert_allclose(stored.encoder.encode(TEXTS), trained.encode(TEXTS), atol=1e-5)


def test_the_whole_encoder_is_never_that_of_another_model(tmp_path: Path) -> None:
    path = save_checkpoint(untrained("tiny"), tmp_path / "x")
    model = load_checkpoint(path)
    before = model.encode(TEXTS)
    other = build_encoder("tiny", texts=TEXTS, seed=1)
    save_checkpoint(dataclasses.replace(untrained("tiny"), source=other), path, overwrite=True)
    with pytest.raises(OtherWeights, match="not the weights that the verdict next to them was fitted to"):
        _ = model.encoder
    np.testing.assert_array_equal(model.encode(TEXTS), before)
    assert np.abs(load_checkpoint(path).encode(TEXTS) - before).max() > 0.01


def test_a_transformer_in_two_towers_is_loaded_whole(tmp_path: Path) -> None:
    trained = untrained("tiny+static")
    model = load_checkpoint(save_checkpoint(trained, tmp_path / "x"))
    assert not isinstance(model.source, InFolder)
    np.testing.assert_array_equal(model.encode(TEXTS, "right"), trained.encode(TEXTS, "right"))
