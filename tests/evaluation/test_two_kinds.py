"""Everything that judges pairs takes a cross-encoder, and a model of two stages."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas
import pytest
from mocks import moved
from stages import LOOK, overlap_model, two_stages, write_tiny_cross_model

import qpairs
from qpairs import metrics
from qpairs.data.parts import load_parts, training_pairs
from qpairs.data.splits import leak
from qpairs.evaluation import sources
from qpairs.evaluation.calibrate_corpus import calibrate_corpus
from qpairs.evaluation.combine import combine
from qpairs.evaluation.explain import explain
from qpairs.evaluation.mistakes import analyse
from qpairs.evaluation.report import question_map, render
from qpairs.evaluation.robustness import probe
from qpairs.evaluation.seen import seen_in_training
from qpairs.metrics import fit_second_look
from qpairs.models.base import load
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.cross_encoder import CrossModel, write_cross_model
from qpairs.models.two_stages import TwoStages


@pytest.fixture(scope="module")
def few_csv(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the pairs: the report on a corpus reads all pairs of its questions, as the encoder knows so little."""
    file = tmp_path_factory.mktemp("few") / "few.csv"
    file.write_text("".join(pairs_csv.read_text().splitlines(keepends=True)[:101]))
    return file


class Folders(NamedTuple):
    cross: Path
    both: Path


@pytest.fixture(scope="module")
def pairs(pairs_csv: Path) -> qpairs.Pairs:
    return qpairs.load_pairs(pairs_csv)


@pytest.fixture(scope="module")
def folders(checkpoint: Checkpoint, pairs: qpairs.Pairs, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folder = tmp_path_factory.mktemp("kinds")
    cross = write_tiny_cross_model(folder / "cross", pairs, checkpoint.config, split=checkpoint.split)
    combine(checkpoint, cross, sources.tested_on(checkpoint)[0]).save(folder / "both")
    return Folders(folder / "cross", folder / "both")


@pytest.fixture(autouse=True)
def small_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question_map, "MAPPED", 30)


def shown(text: str) -> str:
    return " ".join(text.split())


def words_of(page: str) -> str:
    return shown(re.sub(r"<[^>]*>", " ", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)))


@pytest.mark.parametrize(("kind", "name"), [("cross", "logit"), ("both", "log odds")])
def test_the_commands_take_both_and_say_what_the_score_is(
    run, folders: Folders, few_csv: Path, kind: str, name: str
) -> None:
    folder = getattr(folders, kind)
    result = run("evaluate", folder, "--data", few_csv, "--json", "x.json", "--perturb", "case,negation")
    assert result.code == 0, result.err
    found = json.loads(Path("x.json").read_text())
    assert found["score"] == name
    assert {behaviour["kind"] for behaviour in found["perturbations"]} == {"case", "negation"}
    assert "similarit" not in result.out
    assert "ignores word order" not in result.out
    assert ("as search" in result.out) == (kind == "both")
    assert ("in the corpus are probabilities, after the second look" in shown(result.out)) == (kind == "both")

    result = run("errors", folder, "--data", few_csv)
    assert result.code == 0, result.err
    assert "similarit" not in result.out
    table = pandas.read_csv("errors/mistakes.csv")
    assert "score" in table
    assert "similarity" not in table

    result = run("explain", folder, "How do I pay my bill?", "How can I pay?")
    assert result.code == 0, result.err
    assert f"What each word adds to the {name}" in result.out
    assert f"  {name} " in result.out.splitlines()[0]
    assert "labelled duplicates" in result.out
    assert ("by their words" in result.out) == (kind == "cross")

    assert run("predict", folder, "who?", "where?").out.count(f"{name} ") == 1
    assert run("predict", folder, few_csv, "--output", "scored.csv").code == 0
    table = pandas.read_csv("scored.csv")
    assert list(table)[-3:] == ["score", "probability", "duplicate"]
    assert table["score"].tolist() == pytest.approx(load(folder).score_pairs(qpairs.load_pairs(few_csv))[0], abs=1e-4)


@pytest.mark.parametrize(("kind", "name"), [("cross", "logit"), ("both", "log odds")])
def test_both_are_calibrated_and_saved(run, folders: Folders, pairs_csv: Path, kind: str, name: str) -> None:
    result = run("calibrate", getattr(folders, kind), "--data", pairs_csv, "--output", "mine")
    assert result.code == 0, result.err
    assert f"threshold for pairs, {name}:" in result.out
    model = load("mine")
    assert model.scores["calibrated_on"]["n"] == 600
    assert model.verdict.pair == qpairs.calibrate(getattr(folders, kind), pairs_csv).model.verdict.pair
    if isinstance(model, TwoStages):
        alone = qpairs.calibrate(load(folders.both, second_look=False), pairs_csv).model
        assert model.first.verdict == alone.verdict
        assert load("mine/reranker").verdict == load(folders.both / "reranker").verdict


