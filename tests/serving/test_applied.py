"""What the page asks of a service beside searches: labels that are applied, names, links, and what may be changed."""

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import corpora
import pandas
import pytest
from conftest import refused
from fastapi.testclient import TestClient
from ready import tickets
from test_index import a_model, embedded

from qpairs.evaluation.calibrate_corpus import fit_corpus
from qpairs.retrieval.embed import embed
from qpairs.retrieval.index import Index, build_index, delete_from_index, open_index
from qpairs.serving.app import create_app
from qpairs.serving.journal import journalled
from qpairs.serving.limits import OPEN_PATHS
from qpairs.serving.refit import count_index

pytestmark = pytest.mark.usefixtures("ready_cache_of_tests")

VECTORS = corpora.questions(400)
MODEL = a_model(VECTORS, densities=corpora.fitted(seed=1))


@pytest.fixture(scope="module")
def folder_of_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build_index(embedded(folder, MODEL, range(300)), folder / "idx")
    return folder / "idx"


@pytest.fixture(scope="module")
def index(folder_of_index: Path) -> Index:
    return open_index(folder_of_index)


@pytest.fixture
def client(index: Index, tmp_path: Path) -> Iterator[TestClient]:
    app = create_app(MODEL, index, labels=tmp_path / "labels.csv", url_template="https://my.site/q/{id}")
    with TestClient(app) as client:
        yield client


def answer(client: TestClient, said: str, **more: str) -> dict[str, object]:
    pair = client.get("/labelling", params=more).json()["pair"]
    answered = client.post("/labelling/answer", json={**pair, "answer": said, **more})
    assert answered.status_code == 200, answered.text
    return dict(answered.json())


@pytest.mark.parametrize("times", [1, 4])
def test_questions_that_repeat_are_as_many_as_they_are(tmp_path: Path, times: int) -> None:
    rows = [{"text": f"t{row % 100}"} for row in range(100 * times)]
    build_index(embed(MODEL, rows, tmp_path / "emb"), tmp_path / "idx")
    counted = count_index(MODEL, open_index(tmp_path / "idx"))
    assert len(counted.texts) == 100
    assert {counts.n for counts in counted.counts.values()} == {100}
    delete_from_index(tmp_path / "idx", [str(row + 1) for row in range(100 * times) if row % 100 >= 5])
    few = count_index(MODEL, open_index(tmp_path / "idx"))
    assert (len(few.texts), {counts.n for counts in few.counts.values()}) == (5, {5})


def test_labels_are_applied_without_a_restart(client: TestClient) -> None:
    before = client.post("/search", json={"question": "t3"}).json()
    for _ in range(40):
        answer(client, "no")
    applied = client.post("/labelling/apply", json={}).json()
    assert applied["labels"] == 40 and applied["basis"] == "estimated from 40 labels of this corpus"
    after = client.post("/search", json={"question": "t3"}).json()
    assert after["threshold"] > before["threshold"]  # nobody called anything a duplicate
    near = [[hit["probability"] for hit in found["hits"][1:]] for found in (before, after)]
    assert sum(near[1]) < sum(near[0])
    assert client.get("/labelling").json()["last"]["answer"] == "no"
    for _ in range(40):
        client.post("/labelling/undo", json={})
    again = client.post("/labelling/apply", json={}).json()
    assert again["labels"] == 0


def test_a_corpus_is_counted_again_only_where_it_changed(
    folder_of_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"counted": 0, "fitted": 0}

    def told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr("qpairs.serving.refit.count_index", told("counted", count_index))
    monkeypatch.setattr("qpairs.serving.refit.fit_corpus", told("fitted", fit_corpus))

    def applied(client: TestClient) -> dict[str, int]:
        before = dict(calls)
        assert client.post("/labelling/apply", json={}).status_code == 200
        return {name: calls[name] - before[name] for name in calls}

    shutil.copytree(folder_of_index, tmp_path / "idx")
    with (
        journalled(tmp_path / "idx") as index,
        TestClient(create_app(MODEL, index, labels=tmp_path / "labels.csv")) as client,
    ):
        answer(client, "no")
        assert applied(client) == {"counted": 1, "fitted": 1}
        assert applied(client) == {"counted": 0, "fitted": 0}
        answer(client, "no")
        assert applied(client) == {"counted": 0, "fitted": 1}
        assert client.post("/questions", json={"questions": [{"text": "t350"}]}).status_code == 201
        assert applied(client) == {"counted": 1, "fitted": 1}
        assert client.delete("/questions/id1").status_code == 204
        assert client.delete("/questions/id1").status_code == 404
        assert applied(client) == {"counted": 1, "fitted": 1}


