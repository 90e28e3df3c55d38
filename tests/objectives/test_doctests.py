"""The examples in the docstrings print what they say, and every public loss and miner has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import qpairs.core.ranges
import qpairs.objectives
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.miners import MINERS

MODULES = [module.name for module in pkgutil.walk_packages(qpairs.objectives.__path__, "qpairs.objectives.")]


@pytest.mark.parametrize("name", [*MODULES, "qpairs.core.ranges"])
def test_examples_print_what_they_say(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("entry", [*LOSSES.values(), *MINERS.values()], ids=[*LOSSES, *MINERS])
def test_every_loss_and_miner_has_an_example_that_calls_it(entry):
    (test,) = doctest.DocTestFinder(recurse=False).find(entry.function, globs={})
    assert any(f"{entry.function.__name__}(" in example.source and example.want for example in test.examples)
    assert inspect.getdoc(entry.function).index("Args:") < inspect.getdoc(entry.function).index("Example:")
