"""The page of `qpairs serve` in headless Chromium, over the real service."""

import contextlib
import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from corpora import fitted
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from live import served, until
from mocks import moved

import qpairs
from qpairs.data.labels import LABEL_FILE_COLUMNS, read_labels
from qpairs.data.sources import load_pairs
from qpairs.metrics import Calibration
from qpairs.models.base import Model
from qpairs.models.verdict import words
from qpairs.retrieval.index import build_index, open_index
from qpairs.retrieval.search import heading, setting_for
from qpairs.retrieval.search import search as library_search
from qpairs.serving.app import create_app
from qpairs.serving.journal import journalled
from qpairs.serving.origins import Origins

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

CLI = Path(__file__).parents[2] / "cli.py"
EVIL = '<img src="x" onerror="alert(1)"><script>alert(2)</script> & "quotes"?'
VIEWS = ("search", "compare", "label")
GROUPS = {"another question": "other question"}


@pytest.fixture(scope="module")
def questions(sample_rows: list[tuple[str, str, int]]) -> list[str]:
    return list(dict.fromkeys(" ".join(text.split()) for row in sample_rows[:150] for text in row[:2]))


@pytest.fixture(scope="module")
def made(questions: list[str], pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and an index of some questions."""
    folder = tmp_path_factory.mktemp("made")
    qpairs.train(data=str(pairs_csv), encoder="static", epochs=4, batch_size=16, output=str(folder / "trained"))
    qpairs.export_checkpoint(folder / "trained", folder / "model", format="static")  # starts in a moment
    (folder / "q.txt").write_text("\n".join([*questions, EVIL, f"{EVIL} again"]))
    build_index(qpairs.embed(qpairs.load(folder / "model"), folder / "q.txt", folder / "emb"), folder / "idx")
    return folder


@pytest.fixture(scope="module")
def model(made: Path) -> Model:
    """The model, as sure of itself as one that has seen more."""
    return moved(qpairs.load(made / "model"), threshold=0.9, calibration=Calibration(slope=20, intercept=-17))


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


@pytest.fixture
def index(made: Path, tmp_path: Path) -> Path:
    """An index that may be changed."""
    return Path(shutil.copytree(made / "idx", tmp_path / "idx"))


@pytest.fixture
def site(index: Path, model: Model, labels: Path) -> Iterator[str]:
    with journalled(index) as opened, served(create_app(model, opened, labels=labels)) as address:
        yield address


@pytest.fixture
def page(page: "Page") -> Iterator["Page"]:
    """Fails on what the policy of the page forbids, and on dialogs, besides what fails any page."""
    wrong = []
    page.set_default_timeout(15_000)
    page.on("console", lambda message: wrong.append(message.text) if "Security Policy" in message.text else None)
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    yield page
    assert wrong == []


FOREIGN = """<title>another site</title>
<form method=post action="{site}labelling/undo"><input name=choice value=stratified></form>
<form method=post action="{site}labelling/undo" enctype="text/plain">
<input name='{{"choice"' value='"random"}}'></form>
<script>
  window.ask = (path, body, type) => fetch("{site}" + path, {{
    method: "POST", body: JSON.stringify(body), headers: {{ "Content-Type": type }},
  }}).then((answer) => answer.json(), String);
</script>"""


@pytest.mark.parametrize("allowed", [False, True])
def test_a_page_of_another_origin_can_ask_where_it_is_allowed_alone(
    page: "Page", index: Path, model: Model, labels: Path, questions: list[str], allowed: bool
) -> None:
    other = FastAPI()
    with served(other) as foreign, journalled(index) as opened:
        origins = Origins((foreign.rstrip("/"),) if allowed else (), loopback=True)
        with served(create_app(model, opened, origins=origins, labels=labels)) as site:
            other.get("/", response_class=HTMLResponse)(lambda: FOREIGN.format(site=site))
            pair = httpx2.get(site + "labelling").json()["pair"]
            httpx2.post(site + "labelling/answer", json={**pair, "answer": "yes"})
            for number in (0, 1):
                page.goto(foreign)
                with page.expect_navigation() as refused:
                    page.evaluate(f"document.forms[{number}].submit()")
                assert refused.value.status == (415 if allowed else 403)
            page.goto(foreign)
            answers = [
                page.evaluate("([body, type]) => ask('search', body, type)", [{"question": questions[0]}, type])
                for type in ("application/json", "text/plain")
            ]
            assert ("hits" in answers[0]) == allowed
            assert "hits" not in answers[1]
            assert httpx2.get(site + "labelling").json()["last"]["answer"] == "yes"


def search(page: "Page", question: str) -> None:
    """Types a question, and waits for what is found."""
    with page.expect_response("**/search"):
        page.fill("#question", question)
    page.wait_for_selector("#hits[aria-busy=false]", state="attached")


def answers(page: "Page", keys: str) -> None:
    """Presses keys of the labelling view, each when the one before is stored."""
    for key in keys:
        with page.expect_response("**/labelling/**"):
            page.keyboard.press(key)
        page.wait_for_selector("#judge[aria-busy=false]")


def open_labelling(page: "Page", site: str) -> None:
    page.goto(f"{site}#label")
    page.wait_for_selector("#labelling:visible")


def pair(page: "Page") -> tuple[str, str]:
    return page.inner_text("#pair-first"), page.inner_text("#pair-second")


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_search_shows_while_typing_what_was_asked(page: "Page", site: str, questions: list[str]) -> None:
    page.goto(site)
    assert "appear while you type" in page.inner_text("#search-status")
    page.type("#question", questions[3].upper())
    page.wait_for_selector(".hits li")
    until(page, lambda: page.inner_text(".hits li p >> nth=0").casefold() == questions[3].casefold())
    assert "asked before: " in page.inner_text("#search-status")
    assert page.inner_text("#hits h2 >> nth=0") == "Called duplicates"
    assert page.locator(".hits li").count() == 10
    assert not page.is_visible("#add")


@pytest.mark.parametrize("threshold", [None, -1.0, 0.6, 0.999])
def test_heading_words_and_figures_are_those_of_the_service(
    page: "Page", index: Path, model: Model, questions: list[str], threshold: float | None
) -> None:
    model = model.with_verdict(replace(model.verdict, densities=fitted()), model.scores)
    with journalled(index) as opened:
        setting = setting_for(opened, model) if threshold is None else setting_for(opened, model).at(threshold)
        opened.settings.update({n: (verdict, setting) for n, (verdict, _) in opened.settings.items()})
        with served(create_app(model, opened)) as address:
            page.goto(address)
            for question in (questions[7], "how do i get a refund", "zebra xylophone"):
                (answers,) = library_search(opened, model, [question], 10, setting=setting)
                search(page, question)
                assert page.inner_text("#search-status") == heading(answers)
                said = [answer.verdict for answer in answers if answer.duplicate]
                assert page.locator(".hits .chance").all_inner_texts() == said
                same, others = page.locator(".hits.same li"), page.locator(".hits.far li")
                duplicates = sum(answer.duplicate for answer in answers)
                assert (same.count(), others.count()) == (duplicates, 10 - duplicates)
                rest = list(dict.fromkeys(answer.verdict for answer in answers if not answer.duplicate))
                heads = page.locator("#hits h2, #hits summary").all_text_contents()[bool(duplicates) :]
                assert all(
                    GROUPS.get(verdict, verdict) in head.lower() for verdict, head in zip(rest, heads, strict=True)
                )
                assert page.is_visible("#add") == (not duplicates)
                for text, answer in zip(page.locator("#hits .number").all_text_contents(), answers, strict=True):
                    assert int(text.strip("<> %")) == pytest.approx(100 * answer.probability, abs=1)
                assert page.inner_text("#hits .note") == f"Probability of asking the same: that {setting.precision_of}."
                assert f"among {len(opened.questions)} questions" in page.inner_text("#hits .note")


def test_the_words_that_match_are_marked_but_those_that_all_use(page: "Page", site: str, questions: list[str]) -> None:
    page.goto(site)
    typed = next(text for text in questions if text.startswith("How do I ") and len(text.split()) > 6)
    search(page, typed)
    asked, marked = set(re.findall(r"\w+", typed.lower())), set[str]()
    for row in page.locator(".hits li").all():
        text, marks = row.locator("p").first.text_content() or "", row.locator("mark").all_text_contents()
        found = re.findall(r"\w+", " ".join(marks).lower())
        rare = {word for word in asked & set(re.findall(r"\w+", text.lower())) if len(word) > 6}
        assert rare <= set(found) <= asked
        marked |= {*found}
    assert marked and not marked & {"how", "do", "i", "my", "the", "a", "to"}


def test_an_answer_that_comes_late_is_dropped(page: "Page", site: str, questions: list[str]) -> None:
    held = []
    page.route(
        "**/search",
        lambda route: held.append(route) if "slow" in (route.request.post_data or "") else route.continue_(),
    )
    page.goto(site)
    page.fill("#question", "slow")
    until(page, lambda: bool(held))
    assert page.inner_text("#search-status") == "Searching …"
    search(page, questions[0])
    found = page.inner_text("#hits")
    with contextlib.suppress(Exception):  # the browser has given it up
        held[0].fulfill(json={"threshold": 0, "hits": []})
    page.wait_for_timeout(300)
    assert page.inner_text("#hits") == found
    page.fill("#question", "")
    until(page, lambda: not page.locator(".hits li").count())


def test_a_question_that_was_not_asked_is_added(page: "Page", index: Path, model: Model) -> None:
    strict = moved(model, threshold=0.9999)
    strict = strict.with_verdict(replace(strict.verdict, densities=None), strict.scores)
    with journalled(index) as opened, served(create_app(strict, opened)) as address:
        page.goto(address)
        search(page, "zebra pay xylophone?")
        assert page.inner_text("#search-status").startswith("Not ")
        before = len(opened.questions)
        page.click("#add")
        page.wait_for_selector("#add", state="hidden")
        assert page.inner_text("#search-status") == f"Added. There are {before + 1} questions now."
        until(page, lambda: f"{before + 1} questions" in page.inner_text("#about"))
        search(page, "zebra  pay xylophone? ")
        assert page.inner_text(".hits li p >> nth=0") == "zebra pay xylophone?"
        assert page.inner_text("#search-status").startswith("Very likely asked before")


def test_compare_tells_verdict_threshold_and_words(page: "Page", site: str, model: Model) -> None:
    page.goto(f"{site}#compare")
    assert not page.is_visible("#comparison")
    first, second = "How do I change my Password?", "How can I reset my password?"
    page.fill("#first", first)
    page.fill("#second", second)
    page.wait_for_selector("#comparison:visible")
    one, other = model.encode([first, second])
    similarity = float(one @ other)
    verdict = page.inner_text("#compare-status")
    same = similarity >= model.verdict.pair.threshold
    said = words(float(model.verdict.pair.probability(similarity)), same)
    assert verdict.startswith(f"{'Yes' if same else 'No'}: {said}. ")
    assert (
        f"{round(100 * float(model.verdict.pair.probability(similarity)))} % (of pairs like those of validation)."
        in verdict
    )
    said = page.inner_text("#similarity")
    threshold = f"the threshold of {model.verdict.pair.threshold:.2f}"
    assert said.startswith(f"Similarity {similarity:.2f}; the verdict is yes at or above {threshold}")
    assert page.get_attribute("#scale", "aria-label") == said
    assert page.locator("#words dd").all_inner_texts() == ["How, I, my, Password", "do, change", "can, reset"]
    page.fill("#first", "Is C++ fast?")
    page.fill("#second", "Is C# fast?")
    until(page, lambda: page.locator("#words dd").all_inner_texts() == ["Is, fast", "C++", "C#"])
    page.fill("#second", " ")
    page.wait_for_selector("#comparison", state="hidden")


def test_a_hit_is_compared(page: "Page", site: str, questions: list[str]) -> None:
    page.goto(site)
    search(page, questions[0])
    page.evaluate("document.querySelectorAll('#hits details').forEach((part) => (part.open = true))")
    page.locator(".hits .compare").nth(1).click()
    page.wait_for_selector("#comparison:visible")
    assert page.input_value("#first") == questions[0]
    assert page.input_value("#second") in questions
    page.go_back()
    page.wait_for_selector(".hits li")


def test_ten_pairs_are_labelled_undone_and_there_after_a_reload(page: "Page", site: str, labels: Path) -> None:
    open_labelling(page, site)
    asked = []
    for key in "ynsyynnyny":
        asked.append(pair(page))
        answers(page, key)
    assert len(set(asked)) == 10
    expected = [
        [*texts, "1" if key == "y" else "0"] for texts, key in zip(asked, "ynsyynnyny", strict=True) if key != "s"
    ]
    assert rows(labels)[0] == list(LABEL_FILE_COLUMNS)
    assert [row[:3] for row in rows(labels)[1:]] == expected
    stored = read_labels(labels)
    assert set(stored.drawn) == {"stratified"}
    assert ((stored.probability > 0) & (stored.probability < 1)).all()
    progress = page.inner_text("#progress")
    assert progress.startswith("9 pairs labelled: 5 the same, 4 different; 1 skipped")
    now = pair(page)
    page.reload()
    page.wait_for_selector("#labelling:visible")
    assert (page.inner_text("#progress"), pair(page)) == (progress, now)
    page.click("#undo")
    until(page, lambda: pair(page) == asked[-1])
    answers(page, "u")
    assert pair(page) == asked[-2]
    assert [row[:3] for row in rows(labels)[1:]] == expected[:-2]
    page.reload()
    page.wait_for_selector("#labelling:visible")
    assert pair(page) == asked[-2]
    answers(page, "u" * 8)
    assert page.is_disabled("#undo")
    assert rows(labels) == [list(LABEL_FILE_COLUMNS)]


def test_each_choice_says_what_its_labels_are_for(page: "Page", site: str) -> None:
    open_labelling(page, site)
    assert page.is_checked("[value=stratified]")
    for choice, said in [
        ("stratified", "that are found, in the whole corpus: qpairs calibrate MODEL --corpus QUESTIONS --labels"),
        ("random", "how often the first hit of a search is right"),
        ("threshold", "not a random sample"),
    ]:
        page.check(f"[value={choice}]")
        until(page, lambda said=said: said in page.inner_text("#purpose"))


def test_the_precision_in_the_corpus_is_drawn(page: "Page", site: str) -> None:
    open_labelling(page, site)
    assert page.inner_text("#figure").startswith("Precision needs at least 10 answers")
    assert not page.is_visible("#intervals")
    answers(page, "yn" * 75)  # so many that 5 of them lie above the threshold for the corpus
    until(page, lambda: page.inner_text("#figure").startswith("Precision in the corpus 0."))
    assert page.inner_text("#measure") == "Precision in the corpus"
    assert page.is_visible("#intervals")


def test_the_interval_of_f1_is_drawn_and_its_meaning_told(page: "Page", site: str, labels: Path) -> None:
    open_labelling(page, site)
    page.check("[value=threshold]")
    until(page, lambda: page.inner_text("#figure").startswith("F1 needs at least 10 answers"))
    assert not page.is_visible("#intervals")
    answers(page, "ynyn" * 6)
    bars = page.locator("#intervals div")
    assert bars.locator("span").all_inner_texts() == ["10", "20", "24"]
    low, high, f1 = (
        float(bars.last.locator("i").evaluate(f"bar => bar.style.getPropertyValue('--{name}')"))
        for name in ("low", "high", "value")
    )
    assert 0 <= low < f1 < high <= 1
    said = f"F1 {f1:.2f}, 95 % interval {low:.2f} to {high:.2f}, on 24 pairs"
    assert page.inner_text("#figure") == f"{said}. About 72 more would halve the interval."
    assert said in (page.get_attribute("#intervals", "aria-label") or "")
    assert set(read_labels(labels).drawn) == {"threshold"}
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "labels.csv"
    assert Path(download.value.path()).read_bytes() == labels.read_bytes()
    assert len(load_pairs(labels)) == 24


def test_a_pair_answered_in_another_window_is_not_answered_twice(page: "Page", site: str, labels: Path) -> None:
    open_labelling(page, site)
    other = page.context.new_page()
    open_labelling(other, site)
    seen = pair(page)
    answers(page, "y")
    assert pair(other) == seen
    other.keyboard.press("n")
    until(other, lambda: pair(other) == pair(page))
    assert [row[:3] for row in rows(labels)[1:]] == [[*seen, "1"]]


def test_a_killed_service_loses_no_label(page: "Page", made: Path, labels: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "idx", tmp_path / "idx")
    command = [
        sys.executable,
        CLI,
        "serve",
        made / "model",
        "--index",
        tmp_path / "idx",
        "--labels",
        labels,
        "--port",
        "0",
    ]
    seen = []
    for keys in ("ynsyn", ""):
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as service:
            try:
                assert service.stdout
                open_labelling(page, service.stdout.readline().split()[-1] + "/")
                answers(page, keys)
                seen.append((page.inner_text("#progress"), pair(page)))
            finally:
                service.send_signal(signal.SIGKILL)
    assert seen[0] == seen[1]
    assert seen[0][0].startswith("4 pairs labelled: 2 the same, 2 different; 1 skipped")


def test_all_of_it_by_keyboard(page: "Page", site: str, labels: Path) -> None:
    def focused(what: str) -> str:
        return page.evaluate(f"document.activeElement.{what}")

    def tab_to(wanted: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if focused("matches('a, button')") and focused("textContent").strip().startswith(wanted):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid"
                return
        raise AssertionError(f"{wanted} is not reached")

    page.goto(site)
    assert focused("id") == "question"
    page.keyboard.type("how do i pay")
    page.wait_for_selector(".hits li")
    tab_to("Compare")
    page.keyboard.press("Enter")
    page.wait_for_selector("#comparison:visible")
    assert focused("id") == "first"
    page.keyboard.press("Tab")
    assert focused("id") == "second"
    page.evaluate("document.activeElement.blur()")
    tab_to("Skip to content")
    page.keyboard.press("Enter")
    assert focused("id") == "main"
    page.evaluate("document.activeElement.blur()")
    tab_to("Label")
    page.keyboard.press("Enter")
    page.wait_for_selector("#labelling:visible")
    assert focused("id") == "label-title"
    tab_to("No, different")
    with page.expect_response("**/labelling/answer"):
        page.keyboard.press("Enter")
    until(page, lambda: "different" in page.inner_text("#last"))
    answers(page, "Y")
    page.keyboard.press("Control+y")
    page.wait_for_timeout(200)
    assert [row[2] for row in rows(labels)[1:]] == ["0", "1"]


def test_a_screen_reader_finds_landmarks_names_and_news(page: "Page", site: str) -> None:
    for view in VIEWS:
        page.goto(f"{site}#{view}")
        page.reload()
        page.wait_for_load_state("networkidle")
        tree = page.locator("body").aria_snapshot()
        for landmark in ("banner:", 'navigation "Views":', "main:", "contentinfo:", "heading", "status"):
            assert landmark in tree
        for role in ("textbox", "searchbox", "button", "radio", "link"):
            assert not re.search(rf"- {role}(:| *$)", tree, re.MULTILINE), tree  # each has a name
        assert page.locator("h1:visible").count() == 1
        assert page.get_attribute("nav a[aria-current=page]", "href") == f"#{view}"
        assert page.locator("nav a[aria-current]").count() == 1
    assert page.get_attribute(".pair", "aria-live") == "polite"


def test_texts_of_questions_are_never_markup(page: "Page", site: str, model: Model, labels: Path) -> None:
    page.goto(site)
    search(page, EVIL)
    assert page.inner_text(".hits li p >> nth=0") == EVIL
    page.locator(".hits .compare").first.click()
    page.wait_for_selector("#comparison:visible")
    assert "onerror" in page.inner_text("#words dd >> nth=0")
    page.route(
        "**/labelling?*",
        lambda route: route.fulfill(json={**route.fetch().json(), "pair": {"question1": EVIL, "question2": EVIL}}),
    )
    page.goto(f"{site}#label")
    page.wait_for_selector("#labelling:visible")
    assert pair(page) == (EVIL, EVIL)
    assert page.locator("main img, main script").count() == 0
    page.wait_for_timeout(100)


def test_light_and_dark_can_be_read(page: "Page", site: str) -> None:
    def luminance(name: str) -> float:
        page.evaluate(f"document.body.style.color = 'var(--{name})'")
        rgb = [int(x) / 255 for x in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).color"))[:3]]
        red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    papers = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(site)
        papers.append(luminance("paper"))
        for ink, ground in [
            *((ink, ground) for ink in ("ink", "soft", "accent", "alarm") for ground in ("paper", "raised")),
            ("ink", "tint"),
            ("ink", "mark"),
            ("on-accent", "accent"),
        ]:
            dark, bright = sorted((luminance(ink), luminance(ground)))
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (scheme, ink, ground)  # WCAG 2.2, 1.4.3
    assert papers[0] > 0.8 > 0.1 > papers[1]


def test_a_phone_shows_all_without_scrolling_sideways(page: "Page", site: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(site)
    search(page, "how " + "a" * 300)
    page.fill("#question", "how do i pay " + "b" * 300)
    page.wait_for_selector(".hits li")
    for view in VIEWS:
        page.click(f"nav a[href='#{view}']")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.locator("#labelling .answers button").all():
        box = button.bounding_box()
        assert box and box["height"] >= 44
        assert box["width"] >= 44


def test_without_an_index_there_is_comparing_alone(page: "Page", model: Model) -> None:
    with served(create_app(model)) as address:
        page.goto(address)
        until(page, lambda: "--index" in page.inner_text("#search-status"))
        assert page.is_disabled("#question")
        assert "no index" in page.inner_text("#about")
        page.click("nav a[href='#compare']")
        page.fill("#first", "a")
        page.fill("#second", "b")
        page.wait_for_selector("#comparison:visible")
        assert not page.is_visible("nav a[href='#label']")
        page.goto(f"{address}#label")
        until(page, lambda: "--labels" in page.inner_text("#label-status"))
        assert not page.is_visible("#labelling")


def test_a_read_only_service_offers_no_labelling(page: "Page", model: Model, index: Path) -> None:
    with served(create_app(model, open_index(index), read_only=True)) as address:
        page.goto(f"{address}#label")
        until(page, lambda: "without --read-only" in page.inner_text("#label-status"))
        assert not page.is_visible("nav a[href='#label']")


def test_the_box_asks_nothing_where_no_field_is_named(page: "Page", model: Model) -> None:
    said, asked = list[str](), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    with served(create_app(model)) as address:
        page.set_content(
            f'<input type=text id=who><textarea></textarea><script async src="{address}embed.js"></script>'
        )
        page.type("#who", "Ana Bell")
        page.wait_for_timeout(500)  # the box asks 250 ms after the last key
    assert asked == [f"{address}embed.js"]
    assert "embed.js: name the field with data-field" in said


def test_a_token_is_asked_for_and_kept_for_the_tab(page: "Page", browser: "Browser", model: Model) -> None:
    with served(create_app(model, token="a-secret")) as address:
        page.goto(f"{address}#compare")
        page.wait_for_selector("#token-dialog:visible")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        until(page, lambda: page.inner_text("#token-note") == "That token was refused.")
        page.fill("#token", "a-secret")
        page.keyboard.press("Enter")
        until(page, lambda: "model" in page.inner_text("#about"))
        page.reload()
        page.fill("#first", "a")
        page.fill("#second", "b")
        page.wait_for_selector("#comparison:visible")
        assert not page.is_visible("#token-dialog")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        with contextlib.closing(browser.new_page()) as other:
            other.goto(address)
            other.wait_for_selector("#token-dialog:visible")
            other.keyboard.press("Escape")
            until(other, lambda: "needs a token" in other.inner_text("#about"))


def test_what_the_service_refuses_is_said_and_the_next_try_works(page: "Page", site: str, questions: list[str]) -> None:
    page.goto(site)
    page.route("**/search", lambda route: route.fulfill(status=503, json={"detail": "too many requests are waiting"}))
    search(page, questions[0])
    assert page.inner_text(".verdict.wrong p") == "too many requests are waiting"
    page.unroute("**/search")
    page.route("**/search", lambda route: route.abort())
    page.fill("#question", questions[1])
    until(page, lambda: page.inner_text("#search-status") == "The service does not answer.")
    page.unroute("**/search")
    search(page, questions[2])
    assert "asked before" in page.inner_text("#search-status")
    open_labelling(page, site)
    before = pair(page)
    page.route("**/labelling/answer", lambda route: route.fulfill(status=503, json={"detail": "the disk is full"}))
    page.keyboard.press("y")
    until(page, lambda: page.inner_text("#label-status") == "the disk is full")
    assert pair(page) == before
    page.unroute("**/labelling/answer")
    answers(page, "y")
    assert page.inner_text("#label-status") == ""


def test_the_description_of_the_api_is_drawn_and_tried_out(page: "Page", site: str, questions: list[str]) -> None:
    page.goto(f"{site}docs")
    page.wait_for_selector(".route")
    paths = page.locator(".route summary code:first-of-type").all_inner_texts()
    assert {"/score", "/search", "/ready", "/labelling/answer"} <= set(paths)
    for route in page.locator(".route").all():  # each error is told once
        codes = route.locator("table[aria-label=Errors] td:first-child").all_text_contents()
        assert len(codes) == len(set(codes))
    route = page.locator(".route", has=page.locator("code", has_text=re.compile("^/search$")))
    route.locator("summary").click()
    route.get_by_label("Body to send").fill(json.dumps({"question": questions[0], "k": 1}))
    assert questions[0] in route.locator("pre").last.inner_text()
    with page.expect_response("**/search") as answer:
        route.get_by_role("button", name="Send").click()
    assert answer.value.status == 200
    until(page, lambda: "200" in route.locator("[role=status]").inner_text())
    assert questions[0] in route.locator("pre").first.inner_text()
    route.get_by_label("Body to send").fill("{")
    route.get_by_role("button", name="Send").click()
    until(page, lambda: "422" in route.locator("[role=status]").inner_text())
