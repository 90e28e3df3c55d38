"""Injects the faults of a scenario, and says what was not survived."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import (
    BLOCKED,
    SYNC,
    Fault,
    Outcome,
    acknowledged,
    acknowledgements,
    cell_events,
    has_ended,
    has_stopped,
    run_child,
    start_child,
    wait_for,
)
from scenarios import Scenario, contents, hidden

KINDS = {
    "kill": "killed before a file event",
    "torn": "killed with a file half written",
    "again": "killed, and the rerun killed",
    "full": "disk full at a file event",
    "limit": "no room for a large file",
    "two": "two at once",
    "read-only": "read-only folder",
    "cell": "a process of it killed",
}
CHOSEN = os.environ.get("QPAIRS_CHAOS_KINDS", ",".join(KINDS)).split(",")
KILLED = -signal.SIGKILL
LEAST = 64  # bytes of a limit, so that what is counted here finds room


@dataclass(frozen=True)
class Planned:
    """A fault: its kind, where it happens, and for a second kill the event of the rerun."""

    kind: str
    at: int
    second: int = 0


@dataclass(frozen=True)
class Rerun:
    """What stood there after a fault, how the command ended when it ran again, and what stood there then."""

    found: Any
    code: int
    made: Any


@dataclass
class Result:
    """Of a scenario: how many faults of each kind were injected, what went wrong, and how long it took."""

    scenario: Scenario
    injected: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0

    def line(self) -> str:
        """The counts."""
        failed = sum(map(len, self.failures.values()))
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.injected.items())
        total = self.injected.total()
        counts = f"{total:,} faults injected ({kinds}), {total - failed:,} survived"
        return f"{self.scenario.name}: {counts}, {self.seconds:.0f} s"


class Campaign:
    """A scenario, ready for its faults: what was there before it, and what it makes when it is left alone."""

    def __init__(self, scenario: Scenario, place: Path) -> None:
        """Runs it once unbroken; `place` has the inputs, in `in`."""
        self.scenario, self.start, self.out = scenario, place / "start", place / "out"
        shutil.rmtree(self.start, ignore_errors=True)
        self.start.mkdir()
        acknowledgements(self.start).unlink(missing_ok=True)
        for name in scenario.copied:
            shutil.copy(place / "in" / name, self.start)
        for arguments in scenario.before:
            first = Scenario("before", arguments, scenario.seen, prepare=scenario.prepare)
            ended = run_child(first.run, self.start)
            assert ended.code == 0, ended.text
        self.reset()
        self.before = self.look()
        self.unbroken = self.run(Fault("", 0, self.out))
        assert self.unbroken.code == 0, self.unbroken.text
        self.after = self.look()
        assert self.after is not None
        assert acknowledged(self.out) == scenario.changes
        sizes = {file.stat().st_size for file in self.out.rglob("*") if file.is_file()}
        self.sizes = sorted({max(size // 2, LEAST) for size in sizes if size > LEAST})[-8:]
        self.states = [self._state(count) for count in range(scenario.changes + 1)] if scenario.changes else []

    def _state(self, count: int) -> Any:
        self.reset()
        ended = self.run(Fault("acknowledged", count, self.out))
        return self.look() if ended.code == KILLED else self.before

    def reset(self) -> None:
        """Puts what was there before the command back."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(self.start, self.out)
        acknowledgements(self.out).unlink(missing_ok=True)

    def run(self, fault: Fault | None = None, *, again: bool = False) -> Outcome:
        """Runs the command in a child."""
        return run_child(lambda: self.scenario.run(again=again), self.out, fault)

    def look(self) -> Any:
        """What stands there."""
        seen = run_child(lambda: self.scenario.seen(Path()), self.out)
        assert seen.code == 0, seen.text
        return seen.value

    def planned(self, step: int) -> Iterator[Planned]:
        """All faults, or those at every `step`th event."""
        return (fault for fault in self._planned(step) if fault.kind in CHOSEN)

    def _planned(self, step: int) -> Iterator[Planned]:
        scenario, events = self.scenario, self.unbroken.events
        number, random_ = len(events), random.Random(scenario.name)
        rare = step * scenario.every
        yield Planned("read-only", 0)
        for at in range(1, number + 1, step * scenario.kills):
            yield Planned("kill", at)
        for at in range(1, number + 1, step):
            if events[at - 1] == SYNC:
                yield Planned("torn", at)
        for at in range(1, number + 1, rare):
            yield Planned("full", at)
        yield from (Planned("limit", size) for size in self.sizes[::step])
        for at in range(1 + number % 2, number + 1, 3 * rare):
            yield Planned("again", at, random_.randrange(1, number + 1))
        if not (scenario.changes or scenario.cells):
            yield from (Planned("two", at) for at in range(1, number + 1, 3 * rare))
        if scenario.cells:
            self.reset()
            self.run(Fault("", 0, self.out, cell=True))
            yield from (Planned("cell", at) for at in range(1, int(cell_events(self.out).read_text()) + 1, rare))

    def inject(self, fault: Planned) -> str | None:
        """What went wrong at a fault; '' where nothing did; None where it could not happen."""
        self.reset()
        if fault.kind == "two":
            return self._two(fault)
        if fault.kind == "read-only":
            return self._read_only()
        cell = fault.kind == "cell"
        kind = "kill" if fault.kind in ("again", "cell") else fault.kind
        first = self.run(Fault(kind, fault.at, self.out, cell=cell))
        if kind in ("kill", "torn") and not cell and first.code != KILLED:
            return None
        if (kind in ("full", "limit") or cell) and not first.orderly:
            return f"traceback: {_end(first.text)}" if first.code != BLOCKED else "blocked"
        if fault.kind == "again" and self.run(Fault("kill", fault.second, self.out), again=True).code != KILLED:
            return None
        count = acknowledged(self.out)
        again = run_child(self._rerun, self.out)
        if again.code or "Traceback" in again.text:
            return f"the rerun ended with {again.code}: {_end(again.text)}"
        seen: Rerun = again.value
        if kind == "limit" and first.code == 0 and seen.found == self.after:
            return None  # nothing was as large
        told = self.scenario.cells and "failed:" in first.text  # of cells: each is in the table of results
        if first.code == 0 and not (cell or told) and seen.found != self.after:
            return f"lost: the command ended well without its result: {_end(first.text)}"
        return self._wrong(seen, count, again.text, cell=cell or told) or _left(self.out)

    def _wrong(self, seen: Rerun, count: int, text: str, *, cell: bool) -> str:
        if not cell and not self._may_stand(seen.found, count):
            return f"lost: what stands there is neither from before nor from after, with {count} acknowledged"
        if seen.code not in (0, 2) or seen.made != self.after:
            return f"blocked: the rerun ended with {seen.code}, or made something else: {_end(text)}"
        return ""

    def _may_stand(self, found: Any, count: int) -> bool:
        states = [*self.states[count : count + 2]]
        states += [self.before] if count == 0 else []
        states += [self.after] if count >= self.scenario.changes else []
        if found in states or (self.scenario.loses and found is None):
            return True
        if not self.scenario.parts:
            return False
        names = {name for state in (*states, found) for name in state or {}}
        return all((found or {}).get(name) in [(state or {}).get(name) for state in states] for name in names)

    def _rerun(self) -> Rerun:
        """In a child: looks, runs the command again, and looks again."""
        scenario = self.scenario
        found = scenario.seen(Path())
        code = _ended(lambda: scenario.run(again=True))
        if code == 2 and scenario.resumed:  # killed before there was anything to resume, or when all was done
            code = _ended(scenario.run)
        return Rerun(found, code, scenario.seen(Path()))

    def _two(self, fault: Planned) -> str | None:
        """Two of the same command, of which one halts at an event until the other has run, or waits."""
        one = start_child(self.scenario.run, self.out, Fault("stop", fault.at, self.out))
        if not has_stopped(one):
            wait_for(one)
            return None
        other = start_child(self.scenario.run, self.out)
        has_ended(other, 1.5)
        os.kill(one.pid, signal.SIGCONT)
        ends = [wait_for(one), wait_for(other)]
        if not all(end.orderly for end in ends):
            return f"traceback: {[_end(end.text) for end in ends if not end.orderly]}"
        if 0 not in [end.code for end in ends]:
            return f"blocked: neither went first: {[_end(end.text) for end in ends]}"
        return _left(self.out) if self.look() == self.after else "lost: both together made something else"

    def _read_only(self) -> str:
        ended = self.run(Fault("read-only", 0, self.out))
        if ended.code != 2 or "Traceback" in ended.text:
            return f"traceback: {ended.code} {_end(ended.text)}"
        if "(Read-only file system)" not in " ".join(ended.text.split()):
            return f"blocked: another message: {_end(ended.text)}"
        return _left(self.out) if contents(self.out) == contents(self.start) else "lost: something was written"


