"""`train --reranker`: an encoder and a cross-encoder in one run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from children import run_script
from conftest import refused, write_csv
from killed import train_and_kill
from safetensors.torch import load_file
from transformers.utils import logging

import qpairs
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.two_stages import TwoStages
from qpairs.models.unfinished import partial_of
from qpairs.training import cross_models, stages
from qpairs.training.cross_encoder import FittedPairs
from qpairs.training.passes import NothingKept
from qpairs.training.teachers import load_teacher, probabilities_of, teacher_of

FAST: dict[str, Any] = {
    "encoder": "static",
    "reranker": "tiny",
    "batch_size": 16,
    "max_length": 12,
    "evaluations": 1,
    "precision": "fp32",
    "reranker_epochs": 0.5,
}
PAIR = ("How do I reset my password?", "I forgot my password")


@pytest.fixture(scope="module", autouse=True)
def _no_bars() -> None:
    """The command line sets what transformers reads when it is imported, which here it is already."""
    logging.disable_progress_bar()


@pytest.fixture(scope="module")
def half_csv(sample_rows: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the usual pairs: a cross-encoder reads them all in every run."""
    return write_csv(tmp_path_factory.mktemp("pairs") / "pairs.csv", sample_rows[:300])


@pytest.fixture(scope="module")
def trained(half_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "x"
    qpairs.train(data=str(half_csv), output=str(output), seed=3, **FAST)
    return output


def same_weights(one: Path, other: Path) -> None:
    files = sorted(file.relative_to(one) for file in one.rglob("*.safetensors"))
    assert any(file.parts[0] == "reranker" for file in files)
    assert files == sorted(file.relative_to(other) for file in other.rglob("*.safetensors"))
    for file in files:
        a, b = load_file(one / file), load_file(other / file)
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_folder_is_a_model_of_two_stages_judged_on_validation_and_test(trained: Path, half_csv: Path) -> None:
    model = qpairs.load(trained)
    assert isinstance(model, TwoStages)
    assert (model.config.output, model.second.config.output) == (str(trained), str(trained / "reranker"))
    assert (model.second.config.model, model.second.config.epochs, model.second.config.loss) == (
        "cross-encoder",
        0.5,
        model.config.loss,
    )
    assert model.split["fingerprint"] == model.second.split["fingerprint"]
    assert model.scores.keys() == {"validation", "second_look", "test"}
    for one in (model, model.first, model.second):
        assert one.scores["test"]["n"] == model.split["sizes"]["test"]
        assert one.scores["test"]["threshold"] == one.verdict.pair.threshold
    assert "f1_cross_fitted" in model.scores["validation"]
    assert not partial_of(trained).exists()
    assert [p.name for p in trained.parent.iterdir()] == [trained.name]


def test_each_stage_loads_without_qpairs(trained: Path) -> None:
    script = (
        "import sys, json, torch; sys.modules['qpairs'] = None\n"
        "from sentence_transformers import CrossEncoder, SentenceTransformer\n"
        f"vectors = SentenceTransformer({str(trained)!r}, device='cpu').encode({list(PAIR)!r})\n"
        f"reranker = CrossEncoder({str(trained / 'reranker')!r}, device='cpu')\n"
        f"logits = reranker.predict([{PAIR!r}, {PAIR[::-1]!r}], activation_fn=torch.nn.Identity())\n"
        "print(json.dumps([vectors.tolist(), logits.tolist()]))\n"
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    vectors, logits = json.loads(done.stdout.splitlines()[-1])
    model = qpairs.load(trained)
    assert isinstance(model, TwoStages)
    np.testing.assert_allclose(model.encode(PAIR), vectors, atol=1e-5)
    assert float(model.second.reader.logits([PAIR])[0]) == pytest.approx(np.mean(logits), abs=0.02)


def test_without_the_second_look_it_is_the_encoder_that_a_run_without_reranker_trains(
    trained: Path, half_csv: Path, tmp_path: Path
) -> None:
    alone = qpairs.load(trained, second_look=False)
    assert isinstance(alone, Checkpoint)
    plain = qpairs.train(data=str(half_csv), output=str(tmp_path / "y"), seed=3, **{**FAST, "reranker": ""})
    np.testing.assert_array_equal(alone.encode(PAIR), plain.encode(PAIR))
    assert alone.verdict.pair == plain.verdict.pair


@pytest.mark.parametrize("at", [("training", 9), ("training the reranker", 3), "joining", "final"])
def test_killed_and_resumed_it_ends_with_the_same_weights(
    at: Any, trained: Path, half_csv: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    train_and_kill(at, FAST, half_csv, output)
    stages: list[str] = []
    qpairs.train(output=str(output), resume=True, on_progress=lambda now: stages.append(now.stage))
    assert ("training" in stages) == (at == ("training", 9))  # what is done is not done again
    assert ("training the reranker" in stages) == isinstance(at, tuple)
    same_weights(trained, output)
    one, other = qpairs.load(trained), qpairs.load(output)
    assert one.scores == other.scores
    assert one.verdict == other.verdict


def test_one_cross_encoder_is_teacher_and_reranker(half_csv: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    options = {**FAST, "teacher": ("tiny",), "teacher_epochs": 0.5, "neighbours": 0}
    output = tmp_path / "x"
    model = qpairs.train(
        data=str(half_csv), output=str(output), seed=3, on_progress=lambda now: stages.append(now.stage), **options
    )
    assert isinstance(model, TwoStages)
    assert "training the teacher" in stages
    assert "training the reranker" not in stages
    told, own = model.split["teacher"], model.second.scores["validation"]
    assert told["average_precision"] == pytest.approx(own["average_precision"], abs=1e-6)
    assert not teacher_of(output).exists()  # it is in the folder
    assert model.second.config.output == str(output / "reranker")
    again = load_teacher(str(output / "reranker"))
    assert again.fingerprint == model.split["fingerprint"]


def test_a_reranker_that_is_there_is_taken_as_it_is(
    trained: Path, half_csv: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reranker = trained / "reranker"
    options = {**FAST, "reranker": str(reranker)}
    stages: list[str] = []
    same = qpairs.train(
        data=str(half_csv), output=str(tmp_path / "y"), seed=3, on_progress=lambda n: stages.append(n.stage), **options
    )
    assert "training the reranker" not in stages
    assert [record for record in caplog.records if record.name != "qpairs.models.coverage"] == []
    same_weights(trained, tmp_path / "y")
    assert same.verdict == qpairs.load(trained).verdict
    qpairs.train(data=str(half_csv), output=str(tmp_path / "z"), seed=4, **options)
    assert "reranker" in caplog.text
    assert "was not trained on this split" in caplog.text


def test_a_model_of_two_stages_teaches_what_both_say(trained: Path, half_csv: Path) -> None:
    pairs = qpairs.load_pairs(str(half_csv)).subset(np.arange(60))
    teacher, model = load_teacher(str(trained)), qpairs.load(trained)
    assert teacher.fingerprint == model.split["fingerprint"]
    np.testing.assert_allclose(probabilities_of([teacher], pairs), qpairs.predict(model, pairs).probability, atol=5e-3)


@pytest.mark.parametrize("kept", [True, False])
def test_where_the_loss_of_the_reranker_becomes_nan_the_encoder_is_saved(
    kept: bool, half_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(run: Any, model: Any, stage: str = "training") -> FittedPairs:
        if not kept:
            raise NothingKept("the loss became NaN at step 2, before the first evaluation; nothing was saved")
        run.folder.mkdir()
        return FittedPairs(model, [], "the loss became NaN at step 9")

    monkeypatch.setattr(cross_models, "fit_cross_encoder", diverge)
    with pytest.raises(qpairs.UserError, match=r"reranker: its loss became NaN; the encoder alone is saved in .*x"):
        qpairs.train(data=str(half_csv), output=str(tmp_path / "x"), **FAST)
    assert isinstance(qpairs.load(tmp_path / "x"), Checkpoint)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_where_the_loss_of_the_encoder_becomes_nan_its_last_good_state_is_saved_alone(
    half_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = stages.fit_bi_encoder

    def diverge(*args: Any, **options: Any) -> Any:
        return replace(fitted(*args, **options), diverged="the loss became NaN at step 9")

    monkeypatch.setattr(stages, "fit_bi_encoder", diverge)
    with pytest.raises(qpairs.UserError, match=r"NaN at step 9; the last good state is saved in .*x; lower"):
        qpairs.train(data=str(half_csv), output=str(tmp_path / "x"), **FAST)
    assert isinstance(qpairs.load(tmp_path / "x"), Checkpoint)


def test_what_is_no_reranker_is_refused_before_any_work(
    run: Any, half_csv: Path, checkpoint: Checkpoint, trained: Path, tmp_path: Path
) -> None:
    def told(*options: object) -> Any:
        return run("train", "--data", half_csv, "--encoder", "static", "--output", "x", *options)

    refused(told("--reranker", "lstm"), "reranker: lstm is not a transformer")
    refused(told("--reranker", "tini"), "reranker: no cross-encoder 'tini'", "did you mean 'tiny'?")
    refused(told("--reranker", checkpoint.path), "is not a cross-encoder", "--model cross-encoder")
    refused(told("--reranker", trained), "is not a cross-encoder")
    refused(told("--reranker", "tiny", "--no-symmetric"), "reranker: reads a pair in both orders")
    refused(told("--reranker", "tiny", "--teacher", "tiny", "--reranker-epochs", "2"), "trained once")
    refused(run("audit", "--data", half_csv, "--reranker", trained / "reranker", "--output", "s.csv"), "disputes none")
    assert list(tmp_path.iterdir()) == []


def test_the_command_shows_what_the_second_look_brings(run: Any, half_csv: Path) -> None:
    options = {**FAST, "output": "x", "epochs": 0.5, "reranker_epochs": 0.2}
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    shown = run("train", "--data", half_csv, *flags)
    assert shown.code == 0, shown.err
    for words in ("test pairs", "encoder alone", "cross-encoder alone", "both", "qpairs predict x"):
        assert words in shown.out
    assert run("predict", "x", *PAIR).code == 0
    assert run("evaluate", "x", "--data", half_csv).code == 0
    assert isinstance(qpairs.load("x/reranker"), CrossModel)
