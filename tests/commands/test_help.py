"""The help texts: panels, ranges, defaults, nothing cut off, no text read as markup."""

import re

import pytest

from qpairs.commands import command_line
from qpairs.commands.training import FLAGS
from qpairs.config import GROUPS, HELP, OPTIONS, allowed_values

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
        assert f"{FLAGS.get(name, '--' + name.replace('_', '-'))} " in shown
        assert allowed_values(name) in shown
    words = set(shown.split())
    assert all(set(text.split()) <= words for text in HELP.values())
    for facts in (
        "training. [default: 0.1; 0 <= x < 1]",
        "encoder's own. [x > 0]",
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


def test_brackets_in_help_texts_stay(helped) -> None:
    assert "id[:config]" in helped("train", 120)
    assert "[#COLLECTION]" in " ".join(panels(helped("index", 120))["Options"].split())


def test_the_commands_are_listed_in_panels(run) -> None:
    shown = panels(run("--help").out)
    assert list(shown) == ["Options", "Begin", "Train", "Evaluate", "Look at data", "Search", "Publish"]
    assert all(any(command in body.split() for body in shown.values()) for command in COMMANDS)
