from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from corpora import fitted, questions
from test_index import Table, a_model, clustered

from qpairs.core.exceptions import UserError
from qpairs.retrieval.index import Hit, Index
from qpairs.retrieval.search import setting_for
from qpairs.serving import current_setting
from qpairs.serving.requests import (
    AddRequest,
    DeleteRequest,
    IndexConflict,
    RequestHandler,
    ScoreRequest,
    SearchRequest,
)

VECTORS = clustered(60)


@dataclass
class MemoryIndex:
    """A `VectorIndex` that compares all with all, and counts its changes."""

    vectors: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.vectors)

    def known(self, ids: Sequence[str]) -> list[str]:
        return [name for name in ids if name in self.vectors]

    def texts(self) -> Iterator[str]:
        return (text for text, _ in self.vectors.values())

    def search(self, vectors: np.ndarray, k: int, *, threads: int | None = None) -> list[list[Hit]]:
        self.calls.append("search")
        hits = [[Hit(name, text, float(q @ v)) for name, (text, v) in self.vectors.items()] for q in vectors]
        return [sorted(row, key=lambda hit: -hit.similarity)[:k] for row in hits]

    def add(self, ids: Sequence[str], texts: Sequence[str], vectors: np.ndarray) -> None:
        self.calls.append("add")
        self.vectors |= {name: (text, v) for name, text, v in zip(ids, texts, vectors, strict=True)}

    def delete(self, ids: Sequence[str]) -> int:
        self.calls.append("delete")
        return sum(self.vectors.pop(name, None) is not None for name in ids)


def an_index(rows: Sequence[int] = range(40), side: str = "left", questions: Any = None) -> Index:
    manifest = SimpleNamespace(fingerprint="a" * 16, dimension=VECTORS.shape[1], side=side, scores=None, built=40)
    manifest.model = "model"
    stored = {f"id{row}": (f"t{row}", VECTORS[row] * (-1 if side == "right" else 1)) for row in rows}
    kept: Any = questions or MemoryIndex(stored)
    return Index(Path("index"), manifest, kept, kept)  # type: ignore[arg-type]


def test_texts_of_all_requests_are_encoded_together_each_once() -> None:
    model = a_model(VECTORS)
    handler = RequestHandler(model, an_index())
    model.encoder.encoded.clear()
    requests = [ScoreRequest([("t1", "t2"), ("t2", "t3")]), SearchRequest("t1", 2), AddRequest(["new"], ["t50"])]
    scores, found, count = handler.answer(requests)
    assert sorted(model.encoder.encoded) == ["t1", "t2", "t3", "t50"]
    np.testing.assert_allclose(scores.similarity, [VECTORS[1] @ VECTORS[2], VECTORS[2] @ VECTORS[3]], atol=1e-6)
    assert found.answers[0].hit.id == "id1"
    assert (len(found.answers), count) == (2, 41)
    assert [handler.size(request) for request in (*requests, DeleteRequest("id1"))] == [4, 1, 1, 1]


def test_decisions_are_those_of_a_setting_for_pairs_and_one_for_searches() -> None:
    handler = RequestHandler(a_model(VECTORS), an_index())
    assert handler.pair_setting == handler.search_setting == handler.model.verdict.pair
    assert handler.current
    handler.current.setting = handler.pair_setting.at(2.0)
    (found,) = handler.answer([SearchRequest("t1", 3)])
    assert found.setting.threshold == 2
    same, *others = found.answers
    assert (same.probability, same.duplicate) == (1.0, True), "the same text, whatever the threshold"
    assert not any(answer.duplicate for answer in others)
    for answer in others:
        assert answer.probability == pytest.approx(float(handler.pair_setting.probability(answer.hit.similarity)))
    assert RequestHandler(a_model(VECTORS), None).search_setting is None


