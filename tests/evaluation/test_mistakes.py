import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import refused

import qpairs
from qpairs.data.parts import load_parts
from qpairs.evaluation.mistakes import (
    KINDS,
    LEAST,
    Wording,
    against_chance,
    analyse,
    edits,
    explain,
    known_words,
    names,
    neighbours,
)
from qpairs.models.base import score_pairs
from qpairs.models.bi_encoder import Checkpoint

KNOWN = known_words(["how do i pay my account in may"] * 2)


def value(kind: str, one: str, other: str) -> str | None:
    return KINDS[kind].value(Wording((one, other), KNOWN))


@pytest.fixture(scope="module")
def checkpoint(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    output = tmp_path_factory.mktemp("runs") / "x"
    return qpairs.train(data=str(pairs_csv), encoder="static", epochs=3, batch_size=16, output=str(output))


@pytest.fixture(scope="module")
def pairs(pairs_csv: Path) -> qpairs.Pairs:
    return qpairs.load_pairs(pairs_csv)


@pytest.mark.parametrize(
    ("kind", "one", "other", "expected"),
    [
        ("length", "How?", " ".join("abcdefghi"), "9 to 15 words"),
        ("length", "?", "!", "no words"),
        ("length difference", "a b", "a b c d", "2 to 4 words"),
        ("word overlap", "a b c d", "A, b!", "40 to 60 %"),
        ("word overlap", "a b", "B a", "80 to 100 %"),
        ("word overlap", "?", "!", "0 to 20 %"),
        ("question word", "How do I?", "So how come?", "how in both"),
        ("question word", "How do I?", "What can I?", "different"),
        ("question word", "How do I?", "Can I?", "in one alone"),
        ("question word", "Should I?", "Can I?", "in neither"),
        ("negation", "Why don't I pay?", "Why do I pay?", "in one alone"),
        ("negation", "Why not?", "Never?", "in both"),
        ("negation", "Why?", "How?", None),
        ("numbers", "Is 1,000 more than 7?", "is 7 less than 1,000", "the same"),
        ("numbers", "iPhone 6", "iPhone 7", "different"),
        ("numbers", "one", "two", None),
        ("names", "Is Rome old?", "Is Paris old?", "different"),
        ("names", "Is rome old? Rome is.", "Why is Rome old?", "the same"),
        ("names", "Why? Because I'm here.", "How? I am.", None),
        ("pronouns", "Do I pay?", "Do you pay?", "different"),
        ("pronouns", "Is it mine?", "Am I late?", "the same"),
        ("pronouns", "Is it?", "Why?", None),
        ("spelling", "my acount", "my account", "a likely slip"),
        ("spelling", "my accounts", "my account", None),
        ("spelling", "moy", "my", None),
        ("word order", "do I pay you", "I do pay you", "the same words, another order"),
        ("word order", "do I pay you", "do I pay you?", None),
        ("known words", "how do I pay", "pay", "all"),
        ("known words", "how do I pay", "rent", "all but one"),
        ("known words", "pay bills", "pay rent", "several are new"),
    ],
)
def test_each_rule_says_what_its_sentence_promises(kind: str, one: str, other: str, expected: str | None) -> None:
    assert value(kind, one, other) == expected
    assert value(kind, other, one) == expected


def test_names_are_the_capitalised_words_within_a_sentence() -> None:
    assert names("What is New York? Boston is (Perhaps) big") == {"new", "york"}
    assert names("ALL CAPITALS HERE") == names("Every Word Is") == names("") == set()


def test_edits_are_all_words_at_one_edit_between_the_ends() -> None:
    assert {"acount", "accoount", "acocunt", "axcount"} <= edits("account")
    assert edits("account").isdisjoint({"accounts", "accoun", "bccount", "ccount"})


def test_a_word_of_one_question_alone_is_not_known() -> None:
    assert known_words(["Pay, pay!", "pay me", "me\N{RIGHT SINGLE QUOTATION MARK}s", "me's"]) == {"pay", "me's"}


def test_every_wrong_verdict_is_a_mistake_with_its_numbers(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    found = analyse(checkpoint, pairs)
    scores, _ = score_pairs(checkpoint, pairs)
    expected = np.flatnonzero((scores >= checkpoint.verdict.pair.threshold) != (pairs.labels == 1))
    mistakes = found.mistakes()
    assert sorted(m.row for m in mistakes) == expected.tolist()
    far = [abs(m.distance) for m in mistakes]
    assert far == sorted(far, reverse=True)
    for m in mistakes[:20]:
        assert (m.question1, m.question2) == pairs.texts(m.row)
        assert m.distance == pytest.approx(m.similarity - checkpoint.verdict.pair.threshold)
        assert (m.distance >= 0) == (m.label == 0)
        assert m.probability == pytest.approx(checkpoint.verdict.pair.calibration.probability(m.similarity))
        words = set(found.wordings[m.row].words[0])
        assert set(m.shared) | set(m.only1) == words
        assert not set(m.only2) & words
        assert set(m.why) <= set(m.slices)
        assert not m.label or m.component1 == m.component2


def test_slices_count_their_own_pairs_and_mistakes(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    found = analyse(checkpoint, pairs)
    assert found.slices
    for number, (part, rows) in enumerate(zip(found.slices, found.members, strict=True)):
        values = [KINDS[part.kind].value(wording) for wording in found.wordings]
        assert rows.tolist() == [v == part.value for v in values]
        assert part.n == rows.sum() >= LEAST
        assert part.errors == found.wrong[rows].sum() == len(found.mistakes(number))
        if not rows.all() and found.wrong[~rows].any():
            assert part.lift == pytest.approx(found.wrong[rows].mean() / found.wrong[~rows].mean())
        assert part.f1_interval[0] <= part.f1 <= part.f1_interval[1]
        assert part.p_value <= part.p_corrected <= 1
    order = [(not part.worse, -part.lift) for part in found.slices]
    assert order == sorted(order)


def test_words_are_known_from_the_training_pairs(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    strangers = qpairs.pairs_from_texts(["zebra quantum"] * 2, ["xylophone", "quark"], [0, 0])
    known, unknown = (analyse(checkpoint, pairs, trained_on=other) for other in (pairs, strangers))
    assert {s.value for s in known.slices if s.kind == "known words"} > {"all"}
    assert {s.value for s in unknown.slices if s.kind == "known words"} == {"several are new"}


def test_no_mistakes_and_few_pairs_are_fine(checkpoint: Checkpoint) -> None:
    few = analyse(checkpoint, qpairs.pairs_from_texts(["a b", "c d"], ["a b", "c d"], [1, 1]))
    assert (few.mistakes(), list(few.slices)) == ([], [])
    same = [f"why is {i}" for i in range(LEAST)]
    right = analyse(checkpoint, qpairs.pairs_from_texts(same, same, [1] * LEAST))
    assert right.slices
    assert all(part.p_corrected == part.lift == 1 for part in right.slices)


def test_a_planted_slice_is_found_and_pairs_of_one_component_count_once() -> None:
    random = np.random.default_rng(0)
    members = random.random((10, 2000)) < 0.3
    wrong = random.random(2000) < np.where(members[3], 0.3, 0.15)
    alone, corrected = against_chance(wrong, members, np.arange(2000), flips=999)
    assert np.flatnonzero(corrected < 0.05).tolist() == [3]
    assert (alone <= corrected).all()
    same = np.repeat(members[:, :8], 250, axis=1), np.repeat([1, 0, 1, 0, 1, 0, 0, 0], 250).astype(bool)
    assert against_chance(same[1], same[0], np.repeat(np.arange(8), 250), flips=999)[1].min() > 0.05


def test_chance_is_called_significant_as_rarely_as_promised() -> None:
    random, found = np.random.default_rng(1), 0
    for seed in range(200):
        groups = np.sort(random.integers(0, 100, 300))
        wrong = (random.random(100) < 0.3)[groups] ^ (random.random(300) < 0.1)
        members = (random.random((8, 100)) < 0.4)[:, groups] ^ (random.random((8, 300)) < 0.1)
        found += against_chance(wrong, members, groups, flips=199, seed=seed)[1].min() <= 0.05
    assert found <= 20  # of 200; 10 are expected, 20 or fewer with probability 0.999


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


def test_two_towers_are_explained_too(pairs_csv: Path, pairs: qpairs.Pairs, tmp_path: Path) -> None:
    model = qpairs.train(
        data=str(pairs_csv), encoder="static+static", epochs=1, batch_size=32, output=str(tmp_path / "x")
    )
    found = explain(model, *pairs.texts(5), trained_on=pairs, count=1)
    swapped = explain(model, *pairs.texts(5)[::-1], trained_on=pairs, count=1)
    assert [n.similarity for n in found.neighbours] == pytest.approx([n.similarity for n in swapped.neighbours])
    assert analyse(model, pairs).mistakes()


# ---------------------------------------------------------------------- commands


def test_errors_writes_every_mistake_and_slice(run, checkpoint: Checkpoint, pairs_csv: Path) -> None:
    code, shown, wrong = run("errors", checkpoint.config.output, "--data", pairs_csv, "--output", "errors")
    assert code == 0, wrong
    known = load_parts(checkpoint.config).train
    expected = analyse(checkpoint, str(pairs_csv), trained_on=known)
    with Path("errors/mistakes.csv").open(newline="") as file:
        mistakes = list(csv.DictReader(file))
    assert [m["row"] for m in mistakes] == [str(m.row) for m in expected.mistakes()]
    assert mistakes[0]["shared"] == "; ".join(expected.mistakes()[0].shared)
    with Path("errors/slices.csv").open(newline="") as file:
        slices = list(csv.DictReader(file))
    assert [(s["kind"], s["value"], s["n"]) for s in slices] == [(s.kind, s.value, str(s.n)) for s in expected.slices]
    assert f"{len(mistakes)} of 600 verdicts are wrong" in " ".join(shown.split())
    assert expected.slices[0].name in " ".join(shown.split())
    assert "not to be read" not in shown


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["errors", "CHECKPOINT", "--data", "missing.csv"], ["missing.csv", "no such file"]),
        (["errors", "nowhere", "--data", "sample"], ["nowhere", "no such checkpoint"]),
        (["errors", "CHECKPOINT", "--data", "sample", "--output", "file"], ["file", "cannot be written"]),
        (
            ["errors", "CHECKPOINT", "--data", "sample", "--output", "folder"],
            ["folder/slices.csv", "cannot be written"],
        ),
        (["errors", "CHECKPOINT", "--data", "ones.csv"], ["errors", "all 2 pairs are duplicates"]),
        (["explain", "CHECKPOINT", "how?", "  "], ["question2", "no question"]),
        (["explain", "CHECKPOINT", "x" * 30_000, "why?"], ["question1", "30,000"]),
        (["explain", "CHECKPOINT", "how?", "caf\udce9?"], ["question2", "not valid Unicode"]),
    ],
)
def test_bad_input_is_one_line(run, checkpoint: Checkpoint, arguments: list[str], words: list[str]) -> None:
    Path("file").touch()
    Path("folder/slices.csv").mkdir(parents=True)
    Path("ones.csv").write_text("question1,question2,is_duplicate\na b,c d,1\ne f,g h,1\n")
    before = set(Path().rglob("*"))
    refused(run(*(checkpoint.config.output if a == "CHECKPOINT" else a for a in arguments)), *words)
    assert set(Path().rglob("*")) == before
