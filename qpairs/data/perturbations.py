"""Rules that change a question, and what should follow: the same question still, or another one.

Behavioural testing as in CheckList (Ribeiro et al. 2020): after a change of an invariant kind the verdict should stay;
after one of the other kinds the question asks something else. A rule is a function (text, corpus) -> all the changed
texts that it can vouch for, none where it does not fit, and a row of `PERTURBATIONS`. Rules know English alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from qpairs.core.exceptions import UserError, nearest
from qpairs.data.pairs import Pairs, pairs_from_texts
from qpairs.data.splits import canonical

LONGEST = 30  # words of a question that a rule may turn into another one; in longer ones, a word is often background


@dataclass(frozen=True)
class Corpus:
    """What rules know of the questions around.

    Attributes:
        names: (the word before, the shape of the name) -> the names that stand there and occur twice or more.
        words: the lower-case words that occur.
    """

    names: Mapping[tuple[str, int], Sequence[str]]
    words: frozenset[str]


Rule = Callable[[str, Corpus], Iterable[str]]


@dataclass(frozen=True)
class Perturbation:
    """A row of `PERTURBATIONS`.

    Attributes:
        rule: question -> changed questions.
        same: whether they still ask the same.
    """

    rule: Rule
    same: bool


def corpus_of(questions: Iterable[str]) -> Corpus:
    """The names and the words of some questions."""
    names: dict[tuple[str, int], Counter[str]] = {}
    words: set[str] = set()
    for text in questions:
        words.update(re.findall(r"[a-z]+", text.lower()))
        for name, _, place in _names(text):
            names.setdefault(place, Counter())[name] += 1
    often = Counter(name for found in names.values() for name in found.elements())
    return Corpus(
        {place: tuple(name for name in found if often[name] > 1) for place, found in names.items()}, frozenset(words)
    )


# ---------------------------------------------------------------------- what rules are made of

_AUXILIARY = r"(?:is|are|was|were|do|does|did|can|could|will|would|shall|should|may|might|must|has|have|had)"
_STOP = (
    r"(?:in|on|at|by|for|with|without|using|if|when|while|and|or|via|within|as|because|through|who|that|which|than|"
    r"from|to|but|so|after|before|per|under|during|since|until|about|into|rather|instead|over|much|far|even|still|really|"
    rf"{_AUXILIARY})"
)
_WORD = rf"(?!(?i:{_STOP})\b)[\w'\u2019+#&$%-]+(?:\.\w+)*"
_PHRASE = rf"{_WORD}(?: {_WORD}){{0,3}}"
_END = rf"(?=[?!.,;:)]|$| (?i:{_STOP})\b)"
_THING = r"(?=(?:an?|the|my|your|his|our|their)\b|[A-Z])"  # what starts with these is no verb
_NAME = r"(?:[A-Z][a-z]+(?: [A-Z][a-z]+){0,2}|[A-Z]{2,5})"
_COMPARATIVE = r"(?:(?:an? )?(?:(?:more|less) \w+|better|worse|(?!(?:rather|other)\b)\w{2,}er))"
_UNFIT = re.compile(  # for another place: a pronoun, an article alone
    r"^(?:the|an?)$|\b(?:i|me|you|he|him|she|it|we|us|they|them|this|that|these|those|there|here|any|others?|ever|each|one|"
    r"what|how|now|then|all|another|scratch|usual|normal)\b",
    re.I,
)


def _like(word: str, model: str) -> str:
    """The word in the capitals of another."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word


def _replaced(text: str, pattern: re.Pattern[str], new: Callable[[re.Match[str]], str]) -> Iterator[str]:
    """The text with one match of a pattern replaced, for each of them, by other words in the same capitals."""
    for match in pattern.finditer(text):
        yield text[: match.start()] + _like(new(match), match[0]) + text[match.end() :]


def _swapped(text: str, patterns: Iterable[re.Pattern[str]], fits: Callable[[str, str], bool]) -> Iterator[str]:
    """The text with the groups `a` and `b` of each match in each other's place."""
    for pattern in patterns:
        for match in pattern.finditer(text):
            a, b = match["a"], match["b"]
            if a.lower() != b.lower() and fits(a, b) and not (_UNFIT.search(a) or _UNFIT.search(b)):
                between = text[match.end("a") : match.start("b")]
                yield text[: match.start("a")] + b + between + a + text[match.end("b") :]


