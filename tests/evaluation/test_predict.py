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


READ = {
    ".csv": lambda path: pandas.read_csv(path, keep_default_na=False, na_values=[""]),
    ".jsonl": lambda path: pandas.read_json(path, lines=True),
    ".parquet": pandas.read_parquet,
}


@pytest.mark.parametrize("suffix", READ)
def test_a_row_without_a_question_stays_and_its_results_are_empty(
    checkpoint: Checkpoint, tmp_path: Path, suffix: str
) -> None:
    source = tmp_path / "test.csv"
    source.write_text(
        '"id","question1","question2"\n"2","how do I pay?","who?"\n"1","how?",""\n"0","  ","x"\n"5","a","b"\n'
    )
    found = predict_file(checkpoint, source, tmp_path / f"scored{suffix}")
    assert found.pairs is not None
    assert (len(found), dict(found.pairs.skipped)) == (2, {"empty question": 2})
    table = READ[suffix](tmp_path / f"scored{suffix}")
    assert table["id"].astype(int).tolist() == [2, 1, 0, 5]
    for name in ("similarity", "probability", "duplicate"):
        assert table[name].isna().tolist() == [False, True, True, False]
        assert table[name].dropna().astype(float).tolist() == pytest.approx(
            getattr(found, name).astype(float).tolist(), abs=1e-6
        )


def test_rows_without_results_are_counted_by_the_command(run, checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("question1,question2\nhow do I pay?,who?\nhow?,\n")
    done = run("predict", checkpoint.config.output, tmp_path / "test.csv", "--output", tmp_path / "o.csv")
    assert done.code == 0, done.err
    assert "1 empty question" in done.out
    assert (tmp_path / "o.csv").read_text().splitlines()[2] == "how?,,,,"
    (tmp_path / "none.csv").write_text("question1,question2\nhow?,\n")
    refused(
        run("predict", checkpoint.config.output, tmp_path / "none.csv", "--output", tmp_path / "p.csv"),
        "no row has two questions",
    )


def test_malformed_rows_are_left_out_if_asked(run, checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("question1,question2\nhow do I pay?,who?\nhow?,why?,what?\n")
    asked = ("predict", checkpoint.config.output, tmp_path / "test.csv", "--output", tmp_path / "o.csv")
    refused(run(*asked), "row 2: 3 fields, but the header has 2", "--skip-bad-rows")
    done = run(*asked, "--skip-bad-rows")
    assert done.code == 0 and "rows left out: 1 malformed" in done.err, done.err
    assert len(pandas.read_csv(tmp_path / "o.csv")) == 1
    refused(run("predict", checkpoint.config.output, "a", "b", "--skip-bad-rows"), "--skip-bad-rows has no effect")


def test_columns_of_a_data_frame_that_are_called_like_results_follow_under_another_name(checkpoint: Checkpoint) -> None:
    own = {"duplicate": ["mine"], "given_duplicate": ["before"], "note": ["x"]}
    table = checkpoint.predict(pandas.DataFrame({"question1": ["a b"], "question2": ["a b"], **own})).table
    assert list(table)[-3:] == ["given_given_duplicate", "given_duplicate", "note"]
    assert table[[*list(table)[-4:]]].iloc[0].tolist() == [True, "mine", "before", "x"]


def test_no_column_of_the_user_is_replaced(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "gold.csv"
    source.write_text(
        "question1,question2,Duplicate,probability,predicted_probability\na b,a b,no,mine,x\nwho?,why?,,,y\n"
    )
    found = predict_file(checkpoint, source, tmp_path / "scored.csv")
    before, after = (pandas.read_csv(path, keep_default_na=False) for path in (source, tmp_path / "scored.csv"))
    assert after[list(before)].equals(before)
    added = ["similarity", "predicted_probability1", "predicted_duplicate"]
    assert list(after) == [*before, *added]
    assert after["predicted_duplicate"].tolist() == found.duplicate.astype(int).tolist()
    assert [name in caplog.text for name in added] == [False, True, True]


def test_another_threshold_or_a_precision_decides(run, checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("question1,question2\na b,a b\nwho?,why?\n")
    whole = [checkpoint.config.output, tmp_path / "test.csv", "--output", tmp_path / "o.csv", "--overwrite"]
    for threshold, called in ((-1, [1, 1]), (1.0, [1, 0])):
        assert run("predict", *whole, "--threshold", threshold).code == 0
        assert pandas.read_csv(tmp_path / "o.csv")["duplicate"].tolist() == called
    two = ["predict", checkpoint.config.output, "who?", "why?"]
    assert run(*two, "--threshold", "-1").out.startswith("duplicates  similarity ")
    assert "(threshold -1.000), probability" in run(*two, "--threshold", "-1").out
    refused(run(*two, "--precision", 0.5), "precision: the model was fitted to too few pairs to promise any precision")
    refused(run(*two, "--threshold", 1.5), "threshold: 1.5, must be -1 <= threshold <= 1")
    refused(run(*two, "--threshold", 0.5, "--precision", 0.5), "threshold", "precision")
