"""A run with `dims`: training, verdicts for each length, and what reads them afterwards."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refused
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

import qpairs
from qpairs import metrics
from qpairs.data.parts import load_parts
from qpairs.evaluation.calibrate import calibrate
from qpairs.evaluation.calibrate_corpus import calibrate_corpus
from qpairs.evaluation.question_table import table_densities
from qpairs.export.card import model_card, train_command
from qpairs.export.export import export_checkpoint
from qpairs.models.base import cosine_scores, load
from qpairs.models.bi_encoder import Checkpoint, embed_tables, load_checkpoint, save_checkpoint
from qpairs.models.shortened import shorten, shorten_tables, shortened_note, verdict_at
from qpairs.retrieval.corpus import prepare
from qpairs.retrieval.embed import embed
from qpairs.retrieval.index import build_index, open_index
from qpairs.retrieval.search import search, setting_for

FAST: dict[str, Any] = {"batch_size": 16, "patience": 0, "max_length": 16, "evaluations": 4}
SHORT = 8


@pytest.fixture(scope="module", autouse=True)
def _small_encoder(small_bert: Path) -> None:
    FAST["encoder"] = str(small_bert)


@pytest.fixture(scope="module")
def cut(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A static checkpoint with a verdict for two lengths; the shorter one's threshold is told apart by its value."""
    output = tmp_path_factory.mktemp("runs") / "cut"
    options: dict[str, Any] = {"encoder": "static", "epochs": 3, "batch_size": 16, "dims": f"32,{SHORT}"}
    return qpairs.train(data=str(pairs_csv), output=str(output), **options)


@pytest.fixture
def texts(tmp_path: Path, sample_rows: list[tuple[str, str, int]]) -> Path:
    questions = sorted({text for row in sample_rows[:150] for text in row[:2]})
    file = tmp_path / "questions.txt"
    file.write_text("\n".join(question.replace("\n", " ") for question in questions), encoding="utf-8")
    return file


def test_each_length_is_judged_on_validation_and_test(cut: Checkpoint) -> None:
    parts = load_parts(cut.config)
    stored = load_checkpoint(cut.path)
    assert list(stored.verdict.shortened) == [32, SHORT]
    assert stored.verdict == cut.verdict
    for name, pairs in (("validation", parts.validation), ("test", parts.test)):
        assert pairs
        tables = embed_tables(stored.encoder, pairs.questions)
        rows = stored.scores[name]["dimensions"]
        assert [row["dimension"] for row in rows] == [stored.dimension, 32, SHORT]
        assert {k: stored.scores[name][k] for k in ("threshold", "f1", "average_precision")}.items() <= rows[0].items()
        for row in rows[1:]:
            short = shorten_tables(tables, row["dimension"])
            scores = cosine_scores(short, pairs)
            verdict = stored.verdict.shortened[row["dimension"]]
            assert row["threshold"] == verdict.pair.threshold
            assert row["average_precision"] == pytest.approx(metrics.average_precision(scores, pairs.labels))
            assert row["f1"] == pytest.approx(metrics.confusion(scores, pairs.labels, row["threshold"]).f1)
            if name == "validation":
                assert verdict.pair.threshold == metrics.fit_threshold(scores, pairs.labels)
                assert verdict.densities == table_densities(pairs, short, seed=cut.config.seed)


def test_prefixes_are_trained(pairs_csv: Path, cut: Checkpoint, tmp_path: Path) -> None:
    """Without `dims` the same run gives other weights, whose first numbers alone say less."""
    options: dict[str, Any] = {"encoder": "static", "epochs": 3, "batch_size": 16}
    plain = qpairs.train(data=str(pairs_csv), output=str(tmp_path / "plain"), **options)
    assert plain.verdict.shortened == {}
    assert "dimensions" not in plain.scores["test"]
    pairs = load_parts(cut.config).train
    precision = [
        metrics.average_precision(
            cosine_scores(shorten_tables(embed_tables(m.encoder, pairs.questions), SHORT), pairs), pairs.labels
        )
        for m in (cut, plain)
    ]
    assert precision[0] > precision[1]


def test_sentence_transformers_gives_the_same_short_vectors(cut: Checkpoint) -> None:
    questions = ["How do I reset my password?", "where is my parcel"]
    theirs = SentenceTransformer(str(cut.path), truncate_dim=SHORT, device="cpu")
    assert theirs.get_embedding_dimension() == SHORT
    vectors = theirs.encode(questions, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, shorten(cut.encode(questions), SHORT), atol=1e-6)


