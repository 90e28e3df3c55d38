import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mocks import moved
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from stages import two_stages, write_tiny_cross_model

import qpairs
from qpairs.encoders.batches import by_length, padded
from qpairs.encoders.tokens import embed, token_ids
from qpairs.evaluation.explain import explain
from qpairs.evaluation.report import render
from qpairs.export.export import export_checkpoint
from qpairs.metrics import OperatingPoint
from qpairs.models import encoding, tokens
from qpairs.models.base import fingerprint
from qpairs.models.bi_encoder import Checkpoint, load_checkpoint, save_checkpoint
from qpairs.models.tokens import Tokens, concatenated

FEW = settings(deadline=None, max_examples=50)
POINTS = [OperatingPoint(0.8, 0.6, 0.7), OperatingPoint(0.9, 0.75, 0.4)]


@pytest.fixture(scope="module")
def trained(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "static"
    qpairs.train(data=str(pairs_csv), encoder="static", epochs=2, batch_size=16, output=str(output))
    return output


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Checkpoint:
    return load_checkpoint(trained)


@pytest.fixture(scope="module", params=["torch", "onnx", "static"])
def folder(request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same encoder in all its forms."""
    if request.param == "torch":
        return trained
    output = tmp_path_factory.mktemp("exports") / request.param
    export_checkpoint(trained, output, format=request.param)
    return output


@pytest.fixture(scope="module")
def texts(pairs_csv: Path) -> list[str]:
    return list(qpairs.load_pairs(pairs_csv).questions)


def test_vectors_are_those_of_the_checkpoint_in_the_order_of_the_texts(
    folder: Path, checkpoint: Checkpoint, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "WINDOW", 64)  # several windows
    model = qpairs.load(folder)
    expected = embed(checkpoint.encoder, token_ids(checkpoint.encoder, texts))
    np.testing.assert_allclose(model.encode(texts), expected, atol=1e-6)
    np.testing.assert_allclose(model.encode(texts[:3], "right"), expected[:3], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
    assert model.encode([]).shape == (0, model.dimension)
    assert model.dimension == expected.shape[1]


def test_several_threads_may_share_a_model(folder: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WINDOW", 32)
    monkeypatch.setattr(tokens, "KNOWN_WORDS", 50)  # so that what is remembered is dropped again and again
    model = qpairs.load(folder)
    parts = [texts[k::8] for k in range(8)]
    expected = [model.encode(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for mine, wanted in zip(pool.map(model.encode, parts), expected, strict=True):
                np.testing.assert_allclose(mine, wanted, atol=1e-6)


def test_a_fault_while_tokenising_ahead_is_not_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WINDOW", 2)
    with pytest.raises((TypeError, AttributeError, ValueError)):
        qpairs.load(folder).encode(["a", "b", "c", None, "e", "f"])


def test_the_verdict_is_the_checkpoints(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = qpairs.load(save_checkpoint(moved(checkpoint, operating_points=POINTS), tmp_path / "x"))
    assert model.verdict == moved(checkpoint, operating_points=POINTS).verdict


def test_the_fingerprint_is_of_the_vectors_alone(checkpoint: Checkpoint, trained: Path, tmp_path: Path) -> None:
    first = qpairs.load(trained).fingerprint
    checkpoint.encoder.encode(["a", "b b"])  # leaves padding behind in the tokenizer
    there = save_checkpoint(moved(checkpoint, threshold=0.1), tmp_path / "moved")
    assert qpairs.load(there).fingerprint == first
    other = shutil.copytree(trained, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    words = shutil.copytree(trained, tmp_path / "words")
    (words / "tokenizer.json").write_text((words / "tokenizer.json").read_text().replace('"the"', '"teh"'))
    assert len({first, fingerprint(other), fingerprint(words)}) == 3
    with pytest.raises(qpairs.UserError, match="not the weights that the verdict next to them was fitted to"):
        qpairs.load(other)


@pytest.mark.parametrize("name", ["tokenizer.json", "modules.json", "1_Normalize/config.json"])
def test_a_file_that_tells_how_to_read_is_that_of_its_verdict(trained: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(trained, tmp_path / "x")
    (folder / name).write_text((folder / name).read_text() + " ")
    with pytest.raises(qpairs.UserError, match=f"{name}: not the file that the verdict next to it was fitted to"):
        qpairs.load(folder)
    (folder / name).unlink()
    with pytest.raises(qpairs.UserError, match=f"{name}: cannot be read"):
        qpairs.load(folder)


@pytest.mark.parametrize("threshold", [5.0, -1.5])
def test_a_threshold_that_no_cosine_reaches_is_damage(trained: Path, tmp_path: Path, threshold: float) -> None:
    folder = shutil.copytree(trained, tmp_path / "x")
    data = json.loads((folder / "qpairs.json").read_text())
    data["verdict"]["pair"]["threshold"] = threshold
    (folder / "qpairs.json").write_text(json.dumps(data))
    with pytest.raises(qpairs.UserError, match=r"threshold is .*, must be -1 <= threshold <= 1"):
        qpairs.load(folder)


def test_a_model_whose_checksums_are_of_weights_alone_loads(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "x")
    data = json.loads((folder / "qpairs.json").read_text())
    data["weights"] = {name: known for name, known in data["weights"].items() if name.endswith(".safetensors")}
    (folder / "qpairs.json").write_text(json.dumps(data))
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    assert qpairs.load(folder).fingerprint == qpairs.load(trained).fingerprint


def test_a_checkpoint_of_a_head_says_so(checkpoint: Checkpoint, tmp_path: Path) -> None:
    verdict = dataclasses.replace(checkpoint.verdict, score="head", symmetric=False)
    save_checkpoint(dataclasses.replace(checkpoint, verdict=verdict), tmp_path / "x")
    model = qpairs.load(tmp_path / "x")
    assert (model.verdict.score, model.verdict.symmetric) == ("head", False)


def test_an_export_is_judged_like_its_checkpoint(folder: Path, checkpoint: Checkpoint, pairs_csv: Path) -> None:
    model, pairs = qpairs.load(folder), qpairs.load_pairs(pairs_csv)
    model = model.with_verdict(checkpoint.verdict, model.scores)
    ours, theirs = (qpairs.evaluate(each, pairs) for each in (model, checkpoint))
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
    assert ours.average_precision == pytest.approx(theirs.average_precision, abs=1e-3)
    ours, theirs = (qpairs.predict(each, pairs) for each in (model, checkpoint))
    np.testing.assert_allclose(ours.probability, theirs.probability, atol=1e-4)
    first, second = pairs.texts(0)
    ours, theirs = (explain(each, first, second) for each in (model, checkpoint))
    for side in (0, 1):
        effects = [[word.effect for word in found.words[side]] for found in (ours, theirs)]
        np.testing.assert_allclose(*effects, atol=1e-4)


def test_an_export_is_calibrated_saved_and_reported_on(folder: Path, pairs_csv: Path, tmp_path: Path) -> None:
    model, pairs = qpairs.load(folder), qpairs.load_pairs(pairs_csv)
    fit = qpairs.calibrate(moved(model, threshold=0.999), pairs)
    fit.model.save(tmp_path / "x")
    with pytest.raises(qpairs.UserError, match="not empty"):
        fit.model.save(tmp_path / "x")
    back = qpairs.load(tmp_path / "x")
    assert type(back) is type(model)
    assert back.verdict == fit.model.verdict != model.verdict
    assert json.dumps(back.scores["calibrated_on"]) == json.dumps(fit.model.scores["calibrated_on"])
    assert (back.fingerprint, back.config, back.split) == (model.fingerprint, model.config, model.split)
    np.testing.assert_array_equal(back.encode(["how do I pay"]), model.encode(["how do I pay"]))
    assert f"{back.verdict.pair.threshold:.3f}" in render(back, pairs)


def test_a_model_whose_files_are_copied_is_not_saved_inside_them(folder: Path, pairs_csv: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "x")
    export = qpairs.load(tmp_path / "x")
    cross = write_tiny_cross_model(tmp_path / "cross", qpairs.load_pairs(pairs_csv))
    both = two_stages(export, second=cross)
    (tmp_path / "link").symlink_to(tmp_path / "x")
    places = [(cross, "cross/new"), (both, "cross/new")]
    if not isinstance(export, Checkpoint):  # whose files are written anew
        places += [(export, "x/new"), (export, "x/a/b"), (export, "link/new"), (both, "x/new")]
    for model, place in places:
        with pytest.raises(qpairs.UserError, match=f"{place}: is inside .*; name another folder with --output"):
            model.save(tmp_path / place)
        assert not (tmp_path / place).exists()
    for place in ("x", "x-new"):
        export.save(tmp_path / place, overwrite=True)
        assert qpairs.load(tmp_path / place).fingerprint == export.fingerprint


def test_an_export_of_format_1_is_saved_as_format_2(tmp_path: Path) -> None:
    old = qpairs.load(Path(__file__).parents[1] / "fixtures" / "commit_48e0593" / "one-static")
    assert (old.config.encoder, old.config.symmetric, old.split, old.scores) == ("static", True, {}, {})
    old.save(tmp_path / "x")
    data, new = json.loads((tmp_path / "x" / "qpairs.json").read_text()), qpairs.load(tmp_path / "x")
    assert data["format"] == 2 and "threshold" not in data
    assert data["parity"] == old.form["parity"]
    assert (new.verdict, new.config, new.fingerprint) == (old.verdict, old.config, old.fingerprint)


def test_what_cannot_be_loaded_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(qpairs.UserError) as caught:
            qpairs.load(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such checkpoint or export folder" in message(tmp_path / "none")
    assert "no checkpoint and no export" in message(tmp_path)
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = json.loads((copy / "qpairs.json").read_text())
    for text, words in (
        ("{", "damaged"),
        ("{}", "damaged"),
        (json.dumps({**data, "format": 99, "versions": {"qpairs": "9"}}), "newer"),
        (json.dumps({**data, "kind": "stone"}), "damaged"),
    ):
        (copy / "qpairs.json").write_text(text)
        assert words in message(copy)
    (copy / "qpairs.json").write_text(json.dumps(data))
    for file in [*copy.glob("*.onnx"), *copy.glob("*.safetensors")]:
        file.write_bytes(b"no weights")
    assert "not the weights that the verdict next to them was fitted to" in message(copy)


WORD = st.text(st.sampled_from("aAbB.,'!? "), min_size=1, max_size=6)


@FEW
@given(st.lists(WORD, unique=True), st.lists(WORD, max_size=3), st.booleans(), st.lists(WORD).map(" ".join))
def test_words_are_looked_up_as_sentence_transformers_does(
    vocabulary: list[str], stop_words: list[str], lower: bool, text: str
) -> None:
    rules = {"vocab": vocabulary, "stop_words": stop_words, "do_lower_case": lower}
    assert tokens._whitespace_rows(rules)([text]) == [WhitespaceTokenizer(vocabulary, stop_words, lower).tokenize(text)]


@FEW
@given(st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=40), st.booleans())
def test_batches_hold_every_text_once_and_within_their_budget(rows: list[list[int]], pad_left: bool) -> None:
    tokens = concatenated(rows)
    seen = []
    for batch in by_length(np.diff(tokens.bounds), 24):
        ids, mask = padded(tokens.of(batch), np.diff(tokens.bounds)[batch], pad=99, pad_left=pad_left)
        assert ids.size <= 24 or len(batch) == 1
        assert [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)] == [rows[k] for k in batch]
        assert (ids[mask == 0] == 99).all()
        edge = mask[:, ::-1] if pad_left else mask
        assert (np.diff(edge, axis=1) <= 0).all()
        seen += batch.tolist()
    assert sorted(seen) == list(range(len(rows)))


def test_no_text_is_no_batch() -> None:
    assert list(by_length(np.empty(0, dtype=np.int64), 8)) == []
    assert concatenated([]) == Tokens(pytest.approx(np.empty(0)), pytest.approx(np.zeros(1)))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_questions(folder: Path) -> None:
    import resource

    model = qpairs.load(folder)
    questions = [f"how do I reset password {k} of the card" for k in range(20_000)]
    model.encode(questions[:4000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        model.encode(questions)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 4 * 20_000 * model.dimension / 2**20 * 2 + 30  # MiB: what is returned, twice, and some
