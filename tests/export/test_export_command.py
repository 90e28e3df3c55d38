"""`qpairs export`: how its pairs are read, what is said of few, and two stages whose encoder is a table of words."""

from pathlib import Path

import pytest
from stages import write_tiny_cross_model

import qpairs
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.two_stages import TwoStages


@pytest.fixture(scope="module")
def both(checkpoint: Checkpoint, pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("both")
    write_tiny_cross_model(folder / "cross", qpairs.load_pairs(pairs_csv))
    qpairs.combine_folders(checkpoint.path, folder / "cross", folder / "both", pairs_csv)
    return folder / "both"


def write_pairs(file: Path, pairs_csv: Path, rows: int, names: dict[int, str]) -> None:
    """Some pairs of each label, which the file calls by these names."""
    pairs = qpairs.load_pairs(pairs_csv)
    lines = [
        f'"{first}","{second}",{name}'
        for label, name in names.items()
        for first, second in [pairs.texts(row) for row in (pairs.labels == label).nonzero()[0][:rows]]
    ]
    file.write_text("\n".join(["question1,question2,is_duplicate", *lines]) + "\n", encoding="utf-8")


def test_the_values_of_labels_are_named(run, checkpoint: Checkpoint, pairs_csv: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "named.csv", pairs_csv, 20, {1: "match", 0: "other"})
    asked = "export", checkpoint.path, "--format", "static", "--data", "named.csv", "--max-loss", 1, "--output", "x"
    assert "--labels match=1,other=0" in run(*asked).err
    result = run(*asked, "--labels", "match=1,other=0")
    assert result.code == 0, result.err
    assert "On 40 pairs" in result.out
    assert "hardly mean anything" not in result.err


def test_it_warns_of_few_pairs(run, both: Path, checkpoint: Checkpoint, pairs_csv: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "few.csv", pairs_csv, 1, {1: "1", 0: "0"})
    few = "--data", "few.csv", "--output"
    told = "labelled duplicates: 1, other pairs: 1; with fewer than 10 of each"
    asked = "export", checkpoint.path, "--format", "static", "--max-loss", 1, *few, "x"
    assert f"export: {told}" in run(*asked).err
    assert f"combine: {told}" in run("combine", checkpoint.path, both / "reranker", *few, "y").err


def test_two_stages_keep_an_encoder_of_word_vectors_as_a_table(
    run, both: Path, pairs_csv: Path, tmp_path: Path
) -> None:
    result = run("export", both, "--data", pairs_csv, "--max-loss", 1, "--output", "x")
    assert result.code == 0, result.err
    exported, whole = qpairs.load("x"), qpairs.load(both)
    assert isinstance(exported, TwoStages)
    assert (exported.first.form["kind"], exported.second.form["kind"]) == ("static", "cross-encoder-onnx-int8")
    questions = qpairs.load_pairs(pairs_csv).questions[:50]
    assert (exported.encode(questions) * whole.encode(questions)).sum(1) == pytest.approx(1.0, abs=1e-5)
