"""Error rates of annotators, found without knowing the truth; and labels that may be wrong, in the corpus verdict."""

import numpy as np
import pytest
from test_corpus_estimate import VALIDATION
from worlds import World, world

from qpairs.metrics import AnnotatorRates, dawid_skene, estimate_corpus, with_labels

STRATA = np.array([0.95, 0.9, 0.7, 0.4, 0.2, 0.05, 0.01, 0.01])  # share of duplicates, as in a stratified drawing


def judge(truth: np.ndarray, rates: list[tuple[float, float]], rng: np.random.Generator) -> np.ndarray:
    """(n, m) answers of annotators with these sensitivities and specificities."""
    right = [rng.random(len(truth)) < np.where(truth, *rate) for rate in rates]
    return np.stack([np.where(each, truth, ~truth) for each in right], axis=1).astype(int)


def test_simulated_error_rates_are_recovered() -> None:
    rng = np.random.default_rng(0)
    rates = [(0.9, 0.95), (0.7, 0.9), (0.95, 0.8), (0.8, 0.85), (0.6, 0.99)]
    truth = rng.random(3000) < 0.3
    answers = judge(truth, rates, rng)
    answers[rng.random(answers.shape) < 0.3] = -1
    found = dawid_skene(answers)
    assert found.sensitivity == pytest.approx([a for a, _ in rates], abs=0.04)
    assert found.specificity == pytest.approx([b for _, b in rates], abs=0.03)
    assert found.prevalence == pytest.approx([0.3], abs=0.03)


def test_two_annotators_do_where_the_share_of_duplicates_differs_between_groups() -> None:
    rates, found = [(0.95, 0.98), (0.75, 0.9)], list[AnnotatorRates]()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(8), 100)
        truth = rng.random(800) < STRATA[groups]
        found.append(dawid_skene(judge(truth, rates, rng), groups=groups))
    assert np.mean([each.sensitivity for each in found], axis=0) == pytest.approx([0.95, 0.75], abs=0.03)
    assert np.mean([each.specificity for each in found], axis=0) == pytest.approx([0.98, 0.9], abs=0.02)
    assert np.mean([each.prevalence for each in found], axis=0) == pytest.approx(STRATA, abs=0.05)


def test_the_probability_of_a_pair_is_how_often_such_pairs_are_duplicates() -> None:
    shown, true = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(8), 40)
        truth = rng.random(320) < STRATA[groups]
        shown.append(dawid_skene(judge(truth, [(0.9, 0.9), (0.8, 0.85), (0.7, 0.95)], rng), groups=groups).probability)
        true.append(truth)
    probability, duplicate = np.concatenate(shown), np.concatenate(true)
    for low, high in ((0, 0.1), (0.1, 0.4), (0.4, 0.7), (0.7, 0.95), (0.95, 1)):
        inside = (probability >= low) & (probability < high)
        assert inside.sum() > 50
        assert duplicate[inside].mean() == pytest.approx(probability[inside].mean(), abs=0.08)


def test_known_pairs_teach_the_rates() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(2000) < 0.4
    answers = judge(truth, [(0.6, 0.7)], rng)  # of one annotator nothing is known without the truth
    found = dawid_skene(answers, known=truth.astype(int))
    assert found.sensitivity == pytest.approx([0.6], abs=0.04)
    assert found.specificity == pytest.approx([0.7], abs=0.04)
    assert (found.probability == truth).all()


def test_few_answers_prove_nobody_faultless_and_weights_are_repeats() -> None:
    answers = np.array([[1, 1, 1], [0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, -1]])
    found = dawid_skene(answers)
    assert (found.sensitivity < 0.95).all()
    often = np.array([1, 2, 0, 3, 1])
    weighted, repeated = dawid_skene(answers, weights=often), dawid_skene(np.repeat(answers, often, axis=0))
    assert weighted.sensitivity == pytest.approx(repeated.sensitivity, abs=1e-4)
    assert weighted.specificity == pytest.approx(repeated.specificity, abs=1e-4)


def test_what_is_no_table_of_answers_is_refused() -> None:
    for bad in ([], [[2, 0]], [1, 0], [[0.5, 1]]):
        with pytest.raises(ValueError, match="answers must be"):
            dawid_skene(bad)


