import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpairs.core.exceptions import UserError
from qpairs.data.pairs import join, pairs_from_texts

QUESTION = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


def contents(pairs):
    return [(*pairs.texts(i), int(pairs.labels[i])) for i in range(len(pairs))]


def cleaned(rows):
    return [(" ".join(a.split()), " ".join(b.split()), y) for a, b, y in rows]


def test_identical_questions_are_one_row():
    pairs = pairs_from_texts(["a", "b ", "a"], ["b", "c", "a"], [1, 0, 1])
    assert pairs.questions == ("a", "b", "c")
    assert pairs.left.tolist() == [0, 1, 0]
    assert pairs.right.tolist() == [1, 2, 0]
    assert pairs.duplicate_ratio == pytest.approx(2 / 3)
    assert len(pairs_from_texts([], [], [])) == 0 == pairs_from_texts([], [], []).duplicate_ratio


@given(st.lists(st.tuples(QUESTION, QUESTION, st.integers(0, 1)), min_size=1, max_size=8), st.data())
def test_tables_of_pairs_keep_what_they_are_given(rows, data):
    pairs = pairs_from_texts(*zip(*rows, strict=True))
    assert contents(pairs) == cleaned(rows)
    assert len(set(pairs.questions)) == len(pairs.questions) == len(set(pairs.left) | set(pairs.right))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    for rows_wanted in (mask, np.flatnonzero(mask)):
        part = pairs.subset(rows_wanted)
        assert contents(part) == [row for row, wanted in zip(cleaned(rows), mask, strict=True) if wanted]
        assert set(part.questions) == {text for row in contents(part) for text in row[:2]}
    assert contents(join([pairs, pairs.subset(mask)])) == contents(pairs) + contents(pairs.subset(mask))


def test_pairs_from_texts_refuses_what_are_not_pairs():
    for arguments in ((["a"], ["b", "c"], [1]), (["a"], ["b"], [1, 0]), (["a"], ["b"], [2])):
        with pytest.raises(UserError):
            pairs_from_texts(*arguments)
