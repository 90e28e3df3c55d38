"""The structure of the package: the order of its folders, what each imports, how large files and functions are."""

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import qpairs

PACKAGE = Path(qpairs.__file__).parent
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from house import LONG_FILE, LONG_FUNCTION, ORDER, measure  # noqa: E402

HOUSE = measure(PACKAGE)


def test_every_folder_has_its_place() -> None:
    names = {p.stem for p in PACKAGE.glob("*.py")} | {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert names - {"__init__"} == set(ORDER)


def test_imports_run_downwards_only() -> None:
    assert len(HOUSE.imports) > 100
    assert HOUSE.upward == []


def test_no_two_modules_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for module, imported in HOUSE.all_imports:
        own = module.removesuffix(".py").removesuffix("/__init__")
        graph.setdefault(own, set()).update({imported} - {own})  # a package's own file imports from its modules
    assert len(list(TopologicalSorter(graph).static_order())) > 100


def test_files_and_functions_stay_small() -> None:
    long_files = {module for module, lines in HOUSE.lines.items() if lines > LONG_FILE}
    long_functions = {function.name for function in HOUSE.functions if function.lines > LONG_FUNCTION}
    assert len(long_files) <= 3, long_files
    assert len(long_functions) <= 5, long_functions


def test_what_depends_on_the_kind_of_an_encoder_is_asked_inside_encoders() -> None:
    assert HOUSE.kinds == []


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
