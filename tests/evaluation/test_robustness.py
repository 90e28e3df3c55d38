import json
from pathlib import Path

import pytest
from conftest import refused
from mocks import moved
from scipy.stats import norm

import qpairs
from qpairs.evaluation.robustness import failure_interval, probe
from qpairs.models.bi_encoder import Checkpoint

ROWS = [
    ("How do I fly from Paris to Rome?", "What is the way to Rome from Paris by air?", 1),
    ("How do I fly from Oslo to Bonn?", "What is the way to Bonn from Oslo by air?", 1),
    ("How do I drive from Bern to Nice?", "How do I cook an egg?", 0),
    ("Can I leave before noon?", "May I leave before noon?", 1),
    ("Can I eat after noon?", "Who is the king of Spain?", 0),
]


@pytest.fixture(scope="module")
def pairs() -> qpairs.Pairs:
    return qpairs.pairs_from_texts(*zip(*ROWS, strict=True))


def test_a_bag_of_words_fails_at_word_order_and_not_at_case(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    found = {(b.kind, b.against): b for b in probe(checkpoint, pairs, ["word-order", "case"])}
    order = found["word-order", "itself"]
    assert (order.n, order.failures, order.rate) == (3, 3, 1.0)
    assert order.examples[0].similarity == pytest.approx(1, abs=1e-5)
    assert found["case", "itself"].failures == found["case", "pairs"].failures == 0
    assert found["case", "pairs"].n == 10
    assert found["case", "itself"].examples == []


def test_kinds_are_named_in_a_list_or_in_a_text(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    assert probe(checkpoint, pairs, "typos,case") == probe(checkpoint, pairs, ["typos", "case"]) != []
    assert probe(checkpoint, pairs, []) == []
    with pytest.raises(qpairs.UserError, match="unknown kind 'typo'; did you mean 'typos'"):
        probe(checkpoint, pairs, ["typo"])


def test_failures_are_those_of_predict(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    found = {(b.kind, b.against): b for b in probe(checkpoint, pairs, ["before-after"])}
    itself = found["before-after", "itself"]
    assert itself.n == 3
    changed = [
        ("Can I leave before noon?", "Can I leave after noon?"),
        ("May I leave before noon?", "May I leave after noon?"),
    ]
    changed.append(("Can I eat after noon?", "Can I eat before noon?"))
    verdicts = qpairs.predict(checkpoint, qpairs.pairs_from_texts(*zip(*changed, strict=True), [-1] * 3))
    assert itself.failures == int(verdicts.duplicate.sum())
    for example in itself.examples:
        assert (example.question, example.changed) in changed
        assert example.other == example.question


def test_a_duplicate_pair_counts_only_where_it_was_found(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    blind = {b.against: b for b in probe(_at(checkpoint, -1.0), pairs, ["before-after"])}
    assert (blind["pairs"].n, blind["pairs"].failures) == (2, 2)  # the third question has no duplicate
    strict = {b.against: b for b in probe(_at(checkpoint, 1.1), pairs, ["before-after", "typos"])}
    assert "before-after" not in {b.kind for b in strict.values() if b.against == "pairs"}
    assert strict["itself"].kind == "typos"
    assert strict["itself"].rate == 1.0


def _at(checkpoint: Checkpoint, threshold: float) -> Checkpoint:

    return moved(checkpoint, threshold=threshold)


def test_cases_are_limited_and_follow_the_seed(checkpoint: Checkpoint, pairs_csv: Path) -> None:
    first, again, other = (probe(checkpoint, pairs_csv, ["typos"], cases=20, seed=seed) for seed in (0, 0, 1))
    assert [b.n for b in first] == [20, 20]
    assert first == again != other


def test_nothing_fits_nothing_is_returned(checkpoint: Checkpoint) -> None:
    assert probe(checkpoint, qpairs.pairs_from_texts(["a b"], ["c d"], [1]), ["numbers"]) == []


def test_the_interval_is_wilsons() -> None:
    n, p, z = 40, 0.1, norm.ppf(0.975)
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    expected = [(centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert failure_interval(4, 40) == pytest.approx(expected)
    assert failure_interval(0, 5)[0] == 0


def test_evaluate_prints_and_writes_the_behaviour(run, checkpoint: Checkpoint, pairs_csv: Path) -> None:
    folder = checkpoint.config.output
    result = run("evaluate", folder, "--data", pairs_csv, "--perturb", "case,word-order,entities", "--json", "out.json")
    assert result.code == 0, result.err
    written = json.loads(Path("out.json").read_text())["perturbations"]
    expected = [b.to_dict() for b in probe(folder, pairs_csv, ["case", "word-order", "entities"])]
    assert written == json.loads(json.dumps(expected))
    assert "duplicate of itself" in result.out
    assert "use lstm or minilm for word-order" in " ".join(result.out.split())
    refused(run("evaluate", folder, "--data", pairs_csv, "--perturb", "negatoin"), "negatoin", "'negation'")


def test_train_says_how_many_pairs_it_generated(run, pairs_csv: Path) -> None:
    options = ("--encoder", "static", "--batch-size", "16", "--output", "runs/a", "--augment", "0.1")
    result = run("train", "--data", pairs_csv, *options)
    assert result.code == 0, result.err
    counts = json.loads(Path("runs/a/qpairs.json").read_text())["split"]["generated"]
    assert f"{counts['typos']} typos" in " ".join(result.out.split())
