"""The index in memory: what it finds of a question is the same whatever else is asked, nearest and oldest first."""

import itertools

import numpy as np
import pytest
from test_index import clustered

from qpairs.retrieval import memory
from qpairs.retrieval.memory import MemoryIndex


def index_of(vectors: np.ndarray) -> MemoryIndex:
    names = [f"id{row}" for row in range(len(vectors))]
    return MemoryIndex(vectors, names, [f"t{row}" for row in range(len(vectors))])


def repeated(n: int, times: int, width: int = 60) -> np.ndarray:
    """(n * times, width) unit vectors, each of them several times, in any order."""
    return np.random.default_rng(1).permutation(np.repeat(clustered(n, width), times, axis=0))


def test_what_is_found_of_a_question_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    index, asked = index_of(repeated(150, 7)), clustered(90, 60, seed=2)
    together = index.search(asked, 20)
    assert together == [index.search(one[None], 20)[0] for one in asked]
    assert [hits[:3] for hits in together] == index.search(asked, 3)
    monkeypatch.setattr(memory, "COMPARED", 17 * len(index))
    assert index.search(asked, 20) == together


@pytest.mark.parametrize("k", [1, 20, 1_050, 5_000])
@pytest.mark.parametrize(("n", "times", "width"), [(150, 7, 60), (9, 3, 30)])
def test_the_nearest_come_first_and_of_equal_cosines_the_oldest(n: int, times: int, width: int, k: int) -> None:
    vectors = repeated(n, times, width)
    index, asked = index_of(vectors), np.concatenate([clustered(50, width, seed=2), vectors[:9]])
    for query in asked:
        (hits,) = index.search(query[None], k)
        cosines = vectors.astype(np.float64) @ query.astype(np.float64)
        assert len(hits) == min(k, len(vectors))
        np.testing.assert_allclose([hit.similarity for hit in hits], np.sort(cosines)[::-1][: len(hits)], atol=1e-6)
        rows = [int(hit.id[2:]) for hit in hits]
        assert all(one.similarity >= other.similarity for one, other in itertools.pairwise(hits))
        for one, other in itertools.pairwise(rows):
            assert one < other or (vectors[one] != vectors[other]).any()


def test_an_empty_index_finds_nothing() -> None:
    assert index_of(np.empty((0, 60), np.float32)).search(clustered(2, 60), 3) == [[], []]
