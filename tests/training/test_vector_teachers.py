"""Learning a teacher's vectors: embeddings and relations; a projection at the end of an encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from children import run_script
from conftest import refused
from sentence_transformers.sentence_transformer.modules import Dense

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.encoders.build import build_encoder
from qpairs.encoders.words import mean_vectors
from qpairs.evaluation.sources import training_pairs_of
from qpairs.export.export import export_checkpoint
from qpairs.objectives.distillation import fit_vectors
from qpairs.training.run import Run
from qpairs.training.teacher_vectors import taught_vectors

MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
FAST = {"encoder": "static", "epochs": 2, "batch_size": 16, "learning_rate": 0.05}
KILLED = """
import os, signal, qpairs
def on_progress(now):
    if now.stage == "training" and now.done == 30:
        os.kill(os.getpid(), signal.SIGKILL)
qpairs.train(data={data!r}, output={output!r}, on_progress=on_progress, **{options!r})
"""


def agreement(model, teacher, texts) -> float:
    """Correlation of the cosines of both models over all pairs of some texts."""
    above = np.triu_indices(len(texts), 1)
    a, b = ((one.encode(texts) @ one.encode(texts).T)[above] for one in (model, teacher))
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("kind", ["embeddings", "relations"])
def test_a_student_comes_to_place_questions_as_its_teacher_does(kind: str, pairs_csv: Path, tmp_path: Path) -> None:
    teacher = qpairs.load(MADE / "one")
    own = {**FAST, "data": str(pairs_csv), "patience": 0, "epochs": 8}
    weight = {"embeddings": 5.0, "relations": 20.0}[kind]
    taught = {"teacher": str(MADE / "one"), "distill": kind, "distill_weight": weight}
    alone = qpairs.train(**own, output=str(tmp_path / "alone"))
    student = qpairs.train(**own, **taught, output=str(tmp_path / "taught"))
    texts = list(training_pairs_of(alone).questions)[:200]
    assert agreement(student, teacher, texts) > agreement(alone, teacher, texts) + 0.1
    assert student.config.distill == kind


def test_killed_and_resumed_it_ends_with_the_same_weights(pairs_csv: Path, tmp_path: Path) -> None:
    options = {**FAST, "teacher": str(MADE / "one"), "distill": "relations", "project": 32}
    whole = qpairs.train(data=str(pairs_csv), output=str(tmp_path / "whole"), **options)
    output = str(tmp_path / "broken")
    script = KILLED.format(data=str(pairs_csv), output=output, options=options)
    assert run_script(script).returncode == -9
    resumed = qpairs.train(output=output, resume=True)
    a, b = whole.encoder.state_dict(), resumed.encoder.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--distill", "embeddings"], ["one teacher", "--teacher"]),
        (["--distill", "relations", "--teacher", "minilm", "--teacher", "mpnet"], ["one teacher"]),
        (["--distill", "embeddings", "--teacher", "tiny"], ["tiny must be trained first"]),
        (["--distill", "embeddings", "--teacher", "nowhere"], ["nowhere"]),
        (["--distill", "vectors", "--teacher", "minilm"], ["'vectors'"]),
        (["--model", "cross-encoder", "--encoder", "tiny", "--project", "32"], ["project", "has no vectors"]),
        (["--project", "128"], ["project: 128, must be below 128"]),
    ],
)
def test_what_does_not_go_is_one_line(run, pairs_csv: Path, tmp_path: Path, options, words) -> None:
    refused(run("train", "--data", pairs_csv, "--encoder", "static", *options), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def projected(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory):
    output = tmp_path_factory.mktemp("runs") / "short"
    return qpairs.train(data=str(pairs_csv), output=str(output), project=32, **FAST)


def test_a_projected_encoder_is_stock_shorter_and_judged(projected) -> None:
    assert projected.dimension == 32
    assert sum(isinstance(module, Dense) for module in projected.encoder) == 1
    assert projected.scores["test"]["f1"] > 0
    again = qpairs.load(projected.path)
    np.testing.assert_allclose(again.encode(["How do I pay?"]), projected.encode(["How do I pay?"]), atol=1e-6)
    script = (
        "import sys; sys.modules['qpairs'] = None\nfrom sentence_transformers import SentenceTransformer\n"
        f"print(SentenceTransformer({str(projected.path)!r}, device='cpu').encode('How do I pay?').shape)"
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "(32,)"


@pytest.mark.parametrize("form", ["static", "onnx"])
def test_a_projected_encoder_is_exported(form: str, projected, tmp_path: Path) -> None:
    export_checkpoint(projected.path, tmp_path / form, format=form)
    exported = qpairs.load(tmp_path / form)
    texts = ["How do I reset my password?", "Where is my order?"]
    np.testing.assert_allclose(exported.encode(texts), projected.encode(texts), atol=1e-4)


def test_it_starts_where_the_products_are_kept_best() -> None:
    texts = [f"question {a} about {b} and {a * b}" for a in range(12) for b in range(12)]
    whole = build_encoder("static", texts=texts, seed=1)
    short = build_encoder("static", texts=texts, seed=1, project=24)
    one, other = whole.encode(texts), short.encode(texts)
    best = fit_vectors(one, 24)
    np.testing.assert_allclose(other @ other.T, best @ best.T, atol=1e-4)
    folded = mean_vectors(short)
    assert folded is not None and folded.shape[1] == 24


def test_two_towers_have_the_projection_in_common() -> None:
    encoder = build_encoder("static+lstm", texts=["how do I pay", "how do I pay by card"], project=16)
    assert encoder.encode_query(["how do I pay"]).shape == encoder.encode_document(["how do I pay"]).shape == (1, 16)


def test_damaged_vectors_of_a_teacher_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "teacher-vectors.safetensors").write_bytes(b"torn")
    run = Run(qpairs.Config(), None, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"damaged .*start again with --overwrite"):
        taught_vectors(run, lambda texts: np.empty((0, 1), np.float32), 1)
