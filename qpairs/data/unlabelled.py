"""Training pairs of a corpus without labels: each question and itself, and rule-made ones.

SimCSE (Gao, Yao, Chen 2021, section 3): a question is encoded twice with different dropout, and must be distinguished
from the other questions of its batch. So the second copy of a question is a separate question in the table, and a pair
labelled 1 joins them: batches, relations, losses and miners then are those of labelled pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.data.augment import generate_pairs
from qpairs.data.pairs import Pairs
from qpairs.data.questions import open_questions
from qpairs.data.words import words

FEWEST = 10  # different questions to learn from


@dataclass(frozen=True)
class Unlabelled:
    """Questions to learn from.

    Attributes:
        questions: (n,) texts, of which no two are nearly the same.
        left_out: number of near-identical texts that were left out.
        skipped: reason -> rows that cannot be used.
    """

    questions: tuple[str, ...]
    left_out: int
    skipped: dict[str, int]


def words_key(text: str) -> str:
    """Identifies near-identical texts: the words in any order, without case and punctuation.

    >>> words_key("How do I pay?") == words_key("how do I, pay") == words_key("Pay, how do I?")
    True
    """
    return " ".join(sorted(set(words(text)))) or text


def read_unlabelled(config: Config) -> Unlabelled:
    r"""The questions of the files that `data` names.

    Of near-identical questions, one is kept: as negatives of each other, they would teach that duplicates are not
    duplicates.

    Raises:
        UserError: a file cannot be read, or there are too few questions.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "tickets.csv")
    >>> _ = file.write_text("question\nHow do I pay?\nhow do i pay\n" + "".join(f"Is {n} odd?\n" for n in range(9)))
    >>> found = read_unlabelled(Config(data=str(file), unlabelled=True, loss="info_nce"))
    >>> len(found.questions), found.left_out
    (10, 1)
    """
    skipped, texts = Counter[str](), list[str]()
    for source in config.data:
        opened = open_questions(source, text_column=config.question_columns)
        texts += [text for _, text in opened.rows(skipped if config.skip_bad_rows else None)]
    return replace(distinct_questions(texts, config.data), skipped=dict(skipped))


def distinct_questions(texts: Sequence[str], sources: Sequence[str]) -> Unlabelled:
    """Questions to learn from: the first of each set of near-identical ones.

    Args:
        texts: of the questions.
        sources: where they are from, for a message.

    Raises:
        UserError: there are too few.

    >>> found = distinct_questions(["How do I pay?", "how do i pay", *(f"Is {n} odd?" for n in range(9))], ["mine.csv"])
    >>> len(found.questions), found.left_out
    (10, 1)
    """
    kept: dict[str, str] = {}
    for text in texts:
        kept.setdefault(words_key(text), text)
    if len(kept) < FEWEST:
        where = ", ".join(sources)
        raise UserError(f"{where}: {len(kept)} different questions; at least {FEWEST} are needed to learn from")
    return Unlabelled(tuple(kept.values()), len(texts) - len(kept), {})


def pairs_of_questions(
    questions: Sequence[str], *, augment: float = 0.0, seed: int = 0, taken: Sequence[str] = ()
) -> tuple[Pairs, dict[str, int]]:
    """Each question and its copy, labelled 1, and rule-made pairs.

    Args:
        questions: (n,) different texts.
        augment: rule-made pairs, as a share of n: see `augment.generate_pairs`.
        seed: of these.
        taken: texts that the rules must not produce, such as those of validation.

    Returns:
        The pairs, whose table has first the n questions, then their copies; kind -> number of rule-made pairs.

    >>> pairs, _ = pairs_of_questions(["How do I pay?", "Who are you?"])
    >>> pairs.questions[2], pairs.left.tolist(), pairs.right.tolist(), pairs.labels.tolist()
    ('How do I pay?', [0, 1], [2, 3], [1, 1])
    """
    texts, n = tuple(questions), len(questions)
    own = np.arange(n)
    copies = Pairs((*texts, *texts), own, own + n, np.ones(n, np.int8))
    if not augment:
        return copies, {}
    made, counts = generate_pairs(Pairs(texts, own, own, copies.labels), augment, seed, taken)
    place: dict[str, int] = {text: number for number, text in enumerate(texts)}
    changed = [text for text in made.questions if text not in place]
    place |= {text: 2 * n + number for number, text in enumerate(changed)}
    of_made = np.array([place[text] for text in made.questions], dtype=np.int64)

    def both(first: Any, second: Any) -> Any:
        return np.concatenate([first, second])

    return (
        Pairs(
            (*copies.questions, *changed),
            both(copies.left, of_made[made.left]),
            both(copies.right, of_made[made.right]),
            both(copies.labels, made.labels),
        ),
        counts,
    )
