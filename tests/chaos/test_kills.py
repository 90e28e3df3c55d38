"""A command that is killed, or that finds the disk full, at each of its file events loses nothing and blocks nothing.

The short form takes a few events of each command; `pytest -m chaos -n 0 -s tests/chaos/test_kills.py` takes all.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faults import KINDS, Fault, Outcome, command, run_child, start_child, wait_for
from scenarios import CALIBRATE, EMBED, OVER, SCENARIOS, Scenario, contents, hidden, make_inputs, model

import qpairs.commands  # noqa: F401  # here, so that the children have it

STEP = int(os.environ.get("QPAIRS_CHAOS_STEP", "1"))  # every so many file events of a command has its faults
SHORT = {"embed": 7, "dedupe --overwrite": 9, "calibrate --overwrite": 9, "predict --overwrite": 2, "train": 29}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands read, in `in`."""
    folder = tmp_path_factory.mktemp("chaos")
    make_inputs(folder / "in")
    return folder


@dataclass(frozen=True)
class Rerun:
    """What stood there after a fault, how the command ended when it ran again, and what stood there then."""

    found: Any
    code: int
    made: Any


def rerun(scenario: Scenario) -> Rerun:
    """In a child: looks, runs the command again, and looks again."""
    found = scenario.seen(Path())
    code = _ended(scenario.resumed or scenario.arguments)
    if code == 2 and scenario.resumed:  # killed before there was anything to resume, or when all was done
        code = _ended(scenario.arguments)
    return Rerun(found, code, scenario.seen(Path()))


def _ended(arguments: Any) -> int:
    try:
        command(arguments)()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def wrong(scenario: Scenario, fault: Fault, first: Outcome, again: Outcome, before: Any, after: Any) -> str:
    """What went wrong at a fault; '' where nothing did."""
    if fault.kind == "full" and not first.orderly:
        return f"traceback on a full disk: {first.text[-400:]}"
    if again.code or "Traceback" in again.text:
        return f"the rerun ended with {again.code}: {again.text[-400:]}"
    seen: Rerun = again.value
    if seen.found not in (before, after) and not (scenario.loses and seen.found is None):
        return "something else stands there than before or after"
    if seen.code not in (0, 2) or seen.made != after:
        return f"the rerun was refused or made something else: {again.text[-400:]}"
    return ""


def _files_may_be_of_both(scenario: Scenario, seen: Any, before: Any, after: Any) -> bool:
    """Whether the files of a result, each of which is whole, are those from before and after."""
    if not (isinstance(seen, dict) and scenario.seen.__name__ == "look"):
        return False
    return all(value in ((before or {}).get(name), after.get(name)) for name, value in seen.items())


def injected(scenario: Scenario, place: Path, step: int, few: bool) -> Iterator[tuple[Fault, str]]:
    """Every fault of a scenario, at every `step`th event, and what went wrong; of a `few`, one kind at each event."""
    start = place / "start"
    for folder in (start, place / "out"):
        shutil.rmtree(folder, ignore_errors=True)
    start.mkdir()
    for arguments in scenario.before:
        assert run_child(command(arguments), start).code == 0
    out = place / "out"
    shutil.copytree(start, out)
    before = run_child(lambda: scenario.seen(Path()), out).value
    unbroken = run_child(command(scenario.arguments), out, Fault("", 0, out))
    assert unbroken.code == 0, unbroken.text
    after = run_child(lambda: scenario.seen(Path()), out).value
    assert after is not None
    chosen = enumerate(range(1, unbroken.events + 1, step))
    for kind, at in ((kind, at) for number, at in chosen for kind in (KINDS[number % 3 :][:1] if few else KINDS)):
        shutil.rmtree(out)
        shutil.copytree(start, out)
        fault = Fault(kind, at, out)
        first = run_child(command(scenario.arguments), out, fault)
        again = run_child(lambda: rerun(scenario), out)
        fail = wrong(scenario, fault, first, again, before, after)
        if fail.startswith("something") and _files_may_be_of_both(scenario, again.value.found, before, after):
            fail = ""
        yield fault, fail or (f"left behind: {left}" if (left := hidden(out)) else "")


def report(name: str, faults: Counter[str], failures: list[str], started: float) -> None:
    """Prints how many faults there were, and how many were survived."""
    total = sum(faults.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in faults.items())
    sys.stdout.write(
        f"{name}: {total:,} faults injected ({kinds}), {total - len(failures):,} survived, "
        f"{time.monotonic() - started:.0f} s\n"
    )
    for failure in failures[:5]:
        sys.stdout.write(f"  {failure}\n")


def run_scenario(scenario: Scenario, place: Path, step: int, *, few: bool = False) -> list[str]:
    """Injects the faults of a scenario, and prints what came of them."""
    inputs, started, faults, failures = contents(place / "in"), time.monotonic(), Counter[str](), list[str]()
    for fault, fail in injected(scenario, place, step, few):
        faults[fault.kind] += 1
        if fail:
            failures.append(f"{scenario.name}, {fault.kind} at event {fault.at}: {fail}")
    assert contents(place / "in") == inputs, "what the command reads has changed"
    report(scenario.name, faults, failures, started)
    return failures


@pytest.mark.parametrize("name", SHORT)
def test_a_few_faults(name: str, place: Path) -> None:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    assert run_scenario(scenario, place, SHORT[name], few=True) == []


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
    assert run_scenario(scenario, place, STEP) == []
