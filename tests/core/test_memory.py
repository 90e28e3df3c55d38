"""Memory that is freed: kept for the next block while asked for, given back afterwards."""

import ctypes
import resource
from pathlib import Path

import pytest

from qpairs.core.memory import freed_memory_kept

BLOCK = 2**26  # bytes; more than glibc ever keeps by itself
pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def take_and_free() -> None:
    bytearray(b"1") * BLOCK


def test_what_is_freed_stays_until_the_end_of_the_block_even_after_an_error() -> None:
    before = resident()
    take_and_free()
    assert resident() < before + BLOCK / 2
    with pytest.raises(ValueError), freed_memory_kept():
        take_and_free()
        assert resident() > before + 0.9 * BLOCK
        raise ValueError
    assert resident() < before + BLOCK / 2
    take_and_free()
    assert resident() < before + BLOCK / 2


def test_the_next_block_takes_no_new_pages() -> None:
    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    with freed_memory_kept():
        take_and_free()
        before = faults()
        take_and_free()
        assert faults() - before < 0.1 * BLOCK / resource.getpagesize()
