import contextlib
import http.client
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import corpora
import httpx2
import numpy as np
import pandas
import pytest
import schemathesis
from children import Ended, Started, start_script
from conftest import refused
from hypothesis import HealthCheck, settings
from ready import tickets
from schemathesis.specs.openapi.checks import unsupported_method
from starlette.testclient import TestClient
from test_index import VECTORS, Table, a_model, build, embedded

import qpairs
from qpairs.commands.serve import print_setting
from qpairs.core.exceptions import UserError
from qpairs.models.verdict import NO_DENSITIES, words
from qpairs.retrieval.index import build_index, open_index
from qpairs.retrieval.search import heading, search, setting_for
from qpairs.serving.app import create_app
from qpairs.serving.journal import FILE, journalled
from qpairs.serving.limits import Limits

CLI = Path(__file__).parents[2] / "cli.py"
COMMAND = """
import os
from huggingface_hub import constants
constants.HF_ASSETS_CACHE = os.environ.get("HF_ASSETS_CACHE", constants.HF_ASSETS_CACHE)  # imported before
from qpairs.commands import main
main()
"""
STORED = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("stored"), "exact")


@pytest.fixture
def folder(stored: Path, tmp_path: Path) -> Path:
    """An index of 2,000 questions, `t0` with id `id0` and so on."""
    return Path(shutil.copytree(stored, tmp_path / "idx"))


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with journalled(folder) as index, TestClient(create_app(a_model(VECTORS), index)) as client:
        yield client


class Slow(Table):
    """Encodes after `go` is set, and keeps the texts of each call."""

    def __init__(self) -> None:
        super().__init__(VECTORS)
        self.go, self.batches = threading.Event(), list[list[str]]()

    def encode(self, texts: Sequence[str], side: str = "left") -> np.ndarray:
        self.batches.append(list(texts))
        assert self.go.wait(10)
        return super().encode(texts, side)


@contextlib.contextmanager
def slow(**limits: Any) -> Iterator[tuple[TestClient, Slow, Callable[..., Any]]]:
    """A client of a slow service, its encoder, and what posts from a thread of its own."""
    encoder = Slow()
    app = create_app(replace(a_model(VECTORS), encoder=encoder), limits=Limits(**limits))
    with TestClient(app) as client, ThreadPoolExecutor(64) as pool:
        try:
            yield client, encoder, lambda path, body: pool.submit(client.post, path, json=body)
        finally:
            encoder.go.set()


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def metric(client: TestClient, name: str) -> float:
    return float(re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)[1])


def one_line(answer: Any) -> str:
    """The detail of an answer that reveals nothing of the implementation."""
    detail = answer.json()["detail"]
    assert set(answer.json()) == {"detail"}
    assert isinstance(detail, str)
    assert "\n" not in detail
    assert len(detail) <= 300
    for inside in ("Traceback", ".py", "/work", "/tmp", str(Path.home())):
        assert inside not in answer.text
    return detail


# Verdicts, searches, changes


def test_scores_are_cosines_with_the_verdict_of_the_model(client: TestClient) -> None:
    pairs = [[f"t{i}", f"t{j}"] for i in range(8) for j in range(8)]
    answer = client.post("/score", json={"pairs": pairs}).json()
    model = a_model(VECTORS)
    expected = (VECTORS[:8] @ VECTORS[:8].T).ravel()
    results = answer["results"]
    np.testing.assert_allclose([result["similarity"] for result in results], expected, atol=1e-6)
    np.testing.assert_allclose(
        [result["probability"] for result in results], model.verdict.pair.probability(expected), atol=1e-6
    )
    assert [result["duplicate"] for result in results] == [s >= model.verdict.pair.threshold for s in expected.tolist()]
    assert {True, False} == {result["duplicate"] for result in results}
    assert answer["threshold"] == model.verdict.pair.threshold
    assert [result["verdict"] for result in results] == [
        words(result["probability"], result["duplicate"]) for result in results
    ]


