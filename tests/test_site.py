"""The documentation as a site: it builds without a warning, and reading it needs no network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parent.parent
LOADED = re.compile(r"<(?:script|img|iframe|source)[^>]* src=\"?(https?:)?//|<link[^>]* href=\"?(https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert len(pages) > 25
    assert [page.name for page, text in pages.items() if LOADED.search(text)] == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet


def test_every_picture_is_shown_and_none_loads_a_font(site: Path) -> None:
    shown = {
        name for page in site.rglob("*.html") for name in re.findall(r'src="[./]*(pictures/[^"]+)"', page.read_text())
    }
    kept = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs" / "pictures").rglob("*.svg")}
    assert shown >= kept
    assert all("font-face" not in (ROOT / "docs" / name).read_text(encoding="utf-8") for name in kept)


def test_examples_of_the_python_reference_are_code(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt; " not in re.sub(r"<pre>.*?</pre>|<code>.*?</code>", "", page, flags=re.DOTALL)
    assert page.count("Relation") > 20
