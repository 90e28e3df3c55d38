"""A web page of another site can neither read a service nor change anything in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import Headers
from test_index import a_model, clustered, embedded

from qpairs.core.exceptions import UserError
from qpairs.retrieval.index import Index, build_index, open_index
from qpairs.serving.app import create_app
from qpairs.serving.origins import Origins, allowed_origins

MINE = "https://my.site"
EVIL = "https://evil.example"
MODEL = a_model(clustered(60))
REQUESTS = [  # all that reads or changes a corpus
    ("POST", "/search", {"question": "t1"}),
    ("POST", "/score", {"pairs": [["t1", "t2"]]}),
    ("POST", "/questions", {"questions": [{"id": "new", "text": "t50"}]}),
    ("DELETE", "/questions/1", None),
    ("GET", "/labelling", None),
    ("POST", "/labelling/answer", {"question1": "t1", "question2": "t2", "answer": "yes"}),
    ("POST", "/labelling/undo", {}),
    ("GET", "/labelling/labels.csv", None),
    ("POST", "/labelling/apply", {}),
    ("GET", "/clusters", None),
    ("POST", "/clusters/undo", {}),
    ("PUT", "/start/upload/tickets.csv", {}),
    ("POST", "/start/open", {"text_column": "title"}),
    ("GET", "/start/upload", None),
    ("GET", "/start/files/model.zip", None),
    ("GET", "/about", None),
    ("GET", "/ready", None),
    ("GET", "/metrics", None),
]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    build_index(embedded(tmp_path, MODEL, range(40)), tmp_path / "idx")
    return open_index(tmp_path / "idx")


@pytest.fixture
def client(index: Index, tmp_path: Path) -> Iterator[TestClient]:
    origins = Origins((MINE,), loopback=True)
    app = create_app(MODEL, index, origins=origins, labels=tmp_path / "labels.csv", clusters=tmp_path)
    with TestClient(app, base_url="http://localhost:8000") as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},  # of a sandboxed frame, or a file
        {"origin": "http://localhost:9999"},
        {"origin": "http://["},
        {"origin": EVIL, "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},  # an image, a script, a link, a form
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example:8000"},  # DNS rebinding
        {"host": "evil.example:8000", "origin": "http://evil.example:8000", "sec-fetch-site": "same-origin"},
        {"host": "localhost.evil.example"},
        {"host": ""},
    ],
    ids=str,
)
def test_a_foreign_page_is_refused_whatever_it_asks(client: TestClient, headers: dict[str, str]) -> None:
    for method, path, body in REQUESTS:
        answer = client.request(method, path, json=body, headers=headers)
        assert answer.status_code == 403, path
        assert "access-control-allow-origin" not in answer.headers
    assert client.get("/ready").json()["questions"] == 40
    assert client.get("/labelling/labels.csv").text.count("\n") <= 1


@pytest.mark.parametrize(
    "headers",
    [
        {},  # no browser
        {"sec-fetch-site": "none"},  # typed into the address bar
        {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:8000"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"},
        {"host": "[::1]:8000"},
        {"host": "my.localhost"},
        {"host": "my.site", "origin": MINE},  # behind a proxy that passes Host on
        {"origin": MINE, "sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
def test_the_own_page_an_allowed_one_and_programs_are_answered(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/ready", headers=headers).json()["questions"] == 40
    assert client.post("/search", json={"question": "t1"}, headers=headers).json()["hits"][0]["text"] == "t1"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_changes_nothing(client: TestClient, kind: str) -> None:
    """A form sends no other types, and `fetch` without asking first neither."""
    pair = client.get("/labelling").json()["pair"]
    assert client.post("/labelling/answer", json={**pair, "answer": "yes"}).status_code == 200
    for path in ("/labelling/undo", "/labelling/answer", "/questions", "/search"):
        answer = client.post(path, content=b"{}", headers={"content-type": kind})
        assert answer.status_code == 415
        assert "application/json" in answer.json()["detail"]
    assert client.get("/labelling").json()["last"]["answer"] == "yes"
    assert client.post("/labelling/undo", json={}).json()["last"] is None


def test_a_browser_is_told_that_an_allowed_page_may_ask(client: TestClient) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,authorization"}
    allowed = client.options("/search", headers={"origin": MINE, **asks})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, MINE)
    answer = client.post("/search", json={"question": "t1"}, headers={"origin": MINE})
    assert answer.headers["access-control-allow-origin"] == MINE
    refused = client.options("/search", headers={"origin": EVIL, **asks})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


def test_with_a_token_an_allowed_page_asks_first_without_it() -> None:
    app = create_app(MODEL, token="secret", origins=Origins((MINE,)))
    with TestClient(app) as client:
        asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        assert client.options("/score", headers={"origin": MINE, **asks}).status_code == 200
        body = {"pairs": [["t1", "t2"]]}
        assert client.post("/score", json=body, headers={"origin": MINE}).status_code == 401
        given = {"origin": MINE, "authorization": "Bearer secret"}
        assert client.post("/score", json=body, headers=given).status_code == 200
        assert client.post("/score", json=body, headers=given | {"origin": EVIL}).status_code == 403


def test_what_anybody_may_see_is_open_to_links(client: TestClient) -> None:
    for path in ("/", "/docs", "/health", "/openapi.json", "/page/app.js", "/embed.js"):
        assert client.get(path, headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_what_is_no_origin_is_not_that_of_a_request_without_a_host() -> None:
    assert Origins().refusal("GET", Headers({"host": "", "origin": "http://["}))


def test_elsewhere_than_on_loopback_any_host_name_is_answered() -> None:
    assert Origins().refusal("GET", Headers({"host": "questions.intranet"})) is None
    behind = {"host": "10.0.0.1:8000", "origin": "https://my.site", "sec-fetch-site": "same-origin"}
    assert Origins().refusal("GET", Headers(behind)) is None  # a proxy that does not pass Host on


def test_origins_are_read_as_browsers_send_them() -> None:
    given = ["https://My.Site:443/", "http://localhost:3000", "http://a.b:80"]
    assert allowed_origins(given) == ("https://my.site", "http://localhost:3000", "http://a.b")
    wrongs = ("*", "my.site", "https://my.site/path", "https://*", "ftp://my.site", "https://", "https://a@b")
    for wrong in (*wrongs, "https://[::1", "http://["):
        with pytest.raises(UserError, match="not an origin"):
            allowed_origins([wrong])
