import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import refused
from corpora import fitted, intents, questions
from hypothesis import given
from hypothesis import strategies as st
from test_index import a_model, clustered, embedded

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter, Progress
from qpairs.metrics import Calibration
from qpairs.models.verdict import LEVELS, NO_DENSITIES, PairSetting, Setting, Verdict, words
from qpairs.retrieval.embed import embed
from qpairs.retrieval.index import (
    FILE,
    Hit,
    Index,
    add_to_index,
    build_index,
    delete_from_index,
    open_index,
)
from qpairs.retrieval.index.scores import count_pairs
from qpairs.retrieval.search import HEADINGS, Answer, answers_table, heading, search, search_vectors, setting_for


def test_search_gives_probability_and_verdict(tmp_path: Path) -> None:
    vectors = clustered(200)
    model = a_model(vectors)
    build_index(embedded(tmp_path, model, range(100)), tmp_path / "idx")
    opened = open_index(tmp_path / "idx")
    (answers,) = search(opened, model, ["t150"], 5, 0.9)
    cosines = np.sort(vectors[:100] @ vectors[150])[:-6:-1]
    assert [a.hit.similarity for a in answers] == pytest.approx(cosines.tolist(), abs=1e-6)
    assert [a.probability for a in answers] == pytest.approx(model.verdict.pair.probability(cosines).tolist(), abs=1e-5)
    assert [a.duplicate for a in answers] == (cosines >= 0.9).tolist()
    assert [a.duplicate for a in search(opened, model, ["t150"], 5)[0]] == (
        cosines >= model.verdict.pair.threshold
    ).tolist()
    with pytest.raises(UserError, match="d" * 16):
        search(opened, a_model(vectors, "d" * 16), ["t1"])


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_what_is_found_of_one_question_does_not_depend_on_the_others(tmp_path: Path, kind: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)  # without clusters: hard for a graph
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = a_model(vectors)
    build_index(embedded(tmp_path, model, range(2900)), tmp_path / "idx", kind=kind)
    opened, asked = open_index(tmp_path / "idx"), vectors[2900:2960]
    alone = search_vectors(opened, asked, 5, model.verdict.pair)
    beside = search_vectors(opened, asked, [5] * 59 + [800], model.verdict.pair)
    assert beside[:59] == alone[:59]
    assert (len(beside[59]), len(search(opened, model, ["t1"], np.int64(3))[0])) == (800, 3)


def test_the_other_tower_searches(tmp_path: Path) -> None:
    vectors = clustered(50)
    one_way = a_model(vectors, towers=2, symmetric=False)
    for side in ("left", "right"):
        build_index(embedded(tmp_path / side, one_way, range(50), side), tmp_path / side / "idx")
        (answers,) = search(open_index(tmp_path / side / "idx"), one_way, ["t7"], 50)
        assert answers[-1].hit.text == "t7"  # the right tower sees everything upside down
        assert answers[-1].hit.similarity == pytest.approx(-1, abs=1e-6)
    with pytest.raises(UserError, match="--no-symmetric"):
        search(open_index(tmp_path / "left" / "idx"), a_model(vectors, towers=2), ["t7"])


def test_a_table_has_a_row_for_each_hit(tmp_path: Path) -> None:
    vectors = clustered(50)
    model = a_model(vectors)
    build_index(embedded(tmp_path, model, range(50)), tmp_path / "idx")
    answers = search(open_index(tmp_path / "idx"), model, ["t7", "t9"], 3)
    table = answers_table(["t7", "t9"], answers)
    assert table["question"].tolist() == ["t7"] * 3 + ["t9"] * 3
    assert table["rank"].tolist() == [1, 2, 3] * 2
    assert table["text"].tolist()[::3] == ["t7", "t9"]
    assert table["duplicate"].tolist() == (table["similarity"] >= model.verdict.pair.threshold).astype(int).tolist()


# The scores of an index


def test_the_scores_are_those_of_all_pairs_of_distinct_questions(tmp_path: Path) -> None:
    vectors = questions(1500)
    model, reports = a_model(vectors), list[Progress]()
    exact = metrics.count_scores(vectors)
    found = count_pairs(embedded(tmp_path / "a", model, range(1500)), Meter(reports.append))
    assert found.n == 1500
    np.testing.assert_allclose(found.counts, exact.counts, atol=2)  # rounding moves a score to the next bin
    assert (reports[-1].stage, reports[-1].done, reports[-1].total) == ("measuring", 1500, 1500)
    (tmp_path / "q.txt").write_text("\n".join(f"t{row}\nT{row}" for row in range(1500)))
    repeated = count_pairs(embed(model, tmp_path / "q.txt", tmp_path / "b", shard_size=700))
    assert repeated.n == 1500
    np.testing.assert_allclose(repeated.counts, exact.counts, atol=2)


