"""The user's retrieval set: queries, what is relevant to each, and the corpus that is searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.data.columns import column_like, named_column
from qpairs.data.corpus import Corpus, read_corpus
from qpairs.data.formats import refuse_row
from qpairs.data.pairs import text_fault
from qpairs.data.questions import QuestionSource, id_fault, id_text
from qpairs.data.records import open_table
from qpairs.data.tables import Table
from qpairs.evaluation.question_table import symmetric_tables
from qpairs.metrics.intervals import Interval
from qpairs.models.base import Floats, Model, as_model
from qpairs.models.cross_encoder import CrossModel

CUTOFFS = (1, 5, 10)
MISSED = 3  # queries with the worst ranks that a report names
BLOCK = 2**24  # similarities held in memory at once
QUERY, RELEVANT, GRADE = "query", "relevant", "grade"


@dataclass(frozen=True)
class SearchSet:
    """Queries, a corpus, and what is relevant.

    Attributes:
        queries: (q,) distinct texts.
        corpus: (m,) the texts that are searched.
        relevant: (q,) for each query: row of the corpus -> how relevant it is, above 0.
    """

    queries: Sequence[str]
    corpus: Sequence[str]
    relevant: Sequence[Mapping[int, float]]


@dataclass(frozen=True)
class Miss:
    """A query whose first relevant text comes late: its rank and text, and the text that came first."""

    query: str
    rank: int
    relevant: str
    first: str


@dataclass(frozen=True)
class SearchReport:
    """How well a model retrieves relevant texts from a corpus.

    Attributes:
        queries, corpus: how many.
        scores: measure -> mean over the queries: mrr, map, recall_at_k and ndcg_at_k (`metrics.search_scores`).
        intervals: measure -> 95 % by bootstrap over the queries.
        missed: the queries whose first relevant text comes last.
    """

    queries: int
    corpus: int
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]
    missed: Sequence[Miss]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        >>> SearchReport(1, 2, {"mrr": 1.0}, {"mrr": (1.0, 1.0)}, ()).to_dict()["scores"]
        {'mrr': 1.0}
        """
        return asdict(self)

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        figures = {name: f"{value:.3f}" for name, value in self.scores.items()}
        return "SearchReport", {"queries": self.queries, "corpus": self.corpus, **figures}

    __repr__, _repr_html_ = one_line, html_card


def read_search_set(
    judgements: QuestionSource,
    corpus: Corpus | QuestionSource,
    *,
    text_column: str = "",
    id_column: str = "",
    separator: str = "",
    skip_bad_rows: bool = False,
) -> SearchSet:
    r"""Reads queries with what is relevant to each, and the corpus.

    Args:
        judgements: a table with the columns `query` and `relevant`, the id of a text of the corpus, and, if some are
            more relevant than others, `grade`, a number of at least 0. A row for each judgement; in JSON and Parquet
            `relevant` may be a list of ids.
        corpus: the texts that are searched, as in `read_corpus`.
        text_column: the column of the texts, as there.
        id_column: the column of their ids; without it `id`, or if there is none, the row number, from 1.
        separator: of the corpus, as in `read_corpus`.
        skip_bad_rows: leave out rows of both files that cannot be used; without it, the first one is an error.

    Raises:
        UserError: a file cannot be read, two texts have one id, a row names no text of the corpus, or has no grade.

    >>> rows = [{"query": "How can I pay?", "relevant": "A7"}, {"query": "How can I pay?", "relevant": "A9"}]
    >>> texts = [{"id": "A7", "text": "How do I pay?"}, {"id": "A8", "text": "Who?"}, {"id": "A9", "text": "Paying?"}]
    >>> read_search_set(rows, texts).relevant
    [{0: 1.0, 2: 1.0}]
    """
    found = read_corpus(
        corpus, text_column=text_column, id_column=id_column, separator=separator, skip_bad_rows=skip_bad_rows
    )
    ids = _ids(found, id_column)
    places = {name: row for row, name in enumerate(ids)}
    if len(places) < len(ids):
        twice = next(name for row, name in enumerate(ids) if places[name] != row)
        raise UserError(f"{found.path}: two texts have the id {twice!r}; ids name the texts that are relevant")
    queries: dict[str, dict[int, float]] = {}
    for query, names, grade, where in _judgements(judgements, skip_bad_rows):
        for name in names:
            if name not in places:
                raise UserError(f"{where}: {RELEVANT} {name!r} is not an id in {found.path}")
            if grade > 0:
                of_query = queries.setdefault(query, {})
                of_query[places[name]] = max(grade, of_query.get(places[name], 0.0))
    if not queries:
        raise UserError(f"{where_of(judgements)}: nothing is relevant to any query")
    return SearchSet(list(queries), found.texts, list(queries.values()))