# ---------------------------------------------------------------------- labels that may be wrong


def drawn_of(corpus: World, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of n pairs drawn evenly from strata of the score, in random order, and their strata."""
    order = np.argsort(-corpus.scores)
    parts = [part for part in np.split(order, [int(corpus.n * 2.0**k) for k in range(-3, 6)]) if len(part)]
    rows = np.concatenate([rng.choice(part, n // len(parts), replace=False) for part in parts])
    strata = np.repeat(np.arange(len(parts)), n // len(parts))
    mixed = rng.permutation(len(rows))
    return rows[mixed], strata[mixed]


def test_noisy_labels_that_count_less_are_better_than_noisy_labels_taken_as_right() -> None:
    # a language model labels 300 pairs, a person 60 of them: recall at the threshold that all true labels would choose
    wrong, inside, lost = np.zeros((2, 12)), np.zeros((2, 12)), np.zeros((2, 12))
    for seed in range(12):
        rng, corpus = np.random.default_rng(seed), world(600, 40 + seed, per_question=0.5, near=1.5)
        before = estimate_corpus(VALIDATION, corpus.counts)
        rows, strata = drawn_of(corpus, 300, rng)
        scores, truth = corpus.scores[rows], corpus.duplicate[rows]
        answers = judge(truth, [(0.8, 0.9), (0.98, 0.98)], rng)
        answers[60:, 1] = -1
        rates = dawid_skene(answers, groups=strata)
        as_right = with_labels(before, scores, np.where(answers[:, 1] >= 0, answers[:, 1], answers[:, 0]))
        less = with_labels(before, scores, answers[:, 0], rates.log_ratio)
        threshold = with_labels(before, scores, truth).best_threshold()
        for k, estimate in enumerate((as_right, less)):
            expected, found = estimate.expected(threshold), corpus.at(threshold)[1]
            wrong[k, seed] = abs(expected.recall - found)
            inside[k, seed] = expected.recall_interval[0] <= found <= expected.recall_interval[1]
            lost[k, seed] = corpus.best_f1() - corpus.f1(estimate.best_threshold())
    assert wrong[1].mean() < 0.3 * wrong[0].mean()
    assert lost[1].mean() < 0.4 * lost[0].mean()
    assert inside[0].sum() <= 4
    assert inside[1].sum() >= 10


def test_sure_labels_count_in_full_and_empty_ones_not_at_all() -> None:
    corpus, rng = world(600, 3, per_question=0.5), np.random.default_rng(0)
    before = estimate_corpus(VALIDATION, corpus.counts)
    rows, _ = drawn_of(corpus, 180, rng)
    scores, truth = corpus.scores[rows], corpus.duplicate[rows]
    sure = with_labels(before, scores, truth)
    same = with_labels(before, scores, truth, np.where(truth, 50.0, -50.0))
    np.testing.assert_allclose(same.log_odds, sure.log_odds, atol=1e-4)
    widths = []
    for certainty in (0.0, 1.0, 2.0, 4.0, np.inf):
        after = with_labels(before, scores, truth, np.where(truth, 1, -1) * certainty if certainty else np.zeros(180))
        widths.append((after.factors**2).sum())
    assert widths == sorted(widths, reverse=True)
    nothing = with_labels(before, scores, truth, np.zeros(180))
    np.testing.assert_allclose(nothing.expected(0.8).precision, before.expected(0.8).precision, atol=0.02)


def test_labels_that_say_the_same_twice_are_no_certainty() -> None:
    # weak answers, all alike, in one bin: the estimate moves, and keeps its uncertainty
    corpus = world(600, 3, per_question=0.5)
    before = estimate_corpus(VALIDATION, corpus.counts)
    weak = with_labels(before, np.full(30, 0.6), np.ones(30), np.full(30, 0.4))
    sure = with_labels(before, np.full(30, 0.6), np.ones(30))
    assert before.probability(0.6) < weak.probability(0.6) < sure.probability(0.6)
    assert sure.deviation_of(0.6) < weak.deviation_of(0.6)
