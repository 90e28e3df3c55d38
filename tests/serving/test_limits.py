import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from qpairs.serving.limits import SECURITY_HEADERS, Limits, enforce_limits, error_response
from qpairs.serving.origins import OWN_PAGE

Application = Callable[[Any, Any, Any], Any]
LIMITS = Limits(body=10, seconds=0.2, upload=100)
FILE = "/start/upload/tickets.csv"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body of the request."""
    message = await receive()
    scope["route"] = type("Route", (), {"path": "/echo"})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


class Answer:
    """The response to a request, and what was observed of it."""

    def __init__(
        self,
        app: Application = echo,
        *parts: bytes,
        path: str = "/score",
        token: str | None = None,
        given: str = "",
        gone: bool = False,
        method: str = "POST",
        pause: float = 0,
    ) -> None:
        self.sent, self.observed = list[dict[str, Any]](), list[tuple[str, int, float]]()
        waiting: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        waiting += [{"type": "http.disconnect"}] if gone else []
        if waiting and not gone:
            waiting[-1]["more_body"] = False

        async def receive() -> dict[str, Any]:
            if not waiting:
                await asyncio.sleep(60)
            await asyncio.sleep(pause)
            return waiting.pop(0)

        async def send(message: dict[str, Any]) -> None:
            self.sent.append(message)

        headers = [(b"authorization", given.encode()), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        served = enforce_limits(app, LIMITS, token, OWN_PAGE, lambda *seen: self.observed.append(seen))
        asyncio.run(served(scope, receive, send))

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def detail(self) -> str:
        return str(json.loads(self.body)["detail"])


def test_a_request_within_the_limits_is_answered_and_observed() -> None:
    answer = Answer(echo, b"12345", b"67890")
    assert (answer.status, answer.body) == (200, b"1234567890")
    assert SECURITY_HEADERS.items() <= answer.headers.items()
    ((path, status, seconds),) = answer.observed
    assert (path, status) == ("/echo", 200)
    assert 0 < seconds < 10


def test_a_large_body_is_read_to_its_end_and_refused() -> None:
    answer = Answer(echo, b"12345", b"67890", b"1")
    assert (answer.status, answer.detail) == (413, "the body has more than 10 bytes")
    assert answer.observed[0][:2] == ("other", 413)
    assert SECURITY_HEADERS.items() <= answer.headers.items()


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer secre", "Basic secret", "Bearer secrets"])
def test_without_the_token_nothing_reaches_the_application(given: str) -> None:
    calls: Sequence[Any] = []
    answer = Answer(calls.append, b"", token="secret", given=given)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert calls == []


@pytest.mark.parametrize("given", ["Bearer secret", "bearer  secret "])
def test_the_token_is_accepted(given: str) -> None:
    assert Answer(echo, b"1", token="secret", given=given).status == 200


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/openapi.json", "/page/app.js"])
def test_open_paths_need_no_token(path: str) -> None:
    assert Answer(echo, b"1", token="secret", path=path).status == 200


def test_a_request_that_does_not_arrive_in_time_is_refused_and_its_connection_closed() -> None:
    answer = Answer(echo)
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert answer.detail == "the request took longer than 0.2 s to arrive"


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    cancelled = []

    async def slow(*_: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    answer = Answer(slow, b"1")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.detail == "the answer took longer than 0.2 s"
    assert cancelled == [True]


def test_an_error_of_the_application_is_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(*_: Any) -> None:
        raise OSError("/secret/path")

    answer = Answer(fails, b"1")
    assert (answer.status, answer.detail) == (500, "the service failed; see its log")
    assert "/secret/path" in caplog.text


def test_a_client_that_is_gone_gets_no_answer() -> None:
    answer = Answer(echo, b"1", gone=True)
    assert answer.sent == []
    assert answer.observed[0][:2] == ("other", 0)


def test_a_started_response_is_not_followed_by_another() -> None:
    async def starts(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OSError

    assert [message["type"] for message in Answer(starts, b"1").sent] == ["http.response.start"]


def test_what_is_not_http_passes() -> None:
    passed = []

    async def app(*arguments: Any) -> None:
        passed.append(arguments)

    served = enforce_limits(app, LIMITS, "secret", OWN_PAGE, lambda *_: None)
    arguments = ({"type": "lifespan"}, None, None)
    asyncio.run(served(*arguments))  # type: ignore[arg-type]
    assert passed == [arguments]


def test_the_reason_of_an_error_is_one_short_line() -> None:
    detail = json.loads(bytes(error_response(422, "a\n  b " + "c" * 500).body))["detail"]
    assert detail.startswith("a b c")
    assert len(detail) == 300


def kept(parts: list[bytes]) -> Application:
    """An application that keeps the parts of a file, and answers as the exception handler of the service does."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            more = True
            while more:
                message = await receive()
                parts.append(message["body"])
                more = message.get("more_body", False)
            status, detail = 200, ""
        except HTTPException as error:
            status, detail = error.status_code, error.detail
        await error_response(status, detail)(scope, receive, send)

    return application


def test_a_file_is_passed_on_as_it_arrives_and_may_take_as_long_as_its_parts_would() -> None:
    parts = list[bytes]()
    sent = [b"12345678"] * 12
    assert Answer(kept(parts), *sent, path=FILE, method="PUT", pause=0.05).status == 200  # 0.6 s in all
    assert parts == sent


def test_a_file_above_the_limit_is_counted_as_it_arrives() -> None:
    parts = list[bytes]()
    answer = Answer(kept(parts), *[b"x" * 30] * 9, path=FILE, method="PUT")
    assert (answer.status, answer.detail) == (413, "the file has more than 100 bytes")
    assert b"".join(parts) == b"x" * 90  # and all the rest was read, and dropped
    assert Answer(kept([]), b"x" * 101, path="/start/other", method="PUT").status == 413
    assert Answer(kept([]), b"x" * 101, path=FILE).status == 413  # of another method


@pytest.mark.parametrize("parts", [[], [b"1"], [b"x" * 101]], ids=["nothing", "little", "too much"])
def test_a_file_that_does_not_arrive_in_time_is_refused(parts: list[bytes]) -> None:
    more = [*parts, *[b""] * 100]
    answer = Answer(kept([]), *more, path=FILE, method="PUT", pause=0.1)
    assert (answer.status, "too slow" in answer.detail) == (408, True)


def test_a_file_that_is_sent_back_may_take_long_where_the_client_takes_its_parts() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(6):
            await asyncio.sleep(0.08)
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 5})

    answer = Answer(slow, b"")
    assert (answer.status, answer.body) == (200, b"x" * 6)
