"""Rows in memory give what their file gives, and are refused as its rows are."""

from __future__ import annotations

import csv
import pickle
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.data.corpus import read_corpus
from qpairs.data.labels import read_labels
from qpairs.data.pairs import Pairs
from qpairs.data.questions import open_questions
from qpairs.data.records import require_texts
from qpairs.data.tables import read_table

ROWS = [("How do I pay?", "How can  I pay?", 1), ("How do I pay?", "Who are you?", 0), ("naïve?", "東京?", 1)]
NAMES = ["question1", "question2", "is_duplicate"]
DICTS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
COLUMNS = {name: [row[NAMES.index(name)] for row in ROWS] for name in NAMES}


@dataclass
class Labelled:
    question1: str
    question2: str
    is_duplicate: int


Named = namedtuple("Named", NAMES)

SOURCES: dict[str, Callable[[], Any]] = {
    "tuples": lambda: ROWS,
    "lists": lambda: [list(row) for row in ROWS],
    "iterator": lambda: iter(ROWS),
    "dicts": lambda: DICTS,
    "generator of dicts": lambda: (row for row in DICTS),
    "named tuples": lambda: [Named(*row) for row in ROWS],
    "dataclasses": lambda: [Labelled(*row) for row in ROWS],
    "columns": lambda: COLUMNS,
    "array": lambda: np.array(ROWS, dtype=object),
    "pandas": lambda: pandas.DataFrame(DICTS, index=[7, 7, 9]),
    "pandas of arrow": lambda: pandas.DataFrame(DICTS).convert_dtypes(dtype_backend="pyarrow"),
    "pandas of booleans": lambda: pandas.DataFrame(DICTS).astype({"is_duplicate": bool}),
    "polars": lambda: polars.DataFrame(DICTS),
    "arrow": lambda: polars.DataFrame(DICTS).to_arrow(),
    "data set": lambda: datasets.Dataset.from_list(DICTS),
    "streamed data set": lambda: datasets.Dataset.from_list(DICTS).to_iterable_dataset(),
    "several": lambda: [polars.DataFrame(DICTS[:1]), pandas.DataFrame(DICTS[1:2]), qpairs.load_pairs(ROWS[2:])],
}


def same(one: Pairs, other: Pairs) -> bool:
    ends = all((a == b).all() for a, b in ((one.left, other.left), (one.right, other.right)))
    return one.questions == other.questions and ends and one.labels.tolist() == other.labels.tolist()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with (tmp_path / "pairs.csv").open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([NAMES, *ROWS])
    return tmp_path / "pairs.csv"


@pytest.mark.parametrize("kind", SOURCES)
def test_rows_in_memory_give_the_pairs_of_their_file(kind: str, file: Path) -> None:
    assert same(qpairs.load_pairs(SOURCES[kind]()), qpairs.load_pairs(file))


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1), st.sampled_from([0, 1])), min_size=1, max_size=8))
def test_all_forms_of_the_same_rows_are_read_or_refused_alike(rows: list[tuple[str, str, int]]) -> None:
    def read(source: Any) -> Any:
        try:
            found = qpairs.load_pairs(source)
        except UserError as error:
            return str(error).partition(", row ")[2]
        return found.questions, found.left.tolist(), found.right.tolist(), found.labels.tolist()

    dicts = [dict(zip(NAMES, row, strict=True)) for row in rows]
    frame = pandas.DataFrame({name: pandas.Series([d[name] for d in dicts], dtype=object) for name in NAMES})
    assert read(rows) == read(dicts) == read(iter(rows)) == read(frame)


def test_labels_may_be_missing_where_they_are_not_needed() -> None:
    assert qpairs.load_pairs([row[:2] for row in ROWS], labelled=False).labels.tolist() == [-1] * 3
    assert qpairs.load_pairs(ROWS, labelled=False).labels.tolist() == [-1] * 3


