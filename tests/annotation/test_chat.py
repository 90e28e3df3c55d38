"""Requests to a service of chat completions: what is sent where, what is tried again, and what ends the run."""

import email.utils
import itertools
import socket
import threading
import time

import pytest
from llm_stand_in import Fault, serving

from qpairs.annotation.chat import Chat, Refused, Unavailable
from qpairs.annotation.endpoint import Endpoint, open_endpoint
from qpairs.annotation.prompt import messages_for
from qpairs.core.exceptions import UserError

KEY = "sk-secret-1234"
PAIR = messages_for(("How do I pay?", "How can I pay?"))


def yes(*_: str) -> str:
    return '{"answer": "yes"}'


def endpoint(url: str, **options) -> Endpoint:
    found = open_endpoint(url, "llama", {})
    return Endpoint(found.url, found.model, **{"backoff": 0.01, "timeout": 5.0, "attempts": 4} | options)


def test_an_address_may_end_anywhere_in_the_path() -> None:
    for url in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/", "http://h:1/v1/chat/completions"):
        assert open_endpoint(url, "m", {}).url == "http://h:1/v1/chat/completions"
    azure = open_endpoint("https://h/openai/x?api-version=1#here", "m", {}).url
    assert azure == "https://h/openai/x/chat/completions?api-version=1"


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://h/v1", "http://", "http://h:99999", "http://h/a b", "http://h/\n", "http://ü/"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="is not an address"):
        open_endpoint(url, "m", {})


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="QPAIRS_LLM_KEY") as refused:
        open_endpoint("http://me:hunter2@h/v1", "m", {})
    assert "hunter2" not in str(refused.value)


def test_the_key_of_openai_goes_to_openai_alone() -> None:
    both = {"QPAIRS_LLM_KEY": "own", "OPENAI_API_KEY": KEY}
    openai = {"OPENAI_API_KEY": KEY}
    assert open_endpoint("https://api.openai.com/v1", "m", openai).key == KEY
    assert open_endpoint("https://api.openai.com/v1", "m", both).key == "own"
    for url in (
        "http://api.openai.com/v1",  # in the clear
        "https://api.openai.com:8443/v1",
        "https://api.openai.com.evil.test/v1",
        "https://evil.test/api.openai.com",
        "http://localhost:8000",
    ):
        assert open_endpoint(url, "m", openai).key == ""
        assert open_endpoint(url, "m", both).key == "own"


def test_a_key_is_never_shown_and_a_broken_one_is_refused() -> None:
    assert KEY not in repr(open_endpoint("http://h", "m", {"QPAIRS_LLM_KEY": KEY}))
    for broken in ("a\r\nX-Other: 1", "a b", "schlüssel"):
        with pytest.raises(UserError, match="QPAIRS_LLM_KEY") as refused:
            open_endpoint("http://h", "m", {"QPAIRS_LLM_KEY": broken})
        assert broken not in str(refused.value)


def test_a_key_that_would_go_out_in_the_clear_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    key = {"QPAIRS_LLM_KEY": KEY}
    for url, given in (("http://localhost:1", key), ("http://127.0.0.1:1", key), ("https://h", key), ("http://h", {})):
        open_endpoint(url, "m", given)
    assert caplog.text == ""
    open_endpoint("http://h", "m", key)
    assert "without encryption" in caplog.text
    assert KEY not in caplog.text


def test_a_request_is_that_of_chat_completions() -> None:
    with serving(yes) as service:
        reply = Chat(endpoint(service.url, key=KEY)).ask(PAIR)
        assert (reply.text, reply.tokens_in, reply.tokens_out) == ('{"answer": "yes"}', 100, 5)
        (sent,) = service.requests
    assert sent["path"] == "/v1/chat/completions"
    assert sent["headers"]["Authorization"] == f"Bearer {KEY}"
    assert {name: sent["body"][name] for name in ("model", "temperature", "messages")} == {
        "model": "llama",
        "temperature": 0,
        "messages": PAIR,
    }


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(yes) as service:
        Chat(open_endpoint(service.url, "m")).ask(PAIR)
        assert "Authorization" not in service.requests[0]["headers"]


def test_redirects_are_not_followed() -> None:
    with serving(yes) as other, serving(yes) as service:
        for status in (301, 302, 307, 308):
            service.faults.append(Fault(status, {"Location": f"{other.url}/chat/completions"}))
            with pytest.raises(UserError, match="redirects, which is not followed"):
                Chat(endpoint(service.url, key=KEY)).ask(PAIR)
        assert other.requests == []


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(yes) as proxy, serving(yes) as service:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert Chat(endpoint(service.url)).ask(PAIR).text == yes()
        assert proxy.requests == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(503, {"Retry-After": "soon"}),
        Fault(429, {"Retry-After": "-1"}),
        Fault(408),
        Fault(kind="reset"),
        Fault(kind="truncated"),
        Fault(200, body=b'{"choices": [{"mess'),
        Fault(200, body=b'{"choices": []}'),
        Fault(200, body=b'{"choices": [{"message": {"content": 7}}]}'),
        Fault(200, body=b"[" * 100_000),
        Fault(200, body=b""),
        Fault(200, body=b"\xff\xfe"),
    ],
    ids=lambda fault: f"{fault.status}{fault.kind}{fault.body[:12]!r}",
)
def test_failures_that_may_pass_are_tried_again(fault: Fault) -> None:
    with serving(yes) as service:
        service.faults.extend([fault, fault])
        assert Chat(endpoint(service.url)).ask(PAIR).text == yes()
        assert len(service.requests) == 3


