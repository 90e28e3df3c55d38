"""Rules after which a question still asks the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qpairs.data.perturbations.patterns import PHRASE, Vocabulary, replaced, swapped


def typos(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """Two neighbouring letters are swapped, or one is left out, inside a word of five letters or more.

    Names, numbers, and the first and last letter of a word stay. The result is no known word (trial, trail).
    """
    for match in re.finditer(r"(?<![\w'\u2019-])[a-z]{5,}(?![\w'\u2019-])", text):
        word = match[0]
        for i in range(1, len(word) - 2):
            for wrong in (word[:i] + word[i + 1] + word[i] + word[i + 2 :], word[:i] + word[i + 1 :]):
                if wrong not in vocabulary.words:
                    yield text[: match.start()] + wrong + text[match.end() :]


def case(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """All letters in lower case, all in upper case, or Every Word With A Capital."""
    yield from (text.lower(), text.upper(), re.sub(r"(?<![\w'\u2019])[a-z]", lambda match: match[0].upper(), text))


def punctuation(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """The mark at the end is dropped, doubled, set off or added, or commas between words are dropped."""
    ended = re.fullmatch(r"(.*\w\w)([?!.])", text)
    if ended:
        yield from (ended[1], text + ended[2], f"{ended[1]} {ended[2]}")
    elif text[-1:].isalnum():
        yield from (f"{text}?", f"{text}.")
    yield re.sub(r"(?<=[^\W\d]), (?=[^\W\d])", " ", text)


_SHORT = {
    "cannot": "can't",
    "can not": "can't",
    "will not": "won't",
    "I am": "I'm",
    "I will": "I'll",
    "it is": "it's",
    **{f"{word} is": f"{word}'s" for word in ("what", "who", "where", "how", "that", "there", "he", "she")},
    **{f"{word} are": f"{word}'re" for word in ("you", "they", "we")},
    **{f"{word} not": f"{word}n't" for word in ("is", "are", "was", "were", "do", "does", "did", "have", "has", "had")},
    **{f"{word} not": f"{word}n't" for word in ("would", "could", "should")},
}
_LONG = {short: full for full, short in _SHORT.items() if full != "cannot"} | {"can't": "cannot"}
_FULL_FORM = re.compile(rf"\b(?:{'|'.join(_SHORT)})\b(?= [a-z])", re.I)
_SHORT_FORM = re.compile(
    rf"\b(?:{'|'.join(_LONG)})\b(?! (?:been|got|had|\w+(?:ed|en)\b))".replace("'", "['\u2019]"), re.I
)
_INVERTED = re.compile(r"\b\w+n['\u2019]t (?:I|you|he|she|it|we|they|there|the|my|a|an|people|[A-Z]\w+)\b")


def contractions(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """`What is` -> `What's`, `don't` -> `do not` and back, where English allows it.

    Not at the end (`what it is?`), where 's may be `has` (`who's been`), or before the subject (`why don't people`).
    """
    short, long = ({k.lower(): v for k, v in forms.items()} for forms in (_SHORT, _LONG))
    if not re.search(r" (?:it|this|that|these|those)\W*$", text):
        yield from replaced(text, _FULL_FORM, lambda match: short[match[0].lower()])
    if not _INVERTED.search(text):
        yield from replaced(text, _SHORT_FORM, lambda match: long[match[0].lower().replace("\u2019", "'")])


_SYMMETRIC = [
    re.compile(rf"\bbetween (?P<a>{PHRASE}) and (?P<b>{PHRASE})(?=\W*$| (?i:in|for|when|as)\b)"),
    re.compile(
        rf"\b(?i:better|best|cheaper|safer|faster|healthier|easier)[,:]? (?P<a>{PHRASE}) or (?P<b>{PHRASE})(?=\W*$)"
    ),
]


def symmetry(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """Two phrases with the same role are swapped: `between A and B`, `which is better, A or B`; not numbers.

    A model that has learned from `word_order` that every swap matters fails here.
    """
    return swapped(text, _SYMMETRIC, lambda a, b: not re.search(r"\d", a + b))
