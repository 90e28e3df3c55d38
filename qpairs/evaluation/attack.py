"""Adversarial rewordings: the smallest change of words that keeps the meaning and flips a right decision.

Words are changed greedily in the order of their importance, as in TextFooler (Jin et al. 2020, algorithm 1): the
importance of a word is how far the score moves towards the other decision if the word is left out. Only scores are
read, so any model can be attacked. Where HotFlip (Ebrahimi et al. 2018) takes gradients, every candidate is scored.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.data.pairs import UNLABELLED, Pairs, need_both_labels, pairs_from_texts
from qpairs.data.perturbations import PERTURBATIONS, Vocabulary, vocabulary_of
from qpairs.data.perturbations.patterns import like
from qpairs.data.sources import PairSource
from qpairs.data.words import words
from qpairs.encoders.vectors import read_vectors
from qpairs.evaluation.robustness import failure_interval
from qpairs.evaluation.sources import as_pairs
from qpairs.metrics.intervals import Interval
from qpairs.models.base import Model, as_model
from qpairs.models.ready import shown_name

WHOLE = ("contractions", "punctuation", "symmetry")  # rules that change a question in one place, tried first
CANDIDATES = 12  # spellings of a word, and nearest words, that are tried
ALIKE = 0.7  # least cosine of a nearest word
EXAMPLES = 3

Change = tuple[int, int, str]  # question (0 or 1), place among its words, the word that is written there
Nearest = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Rewording:
    """A pair whose decision was flipped by a rewording.

    Attributes:
        question1, question2: the originals. changed1, changed2: the reworded questions.
        label: of the pair: 1 duplicates, 0 not.
        words: words that are changed.
        before, after: scores.
    """

    question1: str
    question2: str
    changed1: str
    changed2: str
    label: int
    words: int
    before: float
    after: float


@dataclass(frozen=True)
class AttackReport:
    """How easily right decisions are flipped by rewording.

    Attributes:
        attacked: correctly decided pairs that were attacked, label -> number.
        turned: those whose decision was flipped, label -> number.
        interval: 95 % of the rate (Wilson 1927).
        words: changed words, mean over the flipped pairs; nan if there are none.
        scored: pairs that the model scored for one attack, mean.
        budget: the most that it may score.
        vectors: source of the nearest words; '' if only spellings were changed.
        rewordings: every flipped pair, the fewest words first.
    """

    attacked: Mapping[int, int]
    turned: Mapping[int, int]
    interval: Interval
    words: float
    scored: float
    budget: int
    vectors: str
    rewordings: Sequence[Rewording] = field(repr=False)

    @property
    def rate(self) -> float:
        """Share of the attacked pairs whose decision was flipped."""
        return sum(self.turned.values()) / sum(self.attacked.values())

    def to_dict(self, examples: int = EXAMPLES) -> dict[str, Any]:
        """Plain values for JSON, with the first rewordings as examples.

        >>> attack(model, pairs, 4).to_dict()["budget"]
        300
        """
        values = asdict(self)
        values["examples"] = values.pop("rewordings")[:examples]
        values["words"] = None if np.isnan(self.words) else self.words
        for name in ("attacked", "turned"):
            values[name] = {"duplicates": getattr(self, name)[1], "others": getattr(self, name)[0]}
        return {**values, "rate": self.rate}

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        n = sum(self.attacked.values())
        return "AttackReport", {"attacked": n, "turned": f"{self.rate:.1%}", "words changed": self.words}

    __repr__, _repr_html_ = one_line, html_card


@dataclass
class _Attack:
    """The state of the attack on one pair."""

    texts: tuple[list[str], list[str]]  # the words of both questions, as they were
    label: int
    before: float
    score: float
    changes: list[Change] = field(default_factory=list)
    order: list[tuple[int, int]] = field(default_factory=list)  # places, the most important one first
    scored: int = 0
    whole: tuple[str, str] | None = None  # both questions after a rule that needed no word
    turned: bool = False

    def reworded(self, changes: Iterable[Change]) -> tuple[str, str]:
        """Both questions after some changes."""
        sides = [list(side) for side in self.texts]
        for side, place, word in changes:
            sides[side][place] = word
        first, second = (" ".join(filter(None, side)) for side in sides)
        return first, second

    @property
    def now(self) -> tuple[str, str]:
        """Both questions after the changes made so far."""
        return self.whole or self.reworded(self.changes)

    def goes_on(self, budget: int, most_words: int) -> bool:
        """Whether another word may be changed."""
        return not self.turned and bool(self.order) and self.scored < budget and len(self.changes) < most_words

    def gain(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """How close scores are to the other decision: greater is closer."""
        return -scores if self.label == 1 else scores


def attack(
    model: Model | str | Path,
    data: PairSource,
    n: int,
    *,
    vectors: str = "",
    budget: int = 300,
    most_words: int = 4,
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> AttackReport:
    """Searches for rewordings that flip the decisions of a model, on pairs that it decides correctly.

    Tried are, in this order: a contraction, a mark at the end or two swapped phrases (the invariant rules of
    `data.perturbations`); then, word by word, the most important first, slips of spelling and, with word vectors, the
    nearest words. For each word, the change that moves the score farthest is kept. At the end, changes that are not
    needed are undone. After rules and slips a question still asks the same; after a nearest word it may not (vectors
    place `before` near `after`), so check those.

    Args:
        model: a model, or its folder.
        data: labelled pairs, or their source, as in `load_pairs`.
        n: most pairs to attack.
        vectors: '' for rules and slips only; 'glove' or a file of word vectors (`encoders.vectors`) for words, too.
        budget: most pairs that the model scores for one attack.
        most_words: most words to change.
        seed: of the choice of pairs.
        on_progress: called after each round; counts attacks that are over.

    Raises:
        UserError: the data cannot be used, no pair is decided correctly, or a number is out of range.

    >>> found = attack(model, pairs, 20)
    >>> 0 <= found.rate <= 1, found.budget
    (True, 300)
    """
    if n < 1 or budget < 1 or most_words < 1:
        raise UserError("attack: the numbers of pairs, of scores (budget) and of words are 1 or more")
    model, pairs = as_model(model), as_pairs(data)
    need_both_labels(pairs, "attack")
    model.verdict.require_labelled(shown_name(model))
    scores = model.score_pairs(pairs)[0]
    right = np.flatnonzero(model.verdict.pair.decide(scores) == (pairs.labels == 1))
    if not len(right):
        raise UserError("attack: the model decides no pair correctly, so there is no decision to flip")
    chosen = np.sort(np.random.default_rng(seed).permutation(right)[:n])
    attacks = [_begin(pairs, row, float(scores[row])) for row in chosen.tolist()]
    vocabulary, meter = vocabulary_of(pairs.questions), Meter(on_progress)
    meter.begin("attacking", len(attacks))
    nearest = nearest_words(vectors, pairs.questions) if vectors else None
    scorer = _Scorer(model, budget)
    scorer.try_whole(attacks, vocabulary)
    scorer.order(attacks)
    while going := [one for one in attacks if one.goes_on(budget, most_words)]:
        scorer.try_words(going, vocabulary, nearest)
        meter.advance(len(attacks) - len(going) - meter.done)
    scorer.take_back(attacks)
    meter.advance(len(attacks) - meter.done)
    return _report(attacks, budget, vectors)


def _begin(pairs: Pairs, row: int, score: float) -> _Attack:
    first, second = (text.split() for text in pairs.texts(row))
    return _Attack((first, second), int(pairs.labels[row]), score, score)


def nearest_words(vectors: str, questions: Iterable[str]) -> Nearest:
    """A function from a word to the words whose vectors are nearest, none with a cosine below 0.7.

    Args:
        vectors: 'glove' or a file, as `encoders.vectors.read_vectors` takes it.
        questions: whose words are needed, besides the most frequent ones.

    Raises:
        UserError: no such vectors.

    >>> nearest_words("glove", [])("quickly")[0]  # doctest: +SKIP
    'easily'
    """
    names, table = read_vectors(vectors, {word for text in questions for word in words(text)})
    table = table / np.linalg.norm(table, axis=1, keepdims=True).clip(min=1e-9)
    places, known = {name: row for row, name in enumerate(names)}, dict[str, list[str]]()

    def nearest(word: str) -> Sequence[str]:
        if word not in known:
            known[word] = []
            if word in places:
                cosines = table @ table[places[word]]
                best = np.argsort(-cosines, kind="stable")[: CANDIDATES + 1].tolist()
                kept = (names[row] for row in best if names[row] != word and cosines[row] >= ALIKE)
                known[word] = [name for name in kept if name.isalpha()]
        return known[word]

    return nearest


@dataclass(frozen=True)
class _Scorer:
    """Scores the candidates of all attacks at once."""

    model: Model
    budget: int

    def gains(self, asked: Sequence[tuple[_Attack, Sequence[tuple[str, str]]]]) -> list[NDArray[np.float32]]:
        """For each attack the scores of its candidates; as many as its budget allows."""
        cut = [(one, list(texts)[: self.budget - one.scored]) for one, texts in asked]
        flat = [pair for _, texts in cut for pair in texts]
        if not flat:
            return [np.empty(0, np.float32) for _ in cut]
        first, second = zip(*flat, strict=True)
        scores = self.model.score_pairs(pairs_from_texts(first, second, [UNLABELLED] * len(flat)))[0]
        ends = np.cumsum([len(texts) for _, texts in cut])
        for one, texts in cut:
            one.scored += len(texts)
        return np.split(scores, ends[:-1])

    def turns(self, one: _Attack, score: float) -> bool:
        """Whether a score is on the other side of the threshold."""
        return bool(self.model.verdict.pair.decide([score])[0]) != (one.label == 1)

    def try_whole(self, attacks: Sequence[_Attack], vocabulary: Vocabulary) -> None:
        """The rules that change a question in one place."""
        asked = []
        for one in attacks:
            texts = one.now
            swapped = [
                (changed, texts[1]) if side == 0 else (texts[0], changed)
                for side in (0, 1)
                for kind in WHOLE
                for changed in dict.fromkeys(PERTURBATIONS[kind].rule(texts[side], vocabulary))
                if changed != texts[side]
            ]
            asked.append((one, swapped))
        for (one, candidates), scores in zip(asked, self.gains(asked), strict=True):
            if len(scores):
                best = int(one.gain(scores).argmax())
                if self.turns(one, float(scores[best])):
                    one.whole, one.score, one.turned = candidates[best], float(scores[best]), True

    def order(self, attacks: Sequence[_Attack]) -> None:
        """The words of both questions by importance; the only word of a question, which cannot be left out, at last."""
        going = [one for one in attacks if not one.turned]
        several = [[(s, p) for s in (0, 1) if len(one.texts[s]) > 1 for p in range(len(one.texts[s]))] for one in going]
        asked = [
            (one, [one.reworded([(side, place, "")]) for side, place in places])
            for one, places in zip(going, several, strict=True)
        ]
        for (one, _), places, scores in zip(asked, several, self.gains(asked), strict=True):
            alone = [(side, 0) for side in (0, 1) if len(one.texts[side]) == 1]
            one.order = [*(places[i] for i in np.argsort(-one.gain(scores), kind="stable").tolist()), *alone]

    def try_words(self, attacks: Sequence[_Attack], vocabulary: Vocabulary, nearest: Nearest | None) -> None:
        """The next word of each attack, in order, that has candidates."""
        asked, tried = [], []
        for one in attacks:
            candidates: list[Change] = []
            while one.order and not candidates:
                side, place = one.order.pop(0)
                written = _candidates(one.texts[side][place], vocabulary, nearest)
                candidates = [(side, place, word) for word in written]
            asked.append((one, [one.reworded([*one.changes, change]) for change in candidates]))
            tried.append(candidates)
        for (one, _), candidates, scores in zip(asked, tried, self.gains(asked), strict=True):
            if len(scores):
                best = int(one.gain(scores).argmax())
                if one.gain(scores)[best] > one.gain(np.array([one.score], np.float32))[0]:
                    one.changes.append(candidates[best])
                    one.score = float(scores[best])
                    one.turned = self.turns(one, one.score)

    def take_back(self, attacks: Sequence[_Attack]) -> None:
        """Undoes changes, the oldest first, that the flipped decision does not need."""
        several = {place: 0 for place, one in enumerate(attacks) if one.turned and len(one.changes) > 1}
        while several:
            fewer = {p: attacks[p].changes[:at] + attacks[p].changes[at + 1 :] for p, at in several.items()}
            asked = [(attacks[p], [attacks[p].reworded(kept)]) for p, kept in fewer.items()]
            for p, scores in zip(list(several), self.gains(asked), strict=True):
                if len(scores) and self.turns(attacks[p], float(scores[0])):
                    attacks[p].changes, attacks[p].score = fewer[p], float(scores[0])
                else:
                    several[p] += 1
            several = {p: at for p, at in several.items() if 1 < len(attacks[p].changes) > at}


def _candidates(written: str, vocabulary: Vocabulary, nearest: Nearest | None) -> list[str]:
    """The replacements of a word, with the punctuation around it."""
    slips = list(dict.fromkeys(PERTURBATIONS["typos"].rule(written, vocabulary)))
    step = max(1, len(slips) // CANDIDATES)
    found = slips[::step][:CANDIDATES]
    core = written.strip("?!.,;:()\"'")
    if nearest and core.isalpha():
        found += [written.replace(core, like(word, core), 1) for word in nearest(core.lower())]
    return found


def _changed_words(before: str, after: str) -> int:
    """The words by which two texts differ."""
    matcher = difflib.SequenceMatcher(None, before.split(), after.split(), autojunk=False)
    return sum(max(b - a, d - c) for kind, a, b, c, d in matcher.get_opcodes() if kind != "equal")


def _report(attacks: Sequence[_Attack], budget: int, vectors: str) -> AttackReport:
    rewordings = []
    for one in attacks:
        if one.turned:
            before, after = one.reworded([]), one.now
            changed = sum(_changed_words(a, b) for a, b in zip(before, after, strict=True))
            rewordings.append(Rewording(*before, *after, one.label, changed, one.before, one.score))
    rewordings.sort(key=lambda found: (found.words, abs(found.after - found.before)))
    counts = {label: sum(one.label == label for one in attacks) for label in (0, 1)}
    turned = {label: sum(found.label == label for found in rewordings) for label in (0, 1)}
    return AttackReport(
        attacked=counts,
        turned=turned,
        interval=failure_interval(len(rewordings), len(attacks)),
        words=float(np.mean([found.words for found in rewordings])) if rewordings else float("nan"),
        scored=float(np.mean([one.scored for one in attacks])),
        budget=budget,
        vectors=vectors,
        rewordings=rewordings,
    )
