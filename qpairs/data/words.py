"""The words of a question, as every count and slice takes them."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}]\w+)*")  # an apostrophe inside a word is part of it


def words(text: str) -> tuple[str, ...]:
    """The words of a text in their order, in lower case, without punctuation, with straight apostrophes.

    >>> words("How don\u2019t I pay - with my VISA card?")
    ('how', "don't", 'i', 'pay', 'with', 'my', 'visa', 'card')
    """
    return tuple(WORD.findall(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower()))
