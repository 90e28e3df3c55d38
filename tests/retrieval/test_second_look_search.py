"""Search by a model of two stages: hits by cosine, verdicts and order by cosine and logit together."""

import shutil
from pathlib import Path

import corpora
import numpy as np
import pytest
from conftest import refused
from scipy.special import expit
from second_looks import LOOK, IntentReader, logit_of, two_stages
from test_index import embedded

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.models.second_setting import SecondSetting
from qpairs.models.two_stages import TwoStages
from qpairs.retrieval.index import Index, build_index, open_index
from qpairs.retrieval.search import corpus_setting, heading, search, setting_for
from qpairs.retrieval.second_look import read_hits

N = 1000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index that the encoder alone built."""
    folder = tmp_path_factory.mktemp("second")
    build_index(embedded(folder, two_stages(corpora.questions(N, seed=5)).first, range(N)), folder / "idx")
    return folder / "idx"


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Index:
    return open_index(shutil.copytree(built, tmp_path / "idx"))


@pytest.fixture
def model() -> TwoStages:
    return two_stages(corpora.questions(N, seed=5), seed=6)


def test_probabilities_are_those_of_cosine_and_logit_together(index: Index, model: TwoStages) -> None:
    asked = [f"t{row}" for row in range(0, 60, 3)]
    found = search(index, model, asked, 7)
    base = setting_for(index, model.first)
    setting = setting_for(index, model)
    assert setting == SecondSetting(base, LOOK)
    band = setting.read_band()
    for question, answers in zip(asked, found, strict=True):
        assert len(answers) == 7
        assert (answers[0].hit.text, answers[0].probability, answers[0].duplicate) == (question, 1.0, True)
        shown = [(not answer.duplicate, -answer.probability) for answer in answers]
        assert shown == sorted(shown), "the most probable first"
        for answer in answers[1:]:
            cosine = answer.hit.similarity
            assert answer.read == band.holds(np.array([cosine]))[0]
            gain = LOOK.gain(cosine, logit_of(question, answer.hit.text)) if answer.read else 0.0
            assert answer.probability == pytest.approx(expit(base.log_odds(cosine) + gain), abs=1e-6)
            assert answer.duplicate == (answer.probability >= 0.5)
        assert ("called" in heading(answers)) == any(answer.duplicate for answer in answers)
    read = model.second.reader.read
    assert len(model.second.reader.calls) == 1, "one batch for all questions"
    assert len(read) == len(set(read))
    ten = [answer for answers in search(index, model, asked, 10) for answer in answers]
    assert 0 < len(read) == sum(answer.read for answer in ten) < len(ten)


def test_the_best_of_ten_is_found_though_fewer_are_shown(index: Index, model: TwoStages) -> None:
    asked = [f"t{row}" for row in range(100)]
    one, all_ten = search(index, model, asked, 2), search(index, model, asked, 10)
    assert one == [answers[:2] for answers in all_ten]
    alone = search(index, model.first, asked, 2)
    assert any(a[1].hit != b[1].hit for a, b in zip(one, alone, strict=True)), "it brings another one to the top"


def test_the_second_look_tells_duplicates_from_near_misses(index: Index, model: TwoStages) -> None:
    asked = list(range(0, N, 2))
    intent = corpora.intents(N)

    def judged(by: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = search(index, by, [f"t{row}" for row in asked], 10)
        kept = [(q, answer) for q, row in zip(asked, rows, strict=True) for answer in row if answer.hit.text != f"t{q}"]
        right = np.array([intent[int(answer.hit.text[1:])] == intent[q] for q, answer in kept])
        return right, *(
            np.array([getattr(answer, name) for _, answer in kept]) for name in ("probability", "duplicate")
        )

    right, probability, duplicate = judged(model)
    right_first, probability_first, duplicate_first = judged(model.first)
    assert (
        metrics.average_precision(probability, right) > metrics.average_precision(probability_first, right_first) + 0.03
    )
    assert (right == duplicate).mean() > (right_first == duplicate_first).mean()


def test_reading_everything_decides_as_reading_the_band(index: Index, model: TwoStages, monkeypatch) -> None:
    asked = [f"t{row}" for row in range(150)]
    few = search(index, model, asked, 10)
    monkeypatch.setattr(SecondSetting, "read_band", lambda self: type(model.band)(-2.0, 2.0))
    everything = search(index, model, asked, 10)
    for some, more in zip(few, everything, strict=True):
        decided = [{answer.hit.id: answer.duplicate for answer in answers} for answers in (some, more)]
        assert decided[0] == decided[1]
    assert all(answer.read for answers in everything for answer in answers if answer.probability < 1)


def test_a_precision_or_a_threshold_moves_band_and_decision(index: Index, model: TwoStages) -> None:
    asked = [f"t{row}" for row in range(80)]
    setting = setting_for(index, model)
    called = []
    for used in (setting.at(0.2), setting, setting.at(0.9), setting.at_precision(0.9)):
        found = search(index, model, asked, 10, setting=used)
        called.append(sum(answer.duplicate for answers in found for answer in answers))
        for answers in found:
            decided = [answer.duplicate for answer in answers]
            assert decided == sorted(decided, reverse=True), "what is called comes first"
    assert called == sorted(called, reverse=True)
    assert called[0] > called[-1] >= 80
    everything = search(index, model, ["t5"], 5, 0.0)[0]
    assert all(answer.duplicate for answer in everything)
    for wrong in (-0.1, 7, float("nan")):
        with pytest.raises(UserError, match="a probability, from 0 to 1"):
            search(index, model, ["t5"], 5, wrong)


def test_no_more_than_so_many_hits_are_read_the_nearest_first(index: Index, model: TwoStages) -> None:
    vectors = corpora.questions(N, seed=5)
    hits, setting = index.questions.search(vectors[:5], 10), setting_for(index, model)
    asked = [f"t{row}" for row in range(5)]
    every = read_hits(IntentReader(), hits, asked, setting)
    some = read_hits(IntentReader(), hits, asked, setting, most=2)
    assert max(np.isfinite(row).sum() for row in every) > 2
    for all_read, few_read in zip(every, some, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(np.isfinite(few_read)), np.flatnonzero(np.isfinite(all_read))[:2])
    assert all(np.isnan(row).all() for row in read_hits(IntentReader(), hits, asked, setting, most=0))


def test_labels_and_pairs_of_an_index_stay_with_the_cosines(index: Index, model: TwoStages) -> None:
    assert corpus_setting(index, model) == corpus_setting(index, model.first)
    plain = two_stages(corpora.questions(N, seed=5), densities=None)
    setting = setting_for(index, plain)
    assert setting == SecondSetting(plain.first.verdict.pair, LOOK, float(expit(-0.4)))


def test_the_command_shows_probabilities_and_what_was_read(
    run, index: Index, model: TwoStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpairs.models.base.load", lambda _, second_look=True: model if second_look else model.first)
    options = ("search", index.folder, "t5", "-k", "4", "--model", ".")
    result = run(*options)
    assert (result.code, result.err) == (0, "")
    (answers,) = search(index, model, ["t5"], 4)
    rows = [line for line in result.out.splitlines() if line.strip()[:1] in "1234" and line.strip()[1:2] == " "]
    assert [row.split()[2] for row in rows] == [f"{answer.probability:.2f}" for answer in answers]
    said = " ".join(result.out.split())
    assert "Called a duplicate: at a probability of 0.50 or more." in said
    assert f"Second look at {sum(answer.read for answer in answers)} of 4 candidates (cosine " in said
    sure = run(*options, "--precision", "0.8")
    assert "if the probability is at least 0.8, with 95 % confidence" in " ".join(sure.out.split())
    refused(run(*options, "--precision", "1"), "the highest that can be promised")
    refused(run(*options, "--threshold", "-0.5"), "a probability, from 0 to 1")
    alone = run(*options, "--no-reranker")
    assert "at a similarity of" in " ".join(alone.out.split())
    assert "econd look" not in alone.out


def test_a_hit_has_one_probability_at_any_threshold(index: Index, model: TwoStages) -> None:
    asked, setting = [f"t{row}" for row in range(50)], setting_for(index, model)
    found = [search(index, model, asked, 10, setting=setting.at(threshold)) for threshold in (0.3, 0.5, 0.8)]
    for answers in zip(*found, strict=True):
        probabilities = [{answer.hit.id: answer.probability for answer in row} for row in answers]
        assert probabilities[0] == probabilities[1] == probabilities[2]
