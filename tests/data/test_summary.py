"""The summary of a pair table."""

from qpairs.data.pairs import Pairs, pairs_from_texts
from qpairs.data.summary import summarize


def table() -> Pairs:
    rows = [("a b", "c d e", 1), ("c d e", "e f", 1), ("a b", "e f", 0), ("x y", "z w", 0)]
    return pairs_from_texts(*zip(*rows, strict=True))


def test_the_figures_of_a_small_table() -> None:
    found = summarize(table())
    assert found.words.tolist() == [2, 3, 2, 2, 2]
    assert sorted(found.components.tolist()) == [2, 3]
    assert found.contradictions.tolist() == [2]
    assert found.split is None  # too few components for three parts
    frame = found.contradiction_table()
    assert frame.to_dict("list") == {"question1": ["a b"], "question2": ["e f"], "is_duplicate": [0]}


def test_examples_are_of_their_kind_and_of_their_seed() -> None:
    found = summarize(table())
    everything = found.examples(9)
    assert sorted(everything["duplicates"]) == [("a b", "c d e"), ("c d e", "e f")]
    assert sorted(everything["not duplicates"]) == [("a b", "e f"), ("x y", "z w")]
    assert everything["contradictions"] == [("a b", "e f")]
    assert found.examples(1, seed=3) == found.examples(1, seed=3)
    assert {tuple(found.examples(1, seed=seed)["duplicates"]) for seed in range(20)} == {
        (("a b", "c d e"),),
        (("c d e", "e f"),),
    }
    assert found.examples(0) == {"duplicates": [], "not duplicates": [], "contradictions": []}


def test_the_split_of_the_bundled_pairs_is_the_one_that_train_cuts() -> None:
    from qpairs import load_pairs, split_pairs

    pairs = load_pairs("sample")
    found = summarize(pairs, seed=1)
    assert found.split is not None
    assert found.split.fingerprint == split_pairs(pairs, seed=1).fingerprint
