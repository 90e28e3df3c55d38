"""A service that a browser reaches, and waiting for what it shows."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

if TYPE_CHECKING:
    from playwright.sync_api import Page


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of an application, served by a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def until(page: Page, done: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for what a page does."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        page.wait_for_timeout(20)
