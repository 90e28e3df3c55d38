"""The examples in the docstrings of qpairs.data run."""

import doctest
import importlib
import pkgutil

import pytest

import qpairs.data

MODULES = [found.name for found in pkgutil.walk_packages(qpairs.data.__path__, "qpairs.data.")]
NAMES = "columns corpus hub pairs perturbations questions sources splits tables words"


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str) -> None:
    done = doctest.testmod(importlib.import_module(module))
    assert done.failed == 0
    assert done.attempted or module.removeprefix("qpairs.data.") not in NAMES.split()
