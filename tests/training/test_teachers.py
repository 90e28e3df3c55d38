import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from children import run_script
from conftest import refused, write_csv
from killed import train_and_kill
from safetensors.torch import load_file
from torch.nn import functional

import qpairs
from qpairs.config import Config
from qpairs.data.pairs import pairs_from_texts
from qpairs.data.parts import load_parts
from qpairs.encoders.build import build_encoder
from qpairs.encoders.tokens import features, token_ids
from qpairs.metrics import Calibration
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.unfinished import partial_of
from qpairs.objectives.labels import BatchLabels
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.objective import parse_objective
from qpairs.training import stages
from qpairs.training.batches import Batches, TokenizedQuestions
from qpairs.training.cross_encoder import new_cross_encoder
from qpairs.training.run import Run
from qpairs.training.samplers import BatchIndices
from qpairs.training.stages import second_objective
from qpairs.training.teachers import (
    OLD_FILE,
    Teacher,
    add_probabilities,
    load_teacher,
    probabilities_of,
    teacher_of,
    teacher_scores,
)

FAST: dict[str, Any] = {  # besides the encoder
    "teacher": ("tiny",),
    "neighbours": 1,
    "batch_size": 16,
    "epochs": 0.5,
    "teacher_epochs": 0.7,
    "max_length": 12,
    "precision": "fp32",
}


ITSELF: dict[str, Any] = {**FAST, "teacher": ("itself",)}


