import csv
import errno
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas
import polars
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mocks import MockModel

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.core.files import exclusive_lock, sha256
from qpairs.core.progress import Progress
from qpairs.models.shortened import shorten
from qpairs.retrieval import survey, writer
from qpairs.retrieval.embed import WRITTEN, embed
from qpairs.retrieval.embeddings import MANIFEST, open_shards

DIMENSION = 8


class Stub:
    """Unit vectors that a text's checksum gives, and a list of what was encoded."""

    dimension = DIMENSION

    def __init__(self, seconds: float = 0) -> None:
        self.seconds, self.encoded, self.sides = seconds, list[str](), set[str]()

    def encode(self, texts: Sequence[str], side: str = "left") -> np.ndarray:
        time.sleep(self.seconds * len(texts))
        self.encoded += texts
        self.sides.add(side)
        sums = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
        vectors = np.frombuffer(sums, dtype="<i4").reshape(len(texts), DIMENSION).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def a_model(encoder: Stub, fingerprint: str = "a" * 16) -> MockModel:
    return MockModel(encoder, fingerprint=fingerprint)


def write(path: Path, texts: Sequence[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "q"), *((f"id{k}", text) for k, text in enumerate(texts))])
    return path


TEXTS = [f"question {k % 61} of {k % 2}" for k in range(200)]  # 122 distinct, half of them in two shards of 40 or more
OPTIONS = {"text_column": "q", "id_column": "id", "shard_size": 40}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "q.csv", TEXTS)


def sums(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted((folder / "shards").iterdir())}


def test_rows_keep_their_order_and_each_distinct_text_is_encoded_once(source: Path, tmp_path: Path) -> None:
    encoder = Stub()
    made = embed(a_model(encoder), source, tmp_path / "emb", **OPTIONS)
    assert sorted(encoder.encoded) == sorted(set(TEXTS))
    found = open_shards(tmp_path / "emb")
    assert found == made
    assert (found.count, found.distinct, found.dimension, found.fingerprint) == (200, 122, DIMENSION, "a" * 16)
    assert [shard.rows for shard in found.shards] == [40] * 5
    ids, texts, vectors = zip(*found.batches(16), strict=True)
    assert max(map(len, ids)) == 16
    assert [i for part in ids for i in part] == [f"id{k}" for k in range(200)]
    assert [text for part in texts for text in part] == TEXTS
    np.testing.assert_array_equal(np.concatenate(vectors), Stub().encode(TEXTS))
    np.testing.assert_array_equal(found.matrix(), Stub().encode(TEXTS))
    assert sorted(p.name for p in (tmp_path / "emb").iterdir()) == [".lock", MANIFEST, "shards"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), st.integers(1, 9))
def test_any_repeats_and_any_size_of_shards(tmp_path: Path, texts: list[str], size: int) -> None:
    encoder = Stub()
    source = write(tmp_path / "q.csv", texts)
    made = embed(a_model(encoder), source, tmp_path / "emb", text_column="q", shard_size=size, overwrite=True)
    if encoder.encoded:  # not the same plan as in the example before
        assert sorted(encoder.encoded) == sorted(set(texts))
    np.testing.assert_array_equal(made.matrix(), Stub().encode(texts))
    assert made.distinct == len(set(texts))


def test_digests_that_were_gathered_in_several_goes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "MERGED", 0)
    encoder = Stub()
    made = embed(a_model(encoder), source, tmp_path / "emb", text_column="q", shard_size=7)
    assert sorted(encoder.encoded) == sorted(set(TEXTS))
    np.testing.assert_array_equal(made.matrix(), Stub().encode(TEXTS))


@pytest.mark.parametrize("size", [3, 40])
def test_ids_of_several_questions_are_told_before_an_index_refuses_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    rows = [{"q": f"question {k}", "id": f"id{k % 9}"} for k in range(11)]  # id0 and id1 twice, in one shard or two
    embed(a_model(Stub()), rows, tmp_path / "emb", text_column="q", id_column="id", shard_size=size)
    (told,) = (record.message for record in caplog.records if "ids of column" in record.message)
    assert told == "ids of column 'id' that several questions have: 2, such as 'id0'; an index needs unique ids"
    caplog.clear()
    embed(a_model(Stub()), rows[:9], tmp_path / "once", text_column="q", id_column="id", shard_size=size)
    embed(a_model(Stub()), rows, tmp_path / "rows", text_column="q", shard_size=size)
    assert "ids of column" not in caplog.text
    strict = {"text_column": "q", "id_column": "id", "distinct_ids": True}
    with pytest.raises(UserError, match=f"^list: {told}; correct them, or leave out --id-column"):
        embed(a_model(Stub()), rows, tmp_path / "strict", **strict)
    assert embed(a_model(Stub()), rows[:9], tmp_path / "strict", **strict).count == 9


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0), ("float16", 5e-4), ("int8", 5e-3)])
def test_numbers_are_stored_as_asked_and_read_as_unit_vectors(
    dtype: str, error: float, source: Path, tmp_path: Path
) -> None:
    found = embed(a_model(Stub()), source, tmp_path / "emb", dtype=dtype, **OPTIONS)
    expected = Stub().encode(TEXTS)
    np.testing.assert_allclose(found.matrix(), expected, atol=error)
    np.testing.assert_allclose(np.linalg.norm(found.matrix(), axis=1), 1, atol=1e-6)
    table = pyarrow.parquet.read_table(tmp_path / "emb" / "shards")
    kind = {"float32": "float", "float16": "halffloat", "int8": "int8"}[dtype]
    assert str(table.schema.field("vector").type) == f"fixed_size_list<element: {kind}>[{DIMENSION}]"
    assert table.column_names == ["id", "text", "vector", *(["scale"] if dtype == "int8" else [])]
    if dtype == "int8":
        stored = np.stack(table["vector"].to_numpy()) * table["scale"].to_numpy()[:, None]
        np.testing.assert_allclose(stored, expected, atol=error)


