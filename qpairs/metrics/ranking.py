"""Ranking: average precision, ROC AUC, search and mining in a table of questions, and search in a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qpairs.metrics.inputs import BLOCK, Bools, Floats, Ints, as_labelled, as_scores, ratio

Tables = tuple[NDArray[np.float32], NDArray[np.float32]]


def distinct_cuts(scores: Floats, duplicate: Bools) -> tuple[Floats, Ints, Ints]:
    """The distinct scores, falling, and how many duplicates and pairs lie at or above each; three (k,)."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    return ranked[last], np.cumsum(duplicate[order], dtype=np.int64)[last], last.astype(np.int64) + 1


def precision_recall_curve(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and threshold at every distinct score, thresholds rising; three (k,).

    >>> precision, recall, thresholds = precision_recall_curve([0.9, 0.1], [1, 0])
    >>> precision.tolist(), recall.tolist(), thresholds.tolist()
    ([0.5, 1.0], [1.0, 1.0], [0.1, 0.9])
    """
    distinct, tp, called = distinct_cuts(*as_labelled(scores, labels))
    return (tp / called)[::-1], (tp / tp[-1])[::-1], distinct[::-1]


def area_under_cuts(tp: ArrayLike, called: ArrayLike, relevant: float) -> float:
    """Average precision of cuts: the sum of precision times the gain in recall.

    Args:
        tp: (k,) duplicates at or above each cut, rising.
        called: (k,) pairs at or above each cut.
        relevant: all duplicates; 0 gives 0.
    """
    tp = np.asarray(tp, dtype=np.float64)
    return float((np.diff(tp, prepend=0.0) * ratio(tp, called)).sum() / relevant) if relevant else 0.0


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the stepwise precision-recall curve (not interpolated), one step per distinct score.

    >>> round(average_precision([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]), 3)
    0.833
    """
    _, tp, called = distinct_cuts(*as_labelled(scores, labels))
    return area_under_cuts(tp, called, int(tp[-1]))


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that a duplicate scores above a non-duplicate, ties counting half (Hanley and McNeil, 1982).

    >>> roc_auc([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
    0.75
    """
    _, tp, called = distinct_cuts(*as_labelled(scores, labels))
    fp = called - tp
    above = tp + np.append(0, tp[:-1])
    return float((np.diff(fp, prepend=0) * above).sum() / (2 * int(tp[-1]) * int(fp[-1])))


def spearman(scores: ArrayLike, grades: ArrayLike) -> float:
    """Rank correlation of scores and grades (Spearman 1904), ties sharing their mean rank; 0 where one is constant.

    >>> round(spearman([0.1, 0.4, 0.35, 0.8], [0.0, 0.2, 0.4, 1.0]), 3)
    0.8
    """
    values, wanted = as_scores(scores), as_scores(grades, "grades")
    if len(values) != len(wanted):
        raise ValueError(f"{len(values)} scores but {len(wanted)} grades")
    if np.ptp(values) == 0 or np.ptp(wanted) == 0:
        return 0.0
    from scipy.stats import rankdata  # slow to import

    return float(np.corrcoef(rankdata(values), rankdata(wanted))[0, 1])


def retrieval_scores(
    embeddings: ArrayLike, component: ArrayLike, *, others: ArrayLike | None = None, chunk: int = 1024
) -> dict[str, float]:
    """Scores of searching the question table: each question that has a duplicate against all other questions.

    Recall at k is |duplicates among the first k| / |duplicates|, the standard definition: it cannot reach 1 for a
    question of more than k duplicates. The reciprocal rank is that of the first duplicate, 0 beyond 10. Both are
    means over the queries. Ties (cosines are compared in millionths) are broken pessimistically: a non-duplicate of
    equal cosine comes first.

    Args:
        embeddings: (n, d) unit vectors.
        component: (n,) duplicate component of each question; negative, or a component of one, means no duplicates.
        others: (n, d) embeddings of the same questions as what is searched, where a second tower makes them.
        chunk: queries at a time at most; fewer where the table is long, so that memory stays flat.

    Returns:
        mrr_at_10, recall_at_1, recall_at_5, recall_at_10.

    >>> retrieval_scores([[1, 0], [1, 0], [0, 1]], [0, 0, -1])["mrr_at_10"]
    1.0
    """
    tables, start, size = _tables(embeddings, component, others)
    queries = np.flatnonzero(size > 1)
    step = max(1, min(chunk, BLOCK // len(size)))
    ranks = np.concatenate(
        [_ranks(tables, start, size, queries[begin : begin + step]) for begin in range(0, len(queries), step)]
    )  # (queries, 10)
    duplicates = size[queries] - 1
    recall = {f"recall_at_{k}": float(((ranks <= k).sum(axis=1) / duplicates).mean()) for k in (1, 5, 10)}
    return {"mrr_at_10": float(np.where(ranks[:, 0] <= 10, 1 / ranks[:, 0], 0.0).mean()), **recall}


def _ranks(tables: Tables, start: Ints, size: Ints, query: Ints) -> Floats:
    """Pessimistic ranks of the 10 best duplicates of each query, (q, 10): exact up to 10, beyond it merely greater."""
    similarity = _cosines(tables[0][query], tables[1])  # (q, n)
    run = start[query, None] + np.arange(size[query].max())  # (q, largest component)
    outside = (run >= (start + size)[query, None]) | (run == query[:, None])
    run = np.where(outside, query[:, None], run)
    relevant = np.where(outside, np.float32(-np.inf), np.take_along_axis(similarity, run, axis=1))
    np.put_along_axis(similarity, run, np.float32(-np.inf), axis=1)
    hits, misses = _greatest(relevant, 10), _greatest(similarity, 10)  # (q, <= 10) each
    ranks = np.full((len(query), 10), np.inf)
    for place in range(hits.shape[1]):
        before = place + (misses >= hits[:, place, None]).sum(axis=1)
        ranks[:, place] = np.where(np.isfinite(hits[:, place]), 1 + before, np.inf)
    return ranks


def mining_average_precision(
    embeddings: ArrayLike,
    component: ArrayLike,
    *,
    others: ArrayLike | None = None,
    max_pairs: int | None = None,
    chunk: int = 1024,
) -> float:
    """Average precision of finding the duplicates of a question table: all pairs of it, ranked by cosine.

    Only the `max_pairs` closest pairs are kept (10 per question if not given); duplicates beyond them count as not
    found. Ties (cosines are compared in millionths) are never split: equal pairs that do not all fit are left out.

    Args:
        embeddings: (n, d) unit vectors.
        component: (n,) duplicate component of each question; negative means no duplicates.
        others: (n, d) embeddings as the second of a pair, such that their product with the first ones is symmetric.
        max_pairs: pairs kept.
        chunk: rows at a time at most; fewer where the table is long, so that memory stays flat.

    >>> float(mining_average_precision(np.eye(4, dtype=np.float32)[[0, 0, 1, 2]], np.array([0, 0, 1, 2])))
    1.0
    """
    tables, start, size = _tables(embeddings, component, others)
    kept = 10 * len(size) if max_pairs is None else max_pairs
    if kept < 1:
        raise ValueError(f"max_pairs must be at least 1, not {kept}")
    values, relevant, floor = np.empty(0, dtype=np.float32), np.empty(0, dtype=bool), np.float32(-np.inf)
    for similarity, same in _pair_blocks(tables, start, size, chunk):
        above = similarity > floor
        values, relevant = np.append(values, similarity[above]), np.append(relevant, same[above])
        if len(values) > kept:
            floor = np.partition(values, len(values) - kept - 1)[len(values) - kept - 1]
            above = values > floor
            values, relevant = values[above], relevant[above]
    if not len(values):
        return 0.0
    _, tp, called = distinct_cuts(values.astype(np.float64), relevant)
    total = float((size - 1).sum() / 2)
    return area_under_cuts(tp, called, total)


def _pair_blocks(tables: Tables, start: Ints, size: Ints, chunk: int) -> Iterator[tuple[NDArray[np.float32], Bools]]:
    """Cosine, and whether it is a duplicate, of every pair of rows once; in blocks of bounded length."""
    n = len(size)
    step = max(1, min(chunk, BLOCK // n))
    for begin in range(0, n, step):
        rows = np.arange(begin, min(begin + step, n))
        later = np.arange(begin, n) > rows[:, None]  # (rows, n - begin)
        same = np.arange(begin, n) < (start + size)[rows, None]  # rows of a component are neighbours
        yield _cosines(tables[0][rows], tables[1][begin:])[later], same[later]


def _tables(embeddings: ArrayLike, component: ArrayLike, others: ArrayLike | None) -> tuple[Tables, Ints, Ints]:
    """Both sides' embeddings ordered by component, so that a component is a run of rows; start and size of each run.

    Returns:
        embeddings (n, d) of the questions as queries, and as what is found; start (n,), size (n,) of the run, size 1
        for questions without component.
    """
    table, group = np.asarray(embeddings, dtype=np.float32), np.asarray(component)
    found = table if others is None else np.asarray(others, dtype=np.float32)
    if table.ndim != 2 or group.shape != table.shape[:1] or found.shape != table.shape:
        raise ValueError(f"embeddings (n, d) and component (n,) do not fit: {table.shape} and {group.shape}")
    if not (np.isfinite(table).all() and np.isfinite(found).all()):
        raise ValueError("embeddings contain NaN or infinity")
    alone = group < 0
    group = np.where(alone, group.max(initial=-1) + 1 + np.cumsum(alone), group)
    order = np.argsort(group, kind="stable")
    _, start, index, size = np.unique(group[order], return_index=True, return_inverse=True, return_counts=True)
    if not (size > 1).any():
        raise ValueError("no question of the table has a duplicate: nothing can be retrieved")
    return (table[order], found[order]), start[index].astype(np.int64), size[index].astype(np.int64)


def _cosines(rows: NDArray[np.float32], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines in whole millionths, (rows, table), so that a difference by rounding of float32 is a tie."""
    similarity: NDArray[np.float32] = rows @ table.T
    similarity *= np.float32(1e6)
    np.rint(similarity, out=similarity)
    return similarity


def _greatest(similarity: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The k greatest of each row, falling; (n, m) -> (n, min(k, m))."""
    kept = np.partition(similarity, similarity.shape[1] - k, axis=1)[:, -k:] if similarity.shape[1] > k else similarity
    return np.sort(kept, axis=1)[:, ::-1]


def relevant_ranks(similarity: ArrayLike, gains: ArrayLike) -> tuple[Ints, Floats]:
    """The rank of each relevant text among those of a corpus, best first, and its gain; two (r,).

    Ties (cosines are compared in millionths) are broken pessimistically: the text of the smaller gain comes first.

    Args:
        similarity: (m,) of a query to each text; -inf for texts that are not searched.
        gains: (m,) how relevant each is, from 0 for not at all.

    >>> relevant_ranks([0.9, 0.8, 0.9, 0.1], [1, 2, 0, 0])
    (array([2, 3]), array([1., 2.]))
    """
    values, gain = np.rint(np.asarray(similarity, dtype=np.float64) * 1e6), np.asarray(gains, dtype=np.float64)
    if values.shape != gain.shape or values.ndim != 1:
        raise ValueError(f"similarity and gains must be vectors of one length, not {values.shape} and {gain.shape}")
    if not (values < np.inf).all() or not np.isfinite(gain).all() or (gain < 0).any():
        raise ValueError("similarity must not be NaN or infinity, and gains must be finite numbers from 0 on")
    relevant = np.flatnonzero(gain > 0)
    relevant = relevant[np.lexsort((gain[relevant], -values[relevant]))]
    others = np.sort(values[gain == 0])
    before = len(others) - np.searchsorted(others, values[relevant], side="left")  # (r,)
    return before + np.arange(1, len(relevant) + 1), gain[relevant]


def search_scores(ranks: ArrayLike, gains: ArrayLike, cutoffs: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Scores of one query's search, from the ranks of all that is relevant to it.

    Recall at k is the share of the relevant texts among the first k; mrr the reciprocal rank of the first of them;
    map the average precision (Manning et al. 2008, section 8.4), mean over the relevant texts of the share of relevant
    ones down to each; nDCG at k the sum of gain / log2(1 + rank) over the first k by that of the best order (Järvelin
    and Kekäläinen 2002).

    Args:
        ranks: (r,) from 1 on, rising, of all relevant texts.
        gains: (r,) their gains, above 0.
        cutoffs: the k.

    Returns:
        mrr, map, and for each k recall_at_k and ndcg_at_k.

    >>> {name: round(value, 3) for name, value in search_scores([1, 4], [1, 1], cutoffs=[2]).items()}
    {'mrr': 1.0, 'map': 0.75, 'recall_at_2': 0.5, 'ndcg_at_2': 0.613}
    """
    rank, gain = np.asarray(ranks, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    if not len(rank) or rank.shape != gain.shape or (np.diff(rank) <= 0).any() or (gain <= 0).any():
        raise ValueError("a query needs relevant texts, their ranks rising and their gains above 0")
    found = {"mrr": float(1 / rank[0]), "map": float((np.arange(1, len(rank) + 1) / rank).mean())}
    worth, best = gain / np.log2(1 + rank), np.sort(gain)[::-1] / np.log2(np.arange(2, len(gain) + 2))
    for k in cutoffs:
        within = rank <= k
        found[f"recall_at_{k}"] = float(within.mean())
        found[f"ndcg_at_{k}"] = float(worth[within].sum() / best[:k].sum())
    return found
