import csv
import io
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpairs.core.exceptions import UserError
from qpairs.data import hub, sources
from qpairs.data.sources import load_pairs, open_source

KAGGLE = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
ROWS = [("How do I fly?", "How can I fly?", 1), ("What is 1, 2?", 'What is "it"?', 0), ("How do I fly?", "Why?", 0)]
HARD = [
    ("NA", "null", 1),
    ("None", "nan", 0),
    ("007", "1e5", 1),
    ("two\nlines", "tab\there, and\r\nmore", 0),
    ("é 😀", "ß", 1),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


def contents(pairs):
    return [(*pairs.texts(i), int(pairs.labels[i])) for i in range(len(pairs))]


def cleaned(rows):
    return [(" ".join(a.split()), " ".join(b.split()), y) for a, b, y in rows]


def write_csv(path, rows, header=("question1", "question2", "is_duplicate"), encoding="utf-8", **options):
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows([header, *rows] if header else rows)
    path.write_text(text.getvalue(), encoding=encoding, newline="")
    return path


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def table_of(rows, names=("question1", "question2", "is_duplicate")):
    return datasets.Dataset.from_dict(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def refusal(source, **options):
    with pytest.raises(UserError) as caught:
        load_pairs(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def write_all(folder, rows):
    """The same rows in every format."""
    yield write_csv(folder / "plain.csv", rows)
    yield write_csv(folder / "bom.csv", rows, encoding="utf-8-sig")
    yield write_csv(folder / "unix.CSV", rows, lineterminator="\n")
    yield write_csv(
        folder / "kaggle.csv", [(i, 2 * i, 2 * i + 1, *r) for i, r in enumerate(rows)], KAGGLE, quoting=csv.QUOTE_ALL
    )
    yield write_csv(
        folder / "quora.tsv", [(i, 2 * i, 2 * i + 1, *r) for i, r in enumerate(rows)], KAGGLE, delimiter="\t"
    )
    yield write_jsonl(folder / "a.jsonl", [{"sentence1": a, "sentence2": b, "label": y} for a, b, y in rows])
    (folder / "b.json").write_text(json.dumps([{"text1": a, "text2": b, "label": y} for a, b, y in rows]), "utf-8")
    yield folder / "b.json"
    table_of(rows).to_parquet(str(folder / "a.parquet"))
    yield folder / "a.parquet"


@pytest.mark.parametrize("rows", [ROWS, HARD], ids=["usual", "hard"])
def test_every_format_gives_the_same_pairs(tmp_path, rows):
    for path in write_all(tmp_path, rows):
        assert contents(load_pairs(path)) == cleaned(rows), path.name
        assert contents(load_pairs(str(path), labelled=False)) == [(a, b, -1) for a, b, _ in cleaned(rows)], path.name


QUESTION = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@pytest.mark.filterwarnings("ignore")
@given(st.lists(st.tuples(QUESTION, QUESTION, st.integers(0, 1)), min_size=1, max_size=5))
def test_csv_and_jsonl_read_back_any_text(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp()
    assert contents(load_pairs(write_csv(folder / "any.csv", rows, quoting=csv.QUOTE_ALL))) == cleaned(rows)
    records = [{"text1": a, "text2": b, "label": y} for a, b, y in rows]
    assert contents(load_pairs(write_jsonl(folder / "any.jsonl", records))) == cleaned(rows)


def test_glue_tsv_has_no_quoting(tmp_path):
    rows = [('"What" is it?', 'it is "', 1), ('"', 'a "b" c', 0), ("plain", '"open', 1), ('shut"', "x", 0)]
    lines = ["id\tquestion1\tquestion2\tis_duplicate", *(f"{i}\t{a}\t{b}\t{y}" for i, (a, b, y) in enumerate(rows))]
    path = tmp_path / "train.tsv"
    path.write_text("\n".join(lines) + "\n")
    assert contents(load_pairs(path)) == rows
    path.write_text("\n".join([lines[0], '1\t"a\tb\t0', "2\tc\td\t1", '3\te"\tf\t1']))
    assert contents(load_pairs(path)) == [('"a', "b", 0), ("c", "d", 1), ('e"', "f", 1)]
    path.write_text("\n".join([*lines, "4\tonly one question"]) + "\n")
    assert "row 5: 2 fields, but the header has 4" in refusal(path)
    assert load_pairs(path, skip_bad_rows=True).skipped == {"malformed": 1}


def test_columns_by_name(tmp_path):
    rows = [("b", 1, "a", "c"), ("d", 0, "c", "e")]
    path = write_csv(tmp_path / "x.csv", rows, header=("Zweite", "gleich", "Erste", "question1"))
    wanted = [("a", "b", 1), ("c", "d", 0)]
    assert contents(load_pairs(path, columns=("Erste", "Zweite", "gleich"))) == wanted
    assert contents(load_pairs(path, columns=("erste", "zweite", "GLEICH"))) == wanted
    for columns in (("Erste", "Zweite"), ("Erste", "Zweite", "no such")):
        assert contents(load_pairs(path, columns=columns, labelled=False)) == [(a, b, -1) for a, b, _ in wanted]
    message = refusal(path, columns=("Erste", "Zweite", "nope"))
    assert "no column 'nope'" in message and "'Zweite', 'gleich', 'Erste'" in message
    for columns in (("Erste", "Zweite"), ("Erste",), ("a", "b", "c", "d")):
        assert "TEXT1,TEXT2,LABEL" in refusal(path, columns=columns)


def test_missing_columns_name_those_found(tmp_path):
    message = refusal(write_csv(tmp_path / "x.csv", [("1", "2")], header=("left", "right")))
    assert "x.csv: no pair of question columns" in message and "'left', 'right'" in message and "--columns" in message
    message = refusal(write_csv(tmp_path / "y.csv", [("1", "2")], header=("question1", "question2")))
    assert "no label column" in message and "'question1', 'question2'" in message
    message = refusal(write_csv(tmp_path / "z.csv", [("a", "b", 1)], header=("x\ny" * 9, "long" * 999, "c")))
    assert "no pair of question columns" in message


def test_triplets(tmp_path):
    triplets = write_jsonl(
        tmp_path / "t.jsonl",
        [{"anchor": "a", "positive": "p", "negative": "n"}, {"anchor": "b", "positive": "q", "negative": "a"}],
    )
    assert contents(load_pairs(triplets)) == [("a", "p", 1), ("a", "n", 0), ("b", "q", 1), ("b", "a", 0)]
    assert contents(load_pairs(triplets, labelled=False)) == [("a", "p", -1), ("b", "q", -1)]
    positives = write_csv(tmp_path / "p.csv", [("a", "p")], header=("anchor", "positive"))
    assert contents(load_pairs(positives)) == [("a", "p", 1)]


@pytest.mark.parametrize(
    "labels", [[0, 1], [False, True], [0.0, 1.0], ["0", "1"], ["0.0", "1.0"], ["False", "TRUE"], [" 0", "1 "]]
)
def test_labels_of_any_type(tmp_path, labels):
    rows = [("a", "b", labels[0]), ("c", "d", labels[1])]
    table_of(rows).to_parquet(str(tmp_path / "x.parquet"))
    records = [{"question1": a, "question2": b, "label": y} for a, b, y in rows]
    for path in (
        tmp_path / "x.parquet",
        write_csv(tmp_path / "x.csv", rows),
        write_jsonl(tmp_path / "x.jsonl", records),
    ):
        assert load_pairs(path).labels.tolist() == [0, 1]


@pytest.mark.parametrize("bad", [2, -1, "", "yes", 0.5, None, "1" * 10_000])
def test_labels_outside_0_and_1(tmp_path, bad):
    rows = [("a", "b", 1), ("c", "d", bad), ("e", "f", 0)]
    records = [{"question1": a, "question2": b, "label": y} for a, b, y in rows]
    files = {"row": write_csv(tmp_path / "x.csv", rows), "line": write_jsonl(tmp_path / "x.jsonl", records)}
    for unit, path in files.items():
        message = refusal(path)
        assert f", {unit} 2: label" in message and "neither 0 nor 1" in message
        pairs = load_pairs(path, skip_bad_rows=True)
        assert contents(pairs) == [("a", "b", 1), ("e", "f", 0)]
        assert pairs.skipped == {"label": 1}
        assert len(load_pairs(path, labelled=False)) == 3


def test_bad_rows_have_their_number_and_are_counted(tmp_path):
    lines = [
        "id,question1,question2,is_duplicate",
        "",
        '1,"two\n\nlines",b,1',
        "   ",
        "2,a,  ,0",
        "3,,b,0",
        "4,a,b,0,5",
        "5,a",
        f"6,a,{'x' * 1_000_000},1",
        "7,a,b,maybe",
        '8,"a" and b,c,1',
        "9,last,row,0",
    ]
    texts = [
        "column 'question2' has no question",
        "column 'question1' has no question",
        "5 fields, but the header has 4",
    ]
    texts += ["2 fields, but", "column 'question2' holds 1,000,000 characters", "label 'maybe'", "broken quotes"]
    path = tmp_path / "x.csv"
    for number, text in enumerate(texts, start=2):
        path.write_text("\n".join([*lines[:4], *["0,fine,row,1"] * (number - 2), lines[number + 2], lines[-1]]))
        message = refusal(path)
        assert f"x.csv, row {number}: " in message and text in message
    path.write_text("\r\n".join(lines))
    pairs = load_pairs(path, skip_bad_rows=True)
    assert contents(pairs) == [("two lines", "b", 1), ("last", "row", 0)]
    assert pairs.skipped == {"malformed": 3, "empty question": 2, "too long": 1, "label": 1}
    path.write_text("\n".join([lines[0], *lines[4:6]]))
    assert "no usable pairs; left out: {'empty question': 2}" in refusal(path, skip_bad_rows=True)


def test_a_quote_that_never_closes_is_no_row_to_skip(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('question1,question2,is_duplicate\na,b,1\n"a,b,1\nc,d,0\ne,f,1\n')
    for skip in (False, True):
        assert "row 2: a quote is opened and never closed" in refusal(path, skip_bad_rows=skip)


def test_null_questions_and_other_types(tmp_path):
    table_of([("a", "b", 1), (None, "c", 0), ("d", "e", 0)]).to_parquet(str(tmp_path / "x.parquet"))
    assert "row 2: column 'question1' has no question" in refusal(tmp_path / "x.parquet")
    assert load_pairs(tmp_path / "x.parquet", skip_bad_rows=True).skipped == {"empty question": 1}
    table_of([(1, "b", 1)]).to_parquet(str(tmp_path / "y.parquet"))
    assert "row 1: column 'question1' holds 1, which is not a text" in refusal(tmp_path / "y.parquet")
    records = [
        {"text1": "a", "text2": "b", "label": 1},
        {"text1": "a", "label": 0},
        {"text1": 5, "text2": "b", "label": 0},
    ]
    path = write_jsonl(tmp_path / "z.jsonl", records)
    assert "line 2: column 'text2' has no question" in refusal(path)
    assert load_pairs(path, skip_bad_rows=True).skipped == {"empty question": 1, "not a text": 1}


@pytest.mark.parametrize(
    "line", ['{"text1": "a", ', "[1]", '"text"', "nonsense", '{"text1": "\\ud800"}', "[" * 100_000]
)
def test_broken_jsonl_lines(tmp_path, line):
    good = '{"text1": "a\u2028b", "text2": "b", "label": 1}'
    path = tmp_path / "x.jsonl"
    path.write_text(f"{good}\n\n{line}\n{good}\n", encoding="utf-8")
    assert "x.jsonl, line 3: not" in refusal(path)
    pairs = load_pairs(path, skip_bad_rows=True)
    assert (len(pairs), pairs.skipped) == (2, {"malformed": 1})


def test_a_row_without_a_label_has_the_number_of_its_line_too(tmp_path):
    good, bad = '{"text1": "a", "text2": "b", "label": 1}', '{"text1": "a", "text2": "b", "label": "maybe"}'
    path = tmp_path / "x.jsonl"
    path.write_text(f"{good}\n\n\n\n{bad}\n")
    assert "x.jsonl, line 5: label 'maybe'" in refusal(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_invalid_utf8_has_its_line(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"\xef\xbb\xbfquestion1,question2,label\na,b,1\ncaf\xe9,b,1\n")
    assert f"x{suffix}, line 3: not valid UTF-8" in refusal(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_files_without_content(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    assert "no such file" in refusal(path)
    path.write_bytes(b"")
    assert "the file is empty" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "data files" in refusal(path)


def test_tables_without_rows(tmp_path):
    assert "no rows" in refusal(write_csv(tmp_path / "x.csv", []))
    assert "no rows" in refusal(write_jsonl(tmp_path / "x.jsonl", [{}]))
    (tmp_path / "x.json").write_text("[]")
    assert "no rows" in refusal(tmp_path / "x.json")
    (tmp_path / "y.csv").write_text("\n\n")
    assert "empty" in refusal(tmp_path / "y.csv")
    features = datasets.Features({"question1": datasets.Value("string")})
    datasets.Dataset.from_dict({"question1": []}, features=features).to_parquet(str(tmp_path / "x.parquet"))
    assert "no rows" in refusal(tmp_path / "x.parquet")


@pytest.mark.parametrize("content", [b"not parquet at all", b"PAR1" + b"0" * 100 + b"PAR1"])
def test_broken_parquet_and_json(tmp_path, content, capfd):
    for name in ("x.parquet", "x.json"):
        (tmp_path / name).write_bytes(content)
        assert f"{name}: cannot be read: " in refusal(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_a_column_that_is_there_twice(tmp_path):
    path = write_csv(tmp_path / "x.csv", [("a", "b", "c", 1)], header=("question1", "question2", "question1", "label"))
    assert "'question1' appears twice" in refusal(path)
    path = write_csv(tmp_path / "y.csv", [("a", "b", 1, "", "")], header=("question1", "question2", "label", "", ""))
    assert contents(load_pairs(path)) == [("a", "b", 1)]


def test_an_unreadable_file(tmp_path, monkeypatch):
    def refuse(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    path = write_csv(tmp_path / "x.csv", ROWS)
    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(path).endswith("x.csv: cannot be read: Permission denied")


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "", "x" * 5000, "a\0b", "a:b:c", "[x]", "x.csv[train]"])
def test_names_of_nothing(name, monkeypatch):
    monkeypatch.setattr(hub, "_fetch", None)
    with pytest.raises(UserError, match="no such file or folder, and no Hub id"):
        open_source(name)


def test_an_unknown_kind_of_file(tmp_path):
    (tmp_path / "x.txt").write_text("a")
    assert "unknown kind of file" in refusal(tmp_path / "x.txt")


def test_sources_are_joined(tmp_path):
    one = write_csv(tmp_path / "a.csv", [("a", "b", 1), ("", "x", 0)])
    two = write_jsonl(
        tmp_path / "b.jsonl", [{"text1": "b", "text2": "c", "label": 0}, {"text1": None, "text2": "c", "label": 0}]
    )
    pairs = load_pairs([one, str(two)], skip_bad_rows=True)
    assert contents(pairs) == [("a", "b", 1), ("b", "c", 0)]
    assert pairs.questions == ("a", "b", "c")
    assert pairs.skipped == {"empty question": 2}


@pytest.fixture
def repository(tmp_path):
    """A folder in the shape of a dataset repository on the Hub, with two configs and GLUE's hidden labels."""
    folder = tmp_path / "repository"
    for name in ("pair-class", "triplet"):
        (folder / name).mkdir(parents=True)
    names = ("sentence1", "sentence2", "label")
    table_of([("a", "b", 1), ("c", "d", 0)], names).to_parquet(str(folder / "pair-class/train-0.parquet"))
    table_of([("e", "f", 0)], names).to_parquet(str(folder / "pair-class/validation-0.parquet"))
    table_of([("g", "h", -1), ("i", "j", -1)], names).to_parquet(str(folder / "pair-class/test-0.parquet"))
    table_of([("a", "p", "n")], ("anchor", "positive", "negative")).to_parquet(str(folder / "triplet/0.parquet"))
    (folder / "README.md").write_text(
        textwrap.dedent("""\
        ---
        configs:
        - config_name: pair-class
          data_files:
          - {split: train, path: pair-class/train-*}
          - {split: validation, path: pair-class/validation-*}
          - {split: test, path: pair-class/test-*}
        - config_name: triplet
          data_files: triplet/*
        ---
        # Questions
        """)
    )
    return folder


def test_a_dataset_folder(repository):
    train, validation, test = [("a", "b", 1), ("c", "d", 0)], [("e", "f", 0)], [("g", "h", -1), ("i", "j", -1)]
    assert contents(load_pairs(f"{repository}:pair-class")) == train + validation
    assert contents(load_pairs(f"{repository}:pair-class[validation]")) == validation
    assert contents(load_pairs(f"{repository}:pair-class[train[:1]]")) == train[:1]
    assert contents(load_pairs(f"{repository}:triplet")) == [("a", "p", 1), ("a", "n", 0)]
    assert contents(load_pairs(f"{repository}:pair-class[test]", labelled=False)) == test
    assert "row 1: label -1" in refusal(f"{repository}:pair-class[test]")
    assert "'pair-class', 'triplet'" in refusal(repository)
    assert "'pair-class', 'triplet'" in refusal(f"{repository}:nope")
    assert "'train', 'validation', 'test'" in refusal(f"{repository}:pair-class[nope]")


def test_the_named_sources(repository, monkeypatch):
    monkeypatch.setattr(sources, "NAMED_SOURCES", dict.fromkeys(("quora", "qqp"), f"{repository}:pair-class"))
    for name in ("quora", "qqp"):
        assert len(load_pairs(name)) == 3


def test_the_bundled_pairs(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "pairs.csv", ROWS)
    monkeypatch.setattr(sources, "sample_path", lambda: path)
    assert contents(load_pairs("sample")) == ROWS
    monkeypatch.undo()
    assert sources.sample_path().name == "pairs.csv"


def test_a_folder_of_data_files_and_an_odd_name(tmp_path, monkeypatch):
    folder = tmp_path / "my: csv"
    folder.mkdir()
    write_csv(folder / "train.csv", ROWS)
    assert contents(load_pairs(folder)) == ROWS
    (tmp_path / "csv").mkdir()
    write_csv(tmp_path / "csv/train.csv", ROWS)
    monkeypatch.chdir(tmp_path)
    assert contents(load_pairs("csv[train]")) == ROWS


def test_a_folder_without_data_is_named(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/read.toml").write_text("")
    assert "no file in this folder ends in .csv" in refusal(tmp_path / "notes")


def test_save_to_disk(tmp_path):
    one, two = table_of(ROWS), table_of(ROWS[:1])
    one.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=one, test=two).save_to_disk(str(tmp_path / "both"))
    assert contents(load_pairs(tmp_path / "one")) == ROWS
    assert contents(load_pairs(tmp_path / "both")) == ROWS + ROWS[:1]
    assert contents(load_pairs(f"{tmp_path / 'both'}[test]")) == ROWS[:1]
    assert "no part 'dev' in it; there are: train, test" in refusal(f"{tmp_path / 'both'}[dev]")
    assert "no part 'train' in it; there are: none" in refusal(f"{tmp_path / 'one'}[train]")
    assert "no part 'config'" in refusal(f"{tmp_path / 'both'}:config")


@pytest.mark.parametrize("hidden", [-1, None, "no column"])
def test_a_split_whose_labels_are_hidden_is_left_out(tmp_path, hidden: object):
    test = datasets.Dataset.from_dict({"question1": ["Who?", "Why?"], "question2": ["Where?", "When?"]})
    if hidden != "no column":
        test = test.add_column(table_of(ROWS).column_names[2], [hidden, hidden])
    datasets.DatasetDict(train=table_of(ROWS), test=test).save_to_disk(str(tmp_path / "x"))
    assert contents(load_pairs(tmp_path / "x")) == ROWS
    assert "is neither 0 nor 1" in refusal(f"{tmp_path / 'x'}[test]") or hidden == "no column"


def test_splits_that_do_not_fit_together(tmp_path):
    columns = {"train": ROWS, "test": [("a", "b", "1")]}
    datasets.DatasetDict({name: table_of(rows) for name, rows in columns.items()}).save_to_disk(str(tmp_path / "x"))
    assert "cannot be read" in refusal(tmp_path / "x")


def test_changed_files_are_read_anew(tmp_path, repository):
    for write in (write_all, lambda folder, rows: [write_csv(folder / "folder" / "train.csv", rows).parent]):
        (tmp_path / "folder").mkdir(exist_ok=True)
        for path in write(tmp_path, ROWS):
            load_pairs(path)
        times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        for path in write(tmp_path, HARD):
            for file in (path, *path.glob("*")):
                os.utime(file, ns=(times[file], times[file]))
            assert contents(load_pairs(path)) == cleaned(HARD), path.name


def test_nothing_is_printed_and_no_cache_is_needed(tmp_path, repository, monkeypatch, capfd):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", "/dev/null/cache")
    paths = [*write_all(tmp_path, ROWS), f"{repository}:pair-class"]
    capfd.readouterr()
    for path in paths:
        load_pairs(path)
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()


HUB_IDS = ("nobody/nothing", "quora")
ASK = """
import sys
import time
import datasets
from qpairs.data.sources import load_pairs
start = time.monotonic()
for name in sys.argv[1:]:
    try:
        load_pairs(name)
    except ValueError as error:
        print(error)
print(time.monotonic() - start)
"""


def ask_in_a_new_process(*sources, **environment):
    """What is said of sources that cannot be loaded, what else stands on stderr, and the seconds that it took."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", **environment}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *sources], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    *lines, seconds = done.stdout.splitlines()
    return lines, done.stderr, float(seconds)


@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_without_network_a_hub_id_is_one_line(tmp_path, environment):
    broken = tmp_path / "x.parquet"
    broken.write_bytes(b"not parquet at all")
    lines, errors, seconds = ask_in_a_new_process(*HUB_IDS, str(broken), HF_HOME=str(tmp_path), **environment)
    assert [line.split(":")[0] for line in lines] == [*HUB_IDS, str(broken)]
    assert all("Hub cannot be reached" in line for line in lines[:2])
    assert errors == ""
    assert seconds < 10


@pytest.mark.parametrize(
    ("header", "value", "words"),
    [
        ("X-Error-Code", "RepoNotFound", "no such dataset on the Hugging Face Hub"),
        ("X-Error-Message", "Invalid credentials in Authorization header", "cannot be read: "),
    ],
)
def test_a_hub_that_refuses(tmp_path, header, value, words):
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.send_header(header, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        lines, errors, seconds = ask_in_a_new_process(*HUB_IDS, HF_HOME=str(tmp_path), HF_ENDPOINT=endpoint)
        server.shutdown()
    assert [line.split(":")[0] for line in lines] == list(HUB_IDS)
    assert all(words in line for line in lines)
    assert errors == ""
    assert seconds < 10


def test_without_network_the_cached_dataset_is_read(tmp_path, repository, monkeypatch):
    from huggingface_hub import HfApi

    def unreachable(self, *_, **__):
        raise OSError("no network")

    cache = Path(datasets.config.HF_DATASETS_CACHE)
    datasets.load_dataset(str(repository), "pair-class")
    (cache / "repository").rename(cache / "nobody___repository")
    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    assert len(load_pairs("nobody/repository:pair-class")) == 3
    assert datasets.config.HF_HUB_OFFLINE is False
    assert "cannot be reached" in refusal("nobody/other")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_80_000_rows_are_read_in_seconds(tmp_path, suffix):
    rows = [(f"What is the number {i} good for?", f"What is {i // 2} good for?", i % 3 % 2) for i in range(80_000)]
    path = tmp_path / f"x{suffix}"
    write_csv(path, rows) if suffix == ".csv" else table_of(rows).to_parquet(str(path))
    start = time.process_time()
    assert len(load_pairs(path)) == 80_000
    assert time.process_time() - start < 4