COLUMNS = ("id", "text", "vector")
READERS: dict[str, Callable[[str], list[list]]] = {
    "pandas": lambda folder: [pandas.read_parquet(folder)[name].tolist() for name in COLUMNS],
    "polars": lambda folder: [polars.read_parquet(f"{folder}/*.parquet")[name].to_list() for name in COLUMNS],
    "duckdb": lambda folder: [
        [row[k] for row in duckdb.sql(f"from '{folder}/*.parquet' order by id[3:]::int").fetchall()] for k in range(3)
    ],
    "datasets": lambda folder: [
        datasets.load_dataset(folder, split="train", cache_dir=f"{folder}/../cache")[name][:] for name in COLUMNS
    ],
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("reader", READERS)
def test_other_tools_read_the_shards(reader: str, dtype: str, source: Path, tmp_path: Path) -> None:
    embed(a_model(Stub()), source, tmp_path / "emb", dtype=dtype, **OPTIONS)
    ids, texts, vectors = READERS[reader](str(tmp_path / "emb" / "shards"))
    expected = pyarrow.parquet.read_table(tmp_path / "emb" / "shards")
    assert list(ids) == [f"id{k}" for k in range(200)]
    assert list(texts) == TEXTS
    np.testing.assert_array_equal(np.array([list(v) for v in vectors], float), np.stack(expected["vector"].to_numpy()))


def test_truncated_vectors_are_unit_vectors_again(source: Path, tmp_path: Path) -> None:
    found = embed(a_model(Stub()), source, tmp_path / "emb", dimension=3, **OPTIONS)
    expected = Stub().encode(TEXTS)[:, :3]
    assert found.dimension == 3
    np.testing.assert_allclose(found.matrix(), expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(found.matrix(), shorten(Stub().encode(TEXTS), 3))


def test_the_side_is_handed_to_the_encoder(source: Path, tmp_path: Path) -> None:
    encoder = Stub()
    assert embed(a_model(encoder), source, tmp_path / "emb", side="right", **OPTIONS).plan.side == "right"
    assert encoder.sides == {"right"}


def test_progress_goes_through_its_stages_and_ends_at_the_total(source: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    embed(a_model(Stub(1e-3)), source, tmp_path / "emb", on_progress=told.append, **OPTIONS)
    encoding = [now for now in told if now.stage == "encoding"]
    assert (encoding[-1].done, encoding[-1].total) == (122, 122)
    assert [now.done for now in encoding] == sorted(now.done for now in encoding)
    assert 0 < encoding[-1].rate < 1000


# Interruptions


def slow_run(source: Path, folder: Path) -> None:
    embed(a_model(Stub(seconds=5e-3)), source, folder, **OPTIONS)


def test_killed_at_any_time_and_run_again_nothing_is_lost_and_nothing_made_twice(source: Path, tmp_path: Path) -> None:
    embed(a_model(Stub()), source, tmp_path / "unbroken", **OPTIONS)
    folder = tmp_path / "emb"
    process = multiprocessing.get_context("spawn").Process(target=slow_run, args=(source, folder))
    process.start()
    while not (folder / "shards" / "000001.parquet").exists() and process.is_alive():
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(UserError, match="not finished"):
        open_shards(folder)
    (folder / "shards" / ".new-1-000002.parquet").write_bytes(b"half")
    kept = sums(folder)
    encoder = Stub()
    embed(a_model(encoder), source, folder, **OPTIONS)
    assert sums(folder) == sums(tmp_path / "unbroken")
    assert 0 < len(encoder.encoded) == len(set(encoder.encoded)) < 122
    made = [line for line in kept if line.startswith("0")]
    assert len(made) >= 2
    embed(a_model(encoder := Stub()), source, folder, **OPTIONS)
    assert encoder.encoded == []


def test_a_list_of_files_that_a_kill_cut_off(source: Path, tmp_path: Path) -> None:
    def stop(now: Progress) -> None:
        if now.stage == "encoding" and (tmp_path / "emb" / "shards" / "000002.parquet").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(a_model(Stub(2e-3)), source, tmp_path / "emb", on_progress=stop, **OPTIONS)
    listed = tmp_path / "emb" / WRITTEN
    listed.write_text(listed.read_text()[:-20])
    embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS)
    embed(a_model(Stub()), source, tmp_path / "unbroken", **OPTIONS)
    assert sums(tmp_path / "emb") == sums(tmp_path / "unbroken")


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_shard_is_found_and_made_again(damage: str, source: Path, tmp_path: Path) -> None:
    made = embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS)
    before, shard = sums(tmp_path / "emb"), tmp_path / "emb" / "shards" / "000003.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.unlink()
    if damage != "missing":
        shard.write_bytes(content if damage == "altered" else content[:-50])
    with pytest.raises(UserError, match=r"000003\.parquet: missing or damaged; run the same qpairs embed again"):
        made.verify()
    if damage != "altered":
        with pytest.raises(UserError, match="missing or damaged"):
            made.matrix()
    times = {file.name: file.stat().st_mtime_ns for file in shard.parent.iterdir() if file != shard}
    embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS).verify()
    assert sums(tmp_path / "emb") == before
    assert times == {file.name: file.stat().st_mtime_ns for file in shard.parent.iterdir() if file != shard}


