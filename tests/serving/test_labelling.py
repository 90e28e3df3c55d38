import csv
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from children import run_script
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from mocks import moved
from test_index import a_model, clustered, embedded

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.data.identity import pair_key
from qpairs.data.labels import LABEL_FILE_COLUMNS, read_labels
from qpairs.data.sources import load_pairs
from qpairs.data.splits import question_components
from qpairs.metrics import bootstrap_interval, confusion
from qpairs.models.base import Model
from qpairs.retrieval.embed import embed
from qpairs.retrieval.index import Index, add_to_index, build_index, open_index
from qpairs.serving.app import create_app
from qpairs.serving.label_figures import MIN_LABELS
from qpairs.serving.label_file import LabelFile, Row
from qpairs.serving.label_pairs import pairs_to_label
from qpairs.serving.labelling import Answer, Labelling, LabelRequest, State

VECTORS = clustered(400)
MODEL = a_model(VECTORS)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("corpus")
    build_index(embedded(folder, MODEL, range(300)), folder / "idx")
    return open_index(folder / "idx")


@pytest.fixture
def labelling(index: Index, tmp_path: Path) -> Labelling:
    return Labelling.open(tmp_path / "labels.csv", MODEL, index)


def cosine(one: str, other: str) -> float:
    return float(VECTORS[int(one[1:])] @ VECTORS[int(other[1:])])


def answer_next(labelling: Labelling, answer: Answer, choice: str = "stratified") -> State:
    pair = labelling.state(choice).pair
    assert pair
    return labelling.answer(LabelRequest(pair.question1, pair.question2, answer, choice))


def some(labelling: Labelling, choice: str = "stratified") -> Answer:
    pair = labelling.state(choice).pair
    assert pair
    return "yes" if (int(pair.question1[1:]) + int(pair.question2[1:])) % 2 else "no"


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_the_pairs_nearest_the_threshold_come_first(index: Index) -> None:
    pairs = [pair[:2] for pair in pairs_to_label(index, MODEL)["threshold"].values()]
    cosines = VECTORS[:300] @ VECTORS[:300].T
    np.fill_diagonal(cosines, -2)
    expected = {frozenset((f"t{i}", f"t{j}")) for i, row in enumerate(cosines) for j in np.argsort(-row)[:5]}
    assert {frozenset(pair) for pair in pairs} == expected
    assert len(pairs) == len(expected)
    apart = [abs(cosine(*pair) - MODEL.verdict.pair.threshold) for pair in pairs]
    assert apart == pytest.approx(sorted(apart), abs=1e-6)


def test_random_pairs_are_each_questions_nearest_in_an_order_of_the_seeds(index: Index) -> None:
    pairs = [pair[:2] for pair in pairs_to_label(index, MODEL)["random"].values()]
    cosines = VECTORS[:300] @ VECTORS[:300].T
    np.fill_diagonal(cosines, -2)
    assert all(int(other[1:]) == cosines[int(one[1:])].argmax() for one, other in pairs)
    assert len(pairs) > 150
    assert pairs == [pair[:2] for pair in pairs_to_label(index, MODEL)["random"].values()]
    assert pairs != [pair[:2] for pair in pairs_to_label(index, MODEL, seed=1)["random"].values()]
    numbers = [int(one[1:]) for one, _ in pairs]
    assert abs(np.corrcoef(numbers, range(len(numbers)))[0, 1]) < 0.2


def test_questions_that_come_hardly_change_the_order(tmp_path: Path) -> None:
    build_index(embedded(tmp_path, MODEL, range(300)), tmp_path / "idx")
    before = list(pairs_to_label(open_index(tmp_path / "idx"), MODEL)["random"])
    add_to_index(tmp_path / "idx", embedded(tmp_path / "more", MODEL, range(300, 306)))
    after = list(pairs_to_label(open_index(tmp_path / "idx"), MODEL)["random"])
    stayed = [pair for pair in after if pair in set(before)]
    assert len(stayed) > 0.85 * len(before)
    assert stayed == [pair for pair in before if pair in set(after)]