def test_labels_that_cannot_be_fitted_are_refused_and_change_nothing(client: TestClient) -> None:
    before = client.post("/search", json={"question": "t3"}).json()
    answer(client, "no", choice="random")
    refusal = client.post("/labelling/apply", json={})
    assert refusal.status_code == 409 and "all scores" in refusal.json()["detail"]
    assert client.post("/search", json={"question": "t3"}).json() == before


def test_people_give_their_names_with_their_answers(client: TestClient, tmp_path: Path) -> None:
    answer(client, "yes", annotator=" ana\u0007 b. ")
    answer(client, "no")
    table = pandas.read_csv(tmp_path / "labels.csv", keep_default_na=False)
    assert sorted(table["annotator"]) == ["", "ana b."]
    assert client.post("/labelling/undo", json={"annotator": "ana b."}).json()["duplicates"] == 0
    assert client.get("/labelling").json()["different"] == 1
    assert client.get("/labelling", params={"annotator": "x" * 101}).status_code == 422


def test_hits_have_the_addresses_of_their_questions(client: TestClient, index: Index) -> None:
    hits = client.post("/search", json={"question": "t3"}).json()["hits"]
    assert [hit["url"] for hit in hits] == [f"https://my.site/q/{hit['id']}" for hit in hits]
    with TestClient(create_app(MODEL, index)) as plain:
        assert {hit["url"] for hit in plain.post("/search", json={"question": "t3"}).json()["hits"]} == {None}


def test_a_read_only_service_changes_no_question(index: Index) -> None:
    with TestClient(create_app(MODEL, index, read_only=True)) as client:
        assert client.get("/about").json()["read_only"]
        assert client.post("/questions", json={"questions": [{"text": "t300"}]}).status_code == 403
        assert client.delete("/questions/id1").status_code == 403
        assert client.post("/search", json={"question": "t3"}).status_code == 200
        assert not any(path.startswith("/questions") for path in client.get("/openapi.json").json()["paths"])


def test_the_box_and_the_pages_are_open_and_texts_are_not(index: Index) -> None:
    with TestClient(create_app(MODEL, index, token="secret")) as client:
        assert all(client.get(path).status_code == 200 for path in OPEN_PATHS)
        assert client.get("/embed.js").headers["content-type"].startswith("text/javascript")
        assert client.get("/about").status_code == 401


def test_a_port_in_use_is_told_before_the_model_is_loaded(run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(run("serve", tmp_path / "no-model", "--port", port), f"127.0.0.1:{port}", "--port")


def test_what_others_may_do_and_what_comes_next_are_told_as_they_are(
    run, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpairs.serving.limits.run_server", lambda *_: None)
    serve = ["serve", plain, "--questions", tickets(tmp_path / "tickets.csv"), "--text-column", "title"]
    serve += ["--host", "0.0.0.0", "--port", 0]
    result = run(*serve)
    assert result.code == 0 and "can search and change the index: set QPAIRS_TOKEN" in result.err
    assert "--labels" not in result.out and "find the duplicates" in result.out
    result = run(*serve, "--read-only")
    assert result.code == 0 and "can ask this service: set QPAIRS_TOKEN" in result.err
    assert "--labels" not in result.out and "Open the address to search. Ctrl-C" in result.out


def test_options_that_do_not_go_together_are_refused(run, tmp_path: Path) -> None:
    refused(run("serve", "m", "--index", "i", "--url-template", "javascript:{id}", "--port", 0), "url-template", "http")
    refused(run("serve", "m", "--questions", "q.csv", "--clusters", "dups"), "--clusters")
    refused(run("serve", "m", "--index", "i", "--annotator", "ana"), "--labels")
    refused(run("serve", "m", "--index", "i", "--labels", "l.csv", "--read-only"), "--read-only", "--labels")
