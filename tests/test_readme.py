"""What the README shows is done."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from qpairs.objectives.losses import LOSSES
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
