"""The seam for file formats: what every format gives to pairs, questions and tables, and how one is added."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from qpairs.core.exceptions import UserError
from qpairs.core.tables import ENDINGS, write_table
from qpairs.data import formats
from qpairs.data.corpus import read_corpus
from qpairs.data.formats import FORMATS, Types, open_file
from qpairs.data.questions import open_questions
from qpairs.data.sources import load_pair_table, load_pairs
from qpairs.data.tables import read_table

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
NAMES = ("question1", "question2", "is_duplicate")


def write(path: Path, rows: Sequence[tuple[str, str, int]]) -> Path:
    objects = [dict(zip(NAMES, row, strict=True)) for row in rows]
    match path.suffix:
        case ".csv" | ".tsv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t", quoting=csv.QUOTE_ALL)
                writer.writerows([NAMES, *rows])
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in objects), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(objects, indent=1), encoding="utf-8")
        case ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(objects), path)
    return path


@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix != ".txt"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(TEXT, TEXT, st.integers(0, 1)), min_size=1, max_size=6))
def test_pairs_questions_and_tables_read_the_same_texts(
    suffix: str, rows: list[tuple[str, str, int]], tmp_path: Path
) -> None:
    path = write(tmp_path / f"a{suffix}", rows)
    pairs, table = load_pairs(path), read_table(path).frame
    for column, name in enumerate(NAMES[:2]):
        wanted = [" ".join(row[column].split()) for row in rows]
        assert [pairs.texts(row)[column] for row in range(len(pairs))] == wanted
        assert [text for _, text in open_questions(path, text_column=name).rows()] == wanted
        assert read_corpus(path, text_column=name).texts == wanted
        assert table[name].tolist() == [row[column] for row in rows]


@pytest.mark.parametrize("suffix", ENDINGS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXT, min_size=1, max_size=6))
def test_a_table_that_is_written_is_read_back(suffix: str, texts: list[str], tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    first = write(tmp_path / "first.jsonl", [(text, "b", 1) for text in texts])
    write_table(path, read_table(first).frame, raw=True)
    assert read_table(path).frame["question1"].tolist() == texts
    write_table(tmp_path / f"b{suffix}", read_table(path).frame, raw=True)
    assert read_table(tmp_path / f"b{suffix}").frame["question1"].tolist() == texts


def test_columns_without_a_name_are_told_apart_where_there_are_several(tmp_path: Path) -> None:
    for header, names in (("q,,", ["q", "column 2", "column 3"]), ("q,,x", ["q", "", "x"])):
        (tmp_path / "a.csv").write_text(f"{header}\nHow?,agent 7,solved\n")
        table = read_table(tmp_path / "a.csv").frame
        assert list(table) == names
        assert table.iloc[0].tolist() == ["How?", "agent 7", "solved"]


def test_values_of_json_keep_their_kind_on_the_way_back(tmp_path: Path) -> None:
    rows = [
        {"q": "a", "n": 1, "mixed": 1, "tags": ["x"], "info": {"k": 1}, "float": 1},
        {"q": "b", "n": None, "mixed": "x", "tags": [], "info": {"z": "2"}, "float": 1.5},
        {"q": "c", "n": 3, "mixed": None, "tags": None, "info": None, "float": None},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_table(tmp_path / "b.jsonl", read_table(path).frame)
    assert [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()] == rows


def test_values_that_parquet_cannot_hold_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"n": "x"}\n')
    with pytest.raises(UserError, match=r"b.parquet: cannot be written \(.*column n"):
        write_table(tmp_path / "b.parquet", read_table(path).frame)
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_types_of_parquet_stay(tmp_path: Path) -> None:
    table = pyarrow.table({
        "question": ["a", "b", "c"],
        "votes": pyarrow.array([1, None, 3], pyarrow.int16()),
        "at": pyarrow.array([0, 1, None], pyarrow.timestamp("us", "UTC")),
        "day": pyarrow.array([0, 1, None], pyarrow.date32()),
        "tags": pyarrow.array([["x"], [], None], pyarrow.list_(pyarrow.string())),
        "kind": pyarrow.array(["k", "l", "k"]).dictionary_encode(),
        "price": pyarrow.array([None, Decimal("1.50"), Decimal(2)], pyarrow.decimal128(20, 2)),
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "a.parquet")
    write_table(tmp_path / "b.parquet", read_corpus(tmp_path / "a.parquet").table)
    write_table(tmp_path / "b.jsonl", read_table(tmp_path / "a.parquet").frame.drop(columns="kind"))
    assert read_table(tmp_path / "b.jsonl").frame["votes"].tolist()[::2] == [1, 3]
    again = parquet.read_table(tmp_path / "b.parquet")
    assert again.to_pylist() == table.to_pylist()
    assert again.schema.field("votes").type == pyarrow.int16()
    assert again.schema.field("at").type == pyarrow.timestamp("us", "UTC")


def test_what_is_no_question_is_left_out_of_a_corpus_and_keeps_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "a", "n": 1}\n\nbroken\n{"q": null}\n{"q": " b  c", "n": 2}\n')
    with pytest.raises(UserError, match=r"a.jsonl, line 3: not valid JSON .*--skip-bad-rows"):
        read_corpus(path)
    corpus = read_corpus(path, skip_bad_rows=True)
    assert (corpus.texts, corpus.rows.tolist(), corpus.skipped) == (
        ["a", "b c"], [1, 5], {"malformed": 1, "empty question": 1}
    )  # fmt: skip
    assert corpus.table["q"].tolist() == ["a", " b  c"]
    path.write_text('{"q": "a"}\n{"q": ""}\n')
    with pytest.raises(UserError, match=r"a.jsonl, line 2: column 'q' has no question; correct it"):
        read_corpus(path)
    path.write_text('{"q": ""}\n')
    with pytest.raises(UserError, match="there are no questions in it"):
        read_corpus(path, skip_bad_rows=True)


def test_pairs_come_with_their_whole_table(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [("a", "b", 1), ("a", "c", 0)])
    found = load_pair_table(path, columns=("question2", "question1"))
    pairs, table = found.pairs, found.table
    assert found.usable.all()
    assert [pairs.texts(row) for row in range(2)] == [("b", "a"), ("c", "a")]
    assert set(pairs.labels.tolist()) == {-1}
    assert list(table.frame.columns) == list(NAMES)
    assert table.numbers == [1, 2]


@pytest.mark.parametrize(
    "content",
    [
        '[{"q": "a", "n": 1}, {"q": "b"}]',
        '{"q": "a", "n": 1}\n{"q": "b"}\n',
        '{"q": "a",\n "n": 1}\n\n{"q": "b"}',
        '\ufeff[\n{"q": "a", "n": 1},\n{"q": "b"}\n]\n',
    ],
)
def test_json_is_an_array_or_objects_one_after_the_other(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    reader = open_file(path)
    assert list(reader.columns) == ["q", "n"]
    assert list(reader.rows(["n", "q"])) == [(1, (1, "a")), (2, (None, "b"))]
    path.write_text('[{"q": "a"}, 7]')
    assert list(open_file(path).rows(["q"])) == [(1, ("a",)), (2, "not a JSON object")]


def test_another_format_is_one_class_and_one_row_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It touches one file, `qpairs/data/formats.py`, and then pairs, questions, corpora and tables read it."""

    @dataclass(frozen=True)
    class Fields:
        """Lines of `name=value; name=value`."""

        path: Path
        unit: str = "line"

        @property
        def columns(self) -> Types:
            return dict.fromkeys(name for line in self._lines() for name in line)

        def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str | None, ...]]]:
            for number, line in enumerate(self._lines(), start=1):
                yield number, tuple(line.get(name) for name in columns)

        def _lines(self) -> Iterator[dict[str, str]]:
            for line in self.path.read_text().splitlines():
                yield dict(part.split("=", 1) for part in line.split("; "))

    monkeypatch.setitem(formats.FORMATS, ".fields", Fields)
    path = tmp_path / "a.fields"
    path.write_text("q1=a; q2=b; label=1\nq1=a; q2=c; label=0\n")
    assert load_pairs(path).labels.tolist() == [1, 0]
    assert [text for _, text in open_questions(path, text_column="q2").rows()] == ["b", "c"]
    assert read_corpus(path, text_column="q2").texts == ["b", "c"]
    assert read_table(path).frame["label"].tolist() == ["1", "0"]


def test_files_are_read_without_heavy_packages(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [("a", "b", 1), ("a", "c", 0)])
    script = (
        "import sys\n"
        "from qpairs.data.corpus import read_corpus\n"
        "from qpairs.data.sources import load_pairs, load_pair_table\n"
        "load_pairs('sample'), load_pairs(sys.argv[1]), load_pair_table(sys.argv[1])\n"
        "read_corpus(sys.argv[1], text_column='question1')\n"
        "heavy = ('datasets', 'torch', 'transformers', 'sentence_transformers', 'sklearn', 'huggingface_hub')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
