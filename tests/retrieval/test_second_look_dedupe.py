"""Deduplication by a model of two stages: candidates by cosine, verdicts by cosine and logit together."""

import json
from dataclasses import replace
from pathlib import Path

import corpora
import numpy as np
import pandas
import pytest
from conftest import refused
from scipy.special import expit
from second_looks import LOOK, IntentReader, logit_of, row_of, two_stages
from test_index import embedded
from test_matches import naive

import qpairs
from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.metrics import Calibration, ReadEstimate, SecondLook
from qpairs.metrics.read_pairs import SURE, WORTH
from qpairs.models.cross_encoder import CrossModel, write_cross_model
from qpairs.models.second_setting import SecondSetting, second_setting
from qpairs.models.two_stages import TwoStages
from qpairs.models.verdict import CorpusSetting, PairSetting, Verdict
from qpairs.retrieval.corpus import Prepared, dedupe_corpus, prepare
from qpairs.retrieval.embed import embed
from qpairs.retrieval.trade_offs import trade_offs

N = 400
VECTORS = corpora.questions(N, seed=5)


def corpus(path: Path, rows: range) -> Path:
    path.write_text("id,q\n" + "".join(f"id{row},t{row}\n" for row in rows))
    return path


@pytest.fixture
def model() -> TwoStages:
    return two_stages(VECTORS, seed=6)


def combined(base: CorpusSetting, cosine: float, one: str, other: str, band: tuple[float, float]) -> float:
    gain = float(LOOK.gain(cosine, logit_of(one, other))) if band[0] <= cosine <= band[1] else 0.0
    return float(expit(base.log_odds(cosine) + gain))


def cosine_setting(model: TwoStages, rows: range) -> CorpusSetting:
    setting = model.first.verdict.corpus(metrics.count_scores(VECTORS[rows]))
    assert isinstance(setting, CorpusSetting)
    return setting


def test_pairs_are_those_whose_probability_reaches_the_threshold(model: TwoStages, tmp_path: Path) -> None:
    reports = []
    result = dedupe_corpus(model, corpus(tmp_path / "q.csv", range(N)), on_progress=reports.append)
    stages = list(dict.fromkeys(now.stage for now in reports))
    assert stages == ["encoding", "estimating", "comparing", "reading pairs"]
    base = cosine_setting(model, range(N))
    setting = second_setting(base, model)
    floor, band = setting.floor(WORTH), setting.band(WORTH, SURE)
    candidates = naive(VECTORS, floor)
    probability = {(a, b): combined(base, cosine, f"t{a}", f"t{b}", band) for (a, b), cosine in candidates.items()}
    threshold = result.setting.threshold
    found = {(one - 1, two - 1): p for one, two, p in result.pairs[["row1", "row2", "probability"]].to_numpy()}
    sure = {pair for pair, p in probability.items() if p >= threshold + 1e-5}
    assert sure <= found.keys() <= {pair for pair, p in probability.items() if p >= threshold - 1e-5}
    for pair, p in found.items():
        assert p == pytest.approx(probability[int(pair[0]), int(pair[1])], abs=1e-4)
    read = model.second.reader.read
    inside = sum(band.low <= cosine <= band.high for cosine in candidates.values())
    assert abs(len(read) - inside) <= 2, "cosines of the two ways to multiply differ in the last digit"
    second = result.summary["second_look"]
    assert second == {
        "band": list(band), "read": len(read), "candidates": pytest.approx(len(candidates), abs=2),
        "share": pytest.approx(inside / len(candidates), abs=0.01),
    }  # fmt: skip
    assert 0 < second["share"] <= 1
    np.testing.assert_allclose(
        result.pairs["similarity"], [VECTORS[int(a)] @ VECTORS[int(b)] for a, b in found], atol=1e-5
    )


def test_the_threshold_is_that_of_greatest_expected_f1_and_better_than_cosines_alone(
    model: TwoStages, tmp_path: Path
) -> None:
    file = corpus(tmp_path / "q.csv", range(N))
    both, alone = dedupe_corpus(model, file), dedupe_corpus(model.first, file)
    estimate = both.setting.estimate
    assert isinstance(estimate, ReadEstimate)
    assert both.setting.threshold == estimate.best_threshold()
    assert both.expected.pairs == len(both.pairs)
    intent = corpora.intents(N)

    def f1(result: object) -> float:
        right = (intent[result.pairs["row1"] - 1] == intent[result.pairs["row2"] - 1]).sum()
        return 2 * right / (len(result.pairs) + N / 2)

    assert f1(both) > f1(alone) + 0.05
    right = intent[both.pairs["row1"] - 1] == intent[both.pairs["row2"] - 1]
    low, high = both.expected.precision_interval
    assert low - 0.1 <= right.mean() <= high + 0.1
    assert alone.summary["second_look"] is None


