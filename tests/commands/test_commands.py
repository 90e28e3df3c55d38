import csv
import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas
import pytest
from conftest import Result, refused, write_csv
from mocks import moved

import qpairs
from qpairs.commands.reading import NamedPairs
from qpairs.metrics import Calibration

FAST = ["--encoder", "static", "--epochs", "2", "--batch-size", "16"]
CLI = Path(__file__).parents[2] / "cli.py"
HEADER = "question1,question2,is_duplicate\n"


@pytest.fixture(scope="module")
def checkpoint(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "x"
    qpairs.train(data=str(pairs_csv), encoder="static", epochs=2, batch_size=16, output=str(output))
    return output


def test_help_is_quick() -> None:
    times = []
    while not times or (min(times) >= 0.6 and len(times) < 3):
        before = os.times()
        done = subprocess.run([sys.executable, CLI, "--help"], capture_output=True, text=True, check=True)
        after = os.times()  # of the processor: a busy machine says nothing about the command
        times.append(sum(after[2:4]) - sum(before[2:4]))
    assert min(times) < 0.6
    assert all(name in done.stdout for name in ("train", "evaluate", "predict", "calibrate", "data"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train --epoch 3", ("--epochs", "qpairs train --help")),
        ("train --epochs many", ("--epochs", "number")),
        ("evaluate", ("checkpoint", "qpairs evaluate --help")),
        ("compare --seeds", ("--seeds",)),
        ("trian", ("'train'",)),
        ("--nothing", ("--nothing", "qpairs --help")),
    ],
)
def test_a_command_that_does_not_exist_is_one_line(run, words: str, told: tuple[str, ...]) -> None:
    refused(run(*words.split()), *told)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError(f"a library's own error ({os.strerror(errno.ENOSPC)})"),
    ],
    ids=["with its number", "in words"],
)
def test_a_disk_that_is_full_where_no_file_is_named_is_one_line(
    run, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(NamedPairs, "load", full)
    refused(run("data", "x.csv"), "No space left on device", tempfile.gettempdir())


def test_alone_it_tells_what_there_is(run) -> None:
    alone = run()
    assert alone.code == 2
    assert alone.out == run("--help").out
    version = run("--version", "losses")
    assert (version.code, version.out) == (0, f"qpairs {qpairs.__version__}\n")


def test_train_prints_the_verdict_beside_the_trivial_answers(run, pairs_csv: Path) -> None:
    result = run("train", "--data", pairs_csv, *FAST, "--output", "runs/a")
    assert result.code == 0, result.err
    for words in ("test", "95 % interval", "all duplicate", "TF-IDF", "runs/a"):
        assert words in result.out
    assert (Path("runs/a") / "qpairs.json").exists()


def test_options_go_over_the_toml_file_and_both_are_in_the_checkpoint(run, pairs_csv: Path, tmp_path: Path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(
        f'data = "{pairs_csv}"\nencoder = "static"\nepochs = 1\nseed = 7\nbatch_size = 32\noutput = "runs/b"\n'
    )
    assert run("train", "--config", toml, "--epochs", "2").code == 0
    config = json.loads(Path("runs/b/qpairs.json").read_text())["config"]
    assert (config["epochs"], config["seed"], config["batch_size"]) == (2.0, 7, 32)


def test_parts_of_the_users_own_and_several_sources(run, sample_rows, tmp_path: Path) -> None:
    a, b, d = (
        write_csv(tmp_path / n, sample_rows[i:j])
        for n, i, j in (("a.csv", 0, 200), ("b.csv", 200, 400), ("d.csv", 400, 600))
    )
    result = run(
        "train", "--data", a, "--data", b, "--validation", d, *FAST, "--loss", "contrastive", "--output", "runs/c"
    )
    assert result.code == 0, result.err
    assert "cross-fitted" in result.out
    split = json.loads(Path("runs/c/qpairs.json").read_text())["split"]
    assert split["sizes"] == {"train": 400, "validation": 200}


def test_evaluate_writes_what_the_library_returns(run, checkpoint: Path, pairs_csv: Path) -> None:
    result = run("evaluate", checkpoint, "--data", pairs_csv, "--json", "out.json")
    assert result.code == 0, result.err
    written = json.loads(Path("out.json").read_text())
    expected = qpairs.evaluate(checkpoint, str(pairs_csv))
    keys = ("f1", "precision", "recall", "accuracy", "average_precision", "roc_auc", "threshold", "n", "f1_interval")
    assert {k: written[k] for k in keys} == json.loads(json.dumps({k: getattr(expected, k) for k in keys}))
    assert f"{expected.f1:.3f}" in result.out


def test_predict_two_questions(run, checkpoint: Path) -> None:
    result = run("predict", checkpoint, "How do I reset my password?", "How do I reset my password?")
    assert result.code == 0, result.err
    assert result.out.startswith("duplicates")
    assert "similarity 1.000" in result.out


def test_predict_a_file_keeps_its_columns_and_adds_three(run, checkpoint: Path, tmp_path: Path) -> None:
    rows = [("7", "how to pay, now", "How can I pay?"), ("8", "a\nb", "c"), ("9", "NA", "null")]
    with Path("in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("ticket", "question1", "question2"), *rows])
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        result = run("predict", checkpoint, "in.csv", "--output", f"scored.{suffix}")
        assert result.code == 0, result.err
    table = pandas.read_csv("scored.csv", keep_default_na=False, dtype={"ticket": str})
    assert list(table.columns) == ["ticket", "question1", "question2", "similarity", "probability", "duplicate"]
    assert [tuple(r) for r in table[["ticket", "question1", "question2"]].values] == rows
    model = qpairs.load_checkpoint(checkpoint)
    assert ((table["similarity"] >= model.verdict.pair.threshold) == (table["duplicate"] == 1)).all()
    assert len(pandas.read_parquet("scored.parquet")) == 3


def test_calibrate_moves_the_threshold_and_keeps_the_encoder(
    run, checkpoint: Path, sample_rows, tmp_path: Path
) -> None:
    few = write_csv(tmp_path / "few.csv", sample_rows[:60])
    result = run("calibrate", checkpoint, "--data", few, "--output", "runs/y")
    assert result.code == 0, result.err
    assert "would halve it" in result.out
    assert "\nSaved in runs/y.\nEvaluate it on pairs that it was not fitted to:\nqpairs evaluate runs/y " in result.out
    old, new = qpairs.load_checkpoint(checkpoint), qpairs.load_checkpoint("runs/y")
    assert new.verdict.pair.threshold != old.verdict.pair.threshold
    assert new.verdict.reference.n == 60
    assert (new.encoder.encode("a b") == old.encoder.encode("a b")).all()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["how do i pay?,how can i pay?,1"], "qpairs train --data p.csv --validation LABELLED.csv"),
        (["how do i pay?,how can i pay?,0", "who?,why?,0"], "cannot be trained on: data: all 2 pairs are non-dup"),
        (["how do i pay?,how can i pay?,0", "who?,why?,1"], "cannot be trained on: too few separate groups"),
    ],
)
def test_data_says_what_training_lacks(run, tmp_path: Path, rows: list[str], told: str) -> None:
    (tmp_path / "p.csv").write_text("\n".join(["question1,question2,is_duplicate", *rows]))
    done = run("data", "p.csv")
    said = " ".join(done.out.split())
    assert done.code == 0 and told in said and "They can be trained on" not in said
    if "LABELLED" not in told:
        assert run("train", "--data", "p.csv").code == 2


