"""Runs with a queue of past vectors: what it changes, what it does not fit, and resumption to the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from killed import train_and_kill
from safetensors.torch import load_file

import qpairs
from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.models.unfinished import partial_of
from qpairs.objectives.queue import EMPTY
from qpairs.training.trainer import complete_states

FAST: dict[str, Any] = {"encoder": "static", "loss": "info_nce", "epochs": 2, "batch_size": 16, "queue": 64}


def same_weights(*folders: Path) -> bool:
    one, two = (load_file(folder / "model.safetensors") for folder in folders)
    return all(torch.equal(one[name], two[name]) for name in one)


def test_killed_and_resumed_it_ends_with_the_same_weights(pairs_csv: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    qpairs.train(data=str(pairs_csv), output=str(whole), seed=3, **FAST)
    train_and_kill(("training", 40), FAST, pairs_csv, broken)
    state = load_file(complete_states(partial_of(broken))[-1] / "model.safetensors")
    assert state["queue.vectors"].shape[0] == state["queue.ids"].shape[0] == 64
    assert (state["queue.ids"] != EMPTY).sum() > 32
    qpairs.train(output=str(broken), resume=True)
    assert same_weights(whole, broken)
    assert not any("queue" in name for name in load_file(whole / "model.safetensors"))
    without = {**FAST, "queue": 0}
    qpairs.train(data=str(pairs_csv), output=str(tmp_path / "without"), seed=3, **without)
    assert not same_weights(whole, tmp_path / "without")


@pytest.mark.parametrize(
    "more",
    [
        {"dims": [16]},
        {"sampler": "triplets", "loss": "triplet"},
        {"sampler": "groups"},
        {"loss": "softmax + info_nce"},
        {"loss": "online_contrastive + 0.6*strangers", "miner": "semi_hard"},
        {"gradient_cache": 8},
    ],
)
def test_it_goes_with_the_other_options(more: dict[str, Any], pairs_csv: Path, tmp_path: Path) -> None:
    model = qpairs.train(data=str(pairs_csv), output=str(tmp_path / "run"), **{**FAST, "epochs": 0.5, **more})
    assert model.scores["test"]["average_precision"] > 0.3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"encoder": "static+static"}, "queue: needs one tower, and this encoder has two"),
        ({"symmetric": False}, "queue: its vectors stand on both sides of a pair, which --no-symmetric"),
        ({"loss": "softmax"}, "queue: no part of 'softmax' takes other questions as negatives"),
        ({"queue": 31}, "queue: must be at least twice batch_size, the number of questions in a batch"),
        ({"model": "cross-encoder", "encoder": "tiny", "loss": Config().loss}, "queue: a cross-encoder learns each"),
    ],
)
def test_what_it_does_not_fit_is_refused_in_one_line(
    more: dict[str, Any], words: str, pairs_csv: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        qpairs.train(data=str(pairs_csv), output=str(tmp_path / "run"), **{**FAST, **more})
    assert not (tmp_path / "run").exists()
