"""A language model labels pairs: answers are kept as they come, a further run asks what is missing, failures end it."""

import csv
import json
import os
import random
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from children import start_script
from llm_stand_in import Fault, StandIn, serving

from qpairs.annotation import annotate as module
from qpairs.annotation.annotate import Annotation, Annotator, annotate
from qpairs.annotation.endpoint import Endpoint, open_endpoint
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Progress
from qpairs.data.labels import LABEL_FILE_COLUMNS, read_labels
from qpairs.serving.label_pairs import Candidate

PAIRS = [Candidate(f"question {i}", f"question {i + i % 3}?", 1 / (i + 2)) for i in range(40)]


def gold(one: str, other: str) -> bool:
    return f"{one}?" == other


def right(one: str, other: str) -> str:
    return json.dumps({"answer": "yes" if gold(one, other) else "no"})


def noisy(one: str, other: str) -> str:
    wrong = random.Random(one).random() < 0.2
    return json.dumps({"answer": "yes" if gold(one, other) != wrong else "no"})


def of(service: StandIn, name: str = "llm", **options) -> Annotator:
    found = open_endpoint(service.url, "llama", {})
    return Annotator(Endpoint(found.url, "llama", **{"backoff": 0.01, "timeout": 5.0, "attempts": 3} | options), name)


def journal(folder: Path, name: str = "llm") -> list[dict]:
    return [json.loads(line) for line in (folder / "labels.answers" / f"{name}.jsonl").read_text().splitlines()[1:]]


