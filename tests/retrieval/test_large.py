import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas
import pytest
from children import run_script
from conftest import refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_index import a_model, clustered, embedded

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter
from qpairs.data.corpus import read_corpus
from qpairs.metrics import clusters
from qpairs.metrics.score_counts import count_scores, count_scores_in_parts
from qpairs.retrieval import blocks, cell_jobs, cells, disk, large, large_pairs, matches, sorting, union_find
from qpairs.retrieval.corpus import DedupeResult, dedupe_corpus
from qpairs.retrieval.large import dedupe_embeddings
from qpairs.retrieval.union_find import PAIR, clusters_on_disk, components

PARTS = ("pairs", "clusters", "kept")


def small_parts(patch: pytest.MonkeyPatch, rows: int = 700) -> None:
    """Lets all that is done in parts be done in many of them, and cells be used for a small corpus."""
    for module in (disk, cell_jobs, sorting, union_find):
        for name, value in {"PARTS": rows, "AT_ONCE": 300, "COMPARISONS": 30_000, "BINS": 50}.items():
            if hasattr(module, name):
                patch.setattr(module, name, value)
    patch.setattr(matches, "EXACT", 0)
    patch.setattr(cells, "SAMPLE", 200)
    patch.setattr(cells, "CELL", 30)


def same_as_in_memory(found: Path, expected: DedupeResult) -> None:
    """That tables on the disk are those of a result in memory; numbers to the last digit."""
    for name in PARTS[:2]:
        table = pandas.read_parquet(found / f"{name}.parquet")
        wanted = getattr(expected, name).reset_index(drop=True)
        pandas.testing.assert_frame_equal(table[list(wanted)], wanted, check_exact=True)
    kept = pandas.read_parquet(found / "kept.parquet")
    assert kept["question"].tolist() == expected.kept["q"].tolist()
    summary = json.loads((found / "dedupe.json").read_text())
    names = ("rows", "distinct", "pairs", "clusters", "largest", "kept", "search_recall", "search_recall_measured_on")
    assert {name: summary[name] for name in names} == {name: expected.summary[name] for name in names}


VECTORS = clustered(2500, 140, spread=0.9)


def a_corpus(folder: Path, vectors: np.ndarray):
    """A model, its embeddings of a corpus some of whose rows repeat a question, and the corpus."""
    model = a_model(vectors)
    rows = [*range(len(vectors)), 5, 7, 5]
    return model, embedded(folder, model, rows), read_corpus(folder / "q.csv", text_column="q", id_column="id")