def test_a_full_disk_leaves_whole_shards_and_the_run_goes_on_when_there_is_room(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(a_model(Stub()), source, tmp_path / "unbroken", **OPTIONS)
    write_shard = writer._write_shard

    def full(file: Path, *content: object) -> None:
        if "000002" in file.name:
            file.write_bytes(b"PAR1 half")
            raise OSError(errno.ENOSPC, "Error writing bytes to file")
        write_shard(file, *content)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write_shard", full)
        with pytest.raises(UserError, match=r"000002\.parquet: cannot be written \(No space left on device\)$"):
            embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS)
    unbroken = sums(tmp_path / "unbroken")
    assert sums(tmp_path / "emb") == {name: unbroken[name] for name in ("000000.parquet", "000001.parquet")}
    embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS)
    assert sums(tmp_path / "emb") == unbroken


def test_the_list_of_files_meets_a_full_disk(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Path.open

    def full(self: Path, mode: str = "r", *options: object, **more: object) -> object:
        if mode == "a":
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(self, mode, *options, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)$"):
            embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS)
    embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS).verify()


def test_a_folder_that_another_process_writes_is_refused(source: Path, tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "emb"), pytest.raises(UserError, match="another process is using this folder"):
        embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS)


# What is refused


@pytest.mark.parametrize("finished", [True, False])
def test_another_input_model_or_option_is_refused_by_name(finished: bool, source: Path, tmp_path: Path) -> None:
    folder, model = tmp_path / "emb", a_model(Stub(1e-3))

    def stop(now: Progress) -> None:
        if now.stage == "encoding" and now.done > OPTIONS["shard_size"] and not finished:
            raise KeyboardInterrupt

    try:
        embed(model, source, folder, on_progress=stop, **OPTIONS)
    except KeyboardInterrupt:
        assert not finished
    other = write(tmp_path / "other.csv", [*TEXTS[:-1], "another"])
    changes = [
        ((model, other), {}, "source"),
        ((a_model(Stub(), "b" * 16), source), {}, "fingerprint"),
        ((model, source), {"dtype": "int8"}, "dtype"),
        ((model, source), {"dimension": 3, "side": "right"}, "dimension, side"),
        ((model, source), {"shard_size": 50}, "shard_size"),
        ((model, source), {"id_column": ""}, "id_column"),
    ]
    for (what, file), options, words in changes:
        with pytest.raises(UserError, match=f"holds embeddings with another {words}; .* --overwrite$"):
            embed(what, file, folder, **{**OPTIONS, **options})
    found = embed(model, other, folder, overwrite=True, **OPTIONS)
    np.testing.assert_array_equal(found.matrix(), Stub().encode([*TEXTS[:-1], "another"]))


def test_a_file_that_was_refused_goes_through_once_it_is_mended(source: Path, tmp_path: Path) -> None:
    whole = source.read_text()
    source.write_text(whole + '201,"never closed')
    with pytest.raises(UserError, match="quote is opened and never closed"):
        embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS)
    source.write_text(whole)
    assert embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS).count == len(TEXTS)


