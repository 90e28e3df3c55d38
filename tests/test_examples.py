"""The examples in the docstrings of the package run, and everything public has one."""

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import qpairs
from qpairs.evaluation.question_table import table_densities
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.miners import MINERS
from qpairs.sklearn import DuplicateClassifier

MADE = Path(__file__).parent / "fixtures" / "commit_48e0593"
MODULES = [found.name for found in pkgutil.walk_packages(qpairs.__path__, "qpairs.")]


@cache
def given() -> dict[str, Any]:
    """What the examples may use without having made it."""
    model, pairs = qpairs.load(MADE / "one-static"), qpairs.load_pairs(MADE / "pairs.csv")
    tables = model.embed_tables(pairs.questions)
    densities, counts = table_densities(pairs, tables), qpairs.metrics.count_scores(tables[0])
    classifier = DuplicateClassifier(encoder="static")
    classifier.model_, classifier.classes_ = model, np.array([0, 1])
    return {
        "qpairs": qpairs,
        "folder": MADE,
        "model": model,
        "checkpoint": qpairs.load(MADE / "one"),
        "classifier": classifier,
        "pairs": pairs,
        "embeddings": qpairs.open_shards(MADE / "embeddings"),
        "index": qpairs.open_index(MADE / "index"),
        "densities": densities,
        "counts": counts,
        "estimate": qpairs.metrics.estimate_corpus(densities, counts),
    }


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), extraglobs=given()).failed == 0


def public(thing: object, name: str) -> Iterator[tuple[str, Any]]:
    """The functions, classes and methods that a public name reaches."""
    if isinstance(thing, ModuleType):
        own = getattr(thing, "__all__", [n for n, o in vars(thing).items() if _is_defined_in(thing, n, o)])
        for inner in own:
            yield from public(getattr(thing, inner), f"{name}.{inner}")
    elif inspect.isfunction(thing) or inspect.isclass(thing):
        yield name, thing
        for inner, member in vars(thing).items() if inspect.isclass(thing) else ():
            function = getattr(member, "__func__", member)
            if not inner.startswith("_") and inspect.isfunction(function):
                yield f"{name}.{inner}", function


def _is_defined_in(module: ModuleType, name: str, thing: Any) -> bool:
    return not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__


PUBLIC = dict(found for name in qpairs.__all__ for found in public(getattr(qpairs, name), name))


def test_what_is_public_is_found() -> None:
    assert len(PUBLIC) > 150
    assert {"train", "Checkpoint.dedupe", "metrics.confusion", "sklearn.DuplicateClassifier.fit"} <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_has_an_example(name: str) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs={})
    assert test.examples


@pytest.mark.parametrize("entry", [*LOSSES.values(), *MINERS.values()], ids=[*LOSSES, *MINERS])
def test_every_loss_and_miner_has_an_example_that_calls_it(entry: object) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(entry.function, globs={})
    assert any(f"{entry.function.__name__}(" in example.source and example.want for example in test.examples)
    assert inspect.getdoc(entry.function).index("Args:") < inspect.getdoc(entry.function).index("Example:")
