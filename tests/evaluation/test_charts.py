import dataclasses
import re
from xml.etree import ElementTree

import pytest

from qpairs.evaluation.charts import Axis, Bar, Dot, Line, Mark, Name, Plane, Rule, draw, gauge, legend, plot, strips
from qpairs.evaluation.report.curves import training
from qpairs.models.bi_encoder import Checkpoint

EVIL = "\"><script>alert(1)</script>&'"


def parsed(drawn: str) -> ElementTree.Element:
    """The elements of a chart, which must be well-formed XML."""
    return ElementTree.fromstring(f"<all>{drawn}</all>")


@pytest.mark.parametrize("ends", [(0, 1), (-0.3, 1.0), (0, 1234), (0.84, 0.86), (-7e-5, 3e-5)])
def test_ticks_are_round_and_inside(ends: tuple[float, float]) -> None:
    ticks = Axis("x", *ends).ticks()
    assert 3 <= len(ticks) <= 7
    assert ends[0] - 1e-12 <= ticks[0] < ticks[-1] <= ends[1] + 1e-12
    assert all(len(f"{tick:g}") <= 6 for tick in ticks)


def test_marks_lie_where_their_values_are() -> None:
    drawn = plot("", Axis("a", 0, 10), Axis("b", 0, 1), [Dot(5, 1, "x", '"<&'), Line([0, 10], [0, 1], "y")])
    bottom = f"{280 - 42:.1f}"
    assert f'points="46.0,{bottom} 388.0,12.0"' in drawn
    assert 'cx="217.0" cy="12.0"' in drawn
    assert 'data-tip="&quot;&lt;&amp;"' in drawn
    bars = plot("", Axis("a", 0, 2), Axis("b", -1, 1), [Bar(0, 1, 1, "x"), Bar(0, 1, -1, "y")])
    assert re.findall(r'class="bar (\w)" x="52.6" y="([\d.]+)"', bars) == [("x", "12.0"), ("y", "125.0")]


def test_a_negative_loss_stays_inside_its_chart(checkpoint: Checkpoint) -> None:
    """As one's own may be, minus a mean similarity for one; its line left the picture."""
    history = [{"step": step, "epoch": step / 9, "loss": 1 - 0.3 * step} for step in range(1, 10)]
    drawn = training(dataclasses.replace(checkpoint, history=history))
    (points,) = re.findall(r'points="([^"]*)"', drawn)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert 12 <= min(heights) < max(heights) <= 280 - 42


def test_strips_meet_in_the_middle() -> None:
    found = strips([0, 1, 3], ["a", "b", "c"])
    assert [(strip.low, strip.high) for strip in found] == [(0, 0.5), (0.5, 2), (2, 3)]


def test_a_gauge_has_its_interval_and_its_reference() -> None:
    assert 'x1="60.0" x2="90.0"' in gauge(0.5, (0.4, 0.6))
    assert 'class="reference" x1="75.0"' in gauge(0.5, reference=0.5)


@pytest.mark.parametrize("size", [(400, 280), (760, 560)])
@pytest.mark.parametrize("label", ["x", ""])
def test_marks_of_values_between_the_ends_lie_inside_the_plane(size: tuple[int, int], label: str) -> None:
    x, y = Axis(label, -2, 3), Axis("y", 10, 20)
    marks: list[Mark] = [
        Dot(-2, 10, "a"), Dot(3, 20, "a"), Line([-2, 0, 3], [20, 15, 10], "a"), *strips([-2, 1, 3], "abc")
    ]  # fmt: skip
    root = parsed(plot("", x, y, marks, size))
    left, right, top, bottom = (46, 12, 12, 42) if label else (12,) * 4
    for circle in root.iter("circle"):
        assert left <= float(circle.get("cx")) <= size[0] - right
        assert top <= float(circle.get("cy")) <= size[1] - bottom
    for line in root.iter("polyline"):
        places = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        assert all(left <= a <= size[0] - right and top <= b <= size[1] - bottom for a, b in places)
    for box in root.iter("rect"):
        assert left <= float(box.get("x")) <= float(box.get("x")) + float(box.get("width")) <= size[0] - right + 0.1
        assert float(box.get("y")) + float(box.get("height")) == pytest.approx(size[1] - bottom)


