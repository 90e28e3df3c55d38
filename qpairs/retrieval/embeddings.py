"""Embeddings of a file of questions, as Parquet shards: `embed` makes them, `open_shards` reads them.

A shard is there whole or not at all, and is known by its checksum, so that an interrupted run goes on where it was.
Texts that several shards hold are encoded first, into files of repeats; from then on each shard stands for itself,
whoever makes it and in whatever order.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import parquet

from qpairs import __version__
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import atomic_file, exclusive_lock, os_reason, sha256
from qpairs.data.questions import Questions, open_questions
from qpairs.models.base import Model, Side, as_model, load
from qpairs.retrieval.executors import Engine, Job, Part, in_order

log = logging.getLogger(__name__)

DType = Literal["float32", "float16", "int8"]
Floats = NDArray[np.float32]
Digests = NDArray[np.bytes_]

FORMAT = 1
MANIFEST = "manifest.json"
SHARDS = "shards"
UNFINISHED = ".unfinished"  # what an interrupted run leaves: its plan, the list of its whole files, repeats
PLAN, MADE, REPEATS = f"{UNFINISHED}/plan.json", f"{UNFINISHED}/made.jsonl", f"{UNFINISHED}/repeats"
SHARD_SIZE = 50_000  # questions; 77 MB of 384 float32
ENCODED = 8192  # texts between two reports of progress
ROW_GROUP = 8192  # rows that a reader must hold at least
FOLDED = 1 << 20  # digests that are gathered, at least, before they are sorted into the others


# Reading


@dataclass(frozen=True)
class Plan:
    """All that the shards depend on; an unfinished folder goes on with the same alone.

    Attributes:
        fingerprint: of the model.
        dimension: numbers in a vector; fewer than the model's where they were truncated.
        dtype: of the numbers.
        side: the tower that encoded them.
        shard_size: questions in a shard.
        source: checksum of the file of questions.
        text_column, id_column: what was read of it.
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
        folder: where they lie.
        model: the folder of the model that made them, when it did.
        plan: how they were made.
        count: questions.
        distinct: distinct texts among them.
        skipped: reason -> rows of the source that were left out.
        shards: the files, in order.
    """

    folder: Path
    model: Path
    plan: Plan
    count: int
    distinct: int
    skipped: Mapping[str, int]
    shards: Sequence[Part]

    @property
    def fingerprint(self) -> str:
        """Identity of the model that made the vectors, as in `Model.fingerprint`."""
        return self.plan.fingerprint

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.plan.dimension

    def batches(self, size: int = ROW_GROUP) -> Iterator[tuple[list[str], list[str], Floats]]:
        """Identities, texts and vectors (k, dimension) of at most `size` questions at a time; memory is flat.

        Raises:
            UserError: a shard is missing or cannot be read.
        """
        for batch in self._read(size, ["id", "text", "vector"]):
            yield batch.column("id").to_pylist(), batch.column("text").to_pylist(), _floats(batch)

    def matrix(self) -> Floats:
        """All vectors (count, dimension), in memory."""
        vectors = np.empty((self.count, self.dimension), dtype=np.float32)
        start = 0
        for batch in self._read(ROW_GROUP, ["vector"]):
            vectors[start : start + len(batch)] = _floats(batch)
            start += len(batch)
        return vectors

    def verify(self) -> None:
        """Raises UserError where a shard is not as it was written."""
        for shard in self.shards:
            if sha256(self.folder / shard.file) != shard.sha256:
                raise UserError(_broken(self.folder / shard.file))

    def _read(self, size: int, columns: list[str]) -> Iterator[pyarrow.RecordBatch]:
        columns = [*columns, *(["scale"] if self.plan.dtype == "int8" else [])]
        for shard in self.shards:
            try:
                with parquet.ParquetFile(self.folder / shard.file) as file:
                    yield from file.iter_batches(size, columns=columns, use_threads=False)
            except (pyarrow.ArrowException, OSError) as error:
                raise UserError(_broken(self.folder / shard.file)) from error


def open_shards(folder: str | Path) -> Embeddings:
    """The embeddings that `embed` finished in a folder; their shards are not read yet.

    Raises:
        UserError: there are none, or they are not finished.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        if (folder / PLAN).exists():
            raise UserError(f"{folder}: the embeddings are not finished; run the same qpairs embed again")
        raise UserError(f"{folder}: no embeddings here (no {MANIFEST}); qpairs embed makes them")
    try:
        data = json.loads((folder / MANIFEST).read_text("utf-8"))
        if data["format"] > FORMAT:
            raise UserError(f"{folder}: made by a newer qpairs ({data['qpairs']}); upgrade qpairs")
        return Embeddings(
            folder,
            Path(data["model"]),
            Plan(**data["plan"]),
            data["count"],
            data["distinct"],
            data["skipped"],
            [Part(**shard) for shard in data["shards"]],
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/{MANIFEST}: damaged ({type(error).__name__}: {error})") from None


def shorten(vectors: Floats, dimension: int) -> Floats:
    """The first `dimension` numbers of each vector (n, d), made unit vectors again."""
    return vectors if vectors.shape[1] == dimension else _unit(vectors[:, :dimension])


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _floats(batch: pyarrow.RecordBatch) -> Floats:
    column = batch.column("vector")
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), column.type.list_size)
    return vectors if vectors.dtype == np.float32 else _unit(vectors.astype(np.float32))  # the scale cancels out


