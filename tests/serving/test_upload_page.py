"""A file of questions from the reader's computer, by the button and by drag and drop, in headless Chromium."""

import functools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from live import served, until
from ready import tickets
from test_page_views import answers, finish, mended

from qpairs.models.base import load
from qpairs.serving.app import create_app
from qpairs.serving.limits import Limits
from qpairs.serving.uploads import with_uploads

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("ready_cache_of_tests")]

LIMIT = 50_000
DROP = """([name, text]) => {
  const [data, drop] = [new DataTransfer(), document.getElementById("drop")];
  data.items.add(new File([text], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    drop.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture
def site(plain: Path, tmp_path: Path) -> Iterator[str]:
    make = functools.partial(create_app, limits=Limits(upload=LIMIT))
    with served(with_uploads(load(plain), tmp_path / "uploads", make, limit=LIMIT)) as address:
        yield address


def test_from_a_file_on_this_computer_to_its_duplicates_and_the_model(page: "Page", site: str, tmp_path: Path) -> None:
    file = tickets(tmp_path / "tickets.csv")
    page.goto(site)
    page.wait_for_selector("#upload:visible")
    assert "at most 50 kB" in page.inner_text("#upload-about") and ".parquet" in page.inner_text("#upload-about")
    mended(page, "no file yet")
    for name, content, said in (
        ("photo.png", "x", "photo.png: .png files are not read."),
        ("large.csv", "x" * (LIMIT + 1), "large.csv has 50 kB; the limit is 50 kB."),
        ("empty.csv", "", "empty.csv is empty."),
        ("numbers.csv", "a,b\n1,2\n3,4\n", "numbers.csv: no column holds texts of several words; found: 'a', 'b'"),
    ):
        page.evaluate(DROP, [name, content])
        until(page, lambda said=said: page.inner_text("#upload-status") == said)
        assert not page.is_visible("#text-column")
    page.set_input_files("#file", file)
    page.wait_for_selector("#columns-form:visible")
    assert page.input_value("#text-column") == "title" and page.inner_text("#upload-status") == ""
    assert page.locator("#text-column option").all_inner_texts() == ["title", "ticket", "state"]
    page.select_option("#id-column", "ticket")
    mended(page, "a file to open")
    page.click("#open")
    page.wait_for_selector("#session:visible")
    assert page.inner_text("#start-title") == "Find the duplicates in tickets.csv"
    assert page.is_visible("nav a[href='#label']")
    answers(page, "yn")
    finish(page)
    with page.expect_download() as download:
        page.click("text=Save model.zip")
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert load(tmp_path / "unpacked" / "model").verdict.densities.labels == 2
    page.click("#upload-summary")
    page.evaluate(DROP, ["more.csv", tickets(tmp_path / "more.csv", "banking", 120).read_text()])
    page.wait_for_selector("#columns-form:visible")
    page.click("#open")
    until(page, lambda: page.inner_text("#start-title") == "Find the duplicates in more.csv")


def test_separator_columns_to_join_and_ids_are_chosen_and_stay_when_one_is_wrong(
    page: "Page", site: str, tmp_path: Path
) -> None:
    lines = tickets(tmp_path / "tickets.csv").read_text().replace('"', "").splitlines()[1:]
    rows = [(line[: line.index(",")], line[line.index(",") + 1 : -len(",open")]) for line in lines]
    text = "\n".join(["ticket^title, short^body^state", *(f"{one}^{title}^Case {one}^open" for one, title in rows)])
    page.goto(site)
    page.wait_for_selector("#upload:visible")
    page.evaluate(DROP, ["odd.csv", text])
    page.wait_for_selector("#columns-form:visible")
    assert page.inner_text("#separator option:checked") == "automatic: comma"
    mended(page, "columns that are not right yet")
    assert not page.is_visible("#other")
    page.select_option("#separator", "tab")
    said = "odd.csv: separator: 'tab' is not in its first line, 'ticket^title, short^body^state'"
    until(page, lambda: page.inner_text("#upload-status") == said)
    assert page.input_value("#separator") == "tab" and not page.is_visible("#text-column")
    page.select_option("#separator", "other")
    page.fill("#other", "^^")
    page.press("#other", "Enter")
    until(page, lambda: "must be one character" in page.inner_text("#upload-status"))
    assert page.input_value("#other") == "^^" and page.is_visible("#other")
    mended(page, "a separator that is none")
    page.fill("#other", "^")
    page.press("#other", "Enter")
    page.wait_for_selector("#text-column:visible")
    until(page, lambda: page.inner_text("#upload-status") == "")
    page.select_option("#text-column", "title, short")
    page.select_option("#id-column", "ticket")
    page.click("#join-part summary")
    assert page.locator("#join label:visible").all_inner_texts() == ["ticket", "body", "state"]
    page.check("#join input[value=body]")
    assert page.inner_text("#column-example").endswith(" Case T0")
    mended(page, "columns that are joined")
    assert (page.input_value("#text-column"), page.input_value("#other")) == ("title, short", "^")
    page.click("#open")
    page.wait_for_selector("#session:visible")
    assert " --text-column 'title, short,body' --id-column ticket --separator '^'" in (
        page.text_content("#commands li >> nth=0") or ""
    )
