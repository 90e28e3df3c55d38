"""The help texts: panels, ranges, defaults, nothing cut off, no text read as markup."""

import re

import pytest

from qpairs.commands import command_line
from qpairs.commands.panels import MOST, PANELS
from qpairs.config import GROUPS, HELP, OPTIONS, allowed_values, flag_of

COMMANDS = list(command_line().commands)


def panels(text: str) -> dict[str, str]:
    """The title of each panel, and what is in it, on one line."""
    found = re.findall(r"╭─ (.+?) ─+╮\n(.*?)╰─", text, re.DOTALL)
    return {title: " ".join(body.replace("│", " ").split()) for title, body in found}


@pytest.fixture
def helped(run, monkeypatch: pytest.MonkeyPatch):
    def call(command: str, width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        result = run(command, "--help")
        assert result.code == 0
        return result.out

    return call


@pytest.mark.parametrize("command", ["train", "compare", "audit"])
def test_every_group_of_options_has_a_panel(helped, command: str) -> None:
    shown = panels(helped(command, 120))
    titles = [title for title in shown if title.lower() in GROUPS]
    second = [] if command == "compare" else ["Reranker"]
    assert titles == ["Data", "Encoder", "Objective", "Teachers", *second, "Schedule", "Batches", "Run"]
    assert "--seed" in shown["Run"]
    assert "--dropout" in shown["Encoder"]
    assert "--seed" not in shown["Schedule"]


def test_the_options_of_a_comparison_are_in_a_panel_of_their_own(helped) -> None:
    shown = panels(helped("compare", 120))
    assert list(shown)[:2] == ["Options", "Comparison"]
    assert all(f"--{name} " in shown["Comparison"] for name in ("losses", "encoders", "miners", "seeds", "output"))
    assert "[default: 5; x >= 0]" in shown["Schedule"]  # budget_minutes
    assert "[default: no limit; x > 0]" in shown["Schedule"]  # epochs


def test_train_shows_help_range_and_default_of_every_field(helped) -> None:
    shown = " ".join(panels(helped("train", 120)).values())
    for name in OPTIONS:
        assert f"{flag_of(name)} " in shown
        assert allowed_values(name) in shown
    words = set(shown.split())
    assert all(set(text.split()) <= words for text in HELP.values())
    for facts in (
        "training. [default: 0.1; 0 <= x < 1]",
        "encoder's default. [x > 0]",
        "[default: auto; one of auto, fp32, bf16]",
        "Evaluations and checkpoints per epoch. [default: 2; x > 0]",
        "instead of stopping at the first. [default: no]",
    ):
        assert facts in re.sub(r"--\S+ +|<\w+> +", "", shown)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_off_and_no_text_is_read_as_markup(helped, command: str, width: int) -> None:
    text = helped(command, width)
    assert "…" not in text
    assert "\x1b" not in text
    assert all(len(line) <= width for line in text.splitlines())
    shown = set(text.replace("│", " ").split())
    described = command_line().commands[command]
    for written in (described.help, *(parameter.help for parameter in described.params)):
        assert set(written.replace("\\[", "[").split()) <= shown


@pytest.mark.parametrize("command", [*COMMANDS, "label pairs", "label agreement"])
def test_many_options_are_in_named_panels(run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = panels(run(*command.split(), "--help").out)
    root = command_line()
    named = root.commands["label"].commands[command.split()[1]] if " " in command else root.commands[command]
    options = [option for option in named.params if option.param_type_name == "option"]
    assert sum(not option.rich_help_panel for option in options) <= MOST
    assert len(options) <= MOST or len(set(shown) - {"Options", "Arguments"}) >= 1
    for panel in {option.rich_help_panel for option in options} - {None}:
        own = [option for option in options if option.rich_help_panel == panel]
        assert all(max(option.opts, key=len) in shown[panel] for option in own)


def test_the_panels_are_of_options_that_are_there() -> None:
    root = command_line()
    commands = root.commands | root.commands["label"].commands
    for name, panels_of in PANELS.items():
        listed = [option for options in panels_of.values() for option in options]
        assert len(listed) == len(set(listed))
        assert set(listed) <= {option.name for option in commands[name].params}


@pytest.mark.parametrize("command", [(), ("label",)])
@pytest.mark.parametrize("width", [80, 120])
def test_the_summaries_of_commands_are_whole(
    run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = run(*command, "--help").out
    assert "…" not in text and "..." not in text.replace("COMMAND [ARGS]...", "")
    shown, root = " ".join(panels(text).values()), command_line()
    for listed in (root.commands["label"] if command else root).commands.values():
        summary = (listed.help or "").split("\n\n")[0]
        assert " ".join(summary.split()) in shown


@pytest.mark.parametrize(
    ("command", "default"), [("search", "more likely a duplicate than not"), ("dedupe", "chosen for")]
)
def test_the_threshold_has_the_default_of_its_command(helped, command: str, default: str) -> None:
    shown = panels(helped(command, 120))["Verdict"]
    assert re.search(rf"--threshold .*?\[default: [^]]*{default}", shown)


@pytest.mark.parametrize("command", [*COMMANDS, "label pairs", "label agreement"])
def test_every_command_imports_modules_of_ones_own(command: str) -> None:
    root = command_line()
    named = root.commands["label"].commands[command.split()[1]] if " " in command else root.commands[command]
    if command != "label":
        assert "--import" in {flag for option in named.params for flag in option.opts}


def test_brackets_in_help_texts_stay(helped) -> None:
    assert "id[:config]" in helped("train", 120)
    assert "[#COLLECTION]" in " ".join(panels(helped("index", 120))["Options"].split())


def test_the_commands_are_listed_in_panels(run) -> None:
    shown = panels(run("--help").out)
    assert list(shown) == ["Options", "Begin", "Train", "Evaluate", "Look at data", "Search", "Publish"]
    assert all(any(command in body.split() for body in shown.values()) for command in COMMANDS)