def _broken(file: Path) -> str:
    return f"{file}: missing or damaged; run the same qpairs embed again, which makes it anew"


# Making


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: the files of an earlier run are checked, the questions read through, or their texts encoded.
        done, total: files, questions or texts; a total of 0 is not known.
        rate: of them a second, in this stage of this run.
    """

    stage: Literal["checking", "reading", "encoding"]
    done: int
    total: int
    rate: float


def embed(
    model: Model | str | Path,
    source: str | Path,
    output: str | Path,
    *,
    text_column: str = "",
    id_column: str = "",
    dtype: DType = "float32",
    dimension: int | None = None,
    side: Side = "left",
    shard_size: int = SHARD_SIZE,
    skip_bad_rows: bool = False,
    overwrite: bool = False,
    engine: Engine = in_order,
    on_progress: Callable[[Progress], None] | None = None,
) -> Embeddings:
    """Embeds a file of questions into Parquet shards; each distinct text is encoded once.

    Memory does not grow with the file but for 16 bytes a distinct text (and about three times that while they are
    sorted). A run that was interrupted goes on when it is called again; of one that was finished, shards that are
    missing or altered are made anew.

    Args:
        model: or its folder.
        source: .csv, .tsv, .jsonl, .parquet or .txt.
        output: the folder; it gets `manifest.json` and `shards/`, with columns id, text, vector and, for int8, scale.
        text_column: as in `open_questions`.
        id_column: likewise.
        dtype: of the numbers; those of int8 are to be multiplied by the scale of their row.
        dimension: keep only so many numbers of each vector, and make it a unit vector again.
        side: which of two towers encodes.
        shard_size: questions in a shard.
        skip_bad_rows: leave out rows that cannot be used, and count them.
        overwrite: start anew where the folder holds other embeddings.
        engine: who makes the shards.
        on_progress: called now and then.

    Raises:
        UserError: an option, the file of questions or the folder cannot be used; the disk is full.
    """
    model = as_model(model)
    questions = open_questions(source, text_column=text_column, id_column=id_column)
    output, meter = Path(output), _Meter(on_progress)
    plan = Plan(
        model.fingerprint,
        model.dimension if dimension is None else dimension,
        dtype,
        side,
        shard_size,
        questions.sha256(),
        questions.text_column,
        questions.id_column,
        skip_bad_rows,
    )
    _check(plan, model, output)
    with exclusive_lock(output):
        made = _begin(output, plan, meter, overwrite=overwrite)
        if not (output / MANIFEST).exists():
            survey = _survey(questions, plan, meter)
            writer = Writer(model, output, plan, meter.tick)
            meter.begin("encoding", survey.distinct, sum(part.encoded for part in made.values()))
            anywhere = dataclasses.replace(questions, path=questions.path.absolute())
            for jobs in (_repeat_jobs, _shard_jobs) if len(survey.repeated) else (_shard_jobs,):
                listed = functools.partial(jobs, anywhere, output.absolute(), plan, survey.repeated, frozenset(made))
                for part in engine(listed, writer):
                    _record(output, part)
                    made[part.file] = part
                    meter.settle(part.encoded)
            _finish(output, model, plan, survey, made)
    return open_shards(output)


def _check(plan: Plan, model: Model, output: Path) -> None:
    if not 1 <= plan.dimension <= model.dimension:
        raise UserError(f"dim: {plan.dimension} is out of range; the vectors of {model.path} have {model.dimension}")
    for name, value, options in (("dtype", plan.dtype, get_args(DType)), ("side", plan.side, get_args(Side))):
        if value not in options:
            raise UserError(f"{name}: unknown {value!r}; {nearest(value, options)}")
    if plan.shard_size < 1:
        raise UserError(f"shard_size: {plan.shard_size} is out of range; 1 or more")
    if output.exists() and not (output.is_dir() and (_known(output)[0] or not any(output.glob("[!.]*")))):
        raise UserError(f"{output}: is in use, and holds no embeddings; name another folder with --output")


def _known(output: Path) -> tuple[dict[str, Any], list[Part]]:
    """The plan of the run that a folder is of, finished or not, and the files that it made; without any, no plan."""
    if (output / MANIFEST).exists():
        kept = open_shards(output)
        return asdict(kept.plan), list(kept.shards)
    if not (output / PLAN).exists():
        return {}, []
    parts = []
    for line in (output / MADE).read_text("utf-8").splitlines():
        if line.endswith("}"):  # a line that a kill cut off has no end
            parts.append(Part(**json.loads(line)))
    return (json.loads((output / PLAN).read_text("utf-8")), parts) if parts else ({}, [])


def _begin(output: Path, plan: Plan, meter: _Meter, *, overwrite: bool) -> dict[str, Part]:
    """Makes a folder ready for a run, and tells which of its files are whole already."""
    kept, parts = _known(output)
    differ = [name for name, value in asdict(plan).items() if kept and kept.get(name) != value]
    if differ and not overwrite:
        raise UserError(
            f"{output}: holds embeddings with another {', '.join(differ)}; name another folder with --output, or start "
            "anew with --overwrite"
        )
    if differ:
        (output / MANIFEST).unlink(missing_ok=True)
        for folder in (UNFINISHED, SHARDS):
            shutil.rmtree(output / folder, ignore_errors=True)
        parts = []
    meter.begin("checking", len(parts))
    whole = {}
    for part in parts:
        if sha256(output / part.file) == part.sha256:
            whole[part.file] = part
        meter.tick(1)
    if (output / MANIFEST).exists() and len(whole) == len(parts):
        shutil.rmtree(output / UNFINISHED, ignore_errors=True)
        return whole
    for left in output.glob("*/**/.new-*"):
        left.unlink()
    for file, text in (
        (MADE, "".join(json.dumps(asdict(part)) + "\n" for part in whole.values())),
        (PLAN, json.dumps(asdict(plan), indent=1) + "\n"),
    ):
        with atomic_file(output / file) as fresh:
            fresh.write_text(text, encoding="utf-8")
    (output / MANIFEST).unlink(missing_ok=True)
    return whole


def _record(output: Path, part: Part) -> None:
    try:
        with (output / MADE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(part)) + "\n")
    except OSError as error:
        raise UserError(f"{output / MADE}: cannot be written ({os_reason(error)})") from error


def _finish(output: Path, model: Model, plan: Plan, survey: Survey, made: Mapping[str, Part]) -> None:
    shards = [made[file] for file in sorted(made) if file.startswith(SHARDS)]
    if sum(shard.rows for shard in shards) != survey.count:
        raise UserError(f"{output}: the file of questions changed while it was read; start anew with --overwrite")
    manifest = {
        "format": FORMAT,
        "qpairs": __version__,
        "model": str(model.path.absolute()),
        "plan": asdict(plan),
        "count": survey.count,
        "distinct": survey.distinct,
        "skipped": survey.skipped,
        "shards": [asdict(shard) for shard in shards],
    }
    with atomic_file(output / MANIFEST) as fresh:
        fresh.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(output / UNFINISHED, ignore_errors=True)


# Which texts come again


@dataclass(frozen=True)
class Survey:
    """What is known of a file of questions once it is read through.

    Attributes:
        count: questions.
        distinct: distinct texts.
        skipped: reason -> rows that were left out.
        repeated: (r,) digests of the texts that several shards hold, sorted.
    """

    count: int
    distinct: int
    skipped: Mapping[str, int]
    repeated: Digests


def _survey(questions: Questions, plan: Plan, meter: _Meter) -> Survey:
    count, skipped = 0, Counter[str]()
    seen = repeated = np.empty(0, dtype="S16")
    unsorted: list[Digests] = []

    def fold() -> None:
        """Sorts the digests of the last shards in among those seen before."""
        nonlocal seen, repeated
        every = np.concatenate([seen, *unsorted])
        unsorted.clear()
        every.sort(kind="stable")  # which makes use of the order there is
        again = every[1:] == every[:-1]
        repeated = np.union1d(repeated, every[1:][again])
        seen = every[np.append(True, ~again)[: len(every)]]

    meter.begin("reading", 0)
    for _, texts in _portions(questions, plan, skipped):
        count += len(texts)
        unsorted.append(np.unique(_digests(texts)))
        if sum(map(len, unsorted)) > max(FOLDED, len(seen) // 2):
            fold()
        meter.tick(len(texts))
    fold()
    if not count:
        raise UserError(f"{questions.path}: there are no questions in it")
    return Survey(count, len(seen), dict(skipped), repeated)


def _portions(
    questions: Questions, plan: Plan, skipped: Counter[str] | None = None
) -> Iterator[tuple[list[str], list[str]]]:
    """Identities and texts of the questions of each shard."""
    rows = questions.rows((Counter() if skipped is None else skipped) if plan.skip_bad_rows else None)
    while portion := list(itertools.islice(rows, plan.shard_size)):
        yield [identity for identity, _ in portion], [text for _, text in portion]


def _digests(texts: Iterable[str]) -> Digests:
    """(n,) 16 bytes for each text: two of a billion texts share them with probability 1e-21."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(digests, dtype="S16")


