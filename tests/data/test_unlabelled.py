from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from qpairs import UserError
from qpairs.config import Config, config_from
from qpairs.data.parts import load_parts, separate_pairs
from qpairs.data.perturbations import PERTURBATIONS
from qpairs.data.unlabelled import pairs_of_questions, read_unlabelled
from qpairs.objectives.labels import batch_labels
from qpairs.training.batches import build_label_graph

QUESTIONS = [
    f"How do I {verb} my {thing}?" for verb in ("pay", "block", "lose") for thing in ("bill", "card", "key", "car")
]


def write(path: Path, questions: list[str], column: str = "question") -> Path:
    path.write_text("\n".join([column, *(f'"{text}"' for text in questions)]) + "\n", encoding="utf-8")
    return path


def config(path: Path, **options: object) -> Config:
    return Config(data=str(path), unlabelled=True, loss="info_nce", **options)  # type: ignore[arg-type]


def test_a_question_has_its_copy_as_duplicate_and_all_others_of_the_batch_as_negatives() -> None:
    pairs, made = pairs_of_questions(QUESTIONS)
    assert made == {}
    n = len(QUESTIONS)
    labels = batch_labels(build_label_graph(pairs), *(torch.arange(2 * n),) * 2)
    relation = labels.relation(in_batch=True)
    copy = torch.arange(2 * n)[:, None] == (torch.arange(2 * n)[None] + n) % (2 * n)
    assert torch.equal(relation.positive, copy)
    assert torch.equal(relation.negative, ~copy & ~torch.eye(2 * n, dtype=torch.bool))


def test_of_nearly_equal_questions_one_is_kept_so_that_they_are_never_negatives(tmp_path: Path) -> None:
    near = ["how do i pay my BILL", "My bill, how do I pay?", "How  do I pay my bill?!"]
    found = read_unlabelled(config(write(tmp_path / "q.csv", [*QUESTIONS, *near])))
    assert found.questions == tuple(QUESTIONS)
    assert found.left_out == 3


def test_rule_made_pairs_have_the_label_of_their_rule_and_share_the_table() -> None:
    pairs, made = pairs_of_questions(QUESTIONS, augment=1.0, seed=1, taken=["how do i pay my bill"])
    n = len(QUESTIONS)
    assert sum(made.values()) == len(pairs) - n > 5
    same = sum(count for kind, count in made.items() if PERTURBATIONS[kind].same)
    assert (pairs.labels[n:] == 1).sum() == same
    assert set(pairs.left[n:]) | set(pairs.right[n:]) <= set(range(n)) | set(range(2 * n, len(pairs.questions)))
    assert all(pairs.questions[at] in QUESTIONS for at in pairs.left[n:])
    again, _ = pairs_of_questions(QUESTIONS, augment=1.0, seed=1, taken=["how do i pay my bill"])
    assert again.questions == pairs.questions
    assert np.array_equal(again.right, pairs.right)


