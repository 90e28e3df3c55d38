"""`train --model cross-encoder`: a cross-encoder is trained, judged and saved as a model."""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from children import run_script
from conftest import refused
from killed import train_and_kill
from safetensors.torch import load_file

import qpairs
from qpairs.config import Config
from qpairs.data.pairs import Pairs, pairs_from_texts
from qpairs.data.parts import Parts, parts_of
from qpairs.encoders import precision
from qpairs.metrics import average_precision
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.torch_pairs import TorchPairs, load_cross_encoder
from qpairs.models.unfinished import partial_of
from qpairs.training.cross_encoder import CrossEncoderLoss, PairBatches, fit_cross_encoder, new_cross_encoder
from qpairs.training.cross_models import passes_for
from qpairs.training.passes import evaluation_pairs
from qpairs.training.run import Run, default_output
from qpairs.training.samplers import sequential_sampler

FAST: dict[str, Any] = {  # besides the encoder
    "model": "cross-encoder",
    "batch_size": 32,
    "max_length": 12,
    "epochs": 1.0,
    "evaluations": 4,
    "patience": 0,
    "precision": "fp32",
    "learning_rate": 1e-2,
}
PAIR = ("How do I reset my password?", "I forgot my password")


@pytest.fixture(scope="module", autouse=True)
def _small_encoder(small_bert: Path) -> None:
    FAST["encoder"] = str(small_bert)


