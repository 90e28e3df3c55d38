"""Removes from an installation what a served export never reads: tests, headers, compiled bytes, parts of pyarrow.

python requirements/slim.py SITE_PACKAGES
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

FOLDERS = ("tests", "test", "__pycache__")  # of any package
UNUSED = (
    "pyarrow/include",
    "pyarrow/includes",
    "pyarrow/src",
    "pyarrow/*flight*",
    "pyarrow/*s3*",
    "pyarrow/*.pyx",
    "pyarrow/*.pxi",
    "onnxruntime/transformers",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "hf_xet*",
)


def slim(packages: Path) -> int:
    """Removes it, and returns how many bytes are left."""
    found = [path for name in FOLDERS for path in packages.rglob(name)]
    found += [path for pattern in UNUSED for path in packages.glob(pattern)]
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())


if __name__ == "__main__":
    left = slim(Path(sys.argv[1]))
    sys.stdout.write(f"{left / 1e6:,.0f} MB\n")