def test_the_column_is_named_or_found_and_files_are_joined(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a.csv", QUESTIONS[:6], "title"), write(tmp_path / "b.csv", QUESTIONS[4:], "title")
    joined = Config(data=[str(one), str(two)], unlabelled=True, columns="title", loss="info_nce")
    assert read_unlabelled(joined).questions == tuple(QUESTIONS)
    assert load_parts(joined).split["unlabelled"] == {"questions": 12, "left_out": 2}


def test_parts_have_no_validation_unless_it_is_named(tmp_path: Path, pairs_csv: Path) -> None:
    file = write(tmp_path / "q.csv", QUESTIONS)
    alone = load_parts(config(file))
    assert len(alone.validation) == 0
    assert alone.test is None
    assert alone.split["sizes"] == {"train": 12}
    judged = load_parts(config(file, validation=str(pairs_csv)))
    assert judged.split["sizes"] == {"train": 12, "validation": 600}
    assert judged.split["fingerprint"] != alone.split["fingerprint"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "sample"}, "name the file of your questions"),
        ({"columns": "a,b"}, "--text-column"),
        ({"columns": "a", "text_column": "b"}, "leave one out"),
        ({"text_column": "b", "unlabelled": False}, "text_column: names the questions of unlabelled data"),
        ({"test": "pairs.csv"}, "--validation"),
        ({"model": "cross-encoder"}, "cross-encoder learns from labels"),
        ({"reranker": "tiny"}, "reranker: is fitted to labels"),
        ({"score": "head", "loss": "pair_softmax"}, "head learns from labels"),
        ({"drop_suspects": "x.csv"}, "drop_suspects"),
    ],
)
def test_options_that_need_labels_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        Config(**{"data": "q.csv", "unlabelled": True, **options})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_bad_rows_and_too_few_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 different questions; at least 10"):
        read_unlabelled(config(write(tmp_path / "few.csv", QUESTIONS[:3])))
    file = tmp_path / "gaps.csv"
    file.write_text("id,question\n" + "".join(f"{n},{text}\n" for n, text in enumerate([*QUESTIONS, ""])))
    with pytest.raises(UserError, match=r"gaps\.csv, row 13"):
        read_unlabelled(config(file))
    assert read_unlabelled(config(file, skip_bad_rows=True)).skipped == {"empty question": 1}


def test_questions_in_memory_are_those_of_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "q.csv", QUESTIONS)
    expected = load_parts(config(file)).train
    frame = pandas.DataFrame({"title": QUESTIONS, "state": "open"})
    for source, columns in ((QUESTIONS, ()), (frame, "title"), (frame["title"], ()), ([frame], ("title",))):
        values, given = separate_pairs({"data": source, "columns": columns, "unlabelled": True, "loss": "info_nce"})
        train = load_parts(config_from(values), given).train
        assert train.questions == expected.questions
        assert train.left.tolist() == expected.left.tolist()
        assert values["data"] == f"in memory: {len(QUESTIONS)} questions"


def test_the_texts_of_several_columns_are_joined_from_a_file_and_from_memory(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"body": [f"Case {n}." for n in range(12)], "title": QUESTIONS})
    joined = tuple(f"{title} {body}" for title, body in zip(frame["title"], frame["body"], strict=True))
    frame.to_csv(tmp_path / "tickets.csv", index=False)
    assert read_unlabelled(config(tmp_path / "tickets.csv", text_column="title,body")).questions == joined
    options = {"unlabelled": True, "loss": "info_nce", "text_column": "title,body"}
    values, given = separate_pairs({"data": frame, **options})
    assert load_parts(config_from(values), given).train.questions[:12] == joined
    with pytest.raises(UserError, match="no column 'text'; found: 'body', 'title'"):
        read_unlabelled(config(tmp_path / "tickets.csv", text_column="title,text"))


def test_pairs_in_memory_are_not_read_by_the_column_of_the_questions() -> None:
    rows = {"question1": ["How do I pay?"], "question2": ["How can I pay?"], "label": [1]}
    frame = pandas.DataFrame({"title": QUESTIONS})
    options = {"data": frame, "columns": "title", "unlabelled": True, "loss": "info_nce"}
    _, given = separate_pairs({**options, "validation": rows})
    assert given["validation"].questions == ("How do I pay?", "How can I pay?")


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    """A list of one place, as the command hands it over, is a file, whatever its name."""
    for place, words in ((tmp_path, "is a folder; name a file in it"), (tmp_path / "none", "no such file")):
        options, given = separate_pairs({"data": [str(place)], "unlabelled": True, "loss": "info_nce"})
        assert not given
        with pytest.raises(UserError, match=words):
            load_parts(config_from(options))
    options, given = separate_pairs({"data": QUESTIONS, "unlabelled": True, "loss": "info_nce"})
    assert given["data"].questions == tuple(QUESTIONS)
