"""Evaluated questions that were in training are counted, from files alone, and never at the cost of an evaluation."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_csv
from mocks import MockModel

import qpairs
from qpairs.config import Config
from qpairs.data import sources
from qpairs.data.parts import Parts, load_parts
from qpairs.data.splits import Leak, leak
from qpairs.evaluation import seen as module
from qpairs.evaluation.report import render
from qpairs.evaluation.seen import seen_in_training, seen_note
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
    said = f"{n} of {n} questions were seen in training; F1 on them is not that of new questions."
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
