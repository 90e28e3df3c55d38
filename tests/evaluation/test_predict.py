from pathlib import Path

import pandas
import pytest
from conftest import refused

import qpairs
from qpairs.evaluation.predict import predict_file
from qpairs.models.bi_encoder import Checkpoint


def test_predict_needs_no_labels(checkpoint: Checkpoint) -> None:
    verdict = qpairs.predict(checkpoint, qpairs.pairs_from_texts(["a b", "a b"], ["a b", "z"], [-1, -1]))
    assert verdict.similarity[0] == pytest.approx(1)
    assert verdict.duplicate.tolist() == (verdict.similarity >= checkpoint.verdict.pair.threshold).tolist()
    assert verdict.probability[0] > verdict.probability[1]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_file_keeps_its_columns_and_gains_three(checkpoint: Checkpoint, tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "pairs.csv"
    source.write_text("id,question1,question2\n7,how do I pay?,where do I pay?\n8,who?,how do I pay?\n")
    found = predict_file(checkpoint, source, tmp_path / "new" / f"scored{suffix}")
    read = {
        ".csv": pandas.read_csv,
        ".tsv": lambda path: pandas.read_csv(path, sep="\t"),
        ".jsonl": lambda path: pandas.read_json(path, lines=True),
        ".parquet": pandas.read_parquet,
    }
    table = read[suffix](tmp_path / "new" / f"scored{suffix}")
    assert list(table) == ["id", "question1", "question2", "similarity", "probability", "duplicate"]
    assert table["id"].astype(int).tolist() == [7, 8]
    assert table["similarity"].tolist() == pytest.approx(found.similarity.tolist(), abs=1e-6)
    assert table["duplicate"].tolist() == found.duplicate.astype(int).tolist()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"scored{suffix}"]


def test_bad_files_are_one_line(run, checkpoint: Checkpoint, pairs_csv: Path) -> None:
    folder = checkpoint.config.output
    refused(run("predict", folder, pairs_csv), "--output")
    refused(run("predict", folder, pairs_csv, "--output", "scored.xls"), "scored.xls", "unknown kind of file")
    refused(run("predict", folder, "a", "b", "c"), "two questions, or one file", "not 3")
    refused(run("predict", folder, "a", " "), "a question is empty")
    Path("file").touch()
    refused(run("predict", folder, pairs_csv, "--output", "file/scored.csv"), "file/scored.csv", "cannot be written")
