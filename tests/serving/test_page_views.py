"""The views of the page beside search and compare, the box on other sites, and what axe says of all of them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pandas
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from live import served, until
from ready import tickets

from qpairs.models.base import load
from qpairs.retrieval.index import open_index
from qpairs.retrieval.index_file import QuestionFile, index_file
from qpairs.serving.app import create_app
from qpairs.serving.origins import Origins
from qpairs.serving.start import open_session

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from qpairs.models.bi_encoder import Checkpoint

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("ready_cache_of_tests")]

VIEWS = ("start", "search", "compare", "label", "clusters")
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
EVIL = '<img src=x onerror="document.title=1"> How do I pay?'


@pytest.fixture
def site(plain: Path, tmp_path: Path) -> Iterator[str]:
    """A service of a session of 150 tickets."""
    file = QuestionFile(tickets(tmp_path / "tickets.csv"), "title", "ticket")
    with open_session(plain, file, tmp_path / "session", serve=True) as session:
        app = create_app(session.fit.model, session.index, session=session, url_template="https://forum.example/q/{id}")
        with served(app) as address:
            yield address


def answers(page: "Page", keys: str) -> None:
    """Presses keys, each when the answer before is stored."""
    for key in keys:
        with page.expect_response("**/start/**"):
            page.keyboard.press(key)
        page.wait_for_selector("#judge[aria-busy=false]")


def open_start(page: "Page", site: str) -> None:
    page.goto(site)
    page.wait_for_selector("#session:visible")


def finish(page: "Page") -> None:
    page.click("#finish")
    page.wait_for_selector("#finished:visible", timeout=60_000)


def test_from_the_file_to_its_duplicates_by_keys(page: "Page", site: str, tmp_path: Path) -> None:
    open_start(page, site)
    assert page.inner_text("#start-title") == "Find the duplicates in tickets.csv"
    assert "no labels" in page.inner_text("#known-note")
    assert "comes after 10 more" in page.inner_text("#start-progress")
    until(page, lambda: page.locator("#examples li").count() > 0)
    answers(page, "ynsunnnnnnn")
    assert "9 answers so far (1 the same, 8 different, 0 skipped)" in page.inner_text("#start-progress")
    footer = page.inner_text("#about")
    answers(page, "n")
    assert "Estimated from 10 labels of this corpus; intervals are 95 %. 50 more" in page.inner_text("#known-note")
    assert "The figures above are new" in page.inner_text("#start-progress")
    until(page, lambda: page.inner_text("#about") != footer)
    finish(page)
    assert "of 150 rows are left" in page.inner_text("#finished-said")
    assert page.is_visible("#known-warning") and page.is_visible("#finished-warning")
    with page.expect_download() as download:
        page.click("text=Save kept.csv")
    kept = tmp_path / "session" / "duplicates" / "kept.csv"
    assert Path(download.value.path()).read_bytes() == kept.read_bytes()
    page.click(".commands summary")
    assert page.locator("#commands code").all_inner_texts()[-1].startswith("qpairs dedupe")
    page.reload()
    page.wait_for_selector("#finished:visible")
    assert "10 answers so far" in page.inner_text("#start-progress")


def test_of_a_handful_of_questions_the_page_says_that_nothing_is_known_yet(
    page: "Page", plain: Path, tmp_path: Path
) -> None:
    file = QuestionFile(tickets(tmp_path / "few.csv", limit=20), "title", "ticket")
    with (
        open_session(plain, file, tmp_path / "session", serve=True) as session,
        served(create_app(session.fit.model, session.index, session=session)) as address,
    ):
        open_start(page, address)
        assert page.locator("#known dt").all_inner_texts() == ["Pairs called duplicates"]
        assert "No pair is more likely a duplicate than not" in page.inner_text("#known-note")
        assert not page.is_visible("#known-warning")


def test_a_name_is_kept_by_the_browser_and_stands_beside_the_labels(page: "Page", site: str, tmp_path: Path) -> None:
    open_start(page, site)
    answers(page, "y")
    page.fill("#annotator", "Ynes")  # its letters are no answers
    page.keyboard.press("Tab")
    until(page, lambda: "0 answers so far" in page.inner_text("#start-progress"))
    page.click("[data-answer=no]")
    until(page, lambda: "1 answer so far" in page.inner_text("#start-progress"))
    page.reload()
    page.wait_for_selector("#session:visible")
    assert page.input_value("#annotator") == "Ynes"
    page.click("nav a[href='#label']")
    page.wait_for_selector("#labelling:visible")
    until(page, lambda: page.inner_text("#progress").startswith("1 pair labelled: 0 the same, 1 different"))
    table = pandas.read_csv(tmp_path / "session" / "labels.csv", keep_default_na=False)
    assert sorted(table["annotator"]) == ["", "Ynes"]


def test_labels_are_applied_from_the_view_of_labels(page: "Page", site: str) -> None:
    page.goto(f"{site}#label")
    page.wait_for_selector("#labelling:visible")
    assert page.is_disabled("#apply")
    for _ in range(4):
        with page.expect_response("**/labelling/answer"):
            page.keyboard.press("n")
        page.wait_for_selector("#judge[aria-busy=false]")
    page.click("#apply")
    until(page, lambda: page.inner_text("#applied").startswith("Applied: this service now calls pairs duplicates at"))
    assert "estimated from 4 labels of this corpus" in page.inner_text("#applied")


def test_clusters_are_split_merged_undone_and_exported(page: "Page", site: str, tmp_path: Path) -> None:
    page.goto(f"{site}#clusters")
    until(page, lambda: "no clusters yet" in page.inner_text("#clusters-status"))
    page.click("nav a[href='#start']")
    page.wait_for_selector("#session:visible")
    answers(page, "nnnnnnnnny")
    finish(page)
    page.click("nav a[href='#clusters']")
    page.wait_for_selector("#clusters li.card")

    def total() -> int:
        return int(page.inner_text("#clusters-about").split()[0].replace(",", ""))

    before, first = total(), page.locator("#clusters li.card").first
    second = first.locator(".members p").nth(1).inner_text()
    assert first.get_by_role("button", name="Split off").is_disabled()
    first.get_by_role("checkbox").first.check()
    first.get_by_role("button", name="Split off").click()
    until(page, lambda: total() == before + 1)
    head = page.locator("#clusters li.card").first.locator(".members p").first.inner_text()
    page.locator("#clusters li.card").first.get_by_role("button", name="Merge another").click()
    page.wait_for_selector("#merge-cancel:visible")
    assert head.split("T")[0].strip()[:10] in page.inner_text("#clusters-status")
    page.get_by_role("button", name="Merge this one").first.click()
    until(page, lambda: total() == before)
    page.get_by_role("button", name="Undo (2 changes)").click()
    until(page, lambda: total() == before + 1)
    page.get_by_role("button", name="Undo (1 change)").click()
    until(page, lambda: total() == before)
    assert page.is_disabled("#clusters-undo")
    page.locator("#clusters li.card").first.get_by_role("button", name="Keep this one").first.click()
    until(page, lambda: page.is_enabled("#clusters-undo"))
    page.click("#clusters-export")
    page.wait_for_selector("#exported-files li")
    kept = pandas.read_csv(tmp_path / "session" / "duplicates" / "edited" / "kept.csv")
    assert second.removesuffix(second.split()[-1]).strip() in " ".join(kept["title"]) or len(kept) > 0
    page.fill("#clusters-text", "zebra xylophone")
    until(page, lambda: total() == 0)


def test_questions_one_word_apart_are_marked_in_words(checkpoint: "Checkpoint", page: "Page", tmp_path: Path) -> None:
    asked = ["Is C++ <b>fast</b>?", "Is C# <b>fast</b>?", "Is C++ quick?"]
    lines = [f'1,{row},"{text}",{int(row == 1)},0.9' for row, text in enumerate(asked, start=1)]
    (tmp_path / "clusters.csv").write_text("\n".join(["cluster,row,question,representative,similarity", *lines]) + "\n")
    with served(create_app(checkpoint, clusters=tmp_path)) as address:
        page.goto(f"{address}#clusters")
        page.wait_for_selector("#clusters li.card")
        assert page.locator("#clusters .apart").all_inner_texts() == ["one word apart: C++ / C#"]
        assert "C# <b>fast</b>" in page.locator("#clusters li:has(> .apart) p").inner_text()
        assert page.is_visible("#clusters-apart")
        page.click("#clusters li:has(> .apart) [type=checkbox]")
        page.get_by_role("button", name="Split off").click()
        until(page, lambda: page.is_hidden("#clusters-apart") and not page.locator("#clusters .apart").count())


def test_hits_link_to_their_questions_and_examples_are_tried(page: "Page", site: str) -> None:
    page.goto(f"{site}#search")
    page.wait_for_selector("#tries button")
    text = page.locator("#tries button").first.inner_text()
    with page.expect_response("**/search"):
        page.locator("#tries button").first.click()
    page.wait_for_selector(".hits.same li")
    assert not page.is_visible("#try")
    hit = page.locator(".hits.same li").first
    assert hit.locator("a").inner_text() == text
    name = hit.locator(".id").inner_text()
    assert hit.locator("a").get_attribute("href") == f"https://forum.example/q/{name}"


def test_a_phone_shows_every_view_without_scrolling_sideways_or_keys(browser: "Browser", site: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(site)
    page.wait_for_selector("#session:visible")
    for view in VIEWS:
        page.goto(f"{site}#{view}")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("kbd:visible").count() == 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_axe_finds_nothing_to_mend(page: "Page", site: str, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    open_start(page, site)
    answers(page, "nnnnnnnnny")
    finish(page)
    page.click(".commands summary")
    mended(page, "start")
    page.click("nav a[href='#search']")
    mended(page, "search, empty")
    with page.expect_response("**/search"):
        page.fill("#question", "How do I change my flight?")
    page.wait_for_selector(".hits li")
    page.wait_for_selector("#hits[aria-busy=false]")
    page.evaluate("document.querySelectorAll('#hits details').forEach((part) => (part.open = true))")
    mended(page, "search")
    page.locator(".hits .compare").first.click()
    page.wait_for_selector("#comparison:visible")
    mended(page, "compare")
    page.click("nav a[href='#label']")
    page.wait_for_selector("#labelling:visible")
    mended(page, "label")
    page.click("nav a[href='#clusters']")
    page.wait_for_selector("#clusters li.card")
    mended(page, "clusters")
    page.goto(f"{site}docs")
    page.wait_for_selector(".route")
    page.locator(".route summary").nth(1).click()
    mended(page, "API")


def mended(page: "Page", what: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": STANDARDS}})
    said = [
        f"{what}: {rule['id']}: {node['target']} {node.get('failureSummary', '')}"
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]
    assert said == []


FORUM = """<!doctype html><html lang=en><title>a forum</title><meta charset=utf-8>
<main><h1>Ask</h1><label for=title>Title</label> <input id=title><p>below</p></main>
<script src="{site}embed.js" data-field="#title" data-near="true" defer></script></html>"""


@pytest.mark.parametrize("allowed", [True, False])
def test_the_box_on_a_page_of_another_origin(page: "Page", plain: Path, tmp_path: Path, allowed: bool) -> None:
    file = QuestionFile(tickets(tmp_path / "tickets.csv"), "title", "ticket")
    with file.path.open("a") as table:
        table.write(f'T999,"{EVIL.replace(chr(34), chr(34) * 2)}",open\n')
    model = load(plain)
    index_file(model, file, tmp_path / "made")
    forum = FastAPI()
    with ExitStack() as held:
        foreign = held.enter_context(served(forum))
        origins = Origins((foreign.rstrip("/"),) if allowed else (), loopback=True)
        app = create_app(
            model,
            open_index(tmp_path / "made" / "index"),
            origins=origins,
            url_template="https://forum.example/q/{id}",
            read_only=True,
        )
        site = held.enter_context(served(app))
        policy = f"default-src 'self'; script-src {site}embed.js; connect-src {site}"
        headers = {"content-security-policy": policy}
        forum.get("/", response_class=HTMLResponse)(lambda: HTMLResponse(FORUM.format(site=site), headers=headers))
        page.goto(foreign)
        page.wait_for_selector("qpairs-box", state="attached")
        with page.expect_event("requestfinished" if allowed else "requestfailed", lambda r: r.url.endswith("/search")):
            page.type("#title", EVIL)
        if not allowed:
            page.wait_for_timeout(200)
            assert not page.locator("qpairs-box .box").is_visible()
            return
        page.wait_for_selector("qpairs-box .box:visible")
        first = page.locator("qpairs-box li").first
        assert first.locator("a").inner_text() == EVIL
        assert first.locator("a").get_attribute("href") == "https://forum.example/q/T999"
        assert page.title() == "a forum"
        mended(page, "box")
        page.fill("#title", "a")
        until(page, lambda: not page.locator("qpairs-box .box").is_visible())
