"""`qpairs start`: the whole way, with answers from a pipe, stopped and gone on with."""

import importlib
import io
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest
from conftest import Result, refused
from fastapi.testclient import TestClient
from ready import tickets

from qpairs.core.exceptions import UserError
from qpairs.data.intents import bundled_intents
from qpairs.models.base import load
from qpairs.retrieval.index import build_index, open_index
from qpairs.retrieval.index_file import QuestionFile, index_file
from qpairs.retrieval.search import corpus_setting
from qpairs.serving.app import create_app
from qpairs.serving.start import Session, open_session

Start = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("ready_cache_of_tests")


@pytest.fixture
def start(run, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts with a file of tickets and answers, one on each line."""
    tickets(tmp_path / "tickets.csv")

    def call(answers: str, *options: object, file: str = "tickets.csv") -> Result:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(answers)))
        return run("start", file, "--model", plain, *options)

    return call


def labels(folder: str = "tickets-qpairs") -> pandas.DataFrame:
    return pandas.read_csv(Path(folder) / "labels.csv")


def words(result: Result) -> str:
    return " ".join(result.out.split())


def test_of_a_handful_of_questions_it_says_that_nothing_is_known_yet(start: Start, tmp_path: Path) -> None:
    tickets(tmp_path / "few.csv", limit=20)
    result = start("q", file="few.csv")
    assert result.code == 0, result.err
    assert "No pair is more likely a duplicate than not, estimated from this corpus, no labels: answer" in words(result)
    assert "would narrow" not in result.out and "expected to be wrong" not in result.out
    assert len(pandas.read_csv("few-qpairs/duplicates/kept.csv")) == 20


def test_it_reads_asks_and_ends_with_a_model_and_the_file_without_duplicates(start: Start) -> None:
    result = start("ynynnynnyn", "--budget", "10", "--id-column", "ticket")
    assert result.code == 0, result.err
    assert "Reading the column title" in result.out
    assert "estimated from this corpus, no labels" in words(result)
    assert words(result).count("50 more answers would narrow the interval") == 2
    assert "estimated from 10 labels of this corpus" in words(result)
    assert "the share of all duplicates in the file that are among them" in words(result)
    assert labels()["is_duplicate"].tolist() == [1, 0, 1, 0, 0, 1, 0, 0, 1, 0]
    model = load("tickets-qpairs/model")
    assert model.verdict.densities is not None and model.verdict.densities.labels == 10
    kept = pandas.read_csv("tickets-qpairs/duplicates/kept.csv")
    assert list(kept.columns) == ["ticket", "title", "state"] and 0 < len(kept) < 150
    assert {"id1", "id2"} <= set(pandas.read_csv("tickets-qpairs/duplicates/pairs.csv").columns)


def test_ids_that_repeat_are_refused_before_anything_is_made_of_them(plain: Path, tmp_path: Path) -> None:
    rows = ["ticket,title", "A1,How do I pay?", "A2,Where is my order?", "A1,Who are you?"]
    (tmp_path / "q.csv").write_text("\n".join(rows) + "\n")
    model, twice = load(plain), QuestionFile(tmp_path / "q.csv", "title", "ticket")
    with pytest.raises(UserError, match=r"q.csv: ids of column 'ticket' .* have: 1, such as 'A1'; .* leave out"):
        index_file(model, twice, tmp_path / "made")
    assert index_file(model, QuestionFile(tmp_path / "q.csv", "title"), tmp_path / "made").count == 3
    (tmp_path / "q.csv").write_text("\n".join([*rows[:-1], "A3,Who are you?"]) + "\n")
    with pytest.raises(UserError, match=r"made: was made with another .*id_column; remove embeddings and index in it"):
        index_file(model, twice, tmp_path / "made")
    for name in ("embeddings", "index"):
        shutil.rmtree(tmp_path / "made" / name)
    again = index_file(model, twice, tmp_path / "made")
    assert next(iter(again.batches(3)))[0] == ["A1", "A2", "A3"]


def test_it_goes_on_where_it_was_stopped_and_loses_no_answer(start: Start, plain: Path) -> None:
    first = start("ynyq")
    again = f"qpairs start tickets.csv --text-column title --model {plain}"
    assert first.code == 0 and f"To answer more:\n{again}\n" in first.out
    before = labels()
    second = start("nn", "--budget", "5")
    assert "3 answers (2 the same, 1 different) and 0 skipped so far" in words(second)
    assert f"{again} --budget 55\n" in second.out
    assert "4 of 5" in second.out and "1 of 5" not in second.out
    after = labels()
    pairs = ["question1", "question2", "is_duplicate"]
    assert after[pairs].head(3).values.tolist() == before[pairs].values.tolist()
    assert after["is_duplicate"].tolist() == [1, 0, 1, 0, 0]
    third = start("", "--budget", "5")
    assert "Do both ask the same?" not in third.out and len(labels()) == 5
    assert "No pairs are asked: --budget 5 is reached." in third.out


def test_a_budget_of_no_answers_is_refused(run, tmp_path: Path) -> None:
    refused(run("start", tmp_path / "questions.csv", "--budget", 0), "--budget", "1")


def test_the_end_of_the_input_finishes(start: Start) -> None:
    result = start("yn")
    assert result.code == 0 and len(labels()) == 2
    assert Path("tickets-qpairs/model/qpairs.json").exists()


def test_undo_takes_back_skip_asks_on_and_another_key_is_told(start: Start) -> None:
    result = start("uynusxNq")
    assert result.code == 0
    assert "there is no answer to undo" in result.out and "'x' is not an answer" in result.out
    assert labels()["is_duplicate"].tolist() == [1, 0]
    skipped = pandas.read_csv("tickets-qpairs/labels.skipped.csv")
    assert len(skipped) == 1
    pairs = labels()[["question1", "question2"]].values.tolist()
    assert skipped[["question1", "question2"]].values.tolist()[0] not in pairs


def test_the_plain_commands_do_the_same(start: Start, run) -> None:
    shown = start("ynynnynnyn", "--budget", "10", "--id-column", "ticket")
    lines = [line.strip() for line in shown.out.splitlines() if line.strip().startswith("qpairs ")]
    commands = {shlex.split(line)[1]: shlex.split(line)[1:] for line in lines}
    assert list(commands) == ["dedupe", "start", "search", "embed", "index", "serve", "calibrate"]
    trial = next(line for line in lines if line.endswith("--dry-run"))
    assert "expected to be wrong" in words(shown) and run(*shlex.split(trial)[1:]).code == 0
    for name in ("embed", "index", "calibrate", "dedupe"):
        command = [part.replace("tickets-qpairs/", "again/") for part in commands[name]]
        if name == "calibrate":
            command[command.index("--labels") + 1] = "tickets-qpairs/labels.csv"
        result = run(*command)
        assert result.code == 0, result.err
    one, other = (Path(folder, "duplicates", "pairs.csv") for folder in ("tickets-qpairs", "again"))
    pandas.testing.assert_frame_equal(pandas.read_csv(one), pandas.read_csv(other), atol=1e-6)
    files = [Path(folder, "duplicates", "dedupe.json") for folder in ("tickets-qpairs", "again")]
    thresholds = [json.loads(file.read_text())["threshold"] for file in files]
    assert thresholds[0] == pytest.approx(thresholds[1])


def test_a_file_that_grew_is_read_anew_and_the_answers_stay(start: Start, tmp_path: Path) -> None:
    start("yn")
    tickets(tmp_path / "tickets.csv", limit=170)
    grown = start("y", "--budget", "3")
    assert grown.code == 0, grown.err
    assert "170 questions" in grown.out
    assert labels()["is_duplicate"].tolist() == [1, 0, 1]


def test_answers_about_other_questions_are_refused_before_any_is_counted(start: Start, tmp_path: Path) -> None:
    start("yn")
    kept = labels()
    tickets(tmp_path / "other.csv", domain="health")
    told = "none of its 2 answers is about questions of other.csv"
    refused(start("y", "--output", "tickets-qpairs", file="other.csv"), told)
    pandas.testing.assert_frame_equal(labels(), kept)


@pytest.mark.parametrize("name", ["labels.csv", "labels.skipped.csv"])
def test_answers_that_are_broken_are_mended_or_left_in_their_folder(start: Start, name: str) -> None:
    """There is no option --labels here, so nobody is told to use it."""
    start("yn")
    Path("tickets-qpairs", name).write_text("garbage\n")
    refused(start("y"), f"tickets-qpairs/{name}", "; mend it, or begin in another folder")


def test_which_column_is_asked_for_where_it_is_not_clear(start: Start, tmp_path: Path) -> None:
    texts = list(bundled_intents())[:40]
    table = pandas.DataFrame({"title": texts, "summary": [f"{text} Please" for text in texts]})
    table.to_csv(tmp_path / "two.csv", index=False)
    refused(start("", file="two.csv"), "which column", "summary, title", "--text-column")
    joined = start("", "--text-column", "title,summary", file="two.csv")
    assert joined.code == 0, joined.err
    assert "--text-column title,summary" in joined.out


def test_what_it_cannot_use_is_refused(start: Start, run, tmp_path: Path) -> None:
    refused(start("", file="none.csv"), "none.csv", "no such file")
    (tmp_path / "few.csv").write_text("question\nHow do I pay?\nWho are you?\n")
    refused(start("", file="few.csv"), "2 different questions;", "at least 20")
    (tmp_path / "one.csv").write_text("question\nHow do I pay?\nhow do i pay\n")
    refused(start("", file="one.csv"), "1 different question;", "at least 20")
    assert not list(tmp_path.glob("*-qpairs"))
    (tmp_path / "taken").write_text("")
    refused(start("", "--output", "taken"), "is a file")


def test_a_session_refits_at_every_tenth_answer_and_undoing_is_counted(plain: Path, tmp_path: Path) -> None:
    file = QuestionFile(tickets(tmp_path / "tickets.csv"), "title")
    with open_session(plain, file, tmp_path / "session") as session:
        fits = [_answer(session) for _ in range(12)]
        assert [row for row, fitted in enumerate(fits, 1) if fitted] == [10]
        assert session.fit.setting.estimate.labels == 10
        session.undo()
        assert session.refit() and session.fit.setting.estimate.labels == 11
        again = session.fit.after
        last = session.state.last
        assert last and last.duplicate == bool(session.fit.setting.decide(last.similarity))
        session.undo()
        pair = session.state.pair
        assert pair
        session.answer(pair, "no" if last.answer == "yes" else "yes")
        assert session.refit() and session.fit.after != again  # as many labels, of which one is another
        assert not session.training_may_pay
        for command in session.commands():
            assert command[0] == "qpairs"


def _answer(session: Session) -> bool:
    pair, intents = session.state.pair, bundled_intents()
    assert pair
    return session.answer(pair, "yes" if intents[pair.question1] == intents[pair.question2] else "no")


def test_two_sessions_do_not_share_a_folder(plain: Path, tmp_path: Path, start: Start) -> None:
    with open_session(plain, QuestionFile(tmp_path / "tickets.csv", "title"), tmp_path / "tickets-qpairs"):
        refused(start("y"), "another process is using this folder")
    assert start("y", "--budget", "1").code == 0


def test_a_service_of_a_ready_model_judges_by_its_questions_and_says_so(plain: Path, tmp_path: Path, run) -> None:
    file = QuestionFile(tickets(tmp_path / "tickets.csv"), "title", "ticket")
    model = load(plain)
    index_file(model, file, tmp_path / "made")
    first = (tmp_path / "made" / "index" / "index.json").stat().st_mtime_ns
    index_file(model, file, tmp_path / "made")
    assert (tmp_path / "made" / "index" / "index.json").stat().st_mtime_ns == first
    with pytest.raises(UserError, match="another text_column"):
        index_file(model, QuestionFile(file.path, "ticket"), tmp_path / "made")
    index = open_index(tmp_path / "made" / "index")
    with TestClient(create_app(model, index)) as client:
        scored = client.post("/score", json={"pairs": [["How do I pay?", "How can I pay?"]]}).json()
        found = client.post("/search", json={"question": "late flight"}).json()
        assert scored["of"].endswith("estimated from this corpus, no labels")
        assert found["of"].endswith("estimated from this corpus, no labels")
        assert scored["threshold"] == pytest.approx(corpus_setting(index, model).threshold)
        assert found["hits"][0]["id"].startswith("T")
    refused(run("serve", plain, "--questions", file.path, "--index", "idx"), "not both")


def test_a_service_that_was_killed_as_it_made_the_index_starts_again(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index was whole, and the note of what it is of was not written yet."""
    file, model = QuestionFile(tickets(tmp_path / "tickets.csv"), "title"), load(plain)
    home = importlib.import_module("qpairs.retrieval.index_file")

    def killed(*given: object, **options: object) -> None:
        build_index(*given, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(home, "build_index", killed)
        index_file(model, file, tmp_path / "made")
    index_file(model, file, tmp_path / "made")
    other = QuestionFile(tickets(tmp_path / "other.csv"), "ticket")
    with pytest.raises(UserError):  # one that is whole is kept
        index_file(model, other, tmp_path / "made")


def test_single_keys_are_answers_in_a_terminal(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = iter("Ynsu")

    command = sys.modules["qpairs.commands.start"]  # the package has the function of that name
    monkeypatch.setattr(command, "read_key", lambda: next(keys, "").lower())
    left = list[str]()
    monkeypatch.setattr(command, "discard_keys", lambda: left.extend(keys))
    monkeypatch.setattr(command, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    assert start("", "--budget", "1").code == 0
    assert labels()["is_duplicate"].tolist() == [1] and left == ["n", "s", "u"], "what was typed ahead is forgotten"


def test_two_people_answer_in_the_terminal_and_their_agreement_is_measured(start: Start, run) -> None:
    assert start("ynyn", "--annotator", "ana", "--budget", "4").code == 0
    shown = start("yynn", "--annotator", "ben", "--budget", "4")
    assert "1 of 4" in shown.out and " --annotator ben --budget 54" in shown.out
    serve = next(line for line in shown.out.splitlines() if line.startswith("qpairs serve "))
    assert serve.endswith(" --annotator ben")
    assert labels()["annotator"].tolist() == ["ana"] * 4 + ["ben"] * 4
    found = run("label", "agreement", "tickets-qpairs/labels.csv")
    assert found.code == 0 and "4 pairs, 4 of them labelled by two annotators or more" in found.out
    assert "2 pairs in dispute" in found.out
