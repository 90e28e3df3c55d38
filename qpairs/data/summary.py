"""The content of a source of pairs, in figures and examples, as `qpairs data` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.splits import Split, contradictions, question_components, split_pairs
from qpairs.data.words import words as words_of

if TYPE_CHECKING:
    import pandas

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Summary:
    """Figures of a pair table.

    Attributes:
        pairs: the pair table.
        words: (n_questions,) words of each question.
        components: (n_components,) questions of each component: those that pairs of any label connect.
        contradictions: rows labelled 0 whose questions are duplicates by other labels, or by their words.
        split: the parts that `train` cuts; None if it cannot cut them.
        obstacle: why it cannot, as an error message; '' if it can.
    """

    pairs: Pairs
    words: Ints
    components: Ints
    contradictions: Ints
    split: Split | None
    obstacle: str = ""

    def examples(self, count: int, seed: int = 0) -> dict[str, list[tuple[str, str]]]:
        """At most `count` random pairs of each kind: duplicates, not duplicates, contradictions."""
        random, labels = np.random.default_rng(seed), self.pairs.labels
        kinds = {
            "duplicates": np.flatnonzero(labels == 1),
            "not duplicates": np.flatnonzero(labels == 0),
            "contradictions": self.contradictions,
        }
        return {
            kind: [self.pairs.texts(int(row)) for row in random.permutation(rows)[:count]]
            for kind, rows in kinds.items()
        }

    def longer_than(self, tokens: int) -> int:
        """Questions that certainly have more tokens: they have more words than that, without the two special tokens.

        >>> from qpairs.data.pairs import pairs_from_texts
        >>> summarize(pairs_from_texts(["one two three four"], ["five"], [0])).longer_than(5)
        1
        """
        return int((self.words > tokens - 2).sum())

    def contradiction_table(self) -> pandas.DataFrame:
        """The contradicting pairs, with the columns question1, question2 and is_duplicate."""
        import pandas

        rows = [(*self.pairs.texts(int(row)), 0) for row in self.contradictions]
        return pandas.DataFrame(rows, columns=["question1", "question2", "is_duplicate"])


def summarize(pairs: Pairs, seed: int = 0) -> Summary:
    """Summarizes a pair table.

    Args:
        pairs: the pair table.
        seed: of the split.

    >>> from qpairs.data.pairs import pairs_from_texts
    >>> rows = [("a b", "c d", 1), ("c d", "e f", 1), ("a b", "e f", 0), ("x y", "z w", 0)]
    >>> summary = summarize(pairs_from_texts(*zip(*rows)))
    >>> summary.components.tolist(), summary.contradictions.tolist()
    ([3, 2], [2])
    """
    split, obstacle = None, ""
    try:
        need_both_labels(pairs, "data")
        split = split_pairs(pairs, seed=seed)
    except UserError as error:
        obstacle = str(error)
    return Summary(
        pairs,
        words=np.array([len(words_of(question)) for question in pairs.questions]),
        components=np.bincount(question_components(pairs)),
        contradictions=contradictions(pairs),
        split=split,
        obstacle=obstacle,
    )