@pytest.fixture(scope="module")
def half_csv(sample_rows: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the usual pairs: a teacher judges all of them, and their neighbours."""
    return write_csv(tmp_path_factory.mktemp("pairs") / "pairs.csv", sample_rows[:300])


@pytest.fixture(scope="module", autouse=True)
def _small_encoder(small_bert: Path) -> None:
    FAST["encoder"] = ITSELF["encoder"] = str(small_bert)


@pytest.fixture(scope="module")
def trained(half_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "x"
    qpairs.train(data=str(half_csv), output=str(output), seed=3, **FAST)
    return output


def test_the_checkpoint_tells_of_its_teacher(trained: Path) -> None:
    told = qpairs.load_checkpoint(trained).split["teacher"]
    assert told["same_split"]
    assert told["neighbours"] > 50
    validation = load_parts(qpairs.load_checkpoint(trained).config).validation
    again = teacher_scores([load_teacher(str(teacher_of(trained)))], validation)
    assert {name: told[name] for name in again} == pytest.approx(again, abs=1e-6)
    assert not partial_of(trained).exists()


def test_a_process_without_qpairs_loads_the_teacher(trained: Path) -> None:
    pair = ("How do I reset my password?", "I forgot my password")
    script = (
        "import sys, json; sys.modules['qpairs'] = None\n"
        "from sentence_transformers import CrossEncoder\n"
        f"model = CrossEncoder({str(teacher_of(trained))!r}, device='cpu')\n"
        f"print(json.dumps(model.predict([{pair!r}, {pair[::-1]!r}]).tolist()))\n"
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    theirs = np.array(json.loads(done.stdout.splitlines()[-1]))  # after the sigmoid
    logit = np.log(theirs / (1 - theirs)).mean()
    ours = probabilities_of([load_teacher(str(teacher_of(trained)))], pairs_from_texts([pair[0]], [pair[1]], [-1]))
    assert ours == pytest.approx(1 / (1 + np.exp(-logit)), abs=5e-3)  # here perhaps in bfloat16


def test_a_teacher_that_is_there_is_learnt_from_again(trained: Path, half_csv: Path, tmp_path: Path) -> None:
    options = {**FAST, "encoder": "static", "teacher": (str(teacher_of(trained)),)}
    model = qpairs.train(data=str(half_csv), output=str(tmp_path / "y"), seed=3, **options)
    assert model.split["teacher"]["same_split"]
    assert not teacher_of(tmp_path / "y").exists()
    other = qpairs.train(data=str(half_csv), output=str(tmp_path / "z"), seed=4, **options)
    assert not other.split["teacher"]["same_split"]


def test_of_another_split_there_is_a_warning(
    trained: Path, half_csv: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**FAST, "encoder": "static", "teacher": (str(teacher_of(trained)),), "neighbours": 0}
    qpairs.train(data=str(half_csv), output=str(tmp_path / "x"), seed=5, **options)
    assert "not trained on this split" in caplog.text


@pytest.fixture(scope="module")
def taught_by_itself(half_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "x"
    qpairs.train(data=str(half_csv), output=str(output), seed=3, **ITSELF)
    return output


@pytest.mark.parametrize("at", [("training the teacher", 9), ("training", 9), "saving the answers", "final"])
def test_killed_and_resumed_it_ends_with_the_same_weights(
    at: Any, trained: Path, half_csv: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    kill_and_resume(at, FAST, half_csv, output)
    for one, other in ((trained, output), (teacher_of(trained), teacher_of(output))):
        same_weights(one, other)


@pytest.mark.parametrize("at", [("first pass", 6), ("training", 6), "saving the answers"])
def test_so_does_an_encoder_that_teaches_itself(
    at: Any, taught_by_itself: Path, half_csv: Path, tmp_path: Path
) -> None:
    kill_and_resume(at, ITSELF, half_csv, tmp_path / "run")
    same_weights(taught_by_itself, tmp_path / "run")


def kill_and_resume(at: Any, options: dict[str, Any], data: Path, output: Path) -> None:
    train_and_kill(at, options, data, output)
    qpairs.train(output=str(output), resume=True)


def same_weights(one: Path, other: Path) -> None:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_neighbours_get_the_teachers_word_and_labelled_pairs_the_mean(trained: Path, half_csv: Path) -> None:
    train = qpairs.load_pairs(str(half_csv)).subset(np.arange(80))
    teachers, encoder = [load_teacher(str(teacher_of(trained)))], build_encoder("tiny", texts=train.questions)
    taught = add_probabilities(train, teachers, encoder, 2)
    assert taught.taught is not None
    thinks, n = probabilities_of(teachers, taught, both_orders=False), len(train)
    np.testing.assert_array_equal(taught.labels[:n], train.labels)
    assert set(taught.labels[n:].tolist()) == {-1}
    np.testing.assert_allclose(taught.taught[n:], thinks[n:], atol=1e-6)
    np.testing.assert_allclose(taught.taught[:n], (train.labels + thinks[:n]) / 2, atol=1e-6)
    none = add_probabilities(train, teachers, encoder, 0)
    assert len(none) == n


def test_of_several_teachers_the_mean_log_odds_count(
    trained: Path, half_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpairs.training.teachers.fast_bf16", lambda _: False)  # as `predict`, on any machine
    pairs = qpairs.load_pairs(str(half_csv)).subset(np.arange(60))
    cross, encoder = load_teacher(str(teacher_of(trained))), load_teacher(str(trained))
    first, second = (np.asarray(probabilities_of([teacher], pairs), np.float64) for teacher in (cross, encoder))
    odds = (np.log(first / (1 - first)) + np.log(second / (1 - second))) / 2
    np.testing.assert_allclose(probabilities_of([cross, encoder], pairs), 1 / (1 + np.exp(-odds)), atol=1e-5)
    theirs = qpairs.predict(trained, pairs).probability
    np.testing.assert_allclose(second, theirs, atol=1e-5)


def test_a_checkpoint_teaches_an_encoder_of_another_kind(pairs_csv: Path, tmp_path: Path) -> None:
    data = str(pairs_csv)
    common = {**FAST, "batch_size": 32, "max_length": 24}
    own_options = {**common, "encoder": "tiny", "teacher": (), "epochs": 2.0}
    own = qpairs.train(data=data, output=str(tmp_path / "x"), seed=3, **own_options)
    options = {**common, "encoder": "static", "teacher": (str(own.path),), "epochs": 30.0, "patience": 0}
    student = qpairs.train(data=data, output=str(tmp_path / "y"), seed=3, **options)
    told = student.split["teacher"]
    assert told["same_split"]
    assert told["average_precision"] == pytest.approx(own.scores["validation"]["average_precision"], abs=0.02)
    assert not teacher_of(tmp_path / "y").exists()
    alone = qpairs.train(data=data, output=str(tmp_path / "z"), seed=3, **{**options, "teacher": ()})
    pairs = qpairs.load_pairs(data)

    def odds(model: Any) -> Any:
        return qpairs.predict(model, pairs).similarity

    said = odds(own)
    assert np.corrcoef(odds(student), said)[0, 1] > np.corrcoef(odds(alone), said)[0, 1]


def test_both_passes_of_an_encoder_that_teaches_itself_share_its_time(
    half_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets, fit = [], stages.fit_bi_encoder

    def noted(run: Any, *args: Any, **options: Any) -> Any:
        budgets.append((run.config.epochs, run.config.budget_minutes))
        return fit(run, *args, **options)

    monkeypatch.setattr(stages, "fit_bi_encoder", noted)
    options = {**ITSELF, "epochs": 0.3, "second_epochs": 0.1, "budget_minutes": 8.0}
    qpairs.train(data=str(half_csv), output=str(tmp_path / "run"), **options)
    assert budgets == [(0.3, pytest.approx(6.0)), (0.1, pytest.approx(2.0))]


def test_an_encoder_that_teaches_itself_goes_on_from_its_first_pass(half_csv: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    options = {**FAST, "encoder": "static", "teacher": ("tiny", "itself")}
    output = tmp_path / "x"
    seen: dict[str, torch.Tensor] = {}

    def on_progress(now: Any) -> None:
        if not stages or stages[-1] != now.stage:
            stages.append(now.stage)
            first = partial_of(output) / "first-pass"
            if now.stage == "training":
                seen.update(load_file(first / "model.safetensors"))

    model = qpairs.train(data=str(half_csv), output=str(output), seed=3, on_progress=on_progress, **options)
    assert stages == [
        "first pass",
        "training the teacher",
        "evaluating the teacher",
        "asking the teachers",
        "training",
        "evaluating",
    ]
    alone = qpairs.train(data=str(half_csv), output=str(tmp_path / "y"), seed=3, **{**options, "teacher": ()})
    after = load_file(output / "model.safetensors")
    first = load_file(Path(alone.config.output) / "model.safetensors")
    assert all(torch.equal(first[name], seen[name]) for name in first)
    assert any(not torch.equal(first[name], after[name]) for name in first)
    assert model.split["teacher"]["same_split"]
    assert teacher_of(output).exists()
    assert not partial_of(output).exists()


def test_the_second_pass_starts_from_the_first_one_with_lower_rates_and_its_own_epochs(
    half_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With mocks in place of trainings."""
    config = Config(data=(str(half_csv),), encoder="static", teacher=("itself",), epochs=3.0, second_epochs=2.0)
    parts, teaching = load_parts(config), object()
    first, encoder = (build_encoder("static", texts=parts.train.questions, seed=seed) for seed in (1, 2))
    verdict = SimpleNamespace(
        encoder=first, head=None, verdict=SimpleNamespace(pair=SimpleNamespace(calibration=Calibration(8.0, -3.0)))
    )

    def ask(run: Run, teachers: dict[str, Teacher], encoder: Any) -> Any:
        assert teachers["itself"].model is verdict
        assert teachers["itself"].fingerprint == parts.split["fingerprint"]
        return teaching

    def fitted(run: Run, encoder: Any, goal: Any, **options: Any) -> Any:
        assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), first.parameters(), strict=True))
        return run.parts, run.config.epochs, goal, options

    monkeypatch.setattr(stages, "_first_pass", lambda run, goal: verdict)
    monkeypatch.setattr(stages, "ask_teachers", ask)
    monkeypatch.setattr(stages, "fit_bi_encoder", fitted)
    goal = parse_objective("contrastive")
    answered, (taught, epochs, second, options) = stages._fit(
        Run(config, parts, tmp_path), encoder, stages.Guides(goal, {}, None)
    )
    assert answered is taught is teaching
    assert (epochs, options) == (2.0, {"rate_factor": stages.SECOND_RATE, "taught": None})
    assert second == second_objective(verdict, goal) != goal


