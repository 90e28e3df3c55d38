"""Figures of the package's structure: lines per folder, imports between folders, long files and functions.

python benchmarks/house.py            # of this checkout
python benchmarks/house.py OTHER/qpairs
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ORDER = (
    "core",
    "config",
    "data",
    "metrics",
    "encoders",
    "objectives",
    "models",
    "evaluation",
    "training",
    "sklearn",
    "experiments",
    "export",
    "retrieval",
    "serving",
    "annotation",
    "commands",
)  # a folder imports from those before it only
LONG_FILE, LONG_FUNCTION, MANY_PARAMETERS = 450, 60, 7
ENCODER_KINDS = ("Transformer", "WordEmbeddings", "StaticEmbedding", "Router", "LSTM", "CNN")


@dataclass(frozen=True)
class Function:
    """A function of the package: where it is, and how large."""

    name: str
    lines: int
    parameters: int


@dataclass(frozen=True)
class House:
    """The structure of a package.

    Attributes:
        lines: module, as a path inside the package -> lines.
        imports: (module, imported module) for each statement that imports from another folder.
        all_imports: the same at the top of modules, inside folders too.
        functions: all of them, methods and nested ones included.
        config: modules with a function that has a parameter `config`.
        progress: classes named Progress or Meter, with a module each.
        kinds: `isinstance` on the module classes of encoders, outside of `encoders/`.
        comparisons: `>=` or `<` against a name that ends in `threshold`, by module.
    """

    lines: dict[str, int]
    imports: Sequence[tuple[str, str]]
    all_imports: Sequence[tuple[str, str]]
    functions: Sequence[Function]
    config: Sequence[str]
    progress: Sequence[str]
    kinds: Sequence[str]
    comparisons: Counter[str]

    @property
    def folders(self) -> dict[str, int]:
        """Lines of each folder, or module of the top level."""
        counted: Counter[str] = Counter()
        for module, lines in self.lines.items():
            counted[folder(module)] += lines
        return dict(counted)

    @property
    def upward(self) -> list[tuple[str, str]]:
        """Imports from a folder that comes later in the order."""
        place = {name: row for row, name in enumerate(ORDER)}
        return [(a, b) for a, b in self.imports if place.get(folder(b), 0) > place.get(folder(a), len(ORDER))]


def folder(module: str) -> str:
    """The first part of a module's path, without its ending."""
    return module.split("/")[0].removesuffix(".py")


def measure(package: Path) -> House:
    """The structure of a package, from its source alone."""
    lines, imports, functions = dict[str, int](), list[tuple[str, str]](), list[Function]()
    all_imports = list[tuple[str, str]]()
    config, progress, kinds, comparisons = dict[str, None](), list[str](), list[str](), Counter[str]()
    for file in sorted(package.rglob("*.py")):
        module, text = file.relative_to(package).as_posix(), file.read_text(encoding="utf-8")
        lines[module] = len(text.splitlines())
        tree = ast.parse(text)
        all_imports += [
            (module, found) for node in tree.body if isinstance(node, ast.ImportFrom) for found in _imported(node)
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [argument.arg for argument in _arguments(node)]
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                functions.append(Function(f"{module}:{node.name}", length, len(names)))
                if "config" in names:
                    config[module] = None
            elif isinstance(node, ast.ClassDef) and node.name in ("Progress", "Meter", "_Meter"):
                progress.append(f"{module}:{node.name}")
            elif isinstance(node, ast.ImportFrom):
                imports += [(module, found) for found in _imported(node) if folder(found) != folder(module)]
            elif isinstance(node, ast.Call) and _is_kind_check(node) and folder(module) != "encoders":
                kinds.append(f"{module}:{node.lineno}")
            elif isinstance(node, ast.Compare) and _is_verdict(node):
                comparisons[module] += 1
    return House(lines, imports, all_imports, functions, list(config), progress, kinds, comparisons)


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    found = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument for argument in found if argument.arg not in ("self", "cls")]


def _imported(node: ast.ImportFrom) -> Iterator[str]:
    """The modules of the package that a statement imports, as paths inside it."""
    parts = (node.module or "").split(".")
    if parts[0] == "qpairs":
        if len(parts) > 1:
            yield "/".join(parts[1:])
        else:
            yield from (alias.name for alias in node.names if alias.name in ORDER)


def _is_kind_check(node: ast.Call) -> bool:
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return isinstance(node.func, ast.Name) and node.func.id == "isinstance" and bool(names & set(ENCODER_KINDS))


def _is_verdict(node: ast.Compare) -> bool:
    sides = [getattr(side, "attr", getattr(side, "id", "")) for side in (node.left, *node.comparators)]
    return isinstance(node.ops[0], ast.GtE | ast.Lt) and any(name.endswith("threshold") for name in sides)


def main(package: Path) -> None:
    """Prints the figures."""
    house = measure(package)
    files = Counter(folder(module) for module in house.lines)
    print(f"{sum(house.lines.values()):,} lines of Python in {len(house.lines)} files")
    for name in sorted(house.folders, key=lambda n: ORDER.index(n) if n in ORDER else -1):
        print(f"  {name:12} {house.folders[name]:6,} lines  {files[name]:3} files")
    print(f"{sum('/' not in module for module in house.lines)} modules at the top level")
    print(f"{len(house.imports)} imports between folders, {len(house.upward)} of them upwards")
    for a, b in house.upward:
        print(f"  {a} imports {b}")
    _list("files over", LONG_FILE, "lines", house.lines)
    _list("functions over", LONG_FUNCTION, "lines", {f.name: f.lines for f in house.functions})
    _list("functions of", MANY_PARAMETERS - 1, "parameters and more", {f.name: f.parameters for f in house.functions})
    print(f"{len(house.config)} modules pass a `config` on")
    print(f"{len(house.progress)} kinds of progress: {', '.join(house.progress)}")
    print(f"{len(house.kinds)} isinstance on encoder kinds outside encoders/")
    print(f"{house.comparisons.total()} comparisons with a threshold: {dict(house.comparisons)}")


def _list(what: str, limit: int, unit: str, sizes: dict[str, int]) -> None:
    found = {name: size for name, size in sizes.items() if size > limit}
    print(f"{len(found)} {what} {limit} {unit}")
    for name in sorted(found, key=lambda n: -found[n]):
        print(f"  {found[name]:4}  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "qpairs")
