"""Memory that is freed: kept for the next block while asked for, given back afterwards."""

import ctypes
import subprocess
import sys

import pytest
from children import run_script

from qpairs.core.memory import KERNEL_CACHES, KERNELS

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")

BEFORE = """
import resource
from pathlib import Path
from qpairs.core.memory import freed_memory_kept

BLOCK = 2**26  # bytes; more than glibc ever keeps by itself

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def take_and_free():
    bytearray(b"1") * BLOCK

start = resident()
"""


def run(script: str) -> None:
    """Runs lines in a process of its own, whose heap nothing else has grown."""
    subprocess.run([sys.executable, "-c", BEFORE + script], check=True)


def test_what_is_freed_stays_until_the_end_of_the_block_even_after_an_error() -> None:
    run("""
take_and_free()
assert resident() < start + BLOCK / 2
try:
    with freed_memory_kept():
        take_and_free()
        assert resident() > start + 0.9 * BLOCK
        raise ValueError
except ValueError:
    assert resident() < start + BLOCK / 2
take_and_free()
assert resident() < start + BLOCK / 2
""")


def test_the_next_block_takes_no_new_pages() -> None:
    run("""
with freed_memory_kept():
    take_and_free()
    before = faults()
    take_and_free()
    assert faults() - before < 0.1 * BLOCK / resource.getpagesize()
""")


@pytest.mark.parametrize("given", ["", "7"])
def test_the_shapes_that_products_are_kept_for_are_bounded_where_nobody_has_said_how_many(given: str) -> None:
    """What encodes packed batches, each with another number of tokens, is imported before the first product."""
    kept = f"for name in {KERNEL_CACHES!r}: os.environ.pop(name, None)" if not given else ""
    script = f"import os\n{kept}\nimport qpairs.encoders.packed\nprint(*map(os.environ.get, {KERNEL_CACHES!r}))"
    done = run_script(script, env=dict.fromkeys(KERNEL_CACHES, given) if given else {})
    assert done.stdout.split() == [given or str(KERNELS)] * len(KERNEL_CACHES), done
