"""Charts as SVG text for pages: draws what it is given, never computes.

Colours and lines are classes, which the style sheet of the page gives a light and a dark form; text stays text.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

WIDTH, HEIGHT = 400, 280  # of a chart, in units of which its letters are 12 high
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 42  # around the plane; without labels it takes all
GAUGE = 150  # width of a gauge

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Axis:
    """What one side of a chart measures.

    Attributes:
        label: in words; without it, the axis is not drawn.
        low, high: its ends.
        show: a value as text.
    """

    label: str
    low: float
    high: float
    show: Callable[[float], str] = "{:g}".format

    def ticks(self) -> list[float]:
        """Round values between the ends, 3 to 7 of them."""
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


class Mark(Protocol):
    """Something in the plane of a chart."""

    def draw(self, x: Scale, y: Scale) -> str:
        """Its SVG, by the scales from values to places."""


@dataclass(frozen=True)
class Line:
    """A line through points; `group` names the marks that it belongs to."""

    xs: Sequence[float]
    ys: Sequence[float]
    style: str
    group: str = ""

    def draw(self, x: Scale, y: Scale) -> str:
        """A polyline."""
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(self.xs, self.ys, strict=True))
        return f'<polyline class="line {self.style}" points="{points}"{_group(self.group)}/>'


@dataclass(frozen=True)
class Dot:
    """A point; `tip` is told where it is pointed at, `group` names those that belong together."""

    x: float
    y: float
    style: str
    tip: str = ""
    radius: float = 4.5
    group: str = ""

    def draw(self, x: Scale, y: Scale) -> str:
        """A circle."""
        place = f'cx="{x(self.x):.1f}" cy="{y(self.y):.1f}" r="{self.radius:g}"'
        return f'<circle class="dot {self.style}" {place}{_tip(self.tip)}{_group(self.group)}/>'


@dataclass(frozen=True)
class Bar:
    """A bar over a range of x, from y = 0 up, or down."""

    low: float
    high: float
    height: float
    style: str

    def draw(self, x: Scale, y: Scale) -> str:
        """A rectangle."""
        top, bottom = sorted((y(0), y(self.height)))
        return f'<rect class="bar {self.style}" {_box(x(self.low), top, x(self.high), bottom)}/>'


@dataclass(frozen=True)
class Rule:
    """A vertical line through the whole plane, with a word at its upper end."""

    x: float
    label: str

    def draw(self, x: Scale, y: Scale) -> str:
        """A line and its word, on the side where there is room."""
        place, after = x(self.x), x(self.x) < WIDTH / 2
        anchor, gap = ("start", 5) if after else ("end", -5)
        return (
            f'<line class="rule" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text class="on-rule" x="{place + gap:.1f}" y="{TOP + 10}" text-anchor="{anchor}">'
            f"{escape(self.label)}</text>"
        )


@dataclass(frozen=True)
class Strip:
    """A range of x, from bottom to top, that has something to tell where it is pointed at."""

    low: float
    high: float
    tip: str

    def draw(self, x: Scale, y: Scale) -> str:
        """A rectangle that is not seen."""
        return f'<rect class="strip" {_box(x(self.low), TOP, x(self.high), HEIGHT - BOTTOM)}{_tip(self.tip)}/>'


def strips(xs: Sequence[float], tips: Sequence[str]) -> list[Strip]:
    """A strip around each of some rising values, as far as the middle between neighbours."""
    middles = [(a + b) / 2 for a, b in itertools.pairwise(xs)]
    return [Strip(*ends) for ends in zip([xs[0], *middles], [*middles, xs[-1]], tips, strict=True)]


def plot(about: str, x: Axis, y: Axis, marks: Sequence[Mark], size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    """A chart, focusable, so that the script of the page can lead through what its marks tell.

    Args:
        about: what it shows, for those who don't see it.
        x: the horizontal axis.
        y: the vertical axis.
        marks: what is in the plane, the lowest first.
        size: width and height.
    """
    width, height = size
    left, right, top, bottom = (LEFT, RIGHT, TOP, BOTTOM) if x.label else (TOP,) * 4
    across = _scale(x, left, width - right)
    up = _scale(y, height - bottom, top)
    drawn = "\n".join([*_axes(x, y, across, up), *(mark.draw(across, up) for mark in marks)])
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" tabindex="0" aria-label="{escape(about)}">\n'
        f"{drawn}\n</svg>"
    )


def gauge(value: float, interval: tuple[float, float] | None = None, beside: float | None = None) -> str:
    """A value between 0 and 1 on a line, with its interval, and a tick at what it is held against."""
    drawn = [f'<line class="grid" x1="0" x2="{GAUGE}" y1="8" y2="8"/>']
    if interval:
        low, high = (end * GAUGE for end in interval)
        drawn.append(f'<line class="interval" x1="{low:.1f}" x2="{high:.1f}" y1="8" y2="8"/>')
    if beside is not None:
        drawn.append(f'<line class="beside" x1="{beside * GAUGE:.1f}" x2="{beside * GAUGE:.1f}" y1="1" y2="15"/>')
    style = "dot main" if interval else "dot faint"
    drawn.append(f'<circle class="{style}" cx="{value * GAUGE:.1f}" cy="8" r="3.5"/>')
    return f'<svg class="gauge" viewBox="-5 0 {GAUGE + 10} 16" aria-hidden="true">{"".join(drawn)}</svg>'


def legend(names: Mapping[str, str]) -> str:
    """What the styles of a chart stand for, as HTML: style -> name."""
    keys = (f'<li><span class="key {style}"></span>{escape(name)}</li>' for style, name in names.items())
    return f'<ul class="legend">{"".join(keys)}</ul>'


def _scale(axis: Axis, start: float, end: float) -> Scale:
    span = axis.high - axis.low or 1.0
    return lambda value: start + (value - axis.low) / span * (end - start)


def _axes(x: Axis, y: Axis, across: Scale, up: Scale) -> list[str]:
    if not x.label:
        return []
    floor, wall = HEIGHT - BOTTOM, WIDTH - RIGHT
    grid = [f'<line class="grid" x1="{LEFT}" x2="{wall}" y1="{up(v):.1f}" y2="{up(v):.1f}"/>' for v in y.ticks()]
    numbers = [
        *(f'<text x="{across(v):.1f}" y="{floor + 16}" text-anchor="middle">{x.show(v)}</text>' for v in x.ticks()),
        *(f'<text x="{LEFT - 6}" y="{up(v) + 4:.1f}" text-anchor="end">{y.show(v)}</text>' for v in y.ticks()),
    ]
    middle = (LEFT + wall) / 2
    labels = [
        f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>',
        f'<text class="axis" transform="translate(11 {(TOP + floor) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>",
    ]
    return [*grid, *numbers, *labels]


def _box(left: float, top: float, right: float, bottom: float) -> str:
    return f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'


def _group(name: str) -> str:
    return f' data-group="{escape(name)}"' if name else ""


def _tip(text: str) -> str:
    return f' data-tip="{escape(text)}"' if text else ""
