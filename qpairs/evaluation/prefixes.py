"""Prefixes of vectors: a verdict for each length, and its scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qpairs import metrics
from qpairs.data.pairs import Pairs
from qpairs.evaluation.question_table import table_densities
from qpairs.models.base import Tables, cosine_scores
from qpairs.models.shortened import shorten_tables
from qpairs.models.verdict import Verdict, fit_verdict


@dataclass(frozen=True)
class PrefixScore:
    """How well vectors of one length find duplicates among labelled pairs.

    Attributes:
        dimension: numbers in a vector.
        threshold: of the verdict for that length.
        f1: of the decisions at the threshold.
        average_precision: of the ranking by similarity.
    """

    dimension: int
    threshold: float
    f1: float
    average_precision: float


def prefix_verdicts(
    lengths: Iterable[int], pairs: Pairs, tables: Tables, whole: Verdict, *, seed: int = 0
) -> dict[int, Verdict]:
    """A verdict for each length that is shorter than the vectors, fitted to labelled pairs.

    Args:
        lengths: lengths of the vectors; the full length is left out.
        pairs: labelled, with pairs of both labels.
        tables: whole vectors of their questions, from `Model.embed_tables`.
        whole: the verdict on whole vectors, fitted to the same pairs.
        seed: of the bootstrap of densities.
    """
    found = {}
    for length in lengths:
        if length == tables[0].shape[1]:
            continue
        short = shorten_tables(tables, length)
        found[length] = fit_verdict(
            cosine_scores(short, pairs, symmetric=whole.symmetric),
            pairs.labels,
            whole.tfidf_threshold,
            symmetric=whole.symmetric,
            densities=table_densities(pairs, short, symmetric=whole.symmetric, seed=seed),
        )
    return found


def prefix_scores(verdicts: Mapping[int, Verdict], pairs: Pairs, tables: Tables) -> list[PrefixScore]:
    """F1 and average precision of each length on labelled pairs, at the threshold of its verdict.

    Args:
        verdicts: length -> verdict, such as `Verdict.shortened`.
        pairs: labelled.
        tables: whole vectors of their questions, from `Model.embed_tables`.
    """
    rows = []
    for length, verdict in verdicts.items():
        scores = cosine_scores(shorten_tables(tables, length), pairs, symmetric=verdict.symmetric)
        threshold = verdict.pair.threshold
        f1 = metrics.confusion(scores, pairs.labels, threshold).f1
        rows.append(PrefixScore(length, threshold, f1, metrics.average_precision(scores, pairs.labels)))
    return rows
