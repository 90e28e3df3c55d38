import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import refused

import qpairs
from qpairs.data.parts import load_parts
from qpairs.evaluation.mistakes import analyse
from qpairs.evaluation.slices import MIN_PAIRS
from qpairs.models.bi_encoder import Checkpoint


@pytest.fixture(scope="module")
def pairs(pairs_csv: Path) -> qpairs.Pairs:
    return qpairs.load_pairs(pairs_csv)


def test_every_wrong_verdict_is_a_mistake_with_its_numbers(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    found = analyse(checkpoint, pairs)
    scores, _ = checkpoint.score_pairs(pairs)
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


def test_words_are_known_from_the_training_pairs(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    strangers = qpairs.pairs_from_texts(["zebra quantum"] * 2, ["xylophone", "quark"], [0, 0])
    known, unknown = (analyse(checkpoint, pairs, trained_on=other) for other in (pairs, strangers))
    assert {s.value for s in known.slices if s.kind == "known words"} > {"all"}
    assert {s.value for s in unknown.slices if s.kind == "known words"} == {"several are new"}


def test_no_mistakes_and_few_pairs_are_fine(checkpoint: Checkpoint) -> None:
    few = analyse(checkpoint, qpairs.pairs_from_texts(["a b", "c d"], ["a b", "c d"], [1, 1]))
    assert (few.mistakes(), list(few.slices)) == ([], [])
    same = [f"why is {i}" for i in range(MIN_PAIRS)]
    right = analyse(checkpoint, qpairs.pairs_from_texts(same, same, [1] * MIN_PAIRS))
    assert right.slices
    assert all(part.p_corrected == part.lift == 1 for part in right.slices)


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
    assert f"{len(mistakes)} of 600 decisions are wrong" in " ".join(shown.split())
    assert expected.slices[0].name in " ".join(shown.split())
    assert "unavailable" not in shown


def test_errors_again_keeps_the_files_of_before(run, checkpoint: Checkpoint, pairs_csv: Path) -> None:
    command = "errors", checkpoint.config.output, "--data", pairs_csv
    first, second = run(*command), run(*command)
    assert (first.code, second.code) == (0, 0), second.err
    assert "are in errors." in first.out and "are in errors-2." in second.out
    assert Path("errors/mistakes.csv").read_text() == Path("errors-2/mistakes.csv").read_text()
    assert "are in errors." in run(*command, "--overwrite").out
    refused(run(*command, "--output", "errors"), "exists already")
    assert not Path("errors-3").exists()


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
    ],
)
def test_bad_input_is_one_line(run, checkpoint: Checkpoint, arguments: list[str], words: list[str]) -> None:
    Path("file").touch()
    Path("folder/slices.csv").mkdir(parents=True)
    Path("ones.csv").write_text("question1,question2,is_duplicate\na b,c d,1\ne f,g h,1\n")
    before = set(Path().rglob("*"))
    refused(run(*(checkpoint.config.output if a == "CHECKPOINT" else a for a in arguments)), *words)
    assert set(Path().rglob("*")) == before