def test_hits_are_judged_by_the_corpus_of_the_index_and_pairs_as_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = corpora.questions(1000)
    model = a_model(vectors, densities=corpora.fitted(seed=1))
    build_index(embedded(tmp_path, model, range(500)), tmp_path / "idx")
    with journalled(tmp_path / "idx") as index:
        app = create_app(model, index)
        with TestClient(app) as client:
            (expected,) = search(index, model, ["t5"], 7)
            answer = client.post("/search", json={"question": "t5", "k": 7}).json()
            assert answer["of"] == "of a hit among 500 questions"
            assert answer["threshold"] == setting_for(index, model).threshold != model.verdict.pair.threshold
            assert answer["heading"] == heading(expected)
            for hit, found in zip(answer["hits"], expected, strict=True):
                assert (hit["duplicate"], hit["verdict"]) == (found.duplicate, found.verdict)
                assert hit["probability"] == pytest.approx(found.probability, abs=1e-4)
            scored = client.post("/score", json={"pairs": [["t5", "t4"]]}).json()
            assert scored["threshold"] == model.verdict.pair.threshold
            for start in range(500, 1000, 100):
                more = [{"id": f"id{row}", "text": f"t{row}"} for row in range(start, start + 100)]
                client.post("/questions", json={"questions": more})
            until(lambda: "1,000" in client.post("/search", json={"question": "t5"}).json()["of"])
    grown = open_index(tmp_path / "idx")
    assert setting_for(grown, model).precision_of == "of a hit among 1,000 questions"
    print_setting(grown, model)
    said = capsys.readouterr().out
    assert "probabilities are those of a hit among 1,000 questions" in said
    assert f"{setting_for(grown, model).threshold:.3f}" in said


def test_a_search_finds_what_the_library_finds(client: TestClient, folder: Path) -> None:
    (expected,) = search(open_index(folder), a_model(VECTORS), ["t5"], 7)
    answer = client.post("/search", json={"question": "t5", "k": 7}).json()
    assert [hit["id"] for hit in answer["hits"]] == [found.hit.id for found in expected]
    assert answer["hits"][0] == {
        "id": "id5",
        "text": "t5",
        "similarity": pytest.approx(1),
        "probability": pytest.approx(expected[0].probability),
        "duplicate": True,
        "verdict": expected[0].verdict,
        "url": None,
    }
    assert answer["heading"] == heading(expected)
    assert answer["of"] == "of pairs like those of validation"
    assert len(client.post("/search", json={"question": "t5"}).json()["hits"]) == 10


def test_of_a_side_of_its_own_the_index_is_searched_with_the_other(tmp_path: Path) -> None:
    model = a_model(VECTORS, towers=2, symmetric=False)
    build_index(embedded(tmp_path, model, range(50), side="right"), tmp_path / "idx")
    with journalled(tmp_path / "idx") as index, TestClient(create_app(model, index)) as client:
        client.post("/questions", json={"questions": [{"id": "new", "text": "t200"}]})
        (hit,) = client.post("/search", json={"question": "t200", "k": 100}).json()["hits"][-1:]
    assert (hit["id"], hit["similarity"]) == ("new", pytest.approx(-1)), "the right tower of this model is upside down"


def test_questions_come_and_go(client: TestClient) -> None:
    answer = client.post("/questions", json={"questions": [{"id": "ä/ b?#", "text": " t2500 "}, {"text": "t2501"}]})
    assert answer.status_code == 201
    given, made = answer.json()["ids"]
    assert (given, answer.json()["count"]) == ("ä/ b?#", 2002)
    assert [client.post("/search", json={"question": f"t{row}"}).json()["hits"][0]["id"] for row in (2500, 2501)] == [
        given,
        made,
    ]
    assert client.delete(f"/questions/{quote(given, safe='')}").status_code == 204
    gone = client.delete(f"/questions/{quote(given, safe='')}")
    assert (gone.status_code, one_line(gone)) == (404, "id 'ä/ b?#' is not in the index")
    assert client.post("/search", json={"question": "t2500"}).json()["hits"][0]["id"] != given
    assert client.get("/ready").json()["questions"] == 2001
    assert client.post("/questions", json={"questions": [{"id": given, "text": "t2502"}]}).status_code == 201


def test_an_id_that_exists_is_refused_with_all_that_came_with_it(client: TestClient) -> None:
    for ids, reason in ((["new", "id7"], "'id7' is in the index"), (["new", "new"], "'new' is in the request twice")):
        answer = client.post("/questions", json={"questions": [{"id": name, "text": "t2500"} for name in ids]})
        assert answer.status_code == 409
        assert reason in one_line(answer)
    assert client.get("/ready").json()["questions"] == 2000
    assert client.post("/search", json={"question": "t2500"}).json()["hits"][0]["id"] != "new"


