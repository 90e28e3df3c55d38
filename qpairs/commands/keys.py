"""Single keys from a terminal."""

from __future__ import annotations

import os
import select
import sys

import typer

ESCAPE = "\x1b"  # begins what an arrow or a function key sends
CTRL_D = "\x04", "\x00"  # the latter where it was typed ahead, as a terminal keeps it until it is read
TOGETHER = 0.02  # seconds within which the rest of it follows


def read_key() -> str:
    """The next key from the terminal at stdin, in lower case, including keys typed ahead; '' at its end.

    What an arrow or a function key sends is one key, `ESCAPE`. Ctrl-C raises KeyboardInterrupt.
    """
    try:
        import termios
        import tty
    except ImportError:  # Windows
        key: str = typer.getchar()
        return key.lower()
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal, termios.TCSADRAIN)  # the default would discard what was typed ahead
        pressed = os.read(terminal, 1).decode(errors="replace").lower()
        while pressed == ESCAPE and select.select([terminal], [], [], TOGETHER)[0]:
            os.read(terminal, 1)
        return "" if pressed in CTRL_D else pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def discard_keys() -> None:
    """Discards the keys that were typed ahead in the terminal at stdin."""
    try:
        import termios
    except ImportError:  # Windows
        return
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