def with_calibration(model: qpairs.Checkpoint, slope: float, intercept: float) -> qpairs.Checkpoint:
    pair = replace(model.verdict.pair, calibration=Calibration(slope, intercept))
    return replace(model, verdict=replace(model.verdict, pair=pair))


def test_the_second_pass_asks_for_the_probabilities_that_the_first_ones_calibration_reads(trained: Path) -> None:
    first = qpairs.load_checkpoint(trained)
    rows, known = knowledge()
    goal = second_objective(with_calibration(first, 8.0, -3.0), parse_objective("contrastive"))
    wanted = {(0, 1): 0.8, (3, 4): 0.6, (4, 5): 0.1, (0, 2): 0.0}
    says = [1 / (1 + np.exp(-(8.0 * float(rows[i] @ rows[j]) - 3.0))) for i, j in wanted]
    naive = [-p * np.log(q) - (1 - p) * np.log(1 - q) for p, q in zip(wanted.values(), says, strict=True)]
    assert float(goal(rows, rows, known)) == pytest.approx(np.mean(naive), rel=1e-5)
    blind = with_calibration(first, 0.0, -0.5)
    assert second_objective(blind, parse_objective("contrastive")) == parse_objective("contrastive")


def test_an_encoder_that_teaches_itself_may_learn_the_labels_by_any_loss(half_csv: Path, tmp_path: Path) -> None:
    options = {**ITSELF, "encoder": "static", "loss": "multi_similarity"}
    model = qpairs.train(data=str(half_csv), output=str(tmp_path / "x"), seed=3, **options)
    assert model.config.loss == "multi_similarity"
    assert model.scores["validation"]["f1"] > 0.5


