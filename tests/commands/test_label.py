"""`qpairs label` from an index to a calibrated model, and `qpairs label agreement` from two annotators to one label."""

import csv
import json
import random
from pathlib import Path

import pandas
import pytest
from conftest import refused
from llm_stand_in import Fault, serving
from rich.text import Text

from qpairs.commands import command_line
from qpairs.data.labels import LABEL_FILE_COLUMNS, read_labels
from qpairs.data.sources import load_pairs

KEY = "sk-secret-1234"


@pytest.fixture(scope="module")
def world(checkpoint, pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Questions, and an index of them."""
    import qpairs

    folder = tmp_path_factory.mktemp("world")
    questions = folder / "questions.csv"
    texts = sorted(set(load_pairs(pairs_csv).questions))
    with questions.open("w", newline="") as file:
        csv.writer(file).writerows([["question"], *([text] for text in texts)])
    qpairs.embed(checkpoint, questions, folder / "emb")
    qpairs.build_index(qpairs.open_shards(folder / "emb"), folder / "idx")
    return questions, folder / "idx"


@pytest.fixture(scope="module")
def same(pairs_csv: Path):
    """Whether two questions are known duplicates."""
    pairs = load_pairs(pairs_csv)
    known = {frozenset(pairs.texts(i)) for i in range(len(pairs)) if pairs.labels[i]}
    return lambda one, other: frozenset((one, other)) in known


@pytest.fixture
def llm(same):
    """Answers by the gold, one in ten wrong."""

    def answer(one: str, other: str) -> str:
        wrong = random.Random(one + other).random() < 0.1
        return json.dumps({"answer": "yes" if same(one, other) != wrong else "no"})

    return answer


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("QPAIRS_LLM_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def label_by_hand(file: Path, llm_file: Path, same, n: int) -> None:
    """The first n pairs of a language model, labelled by a person."""
    given = read_labels(llm_file)
    with file.open("w", newline="") as handle:
        rows = [
            [a, b, int(same(a, b)), "stratified", p, "ana"]
            for a, b, p in zip(given.first, given.second, given.probability, strict=True)
        ]
        csv.writer(handle).writerows([LABEL_FILE_COLUMNS, *rows[:n]])


def test_a_language_model_labels_what_calibrates_the_model(run, world, llm, same, checkpoint, monkeypatch) -> None:
    questions, index = world
    monkeypatch.setenv("QPAIRS_LLM_KEY", KEY)
    Path("guideline.md").write_text("Same product, same question.")
    with serving(llm) as service:
        command = ["label", index, "--llm", service.url, "--model", "llama3", "--guideline", "guideline.md"]
        prices = "--price-in", 2, "--price-out", 10
        result = run(*command, "--budget", 90, *prices)
        assert result.code == 0, result
        assert "90 pairs labelled by llama3: " in result.out
        assert "9,000 tokens read, 450 written, cost 0.0225; this run: 90 pairs in " in result.out
        assert "llm-labels.csv" in result.out
        assert len(service.requests) == 90
        sent = service.requests[0]
        assert sent["headers"]["Authorization"] == f"Bearer {KEY}"
        assert "Same product, same question." in sent["body"]["messages"][0]["content"]
        assert "this run: 30 pairs" in run(*command, "--budget", 120).out
        assert len(service.requests) == 120
    assert KEY not in result.out + result.err
    assert all(KEY.encode() not in path.read_bytes() for path in Path().rglob("*") if path.is_file())
    labels = read_labels("llm-labels.csv")
    assert (len(labels), set(labels.annotator), set(labels.drawn)) == (120, {"llama3"}, {"stratified"})
    label_by_hand(Path("mine.csv"), Path("llm-labels.csv"), same, 60)
    files = "--labels", "mine.csv", "--labels", "llm-labels.csv"
    fitted = run("calibrate", checkpoint.path, "--corpus", questions, *files, "--output", "here")
    assert fitted.code == 0, fitted
    assert "120 labels: 120 stratified" in fitted.out
    assert "How often each is right" in fitted.out
    assert Path("here/qpairs.json").exists()
    trusting = run("calibrate", checkpoint.path, "--corpus", questions, *files, "--trust", "ana", "--output", "sure")
    assert "taken as right" in trusting.out
    refused(
        run("calibrate", checkpoint.path, "--corpus", questions, *files, "--trust", "bob", "--output", "b"), "'bob'"
    )
    assert not Path("b").exists()
    refused(run("calibrate", checkpoint.path, "--corpus", questions, "--trust", "bob", "--output", "b"), "--labels")
    assert run("data", "llm-labels.csv").code == 0


def test_agreement_disputes_and_settlement(run, world, llm, same) -> None:
    _, index = world
    with serving(llm) as service:
        run("label", "pairs", index, "--llm", service.url, "--model", "llama3", "--budget", 150)
    label_by_hand(Path("mine.csv"), Path("llm-labels.csv"), same, 100)
    files = "mine.csv", "llm-labels.csv"
    shown = run("label", "agreement", *files, "--disagreements", "open.csv", "--output", "joint.csv")
    assert shown.code == 0, shown
    assert "150 pairs, 100 of them labelled by two annotators or more" in shown.out
    assert "ana, llama3" in shown.out
    assert "Krippendorff's alpha" in shown.out
    table = pandas.read_csv("open.csv")
    n = len(table)
    assert 3 <= n <= 25
    assert f"{n} pairs in dispute, written to open.csv; 0 adjudicated" in shown.out
    assert len(load_pairs("joint.csv")) == 150
    refused(run("label", "agreement", *files, "--disagreements", "open.csv"), "another file with --disagreements, or")
    table["is_duplicate"] = [int(same(a, b)) for a, b in zip(table["question1"], table["question2"], strict=True)]
    table.to_csv("open.csv", index=False)
    settled = run("label", "agreement", *files, "open.csv", "--output", "joint.csv", "--overwrite")
    assert f"0 pairs in dispute; {n} adjudicated" in settled.out
    joint = read_labels("joint.csv")
    judged = {
        frozenset(pair) for pair in zip(*(read_labels("mine.csv").first, read_labels("mine.csv").second), strict=True)
    }
    for one, other, label in zip(joint.first, joint.second, joint.labels, strict=True):
        if frozenset((one, other)) in judged:
            assert label == same(one, other)


def test_names_and_errors_of_others_are_no_markup_and_no_control_sequences(run, world, llm) -> None:
    _, index = world
    with Path("odd.csv").open("w", newline="") as file:
        rows = [[f"q{i}", f"p{i}", i % 2, "", "", name] for i in range(4) for name in ("[red]ana[/red]", "b\x1b[2Jen")]
        csv.writer(file).writerows([LABEL_FILE_COLUMNS, *rows])
    shown = run("label", "agreement", "odd.csv")
    assert shown.code == 0, shown
    assert "\x1b" not in shown.out
    assert "[red]ana[/red]," in shown.out and "b\\x1b[2Jen" in shown.out  # on two lines where 80 columns are too few
    with serving(llm) as service:
        service.faults.append(Fault(401, body=b'{"error": {"message": "[bold]no\\u001b[2J key\\nat all"}}'))
        refused(run("label", index, "--llm", service.url, "--model", "m"), "[bold]no [2J key at all", "QPAIRS_LLM_KEY")
        named = run("label", index, "--llm", service.url, "--model", "[red]m", "--budget", 1)
        assert "labelled by [red]m: " in Text.from_ansi(named.out).plain
        assert not list(Path().glob("*.csv.*"))


def test_what_a_user_gets_wrong_is_one_line_and_nothing_is_sent(run, world, llm) -> None:
    _, index = world
    with serving(llm) as service:
        ask = "label", index, "--llm", service.url, "--model", "m"
        refused(run(*ask, "--guideline", "none.md"), "none.md", "cannot be read")
        refused(run(*ask, "--labels", "labels.tsv"), "labels.tsv", ".csv", "--labels")
        refused(run(*ask, "--annotator", "adjudicated"), "adjudicated")
        refused(run(*ask, "--budget", 0), "--budget")
        refused(run("label", "nowhere", *ask[2:]), "nowhere")
        refused(run("label", index, "--llm", "localhost", "--model", "m"), "--llm", "http://localhost:8000/v1")
        assert service.requests == []
    refused(run("label", "agreement", "none.csv"), "none.csv")
    refused(run("label", "agreement"), "labels")
    refused(run("label", "agreement", "none.csv", "--output", "x.xlsx"), "x.xlsx")
    refused(run("serve", "x", "--index", "i", "--annotator", "ana"), "--labels")


def test_a_module_is_imported_first(run, world, llm, tmp_path: Path) -> None:
    for name in ("imported_first", "imported_second"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}.seen', 'w').close()")
    with serving(llm) as service:
        ask = "label", world[1], "--llm", service.url, "--model", "m", "--budget", 2
        done = run(*ask, "--import", "imported_first.py")
    assert done.code == 0, done.err
    refused(run("label", "agreement", "llm-labels.csv", "--import", "imported_second.py"), "two annotators")
    assert {path.name for path in tmp_path.glob("*.seen")} == {"imported_first.seen", "imported_second.seen"}
    refused(run("label", "agreement", "llm-labels.csv", "--import", "none.py"), "none.py")


def test_nothing_is_sent_without_an_address(run, world) -> None:
    refused(run("label", world[1], "--model", "m"), "--llm")
    refused(run("label", world[1], "--llm", "http://localhost:1"), "--model")


def test_an_index_is_the_default_and_sub_commands_have_their_help(run) -> None:
    assert "agreement" in run("label", "--help").out
    for arguments in (("label", "idx", "--help"), ("label", "pairs", "--help")):
        assert "QPAIRS_LLM_KEY" in run(*arguments).out
        assert "--import" in run(*arguments).out
    shown = run("label", "agreement", "--help").out
    assert "…" not in shown
    for command in command_line().commands["label"].commands.values():
        assert all(parameter.help for parameter in command.params)
