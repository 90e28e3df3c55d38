"""What a checkpoint gets wrong, among which kinds of pair it is wrong often, and why it judges one pair as it does.

A kind is a rule that reads the wording of a pair and names a value; the pairs of one value are a slice. The rules are
crude on purpose: each can be said in one sentence, which stands beside it.
"""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs, join, pairs_from_texts, text_fault
from qpairs.data.splits import duplicate_components, question_components
from qpairs.evaluation.evaluate import LENGTHS, Interval, Verdicts, as_pairs, predict
from qpairs.models.base import Model, as_model

LEAST = 20  # pairs of a slice that is looked at
FLIPS = 9_999  # of the test against chance
SIGNIFICANT = 0.05  # p value, corrected for the number of slices
COMPARED = 4096  # training pairs that are encoded in search of the nearest
_BLOCK = 2**24  # signs held at once

# ---------------------------------------------------------------------- kinds of pair

_WORD = re.compile(r"\w+(?:'\w+)*")
_SENTENCE_END = re.compile(r"[.?!:;\"(]\s*$|^\s*$")
_GAPS = ((-1, 1, "up to 1 word"), (1, 4, "2 to 4 words"), (4, 10**9, "5 words and more"))
_ASKING = ("what", "which", "who", "whom", "whose", "when", "where", "why", "how")
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
        texts: both questions, apostrophes made straight.
        known: words that at least two questions of the training data have.
    """

    texts: tuple[str, str]
    known: frozenset[str]

    @functools.cached_property
    def words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The words of both questions, in lower case, without punctuation."""
        one, other = (tuple(_WORD.findall(text.lower())) for text in self.texts)
        return one, other

    @functools.cached_property
    def sets(self) -> tuple[frozenset[str], frozenset[str]]:
        """The distinct words of both questions."""
        one, other = map(frozenset, self.words)
        return one, other

    @functools.cached_property
    def unseen(self) -> frozenset[str]:
        """The words of either question that are not known."""
        return frozenset(word for word in self.sets[0] | self.sets[1] if word not in self.known)


def _band(value: int, bounds: Sequence[tuple[int, int, str]]) -> str:
    return next(name for low, high, name in bounds if low < value <= high)


def _same(one: Collection[str], other: Collection[str]) -> str | None:
    """Whether two sets are the same; None where both are empty."""
    if not (one or other):
        return None
    return "the same" if one == other else "different"


def _length(pair: Wording) -> str:
    return _band(max(map(len, pair.words)), LENGTHS) if any(pair.words) else "no words"


def _length_difference(pair: Wording) -> str:
    return _band(abs(len(pair.words[0]) - len(pair.words[1])), _GAPS)


