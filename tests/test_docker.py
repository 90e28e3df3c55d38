"""The steps of the Dockerfile, run in a folder in the place of an image: its size, what it holds, whether it serves."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import qpairs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
LIMIT = 500e6  # bytes of the packages, as files; an image is smaller by what is compressed
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder /usr/local of the image, as the first stage makes it from what it copies."""
    home = tmp_path_factory.mktemp("image")
    source, prefix = home / "src", home / "prefix"
    for line in instructions("COPY"):
        if line.startswith("--from"):
            continue
        *names, target = line.split()
        for name in names:
            place = source / target if target.endswith("/") and len(names) == 1 else source / target / Path(name).name
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place)
    subprocess.run([sys.executable, "-m", "venv", home / "python"], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for step in instructions("RUN")[:2]:
        step = step.replace("/opt/qpairs", str(prefix)).replace("python3.11", version).replace("--no-cache-dir", "")
        path = f"{home / 'python' / 'bin'}:{os.environ['PATH']}"
        subprocess.run(
            ["bash", "-ec", step], check=True, cwd=source, env={**os.environ, "PATH": path, "PYTHONPATH": ""}
        )
    return prefix


def test_the_packages_are_small_and_hold_no_torch(prefix: Path) -> None:
    packages = next(prefix.glob("lib/python*/site-packages"))
    size = sum(file.stat().st_size for file in packages.rglob("*") if file.is_file())
    packed = subprocess.run(["bash", "-c", f"tar cf - {prefix} | gzip | wc -c"], capture_output=True, check=True).stdout
    print(f"{size / 1e6:,.0f} MB as files, {int(packed) / 1e6:,.0f} MB compressed")  # noqa: T201
    assert size < LIMIT
    assert not (packages / "torch").exists()
    assert not list(packages.rglob("tests"))


def test_an_export_is_served_from_them(prefix: Path, checkpoint, tmp_path: Path) -> None:
    export = tmp_path / "model"
    qpairs.export_checkpoint(checkpoint.path, export, format="static", max_loss=1)
    others = [f"Where is order {number}?\n" for number in range(20)]
    (tmp_path / "questions.csv").write_text("".join(["question\nHow do I pay?\nHow can I pay?\n", *others]))
    packages = next(prefix.glob("lib/python*/site-packages"))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages), "HOME": str(tmp_path)}
    words = json.loads(re.search(r"^CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)[1])
    assert words[:2] == ["serve", "/model"]
    words = [word.replace("/model", str(export)).replace("0.0.0.0", "127.0.0.1") for word in words]
    command = [prefix / "bin" / "qpairs", *words, "--questions", "questions.csv", "--port", "0"]
    began = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    try:
        address = re.search(r"http://\S+", next(line for line in server.stdout if "http://" in line))[0]
        print(f"{time.monotonic() - began:.1f} s until it listens")  # noqa: T201
        body = json.dumps({"question": "How do I pay?", "k": 1}).encode()
        request = urllib.request.Request(f"{address}/search", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["hits"][0]["text"] == "How do I pay?"
        with urllib.request.urlopen(f"{address}/health", timeout=10) as answer:
            assert answer.status == 200
    finally:
        server.terminate()
        server.wait(30)
