"""A file that a browser sends: kept in private, worked on, and given back without its duplicates, with the model."""

import csv
import functools
import gzip
import io
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
from fastapi.testclient import TestClient
from ready import tickets

from qpairs.core.exceptions import UserError
from qpairs.core.files import exclusive_lock
from qpairs.data.text_columns import text_columns
from qpairs.models.base import load
from qpairs.serving.app import create_app
from qpairs.serving.limits import Limits
from qpairs.serving.model_zip import zip_folder
from qpairs.serving.origins import Origins
from qpairs.serving.start_page import StartPage, Work
from qpairs.serving.uploads import Uploads, check_unpacked, safe_name, with_uploads

pytestmark = pytest.mark.usefixtures("ready_cache_of_tests")

LIMIT = 50_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def service(plain: Path, folder: Path) -> Callable[..., Any]:
    """Makes a service without questions, which takes files."""

    def made(**options: Any) -> TestClient:
        options = {"limits": Limits(upload=LIMIT)} | options
        app = with_uploads(load(plain), folder, functools.partial(create_app, **options), limit=LIMIT, annotator="ana")
        return TestClient(app)

    return made


@pytest.fixture
def client(service: Callable[..., TestClient]) -> Iterator[TestClient]:
    with service() as client:
        yield client


@pytest.fixture
def table(tmp_path: Path) -> bytes:
    return tickets(tmp_path / "tickets.csv").read_bytes()


def until(client: TestClient, path: str = "/start/upload") -> dict[str, Any]:
    end = time.monotonic() + 60
    while (found := client.get(path).json())["work"]:
        assert time.monotonic() < end
        time.sleep(0.02)
    return dict(found)


def send(client: TestClient, name: str, content: bytes) -> dict[str, Any]:
    answer = client.put(f"/start/upload/{name}", content=content)
    assert answer.status_code == 202, answer.text
    return until(client)


def opened(client: TestClient, name: str, content: bytes, **columns: str) -> dict[str, Any]:
    send(client, name, content)
    answer = client.post("/start/open", json={"text_column": "title", **columns})
    assert answer.status_code == 202, answer.text
    state = until(client)
    assert (state["error"], state["opened"]) == ("", name)
    return until(client, "/start")


def test_from_a_file_that_is_sent_to_its_duplicates_and_the_model(
    client: TestClient, table: bytes, folder: Path, tmp_path: Path
) -> None:
    assert client.get("/about").json()["views"] == ["start"]
    assert client.get("/start").status_code == 404
    sent = send(client, "tickets.csv", table)
    assert (sent["file"], sent["sure"], sent["columns"]) == ("tickets.csv", True, ["ticket", "title", "state"])
    assert sent["texts"][0]["name"] == "title" and sent["limit"] == LIMIT and not sent["opened"]
    state = opened(client, "tickets.csv", table, id_column="ticket")
    assert state["questions"] == 150 and state["file"].endswith("tickets.csv")
    assert client.get("/about").json()["views"] == ["start", "label", "clusters"]
    assert client.post("/search", json={"question": "late flight"}).json()["hits"][0]["id"].startswith("T")
    assert client.get("/start/files/model.zip").status_code == 409
    assert client.post("/start/answer", json={**state["state"]["pair"], "answer": "no"}).status_code == 200
    assert client.post("/start/finish", json={}).status_code == 202
    done = until(client, "/start")
    assert done["finished"]["files"][-1] == "model.zip"
    kept = pandas.read_csv(io.BytesIO(client.get("/start/files/kept.csv").content))
    assert list(kept) == ["ticket", "title", "state"] and len(kept) == done["finished"]["kept"] < 150
    answer = client.get("/start/files/model.zip")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "unpacked")
    written = next(folder.glob("*/session-*/model"))
    assert files(tmp_path / "unpacked" / "model") == files(written)
    assert load(tmp_path / "unpacked" / "model").verdict.densities.labels == 1


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_kept_for_the_user_of_the_service_alone(client: TestClient, table: bytes, folder: Path) -> None:
    assert not folder.exists()
    send(client, "tickets.csv", table)
    (kept,) = folder.rglob("*.csv")
    assert kept.read_bytes() == table
    for place, mode in ((folder, 0o700), (kept.parent, 0o700), (kept, 0o600)):
        assert stat.S_IMODE(place.stat().st_mode) == mode