def where_of(source: QuestionSource) -> str:
    """What messages call a source.

    >>> where_of("queries.csv"), where_of([])
    ('queries.csv', 'list')
    """
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def _ids(corpus: Corpus, id_column: str) -> list[str]:
    if corpus.ids:
        return list(corpus.ids)
    column = None if id_column else column_like(map(str, corpus.table.columns), "id")
    if column is not None and len(corpus.table) == len(corpus.texts):
        rows = corpus.rows.tolist()
        ids = Table(corpus.table, rows).cells(column)
        for row, value in zip(rows, ids, strict=True):
            if fault := id_fault(value, column):
                raise UserError(
                    f"{corpus.path}, row {row}: {fault[1]}; correct it, or name another column with --id-column"
                )
        return [id_text(value) for value in ids]
    return [str(row) for row in corpus.rows.tolist()]


def _judgements(source: QuestionSource, skip: bool) -> Iterator[tuple[str, list[str], float, str]]:
    """Query, ids, grade and position of each row of a table of judgements."""
    reader, where = open_table(source)
    names = [named_column(reader.columns, name, where=where) for name in (QUERY, RELEVANT)]
    names += filter(None, [column_like(reader.columns, GRADE)])
    for number, values in reader.rows(names):
        row = (values,) if isinstance(values, str) else values
        fault = values if isinstance(values, str) else _fault(dict(zip(names, row, strict=True)))
        if fault:
            refuse_row(where, reader.unit, number, fault, skip=skip)
            continue
        query, relevant, *grade = row
        ids = relevant if isinstance(relevant, list | tuple) else [relevant]
        place = f"{where}, {reader.unit} {number}"
        yield " ".join(query.split()), [id_text(one).strip() for one in ids], float(grade[0]) if grade else 1.0, place


def _fault(row: Mapping[str, Any]) -> str:
    """Why a row, its values by column, is not a judgement; '' if it is one."""
    (query, text), (names, relevant), *graded = row.items()
    if fault := text_fault(text, query):
        return fault[1]
    if relevant is None or str(relevant).strip() == "" or (isinstance(relevant, list | tuple) and not relevant):
        return f"column {names!r} names no text"
    for name, grade in graded:
        try:
            worth = float(grade)
        except (TypeError, ValueError):
            worth = np.nan
        if not (worth >= 0 and np.isfinite(worth)):
            return f"column {name!r} holds {grade!r}, not a number of at least 0"
    return ""