@pytest.mark.parametrize("linkage", ["star", "single"])
def test_the_result_is_that_in_memory_to_the_last_digit(linkage, tmp_path: Path, monkeypatch) -> None:
    small_parts(monkeypatch)
    model, embeddings, corpus = a_corpus(tmp_path, VECTORS)
    reports = []
    found = dedupe_embeddings(
        model, embeddings, tmp_path / "d", threshold=0.6, linkage=linkage, recall=0.99, kind="parquet",
        on_progress=reports.append,
    )  # fmt: skip
    expected = dedupe_corpus(model, corpus, threshold=0.6, linkage=linkage, recall=0.99)
    assert expected.found.pairs.sampled > 10  # in cells
    assert len(expected.pairs) > 1000
    same_as_in_memory(tmp_path / "d", expected)
    assert found.summary["questions"] == str(embeddings.folder)
    assert sorted(file.name for file in found.folder.iterdir() if file.name[0] != ".") == [
        "clusters.parquet", "dedupe.json", "kept.parquet", "pairs.parquet",
    ]  # fmt: skip
    assert not (tmp_path / "d" / ".unfinished").exists()
    nearest = expected.nearest(5)["similarity"].tolist()
    assert found.nearest(5)["similarity"].tolist() == nearest
    stages = {now.stage: now for now in reports}
    assert {"reading", "estimating", "probing", "sorting", "comparing", "clustering", "writing"} <= set(stages)
    assert all(now.done == now.total for now in stages.values())


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(2, 400), st.sampled_from([12, 130]), st.integers(0, 99), st.floats(0.3, 1.0), st.booleans(),
    st.sampled_from([0.9, 1.0]), st.integers(50, 400),
)  # fmt: skip
def test_any_corpus_in_any_parts_is_as_in_memory(
    tmp_path_factory, n: int, width: int, seed: int, threshold: float, star: bool, recall: float, rows: int
) -> None:
    folder, linkage = tmp_path_factory.mktemp("any"), "star" if star else "single"
    model, embeddings, corpus = a_corpus(folder, clustered(max(n, 8), width, spread=0.8, seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        small_parts(patch, rows)
        patch.setattr(cells, "SAMPLE", 40)
        patch.setattr(blocks, "SIZE", 64)
        expected = dedupe_corpus(model, corpus, threshold=threshold, linkage=linkage, recall=recall)
        dedupe_embeddings(
            model, embeddings, folder / "d", threshold=threshold, linkage=linkage, recall=recall, kind="parquet"
        )
    same_as_in_memory(folder / "d", expected)


@pytest.mark.parametrize("recall", [0.9999, 1.0])
def test_other_words_with_the_same_vector_are_duplicates_at_any_threshold(
    recall: float, tmp_path: Path, monkeypatch
) -> None:
    small_parts(monkeypatch)
    vectors = np.repeat(clustered(600, 130, spread=0.9), 2, axis=0)
    assert (np.einsum("ij,ij->i", vectors, vectors) < 1).any()  # in float32
    model, embeddings, corpus = a_corpus(tmp_path, vectors)
    for threshold in (1.0, 0.5):
        expected = dedupe_corpus(model, corpus, threshold=threshold, recall=recall)
        dedupe_embeddings(model, embeddings, tmp_path / "d", threshold=threshold, recall=recall, kind="parquet")
        assert (expected.pairs["similarity"] == 1).sum() == 600
        same_as_in_memory(tmp_path / "d", expected)


def test_the_threshold_is_chosen_for_the_corpus_as_in_memory(tmp_path: Path) -> None:
    vectors = clustered(900, 24, spread=0.7)
    counts = count_scores(vectors)
    parts = count_scores_in_parts(lambda: ((i, vectors[i : i + 50]) for i in range(0, 900, 50)), 900)
    assert np.abs(counts.counts - parts.counts).sum() < 20  # pairs that lie on the edge of a bin
    assert np.abs(counts.hits - parts.hits).sum() < 20
    some = count_scores_in_parts(lambda: [(0, np.tile(vectors, (6, 1)))], 5400)
    assert some.counts.sum() == pytest.approx(5400 * 5399 / 2, rel=0.01)
    assert some.hits.sum() == pytest.approx(5400 * 10, rel=0.01)


# What is left of an interrupted run

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import pytest
from conftest import refused
from test_large import VECTORS, a_model, small_parts
from qpairs.retrieval.large import dedupe_embeddings
small_parts(pytest.MonkeyPatch())
def die(now):
    if (now.stage, now.done > 0) == ({stage!r}, {begun}):
        os.kill(os.getpid(), signal.SIGKILL)
dedupe_embeddings(a_model(VECTORS), {emb!r}, {out!r}, threshold=0.6, recall=0.99, kind="parquet", on_progress=die)
"""


def test_a_run_that_was_killed_in_any_stage_goes_on(tmp_path: Path, monkeypatch) -> None:
    small_parts(monkeypatch)
    model, embeddings, corpus = a_corpus(tmp_path, VECTORS)
    out = tmp_path / "d"
    for stage, begun in [
        ("reading vectors", True), ("probing", True), ("sorting", True), ("comparing", True),
    ]:  # fmt: skip
        script = KILLED.format(paths=sys.path, stage=stage, begun=begun, emb=str(embeddings.folder), out=str(out))
        killed = run_script(script)
        assert killed.returncode == -signal.SIGKILL, (stage, killed.stderr)
        assert not (out / "dedupe.json").exists()
    made = {file: file.stat().st_mtime_ns for file in (out / ".unfinished").rglob("*.npy")}
    reports = []
    dedupe_embeddings(
        model, embeddings, out, threshold=0.6, recall=0.99, kind="parquet", on_progress=reports.append
    )  # fmt: skip
    assert len(made) > 10
    assert not {"reading", "reading vectors", "making cells", "probing", "sorting"} & {now.stage for now in reports}
    same_as_in_memory(out, dedupe_corpus(model, corpus, threshold=0.6, recall=0.99))


def test_what_another_run_left_is_not_used(tmp_path: Path, monkeypatch) -> None:
    small_parts(monkeypatch)
    model, embeddings, corpus = a_corpus(tmp_path, VECTORS[:1200])

    def stop(now) -> None:
        if now.stage == "clustering":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dedupe_embeddings(model, embeddings, tmp_path / "d", threshold=0.9, on_progress=stop)
    dedupe_embeddings(model, embeddings, tmp_path / "d", threshold=0.6, recall=0.99, kind="parquet")
    same_as_in_memory(tmp_path / "d", dedupe_corpus(model, corpus, threshold=0.6, recall=0.99))


def test_what_cannot_be_done_is_one_line(tmp_path: Path, monkeypatch) -> None:
    model, embeddings, _ = a_corpus(tmp_path, VECTORS[:300])
    with pytest.raises(UserError, match="made by the model"):
        dedupe_embeddings(a_model(VECTORS, "c" * 16), embeddings, tmp_path / "d", threshold=0.6)
    with pytest.raises(UserError, match="'xls'"):
        dedupe_embeddings(model, embeddings, tmp_path / "d", threshold=0.6, kind="xls")
    with pytest.raises(UserError, match="no embeddings here"):
        dedupe_embeddings(model, tmp_path, tmp_path / "d", threshold=0.6)
    monkeypatch.setattr(large_pairs, "MOST_PAIRS", 100)
    monkeypatch.setattr(large_pairs, "MOST_A_QUESTION", 0)
    with pytest.raises(UserError, match="over 100 pairs"):
        dedupe_embeddings(model, embeddings, tmp_path / "d", threshold=-1.0)


def test_far_too_many_pairs_stay_too_many_when_the_run_goes_on(tmp_path: Path, monkeypatch) -> None:
    small_parts(monkeypatch)
    model, embeddings, _ = a_corpus(tmp_path, VECTORS[:1200])
    monkeypatch.setattr(large_pairs, "MOST_A_QUESTION", 0)

    def pairs_there() -> int:
        return sum(len(np.load(file)) for file in tmp_path.rglob(f"{large_pairs.PAIRS}/*.npy"))

    def refused_at(most: int) -> None:
        monkeypatch.setattr(large_pairs, "MOST_PAIRS", most)
        with pytest.raises(UserError, match=f"over {most:,} pairs"):
            dedupe_embeddings(model, embeddings, tmp_path / "d", threshold=0.6, recall=0.99)

    refused_at(100)
    before = pairs_there()
    refused_at(before - 1)
    assert pairs_there() == before > 100, "nothing more is compared"
    refused_at(before)
    assert pairs_there() > before


# Clusters


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60), st.integers(1, 9))
def test_components_are_those_of_a_search(n: int, given_edges: list[tuple[int, int]], size: int) -> None:
    edges = [(a % n, b % n) for a, b in given_edges]
    least = list(range(n))
    for _ in range(n):
        for a, b in edges:
            least[a] = least[b] = min(least[a], least[b])

    def parts() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(edges), size):
            left, right = zip(*edges[start : start + size], strict=True)
            yield np.array(left), np.array(right)

    assert components(n, parts()).tolist() == least


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(0, 99), st.integers(1, 30), st.sampled_from(["star", "single"]))
def test_clusters_of_some_pairs_at_a_time_are_those_of_all(
    tmp_path_factory, n: int, seed: int, at_once: int, linkage
) -> None:
    random = np.random.default_rng(seed)
    ends = np.unique(np.sort(random.integers(0, n, (n // 2 + 3, 2)), axis=1), axis=0)
    ends = ends[ends[:, 0] < ends[:, 1]]
    pairs = np.empty(len(ends), PAIR)
    pairs["left"], pairs["right"] = ends.T
    pairs["similarity"] = random.integers(5, 9, len(ends)) / 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(union_find, "AT_ONCE", at_once)
        found = clusters_on_disk(n, pairs, linkage, tmp_path_factory.mktemp("c"), Meter())
    expected = clusters(n, ends[:, 0], ends[:, 1], pairs["similarity"], linkage)
    assert found.tolist() == expected.tolist()


# The command


@pytest.fixture(scope="module")
def trained(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "x"
    qpairs.train(data=str(pairs_csv), encoder="static", epochs=2, batch_size=16, output=str(output))
    return output


def test_dedupe_takes_a_folder_of_embeddings_in_place_of_a_file(run, trained: Path, sample_rows: list) -> None:
    texts = sorted({" ".join(q.split()) for row in sample_rows for q in row[:2]})[:300]
    Path("q.txt").write_text("\n".join([*texts, texts[0].upper()]))
    embed = run("embed", trained, "q.txt", "--output", "emb")
    assert "301 questions, 301 distinct" in embed.out
    assert "in 1 shard\n" in embed.out.replace("shard.", "shard")
    result = run("dedupe", trained, "emb", "--output", "a", "--format", "parquet")
    assert result.code == 0, result.err
    assert run("dedupe", trained, "q.txt", "--output", "b", "--format", "parquet").code == 0
    for name in ("pairs", "clusters"):
        one, other = (pandas.read_parquet(f"{folder}/{name}.parquet") for folder in "ab")
        pandas.testing.assert_frame_equal(one[list(other)], other, rtol=1e-5)
    summaries = [json.loads(Path(folder, "dedupe.json").read_text()) for folder in "ab"]
    assert [s["kept"] for s in summaries] == [summaries[0]["kept"]] * 2
    assert summaries[0]["threshold"] == pytest.approx(summaries[1]["threshold"], abs=0.002)
    assert "nearest to the threshold" in result.out


def test_a_command_that_was_interrupted_goes_on_and_its_files_take_their_places_in_one_step(
    run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("q.txt").write_text("\n".join(f"How do I {what}?" for what in ("pay", "call", "go", "pay now")))
    assert run("embed", trained, "q.txt", "--output", "emb").code == 0
    command = ("dedupe", trained, "emb", "--output", "out", "--threshold", "0.5")
    with monkeypatch.context() as patch:
        patch.setattr(large, "keep_others", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*command).code == 130
    assert sorted(file.name for file in Path("out").iterdir()) == [".lock", ".unfinished"]
    assert run(*command).code == 0
    assert {file.name for file in Path("out").iterdir()} == {*(f"{name}.csv" for name in PARTS), "dedupe.json"}
    refused(run(*command), "the folder is not empty")


def test_no_spreadsheet_takes_a_question_of_a_folder_for_a_formula(run, trained: Path) -> None:
    Path("q.csv").write_text("id,text\n@1,=1+1\n2,= 1 + 1\n3,How?\n")
    assert run("embed", trained, "q.csv", "--id-column", "id", "--output", "emb").code == 0
    for option, formula, number in (([], "'=1+1", "'@1"), (["--raw"], "=1+1", "@1")):
        output = "raw" if option else "safe"
        assert run("dedupe", trained, "emb", "--output", output, "--threshold", "-1", *option).code == 0
        pairs, clusters, kept = (pandas.read_csv(f"{output}/{name}.csv", dtype=str) for name in PARTS)
        assert formula in set(pairs["question1"]) and number in set(pairs["id1"])
        assert formula in set(clusters["question"]) and number in set(clusters["id"])
        assert "=1+1" in set(kept["question"]) and "@1" in set(kept["id"])


def test_options_that_do_not_go_with_a_folder_are_one_line(run, trained: Path) -> None:
    Path("emb").mkdir()
    for option in (["--text-column", "q"], ["--against", "x.csv"], ["--embeddings", "emb"]):
        refused(run("dedupe", trained, "emb", "--output", "c", *option), option[0], "a folder from qpairs embed")
    refused(run("dedupe", trained, "emb", "--dry-run"), "--dry-run", "a folder from qpairs embed")
    refused(run("dedupe", trained, "emb", "--output", "c"), "no embeddings here")
    Path("q.txt").write_text("How?\nWhy?\n")
    refused(
        run("dedupe", trained, "q.txt", "--output", "c", "--engine", "ray"), "--engine", "a folder from qpairs embed"
    )
    refused(run("dedupe", trained, "q.txt", "--output", "c", "--engine", "dask"), "unknown 'dask'")
