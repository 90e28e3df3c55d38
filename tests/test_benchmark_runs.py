"""The benchmarks run as the README says, on a small folder of the same shape."""

import json
from pathlib import Path

import pytest
from ready import sentence_transformer
from small_benchmarks import run_benchmark, write_folder

import qpairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(sample_rows: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("quora"), sample_rows)


@pytest.fixture(scope="module")
def transformer(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "tiny"
    qpairs.train(data=str(folder / "train.parquet"), encoder="tiny", epochs=1, output=str(output))
    return output


def test_corpus_training_judges_pairs_and_corpora(folder: Path, tmp_path: Path) -> None:
    options = ["--encoder", "static", "--epochs", "0.1", "--leave-out", "travel", "--losses", "cosent"]
    rows, _ = run_benchmark("corpus_training.py", tmp_path, *options, "--quora", str(folder), "--pairs", "200")
    assert [row["name"] for row in rows] == ["untrained", "cosent"]
    parts = ("validation", "test", "left_out", "quora")
    assert all(0 < row[f"{part}_mining"] < 1 for row in rows for part in parts)
    assert all(0 < row[f"{part}_corpus_f1"] < row[f"{part}_f1"] for row in rows for part in parts[:2])


def test_losses_are_timed_beside_their_peers_if_memory_suffices(tmp_path: Path) -> None:
    options = ("--n", "16,256", "--members", "2,4", "--repeats", "1", "--losses", "cosent,quadruplet,info_nce")
    rows, told = run_benchmark("losses.py", tmp_path, *options, "--limit", "0.1")
    measured = [("cosent", 2), ("quadruplet", 2), ("quadruplet", 4), ("info_nce", 2), ("info_nce", 4), ("info_nce", 2)]
    expected = [(n, *each) for n in (16, 256) for each in measured]
    assert [(row["n"], row["loss"], row["members"]) for row in rows] == expected
    peers = {"cosent over pairs": {"ST"}, "info_nce over pairs": {"ST"}, "info_nce over labels": {"PML"}}
    for row in rows:
        assert row["mib"].keys() == {"qpairs"} | peers.get(row["name"], set())
        assert row["ms"].keys() == {side for side, peak in row["mib"].items() if peak is not None}
        assert all(taken > 0 for taken in row["ms"].values())
        assert all(peak is None or 0 < peak < 100 for peak in row["mib"].values())
        assert (row["ratio"] is None) == (row["ms"].keys() == {"qpairs"})
    told, large = " ".join(told.split()), "info_nce over labels at n = 256, members ="
    assert "qpairs above 2 GiB: none" in told
    assert "than 0.1 GiB: " + "; ".join(f"pytorch-metric-learning, {large} {group}" for group in (2, 4)) in told


def test_training_is_timed_and_judged_beside_sentence_transformers(folder: Path, tmp_path: Path) -> None:
    options = ("--data", str(folder / "train.parquet"), "--pairs", "64", "--held-out", "40", "--rounds", "1")
    rows, told = run_benchmark("train.py", tmp_path, *options)
    ours, peer = (next(row for row in rows if row["side"] == side) for side in ("qpairs", "ST"))
    assert 10 < ours["tokens_per_pair"] < peer["tokens_per_pair"]
    for row in rows:  # of the clock, or on one thread of the processor
        assert row["pairs_per_second"] in [pytest.approx(64 / row[time]) for time in ("seconds", "cpu_seconds")]
        assert 100 < row["mib"] < 20_000
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["f1_difference"] == pytest.approx(ours["f1"] - peer["f1"])
    assert results["ratio"] == pytest.approx(ours["pairs_per_second"] / peer["pairs_per_second"])
    assert all(row["pairs_per_second"] < row["floor"] for row in results["summary"])  # no faster than its products
    assert "time over the floor" in told


def test_encoding_is_timed_and_judged_beside_the_peers(folder: Path, transformer: Path, tmp_path: Path) -> None:
    options = ("--data", str(folder / "train.parquet"), "--dev", str(folder / "dev.parquet"))
    rows, told = run_benchmark("encode.py", tmp_path, *options, "--checkpoint", str(transformer), "--seconds", "0.3")
    names = [row["name"] for row in rows if row["name"] != "sentence-transformers bf16"]
    assert names[:2] == ["sentence-transformers", "hand-made ONNX int8"]
    forms = ("onnx", "onnx-int8", "openvino", "openvino-int8", "static", "distilled")
    assert names[2:] == ["qpairs", *(f"qpairs {form}" for form in forms)]
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["ratio"] == max(row["ratio"] for row in rows if "qpairs" in row["name"] and row["f1_lost"] <= 0.003)
    by_name = {row["name"]: row for row in rows}
    assert by_name["qpairs onnx"]["f1"] == pytest.approx(by_name["sentence-transformers"]["f1"], abs=0.02)
    assert all(row["tokenising"] > 0 and row["questions_per_second"] > 0 and row["mib"] < 500 for row in rows), rows
    assert "time over the floor" in told
    assert [aim["found"] is None for aim in results["aims"] if aim["peer"] == "sentence-transformers"] == [
        name not in results["machine"] for name in ("amx_bf16", "avx512_vnni")
    ]
    assert "with avx512_vnni, 4.5 times sentence-transformers by a transformer" in told
    ours = [row for row in rows if "qpairs" in row["name"] and row["name"] not in ("qpairs static", "qpairs distilled")]
    best = max((row["questions_per_second"] for row in ours if row["f1_lost"] <= 0.003), default=0.0)
    for aim in (aim for aim in results["aims"] if aim["found"] is not None):
        assert aim["found"] == best / by_name[aim["peer"]]["questions_per_second"]


def test_a_second_look_is_timed_and_judged_beside_its_parts(folder: Path, tmp_path: Path) -> None:
    options = {"encoder": "static", "reranker": "tiny", "batch_size": 32, "max_length": 12, "reranker_epochs": 1.0}
    qpairs.train(
        data=str(folder / "train.parquet"),
        validation=str(folder / "dev.parquet"),
        output=str(tmp_path / "x"),
        **options,
    )
    where = ["--model", "x", "--data", str(folder / "test.parquet"), "--questions", "60", "--pairs", "40"]
    rows, told = run_benchmark("second_look.py", tmp_path, *where, "--queries", "5", "--turns", "1")
    assert [row["name"] for row in rows] == ["encoder alone", "cross-encoder alone", "both"]
    assert all(row["pairs_per_second"] > 0 and 0 <= row["f1"] <= 1 for row in rows)
    results = json.loads((tmp_path / "out.json").read_text())
    first, both = results["corpus"]
    assert first["read"] == 0
    assert both["share_read"] <= 1
    assert results["failures"].keys() == {"encoder alone", "both"}
    assert "A corpus of 60 questions" in told


def test_the_service_is_timed_beside_a_plain_one(folder: Path, transformer: Path, tmp_path: Path) -> None:
    options = ("--checkpoint", str(transformer), "--data", str(folder / "train.parquet"))
    rows, told = run_benchmark(
        "serve.py", tmp_path, *options, "--questions", "200", "--asked", "50", "--seconds", "0.5"
    )
    names = ["micro-batches", "each request alone", "FastAPI + sentence-transformers"]
    assert [(row["name"], row["clients"]) for row in rows] == [(name, n) for n in (1, 8, 64) for name in names]
    assert all(row["p50_ms"] <= row["p99_ms"] and row["ratio"] > 0 for row in rows)
    assert all(row["requests_per_batch"] == 1 for row in rows if row["name"] == names[1])
    assert "p99_ms with 8 clients: aim 30" in told


def test_start_judges_rich_and_poor_corpora_with_and_without_labels(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path / "cache"))
    model = sentence_transformer(tmp_path / "encoder")
    rows, shown = run_benchmark("start.py", tmp_path, "--model", str(model), "--domains", "travel", "--labels", "20")
    assert [(row["name"], row["labels"]) for row in rows] == [
        (f"travel, {kind}", labels) for kind in ("rich", "poor") for labels in (0, 20)
    ]
    assert all(0 <= row["precision"] <= 1 and 0 <= row["f1"] <= row["best_f1"] + 1e-9 for row in rows)
    assert rows[0]["duplicates"] > 20 * rows[2]["duplicates"]
    assert "found precision inside its interval" in " ".join(shown.split())


