from __future__ import annotations

import dataclasses
import html
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import refused, write_csv
from mocks import moved

import qpairs
from qpairs import metrics
from qpairs.data.parts import load_parts
from qpairs.data.splits import duplicate_components
from qpairs.evaluation.mistakes import analyse
from qpairs.evaluation.report import question_map, render
from qpairs.evaluation.report.question_map import chosen_questions
from qpairs.evaluation.report.tables import marked
from qpairs.models.bi_encoder import Checkpoint

if TYPE_CHECKING:
    from playwright.sync_api import Page

EVIL = '</script><img src=x onerror="document.title=1"> & <b>bold</b>'
VOID = {"meta", "link", "input", "br"}


class Reader(HTMLParser):
    """The elements of a page, its text, and what is open at its end."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] in ("script", "style") else self.words).append(data)

    @property
    def tips(self) -> list[str]:
        return [value or "" for name, value in self.attributes if name == "data-tip"]

    @property
    def data(self) -> dict:
        return next(json.loads(script) for script in self.scripts if script.startswith("{"))


@pytest.fixture(scope="module", autouse=True)
def small_map() -> object:
    """A map of few questions, because t-SNE is what takes the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(question_map, "MAPPED", 60)
        yield


@pytest.fixture(scope="module")
def pairs(sample_rows: list[tuple[str, str, int]]) -> qpairs.Pairs:
    """The bundled pairs, and a mistake whose text would do harm if it were not taken for text."""
    first, second, labels = zip(*sample_rows, (EVIL, f"{EVIL}?", 0), strict=True)
    return qpairs.pairs_from_texts(first, second, labels)


