"""Python code in a process of its own that may be killed, without the seconds that a new interpreter needs to import.

A fork server imports the libraries once and does nothing else, so that what is forked from it has no threads to miss.
It does not import qpairs: a script may do without it, or with changed variables of the environment.
"""

import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("sentence_transformers", "datasets", "pandas", "pyarrow.parquet", "faiss", "pytest", "schemathesis"),
        *("scipy.optimize", "scipy.stats", "sklearn.feature_extraction.text", "fastapi.testclient", "torch._dynamo"),
        *("uvicorn", "prometheus_client", "IPython.core.interactiveshell", "matplotlib.pyplot", "nbformat"),
        *("transformers.trainer", "transformers.models.bert.modeling_bert", "torch.distributed.run"),
    ]
)


MOST_SECONDS = 300


class Ended(NamedTuple):
    """How a process ended: its exit code, minus the signal where one killed it, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


class Started:
    """A script that runs."""

    def __init__(self, script: str, arguments: Sequence[object], cwd: Path | None, env: Mapping[str, str]) -> None:
        """Starts it."""
        self._folder = tempfile.TemporaryDirectory()
        self.out, self.err = Path(self._folder.name, "out"), Path(self._folder.name, "err")
        given = (script, [str(word) for word in arguments], str(cwd or os.getcwd()), {**os.environ, **env})
        self.process: BaseProcess = FORKS.Process(target=_execute, args=(*given, str(self.out), str(self.err)))
        self.process.start()

    def line(self) -> str:
        """Waits for the first line that it writes; what it wrote at its end, if that is none."""
        while self.process.is_alive() and not (self.out.exists() and "\n" in self.out.read_text()):
            time.sleep(0.02)
        return self.out.read_text() if self.out.exists() else ""

    def send(self, sent: signal.Signals) -> None:
        """Sends a signal, if it is at work still."""
        if self.process.is_alive():
            os.kill(self.process.pid or 0, sent)

    def wait(self) -> Ended:
        """Waits for its end, for some minutes at most."""
        self.process.join(MOST_SECONDS)
        assert not self.process.is_alive()
        written = [file.read_text() if file.exists() else "" for file in (self.out, self.err)]
        self._folder.cleanup()
        return Ended(self.process.exitcode or 0, *written)


def start_script(script: str, *arguments: object, cwd: Path | None = None, env: Mapping[str, str] = {}) -> Started:
    """Starts a script as `python -c` would, where the libraries have been imported already.

    Args:
        script: Python code; `sys.exit` in it gives the exit code.
        arguments: its `sys.argv[1:]`.
        cwd: its folder; without it, that of this process.
        env: variables of the environment besides those of this process.
    """
    return Started(script, arguments, cwd, env)


def run_script(script: str, *arguments: object, cwd: Path | None = None, env: Mapping[str, str] = {}) -> Ended:
    """Runs a script to its end; see `start_script`."""
    return start_script(script, *arguments, cwd=cwd, env=env).wait()


def _execute(script: str, arguments: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    gc.freeze()  # or the first collection would look at, and so copy, the memory of all that was imported
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})


class _Cell:
    """Stands for `subprocess.Popen` of the Python of `qpairs.experiments.processes`."""

    def __init__(self, arguments: Sequence[str], pass_fds: Sequence[int]) -> None:
        pipe = Connection(os.dup(pass_fds[0]))
        self._process: BaseProcess = FORKS.Process(target=_serve, args=(pipe, arguments[-1]))
        self._process.start()
        pipe.close()
        self.pid = self._process.pid

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        return self._process.exitcode or 0

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _serve(pipe: Connection, log_file: str) -> None:
    from qpairs.experiments.processes import serve

    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    serve(os.dup(pipe.fileno()), log_file)


class ForkedCell:
    """In a child: the same, forked from the child itself, which has imported all that a cell needs."""

    def __init__(self, arguments: Sequence[str], pass_fds: Sequence[int]) -> None:
        self._code: int | None = None
        self.pid = os.fork()
        if not self.pid:
            self._run(int(arguments[-2]), arguments[-1])

    def _run(self, pipe: int, log_file: str) -> None:
        try:
            os.closerange(3, pipe)
            os.closerange(pipe + 1, 256)
            self.serve(pipe, log_file)
        finally:
            os._exit(0)

    def serve(self, pipe: int, log_file: str) -> None:
        from qpairs.experiments.processes import serve

        serve(pipe, log_file)

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def kill(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGTERM)


def fork_cells_in_child(cell: type[ForkedCell] = ForkedCell) -> None:
    """In a child: the processes that a comparison starts are forked from it."""
    from qpairs.experiments import processes

    processes.subprocess = SimpleNamespace(  # type: ignore[attr-defined]
        Popen=cell, TimeoutExpired=processes.subprocess.TimeoutExpired
    )


def fork_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a comparison starts are forked, too; each is one without a module of qpairs or of the tests."""
    from qpairs.experiments import processes

    forked = SimpleNamespace(Popen=_Cell, TimeoutExpired=processes.subprocess.TimeoutExpired)
    monkeypatch.setattr(processes, "subprocess", forked)
