"""Milvus: the index in a file of Milvus Lite, or in a cluster."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from qpairs.core.exceptions import UserError
from qpairs.core.extras import require
from qpairs.retrieval.index.base import Floats, Hit, Manifest
from qpairs.retrieval.index.kinds import CANDIDATES, EFFORTS, GOAL, lists_for

if TYPE_CHECKING:
    from qpairs.retrieval.embeddings import Embeddings

SCHEME = "milvus:"
COLLECTION = "qpairs"  # where the address names none
TYPES = {"exact": "FLAT", "ivf": "IVF_FLAT", "hnsw": "HNSW"}  # kind -> what Milvus calls it
BLOCK = 1000  # rows of a request
LONGEST_TEXT, LONGEST_ID, MOST_LISTS = 65_535, 512, 65_536  # the first two in bytes
MOST_HITS = 16_384  # that Milvus finds for one vector


class MilvusIndex:
    """A `BackEnd` that is a collection of Milvus, at milvus:URI#COLLECTION.

    The URI is a file (Milvus Lite) or the address of a cluster. Its token is read from the environment variable
    MILVUS_TOKEN, and is sent only to an address that the user gave: when the index is made, or by MILVUS_URI. What is
    added or deleted is permanent at once; the folder has the manifest alone.
    """

    patterns: ClassVar[Sequence[str]] = ()

    def __init__(self, manifest: Manifest, *, given: bool = False) -> None:
        """Connects.

        Args:
            manifest: names the address.
            given: whether the user gave the address; the manifest of a folder may be somebody else's.

        Raises:
            UserError: no connection, or a token for another address.
        """
        self._kind, self._effort = manifest.kind, manifest.state.get("effort", 0)
        self._address = manifest.address if "#" in manifest.address else f"{manifest.address}#{COLLECTION}"
        uri, _, self._collection = self._address.removeprefix(SCHEME).rpartition("#")
        milvus = require("pymilvus", "an index in Milvus")
        with _one_line(self._address):
            self._client = milvus.MilvusClient(uri, token=_token(uri, given))

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, embeddings: Embeddings, *, overwrite: bool) -> Self:
        """An empty collection."""
        from pymilvus import DataType

        index = cls(manifest, given=True)
        client, name = index._client, index._collection
        with _one_line(index._address):
            if client.has_collection(name):
                if not overwrite:
                    raise UserError(
                        f"{index._address}: the collection exists already; name another after #, or pass --overwrite"
                    )
                client.drop_collection(name)
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=LONGEST_ID)
            schema.add_field("text", DataType.VARCHAR, max_length=LONGEST_TEXT)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=embeddings.dimension)
            lists = min(MOST_LISTS, lists_for(embeddings.count))
            build = {"exact": {}, "ivf": {"nlist": lists}, "hnsw": {"M": 32, "efConstruction": CANDIDATES}}
            params = client.prepare_index_params()
            params.add_index("vector", index_type=TYPES[index._kind], metric_type="IP", params=build[index._kind])
            client.create_collection(name, schema=schema, index_params=params, consistency_level="Strong")
        return index

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, *, growing: bool) -> Self:
        """The collection of an index, loaded for searching."""
        index = cls(manifest)
        with _one_line(index._address):
            index._client.load_collection(index._collection)  # Milvus Lite loads none by itself in a new process
        return index

    def files(self) -> Sequence[str]:
        """None: all is in Milvus."""
        return ()

    def save(self, manifest: Manifest) -> Manifest:
        """Writes nothing."""
        state = {"generation": 1, "deletion": 1, **manifest.state, "effort": self._effort}  # qpairs 0.1.0 reads all
        return dataclasses.replace(manifest, count=len(self), address=self._address, state=state)

    def __len__(self) -> int:
        """Number of questions."""
        with _one_line(self._address):
            counted = self._client.query(self._collection, filter="", output_fields=["count(*)"])
        return int(counted[0]["count(*)"])

    def add(self, ids: Sequence[str], texts: Sequence[str], vectors: Floats) -> None:
        """Adds n questions with their vectors (n, dimension).

        Raises:
            UserError: an id occurs already, or a text is too long for Milvus.
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
            with _one_line(self._address):
                self._client.insert(self._collection, rows)
        with _one_line(self._address):
            self._client.flush(self._collection)

    def known(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that it has."""
        with _one_line(self._address):
            found = self._client.query(self._collection, ids=list(ids), output_fields=["id"])
        return [str(row["id"]) for row in found]

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes questions; returns their number."""
        found = 0
        for start in range(0, len(ids), BLOCK):
            known = self.known(ids[start : start + BLOCK])
            found += len(known)
            if known:
                with _one_line(self._address):
                    self._client.delete(self._collection, ids=known)
        return found

    def texts(self) -> Iterator[str]:
        """The questions, in any order."""
        with _one_line(self._address):
            rows = self._client.query_iterator(self._collection, batch_size=BLOCK, output_fields=["text"])
            while batch := rows.next():
                yield from (row["text"] for row in batch)
            rows.close()

    def tune(self, measure: Callable[[], float]) -> float:
        """Takes the least effort that reaches the goal; returns the recall that it reaches."""
        for effort in EFFORTS[self._kind]:
            self._effort = effort
            if (recall := measure()) >= GOAL:
                break
        return recall

    def search(self, vectors: Floats, k: int, *, threads: int | None = None) -> list[list[Hit]]:
        """The nearest k questions, nearest first, for each of the vectors (q, dimension); `threads` has no effect.

        Raises:
            UserError: that are more than Milvus finds.
        """
        if k > MOST_HITS and len(self) > MOST_HITS:
            raise UserError(
                f"{self._address}: k is {k:,}, must be 1 <= k <= {MOST_HITS:,}: that is the limit of Milvus; a FAISS "
                "index has none"
            )
        k = min(k, MOST_HITS)
        params = {"exact": {}, "ivf": {"nprobe": self._effort}, "hnsw": {"ef": max(self._effort, k)}}[self._kind]
        with _one_line(self._address):
            found = self._client.search(
                self._collection, list(vectors), limit=k, output_fields=["text"], search_params={"params": params}
            )
        return [
            [Hit(str(hit["id"]), hit["entity"]["text"], min(1.0, float(hit["distance"]))) for hit in hits]
            for hits in found
        ]


def _token(uri: str, given: bool) -> str:
    """The token for an address; '' for a file, or where there is none."""
    token = os.environ.get("MILVUS_TOKEN", "") if "://" in uri else ""
    if token and not given and os.environ.get("MILVUS_URI", "").rstrip("/") != uri.rstrip("/"):
        raise UserError(f"{uri}: the index names this address; to send MILVUS_TOKEN there, also set MILVUS_URI to it")
    return token


@contextmanager
def _one_line(address: str) -> Iterator[None]:
    """Turns an error of Milvus into one line."""
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise UserError(f"{address}: Milvus says: {' '.join(error.message.split())[:300]}") from error