def test_judging_does_not_depend_on_the_order_of_a_pair(trained: Path) -> None:
    teachers = [load_teacher(str(teacher_of(trained)))]
    texts = ["How do I pay?", "where is my parcel, and when does it come?", "???"]
    there, back = (
        probabilities_of(teachers, pairs_from_texts(a, b, [-1] * 3))
        for a, b in ((texts, texts[::-1]), (texts[::-1], texts))
    )
    np.testing.assert_allclose(there, back, atol=1e-6)


def test_a_batch_says_what_the_teacher_thinks_and_unlabelled_pairs_stay_unknown() -> None:
    pairs = pairs_from_texts(["a b", "c d", "e f"], ["c d", "e f", "g h"], [1, 0, -1])
    pairs = type(pairs)(
        pairs.questions, pairs.left, pairs.right, pairs.labels, taught=np.array([0.9, 0.2, 0.7], np.float32)
    )
    encoder = build_encoder("tiny", texts=pairs.questions * 2)
    questions = TokenizedQuestions(token_ids(encoder, pairs.questions), lambda ids: features(encoder, ids))
    batches = Batches(pairs, [questions], lambda epoch: [BatchIndices(np.array([0, 2]))])
    item = batches[0]
    known, left, right = item["known"], item["left"], item["right"]
    taught = known["teacher_probability"]
    assert taught[left, right].tolist() == pytest.approx([0.9, 0.7])
    assert taught[right, left].tolist() == pytest.approx([0.9, 0.7])
    assert int((~taught.isnan()).sum()) == 4
    assert not known["positive"][left[1], right[1]]
    assert not known["labelled"][left[1], right[1]]
    untaught = pairs_from_texts(["a b"], ["c d"], [1])
    (batch,) = Batches(untaught, [questions], lambda epoch: [BatchIndices(np.array([0]))])
    assert batch["known"]["teacher_probability"] is None


def knowledge() -> tuple[torch.Tensor, BatchLabels]:
    torch.manual_seed(0)
    rows = functional.normalize(torch.randn(6, 8), dim=1)
    off = ~torch.eye(6, dtype=torch.bool)
    positive = torch.zeros(6, 6, dtype=torch.bool)
    positive[0, 1] = positive[1, 0] = True
    labelled = torch.zeros_like(positive)
    labelled[0, 2] = labelled[2, 0] = True
    taught = torch.full((6, 6), torch.nan)
    for i, j, p in ((0, 1, 0.8), (3, 4, 0.6), (4, 5, 0.1)):
        taught[i, j] = taught[j, i] = p
    return rows, BatchLabels(positive, labelled, off & ~positive, teacher_probability=taught)


