"""Commands in forked children of this process, whose file events can be counted, cut off by a kill, or refused.

A file event is what changes the file system: opening to write, renaming, removing, making a folder, and putting a file
on the disk. Python tells all of them but the last beforehand (PEP 578). Libraries in other languages write between
them, so that the file is there in part, or whole and not yet in its place, when the next event comes.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
KINDS = ("kill", "torn", "full")  # before an event; a file cut in half as it is put on the disk; no space left
TRACEBACK = 70  # exit code of a child whose command ended with an exception
BLOCKED = 71  # of one that did not end
_numbers = itertools.count()


@dataclass(frozen=True)
class Fault:
    """What happens at the nth file event.

    Attributes:
        kind: one of `KINDS`, "read-only" (every event fails), or "" (nothing happens; events are counted).
        at: number of the event, from 1.
        root: events outside this folder do not count.
    """

    kind: str
    at: int
    root: Path


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code, or less than 0 by a signal; what it printed; the file events it had; and what
    its action returned.
    """

    code: int
    text: str
    events: int
    value: Any = None

    @property
    def orderly(self) -> bool:
        """Whether it ended well, or with one line for the user."""
        return self.code in (0, 2) and "Traceback" not in self.text


def run_child(action: Callable[[], Any], root: Path, fault: Fault | None = None) -> Outcome:
    """Runs something in a forked child, in the folder `root`, and waits for it."""
    return wait_for(start_child(action, root, fault))


@dataclass(frozen=True)
class Child:
    """A child that runs, and the file of what it prints."""

    pid: int
    output: Path


def start_child(action: Callable[[], Any], root: Path, fault: Fault | None = None) -> Child:
    """Starts something in a forked child. This process must not have begun threads: none of them lives on in a child.

    The child leaves what the action returns, and the names of the modules that it imported, for `wait_for`.
    """
    output = root.parent / f"{root.name}.{next(_numbers)}.out"
    output.touch()
    pid = os.fork()
    if not pid:
        _child(action, root, fault, output)
    return Child(pid, output)


def wait_for(child: Child, seconds: float = 300.0) -> Outcome:
    """Waits for a child; one that takes too long is killed, and counts as blocked."""
    end, status, pid = time.monotonic() + seconds, 0, 0
    while not pid:
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if not pid and time.monotonic() > end:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            child.output.unlink()
            return Outcome(BLOCKED, "blocked", 0, None)
        time.sleep(0.002)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    left = child.output.with_suffix(".left")
    events, value, modules = pickle.loads(left.read_bytes()) if left.exists() else (0, None, [])
    text = child.output.read_text("utf-8", "replace")
    left.unlink(missing_ok=True)
    child.output.unlink()
    for name in modules:
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # once here, and the next child has it
                importlib.import_module(name)
    return Outcome(code, text, events, value)


def command(arguments: Sequence[str]) -> Callable[[], None]:
    """What runs a command of qpairs."""

    def run() -> None:
        from qpairs.commands import main

        sys.argv = ["qpairs", *arguments]
        main()

    return run


def _child(action: Callable[[], Any], root: Path, fault: Fault | None, output: Path) -> None:
    code, value = TRACEBACK, None
    try:
        os.chdir(root)
        file = output.open("w", encoding="utf-8")
        sys.stdout = sys.stderr = file
        sys.stdin = open(os.devnull)  # noqa: SIM115
        count = _arm(fault) if fault else (lambda: 0)
        try:
            value = action()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        except BaseException:
            traceback.print_exc()
        number = count()
        file.close()
        output.with_suffix(".left").write_bytes(pickle.dumps((number, value, list(sys.modules))))
    finally:
        os._exit(code)


def _arm(fault: Fault) -> Callable[[], int]:
    """Lets the fault happen in this process; returns what tells the number of events so far, and ends the counting."""
    events, on, root = 0, True, str(fault.root.resolve())

    def event(torn: int | None = None) -> None:
        nonlocal events
        events += 1
        if fault.kind == "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if events != fault.at:
            return
        if fault.kind == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if fault.kind == "torn" and torn is not None and (size := os.fstat(torn).st_size):
            os.ftruncate(torn, size // 2)
        if fault.kind in ("kill", "torn"):
            os.kill(os.getpid(), signal.SIGKILL)

    def inside(path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.path.realpath(os.fsdecode(path)).startswith(root)

    def hook(name: str, given: tuple[Any, ...]) -> None:
        if not on:
            return
        if name == "open":
            path, mode, flags = given
            writes = (
                bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(flags, int) else "w" in str(mode)
            )
            if writes and inside(path):
                event()
        elif name in EVENTS and (inside(given[0]) or (isinstance(given[-1], int) and given[-1] >= 0)):
            event()

    sys.addaudithook(hook)
    fsync = os.fsync

    def synced(file: int) -> None:
        nonlocal on
        if on and os.path.isfile(name := f"/proc/self/fd/{file}"):
            on, writable = False, os.open(name, os.O_RDWR)
            on = True
            event(writable)
            os.close(writable)
        fsync(file)

    os.fsync = synced
    from qpairs.core import files

    exchange = files._exchange

    def exchanged(one: Path, other: Path) -> bool:
        if on:
            event()
        return exchange(one, other)

    files._exchange = exchanged

    def stop() -> int:
        nonlocal on
        on = False
        return events

    return stop
