"""The examples in the docstrings of the package run, and central functions have one."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import qpairs
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.miners import MINERS

MADE = Path(__file__).parent / "fixtures" / "commit_48e0593"
MODULES = [found.name for found in pkgutil.walk_packages(qpairs.__path__, "qpairs.")]
CENTRAL = [
    *(qpairs.train, qpairs.evaluate, qpairs.predict, qpairs.calibrate, qpairs.load, qpairs.load_pairs),
    *(qpairs.pairs_from_texts, qpairs.split_pairs, qpairs.export_checkpoint),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    given = {
        "qpairs": qpairs,
        "model": qpairs.load(MADE / "one-static"),
        "pairs": qpairs.load_pairs(MADE / "pairs.csv"),
    }
    assert doctest.testmod(importlib.import_module(name), extraglobs=given).failed == 0


@pytest.mark.parametrize("function", CENTRAL, ids=lambda function: function.__name__)
def test_central_functions_have_an_example(function: object) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(function, globs={})
    assert test.examples


@pytest.mark.parametrize("entry", [*LOSSES.values(), *MINERS.values()], ids=[*LOSSES, *MINERS])
def test_every_loss_and_miner_has_an_example_that_calls_it(entry: object) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(entry.function, globs={})
    assert any(f"{entry.function.__name__}(" in example.source and example.want for example in test.examples)
    assert inspect.getdoc(entry.function).index("Args:") < inspect.getdoc(entry.function).index("Example:")
