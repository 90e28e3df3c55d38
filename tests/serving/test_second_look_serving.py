"""A service whose model has two stages: the page and the API show what cosine and logit say together."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import corpora
import numpy as np
import pytest
from numpy.typing import NDArray
from second_looks import IntentReader, logit_of, two_stages
from starlette.testclient import TestClient
from test_index import embedded

from qpairs.metrics import Calibration, SecondLook
from qpairs.models.second_setting import SecondSetting
from qpairs.models.two_stages import TwoStages
from qpairs.models.verdict import PairSetting
from qpairs.retrieval.index import build_index, open_index
from qpairs.retrieval.search import heading, search, setting_for
from qpairs.serving.app import create_app
from qpairs.serving.journal import journalled
from qpairs.serving.limits import Limits
from qpairs.serving.requests import DeleteRequest, RequestHandler, ScoreRequest, SearchRequest

N = 400
VECTORS = corpora.questions(N, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("served")
    build_index(embedded(made, two_stages(VECTORS).first, range(N)), made / "idx")
    return made / "idx"


@pytest.fixture
def model() -> TwoStages:
    return two_stages(VECTORS, seed=6)


@pytest.fixture
def client(folder: Path, model: TwoStages) -> Iterator[TestClient]:
    with journalled(folder) as index, TestClient(create_app(model, index)) as client:
        yield client


def pairs_read(client: TestClient) -> float:
    return float(re.search(r"^qpairs_pairs_read_total (\S+)$", client.get("/metrics").text, re.MULTILINE)[1])


def test_a_search_answers_what_the_library_answers(client: TestClient, folder: Path, model: TwoStages) -> None:
    assert pairs_read(client) == 0
    answer = client.post("/search", json={"question": "t5", "k": 4}).json()
    read = len(model.second.reader.read)
    assert pairs_read(client) == read > 0
    index = open_index(folder)
    (expected,) = search(index, model, ["t5"], 4)
    assert [hit["id"] for hit in answer["hits"]] == [found.hit.id for found in expected]
    for hit, found in zip(answer["hits"], expected, strict=True):
        assert (hit["duplicate"], hit["verdict"]) == (found.duplicate, found.verdict)
        assert hit["probability"] == pytest.approx(found.probability, abs=1e-4)
        assert hit["similarity"] == pytest.approx(found.hit.similarity, abs=1e-5)
    assert answer["heading"] == heading(expected)
    assert (answer["threshold"], answer["threshold_of"]) == (0.5, "probability")
    assert answer["of"] == setting_for(index, model).precision_of


def test_pairs_are_scored_by_the_verdict_of_both_stages(client: TestClient, model: TwoStages) -> None:
    pairs = [["t0", f"t{row}"] for row in range(1, 40)]
    answer = client.post("/score", json={"pairs": pairs}).json()
    cosines = VECTORS[1:40] @ VECTORS[0]
    seen = model.band.holds(cosines)
    logits = np.where(seen, [logit_of(*pair) for pair in pairs], np.nan)
    odds = model.first.verdict.pair.log_odds(cosines) + model.look.gain(cosines, logits)
    results = answer["results"]
    np.testing.assert_allclose([each["similarity"] for each in results], cosines, atol=1e-5)
    np.testing.assert_allclose(
        [each["probability"] for each in results], model.verdict.pair.probability(odds), atol=1e-4
    )
    assert [each["duplicate"] for each in results] == model.verdict.pair.decide(odds).tolist()
    assert answer["threshold_of"] == client.get("/ready").json()["threshold_of"] == "probability"
    assert answer["threshold"] == client.get("/ready").json()["threshold"]
    for each in results:
        assert each["duplicate"] == (each["probability"] >= answer["threshold"])
    assert pairs_read(client) == seen.sum() > 0


def test_a_batch_is_read_in_one_call_for_searches_and_one_for_pairs(folder: Path, model: TwoStages) -> None:
    counted = list[int]()
    handler = RequestHandler(model, open_index(folder), on_read=counted.append)
    requests = [SearchRequest("t5", 3), ScoreRequest([("t0", "t1")]), SearchRequest("t9", 12), SearchRequest("t5", 2)]
    found = handler.answer(requests)
    reader = model.second.reader
    assert len(reader.calls) == 2
    assert counted == [len(call) for call in reader.calls]
    assert len(reader.read) == len(set(reader.read)), "t5 is asked twice, and read once"
    assert [len(found[row].answers) for row in (0, 2, 3)] == [3, 12, 2]
    assert found[0].answers[:2] == found[3].answers


def test_an_answer_does_not_depend_on_what_others_ask_at_the_same_moment(folder: Path, model: TwoStages) -> None:
    handler = RequestHandler(model, open_index(folder))
    found = handler.answer([SearchRequest("t5", 100)])[0].answers
    far = sorted(found, key=lambda answer: -answer.hit.similarity)[24].hit.text

    class SureOfOne:
        def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
            return np.array([6.0 if far in pair else -6.0 for pair in pairs], np.float32)

    handler._reader = SureOfOne()
    look = SecondLook(0, 0, 1, (-2, 0), (2, 0))
    handler.current.setting = SecondSetting(PairSetting(0.3, Calibration(1, -0.3)), look)
    ((alone,), (longer,)) = (handler.answer([SearchRequest("t5", k)]) for k in (3, 100))
    assert longer.answers[1].hit.text == far  # after t5 itself
    beside = handler.answer([SearchRequest("t5", 3), SearchRequest("t300", 100)])[0]
    assert beside.answers == alone.answers


def test_a_request_weighs_what_it_may_read_and_reads_no_more_than_is_allowed(folder: Path, model: TwoStages) -> None:
    handler = RequestHandler(model, open_index(folder), most_read=20)
    requests = [SearchRequest("t5", 3), SearchRequest("t5", 100), ScoreRequest([("t0", "t1")] * 5), DeleteRequest("x")]
    assert [handler.size(request) for request in requests] == [1 + 10, 1 + 20, 10 + 5, 1]
    alone = RequestHandler(model.first, open_index(folder))
    assert [alone.size(request) for request in requests] == [1, 1, 10, 1]
    strict = RequestHandler(model, open_index(folder), most_read=1)
    strict.answer([SearchRequest("t5", 10), SearchRequest("t9", 10)])
    assert len(model.second.reader.read) == 2


def test_no_reads_are_allowed(folder: Path, model: TwoStages) -> None:
    with journalled(folder) as index, TestClient(create_app(model, index, limits=Limits(reads=0))) as client:
        answer = client.post("/search", json={"question": "t5"}).json()
    assert len(answer["hits"]) == 10
    assert model.second.reader.read == []


def test_the_setting_follows_the_size_of_the_index(folder: Path, model: TwoStages) -> None:
    handler = RequestHandler(model, open_index(folder))
    assert handler.current is not None
    before = handler.search_setting
    handler.current.update(N * 2)
    handler.current.wait(20)
    assert handler.search_setting.precision_of == "of a hit among 800 questions"
    assert type(handler.search_setting) is type(before)


def test_labelling_stays_with_the_cosines_of_the_encoder(folder: Path, model: TwoStages, tmp_path: Path) -> None:
    from qpairs.serving.label_pairs import pairs_to_label

    index = open_index(folder)
    assert pairs_to_label(index, model)["threshold"] == pairs_to_label(index, model.first)["threshold"]
    assert isinstance(model.second.reader, IntentReader)
    assert model.second.reader.read == []
