import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
from conftest import refused
from test_index import a_model, clustered, embedded
from test_matches import naive

import qpairs
from qpairs.data.corpus import Corpus, read_corpus
from qpairs.models.verdict import CorpusSetting, choose
from qpairs.retrieval import cells, matches
from qpairs.retrieval.corpus import dedupe_corpus, prepare
from qpairs.retrieval.trade_offs import trade_offs


def corpus_of(file: Path) -> Corpus:
    return read_corpus(file, text_column="q")


def questions(path: Path, rows: range) -> Path:
    path.write_text("id,q\n" + "".join(f"id{row},t{row}\n" for row in rows))
    return path


def test_the_tables_of_a_corpus_from_python(tmp_path: Path) -> None:
    vectors = clustered(120)
    model, reports = a_model(vectors), []
    setting = model.verdict.pair
    old = questions(tmp_path / "old.csv", range(20))
    result = dedupe_corpus(
        model, questions(tmp_path / "q.csv", range(10, 120)), threshold=0.9, against=old, on_progress=reports.append
    )
    assert [now.stage for now in reports][:1] == ["encoding"]
    assert {"encoding", "estimating", "comparing"} == {now.stage for now in reports}
    assert set(result.asked["row"]) >= set(range(1, 11))  # t10 to t19 are in both
    assert (result.asked["similarity"][:10] > 0.999).all()
    new = np.setdiff1d(np.arange(10, 120), result.asked["row"] + 9)
    expected = {(new[a] - 9, new[b] - 9) for a, b in naive(vectors[new], 0.9)}
    assert set(result.pairs[["row1", "row2"]].itertuples(index=False, name=None)) == expected
    np.testing.assert_allclose(result.pairs["probability"], setting.probability(result.pairs["similarity"]))
    members = result.clusters
    assert members.groupby("cluster")["representative"].sum().eq(1).all()
    gone = {*result.asked["row"], *members["row"][members["representative"] == 0]}
    assert result.kept["id"].tolist() == [f"id{row + 9}" for row in range(1, 111) if row not in gone]
    assert result.summary["kept"] == len(result.kept)
    assert (result.summary["threshold"], result.summary["asked"]) == (0.9, len(result.asked))


def test_a_result_is_written_as_its_tables(tmp_path: Path) -> None:
    model = a_model(clustered(40))
    corpus = read_corpus(questions(tmp_path / "q.csv", range(40)), text_column="q")
    kept = embedded(tmp_path, model, range(30))
    model.encoder.encoded.clear()
    result = dedupe_corpus(model, corpus, threshold=0.9, embeddings=kept)
    assert model.encoder.encoded == [f"t{row}" for row in range(30, 40)]
    result.write(tmp_path / "out", "jsonl")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "clusters.jsonl", "dedupe.json", "kept.csv", "pairs.jsonl",
    ]  # fmt: skip
    assert len(pandas.read_json(tmp_path / "out" / "pairs.jsonl", lines=True)) == len(result.pairs) > 0
    assert json.loads((tmp_path / "out" / "dedupe.json").read_text()) == result.summary | {"raw": False}
    with pytest.raises(qpairs.UserError, match="'xls'"):
        result.write(tmp_path / "other", "xls")


# The command


