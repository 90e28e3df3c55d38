"""An index of embeddings: the nearest of millions in milliseconds, by FAISS in a folder, or by Milvus for a cluster.

A folder holds a manifest and the files that it names. A change writes new files first, then the manifest, and with it
comes into force: a reader finds the old index or the new one, also where a writer was killed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import atomic_file, exclusive_lock

if TYPE_CHECKING:
    from qpairs.models.base import Side
    from qpairs.retrieval.embeddings import Embeddings

Floats = NDArray[np.float32]

FILE = "index.json"
FORMAT = 1
PARTS = ("vectors-*.faiss", "questions-*.arrow", "deleted-*.npy", ".new-*")  # the last is left by a killed process
NEAREST = 10  # of which recall says how many are found
GOAL = 0.98  # recall that the effort of a search is raised to, a little above what is promised
SAMPLE = 256  # questions that recall is measured on
SMALL = 20_000  # vectors, up to which all are compared in a few milliseconds
TRAINED_ON = 32  # vectors for each list of an inverted file
ROUNDS = 6  # of k-means
CANDIDATES = 128  # for the neighbours of a vector in a graph
MILVUS = "milvus:"
BLOCK = 1000  # rows that Milvus is sent at a time
LONGEST_TEXT, LONGEST_ID, MOST_LISTS = 65_535, 512, 65_536  # in Milvus; the first two in bytes


QUESTIONS = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])


@dataclass(frozen=True)
class Kind:
    """A way to search.

    Attributes:
        about: a few words.
        faiss: what FAISS's index_factory makes; `lists` is set in.
        milvus: what Milvus calls it.
        efforts: how hard a search may try; the first that reaches the goal is taken.
    """

    about: str
    faiss: str
    milvus: str
    efforts: Sequence[int] = (0,)


KINDS = {
    "exact": Kind("compares all", "Flat", "FLAT"),
    "ivf": Kind(
        "compares those in the nearest lists, in half precision",
        "IVF{lists},SQfp16",
        "IVF_FLAT",
        (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024),
    ),
    "hnsw": Kind(
        "follows a graph of neighbours, in half precision",
        "HNSW32,SQfp16",
        "HNSW",
        (16, 32, 64, 128, 256, 512, 1024),
    ),
}


@dataclass(frozen=True)
class Manifest:
    """What an index is.

    Attributes:
        kind: one of `KINDS`.
        count: questions in it.
        dimension: numbers in a vector.
        fingerprint: of the model that made the vectors.
        model: the folder of that model.
        side: the tower that made them; searches take the other.
        effort: how hard a search tries: lists (ivf) or candidates (hnsw).
        recall: share of the 10 nearest that a search finds, measured against all when the index was built.
        built: questions in it then.
        address: '' for FAISS in the folder; else milvus:URI#COLLECTION.
        generation: number of the files with vectors and questions, in FAISS.
        deletion: number of the file that says which of them are deleted.
    """

    kind: str
    count: int
    dimension: int
    fingerprint: str
    model: str
    side: Side
    effort: int
    recall: float
    built: int
    address: str
    generation: int
    deletion: int


@dataclass(frozen=True)
class Hit:
    """A question that was found, and its cosine."""

    id: str
    text: str
    similarity: float


class VectorIndex(Protocol):
    """Unit vectors, each with an identity and a text."""

    def __len__(self) -> int:
        """Number of questions."""

    def add(self, ids: Sequence[str], texts: Sequence[str], vectors: Floats) -> None:
        """Adds n questions with their vectors (n, dimension)."""

    def delete(self, ids: Sequence[str]) -> int:
        """Takes out those of the questions that are there, and says how many they are."""

    def known(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that are there."""

    def texts(self) -> Iterator[str]:
        """The questions, in any order."""

    def search(self, vectors: Floats, k: int, effort: int) -> list[list[Hit]]:
        """The nearest k questions, nearest first, for each of the vectors (q, dimension)."""


