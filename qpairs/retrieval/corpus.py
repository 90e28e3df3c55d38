"""The duplicates of a file of questions, as tables: pairs, clusters, and the file without its duplicates."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import atomic_folder, keep_others, write_text
from qpairs.core.progress import Meter, OnProgress, Progress, ignore
from qpairs.core.tables import ENDINGS, write_table
from qpairs.data.corpus import Corpus, read_corpus
from qpairs.data.identity import canonical
from qpairs.data.questions import QuestionSource
from qpairs.evaluation.wording import differing_words
from qpairs.metrics import Expectation, count_scores
from qpairs.metrics.read_pairs import SURE
from qpairs.models.base import Model, as_model, encode_in_blocks
from qpairs.models.coverage import warn_of_texts
from qpairs.models.second_setting import check_corpus_threshold, second_setting
from qpairs.models.shortened import shortened_note, verdict_at
from qpairs.models.two_stages import TwoStages, second_stage
from qpairs.models.verdict import CorpusSetting, Setting, check_precision, choose
from qpairs.retrieval.blocks import Floats, Ints
from qpairs.retrieval.clusters import Linkage
from qpairs.retrieval.dedupe import (
    Candidates,
    Deduplicated,
    Distinct,
    distinct,
    find_all,
    find_candidates,
    nearest_there,
    require_one_tower,
    resolve,
    same_questions,
    stored,
)
from qpairs.retrieval.embeddings import Embeddings
from qpairs.retrieval.matches import Matches
from qpairs.retrieval.second_look import ReadShare, encoder_of, read_candidates

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

SUMMARY = "dedupe.json"
RESULTS = (SUMMARY, *(f"{name}{suffix}" for name in ("pairs", "clusters", "asked", "kept") for suffix in ENDINGS))


@dataclass(frozen=True)
class DedupeResult:
    """The duplicates of a corpus, as tables. Rows are counted from 1, as in the file; ids are next to them if read.

    Attributes:
        model: that encoded the questions.
        setting: whose threshold says which pairs are duplicates.
        corpus: the questions.
        against: the questions that were known before.
        found: the duplicates, as numbers of rows.
        dimension: numbers in a vector; fewer than the model's where they were shortened.
        read: which of the candidates had a second look; None for a model of one stage.

    >>> found = model.dedupe(["How do I pay?", "How can I pay?", "Where is my order?"], threshold=0.8)
    >>> found.summary["kept"], len(found.pairs), len(found.clusters)
    (2, 1, 2)
    """

    model: Model
    setting: Setting
    corpus: Corpus
    against: Corpus | None
    found: Deduplicated
    dimension: int
    read: ReadShare | None = None

    @cached_property
    def pairs(self) -> pandas.DataFrame:
        """Pairs of duplicates: row1, question1, row2, question2, similarity, probability."""
        left, right = (self.found.first[side] for side in (self.found.pairs.left, self.found.pairs.right))
        return self._table(_columns("1", left, self.corpus) | _columns("2", right, self.corpus), self.found.pairs)

    @cached_property
    def clusters(self) -> pandas.DataFrame:
        """Members of clusters, the representative first: cluster, row, question, representative, similarity."""
        import pandas

        found = self.found
        heads = found.representative[found.question]  # (n,) the question that represents each row
        members = np.flatnonzero(np.bincount(heads, minlength=len(found.first))[heads] > 1)
        members = members[np.lexsort((members, members != found.first[heads[members]], found.first[heads[members]]))]
        head = found.first[heads[members]]
        return pandas.DataFrame(
            {
                "cluster": self.corpus.rows[head],
                **_columns("", members, self.corpus),
                "representative": (members == head).astype(int),
                "similarity": found.similarity[found.question[members]],
            }
        )

    @cached_property
    def asked(self) -> pandas.DataFrame:
        """Questions that the other corpus has: row, question, row_there, question_there, similarity, probability.

        The same question, by `data.identity`, is a duplicate with probability 1.
        """
        found = self.found.asked
        there = _columns("_there", found.right, self.against or self.corpus)
        table = self._table(_columns("", self.found.first[found.left], self.corpus) | there, found)
        both = zip(table["question"], table["question_there"], strict=True)
        same = np.array([canonical(one) == canonical(other) for one, other in both], dtype=np.bool_)
        return table.assign(probability=np.where(same, 1.0, table["probability"]))

    @cached_property
    def kept(self) -> pandas.DataFrame:
        """The corpus without its duplicates, with all its columns."""
        return self.corpus.table.iloc[self.found.kept]

    @cached_property
    def expected(self) -> Expectation | None:
        """Expected precision and recall over the corpus; None for a model with a verdict only for pairs."""
        return expectation_of(self.setting)

    @property
    def labels(self) -> int:
        """Number of labelled pairs of this corpus on which the expectation is based."""
        return labels_behind(self.setting)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of dedupe.json, which also has `raw`: whether texts of CSV and TSV are not `guarded`.

        `questions`, `against` and `model` are paths as named, `questions_path` is that of the file from the root, or
        null; `dimension` is that of the vectors; `text_column`, `skip_bad_rows` and `separator` say how it was read;
        `rows` counts the questions, `distinct` those that differ in more than case, spaces and punctuation, `asked` the
        distinct ones that the other corpus has, `pairs` the duplicates among the rest, `clusters` the clusters of two
        rows or more, `largest` the rows of the largest, `kept` the rows without duplicates. `probability_of` says what
        the probabilities are true of, `basis` what they rest on; `expected` is the `Expectation` of the threshold, or
        null. `threshold` is a cosine, or where `second_look` is not null a probability; that says which candidates were
        read: `band` (cosines), `read`, `candidates` and `share`. `search_recall` is the share of the pairs at or above
        the threshold that were found, measured on `search_recall_measured_on` pairs of a sample, null and 0 where the
        sample had none, or 1 and 0 where all were compared.
        """
        paths = self.corpus.path, self.against.path if self.against else None
        reading = self.corpus.text_column, self.corpus.skip_bad_rows, self.corpus.separator
        return summary_of(self.found, self.model, self.setting, paths, reading, self.dimension, self.read)

    def nearest(self, count: int) -> pandas.DataFrame:
        """The rows of `pairs` that are nearest to the threshold.

        >>> found = dedupe_corpus(model, ["How do I pay?", "How can I pay?", "Where is my order?"], threshold=0.8)
        >>> len(found.nearest(1)) <= len(found.pairs)
        True
        """
        return self.pairs.sort_values(["probability", "similarity"], kind="stable").head(count)

    @cached_property
    def one_word_apart(self) -> pandas.DataFrame:
        """The rows of `pairs` that differ in one name, number or sign alone, the most similar first.

        Such questions are similar to an encoder, but rarely duplicates; see `evaluation.wording.differing_words`.

        >>> asked = ["How do I sort a list in C++?", "How do I sort a list in C#?", "How can I sort a list in C#?"]
        >>> model.dedupe(asked, threshold=0.5).one_word_apart[["question1", "question2"]].values.tolist()
        [['How do I sort a list in C++?', 'How do I sort a list in C#?']]
        """
        both = zip(self.pairs["question1"], self.pairs["question2"], strict=True)
        rows = [differing_words(one, other) is not None for one, other in both]
        return self.pairs[np.array(rows, dtype=np.bool_)].sort_values("similarity", ascending=False, kind="stable")

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        found: dict[str, object] = {"questions": len(self.corpus.texts), "kept": len(self.found.kept)}
        found |= {"pairs of duplicates": len(self.found.pairs), "threshold": self.setting.threshold}
        if self.expected:
            low, high = self.expected.precision_interval
            found["expected precision"] = f"{self.expected.precision:.2f} ({low:.2f} to {high:.2f})"
            found["expected recall"] = f"{self.expected.recall:.2f}"
        else:
            found["expected precision"] = "unknown: the model has a verdict only for labelled pairs"
        return "DedupeResult", found

    __repr__, _repr_html_ = one_line, html_card

    def write(self, folder: str | Path, kind: str = "csv", *, raw: bool = False) -> None:
        """Writes pairs, clusters, kept and, against another corpus, asked; and the summary, dedupe.json.

        All of them take their places in one step.

        Args:
            folder: is made if need be; those of an earlier result are replaced, other files in it stay.
            kind: of pairs, clusters and asked: csv, tsv, jsonl or parquet. `kept` has the format of the corpus, or CSV.
            raw: of pairs, clusters and asked, as in `write_table`; `kept` has the cells of the corpus as they are.

        Raises:
            UserError: another kind, or a file cannot be written.

        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp())
        >>> model.dedupe(["How do I pay?", "How can I pay?"], threshold=0.8).write(place)
        >>> sorted(file.name for file in place.iterdir())
        ['clusters.csv', 'dedupe.json', 'kept.csv', 'pairs.csv']
        """
        check_format(kind)
        own = self.corpus.path.suffix.lower()
        tables = {f"pairs.{kind}": self.pairs, f"clusters.{kind}": self.clusters}
        tables |= {f"asked.{kind}": self.asked} if self.against else {}
        with atomic_folder(Path(folder)) as fresh:
            keep_others(Path(folder), fresh, replaced=RESULTS)
            for name, table in tables.items():
                write_table(fresh / name, table, raw=raw)
            kept = fresh / f"kept{own if own in ENDINGS else '.csv'}"
            write_table(kept, self.kept, raw=True, dialect=self.corpus.dialect)
            write_text(fresh / SUMMARY, json.dumps({**self.summary, "raw": raw}, indent=1) + "\n")

    def _table(self, columns: dict[str, Any], found: Matches) -> pandas.DataFrame:
        import pandas

        probability = found.probability
        if probability is None:
            probability = self.setting.probability(found.similarity)
        return pandas.DataFrame({**columns, "similarity": found.similarity, "probability": probability})


