"""The examples in the docstrings of metrics and evaluation run, on a small export and its pairs."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import qpairs
from qpairs import evaluation, metrics

MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
PACKAGES = [metrics, evaluation]
MODULES = [name for p in PACKAGES for _, name, _ in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")]
CENTRAL = ["evaluate.evaluate", "predict.predict", "calibrate.calibrate"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    given = {
        "qpairs": qpairs,
        "model": qpairs.load(MADE / "one-static"),
        "pairs": qpairs.load_pairs(MADE / "pairs.csv"),
    }
    assert doctest.testmod(importlib.import_module(name), extraglobs=given).failed == 0


@pytest.mark.parametrize("name", CENTRAL)
def test_central_functions_have_an_example(name: str) -> None:
    module, function = name.split(".")
    found = getattr(importlib.import_module(f"qpairs.evaluation.{module}"), function)
    assert doctest.DocTestFinder().find(found)[0].examples
