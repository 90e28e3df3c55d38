import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import refused
from scipy.sparse import csr_array, random_array

import qpairs
from qpairs import metrics
from qpairs.config import Config
from qpairs.data.pairs import Pairs
from qpairs.data.parts import load_parts
from qpairs.encoders.build import build_encoder
from qpairs.encoders.tokens import embed, token_ids
from qpairs.encoders.towers import towers
from qpairs.export.export import MAX_LOSS, ODD_TEXTS, export_checkpoint
from qpairs.export.fastest import export_fastest
from qpairs.export.parity import Parity
from qpairs.export.static import ridge
from qpairs.metrics import Calibration
from qpairs.models.bi_encoder import Checkpoint, load_checkpoint, save_checkpoint
from qpairs.models.graphs import FORMS
from qpairs.models.openvino import openvino_bf16_is_faster
from qpairs.models.tokens import Reading, tokeniser
from qpairs.models.verdict import PairSetting, Reference, Verdict
from qpairs.objectives.pair_head import PairHead

ENCODERS = ["tiny", "lstm", "cnn", "static", "lstm+cnn", "tiny+static"]
ANYTHING = 1.0  # an F1 that may be lost in full
TEXTS = [*ODD_TEXTS, "[SEP] [PAD] zzyzx", "What\u2019s a N'T, n't?", "U.S. C++ 50%", "How do I reset my password?"]

Made = Callable[..., Path]


@pytest.fixture(scope="module")
def pairs(pairs_csv: Path) -> Pairs:
    return qpairs.load_pairs(pairs_csv).subset(np.arange(200))


