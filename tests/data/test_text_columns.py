from pathlib import Path

import pandas
import pytest
from conftest import refused

from qpairs.core.exceptions import UserError
from qpairs.data.columns import find_text_columns
from qpairs.data.corpus import read_corpus
from qpairs.data.questions import open_questions
from qpairs.data.text_columns import text_columns

TITLES = ["How do I pay?", "Where is my order?", "Can I return shoes?"]
BODIES = ["I have a card, and it is refused every time I try.", "", "They are too small and I have worn them once."]


def table(path: Path, **columns: list) -> Path:
    pandas.DataFrame(columns).to_csv(path, index=False)
    return path


def test_the_only_column_of_texts_is_surely_it(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", id=["A1", "A2", "A3"], title=TITLES, state=["open", "closed", "open"])
    found = text_columns(file)
    assert ([column.name for column in found.columns], found.sure) == (["title"], True)
    assert found.columns[0].example in TITLES


def test_the_name_of_a_column_decides_before_its_texts(tmp_path: Path) -> None:
    found = text_columns(table(tmp_path / "a.csv", question=TITLES, body=BODIES))
    assert (found.columns[0].name, found.sure) == ("question", True)


def test_two_columns_of_like_texts_are_not_sure(tmp_path: Path) -> None:
    found = text_columns(table(tmp_path / "a.csv", title=TITLES, summary=[f"{text} Please" for text in TITLES]))
    assert ([column.name for column in found.columns], found.sure) == (["summary", "title"], False)


def test_a_file_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column holds texts.*'id', 'n'"):
        text_columns(table(tmp_path / "a.csv", id=["A1", "A2"], n=[1, 2]))


def test_several_columns_are_joined_and_empty_ones_left_out(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", ticket=["A1", "A2", "A3"], Title=TITLES, body=BODIES)
    corpus = read_corpus(file, text_column="title,body", id_column="ticket")
    assert corpus.texts == [f"{TITLES[0]} {BODIES[0]}", TITLES[1], f"{TITLES[2]} {BODIES[2]}"]
    assert list(corpus.ids) == ["A1", "A2", "A3"]
    rows = list(open_questions(file, text_column="title,body", id_column="ticket").rows())
    assert rows == list(zip(corpus.ids, corpus.texts, strict=True))


def test_a_name_with_a_comma_comes_before_two_names() -> None:
    assert find_text_columns(["a,b", "a", "b"], "a,b", where="x") == ("a,b",)
    assert find_text_columns(["a", "b"], "a, b", where="x") == ("a", "b")
    names = ["id", "Title, short", "body", "a,b,c", "a", "title"]
    assert find_text_columns(names, "Title, short,body", where="x") == ("Title, short", "body")
    assert find_text_columns(names, "body, TITLE, Short ,a,a,b,c", where="x") == ("body", "Title, short", "a", "a,b,c")


@pytest.mark.parametrize(("wanted", "words"), [("a,c", "no column 'c'"), ("a,A", "names a column twice")])
def test_columns_that_cannot_be_joined_are_refused(wanted: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        find_text_columns(["a", "b"], wanted, where="x.csv")


def test_a_row_without_any_text_is_refused_by_its_number(tmp_path: Path, run) -> None:
    file = table(tmp_path / "a.csv", title=["How do I pay?", ""], body=["", ""])
    with pytest.raises(UserError, match=r"row 2.*no question"):
        read_corpus(file, text_column="title,body")
    assert len(read_corpus(file, text_column="title,body", skip_bad_rows=True).texts) == 1
    refused(run("start", file, "--text-column", "title,nothing"), "no column 'nothing'")