# ---------------------------------------------------------------------- the question stays the same


def typos(text: str, corpus: Corpus) -> Iterator[str]:
    """Two neighbouring letters swapped, or one left out, inside a word of five letters or more.

    Names and numbers stay whole, the first and the last letter too, and no other known word comes of it (trial, trail).
    """
    for match in re.finditer(r"(?<![\w'\u2019-])[a-z]{5,}(?![\w'\u2019-])", text):
        word = match[0]
        for i in range(1, len(word) - 2):
            for wrong in (word[:i] + word[i + 1] + word[i] + word[i + 2 :], word[:i] + word[i + 1 :]):
                if wrong not in corpus.words:
                    yield text[: match.start()] + wrong + text[match.end() :]


def case(text: str, corpus: Corpus) -> Iterator[str]:
    """All letters small, all capital, or Every Word With A Capital."""
    yield from (text.lower(), text.upper(), re.sub(r"(?<![\w'\u2019])[a-z]", lambda match: match[0].upper(), text))


def punctuation(text: str, corpus: Corpus) -> Iterator[str]:
    """The mark at the end dropped, doubled, set off or added, or commas dropped between words; apostrophes stay."""
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


def contractions(text: str, corpus: Corpus) -> Iterator[str]:
    """`What is` -> `What's`, `don't` -> `do not` and back, where English allows it.

    Not at the end (`what it is?`), where 's may be `has` (`who's been`), or before the subject (`why don't people`).
    """
    short, long = ({k.lower(): v for k, v in forms.items()} for forms in (_SHORT, _LONG))
    if not re.search(r" (?:it|this|that|these|those)\W*$", text):
        yield from _replaced(text, _FULL_FORM, lambda match: short[match[0].lower()])
    if not _INVERTED.search(text):
        yield from _replaced(text, _SHORT_FORM, lambda match: long[match[0].lower().replace("\u2019", "'")])


_SYMMETRIC = [
    re.compile(rf"\bbetween (?P<a>{_PHRASE}) and (?P<b>{_PHRASE})(?=\W*$| (?i:in|for|when|as)\b)"),
    re.compile(
        rf"\b(?i:better|best|cheaper|safer|faster|healthier|easier)[,:]? (?P<a>{_PHRASE}) or (?P<b>{_PHRASE})(?=\W*$)"
    ),
]


def symmetry(text: str, corpus: Corpus) -> Iterator[str]:
    """The two sides of what has none: `between A and B`, `which is better, A or B`.

    It keeps a model honest that has learned from `word_order` that a swap always matters. Numbers stay in their order.
    """
    return _swapped(text, _SYMMETRIC, lambda a, b: not re.search(r"\d", a + b))


# ---------------------------------------------------------------------- another question


def _plural(phrase: str) -> bool:
    return bool(re.search(r"[^siu]s$", phrase))


_MOTION = (
    r"(?:switch|mov|go|travel|transfer|convert|chang|get|fly|driv|migrat|upgrad|shift|commut|transition|send|copy|import|"
    r"export|distance|fare|train|bus|flight|journey|route)\w*"
)
_ROLES = [
    re.compile(rf"\b[Ff]rom (?P<a>{_PHRASE}) to {_THING}(?P<b>{_PHRASE}){_END}"),
    re.compile(rf"\b(?i:{_MOTION})\b.* from (?P<a>{_WORD}) to (?P<b>{_WORD})(?=\W*$)"),
    re.compile(rf"\b(?i:convert|translat|transform|turn|chang)\w* (?P<a>{_PHRASE}) into (?P<b>{_PHRASE}){_END}"),
    re.compile(rf"\b(?i:convert|translat)\w* (?P<a>{_PHRASE}) to (?P<b>{_THING}{_PHRASE}{_END}|{_WORD}(?=\W*$))"),
    re.compile(
        rf"\b(?i:use|using|choose|choosing|buy|buying|prefer|learn|learning|study|eat|drink|pick) (?P<a>{_PHRASE}) "
        rf"(?:instead of|rather than) (?P<b>{_PHRASE}){_END}"
    ),
    re.compile(rf"\b(?i:choose|choosing|prefer|pick) (?P<a>{_PHRASE}) over (?P<b>{_PHRASE}){_END}"),
    re.compile(rf"\b(?:better|worse|easier|harder|cheaper|safer) to (?P<a>{_PHRASE}) than to (?P<b>{_PHRASE}){_END}"),
    re.compile(
        rf"\b(?i:do|does|did|will|can|could|would|should|is|was) (?P<a>{_NAME}) "
        r"(?:(?!(?:and|or|vs|with|in|at|on|of|an?|the|from|like|compared?|married|related|similar|equal|meet|same|near|so|"
        rf"their|his|her|its|my|your|our)\b)[a-z]+ ){{1,3}}(?P<b>{_NAME}){_END}"
    ),
]
_COMPARED = [
    re.compile(
        rf"\b(?i:is|are|was|were) (?P<a>{_PHRASE}) (?:(?:much|far|even|still|really|so much) )?"
        rf"{_COMPARATIVE}(?: [a-z]+)? than (?P<b>{_PHRASE}){_END}"
    ),
    re.compile(rf"\b(?i:do|does|did|will|can) (?P<a>{_NAME}) [a-z ]*?{_COMPARATIVE} than (?P<b>{_NAME}){_END}"),
]


