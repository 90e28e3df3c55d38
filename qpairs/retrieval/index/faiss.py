"""FAISS: the index in a folder, and the few other functions of FAISS that qpairs uses."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.core.extras import require
from qpairs.core.files import atomic_file
from qpairs.retrieval.index.base import Floats, Hit, Manifest
from qpairs.retrieval.index.kinds import CANDIDATES, EFFORTS, GOAL, lists_for

if TYPE_CHECKING:
    from qpairs.retrieval.embeddings import Embeddings

Ints = NDArray[np.int64]

FACTORIES = {"exact": "Flat", "ivf": "IVF{lists},SQfp16", "hnsw": "HNSW32,SQfp16"}  # kind -> for index_factory
CLASSES = {"exact": "IndexFlat", "ivf": "IndexIVF", "hnsw": "IndexHNSW"}  # kind -> what FAISS calls it
TRAINED_ON = 32  # vectors for each list or cell
ROUNDS = 6  # of k-means
QUESTIONS = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])


class FaissIndex:
    """A `BackEnd` in memory, and in three files of a folder: vectors, questions, and which are deleted.

    A row keeps its number: deleting marks the row, and searches skip it. Saving writes files with new numbers, so that
    readers of the old manifest are not disturbed; `effort`, `generation` and `deletion` are the state in the manifest.
    """

    patterns: ClassVar[Sequence[str]] = ("vectors-*.faiss", "questions-*.arrow", "deleted-*.npy")

    def __init__(self, folder: Path, manifest: Manifest, vectors: Any) -> None:
        """An index without questions, over a FAISS index of the manifest's kind."""
        self._folder, self._kind, self._vectors = folder, manifest.kind, vectors
        self._effort = manifest.state.get("effort", 0)
        self._generation, self._deletion = (manifest.state.get(name, 0) for name in ("generation", "deletion"))
        self._questions = QUESTIONS.empty_table()
        self._deleted = np.zeros(0, dtype=np.bool_)
        self._grown = False  # since it was saved last
        self._pool = ThreadPoolExecutor(max_threads(), "faiss")

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, embeddings: Embeddings, *, overwrite: bool) -> Self:
        """An empty index, trained on a sample of the vectors."""
        faiss = _faiss()
        lists = lists_for(embeddings.count)
        factory = FACTORIES[manifest.kind].format(lists=lists)
        vectors = faiss.index_factory(_padded(embeddings.dimension), factory, faiss.METRIC_INNER_PRODUCT)
        if manifest.kind == "ivf":
            vectors.cp.niter = ROUNDS
            vectors.cp.max_points_per_centroid = TRAINED_ON
            vectors.cp.min_points_per_centroid = 1
        elif manifest.kind == "hnsw":
            vectors.hnsw.efConstruction = CANDIDATES
        if not vectors.is_trained:
            vectors.train(_pad(embeddings.sample(TRAINED_ON * lists)))
        return cls(folder, manifest, vectors)

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, *, growing: bool) -> Self:
        """The index in a folder; its vectors stay there, mapped into memory, unless others are to be added."""
        faiss = _faiss()
        try:
            names = _names(manifest.state["generation"], manifest.state["deletion"])
            vectors, questions, deleted = (folder / name for name in names)
            index = cls(folder, manifest, faiss.read_index(str(vectors), 0 if growing else faiss.IO_FLAG_MMAP_IFC))
            with pa.memory_map(str(questions)) as source:
                index._questions = pa.ipc.open_file(source).read_all()
            index._deleted = np.load(deleted)
            index._require_shapes()
            sizes = index._vectors.ntotal, len(index._questions), len(index._deleted)
            if len(set(sizes)) > 1:
                raise ValueError("{} vectors, {} questions, {} deletion marks".format(*sizes))
            if index._vectors.d != _padded(manifest.dimension):
                raise ValueError(f"vectors of {index._vectors.d} numbers, and {manifest.dimension} in the manifest")
            if not isinstance(index._vectors, getattr(faiss, CLASSES[manifest.kind])):
                raise ValueError(f"the vectors are not those of an index of the kind {manifest.kind}")
            return index
        except Exception as error:  # of FAISS, Arrow, NumPy and its parser of headers
            raise UserError(f"{folder}: the index is damaged ({_reason(error)}); build it again") from None

    def _require_shapes(self) -> None:
        """Raises ValueError where the questions or the deletion marks are no such."""
        self._questions.validate()
        if self._questions.schema != QUESTIONS or any(column.null_count for column in self._questions.columns):
            raise ValueError("the questions have other columns, or empty ones")
        if not all(_lies_inside(chunk) for column in self._questions.columns for chunk in column.chunks):
            raise ValueError("the questions are not where they should be")
        if self._deleted.dtype != np.bool_ or self._deleted.ndim != 1:
            raise ValueError("the deletion marks are none")

    def files(self) -> Sequence[str]:
        """Vectors, questions, deletion marks."""
        return _names(self._generation, self._deletion)

    def save(self, manifest: Manifest) -> Manifest:
        """Writes the deletion marks and, where questions were added, vectors and questions.

        Raises:
            UserError: an id occurs twice, or the disk is full.
        """
        generation, deletion = self._generation + self._grown, self._deletion + 1
        vectors, questions, deleted = (self._folder / name for name in _names(generation, deletion))
        if self._grown:
            self._require_distinct_ids()
            with atomic_file(vectors) as fresh:
                _faiss().write_index(self._vectors, str(fresh))
            with atomic_file(questions) as fresh, pa.ipc.new_file(str(fresh), self._questions.schema) as writer:
                writer.write_table(self._questions.combine_chunks())  # rows of one chunk are found 500 times as fast
        with atomic_file(deleted) as fresh, fresh.open("wb") as file:
            np.save(file, self._deleted)
        self._generation, self._deletion, self._grown = generation, deletion, False
        state = {"effort": self._effort, "generation": generation, "deletion": deletion}
        return dataclasses.replace(manifest, count=len(self), state=state)

    def _require_distinct_ids(self) -> None:
        ids = self._questions["id"].filter(pa.array(~self._deleted))
        if pc.count_distinct(ids).as_py() < len(ids):
            twice, count = Counter(ids.to_pylist()).most_common(1)[0]
            there = "delete it, if it is in the index already, or " if self._generation else ""
            raise UserError(
                f"id {twice!r} would be in the index {count} times: {there}embed with an --id-column (id_column) that "
                "has each id once"
            )

    def __len__(self) -> int:
        """Number of questions that are not deleted."""
        return int((~self._deleted).sum())

    def add(self, ids: Sequence[str], texts: Sequence[str], vectors: Floats) -> None:
        """Adds n questions with their vectors (n, dimension)."""
        self._vectors.add(_pad(vectors))
        rows = pa.table({"id": ids, "text": texts}, QUESTIONS)
        self._questions = pa.concat_tables([self._questions, rows])
        self._deleted = np.append(self._deleted, np.zeros(len(rows), dtype=np.bool_))
        self._grown = True

    def delete(self, ids: Sequence[str]) -> int:
        """Marks questions as deleted; returns their number."""
        rows = self._rows(ids)
        self._deleted = self._deleted | rows
        return int(rows.sum())

    def known(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that it has."""
        with _reading(self._folder):
            found: list[str] = self._questions["id"].filter(pa.array(self._rows(ids))).to_pylist()
        return found

    def _rows(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """(rows,) which of them have one of the ids, and are not deleted."""
        named = pc.is_in(self._questions["id"], pa.array(ids, QUESTIONS.field("id").type)).to_numpy()
        rows: NDArray[np.bool_] = named & ~self._deleted
        return rows

    def texts(self) -> Iterator[str]:
        """The questions that are not deleted, in the order in which they were added."""
        rows = zip(self._questions["text"], self._deleted, strict=True)
        with _reading(self._folder):
            yield from (text.as_py() for text, deleted in rows if not deleted)

    def tune(self, measure: Callable[[], float]) -> float:
        """Takes the least effort that reaches the goal; returns the recall that it reaches."""
        for effort in EFFORTS[self._kind]:
            self._effort = effort
            if (recall := measure()) >= GOAL:
                break
        return recall

    def search(self, vectors: Floats, k: int, *, threads: int | None = None) -> list[list[Hit]]:
        """The nearest k questions, nearest first, for each of the vectors (q, dimension); by all cores by default."""
        k = max(1, min(k, self._vectors.ntotal))  # FAISS takes memory for k hits, even where there are fewer
        similarity, rows = self._nearest(_pad(vectors), k, threads)
        if self._questions["id"].num_chunks > 1:
            self._questions = self._questions.combine_chunks()  # rows of one chunk are found 50 times as fast
        with _reading(self._folder):
            found = self._questions.take(rows[rows >= 0])
            named = zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True)
        return [
            [Hit(*next(named), min(1.0, float(s))) for s, row in zip(*hits, strict=True) if row >= 0]
            for hits in zip(similarity, rows, strict=True)
        ]

    def _nearest(self, vectors: Floats, k: int, threads: int | None) -> tuple[Floats, Ints]:
        """Cosines and rows (q, k) of the nearest vectors, -1 where there are fewer.

        So many threads are those of this index, each with a share of the queries: OpenMP's own would wait in a loop
        for the next search, on the cores that a service encodes the next questions with.
        """
        options = self._options(len(vectors), k)

        def search(share: Floats) -> tuple[Floats, Ints]:
            found: tuple[Floats, Ints] = self._vectors.search(share, k, params=options)
            return found

        def search_alone(share: Floats) -> tuple[Floats, Ints]:
            with _one_thread():
                return search(share)

        if threads is None:
            return search(vectors)
        if min(threads, len(vectors)) <= 1:
            return search_alone(vectors)
        shares = np.array_split(vectors, min(threads, len(vectors)))
        similarity, rows = zip(*self._pool.map(search_alone, shares), strict=True)
        return np.concatenate(similarity), np.concatenate(rows)

    def _options(self, queries: int, k: int) -> Any:
        """How FAISS searches: which rows it skips, and how many lists or candidates it looks at."""
        faiss = _faiss()
        selector = None
        if self._deleted.any():
            selector = faiss.IDSelectorBitmap(np.packbits(~self._deleted, bitorder="little"))
        if isinstance(self._vectors, faiss.IndexIVF):
            self._vectors.parallel_mode = int(queries == 1)  # the lists of a single query are shared among the cores
            return faiss.SearchParametersIVF(nprobe=self._effort, sel=selector)
        if isinstance(self._vectors, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(efSearch=max(self._effort, k), sel=selector)
        return faiss.SearchParameters(sel=selector)


def _names(generation: int, deletion: int) -> tuple[str, str, str]:
    return f"vectors-{generation}.faiss", f"questions-{generation}.arrow", f"deleted-{deletion}.npy"


def _lies_inside(texts: pa.LargeStringArray) -> bool:
    """Whether all texts lie in their memory, and not outside, where Arrow would read them without a look."""
    _, starts, content = texts.buffers()
    if not starts:
        return True
    places: NDArray[np.int64] = np.frombuffer(starts, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return bool(places[0] >= 0 and places[-1] <= (content.size if content else 0) and np.all(places[1:] >= places[:-1]))


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Tells in one line that ids or texts are none, which are looked at when they are wanted and not before."""
    try:
        yield
    except (UnicodeDecodeError, IndexError, pa.ArrowException) as error:
        raise UserError(f"{folder}: the index is damaged ({_reason(error)}); build it again") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[-200:]


def _padded(dimension: int) -> int:
    return -(-dimension // 8) * 8


def _pad(vectors: Floats) -> Floats:
    """Vectors (n, d) with zeros up to a multiple of 8 numbers, which FAISS's code in half precision is fast for."""
    n, dimension = vectors.shape
    if dimension == _padded(dimension):
        return np.ascontiguousarray(vectors, dtype=np.float32)
    padded = np.zeros((n, _padded(dimension)), dtype=np.float32)
    padded[:, :dimension] = vectors
    return padded


# Other functions of FAISS


def _faiss() -> Any:
    return require("faiss", "an index")


def max_threads() -> int:
    """Threads that FAISS works with by default: the cores, or OMP_NUM_THREADS."""
    return int(_faiss().omp_get_max_threads())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Lets FAISS use one thread for what this thread asks of it."""
    before = max_threads()
    _faiss().omp_set_num_threads(1)
    try:
        yield
    finally:
        _faiss().omp_set_num_threads(before)


def kmeans(vectors: Floats, cells: int, *, rounds: int, seed: int, most: int = TRAINED_ON) -> Floats:
    """Unit vectors (cells, d): the centres that spherical k-means finds for unit vectors (n, d).

    Args:
        vectors: (n, d) unit vectors; of more than `most` for each cell, a sample is taken.
        cells: number of centres.
        rounds: of k-means.
        seed: of the sample and the first centres.
        most: vectors for each cell.
    """
    found = _faiss().Kmeans(
        vectors.shape[1],
        cells,
        niter=rounds,
        seed=seed,
        spherical=True,
        max_points_per_centroid=most,
        min_points_per_centroid=1,
    )
    found.train(vectors)
    centres: Floats = found.centroids
    return centres


def closest(vectors: Floats, centres: Floats) -> tuple[Floats, Ints]:
    """(n,) the greatest cosine of each of some unit vectors (n, d) with one of the centres (c, d), and (n,) which."""
    faiss = _faiss()
    similarity, rows = faiss.knn(vectors, centres, 1, metric=faiss.METRIC_INNER_PRODUCT)
    return similarity[:, 0], rows[:, 0]
