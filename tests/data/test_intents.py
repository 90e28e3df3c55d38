"""Intents from files, and the clusters of duplicates that are known of labelled pairs."""

import json
from pathlib import Path

import pytest

import qpairs
from qpairs.data.intents import bundled_intents, known_clusters, read_intents
from qpairs.data.splits import duplicate_components


def test_a_table_gives_the_intent_of_each_question(tmp_path: Path) -> None:
    rows = [{"Question": "how  to\npay", "Intent": "pay"}, {"Question": "why", "Intent": 7}]
    file = tmp_path / "intents.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    assert read_intents(file) == {"how to pay": "pay", "why": "7"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("question,topic\na,b\n", ["no column 'intent'", "topic"]),
        ("question,intent\na,x\na,y\n", ["row 2", "'x' and 'y'"]),
        ("question,intent\na,\n", ["row 1", "column 'intent' is empty"]),
        ("question,intent\n,x\n", ["row 1", "column 'question' has no question"]),
        ("question,intent\na,x\nb,y,z\n", ["row 2"]),
        ("question,intent\n", ["no rows"]),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(text: str, words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "intents.csv"
    file.write_text(text)
    with pytest.raises(qpairs.UserError) as refused:
        read_intents(file)
    assert "\n" not in str(refused.value)
    for word in [str(file), *words]:
        assert word in str(refused.value)


def test_all_bundled_questions_have_an_intent() -> None:
    pairs = qpairs.load_pairs("sample")
    cluster, complete = known_clusters(pairs)
    assert complete
    assert len(bundled_intents()) > 4_800
    joined = cluster[pairs.left] == cluster[pairs.right]
    assert (joined == (pairs.labels == 1)).all()
    assert len(set(cluster.tolist())) > 700


def test_one_question_that_is_not_bundled_leaves_the_labels() -> None:
    texts = list(bundled_intents())[:6]
    pairs = qpairs.pairs_from_texts([*texts[:3], "a new one"], [*texts[3:], texts[0]], [1, 1, 0, 1])
    cluster, complete = known_clusters(pairs)
    assert not complete
    assert cluster.tolist() == duplicate_components(pairs).tolist()


def test_every_question_needs_an_intent() -> None:
    pairs = qpairs.pairs_from_texts(["a", "b"], ["b", "c"], [1, 0])
    with pytest.raises(qpairs.UserError, match="2 of 3 questions have no intent, first 'b'"):
        known_clusters(pairs, {"a": "x"})