def test_a_service_that_takes_too_long_is_asked_again() -> None:
    with serving(yes) as service:
        service.faults.append(Fault(kind="slow"))
        assert Chat(endpoint(service.url, timeout=0.2)).ask(PAIR).text == yes()
        assert len(service.requests) == 2


def test_after_all_attempts_it_says_how_the_last_one_failed() -> None:
    with serving(yes) as service:
        service.faults.extend([Fault(500), Fault(500), Fault(503, body=b'{"error": "busy"}')])
        with pytest.raises(Unavailable, match="status 503: busy"):
            Chat(endpoint(service.url, attempts=3)).ask(PAIR)
        assert len(service.requests) == 3


def test_waits_grow_and_retry_after_is_kept_by_all_threads() -> None:
    with serving(yes) as service:
        service.faults.extend([Fault(500)] * 3)
        Chat(endpoint(service.url, backoff=0.1)).ask(PAIR)
        times = [request["time"] for request in service.requests]
        waits = [after - before for before, after in itertools.pairwise(times)]
        assert all(0.05 * 2**k <= wait <= 0.15 * 2**k + 0.15 for k, wait in enumerate(waits))
    with serving(yes) as service:
        service.faults.append(Fault(429, {"Retry-After": "1"}))
        chat = Chat(endpoint(service.url))
        start = time.monotonic()
        threads = [threading.Thread(target=chat.ask, args=(PAIR,)) for _ in range(2)]
        threads[0].start()
        time.sleep(0.3)
        threads[1].start()
        for thread in threads:
            thread.join()
        assert [request["time"] - start >= 0.9 for request in service.requests] == [False, True, True]


def test_retry_after_may_be_a_date() -> None:
    with serving(yes) as service:
        service.faults.append(Fault(503, {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)}))
        start = time.monotonic()
        Chat(endpoint(service.url)).ask(PAIR)
        assert 0.8 < time.monotonic() - start < 4
        service.faults.append(Fault(429, {"Retry-After": "86400"}))
        with pytest.raises(UserError, match=r"asks to wait 86,400 s .* try later"):
            Chat(endpoint(service.url)).ask(PAIR)


def test_stopping_ends_a_wait() -> None:
    with serving(yes) as service:
        service.faults.append(Fault(429, {"Retry-After": "300"}))
        chat = Chat(endpoint(service.url))
        threading.Timer(0.3, chat.stop.set).start()
        start = time.monotonic()
        with pytest.raises(Unavailable):
            chat.ask(PAIR)
        assert time.monotonic() - start < 2


@pytest.mark.parametrize(("status", "said"), [(401, "QPAIRS_LLM_KEY"), (403, "access"), (404, "--model"), (402, "402")])
def test_what_no_retry_can_mend_is_one_clear_line(status: int, said: str) -> None:
    body = b'{"error": {"message": "wrong key ' + KEY.encode() + b'\\n\\u001b[2J[red]"}}'
    with serving(yes) as service:
        service.faults.append(Fault(status, body=body))
        with pytest.raises(UserError, match=said) as refused:
            Chat(endpoint(service.url, key=KEY)).ask(PAIR)
        assert len(service.requests) == 1
    assert KEY not in str(refused.value)
    assert str(refused.value).isprintable()


def test_options_that_a_service_does_not_know_are_left_out_from_then_on() -> None:
    with serving(yes) as service:
        for message in ("response_format is not supported", "Use 'max_completion_tokens', not 'max_tokens'"):
            service.faults.append(Fault(400, body=b'{"error": {"message": "%s"}}' % message.encode()))
        service.faults.append(Fault(422, body=b'{"detail": "temperature: extra inputs are not permitted"}'))
        chat = Chat(endpoint(service.url))
        assert chat.ask(PAIR).text == chat.ask(PAIR).text == yes()
        sent = [set(request["body"]) - {"model", "messages"} for request in service.requests]
    assert sent[0] == {"temperature", "max_tokens", "response_format"}
    assert sent[3] == sent[4] == {"max_completion_tokens"}
    assert len(sent) == 5


def test_a_request_that_is_refused_alone_is_told_apart() -> None:
    with serving(yes) as service:
        service.faults.append(Fault(400, body=b'{"error": {"message": "content filter"}}'))
        chat = Chat(endpoint(service.url))
        with pytest.raises(Refused, match="status 400: content filter"):
            chat.ask(PAIR)
        assert chat.ask(PAIR).text == yes()


def test_an_address_where_nobody_listens_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid"):
        start = time.monotonic()
        with pytest.raises(UserError, match="cannot be reached"):
            Chat(endpoint(url, backoff=60.0)).ask(PAIR)
        assert time.monotonic() - start < 10
