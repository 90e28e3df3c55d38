import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_file, exclusive_lock, sha256


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


def test_a_folder_is_held_against_another_process_until_it_ends(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from qpairs.core.files import exclusive_lock\n"
    script += "with exclusive_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script, tmp_path / "x"], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is at work here"), exclusive_lock(tmp_path / "x"):
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
