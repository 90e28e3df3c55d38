"""Identical texts are duplicates at any threshold, and no two questions that are kept are duplicates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpairs.encoders.build import build_encoder
from qpairs.retrieval.clusters import clusters
from qpairs.retrieval.dedupe import dedupe
from qpairs.retrieval.matches import Matches, find_matches

VERBS, THINGS = ("pay", "change", "find", "stop"), ("bill", "card", "plan")
TEXTS = [f"how do i {verb} my {thing}" for verb in VERBS for thing in THINGS]


@pytest.fixture(scope="module")
def encode():
    return build_encoder("static", texts=TEXTS).encode


def test_the_same_texts_of_another_corpus_are_asked_at_threshold_1(encode) -> None:
    found = dedupe(TEXTS, encode, 1.0, against=TEXTS[::-1])
    assert found.kept.tolist() == []
    assert found.asked.right.tolist() == list(range(len(TEXTS)))[::-1]
    assert set(found.asked.similarity.tolist()) == {1.0}
    other = dedupe(["How do I PAY my bill?!", "where is it"], encode, 1.0, against=["how do i pay my bill"])
    assert other.kept.tolist() == [1]


def test_one_question_is_the_same_whatever_its_vectors() -> None:
    random = np.random.default_rng(0)

    def encode(texts: list[str]) -> np.ndarray:
        vectors = random.normal(size=(len(texts), 4)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    assert dedupe(["a b", "A, B!", "c"], encode, 1.0, against=["x", "a b"]).kept.tolist() == [2]


def test_equal_vectors_are_duplicates_at_threshold_1() -> None:
    random = np.random.default_rng(0)
    for d in (3, 64, 768):
        vectors = random.normal(size=(200, d)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        found = find_matches(np.concatenate([vectors, vectors]), 1.0)
        assert found.left.tolist() == list(range(200)) and found.right.tolist() == list(range(200, 400))
        assert set(found.similarity.tolist()) == {1.0}


edges = st.dictionaries(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda e: e[0] < e[1]), st.sampled_from([-0.5, 0.0, 0.5])
)


@settings(max_examples=200, deadline=None)
@given(edges.filter(bool))
def test_no_two_that_are_kept_are_linked_even_at_similarity_0(weights: dict[tuple[int, int], float]) -> None:
    left, right = np.array(sorted(weights)).T
    similarity = np.array([weights[edge] for edge in sorted(weights)], np.float32)
    pairs = Matches(left, right, similarity)
    star, single = clusters(10, pairs), clusters(10, pairs, "single")
    kept = set(star.tolist())
    assert not any(a in kept and b in kept for a, b in weights)
    assert all(single[a] == single[b] for a, b in weights)


def test_pairs_of_cosine_0_are_one_cluster_at_threshold_0() -> None:
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [-1.0, 0.0]}
    found = dedupe(["a", "b", "c"], lambda texts: np.array([vectors[t] for t in texts], np.float32), 0.0)
    assert found.representative.tolist() == [1, 1, 1]
    assert found.kept.tolist() == [1]
