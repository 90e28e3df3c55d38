"""In a new environment with `requirements/runtime.txt` and no torch, exports answer by command and by service."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from mocks import VERDICT

import qpairs
from qpairs.config import Config
from qpairs.encoders.build import build_encoder
from qpairs.export.export import export_checkpoint
from qpairs.models.bi_encoder import Checkpoint, save_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "sentence_transformers", "datasets", "sklearn", "accelerate")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The new environment, with qpairs from this folder."""
    home = tmp_path_factory.mktemp("runtime") / "venv"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", ROOT / "requirements" / "runtime.txt"], check=True)
    subprocess.run([*pip, "--no-deps", ROOT], check=True)
    return home


@pytest.fixture(scope="module", params=["static", "onnx"])
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export, made in the environment of the tests."""
    folder, pairs = tmp_path_factory.mktemp("models"), qpairs.load_pairs("sample").subset(np.arange(400))
    encoder = build_encoder("static", texts=pairs.questions)
    save_checkpoint(Checkpoint(encoder, VERDICT, Config(encoder="static")), folder / "checkpoint")
    export_checkpoint(folder / "checkpoint", folder / request.param, format=request.param, data=pairs, max_loss=1)
    return folder / request.param


@pytest.fixture
def call(home: Path, tmp_path: Path):
    """Runs `qpairs` of the new environment, outside this repository."""
    (tmp_path / "corpus.txt").write_text("how do I pay\nhow do I pay?\nwhere is my card\nclose my account\n")
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def call(*arguments: object, start: bool = False):
        command = [home / "bin" / "qpairs", *map(str, arguments)]
        options = {"text": True, "cwd": tmp_path, "env": {**outside, "COLUMNS": "200"}}
        if start:
            return subprocess.Popen(command, stdout=subprocess.PIPE, **options)
        done = subprocess.run(command, capture_output=True, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_no_training_library_is_installed(home: Path) -> None:
    script = f"import importlib.util; print([m for m in {HEAVY!r} if importlib.util.find_spec(m)])"
    done = subprocess.run([home / "bin" / "python", "-I", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    packages = next((home / "lib").glob("python*/site-packages"))
    size = sum(file.stat().st_size for file in packages.rglob("*") if file.is_file()) / 1e6
    print(f"site-packages: {size:,.0f} MB")  # noqa: T201
    assert size < 1000


def test_commands_answer(call, export: Path, tmp_path: Path) -> None:
    assert "similarity" in call("predict", export, "how do I pay", "how do I pay?")
    call("dedupe", export, "corpus.txt", "--output", "clean")
    assert len(list((tmp_path / "clean").iterdir())) >= 3
    assert "4 questions" in call("embed", export, "corpus.txt", "--output", "vectors")
    call("index", "vectors", "--output", "idx")
    assert "where is my card" in call("search", "idx", "where is my card?")


def test_the_service_answers(call, export: Path) -> None:
    call("embed", export, "corpus.txt", "--output", "vectors")
    call("index", "vectors", "--output", "idx")
    server = call("serve", export, "--index", "idx", "--port", "0", start=True)
    try:
        address = re.search(r"http://\S+", server.stdout.readline())[0]

        def ask(path: str, body: dict[str, object]) -> str:
            request = urllib.request.Request(
                address + path, json.dumps(body).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()

        found = ask("/score", {"pairs": [["how do I pay", "how do I pay?"]]})
        assert "similarity" in found
        assert "where is my card" in ask("/search", {"question": "where is my card?", "k": 1})
    finally:
        server.terminate()
        server.wait(30)