def test_data_names_the_file_of_a_folder_that_it_cannot_read(run, tmp_path: Path) -> None:
    (tmp_path / "pairs.bin").write_bytes(bytes(range(256)))
    refused(run("data", "."), "./pairs.bin: cannot be read", "no file in this folder ends in .csv")


def test_predict_says_what_one_argument_must_be(run, checkpoint: Path, tmp_path: Path) -> None:
    refused(run("predict", checkpoint, "how do i pay?"), "how do i pay?: no such file; give two questions, or one file")
    refused(run("predict", checkpoint, tmp_path), "a folder; give two questions, or one file of pairs")


@pytest.mark.parametrize(("intercept", "differs"), [(-100.0, True), (0.0, False)])
def test_a_verdict_against_its_probability_is_explained(
    run, checkpoint: Path, tmp_path: Path, intercept: float, differs: bool
) -> None:
    calibration = Calibration(1.0, intercept)
    moved(qpairs.load(checkpoint), threshold=0.5, calibration=calibration).save(tmp_path / "m")
    done = run("predict", tmp_path / "m", "how do i pay?", "how do i pay?")
    assert done.code == 0 and ("not probability 0.5" in " ".join(done.out.split())) == differs


def test_no_attack_is_no_number(run, checkpoint: Path, pairs_csv: Path) -> None:
    done = run("evaluate", checkpoint, "--data", pairs_csv, "--attack", 0)
    refused(done, "--attack", "greater than or equal to 1")


