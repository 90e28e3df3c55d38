"""The result of a comparison: a row for each encoder, loss and miner, with its difference to the best."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from qpairs.config import Config
from qpairs.core.cards import html_card, one_line
from qpairs.data.parts import Parts
from qpairs.encoders.build import encoder_note
from qpairs.experiments.cells import Cell, Interval, Record, Result, added, components_of, has_head, judged_pairs
from qpairs.experiments.differences import RowDifference, row_difference, with_seeds
from qpairs.objectives.losses import LOSSES

SCORES = ("f1", "average_precision", "mining_average_precision")
COSTS = ("seconds", "steps", "epochs", "peak_bytes")
UNEQUAL = 1.5  # times as many steps in the same time: no longer the same training


@dataclass(frozen=True)
class Row:
    """The cells of one encoder, loss and miner.

    Attributes:
        encoder, loss, miner: of all its cells.
        records: one for each seed.
        difference: mean F1 minus that of the best row, with its interval over questions and seeds; None for the best
            row, and where no cell finished.
    """

    encoder: str
    loss: str
    miner: str
    records: tuple[Record, ...]
    difference: RowDifference | None = None

    @property
    def results(self) -> list[Result]:
        """The results of the cells that finished."""
        return [record.result for record in self.records if record.result]

    def values(self, measure: str) -> list[Any]:
        """An attribute of each result."""
        return [getattr(result, measure) for result in self.results]

    def mean(self, measure: str) -> float:
        """Mean over the seeds; NaN where no cell finished."""
        return float(np.mean(self.values(measure) or [math.nan]))

    def sd(self, measure: str) -> float:
        """Standard deviation over the seeds; NaN for fewer than two."""
        values = self.values(measure)
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan

    def interval(self, measure: str) -> Interval:
        """The 95 % interval of the mean of f1 or average_precision, over questions and seeds.

        Over questions alone where one cell finished: how far runs of other seeds differ is unknown then.
        """
        low, high = map(float, np.mean(self.values(f"{measure}_interval"), axis=0))
        if len(self.results) < 2:
            return low, high
        low, high = with_seeds(self.mean(measure), (low, high), [self.values(measure)])
        return max(low, 0.0), min(high, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """The line of summary.csv."""
        difference = self.difference
        return {
            "encoder": self.encoder,
            "loss": self.loss,
            "miner": self.miner,
            "seeds": len(self.records),
            "finished": len(self.results),
            **{name: self.mean(name) for name in (*SCORES, *COSTS)},
            **{f"{name}_sd": self.sd(name) for name in SCORES},
            "difference": difference and difference.value,
            "difference_low": difference and difference.low,
            "difference_high": difference and difference.high,
            "verdict": difference and difference.verdict,
        }


@dataclass(frozen=True)
class Comparison:
    """A finished comparison, the best row first.

    Attributes:
        rows: one for each encoder, loss and miner, by mean F1.
        part: that F1 is measured on: test, or where there is none, validation, cross-fitted.
        n: pairs of that part.
        config: the base of every cell.
        notes: that a reader of the figures must know.

    >>> found = qpairs.compare(data="mine.csv", losses="contrastive,cosent", encoders="static")  # doctest: +SKIP
    >>> found.to_frame()[["loss", "f1"]]  # doctest: +SKIP
    """

    rows: tuple[Row, ...]
    part: str
    n: int
    config: Config
    notes: tuple[str, ...]

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        best = self.rows[0]
        found: dict[str, object] = {"rows": len(self.rows), "judged on": f"{self.n:,} {self.part} pairs"}
        if best.results:
            name = ", ".join((best.encoder, best.loss, best.miner))
            found["best"] = f"{name}: F1 {best.mean('f1'):.3f}"
        if failed := sum(bool(record.error) for record in self.records):
            found["failed runs"] = failed
        return "Comparison", found

    __repr__, _repr_html_ = one_line, html_card

    @property
    def records(self) -> list[Record]:
        """The records of all rows."""
        return [record for row in self.rows for record in row.records]

    @property
    def title(self) -> str:
        """The evaluated pairs, the budget and the number of seeds, in a line."""
        pairs = f"{self.n:,} {self.part} pairs" + (", cross-fitted" if self.part == "validation" else "")
        budget, epochs = self.config.budget_minutes, self.config.epochs
        limit = f"{budget:g} min" if budget else f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
        seeds = len({record.cell.seed for record in self.records})
        return f"{pairs}; {limit} a cell, {seeds} seed{'s' if seeds > 1 else ''}"

    def to_frame(self) -> pandas.DataFrame:
        """One line per row, as in summary.csv.

        >>> row = Row("static", "contrastive", "everything", ())
        >>> Comparison((row,), "test", 832, Config(), ()).to_frame()["loss"].tolist()
        ['contrastive']
        """
        return pandas.DataFrame([row.to_dict() for row in self.rows])

    def cells_frame(self) -> pandas.DataFrame:
        """One line per cell, as in results.csv.

        >>> cell = Cell("static", "contrastive", "everything", 0)
        >>> row = Row("static", "contrastive", "everything", (Record(cell, None, "diverged"),))
        >>> Comparison((row,), "test", 832, Config(), ()).cells_frame()["error"].tolist()
        ['diverged']
        """
        return pandas.DataFrame([cell_line(record) for record in self.records])


def cell_line(record: Record) -> dict[str, Any]:
    """The line of a cell in results.csv."""
    measured = {name: getattr(record.result, name) for name in (*SCORES, *COSTS)} if record.result else {}
    cell = {name: value for name, value in dataclasses.asdict(record.cell).items() if value is not None}
    return {**cell, **measured, "error": record.error}


def compare_records(
    records: Sequence[Record], base: Config, parts: Parts, verdict_of: Callable[[Cell], NDArray[np.bool_]]
) -> Comparison:
    """Groups records into rows, and tests each row against the best.

    Args:
        records: of all cells.
        base: of every cell.
        parts: that the cells were trained and evaluated on.
        verdict_of: the verdict (n,) of a finished cell on the evaluated pairs.
    """
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.cell.encoder, record.cell.loss, record.cell.miner), []).append(record)
    rows = [Row(*group, tuple(members)) for group, members in groups.items()]
    rows.sort(key=lambda row: row.mean("f1") if row.results else -1.0, reverse=True)
    part, pairs = judged_pairs(parts)

    def verdicts(row: Row) -> list[NDArray[np.bool_]]:
        return [verdict_of(record.cell) for record in row.records if record.result]

    best, components, finished = verdicts(rows[0]), components_of(pairs), sum(bool(row.results) for row in rows)
    for place, row in enumerate(rows):
        if place and row.results:
            beside = [other.values("f1") for other in rows[1:] if other is not row]
            difference = row_difference(
                verdicts(row), best, pairs.labels, components, rows=finished, beside=beside, seed=base.seed
            )
            rows[place] = dataclasses.replace(row, difference=difference)
    return Comparison(tuple(rows), part, len(pairs), base, tuple(_notes(rows, part, base)))


def _notes(rows: Sequence[Row], part: str, base: Config) -> Iterator[str]:
    if base.budget_minutes:
        yield from _unequal_steps(rows)
    if any(len(row.results) == 1 for row in rows):
        yield (
            "with one run in a row, the variation over seeds is unknown: its interval is over questions only, and it "
            "is not called worse; compare with --seeds 3 or more"
        )
    losses = dict.fromkeys(row.loss for row in rows)
    for name in LOSSES:
        if (whole := added(name)) in losses:
            yield f"{name} cannot be trained alone: it is added to {whole.partition(' + ')[0]}"
    if base.score == "cosine":
        for loss in losses:
            if has_head(loss):
                yield f"{loss} is evaluated by cosine; use --score head for its classifier"
    for row in rows:
        if any(result.report["collapsed"] for result in row.results):
            yield f"{row.encoder}, {row.loss}, {row.miner} has collapsed: its similarities do not vary"
    if part == "validation":
        yield "F1 is cross-fitted on the pairs that also chose each run's best checkpoint: name unseen ones with --test"
    yield from dict.fromkeys(note for row in rows if (note := encoder_note(row.encoder)))


def _unequal_steps(rows: Sequence[Row]) -> Iterator[str]:
    """Which runs of an encoder made far fewer steps than others in the same time.

    A slow loss does, and so does a run during which the machine did other work: the figures do not show which.
    """
    for encoder in dict.fromkeys(row.encoder for row in rows):
        of_encoder = [row for row in rows if row.encoder == encoder and row.results]
        steps = [step for row in of_encoder for step in row.values("steps")]
        if not steps or max(steps) < UNEQUAL * min(steps):
            continue
        slow = [f"{row.loss}, {row.miner}" for row in of_encoder if UNEQUAL * min(row.values("steps")) <= max(steps)]
        yield (
            f"{encoder}: runs made {min(steps):,} to {max(steps):,} steps in the same time, the fewest with "
            f"{'; '.join(slow)}: a slow loss makes fewer, and so does a busy machine; --budget-minutes 0 --epochs N "
            "gives all runs the same number"
        )