def word_order(text: str, corpus: Corpus) -> Iterator[str]:
    """Two parts that play different roles in each other's place.

    `from A to B`, `convert A to B`, `use A instead of B`, `is A better than B`, `does A own B`. Not for pronouns, not
    for relations that hold both ways (`married to`), and in a comparison of singular and plural no side moves.
    """
    yield from _swapped(text, _ROLES, lambda a, b: len(a) > 1 and len(b) > 1 and not (a + b).isdigit())
    if len(re.findall(r"\bthan\b", text)) == 1:
        yield from _swapped(text, _COMPARED, lambda a, b: _plural(a) == _plural(b) and not re.search(r"\d", b))


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
        rf"\b{_WH}(?<!how)(?: \w+){{0,3}}? {_AUXILIARY} {_PERSON}\b(?= \w)(?! (?:mean|take|like|feel like|be like)\b)",
        re.I,
    ),
    re.compile(rf"\bhow {_AUXILIARY} (?!you doing){_PERSON}\b(?= \w)", re.I),
    re.compile(rf"\b[Ww]hy {_AUXILIARY} (?:{_NAME}|(?:the|my|our|their) [a-z]+)(?= [a-z])"),
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


def negation(text: str, corpus: Corpus) -> Iterator[str]:
    """`How do I` -> `How do I not`, `who is` -> `who is not`, `safe to` -> `safe not to`; a lone negation is removed.

    A yes/no question is left alone, for `Isn't it ...?` asks what `Is it ...?` asks; what it is about may be negated.
    """
    found = _NEGATIVE.findall(text)
    if not found:
        for pattern in _AFFIRMATIVE:
            yield from _replaced(text, pattern, lambda match: f"{match[0]} not")
    elif len(found) == 1 and not _NO_REMOVAL.search(text):
        for match in _REMOVED.finditer(text):
            word = match[0].lower().replace("\u2019", "'")
            positive = "" if word == " not" else _POSITIVE.get(word, word.removesuffix("n't"))
            yield text[: match.start()] + (positive and _like(positive, match[0])) + text[match.end() :]


_NUMBER = re.compile(r"(?<![\w.,:/#+*=^-])(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,6}(?:\.\d+)?)(?![\w:/^+*=-]|[.,]\d)")
_NUMERALS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMERAL = re.compile(
    rf"(?<!\b(?:the|all|one|two) )(?<!\bof )(?<!\bor )(?<!\bthese )(?<!\bthose )(?<!\bbetween )"
    rf"(?<![\w'-])(?:{'|'.join(_NUMERALS)})(?![\w'-]| or\b)"
)