def test_of_requests_for_one_id_at_once_one_is_taken(client: TestClient) -> None:
    def add(row: int) -> int:
        return client.post("/questions", json={"questions": [{"id": "one", "text": f"t{row}"}]}).status_code

    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(add, range(2100, 2116)))
    assert sorted(codes) == [201] + [409] * 15


def test_without_an_index_only_pairs_are_judged() -> None:
    with TestClient(create_app(a_model(VECTORS))) as client:
        assert client.post("/score", json={"pairs": [["t1", "t1"]]}).json()["results"][0]["duplicate"]
        ready = {"model": "model", "fingerprint": "a" * 16, "questions": None}
        ready |= {"threshold": 0.8, "threshold_of": "similarity"}
        assert client.get("/ready").json() == ready
        for answer in (
            client.post("/search", json={"question": "t1"}),
            client.post("/questions", json={"questions": [{"text": "t1"}]}),
            client.delete("/questions/x"),
        ):
            assert answer.status_code == 409
            assert "--index" in one_line(answer)


def test_a_model_that_cannot_judge_the_index_is_refused(folder: Path) -> None:
    for model, reason in (
        (a_model(VECTORS, fingerprint="b" * 16), "made by the model"),
        (a_model(VECTORS, towers=2), "both directions"),
        (a_model(VECTORS, score="head"), "head"),
    ):
        with pytest.raises(UserError, match=reason):
            create_app(model, open_index(folder))


# Together


def test_requests_that_arrive_together_are_encoded_together_each_text_once() -> None:
    with slow() as (client, encoder, post):
        futures = [post("/score", {"pairs": [["t0", "t1"]]})]
        until(lambda: len(encoder.batches) == 1)
        futures += [post("/score", {"pairs": [["t0", f"t{row % 9}"]]}) for row in range(20)]
        until(lambda: metric(client, "qpairs_queue_length") == 20)
        encoder.go.set()
        cosines = [future.result().json()["results"][0]["similarity"] for future in futures]
    np.testing.assert_allclose(cosines, VECTORS[0] @ VECTORS[[1, *(row % 9 for row in range(20))]].T, atol=1e-6)
    assert [len(batch) for batch in encoder.batches] == [2, 9]
    assert set(encoder.batches[1]) == {f"t{row}" for row in range(9)}


def test_batches_of_one_text_are_single_requests() -> None:
    with slow(batch=1) as (client, encoder, post):
        futures = [post("/score", {"pairs": [["t0", f"t{row}"]]}) for row in range(5)]
        until(lambda: metric(client, "qpairs_queue_length") == 4)
        encoder.go.set()
        assert all(future.result().status_code == 200 for future in futures)
        assert metric(client, "qpairs_batch_requests_count") == 5
        assert metric(client, "qpairs_batch_texts_sum") == 10


def test_sixty_four_requests_at_once_get_their_own_answers(client: TestClient) -> None:
    def ask(row: int) -> bool:
        if row % 2:
            return client.post("/search", json={"question": f"t{row}", "k": row}).json()["hits"][0]["id"] == f"id{row}"
        answer = client.post("/score", json={"pairs": [[f"t{row}", "t1"]]}).json()
        return answer["results"][0]["similarity"] == pytest.approx(float(VECTORS[row] @ VECTORS[1]), abs=1e-6)

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(ask, range(3, 67)))