def test_the_questions_of_milvus_are_those_of_faiss(index: Index, tmp_path: Path) -> None:
    build_index(embedded(tmp_path, MODEL, range(300)), tmp_path / "idx", address=f"milvus:{tmp_path}/v.db")
    milvus = open_index(tmp_path / "idx")
    assert sorted(milvus.questions.texts()) == sorted(index.questions.texts())
    assert set(pairs_to_label(milvus, MODEL)["threshold"]) == set(pairs_to_label(index, MODEL)["threshold"])


def test_answers_are_a_file_of_pairs(labelling: Labelling) -> None:
    asked = [labelling.state().pair]
    for answer in ("yes", "skip", "no"):
        asked.append(answer_next(labelling, answer).pair)
    expected = [[asked[0].question1, asked[0].question2, "1"], [asked[2].question1, asked[2].question2, "0"]]
    assert rows(labelling.path)[0] == list(LABEL_FILE_COLUMNS)
    assert [row[:4] for row in rows(labelling.path)[1:]] == [[*row, "stratified"] for row in expected]
    assert len(set(asked)) == 4
    pairs = load_pairs(labelling.path)
    assert [(*pairs.texts(i), int(pairs.labels[i])) for i in range(2)] == [
        (asked[0].question1, asked[0].question2, 1),
        (asked[2].question1, asked[2].question2, 0),
    ]
    state = labelling.state()
    assert (state.duplicates, state.different, state.skipped) == (1, 1, 1)


def test_undo_takes_answers_and_skips_back_in_their_order_also_after_a_restart(
    labelling: Labelling, index: Index, tmp_path: Path
) -> None:
    states = [labelling.state()]
    for answer in ("skip", "yes", "skip", "skip", "no", "yes", "skip"):
        states.append(answer_next(labelling, answer))
    assert states[-1].last.answer == "skip"
    for n, expected in enumerate(states[-2::-1]):
        if n % 2:
            labelling = Labelling.open(tmp_path / "labels.csv", MODEL, index)
        assert labelling.undo() == expected
    with pytest.raises(LookupError, match="no answer"):
        labelling.undo()


def test_a_restart_goes_on_and_a_new_model_keeps_the_labels(labelling: Labelling, index: Index, tmp_path: Path) -> None:
    for _ in range(12):
        state = answer_next(labelling, some(labelling))
    assert Labelling.open(tmp_path / "labels.csv", MODEL, index).state() == state
    other = Labelling.open(tmp_path / "labels.csv", moved(MODEL, threshold=0.3), index).state("threshold")
    assert (other.duplicates, other.different) == (state.duplicates, state.different)
    assert other.pair != labelling.state("threshold").pair
    assert other.last.duplicate == (cosine(other.last.question1, other.last.question2) >= 0.3)


def test_f1_and_its_interval_are_those_of_metrics(labelling: Labelling) -> None:
    for _ in range(45):
        state = answer_next(labelling, some(labelling, "threshold"), "threshold")
    pairs = load_pairs(labelling.path)
    similarity = [cosine(*pairs.texts(i)) for i in range(len(pairs))]
    groups = question_components(pairs)[pairs.left]
    assert [figure.n for figure in state.figures] == [10, 20, 40, 45]
    for figure in state.figures:
        part = similarity[: figure.n], pairs.labels[: figure.n]
        interval = bootstrap_interval(*part, groups[: figure.n], MODEL.verdict.pair.threshold)["f1"]
        assert (figure.low, figure.high) == pytest.approx(interval)
        assert figure.value == pytest.approx(confusion(*part, MODEL.verdict.pair.threshold).f1)
    assert state.more == 135


