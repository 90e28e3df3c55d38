"""Progress of long work: one record for everything that takes time, and a meter that reports it at a readable rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

INTERVAL = 0.1  # seconds between two reports of a meter


@dataclass(frozen=True)
class Progress:
    """The progress of a stage of long work.

    Attributes:
        stage: what is being done, such as `reading`, `encoding` or `training`.
        done, total: units of it, such as questions or steps; a total of 0 is not known.
        rate: units per second, in this stage of this run; 0 if unknown.
        note: further text to show next to the bar.
        metrics: figures by name, such as loss, epoch and f1.

    >>> Progress("reading", done=10, total=40).total
    40
    """

    stage: str
    done: int = 0
    total: int = 0
    rate: float = 0.0
    note: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """The default of every `on_progress`: does nothing."""


class Meter:
    """Counts the units of each stage, and reports at most ten times a second.

    >>> reports = []
    >>> meter = Meter(reports.append)
    >>> meter.begin("encoding", total=2)
    >>> meter.advance(2)
    >>> (reports[-1].stage, reports[-1].done, reports[-1].total)
    ('encoding', 2, 2)
    """

    def __init__(self, on_progress: OnProgress = ignore) -> None:
        self.on_progress = on_progress
        self.begin("")

    def begin(self, stage: str, total: int = 0, done: int = 0) -> None:
        """Starts a stage of `total` units, of which `done` were made by an earlier run."""
        self.stage, self.total, self.done = stage, total, done
        self._first, self._started, self._reported = done, time.monotonic(), 0.0
        if stage:
            self.on_progress(Progress(stage, done, total))

    def advance(self, units: int = 1, note: str = "") -> None:
        """Counts units that are done."""
        self.done += units
        now = time.monotonic()
        if now - self._reported >= INTERVAL or self.done == self.total:
            self._reported = now
            rate = (self.done - self._first) / max(1e-9, now - self._started)
            self.on_progress(Progress(self.stage, self.done, self.total, rate, note))
