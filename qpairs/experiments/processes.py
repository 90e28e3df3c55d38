"""Runs a function in a process of its own, so that a crash costs one result and memory is the function's own.

`ProcessPoolExecutor` does not do this: it hides the exit code of a worker that was killed, and its shutdown waits for
the running task. It has no channel for progress, either.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, Progress, ignore

log = logging.getLogger(__name__)

T = TypeVar("T")

REPORT_SECONDS = 0.2  # between two reports of progress
END_SECONDS = 10  # that a process has to end by itself


class ProcessError(Exception):
    """Why a process gave no result, in one line."""


def run_in_process(function: Callable[[OnProgress], T], log_file: Path, on_progress: OnProgress = ignore) -> T:
    """Calls a function in a fresh process, which never outlives the call.

    Args:
        function: gets a callback for its progress; it and its result are pickled.
        log_file: receives what the process prints and logs.
        on_progress: called here, at most every `REPORT_SECONDS`, with the progress that the function reports.

    Raises:
        ProcessError: the function raised an exception, or the process died.
        UserError: no process can be started from the running script.
    """
    context = multiprocessing.get_context("spawn")
    pipe, child_pipe = context.Pipe()
    process = context.Process(target=_child, args=(child_pipe, log_file), daemon=True)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: only this process handles Ctrl-C
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    child_pipe.close()
    started = False
    try:
        pipe.send(function)
        while isinstance(message := pipe.recv(), Progress):
            started = True
            on_progress(message)
    except (EOFError, ConnectionError):
        process.join()
        if process.exitcode == 1 and not started:
            raise UserError(
                'compare: no process can be started; in a script, call it under `if __name__ == "__main__":`'
            ) from None
        raise ProcessError(_exit_reason(process.exitcode or 0)) from None
    except BaseException:
        process.terminate()
        raise
    finally:
        pipe.close()
        process.join(END_SECONDS)
        process.kill()
        process.join()
    if isinstance(message, ProcessError):
        raise message
    result: T = message
    return result


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    hint = " (the system may be out of memory)" if -code == signal.SIGKILL else ""
    return f"the process was ended by {signal.Signals(-code).name}{hint}"


def _child(pipe: Connection, log_file: Path) -> None:
    """Receives the function; sends its progress, and then its result or a `ProcessError`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log_file.open("wb") as file:
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
        pipe.send(pipe.recv()(report))
    except Exception as error:
        log.exception("no result")
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        first = str(error).partition(";")[0]  # a UserError says after the semicolon how to fix a single run
        pipe.send(ProcessError(kind + " ".join(first.split())))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def peak_memory() -> int:
    """Greatest resident memory of this process in bytes, without that of a GPU.

    On Linux, getrusage includes the memory of the process that started this one; /proc does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
