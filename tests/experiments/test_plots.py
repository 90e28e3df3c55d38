from pathlib import Path
from xml.etree import ElementTree

import pytest

from qpairs.experiments.plots import Estimate, plot_estimates

SVG = "{http://www.w3.org/2000/svg}"
ROWS = {
    "contrastive": [Estimate(0.7, (0.65, 0.75), [0.69, 0.71]), Estimate(0.8, (0.75, 0.85), [0.8, 0.8])],
    "triplet & <b>": [Estimate(0.6, (0.5, 0.7), [0.6]), Estimate(0.65, (0.6, 0.7), [0.65])],
}


def test_every_estimate_is_a_dot_with_its_interval_and_values(tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"
    plot_estimates({"static": ROWS, "lstm": ROWS}, ("F1", "AP"), file, title="10 pairs", legend="dot: mean")
    root = ElementTree.parse(file).getroot()
    texts = [text.text for text in root.iter(f"{SVG}text")]
    for word, times in {"10 pairs": 1, "static": 1, "triplet & <b>": 2, "F1": 1, "F1, AP": 2, "dot: mean": 1}.items():
        assert texts.count(word) == times
    lines = [line.get("class") for line in root.iter(f"{SVG}polyline")]
    assert sum("interval" in line for line in lines) == 8
    assert sum("tick" in line for line in lines) == 2 * 6
    width, height = (float(root.get(side)) for side in ("width", "height"))
    dots = list(root.iter(f"{SVG}circle"))
    assert len(dots) == 8 + 2  # and those of the legend
    assert all(0 < float(dot.get("cx")) < width and 0 < float(dot.get("cy")) < height for dot in dots)
    first, second = (float(dot.get("cx")) for dot in dots[:2])
    assert second - first == pytest.approx((0.8 - 0.7) / (0.385 - 0.0 + 0.0) * (380 - 16), rel=0.1)


def test_one_value_has_a_chart_too(tmp_path: Path) -> None:
    plot_estimates({"a": {"b": [Estimate(0.5, (0.5, 0.5), [0.5])]}}, ("F1",), tmp_path / "x.svg", title="", legend="")
    assert "NaN" not in (tmp_path / "x.svg").read_text().replace("nan", "NaN")
