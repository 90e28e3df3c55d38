"""When two texts are the same question, in any script: the definition for splits, batches, rules, dedupe and labels.

Case, white space, punctuation and the way in which Unicode writes a letter do not count. Letters, marks such as vowel
signs, numbers and symbols do: `C++` is not `C#`, `1 > 2` is not `1 < 2`, `1.50` is not `150`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGEST = 6  # bytes
_ONE_SIGN = str.maketrans(
    dict.fromkeys("`\u00b4\u02b9\u02bc\u2018\u2019", "'")  # apostrophes; some are letters or symbols
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58", "-")  # dashes, and the minus
    | dict.fromkeys(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))), "")  # variation selectors
)
_SIGNS = "#%&@\\\u2030\u066a"  # punctuation, as Unicode has it, that stays
_MAY_MEAN = re.compile(r"[\d*/!]")
_TWO_DIGITS = re.compile(r"\d\D+\d")


def canonical(text: str) -> str:
    """Identifies a question: equal for texts that ask the same in the same words; the text itself if nothing is left.

    NFKC and full case folding (Unicode Standard, section 3.13 and annex 15). Punctuation stays where it has
    a meaning: between two digits, a minus before a number, `*` and `/` inside a word, `!=`. Spaces next to it do not
        count, nor does the kind of a dash, nor the style of an emoji.

    >>> canonical("How do  I, er, PAY?!")
    'howdoierpay'
    >>> [canonical(text) for text in ("C++", "C#", "-5", "1.50", "1 > 2")]
    ['c++', 'c#', '-5', '1.50', '1>2']
    >>> canonical("pages 5 \u2013 6"), canonical("pages 5-6"), canonical("pages 5 6")
    ('pages5-6', 'pages5-6', 'pages5 6')
    >>> canonical("cafe\u0301") == canonical("CAF\u00c9"), canonical("\u0915\u093f") == canonical("\u0915\u0940")
    (True, False)
    """
    folded = text.translate(_ONE_SIGN)
    if not folded.isascii():
        folded = unicodedata.normalize("NFKC", folded).casefold()
        folded = unicodedata.normalize("NFKC", folded)  # folding may take a letter apart
    else:
        folded = folded.casefold()
    # a small class of characters is searched several times as fast as a large one
    end = 0x80 if folded.isascii() else 0x10000 if max(folded) <= "\uffff" else 0x20000
    if not _MAY_MEAN.search(folded):  # most texts, and several times as fast
        return _meaningless(end).sub("", folded) or text
    folded = " ".join(folded.split())
    if _TWO_DIGITS.search(folded):
        folded = _between_digits(end).sub(_without_blanks, folded)
    return _meaningless_here(end).sub(r"\1", folded) or text


def pair_key(pair: Sequence[Any]) -> tuple[str, str]:
    """Identifies a pair of questions, which begins with its texts, whatever their order.

    >>> pair_key(("How?", "Who am  I?")) == pair_key(("who am i?", "how?"))
    True
    """
    one, other = sorted((canonical(pair[0]), canonical(pair[1])))
    return one, other


def canonical_ids(texts: Iterable[str]) -> NDArray[np.int64]:
    """(n,) one number per question, numbered in the order of first appearance.

    >>> canonical_ids(["How?", "Why?", "HOW ?"]).tolist()
    [0, 1, 0]
    """
    return numbered(map(canonical, texts))


def numbered(values: Iterable[str]) -> NDArray[np.int64]:
    """(n,) one number per distinct value, numbered in the order of first appearance.

    >>> numbered(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    seen: dict[str, int] = {}
    return np.fromiter((seen.setdefault(value, len(seen)) for value in values), np.int64)


def distinct_texts(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) the number of the question of each text; (q,) the first row of each question.

    >>> number, first = distinct_texts(["How?", "Why?", "HOW?"])
    >>> number.tolist(), first.tolist()
    ([0, 1, 0], [0, 1])
    """
    number = canonical_ids(texts)
    return number, np.unique(number, return_index=True)[1]


def question_digests(texts: Iterable[str]) -> str:
    """Digests that show later whether a question was among these, without storing them: base64, sorted.

    A question that was not among n is mistaken for one of them with a probability of n / 2^48.

    >>> question_digests(["How?", "HOW ?"]) == question_digests(["how"])
    True
    """
    return base64.b64encode(b"".join(sorted({_digest(text) for text in set(map(canonical, texts))}))).decode()


def among(digests: str, questions: Iterable[str]) -> set[str]:
    """Those of some questions, in canonical form, that were among those of `question_digests`.

    Raises:
        ValueError: the digests are damaged.

    >>> sorted(among(question_digests(["How?", "Why?"]), ["how", "who"]))
    ['how']
    """
    held = base64.b64decode(digests, validate=True)
    known = {held[start : start + DIGEST] for start in range(0, len(held), DIGEST)}
    return {question for question in questions if _digest(question) in known}


def _digest(question: str) -> bytes:
    return hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()


@functools.cache
def _meaningless(end: int) -> re.Pattern[str]:
    """Runs of white space, control characters and punctuation below a code point."""
    return re.compile(f"[{_removed(end)}]+")


@functools.cache
def _meaningless_here(end: int) -> re.Pattern[str]:
    """The same, character by character, where punctuation may carry meaning, which is group 1 then."""
    between = rf"(?<=\d)[{_removed(end)}]+(?=\d)"
    return re.compile(rf"({between}|(?<!\w)-(?=\d)|(?<=\w)[*/](?=\w)|!(?==))|[{_removed(end)}]")


@functools.cache
def _between_digits(end: int) -> re.Pattern[str]:
    """A digit, followed by what may be removed, up to another digit."""
    return re.compile(rf"(\d)([{_removed(end)}]+)(?=\d)")


def _without_blanks(found: re.Match[str]) -> str:
    """The match of `_between_digits`, of which punctuation stays, or else a space."""
    digit, between = found.groups()
    punctuation = "".join([c for c in between if unicodedata.category(c)[0] == "P"])
    return f"{digit}{punctuation or ' ' * (' ' in between)}"


@functools.cache
def _removed(end: int) -> str:
    """What may be removed, as the inside of a character class."""
    kinds = ((c, unicodedata.category(c)) for c in map(chr, range(end)))
    return re.escape("".join(c for c, kind in kinds if (kind[0] in "PZ" and c not in _SIGNS) or kind in ("Cc", "Cf")))