@pytest.mark.parametrize("dense", [1, 1000])
@pytest.mark.parametrize("miner", [None, "everything"])
def test_the_logistic_loss_learns_probabilities(dense: int, miner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from qpairs.objectives import miners
    from qpairs.objectives import objective as objectives

    monkeypatch.setattr(objectives, "DENSE", dense)  # pairs one by one, or the whole matrix
    rows, known = knowledge()
    goal = parse_objective("logistic(scale=10, threshold=0.5)")
    goal = replace(goal, miner=miner and miners.parse_miner(miner))
    sim = 10 * (rows @ rows.T - 0.5)
    wanted = {(0, 1): 0.8, (3, 4): 0.6, (4, 5): 0.1, (0, 2): 0.0}
    naive = [
        -(p * functional.logsigmoid(sim[i, j]) + (1 - p) * functional.logsigmoid(-sim[i, j]))
        for (i, j), p in wanted.items()
    ]
    torch.testing.assert_close(goal(rows, rows, known), torch.stack(naive).mean())


@pytest.mark.parametrize("dense", [1, 1000])
def test_the_online_contrastive_loss_weighs_both_costs_by_the_teachers_word(
    dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qpairs.objectives import objective as objectives

    monkeypatch.setattr(objectives, "DENSE", dense)
    rows, known = knowledge()
    beliefs = {(0, 1): 0.8, (3, 4): 0.6, (4, 5): 0.1, (0, 2): 0.0}
    distance = {pair: 1 - float(rows[pair[0]] @ rows[pair[1]]) for pair in beliefs}
    nearest = min(d for pair, d in distance.items() if beliefs[pair] < 0.5)
    farthest = max(d for pair, d in distance.items() if beliefs[pair] >= 0.5)
    costs = []
    for pair, p in beliefs.items():
        pull = distance[pair] ** 2 if distance[pair] > nearest else 0
        push = max(0, 1.2 - distance[pair]) ** 2 if distance[pair] < farthest else 0
        costs.append(p * pull + (1 - p) * push)
    assert float(parse_objective("online_contrastive(margin=1.2)")(rows, rows, known)) == pytest.approx(
        np.mean(costs), rel=1e-4
    )
    assert min(costs) != max(costs)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, entry in LOSSES.items()
        if not entry.soft_labels and not entry.prototypes and not entry.only_unlabelled
    ],
)
def test_no_other_loss_hears_more_of_the_teacher_than_what_is_no_negative(name: str) -> None:
    rows, known = knowledge()
    goal, probability = parse_objective(name), known.teacher_probability
    assert probability is not None
    for heard, unrelated in (
        (probability.clamp(max=0.49), known.unrelated),
        (probability, known.unrelated & ~(probability >= 0.5)),
    ):
        unheard = replace(known, teacher_probability=None, unrelated=unrelated)
        torch.testing.assert_close(
            goal(rows, rows, replace(known, teacher_probability=heard)), goal(rows, rows, unheard)
        )


def test_pairs_that_a_teacher_judged_are_no_strangers() -> None:
    rows, known = knowledge()
    goal = parse_objective("strangers(margin=1.5)")
    unjudged = replace(known, teacher_probability=None)
    distance = 1 - rows @ rows.T
    for labels, judged in ((known, {(3, 4), (4, 5)}), (unjudged, set())):
        strangers = [(i, j) for i in range(6) for j in range(i) if (i, j) not in {(1, 0), (2, 0)}]
        strangers = [(i, j) for i, j in strangers if (j, i) not in judged]
        costs = [max(0.0, 1.5 - float(distance[pair])) ** 2 for pair in strangers]
        assert float(goal(rows, rows, labels)) == pytest.approx(np.mean(costs), rel=1e-4)


