import dataclasses
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import Result, refused
from mocks import MockModel

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.core.files import exclusive_lock
from qpairs.core.progress import Progress
from qpairs.metrics import Calibration
from qpairs.models.base import Model
from qpairs.models.verdict import PairSetting, Verdict
from qpairs.retrieval import index
from qpairs.retrieval.embed import embed
from qpairs.retrieval.embeddings import Embeddings
from qpairs.retrieval.index import (
    FILE,
    Hit,
    Manifest,
    add_to_index,
    build_index,
    delete_from_index,
    kinds,
    milvus,
    open_index,
    recall_measure,
)
from qpairs.retrieval.index.faiss import FaissIndex, max_threads
from qpairs.retrieval.index.milvus import MilvusIndex
from qpairs.retrieval.search import setting_for

DIMENSION = 20


def clustered(n: int, dimension: int = DIMENSION, spread: float = 0.35, seed: int = 0) -> np.ndarray:
    """Unit vectors (n, dimension) around n / 10 centres."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(1, n // 10), dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    noise = spread * random.standard_normal((n, dimension)) / np.sqrt(dimension)
    vectors = centres[random.integers(0, len(centres), n)] + noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Table:
    """An encoder that knows the vector of each text "t0", "t1", ...; the right tower sees them upside down."""

    def __init__(self, vectors: np.ndarray, towers: int = 1) -> None:
        self.vectors, self.towers, self.encoded = vectors, towers, list[str]()

    @property
    def dimension(self) -> int:
        return self.vectors.shape[1]

    def encode(self, texts: Sequence[str], side: str = "left") -> np.ndarray:
        self.encoded += texts
        rows = [int(text[1:]) if text[1:].isdigit() else 0 for text in texts]
        return self.vectors[rows] * (-1 if self.towers == 2 and side == "right" else 1)


def a_model(vectors: np.ndarray, fingerprint: str = "a" * 16, **options: object) -> MockModel:
    towers = options.pop("towers", 1)
    verdict = Verdict(PairSetting(0.8, Calibration(10, -8)), **options)
    return MockModel(Table(vectors, towers), verdict, fingerprint, one_tower=towers == 1)


def embedded(folder: Path, model: Model, rows: Sequence[int], side: str = "left") -> Embeddings:
    """The texts of some rows, whose ids are those of the rows, in small shards."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "q.csv"
    source.write_text("id,q\n" + "".join(f"id{row},t{row}\n" for row in rows))
    output = folder / "emb"
    return embed(model, source, output, text_column="q", id_column="id", shard_size=700, side=side)


VECTORS = clustered(3000)
BACKENDS = ["exact", "ivf", "hnsw", "milvus"]


def build(tmp_path: Path, backend: str, rows: Sequence[int] = range(2000), **options: object) -> Path:
    """An index of some of the rows."""
    if backend == "milvus":
        options |= {"address": f"milvus:{tmp_path}/v.db"}
    else:
        options |= {"kind": backend}
    build_index(embedded(tmp_path / "a", a_model(VECTORS), rows), tmp_path / "idx", **options)
    return tmp_path / "idx"


