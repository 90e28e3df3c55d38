"""Charts as standalone files: SVG, and if matplotlib is installed, the same drawing as PDF and PNG.

A drawing has SVG elements of a few kinds (`charts.draw`); their looks are rules by class, which become a style sheet in
the SVG file, and colours and widths in the others. Fonts in a PDF are embedded, as journals require.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from qpairs.core.files import atomic_file, write_text

COLOURS = ("#0b6e99", "#d1701c", "#5b8a3c", "#8a4f9e")  # of measures
KINDS = (".svg", ".pdf", ".png")
DOTS_PER_UNIT = 3  # of a PNG
POINTS = 0.75  # per unit, of which there are 96 in an inch
NARROWER = 0.92  # letters of matplotlib's font are wider than those of a browser by the inverse

Look = Mapping[str, str]
LOOKS: Sequence[tuple[str, Look]] = (
    ("text", {"font-size": "12px", "fill": "#333"}),
    (".title", {"font-size": "15px", "font-weight": "600"}),
    (".panel", {"font-weight": "600"}),
    (".grid", {"stroke": "#e4e4e4"}),
    (".rule", {"stroke": "#999", "stroke-dasharray": "3 3"}),
    (".line", {"fill": "none", "stroke-width": "1.8"}),
    (".ahead", {"stroke-dasharray": "6 4"}),
    (".interval", {"stroke-width": "5", "stroke-opacity": ".35"}),
    (".predicted", {"stroke-width": "2"}),
    (".dot", {"stroke": "white", "stroke-width": "1.5"}),
    *(
        rule
        for number, colour in enumerate(COLOURS)
        for rule in (
            (f".m{number}", {"stroke": colour}),
            (f".dot.m{number}", {"fill": colour, "stroke": "white"}),
            (f".seed.m{number}", {"fill": colour, "fill-opacity": ".55", "stroke": "none"}),
            (f".open.m{number}", {"fill": "white", "stroke": colour}),
        )
    ),
)  # selector: an element or classes -> how it looks; a later one wins


@dataclass(frozen=True)
class Picture:
    """The content of a file: SVG elements on a white background.

    Attributes:
        width, height: in units of 1/96 inch.
        drawn: the elements, the lowest first: line, polyline, circle and text with the classes of `LOOKS`.
    """

    width: float
    height: float
    drawn: Sequence[str]

    def svg(self) -> str:
        """The SVG file, for browsers.

        >>> Picture(10, 10, ['<circle class="dot m0" cx="5" cy="5" r="3"/>']).svg().count("<circle")
        1
        """
        style = " ".join(
            f"{selector} {{ {'; '.join(f'{name}: {value}' for name, value in look.items())} }}"
            for selector, look in LOOKS
        )
        picture = "\n".join(self.drawn)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} {self.height:.0f}" '
            f'width="{self.width:.0f}" height="{self.height:.0f}">\n'
            f"<style>text {{ font-family: system-ui, sans-serif }} {style}</style>\n"
            f'<rect width="100%" height="100%" fill="white"/>\n{picture}\n</svg>\n'
        )


def save_picture(picture: Picture, path: Path) -> list[Path]:
    """Writes a picture as SVG, and next to it as PDF and PNG if matplotlib is installed.

    Args:
        picture: what is drawn.
        path: of the SVG file; the others have its name with their own ending.

    Returns:
        The files.

    Raises:
        UserError: one cannot be written.

    >>> import tempfile
    >>> made = save_picture(Picture(40, 20, []), Path(tempfile.mkdtemp(), "chart.svg"))
    >>> made[0].name
    'chart.svg'
    """
    write_text(path, picture.svg())
    made = [path]
    if importlib.util.find_spec("matplotlib"):
        for ending in KINDS[1:]:
            made.append(path.with_suffix(ending))
            with atomic_file(made[-1]) as fresh:
                _paint(picture, fresh, ending[1:])
    return made


def _paint(picture: Picture, path: Path, kind: str) -> None:
    """Draws with matplotlib, without its global state."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(picture.width / 96, picture.height / 96))
    FigureCanvasAgg(figure)
    plane: Any = figure.add_axes((0, 0, 1, 1))
    plane.set_xlim(0, picture.width)
    plane.set_ylim(picture.height, 0)
    plane.axis("off")
    for layer, element in enumerate(ElementTree.fromstring(f"<all>{''.join(picture.drawn)}</all>")):
        _PAINTERS[element.tag](plane, element, _look(element), layer)
    with matplotlib.rc_context({"pdf.fonttype": 42, "pdf.compression": 6}):
        about = {"CreationDate": None} if kind == "pdf" else {"Software": None}  # the same picture gives the same bytes
        figure.savefig(path, format=kind, dpi=96 * DOTS_PER_UNIT, facecolor="white", metadata=about)


