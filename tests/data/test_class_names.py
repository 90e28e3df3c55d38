"""A column of classes is read by the names of its classes, wherever the table is kept, and not by their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.data.tables import read_table

PAIRS = [("How do I pay?", "How can I pay?"), ("How do I pay?", "Who are you?"), ("One", "Two")]


def saved(data: datasets.Dataset, path: Path) -> Path:
    data.save_to_disk(str(path))
    return path


def as_parquet(data: datasets.Dataset, path: Path) -> Path:
    data.to_parquet(str(path / "a.parquet"))
    return path / "a.parquet"


KEPT: dict[str, Callable[[datasets.Dataset, Path], Any]] = {
    "data set": lambda data, path: data,
    "streamed data set": lambda data, path: data.to_iterable_dataset(),
    "saved data set": lambda data, path: saved(data, path / "saved"),
    "Parquet file": as_parquet,
    "folder of a Parquet file": lambda data, path: as_parquet(data, path).parent,
    "Parquet part of a folder": lambda data, path: f"{as_parquet(data, path).parent}[train]",
    "table of Arrow": lambda data, path: data.with_format("arrow")[:],
}


def data_of(labels: Sequence[int], names: Sequence[str]) -> datasets.Dataset:
    first, second = zip(*PAIRS, strict=True)
    texts = datasets.Value("string")
    kinds = datasets.Features({"sentence1": texts, "sentence2": texts, "label": datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict({"sentence1": first, "sentence2": second, "label": labels}, features=kinds)


@pytest.mark.parametrize("kind", KEPT)
def test_names_of_classes_are_read_wherever_they_are_kept(kind: str, tmp_path: Path) -> None:
    encoded = data_of([0, 1, 1], ["duplicate", "not_duplicate"])  # in the order of the alphabet
    source = KEPT[kind](encoded, tmp_path)
    assert qpairs.load_pairs(source).labels.tolist() == [1, 0, 0]
    assert qpairs.load_pairs(source, labels={"duplicate": 0, "not_duplicate": 1}).labels.tolist() == [0, 1, 1]
    if not isinstance(source, str) and not Path(str(source)).is_dir():
        assert read_table(source).frame["label"].tolist() == ["duplicate", "not_duplicate", "not_duplicate"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("not_duplicate", "duplicate"), [0, 1, 1]),  # of GLUE's QQP
        (("different", "duplicate"), [0, 1, 1]),  # of quora-duplicates
        (("not_equivalent", "equivalent"), [0, 1, 1]),  # of GLUE's MRPC
        (("0", "1"), [0, 1, 1]),
        (("1", "0"), [1, 0, 0]),
        (("no", "yes"), [0, 1, 1]),
    ],
)
def test_plain_names_need_no_option(names: tuple[str, str], expected: list[int]) -> None:
    assert qpairs.load_pairs(data_of([0, 1, 1], names)).labels.tolist() == expected


def test_other_names_are_to_be_said() -> None:
    data = data_of([0, 1, 2], ["entailment", "neutral", "contradiction"])
    with pytest.raises(UserError, match=r"Dataset, row 1: label 'entailment' .* neither 0 nor 1; .*--labels"):
        qpairs.load_pairs(data)
    labels = "entailment=1,neutral=0,contradiction=0"
    assert qpairs.load_pairs(data, labels=labels).labels.tolist() == [1, 0, 0]


def test_hidden_labels_stay_hidden(tmp_path: Path) -> None:
    names = ["not_duplicate", "duplicate"]
    hidden, known = data_of([-1, -1, -1], names), data_of([0, 1, 1], names)
    assert qpairs.load_pairs(hidden, labelled=False).labels.tolist() == [-1, -1, -1]
    with pytest.raises(UserError, match="row 1: label '-1'"):
        qpairs.load_pairs(hidden)
    datasets.DatasetDict(train=known, test=hidden).save_to_disk(str(tmp_path / "both"))
    assert qpairs.load_pairs(tmp_path / "both").labels.tolist() == [0, 1, 1]
    some = qpairs.load_pairs(data_of([1, -1, 0], names), skip_bad_rows=True)
    assert some.labels.tolist() == [1, 0] and some.skipped == {"label": 1}


def test_grades_may_be_classes() -> None:
    data = data_of([0, 2, 1], ["1", "2", "5"])
    assert qpairs.load_pairs(data, label_cut=3, label_range="0,5").labels.tolist() == [0, 1, 0]