def _overlap(pair: Wording) -> str:
    one, other = pair.sets
    fifth = min(4, 5 * len(one & other) // max(1, len(one | other)))
    return f"{20 * fifth} to {20 * fifth + 20} %"


def _question_word(pair: Wording) -> str:
    one, other = (next((word for word in words if word in _ASKING), "") for words in pair.words)
    if one == other:
        return f"{one} in both" if one else "in neither"
    return "different" if one and other else "in one alone"


def _negation(pair: Wording) -> str | None:
    one, other = (any(word in _NEGATIONS or word.endswith("n't") for word in words) for words in pair.words)
    if not (one or other):
        return None
    return "in both" if one and other else "in one alone"


def _numbers(pair: Wording) -> str | None:
    one, other = (set(re.findall(r"\d+(?:[.,]\d+)*", text)) for text in pair.texts)
    return _same(one, other)


def _names(pair: Wording) -> str | None:
    one, other = map(names, pair.texts)
    if not (one or other):
        return None
    return "the same" if one <= pair.sets[1] and other <= pair.sets[0] else "different"


def names(text: str) -> set[str]:
    """The capitalised words within a sentence, in lower case; none where every word is capitalised."""
    matches = list(_WORD.finditer(text))
    if all(match[0][0].isupper() or not match[0][0].isalpha() for match in matches):
        return set()
    return {
        match[0].lower()
        for match in matches
        if match[0][0].isupper()
        and match[0].partition("'")[0] != "I"
        and not _SENTENCE_END.search(text[: match.start()])
    }


def _pronouns(pair: Wording) -> str | None:
    one, other = ({_PERSONS.get(word.partition("'")[0], "") for word in words} - {""} for words in pair.words)
    return _same(one, other)


def _spelling(pair: Wording) -> str | None:
    slips = (word for word in pair.unseen if len(word) >= 4 and word.isalpha())
    return "a likely slip" if any(not pair.known.isdisjoint(edits(word)) for word in slips) else None


def edits(word: str) -> set[str]:
    """The words at one edit that keep the first and the last letter, so that a plural is none (after Norvig, 2007).

    An edit leaves a letter out, puts one in, changes one, or swaps two neighbours.
    """
    first, inside, last = word[:1], word[1:-1], word[-1:]
    cuts = [(inside[:i], inside[i:]) for i in range(len(inside) + 1)]
    out = {left + right[1:] for left, right in cuts if right}
    swapped = {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
    changed = {left + letter + right[1:] for left, right in cuts if right for letter in string.ascii_lowercase}
    put_in = {left + letter + right for left, right in cuts for letter in string.ascii_lowercase}
    return {first + middle + last for middle in out | swapped | changed | put_in}


def _order(pair: Wording) -> str | None:
    one, other = pair.words
    return "the same words, another order" if one != other and sorted(one) == sorted(other) else None


def _seen(pair: Wording) -> str:
    return ("all", "all but one", "several are new")[min(2, len(pair.unseen))]


@dataclass(frozen=True)
class Kind:
    """A rule by which pairs are told apart: in one sentence, and as a function to a value, None for none."""

    rule: str
    value: Callable[[Wording], str | None]


KINDS: dict[str, Kind] = {
    "length": Kind("words of the longer question", _length),
    "length difference": Kind("words by which one question is longer", _length_difference),
    "word overlap": Kind("distinct words that both have, of all that either has", _overlap),
    "question word": Kind(f"the first of {', '.join(_ASKING)} in each question", _question_word),
    "negation": Kind("not, no, never, without, ...n't and their like", _negation),
    "numbers": Kind("the numbers written in digits", _numbers),
    "names": Kind("capitalised words within a sentence; different where the other question lacks one", _names),
    "pronouns": Kind("the persons spoken of: I, we, you, he, she, they", _pronouns),
    "spelling": Kind("a new word of 4 letters or more, one edit inside it away from a known one", _spelling),
    "word order": Kind("both have the very same words, in another order", _order),
    "known words": Kind("words that two or more training questions have", _seen),
}


def known_words(questions: Sequence[str]) -> frozenset[str]:
    """The words that at least two questions have: what one alone has may be a slip itself."""
    counts = Counter(word for text in questions for word in set(_WORD.findall(_straight(text).lower())))
    return frozenset(word for word, count in counts.items() if count > 1)


def _straight(text: str) -> str:
    return text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


# ---------------------------------------------------------------------- mistakes and slices


@dataclass(frozen=True)
class ErrorSlice:
    """The mistakes among the pairs of one kind and value.

    Attributes:
        kind: a key of `KINDS`; value: what its rule said; rule: in words.
        n: pairs; errors: wrong verdicts among them.
        f1: of the verdict on them; f1_interval: 95 %, by bootstrap over components.
        error_rate: errors / n; lift: that, over the error rate of all other pairs.
        p_value: of so large a difference of the error rates by chance.
        p_corrected: that the largest difference of all slices would be so large by chance.
    """

    kind: str
    value: str
    rule: str
    n: int
    errors: int
    f1: float
    f1_interval: Interval
    error_rate: float
    lift: float
    p_value: float
    p_corrected: float

    @property
    def name(self) -> str:
        """Kind and value."""
        return f"{self.kind}: {self.value}"

    @property
    def worse(self) -> bool:
        """Whether mistakes are more frequent here than elsewhere, beyond chance."""
        return self.lift > 1 and self.p_corrected < SIGNIFICANT


@dataclass(frozen=True)
class Mistake:
    """A wrong verdict.

    Attributes:
        row: of the pair in the pair table.
        question1, question2: the pair; label: what it is.
        similarity, probability: what the model says of it; distance: of the similarity above the threshold.
        component1, component2: duplicate component of each question; the same for a pair labelled 0 means that other
            labels contradict its own.
        shared, only1, only2: words that both questions have, and that one of them has.
        why: the slices it lies in where mistakes are more frequent beyond chance, the worst first.
        slices: all that it lies in.
    """

    row: int
    question1: str
    question2: str
    label: int
    similarity: float
    probability: float
    distance: float
    component1: int
    component2: int
    shared: tuple[str, ...]
    only1: tuple[str, ...]
    only2: tuple[str, ...]
    why: tuple[str, ...]
    slices: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """What a checkpoint gets wrong on labelled pairs.

    Attributes:
        pairs: the pairs.
        verdicts: what the model says of them.
        threshold: its threshold.
        slices: the worst first: those with more mistakes beyond chance, then the others, each by lift.
        members: (slices, n) bool, the pairs of each slice.
        wordings: (n,) what the rules read.
    """

    pairs: Pairs
    verdicts: Verdicts
    threshold: float
    slices: Sequence[ErrorSlice]
    members: NDArray[np.bool_] = field(repr=False)
    wordings: Sequence[Wording] = field(repr=False)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(n,) whether the verdict on each pair is wrong."""
        return np.asarray(self.verdicts.duplicate != (self.pairs.labels == 1))

    def mistakes(self, slice_number: int | None = None) -> list[Mistake]:
        """The mistakes, or those of one slice, the farthest from the threshold first."""
        rows = np.flatnonzero(self.wrong if slice_number is None else self.wrong & self.members[slice_number])
        distance = self.verdicts.similarity.astype(np.float64) - self.threshold
        component = duplicate_components(self.pairs)
        return [
            self._mistake(row, float(distance[row]), component)
            for row in rows[np.argsort(-np.abs(distance[rows]), kind="stable")].tolist()
        ]

    def _mistake(self, row: int, distance: float, component: NDArray[np.int64]) -> Mistake:
        one, other = self.wordings[row].words
        both = set(one) & set(other)
        around = [part for part, inside in zip(self.slices, self.members[:, row], strict=True) if inside]
        return Mistake(
            row,
            *self.pairs.texts(row),
            label=int(self.pairs.labels[row]),
            similarity=float(self.verdicts.similarity[row]),
            probability=float(self.verdicts.probability[row]),
            distance=distance,
            component1=int(component[self.pairs.left[row]]),
            component2=int(component[self.pairs.right[row]]),
            shared=tuple(dict.fromkeys(word for word in one if word in both)),
            only1=tuple(dict.fromkeys(word for word in one if word not in both)),
            only2=tuple(dict.fromkeys(word for word in other if word not in both)),
            why=tuple(part.name for part in around if part.worse),
            slices=tuple(part.name for part in around),
        )


def analyse(
    model: Model | str | Path,
    data: Pairs | str | Path | Sequence[str | Path],
    *,
    trained_on: Pairs | None = None,
    verdicts: Verdicts | None = None,
    seed: int = 0,
) -> Analysis:
    """Finds the mistakes of a checkpoint on labelled pairs, and the slices in which they are frequent.

    Args:
        model: a model, or its folder.
        data: labelled pairs, or their source.
        trained_on: the training pairs, whose words are the known ones; without it, those of the data.
        verdicts: what the model says of the pairs, where that is known already.
        seed: of the bootstrap and of the test.

    Raises:
        UserError: the data cannot be used.
    """
    judge, pairs = as_model(model), as_pairs(data)
    threshold = judge.verdict.pair.threshold
    verdicts = verdicts or predict(judge, pairs)
    known = known_words((trained_on or pairs).questions)
    straight = [_straight(text) for text in pairs.questions]
    ends = zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
    wordings = [Wording((straight[a], straight[b]), known) for a, b in ends]
    keys, members = _members(wordings)
    groups = question_components(pairs)[pairs.left]
    wrong = verdicts.duplicate != (pairs.labels == 1)
    chance = zip(*against_chance(wrong, members, groups, seed=seed), strict=True)
    slices = []
    for (kind, value), rows, (p_value, p_corrected) in zip(keys, members, chance, strict=True):
        here = verdicts.similarity[rows], pairs.labels[rows]
        rate, elsewhere = float(wrong[rows].mean()), float(wrong[~rows].mean()) if not rows.all() else 0.0
        slices.append(
            ErrorSlice(
                kind=kind,
                value=value,
                rule=KINDS[kind].rule,
                n=int(rows.sum()),
                errors=int(wrong[rows].sum()),
                f1=metrics.confusion(*here, threshold).f1,
                f1_interval=metrics.bootstrap_interval(*here, groups[rows], threshold, seed=seed)["f1"],
                error_rate=rate,
                lift=rate / elsewhere if elsewhere else float("inf") if rate and not rows.all() else 1.0,
                p_value=float(p_value),
                p_corrected=float(p_corrected),
            )
        )
    order = sorted(range(len(slices)), key=lambda i: (not slices[i].worse, -slices[i].lift))
    return Analysis(pairs, verdicts, threshold, [slices[i] for i in order], members[order], wordings)


def _members(wordings: Sequence[Wording]) -> tuple[list[tuple[str, str]], NDArray[np.bool_]]:
    """Kind and value of each slice of at least `LEAST` pairs, and its pairs: (slices, n) bool."""
    found: dict[tuple[str, str], list[int]] = {}
    for row, wording in enumerate(wordings):
        for name, kind in KINDS.items():
            if value := kind.value(wording):
                found.setdefault((name, value), []).append(row)
    keys = [key for key, rows in found.items() if len(rows) >= LEAST]
    members = np.zeros((len(keys), len(wordings)), dtype=np.bool_)
    for member, key in zip(members, keys, strict=True):
        member[found[key]] = True
    return keys, members


def against_chance(
    wrong: NDArray[np.bool_],
    members: NDArray[np.bool_],
    groups: NDArray[np.int64],
    *,
    flips: int = FLIPS,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P values of each slice: is being wrong independent of being in it, given that pairs of a group go together?

    A group's part in the covariance of both is as likely positive as negative if they are independent, so the signs of
    the groups are flipped at random (Hemerik, Goeman and Finos, 2020, for the model with nothing but an intercept).
    The corrected p value compares with the largest statistic of all slices under the same flips (Westfall and Young,
    1993): slices that overlap are not counted twice.

    Args:
        wrong: (n,) wrong verdicts.
        members: (slices, n) the pairs of each slice.
        groups: (n,) component of each pair.
        flips: of all signs; the least p value is 1 / (flips + 1).
        seed: of the flips.

    Returns:
        p value (slices,), and p value corrected for their number (slices,).
    """
    if not len(members):
        return np.empty(0), np.empty(0)
    index = np.unique(groups, return_inverse=True)[1]
    surprise = wrong - wrong.mean()
    parts = np.stack([np.bincount(index, (rows - rows.mean()) * surprise) for rows in members], 1)  # (groups, slices)
    spread = np.sqrt((parts**2).sum(0))  # (slices,), which no flip changes
    parts = np.divide(parts, spread, out=np.zeros_like(parts), where=spread > 1e-12)
    found = np.abs(parts.sum(0)) - 1e-9  # (slices,)
    alone, largest = np.ones(len(members)), np.ones(len(members))
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(parts))
    for start in range(0, flips, block):
        signs = random.choice(np.array([-1, 1], dtype=np.int8), (min(block, flips - start), len(parts)))
        flipped = np.abs(signs.astype(np.float32) @ parts)  # (flips, slices)
        alone += (flipped >= found).sum(0)
        largest += (flipped.max(1, keepdims=True) >= found).sum(0)
    return alone / (flips + 1), largest / (flips + 1)


# ---------------------------------------------------------------------- one pair


@dataclass(frozen=True)
class Word:
    """A word of a question, and by how much it raises the similarity: that of the pair less that without the word."""

    text: str
    effect: float


@dataclass(frozen=True)
class Neighbour:
    """A training pair, its label, and how similar it is: mean over both sides, in the better order."""

    question1: str
    question2: str
    label: int
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """Why a checkpoint judges a pair as it does.

    Attributes:
        similarity, probability, duplicate: the verdict; threshold: what the similarity is held against.
        words: those of both questions in their order, with punctuation, as blanks part them.
        neighbours: the nearest training pairs of either label, the nearest first.
    """

    similarity: float
    probability: float
    duplicate: bool
    threshold: float
    words: tuple[Sequence[Word], Sequence[Word]]
    neighbours: Sequence[Neighbour]


def explain(
    model: Model | str | Path, question1: str, question2: str, *, trained_on: Pairs | None = None, count: int = 3
) -> Explanation:
    """Leaves each word out in turn, and looks for the nearest training pairs.

    Leaving one out is exact: what the encoder says of the shortened question. All variants are encoded together.

    Args:
        model: a model, or its folder.
        question1: the first question.
        question2: the second one.
        trained_on: where the neighbours come from; without it there are none.
        count: neighbours of each label.

    Raises:
        UserError: a question is empty or too long.
    """
    judge, texts = as_model(model), (question1, question2)
    for text, name in zip(texts, ("question1", "question2"), strict=True):
        if fault := text_fault(text, name):
            raise UserError(f"explain: {fault[1].replace('column ', '')}")
    words = [text.split() for text in texts]
    less = [[" ".join(part[:i] + part[i + 1 :]) for i in range(len(part))] for part in words]
    first = [question1, *less[0], *[question1] * len(less[1])]
    second = [question2, *[question2] * len(less[0]), *less[1]]
    verdict = predict(judge, pairs_from_texts(first, second, np.full(len(first), -1)))
    similarity = float(verdict.similarity[0])
    effects = (similarity - verdict.similarity[1:].astype(np.float64)).tolist()
    one, other = words
    return Explanation(
        similarity=similarity,
        probability=float(verdict.probability[0]),
        duplicate=bool(verdict.duplicate[0]),
        threshold=judge.verdict.pair.threshold,
        words=(
            [Word(*word) for word in zip(one, effects[: len(one)], strict=True)],
            [Word(*word) for word in zip(other, effects[len(one) :], strict=True)],
        ),
        neighbours=neighbours(judge, texts, trained_on, count=count) if trained_on and count else (),
    )


def neighbours(
    model: Model, texts: tuple[str, str], trained_on: Pairs, *, count: int = 3, compared: int = COMPARED
) -> list[Neighbour]:
    """The training pairs nearest to a pair by cosine, `count` of each label, the nearest first.

    Of more than `compared` training pairs, only those are encoded that are nearest by TF-IDF.
    """
    near = trained_on
    if len(near) > compared:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True)
        table = vectorizer.fit_transform(near.questions)
        by_words = _nearness((vectorizer.transform(texts) @ table.T).toarray(), near)
        near = near.subset(np.sort(np.argsort(-by_words, kind="stable")[:compared]))
    both = join([pairs_from_texts(texts[:1], texts[1:], [-1]), near])
    rows, columns = model.embed_tables(both.questions)
    ends = [both.left[0], both.right[0]]
    similarity = (rows[ends] @ columns.T + columns[ends] @ rows.T) / 2  # (2, n_questions)
    nearness = _nearness(similarity, both)
    order = np.argsort(-nearness, kind="stable")
    chosen = [row for label in (1, 0) for row in order[both.labels[order] == label][:count].tolist()]
    return [
        Neighbour(*both.texts(row), int(both.labels[row]), float(nearness[row]))
        for row in sorted(chosen, key=lambda row: -nearness[row])
    ]


def _nearness(similarity: NDArray[np.float64], pairs: Pairs) -> NDArray[np.float64]:
    """(n,) mean similarity of two questions to the two of each pair, in the better order.

    Args:
        similarity: (2, n_questions) of each of the two to all questions.
        pairs: the pairs.
    """
    one, other = similarity
    straight, crossed = one[pairs.left] + other[pairs.right], one[pairs.right] + other[pairs.left]
    return np.asarray(np.maximum(straight, crossed) / 2)
