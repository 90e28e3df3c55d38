"""The five paths of the README, run as they stand there, from a folder that holds what a clone holds."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PATHS = {
    title: [line for line in block.splitlines() if not line.startswith("pip ")]
    for title, block in re.findall(r"^### (.+?)\n\n```\n(.*?)```", README, re.MULTILINE | re.DOTALL)
}


@pytest.fixture
def clone(tmp_path: Path, checkpoint) -> Path:
    """What the commands read; a small model stands for the one that the second path trains."""
    for name in ("data", "benchmarks", "qpairs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*-qpairs"))
    shutil.copytree(checkpoint.path, tmp_path / "runs" / "mine")
    return tmp_path


def words_of(line: str) -> list[str]:
    program, *words = shlex.split(line)
    return [sys.executable, str(ROOT / "cli.py"), *words] if program == "qpairs" else [sys.executable, *words]


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "120", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def run(line: str, clone: Path, answers: str = "") -> str:
    done = subprocess.run(
        words_of(line), capture_output=True, text=True, cwd=clone, input=answers, env=environment(), timeout=500
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


def test_there_are_five_paths_of_at_most_three_commands() -> None:
    blocks = re.findall(r"^### (.+?)\n\n```\n(.*?)```", README, re.MULTILINE | re.DOTALL)
    assert [title for title, _ in blocks] == [
        "Find the duplicates in my file, without labels",
        "Train on my pairs",
        'Put "has this been asked?" on my site',
        "Compare losses for a paper",
        "Read the code",
    ]
    assert all(len(block.splitlines()) == 3 for _, block in blocks)


def test_duplicates_are_found_and_the_folder_can_be_served(clone: Path) -> None:
    look, start = PATHS["Find the duplicates in my file, without labels"]
    assert "chosen" in run(look, clone)
    said = run(f"{start} --budget 10", clone, answers="y\n" * 5 + "n\n" * 5)
    assert "(5 the same, 5 different)" in said, said
    serve, ask = PATHS['Put "has this been asked?" on my site']
    server = subprocess.Popen(
        words_of(f"{serve} --port 0"), stdout=subprocess.PIPE, text=True, cwd=clone, env=environment()
    )
    try:
        address = re.search(r"http://\S+", next(line for line in server.stdout if "http://" in line))[0]
        _, url, *_, header, _, body = shlex.split(ask)
        name, value = header.split(": ")
        request = urllib.request.Request(address + url.removeprefix("localhost:8000"), body.encode(), {name: value})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["hits"][0]["duplicate"]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def test_pairs_are_shown_trained_on_and_judged(clone: Path) -> None:
    show, train, predict = PATHS["Train on my pairs"]
    assert "8,334" in run(show, clone)
    assert "Saved in" in run(f"{train}-quickly --encoder static --epochs 0.1", clone)
    assert "similarity" in run(predict, clone)


def test_losses_are_described_and_compared(clone: Path) -> None:
    describe, compare, _ = PATHS["Compare losses for a paper"]
    assert "Wang et al. 2019" in run(describe, clone)
    shown = run(compare.replace("--budget-minutes 0.5", "--budget-minutes 0.02 --seeds 2"), clone)
    assert {"contrastive", "triplet", "multi_similarity"} <= set(shown.split())


def test_code_is_read(clone: Path) -> None:
    lines = PATHS["Read the code"]
    assert run(lines[0], clone) == "- +\n+ -\n"
    assert "Hadsell" in run(lines[1], clone)
    assert "retrieval" in run(lines[2], clone)
