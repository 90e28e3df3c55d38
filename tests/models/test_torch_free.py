"""An export answers where torch, transformers, sentence-transformers, datasets and scikit-learn are not installed."""

import re
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
from cross_encoders import small_cross_encoder

from qpairs.export.pair_graph import write_pair_graph

ROOT = Path(__file__).parents[2]
MADE = ROOT / "tests" / "fixtures" / "commit_48e0593"
HEAVY = ("torch", "transformers", "sentence_transformers", "datasets", "sklearn")
BEGIN = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # any import of it fails
import qpairs
model_folder, corpus, output = sys.argv[1:]
model = qpairs.load(model_folder)
texts = open(corpus, encoding="utf-8").read().splitlines()
pairs = qpairs.pairs_from_texts(texts[:20], texts[1:21], [1, 0] * 10)
"""
STEPS = {
    "predict": "assert len(qpairs.predict(model, pairs).duplicate) == 20",
    "evaluate": "assert 0 <= qpairs.evaluate(model, pairs).f1 <= 1",
    "dedupe": "assert qpairs.dedupe(texts, model.encode, model.verdict.pair.threshold).first[0] == 0",
    "search": """
qpairs.build_index(qpairs.embed(model, corpus, output + "/e"), output + "/i")
found = qpairs.search(qpairs.open_index(output + "/i"), model, texts[:3], k=1)
assert all(answers[0].hit.similarity > 0.999 and answers[0].duplicate for answers in found)
""",
    "explain": """
from qpairs.evaluation.explain import explain
assert explain(model, texts[0], texts[1]).words
""",
    "serve": "from qpairs.serving.app import create_app\ncreate_app(model, None)",
    "names": """
from qpairs.encoders.build import encoder_note, tower_names
assert encoder_note(model.config.encoder) == "" and tower_names("lstm+cnn") == ("lstm", "cnn")
""",
}


@pytest.mark.parametrize("name", ["one-static", "one-onnx"])
def test_an_export_needs_no_training_library(name: str, tmp_path: Path) -> None:
    script = BEGIN + "".join(f"{step}\nprint({title!r})\n" for title, step in STEPS.items())
    command = [sys.executable, "-c", script, MADE / name, MADE / "questions.txt", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == list(STEPS), done.stderr


def test_the_graph_of_a_cross_encoder_needs_no_training_library(tmp_path: Path) -> None:
    texts = ["how do i pay", "what is a card", "where is my card"]
    model = small_cross_encoder("bert", texts, tmp_path / "transformer")
    reading = write_pair_graph(model, tmp_path, "onnx-int8")
    script = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # any import of it fails
from pathlib import Path
from qpairs.models.pair_graph import PairReading, open_pair_graph
reader = open_pair_graph(Path({str(tmp_path)!r}), PairReading(**{asdict(reading)!r}))
print(reader.logits([("how do i pay", "what is a card"), ("", "?")]).shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "(2,)", done.stderr


def requirements(lines: list[str]) -> dict[str, str]:
    """Name -> lower bound."""
    found = (re.match(r"([\w-]+)>=([\d.]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def test_what_runs_an_export_has_the_bounds_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    known = requirements([*project["dependencies"], *(line for extra in extras for line in extra)])
    runtime = requirements((ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8").splitlines())
    assert runtime.items() <= known.items()
    assert not {name.replace("-", "_") for name in runtime} & {*HEAVY, "accelerate", "scikit_learn", "onnx"}
