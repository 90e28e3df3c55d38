"""What every model can do by itself, without a file: predict, similarity, dedupe, search; reprs and cards."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pandas
import pytest

import qpairs
from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.models.base import Model
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.exported import Export
from qpairs.models.two_stages import TwoStages
from qpairs.retrieval.memory import MemoryIndex

MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
ASKED = [("How do I pay?", "How can I pay?"), ("Who are you?", "How do I pay?")]


@pytest.fixture(scope="module")
def texts(sample_rows: list[tuple[str, str, int]]) -> list[str]:
    return sorted({text for first, second, _ in sample_rows for text in (first, second)})


@pytest.mark.parametrize("kind", [Checkpoint, Export, TwoStages, CrossModel])
@pytest.mark.parametrize("name", ["predict", "similarity", "dedupe", "search"])
def test_every_kind_of_model_has_the_methods_of_the_protocol(kind: type, name: str) -> None:
    asked, had = (inspect.signature(getattr(owner, name)).parameters for owner in (Model, kind))
    assert list(had)[1:] == list(asked)[1:]
    assert [p.default for p in had.values()][1:] == [p.default for p in asked.values()][1:]


@pytest.mark.parametrize("folder", ["one", "one-static", "one-onnx", "two"])
def test_predict_is_that_of_the_verdict(folder: str) -> None:
    model = qpairs.load(MADE / folder)
    found = model.predict(ASKED)
    pairs = qpairs.load_pairs(ASKED, labelled=False)
    scores = model.score_pairs(pairs)[0]
    np.testing.assert_array_equal(found.similarity, scores)
    np.testing.assert_array_equal(found.duplicate, model.verdict.pair.decide(scores))
    np.testing.assert_array_equal(found.table["probability"], model.verdict.pair.probability(scores))
    assert found.table[["question1", "question2"]].values.tolist() == [list(pair) for pair in ASKED]
    middle = float(scores.mean())
    assert model.predict(ASKED, threshold=middle).duplicate.tolist() == (scores >= middle).tolist()
    assert found.threshold == model.verdict.pair.threshold
    np.testing.assert_allclose(model.similarity(*map(list, zip(*ASKED, strict=True))), scores)
    assert model.similarity(*ASKED[0]) == pytest.approx(float(scores[0]), abs=1e-6)
    with pytest.raises(UserError, match="give only one of them"):
        model.predict(ASKED, threshold=0.5, precision=0.9)


def test_predictions_keep_the_rows_of_a_data_frame() -> None:
    model, index = qpairs.load(MADE / "one-onnx"), ["a", "b", "b"]
    asked = [*ASKED, *ASKED][:3]
    first, second = zip(*asked, strict=True)
    frame = pandas.DataFrame({"id": [7, 8, 9], "q1": first, "q2": second, "topic": ["x", "y", "z"]}, index=index)
    table = model.predict(frame.rename(columns={"q1": "question1", "q2": "question2"})).table
    assert list(table) == ["question1", "question2", "similarity", "probability", "duplicate", "id", "topic"]
    assert (table.index.tolist(), table["id"].tolist()) == (index, [7, 8, 9])
    np.testing.assert_array_equal(table["similarity"], model.predict(asked).similarity)
    emptied = frame.rename(columns={"q1": "question1", "q2": "question2"}).assign(question2=[*second[:2], ""])
    assert list(model.predict(emptied, skip_bad_rows=True).table.index) == [0, 1]


def test_all_other_columns_of_a_data_frame_follow_the_predictions() -> None:
    model = qpairs.load(MADE / "one-onnx")
    first, second = zip(*ASKED, strict=True)
    frame = pandas.DataFrame({"a": first, "b": second, "tags": [["x", "y"], []], "more": [{"n": 1}, {}]})
    table = model.predict(frame, columns=("a", "b")).table
    assert list(table) == ["question1", "question2", "similarity", "probability", "duplicate", "tags", "more"]
    assert table["tags"].tolist() == [["x", "y"], []]
    frame = frame.assign(question1=["mine", "own"], again=first, given_question1=[1, 2])
    table = model.predict(frame, columns="a, b").table
    assert list(table)[5:] == ["tags", "more", "given_given_question1", "again", "given_question1"]
    assert table["question1"].tolist() == table["again"].tolist() == list(first)
    assert table["given_given_question1"].tolist() == ["mine", "own"]
    spaced = model.predict(pandas.DataFrame({"q1": ["How  do I pay?"], "q2": ["Who?"]})).table
    assert list(spaced) == ["question1", "question2", "similarity", "probability", "duplicate"]
    numbered = pandas.DataFrame({0: first, 1: second, 2: ["x", "y"]})
    assert list(model.predict(numbered, columns=("0", "1")).table)[5:] == [2]


def test_dedupe_and_search_of_texts_are_those_of_a_file(checkpoint: Checkpoint, texts: list[str], tmp_path: Path):
    (tmp_path / "questions.txt").write_text("\n".join(texts), encoding="utf-8")
    frame = pandas.DataFrame({"text": texts, "n": range(len(texts))}, index=[f"r{n}" for n in range(len(texts))])
    results = [checkpoint.dedupe(source) for source in (texts, frame, tmp_path / "questions.txt")]
    assert len({tuple(found.found.kept.tolist()) for found in results}) == 1
    assert 0 < len(results[0].kept) < len(texts)
    pandas.testing.assert_frame_equal(results[1].kept, frame.iloc[results[1].found.kept])
    known = checkpoint.dedupe(texts[:20], against=texts[:5], threshold=0.9)
    assert {1, 2, 3, 4, 5} <= set(known.asked["row"])
    assert set(known.kept["text"]).isdisjoint(texts[:5])

    pytest.importorskip("faiss")
    made = qpairs.embed(checkpoint, texts, tmp_path / "emb")
    qpairs.build_index(made, tmp_path / "idx")
    here, there = (checkpoint.search(ASKED[0], among, k=4) for among in (texts, qpairs.open_index(tmp_path / "idx")))
    assert here["text"][0] == there["text"][0]
    np.testing.assert_allclose(here["similarity"], there["similarity"], atol=1e-3)
    np.testing.assert_allclose(here["probability"], there["probability"], atol=0.02)
    assert list(here) == ["question", "rank", "id", "text", "similarity", "probability", "duplicate", "verdict"]


def test_an_index_in_memory_is_made_once_and_grows(checkpoint: Checkpoint, texts: list[str]) -> None:
    index = qpairs.index_in_memory(checkpoint, [(f"id{n}", text) for n, text in enumerate(texts)], id_column="id")
    assert checkpoint.search([texts[7]], index, k=1)["id"].tolist() == ["id7"]
    assert isinstance(index.back_end, MemoryIndex)
    index.questions.add(["new"], ["A question of its own"], checkpoint.encode(["A question of its own"]))
    assert index.questions.known(["new", "old"]) == ["new"]
    assert checkpoint.search(["A question of its own"], index, k=1)["id"].tolist() == ["new"]
    assert index.questions.delete(["new", "id7", "old"]) == 2
    assert len(index.questions) == len(texts) - 1
    assert checkpoint.search([texts[7]], index, k=1)["id"].tolist() != ["id7"]
    with pytest.raises(UserError, match=r"^list: the id 'a' appears twice"):
        qpairs.index_in_memory(checkpoint, [("a", "How?"), ("a", "Why?")], id_column="id")
    with pytest.raises(UserError, match="k is 0, must be k >= 1"):
        checkpoint.search(["How?"], index, k=0)
    with pytest.raises(UserError, match="made by the model"):
        qpairs.load(MADE / "one-onnx").search(["How?"], index)


def test_one_text_in_place_of_a_list_is_refused_by_every_method(checkpoint: Checkpoint) -> None:
    for call in (
        lambda model: model.encode("hello there"),
        lambda model: model.embed_tables("hello there"),
        lambda model: model.search("hello there", ["a", "b"]),
        lambda model: model.similarity("hello", ["there"]),
        lambda model: model.similarity(["hello"], "there"),
        lambda model: qpairs.search(qpairs.open_index(MADE / "index"), qpairs.load(MADE / "one"), "hello there"),
        lambda model: qpairs.dedupe("hello there", model.encode, 0.5),
    ):
        for model in (checkpoint, qpairs.load(MADE / "one-static")):
            with pytest.raises(UserError, match="is one text, not a list"):
                call(model)
    with pytest.raises(UserError, match="a list of texts"):
        checkpoint.dedupe("hello there")
    with pytest.raises(UserError, match=r"2 first texts and 1 second"):
        checkpoint.similarity(["a", "b"], ["c"])


def test_reports_list_their_mistakes_and_take_another_threshold(checkpoint: Checkpoint, pairs_csv: Path) -> None:
    frame = pandas.read_csv(pairs_csv)
    report = qpairs.evaluate(checkpoint, frame)
    assert report.f1 == qpairs.evaluate(checkpoint, pairs_csv).f1
    mistakes, counted = report.mistakes, report.confusion
    assert len(mistakes) == counted.fp + counted.fn
    assert (mistakes["duplicate"] != mistakes["is_duplicate"].astype(bool)).all()
    assert mistakes["distance"].abs().is_monotonic_decreasing
    asked = frame.set_index(["question1", "question2"])["is_duplicate"]
    for row in mistakes.head(20).itertuples():
        assert asked.loc[(row.question1, row.question2)].max() in (row.is_duplicate, 1)

    for each in (report, qpairs.evaluate(checkpoint, frame, seed=3)):
        again = each.rethreshold(each.threshold)
        assert dataclasses.replace(again, from_validation=True) == each
    other = report.rethreshold(0.9)
    called = report.scores >= np.float64(0.9)
    assert (other.confusion.tp, other.confusion.fp) == (
        int((called & (report.labels == 1)).sum()),
        int((called & (report.labels == 0)).sum()),
    )
    assert (other.average_precision, other.brier) == (report.average_precision, report.brier)
    assert report.from_validation
    assert not other.from_validation
    assert "no longer the one of validation" in repr(other)
    assert other.to_dict()["from_validation"] is False
    assert {"pairs", "setting", "scores"}.isdisjoint(other.to_dict())
    with pytest.raises(UserError, match="must be a finite number"):
        report.rethreshold(float("nan"))


def test_reprs_are_short_and_cards_are_small_and_escaped(checkpoint: Checkpoint, pairs_csv: Path) -> None:
    fit, texts = qpairs.calibrate(checkpoint, pairs_csv), ["How do I pay?", "How can I pay?", "Who are you?"]
    shown = [checkpoint, qpairs.load(MADE / "one-static"), qpairs.load_pairs(pairs_csv), fit]
    shown += [qpairs.evaluate(checkpoint, pairs_csv), checkpoint.dedupe(texts), checkpoint.predict(ASKED)]
    for thing in shown:
        assert len(repr(thing)) < 700
        assert "\n" not in repr(thing)
        assert repr(thing).startswith(f"{type(thing).__name__}(")
        assert len(thing._repr_html_()) < 2000
        assert thing._repr_html_().startswith("<table>")
    moved = dataclasses.replace(checkpoint, path=Path("<script>alert(1)</script>\x1b[31m") / ("long" * 400))
    assert "<script>" not in moved._repr_html_()
    assert "&lt;script&gt;" in moved._repr_html_()
    assert "\x1b" not in repr(moved) + moved._repr_html_()
    assert len(moved._repr_html_()) < 2000


def test_a_card_of_the_longest_facts_is_small() -> None:
    class Long:
        def _facts(self) -> tuple[str, dict[str, object]]:
            return "Long", {f"name {n}": "&" * 1000 for n in range(40)}

    assert len(html_card(Long())) < 2000
    assert len(one_line(Long())) < 40 * 140


def test_what_a_config_shows_is_what_differs_from_the_defaults() -> None:
    config = qpairs.Config(epochs=2, dims=(96, 384))
    assert repr(config) == "Config(dims=(384, 96), epochs=2.0)"
    assert eval(repr(config), {"Config": qpairs.Config}) == config


def test_columns_of_other_names_are_named() -> None:
    model = qpairs.load(MADE / "one-onnx")
    frame = pandas.DataFrame([(*pair, number) for number, pair in enumerate(ASKED)], columns=["a", "b", "same"])
    with pytest.raises(UserError, match=r"no pair of question columns .* name them with columns \(--columns\)"):
        model.predict(frame)
    expected = model.predict(ASKED)
    for columns in ("a, b", ["a", "b"]):
        np.testing.assert_array_equal(model.predict(frame, columns=columns).similarity, expected.similarity)
        np.testing.assert_array_equal(qpairs.predict(model, frame, columns=columns).similarity, expected.similarity)
    frame.loc[2] = ["", "Who?", 1]
    with pytest.raises(UserError, match="skip_bad_rows=True"):
        qpairs.evaluate(model, frame, columns="a,b,same")
    assert qpairs.evaluate(model, frame, columns="a,b,same", skip_bad_rows=True).n == 2
    table = pandas.DataFrame({"name": ["How can I pay?", "Who are you?"], "number": [7, 8]})
    with pytest.raises(UserError, match=r"name it with text_column"):
        model.search(["How do I pay?"], table)
    assert model.search(["How do I pay?"], table, k=1, text_column="name")["text"].tolist() == ["How can I pay?"]
    with pytest.raises(UserError, match=r"text_column: \['name'\], must be a text"):
        model.dedupe(table, text_column=["name"])  # type: ignore[arg-type]
