from pathlib import Path

import numpy as np
import pytest
from mocks import moved

import qpairs
from qpairs import metrics
from qpairs.data.parts import load_parts
from qpairs.evaluation.calibrate import cross_fitted
from qpairs.models.bi_encoder import Checkpoint


@pytest.fixture(scope="module")
def pairs(pairs_csv: Path) -> qpairs.Pairs:
    return qpairs.load_pairs(pairs_csv)


def test_pairs_that_were_trained_on_are_told_of(checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture) -> None:
    """The bundled pairs, named by mistake, give a threshold for questions that the model knows."""
    parts = load_parts(checkpoint.config)
    assert parts.validation is not None
    qpairs.calibrate(checkpoint, parts.validation)
    assert caplog.text == ""
    qpairs.calibrate(checkpoint, parts.train)
    n = len(parts.train.questions)
    assert f"calibrate: {n:,} of {n:,} questions were seen in training" in caplog.text


def test_pairs_that_a_model_was_calibrated_on_are_told_of(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = load_parts(checkpoint.config)
    assert parts.validation is not None and parts.test is not None
    qpairs.calibrate(checkpoint, parts.test).model.save(tmp_path / "calibrated")
    qpairs.evaluate(tmp_path / "calibrated", parts.validation)
    qpairs.evaluate(checkpoint, parts.test)
    assert "calibrated on" not in caplog.text
    qpairs.evaluate(tmp_path / "calibrated", parts.test)
    n = len(parts.test.questions)
    assert f"evaluate: the model was calibrated on {n} of these {n} questions" in caplog.text


def test_cross_fitting_takes_the_advantage_of_choosing_away() -> None:
    random = np.random.default_rng(0)
    scores, labels = random.random(60).astype(np.float32), random.integers(0, 2, 60).astype(np.int8)
    groups = np.arange(60)
    best = metrics.confusion(scores, labels, metrics.best_threshold(scores, labels)).f1
    assert metrics.confusion(cross_fitted(scores, labels, groups), labels, 0.5).f1 < best


def test_calibrate_finds_the_threshold_of_another_place(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    elsewhere = moved(checkpoint, threshold=0.999)
    fit = qpairs.calibrate(elsewhere, pairs)
    assert fit.f1_before < fit.f1_after
    best = metrics.best_threshold(*(x for x in (checkpoint.score_pairs(pairs)[0], pairs.labels)))
    assert fit.model.verdict.pair.threshold == pytest.approx(best, abs=0.1)
    assert fit.interval[0] <= fit.interval[1]
    assert fit.more_pairs == 3 * len(pairs)