def test_quora_trains_and_judges_on_dev_and_test(folder: Path, tmp_path: Path) -> None:
    rows, _ = run_benchmark(
        "quora.py", tmp_path, "--data", str(folder), "--encoders", "static", "--no-untrained", "--seeds", "2"
    )
    assert [(row["name"], row["seed"]) for row in rows] == [("static", 0), ("static", 1)]
    assert all(0 < row["test_f1"] < 1 and 0 < row["dev_f1"] < 1 for row in rows)


def test_labels_that_err_are_judged_in_simulated_corpora(tmp_path: Path) -> None:
    rows, told = run_benchmark("annotators.py", tmp_path, "--corpora", "2")
    assert len(rows) == 8
    assert all(0 <= row["inside"] <= 1 and 0 < row["f1_share"] <= 1 for row in rows)
    assert "both, by how often each is right" in told


def test_the_audit_plants_audits_and_trains(folder: Path, tmp_path: Path) -> None:
    options = ["--noise", "0.1", "--folds", "2", "--seeds", "2", "--vectors", "", "--epochs", "2"]
    rows, _ = run_benchmark("audit.py", tmp_path, "--data", str(folder / "train.parquet"), *options)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["planted"] == round(0.1 * rows[0]["pairs"])
    assert written["lift"] == pytest.approx(written["precision_at_planted"] / 0.1, rel=0.05)
    assert [len(row["dev_f1"]) for row in rows] == [2] * 4
    assert rows[0]["gain"]["value"] == 0