def _find(digests: Digests, table: Digests) -> NDArray[np.int64]:
    """(n,) where each digest is in a sorted table, which is not empty; -1 where it is not."""
    at = np.searchsorted(table, digests).clip(max=len(table) - 1)
    return np.where(table[at] == digests, at, -1)


# The jobs


def _repeat_jobs(
    questions: Questions, output: Path, plan: Plan, repeated: Digests, done: frozenset[str]
) -> Iterator[Job]:
    """The files of repeats: the texts that several shards hold, in the order in which they come first."""
    met = np.zeros(len(repeated), dtype=np.bool_)

    def first_met() -> Iterator[str]:
        for _, texts in _portions(questions, plan):
            for text, at in zip(texts, _find(_digests(texts), repeated).tolist(), strict=True):
                if at >= 0 and not met[at]:
                    met[at] = True
                    yield text

    texts = first_met()
    for number in range(math.ceil(len(repeated) / plan.shard_size)):
        job = Job(_repeats_file(number), list(itertools.islice(texts, plan.shard_size)))
        if job.file not in done:
            yield job


def _shard_jobs(
    questions: Questions, output: Path, plan: Plan, repeated: Digests, done: frozenset[str]
) -> Iterator[Job]:
    """The shards, in the order of the questions."""
    files = range(math.ceil(len(repeated) / plan.shard_size))
    kept = np.concatenate([np.empty(0, "S16"), *(_repeats(output, number)[0] for number in files)])
    order = np.argsort(kept)
    table, place = kept[order], np.append(order, -1)  # what is not in the table, at -1, has the place -1
    for number, (ids, texts) in enumerate(_portions(questions, plan)):
        file = f"{SHARDS}/{number:06}.parquet"
        if file not in done:
            places = place[_find(_digests(texts), table)].tolist() if len(table) else None
            yield Job(file, texts, ids, places)