def _look(element: ElementTree.Element) -> dict[str, str]:
    """The look of an element by the rules that match its name and classes, later ones first."""
    classes, look = set(element.get("class", "").split()), dict[str, str]()
    for selector, rule in LOOKS:
        if selector == element.tag or (selector.startswith(".") and set(selector[1:].split(".")) <= classes):
            look.update(rule)
    return look


def _stroke(look: Look) -> dict[str, Any]:
    width = float(look.get("stroke-width", 1)) * POINTS
    stroke = {"color": look.get("stroke", "none"), "linewidth": width, "alpha": float(look.get("stroke-opacity", 1))}
    if dashes := look.get("stroke-dasharray"):
        stroke["linestyle"] = (0, tuple(float(part) * POINTS / width for part in dashes.split()))
    return stroke


def _line(plane: Any, element: ElementTree.Element, look: Look, layer: int) -> None:
    xs, ys = ([float(element.get(f"{side}{end}", 0)) for end in "12"] for side in "xy")
    plane.plot(xs, ys, **_stroke(look), zorder=layer, solid_capstyle="butt")


def _polyline(plane: Any, element: ElementTree.Element, look: Look, layer: int) -> None:
    points = [tuple(map(float, point.split(","))) for point in element.get("points", "").split()]
    xs, ys = zip(*points, strict=True)
    plane.plot(xs, ys, **_stroke(look), zorder=layer, solid_capstyle="butt")


def _circle(plane: Any, element: ElementTree.Element, look: Look, layer: int) -> None:
    from matplotlib.patches import Circle

    centre = float(element.get("cx", 0)), float(element.get("cy", 0))
    edge = look.get("stroke", "none")
    width = 0.0 if edge == "none" else float(look.get("stroke-width", 1)) * POINTS
    patch = Circle(centre, float(element.get("r", 1)), facecolor=look.get("fill", "black"), edgecolor=edge)
    patch.set_linewidth(width)
    patch.set_alpha(float(look.get("fill-opacity", 1)))
    patch.set_zorder(layer)
    plane.add_patch(patch)


def _text(plane: Any, element: ElementTree.Element, look: Look, layer: int) -> None:
    place, turned = (float(element.get("x", 0)), float(element.get("y", 0))), 0.0
    if move := re.match(r"translate\(([-\d.]+) ([-\d.]+)\) rotate\(([-\d.]+)\)", element.get("transform", "")):
        place, turned = (float(move[1]), float(move[2])), -float(move[3])
    plane.text(
        *place,
        (element.text or "").replace("$", r"\$"),  # not mathematics
        fontsize=float(look["font-size"].removesuffix("px")) * POINTS * NARROWER,
        fontweight="bold" if "font-weight" in look else "normal",
        color=look["fill"],
        ha={"middle": "center", "end": "right"}.get(element.get("text-anchor", ""), "left"),
        va="baseline",
        rotation=turned,
        rotation_mode="anchor",
        zorder=layer,
    )


_PAINTERS = {"line": _line, "polyline": _polyline, "circle": _circle, "text": _text}
