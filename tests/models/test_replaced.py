"""A model that is read while it is replaced is one model, never the weights of one run and the threshold of another."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mocks import moved
from safetensors.numpy import load_file, save_file

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.core.files import INSIDE, WHOLE
from qpairs.models import base
from qpairs.models.bi_encoder import load_checkpoint
from qpairs.models.model_file import OtherWeights, write_model_file

STORED = Path(__file__).parents[1] / "fixtures" / "commit_48e0593" / "one"
REPLACE = """
import shutil, sys
from pathlib import Path
from qpairs.core.files import atomic_folder
place, *others = map(Path, sys.argv[1:])
print("ready", flush=True)
while True:
    for other in others:
        with atomic_folder(place) as fresh:
            shutil.copytree(other, fresh, dirs_exist_ok=True)
"""


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two models: the second has the opposite weights and another threshold."""
    first, second = tmp_path / "first", tmp_path / "second"
    moved(qpairs.load(STORED), threshold=0.25).save(first)
    moved(qpairs.load(STORED), threshold=0.75).save(second)
    for file in second.rglob("*.safetensors"):
        save_file({name: -weights for name, weights in load_file(file).items()}, file)
    write_model_file(second, json.loads((second / base.FILE).read_text()))
    return [first, second]


def test_a_model_is_of_one_run(two: list[Path], tmp_path: Path) -> None:
    expected = {model.verdict.pair.threshold: model.encode(["How do I pay?"]) for model in map(qpairs.load, two)}
    assert not np.allclose(expected[0.25], expected[0.75])
    place = tmp_path / "model"
    shutil.copytree(two[0], place)
    writer = subprocess.Popen(
        [sys.executable, "-c", REPLACE, place, *two], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    loaded = 0
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for _ in range(40):
            try:
                model = qpairs.load(place)
            except UserError as busy:
                assert "was replaced while it was read" in str(busy)
                continue
            loaded += 1
            np.testing.assert_array_equal(model.encode(["How do I pay?"]), expected[model.verdict.pair.threshold])
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate()
    assert loaded > 0


def test_what_is_wrong_in_a_folder_that_stays_is_said_at_once(two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (two[0] / base.FILE).write_text("{")
    tries = []
    load = base._load
    monkeypatch.setattr(base, "_load", lambda *given: tries.append(given) or load(*given))
    with pytest.raises(UserError, match="damaged"):
        qpairs.load(two[0])
    assert len(tries) == 1


def test_another_fault_after_weights_of_another_run_is_said_as_it_is(
    two: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [OtherWeights("torn"), UserError("damaged")]

    def load(*given: object) -> None:
        raise faults.pop(0)

    monkeypatch.setattr(base, "_load", load)
    with pytest.raises(UserError, match="damaged"):
        qpairs.load(two[0])
    assert not faults


@pytest.mark.parametrize("read", [qpairs.load, load_checkpoint])
def test_a_folder_that_was_moved_in_part_is_put_in_order(two: list[Path], read: Callable[[Path], qpairs.Model]) -> None:
    whole = two[0] / INSIDE / WHOLE
    whole.mkdir(parents=True)
    left = sorted(entry for entry in two[0].iterdir() if entry.name > base.FILE)
    assert left
    for entry in left:
        entry.rename(whole / entry.name)
    assert read(two[0]).verdict.pair.threshold == 0.25
    assert not (two[0] / INSIDE).exists()
