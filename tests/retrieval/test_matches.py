import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
import pytest
from conftest import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from test_index import a_model, clustered, embedded

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.data.splits import components
from qpairs.metrics import OperatingPoint
from qpairs.retrieval import dedupe as retrieval
from qpairs.retrieval.dedupe import Matches, clusters, dedupe, find_matches, require_one_tower, search, stored
from qpairs.retrieval.index import build_index, open_index


def pairs_of(found: Matches) -> dict[tuple[int, int], float]:
    return {(int(a), int(b)): float(s) for a, b, s in zip(found.left, found.right, found.similarity, strict=True)}


def naive(vectors: np.ndarray, threshold: float, others: np.ndarray | None = None) -> dict[tuple[int, int], float]:
    """All pairs by two loops."""
    columns = vectors if others is None else others
    return {
        (i, j): float(row @ column)
        for i, row in enumerate(vectors)
        for j, column in enumerate(columns)
        if (others is not None or i < j) and float(row @ column) >= threshold
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 40), st.integers(0, 99), st.booleans())
def test_all_pairs_are_those_of_two_loops(n: int, m: int, side: int, seed: int, within: bool) -> None:
    random = np.random.default_rng(seed)
    vectors, others = (random.integers(-1, 2, (k, 4)).astype(np.float32) for k in (n, m))  # whole numbers: exact ties
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "SIDE", side)
        for threshold in (1.0, 2.0):
            found = find_matches(vectors / 2, threshold / 4, others=None if within else others / 2)
            expected = naive(vectors / 2, threshold / 4, None if within else others / 2)
            assert pairs_of(found) == expected
            assert list(pairs_of(found)) == sorted(expected)
            assert (found.recall, found.sampled) == (1, 0)


def test_a_threshold_between_two_numbers_of_single_precision() -> None:
    similarity = np.float32(0.7)
    vectors = np.array([[1, 0], [similarity, np.sqrt(1 - similarity**2)]], dtype=np.float32)
    assert len(find_matches(vectors, float(similarity))) == 1
    assert len(find_matches(vectors, np.nextafter(float(similarity), 1))) == 0


VECTORS = clustered(6000, 24, spread=0.5)


@pytest.mark.parametrize("others", [None, clustered(6000, 24, spread=0.5)[::3] + np.float32(0.02)])
def test_cells_find_nearly_all_pairs_and_say_how_many(
    others: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if others is not None:
        others = others / np.linalg.norm(others, axis=1, keepdims=True)
    everything = find_matches(VECTORS, 0.8, others=others)
    compared = 0
    block = retrieval._compare_block

    def counted(sides: object, cells: retrieval.Block) -> retrieval.Pairs:
        nonlocal compared
        compared += len(cells[0]) * len(cells[1])
        return block(sides, cells)

    monkeypatch.setattr(retrieval, "EXACT", 0)
    monkeypatch.setattr(retrieval, "SAMPLE", 300)
    monkeypatch.setattr(retrieval, "lists_for", lambda m: 150)
    monkeypatch.setattr(retrieval, "_compare_block", counted)
    for recall in (0.9, 0.999):
        compared = 0
        found = find_matches(VECTORS, 0.8, others=others, recall=recall)
        share = len(found) / len(everything)
        assert share >= recall - 0.05
        assert found.recall == pytest.approx(share, abs=0.03)
        assert found.sampled > 100
        assert pairs_of(found).keys() <= pairs_of(everything).keys()
        again = find_matches(VECTORS, 0.8, others=others, recall=recall)
        assert pairs_of(again) == pairs_of(found)
        assert compared / 2 < 0.6 * len(VECTORS) * len(VECTORS if others is None else others)
    assert len(find_matches(VECTORS, 0.8, others=others, recall=1)) == len(everything)


def test_the_margin_reaches_beyond_a_small_sample() -> None:
    random = np.random.default_rng(0)
    for pairs, tolerance in ((50_000, 0.15), (100, 0.6)):
        margins = random.exponential(0.01, pairs).astype(np.float32)
        assert retrieval._quantile(margins, 0.9999) == pytest.approx(-0.01 * np.log(1e-4), rel=tolerance)
        assert retrieval._quantile(margins, 0.5) == pytest.approx(-0.01 * np.log(0.5), rel=tolerance)
    none_divided = np.zeros(100, dtype=np.float32)
    assert retrieval._quantile(none_divided, 0.9) == retrieval._quantile(none_divided[:0], 0.9) == retrieval.MARGIN


def test_a_few_new_questions_are_compared_with_all_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "EXACT", 0)
    found = find_matches(VECTORS[:50], 0.8, others=VECTORS)
    assert (found.recall, found.sampled) == (1, 0)


