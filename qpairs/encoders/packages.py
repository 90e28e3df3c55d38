"""Models and vectors that come as Python packages: where their files are, and whether they are the published ones."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from qpairs.core.exceptions import UserError
from qpairs.core.extras import install
from qpairs.core.files import os_reason, sha256


def package_folder(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found and found.origin else None


@functools.cache
def check_published(file: Path, expected: str, package: str) -> None:
    """Checks a file of a package against its published SHA-256, once per process.

    Raises:
        UserError: the file cannot be read, or differs.
    """
    try:
        digest = sha256(file)
    except OSError as error:
        raise UserError(f"cannot read {str(file)!r} ({os_reason(error)}): {install(package)} again") from None
    if digest != expected:
        raise UserError(
            f"{str(file)!r} is not the published file (sha256 {digest[:12] or 'of no file'}, not {expected[:12]}): "
            f"{install(package)} again"
        )
