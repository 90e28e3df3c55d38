"""Writes the pages of the documentation that are made from the code: the loss gallery and the command line.

python docs/make_reference.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qpairs.commands import PANELS, command_line
from qpairs.objectives.descriptions import Description, describe

DOCS = Path(__file__).parent
MADE = "<!-- Made by docs/make_reference.py from the code; do not edit. -->"
FAMILIES = {
    "Over labelled pairs": (
        "pairwise",
        "Each labelled pair, or two pairs at a time; strangers in the batch are not read.",
    ),
    "Over triplets": ("triplets", "An anchor, a duplicate of it and another question."),
    "Over the whole batch": (
        "in_batch",
        "All other questions of the batch are negatives, unless labels say otherwise.",
    ),
    "Over prototypes": ("prototypes", "A learned vector for each duplicate component stands for its questions."),
}


def plain(text: str) -> str:
    """A help text or a formula as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text.replace("\\[", "["))


def losses_page() -> str:
    """The gallery: every loss by family with its picture, then the miners."""
    from qpairs.objectives.losses import LOSSES

    found = {row.name: row for row in describe() if row.kind == "loss"}
    parts = [MADE, "", "# Loss gallery", ""]
    parts += [
        "Every loss of `qpairs losses`: formula, paper, defaults, and a picture. It shows the loss of an anchor with",
        "one duplicate and one other question at unit length. The solid line moves the duplicate, the dashed line the",
        "other question; the one that rests is at a cosine of 0.7 (the duplicate) or 0.4 (the other). A miner, a batch",
        "and its labels come on top: [Concepts](concepts.md) explains them. Any loss goes with any miner, and sums are",
        "losses, too:",
        '`--loss "info_nce(temperature=0.05) + 0.5*contrastive"`.',
        "",
        "Which one is best? That depends on what you measure: [what was found on Quora pairs](lab_book.md#which-loss).",
        "",
    ]
    for title, (module, about) in FAMILIES.items():
        parts += [f"## {title}", "", about, ""]
        names = [name for name, entry in LOSSES.items() if entry.function.__module__.endswith(f".{module}")]
        for name in names:
            parts += [*_description(found[name], picture=True)]
    parts += ["## Miners", "", "A miner selects the pairs of a batch that a loss reads: `--miner semi_hard`.", ""]
    for row in describe():
        if row.kind == "miner":
            parts += _description(row, picture=False)
    return "\n".join(parts).rstrip() + "\n"


def _description(row: Description, picture: bool) -> Iterator[str]:
    yield from (f"### {row.name}", "", f"{plain(row.formula)}", "")
    if row.paper:
        yield f"- Paper: {plain(row.paper)}"
    if row.similarity:
        yield f"- Similarity: {row.similarity}; negatives: {row.negatives}"
    for name, default in row.parameters.items():
        yield f"- `{name}={default:g}` {plain(' '.join(row.meanings.get(name, '').split()))}".rstrip()
    if picture:
        yield from ("", f"![{row.name} as a function of similarity](pictures/losses/{row.name}.svg)")
    yield ""


def command_page() -> str:
    """All commands in the order of `qpairs --help`, with every argument and option."""
    root = command_line()
    panel_of = {_name(function): panel for panel, functions in PANELS.items() for function in functions}
    parts = [MADE, "", "# Command line", "", "What `qpairs COMMAND --help` prints, on one page.", ""]
    for name, command in root.commands.items():
        inner = getattr(command, "commands", {})
        parts += _command(f"qpairs {name}", command, panel_of.get(name, "Evaluate"))
        for below, one in inner.items():
            parts += _command(f"qpairs {name} {below}", one, "")
    return "\n".join(parts).rstrip() + "\n"


def _name(function: Any) -> str:
    return function.__name__.replace("_", "-")


def _command(name: str, command: Any, panel: str) -> Iterator[str]:
    yield from (f"## {name}" if panel else f"### {name}", "", plain(command.help or ""), "")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = " ".join(f"[{_argument(p)}]" if not p.required else _argument(p) for p in arguments)
    more = "COMMAND" if getattr(command, "commands", None) else words
    yield from ("```text", f"{name} {more} [OPTIONS]".replace("  ", " "), "```", "")
    groups: dict[str, list[Any]] = {}
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            groups.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(parameter)
    for parameter in arguments:
        yield f"- `{_argument(parameter)}` {plain(parameter.help or '')}"
    yield from [""] if arguments else []
    for title, options in groups.items():
        yield from (f"**{title}**", "", "| option | |", "| --- | --- |")
        for option in options:
            flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
            yield f"| {flags} | {plain(' '.join((option.help or '').split()))}{_default(option)} |"
        yield ""


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name).upper()


def _default(option: Any) -> str:
    """The default of an option, unless its help text says it already, or there is none."""
    shown = getattr(option, "show_default", False)
    if not shown or option.default in (None, "", [], ()) or option.is_flag or "default:" in (option.help or ""):
        return ""
    return plain(f" [default: {option.default}]")


def pages() -> dict[str, str]:
    """File names below docs/ -> the pages."""
    return {"losses.md": losses_page(), "reference/cli.md": command_page()}


def main() -> None:
    """Writes the pages."""
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
