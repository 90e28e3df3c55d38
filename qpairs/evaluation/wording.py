"""Kinds of pair by the wording of their questions.

A kind is a rule that reads a pair and gives a value; the pairs of one value are a slice. The rules are simple on
purpose: each has a description in one sentence.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from qpairs.data.identity import canonical
from qpairs.data.words import pieces, word_pattern, words

Number = TypeVar("Number", int, float)
Bands = Sequence[tuple[Number, Number, str]]  # above the first number, up to the second, name

LENGTHS: Bands[int] = ((-1, 8, "up to 8 words"), (8, 15, "9 to 15 words"), (15, 10**9, "over 15 words"))
OVERLAPS: Bands[float] = tuple((n / 5 if n else -1.0, (n + 1) / 5, f"{20 * n} to {20 * n + 20} %") for n in range(5))
_LENGTH_DIFFERENCES: Bands[int] = ((-1, 1, "up to 1 word"), (1, 4, "2 to 4 words"), (4, 10**9, "5 words and more"))
_EDGES = ".,;:?!\"'()[]{}\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}"  # of a word, no part of it
_JOINING = "-'\N{RIGHT SINGLE QUOTATION MARK}"  # parts of words
_SENTENCE_END = re.compile(r"[.?!:;\"(]\s*$|^\s*$")
_QUESTION_WORDS = ("what", "which", "who", "whom", "whose", "when", "where", "why", "how")
_NEGATIONS = {"not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot", "cant", "dont"}
_PERSONS = {
    word: person
    for person, words in {
        "I": "i me my mine myself",
        "we": "we us our ours ourselves",
        "you": "you your yours yourself",
        "he": "he him his himself",
        "she": "she her hers herself",
        "they": "they them their theirs themselves",
    }.items()
    for word in words.split()
}


@dataclass(frozen=True)
class Wording:
    """What the rules read of a pair.

    Attributes:
        texts: both questions.
        known: words of the training questions, from `vocabulary`.
    """

    texts: tuple[str, str]
    known: frozenset[str]

    @functools.cached_property
    def words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The words of both questions, in lower case, without punctuation."""
        return words(self.texts[0]), words(self.texts[1])

    @functools.cached_property
    def sets(self) -> tuple[frozenset[str], frozenset[str]]:
        """The distinct words of both questions."""
        return frozenset(self.words[0]), frozenset(self.words[1])

    @functools.cached_property
    def length(self) -> int:
        """Words of the longer question."""
        return max(map(len, self.words))

    @functools.cached_property
    def overlap(self) -> float:
        """Distinct words that both questions have, of all that either has (Jaccard); 0 without any words."""
        one, other = self.sets
        return len(one & other) / max(1, len(one | other))

    @functools.cached_property
    def unknown(self) -> frozenset[str]:
        """The words of either question that are not known."""
        return (self.sets[0] | self.sets[1]) - self.known


def vocabulary(questions: Sequence[str]) -> frozenset[str]:
    """The words that at least two questions have: a word in only one question may be a spelling mistake.

    >>> sorted(vocabulary(["How do I pay?", "How do I psy?", "Can I pay?"]))
    ['do', 'how', 'i', 'pay']
    """
    counts = Counter(word for text in questions for word in set(words(text)))
    return frozenset(word for word, count in counts.items() if count > 1)


def band_of(value: Number, bands: Bands[Number]) -> str:
    """The name of the band that a number lies in."""
    return next(name for low, high, name in bands if low < value <= high)


def _same(one: Collection[str], other: Collection[str]) -> str | None:
    """Whether two sets are the same; None if both are empty."""
    if not (one or other):
        return None
    return "the same" if one == other else "different"


def _length(pair: Wording) -> str:
    return band_of(pair.length, LENGTHS) if pair.length else "no words"


def _length_difference(pair: Wording) -> str:
    return band_of(abs(len(pair.words[0]) - len(pair.words[1])), _LENGTH_DIFFERENCES)


def _overlap(pair: Wording) -> str:
    return band_of(pair.overlap, OVERLAPS)


def _question_word(pair: Wording) -> str:
    one, other = (next((word for word in side if word in _QUESTION_WORDS), "") for side in pair.words)
    if one == other:
        return f"{one} in both" if one else "in neither"
    return "different" if one and other else "in one alone"


def _negation(pair: Wording) -> str | None:
    one, other = (any(word in _NEGATIONS or word.endswith("n't") for word in side) for side in pair.words)
    if not (one or other):
        return None
    return "in both" if one and other else "in one alone"


def _numbers(pair: Wording) -> str | None:
    one, other = (set(re.findall(r"\d+(?:[.,]\d+)*", text)) for text in pair.texts)
    return _same(one, other)


