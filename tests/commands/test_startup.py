"""What a command does not import: every one of these takes a part of a second, or seconds."""

import subprocess
import sys
from pathlib import Path

import pytest
from mocks import VERDICT

from qpairs.config import Config
from qpairs.encoders.build import build_encoder
from qpairs.models.bi_encoder import Checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
MADE = ROOT / "tests" / "fixtures" / "commit_48e0593"
TRAINING = ("transformers", "sentence_transformers", "datasets", "sklearn", "accelerate", "pandas", "peft")
OTHERS = ("scipy", "matplotlib", "faiss", "fastapi", "uvicorn", "cleanlab", "pymilvus", "ray", "tensorboard")
QUESTIONS = ("How do I reset my password?", "I forgot my password.")
SCRIPT = """
import sys
from qpairs.commands import main
sys.argv = ["qpairs", *sys.argv[1:]]
try:
    main()
finally:
    print("imported:", *sys.modules)
"""


def imported(*arguments: str, refused: str = "") -> set[str]:
    """The modules that a command has imported at its end; `refused` is in its error, where it must end with one."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == (2 if refused else 0) and refused in done.stderr, done.stderr
    return set(done.stdout.rpartition("imported:")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["train", "--help"]])
def test_help_needs_none_of_the_libraries(arguments: list[str]) -> None:
    assert not imported(*arguments) & {"torch", "numpy", "pyarrow", "onnxruntime", *TRAINING, *OTHERS}


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["--data", "nowhere.csv"], "no such file"),
        (["--data", "columns.csv", "--dry-run"], "no label column"),
        (["--data", "labels.csv"], "label 'maybe'"),
        (["--encoder", "statik"], "did you mean 'static'"),
        (["--encoder", "runs/nowhere/x"], "no encoder folder"),
        (["--encoder", "lstm", "--model", "cross-encoder"], "is not a transformer"),
        (["--teacher", "lstm"], "is not a transformer"),
        (["--report-to", "trackio"], "is not installed"),
    ],
)
def test_what_is_wrong_with_a_run_is_said_before_torch_is_there(
    tmp_path: Path, options: list[str], refused: str
) -> None:
    (tmp_path / "columns.csv").write_text("question1,question2,verdict\na,b,1\n")
    (tmp_path / "labels.csv").write_text("question1,question2,label\na,b,maybe\n")
    words = [str(tmp_path / word) if word.endswith(".csv") else word for word in options]
    used = imported("train", *words, "--output", str(tmp_path / "x"), refused=refused)
    assert not used & {"torch", *TRAINING, *OTHERS}


def test_a_loss_is_read_before_transformers_are_there(tmp_path: Path) -> None:
    used = imported("train", "--loss", "contrastiv", "--output", str(tmp_path / "x"), refused="did you mean 'contrast")
    assert not used & {*TRAINING, *OTHERS} - {"scipy"}  # which finds the groups of questions that a split keeps whole


def saved(kind: str, folder: Path) -> Path:
    """A checkpoint of an encoder from nothing."""
    encoder = build_encoder(kind, texts=[*QUESTIONS, *QUESTIONS])
    return save_checkpoint(Checkpoint(encoder, VERDICT, Config(encoder=kind)), folder / kind)


def test_an_export_predicts_without_what_trains() -> None:
    assert not imported("predict", str(MADE / "one-onnx"), *QUESTIONS) & {"torch", "pyarrow", *TRAINING, *OTHERS}


def test_an_export_of_word_vectors_predicts_without_what_trains() -> None:
    used = imported("predict", str(MADE / "one-static"), *QUESTIONS)
    assert not used & {"torch", "onnxruntime", "pyarrow", *TRAINING, *OTHERS} - {"scipy"}  # scipy sums the vectors


@pytest.mark.parametrize(("command", "kind"), [("predict", "tiny"), ("explain", "tiny"), ("predict", "static")])
def test_a_checkpoint_answers_without_what_trains(command: str, kind: str, tmp_path: Path) -> None:
    used = imported(command, str(saved(kind, tmp_path)), *QUESTIONS)
    assert "torch" in used
    assert not used & {"onnxruntime", "qpairs.encoders.readers", "qpairs.training.fit", *TRAINING, *OTHERS}


def test_a_checkpoint_of_another_kind_predicts_without_what_searches_serves_and_draws(tmp_path: Path) -> None:
    used = imported("predict", str(saved("lstm", tmp_path)), *QUESTIONS)
    assert not used & {"onnxruntime", "qpairs.training.fit", *OTHERS} - {"scipy"}  # sklearn imports it