def _repeats(output: Path, number: int) -> tuple[Digests, Floats]:
    """The digests (k,) and the vectors (k, dimension) in a file of repeats, mapped into memory."""
    with pyarrow.memory_map(str(output / _repeats_file(number))) as source:
        table = pyarrow.ipc.open_file(source).read_all()
    digests, vectors = (table.column(name).chunk(0) for name in ("digest", "vector"))
    flat = vectors.flatten().to_numpy()
    return np.frombuffer(digests.buffers()[1], dtype="S16"), flat.reshape(len(vectors), -1)


def _repeats_file(number: int) -> str:
    return f"{REPEATS}/{number:06}.arrow"


# The files


@dataclass(frozen=True)
class Writer:
    """Makes the file of a job; it travels to another process as the path of its model.

    Attributes:
        model: encodes the texts.
        output: the folder that the files are in.
        plan: how the vectors are stored.
        tick: is told, in this process, how many texts were encoded.
    """

    model: Model
    output: Path
    plan: Plan
    tick: Callable[[int], None] = lambda _: None

    def __reduce__(self) -> tuple[Any, ...]:
        return _writer, (self.model.path.absolute(), self.output.absolute(), self.plan)

    def __call__(self, job: Job) -> Part:
        """Encodes what has no place among the repeats, each text once, and writes the file."""
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
            vectors[here] = _repeats(self.output, number)[1][places[here] % size]
        path = self.output / job.file
        with atomic_file(path) as fresh:
            if job.ids is None:
                _write_repeats(fresh, _digests(job.texts), vectors)
            else:
                _write_shard(fresh, job.ids, job.texts, vectors, self.plan.dtype)
            return Part(job.file, len(job.texts), len(index), sha256(fresh))

    def _encode(self, texts: Sequence[str]) -> Floats:
        vectors = np.empty((len(texts), self.plan.dimension), dtype=np.float32)
        for start in range(0, len(texts), ENCODED):
            block = texts[start : start + ENCODED]
            vectors[start : start + ENCODED] = shorten(self.model.encode(block, self.plan.side), self.plan.dimension)
            self.tick(len(block))
        return vectors