def test_clusters_go_by_the_probability(model: TwoStages, tmp_path: Path) -> None:
    result = dedupe_corpus(model, corpus(tmp_path / "q.csv", range(N)), threshold=0.3)
    pairs = result.found.pairs
    assert pairs.probability is not None
    heads = metrics.clusters(N, pairs.left, pairs.right, pairs.probability)
    assert (heads == result.found.representative).all()
    members = result.clusters
    heads_of = members[members["representative"] == 1].set_index("cluster")["row"]
    for row, cluster, similarity in members[["row", "cluster", "similarity"]].to_numpy():
        head = int(heads_of[cluster])
        assert similarity == pytest.approx(VECTORS[int(row) - 1] @ VECTORS[head - 1], abs=1e-5)


def test_reading_every_candidate_decides_alike_at_every_threshold_of_interest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = two_stages(VECTORS, seed=6, look=SecondLook(0.0, 0.0, 0.5, (-2.0, 0.0), (2.0, 0.0)))
    file = corpus(tmp_path / "q.csv", range(N))
    some = prepare(model, file)
    floor = second_setting(cosine_setting(model, range(N)), model).floor(WORTH)
    band = type(model.band)(floor, 2.0)
    monkeypatch.setattr(SecondSetting, "band", lambda *_: band)
    everything = prepare(model, file)
    assert everything.read.share == 1
    assert some.read.share < 1

    def called(prepared: Prepared, threshold: float) -> set[tuple[int, int]]:
        pairs = prepared.candidates.pairs.at_or_above(threshold)
        return set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))

    for threshold in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert called(some, threshold) == called(everything, threshold)


def test_of_another_corpus_the_most_probable_row_is_named(model: TwoStages, tmp_path: Path) -> None:
    new, old = range(0, N, 2), range(1, N, 2)  # the other question of each intent
    result = dedupe_corpus(
        model, corpus(tmp_path / "new.csv", new), against=corpus(tmp_path / "old.csv", old), threshold=0.2
    )
    base, asked = result.setting.estimate.first, result.asked
    setting = second_setting(CorpusSetting(0.5, base), model)
    floor, band = setting.floor(WORTH), setting.band(WORTH, SURE)
    expected = {}
    for one in new:
        rows = {
            other: combined(CorpusSetting(0.5, base), cosine, f"t{one}", f"t{other}", band)
            for other in old
            if (cosine := float(VECTORS[one] @ VECTORS[other])) >= floor
        }
        if rows and max(rows.values()) >= 0.2:
            expected[f"t{one}"] = f"t{max(rows, key=rows.__getitem__)}"
    assert dict(zip(asked["question"], asked["question_there"], strict=True)) == expected
    assert len(expected) > 30
    intent = corpora.intents(N)
    assert np.mean([intent[row_of(a)] == intent[row_of(b)] for a, b in expected.items()]) > 0.8
    moved = [
        b != f"t{max(old, key=lambda other, a=a: float(VECTORS[row_of(a)] @ VECTORS[other]))}"
        for a, b in expected.items()
    ]
    assert any(moved), "the most probable one is not always the most similar one"
    assert 0 < result.setting.estimate.part < 1
    assert result.expected.recall <= 1


@pytest.mark.parametrize("densities", [None, corpora.fitted(seed=6)], ids=["pairs", "corpus"])
@pytest.mark.parametrize("threshold", [0.3, 0.95, 0.9999, 1.0])
def test_the_same_question_of_another_corpus_is_a_duplicate_at_any_threshold(
    densities: object, threshold: float
) -> None:
    model = two_stages(VECTORS, densities=densities)
    known, new = [f"T{row}" for row in range(40)], [f"t{row}" for row in range(100)]
    result = dedupe_corpus(model, new, against=known, threshold=threshold)
    asked = result.asked.set_index("question")
    assert not set(new[:40]) & set(result.kept["text"])
    assert asked.loc[new[:40], "question_there"].tolist() == known
    assert set(asked.loc[new[:40], "probability"]) == {1.0}
    read = model.second.reader.read
    assert not [pair for pair in read if row_of(pair[0]) == row_of(pair[1])], "what is known need not be read"
    assert result.read.read == len(read) <= result.read.candidates
    if isinstance(result.setting, CorpusSetting):
        assert len(result.setting.estimate.scores) == result.read.candidates