def test_interrupted_and_resumed_it_ends_with_the_same_weights(pairs_csv: Path, tmp_path: Path) -> None:
    options = {**FAST, "data": str(pairs_csv), "dims": [16], "gradient_cache": 8, "epochs": 0.5}
    qpairs.train(output=str(tmp_path / "whole"), **options)

    def stop(now: qpairs.Progress) -> None:
        if now.stage == "training" and now.done > 0.6 * now.total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qpairs.train(output=str(tmp_path / "broken"), on_progress=stop, **options)
    qpairs.train(output=str(tmp_path / "broken"), resume=True)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_index_of_short_vectors_is_judged_by_the_verdict_of_their_length(
    cut: Checkpoint, texts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    verdict = replace(cut.verdict, shortened={SHORT: replace(cut.verdict.shortened[SHORT], densities=None)})
    model = replace(cut, verdict=verdict)
    build_index(embed(model, texts, tmp_path / "emb", dimension=SHORT), tmp_path / "idx")
    index = open_index(tmp_path / "idx")
    assert index.manifest.dimension == SHORT
    assert setting_for(index, model) == verdict.shortened[SHORT].pair
    question = texts.read_text("utf-8").splitlines()[0]
    ((first, *_),) = search(index, model, [question], 3)
    assert first.hit.similarity == pytest.approx(1, abs=1e-5)
    assert not [record for record in caplog.records if "no verdict for that length" in record.message]


def test_dedupe_of_short_vectors_reads_the_verdict_of_their_length(
    cut: Checkpoint, texts: Path, tmp_path: Path
) -> None:
    embeddings = embed(cut, texts, tmp_path / "emb", dimension=SHORT)
    found = prepare(cut, texts, embeddings=embeddings)
    assert found.own.vectors.shape[1] == SHORT
    counts = metrics.count_scores(found.own.vectors)
    scores = np.linspace(0, 1, 11)
    ours, whole = (
        verdict.corpus(counts).probability(scores) for verdict in (cut.verdict.shortened[SHORT], cut.verdict)
    )
    np.testing.assert_array_equal(found.setting.probability(scores), ours)
    assert not np.allclose(ours, whole)


def test_a_length_without_a_verdict_is_one_warning(
    cut: Checkpoint, texts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "qpairs")
    embeddings = embed(cut, texts, tmp_path / "emb", dimension=4)
    build_index(embeddings, tmp_path / "idx")
    index = open_index(tmp_path / "idx")
    assert verdict_at(cut, 4) == cut.verdict
    for act in (lambda: search(index, cut, ["a", "b"], 3), lambda: prepare(cut, texts, embeddings=embeddings)):
        caplog.clear()
        act()
        (record,) = caplog.records
        assert "the vectors are cut to 4 numbers, and the model has no verdict for that length" in record.message
        assert "\n" not in record.message
    caplog.clear()
    setting_for(index, cut, 1000)  # after questions were added
    assert not caplog.records
    assert shortened_note(cut, SHORT) == shortened_note(cut, cut.dimension) == ""


def test_calibration_fits_the_verdicts_of_all_lengths(cut: Checkpoint, pairs_csv: Path, texts: Path) -> None:
    fit = calibrate(cut, qpairs.load_pairs(pairs_csv).subset(np.arange(200)))
    for length in (32, SHORT):
        assert fit.model.verdict.shortened[length].reference
        assert fit.model.verdict.shortened[length].reference.n == 200
    before, after = cut.verdict.shortened, calibrate_corpus(cut, texts).model.verdict.shortened
    assert after.keys() == before.keys()
    for length, verdict in after.items():
        assert verdict.pair == before[length].pair
        assert verdict.densities != before[length].densities


def test_an_export_has_verdicts_fitted_to_its_own_vectors(cut: Checkpoint, tmp_path: Path) -> None:
    export_checkpoint(cut.path, tmp_path / "fast", format="static", max_loss=1)
    export, pairs = load(tmp_path / "fast"), load_parts(cut.config).validation
    assert list(export.verdict.shortened) == [32, SHORT]
    short = shorten_tables(export.embed_tables(pairs.questions), SHORT)
    threshold = metrics.fit_threshold(cosine_scores(short, pairs), pairs.labels)
    assert export.verdict.shortened[SHORT].pair.threshold == threshold


def test_the_command_shows_each_length_and_the_card_too(run: Any, cut: Checkpoint, pairs_csv: Path) -> None:
    result = run("train", "--data", pairs_csv, "--encoder", "static", "--dims", "8,32", "--output", "made")
    assert result.code == 0, result
    assert "Vectors cut to their first numbers" in " ".join(result.out.split())
    made = load_checkpoint("made")
    assert made.config.dims == (32, 8)
    row = made.scores["test"]["dimensions"][2]
    line = next(line for line in result.out.splitlines() if line.split()[:1] == ["8"])
    assert line.split()[1:] == [f"{row[name]:.3f}" for name in ("threshold", "f1", "average_precision")]
    card = model_card(made, "me/mine")
    assert f"| its vectors cut to 8 numbers, at {row['threshold']:.4f} | {row['f1']:.3f} |" in card
    assert "truncate_dim=32" in card
    assert "--dims 32,8" in train_command(made.config)
    assert json.loads(Path("made/qpairs.json").read_text())["config"]["dims"] == [32, 8]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--dims", "5000,8"), "dims: 5000 is out of range; the vectors of the encoder have"),
        (("--dims", "0,8"), "dims: each length must be at least 1"),
        (("--dims", "8,many"), "must be a list of whole numbers"),
        (("--dims", "8", "--loss", "cosface"), "dims: the loss cosface learns weights for whole vectors"),
        (("--dims", "8", "--loss", "pair_softmax", "--score", "head"), "dims: prefixes are compared by cosine"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(
    run: Any, pairs_csv: Path, options: tuple[str, ...], words: str
) -> None:
    refused(run("train", "--data", pairs_csv, "--encoder", "static", "--output", "made", *options), words)
    assert not Path("made").exists()
    assert not Path("made.partial").exists()


def test_one_number_is_judged_too(pairs_csv: Path, tmp_path: Path) -> None:
    """Vectors of one number have the cosines 1 and -1 alone."""
    options: dict[str, Any] = {"encoder": "static", "batch_size": 64, "dims": [1]}
    model = qpairs.train(data=str(pairs_csv), output=str(tmp_path / "x"), **options)
    assert 0 <= model.scores["test"]["dimensions"][1]["f1"] <= 1
    save_checkpoint(model, tmp_path / "y")
    assert load_checkpoint(tmp_path / "y").verdict == model.verdict