def test_a_corpus_moves_the_encoder_of_both_and_is_no_place_for_a_cross_encoder(
    run, folders: Folders, pairs: qpairs.Pairs
) -> None:
    Path("corpus.txt").write_text("\n".join(pairs.questions))
    result = run("calibrate", folders.both, "--corpus", "corpus.txt", "--output", "mine")
    assert result.code == 0, result.err
    assert "similarities of the encoder" in shown(result.out)
    before, after = load(folders.both), load("mine")
    assert isinstance(after, TwoStages)
    assert (after.verdict, after.look) == (before.verdict, before.look)
    alone = calibrate_corpus(load(folders.both, second_look=False), "corpus.txt").model
    assert after.first.verdict == alone.verdict != before.first.verdict
    assert after.first.scores["calibrated_on_corpus"]["n"] == len(pairs.questions)
    result = run("calibrate", folders.cross, "--corpus", "corpus.txt", "--output", "no")
    assert result.code == 2
    *_, last = result.err.splitlines()  # in a process that has loaded transformers before, it shows bars
    assert last.startswith("error:")
    assert "read from logits" in last
    assert "qpairs combine" in last
    assert not Path("no").exists()


def test_the_page_of_both_has_a_section_on_the_second_look(folders: Folders, few_csv: Path) -> None:
    stored, pairs = load(folders.both), qpairs.load_pairs(few_csv)
    assert isinstance(stored, TwoStages)
    model = replace(stored, look=LOOK)
    page = render(model, pairs, title="mine")
    text = words_of(page)
    encoder = qpairs.evaluate(load(folders.both, second_look=False), pairs)
    low, high = model.band
    for words in (
        "Second look",
        f"between {low:.2f} and {high:.2f}",
        f"{100 * model.band.holds(encoder.scores).mean():.1f} % of these pairs",
        f"{encoder.f1:.3f} {encoder.average_precision:.3f}",
        f"{model.scores['second_look']['f1_second']:.3f}",
        "How the log odds",
        "this model of two stages",
        "The training of the encoder",
        "Joined",
    ):
        assert words in text
    assert "$" not in re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)
    assert 'id="map"' in page
    assert "There is no map" not in text


def test_the_page_of_a_cross_encoder_says_what_it_lacks(folders: Folders) -> None:
    text = words_of(render(folders.cross))
    for words in (
        "this cross-encoder",
        "no vectors to search with",
        "There is no map: a cross-encoder has no vectors",
        "the part kept for the test",
        "How the logit",
    ):
        assert words in text
    for words in ("Second look", "similarit", "checkpoint"):
        assert words not in text


