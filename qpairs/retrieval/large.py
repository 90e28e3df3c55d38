"""The duplicates of a corpus that is larger than memory: its embeddings are read from their shards, a part at a time.

The steps are those of `corpus.dedupe_corpus`, and the pairs and clusters are the same. Each step writes files into a
folder `.unfinished` next to the result, completely or not at all; an interrupted run continues with these. In memory
are at most about 100 bytes for each question, and some hundred MiB: docs/scale.md counts them.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_folder, exclusive_lock, hold_output, keep_others, sha256, write_text, writing
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.core.tables import write_table_in_parts
from qpairs.data.identity import canonical
from qpairs.metrics import Expectation
from qpairs.metrics.score_counts import ScoreCounts, count_scores_in_parts
from qpairs.models.base import Model, as_model
from qpairs.models.shortened import shortened_note, verdict_at
from qpairs.models.two_stages import second_stage
from qpairs.models.verdict import Setting, check_precision, check_threshold, choose
from qpairs.models.verdict_file import verdict_to_dict
from qpairs.retrieval.blocks import Floats, Ints
from qpairs.retrieval.cell_jobs import POSITION, VECTORS
from qpairs.retrieval.clusters import Linkage
from qpairs.retrieval.corpus import RESULTS, SUMMARY, check_format, expectation_of, labels_behind, summary_of
from qpairs.retrieval.dedupe import Deduplicated, require_one_tower, to_representatives
from qpairs.retrieval.disk import TextFile, read_vectors, write_array, write_vectors
from qpairs.retrieval.embeddings import MANIFEST, UNFINISHED, Embeddings, open_shards
from qpairs.retrieval.executors import Executor, run_serially
from qpairs.retrieval.large_pairs import FoundPairs, Search, find_pairs
from qpairs.retrieval.large_tables import Tables
from qpairs.retrieval.matches import NO_MATCHES, Matches
from qpairs.retrieval.second_look import encoder_of
from qpairs.retrieval.survey import digests
from qpairs.retrieval.union_find import clusters_on_disk

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

PLAN = "plan.json"


@dataclass(frozen=True)
class LargeResult:
    """The duplicates of a corpus that was read from its embeddings; the tables are files in a folder.

    Attributes:
        folder: has pairs, clusters and kept, in the format that was asked for, and dedupe.json.
        model: whose verdict decided.
        setting: with the threshold.
        embeddings: the corpus.
        summary: what dedupe.json says, as `DedupeResult.summary`.
        examples: the pairs nearest to the threshold, as rows of the table of pairs.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> made = qpairs.embed(model, ["How do I pay?", "How can I pay?", "Where is my order?"], place / "emb")
    >>> found = dedupe_embeddings(model, made, place / "dups", threshold=0.8)
    >>> found.summary["rows"], sorted(file.name for file in found.folder.glob("[!.]*"))
    (3, ['clusters.csv', 'dedupe.json', 'kept.csv', 'pairs.csv'])
    """

    folder: Path
    model: Model
    setting: Setting
    embeddings: Embeddings
    summary: dict[str, Any]
    examples: pandas.DataFrame

    read: None = None  # there is no second look

    @cached_property
    def expected(self) -> Expectation | None:
        """Expected precision and recall over the corpus; None for a model with a verdict for pairs alone."""
        return expectation_of(self.setting)

    @property
    def labels(self) -> int:
        """Number of labelled pairs of this corpus on which the expectation is based."""
        return labels_behind(self.setting)

    def nearest(self, count: int) -> pandas.DataFrame:
        """The pairs nearest to the threshold."""
        return self.examples.head(count)


def dedupe_embeddings(
    model: Model | str | Path,
    embeddings: Embeddings | str | Path,
    output: str | Path,
    *,
    threshold: float | None = None,
    precision: float | None = None,
    linkage: Linkage = "star",
    recall: float = 0.9999,
    kind: str = "csv",
    raw: bool = False,
    seed: int = 0,
    engine: Executor = run_serially,
    on_progress: OnProgress = ignore,
) -> LargeResult:
    """Finds the duplicates among questions that `qpairs embed` embedded, in memory that does not grow with the vectors.

    Args:
        model: or its folder; it made the embeddings.
        embeddings: or their folder.
        output: gets the tables pairs, clusters and kept (ids and texts), and dedupe.json; what an interrupted run left
            there is continued.
        threshold: as in `dedupe_corpus`, like `precision`, `linkage` and `recall`.
        precision: likewise.
        linkage: likewise.
        recall: likewise.
        kind: format of the tables: csv, tsv, jsonl or parquet.
        raw: of pairs and clusters, as in `write_table`; `kept` has the texts as they are.
        seed: of samples and cells.
        engine: what looks for pairs: `run_serially`, or an executor from `ray_executor`, whose workers need the output
            folder at the same path.
        on_progress: the stages reading, estimating, probing (questions), sorting, comparing (cosines), clustering
            (pairs) and writing.

    Raises:
        UserError: another model made the embeddings, its verdict does not work on cosines, the precision cannot be
            promised, there are far too many pairs, or the disk is full.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> made = qpairs.embed(model, ["How do I pay?", "How can I pay?", "Where is my order?"], place / "emb")
    >>> dedupe_embeddings(model, made, place / "dups", threshold=0.8).summary["kept"]
    2
    """
    check_format(kind)
    model, output, meter = as_model(model), Path(output), Meter(on_progress)
    embeddings = open_shards(embeddings) if isinstance(embeddings, str | Path) else embeddings
    encoder = _encoder(model, embeddings)
    verdict = verdict_at(encoder, embeddings.dimension)
    check_precision(precision)  # before any work
    if threshold is not None:
        check_threshold(threshold)
    with hold_output(output), exclusive_lock(output), writing(output):
        work = output / UNFINISHED
        plan = {"threshold": threshold, "precision": precision, "recall": recall, "seed": seed}
        _begin(work, {"embeddings": sha256(embeddings.folder / MANIFEST), "verdict": verdict_to_dict(verdict), **plan})
        rows = _read(embeddings, work, meter)
        setting = choose(verdict.corpus(_counts(work, rows, embeddings.dimension, meter)), threshold, precision)
        search = Search(work, rows, embeddings.dimension, setting.threshold, recall, seed)
        found = _resolve(search, find_pairs(search, engine, meter), linkage, meter)
        reading = embeddings.plan.text_column, embeddings.plan.skip_bad_rows, ""
        paths = embeddings.folder, None
        summary = {**summary_of(found, model, setting, paths, reading, embeddings.dimension), "raw": raw}
        examples = _write(output, kind, Tables(work, found, setting), meter, summary)
    return LargeResult(output, model, setting, embeddings, summary, examples)


def _encoder(model: Model, embeddings: Embeddings) -> Model:
    """What made the embeddings, whose verdict decides.

    Raises:
        UserError: it did not, or more than its cosines decide.
    """
    if second_stage(model):
        raise UserError(
            f"{model.path}: a model of two stages reads the texts of candidates, which is not possible with a folder "
            "of embeddings; use only the encoder with --no-reranker, or give the file of questions"
        )
    encoder = encoder_of(model)
    require_one_tower(encoder)
    embeddings.require_model(encoder)
    if note := shortened_note(encoder, embeddings.dimension):
        log.warning(note)
    return encoder


def _write(output: Path, kind: str, tables: Tables, meter: Meter, summary: dict[str, Any]) -> pandas.DataFrame:
    """Writes the tables and the summary, which take their places in one step; returns the pairs nearest the threshold.

    Remains of the steps are removed.
    """
    meter.begin("writing")
    nearest = tables.nearest()
    with atomic_folder(output) as fresh:
        keep_others(output, fresh, replaced=RESULTS)
        for name, parts in (("pairs", tables.pairs), ("clusters", tables.clusters)):
            write_table_in_parts(fresh / f"{name}.{kind}", parts(), raw=summary["raw"])
        write_table_in_parts(fresh / f"kept.{kind}", tables.kept(), raw=True)
        write_text(fresh / SUMMARY, json.dumps(summary, indent=1) + "\n")
    shutil.rmtree(output / UNFINISHED, ignore_errors=True)  # where the folder could not be exchanged
    return nearest


def _begin(work: Path, plan: dict[str, Any]) -> None:
    """Prepares the folder of a run; what a run with another plan left is removed."""
    text = json.dumps(plan, indent=1) + "\n"
    if not ((work / PLAN).exists() and (work / PLAN).read_text("utf-8") == text):
        shutil.rmtree(work, ignore_errors=True)
        write_text(work / PLAN, text)
    for leftover in work.glob("**/.new-*"):
        leftover.unlink()


def _read(embeddings: Embeddings, work: Path, meter: Meter) -> int:
    """Writes texts, ids, which rows are which question, and the vectors of questions; returns how many there are."""
    if not (work / "first.npy").exists():
        meter.begin("reading", embeddings.count)
        found: list[Any] = []
        TextFile(work, "texts").write(_digested(embeddings, found, meter))
        TextFile(work, "ids").write(embeddings.column("id"))
        question, first = _questions(np.concatenate(found))
        write_array(work / "question.npy", question)
        write_array(work / "first.npy", first)
    first = np.load(work / "first.npy")
    if not any((work / name).exists() for name in (VECTORS, POSITION)):
        meter.begin("reading vectors", embeddings.count)
        write_vectors(work / VECTORS, _first_vectors(embeddings, first, meter))
    return len(first)


def _digested(embeddings: Embeddings, found: list[Any], meter: Meter) -> Iterator[list[str]]:
    for block in embeddings.column("text"):
        found.append(digests(map(canonical, block)))
        meter.advance(len(block))
        yield block


def _questions(keys: np.ndarray[Any, Any]) -> tuple[Ints, Ints]:
    """(n,) the question of each row, and (q,) the first row of each, as `identity.distinct_texts`, by digests (n,)."""
    _, first, question = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return number[question], first[order]


def _first_vectors(embeddings: Embeddings, first: Ints, meter: Meter) -> Iterator[Floats]:
    for start, vectors in embeddings.vectors():
        some = first[np.searchsorted(first, start) : np.searchsorted(first, start + len(vectors))]
        yield vectors[some - start]
        meter.advance(len(vectors))


def _counts(work: Path, rows: int, width: int, meter: Meter) -> ScoreCounts:
    """How many pairs have which cosine; kept in a file, since the vectors are put in another order later."""
    file = work / "counts.npy"
    meter.begin("estimating")
    if not file.exists():
        counts = count_scores_in_parts(lambda: read_vectors(work / VECTORS, rows, width), rows)
        write_array(file, np.stack([counts.counts, counts.hits]))
    kept = np.load(file)
    return ScoreCounts(kept[0], rows, kept[1])


def _resolve(search: Search, pairs: FoundPairs, linkage: Linkage, meter: Meter) -> Deduplicated:
    """The clusters of the pairs; what grows with the vectors stays on the disk."""
    work, rows = search.folder, pairs.rows
    representative = clusters_on_disk(search.rows, rows, linkage, work, meter)
    similarity = to_representatives(search.finder.comparison().rows, representative)
    question, first = (np.load(work / f"{name}.npy", mmap_mode="r") for name in ("question", "first"))
    matches = Matches(rows["left"], rows["right"], rows["similarity"], pairs.recall, pairs.sampled)
    return Deduplicated(question, first, NO_MATCHES, matches, representative, similarity)
