"""Options that many commands have, and what is done for them before the command runs."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

READS = {"columns", "text_column", "skip_bad_rows"}  # parameters of the commands that read files of rows
SeparatorOption = Annotated[
    str,
    typer.Option(
        envvar="QPAIRS_SEPARATOR",
        show_envvar=False,
        help="Separator of the fields of .csv and .tsv files, where it is not guessed right: one character, or tab.",
        show_default=False,
        rich_help_panel="Reading",
    ),
]
ImportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="Module, or .py file, to import first: readers, losses and encoders of your own.",
        show_default=False,
    ),
]


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
        with contextlib.ExitStack() as held:
            if shared.get("separator"):
                from qpairs.data.formats import separated_by

                held.enter_context(separated_by(shared["separator"]))
            if shared.get("imports"):
                from qpairs.core.imports import import_all

                import_all(shared["imports"])
            command(**values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(name, keyword, default=default, annotation=a) for name, (a, default) in added.items()]
    signature = inspect.Signature([*own.values(), *options])
    wrapped.__signature__ = signature  # type: ignore[attr-defined]
    wrapped.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()} | {"return": None}
    return wrapped