def test_a_sample_of_the_questions_stands_for_all(tmp_path: Path) -> None:
    vectors = questions(1500)
    embeddings = embedded(tmp_path, a_model(vectors), range(1500))
    exact, found = metrics.count_scores(vectors), count_pairs(embeddings, queries=300)
    assert found.n == 1500
    assert found.counts.sum() == pytest.approx(1500 * 1499 / 2)
    for threshold in (-0.5, 0.0, 0.5, 0.8):
        assert found.at_or_above(threshold) == pytest.approx(exact.at_or_above(threshold), rel=0.15)
    np.testing.assert_array_equal(found.counts, count_pairs(embeddings, queries=300).counts)


Calibrated = tuple[Index, np.ndarray, Verdict]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build_index(embedded(folder, a_model(questions(3000, seed=5)), range(3000)), folder / "idx")
    return folder / "idx"


@pytest.fixture
def calibrated(built: Path, tmp_path: Path) -> Calibrated:
    """An index of 3,000 questions, their vectors, and a verdict that was fitted to 800 others."""
    vectors = questions(3000, seed=5)
    verdict = dataclasses.replace(a_model(vectors).verdict, densities=fitted(seed=6))
    return open_index(shutil.copytree(built, tmp_path / "idx")), vectors, verdict


def test_of_hits_shown_with_a_probability_that_share_are_duplicates(
    calibrated: Calibrated,
) -> None:
    index, vectors, verdict = calibrated
    model = dataclasses.replace(a_model(vectors), verdict=verdict)
    found = search(index, model, [f"t{row}" for row in range(0, 3000, 2)], 11)
    found = [[answer for answer in row if answer.hit.text != f"t{2 * q}"] for q, row in enumerate(found)]
    shown = np.array([answer.probability for row in found for answer in row])
    intent = intents(3000)
    right = np.array([intent[int(answer.hit.text[1:])] == q for q, row in enumerate(found) for answer in row])
    assert metrics.expected_calibration_error(shown, right.astype(np.int8)) < 0.05
    assert 0.1 < right[shown > 0.2].mean() < 0.95
    for low, high in ((0.1, 0.4), (0.4, 0.7), (0.7, 0.9), (0.9, 1.0)):
        inside = (shown >= low) & (shown < high)
        assert inside.sum() > 50
        assert right[inside].mean() == pytest.approx(shown[inside].mean(), abs=0.1), (low, high, inside.sum())
    pairs = verdict.pair.probability([answer.hit.similarity for row in found for answer in row])
    assert metrics.expected_calibration_error(pairs, right.astype(np.int8)) > 0.2, "what the verdict on pairs would say"


def test_the_setting_follows_the_size_of_the_index(calibrated: Calibrated, tmp_path: Path) -> None:
    index, vectors, verdict = calibrated
    model = dataclasses.replace(a_model(vectors), verdict=verdict)
    first = setting_for(index, model)
    assert setting_for(index, model) is first, "made once for an index and its size"
    assert first.precision_of == "of a hit among 3,000 questions"
    folder = index.folder
    small, _ = delete_from_index(folder, [f"id{row}" for row in range(300, 3000)])
    assert small.outgrown(small.count)
    assert not small.outgrown(1500)
    fewer = setting_for(open_index(folder), model)
    assert fewer.precision_of == "of a hit among 300 questions"
    assert (fewer.probability([0.7, 0.8, 0.9]) > first.probability([0.7, 0.8, 0.9])).all(), "strangers grow faster"
    add_to_index(folder, embedded(tmp_path / "b", model, range(300, 900)))
    assert setting_for(open_index(folder), model).precision_of == "of a hit among 900 questions"
    refitted = dataclasses.replace(model, verdict=dataclasses.replace(verdict, densities=fitted(seed=7)))
    assert setting_for(index, refitted) is not first


def test_an_old_index_is_taken_to_be_like_validation(calibrated: Calibrated) -> None:
    index, vectors, verdict = calibrated
    model = dataclasses.replace(a_model(vectors), verdict=verdict)
    manifest = json.loads((index.folder / FILE).read_text())
    del manifest["scores"]
    (index.folder / FILE).write_text(json.dumps(manifest | {"format": 1}))
    old = setting_for(open_index(index.folder), model)
    assert old.precision_of == "of a hit among 3,000 questions"
    assert old.threshold == verdict.search(3000).threshold
    for damaged in ({}, {"n": 3, "first": 0, "counts": 7}, [1]):
        (index.folder / FILE).write_text(json.dumps(manifest | {"scores": damaged}))
        with pytest.raises(UserError, match="damaged"):
            open_index(index.folder)


