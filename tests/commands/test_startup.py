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


def imported(*arguments: str) -> set[str]:
    """The modules that a command has imported at its end."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("imported:")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["train", "--help"]])
def test_help_needs_none_of_the_libraries(arguments: list[str]) -> None:
    assert not imported(*arguments) & {"torch", "numpy", "pyarrow", "onnxruntime", *TRAINING, *OTHERS}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose encoder is a transformer."""
    encoder = build_encoder("tiny", texts=[*QUESTIONS, *QUESTIONS])
    return save_checkpoint(Checkpoint(encoder, VERDICT, Config(encoder="tiny")), tmp_path_factory.mktemp("c") / "tiny")


def test_an_export_predicts_without_what_trains() -> None:
    assert not imported("predict", str(MADE / "one-onnx"), *QUESTIONS) & {"torch", *TRAINING, *OTHERS}


def test_an_export_of_word_vectors_predicts_without_what_trains() -> None:
    used = imported("predict", str(MADE / "one-static"), *QUESTIONS)
    assert not used & {"torch", "onnxruntime", *TRAINING, *OTHERS} - {"scipy"}  # scipy sums the vectors


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_checkpoint_of_a_transformer_answers_without_what_trains(command: str, tiny: Path) -> None:
    used = imported(command, str(tiny), *QUESTIONS)
    assert "torch" in used
    assert not used & {"onnxruntime", "qpairs.encoders.readers", "qpairs.training.fit", *TRAINING, *OTHERS}


def test_a_checkpoint_of_another_kind_predicts_without_what_searches_serves_and_draws() -> None:
    used = imported("predict", str(MADE / "one"), *QUESTIONS)
    assert not used & {"onnxruntime", "qpairs.training.fit", *OTHERS} - {"scipy"}  # sklearn imports it