@pytest.fixture(scope="module")
def trained(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "x"
    qpairs.train(data=str(pairs_csv), output=str(output), seed=3, **FAST)
    return output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(folder)} {name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert len(a) > 40
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_a_model_whose_score_is_a_logit(trained: Path, pairs_csv: Path) -> None:
    model = qpairs.load(trained)
    assert isinstance(model, CrossModel)
    assert (model.verdict.score, model.verdict.symmetric, model.verdict.densities) == ("logit", True, None)
    assert {"f1_cross_fitted", "average_precision"} <= model.scores["validation"].keys()
    assert model.scores["test"]["threshold"] == model.verdict.pair.threshold
    assert model.scores["test"]["corpus"] is None
    assert sum(model.split["sizes"].values()) + model.split["dropped"] == 600
    assert (model.config.model, model.config.output) == ("cross-encoder", str(trained))
    assert {p.suffix for p in trained.rglob("*") if p.is_file()} <= {".safetensors", ".json", ".txt"}
    assert not partial_of(trained).exists()


def test_the_best_state_of_its_evaluations_is_kept(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda: 1.0)  # judged as it was trained, whatever the machine
    model = qpairs.load(trained)
    seen = [row["eval_average_precision"] for row in model.history if "eval_average_precision" in row]
    assert len(seen) >= 4
    pairs = parts_of(model.config, model.split).validation
    reached = average_precision(model.score_pairs(pairs)[0], pairs.labels)
    assert reached == pytest.approx(max(seen), abs=1e-4)
    assert reached > min(seen) + 0.001  # ten times what bounds the equality


def test_it_evaluates_and_predicts_and_the_order_of_a_pair_does_not_matter(trained: Path, pairs_csv: Path) -> None:
    pairs = qpairs.load_pairs(str(pairs_csv)).subset(np.arange(50))
    found = qpairs.evaluate(trained, pairs)
    there, back = (qpairs.load(trained).score_pairs(p)[0] for p in (pairs, swapped(pairs)))
    assert found.average_precision == pytest.approx(average_precision(there, pairs.labels))
    np.testing.assert_allclose(there, back, atol=1e-5)
    assert np.ptp(there) > 0.01
    assert qpairs.predict(trained, pairs).duplicate.tolist() == (there >= found.threshold).tolist()


def swapped(pairs: Pairs) -> Pairs:
    return replace(pairs, left=pairs.right, right=pairs.left)


def test_a_process_without_qpairs_gets_the_same_logits(trained: Path) -> None:
    script = (
        "import sys, json, torch; sys.modules['qpairs'] = None\n"
        "from sentence_transformers import CrossEncoder\n"
        f"model = CrossEncoder({str(trained)!r}, device='cpu')\n"
        f"pairs = [{PAIR!r}, {PAIR[::-1]!r}]\n"
        "print(json.dumps(model.predict(pairs, activation_fn=torch.nn.Identity()).tolist()))\n"
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    own = load_cross_encoder(trained).predict([PAIR, PAIR[::-1]], activation_fn=torch.nn.Identity())
    assert own.tolist() == theirs
    asked = pairs_from_texts([PAIR[0]], [PAIR[1]], [-1])
    assert qpairs.load(trained).score_pairs(asked)[0] == pytest.approx(np.mean(theirs), abs=0.02)  # perhaps bfloat16


@pytest.mark.parametrize("at", [("training", 9), "saving", ("evaluating", 0), "final"])
def test_killed_and_resumed_it_ends_with_the_same_weights(
    at: Any, trained: Path, pairs_csv: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    train_and_kill(at, FAST, pairs_csv, output)
    qpairs.train(output=str(output), resume=True)
    same_weights(trained, output)
    one, other = qpairs.load(trained), qpairs.load(output)
    assert one.scores == other.scores
    assert one.fingerprint == other.fingerprint, "the tokenizer's file tells how it was called last"


def test_another_seed_gives_other_weights(trained: Path, pairs_csv: Path, tmp_path: Path) -> None:
    options = {**FAST, "epochs": 0.1}
    qpairs.train(data=str(pairs_csv), output=str(tmp_path / "y"), seed=4, **options)
    one, other = weights(trained), weights(tmp_path / "y")
    name = "2_Dense/model.safetensors linear.weight"
    assert one[name].shape == other[name].shape == (1, 64)
    assert not torch.equal(one[name], other[name])


def test_a_loss_that_becomes_nan_keeps_the_last_good_state(
    pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = CrossEncoderLoss.forward, []

    @functools.wraps(forward)
    def poisoned(self: CrossEncoderLoss, *args: Any, **inputs: Any) -> dict[str, torch.Tensor]:
        calls.append(self.training)
        if sum(calls) == 6:  # steps of training
            with torch.no_grad():
                next(self.model.parameters()).fill_(torch.nan)
        return forward(self, *args, **inputs)

    monkeypatch.setattr(CrossEncoderLoss, "forward", poisoned)
    with pytest.raises(qpairs.UserError, match=r"NaN at step 6; the last good state is saved in .*run"):
        qpairs.train(data=str(pairs_csv), output=str(tmp_path / "run"), **FAST)
    assert not any(w.isnan().any() for w in weights(tmp_path / "run").values())
    assert qpairs.load(tmp_path / "run").scores["test"]["n"] > 0
    assert not partial_of(tmp_path / "run").exists()


def test_nan_before_any_state_saves_nothing(pairs_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(qpairs.UserError, match="before the first evaluation; nothing was saved"):
        qpairs.train(data=str(pairs_csv), output=str(tmp_path / "run"), **{**FAST, "learning_rate": 1e30})
    assert list(tmp_path.iterdir()) == []


def test_it_learns_its_pairs(pairs_csv: Path, tmp_path: Path) -> None:
    """By heart, so that it is seen that labels, orders and pairs belong together."""
    rows = qpairs.load_pairs(str(pairs_csv)).subset(np.arange(48))
    options: dict[str, Any] = {**FAST, "epochs": 40.0, "batch_size": 16, "dropout": 0.0, "warmup": 0.2}
    options["learning_rate"] = 3e-3
    run = Run(Config(**{**options, "evaluations": 1}), Parts(rows, rows, None, {}), tmp_path)
    fitted = fit_cross_encoder(run, new_cross_encoder(FAST["encoder"], texts=rows.questions, max_length=24, seed=0))
    logits = TorchPairs(fitted.model).logits([rows.texts(row) for row in range(len(rows))])
    assert average_precision(logits, rows.labels) > 0.95
    assert logits[rows.labels == 1].mean() > logits[rows.labels == 0].mean() + 1


@pytest.fixture(scope="module")
def untrained() -> Any:
    return new_cross_encoder("tiny", texts=["a b c d e f"] * 3, max_length=8, seed=0)


def numbered(n: int) -> Pairs:
    return pairs_from_texts(["a b c"] * n, [f"d {'e ' * i}f" for i in range(n)], [i % 2 for i in range(n)])


def test_a_transformer_made_from_nothing_sees_where_a_question_ends(untrained: Any) -> None:
    tokens = untrained.tokenizer("a b", "c").tokens()
    assert tokens == ["[CLS]", "a", "b", "[SEP]", "c", "[SEP]"]


def texts_of(item: dict[str, Any]) -> list[list[int]]:
    """The token ids of each text of a batch."""
    features = item["features"]
    return [ids.tolist() for ids in torch.split(features["input_ids"], features["lengths"].tolist())]


def test_batches_have_each_pair_in_one_order_or_in_both(untrained: Any) -> None:
    pairs = numbered(8)
    sampler = sequential_sampler(np.arange(8), 8)
    (one,) = PairBatches(untrained, pairs, sampler, seed=1)
    again, other = (PairBatches(untrained, pairs, sampler, seed=seed)[0] for seed in (1, 2))
    both = PairBatches(untrained, pairs, sampler, both_orders=True)[0]
    assert texts_of(one) == texts_of(again) != texts_of(other)
    assert (one["share"], one["orders"], both["share"], both["orders"]) == (8, 1, 8, 2)
    assert one["labels"].tolist() == both["labels"].tolist() == [0, 1] * 4
    there, back = texts_of(both)[:8], texts_of(both)[8:]
    assert all(text in orders for text, *orders in zip(texts_of(one), there, back, strict=True))
    assert all(sorted(one) == sorted(other) and one != other for one, other in zip(there, back, strict=True))


def test_processes_share_the_pairs_of_a_batch(untrained: Any) -> None:
    pairs, sampler = numbered(5), sequential_sampler(np.arange(5), 4)  # a batch of four pairs, and one of a single one
    whole = list(PairBatches(untrained, pairs, sampler, seed=1))
    shares = list(PairBatches(untrained, pairs, sampler, seed=1, processes=2))
    assert [item["share"] for item in shares] == [2, 2, 1, 0]
    assert all(torch.equal(shares[i]["labels"], whole[i // 2]["labels"]) for i in range(4))
    first = [len(texts_of(item)) for item in shares]
    assert first == [2, 2, 1, 1]  # a process without a pair reads one, which does not count
    assert texts_of(whole[0]) == [text for pair in zip(*map(texts_of, shares[:2]), strict=True) for text in pair]


def test_a_sample_of_a_large_validation_part_is_evaluated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from qpairs.training import passes

    monkeypatch.setattr(passes, "VALIDATION_LIMIT", 5)
    pairs = numbered(20)
    taken = evaluation_pairs(Run(Config(), Parts(pairs, pairs, None, {}), tmp_path))
    assert len(taken) == 5
    assert {taken.texts(i) for i in range(5)} <= {pairs.texts(i) for i in range(20)}


def test_what_does_not_fit_a_cross_encoder_is_refused_before_any_work(
    run: Any, pairs_csv: Path, checkpoint: Any, tmp_path: Path
) -> None:
    def told(*options: object) -> Any:
        return run("train", "--data", pairs_csv, "--model", "cross-encoder", "--output", "x", *options)

    refused(told("--loss", "cosent"), "loss: a cross-encoder learns each pair by itself")
    refused(told("--miner", "hardest"), "miner: a cross-encoder")
    refused(told("--score", "head"), "score: a cross-encoder gives a logit")
    refused(told("--teacher", "tiny"), "teacher: a cross-encoder learns from the labels alone")
    refused(told("--sampler", "triplets"), "sampler: a cross-encoder")
    refused(told("--gradient-cache", "32"), "gradient_cache: a cross-encoder")
    refused(told("--reranker", "tiny"), "reranker: a cross-encoder reads every pair itself")
    refused(told("--vectors", "glove"), "vectors: a cross-encoder is a transformer")
    refused(told("--share-vectors"), "share_vectors: a cross-encoder is a transformer")
    refused(told("--no-symmetric"), "symmetric: a cross-encoder reads a pair in both orders")
    refused(told("--word-dropout", "0.1"), "word_dropout: a cross-encoder")
    refused(told("--encoder", "lstm"), "encoder: lstm is not a transformer")
    refused(told("--encoder", "tiny+minilm"), "two towers")
    refused(told("--encoder", checkpoint.path), "not a transformer")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_how_good_it_is_and_what_to_try(
    run: Any, pairs_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**FAST, "epochs": 0.2, "evaluations": 1, "output": "x"}
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    shown = run("train", "--data", pairs_csv, *flags)
    assert shown.code == 0, shown.err
    assert "test pairs" in shown.out
    assert "qpairs predict x" in shown.out
    assert run("predict", "x", *PAIR).code == 0
    assert run("evaluate", "x", "--data", pairs_csv).code == 0


def test_the_default_folder_says_that_it_is_a_cross_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config(data=("a/mine.csv",), encoder="tiny", model="cross-encoder")
    assert default_output(config) == Path("runs/mine-tiny-cross-encoder")
    assert default_output(Config(data=("mine.csv",), reranker="tiny")) == Path("runs/mine-minilm-reranker")


def test_without_epochs_it_makes_as_many_passes_as_its_data_needs(
    pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpairs.training.cross_models.ENOUGH_PAIRS", 1000)  # of 480: three passes
    options: dict[str, Any] = {"batch_size": 64, "max_length": 8, "evaluations": 1, "precision": "fp32"}
    model = qpairs.train(
        data=str(pairs_csv), model="cross-encoder", encoder=FAST["encoder"], output=str(tmp_path / "x"), **options
    )
    steps = [row["epoch"] for row in model.history if "eval_f1" in row]
    assert model.config.epochs == passes_for(model.split["sizes"]["train"]) == 3.0
    assert steps == pytest.approx([1.0, 2.0, 3.0])
