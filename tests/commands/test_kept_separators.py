"""The separator of the user's file: kept in what is written back, and named where it is not guessed right."""

import csv
import os
from pathlib import Path

import pandas
import pytest
from conftest import refused
from ready import tickets

from qpairs.core.exceptions import UserError
from qpairs.core.shell import shown_command
from qpairs.core.tables import Dialect
from qpairs.data.formats import dialect_of, open_file
from qpairs.data.separators import SEPARATOR, separated_by, separator_words
from qpairs.data.sources import load_pairs
from qpairs.retrieval.index_file import QuestionFile
from qpairs.serving.start import open_session

MODEL = Path(__file__).parents[1] / "fixtures" / "commit_48e0593" / "one-static"
ROWS = pandas.DataFrame(
    {
        "question1": ["How do I pay; by card, or not?", 'Who says "hello"?', "Is it\ttabbed|piped?", "007"],
        "question2": ["How can I pay?", "Who is there?", "Is it tabbed?", "Two\nlines?"],
        "price": ["1,50", "2,00", "", "003"],
    }
)


def written(path: Path, separator: str, first: str = "") -> Path:
    text = ROWS.to_csv(index=False, sep=separator, quoting=csv.QUOTE_MINIMAL)
    path.write_text(first + text, encoding="utf-8")
    return path


def read(path: Path, separator: str, skip: int = 0) -> pandas.DataFrame:
    return pandas.read_csv(path, sep=separator, skiprows=skip, dtype=str, keep_default_na=False)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"])
def test_predict_keeps_the_separator_and_every_cell(run, tmp_path: Path, separator: str) -> None:
    file = written(tmp_path / "pairs.csv", separator)
    assert run("predict", MODEL, file, "--output", tmp_path / "scored.csv").code == 0
    found = read(tmp_path / "scored.csv", separator)
    assert list(found) == [*ROWS, "similarity", "probability", "duplicate"]
    pandas.testing.assert_frame_equal(found[list(ROWS)], ROWS, check_dtype=False)
    assert found["similarity"].astype(float).between(-1, 1).all()  # with a point, whatever separates the fields
    again = run("predict", MODEL, tmp_path / "scored.csv", "--output", tmp_path / "again.csv")
    assert again.code == 0 and list(read(tmp_path / "again.csv", separator))[:3] == list(ROWS)


def test_the_line_that_tells_spreadsheets_is_kept(run, tmp_path: Path) -> None:
    file = written(tmp_path / "pairs.csv", ";", "sep=;\n")
    assert run("predict", MODEL, file, "--output", tmp_path / "scored.csv").code == 0
    assert (tmp_path / "scored.csv").read_text().startswith("sep=;\nquestion1;question2;price;similarity")
    pandas.testing.assert_frame_equal(read(tmp_path / "scored.csv", ";", 1)[list(ROWS)], ROWS, check_dtype=False)
    assert load_pairs(tmp_path / "scored.csv", labelled=False).questions[0] == "How do I pay; by card, or not?"


def test_another_format_has_its_own_separator(run, tmp_path: Path) -> None:
    file = written(tmp_path / "pairs.csv", ";", "sep=;\n")
    assert run("predict", MODEL, file, "--output", tmp_path / "scored.tsv").code == 0
    assert list(read(tmp_path / "scored.tsv", "\t"))[:3] == list(ROWS)
    assert run("predict", MODEL, written(tmp_path / "p.tsv", "\t"), "--output", tmp_path / "scored.csv").code == 0
    assert list(read(tmp_path / "scored.csv", ","))[:3] == list(ROWS)


def semicolons(file: Path, first: str = "") -> Path:
    table = pandas.read_csv(tickets(file))
    file.write_text(first + table.to_csv(index=False, sep=";"), encoding="utf-8")
    return file


