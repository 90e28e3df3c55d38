import base64
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_index import VECTORS, a_model, build, embedded

from qpairs.core.exceptions import UserError
from qpairs.retrieval.index import add_to_index, build_index, open_index
from qpairs.serving import journal, journal_file
from qpairs.serving.journal import FILE, journalled

NEW = range(2000, 2004)


class Killed(Exception):
    """What ends a process without its clean stop."""


@pytest.fixture(params=["exact", "ivf", "hnsw", "milvus"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return build(tmp_path, request.param)


@pytest.fixture
def exact(tmp_path: Path) -> Path:
    return build(tmp_path, "exact", range(200))


def change(folder: Path) -> None:
    """Adds four questions, deletes one of them and an old one, and dies."""
    with pytest.raises(Killed), journalled(folder) as index:
        index.questions.add([f"id{row}" for row in NEW], [f"t{row}" for row in NEW], VECTORS[list(NEW)])
        assert index.questions.delete(["id2001", "id7", "nobody"]) == 2
        raise Killed


def nearest(folder: Path, row: int) -> tuple[str, str]:
    index = open_index(folder)
    (hits,) = index.questions.search(VECTORS[[row]], 1)
    return hits[0].id, hits[0].text


def test_what_was_changed_before_a_kill_is_there_afterwards(folder: Path) -> None:
    change(folder)
    with journalled(folder) as index:
        assert len(index.questions) == 2000 + 4 - 2
        assert index.questions.known(["id2000", "id2001", "id7", "id8"]) in (["id8", "id2000"], ["id2000", "id8"])
        (hits,) = index.questions.search(VECTORS[[2003]], 1)
        assert (hits[0].id, hits[0].text) == ("id2003", "t2003")
        assert {"t2000", "t8"} < set(index.questions.texts())
        assert not {"t2001", "t7"} & set(index.questions.texts())


def test_a_clean_stop_leaves_an_index_for_everyone(exact: Path) -> None:
    with journalled(exact) as index:
        index.questions.add(["new"], ["t2000"], VECTORS[[2000]])
        assert (exact / FILE).stat().st_size > 0
    assert (exact / FILE).stat().st_size == 0
    assert nearest(exact, 2000) == ("new", "t2000")
    before = sorted(file.name for file in exact.iterdir())
    with journalled(exact):
        pass
    assert sorted(file.name for file in exact.iterdir()) == before, "nothing is written where nothing changed"


def test_replaying_a_journal_again_changes_nothing(exact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(exact)
    content = (exact / FILE).read_bytes()
    for _ in range(2):  # as if each time the process had died between the index and the emptying of the journal
        with journalled(exact) as index:
            assert len(index.questions) == 202
        (exact / FILE).write_bytes(content)
    with journalled(exact) as index:
        assert sorted(index.questions.known([f"id{row}" for row in NEW])) == ["id2000", "id2002", "id2003"]


@pytest.mark.parametrize("cut", [1, 2, 40, 4000])
def test_a_torn_last_line_is_as_if_it_had_not_been_written(exact: Path, cut: int) -> None:
    with pytest.raises(Killed), journalled(exact) as index:
        index.questions.add(["a"], ["t300"], VECTORS[[300]])
        index.questions.add(list(map(str, range(40))), ["t"] * 40, VECTORS[:40])
        raise Killed
    size = (exact / FILE).stat().st_size
    os.truncate(exact / FILE, size - cut)
    with pytest.raises(Killed), journalled(exact) as index:
        assert index.questions.known(["a", "0", "39"]) == ["a"]
        index.questions.add(["b"], ["t301"], VECTORS[[301]])
        raise Killed
    with journalled(exact) as index:
        assert index.questions.known(["a", "b", "0"]) == ["a", "b"]


def test_a_line_damaged_in_the_middle_is_named(exact: Path) -> None:
    change(exact)
    first, second = (exact / FILE).read_bytes().splitlines(keepends=True)
    (exact / FILE).write_bytes(first.replace(b"t2002", b"t2020") + second)
    with pytest.raises(UserError, match=r"journal\.jsonl, line 1: damaged"), journalled(exact):
        pass
    (exact / FILE).write_bytes(second)
    with journalled(exact) as index:
        assert len(index.questions) == 199


def test_a_journal_of_another_index_is_refused(exact: Path, tmp_path: Path) -> None:
    change(exact)
    shutil.rmtree(tmp_path / "a")
    other = embedded(tmp_path / "a", a_model(VECTORS, fingerprint="b" * 16), range(50))
    build_index(other, exact, overwrite=True)
    with pytest.raises(UserError, match="an index of another model, aaaaaaaaaaaaaaaa"), journalled(exact):
        pass
    assert (exact / FILE).stat().st_size, "what it holds is not thrown away"


def test_nobody_else_changes_an_index_meanwhile(exact: Path, tmp_path: Path) -> None:
    more = embedded(tmp_path / "b", a_model(VECTORS), range(2500, 2510))
    with journalled(exact):
        for attempt in (lambda: add_to_index(exact, more), lambda: journalled(exact).__enter__()):
            with pytest.raises(UserError, match="another process is using this folder"):
                attempt()
    add_to_index(exact, more)


def test_an_index_of_nothing_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no index in it"), journalled(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full(exact: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk that takes 100 bytes more."""
    write = journal_file.FileIO.write

    class Small(journal_file.FileIO):
        def write(self, content: bytes) -> int:
            return write(self, content[:100])

    monkeypatch.setattr(journal_file, "FileIO", Small)
    yield exact


def test_a_full_disk_refuses_a_change_and_keeps_the_others(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed), journalled(full) as index:
        assert index.questions.delete(["id5"]) == 1
        with pytest.raises(UserError, match="No space left on device"):
            index.questions.add(["new"], ["t2000"], VECTORS[[2000]])
        assert (len(index.questions), index.questions.known(["new"])) == (199, [])
        assert index.questions.delete(["id6"]) == 1
        raise Killed
    with journalled(full) as index:
        assert len(index.questions) == 198


def test_a_long_journal_is_merged_into_the_index(exact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MERGE_AT", 3)
    with pytest.raises(Killed), journalled(exact) as index:
        for row in NEW:
            index.questions.add([f"id{row}"], [f"t{row}"], VECTORS[[row]])
        raise Killed
    (line,) = (exact / FILE).read_bytes().splitlines()
    change = json.loads(line.partition(b" ")[2])
    assert change["ids"] == ["id2003"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(change["vectors"]), np.float32), VECTORS[2003])
    assert nearest(exact, 2002) == ("id2002", "t2002")


def test_threads_may_add_search_and_delete_at_once(exact: Path) -> None:
    wrong = list[BaseException]()

    def work(start: int) -> None:
        try:
            for row in range(start, start + 40):
                index.questions.add([f"id{row}"], [f"t{row}"], VECTORS[[row]])
                (hits,) = index.questions.search(VECTORS[[row]], 1)
                assert hits[0].id == f"id{row}"
                if row % 2:
                    index.questions.delete([f"id{row}"])
        except BaseException as error:
            wrong.append(error)

    with journalled(exact) as index:
        threads = [threading.Thread(target=work, args=(start,)) for start in (500, 600, 700)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(open_index(exact).questions) == 200 + 60