def _other_numbers(number: str) -> list[str]:
    """Numbers of a like size: another year, another small number, or the half, double and triple."""
    whole, _, rest = number.replace(",", "").partition(".")
    value = int(whole)
    if value == 1:  # the noun behind it would change too
        return []
    if len(number) == 4 and 1900 <= value < 2100:
        others = [value - 7, value - 3, value + 2]
    elif value < 13:
        others = [n for n in range(2, 13) if n != value]
    else:
        others = [value // 2, value * 2, value * 3]
    return [f"{n:,}" if "," in number else f"{n}.{rest}" if rest else str(n) for n in others]


def numbers(text: str, corpus: Corpus) -> Iterator[str]:
    """One number changed to another of like size, in figures or as a word.

    Not 1, ranges, dates, times, fractions, formulas (`24/7`, `5-10`, `2+2`) or parts of words, and not to a number
    that the question has already.
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


def before_after(text: str, corpus: Corpus) -> Iterator[str]:
    """`before` <-> `after`, in front of what they refer to.

    Not in `look after`, `day after day`, `before and after`, as the last word, or where both are in the question.
    """
    if len(_TIME.findall(text)) == 1 and not _TIME_IDIOMS.search(text):
        yield from _replaced(text, _TIME, lambda match: "after" if match[0].lower() == "before" else "before")


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


def more_less(text: str, corpus: Corpus) -> Iterator[str]:
    """`more` <-> `less` (`fewer` before a plural), `most` <-> `least`.

    `most` only as a superlative (`the most`, `your most`), since `most people` have no opposite; not in `any more`,
    `more or less`, `learn more about`.
    """

    def opposite(match: re.Match[str]) -> str:
        plural = match[0].lower() == "more" and re.match(r" \w+[^\Wsui]s\b", text[match.end() :])
        return "fewer" if plural else _AMOUNTS[match[0].lower()]

    if not _AMOUNT_IDIOMS.search(text):
        yield from _replaced(text, _AMOUNT, opposite)


def opposites(text: str, corpus: Corpus) -> Iterator[str]:
    """`best` <-> `worst`, `better` <-> `worse`, `higher` <-> `lower`, `increase` <-> `decrease`.

    Not in `best friend`, `higher education`, `your best`.
    """
    if not _DEGREE_IDIOMS.search(text):
        yield from _replaced(text, _DEGREE, lambda match: _DEGREES[match[0].lower()])


_PLACED_NAME = re.compile(
    rf"(?:\b(?P<before>[a-z]+) (?P<name>{_NAME})(?:(?=['\u2019]s\b)|{_END})|"
    rf"^(?P<opening>Is|Was|Did|Does|Will|Can|Should|Would|Could|Has|Why is|Why did|Why does|Who is|How did|How does) "
    rf"(?P<subject>{_NAME})(?=['\u2019]s\b| [a-z]))(?! of [A-Z]|, [A-Z]| \()"
)
_SAME_PLACE = (
    {"US", "USA", "America", "United States", "States"},
    {"UK", "Britain", "England", "United Kingdom", "Great Britain"},
)


def _names(text: str) -> Iterator[tuple[str, int, tuple[str, int]]]:
    """The names behind a word that is none, in a text that is not full of capitals: name, start, place.

    A place is the word before the name, and the shape of the name: so many words, or 0 for capitals alone.
    """
    words = text.split()
    if sum(word[0].isupper() for word in words) <= max(3, len(words) / 2):
        for match in _PLACED_NAME.finditer(text):
            group = "name" if match["name"] else "subject"
            name, before, start = match[group], match["before"] or match["opening"], match.start(group)
            if before not in ("a", "an", "the") and not re.search(r"[A-Z]\w* of $", text[:start]):
                yield name, start, (before, 0 if name.isupper() else len(name.split()))


def entities(text: str, corpus: Corpus) -> Iterator[str]:
    """A name in the place of another that stands, somewhere in the corpus, behind the same word and has the same shape.

    `in India` -> `in Japan`, `Is Donald Trump` -> `Is Tom Hanks`; not behind an article, nor inside a longer name.
    """
    for name, start, place in _names(text):
        alike = next((group for group in _SAME_PLACE if name in group), {name})
        for other in corpus.names.get(place, ()):
            if other not in alike and other not in text:
                yield text[:start] + other + text[start + len(name) :]


_STATE = r"(?! (?:\w+ing|going|there|not|it|this|that|able|about|to|supposed|likely)\b)(?= \w)"
_SUBJECT = rf"(he|she|they|it|{_NAME})"
_DOES = rf"[Dd]o(?:es)? ((?<=[Dd]o )(?:you|people|they)|(?<=oes )(?:he|she|it|{_NAME}))(?= [a-z])(?! (?:guys|take)\b)"
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


def used_to(text: str, corpus: Corpus) -> Iterator[str]:
    """What is the case becomes what used to be, and back: `Is Ann a vet?` -> `Did Ann use to be a vet?`.

    Not what is just going on (`is he coming`), and not `be used to`, which says something else.
    """
    if not _PASSIVE.search(text) and not _NEGATIVE.search(text):
        for pattern, other in _TENSES:
            for match in pattern.finditer(text):
                yield text[: match.start()] + match.expand(other) + text[match.end() :]


PERTURBATIONS: dict[str, Perturbation] = {
    "typos": Perturbation(typos, True),
    "case": Perturbation(case, True),
    "punctuation": Perturbation(punctuation, True),
    "contractions": Perturbation(contractions, True),
    "symmetry": Perturbation(symmetry, True),
    "word-order": Perturbation(word_order, False),
    "negation": Perturbation(negation, False),
    "numbers": Perturbation(numbers, False),
    "before-after": Perturbation(before_after, False),
    "more-less": Perturbation(more_less, False),
    "opposites": Perturbation(opposites, False),
    "entities": Perturbation(entities, False),
    "used-to": Perturbation(used_to, False),
}


# ---------------------------------------------------------------------- the rules at work


def kinds_of(names: str) -> list[str]:
    """The kinds in a list with commas; `all` for every one.

    Raises:
        UserError: there is no such kind.
    """
    kinds, known = [name.strip() for name in names.split(",")], ["all", *PERTURBATIONS]
    for kind in kinds:
        if kind not in known:
            raise UserError(f"perturbations: unknown kind {kind!r}; {nearest(kind, known)}")
    return list(PERTURBATIONS) if "all" in kinds else list(dict.fromkeys(kinds))


def perturb(text: str, kind: str, corpus: Corpus, random: np.random.Generator) -> str | None:
    """A question changed by the rule of a kind; None where the rule does not fit.

    Only a question of one sentence and at most 30 words becomes another one.

    Args:
        text: the question.
        kind: a row of `PERTURBATIONS`.
        corpus: the questions around it.
        random: draws one of the ways in which the rule can be applied.
    """
    row = PERTURBATIONS[kind]
    if not row.same and (len(text.split()) > LONGEST or re.search(r"[?!.]['\")]* +\S", text)):
        return None
    found = [changed for changed in dict.fromkeys(row.rule(text, corpus)) if changed != text]
    return found[random.integers(len(found))] if found else None


def generated(pairs: Pairs, share: float, seed: int, taken: Iterable[str] = ()) -> tuple[Pairs, dict[str, int]]:
    """Pairs of a question and its changed self: duplicates by the invariant kinds, non-duplicates by the others.

    The kinds take turns, so that each gives as many pairs while questions last that it fits. A changed question is
    new: it is in neither `pairs` nor `taken`, compared without case, spaces and punctuation; but for its own origin.

    Args:
        pairs: whose questions are changed.
        share: pairs to generate, a share of the given ones.
        seed: of the choice.
        taken: further questions, such as those of the validation and test parts.

    Returns:
        The pairs, fewer where no question is left that a rule fits, and how many are of each kind.
    """
    random = np.random.default_rng(seed)
    corpus = corpus_of(pairs.questions)
    known = {canonical(text) for text in (*pairs.questions, *taken)}

    def changes(kind: str) -> Iterator[tuple[str, str]]:
        for question in map(pairs.questions.__getitem__, random.permutation(len(pairs.questions)).tolist()):
            changed = perturb(question, kind, corpus, random)
            if changed and (canonical(changed) not in known or canonical(changed) == canonical(question)):
                known.add(canonical(changed))
                yield question, changed

    sources = {kind: changes(kind) for kind in PERTURBATIONS}
    made: list[tuple[str, str, str]] = []
    wanted = round(share * len(pairs))
    while sources and len(made) < wanted:
        for kind in list(sources)[: wanted - len(made)]:
            found = next(sources[kind], None)
            if found:
                made.append((*found, kind))
            else:
                del sources[kind]
    labels = [int(PERTURBATIONS[kind].same) for *_, kind in made]
    counts = Counter(kind for *_, kind in made)
    return pairs_from_texts([q for q, *_ in made], [c for _, c, _ in made], labels), dict(counts)
