"""What stands before an HTTP application: limits of time and size, a token, a server that closes idle connections."""

import asyncio
import hmac
import logging
import math
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

Observe = Callable[[str, int, float], None]

OPEN = ("/", "/health", "/docs", "/openapi.json")  # and what is under /page/: told without a token
SECURITY = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True)
class Limits:
    """What the service puts up with.

    Attributes:
        body: bytes of a request.
        items: pairs or questions in a request.
        characters: of a question.
        queue: requests that wait; further ones are told to come back.
        seconds: that a request may take, from its first byte to its answer.
        batch: texts that are encoded together; with 1, each request is on its own.
    """

    body: int = 1_000_000
    items: int = 256
    characters: int = 2000
    queue: int = 1024
    seconds: float = 10.0
    batch: int = 64


def refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer that says why there is none, in one line of at most 300 characters."""
    return JSONResponse({"detail": " ".join(detail.split())[:300]}, status, headers)


def guarded(app: ASGIApp, limits: Limits, token: str | None, observe: Observe) -> ASGIApp:
    """An application behind a token, a limit of time and one of size.

    Args:
        app: answers.
        limits: of size and time.
        token: that requests must bear, but those that are open.
        observe: hears of every request: its route's path (or `other`), the status, the seconds that it took.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status, begin = 0, time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(SECURITY)
            await send(message)

        async def refuse(code: int, detail: str, **headers: str) -> None:
            if not status:
                names = {name.replace("_", "-"): value for name, value in headers.items()}
                await refusal(code, detail, names)(scope, receive, answer)

        body: bytes | None = None
        allowed = token is None or _is_open(scope["path"]) or _bears(Headers(scope=scope), token)
        try:
            async with asyncio.timeout(limits.seconds):
                body = await _read(receive, limits.body if allowed else 0)
                if not allowed:
                    await refuse(401, "the bearer token is missing or wrong", www_authenticate="Bearer")
                elif body is None:
                    await refuse(413, f"the body has more than {limits.body:,} bytes")
                else:
                    await app(scope, _again(body, receive), answer)
        except TimeoutError:
            if body is None:
                await refuse(408, f"the request took longer than {limits.seconds:g} s to arrive", connection="close")
            else:
                await refuse(503, f"the answer took longer than {limits.seconds:g} s", retry_after="1")
        except ClientDisconnect:
            pass
        except Exception:
            log.exception("%s %s", scope["method"], scope["path"])
            await refuse(500, "the service failed; its log says why")
        path = getattr(scope.get("route"), "path", "other")
        observe(path, status, time.perf_counter() - begin)

    return serve


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/page/")


def _bears(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), token.encode())


async def _read(receive: Receive, most: int) -> bytes | None:
    """A body; None where it has more bytes: then it is read to its end, so that the client listens to the answer."""
    parts, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        size += len(message.get("body", b""))
        parts = [*parts, message.get("body", b"")] if size <= most else []
        more = message.get("more_body", False)
    return b"".join(parts) if size <= most else None


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read, and then what comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return first.pop() if first else await receive()

    return give


def run(app: FastAPI, listener: socket.socket, limits: Limits) -> None:
    """Serves until SIGINT or SIGTERM; requests that have come by then are answered first."""

    class Punctual(H11Protocol):
        """Closes a connection where no request comes in time; of one that comes, `guarded` takes the time."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._deadline = self.loop.call_later(limits.seconds, self._close_idle)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._deadline.cancel()
            self._deadline = self.loop.call_later(limits.seconds, self._close_idle)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._deadline.cancel()

        def _close_idle(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    config = uvicorn.Config(
        app,
        http=Punctual,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(limits.seconds) + 1,
    )
    for stop in (signal.SIGINT, signal.SIGTERM):  # which uvicorn raises once more when all is answered
        signal.signal(stop, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listener])
