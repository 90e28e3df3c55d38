"""Photographs the page of `qpairs serve` in a browser, as it is: docs/pictures/page.png.

python docs/make_screenshots.py     # needs pip install -e '.[offline,serve,browser]' and chromium
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
QUESTION = "Why was my loan refused?"


@contextlib.contextmanager
def service(folder: str) -> Iterator[str]:
    """The address of a service of the tickets that the repository ships, as README starts it."""
    shutil.copy(ROOT / "data" / "tickets.csv", folder)
    command = [sys.executable, ROOT / "cli.py", "serve", "minilm", "--questions", "tickets.csv"]
    command += ["--text-column", "title", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        finally:
            process.terminate()


def main() -> None:
    """Asks one question, and keeps what is seen then."""
    with tempfile.TemporaryDirectory() as folder, service(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 560}, device_scale_factor=2)
        page.goto(address)
        page.get_by_text("Search", exact=True).first.click()
        field = page.locator("input:visible").first
        field.fill(QUESTION)
        field.press("Enter")
        page.get_by_text("Probably asked before").wait_for()
        page.screenshot(path=ROOT / "docs" / "pictures" / "page.png")
        browser.close()


if __name__ == "__main__":
    main()
