"""The files that `embed` makes: it encodes the texts of a job and writes them with their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from qpairs.core.files import atomic_file, sha256
from qpairs.models.base import Model, load
from qpairs.models.shortened import shorten
from qpairs.retrieval.embeddings import ROW_GROUP, DType, Floats, Plan
from qpairs.retrieval.executors import Job, WrittenFile
from qpairs.retrieval.survey import Digests, digests, read_repeats

BLOCK = 8192  # texts between two reports of progress


@dataclass(frozen=True)
class Writer:
    """Makes the file of a job; it is pickled for another process as the path of its model.

    Attributes:
        model: encodes the texts.
        output: the folder that the files are in.
        plan: how the vectors are stored.
        encoded: called in this process with the number of texts that were encoded.
    """

    model: Model
    output: Path
    plan: Plan
    encoded: Callable[[int], None] = lambda _: None

    def __reduce__(self) -> tuple[Any, ...]:
        return _writer, (self.model.path.absolute(), self.output.absolute(), self.plan)

    def __call__(self, job: Job) -> WrittenFile:
        """Encodes the texts that have no place in the files of repeated texts, each once, and writes the file."""
        places = np.full(len(job.texts), -1) if job.places is None else np.asarray(job.places)
        new = np.flatnonzero(places < 0)
        index: dict[str, int] = {}
        rows = [index.setdefault(job.texts[row], len(index)) for row in new.tolist()]
        encoded = self._encode(list(index))
        vectors = np.empty((len(job.texts), self.plan.dimension), dtype=np.float32)
        vectors[new] = encoded[rows]
        size = self.plan.shard_size
        for number in np.unique(places[places >= 0] // size):
            here = np.flatnonzero(places // size == number)
            vectors[here] = read_repeats(self.output, number)[1][places[here] % size]
        with atomic_file(self.output / job.file) as fresh:
            if job.ids is None:
                _write_repeats(fresh, digests(job.texts), vectors)
            else:
                _write_shard(fresh, job.ids, job.texts, vectors, self.plan.dtype)
            return WrittenFile(job.file, len(job.texts), len(index), sha256(fresh))

    def _encode(self, texts: Sequence[str]) -> Floats:
        vectors = np.empty((len(texts), self.plan.dimension), dtype=np.float32)
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            vectors[start : start + BLOCK] = shorten(self.model.encode(block, self.plan.side), self.plan.dimension)
            self.encoded(len(block))
        return vectors


def _writer(model: Path, output: Path, plan: Plan) -> Writer:
    return Writer(load(model), output, plan)


def _write_repeats(file: Path, keys: Digests, vectors: Floats) -> None:
    raw = [None, pyarrow.py_buffer(keys.tobytes())]
    columns = {
        "digest": pyarrow.FixedSizeBinaryArray.from_buffers(pyarrow.binary(16), len(keys), raw),
        "vector": pyarrow.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
    }
    table = pyarrow.table(columns)
    with pyarrow.ipc.new_file(str(file), table.schema) as sink:
        sink.write_table(table)


def _write_shard(file: Path, ids: Sequence[str], texts: Sequence[str], vectors: Floats, dtype: DType) -> None:
    """Writes (n,) ids and texts and (n, d) vectors; the numbers of vectors are not compressed."""
    scale = np.abs(vectors).max(axis=1, keepdims=True) / np.float32(127)  # (n, 1)
    scale[scale == 0] = 1
    numbers = np.rint(vectors / scale).astype(np.int8) if dtype == "int8" else vectors.astype(dtype, copy=False)
    columns = {
        "id": pyarrow.array(ids, pyarrow.string()),
        "text": pyarrow.array(texts, pyarrow.string()),
        "vector": pyarrow.FixedSizeListArray.from_arrays(numbers.ravel(), numbers.shape[1]),
        **({"scale": scale.ravel()} if dtype == "int8" else {}),
    }
    parquet.write_table(
        pyarrow.table(columns),
        file,
        row_group_size=ROW_GROUP,
        use_dictionary=False,
        write_statistics=False,
        compression={"id": "zstd", "text": "zstd", "vector.list.element": "none"},
    )