def test_what_the_user_can_mend(run: Any, half_csv: Path, trained: Path, tmp_path: Path) -> None:
    def told(*options: str) -> Any:
        return run("train", "--data", half_csv, "--encoder", "static", "--output", "x", *options)

    refused(told("--teacher", "lstm"), "lstm is not a transformer", "minilm")
    refused(told("--teacher", "minilmm"), "minilmm", "minilm")
    refused(told("--teacher", "tiny", "--loss", "contrastive"), "no part of the loss", "online_contrastive")
    refused(told("--teacher", "tiny", "--sampler", "groups"), "groups")
    refused(told("--teacher", "tiny", "--neighbours", "-1"), "neighbours")
    refused(told("--teacher", "tiny", "--no-symmetric"), "neighbours: pairs any two near questions", "set it to 0")
    refused(told("--teacher", "tiny", "--teacher", "minilm"), "one cross-encoder", "tiny, minilm")
    refused(told("--teacher", "itself", "--teacher", "itself"), "itself is named twice")
    refused(told("--teacher", "itsel"), "itself")
    (tmp_path / "x-teacher").mkdir()
    refused(told("--teacher", "tiny"), "x-teacher", "--teacher")
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.partial").exists()


def test_a_teacher_whose_loss_becomes_nan_saves_nothing(
    half_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qpairs.training import cross_encoder

    monkeypatch.setitem(cross_encoder.RATES, "tiny", 1e30)
    with pytest.raises(qpairs.UserError, match="teacher: its loss became NaN; nothing was saved"):
        qpairs.train(data=str(half_csv), output=str(tmp_path / "x"), **FAST)
    assert list(tmp_path.iterdir()) == []


def test_audit_and_compare_take_a_teacher_only_where_it_makes_sense(run: Any, half_csv: Path, trained: Path) -> None:
    there = str(teacher_of(trained))
    refused(run("audit", "--data", half_csv, "--teacher", there, "--output", "s.csv"), "audit", "disputes none")
    refused(run("audit", "--data", half_csv, "--encoder", trained, "--output", "s.csv"), "audit", "disputes none")
    options = ("--data", half_csv, "--encoders", "static", "--losses", "logistic", "--output", "c")
    refused(run("compare", *options, "--teacher", "tiny"), "compare", "name its folder")


def test_a_cross_encoder_of_three_classes_is_refused(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.sentence_transformer.modules import Dense

    model = new_cross_encoder("tiny", texts=["a b c d"] * 3, max_length=8, seed=0)
    wide = Dense(model[-1].in_features, 3, activation_function=torch.nn.Identity(), module_output_name="scores")
    three = CrossEncoder(modules=[model[0], model[1], wide], num_labels=3)
    three.save_pretrained(str(tmp_path / "three"))
    with pytest.raises(qpairs.UserError, match="gives 3 numbers"):
        load_teacher(str(tmp_path / "three"))


def test_a_teacher_of_an_older_version_is_read(tmp_path: Path) -> None:
    model = new_cross_encoder("tiny", texts=["a b c d"] * 3, max_length=8, seed=0)
    model.save_pretrained(str(tmp_path / "t"), create_model_card=False)
    (tmp_path / "t" / OLD_FILE).write_text(json.dumps({"encoder": "tiny", "fingerprint": "abc"}))
    loaded = load_teacher(str(tmp_path / "t"))
    assert (loaded.encoder, loaded.fingerprint) == ("tiny", "abc")
    pairs = pairs_from_texts(["a b"], ["c d"], [-1])
    np.testing.assert_array_equal(probabilities_of([Teacher(model)], pairs), probabilities_of([loaded], pairs))


def test_a_trained_teacher_is_a_model_with_a_verdict(trained: Path) -> None:
    model = qpairs.load(teacher_of(trained))
    assert isinstance(model, CrossModel)
    assert (model.config.encoder, model.config.output) == ("tiny", str(teacher_of(trained)))
    teacher = load_teacher(str(teacher_of(trained)))
    assert (teacher.encoder, teacher.fingerprint) == ("tiny", qpairs.load(trained).split["fingerprint"])
    told = qpairs.load(trained).split["teacher"]
    assert model.scores["validation"]["average_precision"] == pytest.approx(told["average_precision"], abs=1e-6)