def test_a_model_that_knows_pairs_alone_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = clustered(50)
    build_index(embedded(tmp_path, a_model(vectors), range(50)), tmp_path / "idx")
    for model, reason in (
        (a_model(vectors), NO_DENSITIES),
        (a_model(vectors, symmetric=False, densities=fitted()), "different kinds"),
    ):
        caplog.clear()
        index = open_index(tmp_path / "idx")
        for _ in range(3):
            assert setting_for(index, model) == model.verdict.pair
        assert [reason in record.getMessage() for record in caplog.records] == [True]
        assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_an_index_that_has_hardly_begun_is_judged(calibrated: Calibrated, n: int) -> None:
    index, vectors, verdict = calibrated
    model = dataclasses.replace(a_model(vectors), verdict=verdict)
    for opened in (index, dataclasses.replace(index, manifest=dataclasses.replace(index.manifest, scores=None))):
        setting = setting_for(opened, model, n)
        assert -1 <= setting.threshold <= 1
        assert setting.probability(1.0) > 0.5 > setting.probability(0.0)


# Words


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=10),
    st.none() | st.floats(-1, 1),
    st.one_of(
        st.builds(
            lambda slope, middle: PairSetting(middle, Calibration(slope, -slope * middle)),
            st.floats(0.1, 30),
            st.floats(-1, 1),
        ),
        st.sampled_from([2, 100, 5000]).map(Verdict(PairSetting(0, Calibration(1, 0)), densities=fitted()).corpus),
    ),
)
def test_heading_words_and_decisions_never_contradict_each_other(
    scores: list[float], threshold: float | None, setting: Setting
) -> None:
    setting = setting if threshold is None else setting.at(threshold)
    scores = sorted(scores, reverse=True)
    decided, probability = setting.decide(scores).tolist(), setting.probability(scores).tolist()
    answers = [Answer(Hit("", "", s), p, d) for s, p, d in zip(scores, probability, decided, strict=True)]
    for answer in answers:
        assert answer.verdict.endswith("a duplicate") == answer.duplicate
        if answer.duplicate:
            assert ("perhaps" not in answer.verdict) == (round(answer.probability, 2) >= 0.5)
        else:
            assert ("close" in answer.verdict) == (round(answer.probability, 2) >= 0.5)
    order = [said for duplicate in (True, False) for _, said in LEVELS[duplicate]]
    places = [order.index(answer.verdict) for answer in answers]
    assert places == sorted(places), "a nearer hit is never said to be less of a duplicate"
    said = heading(answers)
    assert ("called" in said) == any(decided)
    assert said.startswith(("Very likely", "Probably", "Perhaps")) == any(decided)
    assert said.startswith("Not") == (not any(decided))
    if not any(decided) and round(probability[0], 2) >= 0.5:
        assert said.startswith("Not sure")


def test_every_verdict_has_its_heading() -> None:
    assert set(HEADINGS) == {said for levels in LEVELS.values() for _, said in levels}
    assert [words(p, True) for p in (0, 0.495, 0.5, 0.9, 1)] == [
        "perhaps a duplicate",
        "perhaps a duplicate",
        "probably a duplicate",
        "very likely a duplicate",
        "very likely a duplicate",
    ]
    assert heading([]) == "Not asked before: there are no questions."


# Command


def test_the_command_says_what_the_library_says(run, calibrated: Calibrated, monkeypatch: pytest.MonkeyPatch) -> None:
    index, vectors, verdict = calibrated
    model = dataclasses.replace(a_model(vectors), verdict=verdict)
    monkeypatch.setattr("qpairs.models.base.load", lambda _, **__: model)
    options = ("search", index.folder, "t5", "-k", "4", "--model", ".")
    setting = setting_for(index, model)
    for more, used in (
        ((), setting),
        (("--threshold", "0.99"), setting.at(0.99)),
        (("--threshold", "-1"), setting.at(-1)),
        (("--precision", "0.6"), setting.at_precision(0.6)),
    ):
        result = run(*options, *more)
        assert (result.code, result.err) == (0, "")
        (answers,) = search(index, model, ["t5"], 4, setting=used)
        assert f"at a similarity of {used.threshold:.3f} or more" in " ".join(result.out.split())
        assert heading(answers) in result.out
        rows = [line for line in result.out.splitlines() if line.strip()[:1] in "1234" and line.strip()[1:2] == " "]
        for row, answer in zip(rows, answers, strict=True):
            assert row.split()[1:3] == [f"{answer.hit.similarity:.3f}", f"{answer.probability:.2f}"]
            assert f" {answer.verdict} " in row
            assert row.split()[-2:] == [answer.hit.id, answer.hit.text]
        assert "that of a hit among 3,000 questions." in result.out
    refused(run(*options, "--precision", "0.99999"), "0.99999", "can be promised")
    delete_from_index(index.folder, [f"id{row}" for row in range(300, 3000)])
    result = run(*options)
    assert "that of a hit among 300 questions." in result.out
    assert "rebuild it" in result.out


def test_the_command_says_once_that_a_model_knows_pairs_alone(
    run, calibrated: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, vectors, _ = calibrated
    monkeypatch.setattr("qpairs.models.base.load", lambda _, **__: a_model(vectors))
    result = run("search", index.folder, "t5", "t6", "--model", ".")
    assert result.code == 0
    assert " ".join(result.err.split()).count("has a verdict only for labelled pairs") == 1
    assert "that of pairs like those of validation." in result.out
