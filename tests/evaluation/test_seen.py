"""Evaluated questions that were in training are counted, from files or digests, never at the cost of an evaluation."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from conftest import write_csv
from mocks import MockModel

import qpairs
from qpairs.config import Config
from qpairs.data import sources
from qpairs.data.identity import among, canonical, question_digests
from qpairs.data.pairs import Pairs
from qpairs.data.parts import TRAINED_ON, Parts, load_parts
from qpairs.data.splits import Leak, leak
from qpairs.evaluation import seen as module
from qpairs.evaluation.report import render
from qpairs.evaluation.seen import seen_by_encoder, seen_in_training, seen_note
from qpairs.models.bi_encoder import Checkpoint


class Lengths:
    """An encoder whose vectors say how long a text is."""

    dimension = 2

    def encode(self, texts: list[str], side: str = "left") -> np.ndarray:
        angle = np.array([len(text) for text in texts]) / 60
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def trained(parts: Parts, config: Config) -> MockModel:
    return MockModel(Lengths(), config=config, split=json.loads(json.dumps(parts.split)))


@pytest.fixture(scope="module")
def config(pairs_csv: Path) -> Config:
    return Config(data=(str(pairs_csv),))


@pytest.fixture(scope="module")
def parts(config: Config) -> Parts:
    return load_parts(config)


def test_every_question_of_the_training_part_was_seen_and_none_of_the_test_part(config: Config, parts: Parts) -> None:
    model, n = trained(parts, config), len(parts.train.questions)
    assert parts.test is not None
    assert seen_in_training(model, parts.train) == Leak(n, n, len(parts.train), len(parts.train))
    nothing = seen_in_training(model, parts.test)
    assert nothing == Leak(0, len(parts.test.questions), 0, len(parts.test))
    report = qpairs.evaluate(model, parts.train).to_dict()
    assert report["seen_in_training"] == {"questions": n, "of_questions": n, "pairs": len(parts.train)} | {
        "of_pairs": len(parts.train)
    }


def test_what_an_encoder_had_learned_before_the_run_counts(
    pairs_csv: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"data": str(pairs_csv), "epochs": 0.1}
    first = qpairs.train(encoder="static", seed=1, output=str(tmp_path / "first"), **options)
    assert "was trained on questions" not in caplog.text
    again = qpairs.train(encoder=str(first.path), seed=2, output=str(tmp_path / "again"), **options)
    part = load_parts(again.config).validation
    by_first = seen_in_training(first, part)
    assert by_first is not None
    assert by_first.questions > 0
    assert seen_in_training(again, part) == seen_by_encoder(again.config, part) == by_first
    assert seen_by_encoder(Config(encoder=f"lstm+{again.path}"), part) == by_first
    note = seen_note(by_first.questions, by_first.of_questions)
    assert f"encoder: {first.path} was trained on questions of the validation part: {note}" in caplog.text
    replaced = qpairs.train(encoder=str(first.path), seed=2, output=str(first.path), overwrite=True, **options)
    assert seen_in_training(replaced, part) is None  # what it began with is gone


def test_a_folder_named_as_an_encoder_is_not_what_the_run_began_with(
    pairs_csv: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"data": str(pairs_csv), "encoder": "static", "epochs": 0.1}
    for seed, output in enumerate(("static", "again"), 1):
        model = qpairs.train(seed=seed, output=output, **options)
        test = load_parts(model.config).test
        assert test is not None
        assert seen_in_training(model, test) == Leak(0, len(test.questions), 0, len(test))
    assert "was trained on questions" not in caplog.text


def test_a_text_counts_however_it_is_written(config: Config, parts: Parts) -> None:
    known = parts.train.questions[0]
    pairs = qpairs.pairs_from_texts([known.upper() + " !!", "zebra one"], ["zebra two", "zebra three"], [0, 1])
    assert seen_in_training(trained(parts, config), pairs) == Leak(1, 4, 1, 2)


@pytest.mark.parametrize(
    "changes",
    [{}, {"validation": 1}, {"test": 1}, {"validation": 1, "test": 1}, {"drop_suspects": 1}, {"augment": 0.5}],
)
def test_strangers_are_no_leak_however_the_parts_were_named(
    pairs_csv: Path, sample_rows: list, tmp_path: Path, changes: tuple[str, ...]
) -> None:
    """The pairs are counted as they were cut, so that the quick answer is the same as that of cutting them again."""
    other = str(write_csv(tmp_path / "other.csv", sample_rows[:100]))
    values = {"drop_suspects": other, "augment": 0.5, "validation": (other,), "test": (other,)}
    config = Config(data=(str(pairs_csv),), **{name: values[name] for name in changes})  # type: ignore[arg-type]
    parts = load_parts(config)
    strangers = qpairs.pairs_from_texts(["zebra one"], ["zebra two"], [0])
    model = trained(parts, config)
    assert seen_in_training(model, strangers) == Leak(0, 2, 0, 1)
    assert seen_in_training(model, parts.validation) == leak(parts.train, parts.validation)


def test_strangers_do_not_make_the_pairs_be_cut_again(
    config: Config, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "training_pairs", lambda *_: pytest.fail("cut again"))
    strangers = qpairs.pairs_from_texts(["zebra one"], ["zebra two"], [0])
    assert seen_in_training(trained(parts, config), strangers) == Leak(0, 2, 0, 1)


def test_training_pairs_that_are_gone_or_have_changed_are_not_mentioned(
    parts: Parts, sample_rows: list, tmp_path: Path
) -> None:
    file = write_csv(tmp_path / "pairs.csv", sample_rows)
    model = trained(parts, Config(data=(str(file),)))
    strangers = qpairs.pairs_from_texts(["zebra one"], ["zebra two"], [0])
    for data in (parts.train, strangers):
        assert seen_in_training(model, data) is not None
    write_csv(file, sample_rows[:-1])
    for data in (parts.train, strangers):
        assert seen_in_training(model, data) is None
    file.write_bytes(b"\xff\xfe\x00 not a table")
    assert seen_in_training(model, parts.train) is None
    file.unlink()
    assert seen_in_training(model, parts.train) is None
    assert seen_in_training(dataclasses.replace(model, split={}), parts.train) is None
    assert qpairs.evaluate(model, parts.train).to_dict()["seen_in_training"] is None


@pytest.mark.parametrize("source", ["quora", "owner/name", "folder"])
def test_neither_the_hub_nor_a_folder_is_asked(
    source: str, parts: Parts, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(sources, "open_dataset", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(module, "load_pairs", lambda *_, **__: pytest.fail("read"))
    for changes in ({"data": (source,)}, {"validation": (source,)}, {"data": (*config.data, source)}):
        assert seen_in_training(trained(parts, dataclasses.replace(config, **changes)), parts.train) is None


def test_so_many_pairs_that_it_would_take_minutes_are_not_read(
    parts: Parts, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", len(parts.train) - 1)
    assert seen_in_training(trained(parts, config), parts.train) is None


def in_memory(kind: str, rows: list[tuple[str, str, int]]) -> Any:
    table = pandas.DataFrame(rows, columns=["question1", "question2", "is_duplicate"])
    return {"tuples": rows, "dicts": table.to_dict("records"), "frame": table}[kind]


@pytest.mark.parametrize("kind", ["tuples", "dicts", "frame"])
def test_a_model_trained_from_memory_is_told_of_as_one_trained_from_a_file(
    run: Callable, sample_rows: list, tmp_path: Path, kind: str
) -> None:
    options: dict[str, Any] = {"encoder": "static", "epochs": 1, "batch_size": 16}
    file = write_csv(tmp_path / "pairs.csv", sample_rows)
    qpairs.train(data=str(file), output=str(tmp_path / "file"), **options)
    qpairs.train(data=in_memory(kind, sample_rows), output=str(tmp_path / "memory"), **options)
    parts = load_parts(Config(data=(str(file),)))
    assert parts.test is not None and TRAINED_ON not in parts.split
    mixed = [*((*parts.test.texts(row), int(parts.test.labels[row])) for row in range(40))]
    mixed += [(*(text.upper() for text in parts.train.texts(row)), int(parts.train.labels[row])) for row in range(9)]
    found = [seen_in_training(qpairs.load(tmp_path / name), qpairs.load_pairs(mixed)) for name in ("file", "memory")]
    assert found[0] == found[1] and found[0] is not None and 0 < found[0].questions < found[0].of_questions
    write_csv(tmp_path / "mixed.csv", mixed)
    said = [run("evaluate", tmp_path / name, "--data", tmp_path / "mixed.csv") for name in ("file", "memory")]
    notes = [[line for line in done.out.splitlines() if "seen in training" in line] for done in said]
    assert notes[0] == notes[1] and len(notes[0]) == 1
    strangers = qpairs.pairs_from_texts(["zebra one"], ["zebra two"], [0])
    assert seen_in_training(qpairs.load(tmp_path / "memory"), strangers) == Leak(0, 2, 0, 1)
    qpairs.export_checkpoint(tmp_path / "memory", tmp_path / "export", format="static", data=sample_rows)
    assert seen_in_training(qpairs.load(tmp_path / "export"), qpairs.load_pairs(mixed)) == found[0]


def test_questions_without_labels_in_memory_are_remembered_too() -> None:
    texts = ["How do I pay?", *(f"Where is parcel {number}?" for number in range(10))]
    pairs = Pairs(tuple(texts), *[np.empty(0, np.int64)] * 2, np.empty(0, np.int8))
    made = load_parts(Config(data=("in memory: 3 questions",), unlabelled=True), {"data": pairs})
    assert among(made.split[TRAINED_ON], map(canonical, ["how do i PAY", "Why?"])) == {canonical("How do I pay?")}


def test_digests_are_small_in_any_order_and_damaged_ones_are_not_believed(config: Config, parts: Parts) -> None:
    questions = [f"question {number}" for number in range(1000)]
    digests = question_digests(questions)
    assert len(digests) == 8000 and digests == question_digests(reversed(questions))
    assert among(digests, [canonical(f"question {number}") for number in range(990, 1010)]) == {
        canonical(f"question {number}") for number in range(990, 1000)
    }
    damaged = MockModel(Lengths(), config=config, split={**parts.split, TRAINED_ON: "no base64!"})
    assert seen_in_training(damaged, parts.train) is None


def test_so_many_questions_that_the_file_of_the_model_would_be_large_are_not_remembered(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, memory = {"data": parts.train}, Config(data=("in memory: 1 pairs (list)",))
    assert TRAINED_ON in load_parts(memory, given).split
    monkeypatch.setattr("qpairs.data.parts.MOST_DIGESTS", 10)
    assert TRAINED_ON not in load_parts(memory, given).split


def test_nothing_is_said_of_nothing() -> None:
    assert seen_note(0, 10) == ""


def test_the_command_and_the_page_say_it(
    run: Callable, checkpoint: Checkpoint, pairs_csv: Path, sample_rows: list, tmp_path: Path
) -> None:
    parts = load_parts(checkpoint.config)
    assert parts.test is not None
    files = {name: tmp_path / f"{name}.csv" for name in ("train", "test")}
    for name, part in (("train", parts.train), ("test", parts.test)):
        write_csv(files[name], [(*part.texts(row), int(part.labels[row])) for row in range(len(part))])
    n = len(parts.train.questions)
    said = f"{n} of {n} questions were seen in training; F1 on them does not hold for new questions."
    for name, wanted in (("train", True), ("test", False)):
        code, out, err = run("evaluate", checkpoint.path, "--data", files[name])
        assert code == 0, err
        assert (said in " ".join(out.split())) == wanted
        assert (said in render(checkpoint, files[name])) == wanted
        assert ("seen in training" in out) == wanted


def test_no_network_library_and_no_torch_is_imported() -> None:
    script = (
        "import sys; from qpairs.data.parts import load_parts; from qpairs.config import Config\n"
        "from qpairs.evaluation.seen import seen_in_training; from types import SimpleNamespace as Model\n"
        "config = Config(data=('sample',)); parts = load_parts(config)\n"
        "assert seen_in_training(Model(config=config, split=parts.split), parts.train).questions > 1000\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'sklearn', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