def test_nothing_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "EXACT", 0)
    monkeypatch.setattr(retrieval, "lists_for", lambda m: 20)
    found = find_matches(VECTORS[:2000], 0.99999)
    assert len(found) == found.sampled == 0
    assert np.isnan(found.recall)
    assert list(clusters(5, found)) == [0, 1, 2, 3, 4]


def test_far_too_many_pairs_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "MOST_PAIRS", 1000)
    with pytest.raises(UserError, match=r"over 1,000 pairs are at or above -1\.000"):
        find_matches(VECTORS[:200], -1.0)


# Clusters


def graph(*edges: tuple[int, int, float]) -> Matches:
    left, right, similarity = zip(*sorted(edges), strict=True)
    return Matches(np.array(left), np.array(right), np.array(similarity, dtype=np.float32))


def test_a_long_string_of_likes_is_cut() -> None:
    chain = graph((0, 1, 0.9), (1, 2, 0.9), (2, 3, 0.9))
    assert list(clusters(4, chain)) == [1, 1, 1, 3]
    assert list(clusters(4, chain, "single")) == [1, 1, 1, 1]


def test_each_goes_to_the_most_similar_of_those_that_are_kept() -> None:
    stars = graph((0, 1, 0.9), (0, 2, 0.9), (0, 3, 0.8), (3, 4, 0.95), (4, 5, 0.9), (4, 6, 0.9))
    assert list(clusters(7, stars)) == [0, 0, 0, 4, 4, 4, 4]


edges = st.dictionaries(
    st.tuples(st.integers(0, 14), st.integers(0, 14)).filter(lambda e: e[0] < e[1]), st.sampled_from([0.8, 0.9, 1.0])
)


@settings(max_examples=200, deadline=None)
@given(edges.filter(bool))
def test_stars_are_what_they_promise(weights: dict[tuple[int, int], float]) -> None:
    found = graph(*((a, b, s) for (a, b), s in weights.items()))
    star, single = clusters(15, found), clusters(15, found, "single")
    linked = {(a, b) for a, b in weights} | {(b, a) for a, b in weights}
    kept = set(star.tolist())
    for question, head in enumerate(star.tolist()):
        assert question == head or (question, head) in linked  # like the one that is kept, not like a like of it
        assert star[head] == head
    assert not any((a, b) in linked for a in kept for b in kept)
    component = components(15, found.left, found.right)
    assert (component[:, None] == component).tolist() == (single[:, None] == single).tolist()


# A corpus


def known(*texts: str) -> dict[str, np.ndarray]:
    """A vector for each text: equal first words mean equal but for a small angle."""
    random = np.random.default_rng(0)
    themes: dict[str, np.ndarray] = {}
    vectors = {}
    for text in texts:
        theme = themes.setdefault(text.split()[0].lower(), random.standard_normal(64))
        vector = theme + 0.1 * random.standard_normal(64)
        vectors[text] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return vectors


def encoder(vectors: dict[str, np.ndarray], encoded: list[str]):
    def encode(texts: Sequence[str]) -> np.ndarray:
        encoded.extend(texts)
        return np.stack([vectors[text] for text in texts])

    return encode


CORPUS = ["pay how", "c is what", "PAY  how", "c++ is what", "pay when", "boat", "pay how"]


def test_rows_that_read_the_same_are_one_question_and_one_of_each_cluster_is_kept() -> None:
    encoded: list[str] = []
    found = dedupe(CORPUS, encoder(known(*CORPUS), encoded), 0.9)
    assert encoded == ["pay how", "c is what", "c++ is what", "pay when", "boat"]  # C and C++ are two languages
    assert found.question.tolist() == [0, 1, 0, 2, 3, 4, 0]
    assert found.representative.tolist() == [0, 1, 2, 0, 4]
    assert found.kept.tolist() == [0, 1, 3, 5]
    vectors = known(*CORPUS)
    assert found.similarity[3] == pytest.approx(vectors["pay how"] @ vectors["pay when"], abs=1e-6)


