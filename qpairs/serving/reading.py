"""Reading the bodies of requests: whole and small, or as they arrive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

if TYPE_CHECKING:
    from qpairs.serving.limits import Limits


async def read_body(receive: Receive, max_bytes: int, most: float) -> bytes | None:
    """The body; None if it is larger. It is always read to its end, or the client would not read the response.

    Args:
        receive: of the request.
        max_bytes: largest size of a body that is kept.
        most: bytes after which reading stops in any case.
    """
    body, size, more = bytearray(), 0, True
    while more and size <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        size += len(message.get("body", b""))
        if size <= max_bytes:
            body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body) if size <= max_bytes else None


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns a body already read, and then continues with the original."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


def streamed(receive: Receive, limits: Limits, clock: asyncio.Timeout) -> Receive:
    """A `receive` of an uploaded file: data is counted and passed on, so that nothing is held in memory.

    A file may take as long as it would in requests of the largest size, one after the other: `limits.seconds` for each
    `limits.body` bytes. One that is too large is still read for that time, as the client would otherwise not read the
    response.

    Args:
        receive: of the request.
        limits: `upload` is the one for the file.
        clock: of the whole request; it waits for the file, and begins again after it.

    The `receive` raises HTTPException: 413 for a file that is too large, 408 for one that comes too slowly.
    """
    loop, size = asyncio.get_running_loop(), 0
    begun = loop.time()
    clock.reschedule(None)

    async def receive_part() -> Message:
        nonlocal size
        while True:
            periods = 1 + min(size, limits.upload) // max(limits.body, 1)
            try:
                async with asyncio.timeout_at(begun + limits.seconds * periods):
                    message = await receive()
            except TimeoutError:
                detail = f"the file is too slow: at least {limits.body:,} bytes in {limits.seconds:g} s are needed"
                raise HTTPException(408, detail, {"connection": "close"}) from None
            size += len(message.get("body", b""))
            if message.get("more_body", False):
                if size <= limits.upload:
                    return message
                continue
            clock.reschedule(loop.time() + limits.seconds)
            if size > limits.upload:
                raise HTTPException(413, f"the file has more than {limits.upload:,} bytes")
            return message

    return receive_part
