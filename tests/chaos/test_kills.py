"""A command that is killed, or that finds the disk full, at each of its file events loses nothing and blocks nothing.

The short form takes a few events of some commands; `pytest -m chaos -n 0 -s tests/chaos/test_kills.py` takes all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign import Result, run_scenario, table
from faults import Fault, command, run_child, start_child, wait_for
from scenarios import CALIBRATE, EMBED, LIGHT, OVER, SCENARIOS, Scenario, hidden, make_inputs, make_models, model

import qpairs.commands  # noqa: F401  # here, so that the children have it

STEP = int(os.environ.get("QPAIRS_CHAOS_STEP", "1"))  # every so many file events of a command has its faults
SHORT = ("embed", "dedupe --overwrite", "predict --overwrite", "calibrate --overwrite", "serve --index", "train")
results = list[Result]()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the commands read, in `in`; prints the table of all faults in the end."""
    folder = tmp_path_factory.mktemp("chaos")
    make_inputs(folder / "in")
    yield folder
    if results:
        sys.stdout.write(f"\n{table(results)}\n{sum(result.seconds for result in results):.0f} s\n")


def failures(scenario: Scenario, place: Path, step: int, *, few: bool = False) -> list[str]:
    """What was not survived."""
    if scenario.name not in {light.name for light in LIGHT}:
        make_models(place / "in")
    result = run_scenario(scenario, place, step, few=few)
    if not few:
        results.append(result)
    return [failure for kind in result.failures.values() for failure in kind]


@pytest.mark.parametrize("name", SHORT)
def test_a_few_faults(name: str, place: Path) -> None:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    assert failures(scenario, place, 3, few=True) == []


def test_of_two_at_the_same_place_one_goes_first(place: Path) -> None:
    """Two calibrations of one output: what stands there is that of one of them, and neither ends with a traceback."""
    out = place / "both"
    out.mkdir()
    children = [start_child(command([*CALIBRATE, *OVER]), out) for _ in range(2)]
    ended = [wait_for(child) for child in children]
    assert all(end.orderly for end in ended), [end.text for end in ended]
    assert 0 in [end.code for end in ended]
    assert run_child(lambda: model(Path()), out).value is not None
    assert hidden(out) == []


@pytest.mark.parametrize("arguments", [EMBED, CALIBRATE], ids=["embed", "calibrate"])
def test_a_place_that_cannot_be_written_is_one_line(arguments: list[str], place: Path) -> None:
    out = place / "read-only"
    out.mkdir(exist_ok=True)
    ended = run_child(command(arguments), out, Fault("read-only", 0, out))
    assert ended.code == 2, ended.text
    assert "cannot be written (Read-only file system)" in " ".join(ended.text.split())
    assert list(out.iterdir()) == []


@pytest.mark.chaos
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_fault(scenario: Scenario, place: Path) -> None:
    assert failures(scenario, place, STEP) == []
