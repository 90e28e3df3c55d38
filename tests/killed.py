"""A training in a process of its own that is killed at a chosen point, as by a power cut."""

import signal
from pathlib import Path
from typing import Any

from children import run_script

SCRIPT = """
import os, signal
import qpairs
from qpairs.training import stages, teachers, trainer
at, save, saved = {at!r}, trainer.mark_complete, []
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
def mark(state):
    saved.append(state)
    if at == "saving" and len(saved) == 2:
        die()
    save(state)
trainer.mark_complete = mark
if at == "saving the answers":
    teachers.save_file = die
if at == "joining":
    stages.combine = die
if at == "final":
    stages.save_trained = die
def on_progress(now):
    if (now.stage, now.done) == at:
        die()
qpairs.train(data={data!r}, output={output!r}, seed=3, on_progress=on_progress, **{options!r})
"""


def train_and_kill(at: Any, options: dict[str, Any], data: Path, output: Path) -> None:
    """Kills a training of seed 3, and sees to it that nothing stands at its output.

    Args:
        at: a stage and the units done in it, or "saving" (the second state), "saving the answers" (of teachers),
            "joining" (two stages) or "final" (the model).
        options: of the training.
        data: its pairs.
        output: its folder.
    """
    script = SCRIPT.format(at=at, data=str(data), output=str(output), options=options)
    killed = run_script(script)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not output.exists()
