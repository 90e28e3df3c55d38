"""Retrieval sets of one's own: what is read, what is refused, and the scores."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import refused
from mocks import MockModel

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.evaluation.search_set import SearchSet, evaluate_search, read_search_set

CORPUS = [{"id": f"A{n}", "text": text} for n, text in enumerate(["pay by card", "reset password", "track parcel"])]


class Angles:
    """A vector for each text by the number at its end: degrees."""

    dimension = 2

    def encode(self, texts, side="left"):
        angles = np.radians([float(text.split()[-1]) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_ranks_are_those_of_the_cosines_and_the_query_itself_is_not_searched() -> None:
    corpus = ["a 0", "b 10", "c 20", "d 60"]
    found = evaluate_search(MockModel(Angles()), SearchSet(["a 0", "x 50"], corpus, [{2: 1.0}, {3: 2.0, 0: 1.0}]))
    first = metrics.search_scores([2], [1.0])
    second = metrics.search_scores([1, 4], [2.0, 1.0])
    assert found.scores == pytest.approx({name: (first[name] + second[name]) / 2 for name in first})
    assert [(miss.query, miss.rank, miss.relevant, miss.first) for miss in found.missed] == [("a 0", 2, "c 20", "b 10")]
    low, high = found.intervals["mrr"]
    assert low <= found.scores["mrr"] <= high


def test_a_search_that_finds_all_of_few_queries_may_miss_others() -> None:
    corpus = [f"c {10 * place}" for place in range(9)]
    queries = [f"q {10 * place}" for place in range(5)]
    found = evaluate_search(MockModel(Angles()), SearchSet(queries, corpus, [{place: 1.0} for place in range(5)]))
    assert set(found.scores.values()) == {1.0}
    assert found.intervals["mrr"] == pytest.approx((1 - metrics.unseen(5), 1))
    lost = evaluate_search(MockModel(Angles()), SearchSet(["x 0"], corpus, [{8: 1.0}]))
    assert lost.intervals["recall_at_1"] == (0, metrics.unseen(1))


@pytest.mark.parametrize(
    ("queries", "relevant", "words"),
    [
        ([], [], "0 queries"),
        (["a 0"], [], "1 queries, and what is relevant to 0"),
        (["a 0"], [{}], "query 'a 0': relevant must be rows of the corpus, 0 to 1"),
        (["a 0"], [{7: 1.0}], "rows of the corpus, 0 to 1"),
        (["a 0"], [{0: 0.0}], "grades above 0"),
    ],
)
def test_a_set_of_ones_own_that_is_none_is_refused(queries, relevant, words: str) -> None:
    with pytest.raises(UserError, match=words):
        evaluate_search(MockModel(Angles()), SearchSet(queries, ["a 0", "b 10"], relevant))
    with pytest.raises(UserError, match="cutoffs"):
        evaluate_search(MockModel(Angles()), SearchSet(["a 0"], ["a 0", "b 10"], [{0: 1.0}]), cutoffs=[0])


def test_rows_of_one_query_are_joined_and_grades_are_read(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(
        "query,relevant,grade\nhow to  pay,A0,2\nhow to pay,A2,1\nlost login,A1,1\nx,A1,0\n"
    )
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, CORPUS)))
    found = read_search_set(tmp_path / "q.csv", tmp_path / "c.jsonl")
    assert found.queries == ["how to pay", "lost login"]
    assert found.relevant == [{0: 2.0, 2: 1.0}, {1: 1.0}]
    several = [{"query": "how to pay", "relevant": ["1", "3"]}]
    assert read_search_set(several, ["pay by card", "reset password", "track parcel"]).relevant == [{0: 1.0, 2: 1.0}]


def test_the_case_of_columns_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("ID,text\n2,text two\n1,text one\n")
    (tmp_path / "q.csv").write_text("Query,RELEVANT,Grade\na,2,3\na,1,0\nb,1,0.5\n")
    found = read_search_set(tmp_path / "q.csv", tmp_path / "c.csv")
    assert found.queries == ["a", "b"]
    assert found.relevant == [{0: 3.0}, {1: 0.5}]
    with pytest.raises(UserError, match="row 1: column 'Grade' holds 'high'"):
        read_search_set([{"query": "a", "relevant": "1", "Grade": "high"}], tmp_path / "c.csv")
    with pytest.raises(UserError, match="row 2: column 'Id' is empty"):
        read_search_set([{"query": "a", "relevant": "1"}], [{"Id": 1, "text": "one"}, {"Id": None, "text": "two"}])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"query": "a", "relevant": "A9"}], ["'A9'", "not an id"]),
        ([{"question": "a", "relevant": "A0"}], ["no column 'query'"]),
        ([{"query": "", "relevant": "A0"}], ["row 1", "no question"]),
        ([{"query": "a", "relevant": None}], ["row 1", "names no text"]),
        ([{"query": "a", "relevant": "A0", "grade": "high"}], ["'high'", "number of at least 0"]),
        ([{"query": "a", "relevant": "A0", "grade": 0}], ["nothing is relevant"]),
    ],
)
def test_bad_rows_are_one_line(rows, words) -> None:
    with pytest.raises(UserError) as error:
        read_search_set(rows, CORPUS)
    assert all(word in str(error.value) for word in words)


def test_two_texts_of_one_id_are_refused() -> None:
    with pytest.raises(UserError, match="two texts have the id 'A0'"):
        read_search_set([{"query": "a", "relevant": "A0"}], [CORPUS[0], CORPUS[0]])


def test_the_command_prints_a_table_with_intervals(run, checkpoint) -> None:
    Path("c.jsonl").write_text("\n".join(map(json.dumps, CORPUS)))
    Path("q.csv").write_text("query,relevant\nhow to pay by card,A0\nforgot my password,A1\n")
    result = run("evaluate", checkpoint.path, "--retrieval", "q.csv", "--corpus", "c.jsonl", "--json", "x.json")
    assert result.code == 0, result.err
    for words in ("recall@1", "nDCG@10", "MRR", "MAP", "2 queries", "3 texts"):
        assert words in result.out
    written = json.loads(Path("x.json").read_text())["search"]
    assert written["queries"] == 2
    refused(run("evaluate", checkpoint.path, "--retrieval", "q.csv"), "--corpus")
    refused(run("evaluate", checkpoint.path, "--corpus", "c.jsonl"), "--retrieval")
