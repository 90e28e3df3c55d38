import json
from pathlib import Path

import numpy as np
import pytest
from mocks import moved

import qpairs
from qpairs.models.base import FILE
from qpairs.models.bi_encoder import Checkpoint


def test_checkpoints_survive_the_disk(checkpoint: Checkpoint, tmp_path: Path) -> None:
    qpairs.save_checkpoint(checkpoint, tmp_path / "x")
    back = qpairs.load_checkpoint(tmp_path / "x")
    for name in ("verdict", "config", "split", "scores"):
        assert json.dumps(getattr(back, name), default=str) == json.dumps(getattr(checkpoint, name), default=str)
    np.testing.assert_array_equal(back.encoder.encode("a b"), checkpoint.encoder.encode("a b"))


def test_a_checkpoint_is_replaced_whole_or_not_at_all(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = qpairs.save_checkpoint(checkpoint, tmp_path / "x")
    before = (path / FILE).read_bytes()

    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(qpairs.UserError, match="No space left"):
            qpairs.save_checkpoint(checkpoint, path, overwrite=True)
    assert (path / FILE).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    qpairs.save_checkpoint(moved(checkpoint, threshold=0.5), path, overwrite=True)
    assert qpairs.load_checkpoint(path).verdict.pair.threshold == 0.5


def test_a_replacement_that_was_killed_between_its_renames_is_recovered(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = qpairs.save_checkpoint(checkpoint, tmp_path / "x")
    path.rename(tmp_path / ".x.old")
    (tmp_path / ".x.new").mkdir()
    with pytest.raises(qpairs.UserError, match="in use"):
        qpairs.save_checkpoint(checkpoint, path)
    assert qpairs.load_checkpoint(path).verdict.pair.threshold == checkpoint.verdict.pair.threshold
    qpairs.save_checkpoint(checkpoint, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("damage", ["{", "{}", '{"format": 99, "versions": {"qpairs": "9"}}'])
def test_a_damaged_checkpoint_is_one_line(checkpoint: Checkpoint, tmp_path: Path, damage: str) -> None:
    path = qpairs.save_checkpoint(checkpoint, tmp_path / "x")
    (path / FILE).write_text(damage)
    with pytest.raises(qpairs.UserError, match=r"damaged|newer"):
        qpairs.load_checkpoint(path)
