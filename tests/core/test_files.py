import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from qpairs.core import files
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_file, atomic_folder, exclusive_lock, half_done, hold_output, sha256, writing
from qpairs.core.tables import write_tables


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_file(path) as fresh:
        fresh.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(RuntimeError), atomic_file(path) as fresh:
        fresh.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UserError, match="a/b: cannot be written"), atomic_file(tmp_path / "a" / "b"):
        pass


def test_a_full_disk_is_one_line_in_the_systems_words(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised, atomic_file(tmp_path / "a") as fresh:
        fresh.write_text("half")
        raise OSError(errno.ENOSPC, "what a library makes of it\nin two lines")
    assert str(raised.value) == f"{tmp_path}/a: cannot be written ({os.strerror(errno.ENOSPC)})"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        shutil.Error([("a", "b", f"[Errno 28] {os.strerror(errno.ENOSPC)}: 'a' -> 'b'")]),
        RuntimeError(f"write error in x.faiss: 4051 != 20480 ({os.strerror(errno.EFBIG)})"),
        OSError(f"a library's own words, {os.strerror(errno.EROFS)}"),
    ],
    ids=["a folder that is copied", "FAISS", "no number"],
)
def test_a_full_disk_is_one_line_whichever_library_meets_it(error: Exception, tmp_path: Path) -> None:
    said = r"/a: cannot be written \((No space left|File too large|Read-only)[\w -]*\)$"
    with pytest.raises(UserError, match=said), atomic_file(tmp_path / "a"):
        raise error
    other = RuntimeError("its own fault")
    with pytest.raises(RuntimeError, match="its own fault"), atomic_file(tmp_path / "a"):
        raise other


def test_files_of_a_run_that_was_killed_between_them_are_known(tmp_path: Path) -> None:
    """Its own files, that is: those that a person puts there afterwards are not replaced."""
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    other.write_text("whole")
    left = tmp_path / f".new-{dead.pid}-one.csv"
    left.write_text("whole, and not yet in its place")
    assert half_done([one, other])
    os.utime(other, ns=(left.stat().st_mtime_ns + 1,) * 2)
    assert not half_done([one, other]), "it was put there later"
    os.utime(other, ns=(left.stat().st_mtime_ns - 1,) * 2)
    assert not half_done([other, tmp_path / "third.csv"]), "nothing was left beside the third"
    left.rename(tmp_path / f".new-{os.getpid()}-one.csv")
    assert not half_done([one, other]), "the process still runs"
    one.touch()
    assert not half_done([one, other]), "both are there"


def test_a_folder_is_held_against_another_process_until_it_ends(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from qpairs.core.files import exclusive_lock\n"
    script += "with exclusive_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script, tmp_path / "x"], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is using this folder"), exclusive_lock(tmp_path / "x"):
            pass
    finally:
        other.kill()
        other.wait()
    with exclusive_lock(tmp_path / "x"):  # a process that was killed holds nothing
        pass


def test_a_folder_that_cannot_be_made_is_one_line() -> None:
    with pytest.raises(UserError, match="cannot be written"), exclusive_lock(Path("/proc/nothing")):
        pass


def test_a_missing_file_has_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert sha256(tmp_path / "a") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256(tmp_path / "b") == ""


def fill(path: Path, text: str) -> None:
    with atomic_folder(path) as fresh:
        (fresh / "a.txt").write_text(text)


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_takes_its_place_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    path = tmp_path / "x"
    for text in ("one", "two", "three"):
        fill(path, text)
        assert (path / "a.txt").read_text() == text
        assert [p.name for p in tmp_path.iterdir()] == ["x"]
    with pytest.raises(RuntimeError), atomic_folder(path):
        raise RuntimeError
    assert (path / "a.txt").read_text() == "three"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot exchange two folders")
def test_a_replaced_folder_is_there_at_any_moment(tmp_path: Path) -> None:
    fill(tmp_path / "x", "")
    script = "import os, sys; print('ready', flush=True)\nwhile os.path.exists(sys.argv[1]): pass"
    watcher = subprocess.Popen([sys.executable, "-c", script, tmp_path / "x"], stdout=subprocess.PIPE, text=True)
    try:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "ready\n"
        for number in range(300):
            fill(tmp_path / "x", str(number))
        assert watcher.poll() is None
    finally:
        watcher.kill()
        watcher.wait()


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    fill(tmp_path / "disk" / "x", "one")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "x")
    for text in ("two", "three"):
        fill(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "disk" / "x" / "a.txt").read_text() == text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "link"]


def test_the_working_folder_can_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    fill(Path(), "one")
    assert (tmp_path / "x" / "a.txt").read_text() == "one"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)])
