import pytest

import qpairs
from qpairs.data.augment import generate_pairs
from qpairs.data.identity import canonical
from qpairs.data.parts import load_parts
from qpairs.data.perturbations import PERTURBATIONS
from qpairs.data.splits import contradictions


@pytest.fixture(scope="module")
def pairs(sample_rows: list) -> qpairs.Pairs:
    first, second, labels = zip(*sample_rows, strict=True)
    return qpairs.pairs_from_texts(first, second, labels)


def test_generated_pairs_are_new_and_labelled_by_their_kind(pairs: qpairs.Pairs) -> None:
    before = generate_pairs(pairs, 0.5, seed=0)[0]
    taken = [text for text in before.questions if text not in pairs.questions][:20]
    more, counts = generate_pairs(pairs, 0.5, seed=0, taken=taken)
    assert len(more) == sum(counts.values()) == 300
    assert int((more.labels == 1).sum()) == sum(n for kind, n in counts.items() if PERTURBATIONS[kind].same)
    known = {canonical(text) for text in (*pairs.questions, *taken)}
    changed = [more.texts(row)[1] for row in range(len(more))]
    for row, text in enumerate(changed):
        origin = more.texts(row)[0]
        assert origin in pairs.questions
        assert canonical(text) not in known or canonical(text) == canonical(origin)
    assert len(set(changed)) == len(changed)
    assert len(contradictions(more)) == 0


def test_generated_pairs_follow_the_seed(pairs: qpairs.Pairs) -> None:
    questions = [generate_pairs(pairs, 0.1, seed)[0].questions for seed in (0, 0, 1)]
    assert questions[0] == questions[1] != questions[2]


def test_rules_run_dry_without_fault() -> None:
    few = qpairs.pairs_from_texts(["a b"], ["c d"], [0])
    more, counts = generate_pairs(few, 1.0, seed=0)
    assert len(more) == 1
    assert sum(counts.values()) == 1
    many = qpairs.pairs_from_texts(["??"] * 50, ["!!"] * 50, [0] * 50)
    assert len(generate_pairs(many, 1.0, seed=0)[0]) == 0


def test_training_alone_gets_generated_pairs(pairs_csv) -> None:
    plain, more = (load_parts(qpairs.Config(data=str(pairs_csv), augment=share)) for share in (0.0, 0.25))
    added = len(more.train) - len(plain.train)
    assert added == round(0.25 * len(plain.train)) == sum(more.split["generated"].values())
    assert more.split["fingerprint"] == plain.split["fingerprint"]
    assert more.split["sizes"] == plain.split["sizes"]
    others = {canonical(text) for part in (plain.validation, plain.test) for text in part.questions}
    assert not others & {canonical(text) for text in more.train.questions}
    assert more.validation.questions == plain.validation.questions
    for row in range(len(plain.train)):
        assert more.train.texts(row) == plain.train.texts(row)


def test_sides_of_different_kinds_cannot_be_augmented(pairs_csv, tmp_path) -> None:
    with pytest.raises(qpairs.UserError, match=r"augment.*--no-symmetric"):
        qpairs.train(data=str(pairs_csv), encoder="static", augment=0.1, symmetric=False, output=str(tmp_path / "x"))