def found(folder: Path, rows: Sequence[int], k: int = 5) -> list[list[str]]:
    opened = open_index(folder)
    hits = opened.questions.search(VECTORS[list(rows)], k)
    return [[hit.id for hit in row] for row in hits]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_kind_finds_what_comparing_all_finds(backend: str, tmp_path: Path) -> None:
    folder = build(tmp_path, backend)
    opened = open_index(folder)
    queries = VECTORS[2000:2200]
    hits = opened.questions.search(queries, 10)
    cosines = queries @ VECTORS[:2000].T
    right = 0
    for row, expected in zip(hits, np.argsort(-cosines, axis=1)[:, :10], strict=True):
        right += len({hit.id for hit in row} & {f"id{i}" for i in expected})
        assert [hit.similarity for hit in row] == sorted((hit.similarity for hit in row), reverse=True)
    assert right / 2000 >= (1 if backend in ("exact", "milvus") else 0.97)
    assert opened.manifest.recall >= 0.97
    assert (opened.manifest.count, len(opened.questions)) == (2000, 2000)
    if backend != "milvus":
        assert opened.questions._questions["id"].num_chunks == 1  # or a search is ten times as long
    for q, row in enumerate(hits):
        for hit in row:
            assert hit.similarity == pytest.approx(cosines[q, int(hit.id[2:])], abs=1e-3)
            assert hit.text == f"t{hit.id[2:]}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_adding_and_deleting_change_what_is_found(backend: str, tmp_path: Path) -> None:
    folder = build(tmp_path, backend, range(1000))
    vectors = [file for file in folder.iterdir() if file.suffix == ".faiss"]
    manifest, deleted = delete_from_index(folder, ["id3", "id4", "nothing"])
    assert (deleted, manifest.count) == (2, 998)
    assert all(file.exists() for file in vectors)  # nothing was built anew
    assert not {"id3", "id4"} & {name for row in found(folder, [3, 4]) for name in row}
    manifest = add_to_index(folder, embedded(tmp_path / "b", a_model(VECTORS), [3, *range(1000, 1100)]))
    assert manifest.count == 1099
    assert [row[0] for row in found(folder, [3, 1005, 5])] == ["id3", "id1005", "id5"]
    with pytest.raises(UserError, match="'id7'"):
        add_to_index(folder, embedded(tmp_path / "c", a_model(VECTORS), [2000, 7]))
    if backend != "milvus":
        assert open_index(folder).manifest == manifest
        assert "id2000" not in found(folder, [2000])[0]


def test_the_kind_is_chosen_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = embedded(tmp_path, a_model(VECTORS), range(500))
    assert build_index(embeddings, tmp_path / "small").kind == "exact"
    monkeypatch.setattr(kinds, "SMALL", 499)
    assert build_index(embeddings, tmp_path / "large").kind == "ivf"


def test_equal_questions_do_not_lower_the_recall(tmp_path: Path) -> None:
    vectors = np.repeat(clustered(30), 40, axis=0)
    made = build_index(embedded(tmp_path, a_model(vectors), range(1200)), tmp_path / "idx", kind="exact")
    assert made.recall == 1


def test_recall_is_low_where_a_search_finds_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = embedded(tmp_path, a_model(VECTORS), range(2000))

    class Blind(FaissIndex):
        def search(self, vectors: np.ndarray, k: int, **options: object) -> list[list[index.Hit]]:
            return [row[: 1 + self._effort] for row in super().search(vectors, k)]

    manifest = build_index(embeddings, tmp_path / "idx")
    blind = Blind.open(tmp_path / "idx", manifest, growing=False)
    measure = recall_measure(blind, embeddings)
    for efforts, expected in (((3,), (3, 0.3)), ((3, 10, 20), (10, 1.0))):
        monkeypatch.setitem(kinds.EFFORTS, "exact", efforts)
        assert blind.tune(measure) == pytest.approx(expected[1], abs=0.01)
        assert blind._effort == expected[0]


def test_few_questions_and_few_numbers(tmp_path: Path) -> None:
    vectors = clustered(3, 3)
    for kind in ("exact", "ivf", "hnsw"):
        build_index(embedded(tmp_path / kind, a_model(vectors), range(2)), tmp_path / kind / "idx", kind=kind)
        opened = open_index(tmp_path / kind / "idx")
        (hits,) = opened.questions.search(vectors[:1], 10)
        assert [hit.id for hit in hits] == ["id0", "id1"]


def test_another_model_is_refused_by_its_fingerprint(tmp_path: Path) -> None:
    folder = build(tmp_path, "exact", range(50))
    with pytest.raises(UserError, match="b" * 16):
        add_to_index(folder, embedded(tmp_path / "b", a_model(VECTORS, "b" * 16), [60]))
    other = a_model(clustered(10, 8))
    with pytest.raises(UserError, match="--dim 8"):
        add_to_index(folder, embedded(tmp_path / "c", other, [5]))


def test_the_second_of_two_writers_is_refused(tmp_path: Path) -> None:
    folder = build(tmp_path, "exact", range(50))
    more = embedded(tmp_path / "b", a_model(VECTORS), [60])
    with exclusive_lock(folder):
        for change in (lambda: add_to_index(folder, more), lambda: delete_from_index(folder, ["id1"])):
            with pytest.raises(UserError, match="another process"):
                change()
        assert found(folder, [1])[0][0] == "id1"  # readers need not wait


