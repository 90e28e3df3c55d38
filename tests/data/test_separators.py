"""What separates the fields of a CSV file: found where the header tells, else named in one line."""

import pickle
from pathlib import Path

import pytest

from qpairs.core.exceptions import UserError
from qpairs.core.tables import Dialect
from qpairs.data.corpus import read_corpus
from qpairs.data.pairs import pairs_from_texts
from qpairs.data.questions import open_questions
from qpairs.data.sources import load_pairs
from qpairs.data.text_columns import text_columns

ROWS = [("How do I pay, now?", "How can I pay?", 1), ("Where; and when?", "Why|how?", 0), ("One", "Two", 0)]


def table(mark: str, first: str = "", *, quote_names: bool = False) -> str:
    def cell(value: object) -> str:
        return f'"{value}"' if mark in str(value) else str(value)

    names = ["question1", "question2", "is_duplicate"]
    header = mark.join(f'"{name}"' if quote_names else name for name in names)
    return first + header + "\n" + "".join(mark.join(map(cell, row)) + "\n" for row in ROWS)


def contents(path: Path) -> list[tuple[str, str, int]]:
    pairs = load_pairs(path)
    return [(*pairs.texts(row), int(pairs.labels[row])) for row in range(len(pairs))]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote_names", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_the_separator_is_found_in_the_header(tmp_path: Path, mark: str, quote_names: bool, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(table(mark, quote_names=quote_names), encoding="utf-8-sig")
    assert contents(path) == ROWS
    (tmp_path / "folder").mkdir()
    path.rename(tmp_path / "folder" / path.name)
    assert contents(tmp_path / "folder") == ROWS


@pytest.mark.parametrize("mark", [",", ";", "\t", "^"])
def test_excel_names_it_in_the_first_line(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "a.csv"
    for first in (f"sep={mark}\n", f"SEP={mark}\r\n", f'"sep={mark}"\n'):
        path.write_text(table(mark, first), encoding="utf-8", newline="")
        assert contents(path) == ROWS
        assert [number for number, _ in open_questions(path, text_column="question1").rows()] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "text",
    [
        "question\nWhat is a; b?\nAnd c; d?\n",
        "Is it a; or b\nWhat is this?\nWho; me?\n",
        "a;b|c\n1;2|3\n",
        "question;\nHow?;\n",
    ],
)
def test_one_column_stays_one_where_the_header_does_not_tell(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert read_corpus(path).texts == text.splitlines()[1:]


def test_a_row_over_several_lines_does_not_hide_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question1;question2;is_duplicate\n"One\ntwo\nthree\nfour\nfive\nsix\nseven";"How; so?";1\nA;B;0\n')
    assert contents(path) == [("One two three four five six seven", "How; so?", 1), ("A", "B", 0)]


def test_an_unclear_separator_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question1;question2;is_duplicate\nHow?;Why?;0;\n")
    with pytest.raises(UserError, match="if ';' separates the fields, write sep=; as the first line of the file"):
        load_pairs(path)


def test_half_a_character_is_one_line() -> None:
    with pytest.raises(UserError, match="not valid Unicode"):
        pairs_from_texts(["How \ud800?"], ["Why?"], [0])
    with pytest.raises(UserError, match="not valid Unicode"):
        load_pairs([("How \udc80?", "Why?", 0)])


ODD = "ticket;title, short;state\nA1;How do I pay?;open\nA2;Where is it, and when?;open\n"


def test_a_separator_that_is_named_for_one_file_is_its_own(tmp_path: Path) -> None:
    file, other = tmp_path / "odd.csv", tmp_path / "other.csv"
    file.write_text(ODD)
    other.write_text("question,state\nWho?,open\n")
    corpus = read_corpus(file, text_column="title, short", id_column="ticket", separator=";")
    assert (corpus.texts, list(corpus.ids)) == (["How do I pay?", "Where is it, and when?"], ["A1", "A2"])
    assert (corpus.dialect, corpus.separator) == (Dialect(";"), ";")
    assert list(open_questions(other).rows()) == [("1", "Who?")]
    questions = open_questions(file, text_column="title, short", separator=";")
    assert len(list(pickle.loads(pickle.dumps(questions)).rows())) == 2  # as another process reads them
    assert text_columns(file, ";").columns[0].name == "title, short"
    with pytest.raises(UserError, match="no column 'title'; found: 'ticket;title', 'short;state'"):
        read_corpus(file, text_column="title, short")


def test_the_line_of_excel_is_no_header_for_a_named_separator(tmp_path: Path) -> None:
    file = tmp_path / "excel.csv"
    file.write_text(f"sep=;\n{ODD}")
    assert read_corpus(file, text_column="title, short", separator=";").dialect == Dialect(";", named=True)


@pytest.mark.parametrize(
    ("name", "separator", "said"),
    [
        ("odd.csv", "|", r"odd\.csv: separator: '\|' is not in its first line, 'ticket;title, short;state'"),
        ("odd.csv", ";;", "separator: ';;', must be one character"),
        ("odd.jsonl", ";", r"odd\.jsonl: separator: ';' is for \.csv and \.tsv files"),
    ],
)
def test_a_named_separator_that_separates_nothing_is_refused(
    tmp_path: Path, name: str, separator: str, said: str
) -> None:
    (tmp_path / name).write_text(ODD if name.endswith("csv") else '{"question": "Who?"}\n')
    with pytest.raises(UserError, match=said) as caught:
        read_corpus(tmp_path / name, separator=separator)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="rows in memory have none"):
        read_corpus(["Who?"], separator=";")
