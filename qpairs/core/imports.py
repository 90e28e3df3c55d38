"""The user's own modules that a run imports: they add rows to the tables of losses, miners, encoders and file formats.

Only training, comparing and commands with --import import anything. Loading a model never does: the imports that a
checkpoint stores are only for `--resume`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from qpairs.core.exceptions import UserError

_imported: dict[str, ModuleType] = {}  # name or absolute path -> module


def import_all(names: Iterable[str]) -> None:
    """Imports modules, by name or as files that end in .py; each once in a process.

    Args:
        names: such as `my_losses.py` or `my_package.losses`; a plain name is also looked for in the current folder.

    Raises:
        UserError: there is no such module or file, or it raises an error; the message names its line.
    """
    for name in names:
        file = _file_of(name)
        key = str(file.resolve()) if file else name
        if key not in _imported:
            _imported[key] = _import_file(file, name) if file else _import_named(name)


def imported() -> tuple[str, ...]:
    """What was imported in this process, for another one to import: absolute paths of files, and names of modules."""
    return tuple(_imported)


def _file_of(name: str) -> Path | None:
    """The file that a name stands for; None if it is the name of a module."""
    if name.endswith(".py") or "/" in name:
        return Path(name)
    here = Path(*name.split(".")).with_suffix(".py")
    return here if here.is_file() and not _is_installed(name) else None


def _is_installed(name: str, elsewhere_than: Path | None = None) -> bool:
    """Whether there is a module of that name, in another file than the one given."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    if spec is None or elsewhere_than is None:
        return spec is not None
    return Path(spec.origin or "").resolve() != elsewhere_than.resolve()


def _import_file(file: Path, name: str) -> ModuleType:
    if not file.is_file():
        raise UserError(f"import: {name}: no such file")
    known = sys.modules.get(file.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == file.resolve():
        return known
    if known is not None or not file.stem.isidentifier() or _is_installed(file.stem, elsewhere_than=file):
        raise UserError(f"import: {name}: a module {file.stem!r} exists already; give the file another name")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # so that its functions can be sent to other processes by their name
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[file.stem]
        raise _refusal(name, error) from error
    return module


def _import_named(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(f"import: no module {name!r}, and no file {name}.py here; is it installed?") from None
        raise _refusal(name, error) from error
    except Exception as error:
        raise _refusal(name, error) from error


def _refusal(name: str, error: BaseException) -> BaseException:
    """The error of a module in one line, with the line of the module that raised it; Ctrl-C is passed on."""
    if not isinstance(error, Exception):
        return error
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if len(frames) > 1 else None
    where = f", line {line}" if line else ""
    return UserError(f"import: {name}{where}: {type(error).__name__}: {' '.join(str(error).split())}")
