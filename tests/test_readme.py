"""What the README shows is done."""

import re
import shutil
import sys
from pathlib import Path

import pandas
import pytest
import torch

import qpairs
from qpairs.encoders.build import ENCODERS
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.miners import MINERS
from qpairs.objectives.relations import Relation

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The first block of Python below a heading."""
    return re.search(rf"^#+ {title}\n.*?```python\n(.*?)```", README, re.MULTILINE | re.DOTALL)[1]


def test_a_loss_is_added_with_one_function_and_one_row(
    pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(pairs_csv, "mine.csv")
    before = dict(LOSSES)
    try:
        names: dict = {}
        exec(section("Adding a loss"), names)
        (added,) = LOSSES.keys() - before
    finally:
        LOSSES.clear()
        LOSSES.update(before)
    assert added in names["model"].config.loss
    sim = torch.tensor([[0.9, 0.7, 0.1]])
    relation = Relation(torch.tensor([[True, False, False]]), torch.tensor([[False, True, True]]))
    labels = torch.tensor([1, -1, -1])
    u = torch.eye(2)[:1].expand(3, 2)
    v = torch.stack([sim[0], (1 - sim[0].square()).sqrt()], 1)
    expected = torch.nn.functional.cosine_embedding_loss(u, v, labels, margin=0.2)
    torch.testing.assert_close(names["cosine_embedding"](sim, relation, margin=0.2), expected)


def test_a_loss_a_miner_and_an_encoder_of_ones_own_go_with_a_command(run, pairs_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(section("In every command"), encoding="utf-8")
    before = [(table, dict(table)) for table in (LOSSES, MINERS, ENCODERS)]
    options = ("--loss", "gap", "--miner", "closest(floor=0.1)", "--encoder", "letters")
    try:
        done = run("train", "--import", "mine.py", *options, "--data", pairs_csv, "--epochs", "0.5", "--output", "own")
    finally:
        sys.modules.pop("mine", None)
        for table, rows in before:
            table.clear()
            table.update(rows)
    assert done.code == 0, done.err
    model = qpairs.load("own")
    assert (model.config.loss, model.config.encoder, model.dimension) == ("gap", "letters", 64)
    assert model.similarity("How do I pay?", "How do I pay?") == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["gap", "closest", "letters"])
def test_what_is_of_ones_own_takes_ten_lines_at_most(name: str) -> None:
    (function,) = re.findall(rf"def {name}\(.*?(?=\n\n\n)", section("In every command"), re.DOTALL)
    assert len(function.splitlines()) + 1 <= 10


def test_python_without_files(checkpoint, pairs_csv: Path) -> None:
    frame, questions = pandas.read_csv(pairs_csv), pandas.read_csv(pairs_csv)[["question1"]]
    code = re.search(r"in a minute:\n\n```python\n(.*?)```", README, re.DOTALL)[1]
    questions = questions.rename(columns={"question1": "question"})
    lines = [line for line in code.splitlines() if line.strip()]
    names = {"qpairs": qpairs, "model": checkpoint}
    for line in lines:
        names["frame"] = questions if line.startswith("model.") else frame
        exec(line, names)
    assert names["report"].n == len(frame)
