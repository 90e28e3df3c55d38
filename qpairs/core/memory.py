"""The memory of this process: its peak, whether freed memory is kept, and the caches of matrix products."""

from __future__ import annotations

import ctypes
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt (malloc.h)
KEPT = 2**31 - 1  # bytes: nothing below is given back
LARGEST_BLOCK, LARGEST_REST = 2**25, 2**26  # bytes that glibc's own adjustment of both thresholds ends at

KERNEL_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")  # torch's and oneDNN's, in the environment
KERNELS = 128  # shapes of products whose code is kept; with 1,024, training is no faster


def bound_kernel_caches() -> None:
    """Limits for how many matrix shapes torch and oneDNN keep code, unless the environment sets a limit.

    They keep 1,024, of about 0.7 MB each in bfloat16. Packed batches differ in their number of tokens, so that the
    memory of a training run, or of a service, would grow by gigabytes. Both read the environment at their first
    product; later changes have no effect.

    >>> bound_kernel_caches()
    >>> int(os.environ["LRU_CACHE_CAPACITY"]) > 0
    True
    """
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, str(KERNELS))


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


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keeps freed memory for the next allocation if the C library is glibc; otherwise does nothing.

    glibc returns large blocks to the system. A training step on a CPU frees and takes the same blocks each time, and
    the system hands them out page by page, filled with zeros.

    >>> with freed_memory_kept():
    ...     steps = [bytearray(2**26) for _ in range(3)]
    """
    try:
        library = ctypes.CDLL(None)
        adjust, trim = library.mallopt, library.malloc_trim
    except (OSError, AttributeError, TypeError):  # another C library
        yield
        return
    adjust(TRIM_THRESHOLD, KEPT)
    adjust(MMAP_THRESHOLD, KEPT)
    try:
        yield
    finally:
        adjust(TRIM_THRESHOLD, LARGEST_REST)
        adjust(MMAP_THRESHOLD, LARGEST_BLOCK)
        trim(0)