# Limits


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/score", b'{"pairs": [[', "body"),
        ("/score", b"", "body"),
        ("/score", b"[1]", "body"),
        ("/score", b'{"pairs": [["\xff", "a"]]}', "not JSON in UTF-8"),
        ("/score", b'{"pairs": [["\\ud800", "a"]]}', "body.pairs.0.0"),
        ("/score", b"[" * 100_000, "not JSON"),
        ("/score", b'{"pairs": [["a"]]}', "body.pairs.0"),
        ("/score", b'{"pairs": [["a", "b", "c"]]}', "body.pairs.0"),
        ("/score", b'{"pairs": []}', "body.pairs"),
        ("/score", b'{"pairs": [["a", 1]]}', "body.pairs.0.1"),
        ("/score", b'{"pairs": [["a", "b"]], "/tmp\\nx": 1}', "not permitted"),
        ("/score", json.dumps({"pairs": [["a", "b"]] * 257}).encode(), "at most 256"),
        ("/score", json.dumps({"pairs": [["a", "b" * 2001]]}).encode(), "at most 2000"),
        ("/search", b'{"question": " \\t "}', "empty"),
        ("/search", b'{"question": "a", "k": "3"}', "body.k"),
        ("/search", b'{"question": "a", "k": 1e999}', "body.k"),
        ("/search", b'{"question": "a", "k": ' + b"9" * 10_000 + b"}", "not JSON"),
        ("/search", b'{"question": "a", "k": 0}', "body.k"),
        ("/questions", b'{"questions": [{"id": "", "text": "a"}]}', "body.questions.0.id"),
        ("/questions", b'{"questions": [{"id": "\\udfff", "text": "a"}]}', "body.questions.0.id"),
        ("/questions", b'{"questions": [{"id": "a\\nb", "text": "a"}]}', "the id has a line break"),
        ("/questions", b'{"questions": [{"id": "x"}]}', "body.questions.0.text"),
    ],
)
def test_a_body_that_is_none_is_refused_in_one_line(client: TestClient, path: str, body: bytes, reason: str) -> None:
    answer = client.post(path, content=body, headers=JSON)
    assert answer.status_code == 422
    if b"/tmp" not in body:
        assert reason in one_line(answer)
    assert client.get("/ready").json()["questions"] == 2000


def test_what_is_too_large_is_refused(client: TestClient, folder: Path) -> None:
    many = json.dumps({"questions": [{"text": f"t{row}"} for row in range(100_000)]}).encode()
    for body in (b"x" * 10_000_000, many, iter([b'{"pairs": [["', b"a" * 2_000_000, b'", "b"]]}'])):
        answer = client.post("/questions", content=body, headers=JSON)
        assert (answer.status_code, one_line(answer)) == (413, "the body has more than 1,000,000 bytes")
    with TestClient(create_app(a_model(VECTORS), open_index(folder), limits=Limits(body=10**8))) as client:
        answer = client.post("/questions", content=many, headers=JSON)
        assert answer.status_code == 422
        assert "at most 256" in one_line(answer)


