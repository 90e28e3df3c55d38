import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from children import run_script
from conftest import write_csv
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

import qpairs
from qpairs import metrics
from qpairs.config import Config
from qpairs.data.parts import load_parts
from qpairs.evaluation.baselines import UNTRAINED
from qpairs.models.unfinished import partial_of
from qpairs.training.model import PairModel
from qpairs.training.run import Run
from qpairs.training.trainer import complete_states

CLI = Path(__file__).parents[2] / "cli.py"
FAST: dict[str, Any] = {  # besides the encoder
    "dropout": 0.1,
    "batch_size": 8,
    "epochs": 0.4,
    "evaluations": 10,
    "patience": 0,
    "max_length": 12,
}


@pytest.fixture(scope="module", autouse=True)
def _small_encoder(small_bert: Path) -> None:
    FAST["encoder"] = str(small_bert)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(one: Path, two: Path) -> bool:
    a, b = weights(one), weights(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def trained(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    qpairs.train(data=str(pairs_csv), output=str(output), seed=3, **FAST)
    return output


def test_a_run_learns_its_training_pairs(pairs_csv: Path, tmp_path: Path) -> None:
    options = {"encoder": "static", "epochs": 20.0, "batch_size": 16, "patience": 0}
    model = qpairs.train(data=str(pairs_csv), output=str(tmp_path / "x"), **options)
    losses = [row["loss"] for row in model.history if "loss" in row]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_the_encoder_as_it_comes_is_among_the_baselines(pairs_csv: Path, plain: Path, tmp_path: Path) -> None:
    """By its cosine, at the threshold that is best on validation; one that has learned nothing yet is not."""
    options = {"data": str(pairs_csv), "epochs": 0.4, "batch_size": 8}
    model = qpairs.train(**options, encoder=str(plain), output=str(tmp_path / "a"), learning_rate=1.0)
    parts = load_parts(Config(data=(str(pairs_csv),)))
    encoder, scores = SentenceTransformer(str(plain)), {}
    for name, pairs in (("validation", parts.validation), ("test", parts.test)):
        vectors = encoder.encode(list(pairs.questions), normalize_embeddings=True)
        scores[name] = (vectors[pairs.left] * vectors[pairs.right]).sum(axis=1), pairs.labels
    threshold = metrics.best_threshold(*scores["validation"])
    for name, (similarity, labels) in scores.items():
        found = qpairs.load(tmp_path / "a").scores[name]
        assert found["baselines"][UNTRAINED]["f1"] == pytest.approx(metrics.confusion(similarity, labels, threshold).f1)
        ranking = found["baselines"][UNTRAINED]["average_precision"]
        assert ranking == pytest.approx(metrics.average_precision(similarity, labels))
    ruined = model.scores["test"]
    assert ruined["average_precision"] < ruined["baselines"][UNTRAINED]["average_precision"]
    random = qpairs.train(**options, encoder="static", output=str(tmp_path / "b"))
    assert list(random.scores["test"]["baselines"]) == ["all duplicate", "TF-IDF"]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    trained: Path, pairs_csv: Path, tmp_path: Path
) -> None:
    for name, seed in (("same", 3), ("other", 4)):
        qpairs.train(data=str(pairs_csv), output=str(tmp_path / name), seed=seed, **FAST)
    assert same_weights(trained, tmp_path / "same")
    assert not same_weights(trained, tmp_path / "other")


@pytest.mark.parametrize("gradient_cache", [0, 32])
def test_bf16_trains_where_no_gpu_is_and_repeats_itself(gradient_cache: int, sample_rows: list, tmp_path: Path) -> None:
    few = {  # most CPUs are slow at it
        "data": str(write_csv(tmp_path / "train.csv", sample_rows[:48])),
        "validation": str(write_csv(tmp_path / "validation.csv", sample_rows[48:80])),
        **FAST,
        "max_length": 8,
        "epochs": 1.0,
        "evaluations": 1,
    }
    for name in ("one", "two"):
        qpairs.train(output=str(tmp_path / name), seed=3, precision="bf16", gradient_cache=gradient_cache, **few)
    assert same_weights(tmp_path / "one", tmp_path / "two")
    assert {w.dtype for w in weights(tmp_path / "one").values()} == {torch.float32}


def test_auto_takes_bf16_where_the_cpu_is_fast_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from qpairs.encoders import precision
    from qpairs.encoders.build import build_encoder

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tiny, static = build_encoder("tiny", texts=["a b", "a b"]), build_encoder("static", texts=["a b", "a b"])
    for ability, speedup, fast in (
        ("avx2", 8.0, False),
        ("avx512_bf16", 5.0, True),
        ("avx512_bf16", 0.5, False),
        ("amx_bf16", 8.0, True),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=ability: {found: True})
        monkeypatch.setattr(precision, "bf16_speedup", lambda found=speedup: found)
        assert precision.fast_bf16(tiny) is fast
        assert not precision.fast_bf16(static)


@pytest.mark.parametrize("fast", [False, True])
def test_a_resumed_run_keeps_its_number_format(
    fast: bool, sample_rows: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qpairs.encoders import precision

    def stop(now: qpairs.Progress) -> None:
        if now.stage == "training" and now.done > 1:
            raise KeyboardInterrupt

    used: list[bool] = []
    asked = precision.fast_bf16
    monkeypatch.setattr(precision, "fast_bf16", lambda encoder: used.append(asked(encoder)) or used[-1])
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr(precision, "bf16_speedup", lambda: 2.0 if fast else 1.0)
    options: dict[str, Any] = {"encoder": "tiny", "max_length": 16, "epochs": 0.2, "batch_size": 16}
    options["output"] = str(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        qpairs.train(data=sample_rows, on_progress=stop, **options)
    monkeypatch.setattr(precision, "bf16_speedup", lambda: 1.0 if fast else 2.0)  # other work on the machine
    qpairs.train(data=sample_rows, output=options["output"], resume=True)
    assert set(used) == {fast}


def test_both_towers_of_a_saved_pair_of_towers_are_trained_on(pairs_csv: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": str(pairs_csv), "epochs": 0.1}
    first = qpairs.train(encoder="cnn+static", output=str(tmp_path / "first"), **options)
    again = qpairs.train(encoder=str(first.path), output=str(tmp_path / "again"), **options)
    before, after = first.encoder.state_dict(), again.encoder.state_dict()
    assert {name.split(".")[2] for name in before} >= {"query", "document"}
    assert not [name for name in before if torch.equal(before[name], after[name])]


def test_a_dropout_that_is_nowhere_is_warned_of(
    pairs_csv: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for dropout, warned in ((0.1, False), (0.5, True)):
        options: dict[str, Any] = {"encoder": "static", "epochs": 0.1, "dropout": dropout}
        qpairs.train(data=str(pairs_csv), output=str(tmp_path / str(dropout)), **options)
        assert ("dropout: static has no dropout, so 0.5 has no effect" in caplog.text) == warned


def test_the_speed_of_bf16_is_measured_once() -> None:
    from qpairs.encoders.precision import bf16_speedup

    assert 0.001 < bf16_speedup() < 1000
    assert bf16_speedup() == bf16_speedup()


def test_nothing_of_the_unfinished_run_is_left(trained: Path) -> None:
    assert not partial_of(trained).exists()
    assert [p.name for p in trained.parent.iterdir()] == [trained.name]


def test_no_pickle_in_the_checkpoint(trained: Path) -> None:
    suffixes = {p.suffix for p in trained.rglob("*") if p.is_file()}
    assert suffixes <= {".safetensors", ".json", ".txt"}


def test_the_checkpoint_tells_what_made_it(trained: Path, pairs_csv: Path) -> None:
    data = json.loads((trained / "qpairs.json").read_text())
    assert data["config"]["data"] == [str(pairs_csv)]
    assert data["config"]["seed"] == 3
    assert sum(data["split"]["sizes"].values()) + data["split"]["dropped"] == 600
    assert data["split"]["leaks"]["test"]["questions"] == 0
    assert {"f1", "f1_interval", "threshold"} <= data["scores"]["test"].keys()
    assert data["scores"]["test"]["threshold"] == data["verdict"]["pair"]["threshold"]
    evaluated = [row for row in data["history"] if "eval_f1" in row]
    assert len(evaluated) >= 4
    assert data["versions"]["torch"] == torch.__version__


def test_a_process_without_qpairs_loads_it_and_gets_the_same_vectors(trained: Path, tmp_path: Path) -> None:
    texts = ["How do I reset my password?", "where is my parcel", "???"]
    script = (
        "import sys, numpy; sys.modules['qpairs'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        f"vectors = SentenceTransformer({str(trained)!r}, device='cpu').encode({texts!r})\n"
        f"numpy.save({str(tmp_path / 'v.npy')!r}, vectors)\n"
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    ours = qpairs.load_checkpoint(trained).encoder.encode(texts)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), ours)


KILLED_RUN = """
import os, signal, sys
import qpairs
from qpairs.training import stages, trainer
at, options = {at!r}, {options!r}
save = trainer.mark_complete
saved = []
def killed_while_saving(state):
    saved.append(state)
    if at == "saving" and len(saved) == int(options["kill_step"]):
        os.kill(os.getpid(), signal.SIGKILL)
    save(state)
trainer.mark_complete = killed_while_saving
def on_progress(now):
    if at == "step" and now.done == int(options["kill_step"]):
        os.kill(os.getpid(), signal.SIGKILL)
if at == "final":
    def before_saving(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)
    stages.save_trained = before_saving
qpairs.train(data={data!r}, output={output!r}, seed=3, on_progress=on_progress, **{fast!r})
"""


@pytest.mark.parametrize(("at", "step"), [("step", 3), ("step", 20), ("saving", 1), ("saving", 3), ("final", 0)])
def test_killed_and_resumed_it_ends_with_the_same_weights(
    at: str, step: int, trained: Path, pairs_csv: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    script = KILLED_RUN.format(
        at=at, options={"kill_step": str(step)}, data=str(pairs_csv), output=str(output), fast=FAST
    )
    killed = run_script(script)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not output.exists()
    with pytest.raises(qpairs.UserError, match="--resume"):
        qpairs.train(data=str(pairs_csv), output=str(output), seed=3, **FAST)
    qpairs.train(output=str(output), resume=True)
    assert same_weights(trained, output)
    scores = [json.loads((f / "qpairs.json").read_text())["scores"] for f in (trained, output)]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_killed_at_random_moments_it_still_ends_with_the_same_weights(
    trained: Path, pairs_csv: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = [sys.executable, str(CLI), "train", "--data", str(pairs_csv), "--output", str(output), "--seed", "3"]
    command += [part for name, value in FAST.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    random = np.random.default_rng(0)
    for _ in range(20):
        resume = ["--resume"] if (partial_of(output) / "split.json").exists() else ["--overwrite"]
        process = subprocess.Popen([*command, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(4, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if output.exists():
            break
        for state in complete_states(partial_of(output)) if partial_of(output).exists() else []:
            assert (state / "trainer_state.json").exists()
    else:
        subprocess.run([*command, "--resume"], check=True)
    assert same_weights(trained, output)


def test_resume_refuses_other_options_and_changed_data(pairs_csv: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.csv"
    shutil.copy(pairs_csv, data)
    output = tmp_path / "run"
    script = KILLED_RUN.format(at="step", options={"kill_step": "9"}, data=str(data), output=str(output), fast=FAST)
    run_script(script)
    with pytest.raises(qpairs.UserError, match="another seed"):
        qpairs.train(data=str(data), output=str(output), seed=5, resume=True, **FAST)
    lines = data.read_text().splitlines(keepends=True)
    data.write_text("".join(lines[:-40]))
    with pytest.raises(qpairs.UserError, match="data has changed"):
        qpairs.train(data=str(data), output=str(output), seed=3, resume=True, **FAST)
    with pytest.raises(qpairs.UserError, match="no interrupted run"):
        qpairs.train(data=str(data), output=str(tmp_path / "never"), seed=3, resume=True, **FAST)


@pytest.mark.parametrize("checked", ["each step", "when it is logged, as on a GPU"])
def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_the_last_good_state(
    checked: str, pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = PairModel.forward, []

    @functools.wraps(forward)
    def poisoned(self: PairModel, **inputs: object) -> dict[str, torch.Tensor]:
        calls.append(self.training)
        if sum(calls) == 20:  # steps of training
            with torch.no_grad():
                next(self.encoder.parameters()).fill_(torch.nan)
        return forward(self, **inputs)

    monkeypatch.setattr(PairModel, "forward", poisoned)
    if checked != "each step":
        monkeypatch.setattr(torch, "isfinite", lambda loss: torch.tensor(True))
    output = tmp_path / "run"
    with pytest.raises(qpairs.UserError, match=r"NaN at step 2[01]; the last good state is saved in .*run"):
        qpairs.train(data=str(pairs_csv), output=str(output), **FAST)
    assert not any(w.isnan().any() for w in weights(output).values())
    assert qpairs.load_checkpoint(output).scores["test"]["f1"] > 0


def test_nan_before_any_state_saves_nothing(pairs_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(qpairs.UserError, match="nothing was saved"):
        qpairs.train(data=str(pairs_csv), output=str(tmp_path / "run"), **{**FAST, "loss": "logistic(scale=1e39)"})
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_becomes_nan_in_the_last_step_names_that_step(
    pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = PairModel.forward

    @functools.wraps(forward)
    def poisoned(self: PairModel, **inputs: object) -> dict[str, torch.Tensor]:
        if not self.training:
            with torch.no_grad():
                next(self.encoder.parameters()).fill_(torch.nan)
        return forward(self, **inputs)

    monkeypatch.setattr(PairModel, "forward", poisoned)
    options = {**FAST, "evaluations": 1, "epochs": 1, "batch_size": 1000}
    with pytest.raises(qpairs.UserError, match="NaN at step 1,"):
        qpairs.train(data=str(pairs_csv), output=str(tmp_path / "run"), **options)


def test_a_collapsed_model_is_named(pairs_csv: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen = []
    options = {**FAST, "learning_rate": 1e-12, "weight_decay": 0.0}
    from qpairs.encoders import build as encoders
    from qpairs.training import bi_encoder

    def constant(*args: object, **kwargs: object) -> object:
        encoder = encoders.build_encoder(*args, **kwargs)
        table = dict(encoder.named_parameters())
        for name, p in table.items():
            if "word_embeddings" in name or "position_embeddings" in name:
                torch.nn.init.zeros_(p)
        return encoder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bi_encoder, "build_encoder", constant)
        model = qpairs.train(data=str(pairs_csv), output=str(tmp_path / "x"), on_progress=seen.append, **options)
    assert "collapsed" in caplog.text
    assert any(now.metrics.get("collapsed") for now in seen)
    assert model.scores["test"]["collapsed"]


def test_parts_that_the_user_brings_are_checked_for_leaks(sample_rows: list, tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", sample_rows[:400])
    test = write_csv(tmp_path / "test.csv", [(a.upper(), b, y) for a, b, y in sample_rows[390:]])
    parts = load_parts(Config(data=(str(train),), test=(str(test),)))
    assert parts.split["leaks"]["validation"]["questions"] == 0
    assert parts.split["leaks"]["test"]["questions"] > 0
    only_validation = load_parts(Config(data=(str(train),), validation=(str(test),)))
    assert only_validation.test is None


def test_progress_counts_steps_and_rates(pairs_csv: Path, tmp_path: Path) -> None:
    seen = []
    qpairs.train(data=str(pairs_csv), output=str(tmp_path / "x"), on_progress=seen.append, **{**FAST, "epochs": 1.0})
    assert seen.pop().stage == "evaluating"
    assert [seen.pop(0).stage for _ in range(2)] == ["evaluating the encoder as it comes", "preparing"]
    steps = [now.done for now in seen]
    assert steps == sorted(steps)
    assert {now.stage for now in seen} == {"training"}
    assert seen[-1].done == seen[-1].total
    assert seen[-1].metrics["epoch"] == pytest.approx(1.0)
    assert {"loss", "f1", "average_precision", "collapsed"} <= seen[-1].metrics.keys()
    assert seen[-1].rate > 0


def test_an_output_in_use_is_refused_before_any_work(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(qpairs.UserError, match="not empty"):
        qpairs.train(output=str(trained))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(qpairs.UserError, match="not overwritten"):
        qpairs.train(output=str(tmp_path / "mine"), overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_two_runs_into_one_folder_the_second_is_refused(pairs_csv: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    partial = partial_of(tmp_path / "x")
    partial.mkdir()
    with FileLock(partial / ".lock"), pytest.raises(qpairs.UserError, match="another process"):
        qpairs.train(data=str(pairs_csv), output=str(tmp_path / "x"), overwrite=True, **FAST)


def test_config_of_the_checkpoint_can_train_again(trained: Path) -> None:
    config = qpairs.load_checkpoint(trained).config
    assert dataclasses.asdict(config)["encoder"] == FAST["encoder"]
    assert os.path.samefile(config.output, trained)


def step(encoder: str, recompute: bool, pairs_csv: Path, folder: Path) -> tuple[dict[str, torch.Tensor], int]:
    """The gradients of a first step with dropout, and the bytes that the forward pass keeps for the backward one.

    Both in chunks of 32 questions, so that the same zeros are drawn.
    """
    from qpairs.encoders.build import build_encoder
    from qpairs.objectives.objective import parse_objective
    from qpairs.objectives.pair_head import Score
    from qpairs.training.batches import model_inputs
    from qpairs.training.bi_encoder import training_batches

    options = {"encoder": encoder, "loss": "info_nce", "gradient_cache": 32, "precision": "fp32"}
    config = Config(data=(str(pairs_csv),), **options)
    parts = load_parts(config)
    model = PairModel(
        build_encoder(encoder, texts=parts.train.questions),
        parse_objective(config.loss),
        torch.nn.ModuleDict(),
        Score(),
        recompute=recompute,
    ).train()
    item = training_batches(model.encoder, Run(config, parts, folder))[0]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        torch.manual_seed(0)
        loss = model(**model_inputs([item]))["loss"]
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}, sum(kept)


@pytest.mark.parametrize("encoder", ["tiny", "lstm"])
def test_a_gradient_cache_gives_the_same_gradient_and_keeps_no_activations(
    encoder: str, pairs_csv: Path, tmp_path: Path
) -> None:
    usual, kept = step(encoder, False, pairs_csv, tmp_path)
    cached, kept_with_cache = step(encoder, True, pairs_csv, tmp_path)
    for name, gradient in usual.items():
        torch.testing.assert_close(cached[name], gradient)
    assert kept_with_cache < kept / 5
