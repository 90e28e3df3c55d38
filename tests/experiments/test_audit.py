import csv
import importlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas
import pytest
from conftest import refused, write_csv

import qpairs
from qpairs.config import Config
from qpairs.core.tables import write_table
from qpairs.data.identity import canonical
from qpairs.data.parts import load_parts
from qpairs.experiments.audit import CONTRADICTED, DISPUTED, Audit, audit, component_folds, disputed

FAST = {"encoder": "static", "epochs": 1.0, "batch_size": 16}


def easy_pairs(n: int, seed: int = 0) -> list[tuple[str, str, int]]:
    """Pairs that are duplicates if and only if they have the same words; every question is in one pair alone."""
    random = np.random.default_rng(seed)
    words = [f"{a}{b}" for a in ("pay", "lose", "find", "send") for b in ("card", "form", "key", "bill", "code")]
    rows = []
    for i in range(n):
        order = random.permutation(len(words))
        one, same, far = order[:5], order[4::-1], order[5:10]
        rows.append((*(" ".join(words[k] for k in part) for part in (one, same if i % 2 else far)), i % 2))
    return rows


@pytest.fixture(scope="module")
def easy() -> list[tuple[str, str, int]]:
    return easy_pairs(240)


def pairs_of(rows: list[tuple[str, str, int]]) -> qpairs.Pairs:
    return qpairs.pairs_from_texts(*map(list, zip(*rows, strict=True)))


def test_folds_share_no_question_and_are_of_one_size(sample_rows: list) -> None:
    pairs = pairs_of(sample_rows + [(a.upper(), b + "!", y) for a, b, y in sample_rows[:50]])
    fold = component_folds(pairs, 3, seed=1)
    texts = [{canonical(q) for q in pairs.subset(fold == k).questions} for k in range(3)]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    assert np.bincount(fold).min() > len(pairs) / 3 - 100
    assert (component_folds(pairs, 3, seed=1) == fold).all()
    assert (component_folds(pairs, 3, seed=2) != fold).any()


def test_too_few_components_are_refused() -> None:
    with pytest.raises(qpairs.UserError, match="--folds takes 2 to 3"):
        component_folds(qpairs.pairs_from_texts(list("ace"), list("bdf"), [0, 1, 0]), 4)


def test_confident_learning_finds_the_labels_that_sure_models_deny_and_no_other() -> None:
    random = np.random.default_rng(0)
    truth = random.random(500) < 0.4
    wrong = random.random(500) < 0.05
    probability = np.where(truth, random.uniform(0.7, 1, 500), random.uniform(0, 0.3, 500))
    found = disputed((truth ^ wrong).astype(np.int8), probability)
    assert not (found & ~wrong).any()
    assert found.sum() > 0.5 * wrong.sum()
    all_of_them = disputed((truth ^ wrong).astype(np.int8), probability, confidence=0.7)
    assert all_of_them.sum() > found.sum()
    assert (all_of_them >= found).all()


def test_a_confidence_that_is_no_probability_is_refused() -> None:
    with pytest.raises(qpairs.UserError, match="confidence is 80; it must be a probability"):
        audit(confidence=80)


def test_unsure_models_dispute_nothing() -> None:
    random = np.random.default_rng(0)
    labels = (random.random(500) < 0.4).astype(np.int8)
    probability = random.uniform(0.25, 0.75, 500)
    assert not disputed(labels, probability).any()
    assert disputed(labels, probability, confidence=0.0).any()


def test_suspects_with_two_reasons_come_first_then_the_least_probable_labels() -> None:
    pairs = qpairs.pairs_from_texts(list("abcde"), list("vwxyz"), [1, 0, 0, 1, 0])
    flags = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0]], dtype=bool)
    result = Audit(pairs, np.array([0.2, 0.1, 0.6, 0.1, 0.9]), *flags)
    assert result.order.tolist() == [2, 3, 0, 1, 4]
    assert [s.question1 for s in result.suspects] == ["c", "d", "a", "b"]
    assert [s.suggested for s in result.suspects] == [1, 0, 0, 1]
    assert result.suspects[0].reason == f"{DISPUTED} and {CONTRADICTED}"
    assert [s.reason for s in result.suspects[1:]] == [DISPUTED, DISPUTED, CONTRADICTED]