def test_a_full_queue_says_when_to_come_back() -> None:
    with slow(queue=2) as (client, encoder, post):
        futures = [post("/score", {"pairs": [["t0", "t1"]]})]
        until(lambda: len(encoder.batches) == 1)
        futures += [post("/score", {"pairs": [["t0", "t1"]]}) for _ in range(2)]
        until(lambda: metric(client, "qpairs_queue_length") == 2)
        answer = client.post("/score", json={"pairs": [["t0", "t1"]]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "too many" in one_line(answer)
        encoder.go.set()
        assert [future.result().status_code for future in futures] == [200] * 3
        assert metric(client, 'qpairs_requests_total{path="/score",status="503"}') == 1
        assert metric(client, 'qpairs_requests_total{path="/score",status="200"}') == 3
        assert metric(client, 'qpairs_request_seconds_count{path="/score"}') == 4


def test_an_answer_that_takes_too_long_is_given_up_and_not_computed_later() -> None:
    with slow(seconds=0.3) as (client, encoder, post):
        futures = [post("/score", {"pairs": [["t0", "t1"]]})]
        until(lambda: len(encoder.batches) == 1)
        futures.append(post("/score", {"pairs": [["t2", "t3"]]}))
        for future in futures:
            assert future.result().status_code == 503
            assert "longer than 0.3 s" in one_line(future.result())
        encoder.go.set()
        assert client.post("/score", json={"pairs": [["t4", "t5"]]}).status_code == 200
    assert encoder.batches == [["t0", "t1"], ["t4", "t5"]]


def test_an_error_inside_is_told_to_the_log_alone(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    model = a_model(VECTORS[:3])
    with TestClient(create_app(model)) as client:
        answer = client.post("/score", json={"pairs": [["t0", "t99"]]})
        assert (answer.status_code, one_line(answer)) == (500, "the service failed; see its log")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert client.post("/score", json={"pairs": [["t0", "t1"]]}).status_code == 200
    assert "IndexError" in caplog.text


def test_a_full_disk_is_one_line_without_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with journalled(folder) as index, TestClient(create_app(a_model(VECTORS), index)) as client:
        monkeypatch.setattr(os, "fsync", full)
        answer = client.post("/questions", json={"questions": [{"id": "new", "text": "t2500"}]})
        assert answer.status_code == 503
        one_line(answer)
        monkeypatch.undo()
        assert client.get("/ready").json()["questions"] == 2000
        assert client.post("/questions", json={"questions": [{"id": "new", "text": "t2500"}]}).status_code == 201


# Token, pages, description


def test_a_token_is_asked_for_but_by_the_page_itself(folder: Path) -> None:
    with TestClient(create_app(a_model(VECTORS), open_index(folder), token="geheim-ü")) as client:
        for path in ("/ready", "/metrics"):
            for given in ("", "Bearer", "Bearer geheim", "Basic geheim-ü", "Bearer geheim-üü"):
                answer = client.get(path, headers={"authorization": given.encode()})
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert "token" in one_line(answer)
            assert client.get(path, headers={"authorization": "bearer geheim-ü".encode()}).status_code == 200
        assert client.post("/questions", content=b"x" * 3_000_000).status_code == 401
        assert client.post("/score", json={"pairs": [["t1", "t2"]]}).status_code == 401
        assert client.delete("/questions/id1").status_code == 401
        assert [client.get(path).status_code for path in ("/health", "/docs", "/openapi.json")] == [200] * 3
        assert "bearer" in client.get("/openapi.json").text.lower()


def test_every_answer_has_the_headers_of_a_careful_site(client: TestClient) -> None:
    for path in ("/health", "/docs", "/nothing", "/score", "/page/nothing"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize("path", ["/page", "/page/", "/page/..%2fservice.py", "/page/%2e%2e/service.py", "/page//etc"])
def test_no_folder_is_shown_and_nothing_outside_the_page(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 405)
    assert "import" not in answer.text


def test_the_page_is_at_the_root(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    used = re.findall(r'(?:src|href)="(/page/[^"]+)"', answer.text)
    assert used
    assert [client.get(path).status_code for path in used] == [200] * len(used)


def test_the_api_describes_itself_without_another_host(client: TestClient) -> None:
    page = client.get("/docs").text
    used = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {"/page/style.css", "/page/docs.css", "/page/docs.js"} <= set(used)
    assert [client.get(path).status_code for path in used] == [200] * len(used)
    assert "http" not in page + client.get("/page/docs.js").text
    assert "<script>" not in page, "the content security policy forbids inline scripts"
    described = client.get("/openapi.json").json()
    routes = {f"{method.upper()} {path}" for path, methods in described["paths"].items() for method in methods}
    expected = {"POST /score", "POST /search", "POST /questions", "DELETE /questions/{id}", "GET /metrics"}
    assert routes == expected | {"GET /health", "GET /ready", "GET /about"}
    assert '"maxItems": 256' in client.get("/openapi.json").text.replace('":256', '": 256')


def test_labelling_needs_the_same_token(folder: Path, tmp_path: Path) -> None:
    app = create_app(a_model(VECTORS), open_index(folder), labels=tmp_path / "labels.csv", token="x")
    with TestClient(app, headers={"authorization": "Bearer x"}) as client:
        pair = client.get("/labelling").json()["pair"]
        answered = client.post("/labelling/answer", json=pair | {"answer": "yes"})
        assert answered.status_code == 200
        wrong = client.post("/labelling/answer", json=pair | {"answer": "perhaps"})
        assert (wrong.status_code, "answer" in one_line(wrong)) == (422, True)
        assert "post" in client.get("/openapi.json").json()["paths"]["/labelling/answer"]
        client.headers = {}
        assert client.get("/labelling").status_code == 401
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 2
    with TestClient(create_app(a_model(VECTORS), open_index(folder))) as client:
        assert client.get("/labelling").status_code == 404


# The command, in a process of its own


class Anew:
    """As `Started`, of a command in a new interpreter, whose end is part of what is tested."""

    def __init__(self, arguments: Sequence[str]) -> None:
        command = [sys.executable, str(CLI), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self) -> str:
        return self.process.stdout.readline()

    def send(self, sent: signal.Signals) -> None:
        self.process.send_signal(sent)

    def wait(self) -> Ended:
        written = self.process.communicate(timeout=60)
        return Ended(self.process.returncode, *written)


@dataclass(frozen=True)
class Served:
    process: Started | Anew
    url: str

    def end(self, sent: signal.Signals) -> Ended:
        self.process.send(sent)
        return self.process.wait()

    def post(self, path: str, body: object, **options: Any) -> httpx2.Response:
        return httpx2.post(self.url + path, json=body, timeout=30, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=30, **options)

    def connect(self) -> socket.socket:
        place = urlsplit(self.url)
        return socket.create_connection((place.hostname, place.port), timeout=30)


@contextlib.contextmanager
def serving(*arguments: object, anew: bool = False, **environment: str) -> Iterator[Served]:
    words = ["serve", *map(str, arguments), "--port", "0"]
    process = Anew(words) if anew else start_script(COMMAND, *words, env=environment)
    try:
        line = process.line()
        assert "http" in line, process.wait()
        yield Served(process, re.search(r"http://\S+", line)[0])
    finally:
        process.send(signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static export, which starts quickly; beside it, another model's checkpoint."""
    folder = tmp_path_factory.mktemp("model")
    shutil.copytree(STORED / "one", folder / "checkpoint")
    return Path(shutil.copytree(STORED / "one-static", folder / "export"))


@pytest.fixture(scope="module")
def questions(model: Path, pairs_csv: Path) -> Path:
    texts = list(qpairs.load_pairs(pairs_csv).questions[:300])
    (model.parent / "q.txt").write_text("\n".join(texts), encoding="utf-8")
    build_index(qpairs.embed(model, model.parent / "q.txt", model.parent / "emb"), model.parent / "idx")
    return model.parent / "idx"


@pytest.fixture
def own(questions: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(questions, tmp_path / "idx"))


@pytest.fixture(scope="module")
def served(model: Path, questions: Path) -> Iterator[Served]:
    with serving(model, "--index", questions, "--timeout", "4") as served:
        yield served


def test_on_sigterm_what_was_begun_is_answered(model: Path, own: Path) -> None:
    body = json.dumps({"questions": [{"id": "new1", "text": "Is this kept?"}]}).encode()
    kind = "Host: localhost\r\nContent-Type: application/json"
    head = f"POST /questions HTTP/1.1\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(model, "--index", own, anew=True) as served, served.connect() as begun, served.connect() as idle:
        begun.sendall(head.encode() + body[:10])
        served.get("/health")  # by now the other request is being read
        served.process.send(signal.SIGTERM)
        assert idle.recv(1) == b""
        begun.sendall(body[10:])
        answer = begun.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 201 "), answer
        ended = served.process.wait()
        assert ended.returncode == 0
        assert ended.stderr.split() == ["WARNING", *NO_DENSITIES.split()], "it is an old model"
    assert (own / FILE).stat().st_size == 0, "a clean stop folds the journal"
    assert open_index(own).questions.known(["new1"])


def test_files_are_taken_over_the_network_and_a_stop_releases_the_session(plain: Path, tmp_path: Path) -> None:
    file, folder = tickets(tmp_path / "tickets.csv"), tmp_path / "uploads"
    limits = ("--uploads", folder, "--max-upload", 3_000_000, "--max-body", 100_000)
    with serving(plain, *limits, HF_ASSETS_CACHE=str(tmp_path / "cache")) as served:
        assert served.get("/about").json()["views"] == ["start"]
        large = file.read_bytes() + b'T9999,"What is said at length, in many words?",open\n' * 50_000  # 2.5 MB
        put = served.url + "/start/upload/tickets.csv"
        assert httpx2.put(put, content=b"x" * 10_000_000, timeout=30).status_code == 413
        assert httpx2.put(put, content=large, timeout=30).status_code == 202
        until(lambda: served.get("/start/upload").json()["work"] is None)
        assert httpx2.put(put, content=file.read_bytes(), timeout=30).status_code == 202
        until(lambda: served.get("/start/upload").json()["work"] is None)
        assert served.post("/start/open", {"text_column": "title"}).status_code == 202
        until(lambda: served.get("/start").status_code == 200, 60)
        assert served.post("/questions", {"questions": [{"id": "new1", "text": "Kept?"}]}).status_code == 201
        ended = served.end(signal.SIGINT)
        assert ended.returncode == 0
        assert "Traceback" not in ended.stderr
    (index,) = folder.glob("*/session-*/index")
    assert (index / FILE).stat().st_size == 0, "a clean stop folds the journal"
    assert open_index(index).questions.known(["new1"])


def test_a_service_that_anybody_reaches_takes_files_where_a_folder_is_named_alone(model: Path, tmp_path: Path) -> None:
    anybody = ("--host", "0.0.0.0")
    with serving(model, *anybody) as served:
        assert served.get("/start/upload").status_code == 404
    with serving(model, *anybody, "--uploads", tmp_path / "uploads") as served:
        assert served.get("/start/upload").json()["limit"] == 100_000_000
        assert "can send files: set QPAIRS_TOKEN" in served.end(signal.SIGTERM).stderr
    with serving(model, *anybody, QPAIRS_TOKEN="s3cret") as served:
        assert served.get("/start/upload").status_code == 401


def test_two_sigints_at_once_end_it_without_a_traceback(model: Path) -> None:
    with serving(model, anew=True) as served:
        served.get("/health")
        served.process.send(signal.SIGINT)
        ended = served.end(signal.SIGINT)
        assert ended.returncode == 0
        assert "Traceback" not in ended.stderr


@dataclass
class Acknowledged:
    """The ids that clients added, and those that they deleted, by the answers of the service."""

    there: set[str]
    gone: set[str]


def kill_while_adding(model: Path, folder: Path, after: float, done: Acknowledged) -> None:
    """Kills the service while four clients add and delete; all that it acknowledged must be there, and must load."""
    first, unsure, stop = len(done.there), set[str](), threading.Event()

    def work() -> None:
        with contextlib.suppress(httpx2.HTTPError), httpx2.Client(timeout=30) as client:
            for size in itertools.cycle((20, 1, 1)):
                if stop.is_set():
                    break
                ids = [uuid.uuid4().hex for _ in range(size)]
                body = {"questions": [{"id": name, "text": f"What is {name}?"} for name in ids]}
                assert client.post(f"{served.url}/questions", json=body).status_code == 201
                done.there.update(ids)
                if len(ids) > 1:
                    unsure.add(ids[0])
                    assert client.delete(f"{served.url}/questions/{ids[0]}").status_code == 204
                    done.gone.add(ids[0])

    with serving(model, "--index", folder) as served, ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(work) for _ in range(4)]
        until(lambda: len(done.there) > first)
        time.sleep(after)
        served.process.send(signal.SIGKILL)
        stop.set()
        for client in clients:
            client.result()
    done.there -= unsure
    with journalled(folder) as index:
        known = set(index.questions.known([*done.there, *done.gone]))
    assert known == done.there


def test_what_was_acknowledged_survives_sigkill(model: Path, own: Path) -> None:
    done = Acknowledged(set(), set())
    for after in (0.0, 0.03, 0.2):
        kill_while_adding(model, own, after, done)
    assert done.gone
    with serving(model, "--index", own) as served:
        assert served.get("/ready").json()["questions"] >= 300 + len(done.there)
    assert len(open_index(own).questions) >= 300 + len(done.there), "it is folded at the start, too"


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_hundred_kills(model: Path, own: Path) -> None:
    moments, done = random.Random(0), Acknowledged(set(), set())
    for _ in range(100):
        kill_while_adding(model, own, moments.uniform(0, 0.3), done)


def test_a_slow_client_is_cut_off_and_keeps_nobody_waiting(served: Served) -> None:
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n"
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(served.connect()) for _ in range(20)]
        begin = time.monotonic()
        for client in slow:
            client.sendall(head)
        for _ in range(3):
            for client in slow:
                client.sendall(b" ")
            asked = time.monotonic()
            assert served.post("/score", {"pairs": [["a b", "c d"]]}).status_code == 200
            assert time.monotonic() - asked < 3.5, "it does not wait until these are cut off"
        for client in slow:
            answer = client.makefile("rb").read()  # to the end: the connection is closed
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"the request took longer than 4 s to arrive"' in answer
        assert time.monotonic() - begin < 30


@pytest.mark.parametrize("begin", [b"", b"GET /hea"])
def test_a_client_that_never_finishes_its_header_is_cut_off(served: Served, begin: bytes) -> None:
    with served.connect() as client:
        client.sendall(begin)
        asked = time.monotonic()
        assert client.recv(1) == b""
        assert time.monotonic() - asked < 30


def test_a_connection_serves_many_requests(served: Served) -> None:
    place = urlsplit(served.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    for _ in range(3):
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"status":"alive"}'
    sock = connection.sock
    connection.request("GET", "/health")
    assert connection.sock is sock
    connection.close()


def test_a_client_that_sends_far_too_much_hears_why(served: Served) -> None:
    answer = httpx2.post(served.url + "/score", content=b"x" * 10_000_000, headers=JSON, timeout=30)
    assert answer.status_code == 413
    assert served.get("/health").status_code == 200


def test_sixty_four_clients_over_the_network(served: Served, questions: Path) -> None:
    texts = list(open_index(questions).questions.texts())[:64]
    with ThreadPoolExecutor(64) as pool, httpx2.Client(timeout=30, limits=httpx2.Limits(max_connections=64)) as client:
        bodies = [{"question": text, "k": 1} for text in texts]
        answers = pool.map(lambda body: client.post(f"{served.url}/search", json=body).json(), bodies)
        assert [answer["hits"][0]["similarity"] for answer in answers] == [pytest.approx(1, abs=1e-5)] * 64


def test_an_index_is_served_by_one_process(served: Served, model: Path, questions: Path, run) -> None:
    assert served.get("/health").status_code == 200
    refused(run("serve", model, "--index", questions, "--port", "0"), "another process is using this folder")
    port = urlsplit(served.url).port
    refused(run("serve", model, "--port", port), f"127.0.0.1:{port}", "in use", "--port")


def test_serve_refuses_in_one_line(run, model: Path, own: Path, tmp_path: Path) -> None:
    refused(run("serve", tmp_path / "gone"), "no such checkpoint or export folder")
    refused(run("serve", model, "--index", tmp_path), "no index in it")
    refused(run("serve", model, "--labels", "x.csv"), "--index")
    refused(run("serve", model.parent / "checkpoint", "--index", own), "made by the model")
    refused(run("serve", model, "--host", "nowhere.invalid"), "nowhere.invalid", "--host")
    refused(run("serve", model, "--index", own, "--uploads", tmp_path), "--uploads has no effect", "--index")
    refused(run("serve", model, "--allow-origin", "*"), "allow-origin", "https://my.site")


def test_a_token_comes_from_the_environment_and_its_lack_is_warned_of(model: Path) -> None:
    with serving(model, "--host", "0.0.0.0", QPAIRS_TOKEN="s3cret") as served:
        assert served.get("/ready").status_code == 401
        assert served.get("/ready", headers={"authorization": "Bearer s3cret"}).status_code == 200
        ended = served.end(signal.SIGINT)
        assert (ended.returncode, ended.stderr) == (0, "")
    with serving(model, "--host", "0.0.0.0") as served:
        assert served.get("/ready").status_code == 200
        assert "QPAIRS_TOKEN" in served.end(signal.SIGTERM).stderr


# The description


description = schemathesis.openapi.from_dict(create_app(a_model(VECTORS)).openapi())


@description.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_service_keeps_to_its_description(case: schemathesis.Case, served: Served) -> None:
    case.call_and_validate(base_url=served.url, excluded_checks=[unsupported_method])  # no form gets as far as its path


@pytest.mark.slow
def test_the_benchmark_measures_both_services(model: Path, pairs_csv: Path, tmp_path: Path) -> None:
    pandas.read_csv(pairs_csv).to_parquet(tmp_path / "pairs.parquet")
    options = ["--questions", "240", "--asked", "100", "--seconds", "1", "--minutes", "0.1", "--json", "out.json"]
    command = [sys.executable, str(CLI.parent / "benchmarks" / "serve.py"), "--model", str(model), *options]
    done = subprocess.run([*command, "--data", "pairs.parquet"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert {"date", "commit", "machine"} <= written.keys()
    assert [row["clients"] for row in written["rows"]] == [1, 1, 8, 8, 64, 64]
    together, alone = written["rows"][-2:]
    assert together["requests_per_batch"] > 4 > alone["requests_per_batch"] == 1
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in written["rows"])
    assert written["memory"]["mib_early"] > 10
