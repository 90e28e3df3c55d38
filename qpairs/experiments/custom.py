"""What a run with the user's own code needs in another process: functions, imports, and rows added to tables."""

from __future__ import annotations

import hashlib
import inspect
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


def digest(functions: Iterable[Callable[..., Any]], imports: Iterable[str]) -> str:
    """16 hex digits over the code of functions and the files to import; '' where there are none of either."""
    sources = [_source(function) for function in functions]
    sources += [Path(name).read_text("utf-8") if Path(name).is_file() else name for name in imports]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16] if sources else ""


def _source(function: Any) -> str:
    inner = getattr(function, "function", None) or getattr(function, "func", None)
    if inner is not None:
        return f"{_source(inner)} {getattr(function, 'args', ())} {getattr(function, 'keywords', {})}"
    try:
        return inspect.getsource(function if hasattr(function, "__qualname__") else type(function))
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return f"{code.co_code!r} {code.co_consts!r}" if code else function_name(function)
