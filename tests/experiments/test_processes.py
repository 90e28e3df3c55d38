import functools
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from qpairs.core.exceptions import UserError
from qpairs.core.memory import peak_memory
from qpairs.core.progress import OnProgress, Progress
from qpairs.experiments.processes import ProcessError, run_in_process


def steps(on_progress: OnProgress, *, end: str = "") -> tuple[int, int]:
    """Reports three steps, prints, and ends as asked: with a result, an error, a signal or an exit."""
    for step in range(3):
        on_progress(Progress("counting", step, 3))
    os.write(1, b"printed\n")
    sys.stderr.write("complained\n")
    if end == "user error":
        raise UserError("the loss became NaN; mend it")
    if end == "error":
        raise LookupError("two\n  lines")
    if end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "exit":
        os._exit(7)
    if end == "sleep":
        time.sleep(600)
    return os.getpid(), peak_memory()


def test_the_result_comes_back_with_progress_and_a_log(tmp_path: Path) -> None:
    reports: list[Progress] = []
    process, memory = run_in_process(steps, tmp_path / "log", reports.append)
    assert process != os.getpid()
    assert 2**20 < memory < 2**33
    assert reports[0] == Progress("counting", 0, 3)
    assert len(reports) < 3, "reports in quick succession are left out"
    assert {"printed", "complained"} <= set((tmp_path / "log").read_text().split())
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("user error", "the loss became NaN"),
        ("error", "LookupError: two lines"),
        ("killed", r"the process was ended by SIGKILL \(the system may be out of memory\)"),
        ("exit", "the process ended with code 7"),
    ],
)
def test_a_failure_is_an_error_in_one_line(end: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=f"^{words}$"):
        run_in_process(functools.partial(steps, end=end), tmp_path / "log")
    assert multiprocessing.active_children() == []
    assert ("Traceback" in (tmp_path / "log").read_text()) == end.endswith("error")


def test_an_interrupt_ends_the_process(tmp_path: Path) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_in_process(functools.partial(steps, end="sleep"), tmp_path / "log", interrupt)
    assert multiprocessing.active_children() == []
    assert time.monotonic() - start < 60
