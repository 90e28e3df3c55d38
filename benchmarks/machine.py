"""What the results of a benchmark were measured on."""

from __future__ import annotations

import ctypes
import gc
import platform
import re
import subprocess
import time
from pathlib import Path

import torch

BLOCK_PARAMETERS = 10.6e6  # weights of MiniLM-L6 that multiply every token: its 6 layers, without the embeddings


def circumstances() -> dict[str, str]:
    """Date, commit (`-dirty` where files differ from it), machine with its instructions, and version of torch."""
    commit = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": subprocess.run(commit, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip(),
        "machine": ", ".join([platform.machine(), f"{torch.get_num_threads()} threads", *instructions()]),
        "torch": torch.__version__,
    }


def instructions() -> list[str]:
    """The instructions of this CPU that make products of few bits fast, of those that the benchmarks ask for."""
    abilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx2")
    return [name for name in names if abilities.get(name)]


def status(field: str) -> int:
    """A field of this process's memory in bytes (Linux alone)."""
    (kilobytes,) = re.findall(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


class Stopwatch:
    """Time since it was made: of the clock, and of the processors that this process had, all threads together.

    On a machine with other work, or on threads that wait for each other, the two differ.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """`seconds` and `cpu_seconds`."""
        return {"seconds": time.perf_counter() - self.start[0], "cpu_seconds": time.process_time() - self.start[1]}


def busy(taken: dict[str, float]) -> float:
    """Seconds without those in which other work had the processors: those of one thread, or of the clock."""
    one = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return taken["cpu_seconds"] if one else taken["seconds"]


def reset_peak() -> None:
    """Gives memory that is free back, and lets `peak` begin anew (Linux)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Most bytes since `reset_peak`: of a GPU's memory, or resident in this process (Linux)."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else status("VmHWM")


def matmul_rate(dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Floating-point operations per second that products of MiniLM's own shapes reach: (tokens, 384) @ (384, 1536).

    Args:
        dtype: of the factors.
        seconds: how long to try; the fastest product counts.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = 65_536 if device == "cuda" else 1024
    a, b = (torch.randn(shape, device=device).to(dtype) for shape in ((tokens, 384), (384, 1536)))
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        watch = Stopwatch()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        fastest = min(fastest, busy(watch.read()))
    return 2 * a.shape[0] * a.shape[1] * b.shape[1] / fastest