def expectation_of(setting: Setting) -> Expectation | None:
    """Expected precision and recall over the corpus of a setting; None for the setting for pairs.

    >>> expectation_of(model.verdict.pair) is None
    True
    """
    return setting.expected() if isinstance(setting, CorpusSetting) else None


def labels_behind(setting: Setting) -> int:
    """Number of labelled pairs of its corpus that a setting is based on.

    >>> labels_behind(model.verdict.pair)
    0
    """
    return setting.estimate.labels if isinstance(setting, CorpusSetting) else 0


def summary_of(
    found: Deduplicated,
    model: Model,
    setting: Setting,
    paths: tuple[Path, Path | None],
    reading: tuple[str, bool, str],
    dimension: int,
    read: ReadShare | None = None,
) -> dict[str, Any]:
    """What is written to dedupe.json, see `DedupeResult.summary`.

    Args:
        found: the duplicates.
        model: that encoded the questions.
        setting: with the threshold.
        paths: of the questions, and of those that were known before.
        reading: the column of the questions, whether rows that cannot be used were left out, and the named separator.
        dimension: numbers in a vector.
        read: which candidates had a second look.
    """
    sizes, expected = np.bincount(found.representative[found.question]), expectation_of(setting)
    return {
        "questions": str(paths[0]),
        "questions_path": str(paths[0].absolute()) if paths[0].exists() else None,
        "text_column": reading[0],
        "skip_bad_rows": reading[1],
        "separator": reading[2],
        "against": str(paths[1]) if paths[1] else None,
        "model": str(model.path),
        "fingerprint": model.fingerprint,
        "dimension": dimension,
        "threshold": setting.threshold,
        "probability_of": setting.precision_of,
        "basis": setting.basis if isinstance(setting, CorpusSetting) else None,
        "expected": asdict(expected) if expected else None,
        "rows": len(found.question),
        "distinct": len(found.first),
        "asked": len(found.asked),
        "pairs": len(found.pairs),
        "clusters": int((sizes > 1).sum()),
        "largest": max(int(sizes.max(initial=1)), 1),
        "kept": len(found.kept),
        "search_recall": None if math.isnan(found.pairs.recall) else found.pairs.recall,
        "search_recall_measured_on": found.pairs.sampled,
        "second_look": read.to_dict() if read else None,
    }


