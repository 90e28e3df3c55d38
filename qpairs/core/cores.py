"""The CPU cores that share the work."""

from __future__ import annotations

import os


def available_cores() -> int:
    """The cores that this process may use, or as many as OMP_NUM_THREADS says.

    >>> available_cores() >= 1
    True
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    affinity = getattr(os, "sched_getaffinity", None)  # on Linux alone
    own = len(affinity(0)) if affinity else os.cpu_count() or 1
    return int(asked) if asked.isdecimal() and int(asked) else own
