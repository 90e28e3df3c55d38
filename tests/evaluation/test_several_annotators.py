"""Several annotators of the same pairs: agreement, disputes and their settlement, and the corpus verdict from all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
from noisy import INTENT, TEXTS
from test_calibrate_corpus import corpus, found, model  # noqa: F401

from qpairs.core.exceptions import UserError
from qpairs.core.tables import write_table
from qpairs.data.labels import ADJUDICATED, LABEL_FILE_COLUMNS, LabelledPairs, read_labels
from qpairs.data.sources import load_pairs
from qpairs.evaluation.annotators import LEAST_SHARED, _with_intervals, find_consensus, measure_agreement
from qpairs.evaluation.calibrate_corpus import calibrate_corpus
from qpairs.metrics import cohen_kappa, krippendorff_alpha, unseen
from qpairs.models.base import Model

STRATA = np.array([0.95, 0.7, 0.3, 0.05])


def answers_of(truth: np.ndarray, sensitivity: float, specificity: float, rng: np.random.Generator) -> np.ndarray:
    right = rng.random(len(truth)) < np.where(truth, sensitivity, specificity)
    return np.where(right, truth, ~truth).astype(np.int8)


def labels_by(answers: dict[str, np.ndarray], probability: np.ndarray | None = None) -> LabelledPairs:
    """Labels of pairs 0, 1, ..., by annotator; -1 none."""
    rows = [(i, name, label) for name, given in answers.items() for i, label in enumerate(given) if label >= 0]
    numbers = [i for i, _, _ in rows]
    return LabelledPairs(
        tuple(f"first {i}" for i in numbers),
        tuple(f"second {i}" for i in numbers),
        np.array([label for _, _, label in rows], np.int8),
        ("" if probability is None else "stratified",) * len(rows),
        np.full(len(rows), np.nan) if probability is None else probability[numbers],
        tuple(name for _, name, _ in rows),
    )


def stratified(seed: int, n: int = 400, shared: int = 120) -> tuple[np.ndarray, LabelledPairs]:
    """The truth of n pairs, and labels of a language model, and of a person for the first of them."""
    rng = np.random.default_rng(seed)
    stratum = rng.integers(0, 4, n)
    truth = rng.random(n) < STRATA[stratum]
    person = answers_of(truth, 0.97, 0.99, rng)
    person[shared:] = -1
    return truth, labels_by({"ana": person, "llm": answers_of(truth, 0.8, 0.9, rng)}, 0.1 / 8.0**stratum)


def test_agreement_is_that_of_the_measures_on_the_shared_pairs() -> None:
    one, two = np.array([1, 0, 1, 1, 0, -1, 0, 1]), np.array([1, 0, 0, 1, 0, 1, -1, 1])
    three = np.array([-1, -1, -1, -1, -1, -1, -1, 1])
    agreed = measure_agreement(labels_by({"a": one, "b": two, "c": three}))
    pairs = {(pair.first, pair.second): pair for pair in agreed.pairs}
    assert {names: pair.n for names, pair in pairs.items()} == {("a", "b"): 6, ("a", "c"): 1, ("b", "c"): 1}
    both = pairs["a", "b"]
    assert (both.agreement, both.kappa) == (pytest.approx(5 / 6), pytest.approx(cohen_kappa(one, two)))
    assert both.agreement_interval[0] < both.agreement <= both.agreement_interval[1]
    assert both.kappa_interval[0] < both.kappa <= both.kappa_interval[1]
    assert np.isnan(pairs["a", "c"].kappa)
    assert agreed.alpha == pytest.approx(krippendorff_alpha(np.stack([one, two, three], 1)))
    assert measure_agreement(labels_by({"a": one, "b": two, "c": three})).alpha_interval == agreed.alpha_interval


def test_agreement_takes_pairs_that_two_have_judged() -> None:
    with pytest.raises(UserError, match="no pair was labelled by two annotators"):
        measure_agreement(labels_by({"a": np.array([1, -1]), "b": np.array([-1, 0])}))
    with pytest.raises(UserError, match="no labels"):
        find_consensus(labels_by({}))


def test_labels_may_be_files_and_data_frames(tmp_path: Path) -> None:
    """As for calibrate_corpus; they ended in an AttributeError."""
    read = labels_by({"a": [1, 0] * 5, "b": [1, 1] * 5})
    rows = {"question1": read.first, "question2": read.second, "is_duplicate": read.labels, "annotator": read.annotator}
    frame = pandas.DataFrame(rows)
    frame.to_csv(tmp_path / "labels.csv", index=False)
    expected = measure_agreement(read).pairs
    for labels in (frame, tmp_path / "labels.csv", [frame[:10], frame[10:]]):
        assert measure_agreement(labels).pairs == expected
        assert find_consensus(labels).probability.tolist() == find_consensus(read).probability.tolist()


def test_annotators_who_agree_on_few_pairs_may_disagree_on_others() -> None:
    """Of ten pairs judged alike, the agreement was said to be 1.00 to 1.00."""
    yes = [1, 0] * 5
    agreed = measure_agreement(labels_by({"a": yes, "b": yes}))
    (pair,) = agreed.pairs
    assert pair.agreement == pair.kappa == agreed.alpha == 1
    assert pair.agreement_interval == pytest.approx((1 - unseen(10), 1))
    assert pair.kappa_interval == agreed.alpha_interval == pytest.approx((1 - 2 * unseen(10), 1))
    (alike,) = measure_agreement(labels_by({"a": [1] * 10, "b": [1] * 10})).pairs
    assert alike.agreement_interval == pair.agreement_interval
    assert np.isnan(alike.kappa_interval).all()


def test_pairs_that_share_questions_widen_the_intervals() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.random(20) < 0.5, 10)
    one, two = truth.astype(np.int8), np.repeat(answers_of(truth[::10], 0.7, 0.7, rng), 10)
    apart = measure_agreement(labels_by({"a": one, "b": two})).pairs[0]
    labels = labels_by({"a": one, "b": two})
    hubs = replace(labels, first=tuple(f"hub {int(text.split()[1]) // 10}" for text in labels.first))
    together = measure_agreement(hubs).pairs[0]
    assert together.agreement == apart.agreement
    assert np.diff(together.agreement_interval) > 1.8 * np.diff(apart.agreement_interval)


def test_error_rates_of_a_person_and_a_language_model_lie_in_their_intervals() -> None:
    true = {"ana": (0.97, 0.99), "llm": (0.8, 0.9)}
    inside = []
    for seed in range(6):
        for noise in measure_agreement(stratified(seed)[1], seed=seed).consensus.noise:
            for k, (value, interval) in enumerate(
                [
                    (noise.sensitivity, noise.sensitivity_interval),
                    (noise.specificity, noise.specificity_interval),
                ]
            ):
                assert interval[0] <= value <= interval[1]
                inside.append(interval[0] - 0.02 <= true[noise.annotator][k] <= interval[1] + 0.02)
    assert sum(inside) >= 21  # of 24
    assert (noise.answers, noise.shared) == (400, 120)


@pytest.mark.parametrize("n", [100, 300])
@pytest.mark.parametrize("share", [0.99, 0.97, 0.9])
def test_intervals_of_errors_hold_the_truth_of_good_annotators_too(share: float, n: int) -> None:
    inside = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        truth = rng.random(n) < 0.4
        consensus = find_consensus(labels_by({name: answers_of(truth, share, share, rng) for name in "abc"}))
        for noise in _with_intervals(consensus, np.arange(n), seed):
            intervals = noise.sensitivity_interval, noise.specificity_interval
            inside += [low <= share <= high for low, high in intervals]
            assert max(high - low for low, high in intervals) < (0.4 if n == 100 else 0.25)
    assert np.mean(inside) >= 0.9


def test_the_consensus_is_right_more_often_than_the_language_model() -> None:
    joint, alone = [], []
    for seed in range(6):
        truth, labels = stratified(seed)
        consensus = find_consensus(labels)
        row = {text: i for i, text in enumerate(consensus.judged.first)}
        order = [row[f"first {i}"] for i in range(len(truth))]
        joint.append((consensus.labels[order] == truth).mean())
        alone.append((consensus.judged.answers[order, 1] == truth).mean())
    assert np.mean(joint) > np.mean(alone) + 0.04


def test_one_annotator_or_too_few_shared_pairs_are_taken_as_right() -> None:
    alone = find_consensus(labels_by({"": np.array([1, 0, 1])}))
    assert alone.log_ratio.tolist() == [np.inf, -np.inf, np.inf]
    assert (alone.noise[0].sensitivity, alone.noise[0].shared) == (None, 0)
    rng, strata = np.random.default_rng(0), 0.1 / 8.0 ** (np.arange(60) % 4)
    truth = rng.random(60) < 0.5
    sure, few = truth.astype(np.int8), answers_of(truth, 0.9, 0.9, rng)
    few[LEAST_SHARED - 1 :] = -1
    noise = find_consensus(labels_by({"a": sure, "b": few}, strata)).noise
    assert [each.sensitivity for each in noise] == [None, None]
    few[:LEAST_SHARED] = truth[:LEAST_SHARED]
    noise = find_consensus(labels_by({"a": sure, "b": few}, strata)).noise
    assert all(each.sensitivity for each in noise)


def test_two_annotators_of_one_group_of_pairs_tell_nothing_of_each_other() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(100) < 0.5
    answers = {name: answers_of(truth, 0.8, 0.9, rng) for name in "abc"}
    assert all(each.sensitivity for each in find_consensus(labels_by(answers)).noise)
    two = find_consensus(labels_by({name: answers[name] for name in "ab"}))
    assert [each.sensitivity for each in two.noise] == [None, None]
    assert (two.log_ratio[two.judged.disputed] == 0).all()
    settled = find_consensus(labels_by({"a": answers["a"], "b": answers["b"], ADJUDICATED: truth[:30].astype(np.int8)}))
    assert all(each.sensitivity for each in settled.noise)


def test_the_answers_of_whom_one_trusts_are_the_measure_of_others() -> None:
    rates = []
    for seed in range(8):
        _, labels = stratified(seed)
        consensus = find_consensus(labels, trusted=["ana"])
        ana, llm = consensus.noise
        assert (ana.annotator, ana.sensitivity) == ("ana", None)
        rates.append((llm.sensitivity, llm.specificity))
    assert np.mean(rates, axis=0) == pytest.approx([0.8, 0.9], abs=0.03)
    hers = consensus.judged.answers[:, 0]
    assert (consensus.labels[hers >= 0] == hers[hers >= 0]).all()
    assert np.isinf(consensus.log_ratio[hers >= 0]).all()
    assert np.isfinite(consensus.log_ratio[hers < 0]).all()
    with pytest.raises(UserError, match="no annotator is called 'anna'; did you mean 'ana'"):
        find_consensus(labels, trusted=["anna"])


def test_few_duplicates_among_the_shared_pairs_invent_none() -> None:
    # of pairs that nobody calls duplicates, none are taken to be some that all have missed
    rng = np.random.default_rng(0)
    stratum = rng.integers(0, 8, 500)
    truth = rng.random(500) < np.array([0.3, 0.1, 0, 0, 0, 0, 0, 0])[stratum]
    person = truth.astype(np.int8)
    person[100:] = -1
    labels = labels_by({"ana": person, "llm": answers_of(truth, 0.8, 0.95, rng)}, 0.1 / 4.0**stratum)
    consensus = find_consensus(labels)
    assert consensus.probability.sum() == pytest.approx(truth.sum(), abs=10)
    assert consensus.noise[0].sensitivity > 0.7


def test_two_answers_taken_as_right_that_differ_say_nothing() -> None:
    consensus = find_consensus(labels_by({"a": np.array([1, 1]), "b": np.array([0, 1])}))
    assert consensus.log_ratio.tolist() == [0, np.inf]
    assert consensus.probability.tolist() == [0.5, 1.0]


def test_disputes_are_written_settled_and_then_win(tmp_path: Path) -> None:
    _, labels = stratified(0)
    consensus = find_consensus(labels)
    table = consensus.disputes()
    n = int(consensus.judged.disputed.sum())
    assert (len(table), list(table.columns)) == (n, [*LABEL_FILE_COLUMNS, "probability", "answers"])
    assert set(table["answers"]) <= {"ana: yes; llm: no", "ana: no; llm: yes"}
    doubt = (table["probability"] - 0.5).abs()
    assert doubt.is_monotonic_increasing
    file = tmp_path / "disputes.csv"
    write_table(file, table)
    assert len(read_labels(file)) == 0
    settled = pandas.read_csv(file, dtype={"is_duplicate": "object"}, keep_default_na=False)
    first, label = settled["question1"][0], int(consensus.labels[consensus.judged.first.index(settled["question1"][0])])
    settled.loc[0, "is_duplicate"] = str(1 - label)  # against what the answers make likely
    settled.to_csv(file, index=False)
    answer = read_labels(file)
    assert (answer.annotator, len(answer)) == ((ADJUDICATED,), 1)
    joined = LabelledPairs(
        *(getattr(labels, name) + getattr(answer, name) for name in ("first", "second")),
        np.concatenate([labels.labels, answer.labels]),
        labels.drawn + answer.drawn,
        np.concatenate([labels.probability, answer.probability]),
        labels.annotator + answer.annotator,
    )
    after = find_consensus(joined)
    row = after.judged.first.index(first)
    assert (after.labels[row], np.isinf(after.log_ratio[row])) == (1 - label, True)
    assert int(after.judged.disputed.sum()) == n - 1
    assert [noise.annotator for noise in after.noise] == ["ana", "llm"]


def test_the_joint_labels_are_a_file_of_pairs(tmp_path: Path) -> None:
    _, labels = stratified(1)
    consensus = find_consensus(labels)
    write_table(tmp_path / "joint.csv", consensus.table())
    again = read_labels(tmp_path / "joint.csv")
    assert (len(again), set(again.annotator)) == (400, {"consensus"})
    assert again.labels.tolist() == consensus.labels.tolist()
    np.testing.assert_allclose(again.probability, consensus.judged.probability)
    assert len(load_pairs(tmp_path / "joint.csv")) == 400


def test_a_tie_has_no_joint_label() -> None:
    _, labels = stratified(1)
    consensus = find_consensus(labels)
    undecided = np.where(np.arange(len(consensus.probability)) < 3, 0.5, consensus.probability)
    assert len(replace(consensus, probability=undecided).table()) == len(consensus.table()) - 3


# ---------------------------------------------------------------------- the corpus verdict from several annotators


def label_with(judge: Model, rng: np.random.Generator, rates: dict[str, tuple[float, float, int]]) -> LabelledPairs:
    """Labels of stratified pairs by annotators with a sensitivity, a specificity and a number of pairs each."""
    vectors = judge.encode(TEXTS)
    left, right = np.triu_indices(len(TEXTS), 1)
    order = np.argsort(-(vectors @ vectors.T)[left, right])
    parts = np.split(order, [int(len(TEXTS) * 2.0**k) for k in range(-3, 6)])
    draws = [rng.choice(part, 40, replace=False) for part in parts]
    rows = np.concatenate(draws)
    probability = np.repeat([40 / (10 * len(part) * len(TEXTS)) for part in parts], 40)
    mixed = rng.permutation(len(rows))
    rows, probability = rows[mixed], probability[mixed]
    truth = INTENT[left[rows]] == INTENT[right[rows]]
    named = {name: answers_of(truth, *rate[:2], rng) for name, rate in rates.items()}
    for name, rate in rates.items():
        named[name][rate[2] :] = -1
    labels = labels_by(named, probability)
    number = [int(text.split()[1]) for text in labels.first]
    return replace(
        labels,
        first=tuple(TEXTS[left[rows[i]]] for i in number),
        second=tuple(TEXTS[right[rows[i]]] for i in number),
    )


def recall(judge: Model, threshold: float) -> float:
    vectors = judge.encode(TEXTS)
    left, right = np.triu_indices(len(TEXTS), 1)
    same = INTENT[left] == INTENT[right]
    return float(((vectors @ vectors.T)[left, right] >= threshold)[same].mean())


def test_a_noisy_annotator_whose_labels_count_less_misleads_less(corpus: Path) -> None:  # noqa: F811
    wrong, inside = np.zeros((2, 5)), np.zeros((2, 5))
    for seed in range(5):
        judge, rng = model(seed + 1), np.random.default_rng(seed)
        labels = label_with(judge, rng, {"llm": (0.8, 0.9, 400), "ana": (0.99, 0.99, 100)})
        own = np.flatnonzero([name == "llm" for name in labels.annotator])
        alone = LabelledPairs(
            *(tuple(getattr(labels, side)[i] for i in own) for side in ("first", "second")),
            labels.labels[own],
            tuple(labels.drawn[i] for i in own),
            labels.probability[own],
            ("llm",) * len(own),
        )
        for k, given in enumerate((alone, labels)):
            fit = calibrate_corpus(judge, corpus, given)
            expected = fit.after
            true = recall(judge, expected.threshold)
            wrong[k, seed] = abs(expected.recall - true)
            inside[k, seed] = expected.recall_interval[0] <= true <= expected.recall_interval[1]
        assert [(noise.annotator, noise.shared) for noise in fit.noise] == [("ana", 100), ("llm", 100)]
        assert fit.used == {"stratified": 400}  # a pair counts once
    assert wrong[1].mean() < 0.5 * wrong[0].mean()
    assert inside[1].sum() >= 4 > inside[0].sum()


def test_labels_without_names_mean_what_they_meant(corpus: Path) -> None:  # noqa: F811
    judge = model(1)
    labels = label_with(judge, np.random.default_rng(0), {"": (1.0, 1.0, 100)})
    named = replace(labels, annotator=("ana",) * len(labels))
    one, other = (calibrate_corpus(judge, corpus, given) for given in (labels, named))
    assert one.after == other.after
    assert one.noise == other.noise == ()
    assert found(judge, one.after.threshold) >= one.after.precision_interval[0]
