"""Charts as SVG text, for the pages of a report and for a file of a comparison: drawing only, no computation.

Colours and line widths are left to style sheets: every mark has a class. Text is escaped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

WIDTH, HEIGHT = 400, 280  # of a chart, in units of which its letters are 12 high
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 42  # margins around the plane; a chart without axes has TOP on all sides
GAUGE = 150  # width of a gauge
LETTER = 6.6  # width of a letter, about
SHORT = 3  # letters of a tick for which LEFT has room


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: in words; without it, no label is drawn.
        low, high: its ends.
        show: a value as text.
        names: of the values 0, 1, ..., which then are the ticks.
    """

    label: str
    low: float
    high: float
    show: Callable[[float], str] = "{:g}".format
    names: Sequence[str] = ()

    def text(self, value: float) -> str:
        """A tick as text."""
        return self.names[round(value)] if self.names else self.show(value)

    @property
    def extra(self) -> float:
        """Extra room for its ticks, as those of a vertical axis, beyond that for `SHORT` letters."""
        return LETTER * max(0, max(len(self.text(tick)) for tick in self.ticks()) - SHORT)

    def ticks(self) -> list[float]:
        """Round values between the ends, 3 to 7 of them, or one for each name.

        >>> Axis("share", 0, 1).ticks()
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        """
        if self.names:
            return [float(number) for number in range(len(self.names))]
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Plane:
    """Where a chart is drawn: two axes, and the ends of each in the picture."""

    x: Axis
    y: Axis
    left: float
    right: float
    top: float
    bottom: float

    def across(self, value: float) -> float:
        """The place of a value of x."""
        return self.left + (value - self.x.low) / (self.x.high - self.x.low or 1.0) * (self.right - self.left)

    def up(self, value: float) -> float:
        """The place of a value of y."""
        return self.bottom + (value - self.y.low) / (self.y.high - self.y.low or 1.0) * (self.top - self.bottom)


class Mark(Protocol):
    """Something in the plane of a chart."""

    def draw(self, plane: Plane) -> str:
        """Its SVG."""


@dataclass(frozen=True)
class Line:
    """A line through points; `group` names the marks that it belongs to."""

    xs: Sequence[float]
    ys: Sequence[float]
    style: str
    group: str = ""

    def draw(self, plane: Plane) -> str:
        """A polyline."""
        points = " ".join(f"{plane.across(a):.1f},{plane.up(b):.1f}" for a, b in zip(self.xs, self.ys, strict=True))
        return f'<polyline class="line {self.style}" points="{points}"{_group(self.group)}/>'


@dataclass(frozen=True)
class Dot:
    """A point; `tooltip` is shown on hover, `group` names the marks that it belongs to."""

    x: float
    y: float
    style: str
    tooltip: str = ""
    radius: float = 4.5
    group: str = ""

    def draw(self, plane: Plane) -> str:
        """A circle."""
        place = f'cx="{plane.across(self.x):.1f}" cy="{plane.up(self.y):.1f}" r="{self.radius:g}"'
        return f'<circle class="dot {self.style}" {place}{_tooltip(self.tooltip)}{_group(self.group)}/>'


@dataclass(frozen=True)
class Bar:
    """A bar over a range of x, from y = 0 up, or down."""

    low: float
    high: float
    height: float
    style: str

    def draw(self, plane: Plane) -> str:
        """A rectangle."""
        top, bottom = sorted((plane.up(0), plane.up(self.height)))
        return f'<rect class="bar {self.style}" {_box(plane.across(self.low), top, plane.across(self.high), bottom)}/>'


@dataclass(frozen=True)
class Rule:
    """A vertical line through the whole plane, with a label at its upper end."""

    x: float
    label: str

    def draw(self, plane: Plane) -> str:
        """A line and its label, on the side with more room."""
        place = plane.across(self.x)
        anchor, gap = ("start", 5) if place < (plane.left + plane.right) / 2 else ("end", -5)
        return (
            f'<line class="rule" x1="{place:.1f}" x2="{place:.1f}" y1="{plane.top}" y2="{plane.bottom}"/>'
            f'<text class="on-rule" x="{place + gap:.1f}" y="{plane.top + 10}" text-anchor="{anchor}">'
            f"{escape(self.label)}</text>"
        )


@dataclass(frozen=True)
class Name:
    """A text above a place, kept inside the plane."""

    x: float
    y: float
    text: str

    def draw(self, plane: Plane) -> str:
        """The text."""
        half = LETTER * len(self.text) / 2
        across = min(max(plane.across(self.x), plane.left + half), plane.right - half)
        up = max(plane.up(self.y) - 8, plane.top + 10)
        return f'<text class="name" x="{across:.1f}" y="{up:.1f}" text-anchor="middle">{escape(self.text)}</text>'