def test_files_can_be_read_by_whom_the_users_umask_lets(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "x") as fresh:
            (fresh / "deep").mkdir()
            (fresh / "deep" / "weights").touch(0o600)
            (fresh / "a").touch()
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "x").rglob("*") if p.is_file()} == {mode}


def test_two_processes_do_not_write_one_folder_at_the_same_time(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from qpairs.core.files import hold_output\n"
    script += "with hold_output(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script, tmp_path / "x"], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="/x: another process is using this folder"), hold_output(tmp_path / "x"):
            pass
    finally:
        other.kill()
        other.wait()
    fill(tmp_path / "x", "one")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_place_that_is_held_can_be_filled_and_tried_again(tmp_path: Path) -> None:
    with hold_output(tmp_path / "deep" / "x"), hold_output(tmp_path / "deep" / "x"):
        fill(tmp_path / "deep" / "x", "one")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x"]
    with hold_output(tmp_path / "new" / "y"):
        pass
    assert not (tmp_path / "new").exists()  # nothing was made


def test_names_as_long_as_names_can_be(tmp_path: Path) -> None:
    fill(tmp_path / ("x" * 252), "one")
    with atomic_file(tmp_path / ("y" * 252)) as fresh:
        fresh.write_text("one")
    assert sorted(len(p.name) for p in tmp_path.iterdir()) == [252, 252]
    with pytest.raises(UserError, match="cannot be written"), hold_output(tmp_path / ("z" * 256)):
        pass


def test_the_working_folder_stays_the_one_in_which_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    number = (tmp_path / "x").stat().st_ino
    fill(Path(), "one")
    assert (tmp_path / "x").stat().st_ino == number
    assert [p.name for p in Path().iterdir()] == ["a.txt"]
    with pytest.raises(UserError, match="is not empty, and you work in it"):
        fill(Path(), "two")
    assert Path("a.txt").read_text() == "one"


def test_what_was_whole_in_the_working_folder_is_brought_to_its_end(tmp_path: Path) -> None:
    whole = tmp_path / "x" / files.INSIDE / files.WHOLE
    whole.mkdir(parents=True)
    (whole / "a.txt").write_text("one")
    files.recover_folder(tmp_path / "x")
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["a.txt"]


def test_what_a_killed_process_left_of_a_file_goes_with_the_next_one(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / f".new-{gone.pid}-a.txt").touch()
    (tmp_path / f".new-{os.getppid()}-a.txt").touch()  # that process runs
    with atomic_file(tmp_path / "a.txt") as fresh:
        fresh.write_text("one")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".new-{os.getppid()}-a.txt", "a.txt"]


def test_a_lock_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="faiss"), exclusive_lock(tmp_path / "deep" / "idx"):
        raise UserError("this needs faiss")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hold", [writing, hold_output, atomic_file, atomic_folder])
def test_a_fault_of_something_else_is_not_one_of_writing(hold: Callable[[Path], Any], tmp_path: Path) -> None:
    faults = [
        FileNotFoundError(errno.ENOENT, "", str(tmp_path / "input.csv")),
        PermissionError(errno.EACCES, "", str(tmp_path / "input.csv")),
        BrokenPipeError(errno.EPIPE, ""),
        ConnectionRefusedError(errno.ECONNREFUSED, ""),
    ]
    for fault in faults:
        with pytest.raises(type(fault)), hold(tmp_path / "output"):
            raise fault
    assert list(tmp_path.iterdir()) == []
    for refused in (PermissionError(errno.EACCES, "", str(tmp_path / "output")), OSError(errno.ENOSPC, "")):
        with pytest.raises(UserError, match="output: cannot be written"), hold(tmp_path / "output"):
            raise refused


@pytest.mark.skipif(sys.platform == "win32", reason="there, a file that is open cannot be removed")
def test_a_lock_that_was_removed_as_it_was_taken_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    flock, folder, taken = fcntl.flock, tmp_path / "x", list[int]()

    def late(file: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and not taken:
            (folder / files.LOCK).unlink()  # by the process that held it until now
            taken.append(os.fstat(file).st_ino)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with exclusive_lock(folder, wait=True):
        assert taken
        assert (folder / files.LOCK).stat().st_size == 0  # the one that others find


def test_tables_that_belong_together_are_all_there_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    table, places = pandas.DataFrame({"row": [1]}), list[str]()
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        places.append(target.name)
        if target == one:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"one\.csv: cannot be written"):
        write_tables((one, table, True), (other, table, True))
    assert places == ["other.csv", "one.csv"]
    assert list(tmp_path.iterdir()) == []
