"""The HTTP layer in front of an application: limits, origins, a token, security headers, and the server."""

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
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from qpairs.serving.origins import Origins
from qpairs.serving.reading import read_body, replay, streamed

log = logging.getLogger(__name__)

Observe = Callable[[str, int, float], None]

UNWANTED = 1 << 16  # bytes that are read of a request which is refused whatever it holds
CLOSE = {"connection": "close"}  # so that nothing more is sent by who may not ask
OPEN_PATHS = ("/", "/health", "/docs", "/openapi.json", "/embed.js")  # need no token, as all under /page/
READING = ("GET", "HEAD", "OPTIONS")  # methods that change nothing
ASKING = ("/score", "/search")  # paths of requests that have a body, and change nothing
UPLOAD = "/start/upload/"  # what the paths begin with to which files are sent
READ_ONLY = "this service is read-only: it refuses every change"
SECURITY_HEADERS = {
    "content-security-policy": ("default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True)
class Limits:
    """Limits above which a service refuses requests.

    Attributes:
        body: bytes of a request.
        items: pairs or questions in a request.
        characters: of a question.
        queue: waiting requests; a client is asked to try again later.
        seconds: from the first byte of a request to its answer.
        batch: texts that are encoded and pairs that are read together; with 1, each request is answered alone.
        reads: hits of a search that have a second look, the nearest; for the others the similarity decides.
        upload: bytes of a file that is sent.
    """

    body: int = 1_000_000
    items: int = 256
    characters: int = 2000
    queue: int = 1024
    seconds: float = 10.0
    batch: int = 64
    reads: int = 64
    upload: int = 100_000_000


def error_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A response with the reason for an error, in one line of at most 300 characters.

    >>> error_response(404, "no such question").body
    b'{"detail":"no such question"}'
    """
    return JSONResponse({"detail": " ".join(detail.split())[:300]}, status, headers)


def enforce_limits(app: ASGIApp, limits: Limits, token: str | None, origins: Origins, observe: Observe) -> ASGIApp:
    """ASGI middleware that checks origin, token, size and duration of each request, and adds the security headers.

    Args:
        app: answers the allowed requests.
        limits: of size and time.
        token: bearer token of all requests, except for open paths; None: no token is needed.
        origins: whose requests are answered; open paths are open to all.
        observe: called for each request with the path of its route (or `other`), the status and the seconds it took.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status, start = 0, time.perf_counter()

        async def send_secured(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            elif message.get("more_body") and not clock.expired():  # a file, which may be long
                clock.reschedule(asyncio.get_running_loop().time() + limits.seconds)
            await send(message)

        async def refuse(code: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
            if not status:  # no response has been started
                await error_response(code, detail, headers)(scope, receive, send_secured)

        body: bytes | None = None
        clock = asyncio.timeout(limits.seconds)
        headers, is_open = Headers(scope=scope), _is_open(scope["path"])
        foreign = None if is_open else origins.refusal(scope["method"], headers)
        allowed = token is None or is_open or _has_token(headers, token)
        try:
            async with clock:
                body, again = await _body_of(scope, receive, limits, clock, wanted=allowed and not foreign)
                if not allowed:
                    await refuse(401, "the bearer token is missing or wrong", {"www-authenticate": "Bearer", **CLOSE})
                elif foreign:
                    await refuse(*foreign, CLOSE)
                elif body is None:
                    await refuse(413, f"the body has more than {limits.body:,} bytes")
                else:
                    await app(scope, again, send_secured)
        except TimeoutError:
            if body is None:
                late = f"the request took longer than {limits.seconds:g} s to arrive"
                await refuse(408, late, {"connection": "close"})
            else:
                await refuse(503, f"the answer took longer than {limits.seconds:g} s", {"retry-after": "1"})
        except ClientDisconnect:
            pass
        except Exception:
            log.exception("%s %s", scope["method"], scope["path"])
            await refuse(500, "the service failed; see its log")
        observe(getattr(scope.get("route"), "path", "other"), status, time.perf_counter() - start)

    return serve


async def _body_of(
    scope: Scope, receive: Receive, limits: Limits, clock: asyncio.Timeout, *, wanted: bool
) -> tuple[bytes | None, Receive]:
    """The body, None if it is too long, and what the app receives: for an uploaded file, its parts as they arrive."""
    if wanted and _is_upload(scope):
        return b"", streamed(receive, limits, clock)
    body = await read_body(receive, *((limits.body, math.inf) if wanted else (0, UNWANTED)))
    return body, replay(body or b"", receive)


def refuse_changes(app: ASGIApp) -> ASGIApp:
    """ASGI middleware of a read-only service: everything but reading is refused with 403, whatever the path.

    >>> from fastapi import FastAPI
    >>> refuse_changes(FastAPI()).__name__
    'serve'
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        changes = scope["type"] == "http" and scope["method"] not in READING and scope["path"] not in ASKING
        await (error_response(403, READ_ONLY) if changes else app)(scope, receive, send)

    return serve


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith("/page/")


def _is_upload(scope: Scope) -> bool:
    return scope["method"] == "PUT" and str(scope["path"]).startswith(UPLOAD)


def _has_token(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), token.encode())


def run_server(app: ASGIApp, listener: socket.socket, limits: Limits) -> None:
    """Serves until SIGINT or SIGTERM, then answers the requests already received; a second SIGINT aborts these."""

    class IdleTimeoutProtocol(H11Protocol):
        """Closes a connection on which no request arrives in time; `enforce_limits` times requests that do."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._timer = self.loop.call_later(limits.seconds, self._close_idle)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._timer.cancel()
            self._timer = self.loop.call_later(limits.seconds, self._close_idle)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._timer.cancel()

        def _close_idle(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    config = uvicorn.Config(
        app,
        http=IdleTimeoutProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(limits.seconds) + 1,
    )
    for stop in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises the signal again after its shutdown
        signal.signal(stop, lambda *_: None)
    server, uvicorns = uvicorn.Server(config), logging.getLogger("uvicorn.error")

    def not_cut_off(_: logging.LogRecord) -> bool:
        return not server.force_exit

    uvicorns.addFilter(not_cut_off)
    try:
        server.run(sockets=[listener])
    finally:
        uvicorns.removeFilter(not_cut_off)
