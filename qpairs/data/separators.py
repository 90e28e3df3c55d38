"""What separates the fields of .csv and .tsv files: what users name, and what a header shows."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator, Sequence

from qpairs.core.exceptions import UserError
from qpairs.core.shell import option_words

SEPARATORS = (",", ";", "\t", "|")
SEPARATOR = "QPAIRS_SEPARATOR"  # environment variable: what separates the fields of files whose header has it
HEAD = 6  # lines that tell the separator: the header, and some that must have as many fields
LONGEST_NAME = 40  # characters of the name of a column, in a header that tells its separator


def separator_character(separator: str) -> str:
    r"""The separator that a user names: `tab` and `\t` are the tab character.

    Raises:
        UserError: it cannot separate fields.

    >>> separator_character("tab"), separator_character(";")
    ('\t', ';')
    """
    character = {"tab": "\t", "\\t": "\t"}.get(separator, separator)
    if len(character) > 1 or character in ('"', "\n", "\r", "\0") or (character and character.isalnum()):
        raise UserError(f"separator: {separator!r}, must be one character such as ; or |, or tab")
    return character


@contextlib.contextmanager
def separated_by(separator: str) -> Iterator[None]:
    r"""Reads files with a named separator, in this process and those that it starts.

    Args:
        separator: one character; `tab` and `\t` are the tab character. '' changes nothing.

    Raises:
        UserError: it is none.

    >>> with separated_by("^"):
    ...     os.environ[SEPARATOR]
    '^'
    """
    character = separator_character(separator)
    before = os.environ.get(SEPARATOR)
    if character:
        os.environ[SEPARATOR] = character
    try:
        yield
    finally:
        os.environ.pop(SEPARATOR, None)
        if before is not None:
            os.environ[SEPARATOR] = before


def separator_words() -> list[str]:
    """The command option for the separator that is named in this process, if there is one.

    >>> with separated_by(";"):
    ...     separator_words()
    ['--separator', ';']
    """
    return option_words({"--separator": os.environ.get(SEPARATOR, "").replace("\t", "tab")})


def separates(lines: Sequence[str], separator: str) -> bool:
    """Whether the first of some lines has column names with this separator, and the others have as many fields.

    A quoted field may continue after the last line: a line that only begins a row does not count.
    """
    try:
        header, *rows = csv.reader(lines, delimiter=separator, strict=False)
    except csv.Error:
        return False
    names = [name.strip() for name in header]
    named = len(names) > 1 and len(set(names)) == len(names) and all(0 < len(n) <= LONGEST_NAME for n in names)
    rows = [row for row in rows if row]
    whole = rows[: -1 if len(lines) == HEAD else None]
    return named and bool(rows) and all(len(row) == len(names) for row in whole)