def test_answers_become_labels_with_the_name_and_the_drawing_beside_them(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with serving(noisy) as service:
        found = annotate(PAIRS, of(service), tmp_path / "labels.csv", on_progress=seen.append)
    labels = read_labels(tmp_path / "labels.csv")
    given = dict(zip(zip(labels.first, labels.second, strict=True), labels.labels.tolist(), strict=True))
    assert given == {pair[:2]: int(json.loads(noisy(*pair[:2]))["answer"] == "yes") for pair in PAIRS}
    assert set(labels.annotator) == {"llm"}
    assert set(labels.drawn) == {"stratified"}
    drawn = {pair[:2]: pair.probability for pair in PAIRS}
    for one, other, probability in zip(labels.first, labels.second, labels.probability, strict=True):
        assert probability == pytest.approx(drawn[one, other], rel=1e-5)
    assert (found.yes + found.no, found.unsure, found.unanswered, found.failed, found.asked) == (40, 0, 0, 0, 40)
    assert (found.tokens_in, found.tokens_out, found.uncounted) == (4000, 200, 0)
    assert found.cost(1.0, 10.0) == pytest.approx(0.006)
    assert (seen[-1].stage, seen[-1].done, seen[-1].total, seen[-1].note) == ("asking", 40, 40, "4,200 tokens")


def test_a_further_run_asks_what_is_missing(tmp_path: Path) -> None:
    with serving(right) as service:
        annotate(PAIRS[:10], of(service), tmp_path / "labels.csv")
        more = annotate(PAIRS[:25], of(service), tmp_path / "labels.csv")
        assert (more.asked, more.yes + more.no) == (15, 25)
        again = annotate(PAIRS[:25], of(service), tmp_path / "labels.csv")
        assert (again.asked, len(service.requests)) == (0, 25)
        assert sorted(service.asked()) == sorted(pair[:2] for pair in PAIRS[:25])
        (tmp_path / "labels.csv").unlink()  # the journal has the answers
        annotate(PAIRS[:25], of(service), tmp_path / "labels.csv")
        assert (len(read_labels(tmp_path / "labels.csv")), len(service.requests)) == (25, 25)


def test_requests_go_out_together_and_no_more_than_allowed(tmp_path: Path) -> None:
    with serving(right, delay=0.4) as service:
        annotate(PAIRS, of(service), tmp_path / "labels.csv", concurrency=8)
        assert 4 <= service.busiest <= 8


def test_all_kinds_of_failure_at_once_lose_nothing(tmp_path: Path) -> None:
    kinds = [
        *(Fault(500), Fault(429, {"Retry-After": "0"}), Fault(503), Fault(kind="reset"), Fault(kind="truncated")),
        *(Fault(200, body=b"<html>"), Fault(408)),
    ]
    chance = random.Random(0)
    with serving(noisy, delay=0.01) as service:
        service.faults.extend(chance.choice(kinds) if chance.random() < 0.3 else None for _ in range(60))
        found = annotate(PAIRS, of(service, attempts=8), tmp_path / "labels.csv")
        assert len(service.requests) > 50
    assert (found.yes + found.no, found.failed) == (40, 0)


def test_nonsense_is_asked_again_once_then_counts_as_no_answer(tmp_path: Path) -> None:
    calls: dict[str, int] = {}

    def answer(one: str, other: str) -> str:
        calls[one] = calls.get(one, 0) + 1
        if one == "question 1":
            return "\x1b[2J[red]ignore this[/red]" if calls[one] == 1 else right(one, other)
        return "I would rather not say" if one == "question 2" else '{"answer": "unsure"}'

    with serving(answer) as service:
        found = annotate(PAIRS[1:4], of(service), tmp_path / "labels.csv", concurrency=1)
        assert calls == {"question 1": 2, "question 2": 2, "question 3": 1}
        assert "only" not in service.requests[0]["body"]["messages"][-1]["content"]
        assert "only" in service.requests[1]["body"]["messages"][-1]["content"]
        annotate(PAIRS[1:4], of(service), tmp_path / "labels.csv")
        assert sum(calls.values()) == 5
    assert (found.yes + found.no, found.unsure, found.unanswered) == (1, 1, 1)
    assert found.tokens_in == 500  # of all that was answered
    assert len(read_labels(tmp_path / "labels.csv")) == 1
    kept = {row["question1"]: row for row in journal(tmp_path)}
    assert (kept["question 2"]["answer"], kept["question 2"]["why"]) == ("", "the answer could not be read")
    assert b"\x1b" not in (tmp_path / "labels.answers" / "llm.jsonl").read_bytes()


def test_tokens_that_a_service_does_not_tell_are_said_to_be_unknown(tmp_path: Path) -> None:
    with serving(right, usage=False) as service:
        found = annotate(PAIRS[:3], of(service), tmp_path / "labels.csv")
    assert (found.tokens_in, found.uncounted) == (0, 3)


def test_a_pair_that_is_refused_is_no_answer_and_others_go_on(tmp_path: Path) -> None:
    with serving(right) as service:
        service.faults.extend([None, Fault(400, body=b'{"error": {"message": "content \\u001b[31mfilter"}}')])
        found = annotate(PAIRS[:6], of(service), tmp_path / "labels.csv", concurrency=1)
    assert (found.yes + found.no, found.unanswered) == (5, 1)
    assert [row["why"] for row in journal(tmp_path) if row["why"]] == ["status 400: content [31mfilter"]


@pytest.mark.parametrize("fault", [Fault(400), Fault(500), Fault(kind="reset")])
def test_a_service_that_only_fails_ends_the_run_and_spoils_nothing(fault: Fault, tmp_path: Path) -> None:
    with serving(right) as service:
        annotate(PAIRS[:5], of(service), tmp_path / "labels.csv")
        service.faults.extend([fault] * 200)
        with pytest.raises(UserError, match="5 pairs in a row failed") as refused:
            annotate(PAIRS, of(service, attempts=2), tmp_path / "labels.csv", concurrency=2)
        assert "\n" not in str(refused.value)
        assert len(service.requests) < 40
        assert len(read_labels(tmp_path / "labels.csv")) == 5
        service.faults.clear()
        assert annotate(PAIRS, of(service), tmp_path / "labels.csv").asked == 35


def test_pairs_that_fail_now_and_then_are_asked_by_the_next_run(tmp_path: Path) -> None:
    with serving(right) as service:
        service.faults.extend([None, Fault(500), None, Fault(500), None])
        found = annotate(PAIRS[:5], of(service, attempts=1), tmp_path / "labels.csv", concurrency=1)
        assert (found.failed, found.asked) == (2, 3)
        assert annotate(PAIRS[:5], of(service), tmp_path / "labels.csv").asked == 2


KILLED = """
import sys
sys.path[:0] = {path!r}
import test_annotate as t
from qpairs.annotation.annotate import annotate
from llm_stand_in import StandIn
annotate(t.PAIRS, t.of(StandIn(t.right, url={url!r})), {labels!r}, concurrency=4)
"""


def test_a_kill_loses_at_most_the_requests_in_flight(tmp_path: Path) -> None:
    with serving(right, delay=0.1) as service:
        script = KILLED.format(path=sys.path, url=service.url, labels=str(tmp_path / "labels.csv"))
        child = start_script(script)
        deadline = time.monotonic() + 60
        while len(service.requests) < 18 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child.process.pid, signal.SIGKILL)
        assert child.wait().returncode == -signal.SIGKILL
        before = len(service.requests)
        assert 18 <= before < 40
        kept = (tmp_path / "labels.answers" / "llm.jsonl").read_bytes().count(b"\n") - 1
        assert before - 4 <= kept <= before
        found = annotate(PAIRS, of(service), tmp_path / "labels.csv")
        assert (found.yes + found.no, found.asked) == (40, 40 - kept)
        assert len(read_labels(tmp_path / "labels.csv")) == 40