def test_what_a_killed_writer_left_is_not_in_the_index_and_goes_with_the_next_change(tmp_path: Path) -> None:
    folder = build(tmp_path, "ivf", range(500))
    before = found(folder, range(20))
    for left in ("vectors-2.faiss", "questions-2.arrow", ".new-1-vectors-2.faiss"):
        (folder / left).write_bytes(b"half")
    assert found(folder, range(20)) == before
    add_to_index(folder, embedded(tmp_path / "b", a_model(VECTORS), [600]))
    assert found(folder, [600])[0][0] == "id600"
    assert len([file for file in folder.iterdir() if file.name not in (".lock", FILE)]) == 3


def test_a_build_that_was_killed_is_built_anew_and_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "idx"
    folder.mkdir()
    (folder / "vectors-1.faiss").write_bytes(b"half")
    build(tmp_path, "exact", range(50))
    assert found(folder, [7])[0][0] == "id7"
    embeddings = embedded(tmp_path / "b", a_model(VECTORS), [1])
    with pytest.raises(UserError, match="--overwrite"):
        build_index(embeddings, folder)
    assert build_index(embeddings, folder, overwrite=True).count == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("important")
    with pytest.raises(UserError, match="does not hold an index"):
        build_index(embeddings, tmp_path / "mine", overwrite=True)


