"""Thresholds that no score can reach, and scores that are no numbers, are refused in one line."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from mocks import VERDICT, MockModel

import qpairs
from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs
from qpairs.evaluation.evaluate import report
from qpairs.metrics import Calibration
from qpairs.models.verdict import PairSetting, check_threshold, choose
from qpairs.sklearn import DuplicateClassifier


class Vectors:
    """Random unit vectors, of which one has a value of its own."""

    dimension = 8

    def __init__(self, bad: float | None = None) -> None:
        self.bad = bad

    def encode(self, texts: list[str], side: str = "left") -> np.ndarray:
        vectors = np.random.default_rng(len(texts)).normal(size=(len(texts), 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if self.bad is not None:
            vectors[3] = self.bad
        return vectors


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return qpairs.load_pairs("sample").subset(np.arange(300))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_gives_no_numbers_is_damaged(pairs: Pairs, bad: float) -> None:
    model = MockModel(Vectors(bad))
    for judge in (qpairs.evaluate, qpairs.predict):
        with pytest.raises(UserError, match="similarities that are not numbers; it is damaged"):
            judge(model, pairs)


@pytest.mark.parametrize("score", ["cosine", "logit"])
@pytest.mark.parametrize("extreme", [1e300, -1e300])
@pytest.mark.filterwarnings("error")
def test_huge_scores_are_judged(pairs: Pairs, score: str, extreme: float) -> None:
    model = MockModel(Vectors(), verdict=dataclasses.replace(VERDICT, score=score))
    scores = model.score_pairs(pairs)[0].astype(np.float64)
    scores[3], scores[10] = extreme, -extreme
    found = report(model, pairs, scores, None)
    assert 0 <= found.f1 <= 1
    assert found.rethreshold(0.2).threshold == 0.2
    assert json.loads(json.dumps(found.rethreshold(np.float32(0.25)).to_dict()))["threshold"] == 0.25
    assert metrics.operating_points(scores, pairs.labels, precisions=(0.5,)) is not None


def test_a_score_that_is_no_number_is_never_decided() -> None:
    for scores in ([float("nan")], [0.2, float("nan")], np.array([[0.1, np.nan]], np.float32)):
        with pytest.raises(ValueError, match="scores contain NaN"):
            metrics.decide(scores, 0.5)
    with pytest.raises(ValueError, match="threshold is NaN"):
        metrics.decide([0.5], float("nan"))
    assert metrics.decide([float("-inf"), float("inf")], 0.5).tolist() == [False, True]
    with pytest.raises(ValueError, match="scores contain NaN"):
        metrics.score_counts.histogram([0.1, float("nan")])


@pytest.mark.parametrize("threshold", [1.5, -1.01, float("nan"), float("inf"), True, "0.5"])
def test_thresholds_out_of_range_are_one_line(
    checkpoint: qpairs.Checkpoint, pairs: Pairs, threshold: float, tmp_path: Path
) -> None:
    found = qpairs.evaluate(checkpoint, pairs)
    verdict = dataclasses.replace(checkpoint.verdict, densities=None, shortened={})
    pairs_alone = checkpoint.with_verdict(verdict, checkpoint.scores)
    for call in (
        lambda: checkpoint.predict(pairs, threshold=threshold),
        lambda: checkpoint.dedupe(["a b", "c d"], threshold=threshold),
        lambda: found.rethreshold(threshold),
        lambda: choose(checkpoint.verdict.corpus(100), threshold),
        lambda: checkpoint.search(["a b", "c d"], ["a b"], threshold=threshold),
        lambda: pairs_alone.search(["a b", "c d"], ["a b"], threshold=threshold),
        lambda: qpairs.dedupe(["a b", "c d"], checkpoint.encode, threshold),
        lambda: DuplicateClassifier("static", threshold=threshold).fit([("a", "b"), ("c", "d")], [0, 1]),
    ):
        with pytest.raises(
            UserError, match=r"^threshold: .*must be (-1 <= threshold <= 1|a number|a finite number)"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_precision_out_of_range_is_called_one(checkpoint: qpairs.Checkpoint, pairs: Pairs) -> None:
    for call in (
        lambda: checkpoint.predict(pairs, precision=2),
        lambda: checkpoint.dedupe(["a b", "c d"], precision=2),
    ):
        with pytest.raises(UserError, match=r"^precision: 2, must be 0 < precision <= 1$"):
            call()
    with pytest.raises(UserError, match=r"^threshold, precision: give only one of them$"):
        checkpoint.predict(pairs, threshold=0.5, precision=0.5)


def test_rows_that_cannot_be_predicted_are_left_out_where_that_is_asked_for(checkpoint: qpairs.Checkpoint) -> None:
    rows = [("How do I pay?", "How can I pay?"), ("", None)]
    with pytest.raises(UserError, match=r"row 2: .*skip_bad_rows=True"):
        checkpoint.predict(rows)
    assert checkpoint.predict(rows, skip_bad_rows=True).duplicate.shape == (1,)


def test_the_range_is_that_of_the_score() -> None:
    check_threshold(5.0, "logit")
    check_threshold(-30, "log odds")
    check_threshold(np.float32(0.5), "head")
    assert choose(PairSetting(0.0, Calibration(1.0, 0.0)), 5.0).threshold == 5.0  # of a logit, which any number may be
    for score, wrong in (("head", -0.1), ("probability", 1.1), ("logit", float("inf"))):
        with pytest.raises(UserError, match="threshold"):
            check_threshold(wrong, score)
    for precision in (0.0, 1.1, float("nan")):
        with pytest.raises(UserError, match="0 < precision <= 1"):
            choose(VERDICT.pair, precision=precision)