@dataclass(frozen=True)
class Index:
    """A folder, what the index in it is, and its questions."""

    folder: Path
    manifest: Manifest
    questions: VectorIndex


# Building, changing, opening


def kind_for(count: int) -> str:
    """The kind of index for so many vectors."""
    return "exact" if count <= SMALL else "ivf"


def lists_for(count: int) -> int:
    """Into how many lists so many vectors are divided, so that finding a list and reading it take like long."""
    return max(1, min(round(4 * math.sqrt(count)), count // 8))


def build_index(
    embeddings: Embeddings,
    output: str | Path,
    *,
    kind: str = "auto",
    address: str = "",
    overwrite: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Builds an index in a folder, or in Milvus with its manifest in the folder; measures its recall.

    Args:
        embeddings: the questions and their vectors.
        output: the folder.
        kind: one of `KINDS`; `auto` chooses by size.
        address: milvus:URI[#COLLECTION], where the URI is a file (Milvus Lite) or the address of a cluster, whose token
            is read from the environment variable MILVUS_TOKEN; '' for FAISS.
        overwrite: whether an index that is there already may be replaced.
        on_progress: is told how many questions are in.

    Raises:
        UserError: the folder is in use, an id is there twice, or Milvus refuses.
    """
    output = Path(output)
    if kind != "auto" and kind not in KINDS:
        raise UserError(f"kind of index {kind!r}: {nearest(kind, ['auto', *KINDS])}")
    if address and not address.startswith(MILVUS):
        raise UserError(f"index {address!r}: give milvus:FILE or milvus:ADDRESS, or nothing for FAISS in the folder")
    kind = kind_for(embeddings.count) if kind == "auto" else kind
    with exclusive_lock(output):
        old = _read_manifest(output) if (output / FILE).exists() else None
        if old and not overwrite:
            raise UserError(f"{output}: there is an index already; name another folder, or pass --overwrite")
        if not old and any(not any(map(entry.match, (".lock", *PARTS))) for entry in output.iterdir()):
            raise UserError(f"{output}: is in use, and holds no index; name another folder with --output")
        generation, deletion = (old.generation + 1, old.deletion + 1) if old else (1, 1)
        index: VectorIndex
        if address:
            address = address if "#" in address else f"{address}#qpairs"
            index = MilvusIndex.create(address, kind, embeddings, overwrite=overwrite)
        else:
            index = FaissIndex.create(kind, embeddings)
        _fill(index, embeddings, on_progress)
        effort, recall = _tune(index, embeddings, KINDS[kind].efforts)
        made = Manifest(
            kind,
            embeddings.count,
            embeddings.dimension,
            embeddings.fingerprint,
            str(embeddings.model),
            embeddings.plan.side,
            effort,
            recall,
            embeddings.count,
            address,
            generation,
            deletion,
        )
        _write(output, made, index, grown=True)
    return made


def _fill(index: VectorIndex, embeddings: Embeddings, on_progress: Callable[[int], None]) -> None:
    done = 0
    for ids, texts, vectors in embeddings.batches():
        index.add(ids, texts, vectors)
        done += len(ids)
        on_progress(done)


def add_to_index(
    folder: str | Path, embeddings: Embeddings, on_progress: Callable[[int], None] = lambda _: None
) -> Manifest:
    """Adds questions to an index; how hard a search tries stays as it is.

    Raises:
        UserError: no index, another process at work there, vectors of another model, or ids that are there already
            (in Milvus, what was sent before these stays).
    """
    folder = Path(folder)
    with _changing(folder) as old:
        _require_same(old, embeddings, str(folder))
        index = _open(folder, old, growing=True)
        _fill(index, embeddings, on_progress)
        new = dataclasses.replace(old, count=len(index), generation=old.generation + 1, deletion=old.deletion + 1)
        _write(folder, new, index, grown=True)
    return new


def delete_from_index(folder: str | Path, ids: Sequence[str]) -> tuple[Manifest, int]:
    """Takes questions out of an index, without rebuilding it; says how many of the ids were there.

    Raises:
        UserError: no index, or another process at work there.
    """
    folder = Path(folder)
    with _changing(folder) as old:
        index = _open(folder, old)
        found = index.delete(ids)
        new = dataclasses.replace(old, count=len(index), deletion=old.deletion + 1)
        _write(folder, new, index, grown=False)
    return new, found


@contextmanager
def hold_index(folder: str | Path) -> Iterator[Index]:
    """The index in a folder, for searching, adding and deleting, held against other processes that would change it.

    What is added and deleted is in memory alone until `save_index`.

    Raises:
        UserError: no index in it, another process at work there, or Milvus cannot be reached.
    """
    folder = Path(folder)
    with _changing(folder) as manifest:
        yield Index(folder, manifest, _open(folder, manifest, growing=True))


def save_index(index: Index) -> Index:
    """Writes an index that is held; the one returned is what is in the folder now.

    Raises:
        UserError: the disk is full.
    """
    old = index.manifest
    new = dataclasses.replace(old, count=len(index.questions), generation=old.generation + 1, deletion=old.deletion + 1)
    _write(index.folder, new, index.questions, grown=True)
    return dataclasses.replace(index, manifest=new)


def open_index(folder: str | Path) -> Index:
    """The index in a folder, for searching.

    Raises:
        UserError: no index in it, or Milvus cannot be reached.
    """
    manifest = _read_manifest(Path(folder))
    return Index(Path(folder), manifest, _open(Path(folder), manifest))


def require_model(manifest: Manifest, fingerprint: str, where: str) -> None:
    """Raises UserError where an index was made by another model than the one with this fingerprint."""
    if fingerprint != manifest.fingerprint:
        raise UserError(
            f"{where}: made by the model {manifest.fingerprint} ({manifest.model}), whose vectors cannot be compared "
            f"with those of {fingerprint}; use that model, or embed and index anew"
        )


def _require_same(manifest: Manifest, embeddings: Embeddings, where: str) -> None:
    require_model(manifest, embeddings.fingerprint, where)
    wanted, given = (manifest.dimension, manifest.side), (embeddings.dimension, embeddings.plan.side)
    if wanted != given:
        raise UserError(
            f"{embeddings.folder}: embedded with --dim {given[0]} --side {given[1]}, "
            f"and the index with --dim {wanted[0]} --side {wanted[1]}"
        )


def _open(folder: Path, manifest: Manifest, *, growing: bool = False) -> VectorIndex:
    if manifest.address:
        return MilvusIndex(manifest.address, manifest.kind)
    return FaissIndex.read(folder, manifest, growing=growing)


@contextmanager
def _changing(folder: Path) -> Iterator[Manifest]:
    """The manifest of an index that nobody else may change meanwhile."""
    _read_manifest(folder)  # before a lock is written into a folder that holds no index
    with exclusive_lock(folder):
        yield _read_manifest(folder)


def _read_manifest(folder: Path) -> Manifest:
    try:
        data = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if data.pop("format") > FORMAT:
            raise UserError(f"{folder}: written by a newer qpairs; upgrade qpairs")
        return Manifest(**data)
    except OSError:
        raise UserError(f"{folder}: no index in it (no {FILE}); qpairs index EMBEDDINGS --output makes one") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder}/{FILE}: damaged ({type(error).__name__}: {error}); index anew") from None


def _write(folder: Path, manifest: Manifest, index: VectorIndex, *, grown: bool) -> None:
    if isinstance(index, FaissIndex):
        index.write(folder, manifest, grown=grown)
    with atomic_file(folder / FILE) as fresh:
        content = {"format": FORMAT, **dataclasses.asdict(manifest)}
        fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    current = FaissIndex.files(folder, manifest)
    for file in (file for pattern in PARTS for file in folder.glob(pattern)):
        if file not in current:
            file.unlink(missing_ok=True)


def _tune(index: VectorIndex, embeddings: Embeddings, efforts: Sequence[int]) -> tuple[int, float]:
    """The least effort that reaches the goal, and the recall that it reaches.

    A sample of the questions is searched; that a question finds itself does not count. What is as near as the tenth is
    right, whichever of several equal questions it is.
    """
    faiss = faiss_module()
    queries = _every(embeddings, SAMPLE)  # (q, d)
    k = min(NEAREST, embeddings.count - 1) + 1
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)  # (q, k) similarities, falling
    for _, _, vectors in embeddings.batches():
        found, _ = faiss.knn(queries, vectors, min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
        best = -np.sort(-np.concatenate([best, found], axis=1), axis=1)[:, :k]
    for effort in efforts:
        hits = index.search(queries, k, effort)
        right = [
            sum(hit.similarity >= least - 1e-4 for hit in row) for row, least in zip(hits, best[:, -1], strict=True)
        ]
        recall = float(np.clip(np.subtract(right, 1) / max(1, k - 1), 0, 1).mean()) if k > 1 else 1.0
        if recall >= GOAL:
            break
    return effort, recall


def _every(embeddings: Embeddings, wanted: int) -> Floats:
    """About so many of the vectors, (n, dimension), spread evenly over all."""
    step, start, kept = max(1, embeddings.count // wanted), 0, []
    for _, _, vectors in embeddings.batches():
        kept.append(vectors[-start % step :: step])
        start += len(vectors)
    return np.concatenate(kept)


# FAISS


class FaissIndex:
    """A `VectorIndex` in memory, and in three files of a folder: vectors, questions, and which are deleted.

    A row keeps its number for good: deleting marks it, and searches pass it over.
    """

    def __init__(self, vectors: Any, questions: pa.Table, deleted: NDArray[np.bool_]) -> None:
        self._vectors = vectors
        self._questions = questions
        self._deleted = deleted

    @classmethod
    def create(cls, kind: str, embeddings: Embeddings) -> FaissIndex:
        """An empty index for these vectors."""
        faiss = faiss_module()
        lists = lists_for(embeddings.count)
        name = KINDS[kind].faiss.format(lists=lists)
        vectors = faiss.index_factory(_padded(embeddings.dimension), name, faiss.METRIC_INNER_PRODUCT)
        if kind == "ivf":
            vectors.cp.niter = ROUNDS
            vectors.cp.max_points_per_centroid = TRAINED_ON
            vectors.cp.min_points_per_centroid = 1
        elif kind == "hnsw":
            vectors.hnsw.efConstruction = CANDIDATES
        if not vectors.is_trained:
            vectors.train(_pad(_every(embeddings, TRAINED_ON * lists)))
        return cls(vectors, QUESTIONS.empty_table(), np.zeros(0, dtype=np.bool_))

    @staticmethod
    def files(folder: Path, manifest: Manifest) -> tuple[Path, Path, Path]:
        """Where an index lies: vectors, questions, deleted."""
        generation = manifest.generation
        return (
            folder / f"vectors-{generation}.faiss",
            folder / f"questions-{generation}.arrow",
            folder / f"deleted-{manifest.deletion}.npy",
        )

    @classmethod
    def read(cls, folder: Path, manifest: Manifest, *, growing: bool) -> FaissIndex:
        """The index in a folder; its vectors stay there, mapped into memory, unless others are to be added."""
        faiss = faiss_module()
        vectors, questions, deleted = cls.files(folder, manifest)
        try:
            index = faiss.read_index(str(vectors), 0 if growing else faiss.IO_FLAG_MMAP_IFC)
            with pa.memory_map(str(questions)) as source:
                table = pa.ipc.open_file(source).read_all()
            marks = np.load(deleted)
            if not index.ntotal == len(table) == len(marks):
                raise ValueError(f"{index.ntotal} vectors, {len(table)} questions, {len(marks)} marks")
            return cls(index, table, marks)
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            why = " ".join(str(error).split())[-200:]
            raise UserError(f"{folder}: the index is damaged ({why}); index anew") from None

    def write(self, folder: Path, manifest: Manifest, *, grown: bool) -> None:
        """Writes which questions are deleted and, where the index has grown, vectors and questions.

        Raises:
            UserError: an id is there twice, or the disk is full.
        """
        vectors, questions, deleted = self.files(folder, manifest)
        if grown:
            self._require_distinct_ids()
            with atomic_file(vectors) as fresh:
                try:
                    faiss_module().write_index(self._vectors, str(fresh))
                except RuntimeError as error:  # which is how FAISS reports what the system says
                    raise OSError(" ".join(str(error).split())[-200:]) from error
            with atomic_file(questions) as fresh, pa.ipc.new_file(str(fresh), self._questions.schema) as writer:
                writer.write_table(self._questions.combine_chunks())  # rows of one chunk are found 500 times as fast
        with atomic_file(deleted) as fresh, fresh.open("wb") as file:
            np.save(file, self._deleted)

    def _require_distinct_ids(self) -> None:
        ids = self._questions["id"].filter(pa.array(~self._deleted))
        if pc.count_distinct(ids).as_py() < len(ids):
            twice, count = Counter(ids.to_pylist()).most_common(1)[0]
            raise UserError(
                f"id {twice!r} would be in the index {count} times; delete it first, or embed with an --id-column that "
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

    def delete(self, ids: Sequence[str]) -> int:
        """Marks questions as deleted, and says how many they are."""
        fresh = self._rows(ids)
        self._deleted = self._deleted | fresh
        return int(fresh.sum())

    def known(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that are there."""
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
        yield from (text.as_py() for text, deleted in rows if not deleted)

    def search(self, vectors: Floats, k: int, effort: int) -> list[list[Hit]]:
        """The nearest k questions, nearest first, for each of the vectors (q, dimension)."""
        faiss = faiss_module()
        kept = np.packbits(~self._deleted, bitorder="little")
        selector = faiss.IDSelectorBitmap(kept) if self._deleted.any() else None
        if isinstance(self._vectors, faiss.IndexIVF):
            self._vectors.parallel_mode = int(len(vectors) == 1)  # one question: its lists are shared among the cores
            options = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        elif isinstance(self._vectors, faiss.IndexHNSW):
            options = faiss.SearchParametersHNSW(efSearch=max(effort, k), sel=selector)
        else:
            options = faiss.SearchParameters(sel=selector)
        similarity, rows = self._vectors.search(_pad(vectors), k, params=options)  # (q, k) each
        if self._questions["id"].num_chunks > 1:
            self._questions = self._questions.combine_chunks()  # rows of one chunk are found 50 times as fast
        found = self._questions.take(rows[rows >= 0])
        named = zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True)
        return [
            [Hit(*next(named), min(1.0, float(s))) for s, row in zip(*hits, strict=True) if row >= 0]
            for hits in zip(similarity, rows, strict=True)
        ]


def faiss_module() -> Any:
    """FAISS, where it is installed."""
    try:
        import faiss
    except ImportError:
        raise UserError("an index needs FAISS: pip install 'qpairs[search]'") from None
    return faiss


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


# Milvus


class MilvusIndex:
    """A `VectorIndex` that is a collection of Milvus: of a file (Milvus Lite), or of a cluster."""

    def __init__(self, address: str, kind: str) -> None:
        self._kind = kind
        uri, _, self._collection = address.removeprefix(MILVUS).rpartition("#")
        try:
            from pymilvus import MilvusClient
        except ImportError:
            raise UserError("an index in Milvus needs pymilvus: pip install 'qpairs[milvus]'") from None
        with _refusing(address):
            self._client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""))
        self._address = address

    @classmethod
    def create(cls, address: str, kind: str, embeddings: Embeddings, *, overwrite: bool) -> MilvusIndex:
        """An empty collection for these vectors."""
        index = cls(address, kind)
        client, name = index._client, index._collection
        with _refusing(address):
            if client.has_collection(name):
                if not overwrite:
                    raise UserError(
                        f"{address}: the collection is there already; name another after #, or pass --overwrite"
                    )
                client.drop_collection(name)
            from pymilvus import DataType

            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=LONGEST_ID)
            schema.add_field("text", DataType.VARCHAR, max_length=LONGEST_TEXT)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=embeddings.dimension)
            lists = min(MOST_LISTS, lists_for(embeddings.count))
            build = {"exact": {}, "ivf": {"nlist": lists}, "hnsw": {"M": 32, "efConstruction": CANDIDATES}}[kind]
            params = client.prepare_index_params()
            params.add_index("vector", index_type=KINDS[kind].milvus, metric_type="IP", params=build)
            client.create_collection(name, schema=schema, index_params=params, consistency_level="Strong")
        return index

    def __len__(self) -> int:
        """Number of questions."""
        with _refusing(self._address):
            counted = self._client.query(self._collection, filter="", output_fields=["count(*)"])
        return int(counted[0]["count(*)"])

    def add(self, ids: Sequence[str], texts: Sequence[str], vectors: Floats) -> None:
        """Adds n questions with their vectors (n, dimension).

        Raises:
            UserError: an id is there already, or a text is too long for Milvus.
        """
        for start in range(0, len(ids), BLOCK):
            part = slice(start, start + BLOCK)
            twice = [name for name, count in Counter(ids[part]).items() if count > 1] or self.known(ids[part])
            if twice:
                raise UserError(f"id {twice[0]!r} is in the index already; delete it first, or embed with --id-column")
            rows = [
                {"id": name, "text": text, "vector": vector}
                for name, text, vector in zip(ids[part], texts[part], vectors[part], strict=True)
            ]
            with _refusing(self._address):
                self._client.insert(self._collection, rows)
        with _refusing(self._address):
            self._client.flush(self._collection)

    def known(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that are there."""
        with _refusing(self._address):
            found = self._client.query(self._collection, ids=list(ids), output_fields=["id"])
        return [str(row["id"]) for row in found]

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes questions, and says how many they are."""
        found = 0
        for start in range(0, len(ids), BLOCK):
            known = self.known(ids[start : start + BLOCK])
            found += len(known)
            if known:
                with _refusing(self._address):
                    self._client.delete(self._collection, ids=known)
        return found

    def texts(self) -> Iterator[str]:
        """The questions, in any order."""
        with _refusing(self._address):
            rows = self._client.query_iterator(self._collection, batch_size=BLOCK, output_fields=["text"])
            while batch := rows.next():
                yield from (row["text"] for row in batch)
            rows.close()

    def search(self, vectors: Floats, k: int, effort: int) -> list[list[Hit]]:
        """The nearest k questions, nearest first, for each of the vectors (q, dimension)."""
        params = {"exact": {}, "ivf": {"nprobe": effort}, "hnsw": {"ef": max(effort, k)}}[self._kind]
        with _refusing(self._address):
            found = self._client.search(
                self._collection, list(vectors), limit=k, output_fields=["text"], search_params={"params": params}
            )
        return [
            [Hit(str(hit["id"]), hit["entity"]["text"], min(1.0, float(hit["distance"]))) for hit in hits]
            for hits in found
        ]


@contextmanager
def _refusing(address: str) -> Iterator[None]:
    """Turns an error of Milvus into one line."""
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise UserError(f"{address}: Milvus says: {' '.join(error.message.split())[:300]}") from error
