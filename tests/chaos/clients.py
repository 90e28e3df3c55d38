"""Whoever makes changes while a command runs: over HTTP of `qpairs serve`, or by keys of `qpairs start`.

Each counts the changes that were acknowledged, and goes on from there when the command runs again. A change that was
under way when the command was killed is made if the service does not have it. One that is refused since the disk is
full is asked for again, once.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faults import acknowledge, acknowledged, stays_full

Step = tuple[int, Callable[[Any], Any]]  # by how much the service's count changes, and the request that changes it
Count = Callable[[Any], int]


class Refused(Exception):
    """A service did not do what it was asked, twice."""


def served_to(client: Callable[[Any], None]) -> Callable[[], None]:
    """What makes `qpairs serve` serve a client, in this process and not over a network, and then stop."""

    def prepare() -> None:
        from fastapi.testclient import TestClient

        from qpairs.serving import limits

        def run_server(app: Any, listener: Any, _: Any) -> None:
            with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as asked:
                client(asked)

        limits.run_server = run_server

    return prepare


def changing(start: int, count: Count, steps: Sequence[Step], last: Callable[[Any], Any] | None = None) -> Any:
    """A client.

    Args:
        start: what the service counts before all changes.
        count: asks the service what it counts now.
        steps: the changes.
        last: a request after all changes, if there is one.
    """

    def client(asked: Any) -> None:
        value = start
        done = acknowledged(Path.cwd())
        acknowledge(done)
        for number, (difference, request) in enumerate(steps):
            value += difference
            if number < done:
                continue
            if count(asked) != value:
                _require(asked, request)
            if (found := count(asked)) != value:
                raise Refused(f"after change {number + 1} the service counts {found}, not {value}")
            acknowledge(number + 1)
        if last:
            _require(asked, last)

    return client


def _got(asked: Any, path: str) -> Any:
    """What a path answers, asked once more where the disk was full."""
    response = asked.get(path)
    if response.status_code == 503:
        response = asked.get(path)
    if response.status_code == 503 and stays_full():
        sys.exit(2)
    return response.json()


def _require(asked: Any, request: Callable[[Any], Any]) -> None:
    response = request(asked)
    if response.status_code == 503:
        response = request(asked)
    if response.status_code == 503 and stays_full():
        sys.exit(2)
    if response.status_code >= 300:
        raise Refused(f"{response.request.url}: {response.status_code} {response.text}")


# An index


def _questions(asked: Any) -> int:
    return int(_got(asked, "/ready")["questions"])


def _add(*rows: tuple[str, str]) -> Step:
    body = {"questions": [{"id": name, "text": text} for name, text in rows]}
    return len(rows), lambda asked: asked.post("/questions", json=body)


def _delete(name: str) -> Step:
    return -1, lambda asked: asked.delete(f"/questions/{name}")


def index_client(count: int) -> Any:
    """Adds questions to an index of so many, and deletes some, new and old ones."""
    steps = [
        _add(("n1", "How do I pay by card?")),
        _delete("3"),
        _add(("n2", "Where is my parcel?"), ("n3", "=1+1")),
        _delete("n1"),
        _add(("n1", "How do I pay in another way?")),
    ]
    return changing(count, _questions, steps)


# Labels


def _answers(path: str) -> Count:
    def count(asked: Any) -> int:
        state = _got(asked, path)
        state = state.get("state", state)
        return int(state["duplicates"] + state["different"] + state["skipped"])

    return count


def _answer(path: str, answer: str) -> Step:
    def request(asked: Any) -> Any:
        state = _got(asked, path)
        pair = state.get("state", state)["pair"]
        return asked.post(f"{path}/answer", json={**pair, "answer": answer})

    return 1, request


def _undo(path: str) -> Step:
    return -1, lambda asked: asked.post(f"{path}/undo", json={})


def label_client() -> Any:
    """Answers pairs, skips one, and takes answers back; in the end the service is to judge as they say."""
    path = "/labelling"
    steps = [_answer(path, answer) for answer in ("yes", "no", "skip")]
    steps += [_undo(path), _answer(path, "yes"), _undo(path), _answer(path, "no")]
    return changing(0, _answers(path), steps, lambda asked: asked.post(f"{path}/apply", json={}))


def session_client() -> Any:
    """Answers pairs on the page of `qpairs start`, and finishes."""
    path = "/start"
    steps = [_answer(path, "yes"), _answer(path, "no"), _undo(path), _answer(path, "yes")]
    return changing(0, _answers(path), steps, _finish)


def _finish(asked: Any) -> Any:
    _worked(asked)
    response = asked.post("/start/finish", json={})
    if error := _worked(asked):  # as the page shows it; the person asks again
        assert "cannot be written" in error, error
        response = asked.post("/start/finish", json={})
        if error := _worked(asked):
            if stays_full():
                sys.exit(2)
            raise Refused(error)
    return response


def _worked(asked: Any) -> str:
    """Waits for the work in the background; its error."""
    while (state := _got(asked, "/start"))["work"]:
        pass
    return str(state["error"])


# Clusters


def _changes(asked: Any) -> int:
    return int(_got(asked, "/clusters")["changes"])


def _cluster(action: str) -> Step:
    def request(asked: Any) -> Any:
        clusters = _got(asked, "/clusters?order=size&limit=100")["clusters"]
        one, other = clusters[:2]
        bodies: dict[str, dict[str, Any]] = {
            "represent": {"cluster": one["id"], "row": one["members"][1]["row"]},
            "split": {"cluster": one["id"], "rows": [one["members"][-1]["row"]]},
            "merge": {"cluster": one["id"], "other": other["id"]},
            "undo": {},
        }
        return asked.post(f"/clusters/{action}", json=bodies[action])

    return -1 if action == "undo" else 1, request


def cluster_client() -> Any:
    """Mends clusters, takes a change back, and writes them."""
    steps = [_cluster(action) for action in ("merge", "represent", "split", "undo", "split")]
    return changing(0, _changes, steps, lambda asked: asked.post("/clusters/export", json={}))


# Keys


class Keys(io.StringIO):
    """The input of `qpairs start`: yes and no by turns, by the number of the answer; a line is read when all answers
    before it are on the disk.
    """

    def __init__(self, labels: Path) -> None:
        super().__init__()
        self._labels = labels
        self._before = -1

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        """The next answer."""
        if self._before < 0:
            self._before = len(self._labels.read_text("utf-8").splitlines()) - 1
            self._given = 0
        acknowledge(number := self._before + self._given)
        self._given += 1
        return "n\n" if number % 2 else "y\n"


def keys_for(labels: str) -> Callable[[], None]:
    """What puts such an input in place, for answers in this file."""

    def prepare() -> None:
        sys.stdin = Keys(Path(labels))

    return prepare
