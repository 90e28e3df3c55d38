"""What a command does not import: every one of these takes a part of a second, or seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = ROOT / "tests" / "fixtures" / "commit_48e0593"
TRAINING = ("transformers", "sentence_transformers", "datasets", "sklearn", "accelerate", "pandas", "peft")
OTHERS = ("matplotlib", "faiss", "fastapi", "uvicorn", "cleanlab", "pymilvus", "ray", "tensorboard", "scipy.optimize")
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
    assert not imported(*arguments) & {"torch", "numpy", "scipy", "pyarrow", "onnxruntime", *TRAINING, *OTHERS}


@pytest.mark.parametrize("name", ["one-static", "one-onnx"])
def test_an_export_predicts_without_what_trains(name: str) -> None:
    assert not imported("predict", str(MADE / name), *QUESTIONS) & {"torch", *TRAINING, *OTHERS}


def test_a_checkpoint_predicts_without_what_searches_serves_and_draws() -> None:
    used = imported("predict", str(MADE / "one"), *QUESTIONS)
    assert not used & {"onnxruntime", "qpairs.training.fit", *OTHERS} - {"scipy.optimize"}  # sklearn imports it
