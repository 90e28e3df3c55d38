"""`qpairs combine`: an encoder and a cross-encoder of two folders become one model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import refused
from scipy.special import expit
from transformers.utils import logging

import qpairs
from qpairs.evaluation.combine import combine_folders
from qpairs.models.base import model_to_dict
from qpairs.models.bi_encoder import Checkpoint, save_checkpoint
from qpairs.models.cross_encoder import CrossModel, write_cross_model
from qpairs.models.two_stages import TwoStages


@pytest.fixture(scope="module", autouse=True)
def _no_bars() -> None:
    """The command line sets what transformers reads when it is imported, which here it is already."""
    logging.disable_progress_bar()


@pytest.fixture(scope="module")
def cross(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder of the same split as `checkpoint`, hardly trained."""
    output = tmp_path_factory.mktemp("runs") / "cross"
    options: dict[str, Any] = {"encoder": "tiny", "max_length": 8, "epochs": 0.2, "evaluations": 1, "precision": "fp32"}
    qpairs.train(data=str(pairs_csv), model="cross-encoder", output=str(output), **options)
    return output


@pytest.fixture(scope="module")
def both(checkpoint: Checkpoint, cross: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "both"
    combine_folders(checkpoint.path, cross, output)
    return output


def with_fingerprint(model: CrossModel, fingerprint: str, folder: Path) -> Path:
    """The cross-encoder as if it had been trained on another split."""
    model.save(folder)
    write_cross_model(replace(model, split={**model.split, "fingerprint": fingerprint}), folder)
    return folder


def test_both_are_in_the_folder_as_they_were(checkpoint: Checkpoint, cross: Path, both: Path) -> None:
    model, second = qpairs.load(both), qpairs.load(cross)
    assert isinstance(model, TwoStages)
    assert model.first.fingerprint == qpairs.load(checkpoint.path).fingerprint == model.fingerprint
    assert model.second.fingerprint == second.fingerprint
    alone = qpairs.load(both, second_look=False)
    assert model_to_dict(alone) == model_to_dict(qpairs.load(checkpoint.path))
    assert model_to_dict(model.second) == model_to_dict(second)


def test_it_is_fitted_to_the_validation_pairs_of_the_encoder(checkpoint: Checkpoint, both: Path) -> None:
    scores = qpairs.load(both).scores
    assert scores["validation"]["n"] == checkpoint.split["sizes"]["validation"]
    first = scores["second_look"]
    assert first["average_precision_first"] == pytest.approx(
        checkpoint.scores["validation"]["average_precision"], abs=1e-6
    )
    assert first["f1_first"] == pytest.approx(checkpoint.scores["validation"]["f1_cross_fitted"], abs=1e-6)
    assert 0 <= first["share"] <= 1


def test_its_log_odds_are_those_of_the_encoder_and_the_gain_of_the_logit(both: Path, pairs_csv: Path) -> None:
    model, pairs = qpairs.load(both), qpairs.load_pairs(str(pairs_csv)).subset(np.arange(120))
    assert isinstance(model, TwoStages)
    cosines = model.first.score_pairs(pairs)[0].astype(float)
    logits, look = model.second.score_pairs(pairs)[0].astype(float), model.look
    calibration = model.first.verdict.pair.calibration
    expected = calibration.slope * cosines + calibration.intercept
    read = (cosines >= model.band.low) & (cosines <= model.band.high)
    expected[read] += (look.intercept + look.first * cosines + look.second * logits)[read]
    found = model.score_pairs(pairs)[0]
    np.testing.assert_allclose(found, expected, atol=0.02)  # the cross-encoder reads perhaps in bfloat16
    setting = model.verdict.pair
    probability = expit(setting.calibration.slope * found + setting.calibration.intercept)
    np.testing.assert_allclose(qpairs.predict(model, pairs).probability, probability, atol=1e-5)


def test_a_second_look_that_knows_the_answers_is_believed(
    checkpoint: Checkpoint, cross: Path, pairs_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qpairs.evaluation.combine import combine

    pairs = qpairs.load_pairs(str(pairs_csv))
    answers = {frozenset(pairs.texts(row)): float(pairs.labels[row]) for row in range(len(pairs))}
    random = np.random.default_rng(0)

    class Knowing:
        def logits(self, asked: Any) -> Any:
            noise = random.normal(0, 1, len(asked))
            return np.array([6 * answers.get(frozenset(pair), 0.0) - 3 for pair in asked], np.float32) + noise

    knowing = replace(qpairs.load(cross), reader=Knowing())
    model = combine(checkpoint, knowing, pairs)
    told = model.scores["second_look"]
    assert model.scores["validation"]["f1_cross_fitted"] > 0.95 > told["f1_first"] + 0.1
    assert model.look.second > 0.5
    assert told["share"] > 0.5


def test_pairs_of_another_source_are_taken_where_they_are_named(
    checkpoint: Checkpoint, cross: Path, pairs_csv: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = qpairs.load_pairs(str(pairs_csv)).subset(np.arange(200))
    other = with_fingerprint(qpairs.load(cross), "another", tmp_path / "other")
    model = combine_folders(checkpoint.path, other, tmp_path / "named", pairs)
    assert model.scores["validation"]["n"] == 200
    assert "another" not in caplog.text  # whose pairs these are is for the user to know
    known = qpairs.load_pairs(str(pairs_csv)).questions
    assert f"{checkpoint.path}: " in caplog.text
    assert f"of {len({*known} & {*pairs.questions}):,} questions were seen in training" in caplog.text
    combine_folders(checkpoint.path, other, tmp_path / "unnamed")
    assert "it may have seen these pairs" in caplog.text


def test_the_command_says_what_each_reaches_and_refuses_a_folder_in_use(
    run: Any, checkpoint: Checkpoint, cross: Path, tmp_path: Path
) -> None:
    shown = run("combine", checkpoint.path, cross, "--output", "new")
    assert shown.code == 0, shown.err
    for words in ("encoder alone", "cross-encoder alone", "both", "The cross-encoder reads", "Saved in new"):
        assert words in shown.out
    assert isinstance(qpairs.load(tmp_path / "new"), TwoStages)
    refused(run("combine", checkpoint.path, cross, "--output", "new"), "the folder is not empty")
    assert run("combine", checkpoint.path, cross, "--output", "new", "--overwrite").code == 0


def test_what_does_not_go_together_is_refused_and_nothing_is_written(
    run: Any, checkpoint: Checkpoint, cross: Path, both: Path, pairs_csv: Path, tmp_path: Path
) -> None:
    def told(first: Path, second: Path, *options: object) -> Any:
        return run("combine", first, second, "--output", "new", *options)

    refused(told(cross, checkpoint.path), "is a cross-encoder; name it second")
    refused(told(checkpoint.path, checkpoint.path), "not a cross-encoder", "name it second")
    refused(told(checkpoint.path, Path("minilm")), "minilm: not a cross-encoder", "name it second")
    refused(told(checkpoint.path, both), "has two stages; its cross-encoder is", "reranker")
    refused(run("combine", checkpoint.path, cross, "--output", cross, "--overwrite"), "one of the models to combine")
    refused(told(cross, cross), "is a cross-encoder; name an encoder first")
    refused(told(both, cross), "two stages already")
    refused(told(tmp_path / "none", cross), "no such checkpoint")
    gone = tmp_path / "gone"
    save_checkpoint(replace(checkpoint, config=replace(checkpoint.config, data=("gone.csv",))), gone)
    refused(told(gone, cross), "validation pairs of", "unavailable", "--data")
    assert told(gone, cross, "--data", pairs_csv).code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gone", "new"]