@pytest.fixture(scope="module")
def text(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> str:
    return render(checkpoint, pairs, title=EVIL, source="mine.csv")


@pytest.fixture(scope="module")
def reader(text: str) -> Reader:
    return Reader(text)


# ---------------------------------------------------------------------- content


def test_the_figures_are_those_of_evaluate(reader: Reader, checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    expected = qpairs.evaluate(checkpoint, pairs)
    low, high = expected.f1_interval
    assert f"F1 {expected.f1:.3f} 95 % interval {low:.3f} to {high:.3f}" in reader.text
    for name in ("precision", "recall", "average_precision"):
        value, (low, high) = getattr(expected, name), getattr(expected, f"{name}_interval")
        assert f"{name.replace('_', ' ').capitalize()} {value:.3f} ({low:.3f} to {high:.3f})" in reader.text
    for name, values in expected.baselines.items():
        assert f"{name} {values['f1']:.3f}" in reader.text
    assert f"Of 100 pairs that it calls duplicates, {100 * expected.precision:.0f} are." in reader.text
    assert f"The mean distance from it is {expected.calibration_error:.3f}" in reader.text
    assert f"{checkpoint.verdict.pair.threshold:.3f}, chosen on" in reader.text
    best = max(metrics.confusion(expected.scores, pairs.labels, threshold).f1 for threshold in expected.scores)
    assert f"The best on these pairs would be {best:.3f}" in reader.text


def test_mistakes_and_slices_are_those_of_analyse(reader: Reader, checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    found = analyse(checkpoint, pairs)
    listed, mistakes = reader.data["mistakes"], found.mistakes()
    assert len(listed) == len(mistakes) > 50
    names = [part["name"] for part in reader.data["slices"]]
    assert names == [part.name for part in found.slices]
    for shown, mistake in zip(listed, mistakes, strict=True):
        assert ["".join(pieces) for pieces in shown["questions"]] == [mistake.question1, mistake.question2]
        assert {piece.lower() for piece in shown["questions"][0][1::2]} == set(mistake.only1)
        assert shown["similarity"] == pytest.approx(mistake.similarity, abs=1e-4)
        assert [names[number] for number in shown["slices"]] == list(mistake.slices)
    for part in found.slices:
        low, high = part.f1_interval
        assert part.name in reader.text
        assert f"{part.f1:.3f} ({low:.3f} to {high:.3f}) {part.p_corrected:.4f}" in reader.text


def test_the_histogram_counts_every_pair_on_its_side(
    reader: Reader, checkpoint: Checkpoint, pairs: qpairs.Pairs
) -> None:
    counts = metrics.confusion(
        qpairs.predict(checkpoint, pairs).similarity, pairs.labels, checkpoint.verdict.pair.threshold
    )
    matches = [re.fullmatch(r"similarity (\S+) to .*\n(\d+) duplicates, (\d+) not", tip) for tip in reader.tips]
    bars = [(float(match[1]), int(match[2]), int(match[3])) for match in matches if match]
    edge = min((start for start, *_ in bars), key=lambda start: abs(start - checkpoint.verdict.pair.threshold))
    passed = np.sum([bar[1:] for bar in bars if bar[0] >= edge], axis=0)
    others = np.sum([bar[1:] for bar in bars if bar[0] < edge], axis=0)
    assert [*passed, *others] == [counts.tp, counts.fp, counts.fn, counts.tn]


def test_no_threshold_beyond_all_scores_finds_anything(checkpoint: Checkpoint, pairs: qpairs.Pairs) -> None:
    tips = Reader(render(moved(checkpoint, threshold=1.5), pairs)).tips
    assert "threshold 1.500\nF1 0.000, precision 0.000, recall 0.000" in tips


def test_the_page_is_well_formed(reader: Reader) -> None:
    assert reader.open == []
    ids = [value for name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value.removeprefix("#") for name, value in reader.attributes if name == "href" and value[0] == "#"}
    assert targets <= set(ids)
    assert reader.elements["figure"] == 9
    assert sum(name == "aria-label" for name, _ in reader.attributes) >= reader.elements["figure"]


def test_the_page_asks_for_nothing(text: str, reader: Reader) -> None:
    links = [value for name, value in reader.attributes if name in ("src", "href", "action", "srcset")]
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://", text)
    policy = next(value for name, value in reader.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none';")


def test_what_users_wrote_stays_text(text: str, reader: Reader, checkpoint: Checkpoint) -> None:
    assert reader.elements["img"] == reader.elements["b"] == 0
    assert EVIL in html.unescape(re.search("<title>(.*)</title>", text)[1])
    assert EVIL in ["".join(mistake["questions"][0]) for mistake in reader.data["mistakes"]]
    mapped = Reader(render(checkpoint, qpairs.pairs_from_texts([EVIL, *"abc"], [*"def", EVIL], [0, 1, 1, 0])))
    assert EVIL in [tip.split("\n")[0] for tip in mapped.tips]
    assert mapped.elements["img"] == mapped.elements["b"] == 0


def test_a_seed_gives_the_same_bytes(checkpoint: Checkpoint, pairs: qpairs.Pairs, text: str) -> None:
    assert render(checkpoint, pairs, title=EVIL, source="mine.csv") == text
    assert render(checkpoint, pairs, title=EVIL, source="mine.csv", seed=1) != text


def test_without_data_it_is_of_the_test_part(checkpoint: Checkpoint) -> None:
    reader = Reader(render(checkpoint))
    test = checkpoint.scores["test"]
    assert f"F1 {test['f1']:.3f} 95 % interval {test['f1_interval'][0]:.3f}" in reader.text
    assert "pairs.csv, the part kept for the test" in reader.text
    assert "mine" in reader.text
    assert "known words" not in reader.text.split("What was evaluated")[0]


def test_a_checkpoint_without_test_part_says_what_its_figures_are_worth(
    checkpoint: Checkpoint, pairs_csv: Path, sample_rows: list, tmp_path: Path
) -> None:
    other = write_csv(tmp_path / "other.csv", sample_rows[:100])
    config = dataclasses.replace(checkpoint.config, validation=(str(other),))
    parts = load_parts(config)
    scores = {"validation": {**checkpoint.scores["validation"], "f1_cross_fitted": 0.4321}}
    shown = Reader(render(dataclasses.replace(checkpoint, config=config, split=parts.split, scores=scores))).text
    assert "fitted to these same pairs" in shown
    assert "F1 was 0.432" in shown
    assert "other.csv (validation)" in shown
    seen = len(parts.validation.questions)
    assert f"{seen} of {seen} questions were seen in training; F1 on them does not hold for new questions." in shown


def test_what_is_not_known_is_said(checkpoint: Checkpoint, pairs: qpairs.Pairs, reader: Reader) -> None:
    assert "known words are those of these pairs themselves" in reader.text
    right = np.flatnonzero(qpairs.predict(checkpoint, pairs).duplicate == (pairs.labels == 1))
    few = pairs.subset(np.array([right[pairs.labels[right] == label][0] for label in (0, 1)]))
    shown = Reader(render(dataclasses.replace(checkpoint, history=()), few)).text
    for words in ("has no training history", "In none of 0 slices", "0 of 2 decisions are wrong", "There is no map"):
        assert words in shown


def test_a_collapsed_model_is_named(checkpoint: Checkpoint) -> None:
    shown = Reader(render(checkpoint, qpairs.pairs_from_texts(["why"] * 8, ["Why"] * 8, [0, 1] * 4))).text
    assert "has collapsed" in shown
    assert "no better than" not in shown
    assert "There is no map" in shown


def test_a_model_no_better_than_trivial_answers_is_named_so(checkpoint: Checkpoint) -> None:
    pairs = load_parts(checkpoint.config).train
    for threshold in (-1.0, checkpoint.verdict.pair.threshold):
        model = moved(checkpoint, threshold=threshold)
        note = qpairs.evaluate(model, pairs).trivial
        assert bool(note) == (threshold == -1.0)
        said = f"It is {note}." if note else "It is better than the trivial baselines."
        assert said in Reader(render(model, pairs)).text


def test_two_towers_and_a_head_have_a_report_too(pairs_csv: Path, tmp_path: Path) -> None:
    options = {"loss": "pair_softmax", "score": "head", "output": str(tmp_path / "x"), "batch_size": 32}
    model = qpairs.train(data=str(pairs_csv), encoder="static+static", epochs=1, **options)
    shown = Reader(render(model))
    assert "How the score separates duplicates from others" in shown.text
    assert shown.elements["circle"] > 60


def test_the_map_takes_whole_components_and_mistakes(pairs: qpairs.Pairs) -> None:
    component = duplicate_components(pairs)
    wrong = np.zeros(len(pairs), dtype=bool)
    wrong[::50] = True
    chosen = chosen_questions(pairs, wrong, most=200)
    assert 150 < len(chosen) <= 200
    assert len(set(chosen.tolist())) == len(chosen)
    inside = set(chosen.tolist())
    assert all(set(np.flatnonzero(component == c).tolist()) <= inside for c in set(component[chosen].tolist()))
    assert any(int(pairs.left[row]) in inside and int(pairs.right[row]) in inside for row in np.flatnonzero(wrong))
    assert chosen_questions(pairs, wrong, most=200).tolist() == chosen.tolist()
    assert chosen_questions(pairs, wrong, most=200, seed=1).tolist() != chosen.tolist()
    assert sorted(chosen_questions(pairs, wrong, most=10**6).tolist()) == list(range(len(pairs.questions)))


def test_components_that_lie_together_have_a_name_and_names_do_not_lie_on_each_other() -> None:
    texts = [
        "How do I pay by card, please?",
        "pay by card",
        "Card payment?",
        "far one",
        "far two",
        "far three",
        "alone",
    ]
    pairs = qpairs.pairs_from_texts(
        [*texts[:2], *texts[3:5], "alone"], [*texts[1:3], *texts[4:6], "far one"], [1, 1, 1, 1, 0]
    )
    found = SimpleNamespace(pairs=pairs)
    near = {pairs.questions.index(text): (0.5, 0.5 + 0.01 * row) for row, text in enumerate(texts[:3])}
    apart = {pairs.questions.index(text): (0.4 * row, 0.1) for row, text in enumerate(texts[3:])}
    (name,) = question_map._names(found, {**near, **apart}, duplicate_components(pairs))
    assert (name.text, name.x, name.y) == ("pay by card", 0.5, pytest.approx(0.51))
    together = dict.fromkeys(range(len(pairs.questions)), (0.5, 0.5))
    assert len(question_map._names(found, together, duplicate_components(pairs))) == 1


def test_every_second_piece_is_a_marked_word() -> None:
    assert marked("How can't I pay, pay-now?", {"can't", "now"}) == ["How ", "can't", " I pay, pay-", "now", "?"]
    assert marked("Can\N{RIGHT SINGLE QUOTATION MARK}t", {"can't"}) == ["", "Can\N{RIGHT SINGLE QUOTATION MARK}t", ""]
    assert marked("?!", {"x"}) == ["?!"]


# ---------------------------------------------------------------------- command


def test_report_writes_a_page_into_a_folder_that_it_makes(run, checkpoint: Checkpoint, pairs_csv: Path) -> None:
    result = run("report", checkpoint.config.output, "--data", pairs_csv, "--output", "new/page.html")
    assert result.code == 0, result.err
    assert "new/page.html" in result.out
    written = Path("new/page.html").read_text(encoding="utf-8")
    known = load_parts(checkpoint.config).train
    assert written == render(checkpoint, str(pairs_csv), title="mine", source="pairs.csv", trained_on=known)
    assert f"{len(known.questions):,} of {len(qpairs.load_pairs(pairs_csv).questions):,} questions were seen" in (
        Reader(written).text
    )
    assert [path.name for path in Path("new").iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere", "no such checkpoint"]),
        (["MINE", "--data", "missing.csv"], ["missing.csv", "no such file"]),
        (["MINE", "--data", "bare.csv"], ["bare.csv", "no label column"]),
        (["MINE", "--data", "ones.csv"], ["report", "all 3 pairs are duplicates"]),
        (["MINE", "--output", "page.txt"], ["page.txt", ".html", "--output"]),
        (["MINE", "--output", "bare.csv/page.html"], ["bare.csv/page.html", "cannot be written"]),
        (["moved"], ["test pairs are unavailable", "gone.csv: no such file", "--data"]),
        (["changed"], ["test pairs are unavailable", "has changed", "--data"]),
    ],
)
def test_bad_input_is_one_line(run, checkpoint: Checkpoint, arguments: list[str], words: list[str]) -> None:
    Path("bare.csv").write_text("question1,question2\nhow?,why?\n", encoding="utf-8")
    write_csv(Path("ones.csv"), [("a", "b", 1)] * 3)
    gone = dataclasses.replace(checkpoint.config, data=("gone.csv",))
    qpairs.save_checkpoint(dataclasses.replace(checkpoint, config=gone), "moved")
    other = {**checkpoint.split, "fingerprint": "0" * 16}
    qpairs.save_checkpoint(dataclasses.replace(checkpoint, split=other), "changed")
    before = sorted(Path().rglob("*"))
    refused(run("report", *(checkpoint.config.output if a == "MINE" else a for a in arguments)), *words)
    assert sorted(Path().rglob("*")) == before


# ---------------------------------------------------------------------- in a browser


@pytest.fixture
def opened(page: Page, text: str, tmp_path: Path) -> Page:
    """The page in a browser, which fails the test on an error of its script and on any request."""
    file = tmp_path / "page.html"
    file.write_text(text, encoding="utf-8")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert requests == [file.as_uri()]


def rows(page: Page) -> list[str]:
    return page.locator(".mistakes tbody tr").all_inner_texts()


@pytest.mark.browser
def test_typing_finds_the_row(opened: Page, reader: Reader) -> None:
    wanted = reader.data["mistakes"][-1]
    one, other = ("".join(pieces) for pieces in wanted["questions"])
    opened.get_by_label("Text").fill(" ".join(reversed(f"{one} {other}".upper().split())))
    assert [row.split("\t")[0].split("\n")[:2] for row in rows(opened)] == [[one, other]]
    marks = opened.locator(".mistakes tbody tr").first.locator("mark").all_inner_texts()
    assert marks == [piece for pieces in wanted["questions"] for piece in pieces[1::2]]
    opened.get_by_label("Text").fill("no question has this")
    assert rows(opened) == []
    assert opened.locator(".count").inner_text() == "No mistakes match."
    opened.get_by_role("button", name="Clear").click()
    opened.locator(".mistakes tbody tr").nth(10).wait_for()


@pytest.mark.browser
def test_kind_sort_and_pages(opened: Page, reader: Reader) -> None:
    mistakes = reader.data["mistakes"]
    assert len(rows(opened)) == 50
    opened.get_by_role("button", name="Next").click()
    assert len(rows(opened)) == min(50, len(mistakes) - 50)
    assert opened.get_by_role("button", name="Previous").is_enabled()
    opened.get_by_label("Kind").select_option("1")
    missed = [mistake for mistake in mistakes if mistake["label"]]
    assert opened.locator(".count").inner_text().split(" of ")[-1].split()[0] == str(len(missed))
    assert all("missed" in row for row in rows(opened))
    for direction in ("descending", "ascending"):
        opened.get_by_role("button", name="Probability").click()
        shown = [float(row.split("\t")[-1]) for row in rows(opened)]
        assert shown == sorted(shown, reverse=direction == "descending")
        assert opened.get_by_role("columnheader", name="Probability").get_attribute("aria-sort") == direction


@pytest.mark.browser
def test_a_slice_shows_its_mistakes(opened: Page, reader: Reader) -> None:
    number, part = next((i, part) for i, part in enumerate(reader.data["slices"]) if 0 < part["errors"] < 50)
    button = opened.locator(f"[data-slice='{number}']")
    for summary in opened.locator("summary").all():
        summary.click()
    button.press("Enter")
    assert len(rows(opened)) == part["errors"]
    assert (
        opened.locator("select[name=slice]")
        .evaluate("select => select.selectedOptions[0].text")
        .startswith(part["name"])
    )
    assert opened.evaluate("document.activeElement.name") == "slice"


@pytest.mark.browser
def test_charts_tell_by_mouse_and_by_keys(opened: Page) -> None:
    tooltip = opened.locator(".tooltip")
    chart = opened.locator("#threshold .chart").nth(1)
    chart.scroll_into_view_if_needed()
    chart.hover()
    assert tooltip.inner_text().startswith("threshold 0.")
    opened.locator("h1").hover()
    assert tooltip.is_hidden()
    chart.focus()
    opened.keyboard.press("ArrowRight")
    first = tooltip.inner_text()
    opened.keyboard.press("ArrowRight")
    assert tooltip.inner_text() != first
    opened.keyboard.press("Escape")
    assert tooltip.is_hidden()


@pytest.mark.browser
def test_the_map_shows_question_and_component(opened: Page) -> None:
    dot = opened.locator(".map circle.joined").first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    here = opened.locator(".map .here")
    assert opened.locator(".tooltip").inner_text() == here.get_attribute("data-tip")
    group = here.get_attribute("data-group")
    assert opened.locator(".map .kin").count() == opened.locator(f".map [data-group='{group}']").count() > 1


@pytest.mark.browser
def test_what_users_wrote_harms_nothing(opened: Page) -> None:
    assert opened.locator("img").count() == 0
    assert opened.title() == f"{EVIL}: report"
    assert opened.locator("h1").inner_text() == EVIL
    blocked = opened.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.broken = true";
        document.body.append(script);
        return window.broken === undefined;
    }""")
    assert blocked


@pytest.mark.browser
def test_on_a_phone_nothing_goes_over_the_side(opened: Page) -> None:
    opened.set_viewport_size({"width": 390, "height": 844})
    for summary in opened.locator("summary").all():
        summary.click()
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    table = opened.locator("#mistakes .scroll")
    assert table.evaluate("box => box.scrollWidth <= box.clientWidth")  # a mistake is read without scrolling sideways
    opened.locator("[data-sort=similarity]").click()
    assert opened.get_attribute("th[aria-sort]", "aria-sort") == "descending"


@pytest.mark.browser
def test_dark_is_dark(opened: Page) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        script = "e => getComputedStyle(e)"
        paper = opened.locator("body").evaluate(f"{script}.backgroundColor")
        ink = opened.locator("body").evaluate(f"{script}.color")
        line = opened.locator(".line.main").first.evaluate(f"{script}.stroke")
        seen[scheme] = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink, line)]
    assert seen["light"][0] > 600 > 150 > seen["light"][1]
    assert seen["dark"][0] < 150 < 600 < seen["dark"][1]
    assert seen["light"][2] < seen["dark"][2]
