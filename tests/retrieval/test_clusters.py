import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qpairs.data.splits import components
from qpairs.retrieval.clusters import clusters
from qpairs.retrieval.matches import Matches


def graph(*edges: tuple[int, int, float]) -> Matches:
    left, right, similarity = zip(*sorted(edges), strict=True)
    return Matches(np.array(left), np.array(right), np.array(similarity, dtype=np.float32))


def test_a_long_chain_is_cut() -> None:
    chain = graph((0, 1, 0.9), (1, 2, 0.9), (2, 3, 0.9))
    assert list(clusters(4, chain)) == [1, 1, 1, 3]
    assert list(clusters(4, chain, "single")) == [1, 1, 1, 1]


def test_each_goes_to_the_most_similar_of_those_that_are_kept() -> None:
    stars = graph((0, 1, 0.9), (0, 2, 0.9), (0, 3, 0.8), (3, 4, 0.95), (4, 5, 0.9), (4, 6, 0.9))
    assert list(clusters(7, stars)) == [0, 0, 0, 4, 4, 4, 4]


edges = st.dictionaries(
    st.tuples(st.integers(0, 14), st.integers(0, 14)).filter(lambda e: e[0] < e[1]), st.sampled_from([0.8, 0.9, 1.0])
)


@settings(max_examples=200, deadline=None)
@given(edges.filter(bool))
def test_stars_are_what_they_promise(weights: dict[tuple[int, int], float]) -> None:
    found = graph(*((a, b, s) for (a, b), s in weights.items()))
    star, single = clusters(15, found), clusters(15, found, "single")
    linked = {(a, b) for a, b in weights} | {(b, a) for a, b in weights}
    kept = set(star.tolist())
    for question, head in enumerate(star.tolist()):
        assert question == head or (question, head) in linked  # like the one that is kept, not like a like of it
        assert star[head] == head
    assert not any((a, b) in linked for a in kept for b in kept)
    component = components(15, found.left, found.right)
    assert (component[:, None] == component).tolist() == (single[:, None] == single).tolist()
