"""The report on a corpus against brute force, against scores whose probabilities are true, and in the commands."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mocks import VERDICT, MockModel

import qpairs
from qpairs.evaluation import corpus_report as module
from qpairs.evaluation.all_pairs import HITS, compare_all
from qpairs.evaluation.corpus_report import corpus_lines, corpus_notes, corpus_report, hit_bins, shown_hits
from qpairs.evaluation.question_table import table_densities
from qpairs.metrics import Calibration
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.verdict import PairSetting, Verdict


def table(n: int, dimension: int, seed: int, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of n questions, those of one cluster near each other, and the clusters."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, clusters, n)
    vectors = rng.standard_normal((clusters, dimension))[cluster] + 0.7 * rng.standard_normal((n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), cluster


def questions(n: int) -> qpairs.Pairs:
    """Pairs over n questions; the labels don't matter."""
    names = tuple(f"q{k}" for k in range(n))
    return qpairs.Pairs(names, np.arange(n - 1), np.arange(1, n), np.zeros(n - 1, dtype=np.int8))


def model_of(verdict: Verdict) -> MockModel:
    return MockModel(None, verdict)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 40), seed=st.integers(0, 99), clusters=st.integers(1, 12), few=st.booleans())
def test_all_pairs_are_those_of_brute_force(n: int, seed: int, clusters: int, few: bool) -> None:
    vectors, cluster = table(n, 4, seed, clusters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qpairs.evaluation.all_pairs.BLOCK", 3 * n)  # blocks of three rows
        if few:
            patch.setattr("qpairs.evaluation.all_pairs.KEPT", 1)
        found = compare_all((vectors, vectors), cluster)
    scores = {(a, b): float(np.clip(vectors[a] @ vectors[b], -1, 1)) for a, b in combinations(range(n), 2)}
    same = {pair: bool(cluster[pair[0]] == cluster[pair[1]]) for pair in scores}
    kept = {pair for pair, score in scores.items() if score >= found.floor}
    near_floor = {pair for pair, score in scores.items() if abs(score - found.floor) < 1e-6}
    listed = set(zip(found.left.tolist(), found.right.tolist(), strict=True))
    assert listed ^ kept <= near_floor
    assert found.same.tolist() == [same[a, b] for a, b in zip(found.left.tolist(), found.right.tolist(), strict=True)]
    assert (np.diff(found.scores) <= 0).all()
    np.testing.assert_allclose(found.duplicates, sorted(scores[pair] for pair in scores if same[pair]), atol=1e-6)
    for threshold in (-0.5123, 0.3123, 0.8123):
        assert found.found(threshold) == sum(same[p] for p in scores if scores[p] >= threshold)
        if threshold >= found.floor:
            assert found.called(threshold) == sum(score >= threshold for score in scores.values())
    for question in range(n):
        others = sorted((scores[min(question, k), max(question, k)] for k in range(n) if k != question), reverse=True)
        np.testing.assert_allclose(found.hits[question], others[:HITS], atol=1e-6)


def test_hits_know_their_questions() -> None:
    vectors, cluster = table(60, 16, 3, 15)
    found = compare_all((vectors, vectors), cluster)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    places = np.argsort(-scores, axis=1)[:, :HITS]
    assert (found.hits_same == (cluster[places] == cluster[:, None])).all()


def test_two_towers_score_the_mean_of_both_directions() -> None:
    (rows, cluster), (columns, _) = table(30, 8, 0, 6), table(30, 8, 1, 6)
    both = (rows @ columns.T + columns @ rows.T) / 2
    found = compare_all((rows, columns), cluster)
    expected = both[np.triu_indices(30, 1)]
    np.testing.assert_allclose(found.scores, np.sort(expected[expected >= found.floor])[::-1], atol=1e-6)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_figures_are_those_of_brute_force(threshold: float) -> None:
    vectors, cluster = table(50, 8, 5, 12)
    verdict = Verdict(PairSetting(threshold, Calibration(10.0, -5.0)))
    found = corpus_report(model_of(verdict), questions(50), (vectors, vectors), cluster, False)
    scores = np.array([vectors[a] @ vectors[b] for a, b in combinations(range(50), 2)])
    same = np.array([cluster[a] == cluster[b] for a, b in combinations(range(50), 2)])
    called = scores >= threshold
    assert found.setting == "pair"
    assert not found.complete
    assert found.duplicates == same.sum()
    assert found.at_threshold.pairs == called.sum()
    assert found.at_threshold.precision == pytest.approx((called & same).sum() / called.sum())
    assert found.at_threshold.recall == pytest.approx((called & same).sum() / same.sum())
    f1 = [2 * (same & (scores >= t)).sum() / (same.sum() + (scores >= t).sum()) for t in scores]
    assert found.best_f1 == pytest.approx(max(f1))
    assert found.f1 <= found.best_f1
    wrong = sorted(scores[called & ~same], reverse=True)[:20]
    assert [pair.similarity for pair in found.wrong] == pytest.approx(wrong, abs=1e-6)
    assert all(pair.question1 != pair.question2 for pair in found.wrong)
    assert found.at_threshold.expected_precision is None
    assert all(promise.threshold is None for promise in found.promises)
    assert sum(row.n for row in found.hits) == 50 * HITS
    assert 0 < found.clusters.bcubed_precision <= 1


def test_perfect_vectors_get_perfect_figures() -> None:
    cluster = np.repeat(np.arange(20), 3)
    vectors = np.eye(20, dtype=np.float32)[cluster]
    found = corpus_report(model_of(VERDICT), questions(60), (vectors, vectors), cluster, True)
    assert (found.at_threshold.precision, found.at_threshold.recall, found.f1, found.best_f1) == (1, 1, 1, 1)
    assert found.clusters.f1 == found.clusters.bcubed_f1 == found.clusters.adjusted_rand == 1
    assert found.wrong == []
    assert found.complete


def test_where_probabilities_are_true_the_calibration_error_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    calibration = Calibration(8.0, -4.0)
    scores = rng.uniform(-0.2, 1, (2000, HITS)).astype(np.float32)
    same = rng.random(scores.shape) < calibration.probability(scores)
    vectors, cluster = table(50, 8, 0, 10)
    compared = dataclasses.replace(compare_all((vectors, vectors), cluster), hits=scores, hits_same=same)
    monkeypatch.setattr(module, "compare_all", lambda *_: compared)
    for slope, good in ((8.0, True), (3.0, False)):
        verdict = Verdict(PairSetting(0.5, Calibration(slope, -4.0)))
        found = corpus_report(model_of(verdict), questions(50), (vectors, vectors), cluster, True)
        assert (found.hit_calibration_error < 0.02) == good
        rows = [row for row in found.hits if row.n > 300]
        assert all(abs(row.duplicates - row.probability) < 0.06 for row in rows) == good


def test_a_verdict_with_densities_is_read_as_of_a_corpus() -> None:
    vectors, cluster = table(300, 32, 0, 90)
    rng = np.random.default_rng(1)
    left, right = np.array([pair for pair in combinations(range(300), 2) if cluster[pair[0]] == cluster[pair[1]]]).T
    other = rng.integers(0, 300, (500, 2))
    other = other[cluster[other[:, 0]] != cluster[other[:, 1]]]
    pairs = qpairs.Pairs(
        questions(300).questions,
        np.concatenate([left, other[:, 0]]),
        np.concatenate([right, other[:, 1]]),
        np.concatenate([np.ones(len(left)), np.zeros(len(other))]).astype(np.int8),
    )
    densities = table_densities(pairs, (vectors, vectors))
    verdict = dataclasses.replace(VERDICT, densities=densities)
    found = corpus_report(model_of(verdict), pairs, (vectors, vectors), cluster, True)
    assert found.setting == "corpus"
    low, high = found.at_threshold.expected_precision_interval
    assert low <= found.at_threshold.expected_precision <= high
    assert found.f1 > found.best_f1 - 0.05
    assert found.at_threshold.expected_precision == pytest.approx(found.at_threshold.precision, abs=0.1)
    assert [promise.asked for promise in found.promises] == [0.5, 0.7, 0.8, 0.9]
    kept = [promise for promise in found.promises if promise.threshold is not None]
    assert kept
    assert all(promise.precision >= promise.asked for promise in kept)
    thresholds = [point.threshold for point in found.curve]
    assert thresholds == sorted(set(thresholds))
    assert [point.pairs for point in found.curve] == sorted((point.pairs for point in found.curve), reverse=True)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_there_is_none_where_it_would_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, cluster = table(20, 4, 0, 5)
    tables, pairs = (vectors, vectors), questions(20)
    assert corpus_report(model_of(VERDICT), pairs, tables, cluster, True)
    assert corpus_report(model_of(VERDICT), pairs, tables, np.arange(20), True) is None
    for changes in ({"symmetric": False}, {"score": "head"}):
        assert corpus_report(model_of(dataclasses.replace(VERDICT, **changes)), pairs, tables, cluster, True) is None
    monkeypatch.setattr(module, "LIMIT", 19)
    assert corpus_report(model_of(VERDICT), pairs, tables, cluster, True) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_every_hit_is_in_the_range_of_its_probability(hits: list[tuple[float, bool]]) -> None:
    probability, same = np.array([p for p, _ in hits]), np.array([s for _, s in hits])
    rows = hit_bins(probability, same)
    assert sum(row.n for row in rows) == len(hits)
    for row in rows:
        inside = (probability >= row.low) & ((probability < row.high) | (row.high == 1))
        assert row.n == inside.sum()
        if row.n:
            assert row.duplicates == pytest.approx(same[inside].mean())
            assert row.low - 1e-9 <= row.probability <= row.high + 1e-9


def test_the_line_on_hits_is_about_enough_of_them() -> None:
    rows = [{"n": 30, "low": 0.2}, {"n": 5, "low": 0.9}, {"n": 0, "low": 1.0}]
    assert shown_hits(rows)["low"] == 0.2
    assert shown_hits(rows[1:])["low"] == 0.9
    assert shown_hits(rows[2:]) is None


# ---------------------------------------------------------------------- in the report and the commands


def test_of_bundled_questions_all_duplicates_are_known(checkpoint: Checkpoint, pairs_csv: Path) -> None:
    report = qpairs.evaluate(checkpoint, pairs_csv)
    assert report.corpus.complete
    assert report.corpus.setting == "corpus"
    assert report.corpus.n == report.n_questions
    stored = checkpoint.scores["test"]["corpus"]
    assert stored["at_threshold"]["expected_precision"] is not None
    assert not stored["wrong"]
    assert not stored["curve"]


def test_intents_make_the_duplicates_complete(checkpoint: Checkpoint) -> None:
    pairs = qpairs.pairs_from_texts(
        ["how to pay", "when to pay", "why?"], ["how can I pay", "what to pay", "why now?"], [1, 0, 1]
    )
    assert not qpairs.evaluate(checkpoint, pairs).corpus.complete
    intents = dict.fromkeys(pairs.questions, "the same")
    found = qpairs.evaluate(checkpoint, pairs, intents=intents).corpus
    assert found.complete
    assert found.duplicates == math.comb(6, 2)
    with pytest.raises(qpairs.UserError, match="have no intent"):
        qpairs.evaluate(checkpoint, pairs, intents={"why?": "x"})


def test_the_command_says_what_is_found_in_a_corpus(run, checkpoint: Checkpoint, pairs_csv: Path) -> None:
    result = run("evaluate", checkpoint.config.output, "--data", pairs_csv, "--json", "x.json")
    assert result.code == 0, result.err
    shown = " ".join(result.out.split())
    found = json.loads(Path("x.json").read_text())["corpus"]
    assert f"in a corpus of {found['n']:,} questions: precision {found['at_threshold']['precision']:.2f}" in shown
    assert "expected precision" in shown
    assert f"calibration error of hits {found['hit_calibration_error']:.3f}" in shown
    assert "as clusters: pairwise precision" in shown
    assert "lower bounds" not in shown
    for line in corpus_lines(found):
        assert line in shown


def test_the_command_takes_intents(run, checkpoint: Checkpoint) -> None:
    Path("pairs.csv").write_text("q1,q2,label\nhow to pay,how can I pay,1\nwhen to pay,why to pay,0\n")
    Path("some.csv").write_text("question,intent\nhow to pay,pay\n")
    result = run("evaluate", checkpoint.config.output, "--data", "pairs.csv")
    assert "lower bounds" in result.out
    refused = run("evaluate", checkpoint.config.output, "--data", "pairs.csv", "--intents", "some.csv")
    assert refused.code == 2
    assert "3 of 4 questions have no intent" in " ".join(refused.err.split())
    with Path("some.csv").open("a") as file:
        file.write("how can I pay,pay\nwhen to pay,pay\nwhy to pay,[why]\n")
    result = run("evaluate", checkpoint.config.output, "--data", "pairs.csv", "--intents", "some.csv")
    assert result.code == 0, result.err
    assert "in a corpus of 4 questions" in " ".join(result.out.split())
    assert "lower bounds" not in result.out


def test_a_model_without_densities_is_read_as_of_pairs_and_that_is_said(
    checkpoint: Checkpoint, pairs_csv: Path
) -> None:
    old = checkpoint.with_verdict(dataclasses.replace(checkpoint.verdict, densities=None), checkpoint.scores)
    found = dataclasses.asdict(qpairs.evaluate(old, pairs_csv).corpus)
    assert found["setting"] == "pair"
    assert found["at_threshold"]["threshold"] == old.verdict.pair.threshold
    assert corpus_notes(found) == [module.NO_DENSITIES]


def test_a_collapsed_model_with_densities_is_reported_on(checkpoint: Checkpoint) -> None:
    names = tuple(f"q{k}" for k in range(200))
    pairs = qpairs.Pairs(names, np.arange(199), np.arange(1, 200), (np.arange(199) % 2).astype(np.int8))
    vectors = np.tile(np.eye(8, dtype=np.float32)[:1], (200, 1))
    found = corpus_report(checkpoint, pairs, (vectors, vectors), np.arange(200) // 2, False)
    assert found.at_threshold.pairs == math.comb(200, 2)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_reports_of_older_versions_are_printed(run, checkpoint: Checkpoint, pairs_csv: Path, capsys) -> None:
    from qpairs.commands.terminal import print_report

    values = qpairs.evaluate(checkpoint, pairs_csv).to_dict()
    print_report(values, "pairs")
    assert "in a corpus" in capsys.readouterr().out
    del values["corpus"]
    print_report(values, "pairs")
    assert "in a corpus" not in capsys.readouterr().out


def test_scores_of_exports_are_those_of_the_checkpoint(checkpoint: Checkpoint, pairs_csv: Path, tmp_path: Path) -> None:
    qpairs.export_checkpoint(checkpoint.config.output, tmp_path / "static", format="static", max_loss=1.0)
    one, other = (qpairs.evaluate(model, pairs_csv).corpus for model in (checkpoint, tmp_path / "static"))
    assert other.setting == "corpus"
    assert other.at_threshold.threshold == pytest.approx(one.at_threshold.threshold, abs=0.01)
    assert other.f1 == pytest.approx(one.f1, abs=0.03)
    pairs = qpairs.load_pairs(pairs_csv)
    assert checkpoint.score_pairs(pairs)[1][0].shape[0] == one.n


def test_an_export_is_reported_on_without_torch() -> None:
    made = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
    script = (
        "import sys, qpairs; "
        f"found = qpairs.evaluate({str(made / 'one-static')!r}, {str(made / 'pairs.csv')!r}); "
        "print(found.corpus.n, found.corpus.setting, "
        "[m for m in ('torch', 'transformers', 'sentence_transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d+ pair \[\]\n", done.stdout)
