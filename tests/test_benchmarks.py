"""The benchmarks run as the README says, on a small folder of the same shape."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas
import pytest
import torch
from ready import sentence_transformer

import qpairs
from qpairs.objectives.losses import LOSSES

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def folder(sample_rows: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quora")
    table = pandas.DataFrame(sample_rows, columns=["question1", "question2", "is_duplicate"])
    table[:400].to_parquet(path / "train.parquet")
    table[400:500].to_parquet(path / "dev.parquet")
    table[500:].to_parquet(path / "test.parquet")
    table[:50].assign(is_duplicate=1).to_parquet(path / "train_extra_duplicates.parquet")
    return path


def run(benchmark: str, tmp_path: Path, *options: str) -> tuple[list[dict], str]:
    command = [sys.executable, str(BENCHMARKS / benchmark), "--json", "out.json", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert {"date", "commit", "machine"} <= written.keys()
    assert all(row["name"] in done.stdout for row in written["rows"])
    return written["rows"], done.stdout


def test_quora_trains_and_judges_on_dev_and_test(folder: Path, tmp_path: Path) -> None:
    rows, _ = run("quora.py", tmp_path, "--data", str(folder), "--encoders", "static", "--no-untrained", "--seeds", "2")
    assert [(row["name"], row["seed"]) for row in rows] == [("static", 0), ("static", 1)]
    assert all(0 < row["test_f1"] < 1 and 0 < row["dev_f1"] < 1 for row in rows)


@pytest.mark.slow
def test_quora_runs_the_peer_and_the_recipe(folder: Path, tmp_path: Path) -> None:
    rows, _ = run(
        "quora.py", tmp_path, "--data", str(folder), "--encoders", "none", "--peer", "--pairs", "128", "--recipe"
    )
    names = [row["name"] for row in rows]
    assert names == [
        "minilm, untrained",
        "static + glove, untrained",
        "sentence-transformers",
        "best recipe",
    ]


def test_corpus_training_judges_pairs_and_corpora(folder: Path, tmp_path: Path) -> None:
    options = ["--encoder", "static", "--epochs", "0.1", "--leave-out", "travel", "--losses", "cosent"]
    rows, _ = run("corpus_training.py", tmp_path, *options, "--quora", str(folder), "--pairs", "200")
    assert [row["name"] for row in rows] == ["untrained", "cosent"]
    parts = ("validation", "test", "left_out", "quora")
    assert all(0 < row[f"{part}_mining"] < 1 for row in rows for part in parts)
    assert all(0 < row[f"{part}_corpus_f1"] < row[f"{part}_f1"] for row in rows for part in parts[:2])


def test_start_judges_rich_and_poor_corpora_with_and_without_labels(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path / "cache"))
    model = sentence_transformer(tmp_path / "encoder")
    rows, shown = run("start.py", tmp_path, "--model", str(model), "--domains", "travel", "--labels", "20")
    assert [(row["name"], row["labels"]) for row in rows] == [
        (f"travel, {kind}", labels) for kind in ("rich", "poor") for labels in (0, 20)
    ]
    assert all(0 <= row["precision"] <= 1 and 0 <= row["f1"] <= row["best_f1"] + 1e-9 for row in rows)
    assert rows[0]["duplicates"] > 20 * rows[2]["duplicates"]
    assert "found precision inside its interval" in " ".join(shown.split())


@pytest.fixture(scope="module")
def losses() -> ModuleType:
    """The benchmark of the losses as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location("benchmarks_losses", BENCHMARKS / "losses.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def gradient(losses: ModuleType, case: object, side: str, n: int, members: int) -> torch.Tensor:
    """Along the sphere, where it does not matter whether a loss normalises, and of length 1."""
    embeddings, classes = losses.questions(n, members)
    losses.step(losses.loss_of(case, side, n, classes), embeddings)
    x, g = embeddings.detach(), embeddings.grad
    along = g - (g * x).sum(1, keepdim=True) * x
    return along / along.norm()


def test_losses_are_measured_on_the_same_work_as_those_of_the_peers(losses: ModuleType) -> None:
    own_start = {"pair_softmax", *(name for name, entry in LOSSES.items() if entry.prototypes)}
    for case, peers in losses.PEERS.items():
        if case.loss in own_start:  # what they learn starts elsewhere than with the peers
            continue
        for members in (2, 4) if case.over == "labels" else (2,):
            expected = gradient(losses, case, "qpairs", 32, members)
            for side in peers:
                cosine = (gradient(losses, case, side, 32, members) * expected).sum()
                assert cosine > (0.95 if side == "PML" else 0.999), (case, side)


def test_losses_are_timed_beside_their_peers_if_memory_suffices(tmp_path: Path) -> None:
    options = ("--n", "16,256", "--members", "2,4", "--repeats", "1", "--losses", "cosent,quadruplet,info_nce")
    rows, told = run("losses.py", tmp_path, *options, "--limit", "0.1")
    measured = [("cosent", 2), ("quadruplet", 2), ("quadruplet", 4), ("info_nce", 2), ("info_nce", 4), ("info_nce", 2)]
    expected = [(n, *each) for n in (16, 256) for each in measured]
    assert [(row["n"], row["loss"], row["members"]) for row in rows] == expected
    peers = {"cosent over pairs": {"ST"}, "info_nce over pairs": {"ST"}, "info_nce over labels": {"PML"}}
    for row in rows:
        assert row["mib"].keys() == {"qpairs"} | peers.get(row["name"], set())
        assert row["ms"].keys() == {side for side, peak in row["mib"].items() if peak is not None}
        assert all(0 < taken < 1000 for taken in row["ms"].values())
        assert all(peak is None or 0 < peak < 100 for peak in row["mib"].values())
        assert (row["ratio"] is None) == (row["ms"].keys() == {"qpairs"})
    told, large = " ".join(told.split()), "info_nce over labels at n = 256, members ="
    assert "qpairs above 2 GiB: none" in told
    assert "than 0.1 GiB: " + "; ".join(f"pytorch-metric-learning, {large} {group}" for group in (2, 4)) in told


def test_training_is_timed_and_judged_beside_sentence_transformers(folder: Path, tmp_path: Path) -> None:
    options = ("--data", str(folder / "train.parquet"), "--pairs", "64", "--held-out", "40", "--rounds", "1")
    rows, told = run("train.py", tmp_path, *options)
    ours, peer = (next(row for row in rows if row["side"] == side) for side in ("qpairs", "ST"))
    assert ours["tokens_per_pair"] < peer["tokens_per_pair"]
    for row in rows:  # of the clock, or on one thread of the processor
        assert row["pairs_per_second"] in [pytest.approx(64 / row[time]) for time in ("seconds", "cpu_seconds")]
        assert 100 < row["mib"] < 20_000
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["f1_difference"] == pytest.approx(ours["f1"] - peer["f1"])
    assert results["ratio"] == pytest.approx(ours["pairs_per_second"] / peer["pairs_per_second"])
    assert "time over the floor" in told


@pytest.mark.slow
def test_training_is_faster_than_by_sentence_transformers(tmp_path: Path) -> None:
    """Half of what is aimed at: 3.5 times in bf16 where that is fast, 2.4 times in fp32; and 3 GB at batches of 64."""
    pairs = qpairs.load_pairs("sample")
    rows = [(*pairs.texts(row), int(pairs.labels[row])) for row in range(len(pairs))]
    pandas.DataFrame(rows, columns=["question1", "question2", "is_duplicate"]).to_parquet(tmp_path / "pairs.parquet")
    options = ("--data", str(tmp_path / "pairs.parquet"), "--pairs", "1600", "--held-out", "400", "--rounds", "1")
    rows, _ = run("train.py", tmp_path, *options)
    results = json.loads((tmp_path / "out.json").read_text())
    ours = next(row for row in rows if row["side"] == "qpairs")
    assert results["ratio"] > {"bf16": 3.5, "fp32": 2.4}[ours["precision"]] / 2
    assert results["f1_difference"] > -0.05
    assert ours["mib"] < 2 * 3000


@pytest.mark.slow
def test_commands_answer_soon_after_their_start(tmp_path: Path) -> None:
    """Half of what is aimed at, in seconds of the processor; but for checkpoints, whose libraries take five alone."""
    rows, _ = run("startup.py", tmp_path, "--repeats", "3")
    taken = {row["name"]: row["cpu_seconds"] for row in rows}
    assert taken["help"] < 2 * 0.3
    assert taken["export"] < 2 * 0.5
    assert taken["checkpoint"] < 10


@pytest.mark.slow
def test_two_processes_are_measured_beside_one(sample_rows: list, tmp_path: Path) -> None:
    table = pandas.DataFrame(sample_rows, columns=["question1", "question2", "is_duplicate"])
    table.to_parquet(tmp_path / "pairs.parquet")
    options = ("--data", str(tmp_path / "pairs.parquet"), "--encoder", "lstm", "--pairs", "2000")
    rows, _ = run("processes.py", tmp_path, *options)
    assert [row["name"] for row in rows] == ["1 of one thread", "2 of one thread"]
    assert all(row["pairs_per_second"] > 0 for row in rows)


@pytest.mark.slow
def test_a_corpus_on_a_disk_is_measured_in_limited_memory(folder: Path, tmp_path: Path) -> None:
    data = str(folder / "train.parquet")
    rows, told = run("scale.py", tmp_path, "--data", data, "--model", "minilm", "--sizes", "400,800", "--memory", "3")
    assert [row["size"] for row in rows] == [400, 800]
    assert all(0 < row["gib_anonymous"] < 3 and row["cpu_seconds"] > 0 for row in rows)
    assert {"reading", "comparing", "clustering"} <= set(rows[0]["stages"])
    assert "grows as n^" in told


@pytest.mark.slow
def test_planted_duplicates_are_found_beside_the_peers(folder: Path, tmp_path: Path) -> None:
    options = ("--data", str(folder / "train.parquet"), "--sizes", "1000,4000", "--limit", "0.5")
    rows, told = run("dedupe.py", tmp_path, *options)
    measured = [row for row in rows if not row["extrapolated"]]
    assert {row["name"] for row in measured} == {"qpairs", "sentence-transformers", "semhash"}
    ours = {row["size"]: row for row in measured if row["name"] == "qpairs"}
    for row in (row for row in measured if row["size"] in ours):
        assert row["recall"] <= ours[row["size"]]["recall"]
        assert row["pairs"] == pytest.approx(ours[row["size"]]["pairs"], rel=0.01)
        assert 0 <= row["missed"] + row["below"] <= 0.01 * row["pairs"]
    assert all(row["seconds"] > 0 for row in rows)
    assert "recall@10" in told


@pytest.fixture(scope="module")
def trained_minilm(sample_rows: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM after a few steps on the bundled pairs, which are beside it."""
    output = tmp_path_factory.mktemp("minilm") / "run"
    table = pandas.DataFrame(sample_rows, columns=["question1", "question2", "is_duplicate"])
    table.to_parquet(output.parent / "pairs.parquet")
    qpairs.train(data=str(output.parent / "pairs.parquet"), encoder="minilm", epochs=0.1, output=str(output))
    return output


@pytest.fixture(scope="module")
def transformer(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "tiny"
    qpairs.train(data=str(folder / "train.parquet"), encoder="tiny", epochs=1, output=str(output))
    return output


def test_encoding_is_timed_and_judged_beside_the_peers(folder: Path, transformer: Path, tmp_path: Path) -> None:
    options = ("--data", str(folder / "train.parquet"), "--dev", str(folder / "dev.parquet"))
    rows, told = run("encode.py", tmp_path, *options, "--checkpoint", str(transformer), "--seconds", "0.3")
    names = [row["name"] for row in rows if row["name"] != "sentence-transformers bf16"]
    assert names[:2] == ["sentence-transformers", "hand-made ONNX int8"]
    forms = ("onnx", "onnx-int8", "openvino", "openvino-int8", "static", "distilled")
    assert names[2:] == ["qpairs", *(f"qpairs {form}" for form in forms)]
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["ratio"] == max(row["ratio"] for row in rows if "qpairs" in row["name"] and row["f1_lost"] <= 0.003)
    by_name = {row["name"]: row for row in rows}
    assert by_name["qpairs onnx"]["f1"] == pytest.approx(by_name["sentence-transformers"]["f1"], abs=0.02)
    assert by_name["qpairs static"]["questions_per_second"] > by_name["qpairs onnx"]["questions_per_second"]
    assert all(0 < row["tokenising"] < 1.5 and row["mib"] < 500 for row in rows), rows
    assert "time over the floor" in told
    assert [aim["found"] is None for aim in results["aims"] if aim["peer"] == "sentence-transformers"] == [
        name not in results["machine"] for name in ("amx_bf16", "avx512_vnni")
    ]
    assert "with avx512_vnni, 4.5 times sentence-transformers" in told


def test_a_second_look_is_timed_and_judged_beside_its_parts(folder: Path, tmp_path: Path) -> None:
    options = {"encoder": "static", "reranker": "tiny", "batch_size": 32, "max_length": 12, "reranker_epochs": 1.0}
    qpairs.train(
        data=str(folder / "train.parquet"),
        validation=str(folder / "dev.parquet"),
        output=str(tmp_path / "x"),
        **options,
    )
    where = ["--model", "x", "--data", str(folder / "test.parquet"), "--questions", "60", "--pairs", "40"]
    rows, told = run("second_look.py", tmp_path, *where, "--queries", "5", "--turns", "1")
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
    rows, told = run("serve.py", tmp_path, *options, "--questions", "200", "--asked", "50", "--seconds", "0.5")
    names = ["micro-batches", "each request alone", "FastAPI + sentence-transformers"]
    assert [(row["name"], row["clients"]) for row in rows] == [(name, n) for n in (1, 8, 64) for name in names]
    assert all(row["p50_ms"] <= row["p99_ms"] and row["ratio"] > 0 for row in rows)
    assert all(row["requests_per_batch"] == 1 for row in rows if row["name"] == names[1])
    assert "p99_ms with 8 clients: aim 30" in told


@pytest.mark.slow
def test_the_service_answers_several_times_as_fast_as_a_plain_one(trained_minilm: Path, tmp_path: Path) -> None:
    """Half of what is aimed at: p99 of 30 ms at 8 clients, 400 requests/s at 64, and twice the plain service's."""
    checkpoint, data = trained_minilm, trained_minilm.parent / "pairs.parquet"
    options = ("--checkpoint", str(checkpoint), "--data", str(data), "--questions", "800", "--asked", "100")
    rows, _ = run("serve.py", tmp_path, *options, "--seconds", "10")
    results = json.loads((tmp_path / "out.json").read_text())
    p99, rate = (aim["found"] for aim in results["aims"])
    assert p99 < 2 * 30
    assert rate > 400 / 2
    assert all(row["ratio"] > 1 for row in rows if row["name"] == "micro-batches")


@pytest.mark.slow
def test_encoding_is_several_times_as_fast_as_sentence_transformers(sample_rows: list, tmp_path: Path) -> None:
    """Half of what is aimed at: 4.5 times, no slower than by hand, and 60,000 questions/s by word vectors."""
    table = pandas.DataFrame(sample_rows, columns=["question1", "question2", "is_duplicate"])
    table.to_parquet(tmp_path / "pairs.parquet")
    rows, _ = run("encode.py", tmp_path, "--data", str(tmp_path / "pairs.parquet"), "--seconds", "60")
    speed = {row["name"]: row["questions_per_second"] for row in rows}
    assert speed["qpairs onnx-int8"] > 4.5 / 2 * speed["sentence-transformers"]
    results = json.loads((tmp_path / "out.json").read_text())
    assert all(aim["found"] is None or aim["found"] > aim["aim"] / 2 for aim in results["aims"])
    assert speed["qpairs distilled"] > 100_000 / 2
    assert speed["qpairs onnx-int8"] > 0.9 * speed["hand-made ONNX int8"]
    assert speed["qpairs"] > speed["sentence-transformers"]
    assert speed["qpairs static"] > 60_000 / 2


@pytest.mark.slow
def test_corpus_verdict_judges_test_export_resamples_and_a_domain(tmp_path: Path) -> None:
    options = ("--encoder", "static", "--domains", "travel", "--labels", "40", "--models", "models")
    rows, out = run("corpus_verdict.py", tmp_path, *options)
    assert [row["labels"] for row in rows if row["name"] == "travel"] == [0, 40]
    names = [row["name"] for row in rows]
    assert names[:3] == ["test, by the setting for pairs", "test", "test, by an export"]
    assert names.count("resampled") == 5
    assert all(0 <= row["found"] <= 1 and row["kept"] <= row["questions"] for row in rows)
    assert "found precision inside its interval" in out


def test_labels_that_err_are_judged_in_simulated_corpora(tmp_path: Path) -> None:
    rows, told = run("annotators.py", tmp_path, "--corpora", "2")
    assert len(rows) == 8
    assert all(0 <= row["inside"] <= 1 and 0 < row["f1_share"] <= 1 for row in rows)
    assert "both, by how often each is right" in told
