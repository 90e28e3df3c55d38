"""The command line: options, one library call, a table. Imports are inside the commands, so that --help is quick."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape

from qpairs import __version__
from qpairs.commands.calibrate import calibrate
from qpairs.commands.combinations import with_rules
from qpairs.commands.combine import combine
from qpairs.commands.comparison import compare, losses
from qpairs.commands.data import data
from qpairs.commands.dedupe import dedupe
from qpairs.commands.embed import embed, push
from qpairs.commands.errors import audit, errors, explain
from qpairs.commands.export import export
from qpairs.commands.judgement import evaluate, predict
from qpairs.commands.label import agreement, pairs
from qpairs.commands.learning_curve import learning_curve
from qpairs.commands.panels import place_options
from qpairs.commands.report import report
from qpairs.commands.search import index, search
from qpairs.commands.serve import serve
from qpairs.commands.start import start
from qpairs.commands.terminal import err, one_line, out
from qpairs.commands.training import train
from qpairs.core.exceptions import UserError
from qpairs.core.extras import install
from qpairs.core.files import NOT_WRITTEN, os_reason, said_by_system

app = typer.Typer(
    help="Decides whether two questions ask the same, and finds the duplicates in a collection of questions.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",  # without it there are no panels; see `command_line` for texts that are no markup
)
PANELS = {
    "Begin": (start,),
    "Train": (train, combine, compare, learning_curve, losses),
    "Evaluate": (evaluate, predict, calibrate, errors, report, explain),
    "Look at data": (data, audit),
    "Search": (export, embed, index, search, dedupe),
    "Publish": (serve, push),
}
WORDS_LEFT_OVER = {"allow_extra_args": True}  # which `with_rules` refuses, with the option that they may lack
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel, context_settings=WORDS_LEFT_OVER)(with_rules(command))


label = typer.Typer(help="Let a language model label pairs of an index; show how far annotators agree.")
label.command(context_settings=WORDS_LEFT_OVER)(with_rules(pairs))
label.command(context_settings=WORDS_LEFT_OVER)(with_rules(agreement))
app.add_typer(label, name="label", rich_help_panel="Evaluate")

UsageError: Any = typer.BadParameter.__base__  # click's, which newer versions of typer carry inside


@cache
def command_line() -> Any:
    """The commands, built once; rich does not read markup in their help (`[,LABEL]`), and columns are narrow."""
    root: Any = typer.main.get_command(app)
    label = root.commands["label"]
    _with_default(label, "pairs")
    commands = {"": root, **root.commands, **label.commands}
    for name, command in commands.items():
        place_options(name, command)
        for text in (command, *command.params):
            text.help = escape(text.help or "")
        for option in command.params:
            if option.param_type_name == "option" and (option.is_flag or option.multiple):
                option.metavar = "" if option.is_flag else "<str>"
    return root


def _with_default(group: Any, name: str) -> None:
    """A group that can be called with the arguments of one of its commands: `label INDEX` is `label pairs INDEX`."""
    parse = group.parse_args

    def parse_args(context: Any, arguments: list[str]) -> Any:
        own = not arguments or arguments[0] in (*group.commands, "--help")
        return parse(context, arguments if own else [name, *arguments])

    group.parse_args = parse_args


def main() -> None:
    """Runs the command line; a user error is one line on stderr and exit code 2."""
    try:
        sys.exit(command_line()(standalone_mode=False))
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "qpairs"
        _refuse(f"{error.format_message()} ({command} --help tells more)")
    except UserError as error:
        _refuse(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "qpairs"):
            raise
        _refuse(f"this needs {package}, which is not installed: {install(package)}, or pip install qpairs")
    except (KeyboardInterrupt, typer.Abort):
        err.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # of a file system that changes meanwhile: no command foresees all of it
        if not error.filename:
            _refuse_if_full(error)
            raise
        _refuse(f"{error.filename}: {os_reason(error)}")
    except Exception as error:
        _refuse_if_full(error)
        raise


def _refuse_if_full(error: Exception) -> None:
    """Reports a file that cannot be written, whose name the system does not give."""
    number = error.errno if isinstance(error, OSError) else None
    if number in NOT_WRITTEN or said_by_system(error):
        said = os_reason(error) if isinstance(error, OSError) else said_by_system(error)
        _refuse(f"a file cannot be written ({said}), here or in {tempfile.gettempdir()}")


def _refuse(why: str) -> NoReturn:
    err.print(f"[bold red]error:[/] {one_line(why)}", soft_wrap=True, highlight=False)
    sys.exit(2)


@app.callback(invoke_without_command=True)
def _alone(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        out.print(f"qpairs {__version__}", highlight=False)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