def check_format(kind: str) -> None:
    """Raises UserError where tables cannot be written in a format."""
    if f".{kind}" not in ENDINGS:
        raise UserError(f"format {kind!r}: {nearest(kind, [suffix[1:] for suffix in ENDINGS])}")


def _columns(suffix: str, rows: Ints, source: Corpus) -> dict[str, Any]:
    ids = {f"id{suffix}": [source.ids[row] for row in rows]} if source.ids else {}
    return {f"row{suffix}": source.rows[rows], **ids, f"question{suffix}": [source.texts[row] for row in rows]}


def dedupe_corpus(
    model: Model | str | Path,
    corpus: Corpus | QuestionSource,
    *,
    threshold: float | None = None,
    precision: float | None = None,
    against: Corpus | QuestionSource | None = None,
    text_column: str = "",
    linkage: Linkage = "star",
    recall: float = 0.9999,
    embeddings: Embeddings | None = None,
    on_progress: OnProgress = ignore,
) -> DedupeResult:
    """Finds the duplicates in a file of questions, and the questions that another file has already.

    Without a threshold or a precision, the threshold is the one with the highest expected F1 over the pairs of this
    corpus. A model without densities (of an older version) takes its threshold for pairs, and logs a warning. A model
    of two stages reads the candidates whose decision this can change, and decides by their probabilities.

    Args:
        model: or its folder.
        corpus: a file of questions, or rows in memory, as in `read_corpus`.
        threshold: the lowest cosine of duplicates; for a model of two stages, the lowest probability.
        precision: that the pairs of duplicates must have, as a one-sided 95 % lower bound.
        against: the other questions, likewise.
        text_column: the column of the questions, of both, as in `read_corpus`.
        linkage: how clusters are made, see `clusters`.
        recall: share of the pairs to find in a large corpus; 1 compares all.
        embeddings: vectors of the model; only the texts that they lack are encoded. Shortened ones are read by the
            model's verdict for their length, if it has one.
        on_progress: the stages encoding (texts), estimating, and comparing (cosines) and, in two
            stages, reading pairs.

    Raises:
        UserError: a file cannot be read, the model's verdict cannot be read from one cosine, the precision cannot be
            promised, or there are far too many pairs.

    >>> found = dedupe_corpus(model, ["How do I pay?", "How can I pay?", "Where is my order?"], threshold=0.8)
    >>> found.kept["text"].tolist()
    ['How do I pay?', 'Where is my order?']
    """
    check_precision(precision)
    prepared = prepare(
        model,
        corpus,
        against=against,
        text_column=text_column,
        embeddings=embeddings,
        recall=recall,
        wanted=precision if threshold is None else threshold,
        on_progress=on_progress,
    )
    setting = choose(prepared.setting, threshold, precision)
    return find_duplicates(prepared, setting, linkage=linkage, recall=recall, on_progress=on_progress)