def test_the_same_file_goes_on_with_its_answers(service: Callable[..., TestClient], table: bytes, folder: Path) -> None:
    with service() as client:
        state = opened(client, "tickets.csv", table)
        client.post("/start/answer", json={**state["state"]["pair"], "answer": "no"})
    with service() as client:
        again = opened(client, "tickets.csv", table)
        assert again["state"]["different"] == 1 and again["state"]["annotator"] == "ana"
    assert len(list(folder.glob("*/session-*"))) == 1


def test_another_file_takes_the_place_of_the_first_whose_folder_is_released(
    client: TestClient, table: bytes, tmp_path: Path, folder: Path
) -> None:
    first = opened(client, "tickets.csv", table)
    again = client.post("/start/open", json={"text_column": "title"}).json()
    assert (again["opened"], again["work"]) == ("tickets.csv", None)  # the very session that is open
    other = tickets(tmp_path / "more.csv", "banking", 120).read_bytes()
    second = opened(client, "more.csv", other)
    assert (first["questions"], second["questions"]) == (150, 120)
    assert client.get("/ready").json()["questions"] == 120
    released(Path(first["folder"]))
    with pytest.raises(UserError, match="another process"), exclusive_lock(Path(second["folder"])):
        pass


def test_a_session_that_ends_late_leaves_the_state_of_a_newer_file_as_it_is(
    plain: Path, folder: Path, table: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(load(plain), folder, create_app, limit=LIMIT)
    gate, wait = threading.Event(), StartPage.wait

    def late(page: StartPage) -> None:
        assert gate.wait(60)
        wait(page)

    monkeypatch.setattr(StartPage, "wait", late)
    with TestClient(uploads.app) as client:
        first = opened(client, "tickets.csv", table)
        opened(client, "more.csv", tickets(tmp_path / "more.csv", "banking", 120).read_bytes())
        seen = list[Any]()

        def parts() -> Iterator[bytes]:
            yield b"question\n"
            gate.set()
            released(Path(first["folder"]))
            seen.append(uploads.state().work)
            yield b"How do I pay?\n"

        uploads.put("third.csv", parts())
        assert seen == [Work("receiving", 0, 0)]


def test_no_state_shows_a_file_half_read(
    plain: Path, folder: Path, table: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, read = list[Any](), threading.Event()

    class Watched(Uploads):
        @property
        def _work(self) -> Work | None:
            if threading.current_thread() is threading.main_thread() and self._worker.is_alive():
                read.set()  # the file is read to its end while the state is asked for
                self._worker.join()
            return self._doing

        @_work.setter
        def _work(self, work: Work | None) -> None:
            self._doing = work

    uploads = Watched(load(plain), folder, create_app, limit=LIMIT)

    def columns(*arguments: Any) -> Any:
        seen.append(uploads.state())
        assert read.wait(60)
        return text_columns(*arguments)

    monkeypatch.setattr("qpairs.serving.uploads.text_columns", columns)
    state = uploads.put("tickets.csv", [table])
    assert (state.work, [found.name for found in state.texts]) == (None, ["title"])
    assert [(state.work, state.texts, state.separated_by) for state in seen] == [(Work("reading", 0, 0), [], "")]


def released(folder: Path) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            with exclusive_lock(folder):
                return
        except UserError:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_what_the_first_session_was_asked_it_answers(client: TestClient, table: bytes, tmp_path: Path) -> None:
    opened(client, "tickets.csv", table)
    gate, inside, found = threading.Event(), threading.Event(), list[str]()

    @client.app.app.get("/slow")
    def slow() -> str:
        inside.set()
        assert gate.wait(30)
        return "the first"

    asker = threading.Thread(target=lambda: found.append(client.get("/slow").json()))
    asker.start()
    assert inside.wait(30)
    opened(client, "more.csv", tickets(tmp_path / "more.csv", "banking", 120).read_bytes())
    gate.set()
    asker.join(30)
    assert found == ["the first"] and client.get("/slow").status_code == 404


def test_a_file_above_the_limit_is_read_to_its_end_and_refused_and_nothing_stays(
    client: TestClient, folder: Path
) -> None:
    taken = list[int]()

    def parts() -> Iterator[bytes]:
        for number in range(20):
            taken.append(number)
            yield b"x" * 10_000

    answer = client.put("/start/upload/large.csv", content=parts())
    assert (answer.status_code, answer.json()["detail"]) == (413, f"the file has more than {LIMIT:,} bytes")
    assert len(taken) == 20 and not [path for path in folder.rglob("*") if path.is_file()]
    assert client.get("/start/upload").json()["work"] is None
    assert client.put("/start/upload/fits.csv", content=b"x" * LIMIT).status_code == 202


def test_the_limit_of_other_requests_stays(client: TestClient) -> None:
    small = TestClient(client.app)  # the limit of a body is that of a file in none but its path
    body = b'{"text_column": "' + b"x" * 1_000_001 + b'"}'
    answer = small.post("/start/open", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and "1,000,000" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("tickets.csv", "tickets.csv"),
        ("../../etc/passwd.csv", "passwd.csv"),
        ("..\\..\\a:b*.tsv", "a_b_.tsv"),
        (".hidden.csv", "hidden.csv"),
        ("a\x00b\n.csv", "a_b_.csv"),
        ("Fragen (März).csv.gz", "Fragen _März_.csv.gz"),
        ("q.zip", "q.zip"),
        (f"{'ä' * 300}.jsonl.zst", f"{'ä' * 50}.jsonl.zst"),
        (f"q.{'é' * 200}.zip", f"q.{'é' * 54}.zip"),
        (f"{'é' * 300}.csv.zip", f"{'é' * 52}.csv.zip"),
    ],
)
def test_a_name_becomes_one_of_a_file_in_a_folder(name: str, kept: str) -> None:
    assert safe_name(name) == kept == safe_name(kept)
    assert len(kept.encode()) < 255


@pytest.mark.parametrize("name", ["", ".csv", "model.pkl", "a.csv.exe", "x.gz", "noending", "..", "a.tar.gz"])
def test_other_files_are_refused_before_they_are_kept(client: TestClient, folder: Path, name: str) -> None:
    with pytest.raises(UserError, match="unknown kind of file"):
        safe_name(name)
    if name.strip("."):
        answer = client.put(f"/start/upload/{name}", content=b"question\nHow?\n")
        assert answer.status_code == 422 and answer.json()["detail"].count("\n") == 0
    assert not folder.exists()


def test_a_path_in_the_name_leaves_no_folder(client: TestClient, table: bytes, folder: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    for name in ("..%2F..%2Fout.csv", "%2Ftmp%2Fout.csv", "..%5Cout.csv"):
        client.put(f"/start/upload/{name}", content=table)
        until(client)
    assert set(tmp_path.iterdir()) <= before | {folder}
    assert {path.name for path in folder.rglob("*.csv")} <= {"out.csv"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.csv", b"", "empty.csv: the file is empty"),
        ("latin.csv", "question\nWie zahle ich für März?\n".encode("latin-1"), "not valid UTF-8"),
        ("numbers.csv", b"a,b\n1,2\n3,4\n", "no column holds texts"),
        ("broken.csv.gz", b"no gzip at all", "broken.csv.gz: cannot be read"),
        ("broken.parquet", b"PAR1 and nothing", "broken.parquet: cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_without_the_folder(
    client: TestClient, folder: Path, name: str, content: bytes, reason: str
) -> None:
    state = send(client, name, content)
    assert reason in state["error"] and str(folder) not in state["error"]
    assert not state["texts"] and "\n" not in state["error"]


def test_what_cannot_be_opened_says_why_and_another_choice_is_taken(client: TestClient, table: bytes) -> None:
    send(client, "tickets.csv", table)
    assert client.post("/start/open", json={"text_column": "state"}).status_code == 202
    assert "at least 20" in until(client)["error"]
    assert client.get("/start").status_code == 404
    assert client.post("/start/open", json={"text_column": "title"}).status_code == 202
    assert until(client)["error"] == "" and client.get("/start").json()["questions"] == 150


def test_rows_that_cannot_be_used_are_left_out_on_request(client: TestClient, table: bytes) -> None:
    send(client, "tickets.csv", table + b"T999,,open\n")
    client.post("/start/open", json={"text_column": "title"})
    said = "tickets.csv, row 151: column 'title' has no question"
    assert (
        until(client)["error"] == f'{said}; correct it, or choose "Leave out rows that cannot be used" (skip_bad_rows)'
    )
    client.post("/start/open", json={"text_column": "title", "skip_bad_rows": True})
    assert until(client)["error"] == ""
    found = client.get("/start").json()
    assert (found["questions"], found["skipped"]) == (150, 1)


def odd(table: bytes) -> bytes:
    """The tickets with bars between, a second column of texts, and a header in which commas look like separators."""
    rows = list(csv.reader(io.StringIO(table.decode())))
    lines = [
        ["ticket", "title, short", "body", "state"],
        *([one, two, f"Case {one}", three] for one, two, three in rows[1:]),
    ]
    made = io.StringIO()
    csv.writer(made, delimiter="^", lineterminator="\n").writerows(lines)
    return made.getvalue().encode()


def test_a_separator_is_named_where_it_is_not_found(client: TestClient, table: bytes) -> None:
    assert client.post("/start/columns", json={}).status_code == 409
    sent = send(client, "odd.csv", odd(table))
    assert sent["columns"] == ["ticket^title", "short^body^state"]
    assert (sent["separator"], sent["separated_by"]) == ("", ",")
    for wrong, said in (
        (";;", "separator: ';;', must be one character such as ; or |, or tab"),
        ("tab", "odd.csv: separator: 'tab' is not in its first line, 'ticket^title, short^body^state'"),
    ):
        assert client.post("/start/columns", json={"separator": wrong}).status_code == 202
        state = until(client)
        assert (state["error"], state["separator"], state["texts"], state["file"]) == (said, wrong, [], "odd.csv")
    client.post("/start/columns", json={"separator": "^"})
    state = until(client)
    assert (state["error"], state["separated_by"]) == ("", "^")
    assert state["columns"] == ["ticket", "title, short", "body", "state"]
    assert state["row"][0].startswith("T") and state["row"][2] == f"Case {state['row'][0]}"
    choice = {"text_column": "body", "id_column": "ticket", "separator": "^"}
    assert client.post("/start/open", json={**choice, "text_column": "title,body"}).status_code == 202
    assert "no column 'title'" in until(client)["error"]
    for chosen in ("title, short,body", "title, short"):
        assert client.post("/start/open", json={**choice, "text_column": chosen}).status_code == 202
        assert until(client)["error"] == ""
    page = until(client, "/start")
    assert page["questions"] == 150
    assert [command.count(" --separator '^'") for command in page["commands"]] == [1, 0, 0, 1, 1]  # where it is read
    client.post("/start/finish", json={})
    assert until(client, "/start")["error"] == ""
    kept = client.get("/start/files/kept.csv").text
    assert kept.splitlines()[0] == "ticket^title, short^body^state"
    assert client.post("/clusters/export", json={}).status_code == 200  # which reads the file again


def test_the_texts_of_several_columns_are_joined(client: TestClient, table: bytes) -> None:
    body = odd(table).replace(b"title, short", b"title").replace(b"^", b";")
    sent = send(client, "tickets.csv", body)
    assert (sent["separated_by"], sent["error"]) == (";", "")
    opened(client, "tickets.csv", body, text_column="title,body", id_column="ticket")
    assert " --text-column title,body --id-column ticket" in client.get("/start").json()["commands"][0]
    title, number = sent["row"][1], sent["row"][0]
    (hit,) = client.post("/search", json={"question": f"{title} Case {number}", "k": 1}).json()["hits"]
    assert (hit["id"], hit["text"]) == (number, f"{title} Case {number}")


def test_a_compressed_file_is_read_and_one_that_grows_far_too_large_is_not(
    client: TestClient, table: bytes, tmp_path: Path
) -> None:
    assert send(client, "tickets.csv.gz", gzip.compress(table))["texts"][0]["name"] == "title"
    bomb = gzip.compress(b"question\n" + b"How do I pay?\n" * 100_000)
    assert len(bomb) < LIMIT
    assert "more than 500,000 bytes when it is unpacked" in send(client, "bomb.csv.gz", bomb)["error"]
    (tmp_path / "bomb.csv.gz").write_bytes(bomb)
    check_unpacked(tmp_path / "bomb.csv.gz", 2_000_000)


def test_one_file_at_a_time(plain: Path, folder: Path) -> None:
    uploads = Uploads(load(plain), folder, create_app, limit=LIMIT)
    with pytest.raises(LookupError, match="no file to open"):
        uploads.open("title")

    def parts() -> Iterator[bytes]:
        yield b"question\n"
        with pytest.raises(LookupError, match="another file"):
            uploads.put("other.csv", [b"question\n"])
        yield b"How do I pay?\n"

    uploads.put("first.csv", parts())
    assert uploads.wait().texts[0].name == "question"
    assert [path.name for path in folder.rglob("*.csv")] == ["first.csv"]


def test_the_rules_of_all_that_changes_something_hold_for_files(
    service: Callable[..., TestClient], table: bytes, folder: Path
) -> None:
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    given = {"authorization": "Bearer secret"}
    put = functools.partial(TestClient.put, url="/start/upload/tickets.csv", content=table)
    with service(token="secret", origins=Origins(("https://my.site",))) as client:
        assert put(client).status_code == 401
        assert put(client, headers=given | foreign).status_code == 403
        assert client.post("/start/open", json={"text_column": "title"}).status_code == 401
        assert client.get("/start/upload").status_code == 401
        assert not folder.exists()
        assert put(client, headers=given).status_code == 202
    with service(origins=Origins(loopback=True)) as client:
        assert put(client, headers={"host": "evil.example"}).status_code == 403
        form = client.post("/start/open", content=b"{}", headers={"host": "localhost", "content-type": "text/plain"})
        assert form.status_code == 415


def test_the_description_has_the_body_of_a_file(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    body = paths["/start/upload/{name}"]["put"]["requestBody"]["content"]
    assert list(body) == ["application/octet-stream"]


def test_a_zip_has_the_files_of_a_folder_alone(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "part").mkdir(parents=True)
    for name in ("qpairs.json", "part/model.safetensors", ".lock", "old.pkl", "weights.bin", "part/x.PT"):
        (model / name).write_bytes(name.encode() * 1000)
    (tmp_path / "secret").write_text("secret")
    (model / "link.json").symlink_to(tmp_path / "secret")
    parts = zip_folder(model)
    (model / "qpairs.json").unlink()  # it was opened before
    archive = zipfile.ZipFile(io.BytesIO(b"".join(parts)))
    assert archive.namelist() == ["model/part/model.safetensors", "model/qpairs.json"]
    assert archive.testzip() is None and archive.read("model/qpairs.json") == b"qpairs.json" * 1000
    with pytest.raises(OSError, match="no file"):
        zip_folder(tmp_path / "gone")
