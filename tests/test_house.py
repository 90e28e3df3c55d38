"""The structure of the package: the order of its folders, what each imports, how large files and functions are."""

import inspect
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from children import run_script

import qpairs
from qpairs.config import OPTIONS, TYPES
from qpairs.training.options import TrainOptions

PACKAGE = Path(qpairs.__file__).parent
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from house import LONG_FILE, LONG_FUNCTION, ORDER, House, measure  # noqa: E402


@pytest.fixture(scope="module")
def house() -> House:
    return measure(PACKAGE)


def test_every_folder_has_its_place() -> None:
    names = {p.stem for p in PACKAGE.glob("*.py")} | {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert names - {"__init__"} == set(ORDER)


def test_imports_run_downwards_only(house: House) -> None:
    assert len(house.imports) > 100
    assert house.upward == []


def test_no_two_modules_import_each_other(house: House) -> None:
    graph: dict[str, set[str]] = {}
    for module, imported in house.all_imports:
        own = module.removesuffix(".py").removesuffix("/__init__")
        graph.setdefault(own, set()).update({imported} - {own})  # a package's own file imports from its modules
    assert len(list(TopologicalSorter(graph).static_order())) > 100


def test_files_and_functions_stay_small(house: House) -> None:
    long_files = {module for module, lines in house.lines.items() if lines > LONG_FILE}
    long_functions = {function.name for function in house.functions if function.lines > LONG_FUNCTION}
    assert len(long_files) <= 3, long_files
    assert len(long_functions) <= 5, long_functions


def test_what_depends_on_the_kind_of_an_encoder_is_asked_inside_encoders(house: House) -> None:
    assert house.kinds == []


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
    assert set(qpairs.__all__) == set(dir(qpairs))
    with pytest.raises(AttributeError):
        qpairs.nothing  # noqa: B018


def test_import_is_quick_and_lists_the_names_before_it_loads_them() -> None:
    script = "import time; start = time.process_time(); import qpairs; spent = time.process_time() - start\n"
    script += "import sys; heavy = [m for m in ('torch', 'numpy', 'typer', 'rich', 'sklearn') if m in sys.modules]\n"
    script += "print(round(1e3 * spent), heavy, {'train', 'search', 'LOSSES', 'Config'} <= set(dir(qpairs)))"
    for _ in range(3):  # the least of three, in ms of the processor
        spent, rest = subprocess.check_output([sys.executable, "-c", script], text=True).split(maxsplit=1)
        assert rest.strip() == "[] True"
        if int(spent) < 50:
            return
    pytest.fail(f"{spent} ms")


def test_no_module_takes_the_place_of_a_public_function() -> None:
    names = [
        ".".join(("qpairs", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for file in sorted(PACKAGE.rglob("*.py"))
    ]
    script = f"import importlib, types, qpairs\nfor name in {names!r}: importlib.import_module(name)\n"
    script += "modules = [n for n in dir(qpairs) if isinstance(getattr(qpairs, n), types.ModuleType)]\n"
    script += "print([n for n in modules if n not in ('metrics', 'sklearn')])"
    done = run_script(script)
    assert done.stdout.strip() == "[]", done.stderr


def test_type_checkers_find_the_types() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "__init__.pyi").exists()


USER_SCRIPT = """
from collections.abc import Sequence

import qpairs
from qpairs.sklearn import DuplicateClassifier

rows: list[tuple[str, str, int]] = [("How do I pay?", "How can I pay?", 1), ("Who?", "Why?", 0)]


def judge(asked: Sequence[tuple[str, str]]) -> list[bool]:
    model = qpairs.train(data=rows, encoder="static", epochs=2, loss="contrastive", dims=[64, 32])
    report: qpairs.Report = qpairs.evaluate(model, rows).rethreshold(0.5)
    one: float = model.similarity("How do I pay?", "How can I pay?")
    print(report.f1, report.mistakes, one, model.similarity(["a"], ["b"]).shape)
    print(model.dedupe(["a", "b"], precision=0.9).kept, model.search(["a"], ["b", "c"], k=1))
    print(DuplicateClassifier("static").fit([("a", "b"), ("c", "d")], [0, 1]).predict_proba([("a", "b")]))
    found: qpairs.Predictions = model.predict(asked, threshold=0.5)
    return [bool(duplicate) for duplicate in found.duplicate]
"""
WRONG = """
import qpairs

qpairs.train(data="sample", encodr="static")
qpairs.train(data="sample", epochs="two")
qpairs.load("x").predict([("a", "b")], treshold=1.0)
"""


@pytest.mark.slow
def test_a_script_of_a_user_type_checks_strictly(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(USER_SCRIPT)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "right.py", "wrong.py"]
    environment = {**os.environ, "MYPYPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    found = [line for line in done.stdout.splitlines() if ".py:" in line and "error" in line and "/qpairs/" not in line]
    assert [line.partition(":")[0] for line in found] == ["wrong.py"] * 3, done.stdout
    assert all(word in done.stdout for word in ("encodr", "epochs", "treshold"))


def test_editors_are_shown_the_options_of_a_run() -> None:
    shown = {name: inspect.signature(getattr(qpairs, name)).parameters for name in ("train", "compare")}
    assert set(OPTIONS) <= set(shown["train"])
    assert set(OPTIONS) <= set(shown["compare"])
    assert shown["train"]["batch_size"].default == qpairs.Config().batch_size
    assert shown["compare"]["budget_minutes"].default == 5.0
    assert not any(p.kind == p.VAR_KEYWORD for parameters in shown.values() for p in parameters.values())


def test_the_types_of_the_options_are_those_of_the_config() -> None:
    assert set(TrainOptions.__annotations__) == set(OPTIONS)
    for name, spec in OPTIONS.items():
        kind = str(TrainOptions.__annotations__[name])
        if isinstance(spec.default, bool | int | float):
            assert TYPES[name].__name__ in kind, name
