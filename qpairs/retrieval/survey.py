"""Which texts of a file of questions several shards have, and the jobs that follow: each distinct text is encoded once.

Texts that several shards have are encoded first, into files of repeated texts. After that, the shards can be written
by any process and in any order.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter
from qpairs.data.questions import Questions
from qpairs.retrieval.embeddings import UNFINISHED, Floats, Plan
from qpairs.retrieval.executors import Job

Digests = NDArray[np.bytes_]

SHARDS = "shards"
REPEATS = f"{UNFINISHED}/repeats"
MERGED = 1 << 20  # digests that are collected, at least, before they are merged with the others


@dataclass(frozen=True)
class Survey:
    """What one pass through a file of questions finds.

    Attributes:
        count: questions.
        distinct: distinct texts.
        skipped: reason -> rows that were left out.
        repeated: (r,) digests of the texts that several shards have, sorted.
        repeated_ids: ids that several questions have.
        repeated_id: the first of them; '' without any.
    """

    count: int
    distinct: int
    skipped: Mapping[str, int]
    repeated: Digests
    repeated_ids: int = 0
    repeated_id: str = ""


def survey(questions: Questions, plan: Plan, meter: Meter) -> Survey:
    """Reads a file of questions once.

    Raises:
        UserError: it has no question, or a row that cannot be used.
    """
    count, skipped = 0, Counter[str]()
    distinct, distinct_ids = Distinct(), Distinct()
    meter.begin("reading")
    for ids, texts in _shards(questions, plan, skipped):
        count += len(texts)
        distinct.add(np.unique(digests(texts)))
        if plan.id_column:  # else they are the numbers of the rows
            distinct_ids.add(digests(ids))
        meter.advance(len(texts))
    seen, repeated = distinct.found()
    if not count:
        raise UserError(f"{questions.path}: there are no questions in it")
    twice = distinct_ids.found()[1]
    return Survey(count, len(seen), dict(skipped), repeated, len(twice), _first_id(questions, plan, twice))


class Distinct:
    """The distinct ones of many digests, and those that were added several times.

    >>> added = Distinct()
    >>> added.add(digests(["a", "b"])), added.add(digests(["b", "c"]))
    (None, None)
    >>> [len(part) for part in added.found()]
    [3, 1]
    """

    def __init__(self) -> None:
        """None were added."""
        self._seen = self._repeated = np.empty(0, dtype="S16")
        self._unsorted: list[Digests] = []

    def add(self, some: Digests) -> None:
        """Adds (n,) digests."""
        self._unsorted.append(some)
        if sum(map(len, self._unsorted)) > max(MERGED, len(self._seen) // 2):
            self._merge()

    def found(self) -> tuple[Digests, Digests]:
        """The distinct ones, and of these those that were added several times; both sorted."""
        self._merge()
        return self._seen, self._repeated

    def _merge(self) -> None:
        every = np.concatenate([self._seen, *self._unsorted])
        self._unsorted.clear()
        every.sort(kind="stable")  # which is fast for what is sorted in part
        again = every[1:] == every[:-1]
        self._repeated = np.union1d(self._repeated, every[1:][again])
        self._seen = every[np.append(True, ~again)[: len(every)]]


def _shards(
    questions: Questions, plan: Plan, skipped: Counter[str] | None = None
) -> Iterator[tuple[list[str], list[str]]]:
    """Ids and texts of the questions of each shard."""
    rows = questions.rows((Counter() if skipped is None else skipped) if plan.skip_bad_rows else None)
    while shard := list(itertools.islice(rows, plan.shard_size)):
        yield [identity for identity, _ in shard], [text for _, text in shard]


def _first_id(questions: Questions, plan: Plan, wanted: Digests) -> str:
    """The first id whose digest is among the wanted ones, which are sorted; '' where none is wanted."""
    if len(wanted):
        for ids, _ in _shards(questions, plan):
            for identity, row in zip(ids, _find(digests(ids), wanted).tolist(), strict=True):
                if row >= 0:
                    return identity
    return ""


def digests(texts: Iterable[str]) -> Digests:
    """(n,) 16 bytes for each text: two of a billion texts share them with probability 1e-21."""
    joined = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(joined, dtype="S16")


def _find(wanted: Digests, table: Digests) -> NDArray[np.int64]:
    """(n,) the row of each digest in a sorted table, which is not empty; -1 where it has none."""
    rows = np.searchsorted(table, wanted).clip(max=len(table) - 1)
    return np.where(table[rows] == wanted, rows, -1)


def repeat_jobs(
    questions: Questions, output: Path, plan: Plan, repeated: Digests, done: frozenset[str]
) -> Iterator[Job]:
    """The files of repeated texts, in the order in which the texts occur first.

    Args:
        questions: the file.
        output: the folder.
        plan: of the shards.
        repeated: from the survey.
        done: the files that are there already.
    """
    seen = np.zeros(len(repeated), dtype=np.bool_)

    def first_occurrences() -> Iterator[str]:
        for _, texts in _shards(questions, plan):
            for text, row in zip(texts, _find(digests(texts), repeated).tolist(), strict=True):
                if row >= 0 and not seen[row]:
                    seen[row] = True
                    yield text

    texts = first_occurrences()
    for number in range(math.ceil(len(repeated) / plan.shard_size)):
        job = Job(_repeats_file(number), list(itertools.islice(texts, plan.shard_size)))
        if job.file not in done:
            yield job


def shard_jobs(
    questions: Questions, output: Path, plan: Plan, repeated: Digests, done: frozenset[str]
) -> Iterator[Job]:
    """The shards, in the order of the questions; arguments as for `repeat_jobs`, whose files must be there."""
    files = range(math.ceil(len(repeated) / plan.shard_size))
    kept = np.concatenate([np.empty(0, "S16"), *(read_repeats(output, number)[0] for number in files)])
    order = np.argsort(kept)
    table, place = kept[order], np.append(order, -1)  # what is not in the table has row -1, hence place -1
    for number, (ids, texts) in enumerate(_shards(questions, plan)):
        file = f"{SHARDS}/{number:06}.parquet"
        if file not in done:
            places = place[_find(digests(texts), table)].tolist() if len(table) else None
            yield Job(file, texts, ids, places)


def read_repeats(output: Path, number: int) -> tuple[Digests, Floats]:
    """The digests (k,) and the vectors (k, dimension) in a file of repeated texts, mapped into memory."""
    with pyarrow.memory_map(str(output / _repeats_file(number))) as source:
        table = pyarrow.ipc.open_file(source).read_all()
    column, vectors = (table.column(name).chunk(0) for name in ("digest", "vector"))
    flat = vectors.flatten().to_numpy()
    return np.frombuffer(column.buffers()[1], dtype="S16"), flat.reshape(len(vectors), -1)


def _repeats_file(number: int) -> str:
    return f"{REPEATS}/{number:06}.arrow"
