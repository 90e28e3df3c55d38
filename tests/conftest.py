from __future__ import annotations

import csv
import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import ready
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from qpairs.models.bi_encoder import Checkpoint

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # several workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("qpairs", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("qpairs")

LONG = (
    "test_notebooks.py",
    "test_app.py",
    "test_teachers.py",
    "test_distributed.py",
    "test_compare.py",
    "test_custom.py",
    "test_training.py",
    "test_export.py",
    "test_unlabelled_training.py",
    "test_reranker.py",
    "test_cross_encoder.py",
    "test_methods.py",
    "test_start_page.py",
    "test_uploads.py",
    "test_house.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no worker is left with one while the other is done."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """What was imported and collected stays: collections of garbage, of which every training makes one, pass it by."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def sample_rows() -> list[tuple[str, str, int]]:
    """600 of the bundled pairs, whole components of them."""
    from qpairs import load_pairs
    from qpairs.data.splits import question_components

    pairs = load_pairs("sample")
    component = question_components(pairs)[pairs.left]
    order = sorted(range(len(pairs)), key=lambda i: (int(component[i]), i))
    return [(*pairs.texts(i), int(pairs.labels[i])) for i in order[:600]]


def write_csv(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question1", "question2", "is_duplicate"])
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def pairs_csv(sample_rows: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 600 labelled pairs in a dozen components."""
    return write_csv(tmp_path_factory.mktemp("pairs") / "pairs.csv", sample_rows)


@pytest.fixture(scope="session")
def checkpoint(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A static checkpoint, trained once for all tests that only read one; its folder is called `mine`."""
    import qpairs

    output = tmp_path_factory.mktemp("runs") / "mine"
    return qpairs.train(data=str(pairs_csv), encoder="static", epochs=3, batch_size=16, output=str(output))


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a transformer of 2 layers of 32, with random weights: its training takes a second, not ten."""
    from architectures import write_encoder

    return write_encoder("bert", tmp_path_factory.mktemp("small") / "bert")


class Result(NamedTuple):
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Result]:
    """Runs the command line in this process, in an empty folder."""
    from qpairs import commands

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["qpairs", *map(str, arguments)])
        code = 0
        try:
            commands.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Result(code, *capsys.readouterr())

    return call


def refused(result: Result, *words: str) -> None:
    """Exit code 2, one line on stderr that has the words, and no traceback."""
    assert result.code == 2, result
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if line.strip()]
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error:")
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium, as the system has it."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("google-chrome")
    assert found, "the tests marked browser need chromium: apt-get install chromium"
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*quiet, "--disable-component-update"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page; an error that its script does not catch, or a request that leaves this machine, fails the test."""
    context = browser.new_context()
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if not _local(request.url) else None)
    yield page
    context.close()
    assert wrong == []


def _local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "http://localhost:", "file:", "data:", "blob:"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a SentenceTransformer that was never trained on pairs: a ready model."""
    return ready.sentence_transformer(tmp_path_factory.mktemp("ready") / "encoder")


@pytest.fixture(scope="session")
def _ready_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def ready_cache_of_tests(monkeypatch: pytest.MonkeyPatch, _ready_folder: Path) -> Path:
    """Ready models are kept in a folder of the tests' own."""
    ready.own_cache(monkeypatch, _ready_folder)
    return _ready_folder
