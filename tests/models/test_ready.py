"""Ready models: by name or folder, with a verdict for a corpus that says that no label stands behind it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import refused
from ready import own_cache, tickets

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.models.base import fingerprint, load
from qpairs.models.ready import ready_cache, shown_name

NO_LABELS = "estimated from this corpus, no labels"

pytestmark = pytest.mark.usefixtures("ready_cache_of_tests")


def test_the_folder_of_a_sentence_transformer_is_measured_once(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load(plain)
    assert model.path.parent == ready_cache() and (model.path / "qpairs.json").exists()
    assert not model.verdict.labelled
    assert model.verdict.densities is not None and model.verdict.densities.borrowed
    assert shown_name(model) == str(plain.absolute())
    caplog.clear()
    assert load(plain).verdict == model.verdict
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("tokenizer.json", None, "tokenizer.json: missing"),
        ("modules.json", "null", "modules.json: damaged"),
        ("tokenizer.json", "{", "tokenizer.json: damaged"),
    ],
)
def test_the_file_that_is_missing_or_damaged_is_named(
    plain: Path, tmp_path: Path, name: str, content: str | None, told: str
) -> None:
    folder = shutil.copytree(plain, tmp_path / "bad")
    (file,) = folder.rglob(name)
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(UserError, match=told):
        load(folder)


def test_it_is_kept_as_a_checkpoint_whose_copies_have_the_same_vectors(plain: Path, tmp_path: Path) -> None:
    model = load(plain)
    model.save(tmp_path / "copy")
    copy = load(tmp_path / "copy")
    assert copy.fingerprint == model.fingerprint == fingerprint(plain)
    assert not copy.verdict.labelled
    np.testing.assert_array_equal(copy.encode(["how do I pay"]), model.encode(["how do I pay"]))


def test_what_needs_a_threshold_for_pairs_says_what_to_do(plain: Path, pairs_csv: Path, run) -> None:
    for command in (
        ["predict", plain, "How do I pay?", "How can I pay?"],
        ["evaluate", plain, "--data", pairs_csv],
        ["errors", plain, "--data", pairs_csv, "--output", "errors"],
        ["explain", plain, "How do I pay?", "How can I pay?"],
        ["report", plain, "--data", pairs_csv, "--output", "report.html"],
        ["push", plain, "acme/dups", "--dry-run", "out"],
    ):
        refused(run(*command), str(plain), "no threshold for pairs", "qpairs calibrate")
    refused(run("serve", plain, "--port", "0", "--max-upload", "0"), "--questions")


def test_a_threshold_that_is_fitted_to_pairs_is_one(plain: Path, pairs_csv: Path, run) -> None:
    result = run("calibrate", plain, "--data", pairs_csv, "--output", "fitted")
    assert result.code == 0, result.err
    assert "->" not in result.out and "before" not in result.out and "cross-fitted" in result.out
    assert run("predict", "fitted", "How do I pay?", "How can I pay?").code == 0
    assert load("fitted").verdict.labelled


def test_every_figure_of_a_corpus_says_that_there_are_no_labels(plain: Path, tmp_path: Path, run) -> None:
    file = tickets(tmp_path / "tickets.csv")
    column = ["--text-column", "title"]
    dry = run("dedupe", plain, file, *column, "--dry-run")
    assert NO_LABELS in " ".join(dry.out.split()), dry.err
    whole = run("dedupe", plain, file, *column, "--id-column", "ticket", "--output", "dups")
    assert NO_LABELS in " ".join(whole.out.split())
    summary = json.loads(Path("dups/dedupe.json").read_text())
    assert summary["basis"] == NO_LABELS and summary["probability_of"].endswith(NO_LABELS)
    assert Path("dups/pairs.csv").read_text().startswith("row1,id1,question1,row2,id2,question2,")
    assert Path("dups/clusters.csv").read_text().startswith("cluster,row,id,question,")
    assert run("embed", plain, file, *column, "--output", "emb").code == 0
    assert run("index", "emb", "--output", "idx").code == 0
    hits = run("search", "idx", "late flight")
    assert NO_LABELS in " ".join(hits.out.split()), hits.err
    fitted = run("calibrate", plain, "--corpus", file, *column, "--output", "here")
    assert NO_LABELS in " ".join(fitted.out.split())
    again = run("dedupe", "here", file, *column, "--dry-run")
    assert NO_LABELS in " ".join(again.out.split())


def test_a_threshold_that_is_given_decides_without_a_probability(plain: Path) -> None:
    model, pairs = load(plain), [("How do I pay?", "How do I pay"), ("How do I pay?", "Who are you?")]
    with pytest.raises(UserError, match="no threshold for pairs"):
        model.predict(pairs)
    with pytest.raises(UserError, match="has no question"):
        model.predict([("How do I pay?", "")])
    similarity = model.similarity(*map(list, zip(*pairs, strict=True)))
    found = model.predict(pairs, threshold=float(similarity.max()))
    assert found.duplicate.tolist() == (similarity == similarity.max()).tolist()
    assert np.isnan(found.probability).all()


def test_a_threshold_that_is_given_decides_in_the_command(plain: Path, tmp_path: Path, run) -> None:
    similarity = load(plain).similarity("How do I pay?", "How do I pay")
    two = run("predict", plain, "How do I pay?", "How do I pay", "--threshold", 0.9)
    assert two.code == 0, two.err
    assert two.out.splitlines()[0] == f"duplicates  similarity {similarity:.3f} (threshold 0.900)"
    assert "Probabilities need labelled pairs" in two.out and "qpairs calibrate" in two.out
    (tmp_path / "pairs.csv").write_text("question1,question2\nHow do I pay?,How do I pay\nHow do I pay?,Who are you?\n")
    done = run("predict", plain, tmp_path / "pairs.csv", "--output", tmp_path / "o.csv", "--threshold", 0.9)
    assert done.code == 0, done.err
    rows = (tmp_path / "o.csv").read_text().splitlines()[1:]
    assert [row.split(",")[-2:] for row in rows] == [["", "1"], ["", "0"]]


def test_an_export_of_it_is_as_unlabelled(plain: Path, pairs_csv: Path, run) -> None:
    refused(run("export", plain, "--format", "static", "--output", "fast"), "--data")
    result = run("export", plain, "--format", "static", "--data", pairs_csv, "--output", "fast")
    assert result.code == 0, result.err
    refused(run("predict", "fast", "How do I pay?", "How can I pay?"), "no threshold for pairs")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lstm", "must be trained first"),
        ("nowhere", "no such checkpoint or export folder"),
        ("acme/none", "no such checkpoint or export folder, and as a Hub id"),
    ],
)
def test_a_name_that_is_no_ready_model_is_refused(name: str, words: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        load(name)


def test_a_missing_folder_beside_others_is_no_hub_id(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError) as refusal:
        load("runs/none")
    assert "Hub id:" not in str(refusal.value)


def test_a_folder_of_the_same_name_wins_and_is_said(plain: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").mkdir()
    with pytest.raises(UserError, match="rename the folder"):
        load("minilm")
    shutil.rmtree(tmp_path / "minilm")
    load(plain).save(tmp_path / "minilm")
    assert load("minilm").path == Path("minilm")
    assert "not the ready model" in caplog.text


def test_minilm_is_ready_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("qpairs.models.borrowed.EVERY", 20)  # few bundled questions, so that it takes a second
    own_cache(monkeypatch, tmp_path)
    model = qpairs.load("minilm")
    assert (model.path.name, shown_name(model), model.dimension) == ("minilm", "minilm", 384)
    assert not model.verdict.labelled


def test_of_two_questions_it_is_not_said_how_many_of_the_pairs_are_right(plain: Path, tmp_path: Path, run) -> None:
    (tmp_path / "two.txt").write_text("How do I reset my password?\nHow do I change my e-mail address?\n")
    result = run("dedupe", plain, tmp_path / "two.txt", "--output", "dups", "--threshold", "0.1")
    assert result.code == 0, result.err
    assert "How many of the pairs are right is not known" in " ".join(result.out.split())
    assert "Of 100 pairs" not in result.out


def test_of_a_handful_of_questions_none_is_dropped_by_scores_that_tell_nothing(plain: Path) -> None:
    asked = ["How do I reset my password?", "Where is my invoice?", "Can I travel with a cat?", "Who are you?"]
    found = load(plain).dedupe(asked)
    low, _ = found.setting.estimate.expected(found.setting.estimate.best_threshold()).precision_interval
    assert low < 0.01
    assert found.pairs["probability"].ge(0.5).all()
    assert found.summary["threshold"] == found.setting.estimate.default_threshold()
