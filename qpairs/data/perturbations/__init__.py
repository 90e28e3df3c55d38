"""Rules that change a question: after an invariant one it still asks the same, after an altering one something else.

Behavioural testing as in CheckList (Ribeiro et al. 2020). A rule is a function (text, vocabulary) -> all changed texts
that are certain to be right, none if it does not fit, and a row of `PERTURBATIONS`. The rules are for English only.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qpairs.core.exceptions import UserError, nearest
from qpairs.data.perturbations import altering, invariant
from qpairs.data.perturbations.patterns import Vocabulary, vocabulary_of
from qpairs.data.words import looks_english

__all__ = ["PERTURBATIONS", "Perturbation", "Rule", "Vocabulary", "kinds_of", "perturb", "vocabulary_of"]

log = logging.getLogger(__name__)

LONGEST = 30  # words of a question that an altering rule may change; in longer ones, a word is often background

Rule = Callable[[str, Vocabulary], Iterable[str]]


@dataclass(frozen=True)
class Perturbation:
    """A kind of change.

    Attributes:
        rule: from a question to all its changed forms.
        same: whether these still ask the same.
    """

    rule: Rule
    same: bool


PERTURBATIONS: dict[str, Perturbation] = {
    "typos": Perturbation(invariant.typos, True),
    "case": Perturbation(invariant.case, True),
    "punctuation": Perturbation(invariant.punctuation, True),
    "contractions": Perturbation(invariant.contractions, True),
    "symmetry": Perturbation(invariant.symmetry, True),
    "word-order": Perturbation(altering.word_order, False),
    "negation": Perturbation(altering.negation, False),
    "numbers": Perturbation(altering.numbers, False),
    "before-after": Perturbation(altering.before_after, False),
    "more-less": Perturbation(altering.more_less, False),
    "opposites": Perturbation(altering.opposites, False),
    "entities": Perturbation(altering.entities, False),
    "used-to": Perturbation(altering.used_to, False),
}


def kinds_of(names: str) -> list[str]:
    """The kinds in a comma-separated list; `all` means every kind.

    Raises:
        UserError: there is no such kind.
    """
    kinds, known = [name.strip() for name in names.split(",")], ["all", *PERTURBATIONS]
    for kind in kinds:
        if kind not in known:
            raise UserError(f"perturbations: unknown kind {kind!r}; {nearest(kind, known)}")
    return list(PERTURBATIONS) if "all" in kinds else list(dict.fromkeys(kinds))


def warn_of_language(questions: Sequence[str], option: str) -> None:
    """Logs a warning if questions are not English, since the rules are for English.

    Args:
        questions: to be changed.
        option: that asks for it, for the message.
    """
    if not looks_english(questions):
        log.warning(
            "%s: the rules change English words, and these questions do not look English: few will fit, and those that "
            "do may be wrong",
            option,
        )


def perturb(text: str, kind: str, vocabulary: Vocabulary, random: np.random.Generator) -> str | None:
    """A question changed by the rule of a kind; None if the rule does not fit.

    Altering rules change only questions of one sentence and at most 30 words.

    Args:
        text: the question.
        kind: a key of `PERTURBATIONS`.
        vocabulary: of the data set that the question is from.
        random: draws one of the changed forms.

    >>> perturb("Can I retire before 60?", "before-after", vocabulary_of([]), np.random.default_rng(0))
    'Can I retire after 60?'
    """
    row = PERTURBATIONS[kind]
    if not row.same and (len(text.split()) > LONGEST or re.search(r"[?!.]['\")]* +\S", text)):
        return None
    found = [changed for changed in dict.fromkeys(row.rule(text, vocabulary)) if changed != text]
    return found[random.integers(len(found))] if found else None