def test_axes_show_every_tick_where_it_lies() -> None:
    x, y = Axis("share", 0, 1), Axis("pairs", -10, 10, lambda value: f"{abs(value):g}")
    texts = {(text.text, text.get("text-anchor")): text for text in parsed(plot("", x, y, [])).iter("text")}
    plane = Plane(x, y, 46, 388, 12, 238)
    for tick in x.ticks():
        assert float(texts[f"{tick:g}", "middle"].get("x")) == pytest.approx(plane.across(tick), abs=0.1)
    assert {text for text, anchor in texts if anchor == "end"} == {f"{abs(tick):g}" for tick in y.ticks()}
    assert ("share", "middle") in texts
    assert ("pairs", "middle") in texts


def test_an_axis_of_names_has_a_tick_for_each() -> None:
    y = Axis("", 2.5, -0.5, names=["first", "second", "third"])
    assert y.ticks() == [0, 1, 2]
    drawn = draw(Plane(Axis("F1", 0, 1), y, 100, 200, 0, 90), [])
    places = {
        text.text: float(text.get("y")) for text in parsed(drawn).iter("text") if text.get("text-anchor") == "end"
    }
    assert places == {"first": 19.0, "second": 49.0, "third": 79.0}


def test_text_is_escaped_everywhere() -> None:
    marks: list[Mark] = [
        Dot(0, 0, "a", EVIL, group=EVIL),
        Line([0], [0], "a", EVIL),
        Rule(0.5, EVIL),
        *strips([0, 1], [EVIL] * 2),
    ]
    root = parsed(plot(EVIL, Axis(EVIL, 0, 1), Axis(EVIL, 0, 1, names=[EVIL, "b"]), marks) + legend({"a": EVIL}))
    assert not list(root.iter("script"))
    assert root.find("svg").get("aria-label") == EVIL
    assert [text.text for text in root.iter("text")].count(EVIL) == 4
    assert [mark.get("data-tip") for mark in root.iter() if mark.get("data-tip")] == [EVIL] * 3
    assert {mark.get("data-group") for mark in root.iter() if mark.get("data-group")} == {EVIL}
    assert root.find("ul/li").findtext("span", default="") == ""


def test_the_label_of_a_rule_is_on_the_side_with_room() -> None:
    anchors = [
        re.search(
            'class="on-rule".*text-anchor="([a-z]+)"', plot("", Axis("a", 0, 1), Axis("b", 0, 1), [Rule(x, "t")])
        )[1]
        for x in (0.1, 0.9)
    ]
    assert anchors == ["start", "end"]


def test_a_gauge_without_interval_is_a_faint_dot_at_its_value() -> None:
    root = parsed(gauge(0.25))
    assert [circle.get("class") for circle in root.iter("circle")] == ["dot faint"]
    assert float(root.find("svg/circle").get("cx")) == 0.25 * 150
    assert [line.get("class") for line in root.iter("line")] == ["grid"]


@pytest.mark.parametrize("ends", [(0, 1), (0, 0.15), (0, 120_000)])
def test_the_title_of_an_axis_touches_no_tick(ends: tuple[float, float]) -> None:
    y = Axis("training loss", *ends, show="{:,g}".format)
    root = parsed(plot("", Axis("x", 0, 1), y, []))
    title = next(text for text in root.iter("text") if text.text == "training loss")
    right = float(re.match(r"translate\((\S+) ", title.get("transform"))[1]) + 3  # of its letters, which are turned
    ticks = [text for text in root.iter("text") if text.get("text-anchor") == "end"]
    assert ticks and all(float(tick.get("x")) - 6.6 * len(tick.text) > right for tick in ticks)
    assert right - 3 > 9  # and it is inside the picture


@pytest.mark.parametrize("place", [(0, 0), (1, 1), (0.5, 0.5)])
def test_a_name_stays_inside(place: tuple[float, float]) -> None:
    (text,) = parsed(plot("", Axis("", 0, 1), Axis("", 0, 1), [Name(*place, "a <name> & more")], (300, 200))).iter(
        "text"
    )
    assert text.text == "a <name> & more"
    assert float(text.get("x")) - 6.6 * 15 / 2 >= 12 and float(text.get("x")) + 6.6 * 15 / 2 <= 288
    assert 12 < float(text.get("y")) < 188
