"""Graded labels: from the pairs through the relation into the losses, and Spearman in the report."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from draws import close, points, random_relation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sentence_transformers.sentence_transformer import losses as peer
from torch.autograd import gradcheck

import qpairs
from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import join, with_grades
from qpairs.objectives.labels import BatchLabels
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.losses.pairwise import cosent, logistic, ranking
from qpairs.objectives.objective import parse_objective
from qpairs.objectives.relations import Relation
from qpairs.objectives.similarities import cosine
from qpairs.training.batches import Batches, TokenizedQuestions
from qpairs.training.samplers import BatchIndices

SEEDS = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=20)
FAST = {"encoder": "static", "epochs": 3, "batch_size": 16}


def graded(seed: int, n: int):
    left, right = points(seed, n, n)
    grades = torch.randint(5, (n,), generator=torch.Generator().manual_seed(seed)) / 4
    labels, own = grades >= 0.5, torch.eye(n, dtype=torch.bool)
    probability = torch.diag(grades)
    return left, right, grades, Relation(own & labels, own & ~labels, teacher_probability=probability)


@few
@given(SEEDS, st.integers(1, 12), st.floats(1, 40))
def test_cosent_with_grades_agrees_with_sentence_transformers(seed: int, n: int, scale: float) -> None:
    left, right, grades, relation = graded(seed, n)
    theirs = peer.CoSENTLoss(None, scale=scale).compute_loss_from_embeddings([left, right], grades)
    close(cosent(cosine(left, right), relation, scale=scale), theirs)


@few
@given(SEEDS, st.integers(1, 9), st.floats(0, 1))
def test_ranking_with_grades_agrees_with_naive_loops(seed: int, n: int, margin: float) -> None:
    left, right, grades, relation = graded(seed, n)
    scores = (left * right).sum(1)
    costs = [(scores[j] - scores[i] + margin).clamp(min=0) for i in range(n) for j in range(n) if grades[i] > grades[j]]
    close(ranking(cosine(left, right), relation, margin=margin), sum(costs, torch.tensor(0.0)) / max(1, len(costs)))


@few
@given(SEEDS, st.integers(1, 9))
def test_logistic_with_grades_is_the_cross_entropy_with_them(seed: int, n: int) -> None:
    left, right, grades, relation = graded(seed, n)
    logits = 20 * ((left * right).sum(1) - 0.75)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, grades)
    close(logistic(cosine(left, right), relation), expected)


@pytest.mark.parametrize("name", [name for name, entry in LOSSES.items() if entry.soft_labels])
def test_grades_of_0_and_1_are_labels_and_gradients_are_right(name: str) -> None:
    sim, relation = (
        torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        random_relation(0, 5, 6),
    )
    hard = dataclasses.replace(relation, teacher_probability=relation.positive.double())
    close(LOSSES[name].function(sim, hard), LOSSES[name].function(sim, relation))
    grades = torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    soft = Relation(relation.positive, relation.negative, teacher_probability=grades)
    assert gradcheck(lambda s: LOSSES[name].function(s, soft), (sim.requires_grad_(),))
    none = torch.zeros(5, 6, dtype=torch.bool)
    assert LOSSES[name].function(sim, Relation(none, none, teacher_probability=grades)) == 0


def test_a_labelled_pair_stays_on_its_side_of_the_cut_whatever_the_grade() -> None:
    positive, labelled = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    grades = torch.tensor([[0.4, 0.45, torch.nan]])
    relation = BatchLabels(positive, labelled, labelled, teacher_probability=grades).relation(False, soft_labels=True)
    assert relation.positive.equal(positive)
    assert relation.negative.equal(labelled)
    assert relation.teacher_probability[0, :2].equal(grades[0, :2])


def test_a_pair_below_the_cut_is_no_positive_inside_a_component() -> None:
    pairs = with_grades(qpairs.load_pairs([("a", "b", 1), ("b", "c", 1), ("a", "c", 0)]), [0.9, 0.9, 0.6], cut=0.8)
    indices = BatchIndices(np.arange(3), np.empty(0, np.int64), np.empty((0, 2), np.int64))
    item = Batches(
        pairs, [TokenizedQuestions([np.array([q]) for q in range(3)], lambda ids: {})], lambda epoch: [indices]
    )[0]
    relation = BatchLabels(**item["known"]).relation(False, soft_labels=True)
    left, right = item["left"], item["right"]
    assert relation.positive[left, right].tolist() == [True, True, False]
    assert relation.negative[left, right].tolist() == [False, False, True]
    assert relation.teacher_probability[left, right].tolist() == pytest.approx([0.9, 0.9, 0.6])


def with_random_grades(pairs: qpairs.Pairs) -> qpairs.Pairs:
    random = np.random.default_rng(0)
    return with_grades(pairs, np.where(pairs.labels == 1, 0.6, 0.1) + 0.3 * random.random(len(pairs)))


def test_grades_go_with_their_pairs(pairs_csv: Path) -> None:
    pairs = with_random_grades(qpairs.load_pairs(str(pairs_csv)))
    some = pairs.subset(np.array([5, 3]))
    assert some.grades.tolist() == pairs.grades[[5, 3]].tolist()
    both = join([some, qpairs.load_pairs([("a", "b", 1)])])
    assert both.grades.tolist() == [*some.grades.tolist(), 1.0]
    unlabelled = qpairs.load_pairs([("a", "b")], labelled=False)
    assert np.isnan(join([some, unlabelled]).grades).tolist() == [False, False, True]
    for grades, words in (([0.5], "one for each"), ([2.0] * len(pairs), "row 1 has 2, must be from 0 to 1")):
        with pytest.raises(UserError, match=words):
            with_grades(pairs, grades)


def test_a_run_learns_grades_and_its_report_has_spearman(pairs_csv: Path, tmp_path: Path) -> None:
    pairs = with_random_grades(qpairs.load_pairs(str(pairs_csv)))
    assert parse_objective("cosent + ranking").learns_from_a_teacher
    model = qpairs.train(data=pairs, loss="cosent", output=str(tmp_path / "x"), **FAST)
    report = qpairs.evaluate(model, pairs)
    expected = spearmanr(report.scores, pairs.grades).statistic
    assert report.spearman == pytest.approx(expected, abs=1e-6)
    low, high = report.spearman_interval
    assert low <= report.spearman <= high
    assert "spearman" in report.to_dict()
    assert qpairs.evaluate(model, str(pairs_csv)).spearman is None
    assert model.scores["test"]["spearman"] is not None
    hard = qpairs.train(data=str(pairs_csv), loss="cosent", output=str(tmp_path / "y"), **FAST)
    assert any(
        not torch.equal(a, b) for a, b in zip(hard.encoder.parameters(), model.encoder.parameters(), strict=True)
    )


def write_scores(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    """Scores from 0 to 5 as those of STS: duplicates have 4 or 5; of the others, those that share few words have 3."""

    def shared(first: str, second: str) -> float:
        one, two = (set(text.lower().split()) for text in (first, second))
        return len(one & two) / len(one | two)

    usual = np.median([shared(a, b) for a, b, label in rows if not label])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "score"])
        for a, b, label in rows:
            few_words = shared(a, b) <= usual
            writer.writerow([a, b, 4 + few_words if label else 3 * few_words])
    return path


def test_the_commands_learn_scores_of_a_file_and_report_spearman(
    run, tmp_path: Path, sample_rows: list[tuple[str, str, int]]
) -> None:
    scores = write_scores(tmp_path / "sts.csv", sample_rows)
    usual = ("--encoder", "static", "--epochs", "3", "--batch-size", "16")
    words = ("train", "--data", scores, "--label-cut", "4", *usual)
    for name, more in {"found": (), "stated": ("--label-range", "0,5"), "other": ("--loss", "info_nce")}.items():
        done = run(*words, "--loss", "cosent", *more, "--output", name)
        assert done.code == 0, done.err
        assert "(Spearman)" in done.out
    done = run("evaluate", "found", "--data", scores, "--label-cut", "4")
    assert done.code == 0 and "(Spearman)" in done.out
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["question1", "question2", "is_duplicate"], *sample_rows])
    assert "(Spearman)" not in run("evaluate", "found", "--data", labels).out
    done = run("train", "--data", labels, "--loss", "cosent", *usual, "--output", "hard")
    assert done.code == 0, done.err
    pairs = qpairs.load_pairs(str(scores), label_cut=4)
    assert pairs.grades.max() == 1 and len(set(pairs.grades.tolist())) == 4
    spearman = {name: qpairs.evaluate(qpairs.load(name), pairs).spearman for name in ("found", "stated", "hard")}
    assert spearman["found"] == spearman["stated"] > spearman["hard"]
    assert qpairs.load("stated").config.label_range == (0.0, 5.0)
    assert run("errors", "stated", "--output", "mistakes").code == 0  # the data are read again, and are the same


def test_a_loss_that_cannot_take_grades_says_which_can(pairs_csv: Path, tmp_path: Path) -> None:
    pairs = with_random_grades(qpairs.load_pairs(str(pairs_csv)))
    with pytest.raises(UserError, match=r"no part of 'info_nce' learns from graded labels; use one of .*cosent"):
        qpairs.train(data=pairs, loss="info_nce", output=str(tmp_path / "x"), **FAST)
    assert list(tmp_path.iterdir()) == []


@few
@given(SEEDS, st.integers(2, 30))
def test_spearman_agrees_with_scipy(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    scores, grades = random.integers(0, 9, n) / 8, random.integers(0, 4, n) / 3
    expected = spearmanr(scores, grades).statistic if np.ptp(scores) and np.ptp(grades) else 0.0
    assert metrics.spearman(scores, grades) == pytest.approx(expected)
