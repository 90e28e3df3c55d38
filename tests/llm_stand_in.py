"""A local stand-in for a service of chat completions: answers as it is told, is slow, fails, and sends nonsense."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Fault:
    """What is done instead of answering."""

    status: int = 0  # 0: the fault is in `kind`
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": {"message": "out of order"}}'
    kind: str = ""  # reset, truncated, slow


@dataclass
class StandIn:
    """The service; `answer` makes the text of a reply from the two questions."""

    answer: Callable[[str, str], str]
    url: str = ""
    delay: float = 0.0
    usage: bool = True
    faults: deque[Fault] = field(default_factory=deque)
    requests: list[dict[str, Any]] = field(default_factory=list)  # path, headers, body, time
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self) -> list[tuple[str, str]]:
        """The pairs of all requests."""
        return [questions_of(request["body"]) for request in self.requests]


def questions_of(body: dict[str, Any]) -> tuple[str, str]:
    """The pair in a request."""
    text = body["messages"][-1]["content"]
    values = json.loads(text[text.index("<pair>") + 6 : text.index("</pair>")])
    return values["question 1"], values["question 2"]


@contextmanager
def serving(answer: Callable[[str, str], str], **options: Any) -> Iterator[StandIn]:
    """The service at a free port of this machine."""
    service = StandIn(answer, **options)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with service.lock:
                service.busy += 1
                service.busiest = max(service.busiest, service.busy)
                seen = {"path": self.path, "headers": dict(self.headers), "body": body, "time": time.monotonic()}
                service.requests.append(seen)
                fault = service.faults.popleft() if service.faults else None
            try:
                self._reply(body, fault)
            finally:
                with service.lock:
                    service.busy -= 1

        def do_GET(self) -> None:
            service.requests.append({"path": self.path, "headers": dict(self.headers), "body": {}, "time": 0.0})
            self.send_error(405)

        def _reply(self, body: dict[str, Any], fault: Fault | None) -> None:
            time.sleep(service.delay)
            reply: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": ""}}]}
            reply["choices"][0]["message"]["content"] = service.answer(*questions_of(body))
            if service.usage:
                reply["usage"] = {"prompt_tokens": 100, "completion_tokens": 5}
            content = json.dumps(reply).encode()
            if fault and fault.kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            if fault and fault.kind == "slow":
                time.sleep(1.0)
            status, headers = (fault.status, fault.headers) if fault and fault.status else (200, {})
            content = fault.body if fault and fault.status else content
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if fault and fault.kind == "truncated" else content)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    service.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
