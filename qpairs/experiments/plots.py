"""The chart of a comparison: SVG, and with matplotlib PDF and PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from qpairs.evaluation.charts import LETTER, Axis, Dot, Line, Mark, Plane, draw
from qpairs.evaluation.pictures import Picture, save_picture

WIDTH, ROW = 380, 40  # of a panel, at least, and height of one of its rows
LARGE = 1.3  # width of the letters of the title, as a multiple of the others'
TOP, BOTTOM, EDGE = 66, 88, 16  # above the panels, below them, and at the sides
APART = 0.34  # of a row, between the dots of two measures
BELOW = 0.16  # of a row, the seeds under their mean


@dataclass(frozen=True)
class Estimate:
    """A mean, the interval around it, and the single values that it is the mean of."""

    mean: float
    interval: tuple[float, float]
    values: Sequence[float]


Rows = Mapping[str, Sequence[Estimate]]  # label, the uppermost first -> one for each measure


def plot_estimates(
    panels: Mapping[str, Rows], measures: Sequence[str], path: str | Path, *, title: str, legend: str
) -> None:
    """Draws panels side by side: for each row a dot with its interval and its single values, for every measure.

    Args:
        panels: title of the panel -> its rows.
        measures: the names of the estimates of a row.
        path: path of the SVG; PDF and PNG are next to it.
        title: above all panels.
        legend: the meaning of dots and bars.
    """
    margin = LETTER * max(len(label) for rows in panels.values() for label in rows) + EDGE
    floor = TOP + ROW * max(map(len, panels.values()))
    wanted = (LETTER * max(LARGE * len(title), len(legend)) + EDGE) / len(panels) - margin  # below title and legend
    panel = max(WIDTH, wanted)
    width, height = len(panels) * (margin + panel) + EDGE, floor + BOTTOM
    low, high = _range(panels)
    drawn = [f'<text class="title" x="{EDGE}" y="26">{escape(title)}</text>']
    for number, (name, rows) in enumerate(panels.items()):
        left = number * (margin + panel) + margin
        x = Axis(", ".join(measures), low, high)
        y = Axis("", max(map(len, panels.values())) - 0.5, -0.5, names=list(rows))
        drawn.append(f'<text class="panel" x="{left:.1f}" y="{TOP - 12}">{escape(name)}</text>')
        drawn.append(draw(Plane(x, y, left, left + panel - EDGE, TOP, floor), list(_marks(rows))))
    for number, name in enumerate(measures):
        at = EDGE + sum(len(before) * LETTER + 34 for before in measures[:number])
        drawn.append(f'<circle class="dot m{number}" cx="{at + 5:.1f}" cy="{floor + 56}" r="4.5"/>')
        drawn.append(f'<text x="{at + 15:.1f}" y="{floor + 60}">{escape(name)}</text>')
    drawn.append(f'<text x="{EDGE}" y="{floor + 79}">{escape(legend)}</text>')
    save_picture(Picture(width, height, drawn), Path(path))


def _marks(rows: Rows) -> Iterator[Mark]:
    for place, estimates in enumerate(rows.values()):
        for number, estimate in enumerate(estimates):
            at = place + APART * (number - (len(estimates) - 1) / 2)
            yield Line(estimate.interval, [at, at], f"interval m{number}")
            for value in estimate.values if len(estimate.values) > 1 else ():
                yield Dot(value, at + BELOW, f"seed m{number}", radius=2)
            yield Dot(estimate.mean, at, f"m{number}")


def _range(panels: Mapping[str, Rows]) -> tuple[float, float]:
    """The ends of an axis that holds all values and intervals, with some room."""
    estimates = [one for rows in panels.values() for row in rows.values() for one in row]
    values = [value for one in estimates for value in (one.mean, *one.interval, *one.values)]
    room = 0.05 * (max(values) - min(values)) or 0.01
    return min(values) - room, max(values) + room