def test_few_labels_give_no_figure_but_words(labelling: Labelling) -> None:
    for n in range(1, MIN_LABELS + 3):
        state = answer_next(labelling, "no", "threshold")
        assert state.figures == []
        assert f"so far there are {n}: 0 the same, {n} different" in state.missing
    for _ in range(3):
        state = answer_next(labelling, "yes", "threshold")
    assert [figure.n for figure in state.figures] == [15]
    assert state.missing == ""


def test_the_random_figure_counts_only_pairs_up_to_the_first_gap(labelling: Labelling) -> None:
    drawn = list(labelling._pairs["random"].values())
    for pair in (drawn[0], drawn[1], drawn[3], *drawn[5:25]):
        labelling.answer(LabelRequest(*pair[:2], "yes", "random"))
    state = labelling.state("random")
    assert "so far there are 2: 2 the same" in state.missing
    assert state.left == len(drawn) - 23
    assert (state.pair.question1, state.pair.question2) == drawn[2][:2]
    state = answer_next(labelling, "no", "random")
    assert "so far there are 4: 3 the same" in state.missing
    for _ in range(3):
        state = answer_next(labelling, "no", "random")
    assert [figure.n for figure in state.figures] == [27]
    assert labelling.state("threshold").figures[-1].n == 27


def test_answers_say_how_their_pair_was_drawn(labelling: Labelling) -> None:
    for choice in ("threshold", "stratified", "random", "threshold", "stratified", "random"):
        answer_next(labelling, "no", choice)
    stored = read_labels(labelling.path)
    assert stored.drawn == ("threshold", "stratified", "random") * 2
    for drawn, one, other, probability in zip(
        stored.drawn, stored.first, stored.second, stored.probability, strict=True
    ):
        expected = labelling._pairs[drawn][pair_key((one, other))]
        assert probability == pytest.approx(expected.probability, rel=1e-5, nan_ok=True)
        assert np.isnan(probability) == (drawn == "threshold")


def test_a_pair_counts_as_drawn_when_its_turn_has_come(labelling: Labelling) -> None:
    first, second, third, fourth = list(labelling._pairs["stratified"].values())[:4]
    labelling.answer(LabelRequest(*second[:2], "yes", "threshold"))  # answered before it was drawn
    labelling.answer(LabelRequest(*third[:2], "yes"))  # from a window that shows an old pair
    assert "stratified" not in read_labels(labelling.path).drawn
    answer_next(labelling, "skip")
    assert "stratified" not in read_labels(labelling.path).drawn
    answer_next(labelling, "no")
    assert labelling.state().last.question1 == fourth.question1
    stored = read_labels(labelling.path)
    assert stored.drawn == ("stratified",) * 3
    assert stored.probability == pytest.approx([second[2], third[2], fourth[2]], rel=1e-5)
    labelling.undo()
    assert read_labels(labelling.path).drawn == ("stratified",) * 2
    labelling.undo()
    assert (labelling.state().pair.question1, labelling.state().pair.question2) == first[:2]


