"""`embed` makes embeddings of a file of questions, and continues where an interrupted run stopped.

A shard is complete or not there, and its checksum is recorded, so that complete ones are found again.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from qpairs import __version__
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import exclusive_lock, refuse_file, sha256, write_text, writing
from qpairs.core.manifests import parse_json, read_json
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.data.questions import QuestionSource, open_questions
from qpairs.models.base import Model, Side, as_model
from qpairs.models.coverage import warn_of_texts
from qpairs.models.shortened import shortened_note
from qpairs.retrieval.embeddings import (
    FORMAT,
    MANIFEST,
    PLAN,
    UNFINISHED,
    DType,
    Embeddings,
    Plan,
    open_shards,
    plan_shape,
    shard_shape,
)
from qpairs.retrieval.executors import Executor, WrittenFile, run_serially
from qpairs.retrieval.second_look import with_vectors
from qpairs.retrieval.survey import SHARDS, Survey, repeat_jobs, shard_jobs, survey
from qpairs.retrieval.writer import Writer

log = logging.getLogger(__name__)

WRITTEN = f"{UNFINISHED}/made.jsonl"  # a line for each complete file
REPEATED_IDS = "ids of column %r that several questions have: %s, such as %r; an index needs unique ids"
LOOKED_AT = 100_000  # questions, the first ones, that are looked at for texts that are cut and words that are unknown
SHARD_SIZE = 50_000  # questions; 77 MB of 384 float32


class OtherEmbeddings(UserError):
    """A folder holds embeddings made with other options; `differ` names them.

    >>> OtherEmbeddings("emb", ["dtype"]).differ
    ['dtype']
    """

    def __init__(self, folder: object, differ: list[str]) -> None:
        """Says which folder, and how its embeddings differ."""
        self.differ = differ
        super().__init__(
            f"{folder}: holds embeddings with another {', '.join(differ)}; name another folder with --output, or "
            "start again with --overwrite"
        )


def embed(
    model: Model | str | Path,
    source: QuestionSource,
    output: str | Path,
    *,
    text_column: str = "",
    id_column: str = "",
    separator: str = "",
    dtype: DType = "float32",
    dimension: int | None = None,
    side: Side = "left",
    shard_size: int = SHARD_SIZE,
    skip_bad_rows: bool = False,
    distinct_ids: bool = False,
    overwrite: bool = False,
    engine: Executor = run_serially,
    on_progress: OnProgress = ignore,
) -> Embeddings:
    """Embeds questions into Parquet shards; each distinct text is encoded once.

    Memory grows with the file by 16 bytes for each distinct text only, and as many for each id of a column (about three
    times that while they are sorted).
    A run that was interrupted continues when it is called again; shards of a finished run that are missing or altered
    are made again.

    Args:
        model: or its folder.
        source: .csv, .tsv, .jsonl, .parquet or .txt; or rows in memory, as in `open_questions`.
        output: the folder; it gets `manifest.json` and `shards/`, with columns id, text, vector and, for int8, scale.
        text_column: as in `open_questions`.
        id_column: likewise.
        separator: likewise.
        dtype: of the numbers; those of int8 are to be multiplied by the scale of their row.
        dimension: keep only so many numbers of each vector, and scale it to unit length again. A model that was trained
            with `dims` has verdicts for these lengths; a warning is logged where it has none.
        side: which of two towers encodes.
        shard_size: questions in a shard.
        skip_bad_rows: leave out rows that cannot be used, and count them.
        distinct_ids: refuse ids that several questions have, as an index does; without it, a warning is logged.
        overwrite: start again if the folder holds other embeddings.
        engine: what runs the jobs: `run_serially`, or an executor from `ray_executor`.
        on_progress: the stages checking (files of an earlier run), reading (questions) and encoding (distinct texts).

    Raises:
        UserError: an option, the file of questions or the folder cannot be used; the disk is full.

    >>> import tempfile
    >>> made = embed(model, ["How do I pay?", "Where is my order?"], Path(tempfile.mkdtemp(), "emb"))
    >>> made.count, made.dimension
    (2, 128)
    """
    model = with_vectors(as_model(model, second_look=False))
    questions = open_questions(source, text_column=text_column, id_column=id_column, separator=separator)
    output, meter = Path(output), Meter(on_progress)
    plan = Plan(
        fingerprint=model.fingerprint,
        dimension=model.dimension if dimension is None else dimension,
        dtype=dtype,
        side=side,
        shard_size=shard_size,
        source=questions.sha256(),
        text_column=questions.text_column,
        id_column=questions.id_column,
        skip_bad_rows=skip_bad_rows,
    )
    _check(plan, model, output)
    first = [text for _, text in itertools.islice(questions.rows(Counter()), LOOKED_AT)]
    what = f"embed, of the first {LOOKED_AT:,} questions" if len(first) == LOOKED_AT else "embed"
    warn_of_texts(model.token_counter, first, what)
    with exclusive_lock(output), writing(output):
        written = _begin(output, plan, meter, overwrite=overwrite)
        if not (output / MANIFEST).exists():
            found = survey(questions, plan, meter)
            if found.repeated_ids:
                told = REPEATED_IDS % (plan.id_column, f"{found.repeated_ids:,}", found.repeated_id)
                if distinct_ids:
                    raise UserError(f"{questions.path}: {told}; correct them, or leave out --id-column (id_column)")
                log.warning(told)
            writer = Writer(model, output, plan, meter.advance)
            encoded = sum(file.encoded for file in written.values())
            meter.begin("encoding", found.distinct, encoded)
            anywhere = questions.absolute()
            for jobs in (repeat_jobs, shard_jobs) if len(found.repeated) else (shard_jobs,):
                listed = functools.partial(jobs, anywhere, output.absolute(), plan, found.repeated, frozenset(written))
                for file in engine(listed, writer):
                    _record(output, file)
                    written[file.file] = file
                    encoded += file.encoded
                    meter.advance(encoded - meter.done)  # where another process encoded
            _finish(output, model, plan, found, written)
    return open_shards(output)


def _check(plan: Plan, model: Model, output: Path) -> None:
    if not 1 <= plan.dimension <= model.dimension:
        raise UserError(
            f"dim: {plan.dimension} is out of range; the vectors of {model.path} have {model.dimension} numbers"
        )
    if note := shortened_note(model, plan.dimension):
        log.warning(note)
    for name, value, options in (("dtype", plan.dtype, get_args(DType)), ("side", plan.side, get_args(Side))):
        if value not in options:
            raise UserError(f"{name}: unknown {value!r}; {nearest(value, options)}")
    if plan.shard_size < 1:
        raise UserError(f"shard_size: {plan.shard_size} is out of range; 1 or more")
    refuse_file(output)
    if output.exists() and not _is_begun(output) and any(output.glob("[!.]*")):
        raise UserError(f"{output}: is not empty, and does not hold embeddings; name another folder with --output")


def _is_begun(output: Path) -> bool:
    return (output / MANIFEST).exists() or (output / PLAN).exists()


def _earlier_run(output: Path) -> tuple[Mapping[str, Any], list[WrittenFile]]:
    """The plan of the run in a folder, finished or not, and the files that it wrote; an empty plan without any."""
    if (output / MANIFEST).exists():
        kept = open_shards(output)
        return asdict(kept.plan), list(kept.shards)
    if not (output / PLAN).exists():
        return {}, []
    plan = read_json(output / PLAN, plan_shape, missing="", mend="start again with --overwrite")
    lines, files = (output / WRITTEN).read_bytes().splitlines() if (output / WRITTEN).exists() else [], []
    for line in lines:
        with suppress(UserError, UnicodeDecodeError):  # cut off when the process was killed: its file is made again
            files.append(WrittenFile(**parse_json(line.decode(), shard_shape, where=WRITTEN)))
    return plan, files


def _begin(output: Path, plan: Plan, meter: Meter, *, overwrite: bool) -> dict[str, WrittenFile]:
    """Prepares a folder for a run; returns the complete files of an earlier run with the same plan."""
    try:
        kept, files = _earlier_run(output)
    except UserError:
        if not overwrite:
            raise
        kept, files = {"damaged": True}, []
    differ = [name for name, value in asdict(plan).items() if kept and kept.get(name) != value]
    if differ and not overwrite and (files or (output / MANIFEST).exists()):
        raise OtherEmbeddings(output, differ)
    meter.begin("checking", len(files))
    complete: dict[str, WrittenFile] = {}
    for file in [] if differ else files:
        if sha256(output / file.file) == file.sha256:
            complete[file.file] = file
        meter.advance()
    if (output / MANIFEST).exists() and not differ and len(complete) == len(files):
        shutil.rmtree(output / UNFINISHED, ignore_errors=True)
        return complete
    write_text(output / WRITTEN, "".join(json.dumps(asdict(file)) + "\n" for file in complete.values()))
    write_text(output / PLAN, json.dumps(asdict(plan), indent=1) + "\n")
    (output / MANIFEST).unlink(missing_ok=True)  # from here on, the folder is one of this run, killed or not
    own = {output / name for name in (*complete, WRITTEN, PLAN)}
    for leftover in (file for folder in (UNFINISHED, SHARDS) for file in (output / folder).rglob("*")):
        if leftover not in own and not leftover.is_dir():
            leftover.unlink()
    return complete


def _record(output: Path, file: WrittenFile) -> None:
    with writing(output / WRITTEN), (output / WRITTEN).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(file)) + "\n")


def _finish(output: Path, model: Model, plan: Plan, found: Survey, written: Mapping[str, WrittenFile]) -> None:
    shards = [written[file] for file in sorted(written) if file.startswith(SHARDS)]
    if sum(shard.rows for shard in shards) != found.count:
        raise UserError(f"{output}: the file of questions changed while it was read; start again with --overwrite")
    manifest = {
        "format": FORMAT,
        "qpairs": __version__,
        "model": str(model.path.absolute()),
        "plan": asdict(plan),
        "count": found.count,
        "distinct": found.distinct,
        "skipped": found.skipped,
        "shards": [asdict(shard) for shard in shards],
    }
    write_text(output / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    shutil.rmtree(output / UNFINISHED, ignore_errors=True)