def test_a_full_disk_is_one_line_and_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    folder = build(tmp_path, "exact", range(500))
    more = embedded(tmp_path / "b", a_model(VECTORS), range(600, 700))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"vectors-2\.faiss: cannot be written"):
            add_to_index(folder, more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found(folder, [3])[0][0] == "id3"
    assert not list(folder.glob(".new-*"))
    assert add_to_index(folder, more).count == 600


@pytest.mark.parametrize("file", ["vectors-1.faiss", "questions-1.arrow", "deleted-1.npy", FILE])
def test_a_damaged_index_is_one_line(file: str, tmp_path: Path) -> None:
    folder = build(tmp_path, "ivf", range(500))
    content = (folder / file).read_bytes()
    for damaged in (b"", content[: len(content) // 2]):
        (folder / file).write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged|no index"):
            open_index(folder)


def test_ids_must_be_distinct(tmp_path: Path) -> None:
    for backend in ("exact", "milvus"):
        with pytest.raises(UserError, match="'id3'"):
            build(tmp_path / backend, backend, [*range(10), 3])


def test_milvus_that_does_not_answer_or_has_the_collection_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = embedded(tmp_path, a_model(VECTORS), range(10))
    with pytest.raises(UserError, match="milvus:http://localhost:1"):
        build_index(embeddings, tmp_path / "x", address="milvus:http://localhost:1")
    with pytest.raises(UserError, match="milvus:FILE"):
        build_index(embeddings, tmp_path / "y", address="qdrant:here")
    address = f"milvus:{tmp_path}/v.db#mine"
    build_index(embeddings, tmp_path / "a", address=address)
    with pytest.raises(UserError, match="collection exists already"):
        build_index(embeddings, tmp_path / "b", address=address)


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_no_more_is_asked_of_faiss_than_there_is(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_index(build(tmp_path, kind, range(3)))
    asked, nearest = [], FaissIndex._nearest

    def watched(self: FaissIndex, vectors: np.ndarray, k: int, threads: int | None) -> object:
        asked.append(k)
        return nearest(self, vectors, k, threads)

    monkeypatch.setattr(FaissIndex, "_nearest", watched)
    assert [len(row) for row in opened.questions.search(VECTORS[:2], 5_000)] == [3, 3]
    assert [len(row) for row in opened.questions.search(VECTORS[:2], 2)] == [2, 2]
    assert asked == [3, 2]
    opened.questions.delete(["id0", "id1", "id2"])
    assert opened.questions.search(VECTORS[:1], 5_000) == [[]]


def test_more_than_milvus_finds_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_index(build(tmp_path, "milvus", range(20)))
    assert len(opened.questions.search(VECTORS[:1], 1_000_000)[0]) == 20
    monkeypatch.setattr(milvus, "MOST_HITS", 10)
    assert len(opened.questions.search(VECTORS[:1], 10)[0]) == 10
    with pytest.raises(UserError, match="k is 1,000,000, must be 1 <= k <= 10"):
        opened.questions.search(VECTORS[:1], 1_000_000)


class InMemory:
    """A whole back end: unit vectors in a list, which is kept under its address."""

    patterns = ()
    kept: ClassVar[dict[str, "InMemory"]] = {}

    def __init__(self, address: str) -> None:
        self.address, self.rows = address, list[tuple[str, str, np.ndarray]]()

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, embeddings: Embeddings, *, overwrite: bool) -> "InMemory":
        return cls.kept.setdefault(manifest.address, cls(manifest.address))

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, *, growing: bool) -> "InMemory":
        return cls.kept[manifest.address]

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, ids: Sequence[str], texts: Sequence[str], vectors: np.ndarray) -> None:
        self.rows += zip(ids, texts, vectors, strict=True)

    def known(self, ids: Sequence[str]) -> list[str]:
        return [name for name, _, _ in self.rows if name in ids]

    def delete(self, ids: Sequence[str]) -> int:
        before, self.rows = len(self), [row for row in self.rows if row[0] not in ids]
        return before - len(self)

    def texts(self) -> Iterator[str]:
        return (text for _, text, _ in self.rows)

    def search(self, vectors: np.ndarray, k: int, *, threads: int | None = None) -> list[list[Hit]]:
        cosines = vectors @ np.stack([vector for _, _, vector in self.rows]).T
        order = np.argsort(-cosines, axis=1)[:, :k]
        return [
            [Hit(*self.rows[at][:2], float(row[at])) for at in best] for row, best in zip(cosines, order, strict=True)
        ]

    def tune(self, measure: Callable[[], float]) -> float:
        return measure()

    def save(self, manifest: Manifest) -> Manifest:
        return dataclasses.replace(manifest, count=len(self), state={"saved": 1 + manifest.state.get("saved", 0)})

    def files(self) -> Sequence[str]:
        return ()


def test_a_back_end_is_a_class_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(index.BACK_ENDS, "memory", InMemory)
    model, folder, reports = a_model(VECTORS), tmp_path / "idx", list[Progress]()
    embeddings = embedded(tmp_path / "a", model, range(100))
    made = build_index(embeddings, folder, address="memory:here", on_progress=reports.append)
    assert (made.count, made.recall, made.address, made.state) == (100, 1.0, "memory:here", {"saved": 1})
    assert list(dict.fromkeys(now.stage for now in reports)) == ["indexing", "measuring", "writing"]
    assert add_to_index(folder, embedded(tmp_path / "b", model, [200])).count == 101
    manifest, deleted = delete_from_index(folder, ["id3", "nothing"])
    assert (deleted, manifest.count, manifest.state) == (1, 100, {"saved": 3})
    assert open_index(folder).manifest == manifest
    assert [row[0] for row in found(folder, [200, 5])] == ["id200", "id5"]
    (answers,) = qpairs.search(open_index(folder), model, ["t5"], 2)
    assert (answers[0].hit.id, answers[0].duplicate) == ("id5", True)
    assert sorted(entry.name for entry in folder.iterdir()) == [".lock", FILE]
    assert build_index(embeddings, folder, overwrite=True).state["generation"] == 1  # FAISS takes its place


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_threads_share_the_queries_of_a_search_and_find_the_same(tmp_path: Path, kind: str) -> None:
    opened, threads = open_index(build(tmp_path, kind, range(500))), max_threads()
    opened.questions.delete(["id3", "id7"])
    expected = opened.questions.search(VECTORS[:20], 5)
    assert {hit.id for row in expected for hit in row}.isdisjoint({"id3", "id7"})
    for shared in (1, 2, 3, 50):  # more than there are queries, too
        found = opened.questions.search(VECTORS[:20], 5, threads=shared)
        assert [[hit.id for hit in row] for row in found] == [[hit.id for hit in row] for row in expected]
        assert np.allclose(
            [[hit.similarity for hit in row] for row in found], [[hit.similarity for hit in row] for row in expected]
        )
    assert opened.questions.search(VECTORS[:0], 5, threads=2) == []
    assert max_threads() == threads


def test_the_threads_of_a_search_do_not_keep_a_core_busy_when_it_is_over(tmp_path: Path) -> None:
    """OpenMP's would, for milliseconds, in which a service encodes the next questions."""
    opened = open_index(build(tmp_path, "ivf"))

    def busy() -> float:
        """Seconds of the processor in the 5 ms after a search, while this thread sleeps."""
        opened.questions.search(VECTORS[:8], 5, threads=2)
        before = time.process_time()
        time.sleep(0.005)
        return time.process_time() - before

    assert statistics.median(busy() for _ in range(20)) < 0.001


def test_a_collection_that_is_not_loaded_is_loaded(tmp_path: Path) -> None:
    folder = build(tmp_path, "milvus", range(50))
    expected = found(folder, [7], 3)
    MilvusIndex(open_index(folder).manifest)._client.release_collection("qpairs")  # as in a new process
    assert found(folder, [7], 3) == expected


def test_an_index_that_is_saved_while_it_is_opened_is_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opened, manifests = build(tmp_path, "exact", range(50)), index._open, list[int]()

    def disturbed(place: Path, manifest: Manifest, **more: bool) -> object:
        manifests.append(manifest.count)
        if len(manifests) == 1:
            monkeypatch.setattr(index, "_open", opened)
            delete_from_index(folder, ["id7"])  # and the files that `manifest` names are gone
            monkeypatch.setattr(index, "_open", disturbed)
        return opened(place, manifest, **more)

    monkeypatch.setattr(index, "_open", disturbed)
    assert open_index(folder).manifest.count == 49
    assert manifests == [50, 49]
    next(folder.glob("vectors-*.faiss")).unlink()
    with pytest.raises(UserError, match="is damaged"):
        open_index(folder)


# Commands


@pytest.fixture(scope="module")
def checkpoint(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "x"
    qpairs.train(data=str(pairs_csv), encoder="static", epochs=2, batch_size=16, output=str(output))
    return output


@pytest.fixture
def indexed(run, checkpoint: Path, sample_rows: list) -> list[str]:
    """The questions of an index `idx` of a checkpoint."""
    questions = sorted({" ".join(q.split()) for row in sample_rows for q in row[:2]})[:300]
    Path("q.txt").write_text("\n".join(questions))
    assert run("embed", checkpoint, "q.txt", "--output", "emb").code == 0
    result = run("index", "emb", "--output", "idx")
    assert result.code == 0, result.err
    assert "300 questions" in result.out
    assert "exact" in result.out
    return questions


def test_search_prints_text_similarity_probability_and_verdict(run, indexed: list[str], checkpoint: Path) -> None:
    result = run("search", "idx", indexed[5], "-k", "3")
    assert result.code == 0, result.err
    setting = setting_for(open_index("idx"), qpairs.load(checkpoint))
    for words in (
        "1.000",
        "1.00",  # the same text again
        f"{setting.threshold:.3f}",
        "a duplicate",
        indexed[5][:40],
        setting.precision_of,
    ):
        assert words in result.out
    assert "duplicate" not in run("search", "idx", indexed[5], "-k", "1", "--threshold", "1.1").out


def test_search_of_a_file_writes_every_hit(run, indexed: list[str], checkpoint: Path) -> None:
    import pandas

    Path("ask.csv").write_text("n,question\n" + "".join(f"{i},word {q!r}\n" for i, q in enumerate(["one", "two"])))
    for suffix in ("csv", "parquet"):
        result = run("search", "idx", "--file", "ask.csv", "--output", f"hits.{suffix}", "-k", "4")
        assert result.code == 0, result.err
    hits = pandas.read_csv("hits.csv")
    expected = ["question", "rank", "id", "text", "similarity", "probability", "duplicate", "verdict"]
    assert list(hits.columns) == expected
    assert (hits["verdict"].str.endswith("a duplicate") == hits["duplicate"]).all()
    assert list(hits["rank"]) == [1, 2, 3, 4] * 2
    model = qpairs.load(checkpoint)
    cosines = model.encode(["word 'one'"]) @ model.encode(indexed).T
    np.testing.assert_allclose(hits["similarity"][:4], np.sort(cosines[0])[:-5:-1], atol=1e-5)
    assert (hits["duplicate"] == (hits["similarity"] >= setting_for(open_index("idx"), model).threshold)).all()
    assert [indexed[int(i) - 1] for i in hits["id"]] == list(hits["text"])
    assert len(pandas.read_parquet("hits.parquet")) == 8
    Path("gaps.csv").write_text("n,question\n1,one\n2,\n")
    refused(run("search", "idx", "--file", "gaps.csv", "--output", "x.csv"), "row 2", "--skip-bad-rows")
    result = run("search", "idx", "--file", "gaps.csv", "--output", "x.csv", "--skip-bad-rows")
    assert result.code == 0 and "1 empty question" in result.out
    assert len(pandas.read_csv("x.csv")) == 10


def test_ids_that_come_later_from_a_column_are_known_to(tmp_path: Path) -> None:
    model = a_model(VECTORS)
    plain = [{"text": f"t{row}"} for row in range(40)]
    build_index(embed(model, plain, tmp_path / "a"), tmp_path / "i")
    assert open_index(tmp_path / "i").manifest.named_ids is False
    more = [{"text": f"t{row}", "number": float(row + 1)} for row in range(40, 60)]
    added = add_to_index(tmp_path / "i", embed(model, more, tmp_path / "b", text_column="text", id_column="number"))
    assert added.named_ids is True and open_index(tmp_path / "i").manifest == added
    assert open_index(tmp_path / "i").questions.known(["41"]) == ["41"]


def test_ids_from_a_column_are_shown_though_they_look_like_numbers_of_rows(run, checkpoint: Path) -> None:
    Path("ids.csv").write_text("id,question\n3,how do i pay\n1,who are you\n2,where is my card\n")
    for more, shown in (((), False), (("--id-column", "id"), True)):
        assert run("embed", checkpoint, "ids.csv", *more, "--output", "e", "--overwrite").code == 0
        assert run("index", "e", "--output", "i", "--overwrite").code == 0
        out = run("search", "i", "how do i pay", "-k", "1").out
        assert (" id " in out) == shown, out


def test_index_adds_and_deletes(run, indexed: list[str], checkpoint: Path) -> None:
    Path("gone.txt").write_text("1\n2\n\n")
    result = run("index", "idx", "--delete", "gone.txt")
    assert result.code == 0, result.err
    assert "2 questions deleted" in result.out
    assert "298 questions" in result.out
    refused(run("index", "idx", "--add", "emb"), "'3'", "--id-column")
    Path("more.csv").write_text("id,q\nx1,a new question\n")
    assert run("embed", checkpoint, "more.csv", "--text-column", "q", "--id-column", "id", "--output", "emb2").code == 0
    assert run("index", "idx", "--add", "emb2").code == 0
    assert "a new question" in run("search", "idx", "a new question", "-k", "1").out
    assert "299 questions" in run("index", "idx").out


def test_milvus_by_the_command(run, indexed: list[str]) -> None:
    result = run("index", "emb", "--output", "far", "--index", "milvus:v.db")
    assert result.code == 0, result.err
    assert "milvus:v.db#qpairs" in result.out
    found, here = (run("search", name, indexed[7], "-k", "2").out for name in ("far", "idx"))
    assert found.replace("--index far", "--index idx") == here


def test_bad_input_is_one_line(run, indexed: list[str], checkpoint: Path, tmp_path: Path) -> None:
    refused(run("index", "nowhere", "--output", "x"), "nowhere", "no embeddings")
    refused(run("index", "emb", "--output", "x", "--kind", "hsnw"), "hsnw", "'hnsw'")
    refused(run("index", "emb", "--output", "idx"), "--overwrite")
    refused(run("index", "emb", "--output", "x", "--add", "emb"), "use only one of --output, --add and --delete")
    refused(run("index", "idx", "--delete", "nowhere.txt"), "nowhere.txt")
    refused(run("search", "emb", "a"), "emb", "no index")
    refused(run("search", "idx"), "a question")
    refused(run("search", "idx", " "), "empty")
    refused(run("search", "idx", "a", "--threshold", "0.5", "--precision", "0.9"), "give only one of them")
    refused(run("search", "idx", "--file", "q.txt", "--output", "x.xls"), "x.xls")
    manifest = json.loads(Path("idx/index.json").read_text())
    Path("idx/index.json").write_text(json.dumps(manifest | {"model": "moved"}))
    refused(run("search", "idx", "a"), "moved", "--model")
    assert run("search", "idx", "a", "--model", checkpoint).code == 0
    Path("idx/index.json").write_text(json.dumps(manifest | {"fingerprint": "0" * 16}))
    refused(run("search", "idx", "a"), "0" * 16, "cannot be compared")
    assert isinstance(run("index", "idx"), Result)