def test_the_same_question_has_probability_1_by_the_encoder_alone(model: TwoStages) -> None:
    asked = dedupe_corpus(model.first, ["t1", "t2", "t50"], against=["T2", "t90"], threshold=0.99).asked
    assert asked[["question", "question_there", "probability"]].to_numpy().tolist() == [["t2", "T2", 1.0]]


def test_thresholds_are_probabilities_and_promises_are_kept_or_refused(model: TwoStages, tmp_path: Path) -> None:
    file = corpus(tmp_path / "q.csv", range(N))
    low = dedupe_corpus(model, file, threshold=0.02)
    assert low.pairs["probability"].min() < WORTH, "it looks for what was asked for"
    for threshold in (-0.5, 1.5):
        with pytest.raises(UserError, match="a probability, from 0 to 1"):
            dedupe_corpus(model, file, threshold=threshold)
    estimate = prepare(model, file).setting.estimate
    can = float(np.floor(90 * estimate.bounds()[0].max()) / 100)
    promised = dedupe_corpus(model, file, precision=can)
    assert promised.expected.precision_bound >= can - 1e-9
    with pytest.raises(UserError, match="can be promised"):
        dedupe_corpus(model, file, precision=0.9999)


def test_trade_offs_are_at_probabilities(model: TwoStages, tmp_path: Path) -> None:
    prepared = prepare(model, corpus(tmp_path / "q.csv", range(N)))
    read = len(model.second.reader.read)
    rows = trade_offs(prepared, prepared.setting)
    assert len(model.second.reader.read) == read, "nothing is read twice"
    thresholds = [row.threshold for row in rows]
    assert thresholds == sorted(thresholds)
    assert all(0 <= threshold <= 1 for threshold in thresholds)
    pairs = [row.pairs for row in rows]
    assert pairs == sorted(pairs, reverse=True)
    assert [row.why for row in rows].count("chosen") == 1
    assert all(row.expected.pairs == row.pairs for row in rows)


def test_a_model_that_knows_pairs_alone_decides_by_its_verdict_on_them(tmp_path: Path) -> None:
    model = two_stages(VECTORS, densities=None)
    result = dedupe_corpus(model, corpus(tmp_path / "q.csv", range(100)))
    assert result.setting.threshold == pytest.approx(expit(-0.4))
    assert result.expected is None
    assert len(result.pairs) > 0
    assert (result.pairs["probability"] >= expit(-0.4) - 1e-9).all()


def test_a_second_look_that_adds_nothing_changes_nothing(tmp_path: Path) -> None:
    model = two_stages(VECTORS, seed=6, look=SecondLook(0, 0, 0, (0, 0), (0, 0)))
    result = dedupe_corpus(model, corpus(tmp_path / "q.csv", range(N)), threshold=0.5)
    alone = dedupe_corpus(model.first, corpus(tmp_path / "q.csv", range(N)), threshold=-1)
    expected = alone.pairs[alone.pairs["probability"] >= 0.5]
    assert set(zip(result.pairs["row1"], result.pairs["row2"], strict=True)) == set(
        zip(expected["row1"], expected["row2"], strict=True)
    )


def test_embeddings_of_the_encoder_serve_the_two_stages(model: TwoStages, tmp_path: Path) -> None:
    kept = embedded(tmp_path, model.first, range(50))
    assert embed(model, tmp_path / "q.csv", tmp_path / "again", text_column="q").fingerprint == kept.fingerprint
    model.first.encoder.encoded.clear()
    dedupe_corpus(model, corpus(tmp_path / "c.csv", range(60)), embeddings=kept)
    assert model.first.encoder.encoded == [f"t{row}" for row in range(50, 60)]


# Commands, with a model in a folder