@pytest.fixture(scope="module")
def checkpoint(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "x"
    qpairs.train(data=str(pairs_csv), encoder="static", epochs=2, batch_size=16, output=str(output))
    return output


@pytest.fixture
def corpus(sample_rows: list, tmp_path: Path) -> Path:
    """300 questions with an id, the first of them again in other letters, and in another order of words."""
    questions = sorted({" ".join(q.split()) for row in sample_rows for q in row[:2]})[:300]
    again = [questions[0].upper(), " ".join(reversed(questions[1].split()))]
    with (tmp_path / "q.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "q"), *((f"x{i}", q) for i, q in enumerate(questions + again))])
    return tmp_path / "q.csv"


def test_dedupe_writes_pairs_clusters_and_the_kept_corpus(run, checkpoint: Path, corpus: Path) -> None:
    result = run("dedupe", checkpoint, corpus, "--text-column", "q", "--output", "dups", "--threshold", "0.95")
    assert result.code == 0, result.err
    rows = pandas.read_csv(corpus)
    summary = json.loads(Path("dups/dedupe.json").read_text())
    assert (summary["rows"], summary["distinct"], summary["threshold"]) == (302, 301, 0.95)
    pairs = pandas.read_csv("dups/pairs.csv")
    model = qpairs.load(checkpoint)
    vectors = model.encode([*rows["q"][:300], rows["q"][301]])
    expected = naive(vectors, 0.95)
    numbers = pairs[["row1", "row2"]].clip(upper=301) - 1  # row 301 is row 1 in other letters
    assert set(numbers.itertuples(index=False, name=None)) == expected.keys()
    assert len(pairs) == summary["pairs"]
    assert (pairs["similarity"] >= 0.95).all()
    members = pandas.read_csv("dups/clusters.csv")
    assert {1, 301} <= set(members["row"])
    assert members.groupby("cluster")["representative"].sum().eq(1).all()
    kept = pandas.read_csv("dups/kept.csv")
    assert list(kept.columns) == ["id", "q"]
    assert len(kept) == summary["kept"] == 302 - (members["representative"] == 0).sum()
    assert set(kept["id"]) == set(rows["id"]) - {
        f"x{row - 1}" for row in members["row"][members["representative"] == 0]
    }
    for words in ("302", "at or above 0.950", "kept", "nearest to the threshold", "dups"):
        assert words in result.out


def test_dedupe_takes_embeddings_and_other_formats(run, checkpoint: Path, corpus: Path) -> None:
    rows = pandas.read_csv(corpus)
    rows["votes"] = pandas.array([None, *range(301)], dtype="Int64")
    rows.to_parquet("q.parquet")
    assert run("embed", checkpoint, "q.parquet", "--text-column", "q", "--output", "emb").code == 0
    command = ("dedupe", checkpoint, "q.parquet", "--text-column", "q", "--threshold", "0.95")
    assert run(*command, "--output", "a", "--format", "parquet").code == 0
    result = run(*command, "--output", "b", "--format", "parquet", "--embeddings", "emb")
    assert result.code == 0, result.err
    for file in ("pairs", "clusters", "kept"):
        pandas.testing.assert_frame_equal(*(pandas.read_parquet(f"{x}/{file}.parquet") for x in "ab"), rtol=1e-5)
    assert pandas.read_parquet("a/kept.parquet", dtype_backend="numpy_nullable")["votes"].dtype == "Int64"
    again = run(*command, "--output", "c", "--against", "a/kept.parquet")
    assert again.code == 0, again.err
    assert json.loads(Path("c/dedupe.json").read_text())["kept"] == 0
    assert len(pandas.read_csv("c/asked.csv")) == 301


def test_dedupe_chooses_the_threshold_for_the_corpus_and_says_what_to_expect(
    run, checkpoint: Path, corpus: Path
) -> None:
    result = run("dedupe", checkpoint, corpus, "--text-column", "q", "--output", "d")
    assert result.code == 0, result.err
    summary = json.loads(Path("d/dedupe.json").read_text())
    model = qpairs.load(checkpoint)
    setting = prepare(model, corpus_of(corpus)).setting
    assert isinstance(setting, CorpusSetting)
    assert summary["threshold"] == setting.threshold == setting.estimate.best_threshold()
    assert summary["expected"]["precision"] == pytest.approx(setting.expected().precision)
    assert "among 301 questions" in summary["probability_of"]
    pairs = pandas.read_csv("d/pairs.csv")
    np.testing.assert_allclose(pairs["probability"], setting.probability(pairs["similarity"]), atol=1e-4)
    for words in ("of which duplicates, expected", "share of all duplicates found, expected"):
        assert words in result.out


def test_a_precision_is_promised_or_refused(run, checkpoint: Path, corpus: Path) -> None:
    command = ("dedupe", checkpoint, corpus, "--text-column", "q", "--output")
    setting = prepare(qpairs.load(checkpoint), corpus_of(corpus)).setting
    assert isinstance(setting, CorpusSetting)
    bound, _ = setting.estimate.bounds()
    can = float(np.floor(90 * bound.max()) / 100)
    assert run(*command, "a", "--precision", can).code == 0
    summary = json.loads(Path("a/dedupe.json").read_text())
    assert summary["threshold"] == setting.estimate.threshold_at(can)
    assert summary["expected"]["precision_bound"] >= can - 1e-9
    refused(run(*command, "b", "--precision", "0.9999"), "the highest that can be promised is")
    assert not Path("b").exists()
    refused(run(*command, "b", "--precision", "0.5", "--threshold", "0.5"), "give only one of them")


def test_a_dry_run_shows_the_trade_off_and_writes_nothing(run, checkpoint: Path, corpus: Path) -> None:
    before = sorted(Path().iterdir())
    result = run("dedupe", checkpoint, corpus, "--text-column", "q", "--dry-run", "--threshold", "0.9")
    assert result.code == 0, result.err
    assert sorted(Path().iterdir()) == before
    shown = " ".join(result.out.split())
    for words in ("chosen", "greatest F1", "Nothing was written"):
        assert words in shown
    refused(run("dedupe", checkpoint, corpus, "--text-column", "q"), "give --output FOLDER or --dry-run")
    refused(run("dedupe", checkpoint, corpus, "--dry-run", "--output", "x"), "--output FOLDER or --dry-run, not both")


def test_a_dry_run_of_one_question_has_no_thresholds(run, checkpoint: Path) -> None:
    Path("same.csv").write_text("question\n" + "How do I pay?\n" * 50)
    result = run("dedupe", checkpoint, "same.csv", "--dry-run")
    assert result.code == 0, result.err
    assert " ".join(result.out.split()).startswith("One distinct question: nothing to compare; 49 exact repeats")
    assert "threshold" not in result.out


def test_trade_offs_are_what_deduplication_then_does(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    model, questions = qpairs.load(checkpoint), corpus_of(corpus)
    old = read_corpus(corpus, text_column="q")
    old = replace(old, table=old.table[:40], texts=old.texts[:40], rows=old.rows[:40])
    prepared = prepare(model, questions, against=old)
    rows = trade_offs(prepared, choose(prepared.setting, 0.9))
    assert [row.threshold for row in rows] == sorted({row.threshold for row in rows})
    for row in rows[:: max(1, len(rows) // 4)]:
        done = dedupe_corpus(model, questions, threshold=row.threshold, against=old)
        assert (row.pairs, row.kept) == (len(done.pairs), len(done.kept))
        assert row.expected == done.expected


def test_a_model_that_knows_pairs_alone_says_so(run, checkpoint: Path, corpus: Path) -> None:
    file = checkpoint / "qpairs.json"
    before = file.read_text()
    data = json.loads(before)
    data["verdict"]["densities"] = None
    file.write_text(json.dumps(data))
    try:
        result = run("dedupe", checkpoint, corpus, "--text-column", "q", "--output", "a")
        dry = run("dedupe", checkpoint, corpus, "--text-column", "q", "--dry-run")
        mended = run("calibrate", checkpoint, "--corpus", corpus, "--text-column", "q", "--output", "b")
    finally:
        file.write_text(before)
    assert f"at or above {data['verdict']['pair']['threshold']:.3f}" in result.out
    for each in (result, dry):
        assert each.code == 0
        assert "has a verdict only for labelled pairs" in " ".join(each.err.split())
    assert "expected" not in result.out
    assert mended.code == 0, mended.err
    assert "of which duplicates, expected" in run("dedupe", "b", corpus, "--text-column", "q", "--output", "c").out


def test_most_of_a_corpus_is_not_dropped_without_a_warning(run, checkpoint: Path, corpus: Path) -> None:
    command = ("dedupe", checkpoint, corpus, "--text-column", "q", "--output")
    assert "This drops" in run(*command, "a", "--threshold", "0.2").out
    assert "This drops" not in run(*command, "b", "--threshold", "0.99").out


def test_pairs_that_differ_in_a_name_a_number_or_a_sign_are_shown_apart(run, checkpoint: Path, tmp_path: Path) -> None:
    asked = ["How do I sort a list in C++?", "How do I sort a list in C#?", "How can I sort a list?", "How to sort it?"]
    (tmp_path / "few.csv").write_text("\n".join(["question", *asked]) + "\n")
    result = run("dedupe", checkpoint, "few.csv", "--threshold", "-1", "--output", "d")
    assert result.code == 0, result.err
    apart = result.out.partition("1 pair differs in one name, number or sign alone")[2]
    assert all(text in apart for text in asked[:2]) and not any(text in apart for text in asked[2:])
    assert "differs in" not in run("dedupe", checkpoint, "few.csv", "--threshold", "1", "--output", "e").out


def test_a_recall_that_could_not_be_measured_is_said_and_null(
    run, checkpoint: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matches, "EXACT", 0)
    monkeypatch.setattr(matches, "probing", lambda *_: 0)
    asked = ("dedupe", checkpoint, corpus, "--text-column", "q", "--overwrite", "--output", "dups")
    monkeypatch.setattr(cells, "SAMPLE", 1)

    def summary() -> dict[str, object]:
        return json.loads(Path("dups/dedupe.json").read_text(), parse_constant=pytest.fail)

    result = run(*asked, "--threshold", "0.99999")
    assert result.code == 0, result.err
    assert (summary()["search_recall"], summary()["search_recall_measured_on"]) == (None, 0)
    assert "Not all pairs were compared: the share of pairs found is unknown, as a sample had none" in result.out
    everything = run(*asked, "--threshold", "0.99999", "--recall", "1")
    assert (summary()["search_recall"], summary()["search_recall_measured_on"]) == (1, 0)
    assert "Not all" not in everything.out
    monkeypatch.setattr(cells, "SAMPLE", 200)
    measured = run(*asked, "--threshold", "0.3")
    assert summary()["search_recall_measured_on"] > 0
    assert f"of the pairs are found, measured on {summary()['search_recall_measured_on']:,} of a sample" in measured.out


def test_bad_input_is_one_line_and_nothing_is_written(run, checkpoint: Path, corpus: Path) -> None:
    text = ("--text-column", "q")
    refused(run("dedupe", checkpoint, "none.csv", "--output", "x"), "none.csv", "no such file")
    refused(run("dedupe", checkpoint, corpus, "--text-column", "body", "--output", "x"), "'body'", "'q'")
    refused(run("dedupe", checkpoint, corpus, *text, "--output", "x", "--linkage", "sngle"), "'single'")
    refused(run("dedupe", checkpoint, corpus, *text, "--output", "x", "--format", "xls"), "xls")
    refused(run("dedupe", "nowhere", corpus, *text, "--output", "x"), "nowhere")
    Path("broken.csv").write_text("n,question\n1,a\n2,\n3,b\n")
    refused(run("dedupe", checkpoint, "broken.csv", "--output", "x"), "row 2", "--skip-bad-rows")
    assert not Path("x").exists()
    result = run("dedupe", checkpoint, "broken.csv", "--output", "x", "--skip-bad-rows", "--threshold", "1")
    assert result.code == 0, result.err
    assert "1 empty question" in result.out
    assert Path("x/kept.csv").read_text() == "n,question\n1,a\n3,b\n"
    refused(run("dedupe", checkpoint, "broken.csv", "--output", "x", "--skip-bad-rows"), "x: ", "--overwrite")
    Path("ids.jsonl").write_text('{"id": 1, "q": "a"}\n{"id": null, "q": "b"}\n{"id": 3, "q": "a"}\n')
    ids = ("dedupe", checkpoint, "ids.jsonl", "--id-column", "id", "--output", "z", "--threshold", "1")
    refused(run(*ids), "line 2", "column 'id' is empty")
    result = run(*ids, "--skip-bad-rows")
    assert "1 no id" in result.out
    assert [row["id"] for row in csv.DictReader(Path("z/clusters.csv").read_text().splitlines())] == ["1", "3"]
    Path("lines.txt").write_text("a\na\nb\n")
    assert run("dedupe", checkpoint, "lines.txt", "--output", "y", "--threshold", "1").code == 0
    assert Path("y/kept.csv").read_text() == "text\na\nb\n"