def test_robustness_is_judged_before_and_after_training_against_changes(folder: Path, tmp_path: Path) -> None:
    options = ("--encoder", "static", "--augment", "0.3", "--seeds", "1", "--cases", "5")
    before, after = run_benchmark("robustness.py", tmp_path, "--data", str(folder), *options)[0]
    assert before["generated"] == {}
    assert sum(after["generated"].values()) == 120
    sources = {failure["source"] for failure in after["failures"]}
    assert sources == {"dev, itself", "dev, pairs", "suite"}
    assert all(0 <= failure["failures"] <= failure["n"] for failure in after["failures"])
    made = "runs/robustness/static-0-0,runs/robustness/static-0.3-0"
    again, _ = run_benchmark("robustness.py", tmp_path, "--data", str(folder), "--cases", "5", "--judge", made)
    assert again == [before, after]


def test_corpus_verdict_judges_test_export_resamples_and_a_domain(tmp_path: Path) -> None:
    options = ("--encoder", "static", "--domains", "travel", "--labels", "40", "--models", "models")
    rows, out = run_benchmark("corpus_verdict.py", tmp_path, *options)
    assert [row["labels"] for row in rows if row["name"] == "travel"] == [0, 40]
    names = [row["name"] for row in rows]
    assert names[:3] == ["test, by the setting for pairs", "test", "test, by an export"]
    assert names.count("resampled") == 5
    assert all(0 <= row["found"] <= 1 and row["kept"] <= row["questions"] for row in rows)
    assert "found precision inside its interval" in out


def test_few_labels_are_judged_with_and_without_an_unlabelled_pass(tmp_path: Path) -> None:
    options = ("--encoder", "static", "--domains", "travel", "--labels", "0,50", "--passes", "0.2", "--base", "trained")
    rows, told = run_benchmark("few_labels.py", tmp_path, *options)
    assert {row["labels"] for row in rows} == {0, 50}
    assert all(0 <= row["f1"] <= 1 and row["corpus_f1"] <= row["corpus_best_f1"] + 1e-9 for row in rows)
    assert "best corpus F1" in told
