import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import refused
from mocks import MockModel

import qpairs
from qpairs.evaluation.explain import explain, neighbours
from qpairs.evaluation.mistakes import analyse
from qpairs.models.bi_encoder import Checkpoint


@pytest.fixture(scope="module")
def pairs(pairs_csv: Path) -> qpairs.Pairs:
    return qpairs.load_pairs(pairs_csv)


def test_leaving_a_word_out_is_what_the_encoder_says_of_the_rest(checkpoint: Checkpoint) -> None:
    one, other = "How do I pay my bill?", "paying a bill"
    found = explain(checkpoint, one, other)
    assert found.similarity == pytest.approx(qpairs.predict(checkpoint, one_pair(one, other)).similarity[0])
    assert found.duplicate == (found.similarity >= checkpoint.verdict.pair.threshold)
    assert [[word.text for word in side] for side in found.words] == [one.split(), other.split()]
    for word, rest in (
        (found.words[0][3], one_pair("How do I my bill?", other)),
        (found.words[1][2], one_pair(one, "paying a")),
    ):
        without = qpairs.predict(checkpoint, rest).similarity[0]
        assert word.effect == pytest.approx(found.similarity - without, abs=1e-6)
    assert len(found.neighbours) == 0
    assert [word.text for word in explain(checkpoint, "pay", "bill").words[0]] == ["pay"]


def one_pair(one: str, other: str) -> qpairs.Pairs:
    return qpairs.pairs_from_texts([one], [other], [-1])


def test_neighbours_are_the_nearest_of_either_label_in_the_better_order(
    checkpoint: Checkpoint, pairs: qpairs.Pairs
) -> None:
    one, other = pairs.texts(5)
    found = explain(checkpoint, other, one, trained_on=pairs, count=2).neighbours
    assert sorted(n.label for n in found) == [0, 0, 1, 1]
    assert {found[0].question1, found[0].question2} == {one, other}
    assert found[0].similarity == pytest.approx(1, abs=1e-5)
    vectors = checkpoint.encoder.encode([one, other])
    ends = checkpoint.encoder.encode(list(pairs.questions))
    likeness = vectors @ ends.T
    means = [
        max(likeness[0, a] + likeness[1, b], likeness[0, b] + likeness[1, a]) / 2
        for a, b in zip(pairs.left, pairs.right, strict=True)
    ]
    for label in (0, 1):
        best = sorted((m for m, y in zip(means, pairs.labels, strict=True) if y == label), reverse=True)[:2]
        assert [n.similarity for n in found if n.label == label] == pytest.approx(best, abs=1e-5)


def test_of_many_training_pairs_the_nearest_by_words_are_compared(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    found = neighbours(checkpoint, pairs.texts(5), pairs, count=1, compared=20)
    assert {found[0].question1, found[0].question2} == set(pairs.texts(5))
    assert len(neighbours(checkpoint, pairs.texts(5), pairs, count=50, compared=20)) == 20


class Letters:
    """Unit vectors of letter counts, which the right tower weighs in another way."""

    dimension = 26

    def encode(self, texts, side="left"):
        counts = np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
        vectors = counts * np.linspace(1, 3, 26) if side == "right" else counts
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def test_two_towers_are_explained_too(pairs: qpairs.Pairs) -> None:
    model = MockModel(Letters(), one_tower=False)
    found = explain(model, *pairs.texts(5), trained_on=pairs, count=1)
    swapped = explain(model, *pairs.texts(5)[::-1], trained_on=pairs, count=1)
    assert [n.similarity for n in found.neighbours] == pytest.approx([n.similarity for n in swapped.neighbours])
    assert found.similarity == pytest.approx(swapped.similarity)
    assert analyse(model, pairs).mistakes()


def test_errors_and_explain_say_when_the_training_pairs_are_gone(
    run, checkpoint: Checkpoint, pairs_csv: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(checkpoint.config, data=(str(tmp_path / "gone.csv"),))
    qpairs.save_checkpoint(dataclasses.replace(checkpoint, config=config), tmp_path / "moved")
    assert "known words are those of the data" in " ".join(run("errors", "moved", "--data", pairs_csv)[1].split())
    assert "No neighbours" in run("explain", "moved", "how?", "why?")[1]
    assert "No neighbours" not in run("explain", "moved", "how?", "why?", "--neighbours", "0")[1]


def test_explain_shows_verdict_words_and_neighbours(run, checkpoint: Checkpoint) -> None:
    code, shown, wrong = run("explain", checkpoint.config.output, "How do I pay [now]?", "Where do I pay?")
    assert code == 0, wrong
    assert "threshold" in shown.splitlines()[0]
    for words in ("[now]?", "█", "labelled duplicates", "labelled not duplicates"):
        assert words in shown


def test_without_scikit_learn_many_training_pairs_are_refused_in_one_line(
    checkpoint: Checkpoint, pairs: qpairs.Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    assert len(neighbours(checkpoint, pairs.texts(5), pairs, count=1)) == 2
    with pytest.raises(qpairs.UserError, match="among 600 pairs needs sklearn"):
        neighbours(checkpoint, pairs.texts(5), pairs, count=1, compared=20)


@pytest.mark.parametrize(
    ("questions", "words"),
    [
        (["how?", "  "], ["question2", "no question"]),
        (["x" * 30_000, "why?"], ["question1", "30,000"]),
        (["how?", "caf\udce9?"], ["question2", "not valid Unicode"]),
    ],
)
def test_bad_questions_are_one_line(run, checkpoint: Checkpoint, questions: list[str], words: list[str]) -> None:
    refused(run("explain", checkpoint.config.output, *questions), *words)
