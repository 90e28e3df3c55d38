"""Errors that a user can cause: one clear line each, and exit code 2 from the commands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 1500  # characters of a message
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # what a file in UTF-16 begins with, such as the Unicode text of Excel


class UserError(ValueError):
    """What is wrong, where, and how to fix it, in one line.

    The library raises it before anything is written; the commands print its text and exit with code 2.

    >>> qpairs.load_pairs("missing.csv")
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: missing.csv: no such file

    A message that is too long, such as one with a value from a damaged file, is shortened in the middle.
    """

    def __init__(self, message: object = "") -> None:
        text = str(message)
        super().__init__(f"{text[: LONGEST * 3 // 4]} ... {text[-LONGEST // 4 :]}" if len(text) > LONGEST else text)


def nearest(name: str, options: Iterable[str]) -> str:
    """A hint for a misspelt name: the closest option, if there is one, and all options.

    Args:
        name: what the user wrote.
        options: the names that exist.
    """
    options = list(options)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.55)
    return (f"did you mean {close[0]!r}? " if close else "") + f"there are: {', '.join(options)}"


def not_utf8(start: bytes) -> str:
    r"""What a user is told of a file that is no UTF-8; `start` is how it begins.

    >>> not_utf8(b"\xff\xfeq\0")
    'not valid UTF-8; save the file as UTF-8, for instance by iconv -f UTF-16 -t UTF-8 FILE > NEW'
    """
    encoding = "UTF-16" if start.startswith(UTF16) else "LATIN1"
    return f"not valid UTF-8; save the file as UTF-8, for instance by iconv -f {encoding} -t UTF-8 FILE > NEW"
