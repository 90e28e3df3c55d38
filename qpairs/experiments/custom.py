"""What a run with the user's own code needs in another process: functions, imports, and rows added to tables."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from qpairs.core.exceptions import UserError
from qpairs.data.formats import FORMATS
from qpairs.encoders.build import ENCODERS
from qpairs.objectives.expressions import Function
from qpairs.objectives.functions import function_name
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.miners import MINERS

TABLES: dict[str, dict[str, Any]] = {
    "losses": LOSSES,
    "miners": MINERS,
    "encoders": ENCODERS,
    "formats": FORMATS,
}

Rows = Mapping[str, Mapping[str, Any]]  # table -> name -> row


def custom_rows() -> dict[str, dict[str, Any]]:
    """The rows that are not of this package, by table."""
    return {
        table: {name: row for name, row in rows.items() if not _module_of(row).startswith("qpairs.")}
        for table, rows in TABLES.items()
    }


def add_rows(rows: Rows) -> None:
    """Adds rows from `custom_rows` of another process."""
    for table, added in rows.items():
        TABLES[table].update(added)


def _module_of(row: Any) -> str:
    """The module of the function, or the class, of a row."""
    function = getattr(row, "function", None) or getattr(row, "build", None) or row
    return str(getattr(function, "__module__", None) or type(function).__module__)


def names_of(what: str, listed: Any) -> tuple[Any, dict[str, Function]]:
    """A list of expressions and functions with the functions' names in their place, and the functions by name.

    Args:
        what: the option, for the message.
        listed: an expression, a function, or several.

    Raises:
        UserError: two functions have one name.
    """
    several = [listed] if isinstance(listed, str) or callable(listed) else list(listed)
    functions: dict[str, Function] = {}
    for item in several:
        if callable(item) and functions.setdefault(function_name(item), item) is not item:
            raise UserError(f"compare: {what}: two functions are called {function_name(item)!r}; rename one")
    return [function_name(item) if callable(item) else item for item in several], functions


def rows_named(names: Iterable[str]) -> list[Any]:
    """The user's own losses, miners and encoders that are named in expressions: their rows of the tables."""
    words = set(re.findall(r"[\w.-]+", " ".join(names)))
    rows = custom_rows()
    return [row for table in ("losses", "miners", "encoders") for name, row in rows[table].items() if name in words]


def digest(functions: Iterable[Callable[..., Any]], imports: Iterable[str]) -> str:
    """16 hex digits over the code of functions, the values it reads, and files to import; '' where there are none."""
    sources = [_source(function) for function in functions]
    sources += [Path(name).read_text("utf-8") if Path(name).is_file() else name for name in imports]
    return hashlib.sha256("\0".join(sources).encode("utf-8", "replace")).hexdigest()[:16] if sources else ""


def _source(function: Any, seen: frozenset[int] = frozenset()) -> str:
    """The code of a function, and the values that it reads; of its own module also what these run."""
    seen |= {id(function)}
    rows = (getattr(function, name, None) for name in ("function", "build"))  # of a table
    if (inner := next((row for row in rows if row is not None), None)) is not None:
        state = {name: value for name, value in _attributes(function).items() if value is not inner}
        return f"{_source(inner, seen)} {_shown(state, '', seen)}"
    if isinstance(function, functools.partial):
        return f"{_source(function.func, seen)} {_shown([function.args, function.keywords], '', seen)}"
    try:
        code = inspect.getsource(function if hasattr(function, "__qualname__") else type(function))
    except (OSError, TypeError):
        compiled = getattr(function, "__code__", None)
        code = f"{compiled.co_code!r} {compiled.co_consts!r}" if compiled else function_name(function)
    return f"{code} {_shown(_read_by(function), getattr(function, '__module__', ''), seen)}"


def _read_by(function: Any) -> dict[str, Any]:
    """The values that a function reads, by name: its defaults, variables around it, and attributes of its object."""
    state = {} if isinstance(function, type) else _attributes(function)
    if inspect.ismethod(function):
        state, function = _attributes(function.__self__), function.__func__
    if inspect.isfunction(function):
        with contextlib.suppress(ValueError):  # a variable without a value yet
            names = inspect.getclosurevars(function)
            state |= {**names.globals, **names.nonlocals}
        state |= {"defaults": (function.__defaults__, function.__kwdefaults__)}
    return state


def _attributes(value: Any) -> dict[str, Any]:
    return dict(getattr(value, "__dict__", {}))


def _shown(value: Any, module: str, seen: frozenset[int]) -> str:
    """A value as text that is the same in every process; of what is no plain value, the code or the type alone."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name!r}: {_shown(one, module, seen)}' for name, one in value.items())}}}"
    if isinstance(value, list | tuple | set | frozenset):
        shown = [_shown(one, module, seen) for one in value]
        return f"[{', '.join(sorted(shown) if isinstance(value, set | frozenset) else shown)}]"
    if isinstance(value, type) or not hasattr(value, "tolist"):
        own = callable(value) and module and getattr(value, "__module__", "") == module and id(value) not in seen
        return _source(value, seen) if own else type(value).__qualname__
    return repr(value.tolist())  # a tensor, or an array