def test_unbounded_scores_stay_inside_the_charts(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    steep = metrics.Calibration(40.0, -20.0)
    model = two_stages(moved(checkpoint, calibration=steep))
    for judge in (model, overlap_model()):
        page = render(judge, pairs)
        places = [float(x) for x in re.findall(r'<rect class="bar \w+" x="(-?[\d.]+)"', page)]
        assert len(places) > 40
        assert 40 < min(places) < max(places) < 400
        assert qpairs.evaluate(judge, pairs).scores.max() > 1


def test_no_threshold_is_said_to_be_chosen_on_the_test_pairs_of_the_encoder(folders: Folders) -> None:
    assert "these same pairs" not in words_of(render(folders.both))


def test_few_pairs_keep_the_gain_and_many_fit_it_anew(
    checkpoint: Checkpoint, pairs: qpairs.Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = two_stages(checkpoint)
    few = qpairs.calibrate(model, pairs).model
    assert isinstance(few, TwoStages)
    assert few.look == model.look
    assert few.first.verdict == qpairs.calibrate(checkpoint, pairs).model.verdict
    assert few.verdict.pair != model.verdict.pair
    assert few.scores["calibrated_on"]["n"] == len(pairs)
    monkeypatch.setattr(metrics, "MANY_PAIRS", 100)
    many = qpairs.calibrate(model, pairs).model
    assert isinstance(many, TwoStages)
    cosines, logits = checkpoint.score_pairs(pairs)[0], model.second.score_pairs(pairs)[0]
    assert many.look == fit_second_look(cosines, logits, pairs.labels, many.first.verdict.pair.log_odds)


def test_calibration_finds_the_threshold_of_both_at_another_place(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    elsewhere = two_stages(moved(checkpoint, calibration=metrics.Calibration(10.0, -30.0)))
    fit = qpairs.calibrate(elsewhere, pairs)
    scores = elsewhere.score_pairs(pairs)[0]
    assert fit.f1_before == pytest.approx(metrics.confusion(scores, pairs.labels, 0.0).f1)
    assert fit.f1_after > fit.f1_before
    assert fit.interval[0] <= fit.f1_after <= fit.interval[1]
    after = fit.model.score_pairs(pairs)[0]
    error = metrics.expected_calibration_error(fit.model.verdict.pair.probability(after), pairs.labels)
    assert error < metrics.expected_calibration_error(elsewhere.verdict.pair.probability(scores), pairs.labels)


def test_no_prior_is_left_where_the_pairs_are_a_handful(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    model = two_stages(checkpoint)
    ends = [int(np.flatnonzero(pairs.labels == label)[0]) for label in (0, 1)]
    mask = np.isin(np.arange(len(pairs)), ends)
    fit = qpairs.calibrate(model, pairs.subset(mask))
    assert fit.n == 2
    assert np.isfinite(fit.model.verdict.pair.threshold)
    assert fit.model.look == model.look


def test_words_are_left_out_as_the_pair_is_judged(checkpoint: Checkpoint) -> None:
    model, one, other = two_stages(checkpoint), "how do I pay my bill", "where can I pay my bill"
    cosines = checkpoint.score_pairs(qpairs.pairs_from_texts([one], [other], [-1]))[0]
    assert model.band.holds(cosines).all()
    found = explain(model, one, other)
    pair = qpairs.pairs_from_texts([one], [other], [-1])
    assert found.similarity == pytest.approx(float(qpairs.predict(model, pair).similarity[0]), abs=1e-5)
    assert len(model.second.reader.asked) >= len(one.split()) + len(other.split())  # inside the band or not
    rest = qpairs.pairs_from_texts(["how do I my bill"], [other], [-1])
    logit = overlap_model().score_pairs(rest)[0]
    without = model.join(checkpoint.score_pairs(rest)[0], logit)[0]
    assert found.words[0][3].effect == pytest.approx(found.similarity - without, abs=1e-4)
    far = two_stages(checkpoint, look=replace(model.look, lowest=(0.0, 0.0), highest=(0.0, 0.0)))
    explain(far, one, other)
    assert far.second.reader.asked == []


def test_neighbours_of_a_cross_encoder_are_the_nearest_by_words(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    one, other = pairs.texts(5)
    found = explain(overlap_model(), other, one, trained_on=pairs, count=2)
    assert found.by_words
    assert {found.neighbours[0].question1, found.neighbours[0].question2} == {one, other}
    assert found.neighbours[0].similarity == pytest.approx(1)
    assert sorted(neighbour.label for neighbour in found.neighbours) == [0, 0, 1, 1]
    assert not explain(two_stages(checkpoint), one, other, trained_on=pairs).by_words


def test_mistakes_and_robustness_are_those_of_predict(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    for model in (overlap_model(), two_stages(checkpoint)):
        wrong = qpairs.predict(model, pairs).duplicate != (pairs.labels == 1)
        assert len(analyse(model, pairs).mistakes()) == wrong.sum()
    rows = [("How do I fly from Paris to Rome?", "What is the way to Rome from Paris by air?", 1)] * 2
    found = probe(overlap_model(), qpairs.pairs_from_texts(*zip(*rows, strict=True)), ["word-order"])
    itself = next(behaviour for behaviour in found if behaviour.against == "itself")
    assert (itself.n, itself.failures) == (1, 1)  # nearly the same words, which is all that this reader sees
    assert itself.examples[0].similarity == pytest.approx(8 * 6 / 10 - 4)  # a logit


def test_training_questions_of_both_stages_count_as_seen(
    checkpoint: Checkpoint, pairs: qpairs.Pairs, tmp_path: Path
) -> None:
    new = qpairs.pairs_from_texts(["Is the moon cheese?", pairs.questions[0]], ["Is cheese the moon?", "Who?"], [1, 0])
    same = two_stages(checkpoint, second=overlap_model(config=checkpoint.config, split=checkpoint.split))
    assert seen_in_training(same, new) == seen_in_training(checkpoint, new)
    foreign = two_stages(checkpoint)  # of its cross-encoder nothing is known
    assert seen_in_training(foreign, new) is None
    other = tmp_path / "other.csv"
    rows = [f"Is the moon cheese {k}?,What is {k} + {k}?,{k % 2}" for k in range(80)]
    other.write_text("question1,question2,is_duplicate\nIs the moon cheese?,Who ate it?,1\n" + "\n".join(rows))
    config = replace(checkpoint.config, data=(str(other),))
    parts = load_parts(config)
    model = two_stages(checkpoint, second=overlap_model(config=config, split=parts.split))
    train = training_pairs(checkpoint.config, checkpoint.split)
    found = seen_in_training(model, new)
    assert found is not None
    assert found.questions == leak(train, new).questions + leak(parts.train, new).questions
    assert seen_in_training(model, new, trained_on=train) == found


def test_a_cross_encoder_alone_is_tested_on_its_own_part(folders: Folders, checkpoint: Checkpoint) -> None:
    for model in (load(folders.cross), load(folders.both)):
        assert sources.tested_on(model)[0].questions == sources.tested_on(checkpoint)[0].questions
    model = load(folders.cross)
    assert isinstance(model, CrossModel)
    write_cross_model(model, folders.cross)
    assert load(folders.cross).verdict == model.verdict
