"""What would be uploaded to a package index: built, checked, and tried in a new environment."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import qpairs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that is made from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, stdout=subprocess.DEVNULL)
    return folder


def test_both_are_fit_for_a_package_index(built: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *built.iterdir()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_source_distribution_holds_the_project_and_nothing_else(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = [Path(name).relative_to(f"qpairs-{qpairs.__version__}") for name in archive.getnames()]
    tops = {name.parts[0] for name in names if name.parts}
    folders = {"qpairs", "data", "docs", "benchmarks", "notebooks", "requirements", "tests"}
    files = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "Dockerfile", "mkdocs.yml"}
    assert tops == folders | files | {"cli.py", "pyproject.toml", ".gitignore", ".dockerignore", "PKG-INFO"}
    junk = {"__pycache__", "runs", "build", "dist", ".git", ".ci", ".ipynb_checkpoints"}
    assert not [name for name in names if junk & set(name.parts)]
    assert path.stat().st_size < 5e6


def test_the_wheel_holds_the_package_its_types_and_its_data(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"qpairs"}
    assert {"qpairs/py.typed", "qpairs/__init__.pyi", "qpairs/data/pairs.csv", "qpairs/data/intents.csv"} <= names
    assert {f"qpairs/{file.relative_to(ROOT / 'qpairs')}" for file in (ROOT / "qpairs").rglob("*.py")} <= names
    assert any(name.endswith("LICENSE") for name in names)
    assert path.stat().st_size < 2e6


def test_the_citation_and_the_changelog_name_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", qpairs.__version__)
    assert {"title", "message", "authors", "license"} <= citation.keys()
    assert qpairs.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_wheel_works_in_a_new_environment(built: Path, checkpoint, tmp_path: Path) -> None:
    """With what runs an export; it predicts, as the model that was exported does."""
    export = tmp_path / "model"
    qpairs.export_checkpoint(checkpoint.path, export, format="static", max_loss=1)
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", ROOT / "requirements" / "runtime.txt"], check=True)
    subprocess.run([*pip, "--no-deps", *built.glob("*.whl")], check=True)

    def call(*arguments: object) -> str:
        command = [home / "bin" / "qpairs", *map(str, arguments)]
        environment = {"PATH": str(home / "bin"), "COLUMNS": "100", "HOME": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path).stdout

    assert "Usage: qpairs" in call("--help")
    similarity = checkpoint.similarity("How do I pay?", "How can I pay?")
    assert f"similarity {similarity:.3f}" in call("predict", export, "How do I pay?", "How can I pay?")
