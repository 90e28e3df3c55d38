"""The order of the modules, and what each may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import qpairs

PACKAGE = Path(qpairs.__file__).parent
ORDER = [
    "faults", "folders", "plots", "charts", "expressions", "config", "pairs", "questions", "splits", "perturbations",
    "encoders", "relations", "processes", "prototypes", "miners", "losses", "objectives", "batches", "mining",
    "metrics", "checkpoint", "evaluation", "robustness", "errors", "publishing",
    "dropout", "loop", "teachers", "training", "report", "audit",
    "comparison", "runtime", "export", "engines", "shards", "index", "retrieval", "labelling",
    "jobs", "microbatches", "journal", "guard", "service", "commands",
]  # fmt: skip


def imported(name: str) -> set[str]:
    """The qpairs modules that a module imports at its top or inside functions, type checking aside."""
    home = PACKAGE / name
    files = list(home.glob("*.py")) if home.is_dir() else [PACKAGE / f"{name}.py"]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "qpairs":
                parts = (node.module or "").split(".")
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return {module for module in found if (PACKAGE / f"{module}.py").exists() or (PACKAGE / module).is_dir()} - {name}


def test_every_module_has_its_place() -> None:
    names = {p.stem for p in PACKAGE.glob("*.py")} | {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert names - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_run_downwards_only(name: str) -> None:
    assert imported(name) <= set(ORDER[: ORDER.index(name)])


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("metrics", ["torch", "sklearn", "scipy", "datasets", "transformers"]),
        ("config", ["torch", "numpy", "datasets"]),
        ("relations", ["transformers", "sentence_transformers", "datasets"]),
        ("losses", ["transformers", "sentence_transformers", "datasets"]),
        ("splits", ["torch", "datasets", "transformers"]),
        ("retrieval", ["torch", "transformers", "sentence_transformers", "datasets"]),
        ("service", ["torch", "transformers", "sentence_transformers", "datasets"]),
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