@pytest.fixture(scope="module")
def saved(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static encoder and a random cross-encoder, whose logits are made to matter; `cross/` has the second alone."""
    from transformers.utils.logging import disable_progress_bar

    from qpairs.models.torch_pairs import open_torch_pairs
    from qpairs.training.cross_encoder import new_cross_encoder

    disable_progress_bar()  # as in a process that the command line starts
    folder = tmp_path_factory.mktemp("stages")
    first = qpairs.train(data=str(pairs_csv), encoder="static", epochs=2, batch_size=16, output=str(folder / "bi"))
    pairs = qpairs.load_pairs(str(pairs_csv))
    new_cross_encoder("tiny", texts=pairs.questions, max_length=24, seed=0).save_pretrained(str(folder / "cross"))
    verdict = Verdict(PairSetting(0.0, Calibration(1, 0)), "logit")
    kind = {"kind": "cross-encoder"}
    second = CrossModel(
        open_torch_pairs(folder / "cross"), verdict, replace(first.config, encoder="tiny"), kind, path=folder / "cross"
    )
    write_cross_model(second, folder / "cross")
    logits = second.reader.logits([pairs.texts(row) for row in range(40)])
    slope = float(1.5 / logits.std())
    look = SecondLook(-slope * float(logits.mean()), 0.0, slope, (-4.0, 0.0), (4.0, 0.0))
    both = Verdict(PairSetting(0.0, Calibration(1, 0)), "log odds")
    TwoStages(first, second, look, both, path=folder / "both").save(folder / "both")
    return folder


@pytest.fixture
def questions(sample_rows: list, tmp_path: Path) -> Path:
    texts = sorted({" ".join(q.split()) for row in sample_rows for q in row[:2]})[:150]
    (tmp_path / "q.txt").write_text("\n".join(texts) + "\n")
    return tmp_path / "q.txt"


def test_dedupe_says_what_it_read(run, saved: Path, questions: Path) -> None:
    result = run("dedupe", saved / "both", questions, "--output", "out")
    assert result.code == 0, result.err
    summary, pairs = json.loads(Path("out/dedupe.json").read_text()), pandas.read_csv("out/pairs.csv")
    read = summary["second_look"]
    said = " ".join(result.out.split())
    assert f"Second look at {read['read']:,} of {read['candidates']:,} candidates (cosine " in said
    assert "it could not change the verdict (99 %)" in said
    assert f"pairs at or above a probability of {summary['threshold']:.3f}" in said
    model = qpairs.load(saved / "both")
    base = model.first.verdict.corpus(metrics.count_scores(model.encode(questions.read_text().splitlines())))
    assert len(pairs) == summary["pairs"] > 0
    logits = model.second.reader.logits(list(zip(pairs["question1"], pairs["question2"], strict=True)))
    inside = model.band.__class__(*read["band"]).holds(pairs["similarity"])
    gain = model.look.gain(pairs["similarity"], np.where(inside, logits, np.nan))
    np.testing.assert_allclose(
        pairs["probability"], expit(base.log_odds(pairs["similarity"]) + gain), atol=0.02
    )  # bfloat16
    dry = run("dedupe", saved / "both", questions, "--dry-run")
    assert dry.code == 0, dry.err
    assert "probability" in dry.out
    assert "Second look at" in dry.out
    alone = run("dedupe", saved / "both", questions, "--output", "alone", "--no-reranker")
    assert alone.code == 0, alone.err
    assert json.loads(Path("alone/dedupe.json").read_text())["second_look"] is None
    refused(run("dedupe", saved / "both", questions, "--output", "x", "--threshold", "-0.5"), "a probability")
    assert not Path("x").exists()


def test_an_index_of_the_encoder_is_searched_by_both_stages(run, saved: Path, questions: Path) -> None:
    assert run("embed", saved / "both", questions, "--output", "emb").code == 0
    assert run("index", "emb", "--output", "idx").code == 0
    one = questions.read_text().splitlines()[3]
    result = run("search", "idx", one, "-k", "5")
    assert result.code == 0, result.err
    assert "at a probability of 0.50 or more" in " ".join(result.out.split())
    moved = run("search", "idx", one, "--model", saved / "bi")
    assert moved.code == 0, moved.err
    assert "at a similarity of" in " ".join(moved.out.split())
    file = run("search", "idx", "--file", questions, "--output", "found.csv")
    assert file.code == 0, file.err
    assert "econd look at" in file.out
    assert len(pandas.read_csv("found.csv")) == 1500


def test_a_cross_encoder_alone_is_refused_before_any_work(run, saved: Path, tmp_path: Path, questions: Path) -> None:
    wanted = "a cross-encoder reads two questions at once and has no vectors"
    refused(run("dedupe", saved / "cross", "nowhere.csv", "--output", "x"), wanted)
    refused(run("embed", saved / "cross", "nowhere.csv", "--output", "x"), wanted)
    refused(run("serve", saved / "cross", "--index", "nowhere"), wanted)
    assert run("embed", saved / "bi", questions, "--output", "emb").code == 0
    assert run("index", "emb", "--output", "idx").code == 0
    refused(run("search", "idx", "how?", "--model", saved / "cross"), wanted)
    assert not Path("x").exists()


def test_readers_of_the_tests_agree() -> None:
    logits = IntentReader().logits([("t0", "t1"), ("t1", "t0"), ("t0", "t2")])
    assert logits[0] == logits[1] > 0 > logits[2]