def test_unusual_columns_are_named_as_for_a_file() -> None:
    frame = polars.DataFrame(DICTS).rename({"question1": "a", "question2": "b", "is_duplicate": "same"})
    assert len(qpairs.load_pairs(frame, columns=("a", "b", "same"))) == 3


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([*ROWS, ("Why?", None, 0)], "list, row 4: column 'question2' has no question"),
        ([*ROWS, ("Why?", " ", 0)], "list, row 4: column 'question2' has no question"),
        ([*ROWS, ("Why?", 5, 0)], "list, row 4: column 'question2' holds 5, which is not a text"),
        ([*ROWS, ("Why?", "How?")], "list, row 4: 2 values, but the first row has 3"),
        ([*ROWS, "Why?"], r"list, row 4: 'Why\?' is not a tuple, as the first row is"),
        ([*DICTS, ("Why?", "How?", 1)], r"list, row 4: \('Why\?', 'How\?', 1\) is not a dict"),
        ([*ROWS, ("Why?", "How?", 2)], "list, row 4: label 2 in column 'is_duplicate' is neither 0 nor 1"),
        (pandas.DataFrame([*DICTS, {"question1": "Why?"}]), "DataFrame, row 4: column 'question2' has no question"),
        (pandas.DataFrame([ROWS[0]], columns=["a", "a", "b"]), "DataFrame: the column 'a' appears twice"),
        (pandas.DataFrame(DICTS)[:0], "DataFrame: there are no rows"),
        ([row[:2] for row in ROWS], r"list: no label column \(is_duplicate, label"),
        ([], "list: there are no rows"),
        (
            {"question1": ["a"], "question2": ["b", "c"]},
            "dict: columns must be lists of one length; found",
        ),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(DICTS)), "DatasetDict: has several parts; .*: train"),
        (polars.LazyFrame(DICTS), "LazyFrame: has no rows yet; pass its .collect"),
        (5, "int: 5 has no rows"),
        (("How do I pay?", "How can I pay?"), r"How do I pay\?: no such file .*in Python, pairs are rows"),
    ],
)
def test_what_is_no_pairs_is_refused_in_one_line(source: Any, words: str) -> None:
    with pytest.raises(UserError, match=f"^{words}") as refused:
        qpairs.load_pairs(source)
    assert "\n" not in str(refused.value)


def test_broken_rows_are_skipped_and_counted() -> None:
    found = qpairs.load_pairs([*ROWS, ("Why?", None, 0), ("Why?", "How?")], skip_bad_rows=True)
    assert len(found) == 3
    assert found.skipped == {"empty question": 1, "malformed": 1}


@pytest.mark.parametrize(
    "source",
    [
        ["How do I pay?", "Who are you?"],
        iter(["How do I pay?", "Who are you?"]),
        pandas.Series(["How do I pay?", "Who are you?"]),
        polars.Series(["How do I pay?", "Who are you?"]),
        np.array(["How do I pay?", "Who are you?"]),
        [{"text": "How do I pay?"}, {"text": "Who are you?"}],
        pandas.DataFrame({"question": ["How do I pay?", "Who are you?"]}),
        polars.DataFrame({"q": ["How do I pay?", "Who are you?"]}),
        [("a", "How do I pay?"), ("b", "Who are you?")],
    ],
    ids=lambda source: type(source).__name__,
)
def test_questions_are_read_from_memory_as_often_as_is_asked(source: Any) -> None:
    questions = open_questions(source)
    assert [text for _, text in questions.rows()] == [text for _, text in questions.rows()]
    assert list(questions.rows()) == [("1", "How do I pay?"), ("2", "Who are you?")]
    assert pickle.loads(pickle.dumps(questions)).sha256() == questions.sha256()
    assert questions.absolute() == questions


def test_ids_of_questions_in_memory() -> None:
    assert list(open_questions([("A7", "How?")], id_column="id").rows()) == [("A7", "How?")]
    with pytest.raises(UserError, match=r"^list, row 2: column 'text' has no question"):
        list(open_questions(["How?", None]).rows())
    with pytest.raises(UserError, match=r"^'hello there': no such file; in Python, questions are a list of texts"):
        open_questions("hello there")


def test_a_data_frame_keeps_its_columns_types_and_index() -> None:
    frame = pandas.DataFrame(
        {"votes": pandas.Series([3, None, 5], dtype="Int64"), "question": ["How?", None, "Why?"]}, index=list("xyz")
    )
    corpus = read_corpus(frame, skip_bad_rows=True)
    pandas.testing.assert_frame_equal(corpus.table, frame.iloc[[0, 2]])
    assert (corpus.texts, corpus.rows.tolist(), corpus.skipped) == (["How?", "Why?"], [1, 3], {"empty question": 1})
    assert read_corpus(corpus) is corpus
    assert read_table(frame).frame is frame


def test_labels_and_intents_from_memory() -> None:
    labels = read_labels([{**row, "drawn": "stratified", "drawing_probability": 0.5} for row in DICTS])
    assert (labels.labels.tolist(), labels.drawn[0], labels.probability[0]) == ([1, 0, 1], "stratified", 0.5)
    assert read_labels(labels) is labels
    assert read_labels(ROWS).drawn == ("", "", "")


@pytest.mark.parametrize("texts", ["hello there", b"hello", 5, {"a": 1}, ["a", None], ["a", 5]])
def test_one_text_is_no_list_of_texts(texts: Any) -> None:
    with pytest.raises(UserError, match=r"^encode"):
        require_texts(texts, "encode")
    if isinstance(texts, str):
        with pytest.raises(UserError, match="is one text, not a list"):
            require_texts(texts)
        with pytest.raises(UserError, match="lists of texts, not one text"):
            qpairs.pairs_from_texts(texts, texts, [1] * len(texts))
