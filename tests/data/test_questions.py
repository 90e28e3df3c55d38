import csv
import json
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qpairs.core.exceptions import UserError
from qpairs.data.formats import FORMATS
from qpairs.data.questions import open_questions

ROWS = [("7", "how to pay, now"), ("8", 'a "b"'), ("9", "NA"), ("10", "émoji 🙂")]


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    ids, texts = ([row[k] for row in rows] for k in (0, 1))
    match path.suffix:
        case ".csv" | ".tsv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
                writer.writerows([("n", "Question"), *rows])
        case ".jsonl":
            path.write_text("".join(json.dumps({"n": a, "Question": b}) + "\n" for a, b in rows), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps([{"n": a, "Question": b} for a, b in rows]), encoding="utf-8")
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.table({"n": ids, "Question": texts}), path)
        case ".txt":
            path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_file_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{kind}", ROWS)
    if kind != ".txt":
        found = open_questions(path, text_column="question", id_column="n")  # case does not matter
        assert list(found.rows()) == ROWS
        assert list(found.rows()) == ROWS  # and once more
    assert list(open_questions(path).rows()) == [(str(k), text) for k, (_, text) in enumerate(ROWS, start=1)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1))
def test_any_text_is_read_back_with_its_white_space_made_one(tmp_path: Path, texts: list[str]) -> None:
    rows = [(str(k), text) for k, text in enumerate(texts, start=1)]
    for kind in (".csv", ".tsv", ".jsonl", ".json", ".parquet"):
        path = write(tmp_path / f"a{kind}", [("0", '"x" y'), *rows])
        read = list(open_questions(path, text_column="Question", id_column="n").rows())
        assert read[1:] == [(k, " ".join(text.split())) for k, text in rows]


def test_blank_lines_are_no_rows_and_line_ends_may_be_of_any_system(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\rthree\n")
    assert list(open_questions(path).rows()) == [("1", "one"), ("3", "two"), ("4", "three")]
    path = tmp_path / "a.csv"
    path.write_bytes(b'q\r\n"one\r\nmore"\r\n\r\ntwo\r\n')
    assert list(open_questions(path).rows()) == [("1", "one more"), ("2", "two")]


def test_a_table_with_tabs_and_no_quoting(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('id\tq\n1\t"what is\n2\tthat" is\n')
    assert list(open_questions(path, id_column="id").rows()) == [("1", '"what is'), ("2", 'that" is')]


BAD = [
    ("a.csv", b"id,q\n1,a\n2\n3,c\n", "row 2: 1 fields, but the header has 2", {"malformed": 1}),
    ("a.csv", b"id,q\n1,a\n2,\n3,c\n", "row 2: column 'q' has no question", {"empty question": 1}),
    ("a.csv", b"id,q\n1,a\n,b\n3,c\n", "row 2: column 'id' is empty", {"no id": 1}),
    ("a.csv", b"id,q\n1,a\n2," + b"x" * 20_001 + b"\n3,c\n", "row 2: column 'q' holds 20,001", {"too long": 1}),
    ("a.jsonl", b'{"id":1,"q":"a"}\n\n{"id":2\n{"id":3,"q":"c"}\n', "line 3: not valid JSON", {"malformed": 1}),
    (
        "a.jsonl",
        b'{"id":1,"q":"a"}\n{"id":2,"q":7}\n{"id":3,"q":"c"}\n',
        "line 2: column 'q' holds 7",
        {"not a text": 1},
    ),
]


@pytest.mark.parametrize(("name", "content", "words", "skipped"), BAD)
def test_rows_that_cannot_be_used_are_named_or_counted(
    name: str, content: bytes, words: str, skipped: dict[str, int], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    questions = open_questions(path, text_column="q", id_column="id")
    with pytest.raises(UserError) as raised:
        list(questions.rows())
    assert f"{name}, {words}" in str(raised.value)
    assert "--skip-bad-rows" in str(raised.value)
    counts: Counter[str] = Counter()
    assert list(questions.rows(counts)) == [("1", "a"), ("3", "c")]
    assert counts == skipped


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "no such file"),
        ("a.xls", b"x", "unknown kind of file"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\n\n", "is empty"),
        ("a.csv", b"a,b\n1,2\n", "which column holds the questions? found: 'a', 'b'; name it with text_column ("),
        ("a.csv", b"q,q\n1,2\n", "the column 'q' appears twice"),
        (
            "a.csv",
            b"q\nfine\n\xff\xfe\n",
            "line 3: not valid UTF-8; save the file as UTF-8, for instance by iconv -f LATIN1 ",
        ),
        (
            "a.csv",
            b"\xff\xfeq\0\n\0",
            "line 1: not valid UTF-8; save the file as UTF-8, for instance by iconv -f UTF-16 ",
        ),
        ("a.csv", b'q\nfine\n"open\nfine\n', "row 2: a quote is opened and never closed"),
        ("a.csv", b'q\nfine\n"open\n' + b"x" * (1 << 24), "row 2: a quote is opened and never closed"),
        ("a.jsonl", b"[1]\n", "no line of it is a JSON object"),
        ("a.parquet", b"PAR1 no", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        list(open_questions(path).rows(Counter()))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_columns_that_are_not_there_name_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    for options in ({"text_column": "title"}, {"id_column": "title"}):
        with pytest.raises(UserError, match="no column 'title'; found: 'n', 'Question'"):
            open_questions(path, **options)


def test_the_field_limit_of_the_module_csv_stays(tmp_path: Path) -> None:
    path, limit = write(tmp_path / "a.csv", ROWS), csv.field_size_limit()
    rows = open_questions(path).rows()
    next(rows)
    rows.close()
    assert csv.field_size_limit() == limit
