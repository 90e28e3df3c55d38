"""The description of an object in one line, and as a small card in a notebook.

A class has a method `_facts`, which returns a title and some facts, and takes the two functions below as its own:
`__repr__, _repr_html_ = one_line, html_card`.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Protocol

LONGEST = 120  # characters of a fact; the rest is cut off
MOST = 2000  # characters of a card; facts that do not fit are left out
END = "</tbody></table>"


class Described(Protocol):
    """What has a title and facts."""

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        """The name of the class, and facts by name, the most important first."""


def one_line(described: Described) -> str:
    """The facts in one line, such as `Pairs(pairs=2, questions=3)`.

    >>> class Counted:
    ...     def _facts(self): return "Counted", {"pairs": "2,400", "file": "mine.csv"}
    >>> one_line(Counted())
    'Counted(pairs: 2,400, file: mine.csv)'
    """
    title, facts = described._facts()
    return f"{title}({', '.join(f'{name}: {_shown(value)}' for name, value in facts.items())})"


def html_card(described: Described) -> str:
    """The facts as a small table in HTML, of under 2,000 characters; texts are escaped.

    >>> class Counted:
    ...     def _facts(self): return "Counted", {"file": "<mine>.csv"}
    >>> html_card(Counted()).count("&lt;mine&gt;.csv")
    1
    """
    title, facts = described._facts()
    left = 'style="text-align:left"'
    card = f"<table><caption {left}><b>{escape(title)}</b></caption><tbody>"
    for name, value in facts.items():
        row = f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(_shown(value))}</td></tr>"
        if len(card) + len(row) + len(END) < MOST:
            card += row
    return card + END


def _shown(value: object) -> str:
    """A value in one line; control characters are left out, since the line goes to a terminal."""
    text = f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    text = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
