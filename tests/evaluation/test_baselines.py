from typing import Any

import numpy as np
import pytest

import qpairs
from qpairs import metrics
from qpairs.evaluation import baselines as module
from qpairs.evaluation.baselines import UNTRAINED, baselines, tfidf_scores, tfidf_threshold, trivial_note


def test_tfidf_is_one_for_equal_texts_and_zero_for_strangers() -> None:
    pairs = qpairs.pairs_from_texts(["reset my password", "aaa"], ["Reset my password", "zzz"], [1, 0])
    np.testing.assert_allclose(tfidf_scores(pairs), [1, 0], atol=1e-6)
    assert tfidf_scores(qpairs.pairs_from_texts([""], [""], [1])).tolist() == [0]


def test_without_scikit_learn_tfidf_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = qpairs.pairs_from_texts(["reset my password", "aaa"], ["Reset my password", "zzz"], [1, 0])
    threshold = tfidf_threshold(pairs)
    assert threshold == pytest.approx(0.5)
    assert baselines(pairs, threshold)["TF-IDF"] == {"f1": 1.0, "average_precision": 1.0}
    assert list(baselines(pairs, None)) == ["all duplicate"]
    monkeypatch.setattr(module, "_sklearn_installed", lambda: False)
    assert tfidf_threshold(pairs) is None
    assert list(baselines(pairs, threshold)) == ["all duplicate"]


# ---------------------------------------------------------------------- no better than trivial answers


def judged(scores: np.ndarray, labels: np.ndarray, threshold: float, **more: float) -> dict[str, Any]:
    """What `trivial_note` reads of a report; `more` are the F1 of other baselines."""
    groups = np.arange(len(labels))
    baselines = {"all duplicate": metrics.all_duplicate_f1(labels), **more}
    return {
        "f1": metrics.confusion(scores, labels, threshold).f1,
        "f1_interval": metrics.bootstrap_interval(scores, labels, groups, threshold)["f1"],
        "average_precision_interval": metrics.average_precision_interval(scores, labels, groups),
        "duplicates": labels.mean(),
        "baselines": {name: {"f1": f1} for name, f1 in baselines.items()},
    }


def draw(quality: float, n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = (np.arange(n) % 10 < 4).astype(np.int8)
    return quality * labels + rng.normal(0, 0.1, n), labels


def test_a_model_that_knows_something_gets_no_note() -> None:
    scores, labels = draw(0.3)
    assert trivial_note(judged(scores, labels, 0.15)) == ""


def test_a_model_that_knows_nothing_is_named_so_wherever_its_threshold_lies() -> None:
    scores, labels = draw(0.0)
    for threshold in (-9.0, 0.0, 0.1):
        note = trivial_note(judged(scores, labels, threshold))
        assert note.startswith("no better than calling everything a duplicate (F1 0.57)")
        assert "or a random ranking (average precision 0.40)" in note
        assert "\n" not in note


def test_a_good_ranking_at_a_useless_threshold_is_named_by_its_f1_alone() -> None:
    scores, labels = draw(0.3)
    for threshold in (-9.0, 9.0):
        assert trivial_note(judged(scores, labels, threshold)) == (
            "no better than calling everything a duplicate (F1 0.57)"
        )


def test_training_that_brought_nothing_is_named() -> None:
    scores, labels = draw(0.3)
    found = judged(scores, labels, 0.15)
    assert trivial_note(judged(scores, labels, 0.15, **{UNTRAINED: found["f1_interval"][0] - 0.01})) == ""
    assert trivial_note(judged(scores, labels, 0.15, **{UNTRAINED: 0.99})) == (
        "no better than the encoder as it comes (F1 0.99)"
    )


def test_better_on_few_pairs_may_be_chance_and_is_said_to_be() -> None:
    few = judged(*draw(0.12, n=40), 0.0)
    assert few["f1"] > few["baselines"]["all duplicate"]["f1"]
    assert (
        trivial_note(few) == "no better than calling everything a duplicate (F1 0.57), as far as these pairs can tell"
    )


def test_a_baseline_that_is_known_is_one_to_beat() -> None:
    scores, labels = draw(0.3)
    assert trivial_note(judged(scores, labels, 0.15, **{"TF-IDF": 0.6})) == ""
    assert trivial_note(judged(scores, labels, 0.15, **{"TF-IDF": 0.99})) == "no better than TF-IDF (F1 0.99)"
