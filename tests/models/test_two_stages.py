import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mocks import moved
from sentence_transformers import CrossEncoder, SentenceTransformer
from stages import LOOK, overlap_model, two_stages, write_tiny_cross_model
from test_torch_free import HEAVY

import qpairs
from qpairs.core.files import sha256
from qpairs.metrics import SecondLook
from qpairs.models.base import fingerprint, load
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.two_stages import Band, TwoStages, first_stage, log_odds_of, second_stage

BF16 = 0.01  # of a logit, where the machine reads in bfloat16
MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"


@pytest.fixture(scope="module")
def pairs(pairs_csv: Path) -> qpairs.Pairs:
    return qpairs.load_pairs(pairs_csv)


@pytest.fixture(scope="module")
def cross(pairs: qpairs.Pairs, tmp_path_factory: pytest.TempPathFactory) -> CrossModel:
    return write_tiny_cross_model(tmp_path_factory.mktemp("cross") / "cross", pairs)


@pytest.fixture(scope="module")
def both(checkpoint: Checkpoint, cross: CrossModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("both") / "both"
    found = {"validation": {"f1": 0.5}, "second_look": {"band": [0.1, 0.9]}}
    two_stages(checkpoint, second=cross, scores=found, versions={"qpairs": "1"}).save(folder)
    return folder


def swapped(pairs: qpairs.Pairs) -> qpairs.Pairs:
    return replace(pairs, left=pairs.right, right=pairs.left)


def test_what_is_saved_is_loaded(both: Path, checkpoint: Checkpoint, cross: CrossModel, pairs: qpairs.Pairs) -> None:
    model = load(both)
    assert isinstance(model, TwoStages)
    assert (model.look, model.path) == (LOOK, both)
    assert (model.scores["second_look"], model.versions) == ({"band": [0.1, 0.9]}, {"qpairs": "1"})
    assert (model.config, model.split, model.one_tower) == (checkpoint.config, checkpoint.split, True)
    expected = two_stages(checkpoint, second=cross).score_pairs(pairs)[0]
    np.testing.assert_allclose(model.score_pairs(pairs)[0], expected, atol=BF16)
    model.save(both.with_name("again"))
    assert load(both.with_name("again")).verdict == model.verdict


def test_both_folders_are_what_other_libraries_load(both: Path, pairs: qpairs.Pairs) -> None:
    texts = list(pairs.questions[:5])
    vectors = SentenceTransformer(str(both), local_files_only=True).encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(load(both).encode(texts), vectors, atol=1e-5)
    network = CrossEncoder(str(both / "reranker"), local_files_only=True)
    orders = [pairs.texts(0), pairs.texts(0)[::-1]]
    logits = network.predict(orders, activation_fn=torch.nn.Identity())
    assert load(both / "reranker").score_pairs(pairs.subset([0]))[0] == pytest.approx([logits.mean()], abs=BF16)


def test_vectors_and_identity_are_those_of_the_encoder(both: Path, checkpoint: Checkpoint) -> None:
    model, alone = load(both), load(both, second_look=False)
    assert isinstance(alone, Checkpoint)
    assert alone.verdict == checkpoint.verdict
    assert model.fingerprint == alone.fingerprint == checkpoint.fingerprint == fingerprint(both)
    assert model.dimension == checkpoint.dimension
    np.testing.assert_array_equal(model.encode(["how?"]), alone.encode(["how?"]))
    assert first_stage(model) is model.first
    assert first_stage(alone) is alone
    assert second_stage(model) is model
    assert second_stage(alone) is None


def test_scores_are_those_of_a_pair_in_either_order(both: Path, pairs: qpairs.Pairs) -> None:
    model = load(both)
    for judge in (model, model.second):
        one, other = (judge.score_pairs(table)[0] for table in (pairs, swapped(pairs)))
        np.testing.assert_allclose(one, other, atol=BF16)
        assert one.std() > 0


def test_pairs_in_the_band_are_read_and_no_others(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    model = two_stages(checkpoint, look=SecondLook(0.0, 0.0, 1.0, (-0.3, 0.0), (0.3, 0.0)))
    cosines = checkpoint.score_pairs(pairs)[0]
    inside = model.band.holds(cosines)
    assert 0 < inside.sum() < len(pairs)
    scores, tables = model.score_pairs(pairs)
    asked = model.second.reader.asked
    assert {frozenset(pair) for pair in asked} == {frozenset(pairs.texts(row)) for row in np.flatnonzero(inside)}
    first = checkpoint.verdict.pair.log_odds(cosines)
    np.testing.assert_allclose(scores[~inside], first[~inside], rtol=1e-6)
    logits, _ = overlap_model().score_pairs(pairs)
    np.testing.assert_allclose(scores[inside], (first + logits)[inside], rtol=1e-5)
    np.testing.assert_array_equal(tables[0], checkpoint.embed_tables(pairs.questions)[0])
    everywhere = first + logits.clip(-0.3, 0.3)  # no gain beyond the bounds
    assert ((everywhere >= 0) == (scores >= 0))[~inside].all()


def test_a_pair_that_occurs_twice_in_any_order_is_read_once(checkpoint: Checkpoint) -> None:
    pairs = qpairs.pairs_from_texts(["a b", "a c", "a b", "b c"], ["a c", "a b", "a c", "a b"], [-1] * 4)
    model = two_stages(checkpoint)
    logits = model.read(pairs, np.array([True, True, True, False]))
    assert len(model.second.reader.asked) == 1
    assert logits[0] == logits[1] == logits[2]
    assert np.isnan(logits[3])
    assert len(set(logits[:3].tolist())) == 1


def test_nothing_to_read_is_nothing_read(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    model = two_stages(checkpoint, look=SecondLook(0.0, 0.0, 0.0, (0.0, 0.0), (0.0, 0.0)))
    assert not model.band.holds(np.linspace(-1, 1, 21)).any()
    assert np.isnan(model.read(pairs, np.zeros(len(pairs), dtype=bool))).all()
    first = checkpoint.verdict.pair
    decided = model.verdict.pair.decide(model.score_pairs(pairs)[0])
    assert decided.tolist() == (first.probability(checkpoint.score_pairs(pairs)[0]) >= 0.5).tolist()
    assert model.second.reader.asked == []
    nothing = qpairs.pairs_from_texts([], [], [])
    assert len(model.read(nothing, np.zeros(0, dtype=bool))) == 0


def test_a_band_holds_its_ends() -> None:
    assert Band(0.25, 0.5).holds(np.array([0.2, 0.25, 0.3, 0.5, 0.6], dtype=np.float32)).tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("probability", "expected"), [(0.0, -np.inf), (0.5, 0.0), (1.0, np.inf), (0.75, pytest.approx(np.log(3)))]
)
def test_log_odds_of_a_probability(probability: float, expected: float) -> None:
    assert log_odds_of(probability) == expected


def test_a_verdict_of_both_leaves_that_of_the_encoder(both: Path, checkpoint: Checkpoint) -> None:
    model = moved(load(both), threshold=1.5)
    model.save(both, overwrite=True)
    try:
        assert load(both).verdict.pair.threshold == 1.5
        assert load(both, second_look=False).verdict == checkpoint.verdict
    finally:
        moved(load(both), threshold=0.0).save(both, overwrite=True)
    with pytest.raises(qpairs.UserError, match="not empty"):
        model.save(both)


def test_another_model_in_the_place_of_one_that_was_joined_is_refused(both: Path, tmp_path: Path) -> None:
    folder, look = tmp_path / "swapped", tmp_path / "swapped" / "second_look.json"
    shutil.copytree(both, folder)
    shutil.rmtree(folder / "reranker")
    pairs = qpairs.load_pairs([("How do I pay?", "Is it free?", 0), ("How do I pay?", "How can I pay?", 1)])
    write_tiny_cross_model(folder / "reranker", pairs)
    with pytest.raises(
        qpairs.UserError, match=r"second_look.json: was fitted to another cross-encoder than the one in"
    ):
        load(folder)
    data = json.loads(look.read_text())
    assert data.pop("stages").keys() == {"encoder", "cross-encoder"}
    look.write_text(json.dumps(data))  # as older versions wrote it
    assert isinstance(load(folder), TwoStages)


def test_a_folder_may_be_named_by_a_text(both: Path, tmp_path: Path) -> None:
    model = load(both)
    assert isinstance(model, TwoStages)
    model.save(str(tmp_path / "both"))
    model.second.save(str(tmp_path / "second"))
    assert load(tmp_path / "both").fingerprint == model.fingerprint
    assert load(tmp_path / "second").fingerprint == model.second.fingerprint


@pytest.mark.parametrize("damage", ["missing", "no json", "no weights", "an encoder", "look", "newer look"])
def test_a_damaged_folder_is_one_line(both: Path, checkpoint: Checkpoint, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(both, folder)
    reranker, look = folder / "reranker", folder / "second_look.json"
    if damage == "missing":
        shutil.rmtree(reranker)
    elif damage == "no json":
        (reranker / "qpairs.json").unlink()
    elif damage == "no weights":
        for file in reranker.rglob("*.safetensors"):
            file.unlink()
    elif damage == "an encoder":
        shutil.rmtree(reranker)
        checkpoint.save(reranker)
    else:
        data = json.loads(look.read_text())
        look.write_text(json.dumps({**data, "format": 99} if "newer" in damage else {**data, "look": {"first": 1}}))
    with pytest.raises(qpairs.UserError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    assert ("second_look.json" if damage == "look" else "newer" if damage == "newer look" else "reranker") in str(
        error.value
    )
    assert load(folder, second_look=False).fingerprint == checkpoint.fingerprint


def test_an_export_saved_alone_from_the_folder_of_both_is_alone(tmp_path: Path, cross: CrossModel) -> None:
    export = load(MADE / "one-static")
    two_stages(export, second=cross).save(tmp_path / "both")
    alone = load(tmp_path / "both", second_look=False)
    alone.save(tmp_path / "alone")
    assert type(load(tmp_path / "alone")) is type(export)
    assert not (tmp_path / "alone" / "reranker").exists()
    assert sha256(tmp_path / "alone" / "vectors.safetensors") == sha256(MADE / "one-static" / "vectors.safetensors")
    again = load(tmp_path / "both")
    again.save(tmp_path / "both", overwrite=True)
    assert isinstance(load(tmp_path / "both"), TwoStages)


SCRIPT = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # any import of it fails
import qpairs
from dataclasses import replace
from pathlib import Path
from qpairs.models import cross_encoder
from stages import Overlap, overlap_model, two_stages
made, folder = map(Path, sys.argv[1:])
(folder / "cross").mkdir(parents=True)
cross = overlap_model(form={{"kind": "cross-encoder-onnx"}}, path=folder / "cross")
cross_encoder.write_cross_model(cross, folder / "cross")
cross_encoder._open_reader = lambda path, data: Overlap()
two_stages(qpairs.load(made), second=cross).save(folder / "both")
model = qpairs.load(folder / "both")
pairs = qpairs.pairs_from_texts(["How do I pay?", "Where am I?"] * 10, ["How can I pay?", "Who?"] * 10, [1, 0] * 10)
assert qpairs.predict(model, pairs).duplicate.shape == (20,)
assert 0 <= qpairs.evaluate(model, pairs).f1 <= 1
assert qpairs.evaluate(model.second, pairs).corpus is None
assert 0 <= qpairs.calibrate(model, pairs).f1_after <= 1
from qpairs.evaluation.explain import explain
assert explain(model, *pairs.texts(0)).words and explain(model.second, *pairs.texts(0)).words
print("done")
"""


def test_an_export_of_both_needs_no_training_library(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    command = [sys.executable, "-c", SCRIPT, MADE / "one-static", tmp_path / "new"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.stdout.split() == ["done"], done.stderr


def test_a_folder_with_a_cross_encoder_that_nothing_joins_is_refused(both: Path, tmp_path: Path) -> None:
    shutil.copytree(both, tmp_path / "x")
    (tmp_path / "x" / "second_look.json").unlink()
    with pytest.raises(qpairs.UserError, match="which describes how to use it, is missing; combine them again"):
        load(tmp_path / "x")
    assert load(tmp_path / "x", second_look=False).dimension
