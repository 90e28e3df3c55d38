"""The picture of a learning curve: SVG, and with matplotlib PDF and PNG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from qpairs.evaluation.charts import Axis, Dot, Line, Mark, Plane, Rule, draw
from qpairs.evaluation.pictures import Picture, save_picture
from qpairs.experiments.curves import MEASURES, Curve

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, EDGE = 640, 420, 60, 56, 110, 16
RIGHT = 36  # room for half of the last tick
APART = 10  # between the bars of two measures
STEPS = 60  # of a drawn curve
_LEGEND = "dot: mean over the seeds; line: fitted power law; open dot: predicted; bars: 95 % intervals"


def plot_curves(curves: Sequence[Curve], path: Path, *, title: str) -> None:
    """Draws score against pairs, on a logarithmic axis, with the fitted laws and what they predict.

    Args:
        curves: of one or two measures.
        path: path of the SVG; PDF and PNG are next to it.
        title: above the chart.
    """
    sizes = [point.pairs for point in curves[0].points]
    ends = [end for curve in curves for part in (curve.points, curve.predictions) for p in part for end in p.interval]
    room = 0.05 * (max(ends) - min(ends)) or 0.01
    x = Axis("training pairs", math.log2(sizes[0]) - 0.3, math.log2(curves[0].predictions[-1].pairs) + 0.3, _pairs)
    y = Axis("", min(ends) - room, max(ends) + room)  # what the colours measure is below the chart
    plane = Plane(x, y, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)
    unit = APART * (x.high - x.low) / (plane.right - plane.left)
    aside = [unit * (number - (len(curves) - 1) / 2) for number in range(len(curves))]
    marks: list[Mark] = [Rule(math.log2(sizes[-1]), f"all {sizes[-1]:,} pairs")]
    marks += [mark for number, curve in enumerate(curves) for mark in _bars(curve, f"m{number}", aside[number])]
    marks += [mark for number, curve in enumerate(curves) for mark in _lines(curve, f"m{number}")]
    marks += [mark for number, curve in enumerate(curves) for mark in _dots(curve, f"m{number}", aside[number])]
    drawn = [f'<text class="title" x="{EDGE}" y="26">{escape(title)}</text>', draw(plane, marks)]
    for number, curve in enumerate(curves):
        at = HEIGHT - BOTTOM + 56 + 18 * number
        drawn.append(f'<circle class="dot m{number}" cx="{EDGE + 5}" cy="{at - 4}" r="4.5"/>')
        drawn.append(f'<text x="{EDGE + 16}" y="{at}">{escape(f"{MEASURES[curve.measure]}: {curve.in_words}")}</text>')
    drawn.append(f'<text x="{EDGE}" y="{HEIGHT - 12}">{escape(_LEGEND)}</text>')
    save_picture(Picture(WIDTH, HEIGHT, drawn), path)


def _pairs(logarithm: float) -> str:
    return f"{round(2**logarithm):,}"


def _bars(curve: Curve, style: str, aside: float) -> Iterator[Mark]:
    """The intervals, so far beside their sizes that those of another measure are not hidden."""
    for part, kind in ((curve.points, "interval"), (curve.predictions, "predicted")):
        for one in part:
            place = math.log2(one.pairs) + aside
            yield Line([place, place], one.interval, f"{kind} {style}")


def _lines(curve: Curve, style: str) -> Iterator[Mark]:
    """The fitted law, up to all pairs and ahead of them."""
    points, ahead = curve.points, curve.predictions
    for first, last, kind in ((points[0].pairs, points[-1].pairs, ""), (points[-1].pairs, ahead[-1].pairs, " ahead")):
        low, high = math.log2(first), math.log2(last)
        places = [low + (high - low) * step / STEPS for step in range(STEPS + 1)]
        yield Line(places, [float(curve.law.at(2**place)) for place in places], style + kind)


def _dots(curve: Curve, style: str, aside: float) -> Iterator[Mark]:
    for point in curve.points:
        yield Dot(math.log2(point.pairs) + aside, point.mean, style)
    for prediction in curve.predictions:
        yield Dot(math.log2(prediction.pairs) + aside, prediction.value, f"open {style}")
