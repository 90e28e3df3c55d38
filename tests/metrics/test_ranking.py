from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_scores import REPEATABLE, Floats, Ints, judged
from numpy.typing import NDArray
from sklearn import metrics as oracle

from qpairs.metrics import (
    average_precision,
    mining_average_precision,
    precision_recall_curve,
    retrieval_scores,
    roc_auc,
)


@REPEATABLE
@given(judged())
def test_ranking_is_that_of_scikit_learn(data: tuple[Floats, Ints]) -> None:
    scores, labels = data
    assert average_precision(scores, labels) == pytest.approx(oracle.average_precision_score(labels, scores))
    assert roc_auc(scores, labels) == pytest.approx(oracle.roc_auc_score(labels, scores))
    theirs = oracle.precision_recall_curve(labels, scores)
    mine = precision_recall_curve(scores, labels)
    for ours, other, end in zip(mine, theirs, (-1, -1, None), strict=True):
        np.testing.assert_allclose(ours, other[:end])


@REPEATABLE
@given(judged())
def test_roc_auc_of_negated_scores_is_the_rest(data: tuple[Floats, Ints]) -> None:
    scores, labels = data
    assert roc_auc(-scores, labels) == pytest.approx(1 - roc_auc(scores, labels))


def naive_retrieval(embeddings: Floats, component: Ints) -> dict[str, float]:
    rows = []
    similarity = np.rint(1e6 * (embeddings @ embeddings.T))
    for query in range(len(embeddings)):
        others = [j for j in range(len(embeddings)) if j != query]
        relevant = {j for j in others if component[j] == component[query] >= 0}
        if not relevant:
            continue
        ranking = sorted(others, key=lambda j: (-similarity[query, j], j in relevant))
        hits = [j in relevant for j in ranking]
        first = hits.index(True) + 1
        rows.append([1 / first if first <= 10 else 0.0] + [sum(hits[:k]) / len(relevant) for k in (1, 5, 10)])
    return dict(zip(("mrr_at_10", "recall_at_1", "recall_at_5", "recall_at_10"), np.mean(rows, axis=0), strict=True))


@st.composite
def tables(draw: st.DrawFn) -> tuple[Floats, Ints]:
    """Unit vectors on a coarse grid (many ties) and components, at least one of them of two questions."""
    n = draw(st.integers(2, 45))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    component = rng.integers(-1, max(1, n // draw(st.integers(1, 12))), n)
    component[:2] = 3
    vectors = rng.integers(-1, 2, (n, 3)) + 0.5
    embeddings = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = rng.permutation(n)
    return embeddings[order], component[order]


@REPEATABLE
@given(tables(), st.sampled_from([1, 3, 1024]))
def test_retrieval_agrees_with_a_loop(table: tuple[Floats, Ints], chunk: int) -> None:
    assert retrieval_scores(*table, chunk=chunk) == pytest.approx(naive_retrieval(*table))


def naive_mining(embeddings: Floats, component: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    left, right = np.triu_indices(len(embeddings), 1)
    similarity = np.rint(1e6 * (embeddings @ embeddings.T))
    return similarity[left, right], (component[left] == component[right]) & (component[left] >= 0)


@REPEATABLE
@given(tables(), st.sampled_from([1, 3, 1024]), st.integers(1, 200))
def test_mining_agrees_with_a_loop(table: tuple[Floats, Ints], chunk: int, kept: int) -> None:
    scores, labels = naive_mining(*table)
    everything = mining_average_precision(*table, max_pairs=len(scores), chunk=chunk)
    assert everything == pytest.approx(oracle.average_precision_score(labels, scores))
    falling = -np.sort(-scores)
    whole = scores > falling[kept] if kept < len(scores) else np.ones_like(labels)
    found = labels[whole].sum()
    share = oracle.average_precision_score(labels[whole], scores[whole]) * found / labels.sum() if found else 0.0
    assert mining_average_precision(*table, max_pairs=kept, chunk=chunk) == pytest.approx(share)


def test_perfect_and_collapsed_tables() -> None:
    component = np.repeat(np.arange(30), 3)
    perfect = np.eye(30)[component]
    assert retrieval_scores(perfect, component) == {
        "mrr_at_10": 1,
        "recall_at_1": 0.5,
        "recall_at_5": 1,
        "recall_at_10": 1,
    }
    assert mining_average_precision(perfect, component) == 1
    noise = np.random.default_rng(15).normal(size=(90, 8)) * 1e-8
    collapsed = np.full((90, 8), 8**-0.5) + noise
    assert set(retrieval_scores(collapsed, component).values()) == {0.0}
    assert mining_average_precision(collapsed, component) == 0
    everything = mining_average_precision(collapsed, component, max_pairs=10_000)
    assert everything == pytest.approx(90 / (90 * 89 / 2))


def test_the_chunk_of_queries_changes_nothing() -> None:
    rng = np.random.default_rng(16)
    vectors = rng.normal(size=(500, 16))
    embeddings, component = vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rng.integers(-1, 200, 500)
    assert retrieval_scores(embeddings, component, chunk=7) == retrieval_scores(embeddings, component)
    assert mining_average_precision(embeddings, component, chunk=7) == pytest.approx(
        mining_average_precision(embeddings, component)
    )
