"""Commands that are shown to a reader or a user: parsed by the real command line, with the rules between options."""

import re
import shlex
from collections.abc import Sequence
from typing import Any

from qpairs.commands import command_line
from qpairs.commands.combinations import refuse_extra, require_effects

COMMAND_LINE: Any = command_line()
MENTION = re.compile(r"\bqpairs ([a-z][a-z-]*)((?: (?:--[a-z-]+|[A-Z_]+(?:\.\w+)?))*)")


def parse(words: Sequence[str], *, whole: bool = True) -> Any:
    """The context of a command, with its values; of one that is not whole, arguments may be missing.

    Args:
        words: after `qpairs`.
        whole: whether it is to be run as it is: all arguments are there, and every option has an effect.

    Raises:
        AssertionError: there is no such command.
        UsageError, UserError: it does not parse, it has a word too many, or an option has no effect.
    """
    rest, parser, parents = list(words), COMMAND_LINE, []
    parents.append(parser.make_context("qpairs", ["losses"]))
    while rest and rest[0] in getattr(parser, "commands", {}):
        parser = parser.commands[rest.pop(0)]
    assert parser is not COMMAND_LINE, f"no command {rest[:1]}"
    parser = parser.commands["pairs"] if getattr(parser, "commands", None) else parser
    if not whole:
        context = type(parents[0])(parser)
        parser.make_parser(context).parse_args(rest)
        return context
    context = parser.make_context(parser.name, rest, parent=parents[0])
    refuse_extra(context)
    require_effects(context, context.params)
    return context


def shown_in(text: str) -> list[list[str]]:
    """The words of the commands in an output, each on a line of its own, without `qpairs`."""
    return [shlex.split(line)[1:] for line in text.splitlines() if re.match(r"qpairs (?!at threshold [\d.]+ )", line)]


def check_mentions(text: str) -> None:
    """Commands named within a sentence exist, and have the options that are named with them."""
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("qpairs "))
    for name, rest in MENTION.findall(" ".join(prose.split())):
        command = COMMAND_LINE.commands.get(name)
        assert command is not None, f"qpairs {name}"
        flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        assert set(re.findall("--[a-z-]+", rest)) <= flags, f"qpairs {name}{rest}"
