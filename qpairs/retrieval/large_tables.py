"""The tables of a corpus on a disk, a part at a time: pairs, clusters, and the rows without their duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qpairs.models.verdict import Setting
from qpairs.retrieval.blocks import Floats, Ints
from qpairs.retrieval.dedupe import Deduplicated
from qpairs.retrieval.disk import PARTS, TextFile, row_parts

if TYPE_CHECKING:
    import pandas

EXAMPLES = 20  # pairs nearest to the threshold that are kept to be shown


@dataclass(frozen=True)
class Tables:
    """The tables of `corpus.DedupeResult`, each as data frames that follow one another.

    Attributes:
        folder: of the run; it has the texts and the ids.
        found: the duplicates.
        setting: whose probabilities the pairs get.
    """

    folder: Path
    found: Deduplicated
    setting: Setting
    _texts: tuple[TextFile, TextFile] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_texts", (TextFile(self.folder, "ids"), TextFile(self.folder, "texts")))

    def pairs(self) -> Iterator[pandas.DataFrame]:
        """Pairs: row, id and question of both, similarity, probability."""
        for part in row_parts(max(1, len(self.found.pairs))):
            yield self._pairs(part)

    def _pairs(self, some: slice | Ints) -> pandas.DataFrame:
        import pandas

        first, pairs = self.found.first, self.found.pairs
        left, right = (first[np.asarray(ends[some]).astype(np.int64)] for ends in (pairs.left, pairs.right))
        similarity = np.asarray(pairs.similarity[some])
        scores = {"similarity": similarity, "probability": self.setting.probability(similarity)}
        return pandas.DataFrame({**self._columns("1", left), **self._columns("2", right), **scores})

    def nearest(self) -> pandas.DataFrame:
        """The pairs nearest to the threshold, at most `EXAMPLES`."""
        similarity: Floats = np.asarray(self.found.pairs.similarity)
        count = min(EXAMPLES, len(similarity))
        least = np.argpartition(similarity, count - 1)[:count] if count else np.empty(0, np.int64)
        return self._pairs(least[np.lexsort((least, similarity[least]))])

    def clusters(self) -> Iterator[pandas.DataFrame]:
        """Members of clusters, the representative first: cluster, row, id, question, representative, similarity."""
        import pandas

        found = self.found
        heads = found.representative[found.question]  # (n,) the question that represents each row
        members = np.flatnonzero(np.bincount(heads, minlength=len(found.first))[heads] > 1)
        head = found.first[heads[members]]
        members = members[np.lexsort((members, members != head, head))]
        del heads, head
        for part in row_parts(max(1, len(members))):
            rows = members[part]
            head = found.first[found.representative[found.question[rows]]]
            yield pandas.DataFrame(
                {
                    "cluster": head + 1,
                    **self._columns("", rows),
                    "representative": (rows == head).astype(int),
                    "similarity": found.similarity[found.question[rows]],
                }
            )

    def kept(self) -> Iterator[pandas.DataFrame]:
        """The rows that represent themselves: row, id, question."""
        import pandas

        kept = self.found.kept
        for part in row_parts(len(kept), PARTS):
            yield pandas.DataFrame(self._columns("", kept[part]))

    def _columns(self, suffix: str, rows: Ints) -> dict[str, Any]:
        ids, texts = (source[rows] for source in self._texts)
        return {f"row{suffix}": rows + 1, f"id{suffix}": ids, f"question{suffix}": texts}