def test_data_tells_sizes_and_contradictions(run, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(HEADER + "a b,c d,1\nc d,e f,1\na b,e f,0\nx y,z w,0\n")
    result = run("data", table, "--contradictions", "faults.csv")
    assert result.code == 0, result.err
    for words in ("50.0 %", "distinct questions", "contradictions", "1 pairs"):
        assert words in result.out
    assert Path("faults.csv").read_text() == HEADER + "a b,e f,0\n"
    assert run("data", "sample").code == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", ["empty.csv", "empty"]),
        ("header.csv", HEADER.encode(), ["no rows"]),
        ("columns.csv", b"a,b,c\n1,2,3\n", ["found: 'a', 'b', 'c'"]),
        ("labels.csv", (HEADER + "a,b,1\nc,d,2\n").encode(), ["row 2", "'2'"]),
        ("one.csv", (HEADER + "a,b,1\nc,d,1\n").encode(), ["all 2 pairs are duplicates"]),
        ("null.csv", (HEADER + "a,b,1\n,d,0\n").encode(), ["row 2", "no question", "--skip-bad-rows"]),
        ("bytes.csv", HEADER.encode() + b"a,b,1\nc,\xff\xfe,0\n", ["UTF-8", "line 3"]),
        ("long.csv", (HEADER + "a,b,1\nc," + "x" * 1_000_000 + ",0\n").encode(), ["row 2", "1,000,000"]),
        ("ragged.csv", (HEADER + "a,b,1\nc,d,0,9\n").encode(), ["row 2", "4 fields"]),
        ("short.csv", (HEADER + "a,b,1\nc,d\n").encode(), ["row 2", "2 fields"]),
        ("broken.parquet", b"PAR1 no", ["broken.parquet", "parquet"]),
        ("broken.jsonl", b'{"question1": "a"\n', ["line 1", "JSON"]),
    ],
)
def test_bad_tables_are_one_line_and_nothing_is_written(
    run, tmp_path: Path, name: str, content: bytes, words: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(run("train", "--data", name, *FAST, "--output", "runs/x"), *words)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "missing.csv"], ["missing.csv", "no such file"]),
        (["--loss", "contrastiv"], ["contrastiv", "did you mean 'contrastive'"]),
        (["--loss", "contrastive(margn=1)"], ["margn", "margin"]),
        (["--encoder", "lstn"], ["lstn", "'lstm'"]),
        (["--precision", "fp16"], ["fp16", "bf16"]),
        (["--epochs", "0"], ["epochs: 0.0, must be epochs > 0"]),
        (["--config", "missing.toml"], ["missing.toml"]),
        (["--report-to", "nothing"], ["report_to"]),
        (["--vectors", "missing.txt", "--encoder", "lstm"], ["missing.txt"]),
        (["--resume"], ["--output"]),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(
    run, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    refused(run("train", *options), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["train", "my pairs.csv", "--epochs", "1"],
            ["'my pairs.csv'; a file is named by --data: --data 'my pairs.csv'"],
        ),
        (["evaluate", "runs/x", "test.csv"], ["unexpected 'test.csv'", "--data test.csv"]),
        (["serve", "runs/x", "faq.csv"], ["unexpected 'faq.csv'", "--questions faq.csv"]),
        (["dedupe", "runs/x", "faq.csv", "more.csv"], ["unexpected 'more.csv'"]),
        (["label", "idx", "more", "--llm", "x", "--model", "y"], ["unexpected 'more'"]),
    ],
)
def test_a_file_without_its_option_is_told_of_the_option(run, words: list[str], told: list[str]) -> None:
    refused(run(*words), *told)