def find_duplicates(
    prepared: Prepared,
    setting: Setting,
    *,
    linkage: Linkage = "star",
    recall: float = 0.9999,
    on_progress: OnProgress = ignore,
) -> DedupeResult:
    """The duplicates of a corpus that is prepared, at the threshold of a setting; see `dedupe_corpus`."""
    candidates = prepared.candidates or find_candidates(
        prepared.own, setting.threshold, other=prepared.other, recall=recall, on_progress=on_progress
    )
    found = resolve(prepared.own, candidates, setting.threshold, linkage)
    dimension = prepared.own.vectors.shape[1]
    return DedupeResult(prepared.model, setting, prepared.corpus, prepared.against, found, dimension, prepared.read)


@dataclass(frozen=True)
class Prepared:
    """A corpus that is encoded, and what scores mean in it.

    Attributes:
        model: that encoded it.
        corpus, against: the questions, and those that were known before.
        own, other: their distinct questions.
        setting: for all of them together.
        candidates: pairs that may be duplicates, with their probabilities; None before, or without, a second look.
        read: which of them had one.
    """

    model: Model
    corpus: Corpus
    against: Corpus | None
    own: Distinct
    other: Distinct | None
    setting: Setting
    candidates: Candidates | None = None
    read: ReadShare | None = None