@dataclass(frozen=True)
class Strip:
    """An invisible range of x, from bottom to top, with a tooltip."""

    low: float
    high: float
    tooltip: str

    def draw(self, plane: Plane) -> str:
        """A rectangle."""
        box = _box(plane.across(self.low), plane.top, plane.across(self.high), plane.bottom)
        return f'<rect class="strip" {box}{_tooltip(self.tooltip)}/>'


def strips(xs: Sequence[float], tooltips: Sequence[str]) -> list[Strip]:
    """A strip around each of some rising values, up to the middle between neighbours."""
    middles = [(a + b) / 2 for a, b in itertools.pairwise(xs)]
    return [Strip(*ends) for ends in zip([xs[0], *middles], [*middles, xs[-1]], tooltips, strict=True)]


def plot(about: str, x: Axis, y: Axis, marks: Sequence[Mark], size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    """A chart, focusable, so that the script of a page can step through the tooltips.

    Args:
        about: what it shows, for screen readers.
        x: the horizontal axis; without a label, no axes are drawn.
        y: the vertical axis.
        marks: what is in the plane, the lowest first.
        size: width and height.
    """
    width, height = size
    left, right, top, bottom = (LEFT + y.extra, RIGHT, TOP, BOTTOM) if x.label else (TOP,) * 4
    drawn = draw(Plane(x, y, left, width - right, top, height - bottom), marks)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" tabindex="0" aria-label="{escape(about)}">\n'
        f"{drawn}\n</svg>"
    )


def draw(plane: Plane, marks: Sequence[Mark]) -> str:
    """Axes and marks, the lowest first, as elements of an SVG picture."""
    return "\n".join([*(_axes(plane) if plane.x.label else ()), *(mark.draw(plane) for mark in marks)])


def gauge(value: float, interval: tuple[float, float] | None = None, reference: float | None = None) -> str:
    """A value between 0 and 1 on a line, with its interval, and a tick at a reference value."""
    drawn = [f'<line class="grid" x1="0" x2="{GAUGE}" y1="8" y2="8"/>']
    if interval:
        low, high = (end * GAUGE for end in interval)
        drawn.append(f'<line class="interval" x1="{low:.1f}" x2="{high:.1f}" y1="8" y2="8"/>')
    if reference is not None:
        at = f"{reference * GAUGE:.1f}"
        drawn.append(f'<line class="reference" x1="{at}" x2="{at}" y1="1" y2="15"/>')
    style = "dot main" if interval else "dot faint"
    drawn.append(f'<circle class="{style}" cx="{value * GAUGE:.1f}" cy="8" r="3.5"/>')
    return f'<svg class="gauge" viewBox="-5 0 {GAUGE + 10} 16" aria-hidden="true">{"".join(drawn)}</svg>'


def legend(names: Mapping[str, str]) -> str:
    """The meaning of the styles of a chart, as HTML: style -> name."""
    keys = (f'<li><span class="key {style}"></span>{escape(name)}</li>' for style, name in names.items())
    return f'<ul class="legend">{"".join(keys)}</ul>'


def _axes(plane: Plane) -> list[str]:
    """Grid, ticks and labels; ticks with names get a grid in both directions."""
    x, y, left, right, floor = plane.x, plane.y, plane.left, plane.right, plane.bottom
    across, up = [(plane.across(v), x.text(v)) for v in x.ticks()], [(plane.up(v), y.text(v)) for v in y.ticks()]
    drawn = [f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>' for at, _ in up]
    if y.names:
        drawn += [f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{plane.top}" y2="{floor}"/>' for at, _ in across]
    drawn += [f'<text x="{at:.1f}" y="{floor + 16}" text-anchor="middle">{escape(text)}</text>' for at, text in across]
    drawn += [f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>' for at, text in up]
    middle = (left + right) / 2
    drawn.append(f'<text class="axis" x="{middle}" y="{floor + 36}" text-anchor="middle">{escape(x.label)}</text>')
    if y.label:
        place = f"translate({left - y.extra - 35:g} {(plane.top + floor) / 2:g}) rotate(-90)"
        drawn.append(f'<text class="axis" transform="{place}" text-anchor="middle">{escape(y.label)}</text>')
    return drawn


def _box(left: float, top: float, right: float, bottom: float) -> str:
    return f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'


def _group(name: str) -> str:
    return f' data-group="{escape(name)}"' if name else ""


def _tooltip(text: str) -> str:
    return f' data-tip="{escape(text)}"' if text else ""
