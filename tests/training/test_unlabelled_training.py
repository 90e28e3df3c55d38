from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from children import run_script
from conftest import refused
from safetensors.torch import load_file

import qpairs
from qpairs.models.bi_encoder import Checkpoint
from qpairs.objectives.losses import LOSSES

FAST: dict[str, Any] = {"batch_size": 16, "evaluations": 4, "max_length": 16, "precision": "fp32"}
KILLED = """
import os, signal, qpairs
from qpairs.core.progress import Progress
def kill(now: Progress) -> None:
    if now.stage == "training" and now.done == 17:
        os.kill(os.getpid(), signal.SIGKILL)
qpairs.train(data={data!r}, unlabelled=True, output={output!r}, on_progress=kill, **{fast!r})
"""


@pytest.fixture(scope="module", autouse=True)
def _small_encoder(small_bert: Path) -> None:
    FAST["encoder"] = str(small_bert)


@pytest.fixture(scope="module")
def questions_csv(sample_rows: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The questions of the 600 pairs, without a label."""
    texts = dict.fromkeys(text for first, second, _ in sample_rows for text in (first, second))
    file = tmp_path_factory.mktemp("questions") / "questions.csv"
    file.write_text("question\n" + "".join('"' + text.replace('"', "'") + '"\n' for text in texts), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def learned(questions_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    output = tmp_path_factory.mktemp("runs") / "unlabelled"
    model = qpairs.train(data=str(questions_csv), unlabelled=True, output=str(output), **FAST)
    assert isinstance(model, Checkpoint)
    return model


def test_it_learns_to_tell_questions_apart(questions_csv: Path, tmp_path: Path) -> None:
    options = {**FAST, "epochs": 6.0, "learning_rate": 5e-3}
    model = qpairs.train(data=str(questions_csv), unlabelled=True, output=str(tmp_path / "x"), **options)
    assert model.config.loss == "info_nce"
    losses = [row["loss"] for row in model.history if "loss" in row]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    before = qpairs.train(
        data=str(questions_csv), unlabelled=True, output=str(tmp_path / "y"), **{**FAST, "learning_rate": 1e-12}
    )
    texts = [line.strip('"') for line in questions_csv.read_text().splitlines()[1:101]]

    def spread(of: object) -> float:
        vectors = of.encode(texts)  # type: ignore[attr-defined]
        return float((vectors @ vectors.T)[np.triu_indices(100, 1)].mean())

    assert spread(model) < spread(before) - 0.1


def test_killed_and_resumed_it_ends_with_the_same_weights(
    learned: Checkpoint, questions_csv: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    script = KILLED.format(data=str(questions_csv), output=str(output), fast=FAST)
    killed = run_script(script)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not output.exists()
    resumed = qpairs.train(output=str(output), resume=True)
    assert resumed.config.loss == "info_nce"
    one, two = (load_file(folder / "model.safetensors") for folder in (learned.path, output))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_without_labels_there_is_no_threshold_for_pairs_and_that_is_one_line(
    learned: Checkpoint, run, pairs_csv: Path, questions_csv: Path
) -> None:
    assert learned.scores == {}
    assert not learned.verdict.labelled
    assert learned.verdict.densities is not None
    assert learned.verdict.densities.borrowed
    for arguments in (["evaluate", learned.path, "--data", pairs_csv], ["predict", learned.path, "a", "b"]):
        code, _, err = run(*arguments)
        (said,) = (line for line in err.splitlines() if line.startswith("error:"))  # after the bar of a loaded encoder
        assert code == 2
        assert "qpairs calibrate" in said
    code, out, err = run("dedupe", learned.path, questions_csv, "--output", "d")
    assert code == 0, err
    assert "no labels" in " ".join((out + err).split())


def test_it_is_the_encoder_of_a_training_with_labels_and_can_be_calibrated(
    learned: Checkpoint, run, pairs_csv: Path
) -> None:
    options = ["--data", pairs_csv, "--batch-size", 16, "--epochs", "0.1", "--output", "after"]
    code, _, err = run("train", "--encoder", learned.path, *options)
    assert code == 0, err
    assert qpairs.load("after").verdict.labelled
    code, _, err = run("calibrate", learned.path, "--data", pairs_csv, "--output", "here")
    assert code == 0, err
    assert qpairs.load("here").verdict.labelled


def test_the_command_says_what_comes_next(run, questions_csv: Path) -> None:
    options = [part for name, value in FAST.items() for part in (f"--{name.replace('_', '-')}", value)]
    arguments = ["train", "--data", questions_csv, "--unlabelled", "--epochs", "0.1", "--augment", "0.2", *options]
    code, out, err = run(*arguments, "--output", "u")
    assert code == 0, err
    words = " ".join(out.split())
    assert "questions without labels" in words
    assert "generated from training questions" in words
    assert "qpairs dedupe u " in words
    assert "qpairs train --encoder u --data LABELLED.csv" in words
    refused(run(*arguments, "--output", "v", "--loss", "contrastive"), "use info_nce")
    refused(run(*arguments, "--output", "v", "--teacher", "minilm"), "no labels to train one on")
    refused(run(*arguments, "--output", "v", "--encoder", "lstm+cnn"), "two towers")


def test_with_labels_of_its_own_it_keeps_the_best_state_and_has_a_verdict(
    questions_csv: Path, pairs_csv: Path, tmp_path: Path
) -> None:
    options = {**FAST, "validation": str(pairs_csv), "epochs": 0.5}
    model = qpairs.train(data=str(questions_csv), unlabelled=True, output=str(tmp_path / "x"), **options)
    assert model.verdict.labelled
    assert 0 < model.scores["validation"]["f1"] < 1
    assert any("eval_average_precision" in row for row in model.history)


def test_a_teacher_answers_for_the_nearest_questions(
    questions_csv: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    options = {**FAST, "epochs": 0.5, "teacher": str(checkpoint.path)}
    model = qpairs.train(data=str(questions_csv), unlabelled=True, output=str(tmp_path / "x"), **options)
    assert model.config.loss == qpairs.Config().loss
    assert model.split["teacher"]["neighbours"] > 100
    assert "f1" not in model.split["teacher"]


@pytest.mark.parametrize("loss", [name for name, entry in LOSSES.items() if entry.in_batch or name == "arcface"])
def test_every_loss_with_negatives_in_the_batch_can_be_used(loss: str, questions_csv: Path, tmp_path: Path) -> None:
    options = {**FAST, "epochs": 0.1, "loss": loss}
    model = qpairs.train(data=str(questions_csv), unlabelled=True, output=str(tmp_path / "x"), **options)
    assert isinstance(model, Checkpoint)
    assert all(np.isfinite(row["loss"]) for row in model.history if "loss" in row)


def test_vectors_of_several_lengths_have_a_verdict_each(questions_csv: Path, tmp_path: Path) -> None:
    options = {**FAST, "epochs": 0.1, "dims": (32, 16)}
    model = qpairs.train(data=str(questions_csv), unlabelled=True, output=str(tmp_path / "x"), **options)
    lengths = model.verdict.shortened
    assert lengths
    assert not any(verdict.labelled for verdict in lengths.values())
