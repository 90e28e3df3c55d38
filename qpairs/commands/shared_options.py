"""Options that many commands share, and what is done for them before the command runs."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any

import typer

from qpairs.core.shell import option_words

READS = {"columns", "text_column", "skip_bad_rows"}  # parameters of the commands that read files of rows
SeparatorOption = Annotated[
    str,
    typer.Option(
        envvar="QPAIRS_SEPARATOR",
        show_envvar=False,
        help="Separator of the fields of .csv and .tsv files, if it is not detected correctly: one character, or tab.",
        show_default=False,
        rich_help_panel="Reading",
    ),
]
ImportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="Module, or .py file, to import first: your own readers, losses and encoders.",
        show_default=False,
    ),
]


_given: ContextVar[tuple[str, tuple[str, ...]]] = ContextVar("given", default=("", ()))  # to the command that runs


def with_shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with --import, unless that is an option of a run, and with --separator where it reads files.

    >>> def show(*, columns: str = "") -> None: ...
    >>> list(inspect.signature(with_shared_options(show)).parameters)
    ['columns', 'separator', 'imports']
    """
    own = inspect.signature(command, eval_str=True).parameters
    added: dict[str, tuple[Any, Any]] = {"separator": (SeparatorOption, "")} if READS & own.keys() else {}
    added |= {} if "imports" in own else {"imports": (ImportOption, None)}

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        shared = {name: values.pop(name) for name in added if name in values}
        separator, imports = shared.get("separator") or "", tuple(shared.get("imports") or ())
        with contextlib.ExitStack() as held:
            if separator:
                from qpairs.data.separators import separated_by

                held.enter_context(separated_by(separator))
            if imports:
                from qpairs.core.imports import import_all

                import_all(imports)
            held.callback(_given.reset, _given.set((separator, imports)))
            command(**values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(name, keyword, default=default, annotation=a) for name, (a, default) in added.items()]
    return with_signature(wrapped, [*own.values(), *options])


def shared_words() -> list[str]:
    """These options of the command that runs, for a next one that reads the same files."""
    separator, imports = _given.get()
    return option_words({"--separator": separator, "--import": list(imports)})


def with_signature(function: Callable[..., None], parameters: list[inspect.Parameter]) -> Callable[..., None]:
    """The function, with these parameters as its signature for typer."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return function