def _names(pair: Wording) -> str | None:
    one, other = map(names_in, pair.texts)
    if not (one or other):
        return None
    return "the same" if one <= pair.sets[1] and other <= pair.sets[0] else "different"


def names_in(text: str) -> set[str]:
    """The capitalised words within a sentence, in lower case; none if every word is capitalised.

    >>> names_in("Is Rome older than Paris?") == {"rome", "paris"}
    True
    """
    matches = list(word_pattern().finditer(text))
    if all(match[0][0].isupper() or not match[0][0].isalpha() for match in matches):
        return set()
    capitalised = (
        words(match[0])[0]
        for match in matches
        if match[0][0].isupper() and not _SENTENCE_END.search(text[: match.start()])
    )
    return {word for word in capitalised if word.partition("'")[0] != "i"}


def differing_words(one: str, other: str) -> tuple[str, str] | None:
    """The only word in which two questions differ, from each, if both are names, numbers, or have a sign.

    >>> differing_words("How do I sort a list in C++?", "How do I sort a list in C#?")
    ('C++', 'C#')
    >>> differing_words("What is error 403?", "What is error 500?")
    ('403', '500')
    >>> differing_words("How do I pay?", "How do I cancel?") is None
    True
    """
    if one.count(" ") != other.count(" "):  # most pairs, before their words are looked for
        return None
    sides = [[piece.strip(_EDGES) for piece, _ in pieces(text)] for text in (one, other)]
    if len(sides[0]) != len(sides[1]) or len(sides[0]) < 2:
        return None
    pairs = [pair for pair in zip(*sides, strict=True) if canonical(pair[0]) != canonical(pair[1])]
    if len(pairs) != 1:
        return None
    telling = all(_is_name_number_or_sign(*side) for side in zip(pairs[0], (one, other), strict=True))
    return pairs[0] if telling else None


def _is_name_number_or_sign(word: str, text: str) -> bool:
    """Whether a word is a name in its text, or has a number or a sign in it."""
    signs = any(unicodedata.category(character)[0] in "NPS" for character in word if character not in _JOINING)
    return signs or not names_in(text).isdisjoint(words(word))


def _one_word(pair: Wording) -> str | None:
    return "a name, a number or a sign" if differing_words(*pair.texts) else None


def _pronouns(pair: Wording) -> str | None:
    one, other = ({_PERSONS.get(word.partition("'")[0], "") for word in side} - {""} for side in pair.words)
    return _same(one, other)


def _spelling(pair: Wording) -> str | None:
    slips = (word for word in pair.unknown if len(word) >= 4 and word.isalpha())
    return "a likely slip" if any(not pair.known.isdisjoint(edits(word)) for word in slips) else None


def edits(word: str) -> set[str]:
    """The words at one edit that keep the first and the last letter, so plurals are left out (after Norvig, 2007).

    An edit deletes, inserts or replaces a letter, or swaps two neighbours.
    """
    first, inside, last = word[:1], word[1:-1], word[-1:]
    cuts = [(inside[:i], inside[i:]) for i in range(len(inside) + 1)]
    deleted = {left + right[1:] for left, right in cuts if right}
    swapped = {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
    replaced = {left + letter + right[1:] for left, right in cuts if right for letter in string.ascii_lowercase}
    inserted = {left + letter + right for left, right in cuts for letter in string.ascii_lowercase}
    return {first + middle + last for middle in deleted | swapped | replaced | inserted}


def _word_order(pair: Wording) -> str | None:
    one, other = pair.words
    return "the same words, another order" if one != other and sorted(one) == sorted(other) else None


def _known_words(pair: Wording) -> str:
    return ("all", "all but one", "several are new")[min(2, len(pair.unknown))]


@dataclass(frozen=True)
class Kind:
    """A rule by which pairs are sorted: in one sentence, and as a function to a value; None if it does not apply."""

    rule: str
    value: Callable[[Wording], str | None]


KINDS: dict[str, Kind] = {
    "length": Kind("words of the longer question", _length),
    "length difference": Kind("words by which one question is longer", _length_difference),
    "word overlap": Kind("distinct words that both have, of all that either has", _overlap),
    "question word": Kind(f"the first of {', '.join(_QUESTION_WORDS)} in each question", _question_word),
    "negation": Kind("not, no, never, without, ...n't and their like", _negation),
    "numbers": Kind("the numbers written in digits", _numbers),
    "names": Kind("capitalised words within a sentence; different where the other question lacks one", _names),
    "one word": Kind("all words but one are the same, and that is a name, a number, or has a sign as C++", _one_word),
    "pronouns": Kind("the persons spoken of: I, we, you, he, she, they", _pronouns),
    "spelling": Kind("a new word of 4 letters or more, one edit inside it away from a known one", _spelling),
    "word order": Kind("both have the very same words, in another order", _word_order),
    "known words": Kind("words that two or more training questions have", _known_words),
}
