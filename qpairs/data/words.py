"""The words of a question, as every count and slice takes them."""

from __future__ import annotations

import re
import unicodedata

_MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M")  # as vowel signs
_LETTERS = rf"[\w{_MARKS}]+"
WORD = re.compile(rf"{_LETTERS}(?:['\N{{RIGHT SINGLE QUOTATION MARK}}]{_LETTERS})*")  # don't is one word


def words(text: str) -> tuple[str, ...]:
    r"""The words of a text in their order, in lower case, without punctuation, with straight apostrophes.

    >>> words("How don't I pay - with my VISA card?")
    ('how', "don't", 'i', 'pay', 'with', 'my', 'visa', 'card')
    >>> words("\u092a\u093e\u0938\u0935\u0930\u094d\u0921 \u0915\u0948\u0938\u0947")  # two words of Hindi
    ('\u092a\u093e\u0938\u0935\u0930\u094d\u0921', '\u0915\u0948\u0938\u0947')
    """
    return tuple(WORD.findall(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower()))
