"""Runs a function in its own process, so that a crash costs only one result and its memory is separate.

`ProcessPoolExecutor` does not do this: it hides the exit code of a worker that was killed, and its shutdown waits for
the running task. It has no channel for progress, either. And what `multiprocessing` spawns runs the calling script.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from qpairs.core.exceptions import UserError
from qpairs.core.imports import import_all, imported
from qpairs.core.progress import OnProgress, Progress, ignore

log = logging.getLogger(__name__)

T = TypeVar("T")

REPORT_SECONDS = 0.2  # between two reports of progress
END_SECONDS = 10  # that a process has to end by itself
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from qpairs.experiments.processes import serve; serve(int(sys.argv[2]), sys.argv[3])"
)


class ProcessError(Exception):
    """Why a process gave no result, in one line."""


def run_in_process(function: Callable[[OnProgress], T], log_file: Path, on_progress: OnProgress = ignore) -> T:
    """Calls a function in a fresh process, which never outlives the call.

    The process runs nothing of the script, or notebook, that calls this: functions that are defined there are sent as
    they are (cloudpickle), and modules that `import_all` imported are imported there first.

    Args:
        function: gets a callback for its progress; it and its result are pickled.
        log_file: receives what the process prints and logs.
        on_progress: called here, at most every `REPORT_SECONDS`, with the progress that the function reports.

    Raises:
        ProcessError: the function raised an exception, or the process died.
        UserError: the function cannot be sent to another process.
    """
    sent = _packed(function)
    pipe, child_pipe = multiprocessing.Pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: only this process handles Ctrl-C
    try:
        place = [json.dumps(sys.path), str(child_pipe.fileno()), str(log_file)]
        process = subprocess.Popen([sys.executable, "-c", START, *place], pass_fds=[child_pipe.fileno()])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    child_pipe.close()
    try:
        pipe.send(imported())
        pipe.send_bytes(sent)
        while isinstance(message := pipe.recv(), Progress):
            on_progress(message)
    except (EOFError, ConnectionError):
        raise ProcessError(_exit_reason(process.wait())) from None
    except BaseException:
        process.terminate()
        raise
    finally:
        pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        process.kill()
        process.wait()
    if isinstance(message, ProcessError):
        raise message
    result: T = message
    return result


def _packed(function: Callable[..., Any]) -> bytes:
    import cloudpickle

    try:
        packed: bytes = cloudpickle.dumps(function)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"compare: a function cannot be sent to another process: {reason}") from error
    return packed


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    hint = " (the system may be out of memory)" if -code == signal.SIGKILL else ""
    return f"the process was ended by {signal.Signals(-code).name}{hint}"


def serve(file_descriptor: int, log_file: str) -> None:
    """In the other process: receives the function; sends its progress, and then its result or a `ProcessError`."""
    pipe = Connection(file_descriptor)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with open(log_file, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    logging.basicConfig(level=logging.INFO)
    reported = 0.0

    def report(progress: Progress) -> None:
        nonlocal reported
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            pipe.send(progress)

    try:
        import_all(pipe.recv())
        function = pickle.loads(pipe.recv_bytes())
        threading.Thread(target=_end_with_parent, args=[pipe], daemon=True).start()
        pipe.send(function(report))
    except Exception as error:
        log.exception("no result")
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        first = str(error).partition(";")[0]  # a UserError says after the semicolon how to fix a single run
        pipe.send(ProcessError(kind + " ".join(first.split())))


def _end_with_parent(pipe: Connection) -> None:
    """Ends this process when the other end of its pipe is closed, from where nothing more comes."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os._exit(1)
