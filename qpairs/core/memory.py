"""How much memory this process has taken."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak_memory() -> int:
    """Greatest resident memory of this process in bytes, without that of a GPU.

    On Linux, getrusage includes the memory of the process that started this one; /proc does not.

    >>> peak_memory() > 2**20
    True
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
