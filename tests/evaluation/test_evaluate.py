import json
import math
from pathlib import Path

import pytest
from mocks import MockModel, moved
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

import qpairs
from qpairs import metrics
from qpairs.data.parts import load_parts
from qpairs.evaluation.evaluate import SHIFTED
from qpairs.models.bi_encoder import Checkpoint


@pytest.fixture(scope="module")
def pairs(pairs_csv: Path) -> qpairs.Pairs:
    return qpairs.load_pairs(pairs_csv)


def test_scores_are_cosines_of_each_pair(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    scores, (rows, columns) = checkpoint.score_pairs(pairs)
    for row in (0, 17, 599):
        a, b = checkpoint.encoder.encode(list(pairs.texts(row)))
        assert scores[row] == pytest.approx(float(a @ b), abs=1e-5)
    assert len(rows) == len(pairs.questions)
    assert columns is rows


def test_the_report_agrees_with_scikit_learn(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    report = qpairs.evaluate(checkpoint, pairs)
    verdict = report.scores >= checkpoint.verdict.pair.threshold
    assert report.threshold == checkpoint.verdict.pair.threshold
    assert report.f1 == pytest.approx(f1_score(pairs.labels, verdict))
    assert report.average_precision == pytest.approx(average_precision_score(pairs.labels, report.scores))
    assert report.roc_auc == pytest.approx(roc_auc_score(pairs.labels, report.scores))
    assert report.f1_interval[0] < report.f1 < report.f1_interval[1]
    assert report.baselines["all duplicate"]["f1"] == pytest.approx(metrics.all_duplicate_f1(pairs.labels))
    assert json.loads(json.dumps(report.to_dict()))["f1"] == report.f1


def test_the_frozen_threshold_is_used_however_the_data_looks(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    strict = moved(checkpoint, threshold=0.9999)
    report = qpairs.evaluate(strict, pairs)
    assert report.threshold == 0.9999
    assert report.recall < 0.1


def test_slices_partition_the_pairs(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    report = qpairs.evaluate(checkpoint, pairs)
    for kind in ("length", "overlap"):
        assert sum(s.n for s in report.slices if s.kind == kind) == len(pairs)


def test_a_foreign_score_distribution_is_noticed(checkpoint: Checkpoint) -> None:
    assert not qpairs.evaluate(checkpoint, load_parts(checkpoint.config).validation).shift.differs
    far = [f"zebra quantum {i} xylophone" for i in range(200)]
    foreign = qpairs.pairs_from_texts(far, far[::-1], [i % 2 for i in range(200)])
    shift = qpairs.evaluate(checkpoint, foreign).shift
    assert shift.differs
    assert shift.statistic > SHIFTED


def test_one_label_only_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(qpairs.UserError, match="both labels"):
        qpairs.evaluate(checkpoint, qpairs.pairs_from_texts(["a b"], ["c d"], [1]))


def test_without_two_questions_that_are_duplicates_nothing_is_retrieved(checkpoint: Checkpoint) -> None:
    pairs = qpairs.pairs_from_texts(["how to pay", "when to pay"], ["how to pay", "why to pay"], [1, 0])
    assert qpairs.evaluate(checkpoint, pairs).retrieval == {}


def test_an_unknown_shift_is_null_in_json(pairs: qpairs.Pairs, checkpoint: Checkpoint) -> None:
    model = MockModel(checkpoint)
    report = qpairs.evaluate(model, pairs)
    assert math.isnan(report.shift.statistic)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["shift"]["statistic"] is None
    assert "TF-IDF" not in report.baselines
