"""Commands shown to a user: quoted so that a shell and a terminal take them literally."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Mapping

_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # turn the direction of what follows
_STEERING = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes of a name that are no UTF-8, line breaks
BYTES = "\udc80", "\udcff"  # how Python writes bytes of a name that are no UTF-8


def steers(character: str) -> bool:
    r"""Whether a character would control a terminal, or is not a valid character.

    >>> steers("\x1b"), steers("\u202e"), steers("é")
    (True, True, False)
    """
    return unicodedata.category(character) in _STEERING or character in _TURNS


def shown_command(*words: object) -> str:
    r"""A command to be copied into a shell, which reads it as these words.

    A word with characters that control a terminal is written as `$'...'`, which bash, zsh and ksh read.

    >>> print(shown_command("qpairs", "search", "my  idx", "How do I ...?"))
    qpairs search 'my  idx' 'How do I ...?'
    >>> print(shown_command("qpairs", "data", "a\n.csv"))
    qpairs data $'a\x0a.csv'
    """
    return " ".join(_quoted(str(word)) for word in words)


def option_words(options: Mapping[str, object]) -> list[str]:
    """The words of those options that have a value: the name of a flag, and the name with each item of a list.

    >>> option_words({"--data": ["a.csv", "b.csv"], "--columns": "", "--label-cut": None, "--skip-bad-rows": True})
    ['--data', 'a.csv', '--data', 'b.csv', '--skip-bad-rows']
    """
    words: list[str] = []
    for name, value in options.items():
        if value is True:
            words.append(name)
        elif value is not False and value is not None and value != "":
            for item in value if isinstance(value, list | tuple) else [value]:
                words += [name, str(item)]
    return words


def _quoted(word: str) -> str:
    if not any(map(steers, word)):
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if not steers(character):
        return character
    errors = "surrogateescape" if BYTES[0] <= character <= BYTES[1] else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors))