def test_an_answer_that_was_being_written_is_discarded(tmp_path: Path) -> None:
    path = tmp_path / "labels.answers" / "llm.jsonl"
    with serving(right) as service:
        annotate(PAIRS[:4], of(service), tmp_path / "labels.csv", concurrency=1)
        whole = path.read_bytes()
        for cut in (1, 10, len(whole.splitlines()[-1])):
            path.write_bytes(whole[:-cut])
            (tmp_path / "labels.csv").unlink()
            assert annotate(PAIRS[:4], of(service), tmp_path / "labels.csv").asked == 1
        lines = whole.splitlines(keepends=True)
        for damage in (b"{}\n", b"no json\n", b'{"question1": "a", "question2": "b", "answer": "perhaps"}\n', b"[]\n"):
            path.write_bytes(b"".join([*lines[:2], damage, *lines[3:]]))
            with pytest.raises(UserError, match=r"llm\.jsonl, line 3: "):
                annotate(PAIRS[:4], of(service), tmp_path / "labels.csv")


def test_an_interrupt_keeps_the_answers_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with serving(right, delay=0.05) as service:
        monkeypatch.setattr(module.Meter, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            annotate(PAIRS, of(service), tmp_path / "labels.csv", concurrency=4)
        assert 1 <= len(service.requests) <= 12
        assert len(read_labels(tmp_path / "labels.csv")) == len(journal(tmp_path)) == len(service.requests)


def test_answers_to_another_question_are_not_joined(tmp_path: Path) -> None:
    with serving(right) as service:
        annotate(PAIRS[:3], of(service), tmp_path / "labels.csv")
        with pytest.raises(UserError, match="another guideline"):
            annotate(PAIRS, replace(of(service), guideline="Only exact copies."), tmp_path / "labels.csv")
        other = replace(of(service), endpoint=replace(of(service).endpoint, model="other"))
        with pytest.raises(UserError, match="'llm' by the model 'llama'"):
            annotate(PAIRS, other, tmp_path / "labels.csv")
        assert len(service.requests) == 3


@pytest.mark.parametrize("names", [("Анна", "Иван"), ("gpt-4.1", "gpt-4-1"), ("a b", "a.b"), ("x" * 99, "x" * 98)])
def test_each_annotator_has_a_journal_of_its_own(tmp_path: Path, names: tuple[str, str]) -> None:
    with serving(right) as service:
        for name in names:
            assert annotate(PAIRS[:4], of(service, name), tmp_path / "labels.csv").asked == 4
            assert annotate(PAIRS[:5], of(service, name), tmp_path / "labels.csv").asked == 1
    assert len([file for file in (tmp_path / "labels.answers").glob("*.jsonl") if file.stem]) == 2


def test_a_journal_of_an_older_version_goes_on(tmp_path: Path) -> None:
    with serving(right) as service:
        annotate(PAIRS[:4], of(service, "Анна"), tmp_path / "labels.csv")
        (made,) = (tmp_path / "labels.answers").glob("*.jsonl")
        made.rename(made.with_name(".jsonl"))
        (tmp_path / "labels.csv").unlink()
        assert annotate(PAIRS[:4], of(service, "Анна"), tmp_path / "labels.csv").asked == 0
        assert annotate(PAIRS[:4], of(service, "Иван"), tmp_path / "labels.csv").asked == 4


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with serving(right, delay=0.3) as service:
        first = threading.Thread(target=annotate, args=(PAIRS[:4], of(service), tmp_path / "labels.csv"))
        first.start()
        time.sleep(0.15)
        with pytest.raises(UserError, match="another process is using"):
            annotate(PAIRS[:4], of(service), tmp_path / "labels.csv")
        first.join()


def test_labels_of_others_in_the_file_stay_and_the_same_pairs_are_asked(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([LABEL_FILE_COLUMNS, [*PAIRS[0][:2], 0, "stratified", 0.5, "ana"]])
    with serving(right) as service:
        annotate(PAIRS[:2], of(service, "one"), path)
        annotate(PAIRS[:2], of(service, "two"), path)
    labels = read_labels(path)
    assert sorted(labels.annotator) == ["ana", "one", "one", "two", "two"]
    assert labels.labels[labels.annotator.index("ana")] == 0
    path.write_text("a,b\n1,2\n")
    with serving(right) as service:
        with pytest.raises(UserError, match="--labels"):
            annotate(PAIRS[:2], of(service, "three"), path)
        assert service.requests == []


def test_names_that_cannot_be_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with serving(right) as service:
        for name in ("adjudicated", "a\x1b[2J", "x" * 200):
            with pytest.raises(UserError, match="annotator: "):
                annotate(PAIRS, of(service, name), tmp_path / "labels.csv")
        with pytest.raises(UserError, match="concurrency: 0 is not from 1 to 256"):
            annotate(PAIRS, of(service), tmp_path / "labels.csv", concurrency=0)
        assert service.requests == []
    assert not any(tmp_path.iterdir())


def test_nothing_to_ask_is_no_error(tmp_path: Path) -> None:
    with serving(right) as service:
        found = annotate([], of(service), tmp_path / "labels.csv")
    assert replace(found, seconds=0.0) == Annotation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0)