def test_no_model_has_seen_a_question_that_it_judges(sample_rows: list, monkeypatch: pytest.MonkeyPatch) -> None:
    home = importlib.import_module("qpairs.experiments.audit")
    train, predict, seen, judged = home.train, home.predict, [], []

    def spied_train(*args: object, parts: object, **kwargs: object) -> object:
        seen.append({canonical(q) for part in (parts.train, parts.validation) for q in part.questions})
        return train(*args, parts=parts, **kwargs)

    def spied_predict(model: object, pairs: qpairs.Pairs) -> object:
        judged.append({canonical(q) for q in pairs.questions})
        return predict(model, pairs)

    monkeypatch.setattr(home, "train", spied_train)
    monkeypatch.setattr(home, "predict", spied_predict)
    pairs, steps = pairs_of(sample_rows[:300]), []
    result = audit(pairs=pairs, folds=2, on_progress=steps.append, **FAST)
    assert len(seen) == len(judged) == 2
    assert not any(a & b for a, b in zip(seen, judged, strict=True))
    assert set.union(*judged) == {canonical(q) for q in pairs.questions}
    shares = [now.done / now.total for now in steps]
    assert shares == sorted(shares)
    assert list(dict.fromkeys(now.stage for now in steps)) == ["fold 1 of 2", "fold 2 of 2"]
    assert (steps[-1].done, steps[-1].metrics["epoch"]) == (steps[-1].total, 1)
    assert ((result.probability >= 0) & (result.probability <= 1)).all()


def test_planted_labels_are_found_and_the_contradicted_ones_too(easy: list) -> None:
    pairs = pairs_of(easy)
    planted = 2 + np.random.default_rng(3).choice(len(pairs) - 2, 12, replace=False)
    rows = [(a, b, 1 - y if i in planted else y) for i, (a, b, y) in enumerate(easy)]
    rows.append((easy[1][1], easy[1][0], 0))
    result = audit(pairs=pairs_of(rows), folds=2, **{**FAST, "epochs": 8.0})
    assert len(set(result.order[:13].tolist()) & {*planted.tolist(), 240}) >= 11
    assert np.flatnonzero(result.contradicted).tolist() == [240]


def test_training_leaves_the_suspects_out_in_either_order(sample_rows: list, tmp_path: Path) -> None:
    data = str(write_csv(tmp_path / "pairs.csv", sample_rows))
    whole = load_parts(Config(data=(data,)))
    train = whole.train
    first = [(*train.texts(i)[:: 1 if i % 2 else -1], 1 - int(train.labels[i])) for i in range(10)]
    held = whole.validation.texts(0)
    suspects = str(write_csv(tmp_path / "suspects.csv", [*first, (*held, 0)]))
    parts = load_parts(Config(data=(data,), drop_suspects=suspects))
    dropped = {frozenset(row[:2]) for row in first}
    assert {frozenset(train.texts(i)) for i in range(len(train))} - dropped == {
        frozenset(parts.train.texts(i)) for i in range(len(parts.train))
    }
    assert parts.split["skipped"] == {"train": {"suspected label": len(train) - len(parts.train)}}
    assert len(parts.validation) == len(whole.validation)
    assert parts.split["fingerprint"] != whole.split["fingerprint"]
    everything = str(write_csv(tmp_path / "all.csv", sample_rows))
    with pytest.raises(qpairs.UserError, match=r"all\.csv: names every training pair"):
        load_parts(Config(data=(data,), drop_suspects=everything))


def test_suspects_that_look_like_formulas_are_dropped_as_they_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = [(f"where is {k}?", f"the place of {k}", k % 2) for k in range(100)]
    rows = [*plain, *((f"-5 times -{k} is what?", f"@home: -5 times -{k}?", k % 2) for k in range(40))]
    data = str(write_csv(tmp_path / "pairs.csv", rows))
    train = load_parts(Config(data=(data,))).train
    odd = [train.texts(row) for row in range(len(train)) if train.texts(row)[0].startswith(("-", "@"))]
    write_table(tmp_path / "suspects.csv", pandas.DataFrame(odd, columns=["question1", "question2"]))
    assert (tmp_path / "suspects.csv").read_text().splitlines()[1].startswith("'")
    left = load_parts(Config(data=(data,), drop_suspects=str(tmp_path / "suspects.csv"))).train
    assert len(odd) > 10 and len(left) == len(train) - len(odd) and not caplog.text
    others = str(write_csv(tmp_path / "others.csv", [("nobody asked", "this", 1)]))
    assert len(load_parts(Config(data=(data,), drop_suspects=others)).train) == len(train)
    assert "names none of the training pairs" in caplog.text


