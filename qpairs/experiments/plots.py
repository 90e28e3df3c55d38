"""Charts: draws what it is given, never computes. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qpairs.core.exceptions import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0b6e99", "#d1701c", "#5b8a3c", "#8a4f9e")  # of the measures
INK, FAINT = "#333333", "#e4e4e4"
LINE = 0.36  # inches, of each line of a panel
APART = 0.26  # of a line, between the dots of two measures


@dataclass(frozen=True)
class Dot:
    """A mean, the interval around it, and the single values behind it."""

    mean: float
    interval: tuple[float, float]
    values: Sequence[float]


Lines = Mapping[str, Sequence[Dot]]  # label, the uppermost first -> a dot for each measure


def dots(panels: Mapping[str, Lines], measures: Sequence[str], path: str | Path, *, title: str, legend: str) -> None:
    """Draws panels side by side: in each, a line for every label, and on it a dot with its interval for every measure.

    Args:
        panels: title of the panel -> its lines.
        measures: the names of the dots of a line.
        path: where the picture goes.
        title: above all panels.
        legend: what dots, bars and ticks are.

    Raises:
        UserError: matplotlib is not installed.
    """
    longest = max(map(len, panels.values()))
    figure = _figure(6.4 * len(panels), LINE * longest + 1.6)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=True)[0]
    for axes, (name, lines) in zip(grid, panels.items(), strict=True):
        axes.set_title(name, loc="left", fontsize=11, color=INK)
        axes.set_yticks(range(len(lines)), list(lines))
        axes.set_ylim(longest - 0.5, -0.5)
        _style(axes)
        for place, line in enumerate(lines.values()):
            for number, dot in enumerate(line):
                _draw(axes, dot, place + APART * (number - (len(line) - 1) / 2), COLOURS[number])
    figure.legend(
        [grid[0].plot([], "o", color=colour)[0] for colour in COLOURS[: len(measures)]],
        measures,
        title=legend,
        title_fontsize=9,
        fontsize=10,
        ncols=len(measures),
        loc="outside lower left",
        alignment="left",
        frameon=False,
        labelcolor=INK,
    )
    figure.savefig(path, dpi=150)


def _style(axes: Axes) -> None:
    axes.tick_params(length=0, colors=INK, labelsize=9)
    axes.grid(color=FAINT)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _draw(axes: Axes, dot: Dot, height: float, colour: str) -> None:
    axes.hlines(height, *dot.interval, color=colour, alpha=0.35, linewidth=4)
    axes.plot(dot.values, [height] * len(dot.values), "|", color=colour, markersize=7)
    axes.plot(dot.mean, height, "o", color=colour, markersize=6, markeredgecolor="white")


def _figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches; no window, and nothing that outlives it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("charts need matplotlib: pip install 'qpairs[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")
