"""Clusters that people mend: every change is on the disk, can be undone, and is in the exported files."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pandas
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from test_index import a_model, clustered, embedded

from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_folder, keep_others
from qpairs.core.shapes import Shape
from qpairs.data.corpus import read_corpus
from qpairs.models.shortened import shorten
from qpairs.retrieval.corpus import dedupe_corpus
from qpairs.retrieval.embed import embed
from qpairs.retrieval.large import dedupe_embeddings
from qpairs.serving import clusters as serving_clusters
from qpairs.serving.app import create_app
from qpairs.serving.cluster_files import SourceChanged
from qpairs.serving.clusters import ClusterReview, ReviewedFolder
from qpairs.serving.journal_file import JournalFile, open_journal
from qpairs.serving.limits import READ_ONLY

VECTORS = clustered(60)
MODEL = a_model(VECTORS)


def encode(texts: Sequence[str]) -> np.ndarray:
    return VECTORS[[int(text[1:]) for text in texts]]


@pytest.fixture(scope="module")
def threshold() -> float:
    """One that gives some clusters, and leaves some questions alone."""
    cosines = np.sort((VECTORS @ VECTORS.T)[np.triu_indices(60, 1)])
    return float(cosines[-60])


@pytest.fixture
def folder(tmp_path: Path, threshold: float) -> Path:
    """The duplicates of a file of 60 questions with ids."""
    lines = [f"q{row},t{row},{row * row}" for row in range(60)]
    (tmp_path / "questions.csv").write_text("\n".join(["id,question,votes", *lines]) + "\n")
    corpus = read_corpus(tmp_path / "questions.csv", id_column="id")
    dedupe_corpus(MODEL, corpus, threshold=threshold).write(tmp_path / "dups")
    return tmp_path / "dups"


HELD = ExitStack()


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    with HELD:
        yield


def opened(folder: Path) -> ClusterReview:
    """Clusters that are held until the tests of this file are done."""
    return HELD.enter_context(HELD.enter_context(closing(ReviewedFolder(folder, encode))).review())


def sets(review: ClusterReview) -> dict[int, set[int]]:
    """Row of the representative -> rows of the cluster."""
    page = review.page(limit=1000)
    assert all(cluster.size == len(cluster.members) for cluster in page.clusters)
    return {cluster.id: {member.row for member in cluster.members} for cluster in page.clusters}


def largest(review: ClusterReview) -> tuple[int, list[int]]:
    cluster = review.page(order="size").clusters[0]
    return cluster.id, [member.row for member in cluster.members]


def test_the_clusters_are_those_of_dedupe(folder: Path) -> None:
    table = pandas.read_csv(folder / "clusters.csv")
    review = opened(folder)
    assert sets(review) == {head: set(part["row"]) for head, part in table.groupby("cluster")}
    for cluster in review.page(limit=1000).clusters:
        assert cluster.members[0].row == cluster.id
        for member in cluster.members:
            assert member.id == f"q{member.row - 1}" and member.question == f"t{member.row - 1}"
            expected = VECTORS[member.row - 1] @ VECTORS[cluster.id - 1]
            assert member.similarity == pytest.approx(expected, abs=1e-5)


def test_changes_are_there_after_a_restart_and_undone_one_by_one(folder: Path) -> None:
    review = opened(folder)
    states = [sets(review)]
    head, rows = largest(review)
    assert len(rows) > 2
    review.represent(head, rows[1])
    states.append(sets(review))
    assert rows[1] in states[-1] and head not in states[-1]
    review.split(rows[1], [head, rows[2]])
    states.append(sets(review))
    assert states[-1][head] == {head, rows[2]}
    one, other = list(states[-1])[:2]
    review.merge(one, other)
    states.append(sets(review))
    assert states[-1][one] == states[-2][one] | states[-2][other]
    again = opened(folder)
    assert sets(again) == states[-1] and again.changes == 3
    for state in states[-2::-1]:
        again.undo()
        assert sets(again) == state
    with pytest.raises(LookupError, match="no change"):
        again.undo()
    assert sets(opened(folder)) == states[0]


def test_the_similarity_is_that_to_the_new_representative(folder: Path) -> None:
    review = opened(folder)
    head, rows = largest(review)
    review.represent(head, rows[-1])
    cluster = next(each for each in review.page(limit=1000).clusters if each.id == rows[-1])
    for member in cluster.members:
        expected = VECTORS[member.row - 1] @ VECTORS[rows[-1] - 1]
        assert member.similarity == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("large", [False, True])
def test_the_similarity_is_one_of_vectors_as_long_as_those_of_dedupe(tmp_path: Path, large: bool) -> None:
    (tmp_path / "q.csv").write_text("\n".join(["q", *(f"t{row}" for row in range(60))]) + "\n")
    made = embed(MODEL, tmp_path / "q.csv", tmp_path / "emb", text_column="q", dimension=8)
    if large:
        dedupe_embeddings(MODEL, made, tmp_path / "d", threshold=0.9)
    else:
        corpus = read_corpus(tmp_path / "q.csv", text_column="q")
        dedupe_corpus(MODEL, corpus, threshold=0.9, embeddings=made).write(tmp_path / "d")
    review = opened(tmp_path / "d")
    head, rows = largest(review)
    review.represent(head, rows[-1])
    cluster = next(each for each in review.page(limit=1000).clusters if each.id == rows[-1])
    short = shorten(VECTORS, 8)
    expected = [short[member.row - 1] @ short[rows[-1] - 1] for member in cluster.members]
    assert [member.similarity for member in cluster.members] == pytest.approx(expected, abs=1e-5)


def test_what_is_not_possible_is_refused_and_not_written(folder: Path) -> None:
    review = opened(folder)
    before, (head, rows) = sets(review), largest(review)
    foreign = next(row for other, members in before.items() if other != head for row in members)
    for act in (
        lambda: review.represent(head, foreign),
        lambda: review.represent(10**6, 1),
        lambda: review.split(head, rows),
        lambda: review.split(head, [rows[1], foreign]),
        lambda: review.merge(head, head),
        lambda: review.merge(head, 10**6),
    ):
        with pytest.raises(LookupError):
            act()
    assert sets(review) == before and review.changes == 0
    assert not any(path.stat().st_size for path in folder.glob("changes-*"))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whatever_is_done_every_row_is_in_one_cluster(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lines = [f"{head},{row},t{row},{int(row == head)},0.5" for head in (0, 10, 20) for row in range(head, head + 4)]
    (folder / "clusters.csv").write_text("\n".join(["cluster,row,question,representative,similarity", *lines]) + "\n")
    review = opened(folder)
    everything = set.union(*sets(review).values())
    for _ in range(data.draw(st.integers(0, 6))):
        now = sets(review)
        head = data.draw(st.sampled_from(sorted(now)))
        rows = sorted(now[head])
        match data.draw(st.sampled_from(["represent", "split", "merge", "undo"])):
            case "represent":
                review.represent(head, data.draw(st.sampled_from(rows)))
            case "split" if len(rows) > 1:
                review.split(head, data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=len(rows) - 1)))
            case "merge" if len(now) > 1:
                review.merge(head, data.draw(st.sampled_from(sorted(now.keys() - {head}))))
            case "undo" if review.changes:
                review.undo()
        after = sets(review)
        assert set.union(*after.values()) == everything
        assert sum(map(len, after.values())) == len(everything)
        assert all(head in rows for head, rows in after.items())
    assert sets(opened(folder)) == sets(review)


def test_the_exported_files_are_those_of_the_clusters_as_they_are(folder: Path) -> None:
    review = opened(folder)
    review.export()
    for name in ("kept.csv", "clusters.csv"):  # nothing was changed
        one, other = (pandas.read_csv(place / name) for place in (folder, folder / "edited"))
        pandas.testing.assert_frame_equal(one, other, atol=1e-5)
    head, rows = largest(review)
    review.represent(head, rows[1])
    review.split(rows[1], [rows[2]])
    review.export()
    kept = set(pandas.read_csv(folder / "edited" / "kept.csv")["id"])
    before = set(pandas.read_csv(folder / "kept.csv")["id"])
    assert kept == before - {f"q{head - 1}"} | {f"q{rows[1] - 1}", f"q{rows[2] - 1}"}
    assert pandas.read_csv(folder / "edited" / "kept.csv")["votes"].notna().all()
    table = pandas.read_csv(folder / "edited" / "clusters.csv")
    assert (table.groupby("cluster")["representative"].sum() == 1).all()
    assert rows[2] not in set(table["row"])  # alone


def test_each_process_sees_the_changes_of_others_before_its_own(folder: Path) -> None:
    """Each review has its own journal, as those of two processes; dedupe may exchange the folder meanwhile."""
    one, other = opened(folder), opened(folder)
    head, rows = largest(one)
    with atomic_folder(folder) as fresh:
        keep_others(folder, fresh, replaced=[])
    one.represent(head, rows[1])
    with pytest.raises(LookupError, match="no longer exists"):
        other.represent(head, rows[2])
    assert sets(other) == sets(one)
    other.split(rows[1], [rows[2]])
    one.undo()
    assert sets(one) == sets(opened(folder)) and one.changes == 1
    other.export()
    assert pandas.read_csv(folder / "edited" / "clusters.csv")["cluster"].isin(sets(one)).all()


def test_a_change_that_the_clusters_do_not_allow_is_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    review = opened(folder)
    head, rows = largest(review)
    review.represent(head, rows[1])
    (journal,) = folder.glob("changes-*")
    journal.write_bytes(2 * journal.read_bytes())  # as two processes wrote it that did not know of each other
    again = opened(folder)
    assert sets(again) == sets(review) and "change 2 of 2 does not fit these clusters" in caplog.text
    again.undo()
    assert sets(again) == sets(review)


def test_a_file_that_has_changed_since_is_refused(folder: Path) -> None:
    review = opened(folder)
    source = folder.parent / "questions.csv"
    before = source.read_text()
    source.write_text(before + "q60,t0,1\n")
    with pytest.raises(SourceChanged, match="61 rows, not the 60"):
        review.export()
    header, *rows = before.splitlines()
    source.write_text("\n".join([header, *reversed(rows)]) + "\n")  # as many, in another order
    with pytest.raises(SourceChanged, match="has another question in row"):
        review.export()
    source.write_text(before)
    review.export()
    source.unlink()
    with pytest.raises(SourceChanged, match="no such file"):
        review.export()


def exported(source: Path, threshold: float = 0.5, *, raw: bool = False, **reading: object) -> tuple[Path, Path]:
    """The folder of the duplicates of a file, and that of the files that are exported from it."""
    folder = source.parent / "d"
    dedupe_corpus(MODEL, read_corpus(source, **reading), threshold=threshold).write(folder, raw=raw)
    opened(folder).export()
    return folder, folder / "edited"


def test_cells_of_the_corpus_are_exported_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question,change\nt1,-5\nT1,+3\nt2,=A1\n")
    folder, edited = exported(tmp_path / "q.csv", 1.0)
    assert (edited / "kept.csv").read_text() == (folder / "kept.csv").read_text()
    assert "t1,-5\n" in (edited / "kept.csv").read_text()


@pytest.mark.parametrize("raw", [False, True])
def test_guarded_texts_are_shown_as_they_were_asked_and_exported_as_dedupe_wrote_them(
    tmp_path: Path, raw: bool
) -> None:
    (tmp_path / "q.csv").write_text("id,question\n=7,=x\n@8,= X\n9,'=y\n10,'= Y\n11,'tis\n12,'TIS\n")
    folder, edited = exported(tmp_path / "q.csv", 1.0, raw=raw, id_column="id")
    shown = {member.question for cluster in opened(folder).page().clusters for member in cluster.members}
    assert {"=x", "'=y", "'tis"} <= shown and not any(text.startswith("''") for text in shown)
    assert {"=7", "@8"} <= {member.id for cluster in opened(folder).page().clusters for member in cluster.members}
    one, other = (pandas.read_csv(place / "clusters.csv", dtype=str) for place in (folder, edited))
    pandas.testing.assert_frame_equal(one, other)
    assert (("=x" if raw else "'=x") in set(other["question"])) and ("=7" if raw else "'=7") in set(other["id"])


def test_a_file_with_bad_rows_and_a_named_column_is_exported(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("asked,question\nt1,a\n,b\nT1,c\nt2,d,e\nt3,f\n")
    folder, edited = exported(tmp_path / "q.csv", 1.0, text_column="asked", skip_bad_rows=True)
    assert (edited / "kept.csv").read_text() == (folder / "kept.csv").read_text()


@pytest.mark.parametrize("act", [lambda review: review.represent(1, 2), lambda review: review.split(1, [2])])
def test_no_row_of_a_question_that_the_other_file_has_is_exported(
    tmp_path: Path, act: Callable[[ClusterReview], None]
) -> None:
    (tmp_path / "q.csv").write_text("question\nt1\nT1\nt2\nt3\n")
    (tmp_path / "known.csv").write_text("question\nt1\n")
    corpus, known = read_corpus(tmp_path / "q.csv"), read_corpus(tmp_path / "known.csv")
    dedupe_corpus(MODEL, corpus, threshold=1.0, against=known).write(tmp_path / "d")
    review = opened(tmp_path / "d")
    act(review)
    review.export()
    assert (tmp_path / "d" / "edited" / "kept.csv").read_text() == "question\nt2\nt3\n"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_duplicates_of_a_folder_of_embeddings_are_exported(tmp_path: Path, threshold: float, kind: str) -> None:
    dedupe_embeddings(MODEL, embedded(tmp_path, MODEL, range(60)), tmp_path / "d", threshold=threshold, kind=kind)
    review = opened(tmp_path / "d")
    review.export()
    read = pandas.read_csv if kind == "csv" else pandas.read_parquet
    before, after = (read(place / f"kept.{kind}") for place in (tmp_path / "d", tmp_path / "d" / "edited"))
    pandas.testing.assert_frame_equal(before, after)
    head, rows = largest(review)
    review.represent(head, rows[1])
    review.export()
    kept = set(read(tmp_path / "d" / "edited" / f"kept.{kind}")["row"])
    assert kept == set(before["row"]) - {head} | {rows[1]}
    (tmp_path / "emb" / "manifest.json").unlink()
    with pytest.raises(SourceChanged, match="no embeddings here"):
        review.export()


def test_a_full_disk_is_not_taken_for_a_file_that_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise UserError("kept.csv: cannot be written (No space left on device)")

    monkeypatch.setattr(serving_clusters, "write_table", full)
    with TestClient(create_app(MODEL, clusters=folder)) as client:
        answer = client.post("/clusters/export", json={})
    assert answer.status_code == 503 and "see its log" in answer.json()["detail"]


def test_other_clusters_have_other_changes(folder: Path, threshold: float) -> None:
    place = ReviewedFolder(folder, encode)
    with place.review() as review:
        head, rows = largest(review)
        review.represent(head, rows[1])
    corpus = read_corpus(folder.parent / "questions.csv", id_column="id")
    old = (folder / "clusters.csv").read_bytes()
    dedupe_corpus(MODEL, corpus, threshold=threshold + 0.05).write(folder)
    with place.review() as review:
        assert review.changes == 0
    (folder / "clusters.csv").write_bytes(old)
    with place.review() as review:
        assert review.changes == 1
    place.close()


@pytest.mark.parametrize(
    "content", ["cluster,row\n1,1\n", "cluster,row,question,representative,similarity\n1,x,a,1,1\n"]
)
def test_a_file_that_is_none_of_clusters_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "clusters.csv").write_text(content)
    with pytest.raises(UserError, match="qpairs dedupe"):
        opened(tmp_path)


def test_the_routes_change_undo_and_export(folder: Path) -> None:
    with TestClient(create_app(MODEL, clusters=folder)) as client:
        assert client.get("/about").json()["views"] == ["clusters"]
        page = client.get("/clusters", params={"order": "size", "limit": 1}).json()
        (cluster,) = page["clusters"]
        rows = [member["row"] for member in cluster["members"]]
        body = {"cluster": cluster["id"], "rows": rows[1:2]}
        assert client.post("/clusters/split", json=body).json() == {"changes": 1}
        assert client.post("/clusters/split", json=body).status_code == 409
        assert client.get("/clusters").json()["removed"] == page["removed"] - 1
        found = client.get("/clusters", params={"text": cluster["members"][1]["question"] + " "}).json()
        assert any(rows[1] == each["id"] for each in found["clusters"])
        exported = client.post("/clusters/export", json={}).json()
        assert exported["files"] == ["kept.csv", "clusters.csv"]
        file = client.get("/clusters/files/kept.csv")
        assert file.content == (folder / "edited" / "kept.csv").read_bytes()
        assert client.get("/clusters/files/..%2fdedupe.json").status_code == 404
        assert client.post("/clusters/undo", json={}).json() == {"changes": 0}
        assert client.post("/clusters/undo", json={}).status_code == 409
        assert client.post("/clusters/merge", json={"cluster": "1", "other": 2}).status_code == 422
        (folder.parent / "questions.csv").unlink()
        refused = client.post("/clusters/export", json={})
        assert refused.status_code == 409 and str(folder.parent) not in refused.text
        assert "questions.csv" in refused.text


APART = [
    (1, 1, "How do I sort a list in C++?", 1, 1.0),
    (1, 2, "How do I sort a list in C#?", 0, 0.9),
    (1, 3, "How can I sort a list in C++?", 0, 0.95),
]


def test_members_that_differ_in_one_name_number_or_sign_alone_have_both_words(tmp_path: Path) -> None:
    table = pandas.DataFrame(APART, columns=["cluster", "row", "question", "representative", "similarity"])
    table.to_csv(tmp_path / "clusters.csv", index=False)
    with TestClient(create_app(MODEL, clusters=tmp_path)) as client:
        (cluster,) = client.get("/clusters").json()["clusters"]
    assert {member["row"]: member["differ"] for member in cluster["members"]} == {1: None, 2: ["C++", "C#"], 3: None}
    with (
        closing(ReviewedFolder(tmp_path, lambda texts: np.eye(2)[[0] * len(texts)])) as place,
        place.review() as review,
    ):
        review.represent(1, 2)
        (cluster,) = review.page().clusters
    assert {member.row: member.differ for member in cluster.members} == {2: None, 1: ("C#", "C++"), 3: None}


def test_the_file_is_found_from_another_folder(
    folder: Path, threshold: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dedupe_corpus(MODEL, read_corpus(Path("questions.csv"), id_column="id"), threshold=threshold).write(folder)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with TestClient(create_app(MODEL, clusters=folder)) as client:
        assert client.post("/clusters/export", json={}).status_code == 200


def test_a_read_only_service_shows_clusters_and_changes_none(folder: Path) -> None:
    with TestClient(create_app(MODEL, clusters=folder, read_only=True)) as client:
        (cluster, *_) = client.get("/clusters", params={"order": "size"}).json()["clusters"]
        body = {"cluster": cluster["id"], "rows": [cluster["members"][1]["row"]]}
        answer = client.post("/clusters/split", json=body)
        assert (answer.status_code, answer.json()["detail"]) == (403, READ_ONLY)
        assert client.get("/clusters", params={"order": "size"}).json()["changes"] == 0
        assert client.post("/score", json={"pairs": [["t1", "t2"]]}).status_code == 200
    assert not (folder / "edited").exists()
    assert not list(folder.glob("changes-*"))
    opened(folder).represent(cluster["id"], cluster["members"][1]["row"])
    (journal,) = folder.glob("changes-*")
    journal.write_bytes(journal.read_bytes() + b"torn")
    before = journal.read_bytes()
    with TestClient(create_app(MODEL, clusters=folder, read_only=True)) as client:
        assert client.get("/clusters").json()["changes"] == 1
    assert journal.read_bytes() == before


def test_clusters_that_are_replaced_wait_for_whoever_changes_the_old_ones(folder: Path) -> None:
    place, changes = ReviewedFolder(folder, encode), list[int]()

    def look() -> None:
        with place.review() as review:
            changes.append(review.changes)

    with closing(place):
        with place.review() as review:
            head, rows = largest(review)
            (folder / "clusters.csv").write_text((folder / "clusters.csv").read_text() + "\n")
            other = threading.Thread(target=look)
            other.start()
            other.join(0.2)
            review.represent(head, rows[1])  # its journal is open still
            assert review.changes == 1 and not changes
        other.join()
    assert changes == [0]


def test_the_service_closes_its_journal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = list[Path]()

    @contextmanager
    def noted(path: Path, *shape: Shape, **options: bool) -> Iterator[JournalFile]:
        with open_journal(path, *shape, **options) as journal:
            yield journal
        closed.append(path)

    monkeypatch.setattr(serving_clusters, "open_journal", noted)
    app = create_app(MODEL, clusters=folder)
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/clusters").status_code == 200
            before = len(closed)
        assert len(closed) == before + 1


def test_without_clusters_there_is_nothing_to_mend(tmp_path: Path) -> None:
    with TestClient(create_app(MODEL, clusters=tmp_path)) as client:
        assert client.get("/clusters").status_code == 404
    with TestClient(create_app(MODEL)) as client:
        assert client.get("/clusters").status_code == 404
        assert client.get("/about").json() == {"views": [], "examples": [], "read_only": False}