def test_what_audit_writes_train_can_drop(run, easy: list, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "pairs.csv", [(a, b, 1 - y if i < 8 else y) for i, (a, b, y) in enumerate(easy)])
    options = ["--data", data, "--encoder", "static", "--epochs", "8", "--batch-size", "16"]
    code, shown, wrong = run("audit", *options, "--folds", "2", "--examples", "1")
    assert code == 0, wrong
    with Path("suspects.csv").open(newline="") as file:
        suspects = list(csv.DictReader(file))
    assert list(suspects[0]) == ["question1", "question2", "is_duplicate", "suggested", "probability", "reason"]
    assert f"{len(suspects)} of 240 labels are suspect" in " ".join(shown.split())
    assert suspects[0]["question1"] in shown
    assert {p.name for p in tmp_path.iterdir()} == {"pairs.csv", "suspects.csv"}
    code, shown, wrong = run("train", *options, "--drop-suspects", "suspects.csv", "--output", "runs/x")
    assert code == 0, wrong
    dropped = json.loads(Path("runs/x/qpairs.json").read_text())["split"]["skipped"]["train"]["suspected label"]
    assert 0 < dropped <= len(suspects)
    assert f"{dropped} suspected label" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["audit", "--data", "missing.csv", "--encoder", "static"], ["missing.csv", "no such file"]),
        (["audit", "--data", "few.csv", "--encoder", "static"], ["do not make 5 folds", "--folds"]),
        (["audit", "--data", "few.csv", "--output", "folder.csv"], ["folder.csv", "cannot be written"]),
        (["audit", "--data", "few.csv", "--epochs", "0"], ["epochs", "must be epochs > 0"]),
        (["audit", "--data", "few.csv", "--output", "few.csv"], ["few.csv", "exists already", "--overwrite"]),
        (["audit", "--data", "few.csv", "--encoder", "static", "--folds", "2"], ["audit", "not of both labels"]),
        (["train", "--drop-suspects", "missing.csv"], ["missing.csv", "no such file"]),
    ],
)
def test_bad_input_is_one_line(run, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    Path("few.csv").write_text("question1,question2,is_duplicate\na b,c d,1\ne f,g h,0\n")
    Path("folder.csv").mkdir()
    refused(run(*arguments), *words)
    assert {p.name for p in tmp_path.iterdir()} == {"few.csv", "folder.csv"}


def test_a_loss_that_diverges_is_told_without_the_folder_that_is_gone(
    easy: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(config: Config, **_: object) -> None:
        raise qpairs.UserError(f"the loss became NaN; the last good state is saved in {config.output}; mend it")

    monkeypatch.setattr(importlib.import_module("qpairs.experiments.audit"), "train", diverges)
    with pytest.raises(qpairs.UserError) as raised:
        audit(pairs=pairs_of(easy), folds=2, **FAST)
    assert str(raised.value) == "audit: the loss became NaN; mend it"


def test_a_full_temporary_folder_is_named(easy: list, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(config: Config, **_: object) -> None:
        raise qpairs.UserError(f"{config.output}: cannot be written (No space left on device)")

    monkeypatch.setattr(importlib.import_module("qpairs.experiments.audit"), "train", full)
    with pytest.raises(qpairs.UserError) as raised:
        audit(pairs=pairs_of(easy), folds=2, **FAST)
    assert str(raised.value) == f"audit: {tempfile.gettempdir()}/0: cannot be written (No space left on device)"


def test_interrupted_it_does_not_offer_to_go_on(easy: list, caplog: pytest.LogCaptureFixture) -> None:
    def stop(now: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(pairs=pairs_of(easy), folds=2, on_progress=stop, **FAST)
    assert "resume" not in caplog.text


def test_the_interrupted_command_says_so_and_writes_nothing(
    run, easy: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("qpairs.experiments.audit"), "train", stopped)
    done = run("audit", "--data", write_csv(tmp_path / "pairs.csv", easy), "--encoder", "static")
    assert done.code == 130
    assert done.err.strip() == "interrupted; nothing was written"
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.csv"]


def test_without_cleanlab_an_audit_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(qpairs.UserError, match=r"qpairs\[audit\]"):
        audit(data="sample", **FAST)