def test_the_file_without_duplicates_keeps_the_separator(run, tmp_path: Path) -> None:
    file = semicolons(tmp_path / "tickets.csv", "sep=;\n")
    result = run("dedupe", MODEL, file, "--text-column", "title", "--threshold", "0.7", "--output", tmp_path / "dups")
    assert result.code == 0, result.err
    kept, given = (pandas.read_csv(path, sep=";", skiprows=1) for path in (tmp_path / "dups" / "kept.csv", file))
    assert list(kept) == list(given) and 0 < len(kept) < len(given)
    assert set(kept["ticket"]) < set(given["ticket"])
    assert next(iter(pandas.read_csv(tmp_path / "dups" / "pairs.csv"))) == "row1"  # a table of qpairs


def test_a_separator_that_is_not_guessed_right_is_named(run, tmp_path: Path) -> None:
    file = tmp_path / "odd.csv"
    file.write_text("question1^question2^paid, or not\nHow do I pay?^How can I pay?^yes, both\nWho?^Why?^no\n")
    refused(run("predict", MODEL, file, "--output", tmp_path / "scored.csv"), "odd.csv")
    assert run("predict", MODEL, file, "--output", tmp_path / "scored.csv", "--separator", "^").code == 0
    found = read(tmp_path / "scored.csv", "^")
    assert found["paid, or not"].tolist() == ["yes, both", "no"] and found["duplicate"].tolist()[0] == "1"
    assert SEPARATOR not in os.environ


def test_files_without_the_separator_are_read_as_ever(tmp_path: Path) -> None:
    own = tmp_path / "labels.csv"
    own.write_text("question1,question2,is_duplicate\nHow do I pay?,How can I pay?,1\n")
    odd = tmp_path / "odd.csv"
    odd.write_text("q1^q2^paid, or not\nHow?^Why?^x\n")
    excel = tmp_path / "excel.csv"
    excel.write_text("sep=;\nq1;q2\nHow?^?;Why?\n")
    with separated_by("^"):
        assert load_pairs(own).labels.tolist() == [1]
        assert list(open_file(odd).columns) == ["q1", "q2", "paid, or not"]
        assert dialect_of(open_file(excel)) == Dialect(";", named=True)


@pytest.mark.parametrize("name", ["tab", r"\t", "\t"], ids=["word", "escape", "character"])
def test_a_tab_has_three_names(tmp_path: Path, name: str) -> None:
    file = tmp_path / "odd.csv"
    file.write_text("q1\tq2, as asked\nHow?\tWhy?\n")
    assert list(open_file(file).columns) == ["q1\tq2", "as asked"]
    with separated_by(name):
        assert list(open_file(file).columns) == ["q1", "q2, as asked"]


@pytest.mark.parametrize("wrong", [";;", "x", "1", '"', "\n"])
def test_what_is_no_separator_is_refused(run, tmp_path: Path, wrong: str) -> None:
    file = written(tmp_path / "pairs.csv", ";")
    refused(run("predict", MODEL, file, "--output", tmp_path / "scored.csv", "--separator", wrong), "separator", "tab")
    assert not (tmp_path / "scored.csv").exists() and SEPARATOR not in os.environ
    with pytest.raises(UserError, match="one character"), separated_by(wrong):
        pass


def test_a_named_separator_ends_with_what_it_was_named_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEPARATOR, "|")
    with separated_by("^"):
        assert os.environ[SEPARATOR] == "^"
    assert os.environ[SEPARATOR] == "|"


def test_the_plain_commands_of_a_session_name_it(plain: Path, ready_cache_of_tests: object, tmp_path: Path) -> None:
    file = QuestionFile(tickets(tmp_path / "tickets.csv"), "title")
    with separated_by("tab"), open_session(plain, file, tmp_path / "session") as session:
        commands = [shown_command(*words) for words in session.commands(separator_words())]
    assert sum(" --separator tab" in command for command in commands) == 3  # embed, calibrate, dedupe


@pytest.mark.parametrize("command", ["dedupe", "embed", "evaluate", "predict", "serve", "start", "train"])
def test_every_command_that_reads_files_has_the_option_once(run, command: str) -> None:
    assert run(command, "--help").out.count("--separator ") == 1
