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
from qpairs.core.tables import ENDINGS, write_table
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


def test_what_json_has_no_form_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_table(tmp_path / "x.jsonl", pandas.DataFrame({"list": [[float("nan")]]}))
    assert not (tmp_path / "x.jsonl").exists()


TEXT = st.text(st.sampled_from("a,;\"'\t\r\n=| "), max_size=5)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.sampled_from([".csv", ".jsonl"]))
def test_any_text_is_read_back_as_it_was(rows: list[tuple[str, str]], ending: str) -> None:
    rows = [(f"a{first}", f"a{second}") for first, second in rows]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"x{ending}")
        write_table(file, pandas.DataFrame(rows, columns=["one", "two"]))
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
