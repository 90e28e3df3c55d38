from pathlib import Path

import numpy as np
import pytest

from qpairs.core.exceptions import UserError
from qpairs.data.judgements import side_by_side
from qpairs.data.labels import ADJUDICATED, DRAWN, LABEL_FILE_COLUMNS, annotator_name, read_labels
from qpairs.data.sources import load_pairs

HEADER = ",".join(LABEL_FILE_COLUMNS[:5])  # as in files of earlier versions
FULL = ",".join(LABEL_FILE_COLUMNS)


def write(folder: Path, *lines: str, header: str = HEADER, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *lines, ""]))
    return path


def test_a_file_of_labels_is_read_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,1,stratified,0.25", '"c, c",d,0,threshold,', "e,f,0,random,1e-7", "g,h,1,,")
    pairs = read_labels(path)
    assert pairs.first == ("a", "c, c", "e", "g")
    assert pairs.second == ("b", "d", "f", "h")
    assert (pairs.labels.dtype, pairs.labels.tolist()) == (np.int8, [1, 0, 0, 1])
    assert pairs.drawn == ("stratified", "threshold", "random", "")
    np.testing.assert_array_equal(pairs.probability, [0.25, np.nan, 1e-7, np.nan])
    assert len(pairs) == len(load_pairs(path)) == 4


def test_labels_of_files_and_of_memory_are_joined_in_their_order(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,1,stratified,0.25")
    ana = read_labels([("c", "d", 0)])
    both = read_labels(ana, path, [("e", "f", 1)])
    assert (both.first, both.labels.tolist(), both.drawn) == (("c", "a", "e"), [0, 1, 1], ("", "stratified", ""))


def test_without_the_columns_of_drawing_nothing_is_known_of_it(tmp_path: Path) -> None:
    pairs = read_labels(write(tmp_path, "a,b,1", header="q1,q2,label"))
    assert (pairs.first, pairs.second, pairs.labels.tolist(), pairs.drawn) == (("a",), ("b",), [1], ("",))
    assert np.isnan(pairs.probability).all()


def test_columns_are_found_by_name_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"Drawn": "random", "is_duplicate": true, "question2": "b", "question1": "a", "drawing_probability": 0.5}\n'
        '{"Drawn": null, "is_duplicate": 0, "question2": "d", "question1": "c", "drawing_probability": null}\n'
    )
    pairs = read_labels(tmp_path / "x.jsonl")
    assert (pairs.first, pairs.labels.tolist(), pairs.drawn) == (("a", "c"), [1, 0], ("random", ""))
    np.testing.assert_array_equal(pairs.probability, [0.5, np.nan])


def test_a_file_without_rows_has_no_pairs(tmp_path: Path) -> None:
    pairs = read_labels(write(tmp_path))
    assert (len(pairs), pairs.first, pairs.drawn, pairs.probability.shape) == (0, (), (), (0,))
    assert pairs.labels.dtype == np.int8


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,b,2,,", "label '2' in column 'is_duplicate' is neither 0 nor 1"),
        ("a,b,-1,,", "label '-1' in column 'is_duplicate' is neither 0 nor 1"),
        ("a,b,,,", "label '' in column 'is_duplicate' is neither 0 nor 1"),
        ("a, ,1,,", "column 'question2' has no question"),
        ("a,b,1,best,0.1", f"'best' in column 'drawn' is none of {', '.join(DRAWN)}"),
        ("a,b,1,random,0", "'0' in column 'drawing_probability' is not above 0 and at most 1"),
        ("a,b,1,random,1.5", "'1.5' in column 'drawing_probability'"),
        ("a,b,1,random,-0.1", "'-0.1' in column 'drawing_probability'"),
        ("a,b,1,random,much", "'much' in column 'drawing_probability'"),
        ("a,b,1,random,nan", "'nan' in column 'drawing_probability'"),
        ("a,b,1", "row 2: "),
    ],
)
def test_a_wrong_value_is_named_with_its_row_and_column(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        read_labels(write(tmp_path, "a,b,1,random,1", line))
    assert "labels.csv, row 2: " in str(refused.value)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    for header in ("question1,question2", "anchor,positive", "anchor,positive,negative", "text,label"):
        with pytest.raises(UserError, match=r"labels\.csv: no "):
            read_labels(write(tmp_path, header=header))
    with pytest.raises(UserError, match="no such file"):
        read_labels(tmp_path / "none.csv")


def test_annotators_are_read_as_they_are_called(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,1,,,Ana  B.", "a,b,0,,,LLM", "c,d,0,,,", header=FULL)
    assert read_labels(path).annotator == ("Ana B.", "LLM", "")
    assert read_labels(write(tmp_path, "a,b,1,,", name="old.csv")).annotator == ("",)


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    one = write(tmp_path, "a,b,1,stratified,0.25,ana", header=FULL)
    other = write(tmp_path, "a,b,0", header="q1,q2,label", name="other.csv")
    pairs = read_labels(one, other)
    assert (pairs.labels.tolist(), pairs.annotator, pairs.drawn) == ([1, 0], ("ana", ""), ("stratified", ""))
    assert len(read_labels()) == 0


def test_disputes_that_nobody_has_settled_wait(tmp_path: Path) -> None:
    waiting = f"a,b,,stratified,0.5,{ADJUDICATED}"
    path = write(tmp_path, waiting, f"c,d,1,,,{ADJUDICATED}", header=FULL)
    assert read_labels(path).first == ("c",)
    with pytest.raises(UserError, match="row 2: label '' in column 'is_duplicate' is neither 0 nor 1"):
        read_labels(write(tmp_path, waiting, "a,b,,,,ana", header=FULL))


def test_the_answers_to_a_pair_are_collected_whatever_its_order_and_case(tmp_path: Path) -> None:
    rows = ["a,B,1,,,ana", "b,a,0,stratified,0.5,llm", "A,b,0,random,0.1,ana", "c,d,1,threshold,,llm"]
    rows += [f"c,d,0,,,{ADJUDICATED}"]
    judged = side_by_side(read_labels(write(tmp_path, *rows, header=FULL)))
    assert (judged.first, judged.second, judged.annotators) == (("a", "c"), ("B", "d"), ("ana", "llm"))
    assert judged.answers.tolist() == [[0, 0], [-1, 1]]  # the later answer of ana counts
    assert judged.adjudicated.tolist() == [-1, 0]
    assert (judged.drawn, judged.probability[0]) == (("stratified", "threshold"), 0.5)
    assert (judged.shared.tolist(), judged.disputed.tolist()) == ([True, False], [False, False])


def test_names_that_would_break_a_file_or_a_terminal_are_refused() -> None:
    assert annotator_name(" Ana\n B ") == "Ana B"
    for name in ("a\x1b[2J", "x" * 101):
        with pytest.raises(UserError, match="is not a name") as refused:
            annotator_name(name)
        assert str(refused.value).isprintable()