def test_unknown_config_keys_name_the_nearest(run, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("epoch = 3\n")
    refused(run("train", "--config", "c.toml"), "c.toml", "'epoch'", "'epochs'")


def test_an_output_in_use_and_a_missing_checkpoint(run, checkpoint: Path, pairs_csv: Path) -> None:
    refused(run("train", "--data", pairs_csv, "--output", checkpoint), "not empty")
    refused(run("calibrate", checkpoint, "--data", pairs_csv, "--output", checkpoint), "not empty")
    refused(run("evaluate", "runs/none", "--data", pairs_csv), "no such checkpoint")
    Path("empty").mkdir()
    refused(run("predict", "empty", "a", "b"), "no checkpoint and no export here")
    refused(run("predict", checkpoint, "a", "b", "c"), "two questions")
    refused(run("predict", checkpoint, str(pairs_csv)), "--output")
    refused(run("predict", checkpoint, str(pairs_csv), "--output", "x.xls"), "x.xls")
    refused(run("evaluate", checkpoint, "--data", pairs_csv, "--json", "/proc/x/y.json"), "cannot be written")


def test_bad_rows_can_be_skipped_and_are_counted(run, sample_rows, tmp_path: Path) -> None:
    with Path("t.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("question1", "question2", "is_duplicate"), *sample_rows, ("", "b", 1), ("a", "b", 7)]
        )
    result = run("train", "--data", "t.csv", *FAST, "--skip-bad-rows", "--output", "runs/x")
    assert result.code == 0, result.err
    assert "1 empty question" in result.out
    assert "1 label" in result.out


def test_no_network_for_a_hub_id_is_one_line_and_quick(tmp_path: Path) -> None:
    script = (
        "import socket, sys\ndef none(*a, **k): raise socket.gaierror(-2, 'no network')\nsocket.getaddrinfo = none\n"
    )
    script += "from qpairs.commands import main\nmain()\n"
    environment = {"PATH": "/usr/bin", "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    for options in (["--data", "quora"], ["--encoder", "nobody/nothing"]):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script, "train", *options],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        assert time.monotonic() - start < 60
        refused(Result(done.returncode, done.stdout, done.stderr), "Hub")
    assert not (tmp_path / "runs").exists()


def test_collapse_is_said_in_the_verdict(run, checkpoint: Path, pairs_csv: Path, tmp_path: Path) -> None:
    import dataclasses

    import torch

    model = qpairs.load_checkpoint(checkpoint)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.fill_(1.0)
    qpairs.save_checkpoint(dataclasses.replace(model), tmp_path / "flat")
    result = run("evaluate", tmp_path / "flat", "--data", pairs_csv)
    assert result.code == 0
    assert "collapsed" in result.out


def test_a_package_that_is_missing_is_one_line(pairs_csv: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['sentence_transformers'] = None\nfrom qpairs.commands import main\n"
    script += f"sys.argv = ['qpairs', 'train', '--data', {str(pairs_csv)!r}, '--encoder', 'static']; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    refused(Result(done.returncode, done.stdout, done.stderr), "sentence_transformers", "pip install qpairs")
