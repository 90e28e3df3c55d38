"""The option `--import` of every command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any

import typer

from qpairs.core.shell import option_words

_imported: ContextVar[tuple[str, ...]] = ContextVar("imported", default=())  # by the command that runs


def with_import(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the option --import, unless it has it already as an option of a run."""
    own = inspect.signature(command, eval_str=True).parameters
    if "imports" in own:
        return command

    @functools.wraps(command)
    def wrapped(*, imports: list[str] | None = None, **values: Any) -> None:
        if imports:
            from qpairs.core.imports import import_all

            import_all(imports)
        before = _imported.set(tuple(imports or ()))
        try:
            command(**values)
        finally:
            _imported.reset(before)

    about = "Module, or .py file, to import first: readers, losses and encoders of your own."
    option = typer.Option("--import", help=about, show_default=False)
    annotation = Annotated[list[str] | None, option]
    added = inspect.Parameter("imports", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
    return with_signature(wrapped, [*own.values(), added])


def import_words() -> list[str]:
    """The option of the command that runs, for a next one that reads the same files."""
    return option_words({"--import": list(_imported.get())})


def with_signature(function: Callable[..., None], parameters: list[inspect.Parameter]) -> Callable[..., None]:
    """The function, which typer takes to have these parameters."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return function
