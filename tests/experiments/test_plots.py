from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image as mpimg
import pytest

from qpairs.evaluation.pictures import Picture, save_picture
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
    width, height = (float(root.get(side)) for side in ("width", "height"))
    circles = list(root.iter(f"{SVG}circle"))
    seeds = [circle for circle in circles if "seed" in circle.get("class")]
    assert len(seeds) == 2 * 4  # where there are several
    dots = [circle for circle in circles if circle not in seeds]
    assert len(dots) == 8 + 2  # and those of the legend
    assert all(0 < float(dot.get("cx")) < width and 0 < float(dot.get("cy")) < height for dot in circles)
    first, second = (float(dot.get("cx")) for dot in dots[:2])
    assert second - first == pytest.approx((0.8 - 0.7) / (0.385 - 0.0 + 0.0) * (380 - 16), rel=0.1)


def test_one_value_has_a_chart_too(tmp_path: Path) -> None:
    plot_estimates({"a": {"b": [Estimate(0.5, (0.5, 0.5), [0.5])]}}, ("F1",), tmp_path / "x.svg", title="", legend="")
    assert "NaN" not in (tmp_path / "x.svg").read_text().replace("nan", "NaN")


def test_the_same_chart_is_a_pdf_with_its_letters_and_a_png(tmp_path: Path) -> None:
    for name in ("one", "other"):
        plot_estimates({"static": ROWS}, ("F1", "AP"), tmp_path / f"{name}.svg", title="10 $ pairs", legend="dot: mean")
    for ending in ("svg", "pdf", "png"):  # the same picture gives the same bytes
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"other.{ending}").read_bytes()
    pdf = (tmp_path / "one.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf and b"/Subtype /Image" not in pdf
    width = float(ElementTree.parse(tmp_path / "one.svg").getroot().get("width"))
    image = mpimg.imread(tmp_path / "one.png")
    assert image.shape[1] == pytest.approx(3 * width, abs=2)
    blue = (abs(image[..., :3] - [0x0B / 255, 0x6E / 255, 0x99 / 255]) < 0.02).all(axis=2)
    assert blue.sum() > 200


def test_without_matplotlib_there_is_the_svg_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    made = save_picture(Picture(10, 10, []), tmp_path / "x.svg")
    assert made == [tmp_path / "x.svg"] and [path.name for path in tmp_path.iterdir()] == ["x.svg"]
