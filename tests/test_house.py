"""The order of the folders, and what each may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import qpairs

PACKAGE = Path(qpairs.__file__).parent
ORDER = [
    "core", "config", "data", "metrics", "encoders", "objectives", "models", "evaluation", "training", "experiments",
    "export", "retrieval", "serving", "commands",
]  # fmt: skip


def modules(folder: str) -> list[Path]:
    home = PACKAGE / folder
    return sorted(home.rglob("*.py")) if home.is_dir() else [home.with_suffix(".py")]


def imported(folder: str) -> set[str]:
    """The folders of qpairs that the modules of a folder import at their top or inside functions."""
    found = set()
    for file in modules(folder):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "qpairs":
                parts = (node.module or "").split(".")
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return (found & set(ORDER)) - {folder}


def test_every_folder_has_its_place() -> None:
    names = {p.stem for p in PACKAGE.glob("*.py")} | {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert names - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("folder", ORDER)
def test_imports_run_downwards_only(folder: str) -> None:
    assert imported(folder) <= set(ORDER[: ORDER.index(folder)])


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("metrics", ["torch", "sklearn", "datasets", "transformers"]),
        ("config", ["torch", "numpy", "datasets"]),
        ("objectives.relations", ["transformers", "sentence_transformers", "datasets"]),
        ("objectives.losses", ["transformers", "sentence_transformers", "datasets"]),
        ("data.splits", ["torch", "datasets", "transformers"]),
        ("retrieval.corpus", ["torch", "transformers", "sentence_transformers", "datasets"]),
        ("serving.app", ["torch", "transformers", "sentence_transformers", "datasets"]),
        ("commands", ["torch", "numpy", "datasets", "transformers"]),
    ],
)
def test_light_modules_stay_light(module: str, forbidden: list[str]) -> None:
    script = f"import sys, qpairs.{module}; print([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert all(hasattr(qpairs, name) for name in qpairs.__all__)
    with pytest.raises(AttributeError):
        qpairs.nothing  # noqa: B018