def _ended(run: Callable[[], None]) -> int:
    try:
        run()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def _end(text: str) -> str:
    return text[-600:]


def _left(out: Path) -> str:
    left = hidden(out)
    return f"left behind: {left}" if left else ""


def run_scenario(scenario: Scenario, place: Path, step: int, *, few: bool = False) -> Result:
    """Injects the faults of a scenario, and prints what came of them; of a `few`, some at every `step`th event."""
    inputs, started, result = contents(place / "in"), time.monotonic(), Result(scenario)
    campaign = Campaign(scenario, place)
    planned = list(campaign.planned(step))
    for fault in planned[:: max(1, len(planned) // 5)] if few else planned:
        failure = campaign.inject(fault)
        if failure is None:
            continue
        result.injected[fault.kind] += 1
        if failure:
            where = f"{scenario.name}, {fault.kind} at {fault.at}" + (f", {fault.second}" if fault.second else "")
            result.failures.setdefault(fault.kind, []).append(f"{where}: {failure}")
    result.seconds = time.monotonic() - started
    assert contents(place / "in") == inputs, "what the command reads has changed"
    sys.stdout.write(f"{result.line()}\n")
    for failures in result.failures.values():
        for failure in failures[:5]:
            sys.stdout.write(f"  {failure}\n")
    sys.stdout.flush()
    return result


def table(results: list[Result]) -> str:
    """Survived of injected faults, a row for each command and a column for each kind, in Markdown."""
    names = list(dict.fromkeys(result.scenario.command for result in results))
    columns = [kind for kind in KINDS if any(result.injected[kind] for result in results)]
    lines = [["", *(KINDS[kind] for kind in columns), "together"], ["---"] * (len(columns) + 2)]
    for name in [*names, "together"]:
        of_name = [result for result in results if name in ("together", result.scenario.command)]
        injected = sum((result.injected for result in of_name), Counter[str]())
        failed = Counter({kind: sum(len(r.failures.get(kind, ())) for r in of_name) for kind in columns})
        cells = [(injected[kind], failed[kind]) for kind in columns]
        cells.append((injected.total(), failed.total()))
        shown = [f"{n - bad:,} of {n:,}" if bad else f"{n:,}" if n else "" for n, bad in cells]
        lines.append([f"`{name}`" if name != "together" else name, *shown])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
