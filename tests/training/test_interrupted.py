"""A run that was killed can always be gone on with, by `--resume` or by the same command, and never as another run."""

import json
from pathlib import Path

import pytest

import qpairs
from qpairs.config import Config, to_dict, to_toml
from qpairs.core.exceptions import UserError
from qpairs.core.files import hold_output
from qpairs.models.unfinished import SPLIT, is_interrupted, partial_of
from qpairs.training import run as runs
from qpairs.training.run import CONFIG, check_run, run_config, saved_before
from qpairs.training.trainer import COMPLETE, check_state, complete_states, mark_complete


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "model"


def begun(output: Path, *, split: bool) -> Path:
    """The folder of a run that was killed before its split was written, or after."""
    folder = partial_of(output)
    folder.mkdir(exist_ok=True)
    (folder / ".lock").touch()
    (folder / CONFIG).write_text(to_toml(Config(output=str(output))))
    if split:
        (folder / SPLIT).write_text(json.dumps({"fingerprint": "ab"}))
    return folder


def test_a_run_that_has_nothing_to_resume_is_no_interrupted_run(output: Path) -> None:
    folder = begun(output, split=False)
    assert not is_interrupted(folder)
    check_run(Config(output=str(output)), resume=False, overwrite=False)
    with pytest.raises(UserError, match="no interrupted run to resume"):
        run_config({"output": str(output)}, resume=True)


def test_a_run_that_can_be_resumed_is_not_begun_anew_by_accident(output: Path) -> None:
    begun(output, split=True)
    with pytest.raises(UserError, match="an unfinished run is here"):
        check_run(Config(output=str(output)), resume=False, overwrite=False)
    assert to_dict(run_config({"output": str(output)}, resume=True))["output"] == str(output)


def test_a_model_whose_run_is_unfinished_is_told_from_one_that_is_nowhere(output: Path) -> None:
    begun(output, split=False)
    with pytest.raises(UserError, match="no such checkpoint"):
        qpairs.load(output)
    partial = begun(output, split=True)
    for path in (output, partial):
        with pytest.raises(UserError) as told:
            qpairs.load(path)
        assert f"its run is unfinished, in {partial}" in str(told.value)
        assert str(told.value).endswith(f"to resume it: qpairs train --resume --output {output}")


def test_a_folder_of_the_users_own_is_not_emptied(output: Path) -> None:
    folder = partial_of(output)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is needed for the states of this run"):
            check_run(Config(output=str(output)), resume=False, overwrite=overwrite)
    assert (folder / "notes.txt").read_text() == "mine"


def test_rows_of_an_iterator_are_read_once(output: Path, sample_rows: list[tuple[str, str, int]]) -> None:
    def stop(now: qpairs.Progress) -> None:
        if now.stage == "training" and now.done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qpairs.train(
            data=iter(sample_rows), encoder="static", epochs=0.2, batch_size=16, output=str(output), on_progress=stop
        )
    assert is_interrupted(partial_of(output))
    qpairs.train(data=iter(sample_rows), output=str(output), resume=True)
    assert output.exists()


def test_one_process_removes_the_folder_of_a_run_that_was_saved(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(output, split=True)
    config = Config(output=str(output))
    output.mkdir()
    with hold_output(output) as hidden:
        pass
    (hidden / "new").mkdir(parents=True)  # what a process leaves that was killed as the model took its place
    monkeypatch.setattr(runs, "is_saved", lambda config: True)
    monkeypatch.setattr(runs, "broadcast", lambda value: True)
    for rank, left in ((1, True), (0, False)):
        monkeypatch.setattr(runs, "rank", lambda rank=rank: rank)
        assert saved_before(config) == str(output)
        assert folder.exists() == left
        assert hidden.exists() == left


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"):
        (folder / name).write_text(name)
    mark_complete(folder)
    return folder


def test_a_whole_state_is_gone_on_from(state: Path) -> None:
    assert complete_states(state.parent) == [state]
    check_state(state)


@pytest.mark.parametrize("old", [False, True])
def test_a_state_without_its_optimizer_is_refused(state: Path, old: bool) -> None:
    if old:  # its mark was empty
        (state / COMPLETE).write_text("")
        check_state(state)
    (state / "optimizer.pt").unlink()
    with pytest.raises(UserError, match=r"optimizer.pt: missing.*remove checkpoint-7"):
        check_state(state)


def test_an_edited_state_is_refused(state: Path) -> None:
    (state / "trainer_state.json").write_text("null")
    with pytest.raises(UserError, match=r"trainer_state.json: damaged"):
        check_state(state)