@pytest.fixture(scope="module")
def made(pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The folder of a checkpoint of an encoder that nobody trained; made once."""
    root = tmp_path_factory.mktemp("checkpoints")

    def make(encoder: str, head: PairHead | None = None) -> Path:
        place = root / f"{encoder}-{head is not None}"
        if not place.exists():
            built = build_encoder(encoder, texts=pairs.questions, max_length=24)
            config = Config(encoder=encoder, data=("gone.csv",))
            verdict = Verdict(
                PairSetting(0.5, Calibration(9, -5)), reference=Reference([0.0, 1.0], 2), tfidf_threshold=0.5
            )
            save_checkpoint(Checkpoint(built, verdict, config, head=head), place)
        return place

    return make


@pytest.fixture(scope="module")
def trained(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose data is still there."""
    output = tmp_path_factory.mktemp("runs") / "lstm"
    qpairs.train(data=str(pairs_csv), encoder="lstm", epochs=2, batch_size=16, output=str(output))
    return output


def embedded(path: Path, texts: Sequence[str]) -> list[np.ndarray]:
    """What the towers of a checkpoint make of texts: (n, d) each."""
    return [embed(tower, token_ids(tower, texts)) for tower in towers(load_checkpoint(path).encoder)]


@pytest.mark.parametrize(
    ("encoder", "format"), [*((each, "onnx") for each in ENCODERS), ("tiny+static", "openvino"), ("cnn", "openvino")]
)
def test_a_graph_gives_the_vectors_of_the_checkpoint(
    encoder: str, format: str, made: Made, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpairs.models.openvino.openvino_bf16_is_faster", lambda: False)
    parity = export_checkpoint(made(encoder), tmp_path / "x", format=format, data=pairs)
    assert parity.cosine_min > 0.99999
    assert parity.f1_after == pytest.approx(parity.f1_before, abs=0.003)
    model = qpairs.load(tmp_path / "x")
    left, right = embedded(made(encoder), TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), left, atol=1e-5)
    np.testing.assert_allclose(model.encode(TEXTS, "right"), right, atol=1e-5)
    assert model.dimension == left.shape[1]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_texts_become_the_same_ids_without_transformers(encoder: str, made: Made, pairs: Pairs, tmp_path: Path) -> None:
    export_checkpoint(made(encoder), tmp_path / "x", format="onnx", data=pairs)
    readings = json.loads((tmp_path / "x" / "qpairs.json").read_text())["towers"]
    for tower, (name, reading) in zip(towers(load_checkpoint(made(encoder)).encoder), readings.items(), strict=False):
        tokens = tokeniser(tmp_path / "x" / name, Reading(**reading))([*TEXTS, *pairs.questions])
        expected = token_ids(tower, [*TEXTS, *pairs.questions])
        assert [row.tolist() for row in np.split(tokens.ids, tokens.bounds[1:-1])] == [row.tolist() for row in expected]


@pytest.mark.parametrize(
    ("encoder", "format"),
    [("tiny", "onnx-int8"), ("lstm", "onnx-int8"), ("tiny+static", "onnx-int8"), ("tiny", "openvino-int8")],
)
def test_eight_bits_turn_vectors_by_little(encoder: str, format: str, made: Made, pairs: Pairs, tmp_path: Path) -> None:
    parity = export_checkpoint(made(encoder), tmp_path / "x", format=format, data=pairs, max_loss=ANYTHING)
    assert 0.98 < parity.cosine_min < 0.999999  # OpenVINO loses least where the CPU lacks VNNI
    whole = made(encoder)
    weights = [sum(f.stat().st_size for f in folder.rglob("*") if f.suffix in (".onnx", ".safetensors"))
               for folder in (tmp_path / "x", whole)]  # fmt: skip
    assert weights[0] < weights[1]


@pytest.mark.parametrize("bf16", [False, True])
def test_openvino_takes_the_faster_precision(
    bf16: bool, made: Made, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    compile_model, asked = openvino.Core.compile_model, list[str]()

    def noting(core, graph, device, settings):
        compiled = compile_model(core, graph, device, settings)
        asked.append(settings["INFERENCE_PRECISION_HINT"])
        in_8_bits = settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] > 0
        assert in_8_bits == (format == "openvino-int8")
        return compiled

    monkeypatch.setattr(openvino.Core, "compile_model", noting)
    monkeypatch.setattr("qpairs.models.openvino.openvino_bf16_is_faster", lambda: bf16)
    for format, expected in (("openvino", "bf16" if bf16 else "f32"), ("openvino-int8", "f32")):
        asked.clear()
        parity = export_checkpoint(made("tiny"), tmp_path / format, format=format, data=pairs, max_loss=ANYTHING)
        assert set(asked) == {expected}
        if format == "openvino":
            assert parity.cosine_min > (0.999 if bf16 else 0.999999)


@pytest.mark.parametrize(
    ("capabilities", "ratio", "faster"),
    [(["FP32"], 9.0, False), (["FP32", "BF16"], 1.1, False), (["FP32", "BF16"], 1.3, True)],
)
def test_bfloat16_is_taken_where_it_is_there_and_faster(
    capabilities: list[str], ratio: float, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    timed = list[int]()
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: capabilities)
    monkeypatch.setattr("qpairs.models.openvino._product", lambda library, core, kind: SimpleNamespace(infer=print))
    monkeypatch.setattr("qpairs.models.openvino.best_ratio", lambda *runs: timed.append(len(runs)) or ratio)
    assert openvino_bf16_is_faster.__wrapped__() == faster
    assert timed == ([2] if "BF16" in capabilities else [])


def test_several_threads_share_an_openvino_export(made: Made, pairs: Pairs, tmp_path: Path) -> None:
    export_checkpoint(made("tiny"), tmp_path / "x", format="openvino-int8", data=pairs, max_loss=ANYTHING)
    model = qpairs.load(tmp_path / "x")
    texts = [list(pairs.questions[start : start + 10]) for start in range(0, 100, 10)]
    alone = [model.encode(part) for part in texts]
    with ThreadPoolExecutor(4) as pool:
        for row, found in enumerate(pool.map(model.encode, texts * 5)):
            np.testing.assert_allclose(found, alone[row % len(texts)], atol=1e-6)


def test_the_fastest_format_is_found_by_trying(made: Made, pairs: Pairs, tmp_path: Path) -> None:
    found = export_fastest(made("tiny"), tmp_path / "x", data=pairs, max_loss=ANYTHING)
    assert found.rates.keys() == {"checkpoint", *FORMS}
    assert found.rates[found.format] == max(rate for name, rate in found.rates.items() if name != "checkpoint")
    assert json.loads((tmp_path / "x" / "qpairs.json").read_text())["kind"] == found.format


def test_nothing_is_written_where_every_format_loses(made: Made, pairs: Pairs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("qpairs.export.fastest._rates", lambda *_: {"checkpoint": 1.0, "onnx": 2.0})
    with pytest.raises(qpairs.UserError, match="F1 falls"):
        export_fastest(made("tiny"), tmp_path / "y", data=pairs, max_loss=-1)
    assert not (tmp_path / "y").exists()


def test_a_format_that_loses_too_much_is_passed_over(made: Made, pairs: Pairs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(MAX_LOSS, "openvino-int8", -1)
    rates = {"checkpoint": 1.0, "openvino-int8": 9.0, "onnx": 5.0, "onnx-int8": 2.0}
    monkeypatch.setattr("qpairs.export.fastest._rates", lambda *_: rates)
    assert export_fastest(made("tiny"), tmp_path / "x", data=pairs).format == "onnx"


def test_without_matrix_products_there_is_still_a_fastest_format(made: Made, pairs: Pairs, tmp_path: Path) -> None:
    found = export_fastest(made("cnn"), tmp_path / "x", data=pairs, max_loss=ANYTHING)
    assert found.rates.keys() == {"checkpoint", "onnx", "openvino"}


def test_a_table_of_vectors_is_exported_as_it_is(made: Made, pairs: Pairs, tmp_path: Path) -> None:
    parity = export_checkpoint(made("static"), tmp_path / "x", format="static", data=pairs)
    assert parity.cosine_mean > 0.99999
    left, _ = embedded(made("static"), TEXTS)
    np.testing.assert_allclose(qpairs.load(tmp_path / "x").encode(TEXTS), left, atol=1e-6)
    assert json.loads((tmp_path / "x" / "qpairs.json").read_text())["towers"][""]["by_word"]


def test_a_student_learns_what_its_teacher_says(trained: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    on_progress = lambda now: stages.append(now.stage)  # noqa: E731
    parity = export_checkpoint(trained, tmp_path / "x", format="static", max_loss=ANYTHING, on_progress=on_progress)
    assert list(dict.fromkeys(stages)) == ["comparing", "vocabulary", "distilling", "tuning", "writing"]
    texts = qpairs.load_pairs("sample").questions[:300]
    student = qpairs.load(tmp_path / "x")
    teacher, _ = embedded(trained, texts)
    cosine = (student.encode(texts) * teacher).sum(axis=1).mean()
    assert cosine > 0.5
    assert parity.cosine_mean == pytest.approx(cosine, abs=0.2)
    assert parity.f1_after > 0.5


def test_ridge_regression_agrees_with_its_closed_form() -> None:
    random = np.random.default_rng(0)
    inputs = csr_array(random_array((60, 12), density=0.3, rng=random, dtype=np.float32))
    targets, start = (random.normal(size=(n, 5)).astype(np.float32) for n in (60, 12))
    dense = inputs.toarray()
    expected = start + np.linalg.solve(dense.T @ dense + 0.3 * np.eye(12), dense.T @ (targets - dense @ start))
    np.testing.assert_allclose(ridge(inputs, targets, start, 0.3), expected, atol=1e-4)


def test_an_export_has_a_verdict_of_its_own(trained: Path, tmp_path: Path) -> None:
    parity = export_checkpoint(trained, tmp_path / "x", format="onnx-int8", max_loss=ANYTHING)
    model, checkpoint = qpairs.load(tmp_path / "x"), load_checkpoint(trained)
    validation = load_parts(checkpoint.config).validation
    vectors = model.encode(validation.questions)
    scores = (vectors[validation.left] * vectors[validation.right]).sum(axis=1)
    assert model.verdict.pair.threshold == parity.threshold_after
    assert model.verdict.pair.threshold == pytest.approx(metrics.fit_threshold(scores, validation.labels), abs=1e-6)
    assert model.verdict.pair.threshold != checkpoint.verdict.pair.threshold == parity.threshold_before
    expected = metrics.operating_points(scores, validation.labels)
    assert [point.precision for point in model.verdict.pair.operating_points] == [point.precision for point in expected]
    assert model.verdict.pair.calibration.slope == pytest.approx(
        metrics.fit_calibration(scores, validation.labels).slope, rel=1e-3
    )
    written = json.loads((tmp_path / "x" / "qpairs.json").read_text())
    assert Parity(**written["parity"]) == parity
    assert written["source"] == qpairs.load(trained).fingerprint != model.fingerprint
    assert {"torch", "qpairs", "python"} <= written["versions"].keys()


@pytest.mark.parametrize("format", ["onnx", "static"])
def test_an_export_runs_without_torch(format: str, made: Made, pairs: Pairs, tmp_path: Path) -> None:
    export_checkpoint(made("static"), tmp_path / "x", format=format, data=pairs)
    script = "import sys, qpairs; print(qpairs.load('x').encode(['a card', 'the bank']).shape)\n"
    script += "print([m for m in ('torch', 'transformers', 'datasets', 'pandas', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines() == ["(2, 128)", "[]"]


def test_what_loses_too_much_is_not_written(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(qpairs.UserError, match="by more than -1; nothing is written"):
        export_checkpoint(trained, tmp_path / "x", format="onnx", max_loss=-1)
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_replaced_whole_or_not_at_all(made: Made, pairs: Pairs, tmp_path: Path) -> None:
    export_checkpoint(made("static"), tmp_path / "x", format="static", data=pairs)
    with pytest.raises(qpairs.UserError, match="not empty"):
        export_checkpoint(made("static"), tmp_path / "x", format="onnx", data=pairs)
    with pytest.raises(qpairs.UserError, match="nothing is written"):
        export_checkpoint(made("static"), tmp_path / "x", format="onnx", data=pairs, max_loss=-1, overwrite=True)
    assert (tmp_path / "x" / "vectors.safetensors").exists()
    export_checkpoint(made("static"), tmp_path / "x", format="onnx", data=pairs, overwrite=True)
    assert sorted(file.name for file in (tmp_path / "x").iterdir()) == ["model.onnx", "qpairs.json", "tokenizer.json"]


def test_what_cannot_be_exported_is_said_in_one_line(made: Made, pairs: Pairs, trained: Path, tmp_path: Path) -> None:
    def message(path: Path, **options: object) -> str:
        with pytest.raises(qpairs.UserError) as caught:
            export_checkpoint(path, tmp_path / "x", **{"data": pairs, **options})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "did you mean 'onnx-int8'" in message(made("static"), format="onnx_int8")
    assert "no matrix products" in message(made("cnn"), format="onnx-int8")
    assert "no matrix products" in message(made("cnn"), format="openvino-int8")
    assert "LSTM inexactly" in message(made("lstm"), format="openvino")
    assert "head" in message(made("static", PairHead(128)), format="onnx")
    assert "does not store which pairs" in message(made("static"), format="onnx", data=())
    assert "has none; choose another --format" in message(made("lstm"), format="static")
    checkpoint = load_checkpoint(trained)
    other = save_checkpoint(dataclasses.replace(checkpoint, split={"fingerprint": "0"}), tmp_path / "other")
    assert "have changed" in message(other, format="onnx", data=())
    moved = dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, data=("gone.csv",)))
    assert "gone.csv: no such file" in message(save_checkpoint(moved, tmp_path / "moved"), format="onnx", data=())
    with pytest.raises(qpairs.UserError, match="is the checkpoint itself"):
        export_checkpoint(trained, trained, format="onnx", overwrite=True)
    with pytest.raises(qpairs.UserError, match="pairs of both labels"):
        export_checkpoint(made("static"), tmp_path / "x", data=pairs.subset(pairs.labels == 1), format="onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"other", "moved"}


def test_missing_onnx_runtime_is_said_with_its_cure(
    made: Made, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_checkpoint(made("static"), tmp_path / "x", format="onnx", data=pairs)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(qpairs.UserError, match=r"pip install 'qpairs\[onnx\]'"):
        qpairs.load(tmp_path / "x")


def test_the_command_compares_and_saves(run, trained: Path) -> None:
    done = run("export", trained, "--format", "onnx", "--output", "out/x")
    assert done.code == 0, done.err
    for words in ("checkpoint", "onnx", "F1, cross-fitted", "threshold", "1.0000 on average", "out/x"):
        assert words in done.out
    assert qpairs.load("out/x").encode(["a"]).shape == (1, 512)
    refused(run("export", trained, "--format", "onnx", "--output", "out/x"), "not empty")
    done = run("export", trained, "--format", "fastest", "--output", "out/z", "--max-loss", "1")
    assert done.code == 0, done.err
    assert "times as fast as the checkpoint, here: onnx " in done.out
    refused(run("export", trained, "--format", "int8", "--output", "out/y"), "format", "onnx-int8")
    assert run("evaluate", "out/x", "--data", "sample").code == 0
