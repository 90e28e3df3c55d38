"""An application that can be replaced by another one while requests are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.routing import Router
from starlette.types import Receive, Scope, Send


@dataclass
class _Running:
    """An application whose lifespan has begun, and its requests that are not yet answered."""

    app: FastAPI
    held: AsyncExitStack
    requests: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class CurrentApp:
    """An ASGI application that hands requests to another one, which can be replaced.

    A replaced application still answers the requests it has received; then its lifespan ends.
    """

    def __init__(self, first: FastAPI) -> None:
        """Stores the first application, whose lifespan begins with this one's."""
        self._first = first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: _Running | None = None
        self._leaving = set[asyncio.Task[None]]()

    @property
    def app(self) -> FastAPI:
        """The current application."""
        return self._running.app if self._running else self._first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or runs the lifespan."""
        if scope["type"] == "lifespan":
            await Router(lifespan=self._lifespan).lifespan(scope, receive, send)
            return
        running = self._running
        if running is None:
            raise RuntimeError("a request arrived before the lifespan began")
        running.requests += 1
        running.idle.clear()
        try:
            await running.app(scope, receive, send)
        finally:
            running.requests -= 1
            if not running.requests:
                running.idle.set()

    def replace(self, app: FastAPI, over: Callable[[], None]) -> None:
        """Replaces the application; called by another thread than the service's.

        Args:
            app: the application.
            over: called by a thread when it has itself been replaced, or the service ends.

        Raises:
            RuntimeError: the service does not run.
        """
        if self._loop is None or self._running is None:
            raise RuntimeError("the service does not run")
        asyncio.run_coroutine_threadsafe(self._replace(app, over), self._loop).result()

    async def _replace(self, app: FastAPI, over: Callable[[], None]) -> None:
        old, self._running = self._running, await _begin(app, over)
        if old:
            task = asyncio.create_task(_end(old))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._running = await _begin(self._first, lambda: None)
        try:
            yield
        finally:
            running, self._running = self._running, None
            await asyncio.gather(*self._leaving, running.held.aclose())


async def _begin(app: FastAPI, over: Callable[[], None]) -> _Running:
    async with AsyncExitStack() as held:
        held.push_async_callback(asyncio.to_thread, over)
        await held.enter_async_context(app.router.lifespan_context(app))
        running = _Running(app, held.pop_all())
        running.idle.set()
        return running
    raise AssertionError  # the block above returns or raises


async def _end(running: _Running) -> None:
    await running.idle.wait()
    await running.held.aclose()
