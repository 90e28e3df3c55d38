"""Adversarial rewordings: what is found, that it is real, small, repeatable and within its budget."""

import numpy as np
import pytest
from conftest import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from mocks import MockModel

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.data.words import words
from qpairs.evaluation.attack import attack, nearest_words


class BagOfWords:
    """Vectors that count words, each in a place of its own: the cosine of two texts is that of their words."""

    dimension = 512

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.scored = 0

    def encode(self, texts, side="left"):
        self.scored += len(texts)
        table = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                table[row, self.places.setdefault(word, len(self.places))] += 1
        return table / np.linalg.norm(table, axis=1, keepdims=True).clip(min=1e-9)


PAIRS = qpairs.load_pairs(
    [
        ("reset account password", "reset account password now", 1),
        ("where is the parcel today", "where is the parcel today please", 1),
        ("cancel order", "weather forecast tomorrow", 0),
        ("open window", "close door quietly", 0),
    ]
)


def test_as_few_slips_as_can_be_turn_duplicates_and_none_makes_strangers_alike() -> None:
    found = attack(MockModel(BagOfWords()), PAIRS, 10)
    assert found.attacked == {0: 2, 1: 2}
    assert found.turned == {0: 0, 1: 2}
    short, long = sorted(found.rewordings, key=lambda one: len(one.question1))
    assert (short.words, long.words) == (2, 3)  # slips leave (3 - k) / sqrt(12) and (5 - k) / sqrt(30): the fewest
    for one in found.rewordings:
        assert one.before >= 0.5 > one.after
        assert (one.question1, one.question2) != (one.changed1, one.changed2)


def test_a_rewording_turns_the_verdict_of_the_model_itself(checkpoint, pairs_csv) -> None:
    pairs = qpairs.load_pairs(str(pairs_csv))
    found = attack(checkpoint, pairs, 60)
    assert sum(found.attacked.values()) == 60
    assert found.rewordings, "a static model of an hour's data stands every slip"
    was = checkpoint.predict([(one.question1, one.question2) for one in found.rewordings])
    now = checkpoint.predict([(one.changed1, one.changed2) for one in found.rewordings])
    labels = np.array([one.label == 1 for one in found.rewordings])
    assert (was.duplicate == labels).all()
    assert (now.duplicate != labels).all()
    assert found.words == np.mean([one.words for one in found.rewordings])
    assert all(1 <= one.words <= 4 for one in found.rewordings)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_it_is_repeatable_and_stays_within_its_budget(seed: int, budget: int) -> None:
    one, other = (attack(MockModel(BagOfWords()), PAIRS, 3, budget=budget, seed=seed) for _ in range(2))
    assert one.to_dict() == other.to_dict()
    assert one.scored <= budget


def test_what_is_not_needed_is_taken_back() -> None:
    """A change that was made before the one that turns the verdict alone must not be counted."""

    class Keyword:
        dimension = 2

        def encode(self, texts, side="left"):
            angles = [0.2 * ("parcel" not in text) + 1.5 * ("where" not in text.split()) for text in texts]
            return np.array([[np.cos(a), np.sin(a)] for a in angles], dtype=np.float32)

    pairs = qpairs.load_pairs([("where parcel", "where parcel now", 1), ("a", "where parcel", 0)])
    found = attack(MockModel(Keyword()), pairs, 2)
    (turned,) = [one for one in found.rewordings if one.label == 1]
    assert turned.words == 1


def test_nearest_words_come_from_the_vectors_and_are_alike(tmp_path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("fast 1 0\nquick 0.9 0.1\nslow -1 0\nother 0 1\n")
    nearest = nearest_words(str(file), ["How fast?"])
    assert list(nearest("fast")) == ["quick"]
    assert list(nearest("unknown")) == []
    pairs = qpairs.load_pairs([("fast fast so", "fast fast so", 1), ("so", "other", 0)])
    plain, informed = (attack(MockModel(BagOfWords()), pairs, 2, vectors=v) for v in ("", str(file)))
    assert plain.turned[1] == 0  # no word is long enough for a slip
    assert informed.turned[1] == 1


def test_it_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UserError, match="1 or more"):
        attack(MockModel(BagOfWords()), PAIRS, 0)
    wrong = qpairs.load_pairs([("a b", "a b", 0), ("c d", "e f", 1)])
    with pytest.raises(UserError, match="no pair correctly"):
        attack(MockModel(BagOfWords()), wrong, 5)


def test_the_command_prints_rate_and_examples(run, checkpoint, pairs_csv) -> None:
    result = run("evaluate", checkpoint.path, "--data", pairs_csv, "--attack", "30", "--json", "x.json")
    assert result.code == 0, result.err
    assert "flipped by rewording" in " ".join(result.out.split())
    refused(run("evaluate", checkpoint.path, "--data", pairs_csv, "--attack", "-1"), "--attack")
