"""Every command that judges takes exports, made today and by commit 48e0593, and is honest about what these lack."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import refused

import qpairs
from qpairs.evaluation.mistakes import analyse
from qpairs.evaluation.report import question_map, render
from qpairs.models.bi_encoder import Checkpoint

MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
OLD = ["one-static", "one-onnx"]


@pytest.fixture(scope="module")
def exports(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    for kind in ("static", "onnx"):
        qpairs.export_checkpoint(checkpoint.config.output, folder / kind, format=kind, max_loss=1.0)
    return {kind: folder / kind for kind in ("static", "onnx")}


@pytest.fixture(autouse=True)
def small_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question_map, "MAPPED", 30)


def shown(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("kind", ["static", "onnx"])
def test_an_export_is_evaluated_like_its_checkpoint(
    run, exports: dict[str, Path], checkpoint: Checkpoint, pairs_csv: Path, kind: str
) -> None:
    result = run("evaluate", exports[kind], "--data", pairs_csv, "--json", "x.json", "--perturb", "case")
    assert result.code == 0, result.err
    assert "Shift unknown" not in result.out
    assert "TF-IDF" in result.out
    report, expected = json.loads(Path("x.json").read_text()), qpairs.evaluate(checkpoint, pairs_csv)
    assert report["average_precision"] == pytest.approx(expected.average_precision, abs=1e-3)
    assert report["f1"] == pytest.approx(expected.f1, abs=0.01)
    assert report["shift"]["statistic"] == pytest.approx(expected.shift.statistic, abs=0.02)


@pytest.mark.parametrize("kind", ["static", "onnx"])
def test_the_other_commands_take_an_export(run, exports: dict[str, Path], pairs_csv: Path, kind: str) -> None:
    result = run("errors", exports[kind], "--data", pairs_csv)
    assert result.code == 0, result.err
    assert "unavailable" not in result.out
    assert f"{len(analyse(exports[kind], pairs_csv).mistakes())} of 600 decisions are wrong" in shown(result.out)
    assert "labelled duplicates" in run("explain", exports[kind], "How do I pay?", "Where do I pay?").out
    assert run("predict", exports[kind], pairs_csv, "--output", "scored.csv").code == 0
    result = run("calibrate", exports[kind], "--data", pairs_csv, "--output", "mine")
    assert result.code == 0, result.err
    assert qpairs.load("mine").verdict.pair == qpairs.calibrate(exports[kind], pairs_csv).model.verdict.pair


@pytest.mark.parametrize("kind", ["static", "onnx"])
def test_the_report_of_an_export_says_export(run, exports: dict[str, Path], kind: str) -> None:
    result = run("report", exports[kind])
    assert result.code == 0, result.err
    page = Path("report.html").read_text()
    for words in ("this export", "<dt>Exported</dt>", "The export was made by qpairs", "the part kept for the test"):
        assert words in page
    assert "checkpoint" not in re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)
    assert "Validation during training" in page


@pytest.mark.parametrize("name", OLD)
def test_what_an_export_of_an_older_version_does_not_know_is_said(run, name: str) -> None:
    result = run("evaluate", MADE / name, "--data", MADE / "pairs.csv", "--json", "x.json")
    assert result.code == 0, result.err
    assert "Shift unknown" in result.out
    assert "TF-IDF" not in result.out
    assert json.loads(Path("x.json").read_text())["shift"] == {"statistic": None, "p_value": None, "differs": False}
    result = run("errors", MADE / name, "--data", MADE / "pairs.csv")
    assert result.code == 0, result.err
    assert "The training pairs are unavailable: known words are those of the data itself." in shown(result.out)
    assert "No neighbours: the training pairs are unavailable" in shown(run("explain", MADE / name, "how?", "why?").out)


@pytest.mark.parametrize("name", OLD)
def test_the_report_of_an_older_export_needs_data(run, name: str) -> None:
    refused(run("report", MADE / name), "does not store which pairs it was tested on", "--data")
    page = render(MADE / name, MADE / "pairs.csv")
    for words in (
        "this export",
        "unknown for this export",
        "on unknown pairs",
        "The export has no training history",
        "training pairs are unavailable",
    ):
        assert words in page
    for words in ("TF-IDF", "chosen on 0 pairs"):
        assert words not in page


def test_an_older_export_is_calibrated_and_then_knows_its_shift(run, tmp_path: Path) -> None:
    shutil.copytree(MADE / "one-static", tmp_path / "old")
    assert run("calibrate", "old", "--data", MADE / "pairs.csv", "--output", "new").code == 0
    result = run("evaluate", "new", "--data", MADE / "pairs.csv")
    assert "Shift unknown" not in result.out
    assert "TF-IDF" in result.out


def test_answers_of_a_file_are_those_of_the_checkpoint_of_then(tmp_path: Path) -> None:
    answers = json.loads((MADE / "answers.json").read_text())
    first, second = zip(*answers["pairs"], strict=True)
    found = qpairs.predict(MADE / "one-static", qpairs.pairs_from_texts(first, second, [-1] * len(first)))
    np.testing.assert_allclose(found.similarity, answers["one"]["similarity"], atol=1e-5)


def test_without_scikit_learn_an_export_is_reported_without_map(monkeypatch: pytest.MonkeyPatch) -> None:
    find = question_map.importlib.util.find_spec
    monkeypatch.setattr(
        question_map.importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name)
    )
    page = render(MADE / "one-static", MADE / "pairs.csv")
    assert "The map needs scikit-learn" in page
