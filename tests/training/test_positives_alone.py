"""Training pairs that are all duplicates: learned by losses with negatives of the batch, refused by others."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import qpairs
from qpairs.config import with_defaults
from qpairs.core.exceptions import UserError
from qpairs.models.bi_encoder import load_checkpoint
from qpairs.objectives.losses import LOSSES
from qpairs.training import teacher_vectors

FAST = {"encoder": "static", "max_length": 16, "precision": "fp32"}


@pytest.fixture(scope="module")
def positives_csv(sample_rows: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("positives") / "positives.jsonl"
    rows = [(a, b) for a, b, label in sample_rows if label]
    file.write_text("".join(json.dumps({"anchor": a, "positive": b}) + "\n" for a, b in rows), encoding="utf-8")
    return file


def test_they_are_learned_by_a_loss_of_the_batch(positives_csv: Path, pairs_csv: Path, tmp_path: Path) -> None:
    options = {**FAST, "data": str(positives_csv), "validation": str(pairs_csv)}
    model = qpairs.train(**options, epochs=8, output=str(tmp_path / "run"))
    assert model.config.loss == "info_nce"
    assert load_checkpoint(tmp_path / "run").config.loss == "info_nce"
    before = qpairs.train(**options, learning_rate=1e-12, output=str(tmp_path / "before"))
    table = qpairs.load_pairs(positives_csv)

    def rank(of: qpairs.Model) -> float:
        rows, _ = of.embed_tables(table.questions)
        scores = rows[table.left] @ rows[table.right].T
        return float((scores > np.diag(scores)[:, None]).sum(1).mean())

    assert rank(model) < 0.7 * rank(before)
    assert "f1" in model.scores["validation"]


@pytest.mark.parametrize("loss", ["contrastive", "logistic", "online_contrastive"])
def test_losses_that_need_negatives_are_refused(
    positives_csv: Path, pairs_csv: Path, tmp_path: Path, loss: str
) -> None:
    assert loss in LOSSES
    output = tmp_path / "run"
    with pytest.raises(
        UserError, match="needs pairs labelled 0, but the training pairs are all duplicates; use info_nce"
    ):
        qpairs.train(**FAST, data=str(positives_csv), validation=str(pairs_csv), loss=loss, output=str(output))
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "cross-encoder", "encoder": "tiny"}, "model: a cross-encoder learns from labels of both kinds"),
        ({"reranker": "tiny"}, "reranker: is fitted to labels of both kinds"),
        ({"teacher": "tiny"}, "teacher: the training pairs are all duplicates"),
        ({"score": "head", "loss": "pair_softmax"}, "score: a head learns from labels of both kinds"),
    ],
)
def test_what_learns_from_both_labels_is_refused(
    positives_csv: Path, pairs_csv: Path, tmp_path: Path, options: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        qpairs.train(
            **{**FAST, **options}, data=str(positives_csv), validation=str(pairs_csv), output=str(tmp_path / "run")
        )


def test_the_vectors_of_a_teacher_are_learned_beside_a_loss_of_the_batch(
    positives_csv: Path, pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[str, ...]]()

    def teacher(config: qpairs.Config) -> None:
        asked.append(config.teacher)

    monkeypatch.setattr(teacher_vectors, "vector_teacher", teacher)
    options = {**FAST, "data": str(positives_csv), "teacher": "minilm", "distill": "embeddings", "epochs": 0.1}
    model = qpairs.train(**options, validation=str(pairs_csv), output=str(tmp_path / "run"))
    assert model.config.loss == "info_nce"
    assert asked == [("minilm",)]  # loaded once
    assert with_defaults({"unlabelled": True, "teacher": "minilm", "distill": "embeddings"})["loss"] == "info_nce"
    with pytest.raises(UserError, match="use info_nce"):
        qpairs.train(**options, validation=str(pairs_csv), loss="contrastive", output=str(tmp_path / "other"))


def test_the_command_reads_labels_and_cuts(run, tmp_path: Path, sample_rows: list[tuple[str, str, int]]) -> None:
    with (tmp_path / "graded.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["sentence1", "sentence2", "score"], *((a, b, 5 * y) for a, b, y in sample_rows)])
    done = run(
        "train", "--data", tmp_path / "graded.csv", "--label-cut", "4", "--encoder", "static", "--output", "graded"
    )
    assert done.code == 0, done.err
    data = run("data", tmp_path / "graded.csv", "--label-cut", "4")
    assert data.code == 0 and f"{len(sample_rows)}" in data.out
    with (tmp_path / "named.csv").open("w", newline="", encoding="utf-8") as file:
        rows = ((a, b, "yes" if y else "no") for a, b, y in sample_rows)
        csv.writer(file).writerows([["question1", "question2", "label"], *rows])
    done = run("evaluate", "graded", "--data", tmp_path / "named.csv", "--labels", "yes=1,no=0")
    assert done.code == 0, done.err
    done = run("calibrate", "graded", "--data", tmp_path / "named.csv", "--label-values", "yes=1,no=0", "--output", "c")
    assert done.code == 0, done.err
