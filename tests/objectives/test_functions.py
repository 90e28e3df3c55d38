"""Losses and miners that are functions of the user."""

from functools import partial
from pathlib import Path

import pytest
import torch
from draws import points, random_relation
from safetensors.torch import load_file

import qpairs
from qpairs.models.unfinished import partial_of
from qpairs.objectives.functions import function_name, objective_of, separate_functions
from qpairs.objectives.labels import BatchLabels
from qpairs.objectives.losses import LossEntry
from qpairs.objectives.losses.in_batch import info_nce
from qpairs.objectives.losses.pairwise import contrastive
from qpairs.objectives.miners import hard
from qpairs.objectives.objective import parse_objective
from qpairs.objectives.relations import Relation

FAST = {"encoder": "static", "batch_size": 16, "evaluations": 1, "patience": 0, "max_length": 24}


def margin_loss(sim, relation):
    """No duplicate below 0.8, no other pair above 0.2."""
    return (0.8 - sim[relation.positive]).relu().sum() + (sim[relation.negative] - 0.2).relu().sum()


def nearest(sim, relation):
    """The non-duplicates above 0.5."""
    return Relation(relation.positive, relation.negative & (sim > 0.5))


def row_by_row(sim, relation):
    return (0.8 - sim).relu().sum(1)


def one_argument(sim):
    return sim.sum()


def masks(sim, relation):
    return relation.positive


def one_row(sim, relation):
    return Relation(relation.positive[:1], relation.negative[:1])


def batch():
    (rows,), relation = points(0, 8), random_relation(0, 8, 8)
    return rows, BatchLabels(relation.positive, torch.zeros_like(relation.negative), relation.negative)


def train(pairs_csv, output, **options):
    return qpairs.train(data=str(pairs_csv), output=str(output), **{**FAST, **options})


def weights(folder: Path):
    return load_file(folder / "model.safetensors")["embedding.weight"]


def test_a_function_is_called_with_cosines_and_in_batch_negatives_as_a_loss_of_the_table_is():
    rows, labels = batch()
    assert objective_of(info_nce)(rows, rows, labels) == parse_objective("info_nce")(rows, rows, labels)
    mined = objective_of(info_nce, hard)(rows, rows, labels)
    assert mined == objective_of("info_nce", "hard")(rows, rows, labels)
    assert mined != objective_of("info_nce")(rows, rows, labels)


def test_an_entry_says_what_else_a_function_needs():
    rows, labels = batch()
    loss = objective_of(LossEntry(contrastive, "euclidean", by_pair=True))(rows, rows, labels)
    assert loss == parse_objective("contrastive")(rows, rows, labels)


def test_what_a_miner_selected_is_applied_before_the_loss_is_called():
    """A loss that selected the rows once more got other rows, without a word."""
    seen = []

    def loss(sim, relation):
        seen.append((sim.shape, relation))
        return sim.sum()

    rows, labels = batch()
    for miner in ("hard", "semi_hard", "batch_hard", "multi_similarity", hard):
        objective_of(loss, miner)(rows, rows, labels)
        shape, relation = seen[-1]
        assert relation.rows is None
        assert shape == relation.positive.shape == relation.negative.shape
    sim = torch.rand(8, 8)
    LossEntry(loss)(sim, Relation(*torch.ones(2, 3, 8).bool(), rows=torch.tensor([5, 0, 0])))
    assert seen[-1][0] == (3, 8)
    assert seen[-1][1].rows is None


def test_a_function_is_named_in_a_config_by_module_and_name():
    entry = LossEntry(margin_loss)
    options, functions = separate_functions({"loss": entry, "miner": nearest, "seed": 3})
    assert options == {"loss": f"function {__name__}.margin_loss", "miner": f"function {__name__}.nearest", "seed": 3}
    assert functions == {"loss": entry, "miner": nearest}
    assert separate_functions({"loss": "info_nce"}) == ({"loss": "info_nce"}, {})
    assert function_name(partial(margin_loss)) == f"function {__name__}.margin_loss()"


def test_functions_train_an_encoder_and_the_checkpoint_names_them(pairs_csv: Path, tmp_path: Path):
    train(pairs_csv, tmp_path / "default")
    train(pairs_csv, tmp_path / "loss", loss=margin_loss)
    train(pairs_csv, tmp_path / "both", loss=margin_loss, miner=nearest)
    learned = [weights(tmp_path / name) for name in ("default", "loss", "both")]
    assert not any(learned[i].equal(learned[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    config = qpairs.load_checkpoint(tmp_path / "both").config
    assert config.loss == f"function {__name__}.margin_loss"
    assert config.miner == f"function {__name__}.nearest"
    with pytest.raises(qpairs.UserError, match="is a Python function; pass the function itself, also to resume"):
        qpairs.train(config, output=str(tmp_path / "again"))


def test_a_run_is_resumed_with_the_same_function(pairs_csv: Path, tmp_path: Path):
    def interrupt(progress):
        if progress.done == 20:
            raise KeyboardInterrupt

    options = {"loss": margin_loss, "epochs": 1.0, "evaluations": 4}
    train(pairs_csv, tmp_path / "unbroken", **options)
    with pytest.raises(KeyboardInterrupt):
        train(pairs_csv, tmp_path / "run", on_progress=interrupt, **options)
    for given, message in (({}, "pass the function itself, also to resume"), ({"loss": row_by_row}, "another loss")):
        with pytest.raises(qpairs.UserError, match=message):
            qpairs.train(output=str(tmp_path / "run"), resume=True, **given)
    qpairs.train(output=str(tmp_path / "run"), resume=True, loss=margin_loss)
    assert weights(tmp_path / "run").equal(weights(tmp_path / "unbroken"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": one_argument}, r"loss: \S+one_argument must take two arguments, \(sim, relation\)"),
        ({"miner": one_argument}, r"miner: \S+one_argument must take two arguments, \(sim, relation\)"),
        ({"loss": row_by_row}, r"loss: \S+row_by_row must return a scalar tensor, not one of shape \(\d+,\)"),
        ({"loss": lambda sim, relation: 0.5}, r"loss: \S+<lambda> must return a scalar tensor, not 0\.5"),
        ({"miner": masks}, r"miner: \S+masks must return a Relation of two boolean masks of shape \(\d+, \d+\)"),
        ({"loss": "info_nce", "miner": one_row}, r"miner: \S+one_row must return a Relation"),
        ({"loss": margin_loss, "teacher": "tiny"}, "no part of the loss"),
        ({"loss": "function os.system"}, "is a Python function"),
    ],
)
def test_a_function_that_is_no_loss_or_miner_is_refused_in_one_line(options, message, pairs_csv, tmp_path):
    with pytest.raises(qpairs.UserError, match=message) as refusal:
        train(pairs_csv, tmp_path / "x", **options)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "x").exists()
    assert not (partial_of(tmp_path / "x") / "split.json").exists()  # the next run need not overwrite anything


def test_a_comparison_takes_names_and_functions(pairs_csv, tmp_path):
    options = {"encoders": "static", "seeds": 1, "budget_minutes": 0.0, "epochs": 0.1}
    found = qpairs.compare(
        data=str(pairs_csv), output=str(tmp_path / "x"), losses=["info_nce", margin_loss], miners=nearest, **options
    )
    assert {row.loss for row in found.rows} == {"info_nce", f"function {__name__}.margin_loss"}
    assert {row.miner for row in found.rows} == {f"function {__name__}.nearest"}
    assert all(record.error == "" for record in found.records)
