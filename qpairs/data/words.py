"""The words of a question, for all counts and slices, in any script; and whether questions are English.

In scripts that put no blanks between words, a character with its marks counts as a word, as in the default word
boundaries of Unicode (annex 29, which leaves scripts such as Thai to a dictionary).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence

LEADING = "\u0e40-\u0e44\u0ec0-\u0ec4"  # vowels of Thai and Lao, written before their letter
UNSPACED = (
    f"{LEADING}\u0e01-\u0e2f\u0e81-\u0eaf\u0ebd\u0edc-\u0edf"  # Thai, Lao
    "\u1000-\u102a\u103f\u1050-\u1055\u1780-\u17b3"  # Burmese, Khmer
    "\u3005-\u3007\u3041-\u3096\u309d\u309e"  # Hiragana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)  # letters of scripts without blanks, as the inside of a character class
FOLLOWING = (
    "\u0300-\u036f\u0e30-\u0e3a\u0e45-\u0e4e\u0eb0-\u0ebc\u0ec6-\u0ece\u102b-\u103e\u1056-\u1059\u105e-\u1060"
    "\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u17b4-\u17d3\u3099\u309a\ufe00-\ufe0f"
)  # vowels and marks that belong to the letter before them
CHARACTER = rf"[{LEADING}]?[{UNSPACED}][{FOLLOWING}]*"  # what counts as a word there; encoders of words split so, too
_PLAIN_WORD = re.compile(r"\w+(?:'\w+)*", re.ASCII)  # the same in ASCII, and several times as fast


@functools.cache
def word_pattern() -> re.Pattern[str]:
    """The pattern for words in any script; it is slow to compile, and questions in ASCII do not need it."""
    marks = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M")  # as vowel signs
    letters = rf"(?:[^\W{UNSPACED}]|[{marks}])+"
    return re.compile(rf"{CHARACTER}|{letters}(?:['\u2019]{letters})*")  # don't is one word


def words(text: str) -> tuple[str, ...]:
    r"""The words of a text in their order, in lower case, without punctuation, with straight apostrophes.

    >>> words("How don't I pay - with my VISA card?")
    ('how', "don't", 'i', 'pay', 'with', 'my', 'visa', 'card')
    >>> words("\u092a\u093e\u0938\u0935\u0930\u094d\u0921 \u0915\u0948\u0938\u0947")  # two words of Hindi
    ('\u092a\u093e\u0938\u0935\u0930\u094d\u0921', '\u0915\u0948\u0938\u0947')
    >>> words("\u5fd8\u8bb0 PIN \u5bc6\u7801") == ("\u5fd8", "\u8bb0", "pin", "\u5bc6", "\u7801")
    True
    """
    if text.isascii():
        return tuple(_PLAIN_WORD.findall(text.lower()))
    return tuple(word_pattern().findall(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower()))


def pieces(text: str) -> tuple[tuple[str, str], ...]:
    """The words of a text unchanged, with punctuation, each with the spaces up to the next.

    A part between spaces is one piece; in a script without spaces, a word is.

    >>> pieces("Can't  I pay?")
    (("Can't", '  '), ('I', ' '), ('pay?', ''))
    >>> [piece for piece, _ in pieces("\u5bc6\u7801?")] == ["\u5bc6", "\u7801?"]
    True
    """
    return tuple((match[1], match[2]) for match in _PIECE.finditer(text))


_PIECE = re.compile(rf"((?:(?!\w)\S)*{CHARACTER}(?:(?!\w)\S)*|[^\s{UNSPACED}]+)(\s*)")
_ENGLISH = re.compile(  # words frequent in English questions, and rare in those of other languages
    r"\b(?:the|and|how|what|why|my|are|does|your?|with|which|should|would|from|this|that|where|when|have|has|been)\b",
    re.IGNORECASE,
)
LOOKED_AT = 2_000  # questions
MOSTLY = 0.25  # share of English questions that have such a word, at least


def looks_english(questions: Sequence[str]) -> bool:
    """Whether questions are mostly English, by frequent English words; for very few questions, always true.

    >>> looks_english(["How do I pay?", "What is my PIN?", "Where are you?", "Is the shop open?", "Reset password"])
    True
    >>> looks_english(["Wie bezahle ich?", "Wo ist mein PIN?", "Wo bist du?", "Hat der Laden auf?", "Was tun?"])
    False
    """
    some = questions[:: max(1, len(questions) // LOOKED_AT)]
    if len(some) < 5:
        return True
    return sum(bool(_ENGLISH.search(text)) for text in some) >= MOSTLY * len(some)
