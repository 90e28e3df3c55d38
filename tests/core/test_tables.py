"""What a user's table holds is in the file that is written of it."""

import datetime
import decimal
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpairs.core.exceptions import UserError
from qpairs.core.tables import ENDINGS, write_table, write_table_in_parts, write_tables
from qpairs.data.formats import open_file


def test_numbers_and_dates_of_json_lines_are_those_of_the_table(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, 678901)
    table = pandas.DataFrame(
        {
            "tiny": [1e-11, 7.00000000000123],
            "short": np.array([0.95, np.nan], np.float32),
            "day": [moment.date(), None],
            "moment": pandas.to_datetime([moment, None]),
            "price": [decimal.Decimal("1.10"), None],
            "list": [np.array([1, 2]), [float(1)]],
            "endless": [np.inf, 2.0],
        },
        index=[3, 5],
    )
    write_table(tmp_path / "x.jsonl", table)
    first, second = map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())
    assert first == {
        "tiny": 1e-11,
        "short": 0.95,
        "day": "2024-01-02",
        "moment": "2024-01-02T03:04:05.678901",
        "price": "1.10",
        "list": [1, 2],
        "endless": None,
    }
    assert second == dict.fromkeys(("short", "day", "moment", "price")) | {
        "tiny": 7.00000000000123,
        "list": [1.0],
        "endless": 2.0,
    }


def test_numbers_that_are_not_finite_are_null_wherever_they_are(tmp_path: Path) -> None:
    nan = float("nan")
    cells = {"list": [[1.0, nan]], "object": [{"a": {"b": nan}}], "array": [np.array([np.inf, 2.0])], "plain": [nan]}
    write_table(tmp_path / "x.jsonl", pandas.DataFrame(cells))
    expected = {"list": [1.0, None], "object": {"a": {"b": None}}, "array": [None, 2.0], "plain": None}
    assert json.loads((tmp_path / "x.jsonl").read_text()) == expected


@pytest.mark.parametrize("kind", ["float32", "Float32", "float[pyarrow]"])
def test_numbers_of_four_bytes_have_as_many_digits_as_they_need(tmp_path: Path, kind: str) -> None:
    write_table(tmp_path / "x.jsonl", pandas.DataFrame({"a": pandas.Series([0.95, None], dtype=kind)}))
    assert (tmp_path / "x.jsonl").read_text() == '{"a": 0.95}\n{"a": null}\n'


def test_two_columns_of_one_name_are_refused_in_one_line(tmp_path: Path) -> None:
    table = pandas.DataFrame([[1, 2]], columns=[1, "1"])
    for write in (write_table, lambda path, table: write_table_in_parts(path, [table])):
        with pytest.raises(UserError, match=r"cannot be written \(two columns have one name"):
            write(tmp_path / "x.jsonl", table)
    with pytest.raises(UserError, match="two columns have one name"):
        write_tables((tmp_path / "x.jsonl", table, True))
    assert not list(tmp_path.iterdir())


TEXT = st.text(st.sampled_from("a,;\"'\t\r\n=| "), max_size=5)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.sampled_from([".csv", ".jsonl"]))
def test_any_text_is_read_back_as_it_was(rows: list[tuple[str, str]], ending: str) -> None:
    rows = [(f"{first}a", f"{second}a") for first, second in rows]  # a row of blanks is none
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"x{ending}")
        write_table(file, pandas.DataFrame(rows, columns=["one", "two"]), raw=True)
        reader = open_file(file, separator="," if ending == ".csv" else "")
        found = [row for _, row in reader.rows(["one", "two"])]
    assert found == rows


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_row_numbers_of_a_data_frame_are_no_column(ending: str, tmp_path: Path) -> None:
    table = pandas.DataFrame({"question": ["a", "b", "c"]}).iloc[[0, 2]]
    write_table(tmp_path / f"x{ending}", table)
    assert list(open_file(tmp_path / f"x{ending}").columns) == ["question"]


def test_lines_end_in_a_line_feed(tmp_path: Path) -> None:
    write_table(tmp_path / "x.csv", pandas.DataFrame({"a": ["one\rtwo", "three"]}))
    assert (tmp_path / "x.csv").read_bytes() == b'a\n"one\rtwo"\nthree\n'
    assert list(pandas.read_csv(io.BytesIO((tmp_path / "x.csv").read_bytes()))["a"]) == ["one\rtwo", "three"]
