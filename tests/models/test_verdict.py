"""The verdict: a threshold, a probability, thresholds for a precision."""

import pytest

import qpairs
from qpairs.metrics import Calibration, OperatingPoint
from qpairs.models.verdict import PairSetting, Reference, Verdict
from qpairs.models.verdict_file import verdict_from_dict, verdict_to_dict

POINTS = [OperatingPoint(0.8, 0.6, 0.9), OperatingPoint(0.9, 0.75, 0.4)]
SETTING = PairSetting(0.5, Calibration(1, 0), POINTS)


def test_a_threshold_for_a_precision_is_the_next_that_was_reached() -> None:
    assert [SETTING.at_precision(p).threshold for p in (0.5, 0.8, 0.81, 0.9)] == [0.6, 0.6, 0.75, 0.75]
    with pytest.raises(qpairs.UserError, match=r"the highest is 0.9, with recall 0.40"):
        SETTING.at_precision(0.95)
    with pytest.raises(qpairs.UserError, match="too few pairs to promise any precision"):
        PairSetting(0.5, Calibration(1, 0)).at_precision(0.9)


def test_equal_scores_are_never_split_and_singles_are_compared_as_doubles() -> None:
    threshold = 0.1 + 1e-12  # between the single below and the one above
    assert PairSetting(threshold, Calibration(1, 0)).decide([0.1, threshold, 0.2]).tolist() == [False, True, True]
    assert PairSetting(0.5, Calibration(1, 0)).decide([[0.5, 0.4]]).tolist() == [[True, False]]


def test_the_verdict_of_a_head_is_not_read_from_cosines() -> None:
    Verdict(SETTING).require_cosine("runs/x")
    with pytest.raises(qpairs.UserError, match="runs/x: its verdict needs the score of a head"):
        Verdict(SETTING, score="head").require_cosine("runs/x")


@pytest.mark.parametrize("reference", [None, Reference([0.1, 0.9], 2)])
def test_verdicts_survive_json(reference: Reference | None) -> None:
    verdict = Verdict(SETTING, "head", False, reference, 0.25)
    assert verdict_from_dict({"verdict": verdict_to_dict(verdict)}) == verdict


def test_the_flat_form_of_older_files_is_read() -> None:
    flat = {"threshold": 0.5, "calibration": {"slope": 1, "intercept": 0}, "tfidf_threshold": 0.2}
    assert verdict_from_dict(flat) == Verdict(PairSetting(0.5, Calibration(1, 0), []), tfidf_threshold=0.2)
    checkpoint = {**flat, "config": {"score": "head", "symmetric": False}}
    assert (verdict_from_dict(checkpoint).score, verdict_from_dict(checkpoint).symmetric) == ("head", False)
    with pytest.raises(KeyError):
        verdict_from_dict({"threshold": 0.5})
