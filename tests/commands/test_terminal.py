"""The progress bar, and text that a terminal shows as it is."""

import io
import logging

import numpy as np
import pytest
from mocks import MockModel
from rich.console import Console

import qpairs
from qpairs.commands import terminal
from qpairs.core.progress import Progress
from qpairs.core.shell import shown_command


def shown(now: Progress) -> str:
    return terminal._state(now)


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (Progress("loading"), ""),
        (Progress("reading", 1200), "1,200"),
        (Progress("encoding", 12, 3400, rate=250.4), "12 of 3,400, 250/s"),
        (Progress("indexing", 1, 2, note="part 3"), "1 of 2, part 3"),
        (
            Progress("training", 1, 2, 4.0, metrics={"pairs_per_second": 256, "loss": 0.5, "epoch": 1, "other": 3}),
            "1 of 2, epoch 1.00, loss 0.500, 256 pairs/s",
        ),
    ],
)
def test_what_is_shown_beside_the_bar(now: Progress, text: str) -> None:
    assert shown(now) == text


def test_each_evaluation_has_one_line_that_stays(capsys: pytest.CaptureFixture[str]) -> None:
    def at(step: int, **metrics: float) -> Progress:
        return Progress("training", step, 20, metrics={"loss": 0.25, **metrics})

    first, second = {"f1": 0.5, "average_precision": 0.625}, {"f1": 0.5, "average_precision": 0.75}
    with terminal.progress_bar() as on_progress:
        for now in (at(5), at(10, **first), at(11, **first), at(20, **second)):
            on_progress(now)
    assert capsys.readouterr().err.splitlines() == [
        "training, step 10 of 20:  loss 0.250, validation F1 0.500, AP 0.625",
        "training, step 20 of 20:  loss 0.250, validation F1 0.500, AP 0.750",
    ]


@pytest.mark.parametrize(("pace", "lines"), [(0.0, 2), (30.0, 0)])
def test_a_log_file_gets_a_line_of_progress_now_and_then(
    monkeypatch: pytest.MonkeyPatch, pace: float, lines: int
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=log, width=120))
    monkeypatch.setattr(terminal, "PACE", pace)
    with terminal.progress_bar() as on_progress:
        on_progress(Progress("reading [pairs]", 310, 1000, rate=10))
        on_progress(Progress("training", 5, 20, metrics={"loss": 0.25, "pairs_per_second": 44.0}))
    both = ["reading [pairs]: 310 of 1,000, 10/s", "training: 5 of 20, loss 0.250, 44 pairs/s"]
    assert log.getvalue().splitlines() == both[:lines]


def test_the_bar_draws_any_stage_and_reads_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=screen, force_terminal=True, width=120))
    with terminal.progress_bar() as on_progress:
        on_progress(Progress("reading", 1, 2))
        on_progress(Progress("fold [1] of 2", 30, 0, rate=7, note="[/red] x[bold]"))
    assert "fold [1] of 2" in screen.getvalue()
    assert "30, 7/s, [/red] x[bold]" in screen.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_in_a_narrow_terminal_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=screen, force_terminal=True, width=width))
    metrics = {"epoch": 1.25, "loss": 0.5, "f1": 0.5, "average_precision": 0.5, "pairs_per_second": 12345.0}
    with terminal.progress_bar() as on_progress:
        on_progress(Progress("training the teacher", 12345, 234567, metrics=metrics))
    assert "training the teacher" in screen.getvalue()
    assert "…" not in screen.getvalue()
    assert "12,345 pairs/s" in " ".join(screen.getvalue().split()) or width == 80


def test_plain_text_is_one_line_without_markup() -> None:
    assert terminal.plain("a\n [bold]b") == r"a \[bold]b"


@pytest.mark.parametrize("steers", ["\x1b]52;c;aGk=\x07", "\x9b2J", "\x1b[31m", "\r", "\b", "\u202e", "\x00", "\x7f"])
def test_no_text_steers_the_terminal(steers: str) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=200)
    console.print(f"{terminal.plain(f'a{steers}b')} {terminal.plain('[/b or]')}", highlight=False)
    shown = screen.getvalue()
    assert not set(shown) & set("\x1b\x07\x9b\r\b\u202e\x00\x7f")
    assert shown.startswith("a")
    assert shown.endswith("b [/b or]\n")


def test_a_warning_of_the_library_steers_nothing_and_is_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=screen, width=40, emoji=False))
    log, command = logging.getLogger("qpairs.test"), shown_command("qpairs", "train", "--output", "a  [b] :x:" * 5)
    with terminal.quiet():
        log.warning("interrupted; go on with: %s", command)
        try:
            raise ValueError("\x1b[2J [/b]")
        except ValueError:
            log.exception("it failed")
    first, *rest = screen.getvalue().splitlines()
    assert first == f"WARNING  interrupted; go on with: {command}"
    assert rest[0] == "ERROR    it failed" and rest[-1] == r"ValueError: \x1b[2J [/b]"
    assert "\x1b" not in screen.getvalue()


@pytest.mark.parametrize("collapsed", [False, True])
def test_a_useless_model_is_named_so_once(capsys: pytest.CaptureFixture[str], collapsed: bool) -> None:
    labels = [0, 1] * 50
    pairs = qpairs.pairs_from_texts([f"{k}" for k in range(100)], [f"other {k}" for k in range(100)], labels)
    angle = 0.0 if collapsed else 1.5  # between the questions of a pair, whatever its label
    angles = {text: angle * (k % 7) / 7 for k, text in enumerate(pairs.questions)}

    class Encoder:
        dimension = 2

        def encode(self, texts, side="left"):
            return np.array([[np.cos(angles[text]), np.sin(angles[text])] for text in texts], dtype=np.float32)

    report = qpairs.evaluate(MockModel(Encoder()), pairs)
    assert report.trivial.startswith("no better than calling everything a duplicate (F1 0.67)")
    terminal.print_report(report.to_dict(), "pairs")
    shown = " ".join(capsys.readouterr().out.split())
    assert ("The model has collapsed" in shown) == collapsed
    assert (f"The model is {report.trivial}." in shown) == (not collapsed)
    old = {name: value for name, value in report.to_dict().items() if name not in ("trivial", "seen_in_training")}
    terminal.print_report(old, "pairs")  # as an older checkpoint has it
    assert "no better" not in capsys.readouterr().out
