"""Requests to an endpoint of chat completions: timeouts, retries, and what the service asks for.

Only the address of the endpoint is contacted: redirects are not followed, and proxies of the environment are not used.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qpairs.annotation.endpoint import OWN_KEY, Endpoint
from qpairs.annotation.prompt import Messages
from qpairs.core.exceptions import UserError

LONGEST_WAIT = 60.0  # seconds between two attempts
LONGEST_ASKED = 600.0  # seconds to wait that a service may ask for
LARGEST = 4_000_000  # bytes of a reply
PASSING = {408, 409, 425, 429}  # statuses that may pass, beside 500 and above
THIS_ONE = {400, 413, 422}  # statuses that may concern this request alone


class Refused(Exception):
    """The service refuses this request, but may answer others; the text says why."""


class Unavailable(Exception):
    """A request failed in all attempts; the text is the error of the last one."""


class _Passing(Exception):
    """A request failed for a reason that may pass, and may be sent again after so many seconds."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


@dataclass(frozen=True)
class Reply:
    """What a language model wrote, and the tokens it read and wrote; None if the service gives no counts."""

    text: str
    tokens_in: int | None
    tokens_out: int | None


class Chat:
    """Sends requests to an endpoint, for several threads; `stop` ends every wait."""

    def __init__(self, endpoint: Endpoint, *, seed: int = 0) -> None:
        self.stop = threading.Event()
        self._endpoint = endpoint
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._resume = 0.0  # when requests may be sent again, by the monotonic clock
        self._reached = False  # whether the service has answered anything
        self._options: dict[str, Any] = {
            "temperature": 0,
            "max_tokens": endpoint.max_tokens,
            "response_format": {"type": "json_object"},
        }

    def ask(self, messages: Messages) -> Reply:
        """The reply to messages.

        Temporary failures are retried, after waits that double, or as long as the service asks for with `Retry-After`.
        A service that refuses `temperature`, `max_tokens` or `response_format` is asked without it.

        Raises:
            Refused: the service refuses this request.
            Unavailable: every attempt failed, or `stop` was set.
            UserError: the address, the key or the model is wrong.
        """
        why, wait, failed = "stopped", self._endpoint.backoff, 0
        while failed < self._endpoint.attempts and not self.stop.is_set():
            try:
                self._hold(0.0)
                if reply := self._try(messages):
                    return reply
            except _Passing as problem:
                failed, why = failed + 1, str(problem)
                if failed < self._endpoint.attempts:
                    self._hold(problem.after or wait * (0.5 + self._random.random()))
                wait = min(2 * wait, LONGEST_WAIT)
        raise Unavailable(why)

    def _hold(self, seconds: float) -> None:
        """Waits this long, and until the service may be asked again."""
        until = time.monotonic() + seconds
        while (left := max(until, self._resume) - time.monotonic()) > 0 and not self.stop.is_set():
            self.stop.wait(left)

    def _try(self, messages: Messages) -> Reply | None:
        """The reply; None if the request should be sent again without an option."""
        with self._lock:
            options = dict(self._options)
        body = json.dumps({"model": self._endpoint.model, "messages": messages, **options}).encode()
        status, headers, content = self._send(body)
        if status == 200:
            return _reply(content)
        said = self._said(content)
        if status in PASSING or status >= 500:
            after = _seconds(headers.get("retry-after", ""))
            if after > LONGEST_ASKED:
                raise UserError(f"{self._endpoint.url}: asks to wait {after:,.0f} s (status {status}{said}); try later")
            with self._lock:
                self._resume = max(self._resume, time.monotonic() + after)
            raise _Passing(f"status {status}{said}", after)
        if status in THIS_ONE:
            if self._without(said, options):
                return None
            raise Refused(f"status {status}{said}")
        raise self._final(status, said)

    def _send(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers by name in lower case, and content of the answer to a request."""
        parts, limit = self._endpoint.parts, time.monotonic() + self._endpoint.timeout
        https = parts.scheme == "https"
        kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self._endpoint.timeout)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "qpairs"}
        if self._endpoint.key:
            headers["Authorization"] = f"Bearer {self._endpoint.key}"
        try:
            connection.request("POST", parts.path + (f"?{parts.query}" if parts.query else ""), body, headers)
            answer = connection.getresponse()
            content = b""
            while chunk := answer.read1(65_536):
                content += chunk
                if len(content) > LARGEST or time.monotonic() > limit:
                    raise _Passing("the answer is too large or takes too long")
            if answer.length:  # fewer bytes than were announced
                raise _Passing("the answer is cut off")
        except (OSError, http.client.HTTPException) as error:
            if not self._reached and isinstance(error, ConnectionRefusedError | socket.gaierror | ssl.SSLError):
                raise UserError(f"{self._endpoint.url}: cannot be reached ({_reason(error)}); check --llm") from None
            raise _Passing(_reason(error)) from None
        finally:
            connection.close()
        self._reached = True
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content

    def _without(self, said: str, options: Mapping[str, Any]) -> bool:
        """Drops the option that the service complains about, for all further requests; whether there is one."""
        name = next((name for name in options if name in said), None)
        if name is None:
            return False
        with self._lock:
            value = self._options.pop(name, None)
            if name == "max_tokens" and value and "max_completion_tokens" in said:
                self._options["max_completion_tokens"] = value
        return True

    def _said(self, content: bytes) -> str:
        """What an error says, in a few words on one line, without the key."""
        text = content[:20_000].decode("utf-8", "replace")
        try:
            found = json.loads(text)
            error = found.get("error", found)
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError, RecursionError):
            pass
        if self._endpoint.key:
            text = text.replace(self._endpoint.key, "[key]")
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return f": {text[:200]}" if text else ""

    def _final(self, status: int, said: str) -> UserError:
        """The error of a status that no further request can resolve."""
        reasons = {
            401: f"refuses the key; set {OWN_KEY}",
            403: f"refuses access; check {OWN_KEY}",
            404: f"has no such path, or no model {self._endpoint.model!r}; check --llm and --model",
        }
        why = reasons.get(status, "redirects, which is not followed; give the final address" if status < 400 else "")
        return UserError(f"{self._endpoint.url}: {why or 'refuses the request'} (status {status}{said})")


def _reply(content: bytes) -> Reply:
    try:
        found = json.loads(content)
        text = found["choices"][0]["message"].get("content") or ""
        if not isinstance(text, str):
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _Passing("the answer is not a chat completion") from None
    usage = found.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    tokens_in, tokens_out = (n if isinstance(n, int) and 0 <= n < 10**9 else None for n in counts)
    return Reply(text, tokens_in, tokens_out)


def _seconds(text: str) -> float:
    """How long a `Retry-After` asks to wait; 0 if it does not say."""
    try:
        return max(0.0, float(int(text)))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(str(error).split())[:200] or type(error).__name__
