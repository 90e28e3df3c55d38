"""What the results of a benchmark were measured on."""

from __future__ import annotations

import platform
import subprocess
import time
from pathlib import Path

import torch


def circumstances() -> dict[str, str]:
    """Date, commit (`-dirty` where files differ from it), machine and version of torch."""
    commit = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": subprocess.run(commit, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
