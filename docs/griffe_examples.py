"""Examples of docstrings are shown as code, whether they stand in a section or not."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\n).*)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Puts a fence around each example outside a section, and names the section of the others as griffe does."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each function, class and module."""
        if obj.docstring:
            text = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
