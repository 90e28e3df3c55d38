"""Compressed files are read like the files in them; what cannot be read is one line."""

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from qpairs.core.exceptions import UserError
from qpairs.data.corpus import read_corpus
from qpairs.data.formats import open_file
from qpairs.data.hub import dataset_name
from qpairs.data.questions import open_questions
from qpairs.data.sources import load_pairs

ROWS = [("How do I pay?", "How can I pay?", 1), ("Wo ist das Büro?", "NA", 0)]
NAMES = ("question1", "question2", "is_duplicate")


def zstandard(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard,
}


def content_of(suffix: str) -> bytes:
    if suffix == ".parquet":
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.table(dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True))), sink)
        return sink.getvalue().to_pybytes()
    mark = {".csv": ",", ".tsv": "\t"}[suffix]
    return "".join(mark.join(map(str, row)) + "\n" for row in (NAMES, *ROWS)).encode()


def compressed(folder: Path, suffix: str, kind: str) -> Path:
    path = folder / f"pairs{suffix}{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("some/", "")
            archive.writestr(f"some/pairs{suffix}", content_of(suffix))
            archive.writestr(f"__MACOSX/some/._pairs{suffix}", b"\0")
    else:
        path.write_bytes(COMPRESS[kind](content_of(suffix)))
    return path


@pytest.mark.parametrize("kind", [*COMPRESS, ".zip"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_compressed_file_is_read_alone_and_in_a_folder(tmp_path: Path, suffix: str, kind: str) -> None:
    path = compressed(tmp_path, suffix, kind)
    for source in (path, tmp_path):
        pairs = load_pairs(source)
        assert [(*pairs.texts(row), int(pairs.labels[row])) for row in range(len(pairs))] == ROWS
    assert [text for _, text in open_questions(path, text_column="question1").rows()] == [row[0] for row in ROWS]
    assert read_corpus(path, text_column="question2").texts == [row[1] for row in ROWS]


def test_a_zip_tells_its_format_by_the_file_in_it(tmp_path: Path) -> None:
    named = compressed(tmp_path, ".tsv", ".zip")
    assert len(load_pairs(named.rename(tmp_path / "download.zip"))) == 2


@pytest.mark.parametrize("kind", [*COMPRESS, ".zip"])
def test_what_is_cut_off_or_no_such_file_is_one_line(tmp_path: Path, kind: str) -> None:
    path = compressed(tmp_path, ".csv", kind)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no such thing"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"pairs\.csv.*cannot be read") as caught:
            load_pairs(path)
        assert "\n" not in str(caught.value)


def test_a_zip_of_several_files_names_them(tmp_path: Path) -> None:
    path = tmp_path / "kaggle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("train.csv", "test.csv"):
            archive.writestr(name, content_of(".csv"))
    with pytest.raises(UserError, match=r"has 2 \(train\.csv, test\.csv\); unpack it"):
        load_pairs(path)


@pytest.mark.parametrize("name", ["pairs.csv.gz", "pairs.xlsx", "pairs"])
def test_a_file_that_is_there_is_never_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / name).write_bytes(gzip.compress(content_of(".csv")))
    monkeypatch.chdir(tmp_path)
    if name == "pairs.csv.gz":
        assert len(load_pairs(f"dir/{name}")) == 2
    else:
        with pytest.raises(UserError, match="unknown kind of file"):
            load_pairs(f"dir/{name}")
    assert dataset_name("dir/pairs.csv.xz") is None
    with pytest.raises(UserError, match="no such file"):
        load_pairs("dir/other.csv.xz")


def test_a_reader_of_ones_own_is_not_given_a_compressed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("qpairs").data.formats.FORMATS, ".mine", lambda path: pytest.fail("called"))
    path = tmp_path / "a.mine.gz"
    path.write_bytes(gzip.compress(b"x"))
    with pytest.raises(UserError, match="not read compressed; unpack it"):
        open_file(path)
