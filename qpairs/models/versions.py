"""Versions of the software that made a model."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import platform

LIBRARIES = ("qpairs", "torch", "transformers", "sentence-transformers", "datasets", "numpy")


def versions() -> dict[str, str]:
    """Versions of the installed libraries, of python and the machine, and the time (UTC)."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    libraries = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            libraries[name] = importlib.metadata.version(name)
    return {**libraries, "python": platform.python_version(), "machine": platform.machine(), "written": now}
