"""The page of `qpairs start`: the same session as in the terminal, and a service that judges as the answers say."""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Full
from typing import Any

import httpx2
import pandas
import pytest
from fastapi.testclient import TestClient
from ready import tickets

from qpairs.commands.serve import print_judged
from qpairs.core.exceptions import UserError
from qpairs.data.intents import bundled_intents
from qpairs.data.labels import read_labels
from qpairs.evaluation.annotators import measure_agreement
from qpairs.evaluation.calibrate_corpus import fit_corpus
from qpairs.models.base import load
from qpairs.retrieval.index_file import QuestionFile
from qpairs.serving import start_page
from qpairs.serving.app import create_app
from qpairs.serving.batching import BatchQueue
from qpairs.serving.labelling import LabelRequest
from qpairs.serving.limits import ASKING, READ_ONLY
from qpairs.serving.start import open_session
from qpairs.serving.start_page import StartPage
from qpairs.serving.uploads import Uploads

pytestmark = pytest.mark.usefixtures("ready_cache_of_tests")


@pytest.fixture
def served(plain: Path, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Opens a service of a session of 150 tickets, as `qpairs serve --questions` does."""
    file = QuestionFile(tickets(tmp_path / "tickets.csv"), "title", "ticket")

    def opened() -> Any:
        return open_session(plain, file, tmp_path / "session", annotator="ana", serve=True)

    yield opened


def client_of(session: Any) -> TestClient:
    return TestClient(create_app(session.fit.model, session.index, session=session))


def gold(pair: dict[str, str]) -> str:
    intents = bundled_intents()
    return "yes" if intents[pair["question1"]] == intents[pair["question2"]] else "no"


def answer(client: TestClient, said: str = "", **more: str) -> dict[str, Any]:
    pair = client.get("/start", params=more).json()["state"]["pair"]
    answered: httpx2.Response = client.post("/start/answer", json={**pair, "answer": said or gold(pair), **more})
    assert answered.status_code == 200, answered.text
    found: dict[str, Any] = answered.json()
    return found


def until_done(client: TestClient) -> dict[str, Any]:
    end = time.monotonic() + 60
    while (found := client.get("/start").json())["work"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    return dict(found)


def test_answers_refit_apply_at_once_and_end_in_files(served: Callable[[], Any], tmp_path: Path) -> None:
    with served() as session, client_of(session) as client:
        assert client.get("/about").json()["views"] == ["start", "label", "clusters"]
        first = until_done(client)
        assert (first["questions"], first["known"]["labels"], first["finished"]) == (150, 0, None)
        assert first["examples"] and first["error"] == ""
        assert client.get("/clusters").status_code == 404
        before = client.post("/search", json={"question": "late flight"}).json()
        assert before["of"].endswith("no labels")
        states = [answer(client) for _ in range(10)]
        assert [state["fitted"] for state in states] == [False] * 9 + [True]
        now = states[-1]["known"]
        assert now["labels"] == 10 and now["basis"] == "estimated from 10 labels of this corpus"
        assert now["width_with_more"] != now["width"]
        after = client.post("/search", json={"question": "late flight"}).json()
        assert after["of"] != before["of"] and "no labels" not in after["of"]
        scored = client.post("/score", json={"pairs": [["late flight", "flight delayed"]]}).json()
        assert scored["threshold"] == pytest.approx(session.fit.setting.for_pairs().threshold)
        assert client.post("/start/finish", json={}).status_code == 202
        done = until_done(client)
        assert done["error"] == "" and done["finished"]["rows"] == 150
        assert done["finished"]["files"] == [
            "kept.csv",
            "pairs.csv",
            "clusters.csv",
            "labels.csv",
            "model.zip",
        ]
        kept = client.get("/start/files/kept.csv")
        assert kept.content == (tmp_path / "session" / "duplicates" / "kept.csv").read_bytes()
        assert kept.content.count(b"\n") == done["finished"]["kept"] + 1
        assert client.get("/start/files/dedupe.json").status_code == 404
        assert client.get("/clusters").json()["total"] == done["finished"]["clusters"]
    assert load(tmp_path / "session" / "model").verdict.densities.labels == 10
    labels = pandas.read_csv(tmp_path / "session" / "labels.csv")
    assert set(labels["annotator"]) == {"ana"} and len(labels) == 10


def test_examples_one_word_apart_have_both_words(plain: Path) -> None:
    found = load(plain).dedupe(
        ["Is C++ fast to learn?", "Is C# fast to learn?", "Is C# quick to learn?"], threshold=0.1
    )
    differ = {(shown.question1, shown.question2): shown.differ for shown in start_page._examples(found)}
    assert differ.pop(("Is C++ fast to learn?", "Is C# fast to learn?")) == ("C++", "C#")
    assert differ and set(differ.values()) == {None}


def test_it_goes_on_where_it_was_stopped_and_judges_by_the_answers(served: Callable[[], Any]) -> None:
    with served() as session, client_of(session) as client:
        for _ in range(10):
            answer(client)
        threshold = client.post("/search", json={"question": "late flight"}).json()["threshold"]
    with served() as session, client_of(session) as client:
        state = client.get("/start").json()
        assert state["state"]["duplicates"] + state["state"]["different"] == 10
        assert state["known"]["labels"] == 10
        assert client.post("/search", json={"question": "late flight"}).json()["threshold"] == pytest.approx(threshold)


def test_undo_skip_and_pairs_that_do_not_wait(served: Callable[[], Any]) -> None:
    with served() as session, client_of(session) as client:
        assert client.post("/start/undo", json={}).status_code == 409
        pair = client.get("/start").json()["state"]["pair"]
        assert answer(client, "skip")["state"]["skipped"] == 1
        assert client.post("/start/answer", json={**pair, "answer": "yes"}).status_code == 409
        assert client.post("/start/undo", json={}).json()["state"]["pair"] == pair
        assert client.post("/start/answer", json={**pair, "answer": "perhaps"}).status_code == 422


def test_several_people_answer_the_same_pairs(served: Callable[[], Any], tmp_path: Path) -> None:
    with served() as session, client_of(session) as client:
        mine = answer(client, "yes")
        his = answer(client, "no", annotator="ben")
        assert mine["state"]["annotator"] == "ana" and his["state"]["annotator"] == "ben"
        assert his["state"]["different"] == 1 and his["state"]["duplicates"] == 0
        seen = client.get("/labelling", params={"annotator": "ben"}).json()
        assert seen["last"]["answer"] == "no"
    labels = pandas.read_csv(tmp_path / "session" / "labels.csv")
    assert labels["annotator"].tolist() == ["ana", "ben"]
    assert labels["question1"].nunique() == 1
    (pair,) = measure_agreement(read_labels(tmp_path / "session" / "labels.csv")).pairs
    assert (pair.first, pair.second, pair.n, pair.agreement) == ("ana", "ben", 1, 0.0)


def test_labels_of_another_drawing_are_not_applied(served: Callable[[], Any]) -> None:
    with served() as session, client_of(session) as client:
        pair = client.get("/labelling", params={"choice": "random"}).json()["pair"]
        answered = client.post("/labelling/answer", json={**pair, "answer": "no", "choice": "random"})
        assert answered.status_code == 200
        assert client.post("/labelling/apply", json={}).status_code == 409
        assert client.get("/start").json()["known"]["labels"] == 0
    with served() as session:  # which opens all the same
        assert session.answers == 1 and not session.fit.used


def test_questions_added_to_the_service_are_searched_and_kept(served: Callable[[], Any]) -> None:
    body = {"questions": [{"id": "new", "text": "Where do zebras drink?"}]}
    with served() as session, client_of(session) as client:
        assert client.post("/questions", json=body).json()["count"] == 151
    with served() as session, client_of(session) as client:
        assert client.get("/ready").json()["questions"] == 151
        assert client.post("/search", json={"question": "Where do zebras drink?"}).json()["hits"][0]["id"] == "new"


def test_a_failure_in_the_background_is_told(served: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as session, client_of(session) as client:
        until_done(client)

        def full(*_: object) -> None:
            raise UserError("the disk is full")

        monkeypatch.setattr(session, "write", full)
        assert client.post("/start/finish", json={}).status_code == 202
        assert until_done(client)["error"] == "the disk is full"
        monkeypatch.undo()
        assert client.post("/start/finish", json={}).status_code == 202
        assert until_done(client)["error"] == ""


def test_an_answer_while_it_is_written_waits_for_the_next_fit(
    served: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, work = threading.Event(), StartPage._do
    gate.set()

    def held(page: StartPage, what: Callable[[], None]) -> None:
        assert gate.wait(60)
        work(page, what)

    monkeypatch.setattr(StartPage, "_do", held)
    with served() as session, client_of(session) as client:
        until_done(client)
        for _ in range(9):
            answer(client)
        gate.clear()
        assert client.post("/start/finish", json={}).status_code == 202
        pair = client.get("/labelling").json()["pair"]
        assert client.post("/labelling/answer", json={**pair, "answer": "no"}).status_code == 200
        gate.set()
        assert until_done(client)["error"] == ""
        model = load(tmp_path / "session" / "model")
        judged = client.post("/search", json={"question": "late flight"}).json()
        assert judged["of"].endswith("9 labels")
        assert model.verdict.densities.labels == 9
        applied = client.post("/labelling/apply", json={}).json()
        assert applied["labels"] == 10 == client.get("/start").json()["known"]["labels"]
        assert client.post("/search", json={"question": "late flight"}).json()["of"].endswith("10 labels")


def test_a_service_that_was_too_busy_judges_by_the_answers_at_the_next_try(served: Callable[[], Any]) -> None:
    judged = list[Any]()

    def judge_by(model: Any) -> None:
        judged.append(model)
        if len(judged) == 1:
            raise Full

    with served() as session:
        page = StartPage(session, judge_by)
        end = time.monotonic() + 60
        while page.state().work:
            assert time.monotonic() < end
            time.sleep(0.05)
        for _ in range(3):
            pair = session.state.pair
            page.answer(pair, "no")
        with pytest.raises(Full):
            page.finish()
        assert page.state().work is None and page.state().finished is None
        page.finish()
        assert judged == [session.fit.model] * 2 and session.known.labels == 3
        while page.state().work:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_threads_that_fit_at_once_fit_once(served: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fits = list[int]()

    def slow(*arguments: Any) -> Any:
        fits.append(1)
        time.sleep(0.2)
        return fit_corpus(*arguments)

    with served() as session:
        pair = session.state.pair
        session.labelling.answer(LabelRequest(pair.question1, pair.question2, "no"))
        monkeypatch.setattr("qpairs.serving.refit.fit_corpus", slow)
        with ThreadPoolExecutor(3) as pool:
            fitted = list(pool.map(lambda _: session.refitting.refit(), range(3)))
        assert sorted(fitted) == [False, False, True] and len(fits) == 1


def test_read_only_it_refuses_every_change_that_it_could_make(
    served: Callable[[], Any], plain: Path, tmp_path: Path
) -> None:
    def kept() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in (tmp_path / "session").rglob("*") if file.is_file()}

    with served() as session:
        uploads = Uploads(load(plain), tmp_path / "uploads", create_app, limit=1000)
        served_by = functools.partial(create_app, session.fit.model, session.index, session=session, uploads=uploads)
        writable = served_by()
        with TestClient(writable) as client:
            for _ in range(2):
                answer(client)
            until_done(client)
            client.post("/start/finish", json={})
            assert until_done(client)["finished"]
            assert client.get("/clusters").status_code == 200
        changes = [
            (method, path)
            for path, methods in writable.openapi()["paths"].items()
            for method in methods
            if method != "get" and path not in ASKING
        ]
        views = {path.split("/")[1] for _, path in changes}
        assert views == {"questions", "start", "labelling", "clusters"} and len(changes) >= 14
        assert {("put", "/start/upload/{name}"), ("post", "/start/open")} <= set(changes)
        before = kept()
        with TestClient(served_by(read_only=True)) as client:
            assert client.get("/about").json()["views"] == ["clusters"]
            for method, path in changes:
                refusal = client.request(method, path.format(id="T1", name="new.csv"), json={})
                assert (refusal.status_code, refusal.json()["detail"]) == (403, READ_ONLY), path
        assert kept() == before and not (tmp_path / "uploads").exists()


def test_too_many_waiting_requests_are_told_by_every_route(
    served: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Full

    with served() as session, client_of(session) as client:
        answer(client)
        until_done(client)
        monkeypatch.setattr(BatchQueue, "submit", full)
        for path, body in {
            "/search": {"question": "late flight"},
            "/labelling/apply": {},
            "/start/finish": {},
        }.items():
            busy = client.post(path, json=body)
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "1"), path
            assert busy.json()["detail"].startswith("too many requests are waiting")


def test_a_service_that_starts_after_answers_says_that_it_judges_by_them(
    served: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with served() as session, client_of(session) as client:
        before = client.post("/search", json={"question": "How do I pay?"}).json()["of"]
        assert before.endswith("no labels")
        print_judged(session)
        assert not capsys.readouterr().out
        for _ in range(20):
            answer(client)
    with served() as session, client_of(session) as client:
        print_judged(session)
        said = capsys.readouterr().out
        assert "is based on 20 answers in" in said and str(session.folder.labels) in said
        of = client.post("/search", json={"question": "How do I pay?"}).json()["of"]
        assert of == "of a hit among 150 questions, estimated from 20 labels"