def test_files_without_the_columns_of_drawing_go_on(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("question1,question2,is_duplicate\nt1,t2,1\nsomething,else,0\n")
    labelling = Labelling.open(path, MODEL, index)
    state = labelling.state()
    assert (state.duplicates, state.different) == (1, 1)
    assert path.read_text().startswith("question1,question2,is_duplicate\n")
    answer_next(labelling, "yes")
    kept = [["t1", "t2", "1", "", "", ""], ["something", "else", "0", "", "", ""]]
    assert rows(path)[:3] == [list(LABEL_FILE_COLUMNS), *kept]
    assert rows(path)[3][3] == "stratified"
    labelling.undo()
    assert len(rows(path)) == 3
    assert labelling.state().pair == state.pair


def test_several_people_label_the_same_pairs_in_one_file(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    ana, ben = (Labelling.open(LabelFile(path, name), MODEL, index) for name in ("ana", "ben"))
    first = ana.state()
    for answer in ("yes", "skip", "no"):
        answer_next(ana, answer)
    after = ana.state()
    assert ben.state() == first  # the labels of another are no answers of his
    states = [answer_next(ben, answer) for answer in ("no", "skip", "skip")]
    assert ana.state() == after
    assert [row[5] for row in rows(path)[1:]] == ["ana", "ana", "ben"]
    assert rows(path)[1][:2] == rows(path)[3][:2]
    assert read_labels(path).drawn == ("stratified",) * 3
    assert Labelling.open(LabelFile(path, "ben"), MODEL, index).state() == states[-1]
    for state in (*states[-2::-1], first):
        assert ben.undo() == state
    with pytest.raises(LookupError, match="no answer"):
        ben.undo()
    assert ana.state() == after


def test_skips_of_earlier_versions_stay(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    pair = Labelling.open(path, MODEL, index).state().pair
    (tmp_path / "labels.skipped.csv").write_text(f"question1,question2,after\n{pair.question1},{pair.question2},0\n")
    labelling = Labelling.open(path, MODEL, index)
    assert labelling.state().skipped == 1
    assert labelling.state().pair != pair
    assert labelling.undo().pair == pair


def test_the_precision_in_the_corpus_counts_each_pair_by_its_probability(labelling: Labelling) -> None:
    for n in range(60):
        state = answer_next(labelling, some(labelling))
        assert bool(state.figures) != bool(state.missing)
        assert bool(state.figures) or n < 40
    stored = read_labels(labelling.path)
    called = np.array([cosine(*pair) >= 0.8 for pair in zip(stored.first, stored.second, strict=True)])
    assert (state.measure, [figure.n for figure in state.figures][-2:]) == ("precision", [40, 60])
    weights = called / stored.probability
    assert state.figures[-1].value == pytest.approx(weights @ stored.labels / weights.sum())
    assert 0 <= state.figures[-1].low < state.figures[-1].value < state.figures[-1].high <= 1
    assert (state.measure, labelling.state("threshold").measure) == ("precision", "F1")


def test_a_shortened_index_is_judged_by_shortened_vectors(tmp_path: Path) -> None:
    made = embed(MODEL, [f"t{row}" for row in range(100)], tmp_path / "emb", dimension=8)
    build_index(made, tmp_path / "idx")
    last = answer_next(Labelling.open(tmp_path / "labels.csv", MODEL, open_index(tmp_path / "idx")), "yes").last
    one, other = (VECTORS[int(text[1:]), :8] for text in (last.question1, last.question2))
    expected = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert last.similarity == pytest.approx(expected, abs=1e-5)
    assert last.duplicate == (expected >= MODEL.verdict.pair.threshold)


def test_only_a_pair_that_waits_is_answered(labelling: Labelling) -> None:
    pair = labelling.state().pair
    answer_next(labelling, "yes")
    before = labelling.path.read_bytes()
    for one, other in [
        (pair.question1, pair.question2),
        (pair.question2, pair.question1.upper()),
        ("t1", "=cmd()"),
    ]:
        with pytest.raises(LookupError, match="is not waiting"):
            labelling.answer(LabelRequest(one, other, "no"))
    assert labelling.path.read_bytes() == before


def test_when_all_are_answered_there_is_no_next_pair(tmp_path: Path) -> None:
    build_index(embedded(tmp_path, MODEL, [0, 1]), tmp_path / "idx")
    labelling = Labelling.open(tmp_path / "labels.csv", MODEL, open_index(tmp_path / "idx"))
    state = answer_next(labelling, "no")
    assert (state.pair, state.left) == (None, 0)
    assert labelling.state("random").pair is None


def test_files_that_are_none_of_labels_are_refused(index: Index, tmp_path: Path) -> None:
    for name, content in {
        "a.csv": "question1,question2\na,b\n",
        "b.csv": "question1,question2,is_duplicate\na,b,2\n",
        "f.csv": "question1,question2,is_duplicate,mine\na,b,1,x\n",
        "c.csv": "question1,question2,is_duplicate\na,b\n",
        "d.csv": "",
        "e.csv": 'question1,question2,is_duplicate\n"a,b,1\n',
    }.items():
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(UserError, match=f"{name}.*--labels"):
            Labelling.open(path, MODEL, index)
        assert path.read_text() == content
    with pytest.raises(UserError, match=r"a \.csv file"):
        Labelling.open(tmp_path / "labels.tsv", MODEL, index)
    assert not (tmp_path / "labels.tsv").exists()
    with pytest.raises(UserError, match="cannot be written"):
        Labelling.open(Path("/proc/labels.csv"), MODEL, index)


def test_two_towers_and_other_models_are_refused(index: Index, tmp_path: Path) -> None:
    for model in (a_model(VECTORS, towers=2), a_model(VECTORS, fingerprint="b" * 16), a_model(VECTORS, score="head")):
        with pytest.raises(UserError):
            Labelling.open(tmp_path / "labels.csv", model, index)


KILLED = """
import os, signal, sys
sys.path[:0] = {tests!r}
from pathlib import Path
import qpairs.serving.labelling, test_labelling
from qpairs.retrieval.index import open_index
from qpairs.data.identity import pair_key
from qpairs.serving.labelling import Labelling
labelling = Labelling.open({path!r}, test_labelling.MODEL, open_index({index!r}))
replace = Path.replace
for step in range(6):
    if step == {step}:
        kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        if {late}:
            Path.replace = lambda fresh, path: (replace(fresh, path), kill())
        else:
            Path.replace = kill
    state = labelling.undo() if step == 3 else test_labelling.answer_next(labelling, ["yes", "skip", "no"][step % 3])
    print(state.duplicates, state.different, state.skipped, flush=True)
"""


@pytest.mark.parametrize(("step", "late"), [(0, False), (2, True), (3, False), (3, True), (4, False), (5, True)])
def test_a_kill_loses_no_acknowledged_answer(step: int, late: bool, index: Index, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    script = KILLED.format(tests=sys.path, path=str(path), index=str(index.folder), step=step, late=late)
    done = run_script(script)
    assert done.returncode == -9, done.stderr
    acknowledged = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(acknowledged) == step
    expected = [(0, 0, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 0, 1), (1, 0, 2), (1, 1, 2)]
    assert acknowledged == expected[1 : step + 1]
    state = Labelling.open(path, MODEL, index).state()
    assert (state.duplicates, state.different, state.skipped) == expected[step + late]


ANSWERED = """
import sys
sys.path[:0] = {tests!r}
import test_labelling
from qpairs.retrieval.index import open_index
from qpairs.serving.label_file import LabelFile
from qpairs.serving.labelling import Labelling
file = LabelFile(test_labelling.Path({path!r}), {who!r})
labelling = Labelling.open(file, test_labelling.MODEL, open_index({index!r}))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(25):
    test_labelling.answer_next(labelling, "no")
"""


def test_an_answer_that_comes_while_a_file_is_begun_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, held, begun = tmp_path / "labels.csv", LabelFile.held, list[LabelFile]()

    def late(self: LabelFile) -> AbstractContextManager[None]:
        monkeypatch.setattr(LabelFile, "held", held)
        begun.append(LabelFile(path, "ana"))  # another process is a moment earlier
        begun[0].write_labels(begun[0].read(), [Row("a", "b", 1)])
        return held(self)

    monkeypatch.setattr(LabelFile, "held", late)
    LabelFile(path, "ben")
    assert begun and read_labels(path).annotator == ("ana",)


def test_answers_to_two_processes_are_all_in_the_file(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    LabelFile(path)
    options = {"tests": sys.path, "path": str(path), "index": str(index.folder)}
    scripts = [ANSWERED.format(who=who, **options) for who in ("ana", "ben")]
    started = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for script in scripts
    ]
    for child in started:
        assert child.stdout and child.stdout.readline() == "ready\n"
    for child in started:
        child.communicate("go\n")
    assert [child.returncode for child in started] == [0, 0]
    assert sorted(read_labels(path).annotator) == ["ana"] * 25 + ["ben"] * 25
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.csv"]


@pytest.fixture
def app(index: Index, labelling: Labelling) -> FastAPI:
    return create_app(MODEL, index, labels=labelling.path)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app)


def test_answers_over_http_have_the_name_of_the_annotator(index: Index, tmp_path: Path) -> None:
    client = TestClient(create_app(MODEL, index, labels=LabelFile(tmp_path / "labels.csv", " ana  b. ")))
    pair = client.get("/labelling").json()["pair"]
    assert client.post("/labelling/answer", json={**pair, "answer": "yes"}).status_code == 200
    assert rows(tmp_path / "labels.csv")[1][5] == "ana b."


def test_the_routes_keep_to_their_description(app: FastAPI) -> None:
    described = schemathesis.openapi.from_asgi("/openapi.json", app).include(path_regex="^/labelling")
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == 5
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        def keeps_to_it(case: schemathesis.Case) -> None:
            case.call_and_validate()

        keeps_to_it()


def test_the_routes_label_undo_and_hand_out_the_file(client: TestClient, labelling: Labelling) -> None:
    state = client.get("/labelling").json()
    answered = client.post("/labelling/answer", json={**state["pair"], "answer": "yes"})
    assert answered.status_code == 200
    assert answered.json()["duplicates"] == 1
    last = answered.json()["last"]
    assert last | state["pair"] == last
    assert last["answer"] == "yes"
    assert last["duplicate"] == (last["similarity"] >= MODEL.verdict.pair.threshold)
    file = client.get("/labelling/labels.csv")
    assert file.headers["content-type"].startswith("text/csv")
    assert file.content == labelling.path.read_bytes()
    assert client.post("/labelling/undo", json={}).json() == state
    assert client.get("/labelling", params={"choice": "random"}).json()["pair"] != state["pair"]


def test_the_routes_refuse(client: TestClient, labelling: Labelling, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = client.get("/labelling").json()["pair"]
    answer: Callable = lambda **changes: client.post("/labelling/answer", json={**pair, "answer": "yes", **changes})  # noqa: E731
    assert client.post("/labelling/undo", json={}).status_code == 409
    assert answer(question1="what?").status_code == 409
    assert answer(answer="perhaps").status_code == 422
    assert client.get("/labelling", params={"choice": "best"}).status_code == 422

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "fsync", full)
    full_disk = answer()
    assert full_disk.status_code == 503
    assert str(labelling.path.parent) not in full_disk.text
    monkeypatch.undo()
    assert client.get("/labelling").json()["duplicates"] == 0
    assert answer().status_code == 200


def test_training_and_calibration_take_the_labels(
    sample_rows: list[tuple[str, str, int]], pairs_csv: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    qpairs.train(data=str(pairs_csv), encoder="static", epochs=1, batch_size=16, output=str(folder))
    model: Model = qpairs.load(folder)
    questions = list(dict.fromkeys(text for row in sample_rows for text in row[:2]))[:120]
    (tmp_path / "q.txt").write_text("\n".join(" ".join(text.split()) for text in questions))
    build_index(qpairs.embed(model, tmp_path / "q.txt", tmp_path / "emb"), tmp_path / "idx")
    labelling = Labelling.open(tmp_path / "labels.csv", model, open_index(tmp_path / "idx"))
    for n in range(40):
        answer_next(labelling, "yes" if n % 3 else "no")
    assert qpairs.calibrate(folder, labelling.path).n == 40
    own = {"data": str(labelling.path), "validation": str(pairs_csv)}
    qpairs.train(**own, encoder="static", epochs=1, batch_size=8, output=str(tmp_path / "again"))
