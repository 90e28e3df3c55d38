"""Fitting the verdict to a corpus, with and without labels; questions are points on a circle of meaning."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
from conftest import refused
from mocks import VERDICT, MockModel
from noisy import INTENT, TEXTS, Noisy

import qpairs
from qpairs.data.corpus import read_corpus
from qpairs.data.labels import read_labels
from qpairs.evaluation.calibrate_corpus import calibrate_corpus
from qpairs.metrics import Densities, count_scores, fit_densities, pairs_within
from qpairs.models.verdict import fit_verdict


def densities(encoder: Noisy) -> Densities:
    vectors = encoder.encode(TEXTS)
    left, right = pairs_within(INTENT // 3)
    scores = (vectors[left] * vectors[right]).sum(axis=1)
    kinds = (INTENT[left] == INTENT[right]).astype(np.int8)
    return fit_densities(count_scores(vectors), scores, kinds, INTENT[left] // 3)


def model(seed: int, near: float = 1.0) -> MockModel:
    return MockModel(Noisy(seed, near), replace(VERDICT, densities=densities(Noisy(0))))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "q.csv"
    file.write_text("question\n" + "\n".join(TEXTS) + "\n" + TEXTS[0] + "\n")  # one twice
    return file


def found(judge: MockModel, threshold: float) -> float:
    """Precision of all pairs of the corpus at or above a threshold."""
    vectors = judge.encode(TEXTS)
    left, right = np.triu_indices(len(TEXTS), 1)
    called = (vectors @ vectors.T)[left, right] >= threshold
    return float((INTENT[left] == INTENT[right])[called].mean())


def label(judge: MockModel, file: Path, n: int, drawn: str = "stratified", seed: int = 0) -> Path:
    """Labels of pairs drawn evenly from strata of the score."""
    vectors, rng = judge.encode(TEXTS), np.random.default_rng(seed)
    left, right = np.triu_indices(len(TEXTS), 1)
    order = np.argsort(-(vectors @ vectors.T)[left, right])
    parts = np.split(order, [int(len(TEXTS) * 2.0**k) for k in range(-3, 6)])
    rows = np.concatenate([rng.choice(part, n // len(parts), replace=False) for part in parts])
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["question1", "question2", "is_duplicate", "drawn", "drawing_probability"])
        for row in rows:
            one, other = left[row], right[row]
            writer.writerow([TEXTS[one], TEXTS[other], int(INTENT[one] == INTENT[other]), drawn, ""])
    return file


def test_without_labels_the_scores_of_the_corpus_say_what_to_expect(corpus: Path) -> None:
    judge = model(1)
    fit = calibrate_corpus(judge, corpus)
    assert fit.setting.estimate.counts.n == len(TEXTS)  # the repeat is one question
    assert fit.used == fit.left_out == {}
    low, high = fit.after.precision_interval
    assert low <= found(judge, fit.after.threshold) <= high
    assert fit.model.verdict.densities.own
    assert fit.model.verdict.pair == judge.verdict.pair
    again = fit.model.verdict.corpus(count_scores(judge.encode(TEXTS)))
    assert again.threshold == pytest.approx(fit.after.threshold, abs=0.01)


def test_labels_bring_the_found_precision_into_a_narrower_interval(corpus: Path, tmp_path: Path) -> None:
    inside = 0
    for seed in range(1, 7):
        judge = model(seed, near=1.4)  # near misses score higher than validation knew
        fit = calibrate_corpus(judge, corpus, label(judge, tmp_path / "labels.csv", 100, seed=seed))
        blind = calibrate_corpus(judge, corpus)
        assert fit.used == {"stratified": 100}
        low, high = fit.after.precision_interval
        inside += low <= found(judge, fit.after.threshold) <= high
        assert high - low < np.diff(blind.after.precision_interval)[0]
        assert np.diff(fit.with_more.precision_interval)[0] < high - low
        kept = [promise for promise in fit.promises if promise.expected]
        assert all(promise.expected.precision_bound >= promise.precision - 1e-9 for promise in kept)
    assert inside >= 5


def test_labels_that_count_twice_are_warned_of(corpus: Path, tmp_path: Path, caplog) -> None:
    judge = model(1)
    file = label(judge, tmp_path / "labels.csv", 60)
    once = calibrate_corpus(judge, corpus, file)
    assert "count twice" not in caplog.text
    calibrate_corpus(once.model, corpus, file)
    assert "already fitted to 60 labels" in caplog.text


def test_labels_in_several_data_frames_and_files_all_count(corpus: Path, tmp_path: Path) -> None:
    judge = model(1)
    file = label(judge, tmp_path / "labels.csv", 60)
    frame = pandas.read_csv(file, dtype={"question1": str, "question2": str})
    parts = [frame[:20], read_labels(frame[20:40]), tmp_path / "rest.csv"]
    frame[40:].to_csv(parts[2], index=False)
    assert calibrate_corpus(judge, corpus, parts).used == calibrate_corpus(judge, corpus, file).used


def test_nearest_neighbours_are_no_labels_of_a_score(corpus: Path, tmp_path: Path) -> None:
    judge = model(1)
    file = label(judge, tmp_path / "labels.csv", 60, drawn="random")
    with pytest.raises(qpairs.UserError, match="none can be used: 60 nearest neighbours of random questions"):
        calibrate_corpus(judge, corpus, file)
    mixed = read_labels(file)
    mixed = replace(mixed, drawn=("threshold", "", *mixed.drawn[2:]))
    fit = calibrate_corpus(judge, read_corpus(corpus), mixed)
    assert fit.used == {"threshold": 1, "": 1}
    assert fit.left_out == {"nearest neighbours of random questions": 58}


def test_labels_of_another_corpus_are_left_out(corpus: Path, tmp_path: Path) -> None:
    judge = model(1)
    labels = read_labels(label(judge, tmp_path / "labels.csv", 60))
    foreign = replace(labels, first=tuple(f"x {text}" for text in labels.first))
    with pytest.raises(qpairs.UserError, match="60 with a question that is not in the corpus"):
        calibrate_corpus(judge, corpus, foreign)
    half = replace(labels, first=(*labels.first[:30], *foreign.first[30:]))
    fit = calibrate_corpus(judge, corpus, half)
    assert (sum(fit.used.values()), sum(fit.left_out.values())) == (30, 30)
    with pytest.raises(qpairs.UserError, match="there are no labels in the file"):
        calibrate_corpus(judge, corpus, replace(labels, first=(), second=(), labels=labels.labels[:0], drawn=()))


def test_labels_of_one_kind_are_warned_of(corpus: Path, tmp_path: Path, caplog) -> None:
    judge = model(1)
    labels = read_labels(label(judge, tmp_path / "labels.csv", 60))
    calibrate_corpus(judge, corpus, replace(labels, labels=np.ones_like(labels.labels)))
    assert "all 60 labels are duplicates" in caplog.text


def test_labelled_duplicates_where_none_are_looked_for_are_warned_of(corpus: Path, tmp_path: Path, caplog) -> None:
    judge = model(1)
    labels = read_labels(label(judge, tmp_path / "labels.csv", 200))
    calibrate_corpus(judge, corpus, labels)
    assert "have a similarity below" not in caplog.text
    calibrate_corpus(judge, corpus, replace(labels, labels=1 - labels.labels))
    assert "labelled duplicates have a similarity below" in caplog.text


def test_a_handful_of_questions_is_no_corpus_to_fit(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("question\n" + "\n".join(TEXTS[:10]) + "\n")
    with pytest.raises(qpairs.UserError, match="10 different questions; at least 20"):
        calibrate_corpus(model(1), tmp_path / "few.csv")


def test_models_that_cannot_are_refused_in_one_line(corpus: Path) -> None:
    with pytest.raises(qpairs.UserError, match="two towers"):
        calibrate_corpus(replace(model(1), one_tower=False), corpus)
    with pytest.raises(qpairs.UserError, match="head"):
        calibrate_corpus(replace(model(1), verdict=replace(VERDICT, score="head")), corpus)
    with pytest.raises(qpairs.UserError, match="stored nothing about the pairs"):
        calibrate_corpus(replace(model(1), verdict=VERDICT), corpus)


def test_a_model_that_knows_pairs_alone_learns_a_corpus_from_its_scores(corpus: Path) -> None:
    judge = model(1)
    vectors, rng = judge.encode(TEXTS), np.random.default_rng(0)
    left, right = pairs_within(INTENT // 3)
    rows = np.concatenate([np.flatnonzero(INTENT[left] == INTENT[right]), rng.choice(len(left), 400)])
    scores = (vectors[left[rows]] * vectors[right[rows]]).sum(axis=1)
    labels = (INTENT[left[rows]] == INTENT[right[rows]]).astype(np.int8)
    judge = replace(judge, verdict=fit_verdict(scores, labels, None))
    assert judge.verdict.densities is None
    fit = calibrate_corpus(judge, corpus)
    low, high = fit.after.precision_interval
    assert low <= found(judge, fit.after.threshold) <= high
    assert fit.model.verdict.densities.own


def test_the_command_needs_pairs_or_a_corpus(run) -> None:
    refused(run("calibrate", "x", "--output", "y"), "--data", "--corpus")
    refused(run("calibrate", "x", "--output", "y", "--data", "sample", "--labels", "l.csv"), "--corpus")