def evaluate_search(
    model: Model | str | Path,
    data: SearchSet,
    *,
    cutoffs: Sequence[int] = CUTOFFS,
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> SearchReport:
    """Searches a corpus for each query by cosine, and scores the results against the relevant texts.

    A text of the corpus that equals the query exactly, and is not marked relevant, is left out. For a model of two
    stages, the encoder searches. Ties are broken pessimistically.

    Args:
        model: a model with vectors, or its folder.
        data: the retrieval set.
        cutoffs: the k of recall and nDCG.
        seed: of the bootstrap over the queries.
        on_progress: called while queries are searched.

    Raises:
        UserError: the model is a cross-encoder, which has no vectors; or the set is none: it has no queries, nothing is
            relevant to one, or what is relevant is no row of the corpus.

    >>> data = SearchSet(["How can I pay?"], ["How do I pay?", "Who are you?"], [{0: 1.0}])
    >>> evaluate_search(model, data).scores["mrr"]
    1.0
    """
    model = as_model(model)
    _check(data, cutoffs)
    if isinstance(model, CrossModel):
        raise UserError(f"retrieval: {model.path} is a cross-encoder, which has no vectors to search with")
    meter = Meter(on_progress)
    meter.begin("encoding", len(data.queries) + len(data.corpus))
    tables = model.embed_tables([*data.queries, *data.corpus])
    rows, columns = symmetric_tables(tables) if model.verdict.symmetric else tables
    queries, corpus = rows[: len(data.queries)], columns[len(data.queries) :]
    meter.begin("searching", len(queries))
    scores, firsts = list[dict[str, float]](), list[Miss]()
    for query, similarity in enumerate(_similarities(data, queries, corpus)):
        gains = _gains(data, query)
        ranks, worth = metrics.relevant_ranks(similarity, gains)
        scores.append(metrics.search_scores(ranks, worth, cutoffs))
        best, nearest = (int(values.argmax()) for values in (np.where(gains > 0, similarity, -np.inf), similarity))
        firsts.append(Miss(data.queries[query], int(ranks[0]), data.corpus[best], data.corpus[nearest]))
        meter.advance()
    values = {name: np.array([of_query[name] for of_query in scores]) for name in scores[0]}
    worst = sorted((miss for miss in firsts if miss.rank > 1), key=lambda miss: -miss.rank)[:MISSED]
    return SearchReport(
        queries=len(data.queries),
        corpus=len(data.corpus),
        scores={name: float(found.mean()) for name, found in values.items()},
        intervals={name: _interval(found, seed) for name, found in values.items()},
        missed=worst,
    )


def _check(data: SearchSet, cutoffs: Sequence[int]) -> None:
    """Raises UserError where a set that somebody made, or the cutoffs, cannot be searched for."""
    if not data.queries or len(data.queries) != len(data.relevant):
        raise UserError(f"retrieval: {len(data.queries)} queries, and what is relevant to {len(data.relevant)}")
    for query, found in zip(data.queries, data.relevant, strict=True):
        if not found or not all(0 <= row < len(data.corpus) and grade > 0 for row, grade in found.items()):
            raise UserError(
                f"retrieval: query {query!r}: relevant must be rows of the corpus, 0 to {len(data.corpus) - 1}, with "
                "grades above 0, one row at least"
            )
    if any(cutoff < 1 for cutoff in cutoffs):
        raise UserError(f"retrieval: cutoffs {list(cutoffs)}, must be 1 or more")


def _interval(values: NDArray[np.float64], seed: int) -> Interval:
    """95 % of the mean of values from 0 to 1, one for each query; if all are 0 or all 1, as `metrics.unseen` says."""
    low, high = metrics.mean_interval(values, seed=seed)
    share = metrics.unseen(len(values))
    return (min(low, 1 - share) if (values == 1).all() else low), (max(high, share) if (values == 0).all() else high)


def _gains(data: SearchSet, query: int) -> NDArray[np.float64]:
    """(m,) how relevant each text is to a query."""
    gains = np.zeros(len(data.corpus))
    gains[list(data.relevant[query])] = list(data.relevant[query].values())
    return gains


def _similarities(data: SearchSet, queries: Floats, corpus: Floats) -> Iterator[Floats]:
    """The cosines (m,) of each query; -inf for a text that equals the query and is not marked relevant."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(data.corpus):
        places.setdefault(text, []).append(place)
    step = max(1, BLOCK // max(1, len(corpus)))
    for start in range(0, len(queries), step):
        for query, similarity in enumerate(queries[start : start + step] @ corpus.T, start=start):
            itself = [place for place in places.get(data.queries[query], []) if place not in data.relevant[query]]
            similarity[itself] = -np.inf
            yield similarity