def prepare(
    model: Model | str | Path,
    corpus: Corpus | QuestionSource,
    *,
    against: Corpus | QuestionSource | None = None,
    text_column: str = "",
    embeddings: Embeddings | None = None,
    recall: float = 0.9999,
    wanted: float | None = None,
    on_progress: OnProgress = ignore,
) -> Prepared:
    """Encodes a corpus, estimates from its scores what they mean, and takes the second look of a model of two stages.

    Args:
        model: or its folder; this and the rest as in `dedupe_corpus`.
        corpus: the questions.
        against: the other questions.
        text_column: of both.
        embeddings: vectors of the model.
        recall: share of the pairs to find for a second look.
        wanted: threshold or precision that will be asked for, so that the second look covers it.
        on_progress: see `dedupe_corpus`.

    Raises:
        UserError: see `dedupe_corpus`.
    """
    model = as_model(model)
    encoder, second = encoder_of(model), second_stage(model)
    require_one_tower(encoder)
    if wanted is not None:  # before anything is encoded
        check_corpus_threshold(model, wanted)
    corpus = read_corpus(corpus, text_column=text_column)
    against = None if against is None else read_corpus(against, text_column=text_column)
    meter = Meter(on_progress)

    def encode(texts: Sequence[str]) -> Floats:
        return encode_in_blocks(encoder, texts, meter)

    if embeddings is None:  # else this was said when they were made
        warn_of_texts(encoder.token_counter, corpus.texts, "dedupe")
    look_up = stored(embeddings, encoder, encode) if embeddings else encode
    own = distinct(corpus.texts, look_up)
    other = distinct(against.texts, look_up) if against else None
    on_progress(Progress("estimating"))
    vectors = np.concatenate([own.vectors, other.vectors]) if other else own.vectors
    if note := shortened_note(encoder, vectors.shape[1]):
        log.warning(note)
    verdict = verdict_at(encoder, vectors.shape[1])
    prepared = Prepared(model, corpus, against, own, other, verdict.corpus(count_scores(vectors)))
    if not second:
        return prepared
    return _take_second_look(prepared, second, wanted, recall, on_progress)


def _take_second_look(
    prepared: Prepared, model: TwoStages, wanted: float | None, recall: float, on_progress: OnProgress
) -> Prepared:
    """Finds the pairs that may be duplicates, reads those whose decision this can change, and estimates again.

    The same question in both corpora is no matter of the model: it is not read, and its probability is 1.

    Args:
        prepared: what the encoder alone says.
        model: whose second stage reads.
        wanted: the requested threshold or precision, in addition to the thresholds from `worth` to `SURE`.
        recall: share of the pairs to find.
        on_progress: the stages comparing (cosines) and reading pairs.
    """
    base, own, other = prepared.setting, prepared.own, prepared.other
    setting = second_setting(base, model)
    least, most = (setting.worth, SURE) if wanted is None else (min(setting.worth, wanted), max(SURE, wanted))
    floor, band = setting.floor(least), setting.band(least, most)
    asked, pairs = find_all(own, floor, other=other, recall=recall, on_progress=on_progress)
    here = [prepared.corpus.texts[row] for row in own.first]
    there = [prepared.against.texts[row] for row in other.first] if prepared.against and other else []
    cosines = np.concatenate([asked.similarity, pairs.similarity]).astype(np.float64)
    judged = np.append(~same_questions(own, other, asked), np.ones(len(pairs), dtype=np.bool_))
    inside = band.holds(cosines) & judged
    logits = np.full(len(cosines), np.nan, dtype=np.float32)
    texts = [(here[a], there[b]) for a, b in _ends(asked, inside[: len(asked)])]
    texts += [(here[a], here[b]) for a, b in _ends(pairs, inside[len(asked) :])]
    logits[inside] = read_candidates(model.second.reader, texts, on_progress)
    probability = np.where(judged, setting.probability(cosines, logits), 1.0)
    after: Setting = setting
    if isinstance(base, CorpusSetting):
        of_all = float(base.of_cosines.counts.at_or_above(floor))  # of which those within the other corpus are not read
        part = min(1.0, judged.sum() / max(of_all - (~judged).sum(), 1.0)) if other else 1.0
        estimate = setting.after_reading(cosines[judged], logits[judged], floor, part)
        after = CorpusSetting(estimate.default_threshold(), estimate)
        probability[judged] = estimate.scores
    asked = replace(asked, probability=probability[: len(asked)])
    pairs = replace(pairs, probability=probability[len(asked) :])
    read = ReadShare(band, int(inside.sum()), int(judged.sum()))
    return replace(prepared, setting=after, candidates=Candidates(nearest_there(asked, other), pairs), read=read)


def _ends(found: Matches, rows: NDArray[np.bool_]) -> Iterable[tuple[int, int]]:
    """The two questions of the pairs that a mask names."""
    return zip(found.left[rows].tolist(), found.right[rows].tolist(), strict=True)
