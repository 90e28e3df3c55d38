"""Embeddings of a file of questions, as Parquet shards in a folder: `open_shards` reads what `embed` made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import parquet

from qpairs.core.exceptions import UserError
from qpairs.core.files import INTERRUPTED, sha256
from qpairs.core.manifests import read_manifest
from qpairs.core.shapes import each, flag, inside, named, one_of, record, text, whole
from qpairs.models.base import Model, Side
from qpairs.models.shortened import unit
from qpairs.retrieval.executors import WrittenFile

DType = Literal["float32", "float16", "int8"]
Floats = NDArray[np.float32]

FORMAT = 1
MANIFEST = "manifest.json"
UNFINISHED = INTERRUPTED  # the folder of what an interrupted run leaves
PLAN = f"{UNFINISHED}/plan.json"
ROW_GROUP = 8192  # rows that a reader must hold at least


LONGEST = 1 << 20  # numbers of a vector


plan_shape = record(
    {
        "fingerprint": text,
        "dimension": whole(1, LONGEST),
        "dtype": one_of(*get_args(DType)),
        "side": one_of(*get_args(Side)),
        "shard_size": whole(1),
        "source": text,
        "text_column": text,
        "id_column": text,
        "skip_bad_rows": flag,
    }
)
shard_shape = record({"file": inside, "rows": whole(), "encoded": whole(), "sha256": text})
manifest_shape = record(
    {
        "model": text,
        "plan": plan_shape,
        "count": whole(),
        "distinct": whole(),
        "skipped": named(whole()),
        "shards": each(shard_shape),
    },
    others=True,
)


@dataclass(frozen=True)
class Plan:
    """All that the shards depend on; an unfinished run is continued with the same plan only.

    Attributes:
        fingerprint: of the model.
        dimension: numbers in a vector; fewer than the model's where they were truncated.
        dtype: of the numbers.
        side: the tower that encoded them.
        shard_size: questions in a shard.
        source: checksum of the file of questions.
        text_column, id_column: the columns that were read.
        skip_bad_rows: whether rows that cannot be used were left out.
    """

    fingerprint: str
    dimension: int
    dtype: DType
    side: Side
    shard_size: int
    source: str
    text_column: str
    id_column: str
    skip_bad_rows: bool


@dataclass(frozen=True)
class Embeddings:
    """Finished embeddings in a folder; their vectors are unit rows, in the order of the file of questions.

    Attributes:
        folder: where they are.
        model: the folder of the model that made them, at the time.
        plan: how they were made.
        count: questions.
        distinct: distinct texts among them.
        skipped: reason -> rows of the source that were left out.
        shards: the files, in order.

    >>> embeddings.count, embeddings.dimension
    (40, 128)
    """

    folder: Path
    model: Path
    plan: Plan
    count: int
    distinct: int
    skipped: Mapping[str, int]
    shards: Sequence[WrittenFile]

    @property
    def fingerprint(self) -> str:
        """Identity of the model that made the vectors, as in `Model.fingerprint`."""
        return self.plan.fingerprint

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.plan.dimension

    def batches(self, size: int = ROW_GROUP) -> Iterator[tuple[list[str], list[str], Floats]]:
        """Ids, texts and vectors (k, dimension) of at most `size` questions at a time; memory is constant.

        Raises:
            UserError: a shard is missing or cannot be read.

        >>> ids, texts, vectors = next(embeddings.batches())
        >>> len(ids), len(texts), vectors.shape
        (40, 40, (40, 128))
        """
        for batch in self._read(size, ["id", "text", "vector"]):
            yield batch.column("id").to_pylist(), batch.column("text").to_pylist(), _floats(batch)

    def texts(self) -> Iterator[str]:
        """The questions, in order.

        >>> len(list(embeddings.texts()))
        40
        """
        for block in self.column("text"):
            yield from block

    def column(self, name: Literal["id", "text"]) -> Iterator[list[str]]:
        """The ids, or the questions, some at a time.

        >>> sum(len(ids) for ids in embeddings.column("id"))
        40
        """
        for batch in self._read(ROW_GROUP, [name]):
            yield batch.column(name).to_pylist()

    def require_model(self, model: Model) -> None:
        """Raises UserError where another model made the vectors.

        >>> embeddings.require_model(model)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        qpairs.core.exceptions.UserError: ...made by the model 46c24f8e7ba0fc23...
        """
        if self.fingerprint != model.fingerprint:
            raise UserError(
                f"{self.folder}: made by the model {self.fingerprint} ({self.model}), not by {model.path}; run qpairs "
                "embed again"
            )

    def vectors(self) -> Iterator[tuple[int, Floats]]:
        """The row that a batch begins with, and its vectors (k, dimension).

        >>> [(start, vectors.shape) for start, vectors in embeddings.vectors()]
        [(0, (40, 128))]
        """
        start = 0
        for batch in self._read(ROW_GROUP, ["vector"]):
            yield start, _floats(batch)
            start += len(batch)

    def matrix(self) -> Floats:
        """All vectors (count, dimension), in memory.

        >>> embeddings.matrix().shape
        (40, 128)
        """
        vectors = np.empty((self.count, self.dimension), dtype=np.float32)
        for start, batch in self.vectors():
            vectors[start : start + len(batch)] = batch
        return vectors

    def sample(self, wanted: int) -> Floats:
        """About so many of the vectors, (n, dimension), at equal distances in the file.

        >>> embeddings.sample(10).shape
        (10, 128)
        """
        step = max(1, self.count // wanted)
        return np.concatenate([batch[-start % step :: step] for start, batch in self.vectors()])

    def verify(self) -> None:
        """Raises UserError where a shard is not as it was written.

        >>> embeddings.verify()
        """
        for shard in self.shards:
            if sha256(self.folder / shard.file) != shard.sha256:
                raise UserError(_broken(self.folder / shard.file))

    def _read(self, size: int, columns: list[str]) -> Iterator[pyarrow.RecordBatch]:
        columns = [*columns, *(["scale"] if self.plan.dtype == "int8" else [])]
        for shard in self.shards:
            try:
                with parquet.ParquetFile(self.folder / shard.file) as file:
                    width = getattr(file.schema_arrow.field("vector").type, "list_size", 0)
                    if (file.metadata.num_rows, width) != (shard.rows, self.dimension):
                        raise UserError(_broken(self.folder / shard.file))
                    yield from file.iter_batches(size, columns=columns, use_threads=False)
            except (pyarrow.ArrowException, OSError, KeyError) as error:
                raise UserError(_broken(self.folder / shard.file)) from error


def open_shards(folder: str | Path) -> Embeddings:
    """The embeddings that `embed` finished in a folder; their shards are not read yet.

    Raises:
        UserError: there are none, or they are not finished.

    >>> open_shards(folder / "embeddings").count
    40
    """
    folder = Path(folder)
    missing = f"{folder}: no embeddings here (no {MANIFEST}); create them with qpairs embed"
    if (folder / PLAN).exists():
        missing = f"{folder}: the embeddings are not finished; run the same qpairs embed again"

    def parse(data: dict[str, Any]) -> Embeddings:
        if not data["shards"] or sum(shard["rows"] for shard in data["shards"]) != data["count"]:
            raise ValueError(f"the shards do not have {data['count']} rows in total")
        return Embeddings(
            folder=folder,
            model=Path(data["model"]),
            plan=Plan(**data["plan"]),
            count=data["count"],
            distinct=data["distinct"],
            skipped=data["skipped"],
            shards=[WrittenFile(**shard) for shard in data["shards"]],
        )

    return read_manifest(folder / MANIFEST, parse, newest=FORMAT, missing=missing, shape=manifest_shape)


def _floats(batch: pyarrow.RecordBatch) -> Floats:
    column = batch.column("vector")
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), column.type.list_size)
    return vectors if vectors.dtype == np.float32 else unit(vectors.astype(np.float32))  # the scale cancels out


def _broken(file: Path) -> str:
    return f"{file}: missing or damaged; run the same qpairs embed again to rewrite it"
