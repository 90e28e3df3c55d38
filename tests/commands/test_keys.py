"""Single keys from a pseudo-terminal."""

import os
import sys
from collections.abc import Iterator

import pytest

from qpairs.commands.keys import ESCAPE, discard_keys, read_key

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where keys are typed; the other end is stdin."""
    keyboard, terminal = os.openpty()
    with os.fdopen(terminal, "r", closefd=True) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield keyboard
    os.close(keyboard)


def test_keys_are_read_one_by_one_also_those_typed_ahead(typed: int) -> None:
    os.write(typed, b"yNu")
    assert [read_key() for _ in range(3)] == ["y", "n", "u"]
    os.write(typed, b"s")
    assert read_key() == "s"


@pytest.mark.parametrize("sent", [b"\x1b[A", b"\x1bOS", b"\x1bOQ"])
def test_what_an_arrow_or_a_function_key_sends_is_no_answer(typed: int, sent: bytes) -> None:
    """F4 sends ESC O S, whose last letter would be an answer."""
    os.write(typed, sent)
    assert read_key() == ESCAPE
    os.write(typed, b"y")
    assert read_key() == "y"


def test_ctrl_d_is_the_end_and_the_terminal_is_as_it_was(typed: int) -> None:
    import termios

    before = termios.tcgetattr(sys.stdin.fileno())
    os.write(typed, b"\x04")
    assert read_key() == ""
    assert termios.tcgetattr(sys.stdin.fileno()) == before


def test_keys_that_nobody_asked_for_do_not_reach_the_shell(typed: int) -> None:
    os.write(typed, b"ynn\n")
    assert read_key() == "y"
    discard_keys()
    os.write(typed, b"u")
    assert read_key() == "u"
