"""Labels and columns as people have them: mappings, graded scores, triplets, duplicates alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qpairs
from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.data.label_values import label_values
from qpairs.data.labels import read_labels
from qpairs.data.parts import load_parts, separate_pairs

ROWS = [("How do I pay?", "How can I pay?"), ("Where am I?", "Who are you?"), ("One", "Two")]


def write(path: Path, header: str, *cells: str) -> Path:
    path.write_text(header + "\n" + "".join(f"{a},{b},{c}\n" for (a, b), c in zip(ROWS, cells, strict=True)))
    return path


@pytest.mark.parametrize(
    ("labels", "cells"),
    [
        ("yes=1,no=0", ("Yes", "no ", "NO")),
        ("-1=0,1=1", ("1", "-1", "-1.0")),
        ({"paraphrase": 1, "other": 0}, ("paraphrase", "other", "0")),  # 0 and 1 stay what they are
        (["entailment=1", "neutral=0", "contradiction=0"], ("entailment", "contradiction", "neutral")),
        ("0=1,1=0", ("0", "1", "1.0")),
    ],
)
def test_values_are_named(tmp_path: Path, labels: object, cells: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.csv", "question1,question2,is_duplicate", *cells)
    assert qpairs.load_pairs(path, labels=labels).labels.tolist() == [1, 0, 0]
    values, _ = separate_pairs({"labels": labels})
    assert qpairs.load_pairs(path, labels=Config(**values).labels).labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    "cells",
    [
        ("yes", "no", "no"),
        (" Yes", "NO", "no "),
        ("y", "N", "n"),
        ("T", "F", "f"),
        ("duplicate", "not duplicate", "Not Duplicate"),
        ("Duplicate", "non-duplicate", "non-duplicate"),
        ("duplicate", "not_duplicate", "not_duplicate"),
        ("same", "different", "different"),
    ],
)
def test_plain_values_are_understood_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cells: tuple[str, ...]
) -> None:
    path = write(tmp_path / "a.csv", "question1,question2,is_duplicate", *cells)
    assert qpairs.load_pairs(path).labels.tolist() == qpairs.load_pairs(path).labels.tolist() == [1, 0, 0]
    assert caplog.messages == [
        f"{path}, column 'is_duplicate': {cells[0].strip().lower()!r} is read as duplicate, "
        f"{cells[1].strip().lower()!r} as not"
    ]
    assert read_labels(path).labels.tolist() == [1, 0, 0]
    assert load_parts(Config(data=str(path), validation=str(path))).train.labels.tolist() == [1, 0, 0]
    rows = [(*texts, cell) for texts, cell in zip(ROWS, cells, strict=True)]
    assert qpairs.load_pairs(rows).labels.tolist() == [1, 0, 0]
    write(path, "question1,question2,is_duplicate", *cells[:1] * 3)  # one of several files may have one kind alone
    assert qpairs.load_pairs(path).labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        (("yes", "no", "maybe"), [1, 0]),
        (("yes", "no", ""), [1, 0]),
        (("yes", "n", "no"), [1, 0]),
        (("yes", "0", "1"), [0, 1]),
        (("1", "no", "no"), [1]),
    ],
)
def test_plain_values_beside_others_are_refused(tmp_path: Path, cells: tuple[str, ...], kept: list[int]) -> None:
    path = write(tmp_path / "a.csv", "question1,question2,is_duplicate", *cells)
    with pytest.raises(
        UserError, match=r"row .: label .* is neither 0 nor 1.*; give the meaning of values with --labels"
    ):
        qpairs.load_pairs(path)
    assert qpairs.load_pairs(path, skip_bad_rows=True).labels.tolist() == kept


@pytest.mark.parametrize("name", ["score", "is_duplicate", "similarity"])
def test_scores_are_cut(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.csv", f"sentence1,sentence2,{name}", "4", "3.999", "0")
    assert qpairs.load_pairs(path, label_cut=4).labels.tolist() == [1, 0, 0]
    assert qpairs.load_pairs(path, columns=("sentence1", "sentence2", name), label_cut=0.5).labels.tolist() == [1, 1, 0]
    for bad in ("", "nan", "inf", "high", "1" + "0" * 400):
        write(path, f"sentence1,sentence2,{name}", "4", bad, "0")
        with pytest.raises(UserError, match=r"row 2: label .* is not a finite number, so it cannot be compared with"):
            qpairs.load_pairs(path, label_cut=4)
    assert qpairs.load_pairs([("a", "b", 10**400), ("a", "c", 5)], label_cut=4, skip_bad_rows=True).labels.tolist() == [
        1
    ]


def test_scores_are_grades_of_the_range_that_is_found_or_stated(tmp_path: Path) -> None:
    one = write(tmp_path / "a.csv", "sentence1,sentence2,score", "4", "1", "2")
    two = write(tmp_path / "b.csv", "sentence1,sentence2,score", "5", "3", "3")
    assert qpairs.load_pairs(one, label_cut=4).grades.tolist() == pytest.approx([1, 0, 1 / 3])
    both = qpairs.load_pairs([one, two], label_cut=4)  # one range for all sources
    assert both.grades.tolist() == [0.75, 0.0, 0.25, 1.0, 0.5, 0.5] and both.labels.tolist() == [1, 0, 0, 1, 0, 0]
    for stated in ("0,5", (0, 5), [0.0, 5.0]):
        assert qpairs.load_pairs(one, label_cut=4, label_range=stated).grades.tolist() == pytest.approx([0.8, 0.2, 0.4])
        assert Config(label_cut=4, label_range=stated).label_range == (0.0, 5.0)
    assert Config(label_cut=4, label_range="0,1e3").label_range == label_values(cut=4, range="0,1e3").range
    with pytest.raises(UserError, match=r"b.csv, row 1: label '5' in column 'score' is outside --label-range 0,4"):
        qpairs.load_pairs([one, two], label_cut=4, label_range=(0, 4))
    left = qpairs.load_pairs([one, two], label_cut=4, label_range=(0, 4), skip_bad_rows=True)
    assert left.grades.tolist() == [1.0, 0.25, 0.5, 0.75, 0.75] and left.skipped == {"label": 1}
    graded = qpairs.load_pairs([qpairs.with_grades(both, both.grades), one], label_cut=4)
    assert graded.grades.tolist() == pytest.approx([*both.grades, 1, 0, 1 / 3])  # what is graded stays as it is
    flat = write(tmp_path / "c.csv", "sentence1,sentence2,score", "4", "4", "4")
    assert qpairs.load_pairs(flat, label_cut=4).grades is None  # all are equal: there is no range
    assert qpairs.load_pairs(flat, label_cut=4, labelled=False).grades is None
    assert qpairs.load_pairs([("a", "b", -1e308), ("a", "c", 1e308)], label_cut=4).grades.tolist() == [0, 1]


@pytest.mark.parametrize("given", ["5,0", "0", "0,1,5", "low,high", "5,9", "4,5", "0,3.9", "0,inf"])
def test_a_range_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(UserError, match="label_range: "):
        label_values(cut=4, range=given)
    with pytest.raises(UserError, match="label_range: "):
        Config(label_cut=4, label_range=given)
    with pytest.raises(UserError, match=r"label_range: .* label_cut"):
        Config(label_range="0,5")
    with pytest.raises(UserError, match=r"label_range: .* label_cut"):
        qpairs.load_pairs([("a", "b", 1)], label_range="0,5")


def test_a_refused_column_names_the_ways_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "question1,question2,label", "match", "no", "no")
    with pytest.raises(UserError, match=r"neither 0 nor 1; .*--labels match=1,other=0.*--label-cut 4"):
        qpairs.load_pairs(path)
    with pytest.raises(
        UserError, match="'no' in column 'label' is neither 0 nor 1, nor match; give the meaning of values"
    ):
        qpairs.load_pairs(path, labels="match=1")
    write(path, "sentence1,sentence2,score", "1", "2", "3")
    with pytest.raises(
        UserError,
        match=r"'score' seems to hold scores: give the lowest score of a duplicate with label_cut \(--label-cut\)",
    ):
        qpairs.load_pairs(path)
    write(path, "sentence1,sentence2,verdict", "1", "2", "3")
    with pytest.raises(UserError, match=r"name it with columns \(--columns\), or say with positives \(--positives\)"):
        qpairs.load_pairs(path)


@pytest.mark.parametrize("bad", ["yes", "yes=2", "=1", "yes=1,no", "yes==", {"yes": 2}])
def test_labels_of_another_form_are_one_line(bad: object) -> None:
    with pytest.raises(UserError, match="VALUE=0 or VALUE=1"):
        label_values(bad)
    with pytest.raises(UserError, match="VALUE=0 or VALUE=1"):
        Config(labels=bad)


def test_labels_and_a_cut_do_not_go_together() -> None:
    for build in (lambda **o: label_values(o["labels"], o["label_cut"]), lambda **o: Config(**o)):
        with pytest.raises(UserError, match="label_cut: is for graded scores, and labels is for named values"):
            build(labels="yes=1", label_cut=4.0)
    with pytest.raises(UserError, match="finite"):
        label_values(cut=float("nan"))


@given(st.text(max_size=8) | st.integers() | st.floats() | st.none() | st.booleans())
def test_any_value_is_a_label_or_has_a_fault(value: object) -> None:
    for values in (label_values(), label_values("yes=1"), label_values(cut=0.5)):
        assert values.read(value) in (0, 1, None)
        assert "\n" not in values.fault(value, "label")


TRIPLES = [("a", "b", "x"), ("c", "d", "y")]
WANTED = [("a", "b", 1), ("a", "x", 0), ("c", "d", 1), ("c", "y", 0)]


def contents(pairs: qpairs.Pairs) -> list[tuple[str, str, int]]:
    return [(*pairs.texts(row), int(pairs.labels[row])) for row in range(len(pairs))]


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("query,positive,negative", {}),
        ("Anchor,Positive,Negative", {}),
        ("question,positive,negative", {}),
        ("asked,same,other", {"columns": ("asked", "same"), "negative": "Other"}),
        ("question1,question2,hard", {"negative": "hard"}),
    ],
)
def test_triplets_by_name_and_by_option(tmp_path: Path, header: str, options: dict[str, object]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(header + "\n" + "".join(",".join(row) + "\n" for row in TRIPLES))
    assert contents(qpairs.load_pairs(path, **options)) == WANTED
    assert Config(**options).negative == options.get("negative", "")


def test_duplicates_alone_by_name_and_by_option(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for header, options in (
        ("query,positive", {}),
        ("one,two", {"columns": ("one", "two"), "positives": True}),
        ("question1,question2", {"positives": True}),
        ("query,positive,negative", {"positives": True}),
    ):
        rows = TRIPLES if "negative" in header else [row[:2] for row in TRIPLES]
        path.write_text(header + "\n" + "".join(",".join(row) + "\n" for row in rows))
        assert contents(qpairs.load_pairs(path, **options)) == [("a", "b", 1), ("c", "d", 1)]
    path.write_text("one,two\na,b\n")
    with pytest.raises(UserError, match=r"TEXT1,TEXT2,LABEL \(TEXT1,TEXT2 .*--positives or --negative"):
        qpairs.load_pairs(path, columns=("one", "two"))


def test_a_label_beside_query_and_positive_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelled = write(tmp_path / "a.csv", "query,positive,Label", "0", "1", "0")
    assert qpairs.load_pairs(labelled).labels.tolist() == [0, 1, 0]
    assert qpairs.load_pairs(labelled, labels="1=0,0=1").labels.tolist() == [1, 0, 1]
    assert qpairs.load_pairs(labelled, positives=True).labels.tolist() == [1, 1, 1]
    assert qpairs.load_pairs(labelled, negative="Label").labels.tolist() == [1, 0] * 3
    assert qpairs.load_pairs(labelled, labelled=False).labels.tolist() == [-1, -1, -1]
    scored = write(tmp_path / "b.csv", "anchor,positive,score", "0.5", "4.5", "1")
    graded = qpairs.load_pairs(scored, label_cut=4, label_range="0,5")
    assert graded.labels.tolist() == [0, 1, 0] and graded.grades.tolist() == pytest.approx([0.1, 0.9, 0.2])
    with pytest.raises(UserError, match=r"'score' seems to hold scores: .*--label-cut.*, or say .*--positives"):
        qpairs.load_pairs(scored)
    assert qpairs.load_pairs(scored, positives=True).labels.tolist() == [1, 1, 1]
    assert not caplog.messages


@pytest.mark.parametrize(("options", "named"), [({"labels": "a=1"}, "--labels"), ({"label_cut": 4}, "--label-cut")])
def test_how_to_read_labels_has_no_effect_without_them_which_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, object], named: str
) -> None:
    path = tmp_path / "a.csv"  # the options may be meant for the validation pairs beside it
    path.write_text("query,positive,negative\n" + "".join(",".join(row) + "\n" for row in TRIPLES))
    assert contents(qpairs.load_pairs(path, **options)) == WANTED
    assert [f"{path}: no label column" in text and named in text for text in caplog.messages] == [True]


def test_the_other_parts_have_columns_of_their_own(tmp_path: Path, pairs_csv: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("asked,same\n" + "".join(f"how do I do {n}?,what must I do for {n}?\n" for n in range(9)))
    config = Config(data=str(path), columns="asked,same", positives=True, validation=str(pairs_csv))
    parts = load_parts(config)
    assert (parts.train.labels == 1).all()
    assert len(set(parts.validation.labels.tolist())) == 2
    with pytest.raises(
        UserError, match="both labels are needed; to train on duplicates alone, name labelled pairs with"
    ):
        load_parts(Config(data=str(path), columns="asked,same", positives=True))
