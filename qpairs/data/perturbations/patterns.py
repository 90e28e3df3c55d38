"""What the rules share: patterns of English, functions that replace and swap, the vocabulary of a data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

AUXILIARY = r"(?:is|are|was|were|do|does|did|can|could|will|would|shall|should|may|might|must|has|have|had)"
STOP = (
    r"(?:in|on|at|by|for|with|without|using|if|when|while|and|or|via|within|as|because|through|who|that|which|than|"
    r"from|to|but|so|after|before|per|under|during|since|until|about|into|rather|instead|over|much|far|even|still|really|"
    rf"{AUXILIARY})"
)
WORD = rf"(?!(?i:{STOP})\b)[\w'\u2019+#&$%-]+(?:\.\w+)*"
PHRASE = rf"{WORD}(?: {WORD}){{0,3}}"
END = rf"(?=[?!.,;:)]|$| (?i:{STOP})\b)"
THING = r"(?=(?:an?|the|my|your|his|our|their)\b|[A-Z])"  # such a start means that a noun follows, not a verb
NAME = r"(?:[A-Z][a-z]+(?: [A-Z][a-z]+){0,2}|[A-Z]{2,5})"
COMPARATIVE = r"(?:(?:an? )?(?:(?:more|less) \w+|better|worse|(?!(?:rather|other)\b)\w{2,}er))"
_FIXED = re.compile(  # phrases that cannot change places: with a pronoun, or an article alone
    r"^(?:the|an?)$|\b(?:i|me|you|he|him|she|it|we|us|they|them|this|that|these|those|there|here|any|others?|ever|each|one|"
    r"what|how|now|then|all|another|scratch|usual|normal)\b",
    re.I,
)


def like(word: str, model: str) -> str:
    """The word, capitalised as another one is."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word


def replaced(text: str, pattern: re.Pattern[str], new: Callable[[re.Match[str]], str]) -> Iterator[str]:
    """For each match of a pattern, the text with this match replaced; capital letters stay as they were."""
    for match in pattern.finditer(text):
        yield text[: match.start()] + like(new(match), match[0]) + text[match.end() :]


def swapped(text: str, patterns: Iterable[re.Pattern[str]], fits: Callable[[str, str], bool]) -> Iterator[str]:
    """For each match, the text with its groups `a` and `b` swapped."""
    for pattern in patterns:
        for match in pattern.finditer(text):
            a, b = match["a"], match["b"]
            if a.lower() != b.lower() and fits(a, b) and not (_FIXED.search(a) or _FIXED.search(b)):
                between = text[match.end("a") : match.start("b")]
                yield text[: match.start("a")] + b + between + a + text[match.end("b") :]


@dataclass(frozen=True)
class Vocabulary:
    """What the rules use of a data set.

    Attributes:
        names: place of a name, as in `names_in` -> the names that occur there, and at least twice in all.
        words: the lower-case words that occur.
    """

    names: Mapping[tuple[str, int], Sequence[str]]
    words: frozenset[str]


def vocabulary_of(questions: Iterable[str]) -> Vocabulary:
    """The vocabulary of some questions."""
    names: dict[tuple[str, int], Counter[str]] = {}
    words: set[str] = set()
    for text in questions:
        words.update(re.findall(r"[a-z]+", text.lower()))
        for name, _, place in names_in(text):
            names.setdefault(place, Counter())[name] += 1
    often = Counter(name for found in names.values() for name in found.elements())
    return Vocabulary(
        {place: tuple(name for name in found if often[name] > 1) for place, found in names.items()}, frozenset(words)
    )


_PLACED_NAME = re.compile(
    rf"(?:\b(?P<before>[a-z]+) (?P<name>{NAME})(?:(?=['\u2019]s\b)|{END})|"
    rf"^(?P<opening>Is|Was|Did|Does|Will|Can|Should|Would|Could|Has|Why is|Why did|Why does|Who is|How did|How does) "
    rf"(?P<subject>{NAME})(?=['\u2019]s\b| [a-z]))(?! of [A-Z]|, [A-Z]| \()"
)


def names_in(text: str) -> Iterator[tuple[str, int, tuple[str, int]]]:
    """Each name in a text, its first character's index, and its place; none in a text with mostly capitalised words.

    A place is the word before the name, which is no name itself, and the number of words of the name, 0 for an acronym.
    """
    words = text.split()
    if sum(word[0].isupper() for word in words) <= max(3, len(words) / 2):
        for match in _PLACED_NAME.finditer(text):
            group = "name" if match["name"] else "subject"
            name, before, start = match[group], match["before"] or match["opening"], match.start(group)
            if before not in ("a", "an", "the") and not re.search(r"[A-Z]\w* of $", text[:start]):
                yield name, start, (before, 0 if name.isupper() else len(name.split()))