def test_searches_are_judged_by_the_questions_that_there_are_now(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()

    def counted(index: Index, model: Any, n: int) -> Any:
        sizes.append(n)
        return setting_for(index, model, n)

    monkeypatch.setattr(current_setting, "setting_for", counted)
    vectors, densities = questions(60), fitted(seed=1)
    handler = RequestHandler(a_model(vectors, densities=densities), an_index())
    added = [AddRequest([f"new{i}"], [f"t{i}"]) for i in range(9)]

    def of(*requests: Any) -> str:
        *_, found = handler.answer([*requests, SearchRequest("t1", 3)])
        handler.current.wait(10)
        nearest = next(answer for answer in found.answers if answer.hit.text != "t1")
        assert nearest.probability == found.setting.probability(nearest.hit.similarity)
        return handler.search_setting.precision_of

    assert of() == "of a hit among 40 questions"
    assert of(*added[:4]) == "of a hit among 40 questions", "a tenth more makes hardly a difference"
    assert of(added[4]) == "of a hit among 45 questions"
    assert of(*[DeleteRequest(f"id{i}") for i in range(10)]) == "of a hit among 35 questions"
    assert sizes == [40, 45, 35]


def test_a_setting_that_cannot_be_made_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = RequestHandler(a_model(questions(60), densities=fitted(seed=1)), an_index())
    before = handler.search_setting

    def fails(*_: object) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(current_setting, "setting_for", fails)
    handler.answer([AddRequest([f"new{i}"], [f"t{i}"]) for i in range(9)])
    assert handler.current
    handler.current.wait(10)
    (found,) = handler.answer([SearchRequest("t1", 3)])
    assert found.setting is before


def test_changes_come_before_searches_of_the_same_batch_and_deletions_first() -> None:
    index = an_index()
    requests = [SearchRequest("t50", 1), AddRequest(["id1"], ["t50"]), DeleteRequest("id1")]
    found, count, existed = RequestHandler(a_model(VECTORS), index).answer(requests)
    assert index.questions.calls == ["delete", "add", "search"]
    hit = found.answers[0].hit
    assert (hit.id, hit.text, count, existed) == ("id1", "t50", 40, True)


def test_an_id_that_exists_is_a_conflict_of_its_own_request_and_adds_none_of_it() -> None:
    index = an_index()
    requests = [AddRequest(["x", "id7"], ["t51", "t52"]), AddRequest(["y"], ["t53"]), AddRequest(["y"], ["t54"])]
    first, second, third = RequestHandler(a_model(VECTORS), index).answer(requests)
    assert isinstance(first, IndexConflict)
    assert str(first) == "id 'id7' is in the index already"
    assert second == 41
    assert "'y'" in str(third)
    assert index.questions.known(["x", "y"]) == ["y"]


def test_of_several_requests_to_delete_a_question_the_first_finds_it() -> None:
    requests = [DeleteRequest("id1"), DeleteRequest("nobody"), DeleteRequest("id1"), DeleteRequest("id2")]
    assert RequestHandler(a_model(VECTORS), an_index()).answer(requests) == [True, False, False, True]


def test_without_an_index_every_request_for_it_is_a_conflict() -> None:
    requests = [SearchRequest("t1", 1), AddRequest(["x"], ["t1"]), DeleteRequest("x"), ScoreRequest([("t1", "t1")])]
    *conflicts, scores = RequestHandler(a_model(VECTORS), None).answer(requests)
    assert ["--index" in str(conflict) for conflict in conflicts] == [True] * 3
    assert scores.similarity.tolist() == [pytest.approx(1)]


def test_a_request_that_fails_does_not_take_others_with_it() -> None:
    class Broken:
        def __len__(self) -> int:
            return 40

        def __getattr__(self, name: str) -> Any:
            raise OSError("/secret/path: broken")

    handler = RequestHandler(a_model(VECTORS), an_index(questions=Broken()))
    good, bad = handler.answer([ScoreRequest([("t1", "t1")]), SearchRequest("t1", 3)])
    assert good.similarity.tolist() == [pytest.approx(1)]
    assert isinstance(bad, OSError)


def test_two_towers_score_the_mean_of_both_directions_or_the_first_against_the_second() -> None:
    class Towers(Table):
        def encode(self, texts: Sequence[str], side: str = "left") -> np.ndarray:
            found = super().encode(texts)
            return np.roll(found, 1, axis=1) if side == "right" else found

    right = np.roll(VECTORS, 1, axis=1)
    there, back = VECTORS[1] @ right[2], VECTORS[2] @ right[1]
    for symmetric, expected in ((True, (there + back) / 2), (False, there)):
        model = replace(a_model(VECTORS, symmetric=symmetric, towers=2), encoder=Towers(VECTORS))
        handler = RequestHandler(model, None)
        requests = [ScoreRequest([("t1", "t2")]), ScoreRequest([("t1", "t2"), ("t1", "t2")])]
        (cosine,), same = (scored.similarity for scored in handler.answer(requests))
        assert cosine == pytest.approx(expected, abs=1e-6)
        assert same.tolist() == [cosine, cosine]
        assert handler.size(requests[1]) == (8 if symmetric else 4)


@pytest.mark.parametrize(("labelled", "dimension"), [(False, 8), (True, 20)])
def test_pairs_are_scored_by_vectors_as_long_as_those_of_the_setting(labelled: bool, dimension: int) -> None:
    """A ready model is judged by the index, which may be shortened; another one by its own threshold for pairs."""
    index = an_index()
    index.manifest.dimension = 8  # type: ignore[misc]
    (scored,) = RequestHandler(a_model(VECTORS, labelled=labelled), index).answer([ScoreRequest([("t1", "t2")])])
    one, other = VECTORS[1, :dimension], VECTORS[2, :dimension]
    expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    np.testing.assert_allclose(scored.similarity, [expected], atol=1e-6)


def test_an_index_of_the_right_tower_is_searched_with_the_left() -> None:
    handler = RequestHandler(a_model(VECTORS, towers=2, symmetric=False), an_index(side="right"))
    found, _ = handler.answer([SearchRequest("t50", 41), AddRequest(["new"], ["t50"])])
    last = found.answers[-1].hit
    assert (last.id, last.similarity) == ("new", pytest.approx(-1)), "its right tower is upside down"


def test_a_model_that_cannot_judge_the_index_is_refused() -> None:
    for model, reason in (
        (a_model(VECTORS, fingerprint="b" * 16), "made by the model"),
        (a_model(VECTORS, towers=2), "both directions"),
        (a_model(VECTORS, score="head"), "head"),
    ):
        with pytest.raises(UserError, match=reason):
            RequestHandler(model, an_index())