def test_a_copy_of_the_input_elsewhere_is_the_same_input(source: Path, tmp_path: Path) -> None:
    embed(a_model(Stub()), source, tmp_path / "emb", **OPTIONS)
    encoder = Stub()
    embed(a_model(encoder), source.rename(tmp_path / "moved.csv"), tmp_path / "emb", **OPTIONS)
    assert encoder.encoded == []


def test_a_folder_of_other_things_is_never_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for place, reason in (("mine", "is not empty"), ("q.csv", "is a file")):
        with pytest.raises(UserError, match=reason):
            embed(a_model(Stub()), source, tmp_path / place, overwrite=True, **OPTIONS)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dimension": 9}, "dim: 9 is out of range; the vectors of model have 8"),
        ({"dimension": 0}, "dim: 0 is out of range"),
        ({"dtype": "float8"}, "dtype: unknown 'float8'; did you mean 'float"),
        ({"side": "both"}, "side: unknown 'both'"),
        ({"shard_size": 0}, "shard_size: 0 is out of range"),
        ({"text_column": "title"}, "no column 'title'; found: 'id', 'q'"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(
    options: dict, words: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as raised:
        embed(a_model(Stub()), source, tmp_path / "emb", **{**OPTIONS, **options})
    assert words in str(raised.value)
    assert not (tmp_path / "emb").exists()


def test_broken_rows_stop_the_run_before_it_encodes_or_are_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "q.csv", ["a", "b", " ", "a"])
    encoder = Stub()
    with pytest.raises(
        UserError, match=r"q\.csv, row 3: column 'q' has no question; correct it, or pass --skip-bad-rows"
    ):
        embed(a_model(encoder), source, tmp_path / "emb", text_column="q")
    assert encoder.encoded == []
    found = embed(a_model(encoder), source, tmp_path / "emb", text_column="q", skip_bad_rows=True, overwrite=True)
    assert (found.count, found.skipped) == (3, {"empty question": 1})
    assert [ids for ids, _, _ in found.batches()] == [["1", "2", "4"]]
    with pytest.raises(UserError, match="no questions in it"):
        embed(a_model(encoder), write(tmp_path / "r.csv", [" "]), tmp_path / "x", text_column="q", skip_bad_rows=True)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (None, "no embeddings here"),
        ("{", "damaged"),
        ("{}", "damaged"),
        ('{"format": 99, "qpairs": "9"}', "newer qpairs"),
    ],
)
def test_folders_without_embeddings_are_one_line(manifest: str | None, words: str, tmp_path: Path) -> None:
    if manifest:
        (tmp_path / MANIFEST).write_text(manifest)
    with pytest.raises(UserError, match=words):
        open_shards(tmp_path)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    script = "import sys; from test_embeddings import *\n"
    script += "class Forgetful(Stub): encoded = property(lambda self: [], lambda self, texts: None)\n"
    script += "embed(a_model(Forgetful()), sys.argv[1], sys.argv[2], text_column='q', shard_size=10_000)\n"
    script += "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    peaks = []
    for n in (50_000, 800_000):
        source = write(tmp_path / f"{n}.csv", [f"how does the {k} th thing of its kind go" for k in range(n)])
        command = [sys.executable, "-c", script, source, tmp_path / str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 64 * 800_000  # bytes: 16 for each distinct text, and their sorting


# The command


@pytest.fixture(scope="module")
def checkpoint(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "x"
    qpairs.train(data=str(pairs_csv), encoder="static", epochs=1, batch_size=16, output=str(output))
    return output


def test_the_command_embeds_a_file_with_a_checkpoint(run, checkpoint: Path, source: Path) -> None:
    command = ("embed", checkpoint, source, "--text-column", "q", "--output", "emb")
    result = run(*command, "--dtype", "float16", "--dim", "16", "--shard-size", "64")
    assert result.code == 0, result.err
    assert "200 questions, 122 distinct: 16 x float16" in result.out
    assert "4 shards" in result.out
    found, model = qpairs.open_shards("emb"), qpairs.load(checkpoint)
    np.testing.assert_allclose(found.matrix(), shorten(model.encode(TEXTS), 16), atol=1e-3)
    assert found.fingerprint == model.fingerprint
    assert found.model == checkpoint
    result = run(*command)
    assert result.code == 2
    assert "another dimension, dtype, shard_size" in result.err


def test_the_command_refuses_what_it_does_not_know(run, checkpoint: Path, source: Path) -> None:
    command = ("embed", checkpoint, source, "--output", "emb")
    for options, words in (
        (["--engine", "spark"], "engine: unknown 'spark'; there are: plain, ray"),
        (["--ray-address", "auto"], "--ray-address has no effect without --engine ray"),
        (["--dim", "100000"], "is out of range"),
    ):
        result = run(*command, *options)
        assert result.code == 2
        assert words in result.err
        assert len(result.err.strip().splitlines()) == 1
    assert not Path("emb").exists()
