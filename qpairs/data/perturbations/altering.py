"""Rules after which a question asks something else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations

from qpairs.data.perturbations.patterns import (
    AUXILIARY,
    COMPARATIVE,
    END,
    NAME,
    PHRASE,
    THING,
    WORD,
    Vocabulary,
    like,
    names_in,
    replaced,
    swapped,
)


def _plural(phrase: str) -> bool:
    return bool(re.search(r"[^siu]s$", phrase))


_MOTION = (
    r"(?:switch|mov|go|travel|transfer|convert|chang|get|fly|driv|migrat|upgrad|shift|commut|transition|send|copy|import|"
    r"export|distance|fare|train|bus|flight|journey|route)\w*"
)
_ROLES = [
    re.compile(rf"\b[Ff]rom (?P<a>{PHRASE}) to {THING}(?P<b>{PHRASE}){END}"),
    re.compile(rf"\b(?i:{_MOTION})\b.* from (?P<a>{WORD}) to (?P<b>{WORD})(?=\W*$)"),
    re.compile(rf"\b(?i:convert|translat|transform|turn|chang)\w* (?P<a>{PHRASE}) into (?P<b>{PHRASE}){END}"),
    re.compile(rf"\b(?i:convert|translat)\w* (?P<a>{PHRASE}) to (?P<b>{THING}{PHRASE}{END}|{WORD}(?=\W*$))"),
    re.compile(
        rf"\b(?i:use|using|choose|choosing|buy|buying|prefer|learn|learning|study|eat|drink|pick) (?P<a>{PHRASE}) "
        rf"(?:instead of|rather than) (?P<b>{PHRASE}){END}"
    ),
    re.compile(rf"\b(?i:choose|choosing|prefer|pick) (?P<a>{PHRASE}) over (?P<b>{PHRASE}){END}"),
    re.compile(rf"\b(?:better|worse|easier|harder|cheaper|safer) to (?P<a>{PHRASE}) than to (?P<b>{PHRASE}){END}"),
    re.compile(
        rf"\b(?i:do|does|did|will|can|could|would|should|is|was) (?P<a>{NAME}) "
        r"(?:(?!(?:and|or|vs|with|in|at|on|of|an?|the|from|like|compared?|married|related|similar|equal|meet|same|near|so|"
        rf"their|his|her|its|my|your|our)\b)[a-z]+ ){{1,3}}(?P<b>{NAME}){END}"
    ),
]
_COMPARED = [
    re.compile(
        rf"\b(?i:is|are|was|were) (?P<a>{PHRASE}) (?:(?:much|far|even|still|really|so much) )?"
        rf"{COMPARATIVE}(?: [a-z]+)? than (?P<b>{PHRASE}){END}"
    ),
    re.compile(rf"\b(?i:do|does|did|will|can) (?P<a>{NAME}) [a-z ]*?{COMPARATIVE} than (?P<b>{NAME}){END}"),
]


def word_order(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """Two phrases with different roles are swapped.

    `from A to B`, `convert A to B`, `use A instead of B`, `is A better than B`, `does A own B`. Not
    pronouns, not relations that hold both ways (`married to`), not a comparison of a singular with a plural.
    """
    yield from swapped(text, _ROLES, lambda a, b: len(a) > 1 and len(b) > 1 and not (a + b).isdigit())
    if len(re.findall(r"\bthan\b", text)) == 1:
        yield from swapped(text, _COMPARED, lambda a, b: _plural(a) == _plural(b) and not re.search(r"\d", b))


_PERSON = r"(?:I|you|we|they|he|she|it|one|people|someone)"
_NEGATIVE = re.compile(
    r"\b(?:not|cannot|never|no|nobody|none|nothing|neither|nor|without|hardly|unless)\b|n['\u2019]t\b", re.I
)
_NO_REMOVAL = re.compile(
    r"\b(?:(?:why|or|if|whether|and|but) not|not (?:only|just|all|every|to mention)|\w+n['\u2019]t only|not\W*$)\b|"
    r"^\w+n['\u2019]t\b",
    re.I,
)
_WH = r"(?:how|why|what|when|where|which|who)"
_AFFIRMATIVE = [
    re.compile(
        rf"\b{_WH}(?<!how)(?: \w+){{0,3}}? {AUXILIARY} {_PERSON}\b(?= \w)(?! (?:mean|take|like|feel like|be like)\b)",
        re.I,
    ),
    re.compile(rf"\bhow {AUXILIARY} (?!you doing){_PERSON}\b(?= \w)", re.I),
    re.compile(rf"\b[Ww]hy {AUXILIARY} (?:{NAME}|(?:the|my|our|their) [a-z]+)(?= [a-z])"),
    re.compile(
        r"\b(?:who|which|I|he|she|they|you|we) (?:is|are|was|were|am|should|would|could|will|must|might)\b(?= \w)"
    ),
    re.compile(r"\b(?:how|ways?|decided?|chose|choose|tr(?:y|ied)|learn(?:ed)?)(?= to [a-z])", re.I),
    re.compile(
        r"\b(?:good|bad|better|safe|legal|illegal|okay|ok|wrong|right|rude|normal|healthy|possible|smart|wise|dangerous|"
        r"important|necessary|easy|hard|difficult)(?= to [a-z])",
        re.I,
    ),
]
_REMOVED = re.compile(r"\b(?:cannot|can['\u2019]t|won['\u2019]t|\w+n['\u2019]t)\b| not(?= \w)", re.I)
_POSITIVE = {"cannot": "can", "can't": "can", "won't": "will", "ain't": "is"}


def negation(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """`How do I` -> `How do I not`, `who is` -> `who is not`, `safe to` -> `safe not to`; a single negation is removed.

    The verb of a yes/no question stays, since `Isn't it ...?` asks the same as `Is it ...?`.
    """
    found = _NEGATIVE.findall(text)
    if not found:
        for pattern in _AFFIRMATIVE:
            yield from replaced(text, pattern, lambda match: f"{match[0]} not")
    elif len(found) == 1 and not _NO_REMOVAL.search(text):
        for match in _REMOVED.finditer(text):
            word = match[0].lower().replace("\u2019", "'")
            positive = "" if word == " not" else _POSITIVE.get(word, word.removesuffix("n't"))
            yield text[: match.start()] + (positive and like(positive, match[0])) + text[match.end() :]


_NUMBER = re.compile(r"(?<![\w.,:/#+*=^-])(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,6}(?:\.\d+)?)(?![\w:/^+*=-]|[.,]\d)")
_NUMERALS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMERAL = re.compile(
    rf"(?<!\b(?:the|all|one|two) )(?<!\bof )(?<!\bor )(?<!\bthese )(?<!\bthose )(?<!\bbetween )"
    rf"(?<![\w'-])(?:{'|'.join(_NUMERALS)})(?![\w'-]| or\b)"
)


def _other_numbers(number: str) -> list[str]:
    """Numbers of similar size: another year, another small number, or the half, double and triple."""
    whole, _, rest = number.replace(",", "").partition(".")
    value = int(whole)
    if value == 1:  # the noun after it would have to change too
        return []
    if len(number) == 4 and 1900 <= value < 2100:
        others = [value - 7, value - 3, value + 2]
    elif value < 13:
        others = [n for n in range(2, 13) if n != value]
    else:
        others = [value // 2, value * 2, value * 3]
    return [f"{n:,}" if "," in number else f"{n}.{rest}" if rest else str(n) for n in others]


def numbers(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """One number is changed to another of similar size, in figures or as a word.

    Not 1, ranges, dates, times, fractions, formulas (`24/7`, `5-10`, `2+2`) or parts of words, and not to a number
    that is in the question already.
    """
    there = {match[0] for pattern in (_NUMBER, _NUMERAL) for match in pattern.finditer(text)}
    for match in (*_NUMBER.finditer(text), *_NUMERAL.finditer(text)):
        for other in _NUMERALS if match[0] in _NUMERALS else _other_numbers(match[0]):
            if other not in there:
                yield text[: match.start()] + other + text[match.end() :]


_TIME = re.compile(r"\b(?:before|after)(?= ['\"“]?\w)", re.I)
_TIME_IDIOMS = re.compile(
    r"\b(?:(\w+) after \1|one after|after (?:all|effects?|another|that|sales?)|before (?:long|and|or|that)|"
    r"day (?:after tomorrow|before yesterday)|(?:ever|never|long|as) before|"
    r"(?:look|nam|tak|tak(?:es|en)|go|r[au]n|ask|chas|com)\w{0,4} after)\b",
    re.I,
)


def before_after(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """`before` <-> `after`, followed by what they refer to.

    Not in `look after`, `day after day`, `before and after`, as the last word, or where the question has both.
    """
    if len(_TIME.findall(text)) == 1 and not _TIME_IDIOMS.search(text):
        yield from replaced(text, _TIME, lambda match: "after" if match[0].lower() == "before" else "before")


def _both_ways(*pairs: str) -> dict[str, str]:
    """`more less` -> {more: less, less: more}."""
    return {a: b for pair in pairs for a, b in permutations(pair.split())}


_AMOUNTS = {**_both_ways("more less", "most least"), "fewer": "more"}
_DEGREES = {
    **_both_ways(
        "best worst", "better worse", "higher lower", "highest lowest", "biggest smallest", "largest smallest"
    ),
    **_both_ways(*(f"increas{end} decreas{end}" for end in ("e", "es", "ed", "ing"))),
}
_AMOUNT = re.compile(
    r"(?<![\w-])(?:more|less|fewer|least|(?:(?<=the )|(?<=your )|(?<=my )|(?<='s ))most)(?![\w-])", re.I
)
_AMOUNT_IDIOMS = re.compile(
    r"\b(?:(?:no|any|some|once|one|two|few|many|several|and|learn|know|or|never|much|\d+) (?:more|less)|not least|"
    r"more (?:or|and|about|info\w*|details?|of|than (?:one|once|1))|the most (?:of|part|recent))\b",
    re.I,
)
_DEGREE = re.compile(rf"(?<![\w-])(?:{'|'.join(_DEGREES)})(?![\w-])", re.I)
_DEGREE_IDIOMS = re.compile(
    r"\bbest (?:friends?|buy|sellers?|man|of luck|wishes|practices?)\b|\bbetter half\b|(?:\bhad|['\u2019]d) better\b|"
    r"\b(?:my|your|his|her|their|do|at) (?:level )?best\b|\bhigher (?:education|stud\w+|secondary)\b|"
    r"\blower (?:back|body|case|abdomen)\b",
    re.I,
)


def more_less(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """`more` <-> `less` (`fewer` before a plural), `most` <-> `least`.

    `most` only as a superlative (`the most`, `your most`), since `most people` have no opposite; not in `any more`,
    `more or less`, `learn more about`.
    """

    def opposite(match: re.Match[str]) -> str:
        plural = match[0].lower() == "more" and re.match(r" \w+[^\Wsui]s\b", text[match.end() :])
        return "fewer" if plural else _AMOUNTS[match[0].lower()]

    if not _AMOUNT_IDIOMS.search(text):
        yield from replaced(text, _AMOUNT, opposite)


def opposites(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """`best` <-> `worst`, `better` <-> `worse`, `higher` <-> `lower`, `increase` <-> `decrease`.

    Not in `best friend`, `higher education`, `your best`.
    """
    if not _DEGREE_IDIOMS.search(text):
        yield from replaced(text, _DEGREE, lambda match: _DEGREES[match[0].lower()])


_SAME_PLACE = (
    {"US", "USA", "America", "United States", "States"},
    {"UK", "Britain", "England", "United Kingdom", "Great Britain"},
)


def entities(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """A name is replaced by another one that occurs in the same place of another question (see `patterns.names_in`).

    `in India` -> `in Japan`, `Is Donald Trump` -> `Is Tom Hanks`; not after an article, nor inside a longer name.
    """
    for name, start, place in names_in(text):
        alike = next((group for group in _SAME_PLACE if name in group), {name})
        for other in vocabulary.names.get(place, ()):
            if other not in alike and other not in text:
                yield text[:start] + other + text[start + len(name) :]


_STATE = r"(?! (?:\w+ing|going|there|not|it|this|that|able|about|to|supposed|likely)\b)(?= \w)"
_SUBJECT = rf"(he|she|they|it|{NAME})"
_DOES = rf"[Dd]o(?:es)? ((?<=[Dd]o )(?:you|people|they)|(?<=oes )(?:he|she|it|{NAME}))(?= [a-z])(?! (?:guys|take)\b)"
_TENSES = [
    (re.compile(r"^(What|Who|Which \w+) (?:is|are)(?= (?:the|your|my|our|his|her|their) \w)"), r"\1 used to be"),
    (re.compile(rf"^Is {_SUBJECT}{_STATE}"), r"Did \1 use to be"),
    (re.compile(rf"\b([Ww]hy) is {_SUBJECT}{_STATE}"), r"\1 did \2 use to be"),
    (re.compile(rf"\b(who|I|he|she|they) (?:is|am|are){_STATE}"), r"\1 used to be"),
    (re.compile(rf"^{_DOES}"), r"Did \1 use to"),
    (re.compile(rf"\b(Why|What|Where|How) {_DOES}"), r"\1 did \2 use to"),
    (re.compile(r"\b(he|she|it|who|what|that|which) used to be\b", re.I), r"\1 is"),
    (re.compile(r"\bI used to be\b"), "I am"),
    (re.compile(rf"^Did {_SUBJECT} used? to be\b"), r"Is \1"),
]
_PASSIVE = re.compile(r"\b(?:be|been|being|is|are|was|were|get|got) used to\b", re.I)


def used_to(text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """The present becomes the past, and back: `Is Ann a vet?` -> `Did Ann use to be a vet?`.

    Not the progressive (`is he coming`), and not `be used to`, which means something else.
    """
    if not _PASSIVE.search(text) and not _NEGATIVE.search(text):
        for pattern, other in _TENSES:
            for match in pattern.finditer(text):
                yield text[: match.start()] + match.expand(other) + text[match.end() :]
