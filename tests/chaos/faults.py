"""Commands in forked children of this process, whose file events can be counted, cut off by a kill, or refused.

A file event is what changes the file system: opening to write, renaming, removing, making a folder, and putting a file
on the disk. Python tells all of them but the last beforehand (PEP 578). Libraries in other languages write between
them, so that the file is there in part, or whole and not yet in its place, when the next event comes.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import itertools
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from children import ForkedCell

EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
SYNC = "fsync"  # name of the event of putting on the disk a file that has something new in it
TRACEBACK = 70  # exit code of a child whose command ended with an exception
BLOCKED = 71  # of one that did not end
_numbers = itertools.count()
_tried = set[str]()  # modules that children imported, and this process then imported, or could not


@dataclass(frozen=True)
class Fault:
    """What happens in a process.

    Attributes:
        kind: "kill", before an event; "torn", a file of which half of what is new was written, as it is put on the
            disk, and a kill; "full", no space left at an event; "limit", none for files of more than so many bytes;
            "read-only", every event fails; "stop", the process is halted; "acknowledged", a kill after so many
            acknowledged changes; or "" (nothing happens; events are counted).
        at: number of the event, from 1; or of bytes, or of changes.
        root: events outside this folder do not count.
        cell: whether it happens in the first process that the command starts, and not in the command.
    """

    kind: str
    at: int
    root: Path
    cell: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code, or less than 0 by a signal; what it printed; the names of the file events it
    had; and what its action returned.
    """

    code: int
    text: str
    events: tuple[str, ...] = ()
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
    """A child that runs, and the file of what it leaves."""

    pid: int
    left: Path


def start_child(action: Callable[[], Any], root: Path, fault: Fault | None = None) -> Child:
    """Starts something in a forked child. This process must not have begun threads: none of them lives on in a child.

    The child leaves what the action returns, and the names of the modules that it imported, for `wait_for`.
    """
    left = root.parent / f"{root.name}.{next(_numbers)}.left"
    pid = os.fork()
    if not pid:
        _child(action, root, fault, left)
    return Child(pid, left)


def has_stopped(child: Child, seconds: float = 60.0) -> bool:
    """Waits until a child is halted by its fault (and is still there to be waited for) or has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found:
            return found.si_code == os.CLD_STOPPED
        time.sleep(0.001)
    return False


def has_ended(child: Child, seconds: float) -> bool:
    """Waits so long for a child, and says whether it has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return True
        time.sleep(0.002)
    return False


def wait_for(child: Child, seconds: float = 120.0) -> Outcome:
    """Waits for a child; one that takes too long is killed, and counts as blocked."""
    if not has_ended(child, seconds):
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        return Outcome(BLOCKED, "blocked")
    status = os.waitpid(child.pid, 0)[1]
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    if not child.left.exists():
        return Outcome(code, "")
    text, events, value, modules = pickle.loads(child.left.read_bytes())
    child.left.unlink()
    if new := [name for name in modules if name not in _tried and name not in sys.modules]:
        for name in new:
            with contextlib.suppress(Exception):  # once here, and the next child has it
                importlib.import_module(name)
        _tried.update(new)
        gc.collect()
        gc.freeze()  # or each child would copy the memory that its first collection looks at
    return Outcome(code, text, events, value)


def command(arguments: Sequence[str]) -> Callable[[], None]:
    """What runs a command of qpairs, whose options are read from the code before."""
    from qpairs import commands

    commands.command_line()

    def run() -> None:
        sys.argv = ["qpairs", *arguments]
        commands.main()

    return run


def _child(action: Callable[[], Any], root: Path, fault: Fault | None, left: Path) -> None:
    code, value, known = TRACEBACK, None, set(sys.modules)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        os.chdir(root)
        sys.stdout = sys.stderr = printed = io.StringIO()
        sys.stdin = open(os.devnull)  # noqa: SIM115
        if fault:
            _armed.arm(fault)
        try:
            value = action()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        except BaseException:
            traceback.print_exc()
        _armed.on = False
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        modules = [name for name in sys.modules if name not in known]  # in the order in which they were imported
        left.write_bytes(pickle.dumps((printed.getvalue(), tuple(_armed.events), value, modules)))
    finally:
        os._exit(code)


def _whole_path(given: tuple[Any, ...]) -> Any:
    """The path of an event, which may be given by its name in an open folder."""
    folder = given[-1]
    if isinstance(folder, int) and folder >= 0 and os.path.isdir(opened := f"/proc/self/fd/{folder}"):
        return os.path.join(os.readlink(opened), os.fsdecode(given[0]))
    return given[0]


