"""An index of embeddings: the nearest of millions in milliseconds, by FAISS in a folder, or by Milvus for a cluster.

A folder holds a manifest and the files of the back end. A change writes new files first and the manifest last: a reader
finds the old index or the new one, even where a writer was killed. A back end is a class with the methods of
`BackEnd` and a row of `BACK_ENDS`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import exclusive_lock, visible, write_text, writing
from qpairs.core.manifests import read_manifest
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.core.shapes import each, flag, named, number, one_of, optional, record, text, whole
from qpairs.metrics.score_counts import EDGES, ScoreCounts
from qpairs.models.base import FILE as MODEL
from qpairs.models.base import Side, fingerprint
from qpairs.retrieval.index.base import BackEnd, VectorIndex
from qpairs.retrieval.index.base import Hit as Hit
from qpairs.retrieval.index.base import Index as Index
from qpairs.retrieval.index.base import Manifest as Manifest
from qpairs.retrieval.index.faiss import FaissIndex
from qpairs.retrieval.index.kinds import KINDS, kind_for
from qpairs.retrieval.index.milvus import MilvusIndex
from qpairs.retrieval.index.scores import count_pairs

if TYPE_CHECKING:
    from qpairs.retrieval.embeddings import Embeddings

BACK_ENDS: dict[str, type[BackEnd]] = {
    "": FaissIndex,
    "milvus": MilvusIndex,
}  # what an address begins with -> class
FILE = "index.json"
FORMAT = 3  # 1 had no scores, 2 did not say whether ids came from a column
READS = 5  # of an index that others save meanwhile
LEFT_BEHIND = ".new-*"  # by a process that was killed
BINS = len(EDGES) - 1
NEAREST = 10  # of which recall says how many are found
SAMPLE = 256  # questions that recall is measured on
TOLERANCE = 1e-4  # of a cosine in half precision


def build_index(
    embeddings: Embeddings,
    output: str | Path,
    *,
    kind: str = "auto",
    address: str = "",
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
) -> Manifest:
    """Builds an index in a folder, or in Milvus with its manifest in the folder.

    Its recall is measured, and the scores of all pairs of its questions are counted.

    Args:
        embeddings: the questions and their vectors.
        output: the folder.
        kind: one of `kinds.KINDS`; `auto` chooses by size.
        address: milvus:URI[#COLLECTION], where the URI is a file (Milvus Lite) or the address of a cluster, whose token
            is read from the environment variable MILVUS_TOKEN, and later sent where MILVUS_URI says so; '' for FAISS in
            the folder.
        overwrite: whether an index that is there already may be replaced.
        on_progress: the stages indexing and measuring (done, total: questions), and writing.

    Raises:
        UserError: the folder is not empty, an id occurs twice, or Milvus refuses.

    >>> import tempfile
    >>> manifest = build_index(embeddings, Path(tempfile.mkdtemp(), "idx"))
    >>> manifest.count, manifest.recall
    (40, 1.0)
    """
    output, meter = Path(output), Meter(on_progress)
    if kind != "auto" and kind not in KINDS:
        raise UserError(f"kind of index {kind!r}: {nearest(kind, ['auto', *KINDS])}")
    back_end = _back_end(address)
    with exclusive_lock(output), writing(output):
        old = _old_manifest(output, overwrite=overwrite)
        _check_output(output, old, overwrite=overwrite)
        manifest = Manifest(
            kind=kind_for(embeddings.count) if kind == "auto" else kind,
            count=0,
            dimension=embeddings.dimension,
            fingerprint=embeddings.fingerprint,
            model=str(embeddings.model),
            side=embeddings.plan.side,
            recall=0.0,
            built=embeddings.count,
            address=address,
            state=old.state if old else {},
            named_ids=bool(embeddings.plan.id_column),
        )
        index = back_end.create(output, manifest, embeddings, overwrite=overwrite)
        _fill(index, embeddings, meter)
        meter.begin("measuring")
        recall = index.tune(recall_measure(index, embeddings))
        scores = count_pairs(embeddings, meter).to_dict()
        meter.begin("writing")
        return _save(output, dataclasses.replace(manifest, recall=recall, scores=scores), index)


def _back_end(address: str) -> type[BackEnd]:
    scheme, colon, _ = address.partition(":")
    if scheme not in BACK_ENDS or bool(scheme) != bool(colon):
        raise UserError(f"index {address!r}: give milvus:FILE or milvus:ADDRESS, or nothing for FAISS in the folder")
    return BACK_ENDS[scheme]


def _old_manifest(output: Path, *, overwrite: bool) -> Manifest | None:
    """That of the index which is in a folder; None for one that is damaged and may be replaced."""
    try:
        return _read_manifest(output) if (output / FILE).exists() else None
    except UserError:
        if overwrite:
            return None
        raise


def _check_output(output: Path, old: Manifest | None, *, overwrite: bool) -> None:
    if old and not overwrite:
        raise UserError(f"{output}: an index exists already; name another folder, or pass --overwrite")
    if not old and any(entry for entry in visible(output) if entry.name != FILE and entry not in _parts(output)):
        raise UserError(f"{output}: is not empty, and does not hold an index; name another folder with --output")


def _parts(folder: Path) -> set[Path]:
    """The files of back ends in a folder, and what a killed process left."""
    patterns = [LEFT_BEHIND, *(pattern for back_end in BACK_ENDS.values() for pattern in back_end.patterns)]
    return {file for pattern in patterns for file in folder.glob(pattern)}


def _fill(index: VectorIndex, embeddings: Embeddings, meter: Meter) -> None:
    meter.begin("indexing", embeddings.count)
    for ids, texts, vectors in embeddings.batches():
        index.add(ids, texts, vectors)
        meter.advance(len(ids))


def recall_measure(index: VectorIndex, embeddings: Embeddings) -> Callable[[], float]:
    """A function that searches an index of these embeddings, and returns the share of the nearest 10 that it finds.

    A sample of the questions is searched for; that a question finds itself does not count. Whatever is as similar as
    the tenth is right, whichever of several equal questions it is.
    """
    queries = embeddings.sample(SAMPLE)  # (q, d)
    k = min(NEAREST, embeddings.count - 1) + 1
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)  # (q, k) the greatest cosines, the smallest one first
    for _, _, vectors in embeddings.batches():
        similarity = np.concatenate([best, queries @ vectors.T], axis=1)
        best = np.partition(similarity, -k, axis=1)[:, -k:]

    def measure() -> float:
        hits = index.search(queries, k)
        right = [
            sum(hit.similarity >= least - TOLERANCE for hit in row) for row, least in zip(hits, best[:, 0], strict=True)
        ]
        return float(np.clip(np.subtract(right, 1) / max(1, k - 1), 0, 1).mean()) if k > 1 else 1.0

    return measure


def add_to_index(folder: str | Path, embeddings: Embeddings, on_progress: OnProgress = ignore) -> Manifest:
    """Adds questions to an index; how thoroughly it is searched stays as it is.

    Args:
        folder: of the index.
        embeddings: the questions and their vectors.
        on_progress: the stages indexing (done, total: questions) and writing.

    Raises:
        UserError: no index, another process is using it, vectors of another model, or ids that occur already (in
            Milvus, what was sent before these stays).
    """
    folder, meter = Path(folder), Meter(on_progress)
    with _locked(folder) as manifest:
        _require_same(manifest, embeddings, str(folder))
        index = _open(folder, manifest, growing=True)
        _fill(index, embeddings, meter)
        meter.begin("writing")
        named_ids = manifest.named_ids or bool(embeddings.plan.id_column)
        return _save(folder, dataclasses.replace(manifest, named_ids=named_ids), index)


def delete_from_index(folder: str | Path, ids: Sequence[str]) -> tuple[Manifest, int]:
    """Deletes questions from an index, without rebuilding it; returns how many of the ids it had.

    Raises:
        UserError: no index, or another process is using it.
    """
    folder = Path(folder)
    with _locked(folder) as manifest:
        index = _open(folder, manifest)
        found = index.delete(ids)
        return _save(folder, manifest, index), found


@contextmanager
def hold_index(folder: str | Path) -> Iterator[Index]:
    """The index in a folder for searching, adding and deleting, locked against changes by other processes.

    Changes are in memory alone until `save_index`.

    Raises:
        UserError: no index in it, another process is using it, or Milvus cannot be reached.
    """
    folder = Path(folder)
    with _locked(folder) as manifest:
        back_end = _open(folder, manifest, growing=True)
        yield Index(folder, manifest, back_end, back_end)


def save_index(index: Index) -> Index:
    """Writes an index that is held; returns the one that is in the folder now.

    Raises:
        UserError: the disk is full.
    """
    return dataclasses.replace(index, manifest=_save(index.folder, index.manifest, index.back_end))


def open_index(folder: str | Path) -> Index:
    """The index in a folder, for searching.

    Raises:
        UserError: no index in it, or Milvus cannot be reached.

    >>> open_index(folder / "index").manifest.count
    40
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    for _ in range(READS):
        try:
            back_end = _open(folder, manifest)
            break
        except UserError:
            before, manifest = manifest, _read_manifest(folder)
            if manifest == before:
                raise  # else another process has saved the index meanwhile, and its files of before are gone
    else:
        back_end = _open(folder, manifest)
    return Index(folder, manifest, back_end, back_end)


def model_of(index: Index, option: str) -> Path:
    """The folder of the model that an index names: next to the index, or else at its path when the index was built.

    An index may come from elsewhere, and its manifest name any folder. So a folder is only taken if the model in it is
    the one that made the vectors, by its weights; and who loads it says which it is.

    Args:
        index: that names it.
        option: with which a user names another one.

    Raises:
        UserError: it is in neither place, or another model is there.

    >>> model_of(index, "--model").name
    'one'
    """
    named = Path(index.manifest.model)
    places = [index.folder.absolute().parent / named.name, named]
    there = [place for place in places if named.name and (place / MODEL).is_file()]
    for place in there:
        if fingerprint(place) == index.manifest.fingerprint:
            return place
    if there:
        require_model(index.manifest, fingerprint(there[-1]), str(there[-1]))
    raise UserError(f"{index.folder}: its model, {named}, is missing; name it with {option}")


def require_model(manifest: Manifest, fingerprint: str, where: str) -> None:
    """Raises UserError where an index was made by another model than the one with this fingerprint."""
    if fingerprint != manifest.fingerprint:
        raise UserError(
            f"{where}: made by the model {manifest.fingerprint} ({manifest.model}), whose vectors cannot be compared "
            f"with those of {fingerprint}; use that model, or embed and index again"
        )


def _require_same(manifest: Manifest, embeddings: Embeddings, where: str) -> None:
    require_model(manifest, embeddings.fingerprint, where)
    wanted, given = (manifest.dimension, manifest.side), (embeddings.dimension, embeddings.plan.side)
    if wanted != given:
        raise UserError(
            f"{embeddings.folder}: embedded with --dim {given[0]} --side {given[1]}, "
            f"and the index with --dim {wanted[0]} --side {wanted[1]}"
        )


def _open(folder: Path, manifest: Manifest, *, growing: bool = False) -> BackEnd:
    return _back_end(manifest.address).open(folder, manifest, growing=growing)


@contextmanager
def _locked(folder: Path) -> Iterator[Manifest]:
    """The manifest of an index, while no other process may change it."""
    _read_manifest(folder)  # before a lock is written into a folder that holds no index
    with exclusive_lock(folder), writing(folder):
        yield _read_manifest(folder)


_COUNTS = each(number(0, 1e18))
_KNOWN = record(
    {
        "kind": one_of(*KINDS),
        "count": whole(),
        "dimension": whole(1, 1 << 20),
        "fingerprint": text,
        "model": text,
        "side": one_of(*get_args(Side)),
        "recall": number(0, 1),
        "built": whole(),
        "address": text,
    },
    {
        "scores": optional(record({"n": whole(), "first": whole(0, BINS), "counts": _COUNTS}, {"hits": _COUNTS})),
        "named_ids": optional(flag),
    },
    others=True,
)


def _manifest_shape(value: Any, where: str) -> None:
    """The shape of `index.json`: what is not known is the state of the back end, in whole numbers."""
    _KNOWN(value, where)
    names = {field.name for field in dataclasses.fields(Manifest)}
    named(whole())({name: item for name, item in value.items() if name not in names}, where)


def _read_manifest(folder: Path) -> Manifest:
    younger = ("scores", "named_ids")  # than the first indexes
    names = [field.name for field in dataclasses.fields(Manifest) if field.name not in ("state", *younger)]

    def parse(data: dict[str, Any]) -> Manifest:
        state = {name: int(value) for name, value in data.items() if name not in (*names, *younger, "format")}
        more: dict[str, Any] = {name: data.get(name) for name in younger}
        if more["scores"] is not None:
            ScoreCounts.from_dict(more["scores"])  # or it is damaged
        return Manifest(**{name: data[name] for name in names}, state=state, **more)

    missing = f"{folder}: no index in it (no {FILE}); create one with qpairs index EMBEDDINGS --output"
    return read_manifest(folder / FILE, parse, newest=FORMAT, missing=missing, shape=_manifest_shape)


def _save(folder: Path, manifest: Manifest, index: BackEnd) -> Manifest:
    """Writes the files of the back end, then the manifest; then removes the files that the manifest does not need."""
    manifest = index.save(manifest)
    content = {"format": FORMAT, **dataclasses.asdict(manifest)}
    content |= {**content.pop("state"), "scores": content.pop("scores")}  # the scores last, for who reads the file
    write_text(folder / FILE, json.dumps(content, indent=1) + "\n")
    for file in _parts(folder):
        if file.name not in index.files():
            with suppress(OSError):  # the index is whole; the next change removes it
                file.unlink(missing_ok=True)
    return manifest
