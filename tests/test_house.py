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


def test_every_public_name_is_there_and_listed() -> None:
    assert all(hasattr(qpairs, name) for name in qpairs.__all__)
    assert set(qpairs.__all__) <= set(dir(qpairs))
    with pytest.raises(AttributeError):
        qpairs.nothing  # noqa: B018


def test_import_is_quick_and_lists_the_names_before_it_loads_them() -> None:
    script = "import time; start = time.process_time(); import qpairs; spent = time.process_time() - start\n"
    script += "import sys; heavy = [m for m in ('torch', 'numpy', 'typer', 'rich') if m in sys.modules]\n"
    script += "print(round(1e3 * spent), heavy, {'train', 'search', 'LOSSES', 'Config'} <= set(dir(qpairs)))"
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True) for _ in range(3)]
    answers = [run.stdout.split(maxsplit=1) for run in runs]
    assert all(rest.strip() == "[] True" for _, rest in answers)
    assert min(int(spent) for spent, _ in answers) < 50  # ms of the processor


def test_no_module_takes_the_place_of_a_public_function() -> None:
    names = [
        ".".join(("qpairs", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for file in sorted(PACKAGE.rglob("*.py"))
    ]
    script = f"import importlib, types, qpairs\nfor name in {names!r}: importlib.import_module(name)\n"
    script += "print([n for n in dir(qpairs) if n != 'metrics' and isinstance(getattr(qpairs, n), types.ModuleType)])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_type_checkers_find_the_types() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "__init__.pyi").exists()