class _Armed:
    """The fault of this process, and its events so far."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.events = list[str]()
        self.on = False
        self._written = dict[tuple[int, int], int]()  # bytes of each file that are on the disk

    def arm(self, fault: Fault) -> None:
        """Lets the fault happen in this process."""
        self.fault, self._root, self.on = fault, str(fault.root.resolve()), not fault.cell
        for file in fault.root.rglob("*"):
            if file.is_file():
                about = file.stat()
                self._written[about.st_dev, about.st_ino] = about.st_size
        sys.addaudithook(self._hook)
        self._replace_calls()
        if fault.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def event(self, name: str, file: int | None = None, *, new: bool = False) -> None:
        """What happens before an event."""
        assert self.fault
        self.events.append(name)
        if self.fault.cell and not self.fault.at:
            cell_events(self.fault.root).write_text(str(len(self.events)))
        kind, now = self.fault.kind, len(self.events) == self.fault.at
        if kind == "read-only" and not new:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if not now:
            return
        if kind == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if kind == "torn" and file is not None:
            about = os.fstat(file)
            old = self._written.get((about.st_dev, about.st_ino), 0)
            os.ftruncate(file, old + (about.st_size - old) // 2)
        if kind in ("kill", "torn"):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)

    def _inside(self, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return f"{os.path.realpath(os.fsdecode(path))}{os.sep}".startswith(f"{self._root}{os.sep}")

    def _hook(self, name: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if name == "open":
            path, mode, flags = given
            writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
            writes = bool(flags & writing) if isinstance(flags, int) else "w" in str(mode)
            if writes and self._inside(path):
                self.event(name)
                if isinstance(flags, int) and flags & os.O_TRUNC and os.path.exists(path):
                    about = os.stat(path)
                    self._written[about.st_dev, about.st_ino] = 0
        elif name in EVENTS and self._inside(_whole_path(given)):
            self.event(name, new=name == "os.remove" and self._is_new(given[0]))

    def _is_new(self, path: Any) -> bool:
        """Whether a file was made since, by a library in another language: no read-only folder would let it."""
        try:
            about = os.stat(path)
        except OSError:
            return False
        return (about.st_dev, about.st_ino) not in self._written

    def _replace_calls(self) -> None:
        """Makes events of the two calls that Python does not tell of."""
        from qpairs.core import files

        fsync, exchange = os.fsync, files._exchange

        def synced(file: int) -> None:
            if self.on and os.path.isfile(name := f"/proc/self/fd/{file}"):
                about = os.fstat(file)
                key, self.on = (about.st_dev, about.st_ino), False
                writable = os.open(name, os.O_RDWR)
                self.on = True
                self.event(SYNC if about.st_size > self._written.get(key, 0) + 1 else "fsync of nothing new", writable)
                os.close(writable)
                self._written[key] = about.st_size
            fsync(file)

        def exchanged(one: Path, other: Path) -> bool:
            if self.on:
                self.event("exchange")
            return exchange(one, other)

        os.fsync, files._exchange = synced, exchanged


_armed = _Armed()


# Changes that a command acknowledged before it was killed


def acknowledgements(root: Path) -> Path:
    """The file that has a byte for each change that was acknowledged to whoever asked for it."""
    return root.parent / f"{root.name}.acknowledged"


def acknowledge(count: int) -> None:
    """In a child: so many changes are acknowledged."""
    _armed.on, was = False, _armed.on
    acknowledgements(Path.cwd()).write_bytes(b"." * count)
    _armed.on = was
    if _armed.fault and _armed.fault.kind == "acknowledged" and _armed.fault.at == count:
        os.kill(os.getpid(), signal.SIGKILL)


def stays_full() -> bool:
    """In a child: whether the disk is full for good."""
    return bool(_armed.fault and _armed.fault.kind == "limit")


def acknowledged(root: Path) -> int:
    """How many changes were acknowledged."""
    file = acknowledgements(root)
    return file.stat().st_size if file.exists() else 0


# Processes that a command starts


def cell_events(root: Path) -> Path:
    """The file of the number of events of the first process that the command started."""
    return root.parent / f"{root.name}.cell"


class FaultyCell(ForkedCell):
    """In a child: a process of a cell that is forked; in the first of them, what is armed may happen."""

    number = 0

    def __init__(self, arguments: Sequence[str], pass_fds: Sequence[int]) -> None:
        """Forks; `arguments` are those of `qpairs.experiments.processes`."""
        FaultyCell.number += 1
        super().__init__(arguments, pass_fds)

    def serve(self, pipe: int, log_file: str) -> None:
        """In the forked process."""
        first = FaultyCell.number == 1 and _armed.fault is not None and _armed.fault.cell
        _armed.on, _armed.events = first, []
        super().serve(pipe, log_file)

    terminate = ForkedCell.kill
