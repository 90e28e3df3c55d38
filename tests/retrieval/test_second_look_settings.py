"""What cosine and logit together mean in a place: `SecondSetting`, and the models that retrieval takes."""

import logging

import corpora
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from second_looks import LOOK, IntentReader, two_stages
from test_index import a_model

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.metrics import Calibration, SecondLook
from qpairs.models.second_setting import SecondSetting, second_setting
from qpairs.models.two_stages import Band
from qpairs.models.verdict import CorpusSetting, PairSetting, Verdict
from qpairs.retrieval.second_look import (
    ReadShare,
    called_from,
    encoder_of,
    judge_pairs,
    read_candidates,
    shown_threshold,
    with_vectors,
)

VERDICT = Verdict(PairSetting(0.8, Calibration(10, -8)), densities=corpora.fitted(seed=6))
COUNTS = metrics.count_scores(corpora.questions(600, seed=5))
PAIRS, HITS = VERDICT.corpus(COUNTS), VERDICT.search(COUNTS)
BASES = [VERDICT.pair, PAIRS, HITS, VERDICT.search(1000)]


@given(
    st.sampled_from(BASES),
    st.floats(0.02, 0.98),
    st.floats(-8, 0),
    st.floats(0, 8),
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=1, max_size=20),
)
def test_outside_the_band_reading_changes_no_decision(
    base, threshold: float, lowest: float, highest: float, pairs: list[tuple[float, float]]
) -> None:
    setting = SecondSetting(base, SecondLook(0, 0, 1, (lowest, 0), (highest, 0)), threshold)
    cosines = np.array([cosine for cosine, _ in pairs])
    logits = np.array([lowest + share * (highest - lowest) for _, share in pairs])  # any gain within the bounds
    band = setting.band()
    unread = np.where(band.holds(cosines), logits, np.nan)
    np.testing.assert_array_equal(setting.decide(cosines, unread), setting.decide(cosines, logits))
    np.testing.assert_allclose(setting.probability(cosines, logits), expit(base.log_odds(cosines) + logits))
    np.testing.assert_array_equal(setting.decide(cosines), setting.decide(cosines, np.full(len(cosines), np.nan)))


def test_inside_the_band_reading_can_change_a_decision() -> None:
    for base in BASES:
        setting = SecondSetting(base, LOOK, 0.4)
        low, high = setting.band()
        inside = np.linspace(low, high, 9)[1:-1]
        lowest, highest = LOOK.bounds(inside)
        odds = base.log_odds(inside)
        line = np.log(0.4 / 0.6)
        assert ((odds + highest >= line - 0.2) & (odds + lowest < line + 0.2)).all()


def test_nothing_that_reaches_the_least_probability_lies_below_the_floor() -> None:
    setting = SecondSetting(PAIRS, LOOK)
    floor = setting.floor(0.1)
    assert floor >= PAIRS.estimate.lowest
    below = np.linspace(-1, floor, 200)[:-1]
    likely = setting.log_odds(below) + LOOK.bounds(below)[1] >= np.log(0.1 / 0.9)
    assert not likely[below > PAIRS.estimate.lowest].any() or floor == PAIRS.estimate.lowest
    assert setting.floor(0.0) == PAIRS.estimate.lowest
    nothing = SecondSetting(PAIRS, SecondLook(0, 0, 0, (0, 0), (0, 0)))
    assert PAIRS.probability(nothing.floor(0.1) + 0.01) >= 0.1, "a look without a gain leaves the cosines"


def test_a_precision_is_that_of_the_lower_bound_of_each_hit() -> None:
    setting = SecondSetting(HITS, LOOK)
    sure = setting.at_precision(0.8)
    assert (sure.threshold, sure.bounded, sure.threshold_at(0.8)) == (0.8, True, 0.8)
    cosines, logits = np.linspace(0, 1, 60), np.linspace(3, -3, 60)
    estimate = HITS.estimate
    drawn = np.stack(list(estimate.draws_of(cosines)))[1:]
    np.testing.assert_allclose(estimate.deviation_of(cosines), drawn.std(axis=0), rtol=0.2)
    lower = HITS.log_odds(cosines) - 1.6449 * estimate.deviation_of(cosines)
    np.testing.assert_array_equal(sure.decide(cosines, logits), expit(lower + LOOK.gain(cosines, logits)) >= 0.8)
    assert (sure.decide(cosines, logits) <= setting.at(0.8).decide(cosines, logits)).all()
    np.testing.assert_array_equal(sure.probability(cosines, logits), setting.probability(cosines, logits))
    assert sure.at(0.7) == setting.at(0.7), "another threshold is one of the probability again"
    assert setting.threshold_at(1.0) is None
    with pytest.raises(UserError, match=r"probability 1; the highest that can be promised is 0\.\d\d"):
        setting.at_precision(1.0)
    with pytest.raises(UserError, match="only for labelled pairs"):
        SecondSetting(VERDICT.pair, LOOK).at_precision(0.5)
    for threshold in (-0.1, 1.1):
        with pytest.raises(UserError, match="a probability, from 0 to 1"):
            setting.at(threshold)