def test_what_another_corpus_asks_already_is_left_out() -> None:
    old = ["boat old", "nothing", "boat oar", "boat old"]
    vectors = known(*CORPUS, *old)
    found = dedupe(CORPUS, encoder(vectors, []), 0.9, against=old)
    best = max((0, 2), key=lambda row: vectors["boat"] @ vectors[old[row]])
    assert [(int(found.first[a]), int(b)) for a, b in pairs_of(found.asked)] == [(5, best)]
    assert found.kept.tolist() == [0, 1, 3]
    grown = old + [CORPUS[row] for row in found.kept]
    again = dedupe(CORPUS, encoder(vectors, []), 0.9, against=grown)
    assert again.kept.tolist() == []


def test_only_what_is_not_stored_is_encoded(tmp_path: Path) -> None:
    vectors = clustered(100, 8)
    model = a_model(vectors)
    kept = embedded(tmp_path, model, range(90))
    model.encoder.encoded.clear()
    np.testing.assert_array_equal(stored(kept, model)(["t7", "t95", "t3", "t89"]), vectors[[7, 95, 3, 89]])
    assert model.encoder.encoded == ["t95"]
    with pytest.raises(UserError, match="c" * 16):
        stored(embedded(tmp_path / "c", a_model(vectors, "c" * 16), range(3)), model)


def test_two_towers_have_no_duplicates_within_a_corpus() -> None:
    vectors = clustered(10)
    require_one_tower(a_model(vectors))
    for model in (a_model(vectors, towers=2), a_model(vectors, symmetric=False)):
        with pytest.raises(UserError, match="one encoder"):
            require_one_tower(model)


# Search


def test_search_gives_probability_and_verdict(tmp_path: Path) -> None:
    vectors = clustered(200)
    model = a_model(vectors)
    build_index(embedded(tmp_path, model, range(100)), tmp_path / "idx")
    opened = open_index(tmp_path / "idx")
    (answers,) = search(opened, model, ["t150"], 5, 0.9)
    cosines = np.sort(vectors[:100] @ vectors[150])[:-6:-1]
    assert [a.hit.similarity for a in answers] == pytest.approx(cosines.tolist(), abs=1e-6)
    assert [a.probability for a in answers] == pytest.approx(model.verdict.pair.probability(cosines).tolist(), abs=1e-5)
    assert [a.duplicate for a in answers] == (cosines >= 0.9).tolist()
    assert [a.duplicate for a in search(opened, model, ["t150"], 5)[0]] == (
        cosines >= model.verdict.pair.threshold
    ).tolist()
    with pytest.raises(UserError, match="d" * 16):
        search(opened, a_model(vectors, "d" * 16), ["t1"])


def test_the_other_tower_searches(tmp_path: Path) -> None:
    vectors = clustered(50)
    one_way = a_model(vectors, towers=2, symmetric=False)
    for side in ("left", "right"):
        build_index(embedded(tmp_path / side, one_way, range(50), side), tmp_path / side / "idx")
        (answers,) = search(open_index(tmp_path / side / "idx"), one_way, ["t7"], 50)
        assert answers[-1].hit.text == "t7"  # the right tower sees everything upside down
        assert answers[-1].hit.similarity == pytest.approx(-1, abs=1e-6)
    with pytest.raises(UserError, match="--no-symmetric"):
        search(open_index(tmp_path / "left" / "idx"), a_model(vectors, towers=2), ["t7"])


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


def test_dedupe_at_the_threshold_of_a_precision(run, checkpoint: Path, corpus: Path, monkeypatch) -> None:
    file = checkpoint / "qpairs.json"
    before = file.read_text()
    data = json.loads(before)
    data["verdict"]["pair"]["operating_points"] = [{"precision": 0.9, "threshold": 0.97, "recall": 0.1}]
    file.write_text(json.dumps(data))
    try:
        assert isinstance(qpairs.load(checkpoint).verdict.pair.operating_points[0], OperatingPoint)
        command = ("dedupe", checkpoint, corpus, "--text-column", "q", "--output")
        assert "at or above 0.970" in run(*command, "a", "--precision", "0.9").out
        refused(run(*command, "b", "--precision", "0.99"), "0.99")
    finally:
        file.write_text(before)
    assert f"at or above {data['verdict']['pair']['threshold']:.3f}" in run(*command, "c").out


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
    Path("lines.txt").write_text("a\na\nb\n")
    assert run("dedupe", checkpoint, "lines.txt", "--output", "y", "--threshold", "1").code == 0
    assert Path("y/kept.csv").read_text() == "text\na\nb\n"
