"""Python code in a process of its own that may be killed, without the seconds that a new interpreter needs to import.

A fork server imports the library once and does nothing else, so that what is forked from it has no threads to miss.
"""

import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["qpairs.training.fit", "qpairs.training.teachers", "sentence_transformers", "datasets"])


class Ended(NamedTuple):
    """How a process ended: its exit code, minus the signal where one killed it, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run_script(script: str) -> Ended:
    """Runs a script as `python -c` would, where torch and qpairs have been imported already."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = FORKS.Process(target=_execute, args=(script, str(out), str(err), os.getcwd()))
        process.start()
        process.join()
        return Ended(process.exitcode or 0, *(p.read_text() if p.exists() else "" for p in (out, err)))


def _execute(script: str, out: str, err: str, cwd: str) -> None:
    os.chdir(cwd)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
