"""What the benchmarks measure against what is aimed at, on a machine with no other work; minutes each."""

import json
from pathlib import Path

import pandas
import pytest
from small_benchmarks import run_benchmark, write_folder

import qpairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(sample_rows: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("quora"), sample_rows)


@pytest.fixture(scope="module")
def trained_minilm(sample_rows: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM after a few steps on the bundled pairs, which are beside it."""
    output = tmp_path_factory.mktemp("minilm") / "run"
    table = pandas.DataFrame(sample_rows, columns=["question1", "question2", "is_duplicate"])
    table.to_parquet(output.parent / "pairs.parquet")
    qpairs.train(data=str(output.parent / "pairs.parquet"), encoder="minilm", epochs=0.1, output=str(output))
    return output


def test_quora_runs_the_peer_and_the_recipe(folder: Path, tmp_path: Path) -> None:
    rows, _ = run_benchmark(
        "quora.py", tmp_path, "--data", str(folder), "--encoders", "none", "--peer", "--pairs", "128", "--recipe"
    )
    names = [row["name"] for row in rows]
    assert names == [
        "minilm, untrained",
        "static + glove, untrained",
        "sentence-transformers",
        "best recipe",
    ]


def test_training_is_faster_than_by_sentence_transformers(tmp_path: Path) -> None:
    """Half of what is aimed at: 3.5 times in bf16 where that is fast, 2.4 times in fp32; and 3 GB at batches of 64."""
    pairs = qpairs.load_pairs("sample")
    rows = [(*pairs.texts(row), int(pairs.labels[row])) for row in range(len(pairs))]
    pandas.DataFrame(rows, columns=["question1", "question2", "is_duplicate"]).to_parquet(tmp_path / "pairs.parquet")
    options = ("--data", str(tmp_path / "pairs.parquet"), "--pairs", "1600", "--held-out", "400", "--rounds", "1")
    rows, _ = run_benchmark("train.py", tmp_path, *options)
    results = json.loads((tmp_path / "out.json").read_text())
    ours = next(row for row in rows if row["side"] == "qpairs")
    assert results["ratio"] > {"bf16": 3.5, "fp32": 2.4}[ours["precision"]] / 2
    assert results["f1_difference"] > -0.05
    assert ours["mib"] < 2 * 3000


def test_commands_answer_soon_after_their_start(tmp_path: Path) -> None:
    """Half of what is aimed at, in seconds of the processor; but for checkpoints, whose libraries take five alone."""
    rows, _ = run_benchmark("startup.py", tmp_path, "--repeats", "3")
    taken = {row["name"]: row["cpu_seconds"] for row in rows}
    assert taken["help"] < 2 * 0.3
    assert taken["export"] < 2 * 0.5
    assert taken["checkpoint"] < 10


def test_two_processes_are_measured_beside_one(sample_rows: list, tmp_path: Path) -> None:
    table = pandas.DataFrame(sample_rows, columns=["question1", "question2", "is_duplicate"])
    table.to_parquet(tmp_path / "pairs.parquet")
    options = ("--data", str(tmp_path / "pairs.parquet"), "--encoder", "lstm", "--pairs", "2000")
    rows, _ = run_benchmark("processes.py", tmp_path, *options)
    assert [row["name"] for row in rows] == ["1 of one thread", "2 of one thread"]
    assert all(row["pairs_per_second"] > 0 for row in rows)


def test_a_corpus_on_a_disk_is_measured_in_limited_memory(folder: Path, tmp_path: Path) -> None:
    data = str(folder / "train.parquet")
    rows, told = run_benchmark(
        "scale.py", tmp_path, "--data", data, "--model", "minilm", "--sizes", "400,800", "--memory", "3"
    )
    assert [row["size"] for row in rows] == [400, 800]
    assert all(0 < row["gib_anonymous"] < 3 and row["cpu_seconds"] > 0 for row in rows)
    assert {"reading", "comparing", "clustering"} <= set(rows[0]["stages"])
    assert "grows as n^" in told


def test_planted_duplicates_are_found_beside_the_peers(folder: Path, tmp_path: Path) -> None:
    options = ("--data", str(folder / "train.parquet"), "--sizes", "1000,4000", "--limit", "0.5")
    rows, told = run_benchmark("dedupe.py", tmp_path, *options)
    measured = [row for row in rows if not row["extrapolated"]]
    assert {row["name"] for row in measured} == {"qpairs", "sentence-transformers", "semhash"}
    ours = {row["size"]: row for row in measured if row["name"] == "qpairs"}
    for row in (row for row in measured if row["size"] in ours):
        assert row["recall"] <= ours[row["size"]]["recall"]
        assert row["pairs"] == pytest.approx(ours[row["size"]]["pairs"], rel=0.01)
        assert 0 <= row["missed"] + row["below"] <= 0.01 * row["pairs"]
    assert all(row["seconds"] > 0 for row in rows)
    assert "recall@10" in told


def test_the_service_answers_several_times_as_fast_as_a_plain_one(trained_minilm: Path, tmp_path: Path) -> None:
    """Half of what is aimed at: p99 of 30 ms at 8 clients, 400 requests/s at 64, and twice the plain service's."""
    checkpoint, data = trained_minilm, trained_minilm.parent / "pairs.parquet"
    options = ("--checkpoint", str(checkpoint), "--data", str(data), "--questions", "800", "--asked", "100")
    rows, _ = run_benchmark("serve.py", tmp_path, *options, "--seconds", "10")
    results = json.loads((tmp_path / "out.json").read_text())
    p99, rate = (aim["found"] for aim in results["aims"])
    assert p99 < 2 * 30
    assert rate > 400 / 2
    assert all(row["ratio"] > 1 for row in rows if row["name"] == "micro-batches")


def test_encoding_is_several_times_as_fast_as_sentence_transformers(sample_rows: list, tmp_path: Path) -> None:
    """Half of what is aimed at: 4.5 times, no slower than by hand, and 60,000 questions/s by word vectors."""
    table = pandas.DataFrame(sample_rows, columns=["question1", "question2", "is_duplicate"])
    table.to_parquet(tmp_path / "pairs.parquet")
    rows, _ = run_benchmark("encode.py", tmp_path, "--data", str(tmp_path / "pairs.parquet"), "--seconds", "60")
    speed = {row["name"]: row["questions_per_second"] for row in rows}
    assert speed["qpairs onnx-int8"] > 4.5 / 2 * speed["sentence-transformers"]
    results = json.loads((tmp_path / "out.json").read_text())
    assert all(aim["found"] is None or aim["found"] > aim["aim"] / 2 for aim in results["aims"])
    assert speed["qpairs distilled"] > 100_000 / 2
    assert speed["qpairs onnx-int8"] > 0.9 * speed["hand-made ONNX int8"]
    assert speed["qpairs"] > speed["sentence-transformers"]
    assert speed["qpairs static"] > 60_000 / 2
    assert all(row["tokenising"] < 1.5 for row in rows), rows