def _writer(model: Path, output: Path, plan: Plan) -> Writer:
    return Writer(load(model), output, plan)


def _write_repeats(file: Path, digests: Digests, vectors: Floats) -> None:
    raw = [None, pyarrow.py_buffer(digests.tobytes())]
    columns = {
        "digest": pyarrow.FixedSizeBinaryArray.from_buffers(pyarrow.binary(16), len(digests), raw),
        "vector": pyarrow.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
    }
    table = pyarrow.table(columns)
    with pyarrow.ipc.new_file(str(file), table.schema) as sink:
        sink.write_table(table)


def _write_shard(file: Path, ids: Sequence[str], texts: Sequence[str], vectors: Floats, dtype: DType) -> None:
    """Writes (n,) identities and texts and (n, d) vectors; numbers of a vector are stored as they are, uncompressed."""
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


# Progress


class _Meter:
    """Counts what is done of a stage and tells about it, at most ten times a second."""

    def __init__(self, tell: Callable[[Progress], None] | None) -> None:
        self.tell = tell
        self.begin("checking", 0)

    def begin(self, stage: Literal["checking", "reading", "encoding"], total: int, done: int = 0) -> None:
        """A stage of which some is done already."""
        self.stage, self.total, self.before, self.settled, self.pending = stage, total, done, done, 0
        self.started = self.told = time.monotonic()

    def tick(self, count: int) -> None:
        """So much more is done, of a part that is not settled yet."""
        self.pending += count
        self._tell()

    def settle(self, count: int) -> None:
        """A part is done, and so much was in it, whether there were ticks on the way or not."""
        self.settled, self.pending = self.settled + count, 0
        self._tell()

    def _tell(self) -> None:
        now, done = time.monotonic(), self.settled + self.pending
        if self.tell and (now - self.told > 0.1 or done == self.total):
            self.told = now
            rate = (done - self.before) / max(1e-9, now - self.started)
            self.tell(Progress(self.stage, done, self.total, rate))