def test_the_threshold_is_even_or_that_of_the_verdict_on_pairs() -> None:
    model = two_stages(corpora.questions(20))
    assert second_setting(HITS, model).threshold == 0.5
    assert second_setting(VERDICT.pair, model).threshold == pytest.approx(float(expit(model.verdict.pair.threshold)))
    assert called_from(HITS) == f"at a similarity of {HITS.threshold:.3f} or more"
    assert called_from(SecondSetting(HITS, LOOK)) == "at a probability of 0.50 or more"
    assert "0.8, with 95 %" in called_from(SecondSetting(HITS, LOOK).at_precision(0.8))


def test_pairs_are_judged_as_the_model_scores_them() -> None:
    from qpairs.data.pairs import pairs_from_texts

    vectors = corpora.questions(40)
    model = two_stages(vectors)
    left, right = [f"t{row}" for row in range(39)], [f"t{row + 1}" for row in range(39)]
    scores, _ = model.score_pairs(pairs_from_texts(left, right, [-1] * 39))
    cosines = np.einsum("ij,ij->i", vectors[:39], vectors[1:])
    reader = IntentReader()
    probability, duplicate = judge_pairs(model, reader, cosines, list(zip(left, right, strict=True)))
    np.testing.assert_allclose(probability, model.verdict.pair.probability(scores), atol=1e-5)
    np.testing.assert_array_equal(duplicate, model.verdict.pair.decide(scores))
    assert 0 < len(reader.read) == model.band.holds(cosines.astype(np.float32)).sum() < 39
    assert shown_threshold(model) == (pytest.approx(float(expit(-0.4 * 0.9 + 0.1))), "probability")
    assert shown_threshold(model.first) == (0.8, "similarity")


def test_models_that_cannot_search_are_refused_in_one_line() -> None:
    model = two_stages(corpora.questions(20))
    assert encoder_of(model) is with_vectors(model) is model.first
    assert encoder_of(model.first) is model.first
    for of in (encoder_of, with_vectors):
        with pytest.raises(UserError, match="no vectors to search with"):
            of(model.second)
    head = a_model(corpora.questions(20), score="head")
    assert with_vectors(head) is head
    with pytest.raises(UserError, match="head"):
        encoder_of(head)


def test_long_reading_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    pairs = [("t1", f"t{row}") for row in range(5000)]
    with caplog.at_level(logging.WARNING):
        assert len(read_candidates(IntentReader(), pairs)) == 5000
        assert caplog.records == []
        reports = []
        read_candidates(IntentReader(), pairs, reports.append, many=5000)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "5,000 candidates to read" in caplog.text
    assert "--no-reranker" in caplog.text
    assert (reports[-1].stage, reports[-1].done, reports[-1].total) == ("reading pairs", 5000, 5000)


def test_what_was_read_is_said() -> None:
    assert str(ReadShare(Band(0.55, 0.93), 1234, 5678)) == (
        "second look at 1,234 of 5,678 candidates (cosine 0.55 to 0.93); outside, it could not change the verdict "
        "(99 %)"
    )
    assert str(ReadShare(Band(2, 2), 0, 7)).endswith("it could not change any verdict")
    assert ReadShare(Band(0.5, 0.9), 1, 4).to_dict() == {"band": [0.5, 0.9], "read": 1, "candidates": 4, "share": 0.25}
    assert ReadShare(Band(0.5, 0.9), 0, 0).share == 0


def test_more_labels_tell_more_of_pairs_that_were_read() -> None:
    assert isinstance(PAIRS, CorpusSetting)
    rng = np.random.default_rng(0)
    cosines = rng.uniform(0.6, 1.0, 400)
    read = metrics.ReadEstimate(PAIRS.of_cosines, cosines, rng.normal(0, 1.5, 400), 0.6)
    bound = read.bounds()[0].max()
    asked = float(min(0.999, bound + 0.02))
    more = metrics.labels_needed(read, asked)
    said = metrics.why_not(read, asked)
    assert f"the highest that can be promised is {np.floor(100 * bound) / 100:.2f}" in said
    assert (more is None) == ("hardly get there" in said)
    later = metrics.after_more_labels(read, 2000)
    assert later.bounds()[0].max() >= bound
    assert (more is None) or metrics.after_more_labels(read, more).threshold_at(asked)
    setting = CorpusSetting(read.best_threshold(), read)
    assert setting.of_cosines is read.first
    assert setting.for_hits().estimate is read.first
    with pytest.raises(UserError, match="can be promised"):
        setting.at_precision(0.99999)
    with pytest.raises(ValueError, match="read"):
        setting.lower_log_odds([0.9])
